/**
 * A DEFLATE decompressor that stops at any byte of its input and at any limit of its output, and goes on there. RFC 1951. Its errors are the
 * device's: Intel QPL, hw_status.h (AD_ERROR_CODE_*).
 */
import { AnalyticsError } from '../spec/iax.js';
import {
  Block,
  DISTANCE_SYMBOLS,
  distanceBase,
  distanceExtra,
  END_OF_BLOCK,
  FIXED_LITERAL_SYMBOLS,
  fixedDistanceLengths,
  fixedLiteralLengths,
  LENGTH_CODE_ORDER,
  LITERAL_SYMBOLS,
  lengthBase,
  lengthExtra,
  MAX_CODE,
  MAX_LENGTH_CODE,
  MAX_MATCH,
  reversed,
} from './deflate-tables.js';

/** Why `run` came back. */
export const Halt = { input: 0, room: 1, endOfBlock: 2, error: 3 } as const;

/** What comes next in the stream. */
export const Phase = { header: 0, stored: 1, body: 2 } as const;

const ROOT = 11;
/** Entries of the first lookup: width of the code in bits 3:0, extra bits in 7:4, kind in 9:8, value from 16 up. */
const Kind = { literal: 0, base: 1, end: 2, bad: 3 } as const;
const KIND = 3 << 8;
/** A longer code, or none. */
const LONG = Kind.bad << 8;

/** A code to decode: first by ROOT bits, then length by length. */
class Decoder {
  readonly root = new Int32Array(1 << ROOT);
  /** By length: the first code, how many there are, and where their symbols begin in `symbols`. */
  readonly first = new Uint16Array(MAX_CODE + 1);
  readonly count = new Uint16Array(MAX_CODE + 1);
  readonly from = new Uint16Array(MAX_CODE + 1);
  readonly symbols = new Uint16Array(FIXED_LITERAL_SYMBOLS);
  readonly lengths = new Uint8Array(FIXED_LITERAL_SYMBOLS);
  readonly #next = new Uint16Array(MAX_CODE + 1);
  readonly #entry: (symbol: number) => number;

  constructor(entry: (symbol: number) => number) {
    this.#entry = entry;
  }
  /** The entry of a symbol, less its width. */
  entry(symbol: number): number {
    return this.#entry(symbol);
  }
  /** From the lengths of `n` codes, of which the first is at `at`; false when there are more codes than lengths allow. Codes may be missing. */
  build(lengths: Uint8Array, n: number, at = 0): boolean {
    const { count, first, from, symbols, root } = this;
    count.fill(0);
    root.fill(LONG);
    this.lengths.fill(0);
    for (let i = 0; i < n; i++) {
      this.lengths[i] = lengths[at + i]!;
      count[lengths[at + i]!]!++;
    }
    count[0] = 0;
    let code = 0;
    let place = 0;
    for (let width = 1; width <= MAX_CODE; width++) {
      code <<= 1;
      first[width] = code;
      from[width] = place;
      code += count[width]!;
      place += count[width]!;
      if (code > 1 << width) return false;
    }
    const next = this.#next;
    for (let width = 0; width <= MAX_CODE; width++) next[width] = from[width]!;
    for (let i = 0; i < n; i++) {
      const width = lengths[at + i]!;
      if (width === 0) continue;
      const index = next[width]!++;
      symbols[index] = i;
      if (width > ROOT) continue;
      const value = this.#entry(i) | width;
      for (let k = reversed(first[width]! + index - from[width]!, width); k < 1 << ROOT; k += 1 << width) root[k] = value;
    }
    return true;
  }
  /** A code that is not in the first lookup, in the low bits of `hold`: its entry, or 0. */
  long(hold: number): number {
    let code = 0;
    for (let width = 1; width <= MAX_CODE; width++) {
      code = (code << 1) | ((hold >>> (width - 1)) & 1);
      const index = code - this.first[width]!;
      if (index >= 0 && index < this.count[width]!) return this.#entry(this.symbols[this.from[width]! + index]!) | width;
    }
    return 0;
  }
}

