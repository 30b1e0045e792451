import type { Scenario } from '../lab.js';
import { configFile, type Device, kernelQueues } from './queues.js';

const script = `
idxd
configure config.json
accel-config list | send list
accel-config save-config -s saved.json > /dev/null
send saved < saved.json
channels | send channels
unconfigure dsa0
accel-config list -i | send after
`;

/** Two groups, so that more than one line of the table of groups is used. */
const config: Device = {
  dev: 'dsa0',
  groups: [
    ...kernelQueues(0, 2).groups,
    {
      dev: 'group0.1',
      grouped_workqueues: [
        {
          ...{ dev: 'wq0.5', mode: 'dedicated', size: 40, group_id: 1, priority: 3, block_on_fault: 0 },
          ...{ type: 'kernel', name: 'wide', driver_name: 'dmaengine' },
        },
      ],
      grouped_engines: [{ dev: 'engine0.3', group_id: 1 }],
    },
  ],
};

/** What `part` says, as far as `whole` is asked: lists by their members' names. */
function same(whole: unknown, part: unknown): unknown {
  if (Array.isArray(part) && Array.isArray(whole))
    return part.map((p: { dev?: string }) =>
      same(
        whole.find((w: { dev?: string }) => w.dev === p.dev),
        p,
      ),
    );
  if (typeof part === 'object' && part !== null && typeof whole === 'object' && whole !== null)
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, same((whole as Record<string, unknown>)[key], value)]));
  return whole;
}

export const accelConfig: Scenario = {
  id: 'c',
  name: 'accel-config',
  about: 'accel-config sets the device up from a file, enables it, and lists and saves the same again',
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const guest = await lab.guest({ servers: [server], script, files: { 'config.json': configFile(config) } });
    const listed = guest.json('list') as { dev: string; state: string; groups: { grouped_workqueues: { dev: string; state: string }[] }[] }[];
    const saved = guest.json('saved') as { dev: string }[];
    lab.equal('what was listed', same(listed, [config]), [config]);
    lab.equal('what was saved', same(saved, [config]), [config]);
    const [device] = listed;
    lab.equal('state of the device', device?.state, 'enabled');
    const queues = device?.groups.flatMap((group) => group.grouped_workqueues ?? []) ?? [];
    lab.equal('states of the queues', queues.map(({ dev, state }) => `${dev} ${state}`).sort(), ['wq0.0 enabled', 'wq0.1 enabled', 'wq0.5 enabled']);
    lab.show(
      `listed: ${queues
        .map(({ dev, state }) => `${dev} ${state}`)
        .sort()
        .join(', ')}; DMA channels ${guest.lines('channels').join(', ')}`,
    );
    lab.equal('DMA channels', guest.lines('channels').length, 3);
    const after = guest.json('after') as { dev: string; state: string }[];
    lab.equal('state of the device at the end', after.find((d) => d.dev === 'dsa0')?.state, 'disabled');
  },
};
