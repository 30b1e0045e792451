import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 500;
const THREADS = 2;
/** More than one message carries (1 MiB, as QEMU has it); as much as a queue takes by the driver's default. */
const LARGE = 2 * 2 ** 20;
const LARGE_ITERATIONS = 20;

const script = `
idxd
configure one.json
ask memory
dmatest test ${ITERATIONS} ${THREADS}
unconfigure dsa0
configure one.json
dmatest large ${LARGE_ITERATIONS} ${THREADS} ${LARGE}
unconfigure dsa0
`;

export const kindsOfDma: Scenario = {
  id: 'i',
  name: 'kinds-of-dma',
  about: 'the device reaches guest memory that it has mapped, and memory that only messages reach, up to 2 MiB at a time',
  async run(lab) {
    const files = { 'one.json': configFile(kernelQueues(0, 1)) };
    for (const dma of ['mapped', 'messages'] as const) {
      const server = await lab.serve('dsa-spr');
      let mapped = -1;
      const answer = (question: string): undefined => {
        if (question === 'memory') mapped = server.guestMappings.length;
      };
      const guest = await lab.guest({ servers: [server], cpus: 2, dma, files, script, answer });
      if (dma === 'mapped') lab.holds("guest memory is mapped in the device's process", mapped > 0);
      else lab.equal("guest memory that is mapped in the device's process", mapped, 0);
      lab.dmatest(dma, guest.dmatest('test'), { channels: 1, threads: THREADS, tests: ITERATIONS });
      lab.dmatest(`${dma}, 2 MiB`, guest.dmatest('large'), { channels: 1, threads: THREADS, tests: LARGE_ITERATIONS });
      const [counters] = await server.stop();
      lab.equal(`descriptors, ${dma}`, [counters?.descriptors, counters?.failed], [THREADS * (ITERATIONS + LARGE_ITERATIONS), 0]);
      lab.latency(`${dma}, 4 % of them of 2 MiB`, counters);
      lab.logged(guest.log, /summary .* 0 failures/);
    }
  },
};
