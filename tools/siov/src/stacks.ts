/** The two models as the command line builds them. */
import type { Profile } from '@siov/idxd-device';
import type { Vdev } from '@siov/idxd-mdev';
import type { CostTable, HostOptions, Trace } from '@siov/stack';
import { MdevStack, openGuestQueue } from '@siov/stack/mdev';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import type { Mode, Ready } from './model.js';
import { native } from './native.js';

export interface StackChoice {
  readonly mode: Mode;
  readonly wqSize: number;
  readonly device: Profile;
  readonly blockOnFault: boolean;
  readonly ramBytes: number;
  readonly costs: CostTable;
  readonly scatter?: number;
  /** A second queue of the same kind, for a neighbour. */
  readonly neighbour?: boolean;
  readonly trace?: Trace & { clock: { readonly now: number } | undefined };
}

const hostOptions = (choice: StackChoice): HostOptions => ({
  ramBytes: choice.ramBytes,
  costs: choice.costs,
  devices: [choice.device],
  native,
  ...(choice.scatter === undefined ? {} : { scatter: choice.scatter }),
  ...(choice.trace ? { trace: choice.trace } : {}),
});

export function buildUacce(choice: StackChoice): Ready & { readonly stack: UacceStack } {
  const { mode, wqSize, blockOnFault } = choice;
  const size = choice.neighbour && mode === 'dedicated' ? Math.ceil(wqSize / 2) : wqSize;
  const wq = { mode, size, group: 0, blockOnFault, type: 'user' } as const;
  const wqs = choice.neighbour && mode === 'dedicated' ? [wq, wq] : [wq];
  const stack = new UacceStack({ ...hostOptions(choice), config: { wqs } });
  if (choice.trace) choice.trace.clock = stack.host.clock;
  const { host } = stack;
  const open = openUacceQueue(stack, mode);
  return {
    model: 'uacce',
    stack,
    host,
    kernel: host.kernel,
    kernels: [host.kernel],
    open,
    neighbour: open,
    run: () => host.kernel.user.run(),
    traps: () => 0,
    unbind: () => stack.unbind(),
  };
}

export function buildMdev(choice: StackChoice): Ready & { readonly stack: MdevStack; readonly vdev: Vdev } {
  const { wqSize, blockOnFault } = choice;
  const size = choice.neighbour ? Math.ceil(wqSize / 2) : wqSize;
  // The guest has half of the host's memory.
  const guestRamBytes = Math.floor(choice.ramBytes / 2 / 2 ** 21) * 2 ** 21;
  const stack = new MdevStack({ ...hostOptions(choice), wq: { size, blockOnFault }, vdevs: choice.neighbour ? 2 : 1, guestRamBytes });
  if (choice.trace) choice.trace.clock = stack.host.clock;
  const { host, guest, vdev } = stack;
  return {
    model: 'mdev',
    stack,
    vdev,
    host,
    kernel: guest,
    kernels: [host.kernel, guest],
    open: openGuestQueue(stack),
    neighbour: openGuestQueue(stack, 1),
    run: () => stack.run(),
    traps: () => stack.traps,
    exits: () => stack.exits,
    unbind: () => stack.unbind(),
  };
}
