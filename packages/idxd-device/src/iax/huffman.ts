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

// Made once: a device compresses one descriptor at a time, and each makes its codes at one go.
const next = /* @__PURE__ */ new Uint32Array(MAX_CODE + 2);
/** Codes in the order of their lengths and, among equals, of their symbols. */
function assignCodes(lengths: ArrayLike<number>, codes: Uint32Array): void {
  next.fill(0);
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

/** Room for the weights of two lists of packages, and for whether each member of each list is a symbol. */
const LIST = 2 * LITERAL_SYMBOLS;
const MOST_LENGTH = 20;
const leaves = /* @__PURE__ */ new Float64Array(LITERAL_SYMBOLS);
const weights = [/* @__PURE__ */ new Float64Array(LIST), /* @__PURE__ */ new Float64Array(LIST)] as const;
const isLeaf = /* @__PURE__ */ new Uint8Array(MOST_LENGTH * LIST);
const SYMBOLS = 512;

/**
 * Code lengths of an optimal code no longer than `limit`, at most 20 (Larmore and Hirschberg's package merge). At least two symbols get one, since
 * some decoders want a complete code.
 */
export function codeLengths(counts: ArrayLike<number>, limit: number, lengths: Uint8Array): void {
  lengths.fill(0);
  // Weight and symbol in one number, so that sorting needs no second list.
  let n = 0;
  for (let i = 0; i < lengths.length; i++) if (counts[i]! > 0) leaves[n++] = counts[i]! * SYMBOLS + i;
  for (let i = 0; n < 2; i++) if (counts[i]! === 0) leaves[n++] = i;
  leaves.fill(Number.POSITIVE_INFINITY, n);
  leaves.sort();
  // Of each length, shortest last: the symbols, and packages of two of the length below it, by weight.
  let count = 0;
  for (let level = 0; level < limit; level++) {
    const below = weights[(level + 1) & 1]!;
    const list = weights[level & 1]!;
    const packages = count >> 1;
    const flags = level * LIST;
    count = n + packages;
    for (let i = 0, leaf = 0, pair = 0; i < count; i++) {
      const whole = pair < packages ? below[2 * pair]! + below[2 * pair + 1]! : Number.POSITIVE_INFINITY;
      const weight = leaf < n ? Math.floor(leaves[leaf]! / SYMBOLS) : Number.POSITIVE_INFINITY;
      const takesLeaf = weight <= whole && leaf < n;
      isLeaf[flags + i] = takesLeaf ? 1 : 0;
      list[i] = takesLeaf ? weight : whole;
      if (takesLeaf) leaf++;
      else pair++;
    }
  }
  // Back again: what the cheapest 2n - 2 of the last list consist of. A symbol's length is how often it is in there.
  for (let level = limit - 1, most = 2 * n - 2; level >= 0; level--) {
    let leaf = 0;
    for (let i = 0; i < most; i++) if (isLeaf[level * LIST + i]) lengths[leaves[leaf++]! % SYMBOLS]!++;
    most = 2 * (most - leaf);
  }
}

export interface Codes {
  readonly literals: Uint32Array;
  readonly distances: Uint32Array;
}
const literalCounts = /* @__PURE__ */ new Uint32Array(LITERAL_SYMBOLS);
const literalLengths = /* @__PURE__ */ new Uint8Array(LITERAL_SYMBOLS);
const distanceLengths = /* @__PURE__ */ new Uint8Array(DISTANCE_SYMBOLS);
/** Codes for how often each symbol occurs; the end of the block always has one. */
export function buildCodes(literals: Uint32Array, distances: Uint32Array, out: Codes): void {
  literalCounts.set(literals);
  literalCounts[END_OF_BLOCK] ||= 1;
  codeLengths(literalCounts, MAX_CODE, literalLengths);
  codeLengths(distances, MAX_CODE, distanceLengths);
  assignCodes(literalLengths, out.literals);
  assignCodes(distanceLengths, out.distances);
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
const tokens = /* @__PURE__ */ new Uint16Array(LITERAL_SYMBOLS + DISTANCE_SYMBOLS);
/** Puts them behind the first `made`; returns how many there are then. */
function runs(codes: Uint32Array, count: number, made: number): number {
  for (let i = 0; i < count; ) {
    const length = lengthOf(codes[i]!);
    let n = 1;
    while (i + n < count && lengthOf(codes[i + n]!) === length) n++;
    i += n;
    if (length === 0) {
      for (; n >= 11; n -= Math.min(n, 138)) tokens[made++] = MANY_ZEROS | ((Math.min(n, 138) - 11) << 8);
      if (n >= 3) {
        tokens[made++] = ZEROS | ((n - 3) << 8);
        n = 0;
      }
    } else {
      tokens[made++] = length;
      n--;
      for (; n >= 3; n -= Math.min(n, 6)) tokens[made++] = REPEAT | ((Math.min(n, 6) - 3) << 8);
    }
    while (n-- > 0) tokens[made++] = length;
  }
  return made;
}
const last = (codes: Uint32Array): number => {
  let n = codes.length;
  while (n > 1 && codes[n - 1] === 0) n--;
  return n;
};
const LENGTH_SYMBOLS = 19;
const tokenCounts = /* @__PURE__ */ new Uint32Array(LENGTH_SYMBOLS);
const tokenLengths = /* @__PURE__ */ new Uint8Array(LENGTH_SYMBOLS);
const tokenCodes = /* @__PURE__ */ new Uint32Array(LENGTH_SYMBOLS);
/** The header of a block with codes of its own. At most 286 bytes. */
export function dynamicHeader({ literals, distances }: Codes, to: BitSink, final: boolean): void {
  const literalCount = Math.max(257, last(literals));
  const distanceCount = last(distances);
  const count = runs(distances, distanceCount, runs(literals, literalCount, 0));
  tokenCounts.fill(0);
  for (let i = 0; i < count; i++) tokenCounts[tokens[i]! & 31]!++;
  codeLengths(tokenCounts, MAX_LENGTH_CODE, tokenLengths);
  assignCodes(tokenLengths, tokenCodes);
  let named = LENGTH_SYMBOLS;
  while (named > 4 && tokenLengths[LENGTH_CODE_ORDER[named - 1]!] === 0) named--;
  to.put((final ? 1 : 0) | (Block.dynamic << 1), 3);
  to.put(literalCount - 257, 5);
  to.put(distanceCount - 1, 5);
  to.put(named - 4, 4);
  for (let i = 0; i < named; i++) to.put(tokenLengths[LENGTH_CODE_ORDER[i]!]!, 3);
  for (let i = 0; i < count; i++) {
    const token = tokens[i]!;
    const symbol = token & 31;
    to.put(bitsOf(tokenCodes[symbol]!), tokenLengths[symbol]!);
    if (symbol >= REPEAT) to.put(token >>> 8, symbol === REPEAT ? 2 : symbol === ZEROS ? 3 : 7);
  }
}
