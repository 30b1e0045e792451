/** CRC-32C (polynomial 0x1EDC6F41), reflected, sixteen bytes a step. RFC 3720, appendix B.4; DSA specification, "CRC Generation". */

const tables = /* @__PURE__ */ (() => {
  const t = Array.from({ length: 16 }, () => new Int32Array(256));
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f6_3b78 : c >>> 1;
    t[0]![n] = c;
  }
  for (let k = 1; k < 16; k++) for (let n = 0; n < 256; n++) t[k]![n] = t[0]![t[k - 1]![n]! & 0xff]! ^ (t[k - 1]![n]! >>> 8);
  return t;
})();
const table = (k: number): Int32Array => tables[k]!;
const [t0, t1, t2, t3] = [table(0), table(1), table(2), table(3)];
const [t4, t5, t6, t7] = [table(4), table(5), table(6), table(7)];
const [t8, t9, t10, t11] = [table(8), table(9), table(10), table(11)];
const [t12, t13, t14, t15] = [table(12), table(13), table(14), table(15)];

/** Continues the register `crc` (neither inverted before nor after) over `length` bytes. Words are read where both are aligned. */
export function crc32c(crc: number, view: Uint8Array, words: Uint32Array, offset: number, length: number): number {
  let c = crc | 0;
  let at = offset;
  const end = offset + length;
  while (at < end && at & 3) c = t0[(c ^ view[at++]!) & 0xff]! ^ (c >>> 8);
  for (let w = at >>> 2; at + 16 <= end; at += 16, w += 4) {
    const one = words[w]! ^ c;
    const two = words[w + 1]!;
    const three = words[w + 2]!;
    const four = words[w + 3]!;
    // What does not depend on the register first.
    const rest =
      t11[two & 0xff]! ^
      t10[(two >>> 8) & 0xff]! ^
      t9[(two >>> 16) & 0xff]! ^
      t8[two >>> 24]! ^
      t7[three & 0xff]! ^
      t6[(three >>> 8) & 0xff]! ^
      t5[(three >>> 16) & 0xff]! ^
      t4[three >>> 24]! ^
      t3[four & 0xff]! ^
      t2[(four >>> 8) & 0xff]! ^
      t1[(four >>> 16) & 0xff]! ^
      t0[four >>> 24]!;
    c = t15[one & 0xff]! ^ t14[(one >>> 8) & 0xff]! ^ t13[(one >>> 16) & 0xff]! ^ t12[one >>> 24]! ^ rest;
  }
  while (at < end) c = t0[(c ^ view[at++]!) & 0xff]! ^ (c >>> 8);
  return c;
}

/** The bits of a 32-bit word in reverse order. */
export function reverse32(value: number): number {
  let v = value;
  v = ((v >>> 1) & 0x5555_5555) | ((v & 0x5555_5555) << 1);
  v = ((v >>> 2) & 0x3333_3333) | ((v & 0x3333_3333) << 2);
  v = ((v >>> 4) & 0x0f0f_0f0f) | ((v & 0x0f0f_0f0f) << 4);
  v = ((v >>> 8) & 0x00ff_00ff) | ((v & 0x00ff_00ff) << 8);
  return (v >>> 16) | (v << 16);
}

/** CRC-16 T10-DIF (polynomial 0x8BB7, not reflected), eight bytes a step. T10 SBC-3, "Logical block guard field CRC". */
const guardTables = /* @__PURE__ */ (() => {
  const t = Array.from({ length: 8 }, () => new Int32Array(256));
  for (let n = 0; n < 256; n++) {
    let c = n << 8;
    for (let k = 0; k < 8; k++) c = c & 0x8000 ? ((c << 1) ^ 0x8bb7) & 0xffff : (c << 1) & 0xffff;
    t[0]![n] = c;
  }
  for (let k = 1; k < 8; k++) for (let n = 0; n < 256; n++) t[k]![n] = t[0]![t[k - 1]![n]! >>> 8]! ^ ((t[k - 1]![n]! << 8) & 0xffff);
  return t;
})();
const [g0, g1, g2, g3, g4, g5, g6, g7] = guardTables as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
];

/** Continues the register `crc` over `length` bytes. */
export function crc16t10(crc: number, view: Uint8Array, offset: number, length: number): number {
  let c = crc;
  let at = offset;
  const end = offset + length;
  for (; at + 8 <= end; at += 8)
    c =
      g7[(c >>> 8) ^ view[at]!]! ^
      g6[(c & 0xff) ^ view[at + 1]!]! ^
      g5[view[at + 2]!]! ^
      g4[view[at + 3]!]! ^
      g3[view[at + 4]!]! ^
      g2[view[at + 5]!]! ^
      g1[view[at + 6]!]! ^
      g0[view[at + 7]!]!;
  while (at < end) c = ((c << 8) & 0xffff) ^ g0[(c >>> 8) ^ view[at++]!]!;
  return c;
}
