/** The state of decompression in AECS, and from there. Intel QPL, hw_aecs_api.h and hw_aecs_decompress.c (format 1). */
import {
  DECOMPRESS_AECS_BYTES,
  DECOMPRESS_COUNTS,
  DECOMPRESS_DISTANCES,
  DECOMPRESS_FIRST_CODES,
  DECOMPRESS_FIRST_INDEX,
  DECOMPRESS_FIRST_LENGTHS,
  DECOMPRESS_HISTORY,
  DECOMPRESS_INPUT,
  DECOMPRESS_LENGTHS,
  DECOMPRESS_SYMBOLS,
  DecompressAecs,
  decompressAecsBytes,
} from '../spec/iax.js';
import { DISTANCE_SYMBOLS, END_OF_BLOCK, FIXED_LITERAL_SYMBOLS, MAX_CODE } from './deflate-tables.js';
import { type Inflate, Phase } from './inflate.js';

const { get, set } = DecompressAecs;
/** Bits of a code's width in an end of block code, above its bits. */
const WIDTH_SHIFT = 15;

/** Fields for code widths 1 to 15, of width + `more` bits each, in five dwords of which none is crossed. */
const GROUPS = [
  [1, 6],
  [7, 9],
  [10, 11],
  [12, 13],
  [14, 15],
] as const;
const fieldBits = (width: number): number => width + 1;
/** A table by code width (`values[width]`), packed as AECS has it. */
function packByWidth(words: Uint32Array, at: number, values: ArrayLike<number>): void {
  for (let i = 0; i < GROUPS.length; i++) {
    let packed = 0;
    for (let width = GROUPS[i]![0], shift = 0; width <= GROUPS[i]![1]; shift += fieldBits(width++))
      packed |= (values[width]! & ((1 << fieldBits(width)) - 1)) << shift;
    words[at / 4 + i] = packed;
  }
}
function unpackByWidth(words: Uint32Array, at: number, values: Uint16Array): void {
  for (let i = 0; i < GROUPS.length; i++)
    for (let width = GROUPS[i]![0], shift = 0; width <= GROUPS[i]![1]; shift += fieldBits(width++))
      values[width] = (words[at / 4 + i]! >>> shift) & ((1 << fieldBits(width)) - 1);
}
const nibble = (bytes: Uint8Array, at: number, i: number): number => (bytes[at + (i >> 1)]! >>> (4 * (i & 1))) & 15;
const putNibble = (bytes: Uint8Array, at: number, i: number, value: number): void => {
  bytes[at + (i >> 1)] = (bytes[at + (i >> 1)]! & (0xf0 >>> (4 * (i & 1)))) | (value << (4 * (i & 1)));
};

/** Scratch: tables by width. */
const table = new Uint16Array(MAX_CODE + 1);
const firstIndex = new Uint16Array(MAX_CODE + 1);
const noLength = /* @__PURE__ */ Uint32Array.of(0x07ff_ffff, 0x07ff_ffff, 0x007f_ffff, 0x07ff_ffff, 0x7fff_ffff);

/** What can go on: bits of the input that were not used, most of them as whole bytes. */
export interface Kept {
  /** Fewer than 8 bits, then bytes. */
  hold: number;
  bits: number;
  readonly bytes: Uint8Array;
  at: number;
  end: number;
}
const MAX_KEPT = 8 * DECOMPRESS_INPUT.quadwords - 8;

/** How much of a history AECS of so many bytes takes: the device's, 4 KiB of it, or none. */
const ringBytes = (bytes: number, history: number): number => {
  const ring = Math.max(history, DECOMPRESS_HISTORY.bytes);
  return bytes >= decompressAecsBytes(ring) ? ring : bytes >= DECOMPRESS_AECS_BYTES ? DECOMPRESS_HISTORY.bytes : 0;
};

/** Puts the state into `size` bytes of `aecs`; false when there are more bits of input than it takes. `plain` up to `to` has the history. */
export function saveDecompress(
  aecs: Uint8Array,
  words: Uint32Array,
  size: number,
  inflate: Inflate,
  kept: Kept,
  plain: Uint8Array,
  to: number,
  history: number,
  terminated: boolean,
): boolean {
  const bytes = kept.end - kept.at;
  if (bytes > MAX_KEPT) return false;
  const { data, sizes } = DECOMPRESS_INPUT;
  aecs.fill(0, data, sizes + DECOMPRESS_INPUT.quadwords);
  let slot = 0;
  if (kept.bits > 0) {
    aecs[data] = kept.hold;
    aecs[sizes] = kept.bits;
    slot++;
  }
  for (let at = kept.at; at < kept.end; at += 8, slot++) {
    const n = Math.min(8, kept.end - at);
    for (let k = 0; k < n; k++) aecs[data + 8 * slot + k] = kept.bytes[at + k]!;
    aecs[sizes + slot] = 8 * n;
  }
  set.header(words, 0, inflate.phase === Phase.header ? 1 : 0);
  set.stored(words, 0, inflate.phase === Phase.stored ? 1 : 0);
  set.final(words, 0, inflate.final ? 1 : 0);
  set.terminated(words, 0, terminated ? 1 : 0);
  set.storedLeft(words, 0, inflate.storedLeft);
  set.matchLength(words, 0, inflate.matchLength);
  set.matchDistance(words, 0, inflate.matchDistance & 0xffff);
  if (inflate.phase === Phase.body) saveCodes(aecs, words, inflate);
  // The history as a ring that begins at its oldest byte.
  const ring = ringBytes(size, inflate.history);
  if (ring === 0) return true;
  const valid = Math.min(history, ring);
  aecs.fill(0, DECOMPRESS_HISTORY.offset, DECOMPRESS_HISTORY.offset + ring);
  aecs.set(plain.subarray(to - valid, to), DECOMPRESS_HISTORY.offset);
  set.historyWrite(words, 0, valid % ring);
  set.historyFull(words, 0, valid === ring ? 1 : 0);
  return true;
}

