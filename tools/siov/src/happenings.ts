/** What can be made to happen in the middle of a run: a neighbour dies, or the device goes. */
import { bytesSource, Workload } from '@siov/stack';
import type { Happening, Ready } from './model.js';
import type { RunChoice } from './run-options.js';

/**
 * `kill`: a second process runs the same work on the same device and is killed half-way; the first must not notice. `unbind`: the driver
 * takes the device away half-way; the portal's pages go, and a store to them kills the process.
 */
export function happening(choice: RunChoice): (ready: Ready) => Happening | undefined {
  if (choice.happening === 'kill')
    return (ready) => {
      const neighbour = new Workload({ ...choice.workload, source: bytesSource(new Uint8Array(16 << 20).fill(0x5a)) }, ready.neighbour);
      const task = ready.kernel.user.spawn(neighbour, 'neighbour');
      return {
        what: 'a neighbour was killed in the middle of its work',
        run() {
          ready.kernel.user.kill(task.pid);
          const { descriptors, wrong } = neighbour.result;
          return `it had prepared ${descriptors} descriptors, ${wrong} results were wrong; its address space is gone`;
        },
      };
    };
  if (choice.happening === 'unbind')
    return (ready) => ({
      what: 'the driver took the device back in the middle of the work',
      run() {
        ready.unbind();
        return 'the queue is gone, and the portal page with it';
      },
    });
  return () => undefined;
}
