/** What a benchmark across packages is given: a stack with an open queue, however it was composed. Bring your own factory to bench yours. */

import { Opcode } from '@siov/idxd-device/spec';
import { Client, type Portal, type Process } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { type HostOptions, MdevStack, openGuestQueue } from '@siov/stack/mdev';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import type { UserTask } from '@siov/vfs';

export interface BenchStack {
  readonly name: string;
  /** The process that submits; also gives memory (`mmap` with or without 2 MiB pages). */
  readonly process: Process & Pick<UserTask, 'mmap'>;
  readonly portal: Portal;
  /** Lets the device run until the condition holds. */
  wait(until: () => boolean): void;
}
export type StackFactory = (options?: Pick<HostOptions, 'scatter' | 'native'>) => BenchStack;

/** A program that does nothing: its process is driven from outside. */
const idle = { step: () => 'wait' as const };

export const uacce =
  (mode: 'dedicated' | 'shared'): StackFactory =>
  (options = {}) => {
    const stack = new UacceStack({ ramBytes: 256 << 20, config: { wqs: [{ mode, size: 128, group: 0 }] }, ...options });
    const task = stack.host.kernel.user.spawn(idle);
    const portal = openUacceQueue(stack, mode)(task);
    return { name: `uacce ${mode}`, process: task, portal, wait: (until) => void stack.host.clock.wait(until) };
  };

/** A process in a guest, on the virtual device's mapped portal; guest memory in 2 MiB pages. */
export const mdev: StackFactory = (options = {}) => {
  const stack = new MdevStack({ ramBytes: 256 << 20, guestRamBytes: 128 << 20, ...options });
  const task = stack.guest.user.spawn(idle);
  const portal = openGuestQueue(stack)(task);
  return { name: 'mdev dedicated', process: task, portal, wait: (until) => void stack.host.clock.wait(until) };
};

/** One descriptor (or `depth` of them) from portal write to completion record, without an allocation. */
export class Driver {
  readonly #stack: BenchStack;
  readonly #client: Client;
  readonly #depth: number;
  readonly #done: () => boolean;
  #last = 0;
  readonly source: number;
  readonly destination: number;

  constructor(stack: BenchStack, options: { readonly depth?: number; readonly bytes?: number; readonly huge?: boolean } = {}) {
    const { depth = 1, bytes = 0, huge = false } = options;
    this.#stack = stack;
    this.#depth = depth;
    this.#client = new Client(stack.process, stack.portal, { depth });
    const room = Math.ceil(Math.max(bytes, 1) / 2 ** 21) * 2 ** 21;
    const flags = 0x22 | 0x8000 | (huge ? 0x40000 : 0);
    this.source = stack.process.mmap(0, room, 3, flags);
    this.destination = stack.process.mmap(0, room, 3, flags);
    this.#done = () => this.#client.poll(this.#last) !== 0;
  }
  nops(): void {
    const { depth } = this.#client;
    for (let slot = 0; slot < depth; slot++) this.#client.prepare(slot, Opcode.nop, 0, 0, 0, 0, 0);
    this.#submit();
  }
  /** The same as one batch. */
  batchOfNops(): void {
    const { depth } = this.#client;
    for (let slot = 0; slot < depth; slot++) this.#client.prepare(slot, Opcode.nop, 0, 0, 0, 0, 0);
    this.batch();
  }
  /** What the slots hold, as one batch. */
  batch(): void {
    const list = this.#client.descriptors;
    this.#batch ??= new Client(this.#stack.process, this.#stack.portal, { depth: 1 });
    this.#batch.prepare(0, Opcode.batch, hi(list), lo(list), 0, 0, this.#depth);
    while (this.#batch.submit(0) !== 0) throw new Error('the queue is full');
    if (this.#batch.poll(0) === 0) this.#stack.wait(this.#batchDone);
  }
  #batch: Client | undefined;
  readonly #batchDone = (): boolean => this.#batch!.poll(0) !== 0;
  fill(bytes: number): void {
    const { destination } = this;
    for (let slot = 0; slot < this.#depth; slot++)
      this.#client.prepare(slot, Opcode.fill, 0x5a5a_5a5a, 0x5a5a_5a5a, hi(destination), lo(destination), bytes);
    this.#submit();
  }
  run(opcode: number, bytes: number): void {
    const { source, destination } = this;
    for (let slot = 0; slot < this.#depth; slot++)
      this.#client.prepare(slot, opcode, hi(source), lo(source), hi(destination), lo(destination), bytes);
    this.#submit();
  }
  get status(): number {
    return this.#client.poll(0);
  }
  #submit(): void {
    for (let slot = 0; slot < this.#depth; slot++)
      while (this.#client.submit(slot) !== 0) {
        this.#last = 0;
        this.#stack.wait(this.#done);
      }
    for (let slot = 0; slot < this.#depth; slot++) {
      this.#last = slot;
      this.#stack.wait(this.#done);
    }
  }
}
