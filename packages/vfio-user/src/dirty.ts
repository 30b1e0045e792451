/** Which pages the device wrote since the last report. linux/vfio.h, VFIO_DEVICE_FEATURE_DMA_LOGGING_*. */

/** What is kept, whatever page size a client asks for. Bytes. */
const PAGE = 4096;
/** Pages of one piece of the log: 128 MiB of memory in 4 KiB of bits. Pieces without a dirty page do not exist. */
const PIECE = 32_768;

export interface LogRange {
  readonly iova: number;
  readonly length: number;
}

export class DirtyLog {
  /** As DMA_LOGGING_START gave it. Bytes. */
  readonly pageSize: number;
  readonly #ranges: readonly LogRange[];
  readonly #pieces = new Map<number, Uint32Array>();

  /** `ranges`: what is logged; none: all of memory. */
  constructor(pageSize: number, ranges: readonly LogRange[]) {
    this.pageSize = pageSize;
    this.#ranges = ranges;
  }

  mark(iova: number, length: number): void {
    if (this.#ranges.length === 0) {
      this.#set(iova, iova + length);
      return;
    }
    for (const range of this.#ranges) {
      const from = Math.max(iova, range.iova);
      const to = Math.min(iova + length, range.iova + range.length);
      if (from < to) this.#set(from, to);
    }
  }

  /** Sets bit n of `bitmap` when anything from `iova + n * pageSize` on was written, and forgets it. `pageSize` is a power of two. */
  report(iova: number, length: number, pageSize: number, bitmap: Uint8Array): void {
    const first = Math.floor(iova / PAGE);
    const end = Math.ceil((iova + length) / PAGE);
    const from = Math.floor(first / PIECE);
    // Walk what exists, not what was asked for: a range may span terabytes.
    for (const [piece, bits] of this.#pieces) {
      if (piece < from || piece * PIECE >= end) continue;
      for (let word = 0; word < bits.length; word++) {
        for (let left = bits[word]!; left !== 0; left &= left - 1) {
          const bit = 31 - Math.clz32(left & -left);
          const page = piece * PIECE + word * 32 + bit;
          if (page < first || page >= end) continue;
          bits[word]! &= ~(1 << bit);
          this.#report(Math.max(page * PAGE - iova, 0), Math.min(page * PAGE - iova + PAGE, length), pageSize, bitmap);
        }
      }
      if (bits.every((word) => word === 0)) this.#pieces.delete(piece);
    }
  }

  /** Bytes `from` to `to` of the range are dirty. */
  #report(from: number, to: number, pageSize: number, bitmap: Uint8Array): void {
    for (let page = Math.floor(from / pageSize); page * pageSize < to; page++) bitmap[page >>> 3]! |= 1 << (page & 7);
  }

  #set(from: number, to: number): void {
    for (let page = Math.floor(from / PAGE); page * PAGE < to; page++) {
      const piece = Math.floor(page / PIECE);
      let bits = this.#pieces.get(piece);
      if (!bits) {
        bits = new Uint32Array(PIECE / 32);
        this.#pieces.set(piece, bits);
      }
      bits[(page % PIECE) >>> 5]! |= 1 << (page & 31);
    }
  }
}
/** Bytes of a bitmap of `length` bytes of memory: whole 64-bit words. */
export const bitmapBytes = (length: number, pageSize: number): number => Math.ceil(Math.ceil(length / pageSize) / 64) * 8;
