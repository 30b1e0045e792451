/** The two models as the command line builds them. */
import type { Vdev } from '@siov/idxd-mdev';
import type { CostTable, HostOptions, Trace } from '@siov/stack';
import { MdevStack, openGuestQueue } from '@siov/stack/mdev';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import type { Mode, Ready } from './model.js';

export interface StackChoice {
  readonly mode: Mode;
  readonly wqSize: number;
  readonly blockOnFault: boolean;
  readonly ramBytes: number;
  readonly costs: CostTable;
  readonly scatter?: number;
  readonly trace?: Trace & { clock: { readonly now: number } | undefined };
}

const hostOptions = (choice: StackChoice): HostOptions => ({
  ramBytes: choice.ramBytes,
  costs: choice.costs,
  ...(choice.scatter === undefined ? {} : { scatter: choice.scatter }),
  ...(choice.trace ? { trace: choice.trace } : {}),
});

export function buildUacce(choice: StackChoice): Ready & { readonly stack: UacceStack } {
  const { mode, wqSize: size, blockOnFault } = choice;
  const stack = new UacceStack({ ...hostOptions(choice), config: { wqs: [{ mode, size, group: 0, blockOnFault, type: 'user' }] } });
  if (choice.trace) choice.trace.clock = stack.host.clock;
  const { host } = stack;
  return {
    model: 'uacce',
    stack,
    host,
    kernel: host.kernel,
    kernels: [host.kernel],
    open: openUacceQueue(stack, mode),
    run: () => host.kernel.user.run(),
    traps: () => 0,
  };
}

export function buildMdev(choice: StackChoice): Ready & { readonly stack: MdevStack; readonly vdev: Vdev } {
  const { wqSize: size, blockOnFault } = choice;
  // The guest has half of the host's memory.
  const guestRamBytes = Math.floor(choice.ramBytes / 2 / 2 ** 21) * 2 ** 21;
  const stack = new MdevStack({ ...hostOptions(choice), wq: { size, blockOnFault }, guestRamBytes });
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
    run: () => stack.run(),
    traps: () => stack.traps,
    exits: () => stack.exits,
  };
}
