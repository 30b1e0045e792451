/**
 * A kernel queue as a DMA channel: the kernel's own clients copy memory with it and are called back. Descriptors and records lie in memory
 * that the kernel shares with the device; completions come by interrupt, out of order. Linux drivers/dma/idxd/dma.c, submit.c, irq.c.
 */
import * as spec from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import type { CompletionInterrupt } from './completion.js';
import type { IdxdDriver, Wq } from './driver.js';
import type { CoherentMemory } from './ports.js';

/** How a transfer ended: done; an error of the device, with the status; or thrown away, as when the queue was disabled or the device halted. */
export type DmaResult = 'success' | 'error' | 'aborted';
/** `status`: the completion status code; `residue`: bytes that were not transferred. */
export type DmaCallback = (result: DmaResult, status: number, residue: number) => void;

const WORDS = 16;
const none: DmaCallback = () => {};

export class DmaChannel {
  // fixed
  readonly #driver: IdxdDriver;
  readonly #wq: Wq;
  /** How many transfers may be under way. */
  readonly depth: number;
  readonly #memory: CoherentMemory;
  readonly #interrupt: CompletionInterrupt;
  readonly #frame: number;
  readonly #shared: boolean;
  readonly #recordWords: number;
  readonly #pasid: number;
  // state
  readonly #idle: number[];
  readonly #busy = new Set<number>();
  readonly #callbacks: DmaCallback[];
  readonly #descriptor = new Uint32Array(WORDS);
  #slot = 0;
  /** Transfers that a revoked interrupt handle ended and that were submitted again. */
  resubmitted = 0;

  private constructor(driver: IdxdDriver, wq: Wq, depth: number, memory: CoherentMemory, pasid: number, interrupt: CompletionInterrupt) {
    this.#driver = driver;
    this.#wq = wq;
    this.depth = depth;
    this.#memory = memory;
    this.#pasid = pasid;
    this.#recordWords = driver.capabilities.recordBytes / 4;
    this.#interrupt = interrupt;
    this.#frame = driver.portalFrame(wq, interrupt.ims);
    this.#shared = wq.config.mode === 'shared';
    this.#idle = Array.from({ length: depth }, (_, i) => depth - 1 - i);
    this.#callbacks = Array.from({ length: depth }, () => none);
    interrupt.onRevoked = () => this.#revoked();
  }

  /** The channel of an enabled queue, or -errno. `pasid`: the kernel's own, -1 without one. */
  static open(driver: IdxdDriver, wq: Wq, pasid: number): DmaChannel | number {
    const dma = driver.dma;
    if (!dma || !driver.ports.submit) return -Errno.EOPNOTSUPP;
    const depth = wq.config.mode === 'shared' ? (wq.config.threshold ?? wq.config.size) : wq.config.size;
    const memory = dma.alloc(depth * (WORDS * 4 + driver.capabilities.recordBytes));
    if (!memory) return -Errno.ENOMEM;
    let channel: DmaChannel | undefined;
    const interrupt = driver.completionInterrupt(wq, pasid, () => channel?.poll());
    if (!interrupt) {
      memory.free();
      return -Errno.ENOSPC;
    }
    channel = new DmaChannel(driver, wq, depth, memory, pasid, interrupt);
    return channel;
  }

