import { crc32 as zlibCrc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32, xor16 } from '../src/iax/checksum.js';
import { Crc64 } from '../src/iax/crc64.js';
import { Filter, FilterError, FilterKind, type FilterSettings, Parser } from '../src/iax/filter.js';
import { type Source, Wait } from '../src/iax/pieces.js';
import { zeroCompress, zeroDecompress } from '../src/iax/zero.js';

// --- plain versions: elements are lists of numbers, streams of bits lists of 0 and 1

const bitsOf = (value: number, width: number): number[] => Array.from({ length: width }, (_, i) => Math.floor(value / 2 ** i) % 2);
/** Elements back to back: from the lowest bit of each byte, or from the highest. */
function pack(elements: readonly number[], width: number, bigEndian: boolean): Uint8Array {
  const bits = elements.flatMap((e) => (bigEndian ? bitsOf(e, width).reverse() : bitsOf(e, width)));
  const out = new Uint8Array(Math.ceil(bits.length / 8));
  for (const [i, bit] of bits.entries()) out[i >> 3]! |= bit << (bigEndian ? 7 - (i & 7) : i & 7);
  return out;
}
const varint = (value: number): number[] => (value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))]);
/** Parquet RLE: equal elements as runs, the others in groups of eight. */
function parquet(elements: readonly number[], width: number): Uint8Array {
  const out = [width];
  const bytes = Math.ceil(width / 8);
  for (let i = 0; i < elements.length; ) {
    let n = 1;
    while (i + n < elements.length && elements[i + n] === elements[i]) n++;
    if (n >= 3) {
      out.push(...varint(n * 2), ...Array.from({ length: bytes }, (_, k) => Math.floor(elements[i]! / 256 ** k) % 256));
      i += n;
      continue;
    }
    const group = elements.slice(i, i + 8);
    while (group.length < 8) group.push(0);
    out.push(...varint(1 * 2 + 1), ...pack(group, width, false));
    i += 8;
  }
  return Uint8Array.from(out);
}
const parsed = (elements: readonly number[], width: number, parser: number): Uint8Array =>
  parser === Parser.parquetRle ? parquet(elements, width) : pack(elements, width, parser === Parser.bigEndian);

const chosen = (values: readonly number[], bits: readonly number[]): number[] => values.filter((_, i) => bits[i]);
const plain: Readonly<Record<number, (s: FilterSettings, width: number, one: readonly number[], two: readonly number[]) => number[]>> = {
  [FilterKind.scan]: (s, width, one) => one.map((x) => (x >= s.low % 2 ** width && x <= s.high % 2 ** width ? 1 : 0)),
  [FilterKind.setMembership]: (s, width, one, two) => one.map((x) => two[Math.floor(x / 2 ** s.dropLow) % 2 ** (width - s.dropLow - s.dropHigh)]!),
  [FilterKind.extract]: (s, _width, one) => one.slice(s.low, s.high + 1),
  [FilterKind.select]: (_s, _width, one, two) => chosen(one, two),
  [FilterKind.rleBurst]: (_s, width, one, two) =>
    width === 32
      ? one.slice(1).flatMap((x, i) => Array.from({ length: x - one[i]! }, () => two[i]!))
      : one.flatMap((x, i) => Array.from({ length: x }, () => two[i]!)),
  [FilterKind.findUnique]: (s, width, one) => {
    const out = new Array<number>(2 ** (width - s.dropLow - s.dropHigh)).fill(0);
    for (const x of one) out[Math.floor(x / 2 ** s.dropLow) % out.length] = 1;
    return out;
  },
  [FilterKind.expand]: (_s, _width, one, two) => {
    let i = 0;
    return two.map((bit) => (bit ? one[i++]! : 0));
  },
};
interface Outcome {
  readonly bytes: Uint8Array;
  readonly least: number;
  readonly most: number;
  readonly sum: number;
  readonly lastBits: number;
}
/** What comes out of it in which form, and the three numbers about it. */
function outcome(s: FilterSettings, nominal: number, result: readonly number[]): Outcome | 'too wide' {
  const vector = nominal === 1 && !(s.forceArray && s.outWidth > 0);
  const elements = s.invert ? result.map((x) => 1 - x) : result;
  const ones = elements.flatMap((x, i) => (x ? [s.firstIndex + i] : []));
  const written = vector && s.outWidth > 0 ? ones : elements;
  const width = s.outWidth || nominal;
  if (vector && s.outWidth > 0 ? written.some((x) => x >= 2 ** width) : nominal > width && written.length > 0) return 'too wide';
  const bytes = s.outWidth
    ? Uint8Array.from(
        written.flatMap((x) => {
          const le = Array.from({ length: width / 8 }, (_, k) => Math.floor(x / 256 ** k) % 256);
          return s.outBigEndian ? le.reverse() : le;
        }),
      )
    : pack(written, width, s.outBigEndian);
  const sum = elements.reduce((a, b) => (a + b) % 2 ** 32, 0);
  return {
    bytes,
    least: vector ? (ones[0] ?? 0xffff_ffff) : Math.min(0xffff_ffff, ...elements),
    most: vector ? (ones.at(-1) ?? 0) : Math.max(0, ...elements),
    sum,
    lastBits: s.outWidth ? 0 : (written.length * width) % 8,
  };
}