function saveCodes(aecs: Uint8Array, words: Uint32Array, { literals, distances }: Inflate): void {
  // Literals: by width, in the order of their codes. Among equals their codes come first, since their symbols are the lowest.
  let place = 0;
  table.fill(0);
  aecs.fill(0, DECOMPRESS_SYMBOLS, DECOMPRESS_SYMBOLS + 256);
  for (let width = 1; width <= MAX_CODE; width++) {
    firstIndex[width] = place;
    for (let i = 0; i < literals.count[width]!; i++) {
      const symbol = literals.symbols[literals.from[width]! + i]!;
      if (symbol >= END_OF_BLOCK) break;
      aecs[DECOMPRESS_SYMBOLS + place++] = symbol;
      table[width]!++;
    }
  }
  packByWidth(words, DECOMPRESS_FIRST_INDEX, firstIndex);
  packByWidth(words, DECOMPRESS_COUNTS, table);
  packByWidth(words, DECOMPRESS_FIRST_CODES, literals.first);
  words.set(noLength, DECOMPRESS_FIRST_LENGTHS / 4);
  set.endOfBlockCode(words, 0, literals.lengths[END_OF_BLOCK]! << WIDTH_SHIFT);
  for (let i = 0; i < DECOMPRESS_LENGTHS.count; i++) putNibble(aecs, DECOMPRESS_LENGTHS.offset, i, literals.lengths[END_OF_BLOCK + 1 + i]!);
  for (let i = 0; i < DECOMPRESS_DISTANCES.count; i++) putNibble(aecs, DECOMPRESS_DISTANCES.offset, i, distances.lengths[i]!);
}

/**
 * Takes the state from `aecs`: false when it cannot be one. The history goes to `plain` from 0 on; `kept` gets the bits of the input, and the
 * result says how long the history is.
 */
export function loadDecompress(aecs: Uint8Array, words: Uint32Array, bytes: number, inflate: Inflate, kept: Kept, plain: Uint8Array): number {
  inflate.begin();
  const { data, sizes, quadwords } = DECOMPRESS_INPUT;
  kept.hold = kept.bits = 0;
  kept.at = kept.end = 0;
  // Bits one after the other; what does not fill a byte stands in front.
  let total = 0;
  for (let i = 0; i < quadwords; i++) {
    if (aecs[sizes + i]! > 64) return -1;
    total += aecs[sizes + i]!;
  }
  kept.bits = total % 8;
  let bit = -kept.bits;
  kept.bytes.fill(0, 0, total >> 3);
  for (let i = 0; i < quadwords; i++)
    for (let k = 0; k < aecs[sizes + i]!; k++, bit++) {
      const value = (aecs[data + 8 * i + (k >> 3)]! >>> (k & 7)) & 1;
      if (bit < 0) kept.hold |= value << (bit + kept.bits);
      else kept.bytes[bit >> 3]! |= value << (bit & 7);
    }
  kept.end = total >> 3;

  inflate.phase = get.header(words, 0) ? Phase.header : get.stored(words, 0) ? Phase.stored : Phase.body;
  inflate.final = get.final(words, 0) === 1;
  inflate.storedLeft = inflate.phase === Phase.stored ? get.storedLeft(words, 0) : 0;
  if (inflate.phase === Phase.body && !loadCodes(aecs, words, inflate)) return -1;

  let history = 0;
  const size = ringBytes(bytes, inflate.history);
  if (size > 0) {
    const { offset } = DECOMPRESS_HISTORY;
    const write = get.historyWrite(words, 0);
    const full = get.historyFull(words, 0);
    if (write > size) return -1;
    history = full ? size : write;
    const oldest = full ? write % size : 0;
    plain.set(aecs.subarray(offset + oldest, offset + (full ? size : write)));
    if (full) plain.set(aecs.subarray(offset, offset + oldest), size - oldest);
  }
  inflate.matchLength = get.matchLength(words, 0);
  inflate.matchDistance = get.matchDistance(words, 0);
  if (inflate.matchLength > 258 || (inflate.matchLength > 0 && (inflate.matchDistance === 0 || inflate.matchDistance > history))) return -1;
  return history;
}

const literalLengths = new Uint8Array(FIXED_LITERAL_SYMBOLS);
const distanceLengths = new Uint8Array(DISTANCE_SYMBOLS);
function loadCodes(aecs: Uint8Array, words: Uint32Array, inflate: Inflate): boolean {
  unpackByWidth(words, DECOMPRESS_COUNTS, table);
  unpackByWidth(words, DECOMPRESS_FIRST_INDEX, firstIndex);
  literalLengths.fill(0);
  for (let width = 1; width <= MAX_CODE; width++)
    for (let i = 0; i < table[width]!; i++) {
      const place = firstIndex[width]! + i;
      if (place >= 256) return false;
      literalLengths[aecs[DECOMPRESS_SYMBOLS + place]!] = width;
    }
  literalLengths[END_OF_BLOCK] = (get.endOfBlockCode(words, 0) >>> WIDTH_SHIFT) & 15;
  for (let i = 0; i < DECOMPRESS_LENGTHS.count; i++) literalLengths[END_OF_BLOCK + 1 + i] = nibble(aecs, DECOMPRESS_LENGTHS.offset, i);
  for (let i = 0; i < DECOMPRESS_DISTANCES.count; i++) distanceLengths[i] = nibble(aecs, DECOMPRESS_DISTANCES.offset, i);
  return inflate.setLengths(literalLengths, distanceLengths);
}
