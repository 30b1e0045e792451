/**
 * A DEFLATE compressor for codes that are given, as IAX has it: the codes and the first bits of the output come from outside, so does what ends
 * a block. It takes its input in any pieces and stops wherever its output is full. RFC 1951.
 */
import {
  DISTANCE_SYMBOLS,
  distanceBase,
  distanceExtra,
  distanceSymbol,
  END_OF_BLOCK,
  LITERAL_SYMBOLS,
  lengthBase,
  lengthExtra,
  lengthSymbol,
  MAX_MATCH,
  MIN_MATCH,
} from './deflate-tables.js';
import { bitsOf, lengthOf } from './huffman.js';

/** Why `run` came back. */
export const Pause = { done: 0, input: 1, room: 2, noCode: 3 } as const;

const CHUNK = 1 << 15;
const OUTPUT_BYTES = 1 << 16;
/** What one token may write, and what a header or the end may: beyond that there is no room. */
const SLACK = 16;
const HASH_BITS = 13;
/** Bytes that are compared before a match is looked at. */
const PROBE = 4;

export interface DeflateOptions {
  /** How far back a match may begin, in bytes, a power of two up to 32768. */
  readonly history: number;
}

export class Deflate {
  // fixed
  readonly #history: number;
  readonly #head = new Int32Array(1 << HASH_BITS);
  /** History and what is to be compressed: put bytes at `end`, no further than `limit`, then `run`. */
  readonly input: Uint8Array;
  /** What was written: `outputEnd` bytes, for whoever takes them away and sets it to 0. */
  readonly output = new Uint8Array(OUTPUT_BYTES + 64);
  /** Codes as they are sent, and their widths; lengths with their extra bits. Width 0: there is no code. */
  readonly #literal = new Uint16Array(LITERAL_SYMBOLS);
  readonly #literalWidth = new Uint8Array(LITERAL_SYMBOLS);
  readonly #length = new Uint32Array(MAX_MATCH + 1);
  readonly #lengthWidth = new Uint8Array(MAX_MATCH + 1);
  readonly #distance = new Uint16Array(DISTANCE_SYMBOLS);
  readonly #distanceWidth = new Uint8Array(DISTANCE_SYMBOLS);
  /** How often each symbol was used, when `counting`. */
  readonly literalCounts = new Uint32Array(LITERAL_SYMBOLS);
  readonly distanceCounts = new Uint32Array(DISTANCE_SYMBOLS);
  // state
  end = 0;
  outputEnd = 0;
  counting = false;
  /** No matches. */
  literalsOnly = false;
  /** A match neither begins before nor goes on behind a multiple of this many bytes; 0: there are no such blocks. */
  block = 0;
  #at = 0;
  #blockStart = 0;
  #hold = 0;
  #bits = 0;

  constructor({ history }: DeflateOptions) {
    if (!(history >= 256 && history <= 32768 && (history & (history - 1)) === 0))
      throw new RangeError(`history: a power of two from 256 to 32768 bytes, not ${history}`);
    this.#history = history;
    this.input = new Uint8Array(history + CHUNK + MAX_MATCH);
  }

  /** Forgets everything, the codes too. */
  begin(): void {
    this.#head.fill(0);
    this.literalCounts.fill(0);
    this.distanceCounts.fill(0);
    this.end = this.outputEnd = this.#at = this.#blockStart = this.#hold = this.#bits = 0;
    this.counting = this.literalsOnly = false;
    this.block = 0;
    this.#literalWidth.fill(0);
  }
  /** The same input from its beginning once more: what a second pass over it does. */
  rewind(): void {
    this.#head.fill(0);
    this.end = this.#at = this.#blockStart = 0;
    this.counting = false;
  }

  /** Codes as AECS has them (`huffman.ts`). */
  setCodes(literals: Uint32Array, distances: Uint32Array): void {
    for (let i = 0; i < LITERAL_SYMBOLS; i++) {
      this.#literal[i] = bitsOf(literals[i]!);
      this.#literalWidth[i] = lengthOf(literals[i]!);
    }
    for (let n = MIN_MATCH; n <= MAX_MATCH; n++) {
      const symbol = lengthSymbol[n]!;
      const width = this.#literalWidth[END_OF_BLOCK + 1 + symbol]!;
      this.#length[n] = this.#literal[END_OF_BLOCK + 1 + symbol]! | ((n - lengthBase[symbol]!) << width);
      this.#lengthWidth[n] = width === 0 ? 0 : width + lengthExtra[symbol]!;
    }
    for (let i = 0; i < DISTANCE_SYMBOLS; i++) {
      this.#distance[i] = bitsOf(distances[i]!);
      this.#distanceWidth[i] = lengthOf(distances[i]!);
    }
  }

  /** Makes room for input, as far as `limit`. */
  get limit(): number {
    const keep = this.#at - this.#history;
    if (this.end === this.input.length && keep > 0) {
      this.input.copyWithin(0, keep, this.end);
      this.end -= keep;
      this.#at -= keep;
      this.#blockStart -= keep;
      const head = this.#head;
      for (let i = 0; i < head.length; i++) head[i] = head[i]! > keep ? head[i]! - keep : 0;
    }
    return this.input.length;
  }
  /** Whether input was given that is not compressed yet. */
  get pending(): boolean {
    return this.#at < this.end;
  }

