/** Streams that are wrong, bit by bit. RFC 1951, 3.2. */
import { AnalyticsError } from '../src/spec/iax.js';

/** A stream from bits: `[value, width]`, lowest first. */
function bits(...parts: readonly (readonly [number, number])[]): Uint8Array {
  const out: number[] = [];
  let at = 0;
  for (const [value, width] of parts)
    for (let i = 0; i < width; i++, at++) {
      if (at % 8 === 0) out.push(0);
      out[at >> 3]! |= ((value >>> i) & 1) << (at & 7);
    }
  return Uint8Array.from(out);
}
const dynamic = (literals: number, distances: number, ...lengths: readonly number[]) =>
  [[0b101, 3], [literals - 257, 5], [distances - 1, 5], [lengths.length - 4, 4], ...lengths.map((n) => [n, 3] as const)] as const;

/** Code length codes of one bit: 0 for length 1, 1 for a run of zeros (18) whose length less 11 follows. */
const oneAndZeros = (literals: number, distances: number) => dynamic(literals, distances, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const ones = (n: number) => Array.from({ length: n }, () => [0, 1] as const);
/** The end of the block has a code of one bit, and nothing else has; one distance. */
const onlyOneCode = [...oneAndZeros(257, 1), [1, 1], [127, 7], [1, 1], [107, 7], ...ones(2)] as const;
/** So have the end and length 3; one distance. */
const oneLength = [...oneAndZeros(258, 1), [1, 1], [127, 7], [1, 1], [107, 7], ...ones(3)] as const;

const fixed = [0b011, 3] as const;
// In the order 16, 17, 18, 0, 8: codes for 16 and 18 of one bit each.
/** What is wrong with it, and the error that it is. */
export const brokenStreams: readonly (readonly [string, number, Uint8Array])[] = [
  ['the reserved block type', AnalyticsError.blockType, bits([0b111, 3])],
  ['a stored block whose length and its complement differ', AnalyticsError.storedLength, bits([0b001, 8], [5, 16], [5, 16])],
  ['more than 286 literal codes', AnalyticsError.literalSymbols, bits(...dynamic(287, 1, 1, 0, 1, 0))],
  ['more than 30 distance codes', AnalyticsError.distanceSymbols, bits(...dynamic(257, 31, 1, 0, 1, 0))],
  ['too many short code length codes', AnalyticsError.codeLengthLengths, bits(...dynamic(257, 1, 1, 1, 1, 0))],
  ['a code length code that is none', AnalyticsError.codeLengthCode, bits(...dynamic(257, 1, 0, 0, 0, 2), [0b1111111, 7])],
  ['lengths that begin with a repetition', AnalyticsError.firstLiteralRepeats, bits(...dynamic(257, 1, 1, 0, 1, 0), [0, 1])],
  ['lengths that are all 0', AnalyticsError.noLiteralCode, bits(...dynamic(257, 1, 1, 0, 1, 0), [1, 1], [127, 7], [1, 1], [109, 7])],
  ['more lengths than symbols', AnalyticsError.distanceCount, bits(...dynamic(257, 1, 1, 0, 1, 0), [1, 1], [127, 7], [1, 1], [127, 7])],
  ['a length symbol beyond the last', AnalyticsError.lengthRange, bits(fixed, [0b01100011, 8])],
  ['a distance symbol beyond the last', AnalyticsError.distanceCode, bits(fixed, [0b00001100, 8], [0b1000000, 7], [0b01111, 5])],
  ['a literal code that is none', AnalyticsError.literalCode, bits(...onlyOneCode, [1, 1])],
  ['a distance code that is none', AnalyticsError.distanceCode, bits(...oneLength, [1, 1], [1, 1])],
  [
    'too many short literal codes',
    AnalyticsError.literalLengths,
    bits(...oneAndZeros(257, 1), ...ones(3), [1, 1], [127, 7], [1, 1], [105, 7], ...ones(2)),
  ],
  [
    'too many short distance codes',
    AnalyticsError.distanceLengths,
    bits(...oneAndZeros(257, 3), [1, 1], [127, 7], [1, 1], [107, 7], ...ones(1), ...ones(3)),
  ],
];

/** In the order 16, 17, 18, ..., 1: zeros in runs (18) have a code of one bit, a length of 1 and a repetition (16) of two. */
const withRepetition = (literals: number, distances: number) => dynamic(literals, distances, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);
/** Wrong where the lengths of literals and those of distances are two sequences. */
export const separately: typeof brokenStreams = [
  [
    'a run of zeros from one into the other',
    AnalyticsError.literalCount,
    bits(...oneAndZeros(257, 3), ...ones(1), [1, 1], [127, 7], [1, 1], [108, 7], ...ones(2)),
  ],
  [
    'lengths of distances that begin with a repetition',
    AnalyticsError.firstDistanceRepeats,
    bits(...withRepetition(257, 3), [0, 1], [127, 7], [0, 1], [107, 7], [0b01, 2], [0b11, 2], [0, 2]),
  ],
];

/** A header as long as one can be: codes of 8 and of 9 bits in turn, each length told by seven bits, and no runs. */
export const longHeader = bits(...dynamic(286, 30, 0, 0, 0, 0, 7, 0, 7), ...Array.from({ length: 316 }, (_, i) => [(i & 1) << 6, 7] as const));
