/**
 * Filters: elements of 1 to 32 bits from source 1 (and bits from source 2) to a bit vector or an array. Sources: Intel QPL, "Filter Operations",
 * and the plain versions in its core-sw and in accel-config's test/algorithms/iaa_filter.c. It takes its input in any pieces and stops when its
 * output is full. Runs of one value are handled as one.
 */
import { type Sink, type Source, Wait } from './pieces.js';

export const FilterKind = { scan: 0, setMembership: 1, extract: 2, select: 3, rleBurst: 4, findUnique: 5, expand: 6 } as const;
/** How source 1 is read. */
export const Parser = { littleEndian: 0, bigEndian: 1, parquetRle: 2 } as const;

export interface FilterSettings {
  kind: number;
  parser: number;
  /** Bits of an element of source 1 (not for Parquet RLE, which says so itself), and of source 2. */
  width: number;
  width2: number;
  bigEndian2: boolean;
  /** Bits of an element of the output, 8, 16 or 32; 0: as it is. Of a bit vector then the indices of the ones are written. */
  outWidth: number;
  outBigEndian: boolean;
  invert: boolean;
  /** What would be a bit vector, since its elements have one bit, is an array all the same when an output width is asked for. */
  forceArray: boolean;
  dropLow: number;
  dropHigh: number;
  /** Elements of source 1; of source 2 when expanding. */
  count: number;
  low: number;
  high: number;
  /** The index of the first element of the output. */
  firstIndex: number;
}

/** The most bits that an element may have for which a set is kept. unconfirmed. */
export const MAX_SET_WIDTH = 15;
const SET_BYTES = 1 << (MAX_SET_WIDTH - 3);

/** Intel QPL, hw_status.h (AD_ERROR_CODE_*). */
export const FilterError = {
  parquetFormat: 20,
  outputWidth: 21,
  source1Short: 23,
  source2Short: 24,
  parquetWidth: 31,
} as const;
const fail = (error: number): number => Wait.error + error;

const MAX_INDEX = 2 ** 32;
/** Room that is asked for before anything is written: one element, in its widest form, and what does not fill a byte. */
const SLACK = 16;

