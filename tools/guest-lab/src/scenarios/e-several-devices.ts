import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 500;
const THREADS = 2;

const script = `
idxd
eventually 5 test -e /sys/bus/dsa/devices/dsa2
configure all.json
for channel in $(channels); do echo "$channel is of $(basename $(readlink /sys/class/dma/$channel/device))"; done | send channels
dmatest all ${ITERATIONS} ${THREADS}
for device in dsa0 dsa1 dsa2; do unconfigure $device; done
`;

export const severalDevices: Scenario = {
  id: 'e',
  name: 'several-devices',
  about: 'two devices of one process and one of another kind, with interrupt handles and an event log, work at once, each on its own queue',
  async run(lab) {
    const servers = [await lab.serve('dsa-spr', 2), await lab.serve('dsa-gnrd')];
    const files = { 'all.json': configFile(...[0, 1, 2].map((device) => kernelQueues(device, 1))) };
    const guest = await lab.guest({ servers, cpus: 2, files, script });
    lab.dmatest('3 devices', guest.dmatest('all'), { channels: 3, threads: THREADS, tests: ITERATIONS });
    for (const server of servers)
      for (const { descriptors, failed } of await server.stop())
        lab.equal(`descriptors of a ${server.device}, and how many failed`, [descriptors, failed], [THREADS * ITERATIONS, 0]);
    for (const line of guest.lines('channels')) lab.show(line);
  },
};
