/**
 * The user's side of a work queue: descriptors built in the process's own memory, submitted to the mapped portal, their records polled, and
 * resumed after a partial completion. Nothing is allocated per descriptor: a client owns `depth` slots, and a slot is a number.
 */

import { Flag, Opcode, Status } from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';

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

const PAGE = 4096;

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

  /**
   * After a page fault (status 0x03): touches the page, as a user's fault handler would, and turns the descriptor into one for the rest.
   * The caller submits the slot again. False when there is nothing to resume.
   */
  resume(slot: number): boolean {
    if ((this.poll(slot) & 0x7f) !== Status.pageFault) return false;
    const p = this.#process;
    const write = this.poll(slot) >>> 7;
    const done = this.record(slot, 1);
    const backward = (this.record(slot, 0) >>> 8) & 1;
    const faultLow = this.record(slot, 2) | 0;
    const faultHigh = this.record(slot, 3) | 0;
    const value = this.record(slot, 4);
    const at = p.words(faultHigh, faultLow & ~3, write);
    if (write) p.view[at] = p.view[at]!;
    const d = p.words(this.#descriptorHigh, (this.#descriptorLow + slot * 64) | 0, 1);
    const w = p.view;
    const opcode = w[d + 1]! >>> 24;
    // Backward moves completed their tail: the operands stay, the size shrinks. Fill's pattern turns by what was written.
    if (!backward) {
      if (opcode === Opcode.fill) turn(w, d + 4, done & 7);
      else if (opcode !== Opcode.cacheFlush) forward(w, d + 4, done);
      if (opcode === Opcode.comparePattern) turn(w, d + 6, done & 7);
      else if (opcode !== Opcode.crc) forward(w, d + 6, done);
      if (opcode === Opcode.dualcast) forward(w, d + 10, done);
    }
    w[d + 8] = w[d + 8]! - done;
    // A CRC goes on from the value so far, wherever its seed was.
    if (done > 0 && (opcode === Opcode.crc || opcode === Opcode.copyCrc)) {
      w[d + 1] = w[d + 1]! & ~Flag.crcSeedInMemory;
      w[d + 10] = value;
    }
    p.view[p.words(this.#recordHigh, (this.#recordLow + slot * 64) | 0, 1)] = 0;
    this.resumes++;
    return true;
  }
}

/** Adds to a 64-bit address in two words. */
function forward(w: Uint32Array, at: number, bytes: number): void {
  const low = w[at]! + bytes;
  w[at] = low;
  if (low > 0xffff_ffff) w[at + 1] = w[at + 1]! + 1;
}
/** Rotates an 8-byte pattern so that byte `by` comes first. */
function turn(w: Uint32Array, at: number, by: number): void {
  for (let i = 0; i < by; i++) {
    const low = w[at]!;
    const high = w[at + 1]!;
    w[at] = (low >>> 8) | ((high & 0xff) << 24);
    w[at + 1] = (high >>> 8) | ((low & 0xff) << 24);
  }
}