const literalEntry = (symbol: number): number => {
  if (symbol < END_OF_BLOCK) return (symbol << 16) | (Kind.literal << 8);
  if (symbol === END_OF_BLOCK) return Kind.end << 8;
  if (symbol >= LITERAL_SYMBOLS) return Kind.bad << 8;
  return (lengthBase[symbol - 257]! << 16) | (Kind.base << 8) | (lengthExtra[symbol - 257]! << 4);
};
const distanceEntry = (symbol: number): number =>
  symbol >= DISTANCE_SYMBOLS ? Kind.bad << 8 : (distanceBase[symbol]! << 16) | (Kind.base << 8) | (distanceExtra[symbol]! << 4);

export interface InflateOptions {
  /** How far back a match may begin, in bytes, up to 32768. */
  readonly history: number;
  /** As the profile's. */
  readonly separateLengths?: boolean;
}

export class Inflate {
  // fixed
  readonly history: number;
  readonly #separate: boolean;
  readonly literals = new Decoder(literalEntry);
  readonly distances = new Decoder(distanceEntry);
  readonly #codeLengths = new Decoder((symbol) => symbol << 16);
  readonly #lengths = new Uint8Array(LITERAL_SYMBOLS + DISTANCE_SYMBOLS + 32);
  // state
  phase: number = Phase.header;
  /** In the last block. */
  final = false;
  /** Nothing but fewer than 8 bits came after the end of a block. */
  ended = false;
  storedLeft = 0;
  /** A match that the output had no room for. */
  matchLength = 0;
  matchDistance = 0;
  /** Bits of the byte before `at` that are still to be read: fewer than 8. */
  hold = 0;
  bits = 0;
  /** Where reading goes on: in the bytes that `run` was given. */
  at = 0;
  error: number = AnalyticsError.none;
  #fixed = false;

  constructor({ history, separateLengths = false }: InflateOptions) {
    if (!(history >= 1 && history <= 32768)) throw new RangeError(`history: 1 to 32768 bytes, not ${history}`);
    this.history = history;
    this.#separate = separateLengths;
  }

  /** At the beginning of a stream. */
  begin(): void {
    this.phase = Phase.header;
    this.final = this.ended = false;
    this.storedLeft = this.matchLength = this.matchDistance = this.hold = this.bits = this.at = 0;
    this.error = AnalyticsError.none;
    this.#fixed = false;
  }
  /** Codes from their lengths, for a stream that begins inside a block; false when there are too many. */
  setLengths(literals: Uint8Array, distances: Uint8Array): boolean {
    this.#fixed = false;
    return this.literals.build(literals, literals.length) && this.distances.build(distances, distances.length);
  }

  /**
   * Reads `input` from `at` to `end`, less `ignored` bits there, and writes to `output` from `to` up to `limit`; `start` is how many bytes before `to`
   * were produced already and can be referred to. Returns why it stopped; where reading goes on is in `at`, `hold` and `bits`, and `out` says how
   * far the output is.
   */
  out = 0;
  run(input: Uint8Array, end: number, ignored: number, output: Uint8Array, to: number, limit: number, start: number): number {
    this.out = to;
    for (;;) {
      if (this.matchLength > 0 && !this.#copyPending(output, limit)) return Halt.room;
      if (this.phase === Phase.header) {
        const answer = this.#header(input, end, ignored);
        if (answer !== Halt.endOfBlock) return answer;
      }
      if (this.phase === Phase.stored) {
        const answer = this.#stored(input, end, ignored, output, limit);
        if (answer !== Halt.endOfBlock) return answer;
      } else {
        const answer = this.#body(input, end, ignored, output, to, limit, start);
        if (answer !== Halt.endOfBlock) return answer;
      }
      this.phase = Phase.header;
      this.ended = true;
      return Halt.endOfBlock;
    }
  }
  /** What is left of the input is too little for the next token; as bits. */
  available(end: number, ignored: number): number {
    return this.bits + 8 * (end - this.at) - ignored;
  }

  #fail(error: number): number {
    this.error = error;
    return Halt.error;
  }

