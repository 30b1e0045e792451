/** What the thread of thread.test.ts serves. */
import type { ServerParts } from '../src/index.js';
import { SampleDevice } from './sample.js';

export default function devices(data: { readonly paths: readonly string[]; readonly fail?: string }): ServerParts {
  if (data.fail) throw new RangeError(data.fail);
  const made = data.paths.map((path) => ({ path, device: new SampleDevice() }));
  let told = 0;
  return {
    devices: made,
    counters: (out) => {
      out[0] = told;
    },
    message: (message, tell) => {
      told++;
      tell({ echo: message, register: made[0]!.device.memory[0]![0] });
    },
  };
}
