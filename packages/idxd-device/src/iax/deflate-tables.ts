/** Symbols of DEFLATE: lengths, distances, the fixed codes. RFC 1951, sections 3.2.5 and 3.2.6. */

export const LITERAL_SYMBOLS = 286;
export const DISTANCE_SYMBOLS = 30;
/** The fixed code has two more, which no stream uses. */
export const FIXED_LITERAL_SYMBOLS = 288;
export const END_OF_BLOCK = 256;
export const MIN_MATCH = 3;
export const MAX_MATCH = 258;
/** The longest code of literals, lengths and distances; of code lengths. */
export const MAX_CODE = 15;
export const MAX_LENGTH_CODE = 7;
/** In which order a header names the lengths of the code length codes. */
export const LENGTH_CODE_ORDER = /* @__PURE__ */ Uint8Array.of(16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15);
/** Block types. */
export const Block = { stored: 0, fixed: 1, dynamic: 2, reserved: 3 } as const;

/** By length symbol less 257: the first length and how many extra bits; the last symbol is length 258 alone. */
export const lengthExtra = /* @__PURE__ */ Uint8Array.from({ length: 29 }, (_, i) => (i < 4 || i === 28 ? 0 : (i >> 2) - 1));
export const lengthBase = /* @__PURE__ */ (() => {
  const base = new Uint16Array(29);
  for (let i = 0, at = MIN_MATCH; i < 28; at += 1 << lengthExtra[i++]!) base[i] = at;
  base[28] = MAX_MATCH;
  return base;
})();
/** By distance symbol. */
export const distanceExtra = /* @__PURE__ */ Uint8Array.from({ length: 30 }, (_, i) => (i < 2 ? 0 : (i >> 1) - 1));
export const distanceBase = /* @__PURE__ */ (() => {
  const base = new Uint16Array(30);
  for (let i = 0, at = 1; i < 30; at += 1 << distanceExtra[i++]!) base[i] = at;
  return base;
})();
/** Length (3 to 258) to its symbol less 257. */
export const lengthSymbol = /* @__PURE__ */ (() => {
  const symbol = new Uint8Array(MAX_MATCH + 1);
  for (let i = 0; i < 29; i++) symbol.fill(i, lengthBase[i], lengthBase[i]! + (1 << lengthExtra[i]!));
  symbol[MAX_MATCH] = 28;
  return symbol;
})();
/** Distance less 1 to its symbol: up to 256 directly, above by its bits from 7 up, 256 further on. */
export const distanceSymbol = /* @__PURE__ */ (() => {
  const symbol = new Uint8Array(512);
  for (let i = 0; i < 30; i++)
    for (let d = distanceBase[i]! - 1, end = d + (1 << distanceExtra[i]!); d < end; d++) symbol[d < 256 ? d : 256 + (d >> 7)] = i;
  return symbol;
})();

/** Lengths of the fixed codes. */
export const fixedLiteralLengths = /* @__PURE__ */ Uint8Array.from({ length: FIXED_LITERAL_SYMBOLS }, (_, i) =>
  i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8,
);
export const fixedDistanceLengths = /* @__PURE__ */ new Uint8Array(32).fill(5);

/** The low `width` bits in reverse order: codes are sent with their most significant bit first. */
export function reversed(code: number, width: number): number {
  let out = 0;
  for (let i = 0; i < width; i++) out |= ((code >>> i) & 1) << (width - 1 - i);
  return out;
}