  #copyPending(output: Uint8Array, limit: number): boolean {
    while (this.matchLength > 0 && this.out < limit) {
      output[this.out] = output[this.out - this.matchDistance]!;
      this.out++;
      this.matchLength--;
    }
    return this.matchLength === 0;
  }

  // --- headers: read whole or not at all

  #take = 0;
  /** `width` bits (at most 16), or -1. */
  #bitsOf(input: Uint8Array, width: number): number {
    if ((this.#take -= width) < 0) return -1;
    while (this.bits < width) {
      this.hold |= input[this.at++]! << this.bits;
      this.bits += 8;
    }
    const value = this.hold & ((1 << width) - 1);
    this.hold >>>= width;
    this.bits -= width;
    return value;
  }

  #header(input: Uint8Array, end: number, ignored: number): number {
    const { at, hold, bits } = this;
    this.#take = this.available(end, ignored);
    const answer = this.#headerFrom(input);
    if (answer === Halt.input) {
      this.at = at;
      this.hold = hold;
      this.bits = bits;
    }
    return answer;
  }
  #headerFrom(input: Uint8Array): number {
    const final = this.#bitsOf(input, 1);
    const type = this.#bitsOf(input, 2);
    if (type < 0) return Halt.input;
    if (type === Block.reserved) return this.#fail(AnalyticsError.blockType);
    if (type === Block.stored) {
      this.#take -= this.bits & 7;
      this.hold >>>= this.bits & 7;
      this.bits -= this.bits & 7;
      const length = this.#bitsOf(input, 16);
      const check = this.#bitsOf(input, 16);
      if (check < 0) return Halt.input;
      if (length !== (~check & 0xffff)) return this.#fail(AnalyticsError.storedLength);
      this.storedLeft = length;
      this.phase = Phase.stored;
    } else {
      if (type === Block.fixed) {
        if (!this.#fixed) {
          this.literals.build(fixedLiteralLengths, FIXED_LITERAL_SYMBOLS);
          this.distances.build(fixedDistanceLengths, 32);
        }
        this.#fixed = true;
      } else {
        const answer = this.#codes(input);
        if (answer !== Halt.endOfBlock) return answer;
        this.#fixed = false;
      }
      this.phase = Phase.body;
    }
    this.final = final === 1;
    this.ended = false;
    return Halt.endOfBlock;
  }

  #codes(input: Uint8Array): number {
    const literals = this.#bitsOf(input, 5) + 257;
    const distances = this.#bitsOf(input, 5) + 1;
    const named = this.#bitsOf(input, 4) + 4;
    if (named === 3) return Halt.input;
    if (literals > LITERAL_SYMBOLS) return this.#fail(AnalyticsError.literalSymbols);
    if (distances > DISTANCE_SYMBOLS) return this.#fail(AnalyticsError.distanceSymbols);
    const lengths = this.#lengths;
    lengths.fill(0, 0, 19);
    for (let i = 0; i < named; i++) {
      const length = this.#bitsOf(input, 3);
      if (length < 0) return Halt.input;
      lengths[LENGTH_CODE_ORDER[i]!] = length;
    }
    if (!this.#codeLengths.build(lengths, 19)) return this.#fail(AnalyticsError.codeLengthLengths);
    const total = literals + distances;
    for (let i = 0; i < total; ) {
      const symbol = this.#codeLength(input);
      if (symbol === -1) return Halt.input;
      if (symbol === -2) return this.#fail(AnalyticsError.codeLengthCode);
      if (symbol < 16) {
        lengths[i++] = symbol;
        continue;
      }
      if (symbol === 16 && i === 0) return this.#fail(AnalyticsError.firstLiteralRepeats);
      if (symbol === 16 && i === literals && this.#separate) return this.#fail(AnalyticsError.firstDistanceRepeats);
      const more = symbol === 16 ? this.#bitsOf(input, 2) : symbol === 17 ? this.#bitsOf(input, 3) : this.#bitsOf(input, 7);
      if (more < 0) return Halt.input;
      const n = more + (symbol === 18 ? 11 : 3);
      if (i < literals && i + n > literals && this.#separate) return this.#fail(AnalyticsError.literalCount);
      if (i + n > total) return this.#fail(AnalyticsError.distanceCount);
      lengths.fill(symbol === 16 ? lengths[i - 1]! : 0, i, i + n);
      i += n;
    }
    let any = 0;
    for (let i = 0; i < literals; i++) any |= lengths[i]!;
    if (any === 0) return this.#fail(AnalyticsError.noLiteralCode);
    if (!this.literals.build(lengths, literals)) return this.#fail(AnalyticsError.literalLengths);
    if (!this.distances.build(lengths, distances, literals)) return this.#fail(AnalyticsError.distanceLengths);
    return Halt.endOfBlock;
  }
  /** One code of the code lengths; -1: there are too few bits, -2: there is no such code. */
  #codeLength(input: Uint8Array): number {
    let code = 0;
    const { first, count, symbols, from } = this.#codeLengths;
    for (let width = 1; width <= MAX_LENGTH_CODE; width++) {
      const bit = this.#bitsOf(input, 1);
      if (bit < 0) return -1;
      code = (code << 1) | bit;
      const index = code - first[width]!;
      if (index >= 0 && index < count[width]!) return symbols[from[width]! + index]!;
    }
    return -2;
  }

  // --- blocks

  #stored(input: Uint8Array, end: number, ignored: number, output: Uint8Array, limit: number): number {
    const last = end - ((ignored + 7) >> 3);
    while (this.storedLeft > 0 && this.bits >= 8) {
      if (this.out >= limit) return Halt.room;
      output[this.out++] = this.hold;
      this.hold >>>= 8;
      this.bits -= 8;
      this.storedLeft--;
    }
    const bytes = Math.min(this.storedLeft, last - this.at, limit - this.out);
    if (bytes > 0) {
      output.set(input.subarray(this.at, this.at + bytes), this.out);
      this.at += bytes;
      this.out += bytes;
      this.storedLeft -= bytes;
    }
    if (this.storedLeft === 0) return Halt.endOfBlock;
    return this.out >= limit ? Halt.room : Halt.input;
  }

  #body(input: Uint8Array, end: number, ignored: number, output: Uint8Array, to: number, limit: number, start: number): number {
    const literals = this.literals.root;
    const distances = this.distances.root;
    const mask = (1 << ROOT) - 1;
    const { history } = this;
    const firstOut = to - start;
    // `| 0`: the engine keeps `hold` an int32, which takes a quarter of the time off.
    let { at, hold, bits, out } = this;
    let answer: number = Halt.endOfBlock;
    // In front of these a token is there as a whole, and what it stands for has room: it has at most 48 bits and 258 bytes, and reading is ahead.
    const safeAt = end - 24;
    const safeOut = limit - MAX_MATCH - 2;
    for (;;) {
      let ended = false;
      while (at < safeAt && out < safeOut) {
        while (bits <= 24) {
          hold |= input[at++]! << bits;
          bits += 8;
        }
        let entry = literals[hold & mask]!;
        if ((entry & KIND) === 0) {
          // What was read holds the look-up of a second one, too.
          output[out++] = entry >>> 16;
          hold = (hold >>> (entry & 15)) | 0;
          bits -= entry & 15;
          entry = literals[hold & mask]!;
          if ((entry & KIND) === 0) {
            output[out++] = entry >>> 16;
            hold = (hold >>> (entry & 15)) | 0;
            bits -= entry & 15;
            continue;
          }
          while (bits <= 24) {
            hold |= input[at++]! << bits;
            bits += 8;
          }
        }
        if (entry === LONG) {
          entry = this.literals.long(hold);
          if (entry === 0) break;
          if ((entry & KIND) === 0) {
            output[out++] = entry >>> 16;
            hold = (hold >>> (entry & 15)) | 0;
            bits -= entry & 15;
            continue;
          }
        }
        const kind = entry & KIND;
        if (kind === Kind.end << 8) {
          hold = (hold >>> (entry & 15)) | 0;
          bits -= entry & 15;
          ended = true;
          break;
        }
        if (kind === Kind.bad << 8) break;
        const width = entry & 15;
        const extra = (entry >>> 4) & 15;
        const length = (entry >>> 16) + ((hold >>> width) & ((1 << extra) - 1));
        // Until the match is known to be right, the token is not consumed.
        let nextHold = (hold >>> (width + extra)) | 0;
        let nextBits = bits - width - extra;
        let nextAt = at;
        while (nextBits <= 24) {
          nextHold |= input[nextAt++]! << nextBits;
          nextBits += 8;
        }
        let code = distances[nextHold & mask]!;
        if (code === LONG) code = this.distances.long(nextHold);
        if (code === 0 || (code & KIND) === Kind.bad << 8) break;
        const codeExtra = (code >>> 4) & 15;
        nextHold = (nextHold >>> (code & 15)) | 0;
        nextBits -= code & 15;
        while (nextBits < codeExtra) {
          nextHold |= input[nextAt++]! << nextBits;
          nextBits += 8;
        }
        const distance = (code >>> 16) + (nextHold & ((1 << codeExtra) - 1));
        if (distance > history || distance > out - firstOut) break;
        hold = (nextHold >>> codeExtra) | 0;
        bits = nextBits - codeExtra;
        at = nextAt;
        let from = out - distance;
        if (length >= 32 && distance >= length) {
          output.copyWithin(out, from, from + length);
          out += length;
        } else for (const stop = out + length; out < stop; ) output[out++] = output[from++]!;
      }
      if (ended) break;
      // A token near an edge, or one that is wrong.
      const keepAt = at;
      const keepHold = hold;
      const keepBits = bits;
      while (bits <= 24 && at < end) {
        hold |= input[at++]! << bits;
        bits += 8;
      }
      // Behind the end there are zeros; a token that needs one of them is not there yet.
      const usable = bits + 8 * (end - at) - ignored;
      let entry = literals[hold & mask]!;
      if (entry === LONG) entry = this.literals.long(hold);
      const width = entry & 15;
      if (entry === 0) {
        if (usable < MAX_CODE) answer = Halt.input;
        else {
          this.error = AnalyticsError.literalCode;
          answer = Halt.error;
        }
      } else if (width > usable) answer = Halt.input;
      else if ((entry & KIND) === Kind.literal << 8) {
        if (out >= limit) answer = Halt.room;
        else {
          output[out++] = entry >>> 16;
          hold = (hold >>> width) | 0;
          bits -= width;
          continue;
        }
      } else if ((entry & KIND) === Kind.end << 8) {
        hold = (hold >>> width) | 0;
        bits -= width;
        break;
      } else if ((entry & KIND) === Kind.bad << 8) {
        this.error = AnalyticsError.lengthRange;
        answer = Halt.error;
      } else {
        const extra = (entry >>> 4) & 15;
        const used = width + extra;
        const length = (entry >>> 16) + ((hold >>> width) & ((1 << extra) - 1));
        hold = (hold >>> used) | 0;
        bits -= used;
        while (bits <= 24 && at < end) {
          hold |= input[at++]! << bits;
          bits += 8;
        }
        let code = distances[hold & mask]!;
        if (code === LONG) code = this.distances.long(hold);
        const codeWidth = code & 15;
        const codeExtra = (code >>> 4) & 15;
        if (code === 0 && usable - used >= MAX_CODE) {
          this.error = AnalyticsError.distanceCode;
          answer = Halt.error;
        } else if (code === 0 || used + codeWidth + codeExtra > usable) answer = Halt.input;
        else if ((code & KIND) === Kind.bad << 8) {
          this.error = AnalyticsError.distanceCode;
          answer = Halt.error;
        } else {
          hold = (hold >>> codeWidth) | 0;
          bits -= codeWidth;
          while (bits < codeExtra) {
            hold |= input[at++]! << bits;
            bits += 8;
          }
          const distance = (code >>> 16) + (hold & ((1 << codeExtra) - 1));
          if (distance > history) {
            this.error = AnalyticsError.distanceRange;
            answer = Halt.error;
          } else if (distance > out - firstOut) {
            this.error = AnalyticsError.beforeStart;
            answer = Halt.error;
          } else if (out >= limit) answer = Halt.room;
          else {
            hold = (hold >>> codeExtra) | 0;
            bits -= codeExtra;
            const n = Math.min(length, limit - out);
            for (let from = out - distance, stop = out + n; out < stop; ) output[out++] = output[from++]!;
            if (n < length) {
              this.matchLength = length - n;
              this.matchDistance = distance;
              answer = Halt.room;
              break;
            }
            continue;
          }
        }
      }
      // The token was not consumed.
      at = keepAt;
      hold = keepHold;
      bits = keepBits;
      break;
    }
    // Whole bytes go back.
    at -= bits >> 3;
    bits &= 7;
    hold &= (1 << bits) - 1;
    this.at = at;
    this.hold = hold;
    this.bits = bits;
    this.out = out;
    return answer;
  }
}