// --- the filter, with its sources and its output in any pieces

const filter = new Filter();
function run(s: FilterSettings, one: Uint8Array, two: Uint8Array, pieces: readonly number[]): Outcome | number {
  const source = (bytes: Uint8Array): Source => {
    const padded = new Uint8Array(bytes.length + 8).fill(0x5a);
    padded.set(bytes);
    return { bytes: padded, at: 0, end: 0, last: bytes.length === 0 };
  };
  const a = source(one);
  const b = source(two);
  const out: number[] = [];
  const sink = { bytes: new Uint8Array(300), end: 0, limit: 0 };
  filter.begin(s);
  for (let k = 0; ; k++) {
    const n = pieces[k % pieces.length]!;
    sink.limit = Math.min(300, 16 + n);
    const answer = filter.run(a, b, sink);
    expect(sink.end).toBeLessThanOrEqual(sink.limit);
    out.push(...sink.bytes.subarray(0, sink.end));
    sink.end = 0;
    if (answer === Wait.done) break;
    if (answer >= Wait.error) return answer - Wait.error;
    if (answer === Wait.room) continue;
    const [from, bytes] = answer === Wait.source ? [a, one] : [b, two];
    expect(from.last).toBe(false);
    from.end = Math.min(bytes.length, from.end + n);
    from.last = from.end === bytes.length;
  }
  const { least, most, sum, lastBits } = filter;
  return { bytes: Uint8Array.from(out), least, most, sum, lastBits };
}

const settings = (over: Partial<FilterSettings>): FilterSettings => ({
  kind: FilterKind.scan,
  parser: Parser.littleEndian,
  width: 8,
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
  ...over,
});
const pieceSizes = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 4 });
/** Elements of a width, with runs. */
const elementsOf = (width: number, most = 2 ** width - 1) =>
  fc
    .array(fc.tuple(fc.integer({ min: 0, max: most }), fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 30 }))), { minLength: 1, maxLength: 12 })
    .map((runs) => runs.flatMap(([value, n]) => new Array<number>(n).fill(value)));
const output = fc.record({
  outWidth: fc.constantFrom(0, 8, 16, 32),
  outBigEndian: fc.boolean(),
  bigEndian2: fc.boolean(),
  forceArray: fc.boolean(),
  firstIndex: fc.constantFrom(0, 0, 5, 250, 70_000),
});
const bit = fc.integer({ min: 0, max: 1 });