  /** Copies `bytes` from one IOVA to another. 0; -EINVAL for a length that the queue does not take, -EAGAIN when `depth` are under way or the queue is full. */
  memcpy(destination: number, source: number, bytes: number, done: DmaCallback = none): number {
    const { config } = this.#wq;
    if (!(bytes >= 1 && bytes <= (config.maxTransferSize ?? 2 ** this.#driver.capabilities.maxTransferShift))) return -Errno.EINVAL;
    const d = this.#start(spec.Opcode.memmove);
    const { set } = spec.Descriptor;
    set.sourceLow(d, 0, source % 2 ** 32);
    set.sourceHigh(d, 0, Math.floor(source / 2 ** 32));
    set.destinationLow(d, 0, destination % 2 ** 32);
    set.destinationHigh(d, 0, Math.floor(destination / 2 ** 32));
    set.size(d, 0, bytes);
    return this.#submit(done);
  }
  /** Nothing but the interrupt. Linux idxd_dma_prep_interrupt. */
  interrupt(done: DmaCallback): number {
    this.#start(spec.Opcode.nop);
    return this.#submit(done);
  }
  /** Transfers under way. */
  get pending(): number {
    return this.#busy.size;
  }
  /** Waits until nothing is under way; false when it never will be. */
  synchronize(): boolean {
    return this.#driver.ports.clock.wait(() => this.#busy.size === 0 || (this.poll(), this.#busy.size === 0));
  }

  /** Looks at the records of what is under way, and calls back for those that are there. The interrupt handler. */
  poll(): void {
    for (const slot of [...this.#busy]) {
      const at = this.#record(slot);
      const status = spec.Record.get.status(this.#memory.words, at);
      if (status === spec.Status.none) continue;
      if (status === spec.Status.interruptHandle && this.#interrupt.handle >= 0 && this.#again(slot)) continue;
      const bytes = this.#memory.words[slot * WORDS + 8]!;
      const completed = spec.Record.get.completed(this.#memory.words, at);
      this.#end(slot, status === spec.Status.success ? 'success' : 'error', status, status === spec.Status.success ? 0 : bytes - completed);
    }
  }

  /** Everything under way is thrown away: the device forgot it. */
  abort(): void {
    this.poll();
    for (const slot of [...this.#busy]) this.#end(slot, 'aborted', 0, this.#memory.words[slot * WORDS + 8]!);
  }
  /** The queue was drained and goes. */
  close(): void {
    this.abort();
    this.#interrupt.free();
    this.#memory.free();
  }

  #start(opcode: number): Uint32Array {
    const d = this.#descriptor.fill(0);
    const { set } = spec.Descriptor;
    set.opcode(d, 0, opcode);
    set.flags(d, 0, spec.Flag.recordAddressValid | spec.Flag.requestRecord | spec.Flag.requestInterrupt);
    if (this.#pasid >= 0) {
      set.pasid(d, 0, this.#pasid);
      set.privileged(d, 0, 1);
    }
    return d;
  }
  #submit(done: DmaCallback): number {
    if (!this.#wq.enabled) return -Errno.ENXIO;
    if (this.#interrupt.handle < 0) return -Errno.ENXIO;
    const slot = this.#idle.pop();
    if (slot === undefined) return -Errno.EAGAIN;
    const d = this.#descriptor;
    const record = this.#memory.iova + (this.depth * WORDS + slot * this.#recordWords) * 4;
    spec.Descriptor.set.recordLow(d, 0, record % 2 ** 32);
    spec.Descriptor.set.recordHigh(d, 0, Math.floor(record / 2 ** 32));
    this.#memory.words.set(d, slot * WORDS);
    if (!this.#post(slot)) {
      this.#idle.push(slot);
      return -Errno.EAGAIN;
    }
    this.#callbacks[slot] = done;
    this.#busy.add(slot);
    return 0;
  }
  #post(slot: number): boolean {
    const { words } = this.#memory;
    const d = words.subarray(slot * WORDS, (slot + 1) * WORDS);
    spec.Descriptor.set.interruptHandle(d, 0, this.#interrupt.handle);
    words.fill(0, this.#record(slot), this.#record(slot) + this.#recordWords);
    const offset = this.#slot;
    this.#slot = (offset + 64) % 4096;
    const submit = this.#driver.ports.submit!;
    if (!this.#shared) {
      submit.movdir64b(this.#frame, offset, d);
      return true;
    }
    for (let tries = this.#driver.settings.wqs[this.#wq.index]!.enqcmdsRetries; tries >= 0; tries--)
      if (submit.enqcmds(this.#frame, offset, d) === 0) return true;
    return false;
  }
  #again(slot: number): boolean {
    if (!this.#post(slot)) return false;
    this.resubmitted++;
    return true;
  }
  #end(slot: number, result: DmaResult, status: number, residue: number): void {
    const done = this.#callbacks[slot]!;
    this.#callbacks[slot] = none;
    this.#busy.delete(slot);
    this.#idle.push(slot);
    done(result, status, residue);
  }
  #record(slot: number): number {
    return this.depth * WORDS + slot * this.#recordWords;
  }

  /**
   * The interrupts of what the old handle ended did not come: a drain with the new one brings an interrupt behind all of it. Without a new
   * handle the queue takes nothing more.
   */
  #revoked(): void {
    if (this.#interrupt.handle < 0) {
      this.poll();
      return;
    }
    if (this.#busy.size === 0) return;
    const d = this.#start(spec.Opcode.drain);
    spec.Descriptor.set.flags(d, 0, spec.Flag.requestInterrupt);
    spec.Descriptor.set.interruptHandle(d, 0, this.#interrupt.handle);
    const submit = this.#driver.ports.submit!;
    if (!this.#shared) submit.movdir64b(this.#frame, 0, d);
    else for (let tries = 32; tries >= 0 && submit.enqcmds(this.#frame, 0, d) !== 0; tries--);
  }
}
