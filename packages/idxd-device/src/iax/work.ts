/**
 * What an operation of the analytics accelerator works with: buffers between memory and the coders, and its place in them. Few of them are in
 * use at a time, and they are used again. An operation that waits for a page finds everything as it was.
 */
import type { Io, Op } from '../op.js';
import { blocked, Step } from '../op.js';
import { acquireDestination, acquireSource } from '../operations/operation.js';
import { AECS_ALIGN, decompressAecsBytes, IaxFlag, IaxStatus } from '../spec/iax.js';
import type { Kept } from './aecs.js';
import { crc32, xor16 } from './checksum.js';
import { Crc64 } from './crc64.js';
import { Deflate } from './deflate.js';
import { Filter } from './filter.js';
import { Inflate } from './inflate.js';
import type { Sink, Source } from './pieces.js';

const INPUT_BYTES = 1 << 15;
const SECOND_BYTES = 1 << 13;
const OUTPUT_BYTES = 1 << 15;
/** Readers look up to this far behind what is there. */
const BEHIND = 16;
/** A page of plain bytes in front of the history that decompression refers to. */
const PLAIN_BYTES = 1 << 16;

/** Words of a descriptor: source 2, the largest output, source 2's size. */
const SOURCE2 = 10;
const MAX_DESTINATION = 12;
const SOURCE2_SIZE = 13;
/** Words of what a record has besides the common ones, in `Op.extra`: from byte 24 of the record on. */
export const Extra = { outputSize: 0, bitsAndXor: 1, crc: 2, min: 3, max: 4, sum: 5 } as const;

class Input implements Source {
  readonly bytes: Uint8Array;
  at = 0;
  end = 0;
  last = false;
  constructor(bytes: number) {
    this.bytes = new Uint8Array(bytes + BEHIND);
  }
  get room(): number {
    return this.bytes.length - BEHIND - this.end;
  }
  /** What was used makes room. */
  compact(): void {
    if (this.at === 0) return;
    this.bytes.copyWithin(0, this.at, this.end);
    this.end -= this.at;
    this.at = 0;
  }
  clear(): void {
    this.at = this.end = 0;
    this.last = false;
  }
}

export class Work {
  // fixed
  readonly one = new Input(INPUT_BYTES);
  readonly oneWords = new Uint32Array(this.one.bytes.buffer);
  readonly two = new Input(SECOND_BYTES);
  readonly out: Sink = { bytes: new Uint8Array(OUTPUT_BYTES + BEHIND), end: 0, limit: OUTPUT_BYTES };
  /** Bits of source 1 on their way from or to AECS. */
  readonly kept: Kept = { hold: 0, bits: 0, bytes: this.one.bytes, at: 0, end: 0 };
  readonly aecs: Uint8Array;
  readonly aecsWords: Uint32Array;
  /** Plain bytes of decompression: the history, then what is new; and as words, for the CRC. */
  readonly plain: Uint8Array;
  readonly plainWords: Uint32Array;
  readonly plainSource: Source;
  readonly inflate: Inflate;
  readonly deflate: Deflate;
  readonly filter = new Filter();
  readonly crc64 = new Crc64();
  readonly codes = { literals: new Uint32Array(286), distances: new Uint32Array(30) };
  // state
  /** Where in its operation it is; 0: at the beginning. */
  stage = 0;
  /** Bytes of source 2 or of AECS that were read or written. */
  moved2 = 0;
  /** Bytes that are at the destination, and how far the buffer at hand is written. */
  written = 0;
  flushed = 0;
  /** Bytes of source 1 that were taken from memory. */
  read = 0;
  /** The CRC's register, inverted, and the XOR; how many bytes went into them. */
  crc = 0;
  xor = 0;
  summed = 0;
  /** Decompression: where new bytes begin in `plain` and end, how many before them can be referred to. */
  plainFrom = 0;
  plainTo = 0;
  history = 0;
  /** How far reversed 16-bit words of the output were turned round; of the input, whether a byte waits for its other half. */
  turned = 0;
  odd = 0;
  /** What came of the last piece of decompression (`Made`), while it is not dealt with; -1: nothing. */
  made = -1;
  /** Bytes that a filter does not see. */
  drop = 0;
  /** Source 1 has ended as a compressed stream. */
  ended = false;

  constructor(history: number, separateLengths: boolean) {
    this.aecs = new Uint8Array(decompressAecsBytes(history));
    this.aecsWords = new Uint32Array(this.aecs.buffer);
    this.plain = new Uint8Array(this.aecs.length + PLAIN_BYTES + BEHIND);
    this.plainWords = new Uint32Array(this.plain.buffer);
    this.plainSource = { bytes: this.plain, at: 0, end: 0, last: false };
    this.inflate = new Inflate({ history, separateLengths });
    this.deflate = new Deflate({ history });
  }

