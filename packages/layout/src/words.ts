/** 64-bit values as two 32-bit words, and structures in byte buffers that are not aligned. */

const TWO32 = 0x1_0000_0000;

/** The upper 32 bits of a non-negative integer below 2^53, as a signed int32 (never a heap number in V8). */
export const hi = (value: number): number => (value / TWO32) | 0;
/** The lower 32 bits of an integer below 2^53, as a signed int32. */
export const lo = (value: number): number => value | 0;
/** A Number from two words; exact when the value is below 2^53. */
export const join = (high: number, low: number): number => (high >>> 0) * TWO32 + (low >>> 0);
/** A bigint from two words, exact always. For API edges. */
export const join64 = (high: number, low: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
/** `0x` and 16 digits, with a separator between the words: how every tool and failing test prints a 64-bit value. */
export const hex64 = (high: number, low: number): string =>
  `0x${(high >>> 0).toString(16).padStart(8, '0')}_${(low >>> 0).toString(16).padStart(8, '0')}`;
/** `0x…` for a Number. */
export const hex = (value: number): string => `0x${value.toString(16)}`;

/** Copies `bytes` bytes (a multiple of 4) from any byte offset into words, little endian; for structures in unaligned buffers. */
export function wordsFrom(
  bytes: Uint8Array,
  offset: number,
  length: number,
  out: Uint32Array = new Uint32Array(Math.ceil(length / 4)),
  at = 0,
): Uint32Array {
  for (let i = 0; i < length; i += 4) {
    let word = 0;
    for (let b = 0; b < 4 && i + b < length; b++) word |= bytes[offset + i + b]! << (8 * b);
    out[at + (i >> 2)] = word;
  }
  return out;
}
/** The other direction: writes `length` bytes of words into a byte buffer at any offset. */
export function wordsTo(words: Uint32Array, at: number, bytes: Uint8Array, offset: number, length: number): void {
  for (let i = 0; i < length; i++) bytes[offset + i] = words[at + (i >> 2)]! >>> (8 * (i & 3));
}
