import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 200;
const THREADS = 2;
/** More than the guest gets through before it is ended. */
const ENDLESS = 1_000_000;

const script = `
idxd
configure one.json
ask part
part=$answer
if [ $part = killed ]; then dmatest killed ${ENDLESS} ${THREADS}; else dmatest $part ${ITERATIONS} ${THREADS}; fi
if [ $part = first ]; then restart; fi
unconfigure dsa0
`;

export const comingAndGoing: Scenario = {
  id: 'j',
  name: 'coming-and-going',
  about: "the guest reboots, QEMU is killed in the midst of work, a new one connects: the device's process serves them all and keeps nothing of them",
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const before = server.descriptors;
    const files = { 'one.json': configFile(kernelQueues(0, 1)) };
    const expected = { channels: 1, threads: THREADS, tests: ITERATIONS };

    const parts = ['first', 'rebooted'];
    const rebooted = await lab.guest({
      ...{ servers: [server], files, script, reboots: true },
      answer: (question) => (question === 'part' ? parts.shift() : undefined),
    });
    lab.dmatest('before the reboot', rebooted.dmatest('first'), expected);
    lab.dmatest('after it', rebooted.dmatest('rebooted'), expected);
    await server.says('gone', 1);
    lab.equal('file descriptors after a guest has gone', server.descriptors, before);

    let begun = (): void => {};
    const begin = new Promise<void>((resolve) => (begun = resolve));
    const killed = lab.boot({
      ...{ servers: [server], files, script },
      answer(question) {
        if (question === 'begin') begun();
        return question === 'part' ? 'killed' : undefined;
      },
    });
    await Promise.race([begin, killed.end()]);
    const at = server.count('counters');
    await server.says('counters', at + 5);
    await killed.kill();
    await server.says('gone', 2);
    lab.show(`killed after ${server.now(0).descriptors} descriptors`);
    lab.equal('file descriptors after a kill', server.descriptors, before);
    lab.equal("guest memory that stays mapped in the device's process", server.guestMappings, []);

    const next = await lab.guest({ servers: [server], files, script, answer: (question) => (question === 'part' ? 'next' : undefined) });
    lab.dmatest('after a kill', next.dmatest('next'), expected);
    await server.says('gone', 3);
    lab.equal('file descriptors at the end', server.descriptors, before);
    lab.show(`${before} file descriptors before, ${server.descriptors} at the end`);
  },
};
