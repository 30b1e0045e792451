/**
 * Huffman codes from frequencies, and the header of a dynamic block. RFC 1951, sections 3.2.2 and 3.2.7. A code is kept as AECS keeps it: its
 * length in bits 18:15, its bits, most significant first, in 14:0; 0 is a symbol without a code.
 */
import {
  Block,
  DISTANCE_SYMBOLS,
  END_OF_BLOCK,
  fixedDistanceLengths,
  fixedLiteralLengths,
  LENGTH_CODE_ORDER,
  LITERAL_SYMBOLS,
  MAX_CODE,
  MAX_LENGTH_CODE,
  reversed,
} from './deflate-tables.js';

const CODE_SHIFT = 15;
const LENGTH_MASK = 15;
const CODE_MASK = 0x7fff;
export const lengthOf = (code: number): number => (code >>> CODE_SHIFT) & LENGTH_MASK;
/** The bits of a code in the order in which they are sent. */
export const bitsOf = (code: number): number => reversed(code & CODE_MASK, lengthOf(code));

/** Codes in the order of their lengths and, among equals, of their symbols. */
function assignCodes(lengths: ArrayLike<number>, codes: Uint32Array): void {
  const next = new Uint32Array(MAX_CODE + 2);
  for (let i = 0; i < codes.length; i++) next[lengths[i]! + 1]!++;
  next[1] = 0;
  for (let bits = 1, code = 0; bits <= MAX_CODE; bits++) {
    code = (code + next[bits]!) << 1;
    next[bits] = code;
  }
  // next[n] now counts from the first code of length n, of which next[n + 1] was the number.
  for (let i = 0; i < codes.length; i++) {
    const length = lengths[i]!;
    codes[i] = length === 0 ? 0 : (length << CODE_SHIFT) | next[length]!++;
  }
}

/**
 * Code lengths of an optimal code no longer than `limit` (Larmore and Hirschberg's package merge). At least two symbols get one, since some
 * decoders want a complete code.
 */
export function codeLengths(counts: ArrayLike<number>, limit: number, lengths: Uint8Array): void {
  lengths.fill(0);
  let used: { weight: number; symbols: number[] }[] = [];
  for (let i = 0; i < lengths.length; i++) if (counts[i]! > 0) used.push({ weight: counts[i]!, symbols: [i] });
  for (let i = 0; used.length < 2; i++) if (!used.some((u) => u.symbols[0] === i)) used.push({ weight: 0, symbols: [i] });
  used = used.sort((a, b) => a.weight - b.weight);
  let packages = used;
  for (let level = 1; level < limit; level++) {
    const merged: typeof used = [];
    for (let i = 0; i + 1 < packages.length; i += 2)
      merged.push({
        weight: packages[i]!.weight + packages[i + 1]!.weight,
        symbols: [...packages[i]!.symbols, ...packages[i + 1]!.symbols],
      });
    packages = [...used, ...merged].sort((a, b) => a.weight - b.weight);
  }
  for (const { symbols } of packages.slice(0, 2 * used.length - 2)) for (const symbol of symbols) lengths[symbol]!++;
}

export interface Codes {
  readonly literals: Uint32Array;
  readonly distances: Uint32Array;
}
/** Codes for how often each symbol occurs; the end of the block always has one. */
export function buildCodes(literalCounts: ArrayLike<number>, distanceCounts: ArrayLike<number>, out: Codes): void {
  const counts = Array.from({ length: LITERAL_SYMBOLS }, (_, i) => literalCounts[i]!);
  counts[END_OF_BLOCK] ||= 1;
  const literals = new Uint8Array(LITERAL_SYMBOLS);
  const distances = new Uint8Array(DISTANCE_SYMBOLS);
  codeLengths(counts, MAX_CODE, literals);
  codeLengths(distanceCounts, MAX_CODE, distances);
  assignCodes(literals, out.literals);
  assignCodes(distances, out.distances);
}

const fixed = (lengths: Uint8Array, symbols: number): Uint32Array => {
  const codes = new Uint32Array(lengths.length);
  assignCodes(lengths, codes);
  return codes.slice(0, symbols);
};
export const fixedCodes: Codes = {
  literals: /* @__PURE__ */ fixed(fixedLiteralLengths, LITERAL_SYMBOLS),
  distances: /* @__PURE__ */ fixed(fixedDistanceLengths, DISTANCE_SYMBOLS),
};

/** Where headers are written: `value` has `width` (at most 16) bits. */
export interface BitSink {
  put(value: number, width: number): void;
}
export function fixedHeader(to: BitSink, final: boolean): void {
  to.put((final ? 1 : 0) | (Block.fixed << 1), 3);
}

const REPEAT = 16;
const ZEROS = 17;
const MANY_ZEROS = 18;
/** Lengths as tokens: a symbol (a length, or one of three kinds of runs) in bits 4:0, what a run adds in 15:8. */
function* runs(codes: Uint32Array, count: number): Iterable<number> {
  for (let i = 0; i < count; ) {
    const length = lengthOf(codes[i]!);
    let n = 1;
    while (i + n < count && lengthOf(codes[i + n]!) === length) n++;
    i += n;
    if (length === 0) {
      for (; n >= 11; n -= Math.min(n, 138)) yield MANY_ZEROS | ((Math.min(n, 138) - 11) << 8);
      if (n >= 3) {
        yield ZEROS | ((n - 3) << 8);
        n = 0;
      }
    } else {
      yield length;
      n--;
      for (; n >= 3; n -= Math.min(n, 6)) yield REPEAT | ((Math.min(n, 6) - 3) << 8);
    }
    while (n-- > 0) yield length;
  }
}
const last = (codes: Uint32Array): number => {
  let n = codes.length;
  while (n > 1 && codes[n - 1] === 0) n--;
  return n;
};
/** The header of a block with codes of its own. At most 286 bytes. */
export function dynamicHeader({ literals, distances }: Codes, to: BitSink, final: boolean): void {
  const literalCount = Math.max(257, last(literals));
  const distanceCount = last(distances);
  const tokens = [...runs(literals, literalCount), ...runs(distances, distanceCount)];
  const counts = new Uint32Array(19);
  for (const token of tokens) counts[token & 31]!++;
  const lengths = new Uint8Array(19);
  const codes = new Uint32Array(19);
  codeLengths(counts, MAX_LENGTH_CODE, lengths);
  assignCodes(lengths, codes);
  let named = 19;
  while (named > 4 && lengths[LENGTH_CODE_ORDER[named - 1]!] === 0) named--;
  to.put((final ? 1 : 0) | (Block.dynamic << 1), 3);
  to.put(literalCount - 257, 5);
  to.put(distanceCount - 1, 5);
  to.put(named - 4, 4);
  for (let i = 0; i < named; i++) to.put(lengths[LENGTH_CODE_ORDER[i]!]!, 3);
  for (const token of tokens) {
    const symbol = token & 31;
    to.put(bitsOf(codes[symbol]!), lengths[symbol]!);
    if (symbol >= REPEAT) to.put(token >>> 8, symbol === REPEAT ? 2 : symbol === ZEROS ? 3 : 7);
  }
}
