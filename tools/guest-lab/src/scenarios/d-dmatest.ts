import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 500;
const THREADS = 2;
const counts = [1, 2, 8];

const script = `
idxd
for queues in ${counts.join(' ')}; do
  configure $queues.json
  dmatest $queues ${ITERATIONS} ${THREADS}
  unconfigure dsa0
done
`;

export const dmatest: Scenario = {
  id: 'd',
  name: 'dmatest',
  about: `the kernel's dmatest copies and compares, ${THREADS} threads x ${ITERATIONS} on each of ${counts.join(', ')} dedicated queues, on 1 and on 2 processors`,
  async run(lab) {
    const files = Object.fromEntries(counts.map((count) => [`${count}.json`, configFile(kernelQueues(0, count))]));
    for (const cpus of [1, 2]) {
      const server = await lab.serve('dsa-spr');
      const guest = await lab.guest({ servers: [server], cpus, files, script });
      for (const count of counts)
        lab.dmatest(`${count} wq, ${cpus} cpu`, guest.dmatest(`${count}`), { channels: count, threads: THREADS, tests: ITERATIONS });
      const [counters] = await server.stop();
      // Each test is one descriptor, and each descriptor one MOVDIR64B.
      const descriptors = counts.reduce((sum, count) => sum + count, 0) * THREADS * ITERATIONS;
      lab.equal('descriptors that the device carried out', counters?.descriptors, descriptors);
      lab.equal('descriptors that failed', counters?.failed, 0);
      lab.equal('MOVDIR64B carried out in the guest', Number(guest.text('shim')), descriptors);
      lab.latency(`${cpus} cpu`, counters);
      if (cpus === 2) lab.logged(guest.log, /summary .* 0 failures/);
    }
  },
};
