import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 500;
const THREADS = 2;

const script = `
idxd
eventually 5 test -e /sys/bus/dsa/devices/dsa1
configure both.json
for channel in $(channels); do echo "$channel $(readlink /sys/class/dma/$channel/device)"; done | send channels
dmatest both ${ITERATIONS} ${THREADS}
unconfigure dsa0
unconfigure dsa1
`;

export const twoDevices: Scenario = {
  id: 'e',
  name: 'two-devices',
  about: 'two devices of one process work at once, each on its own queue',
  async run(lab) {
    const server = await lab.serve('dsa-spr', 2);
    const files = { 'both.json': configFile(kernelQueues(0, 1), kernelQueues(1, 1)) };
    const guest = await lab.guest({ servers: [server], cpus: 2, files, script });
    lab.dmatest('2 devices', guest.dmatest('both'), { channels: 2, threads: THREADS, tests: ITERATIONS });
    const counters = await server.stop();
    lab.equal(
      'descriptors of each device',
      counters.map(({ descriptors, failed }) => [descriptors, failed]),
      [
        [THREADS * ITERATIONS, 0],
        [THREADS * ITERATIONS, 0],
      ],
    );
    for (const line of guest.lines('channels')) lab.show(line);
  },
};