describe('filters: as a plain version has it, for every width, parser and form of the output', () => {
  test.each(Object.entries(FilterKind))('%s', (name, kind) => {
    const sets = kind === FilterKind.setMembership || kind === FilterKind.findUnique;
    const widths = kind === FilterKind.rleBurst ? fc.constantFrom(8, 16, 32) : fc.integer({ min: 1, max: sets ? 20 : 32 });
    const cases = widths.chain((width) => {
      const drops = sets
        ? fc
            .tuple(fc.integer({ min: Math.max(0, width - 11), max: width - 1 }), fc.nat(width - 1))
            .map(([drop, low]) => ({ dropLow: Math.min(low, drop), dropHigh: drop - Math.min(low, drop) }))
        : fc.constant({ dropLow: 0, dropHigh: 0 });
      return fc.record({
        width: fc.constant(width),
        drops,
        parser: fc.constantFrom(...Object.values(Parser)),
        one: kind === FilterKind.rleBurst ? elementsOf(width, 40) : elementsOf(width),
        bits: fc.array(bit, { minLength: 400, maxLength: 400 }),
        width2: kind === FilterKind.rleBurst ? fc.constantFrom(1, 1, 3, 8, 17, 32) : fc.constant(1),
        set: fc.array(bit, { minLength: 2048, maxLength: 2048 }),
        bounds: fc.tuple(fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1)),
        places: fc.tuple(fc.nat(100), fc.nat(400)),
        invert: fc.boolean(),
        output,
        pieces: pieceSizes,
      });
    });
    let compared = 0;
    fc.assert(
      fc.property(cases, ({ width, drops, parser, one: given, bits, width2, set, bounds, places, invert, output, pieces }) => {
        let one = given;
        if (kind === FilterKind.rleBurst && width === 32)
          one = given.map(
            (
              (sum) => (x: number) =>
                (sum += x)
            )(0),
          );
        const elements2 = kind === FilterKind.rleBurst ? bits.map((b, i) => (b ? 2 ** width2 - 1 - (i % 2 ** (width2 - 1)) : 0)) : bits;
        let two = elements2.slice(0, one.length);
        if (kind === FilterKind.setMembership) two = set.slice(0, 2 ** (width - drops.dropLow - drops.dropHigh));
        if (kind === FilterKind.expand) {
          // As many ones as there are elements.
          two = bits.slice(0, 300);
          one = one.slice(0, two.filter((b) => b).length);
        }
        const arrays = kind === FilterKind.extract || kind === FilterKind.select || kind === FilterKind.expand;
        const nominal = arrays ? width : kind === FilterKind.rleBurst ? width2 : 1;
        if (kind === FilterKind.expand) {
          let left = one.length;
          two = two.filter((b) => (b ? left-- > 0 : true));
        }
        const s = settings({
          kind,
          parser,
          width,
          width2,
          count: kind === FilterKind.expand ? two.length : one.length,
          low: kind === FilterKind.extract ? places[0] : Math.min(...bounds),
          high: kind === FilterKind.extract ? places[1] : Math.max(...bounds),
          invert: invert && nominal === 1 && !output.forceArray,
          ...drops,
          ...output,
        });
        const expected = outcome(s, nominal, plain[kind]!(s, width, one, two));
        const got = run(s, parsed(one, width, parser), pack(two, width2, s.bigEndian2), pieces);
        if (expected === 'too wide') expect(got).toBe(FilterError.outputWidth);
        else {
          expect(got).toEqual(expected);
          compared++;
        }
      }),
      { numRuns: 250 },
    );
    expect(compared, name).toBeGreaterThan(80);
  });

  test('an output may be far larger than its source: a run of 2^28 ones', () => {
    const s = settings({ kind: FilterKind.extract, parser: Parser.parquetRle, count: 2 ** 28, high: 2 ** 28 });
    const source = Uint8Array.of(1, ...varint(2 ** 29), 1);
    const sink = { bytes: new Uint8Array(1 << 16), end: 0, limit: 1 << 16 };
    filter.begin(s);
    let total = 0;
    const one = { bytes: new Uint8Array(32), at: 0, end: source.length, last: true };
    one.bytes.set(source);
    const two = { bytes: source, at: 0, end: 0, last: true };
    for (let answer: number = Wait.room; answer === Wait.room; ) {
      answer = filter.run(one, two, sink);
      total += sink.end;
      sink.end = 0;
    }
    expect(total).toBe(2 ** 25);
    expect([filter.least, filter.most, filter.sum]).toEqual([0, 2 ** 28 - 1, 2 ** 28]);
  });

  const eight = settings({ count: 10, high: 255 });
  const bytes = (...values: number[]) => Uint8Array.from(values);
  test.each([
    ['source 1 has fewer elements', eight, bytes(1, 2, 3), bytes(), FilterError.source1Short],
    ['source 2 has fewer elements', { ...eight, kind: FilterKind.select }, new Uint8Array(10), bytes(1), FilterError.source2Short],
    ['a set is cut short', { ...eight, kind: FilterKind.setMembership }, new Uint8Array(10), bytes(1), FilterError.source2Short],
    ['an index does not fit', { ...eight, outWidth: 8, firstIndex: 250 }, new Uint8Array(10), bytes(), FilterError.outputWidth],
    ['an element does not fit', { ...eight, kind: FilterKind.extract, width: 9, outWidth: 8 }, new Uint8Array(20), bytes(), FilterError.outputWidth],
    ['Parquet RLE of more than 32 bits', { ...eight, parser: Parser.parquetRle }, bytes(33, 2, 0), bytes(), FilterError.parquetWidth],
    ['Parquet RLE of no bits', { ...eight, parser: Parser.parquetRle }, bytes(0, 2, 0), bytes(), FilterError.parquetFormat],
    ['Parquet RLE cut short in a run', { ...eight, parser: Parser.parquetRle }, bytes(8, 3, 1, 2), bytes(), FilterError.parquetFormat],
    ['Parquet RLE that ends early', { ...eight, parser: Parser.parquetRle }, bytes(8, 4, 1), bytes(), FilterError.source1Short],
    [
      'Parquet RLE with a count that does not end',
      { ...eight, parser: Parser.parquetRle },
      bytes(8, 255, 255, 255, 255, 255, 1),
      bytes(),
      FilterError.parquetFormat,
    ],
  ] as const)('%s', (_name, s, one, two, error) => {
    expect(run(s, one, two, [100])).toBe(error);
  });
});