/** Elements of a fixed width, one after the other: where the next begins is a byte and a bit in it. */
class Elements {
  #bit = 0;
  begin(): void {
    this.#bit = 0;
  }
  /** Whether the next is there as a whole. */
  has(from: Source, width: number): boolean {
    return from.at + ((this.#bit + width + 7) >> 3) <= from.end;
  }
  next(from: Source, width: number, bigEndian: boolean): number {
    const { bytes, at } = from;
    const bit = this.#bit;
    let value: number;
    if (bigEndian) {
      const high = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
      value = (bit === 0 ? high : (high << bit) | (bytes[at + 4]! >>> (8 - bit))) >>> (32 - width);
    } else {
      const low = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      const whole = bit === 0 ? low : (low >>> bit) | (bytes[at + 4]! << (32 - bit));
      value = width === 32 ? whole >>> 0 : whole & ((1 << width) - 1);
    }
    this.skip(from, width);
    return value >>> 0;
  }
  skip(from: Source, bits: number): void {
    const bit = this.#bit + bits;
    from.at += Math.floor(bit / 8);
    this.#bit = bit % 8;
  }
  /** What is left of a byte that was begun is passed over. */
  align(from: Source): void {
    if (this.#bit > 0) from.at++;
    this.#bit = 0;
  }
}

/** Before anything is said. */
export const noSettings: Readonly<FilterSettings> = {
  kind: 0,
  parser: 0,
  width: 1,
  width2: 1,
  bigEndian2: false,
  outWidth: 0,
  outBigEndian: false,
  invert: false,
  forceArray: false,
  dropLow: 0,
  dropHigh: 0,
  count: 0,
  low: 0,
  high: 0,
  firstIndex: 0,
};

export class Filter {
  // fixed
  readonly #one = new Elements();
  readonly #two = new Elements();
  readonly #set = new Uint8Array(SET_BYTES);
  // state
  readonly #s: FilterSettings = { ...noSettings };
  /** Bits of an element of source 1, 0 until a stream of Parquet RLE said so; of the output before it is widened. */
  #width = 0;
  #nominal = 0;
  #bitVector = false;
  /** Elements of the counted source that were taken. */
  #taken = 0;
  /** Parquet RLE: what is left of a run, whether its values stand in groups of eight, and the value that repeats. */
  #left = 0;
  #packed = false;
  #value = 0;
  #runStarted = false;
  /** A run that is being written: an element of the output and how often. */
  #pending = 0;
  #element = 0;
  /** Set membership and find unique: bytes of the set that were read or written. */
  #setBytes = 0;
  #setDone = 0;
  /** RLE burst with sums: the last one. */
  #sum = 0;
  #began = false;
  #index = 0;
  /** Bits of the output that do not fill a byte. */
  #hold = 0;
  #bits = 0;
  /** What came of it: of a bit vector the first and last index of a one and their number, of an array least, largest and sum. */
  least = 0;
  most = 0;
  sum = 0;

  begin(settings: FilterSettings): void {
    Object.assign(this.#s, settings);
    this.#one.begin();
    this.#two.begin();
    this.#width = settings.parser === Parser.parquetRle ? 0 : settings.width;
    this.#nominal = 0;
    this.#taken = this.#left = this.#value = this.#pending = this.#element = this.#setDone = this.#sum = 0;
    this.#packed = this.#runStarted = this.#began = false;
    this.#setBytes = 0;
    this.#set.fill(0);
    this.#index = settings.firstIndex;
    this.#hold = this.#bits = 0;
    this.least = 0xffff_ffff;
    this.most = this.sum = 0;
    if (this.#width > 0) this.#shape();
  }
  /** Bits of the last byte that count; 0: all. */
  get lastBits(): number {
    return this.#bits;
  }

  /** The width of the elements is known: so is what comes out. */
  #shape(): void {
    const { kind, width2, forceArray, outWidth } = this.#s;
    const arrays = kind === FilterKind.extract || kind === FilterKind.select || kind === FilterKind.expand;
    this.#nominal = arrays ? this.#width : kind === FilterKind.rleBurst ? width2 : 1;
    this.#bitVector = this.#nominal === 1 && !(forceArray && outWidth > 0);
  }

  /** Takes what is there of both sources. */
  run(one: Source, two: Source, to: Sink): number {
    const s = this.#s;
    if (s.kind === FilterKind.setMembership && this.#width > 0) {
      const answer = this.#readSet(two);
      if (answer !== Wait.done) return answer;
    }
    for (;;) {
      while (this.#pending > 0) {
        const answer = this.#write(to);
        if (answer !== Wait.done) return answer;
      }
      if (this.#taken >= s.count) break;
      const answer = s.kind === FilterKind.expand ? this.#expand(one, two) : this.#take(one, two);
      if (answer !== Wait.done) return answer;
    }
    if (s.kind === FilterKind.findUnique) {
      const answer = this.#writeSet(to);
      if (answer !== Wait.done) return answer;
    }
    if (this.#bits > 0) {
      if (to.end >= to.limit) return Wait.room;
      to.bytes[to.end++] = this.#hold;
      this.#hold = 0;
      // `lastBits` stays: nothing is written any more.
    }
    return Wait.done;
  }

  // --- source 1

  /** Makes the next value of source 1 stand in `#value`, and `#left` say how often it does (1 of packed arrays). */
  #next(from: Source): number {
    const s = this.#s;
    if (s.parser !== Parser.parquetRle) {
      if (this.#left > 0) return Wait.done;
      if (!this.#one.has(from, this.#width)) return from.last ? fail(FilterError.source1Short) : Wait.source;
      this.#value = this.#one.next(from, this.#width, s.parser === Parser.bigEndian);
      this.#left = 1;
      return Wait.done;
    }
    while (this.#left === 0 || (this.#packed && !this.#runStarted)) {
      const answer = this.#parquet(from);
      if (answer !== Wait.done) return answer;
    }
    return Wait.done;
  }
  /** One step through a stream of Parquet RLE: its width, the head of a run, or a packed value. */
  #parquet(from: Source): number {
    const short = from.last ? fail(FilterError.source1Short) : Wait.source;
    if (this.#width === 0) {
      if (from.at >= from.end) return short;
      const width = from.bytes[from.at++]!;
      if (width > 32) return fail(FilterError.parquetWidth);
      if (width === 0) return fail(FilterError.parquetFormat);
      this.#width = width;
      const { kind } = this.#s;
      const sets = kind === FilterKind.setMembership || kind === FilterKind.findUnique;
      if (sets && !(this.#setWidth >= 1 && this.#setWidth <= MAX_SET_WIDTH)) return fail(FilterError.parquetWidth);
      if (kind === FilterKind.rleBurst && width !== 8 && width !== 16 && width !== 32) return fail(FilterError.parquetWidth);
      this.#shape();
      return Wait.done;
    }
    if (this.#left > 0) {
      // Of a packed run: one value of it.
      if (!this.#one.has(from, this.#width)) return from.last ? fail(FilterError.parquetFormat) : Wait.source;
      this.#value = this.#one.next(from, this.#width, false);
      this.#runStarted = true;
      return Wait.done;
    }
    this.#one.align(from);
    if (from.at >= from.end) return short;
    let head = 0;
    let at = from.at;
    for (let shift = 0; ; shift += 7) {
      if (at >= from.end) return from.last ? fail(FilterError.parquetFormat) : Wait.source;
      const byte = from.bytes[at++]!;
      head += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) === 0) break;
      if (shift === 28) return fail(FilterError.parquetFormat);
    }
    if (head >= MAX_INDEX) return fail(FilterError.parquetFormat);
    this.#packed = (head & 1) === 1;
    const n = Math.floor(head / 2);
    if (!this.#packed) {
      const width = (this.#width + 7) >> 3;
      if (at + width > from.end) return from.last ? fail(FilterError.parquetFormat) : Wait.source;
      let value = 0;
      for (let i = 0; i < width; i++) value += from.bytes[at++]! * 2 ** (8 * i);
      this.#value = this.#width === 32 ? value : value % 2 ** this.#width;
    }
    from.at = at;
    this.#left = this.#packed ? 8 * n : n;
    this.#runStarted = false;
    return Wait.done;
  }
  /** `n` of the value at hand are used up. */
  #used(n: number): void {
    this.#left -= n;
    if (this.#packed) this.#runStarted = false;
  }
  /** How many of the value at hand there are in a row. */
  get #run(): number {
    return this.#packed ? 1 : this.#left;
  }

  // --- one element, or a run of them, of the counted source

  #take(one: Source, two: Source): number {
    const s = this.#s;
    const answer = this.#next(one);
    if (answer !== Wait.done) return answer;
    let n = Math.min(this.#run, s.count - this.#taken);
    const value = this.#value;
    switch (s.kind) {
      case FilterKind.scan: {
        const mask = this.#width === 32 ? 0xffff_ffff : (1 << this.#width) - 1;
        this.#emit(value >= (s.low & mask) >>> 0 && value <= (s.high & mask) >>> 0 ? 1 : 0, n);
        break;
      }
      case FilterKind.setMembership: {
        const member = this.#member(value);
        if (this.#setDone === 0) {
          const loaded = this.#readSet(two);
          if (loaded !== Wait.done) return loaded;
        }
        this.#emit((this.#set[member >> 3]! >>> (member & 7)) & 1, n);
        break;
      }
      case FilterKind.findUnique: {
        const member = this.#member(value);
        this.#set[member >> 3]! |= 1 << (member & 7);
        break;
      }
      case FilterKind.extract: {
        // Of the run, what lies between the two indices.
        const from = Math.max(this.#taken, s.low);
        const to = Math.min(this.#taken + n - 1, s.high);
        if (to >= from) this.#emit(value, to - from + 1);
        break;
      }
      case FilterKind.select: {
        n = 1;
        if (!this.#two.has(two, s.width2)) return two.last ? fail(FilterError.source2Short) : Wait.second;
        if (this.#two.next(two, s.width2, s.bigEndian2) !== 0) this.#emit(value, 1);
        break;
      }
      default: {
        n = 1;
        // Counts of 8 or 16 bits; of 32, sums: the first is where they begin.
        let times = value;
        if (this.#width === 32) {
          times = (value - this.#sum) >>> 0;
          this.#sum = value;
          if (!this.#began) {
            this.#began = true;
            break;
          }
        }
        if (!this.#two.has(two, s.width2)) {
          if (this.#width === 32) this.#sum = (value - times) >>> 0;
          return two.last ? fail(FilterError.source2Short) : Wait.second;
        }
        this.#emit(this.#two.next(two, s.width2, s.bigEndian2), times);
      }
    }
    this.#taken += n;
    this.#used(n);
    return Wait.done;
  }

  #expand(one: Source, two: Source): number {
    const s = this.#s;
    // The width of what comes out may stand in source 1.
    while (this.#width === 0) {
      const answer = this.#parquet(one);
      if (answer !== Wait.done) return answer;
    }
    if (!this.#two.has(two, s.width2)) return two.last ? fail(FilterError.source2Short) : Wait.second;
    const at = two.at;
    const bit = this.#two.next(two, s.width2, s.bigEndian2);
    if (bit !== 0) {
      const answer = this.#next(one);
      if (answer !== Wait.done) {
        // The bit is looked at again.
        two.at = at;
        this.#two.begin();
        this.#two.skip(two, (s.width2 * this.#taken) % 8);
        return answer;
      }
      this.#emit(this.#value, 1);
      this.#used(1);
    } else this.#emit(0, 1);
    this.#taken++;
    return Wait.done;
  }

  // --- sets

  get #setWidth(): number {
    return this.#width - this.#s.dropLow - this.#s.dropHigh;
  }
  #member(value: number): number {
    return (value >>> this.#s.dropLow) & ((1 << this.#setWidth) - 1);
  }
  #readSet(from: Source): number {
    const wanted = Math.max(1, (1 << this.#setWidth) >> 3);
    while (this.#setBytes < wanted) {
      if (from.at >= from.end) return from.last ? fail(FilterError.source2Short) : Wait.second;
      const byte = from.bytes[from.at++]!;
      this.#set[this.#setBytes++] = this.#s.bigEndian2 ? mirrored(byte) : byte;
    }
    this.#setDone = 1;
    return Wait.done;
  }
  #writeSet(to: Sink): number {
    const bits = 1 << this.#setWidth;
    while (this.#setDone < bits || this.#pending > 0) {
      if (this.#pending === 0) {
        const at = this.#setDone++;
        this.#emit((this.#set[at >> 3]! >>> (at & 7)) & 1, 1);
      }
      const answer = this.#write(to);
      if (answer !== Wait.done) return answer;
    }
    return Wait.done;
  }

  // --- output

  #emit(element: number, times: number): void {
    this.#element = this.#s.invert ? element ^ 1 : element;
    this.#pending = times;
  }

  /** Writes what is pending, as far as there is room. */
  #write(to: Sink): number {
    const { outWidth, outBigEndian } = this.#s;
    const element = this.#element;
    if (this.#bitVector && outWidth > 0) {
      if (element === 0) {
        this.#index += this.#pending;
        this.#pending = 0;
        return Wait.done;
      }
      for (; this.#pending > 0; this.#pending--) {
        if (to.end + SLACK > to.limit) return Wait.room;
        if (this.#index >= 2 ** outWidth) return fail(FilterError.outputWidth);
        this.#put(to, this.#index, outWidth / 8, outBigEndian);
        this.#note(element, 1);
      }
      return Wait.done;
    }
    if (outWidth > 0) {
      if (this.#nominal > outWidth) return fail(FilterError.outputWidth);
      for (; this.#pending > 0; this.#pending--) {
        if (to.end + SLACK > to.limit) return Wait.room;
        this.#put(to, element, outWidth / 8, outBigEndian);
        this.#note(element, 1);
      }
      return Wait.done;
    }
    const width = this.#nominal;
    while (this.#pending > 0) {
      if (to.end + SLACK > to.limit) return Wait.room;
      // Of a run of bits, whole bytes.
      if (width === 1 && this.#bits === 0 && this.#pending >= 8) {
        const bytes = Math.min(Math.floor(this.#pending / 8), to.limit - to.end);
        to.bytes.fill(element ? 0xff : 0, to.end, to.end + bytes);
        to.end += bytes;
        this.#pending -= 8 * bytes;
        this.#note(element, 8 * bytes);
        continue;
      }
      this.#pack(to, element, width, outBigEndian);
      this.#note(element, 1);
      this.#pending--;
    }
    return Wait.done;
  }
  #note(element: number, times: number): void {
    if (!this.#bitVector) {
      if (element < this.least) this.least = element;
      if (element > this.most) this.most = element;
      this.sum = (this.sum + element) >>> 0;
    } else {
      if (element) {
        if (this.sum === 0) this.least = this.#index >>> 0;
        this.most = (this.#index + times - 1) >>> 0;
        this.sum = (this.sum + times) >>> 0;
      }
      this.#index += times;
    }
  }
  #put(to: Sink, value: number, bytes: number, bigEndian: boolean): void {
    for (let i = 0; i < bytes; i++) to.bytes[to.end++] = value >>> (8 * (bigEndian ? bytes - 1 - i : i));
  }
  /** `width` bits behind the last ones. */
  #pack(to: Sink, value: number, width: number, bigEndian: boolean): void {
    let left = width;
    while (left > 0) {
      const n = Math.min(left, 8 - this.#bits);
      const part = bigEndian ? (value >>> (left - n)) & ((1 << n) - 1) : (value >>> (width - left)) & ((1 << n) - 1);
      this.#hold |= bigEndian ? part << (8 - this.#bits - n) : part << this.#bits;
      this.#bits += n;
      left -= n;
      if (this.#bits === 8) {
        to.bytes[to.end++] = this.#hold;
        this.#hold = this.#bits = 0;
      }
    }
  }
}

function mirrored(byte: number): number {
  let out = 0;
  for (let i = 0; i < 8; i++) out |= ((byte >>> i) & 1) << (7 - i);
  return out;
}
