/**
 * The user's side of a work queue: descriptors built in the process's own memory, submitted to the mapped portal, their records polled, and
 * resumed after a partial completion. Nothing is allocated per descriptor: a client owns `depth` slots, and a slot is a number.
 */

import {
  ApplyDeltaDescriptor,
  CompareDescriptor,
  CrcDescriptor,
  CreateDeltaDescriptor,
  Descriptor,
  DualcastDescriptor,
  FillDescriptor,
  Flag,
  Opcode,
  Status,
  TranslationFetchDescriptor,
} from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';
import { type Dif, putDif } from './client-dif.js';
import { type Result, resultOf } from './client-result.js';
import { goOn } from './client-resume.js';

/** What a client needs of the process that runs it: instructions on its memory (addresses as two int32 words), and memory. */
export interface Process {
  /** Word index into `view` of a 4-aligned address; valid to the page's end. `access` 1: for stores. */
  words(addressHigh: number, addressLow: number, access: number): number;
  readonly view: Uint32Array;
  movdir64b(toHigh: number, toLow: number, fromHigh: number, fromLow: number): void;
  /** 0 taken, 1 retry. */
  enqcmd(toHigh: number, toLow: number, fromHigh: number, fromLow: number): number;
  /** Anonymous memory, populated; its address. */
  alloc(bytes: number): number;
}
export interface Portal {
  /** Address of the mapped portal page. */
  readonly address: number;
  readonly mode: 'dedicated' | 'shared';
}
export interface ClientOptions {
  /** How many descriptors may be under way. */
  readonly depth: number;
  /** Flags of every descriptor; the record is always asked for. */
  readonly flags?: number;
  /** Completion interrupt handle; sets Request Completion Interrupt. */
  readonly interruptHandle?: number;
}

/** Lets time pass until a condition holds; false when it never will. `Clock` of @siov/cpu fits. */
export interface Waiter {
  wait(until: () => boolean): boolean;
}
export type { Dif } from './client-dif.js';
export type { Result } from './client-result.js';

const PAGE = 4096;
const SLOT_BYTES = 64;
/** A shared queue is asked again after 1, 2, 4, up to this many turns of the wait. */
const BACK_OFF_LIMIT = 1024;

/** What `poll` says of a slot that has no record yet. */
export const PENDING_RECORD = 0;

export class Client {
  // fixed
  readonly depth: number;
  /** Addresses of the slots' descriptors and records. */
  readonly descriptors: number;
  readonly records: number;
  readonly #process: Process;
  readonly #shared: boolean;
  readonly #flags: number;
  readonly #handle: number;
  readonly #portalHigh: number;
  readonly #portalLow: number;
  readonly #descriptorHigh: number;
  readonly #descriptorLow: number;
  readonly #recordHigh: number;
  readonly #recordLow: number;
  // state
  #slot = 0;
  /** Lists of two for batches of which one member is left. */
  #lists = 0;
  /** Portal writes, ENQCMD answers of 1, and resumed descriptors so far. */
  submissions = 0;
  retries = 0;
  resumes = 0;

  constructor(process: Process, portal: Portal, options: ClientOptions) {
    const { depth } = options;
    if (!(Number.isInteger(depth) && depth >= 1 && depth <= 4096)) throw new RangeError(`Client: depth is 1 to 4096, not ${depth}`);
    this.depth = depth;
    this.#process = process;
    this.#shared = portal.mode === 'shared';
    this.#flags =
      (options.flags ?? 0) | Flag.recordAddressValid | Flag.requestRecord | (options.interruptHandle === undefined ? 0 : Flag.requestInterrupt);
    this.#handle = options.interruptHandle ?? 0;
    this.#portalHigh = hi(portal.address);
    this.#portalLow = lo(portal.address);
    // One 64-byte slot each, so that a record never shares a page edge; arenas start on a page and stay below a 4 GiB border of the low word.
    const bytes = Math.ceil((depth * 64) / PAGE) * PAGE;
    this.descriptors = process.alloc(2 * bytes);
    this.records = this.descriptors + bytes;
    if (Math.floor(this.descriptors / 2 ** 32) !== Math.floor((this.records + bytes - 1) / 2 ** 32))
      throw new RangeError('Client: the arena crosses a 4 GiB border');
    this.#descriptorHigh = hi(this.descriptors);
    this.#descriptorLow = lo(this.descriptors);
    this.#recordHigh = hi(this.records);
    this.#recordLow = lo(this.records);
  }

