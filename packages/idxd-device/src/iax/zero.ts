/**
 * Zero compression: blocks of elements of 1, 2 or 4 bytes, each block a bit vector of those that are not zero (128, 64 or 32 of them) and then these
 * elements. accel-config, test/algorithms/iaa_zcompress.c. In the vector of a block that is cut short the bits behind its end are ones.
 */
import { type Sink, type Source, Wait } from './pieces.js';

/** Bytes of a block; with elements of a byte its vector has 16, of two bytes 8, of four 4. */
const BLOCK = 128;
const vectorBytes = (element: number): number => (element === 4 ? 4 : element === 2 ? 8 : 16);
/** During decompression a record's vector was cut short. Intel QPL, hw_status.h (AD_ERROR_CODE_INVALID_ZDECOMP_HDR). */
const TRUNCATED_HEADER = 34;

export function zeroCompress(element: number, from: Source, to: Sink): number {
  const vector = vectorBytes(element);
  while (from.at < from.end) {
    const there = from.end - from.at;
    if (there < BLOCK && !from.last) return Wait.source;
    const bytes = Math.min(there - (there % element), BLOCK);
    if (bytes === 0) break;
    if (to.end + vector + bytes > to.limit) return Wait.room;
    const tags = to.end;
    to.bytes.fill(bytes === BLOCK ? 0 : 0xff, tags, tags + vector);
    let out = tags + vector;
    for (let at = 0, n = 0; at < bytes; at += element, n++) {
      let any = 0;
      for (let i = 0; i < element; i++) any |= from.bytes[from.at + at + i]!;
      const bit = 1 << (n & 7);
      if (any === 0) to.bytes[tags + (n >> 3)]! &= ~bit;
      else {
        to.bytes[tags + (n >> 3)]! |= bit;
        for (let i = 0; i < element; i++) to.bytes[out++] = from.bytes[from.at + at + i]!;
      }
    }
    from.at += bytes;
    to.end = out;
  }
  return from.last ? Wait.done : Wait.source;
}

export function zeroDecompress(element: number, from: Source, to: Sink): number {
  const vector = vectorBytes(element);
  const elements = BLOCK / element;
  while (from.at < from.end) {
    const there = from.end - from.at;
    if (there < vector + BLOCK && !from.last) return Wait.source;
    if (there < vector) return Wait.error + TRUNCATED_HEADER;
    if (to.end + BLOCK > to.limit) return Wait.room;
    let at = from.at + vector;
    let out = to.end;
    for (let n = 0; n < elements; n++) {
      const set = (from.bytes[from.at + (n >> 3)]! >>> (n & 7)) & 1;
      // Where the input ends, so does the last block.
      if (set && at + element > from.end) {
        at = from.end;
        break;
      }
      for (let i = 0; i < element; i++) to.bytes[out++] = set ? from.bytes[at + i]! : 0;
      if (set) at += element;
    }
    from.at = at;
    to.end = out;
  }
  return from.last ? Wait.done : Wait.source;
}