  begin(): void {
    this.one.clear();
    this.two.clear();
    this.out.end = 0;
    this.stage = this.moved2 = this.written = this.flushed = this.read = 0;
    this.crc = -1;
    this.xor = this.summed = 0;
    this.plainFrom = this.plainTo = this.history = this.turned = this.odd = this.drop = 0;
    this.made = -1;
    this.plainSource.at = this.plainSource.end = 0;
    this.plainSource.last = this.ended = false;
  }

  /** Seeds of the two checksums. */
  seed(crc: number, xor: number): void {
    this.crc = ~crc;
    this.xor = xor & 0xffff;
  }
  sum(io: Io, op: Op, bytes: Uint8Array, words: Uint32Array, from: number, to: number): void {
    if (to <= from) return;
    this.crc = op.flags & IaxFlag.crcRfc3720 ? io.crc32c(this.crc, bytes, words, from, to - from) : crc32(this.crc, bytes, from, to);
    this.xor = xor16(this.xor, this.summed & 1, bytes, from, to);
    this.summed += to - from;
  }

  // --- source 1

  /** Takes up to `max` bytes of source 1 from memory to `to`. Returns how many, or less than 0: a request was not answered with success (`answer`). */
  answer = 0;
  take(io: Io, op: Op, to: Uint8Array, at: number, max: number): number {
    let taken = 0;
    this.answer = 0;
    while (op.remaining > 0 && taken < max) {
      this.answer = acquireSource(io, op, Math.min(op.remaining, max - taken), io.a);
      if (this.answer !== 0) break;
      const { view, offset, length } = io.a;
      if (length < 64) for (let i = 0; i < length; i++) to[at + taken + i] = view[offset + i]!;
      else to.set(view.subarray(offset, offset + length), at + taken);
      op.advanceSource(length);
      op.remaining -= length;
      op.moved += length;
      io.bytesRead += length;
      taken += length;
    }
    this.read += taken;
    return taken === 0 && this.answer !== 0 ? -1 : taken;
  }
  /** Fills the buffer of source 1. False: nothing came, and `blocked` says what that means. */
  fill(io: Io, op: Op): boolean {
    const { one } = this;
    one.compact();
    const taken = this.take(io, op, one.bytes, one.end, one.room);
    if (taken < 0) return false;
    one.end += taken;
    one.last = op.remaining === 0;
    return true;
  }
  /** Source 1 did not come. */
  sourceBlocked(io: Io, op: Op): number {
    return blocked(io, op, this.answer, 0, op.sourceHigh, op.sourceLow);
  }

  // --- source 2