describe('zero compression', () => {
  /** By its definition: a vector a block, then what is not zero. */
  function plainCompress(element: number, bytes: readonly number[]): number[] {
    const out: number[] = [];
    const elements = 128 / element;
    for (let at = 0; at < bytes.length; at += 128) {
      const values = Array.from({ length: Math.min(elements, (bytes.length - at) / element) }, (_, i) =>
        bytes.slice(at + i * element, at + (i + 1) * element),
      );
      const tags = Array.from({ length: elements }, (_, i) => (i >= values.length || values[i]!.some((b) => b !== 0) ? 1 : 0));
      out.push(...pack(tags, 1, false).slice(0, element === 4 ? 4 : element === 2 ? 8 : 16), ...values.filter((v) => v.some((b) => b !== 0)).flat());
    }
    return out;
  }
  const through = (work: typeof zeroCompress, element: number, bytes: Uint8Array, pieces: readonly number[]): number[] | number => {
    const from = { bytes: new Uint8Array(bytes.length + 8), at: 0, end: 0, last: bytes.length === 0 };
    from.bytes.set(bytes);
    const sink = { bytes: new Uint8Array(400), end: 0, limit: 400 };
    const out: number[] = [];
    for (let k = 0; ; k++) {
      const answer = work(element, from, sink);
      out.push(...sink.bytes.subarray(0, sink.end));
      sink.end = 0;
      if (answer === Wait.done) return out;
      if (answer >= Wait.error) return answer - Wait.error;
      if (answer === Wait.room) continue;
      from.end = Math.min(bytes.length, from.end + pieces[k % pieces.length]!);
      from.last = from.end === bytes.length;
    }
  };
  test.each([1, 2, 4])('elements of %i bytes: as by definition, and back', (element) => {
    const elements = fc.array(fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.nat(256 ** element - 1) }), {
      maxLength: 400,
    });
    fc.assert(
      fc.property(elements, pieceSizes, (values, pieces) => {
        const bytes = values.flatMap((v) => Array.from({ length: element }, (_, k) => Math.floor(v / 256 ** k) % 256));
        const packed = through(zeroCompress, element, Uint8Array.from(bytes), pieces);
        expect(packed).toEqual(plainCompress(element, bytes));
        expect(through(zeroDecompress, element, Uint8Array.from(packed as number[]), pieces)).toEqual(bytes);
      }),
    );
  });
  test('a vector that is cut short is an error', () => {
    expect(through(zeroDecompress, 2, Uint8Array.of(1, 2, 3), [1])).toBe(34);
  });
});

describe('checksums', () => {
  const crc = new Crc64();
  const text = new TextEncoder().encode('123456789');
  // The catalogue of parametrised CRC algorithms (G. Cook): the check value of each, at the end where the device puts it.
  test.each([
    ['CRC-32/ISO-HDLC', 0x04c1_1db7, 0, true, true, [0, 0xcbf4_3926]],
    ['CRC-32/BZIP2', 0x04c1_1db7, 0, false, true, [0xfc89_1918, 0]],
    ['CRC-32/ISCSI', 0x1edc_6f41, 0, true, true, [0, 0xe306_9283]],
    ['CRC-16/T10-DIF', 0x8bb7_0000, 0, false, false, [0xd0db_0000, 0]],
    ['CRC-16/IBM-SDLC', 0x1021_0000, 0, true, true, [0, 0x906e]],
    ['CRC-64/ECMA-182', 0x42f0_e1eb, 0xa9ea_3693, false, false, [0x6c40_df5f, 0x0b49_7347]],
    ['CRC-64/XZ', 0x42f0_e1eb, 0xa9ea_3693, true, true, [0x995d_c9bb, 0xdf19_39fa]],
    ['CRC-64/GO-ISO', 0, 0x1b, true, true, [0xb909_56c7, 0x75a4_1001]],
    ['CRC-64/WE', 0x42f0_e1eb, 0xa9ea_3693, false, true, [0x62ec_59e3, 0xf1a4_f00a]],
  ] as const)('%s', (_name, high, low, reflected, invert, check) => {
    crc.begin(high, low, reflected, invert);
    crc.update(text, 0, 4);
    crc.update(text, 4, 9);
    crc.finish();
    expect([crc.high, crc.low]).toEqual(check);
  });
  test("CRC-32 is zlib's, in any pieces", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), fc.integer({ min: 0, max: 0xffff_ffff }), (bytes, cut, seed) => {
        const at = Math.min(cut, bytes.length);
        expect(~crc32(crc32(~seed, bytes, 0, at), bytes, at, bytes.length) >>> 0).toBe(zlibCrc32(bytes, seed));
      }),
    );
  });
  test('the XOR of 16-bit words, in any pieces', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, cut) => {
        const at = Math.min(cut, bytes.length);
        let sum = 0;
        for (const [i, byte] of bytes.entries()) sum ^= byte << (8 * (i & 1));
        expect(xor16(xor16(0, 0, bytes, 0, at), at & 1, bytes, at, bytes.length)).toBe(sum);
      }),
    );
  });
});
