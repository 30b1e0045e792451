/** CRC-32 of RFC 1952 and the XOR of 16-bit words: what compression and filters say of the plain bytes. */

const tables = /* @__PURE__ */ (() => {
  const t = Array.from({ length: 8 }, () => new Int32Array(256));
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb8_8320 : c >>> 1;
    t[0]![n] = c;
  }
  for (let k = 1; k < 8; k++) for (let n = 0; n < 256; n++) t[k]![n] = t[0]![t[k - 1]![n]! & 0xff]! ^ (t[k - 1]![n]! >>> 8);
  return t;
})();
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array, Int32Array];

/** Continues the register `crc`, reflected, neither inverted before nor after. */
export function crc32(crc: number, bytes: Uint8Array, from: number, to: number): number {
  let c = crc | 0;
  let at = from;
  for (; at + 8 <= to; at += 8) {
    c ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    c =
      t7[c & 0xff]! ^
      t6[(c >>> 8) & 0xff]! ^
      t5[(c >>> 16) & 0xff]! ^
      t4[c >>> 24]! ^
      t3[bytes[at + 4]!]! ^
      t2[bytes[at + 5]!]! ^
      t1[bytes[at + 6]!]! ^
      t0[bytes[at + 7]!]!;
  }
  while (at < to) c = t0[(c ^ bytes[at++]!) & 0xff]! ^ (c >>> 8);
  return c;
}

/** Continues the XOR; `odd` is 1 when an odd number of bytes came before. */
export function xor16(sum: number, odd: number, bytes: Uint8Array, from: number, to: number): number {
  let low = 0;
  let high = 0;
  let at = from;
  for (; at + 2 <= to; at += 2) {
    low ^= bytes[at]!;
    high ^= bytes[at + 1]!;
  }
  if (at < to) low ^= bytes[at]!;
  return sum ^ (odd ? (low << 8) | high : (high << 8) | low);
}
