import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 100;
const THREADS = 2;
const CODE = 0x1a;
/** SWERROR: bit 0 valid, bits 15:8 the error; nothing of a descriptor. Linux idxd registers.h, union sw_err_reg. */
const FIRST_WORD = (CODE << 8) | 1;

const script = `
idxd
configure one.json
ask swerror ${CODE}
eventually 5 logs 'err\\[3\\]'
cat /sys/bus/dsa/devices/dsa0/errors | send errors
dmatest after ${ITERATIONS} ${THREADS}
ask swerror ${CODE}
eventually 5 eval '[ $(dmesg | grep -c "err\\[3\\]") = 2 ]'
unconfigure dsa0
`;

export const softwareError: Scenario = {
  id: 'g',
  name: 'software-error',
  about: 'an error in SWERROR by injection: the driver logs its words, shows them in sysfs, acknowledges it and works on',
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const answer = async (question: string) => {
      if (question.startsWith('swerror ')) await server.inject(question);
      return undefined;
    };
    const guest = await lab.guest({ servers: [server], files: { 'one.json': configFile(kernelQueues(0, 1)) }, script, answer });
    const words = [FIRST_WORD, 0, 0, 0].map((word) => word.toString(16).padStart(16, '0'));
    const logged = guest.log.flatMap((line) => /idxd .*: err\[\d\]: 0x([0-9a-f]{16})/.exec(line)?.[1] ?? []);
    lab.equal('words of SWERROR in the log, of both errors', logged, [...words, ...words]);
    lab.equal('errors in sysfs', guest.text('errors'), [0, 0, 0, 0, 0, 0, 0, FIRST_WORD].map((word) => word.toString(16).padStart(8, '0')).join(','));
    lab.dmatest('after it', guest.dmatest('after'), { channels: 1, threads: THREADS, tests: ITERATIONS });
    lab.logged(guest.log, /err\[0\]/);
  },
};