  /**
   * Builds a descriptor in slot `slot`: operands as the operation's layout has them at bytes 16 and 24, `size` at 32, and word 10 (seed,
   * expected result). Clears the slot's record.
   */
  prepare(slot: number, opcode: number, firstHigh: number, firstLow: number, secondHigh: number, secondLow: number, size: number, extra = 0): void {
    const p = this.#process;
    const d = p.words(this.#descriptorHigh, (this.#descriptorLow + slot * 64) | 0, 1);
    const w = p.view;
    w[d] = 0;
    w[d + 1] = (opcode << 24) | this.#flags;
    w[d + 2] = this.#recordLow + slot * 64;
    w[d + 3] = this.#recordHigh;
    w[d + 4] = firstLow;
    w[d + 5] = firstHigh;
    w[d + 6] = secondLow;
    w[d + 7] = secondHigh;
    w[d + 8] = size;
    w[d + 9] = this.#handle;
    w[d + 10] = extra;
    w[d + 11] = w[d + 12] = w[d + 13] = w[d + 14] = w[d + 15] = 0;
    const r = p.words(this.#recordHigh, (this.#recordLow + slot * 64) | 0, 1);
    p.view[r] = 0;
  }

  /** Overwrites one word of the slot's descriptor: operands that `prepare` has no argument for. */
  patch(slot: number, word: number, value: number): void {
    const d = this.#process.words(this.#descriptorHigh, (this.#descriptorLow + slot * 64) | 0, 1);
    this.#process.view[d + word] = value;
  }

  /** A word of the slot's descriptor, as it stands. */
  word(slot: number, word: number): number {
    const d = this.#process.words(this.#descriptorHigh, (this.#descriptorLow + slot * SLOT_BYTES) | 0, 0);
    return this.#process.view[d + word]!;
  }

  /** Writes the slot's descriptor to the portal: 0 taken (a posted write always says so), 1 try again later. */
  submit(slot: number): number {
    const p = this.#process;
    // Consecutive descriptors go to consecutive 64-byte slots of the portal page, as software does to spread the stores.
    const low = (this.#portalLow + this.#slot * 64) | 0;
    this.#slot = (this.#slot + 1) & 63;
    const from = (this.#descriptorLow + slot * 64) | 0;
    this.submissions++;
    if (!this.#shared) {
      p.movdir64b(this.#portalHigh, low, this.#descriptorHigh, from);
      return 0;
    }
    const answer = p.enqcmd(this.#portalHigh, low, this.#descriptorHigh, from);
    if (answer !== 0) this.retries++;
    return answer;
  }

  /** The status byte of the slot's record: 0 while the descriptor is under way. */
  poll(slot: number): number {
    const r = this.#process.words(this.#recordHigh, (this.#recordLow + slot * 64) | 0, 0);
    return this.#process.view[r]! & 0xff;
  }
  /** A word of the slot's record, unsigned: 0 status and result, 1 completed, 2 and 3 fault address, 4 CRC or invalid flags. */
  record(slot: number, word: number): number {
    const r = this.#process.words(this.#recordHigh, (this.#recordLow + slot * 64) | 0, 0);
    return this.#process.view[r + word]!;
  }

  // What each operation takes. Addresses and sizes are Numbers in bytes; `flags` are added to the client's own.

  nop(slot: number, flags = 0): void {
    this.#build(slot, Opcode.nop, 0, 0, 0, flags);
  }
  /** Ends when everything before it of this process and queue has. */
  drain(slot: number, flags = 0): void {
    this.#build(slot, Opcode.drain, 0, 0, 0, flags);
  }
  memmove(slot: number, destination: number, source: number, size: number, flags = 0): void {
    this.#build(slot, Opcode.memmove, source, destination, size, flags);
  }
  /** The pattern's eight bytes as two words, the first byte lowest. */
  fill(slot: number, destination: number, patternLow: number, patternHigh: number, size: number, flags = 0): void {
    const d = this.#build(slot, Opcode.fill, 0, destination, size, flags);
    FillDescriptor.set.patternLow(this.#process.view, d, patternLow);
    FillDescriptor.set.patternHigh(this.#process.view, d, patternHigh);
  }
  /** With `expected` (0 equal, 1 different) another result is status 0x02. */
  compare(slot: number, source1: number, source2: number, size: number, expected?: 0 | 1, flags = 0): void {
    const d = this.#build(slot, Opcode.compare, source1, source2, size, flags | (expected === undefined ? 0 : Flag.checkResult));
    CompareDescriptor.set.expectedResult(this.#process.view, d, expected ?? 0);
  }
  comparePattern(slot: number, source: number, patternLow: number, patternHigh: number, size: number, expected?: 0 | 1, flags = 0): void {
    const d = this.#build(slot, Opcode.comparePattern, source, 0, size, flags | (expected === undefined ? 0 : Flag.checkResult));
    const { set } = CompareDescriptor;
    set.source2Low(this.#process.view, d, patternLow);
    set.source2High(this.#process.view, d, patternHigh);
    set.expectedResult(this.#process.view, d, expected ?? 0);
  }
  /** What source 2 has that source 1 has not, into `record` of at most `maxRecordSize` bytes (from 80 on). */
  createDelta(slot: number, source1: number, source2: number, size: number, record: number, maxRecordSize: number, flags = 0): void {
    const d = this.#build(slot, Opcode.createDelta, source1, source2, size, flags);
    const { set } = CreateDeltaDescriptor;
    set.deltaLow(this.#process.view, d, lo(record));
    set.deltaHigh(this.#process.view, d, hi(record));
    set.maxDeltaSize(this.#process.view, d, maxRecordSize);
  }
  /** `recordSize` bytes of a delta record are written over `destination`, which has `size` bytes. */
  applyDelta(slot: number, destination: number, record: number, recordSize: number, size: number, flags = 0): void {
    const d = this.#build(slot, Opcode.applyDelta, record, destination, size, flags);
    ApplyDeltaDescriptor.set.deltaSize(this.#process.view, d, recordSize);
  }
  /** Bits 11:0 of both destinations are the same. */
  dualcast(slot: number, destination1: number, destination2: number, source: number, size: number, flags = 0): void {
    const d = this.#build(slot, Opcode.dualcast, source, destination1, size, flags);
    DualcastDescriptor.set.destination2Low(this.#process.view, d, lo(destination2));
    DualcastDescriptor.set.destination2High(this.#process.view, d, hi(destination2));
  }
  /** DSA 2.0: translations only, of every `stride` bytes (0: every page). */
  translationFetch(slot: number, address: number, size: number, stride = 0, flags = 0): void {
    const d = this.#build(slot, Opcode.translationFetch, address, 0, size, flags);
    TranslationFetchDescriptor.set.stride(this.#process.view, d, stride);
  }
  /** CRC-32C; the result of one is the seed of the next. */
  crc(slot: number, source: number, size: number, seed = 0, flags = 0): void {
    const d = this.#build(slot, Opcode.crc, source, 0, size, flags);
    CrcDescriptor.set.seed(this.#process.view, d, seed);
  }
  copyCrc(slot: number, destination: number, source: number, size: number, seed = 0, flags = 0): void {
    const d = this.#build(slot, Opcode.copyCrc, source, destination, size, flags);
    CrcDescriptor.set.seed(this.#process.view, d, seed);
  }
  /** Blocks with their fields, `size` bytes in all. */
  difCheck(slot: number, source: number, size: number, dif: Dif, flags = 0): void {
    this.#dif(this.#build(slot, Opcode.difCheck, source, 0, size, flags), Opcode.difCheck, dif);
  }
  /** Blocks without fields, `size` bytes in all, get them. */
  difInsert(slot: number, destination: number, source: number, size: number, dif: Dif, flags = 0): void {
    this.#dif(this.#build(slot, Opcode.difInsert, source, destination, size, flags), Opcode.difInsert, dif);
  }
  difStrip(slot: number, destination: number, source: number, size: number, dif: Dif, flags = 0): void {
    this.#dif(this.#build(slot, Opcode.difStrip, source, destination, size, flags), Opcode.difStrip, dif);
  }
  difUpdate(slot: number, destination: number, source: number, size: number, dif: Dif, flags = 0): void {
    this.#dif(this.#build(slot, Opcode.difUpdate, source, destination, size, flags), Opcode.difUpdate, dif);
  }
  /** DSA 2.0: the fields alone, eight bytes a block. */
  dixGenerate(slot: number, destination: number, source: number, size: number, dif: Dif, flags = 0): void {
    this.#dif(this.#build(slot, Opcode.dixGenerate, source, destination, size, flags), Opcode.dixGenerate, dif);
  }
  cacheFlush(slot: number, address: number, size: number, flags = 0): void {
    this.#build(slot, Opcode.cacheFlush, 0, address, size, flags);
  }
  /** `count` slots from `first` on, prepared before, in one submission. Each has its own record besides. */
  batch(slot: number, first: number, count: number, flags = 0): void {
    if (!(first >= 0 && count >= 1 && first + count <= this.depth && (slot < first || slot >= first + count)))
      throw new RangeError(`Client.batch: first and count name slots of 0 to ${this.depth - 1} without slot ${slot}, not ${count} from ${first}`);
    this.#build(slot, Opcode.batch, this.descriptors + first * SLOT_BYTES, 0, count, flags);
  }

  /** The slot's record in words of its operation. Undefined while it is under way. */
  result(slot: number): Result | undefined {
    const status = this.poll(slot);
    if (status === PENDING_RECORD) return undefined;
    const d = this.#process.words(this.#descriptorHigh, (this.#descriptorLow + slot * SLOT_BYTES) | 0, 0);
    const descriptor = this.#process.view.slice(d, d + 16);
    const r = this.#process.words(this.#recordHigh, (this.#recordLow + slot * SLOT_BYTES) | 0, 0);
    return resultOf(descriptor, this.#process.view.slice(r, r + 8));
  }
  /**
   * Submits the slot, with back-off while a shared queue is full, waits for its record, and goes on after page faults until it ends otherwise.
   * Undefined: it never does, as when the queue is gone.
   */
  run(slot: number, waiter: Waiter): Result | undefined {
    do {
      if (!this.#enqueue(slot, waiter) || !waiter.wait(() => this.poll(slot) !== PENDING_RECORD)) return undefined;
    } while (this.resume(slot));
    return this.result(slot);
  }
  #enqueue(slot: number, waiter: Waiter): boolean {
    for (let pause = 1; this.submit(slot) !== 0; pause = Math.min(pause * 2, BACK_OFF_LIMIT)) {
      let turns = 0;
      // A queue that stays full although nothing else happens will not have room.
      if (!waiter.wait(() => ++turns > pause)) return this.submit(slot) === 0;
    }
    return true;
  }

  /**
   * After a page fault (status 0x03, or 0x06 of a batch's list): touches the page, as a user's fault handler would, and turns the descriptor
   * into one for the rest. The caller submits the slot again. False when there is nothing to resume.
   */
  resume(slot: number): boolean {
    const status = this.poll(slot);
    const code = status & 0x7f;
    if (code !== Status.pageFault && code !== Status.batchFault) return false;
    const p = this.#process;
    const write = status >>> 7;
    const faultLow = this.record(slot, 2) | 0;
    const faultHigh = this.record(slot, 3) | 0;
    const at = p.words(faultHigh, faultLow & ~3, write);
    if (write) p.view[at] = p.view[at]!;
    const r = p.words(this.#recordHigh, (this.#recordLow + slot * SLOT_BYTES) | 0, 0);
    const record = p.view.subarray(r, r + 8);
    const d = p.words(this.#descriptorHigh, (this.#descriptorLow + slot * SLOT_BYTES) | 0, 1);
    const w = p.view;
    goOn(w, d, record);
    if (w[d + 1]! >>> 24 === Opcode.batch && w[d + 8] === 1) this.#last(slot, d);
    p.view[p.words(this.#recordHigh, (this.#recordLow + slot * SLOT_BYTES) | 0, 1)] = 0;
    this.resumes++;
    return true;
  }
  /** A batch has two members at least: the last one that is left gets a no-operation beside it. */
  #last(slot: number, d: number): void {
    const p = this.#process;
    if (this.#lists === 0) this.#lists = p.alloc(Math.ceil((this.depth * 2 * SLOT_BYTES) / PAGE) * PAGE);
    const list = this.#lists + slot * 2 * SLOT_BYTES;
    const { view } = p;
    const from = p.words(view[d + 5]! | 0, view[d + 4]! | 0, 0);
    const member = p.view.slice(from, from + 16);
    const to = p.words(hi(list), lo(list), 1);
    p.view.set(member, to);
    p.view.fill(0, to + 16, to + 32);
    const at = p.words(this.#descriptorHigh, (this.#descriptorLow + slot * SLOT_BYTES) | 0, 1);
    p.view[at + 4] = lo(list);
    p.view[at + 5] = hi(list);
    p.view[at + 8] = 2;
  }
  /** The view is looked up behind `#build`, which may have changed it. */
  #dif(d: number, opcode: number, dif: Dif): void {
    putDif(this.#process.view, d, opcode, dif);
  }
  /** The common part of a builder; the word index of the descriptor in the process's view. */
  #build(slot: number, opcode: number, first: number, second: number, size: number, flags: number): number {
    this.prepare(slot, opcode, hi(first), lo(first), hi(second), lo(second), size);
    const d = this.#process.words(this.#descriptorHigh, (this.#descriptorLow + slot * SLOT_BYTES) | 0, 1);
    if (flags !== 0) Descriptor.set.flags(this.#process.view, d, Descriptor.get.flags(this.#process.view, d) | flags);
    return d;
  }
}