  #high = 0;
  #low = 0;
  /** The address of source 2 and `offset` bytes. */
  #address2(op: Op, offset: number): void {
    const low = op.descriptor[SOURCE2]! + offset;
    this.#low = low | 0;
    this.#high = (op.descriptor[SOURCE2 + 1]! + (low > 0xffff_ffff ? 1 : 0)) | 0;
  }
  fill2(io: Io, op: Op): boolean {
    const { two } = this;
    two.compact();
    const size = op.descriptor[SOURCE2_SIZE]!;
    const before = this.moved2;
    while (this.moved2 < size && two.room > 0) {
      this.#address2(op, this.moved2);
      this.answer = io.upstream.acquire(op.access, op.pasid, this.#high, this.#low, Math.min(size - this.moved2, two.room), io.c);
      op.ns += io.c.ns;
      if (this.answer !== 0) return this.moved2 > before;
      const { view, offset, length } = io.c;
      two.bytes.set(view.subarray(offset, offset + length), two.end);
      two.end += length;
      this.moved2 += length;
      io.bytesRead += length;
    }
    two.last = this.moved2 === size;
    return true;
  }
  source2Blocked(io: Io, op: Op, write = 0): number {
    return blocked(io, op, this.answer, write, this.#high, this.#low);
  }
  /** Reads AECS, as much as its size says, up to `bytes`. False: see `source2Blocked`. */
  readAecs(io: Io, op: Op, bytes: number): boolean {
    const size = Math.min(op.descriptor[SOURCE2_SIZE]!, bytes);
    if (this.moved2 === 0) this.aecs.fill(0);
    const first = op.flags & IaxFlag.aecsSecond ? op.descriptor[SOURCE2_SIZE]! : 0;
    while (this.moved2 < size) {
      this.#address2(op, first + this.moved2);
      this.answer = io.upstream.acquire(op.access, op.pasid, this.#high, this.#low, size - this.moved2, io.c);
      op.ns += io.c.ns;
      if (this.answer !== 0) return false;
      const { view, offset, length } = io.c;
      this.aecs.set(view.subarray(offset, offset + length), this.moved2);
      this.moved2 += length;
      io.bytesRead += length;
    }
    this.moved2 = 0;
    return true;
  }
  /** Writes AECS where it is not read. False: see `source2Blocked`. */
  writeAecs(io: Io, op: Op, bytes: number): boolean {
    const size = Math.min(op.descriptor[SOURCE2_SIZE]!, bytes);
    const first = op.flags & IaxFlag.aecsSecond ? 0 : op.descriptor[SOURCE2_SIZE]!;
    while (this.moved2 < size) {
      this.#address2(op, first + this.moved2);
      this.answer = io.upstream.acquire(op.access | 1, op.pasid, this.#high, this.#low, size - this.moved2, io.c);
      op.ns += io.c.ns;
      if (this.answer !== 0) return false;
      const { view, offset, length } = io.c;
      view.set(this.aecs.subarray(this.moved2, this.moved2 + length), offset);
      io.upstream.commit(io.c);
      this.moved2 += length;
      io.bytesWritten += length;
    }
    this.moved2 = 0;
    return true;
  }

  // --- destination

  /** How much the destination still takes, less what waits in a buffer. */
  room(op: Op, waiting: number): number {
    return op.descriptor[MAX_DESTINATION]! - this.written - waiting;
  }
  /**
   * Writes `bytes` up to `end`, of which the first `flushed` are written already. `Flush.full`: the rest has no room; `Flush.blocked`: see
   * `destinationBlocked`.
   */
  flush(io: Io, op: Op, bytes: Uint8Array, from: number, end: number): number {
    const most = op.descriptor[MAX_DESTINATION]!;
    for (let at = from + this.flushed; at < end; at = from + this.flushed) {
      if (this.written >= most) return Flush.full;
      this.answer = acquireDestination(io, op, Math.min(end - at, most - this.written), io.b);
      if (this.answer !== 0) return Flush.blocked;
      const { view, offset, length } = io.b;
      if (length < 64) for (let i = 0; i < length; i++) view[offset + i] = bytes[at + i]!;
      else view.set(bytes.subarray(at, at + length), offset);
      io.upstream.commit(io.b);
      op.advanceDestination(length);
      io.bytesWritten += length;
      this.written += length;
      this.flushed += length;
    }
    this.flushed = 0;
    return Flush.done;
  }
  destinationBlocked(io: Io, op: Op): number {
    return blocked(io, op, this.answer, 1, op.destinationHigh, op.destinationLow);
  }

  // --- the end

  /** What the record says besides its status. */
  report(op: Op, outputBits: number): void {
    op.extra[Extra.outputSize] = this.written;
    op.extra[Extra.bitsAndXor] = outputBits | (this.xor << 16);
    op.extra[Extra.crc] = ~this.crc;
  }
  /** The operation failed: an error code of the analytics engine. */
  fail(op: Op, error: number): number {
    op.result = error;
    this.report(op, 0);
    return op.end(IaxStatus.analyticsError);
  }
}
export const Flush = { done: 0, full: 1, blocked: 2 } as const;

/** The engines' stock of them. An operation has one from its first step to its last. */
export class Workshop {
  readonly #history: number;
  readonly #separateLengths: boolean;
  readonly #idle: Work[] = [];
  readonly #busy: (Work | undefined)[] = [];
  constructor(history: number, separateLengths: boolean) {
    this.#history = history;
    this.#separateLengths = separateLengths;
  }
  /** One step of an operation with what it works with. */
  step(io: Io, op: Op, run: (work: Work, io: Io, op: Op) => number): number {
    let work = this.#busy[op.id];
    // An operation that was aborted left its own behind: `phase` says whether this one is new.
    if (!work || op.phase === 0) {
      work ??= this.#idle.pop() ?? new Work(this.#history, this.#separateLengths);
      work.begin();
      this.#busy[op.id] = work;
      op.phase = 1;
    }
    const answer = run(work, io, op);
    if (answer === Step.done) {
      this.#busy[op.id] = undefined;
      this.#idle.push(work);
    }
    return answer;
  }
}

/** Checks that operations with AECS share. */
export const aecsBytesRule = (op: Op): number => {
  const { descriptor, flags } = op;
  if (!(flags & (IaxFlag.readAecs | IaxFlag.writeAecs | IaxFlag.writeAecsOnOverflow))) return 0;
  return (descriptor[SOURCE2]! | descriptor[SOURCE2_SIZE]!) & (AECS_ALIGN - 1) ? IaxStatus.alignment : 0;
};
export const maxDestination = (op: Op): number => op.descriptor[MAX_DESTINATION]!;
export const source2Size = (op: Op): number => op.descriptor[SOURCE2_SIZE]!;