  /** Writes bits, the lowest first. The caller sees to it that there is room: `hasRoom`. */
  put(value: number, width: number): void {
    this.#hold |= value << this.#bits;
    for (this.#bits += width; this.#bits >= 8; this.#bits -= 8) {
      this.output[this.outputEnd++] = this.#hold;
      this.#hold >>>= 8;
    }
  }
  get hasRoom(): boolean {
    return this.outputEnd + 512 <= OUTPUT_BYTES;
  }
  /** The code of the end of the block; false when there is none. */
  putEndOfBlock(): boolean {
    if (this.#literalWidth[END_OF_BLOCK] === 0) return false;
    this.put(this.#literal[END_OF_BLOCK]!, this.#literalWidth[END_OF_BLOCK]!);
    return true;
  }
  /** Zeros up to a byte. */
  align(): void {
    if (this.#bits > 0) this.put(0, 8 - this.#bits);
  }
  /** Bits, fewer than 8, that do not fill a byte of the output; how many they are. */
  get partial(): number {
    return this.#hold & ((1 << this.#bits) - 1);
  }
  get partialBits(): number {
    return this.#bits;
  }

  /** Compresses what is there; without `last` it keeps what a match might still go on into. */
  run(last: boolean): number {
    const { input, output } = this;
    const head = this.#head;
    const history = this.#history;
    const literal = this.#literal;
    const literalWidth = this.#literalWidth;
    const end = this.end;
    const stop = last ? end : end - MAX_MATCH - PROBE;
    let at = this.#at;
    let out = this.outputEnd;
    let hold = this.#hold;
    let bits = this.#bits;
    let pause: number = Pause.done;
    while (at < stop) {
      if (out > OUTPUT_BYTES - SLACK) {
        pause = Pause.room;
        break;
      }
      let length = 0;
      let from = 0;
      if (!this.literalsOnly && end - at >= PROBE) {
        let floor = at - history;
        let most = end - at;
        if (this.block > 0) {
          while (at - this.#blockStart >= this.block) this.#blockStart += this.block;
          if (this.#blockStart > floor) floor = this.#blockStart;
          if (this.#blockStart + this.block - at < most) most = this.#blockStart + this.block - at;
        }
        if (most > MAX_MATCH) most = MAX_MATCH;
        const h = hashAt(input, at);
        from = head[h]! - 1;
        head[h] = at + 1;
        if (from >= 0 && from >= floor && from < at) {
          while (length < most && input[from + length] === input[at + length]) length++;
          if (length < PROBE) length = 0;
        }
      }
      if (length === 0) {
        const byte = input[at]!;
        if (this.counting) this.literalCounts[byte]!++;
        else {
          const width = literalWidth[byte]!;
          if (width === 0) {
            pause = Pause.noCode;
            break;
          }
          hold |= literal[byte]! << bits;
          bits += width;
          if (bits >= 16) {
            output[out] = hold;
            output[out + 1] = hold >>> 8;
            out += 2;
            hold >>>= 16;
            bits -= 16;
          }
        }
        at++;
        continue;
      }
      const distance = at - from;
      const symbol = distanceSymbol[distance <= 256 ? distance - 1 : 256 + ((distance - 1) >> 7)]!;
      if (this.counting) {
        this.literalCounts[END_OF_BLOCK + 1 + lengthSymbol[length]!]!++;
        this.distanceCounts[symbol]!++;
      } else {
        const lengthWidth = this.#lengthWidth[length]!;
        const distanceWidth = this.#distanceWidth[symbol]!;
        if (lengthWidth === 0 || distanceWidth === 0) {
          pause = Pause.noCode;
          break;
        }
        if (bits >= 8) {
          output[out++] = hold;
          hold >>>= 8;
          bits -= 8;
        }
        hold |= this.#length[length]! << bits;
        bits += lengthWidth;
        while (bits >= 8) {
          output[out++] = hold;
          hold >>>= 8;
          bits -= 8;
        }
        hold |= this.#distance[symbol]! << bits;
        bits += distanceWidth;
        if (bits >= 16) {
          output[out] = hold;
          output[out + 1] = hold >>> 8;
          out += 2;
          hold >>>= 16;
          bits -= 16;
        }
        hold |= (distance - distanceBase[symbol]!) << bits;
        bits += distanceExtra[symbol]!;
        while (bits >= 8) {
          output[out++] = hold;
          hold >>>= 8;
          bits -= 8;
        }
      }
      // Inside a match only some places are remembered: what is not found costs size, never correctness.
      const next = at + length;
      if (next + PROBE <= end) {
        head[hashAt(input, at + 1)] = at + 2;
        head[hashAt(input, next - 1)] = next;
      }
      at = next;
    }
    while (bits >= 8) {
      output[out++] = hold;
      hold >>>= 8;
      bits -= 8;
    }
    this.#at = at;
    this.outputEnd = out;
    this.#hold = hold;
    this.#bits = bits;
    return pause === Pause.done && !last ? Pause.input : pause;
  }
}

const hashAt = (bytes: Uint8Array, at: number): number =>
  Math.imul(bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24), 0x9e37_79b1) >>> (32 - HASH_BITS);
