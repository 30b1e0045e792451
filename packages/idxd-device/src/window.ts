/**
 * A window on one operand for operations that look at small structures (delta entries, blocks with their tags, seeds) rather than streams. A
 * structure that lies in one piece of memory is used in place; one that crosses pieces goes through a scratch buffer. Nothing is allocated.
 */
import type { Io, Op } from './op.js';
import type { Extent } from './ports.js';

/** The largest structure: a block of 4104 bytes and its tags. */
const SCRATCH_BYTES = 4112;

export class Window {
  /** Where the structure that was asked for is: in memory itself or in the scratch buffer. */
  view: Uint8Array = new Uint8Array(0);
  at = 0;
  /** The address that did not answer. */
  faultHigh = 0;
  faultLow = 0;
  readonly #extent: Extent;
  readonly #scratch = new Uint8Array(SCRATCH_BYTES);
  #high = 0;
  #low = 0;
  /** The piece at hand, as offsets in the operand. */
  #from = 0;
  #to = 0;
  /** What is being written: through the scratch buffer, and how many bytes at which offset. */
  #through = false;
  #offset = 0;
  #bytes = 0;

  /** `extent` is what requests fill: nobody else uses it while the window is open. */
  constructor(extent: Extent) {
    this.#extent = extent;
  }

  /** Points at an operand. Every step begins with it: translations are not kept from one to the next. */
  open(high: number, low: number): void {
    this.#high = high;
    this.#low = low;
    this.#from = this.#to = 0;
  }

  /** Makes `bytes` at `offset` readable at `view[at]`. At most `max` bytes from there are the operand's. 0, or what memory answered. */
  read(io: Io, op: Op, offset: number, bytes: number, max: number): number {
    if (offset >= this.#from && offset + bytes <= this.#to) return this.#inPlace(offset);
    let answer = this.#acquire(io, op, 0, offset, max);
    if (answer !== 0) return answer;
    if (bytes <= this.#to - this.#from) return this.#inPlace(offset);
    for (let done = 0; ; ) {
      const piece = Math.min(bytes - done, this.#extent.length);
      const { view, offset: from } = this.#extent;
      for (let i = 0; i < piece; i++) this.#scratch[done + i] = view[from + i]!;
      done += piece;
      if (done >= bytes) break;
      answer = this.#acquire(io, op, 0, offset + done, max - done);
      if (answer !== 0) return answer;
    }
    this.view = this.#scratch;
    this.at = 0;
    return 0;
  }

  /** Makes room for `bytes` at `offset`: all of it is reachable, or nothing will be written. Fill `view[at]`, then `commit`. */
  write(io: Io, op: Op, offset: number, bytes: number, max: number): number {
    this.#offset = offset;
    this.#bytes = bytes;
    this.#through = false;
    if (offset >= this.#from && offset + bytes <= this.#to) return this.#inPlace(offset);
    let answer = this.#acquire(io, op, 1, offset, max);
    if (answer !== 0) return answer;
    if (bytes <= this.#to - this.#from) return this.#inPlace(offset);
    for (let done = this.#extent.length; done < bytes; done += this.#extent.length) {
      answer = this.#acquire(io, op, 1, offset + done, max - done);
      if (answer !== 0) return answer;
    }
    this.#through = true;
    this.view = this.#scratch;
    this.at = 0;
    return 0;
  }

  /** What was put at `view[at]` is written. 0, or what memory answered when it changed its mind meanwhile. */
  commit(io: Io, op: Op): number {
    if (!this.#through) {
      // Of the piece only the structure was written.
      const { offset, length } = this.#extent;
      this.#extent.offset = this.at;
      this.#extent.length = this.#bytes;
      io.upstream.commit(this.#extent);
      this.#extent.offset = offset;
      this.#extent.length = length;
      return 0;
    }
    for (let done = 0; done < this.#bytes; ) {
      const answer = this.#acquire(io, op, 1, this.#offset + done, this.#bytes - done);
      if (answer !== 0) return answer;
      const { view, offset, length } = this.#extent;
      for (let i = 0; i < length; i++) view[offset + i] = this.#scratch[done + i]!;
      io.upstream.commit(this.#extent);
      done += length;
    }
    return 0;
  }

  #inPlace(offset: number): number {
    this.view = this.#extent.view;
    this.at = this.#extent.offset + offset - this.#from;
    return 0;
  }

  #acquire(io: Io, op: Op, write: number, offset: number, max: number): number {
    const low = (this.#low >>> 0) + offset;
    const high = (this.#high + (low > 0xffff_ffff ? 1 : 0)) | 0;
    const answer = io.upstream.acquire(op.access | write, op.pasid, high, low | 0, max, this.#extent);
    op.ns += this.#extent.ns;
    this.#from = offset;
    this.#to = offset + (answer === 0 ? this.#extent.length : 0);
    this.faultHigh = high;
    this.faultLow = low | 0;
    return answer;
  }
}
