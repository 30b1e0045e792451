import type { Scenario } from '../lab.js';
import { configFile, type Device, kernelQueues } from './queues.js';

const ITERATIONS = 100;
const THREADS = 2;

/** The queue of the halt that ends by FLR is a user's: those are what the driver puts back after it. It forgets queues of the kernel. */
const userQueue = (device: Device): Device => ({
  ...device,
  groups: device.groups.map((group) => ({
    ...group,
    grouped_workqueues: group.grouped_workqueues.map((queue) => ({ ...queue, type: 'user', driver_name: 'user' })),
  })),
});

/**
 * Three halts. FLR: the driver resets the function and puts everything back. Reset command: the driver (as of Linux 7.3) sends no command to a
 * device that says it is halted, not even the reset that it asks for; so it says that, switches its queues off, and whoever administers the
 * machine resets the function. Warm reset: the driver leaves it to a reboot.
 */
const script = `
function=/sys/bus/pci/devices/0000:00:10.0
dsa=/sys/bus/dsa
state() { cat $dsa/devices/dsa0/state $dsa/devices/wq0.0/state $dsa/devices/wq0.0/size $dsa/devices/wq0.0/name | send state-$1; }
found() { [ $(dmesg | grep -c 'Intel(R) Accelerator Device') = $1 ]; }
is() { [ "$(cat $dsa/devices/$1/state)" = $2 ]; }
test_after() {
  configure kernel.json
  dmatest $1 ${ITERATIONS} ${THREADS}
}
idxd
ask boot
if [ $answer = second ]; then
  test_after warm
  unconfigure dsa0
else
  configure user.json
  state before
  ask halt flr
  eventually 10 found 2
  eventually 10 is wq0.0 enabled
  state flr
  unconfigure dsa0
  test_after flr

  ask halt software
  eventually 10 is dsa0 disabled
  state software
  echo wq0.0 > $dsa/drivers/dmaengine/unbind
  echo dsa0 > $dsa/drivers/idxd/unbind
  echo 1 > $function/reset
  test_after software
  unconfigure dsa0

  configure user.json
  ask halt warm
  eventually 10 logs 'need system reset'
  restart
fi
`;

export const halt: Scenario = {
  id: 'f',
  name: 'halt',
  about:
    'the device halts by injection: the driver says so and brings it back by function level reset; other halts end by a reset from sysfs and by a reboot',
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const files = { 'kernel.json': configFile(kernelQueues(0, 1)), 'user.json': configFile(userQueue(kernelQueues(0, 1))) };
    const boots = ['first', 'second'];
    const guest = await lab.guest({
      ...{ servers: [server], files, script, reboots: true },
      async answer(question) {
        if (question === 'boot') return boots.shift();
        if (question.startsWith('halt ')) await server.inject(question);
        return undefined;
      },
    });
    const working = ['enabled', 'enabled', '16', 'queue0'];
    lab.equal('device, queue, its size and name before', guest.lines('state-before'), working);
    lab.equal('the same after the driver has reset the function', guest.lines('state-flr'), working);
    lab.equal('device and queue in a halt that the driver does not end', guest.lines('state-software').slice(0, 2), ['disabled', 'disabled']);
    for (const name of ['flr', 'software', 'warm'])
      lab.dmatest(`after ${name}`, guest.dmatest(name), { channels: 1, threads: THREADS, tests: ITERATIONS });
    const { log } = guest;
    lab.equal(
      'times that the driver found the device: at each boot, and after each reset',
      log.filter((l) => /Intel\(R\) Accelerator Device/.test(l)).length,
      4,
    );
    lab.logged(log, /idxd .*: Device is HALTED!/);
    lab.logged(log, /idxd .*: idxd halted, need system reset/);
  },
};
