/** Operations of the analytics accelerator as descriptors, streams over several of them, and what is left in AECS. */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { buildCodes, type Codes, dynamicHeader } from '../src/iax/huffman.js';
import { iax2, sprIax } from '../src/iax/index.js';
import {
  COMPRESS_ACCUMULATOR,
  COMPRESS_AECS_BYTES,
  COMPRESS_DISTANCES,
  COMPRESS_LITERALS,
  Compress2Flag,
  CompressAecs,
  CompressFlag,
  Crc64Flag,
  DECOMPRESS_AECS_BYTES,
  DecompressFlag,
  decompressAecsBytes,
  EndProcessing,
  FILTER_AECS_BYTES,
  FilterAecs,
  FilterFlags,
  Flag,
  GenCap,
  HeaderGeneration,
  HISTOGRAM,
  IAACAP_OFFSET,
  IaaCap,
  IaxCrc64Record,
  IaxFlag,
  IaxOpcode,
  Register,
} from '../src/spec/index.js';
import { AECS, crc32, DST, iaxMachine, RECORD, SRC } from './iax-machine.js';
import { longHeader } from './iax-streams.js';

const M = 1 << 18;
const text = (n: number): Uint8Array => {
  const words = ['queue', 'portal', 'descriptor', 'engine', 'record', ' of ', ' the ', '\n', 'analytics', '0123456789'];
  let s = '';
  for (let x = 1; s.length < n; ) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    s += words[(x >>> 16) % words.length];
  }
  return new TextEncoder().encode(s.slice(0, n));
};
const xor16 = (bytes: Uint8Array): number => bytes.reduce((sum, byte, i) => sum ^ (byte << (8 * (i & 1))), 0);
/** What Linux iaa_crypto asks for. */
const compressed = CompressFlag.flushOutput | (EndProcessing.endOfBlock << CompressFlag.endShift);
const decompressed =
  DecompressFlag.enable |
  DecompressFlag.flushOutput |
  DecompressFlag.checkForEndOfBlock |
  DecompressFlag.stopOnEndOfBlock |
  DecompressFlag.selectFinal;
const data = fc
  .tuple(fc.integer({ min: 1, max: 20_000 }), fc.uint8Array({ minLength: 1, maxLength: 300 }))
  .map(([n, noise]) => Uint8Array.from([...text(n), ...noise]));

test('capabilities of the profiles: as published of Sapphire Rapids, and IAACAP from 2.0 on', () => {
  const m = iaxMachine();
  expect([m.read(Register.genCap + 4), m.read(Register.genCap)].map((n) => (n >>> 0).toString(16))).toEqual(['71f10', '901f0105']);
  expect([0, 4, 8, 12].map((o) => m.read(Register.opCap + o) >>> 0)).toEqual([0xd, 0, 0x007f_331c, 0]);
  expect(m.read(Register.engineCap)).toBe(8);
  expect(m.fn.configRead(2, 2)).toBe(0x0cfe);
  expect(m.read(IAACAP_OFFSET)).toBe(0);
  const m2 = iaxMachine({ profile: iax2 });
  const capabilities = Uint32Array.of(m2.read(IAACAP_OFFSET), m2.read(IAACAP_OFFSET + 4));
  expect(IaaCap.json(capabilities, 0)).toMatchObject({ headerGeneration: 1, forceArray: 1, aecsFormat2: 0, dictionary: 0 });
  expect(GenCap.json(Uint32Array.of(m2.read(Register.genCap), 0), 0)).toMatchObject({ eventLogSize: 2, maxBatchShift: 0, overlappingCopy: 0 });
});

describe('compress', () => {
  const m = iaxMachine();
  const compress = (bytes: Uint8Array, fields: Parameters<typeof m.build>[1] = {}) => {
    m.put(SRC, bytes);
    return m.execute(
      m.build(IaxOpcode.compress, {
        flags: IaxFlag.readAecs,
        source1Low: SRC,
        source1Size: bytes.length,
        destinationLow: DST,
        maxDestinationSize: M,
        source2Low: AECS,
        source2Size: COMPRESS_AECS_BYTES,
        decompressFlags: compressed,
        ...fields,
      }),
    );
  };
  test('as Linux iaa_crypto programs it: zlib inflates it; the record has size, CRC and XOR', () => {
    fc.assert(
      fc.property(data, (bytes) => {
        m.compressAecs(AECS, 0b011, 3);
        const r = compress(bytes);
        expect(r).toMatchObject({ status: 'success', completed: bytes.length, crc: crc32(bytes), xorChecksum: xor16(bytes) });
        expect(inflateRawSync(m.got(DST, r.outputSize as number)).equals(bytes)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });
  test('CRC-32C instead, and seeds from AECS', () => {
    m.compressAecs(AECS, 0b011, 3);
    expect(compress(new TextEncoder().encode('123456789'), { flags: IaxFlag.readAecs | IaxFlag.crcRfc3720 })).toMatchObject({ crc: 0xe306_9283 });
    m.compressAecs(AECS, 0b011, 3);
    CompressAecs.set.crc(m.words, AECS / 4, crc32(text(100)));
    expect(compress(text(300).subarray(100))).toMatchObject({ crc: crc32(text(300)) });
  });
  test.each([
    ['a stored block that is not the last', EndProcessing.storedBlock, 0b010],
    ['the last stored block', EndProcessing.finalStoredBlock, 0b010],
  ])('ends with %s', (_name, end, header) => {
    m.compressAecs(AECS, header, 3);
    const r = compress(text(5000), { decompressFlags: CompressFlag.flushOutput | (end << CompressFlag.endShift) });
    const out = m.got(DST, r.outputSize as number);
    expect(out.subarray(-4)).toEqual(Buffer.of(0, 0, 0xff, 0xff));
    const stream = end === EndProcessing.finalStoredBlock ? out : Buffer.concat([out, Buffer.of(3, 0)]);
    expect(inflateRawSync(stream).equals(text(5000))).toBe(true);
  });
  test('a stream over several descriptors: bits that fill no byte go through AECS, two of them in turn', () => {
    fc.assert(
      fc.property(data, fc.array(fc.nat(20_000), { maxLength: 5 }), (bytes, cuts) => {
        const ends = [...new Set(cuts.filter((c) => c > 0 && c < bytes.length))].sort((a, b) => a - b).concat(bytes.length);
        m.compressAecs(AECS, 0b011, 3);
        const out: Buffer[] = [];
        let from = 0;
        for (const [i, end] of ends.entries()) {
          const last = end === bytes.length;
          const r = compress(bytes.subarray(from, end), {
            flags: IaxFlag.readAecs | (last ? 0 : IaxFlag.writeAecs) | (i & 1 ? IaxFlag.aecsSecond : 0),
            decompressFlags: last ? compressed : 0,
          });
          expect(r).toMatchObject({
            status: 'success',
            crc: crc32(bytes.subarray(0, end)),
            xorChecksum: i === 0 ? xor16(bytes.subarray(0, end)) : expect.any(Number),
          });
          out.push(m.got(DST, r.outputSize as number));
          // Software brings the codes along: without header generation only the state is written.
          from = end;
        }
        expect(inflateRawSync(Buffer.concat(out)).equals(bytes)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });
  test('statistics give codes with which it compresses better', () => {
    const bytes = text(30_000);
    const r = compress(bytes, { flags: 0, source2Low: 0, source2Size: 0, decompressFlags: CompressFlag.statistics });
    expect(r).toMatchObject({ status: 'success', outputSize: HISTOGRAM.bytes });
    const literals = m.words.slice(DST / 4, DST / 4 + 286);
    const distances = m.words.slice((DST + HISTOGRAM.distances) / 4, (DST + HISTOGRAM.distances) / 4 + 30);
    // A match has a length and a distance; what they and the literals stand for is the source.
    const sum = (a: Uint32Array) => a.reduce((x, y) => x + y, 0);
    expect(sum(literals.subarray(257))).toBe(sum(distances));
    expect(sum(literals.subarray(0, 256))).toBeLessThan(bytes.length / 2);
    m.compressAecs(AECS, 0b011, 3);
    const fixed = compress(bytes).outputSize as number;
    // What software does with them: codes, and a header in the accumulator.
    const codes: Codes = { literals: new Uint32Array(286), distances: new Uint32Array(30) };
    buildCodes(literals, distances, codes);
    m.compressAecs(AECS, 0, 0);
    const at = AECS / 4;
    let bits = 0;
    const put = (value: number, width: number): void => {
      for (let i = 0; i < width; i++, bits++) m.bytes[AECS + COMPRESS_ACCUMULATOR.offset + (bits >> 3)]! |= ((value >>> i) & 1) << (bits & 7);
    };
    dynamicHeader(codes, { put }, true);
    CompressAecs.set.accumulatorBits(m.words, at, bits);
    m.words.set(codes.literals, at + COMPRESS_LITERALS.offset / 4);
    m.words.set(codes.distances, at + COMPRESS_DISTANCES.offset / 4);
    const own = compress(bytes).outputSize as number;
    expect(inflateRawSync(m.got(DST, own)).equals(bytes)).toBe(true);
    expect(own).toBeLessThan(0.8 * fixed);
  });
  test('literals alone, and words of 16 bits in reverse order', () => {
    m.compressAecs(AECS, 0b011, 3);
    const bytes = text(3000);
    const literals = compress(bytes, { decompressFlags: compressed | CompressFlag.literalsOnly });
    expect(literals.outputSize).toBeGreaterThan(2900);
    expect(inflateRawSync(m.got(DST, literals.outputSize as number)).equals(bytes)).toBe(true);
    m.compressAecs(AECS, 0b011, 3);
    const r = compress(bytes, { decompressFlags: compressed | CompressFlag.bigEndian });
    const out = m.got(DST, r.outputSize as number);
    expect(out.length % 2).toBe(0);
    const mirror = (byte: number) => Number.parseInt(byte.toString(2).padStart(8, '0').split('').reverse().join(''), 2);
    const plain = out.map((_, i) => mirror(out[i ^ 1]!));
    expect(inflateRawSync(plain).equals(bytes)).toBe(true);
  });
  test('what does not fit is an error that cannot be gone on from, as iaa_crypto expects it', () => {
    m.compressAecs(AECS, 0b011, 3);
    const noise = Uint8Array.from({ length: 1000 }, (_, i) => Math.imul(i * i + 7, 2654435761) >>> 24);
    m.bytes.fill(0x77, DST, DST + 2000);
    expect(compress(noise, { maxDestinationSize: 500 })).toMatchObject({ status: 'analyticsError', error: 'outputOverflow', outputSize: 500 });
    expect(m.got(DST + 500, 500).every((b) => b === 0x77)).toBe(true);
  });
  test('a symbol without a code; AECS that has more bits than its accumulator', () => {
    m.compressAecs(AECS, 0b011, 3);
    m.words.fill(0, (AECS + COMPRESS_LITERALS.offset) / 4, (AECS + COMPRESS_DISTANCES.offset) / 4);
    expect(compress(text(100))).toMatchObject({ status: 'analyticsError', error: 'noCode' });
    m.compressAecs(AECS, 0, 8 * COMPRESS_ACCUMULATOR.bytes + 1);
    expect(compress(text(100))).toMatchObject({ status: 'analyticsError', error: 'aecs' });
  });
});

describe('headers that the device makes (2.0)', () => {
  const m = iaxMachine({ profile: iax2 });
  const job = (bytes: Uint8Array, fields: Parameters<typeof m.build>[1]) => {
    m.put(SRC, bytes);
    return m.execute(
      m.build(IaxOpcode.compress, { source1Low: SRC, source1Size: bytes.length, destinationLow: DST, maxDestinationSize: M, ...fields }),
    );
  };
  test('in one pass', () => {
    fc.assert(
      fc.property(data, (bytes) => {
        const header = (HeaderGeneration.enable | HeaderGeneration.final) << CompressFlag.headerShift;
        const r = job(bytes, { decompressFlags: compressed | header });
        expect(r).toMatchObject({ status: 'success', completed: bytes.length, crc: crc32(bytes) });
        expect(inflateRawSync(m.got(DST, r.outputSize as number)).equals(bytes)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });
  test('in two: the first leaves codes and header in AECS, the second compresses with them', () => {
    const bytes = text(20_000);
    const header = (HeaderGeneration.enable | HeaderGeneration.twoPass | HeaderGeneration.final) << CompressFlag.headerShift;
    const first = job(bytes, {
      flags: IaxFlag.writeAecs,
      destinationLow: 0,
      maxDestinationSize: 0,
      source2Low: AECS,
      source2Size: COMPRESS_AECS_BYTES,
      decompressFlags: header,
      filterFlags: Compress2Flag.writeTables,
    });
    expect(first).toMatchObject({ status: 'success', outputSize: 0 });
    const second = job(bytes, {
      flags: IaxFlag.readAecs | IaxFlag.aecsSecond,
      source2Low: AECS,
      source2Size: COMPRESS_AECS_BYTES,
      decompressFlags: compressed,
    });
    const out = m.got(DST, second.outputSize as number);
    expect(inflateRawSync(out).equals(bytes)).toBe(true);
    // The header that stands there says what the codes are.
    const at = (AECS + COMPRESS_AECS_BYTES) / 4;
    const codes: Codes = {
      literals: m.words.slice(at + COMPRESS_LITERALS.offset / 4, at + COMPRESS_LITERALS.offset / 4 + 286),
      distances: m.words.slice(at + COMPRESS_DISTANCES.offset / 4, at + COMPRESS_DISTANCES.offset / 4 + 30),
    };
    let bits = 0;
    dynamicHeader(codes, { put: (_value, width) => void (bits += width) }, true);
    expect(CompressAecs.get.accumulatorBits(m.words, at)).toBe(bits);
  });
  test('1.0 has none', () => {
    const m1 = iaxMachine();
    const header = (HeaderGeneration.enable | HeaderGeneration.final) << CompressFlag.headerShift;
    m1.put(SRC, text(100));
    const d = m1.build(IaxOpcode.compress, {
      source1Low: SRC,
      source1Size: 100,
      destinationLow: DST,
      maxDestinationSize: M,
      decompressFlags: compressed | header,
    });
    expect(m1.execute(d)).toMatchObject({ status: 'invalidCompressFlags', invalidFlags: header });
  });
});

describe('decompress', () => {
  const m = iaxMachine();
  const decompress = (stream: Uint8Array, fields: Parameters<typeof m.build>[1] = {}) => {
    m.put(SRC, stream);
    return m.execute(
      m.build(IaxOpcode.decompress, {
        source1Low: SRC,
        source1Size: stream.length,
        destinationLow: DST,
        maxDestinationSize: M,
        decompressFlags: decompressed,
        ...fields,
      }),
    );
  };
  const levels = fc.constantFrom({ level: 9 }, { level: 1, memLevel: 1 }, { level: 0 }, { strategy: 4 });
  test('what zlib deflated with a history of 4 KiB', () => {
    fc.assert(
      fc.property(data, levels, (bytes, options) => {
        const stream = deflateRawSync(bytes, { windowBits: 12, ...options });
        const r = decompress(stream);
        expect(r).toMatchObject({
          status: 'success',
          completed: stream.length,
          outputSize: bytes.length,
          crc: crc32(bytes),
          xorChecksum: xor16(bytes),
        });
        expect(m.got(DST, bytes.length).equals(bytes)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });
  test('one of 32 KiB needs a profile that has it', () => {
    const far = Uint8Array.from([...text(6000), ...Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) >> 3), ...text(6000)]);
    const stream = deflateRawSync(far);
    expect(decompress(stream)).toMatchObject({ status: 'analyticsError', error: 'distanceRange' });
    const wide = iaxMachine({ profile: { ...sprIax, history: 32768 } });
    wide.put(SRC, stream);
    const d = wide.build(IaxOpcode.decompress, {
      source1Low: SRC,
      source1Size: stream.length,
      destinationLow: DST,
      maxDestinationSize: M,
      decompressFlags: decompressed,
    });
    expect(wide.execute(d)).toMatchObject({ status: 'success', crc: crc32(far) });
    // Over two descriptors, AECS has to be as long as that; a shorter one takes 4 KiB of it along.
    const half = stream.length >> 1;
    const two = (bytes: number) => {
      const aecs = { source2Low: 0x4000, source2Size: bytes };
      const state = { ...aecs, decompressFlags: DecompressFlag.enable, maxDestinationSize: M, destinationLow: DST };
      wide.put(SRC, stream.subarray(0, half));
      wide.execute(wide.build(IaxOpcode.decompress, { ...state, flags: IaxFlag.writeAecs, source1Low: SRC, source1Size: half }));
      wide.put(SRC, stream.subarray(half));
      const rest = { source1Low: SRC, source1Size: stream.length - half, decompressFlags: decompressed };
      return wide.execute(wide.build(IaxOpcode.decompress, { ...state, flags: IaxFlag.readAecs | IaxFlag.aecsSecond, ...rest }));
    };
    expect(two(decompressAecsBytes(32768))).toMatchObject({ status: 'success', crc: crc32(far) });
    expect(two(DECOMPRESS_AECS_BYTES)).toMatchObject({ status: 'analyticsError', error: 'beforeStart' });
  });
  test('verification as iaa_crypto has it: no output, the same CRC', () => {
    const stream = deflateRawSync(text(9000), { windowBits: 12 });
    m.bytes.fill(0x11, DST, DST + 9000);
    const r = decompress(stream, { decompressFlags: decompressed | DecompressFlag.suppressOutput, maxDestinationSize: 1 });
    expect(r).toMatchObject({ status: 'success', outputSize: 0, crc: crc32(text(9000)) });
    expect(m.got(DST, 9000).every((b) => b === 0x11)).toBe(true);
  });
  test('a stream in any pieces and with any room: its state goes through AECS', () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 4 });
    const rooms = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 4 });
    let overflows = 0;
    fc.assert(
      fc.property(data, levels, pieces, rooms, (bytes, options, sizes, room) => {
        const stream = deflateRawSync(bytes, { windowBits: 12, ...options });
        const out: Buffer[] = [];
        let total = 0;
        for (let at = 0, k = 0; ; k++) {
          // Once the source has ended its rest may still be inside: then any byte goes along, which the end of the stream does not reach.
          const size = Math.min(sizes[k % sizes.length]!, stream.length - at);
          const last = at + size === stream.length;
          const r = decompress(last && size === 0 ? Uint8Array.of(0) : stream.subarray(at, at + size), {
            flags: (k > 0 ? IaxFlag.readAecs : 0) | IaxFlag.writeAecs | (k & 1 ? IaxFlag.aecsSecond : 0),
            source2Low: AECS,
            source2Size: DECOMPRESS_AECS_BYTES,
            maxDestinationSize: room[k % room.length]!,
            decompressFlags: decompressed & ~DecompressFlag.checkForEndOfBlock,
          });
          total += r.outputSize as number;
          expect(r.crc).toBe(crc32(bytes.subarray(0, total)));
          out.push(m.got(DST, r.outputSize as number));
          at += Math.min(size, r.completed as number);
          if (r.status === 'outputOverflow') overflows++;
          else expect(r.status).toBe('success');
          if (total === bytes.length && at === stream.length) break;
          expect(k).toBeLessThan(30_000);
        }
        expect(Buffer.concat(out).equals(bytes)).toBe(true);
      }),
      { numRuns: 40 },
    );
    expect(overflows).toBeGreaterThan(100);
  });
  test('stops behind the first block, or goes on; what it checks for', () => {
    const [a, b] = [text(500), text(700)];
    const one = deflateRawSync(a, { finishFlush: 2 });
    const stream = Buffer.concat([one, deflateRawSync(b)]);
    const any = decompressed & ~DecompressFlag.selectFinal;
    expect(decompress(stream, { decompressFlags: any })).toMatchObject({ status: 'success', outputSize: 500 });
    expect(decompress(stream)).toMatchObject({ status: 'success', outputSize: 1200 });
    expect(decompress(one)).toMatchObject({ status: 'analyticsError', error: 'endOfBlock' });
    expect(decompress(one, { decompressFlags: any & ~DecompressFlag.stopOnEndOfBlock })).toMatchObject({ status: 'success', outputSize: 500 });
    expect(decompress(stream.subarray(0, 40), { decompressFlags: any })).toMatchObject({ status: 'analyticsError', error: 'endOfBlock' });
    // Bytes behind the end are not the stream's.
    expect(decompress(Buffer.concat([deflateRawSync(a), Buffer.alloc(9, 0xee)]))).toMatchObject({
      status: 'success',
      completed: deflateRawSync(a).length,
    });
  });
  test('words of 16 bits in reverse order', () => {
    const stream = deflateRawSync(text(20_001), { windowBits: 12 });
    const mirror = (byte: number) => Number.parseInt(byte.toString(2).padStart(8, '0').split('').reverse().join(''), 2);
    const even = stream.length % 2 ? Buffer.concat([stream, Buffer.of(0)]) : stream;
    const r = decompress(
      even.map((_, i) => mirror(even[i ^ 1]!)),
      { source1Low: SRC, decompressFlags: decompressed | DecompressFlag.bigEndian },
    );
    expect(r).toMatchObject({ status: 'success', crc: crc32(text(20_001)) });
  });
  test('a header that is cut off, and longer than what AECS keeps of the input', () => {
    const state = {
      flags: IaxFlag.writeAecs as number,
      source2Low: AECS,
      source2Size: DECOMPRESS_AECS_BYTES,
      decompressFlags: DecompressFlag.enable as number,
    };
    expect(decompress(longHeader.subarray(0, 200), state)).toMatchObject({ status: 'success', completed: 200, outputSize: 0 });
    expect(decompress(longHeader.subarray(0, -1), state)).toMatchObject({ status: 'analyticsError', error: 'headerTooBig' });
    expect(decompress(longHeader, state)).toMatchObject({ status: 'success', completed: longHeader.length });
  });
});

describe('filters', () => {
  const m = iaxMachine({ profile: iax2 });
  const flags = (fields: Partial<{ [K in keyof typeof FilterFlags.set]: number }>): number => {
    const w = new Uint32Array(1);
    for (const [name, value] of Object.entries(fields)) FilterFlags.set[name as keyof typeof FilterFlags.set](w, 0, value);
    return w[0]!;
  };
  const aecs = (low: number, high: number, drop = 0): void => {
    m.words.fill(0, AECS / 4, (AECS + DECOMPRESS_AECS_BYTES) / 4);
    FilterAecs.set.low(m.words, AECS / 4, low);
    FilterAecs.set.high(m.words, AECS / 4, high);
    FilterAecs.set.dropBytes(m.words, AECS / 4, drop);
  };
  const filter = (opcode: number, source: Uint8Array, elements: number, fields: Parameters<typeof m.build>[1]) => {
    m.put(SRC, source);
    return m.execute(
      m.build(opcode, {
        source1Low: SRC,
        source1Size: source.length,
        destinationLow: DST,
        maxDestinationSize: M,
        elements,
        filterFlags: flags({ source1Width: 7 }),
        ...fields,
      }),
    );
  };
  const withAecs = { flags: IaxFlag.readAecs, source2Low: AECS, source2Size: FILTER_AECS_BYTES };
  const values = text(20_000);
  test('scan, over pages and larger than any buffer: bits, aggregates, checksums', () => {
    aecs(0x61, 0x66);
    const r = filter(IaxOpcode.scan, values, 19_997, withAecs);
    const hits = [...values.subarray(0, 19_997)].flatMap((x, i) => (x >= 0x61 && x <= 0x66 ? [i] : []));
    expect(r).toMatchObject({
      status: 'success',
      completed: 19_997,
      outputSize: 2500,
      outputBits: 5,
      min: hits[0],
      max: hits.at(-1),
      sum: hits.length,
      crc: crc32(values.subarray(0, 19_997)),
    });
    const out = m.got(DST, 2500);
    expect(hits.every((i) => (out[i >> 3]! >> (i & 7)) & 1)).toBe(true);
    expect([...out].reduce((n, byte) => n + byte.toString(2).replaceAll('0', '').length, 0)).toBe(hits.length);
  });
  test('extract, select and expand again', () => {
    aecs(100, 15_000);
    expect(filter(IaxOpcode.extract, values, 20_000, withAecs)).toMatchObject({ status: 'success', outputSize: 14_901 });
    expect(m.got(DST, 14_901).equals(values.subarray(100, 15_001))).toBe(true);
    const mask = Uint8Array.from({ length: 2500 }, (_, i) => (i * 37) & 0xff);
    m.put(AECS, mask);
    const two = { flags: IaxFlag.readSource2, source2Low: AECS, source2Size: mask.length };
    const selected = values.filter((_, i) => (mask[i >> 3]! >> (i & 7)) & 1);
    expect(filter(IaxOpcode.select, values, 20_000, two)).toMatchObject({ status: 'success', outputSize: selected.length });
    expect(m.got(DST, selected.length).equals(selected)).toBe(true);
    expect(filter(IaxOpcode.expand, selected, 20_000, two)).toMatchObject({ status: 'success', outputSize: 20_000 });
    expect(m.got(DST, 20_000).equals(values.map((v, i) => ((mask[i >> 3]! >> (i & 7)) & 1 ? v : 0)))).toBe(true);
  });
  test('set membership, find unique, RLE burst', () => {
    expect(filter(IaxOpcode.findUnique, values, 20_000, {})).toMatchObject({ status: 'success', outputSize: 32, sum: new Set(values).size });
    const set = m.got(DST, 32);
    m.put(AECS, set);
    const two = { flags: IaxFlag.readSource2, source2Low: AECS, source2Size: 32 };
    expect(filter(IaxOpcode.setMembership, values, 20_000, two)).toMatchObject({ status: 'success', sum: 20_000 });
    const counts = Uint8Array.of(3, 0, 200, 7);
    m.put(AECS, Uint8Array.of(0b0101));
    expect(filter(IaxOpcode.rleBurst, counts, 4, { ...two, source2Size: 1 })).toMatchObject({ status: 'success', sum: 203, outputBits: 2 });
  });
  test.each([0, 5000])('over a compressed source, %i bytes of which are dropped', (drop) => {
    aecs(0x61, 0x66, drop);
    const state = drop ? { ...withAecs, source2Size: DECOMPRESS_AECS_BYTES } : {};
    if (drop) m.words[(AECS + 0x434) / 4] = 1;
    const stream = deflateRawSync(values, { windowBits: 12 });
    const r = filter(drop ? IaxOpcode.scan : IaxOpcode.findUnique, stream, 20_000 - drop, { ...state, decompressFlags: decompressed });
    const hits = [...values.subarray(drop)].filter((x) => x >= 0x61 && x <= 0x66).length;
    expect(r).toMatchObject({ status: 'success', sum: drop ? hits : new Set(values).size });
  });
  test('what does not fit, and sources that are too short', () => {
    aecs(0, 255);
    expect(filter(IaxOpcode.scan, values, 20_000, { ...withAecs, maxDestinationSize: 100 })).toMatchObject({
      status: 'analyticsError',
      error: 'outputOverflow',
      outputSize: 100,
    });
    expect(filter(IaxOpcode.scan, values, 20_001, withAecs)).toMatchObject({ status: 'analyticsError', error: 'source1Short' });
    m.put(AECS, new Uint8Array(10));
    const two = { flags: IaxFlag.readSource2, source2Low: AECS, source2Size: 10 };
    expect(filter(IaxOpcode.select, values, 81, two)).toMatchObject({ status: 'analyticsError', error: 'source2Short' });
  });
  test('arrays by force: elements of one bit, as bytes', () => {
    aecs(0, 100);
    const r = filter(IaxOpcode.extract, Uint8Array.of(0b101), 3, { ...withAecs, filterFlags: flags({ outputWidth: 1, forceArray: 1 }) });
    expect(r).toMatchObject({ status: 'success', outputSize: 3, min: 0, max: 1, sum: 2 });
    expect([...m.got(DST, 3)]).toEqual([1, 0, 1]);
  });
});

describe('CRC-64 and zero compression', () => {
  const m = iaxMachine({ profile: iax2 });
  test('CRC-64/XZ and CRC-64/ECMA-182 of 123456789, where accel-config looks for them', () => {
    m.put(SRC, new TextEncoder().encode('123456789'));
    for (const [flags, high, low] of [
      [Crc64Flag.bigEndian | Crc64Flag.invert, 0x995d_c9bb, 0xdf19_39fa],
      [0, 0x6c40_df5f, 0x0b49_7347],
    ] as const) {
      m.execute(
        m.build(IaxOpcode.crc64, { source1Low: SRC, source1Size: 9, decompressFlags: flags, filterFlags: 0xa9ea_3693, elements: 0x42f0_e1eb }),
      );
      expect(IaxCrc64Record.json(m.words, RECORD / 4)).toMatchObject({ status: 'success', completed: 9, crcLow: low, crcHigh: high });
    }
  });
  test.each([
    [IaxOpcode.zeroCompress8, IaxOpcode.zeroDecompress8],
    [IaxOpcode.zeroCompress16, IaxOpcode.zeroDecompress16],
    [IaxOpcode.zeroCompress32, IaxOpcode.zeroDecompress32],
  ])('operations %i and %i undo each other', (forth, back) => {
    const bytes = Uint8Array.from({ length: 40_000 }, (_, i) => (i % 11 < 8 ? 0 : i));
    m.put(SRC, bytes);
    const packed = m.execute(m.build(forth, { source1Low: SRC, source1Size: bytes.length, destinationLow: DST, maxDestinationSize: M }));
    expect(packed).toMatchObject({ status: 'success', completed: bytes.length });
    const size = packed.outputSize as number;
    expect(size).toBeLessThan(bytes.length);
    m.put(SRC, m.got(DST, size));
    expect(m.execute(m.build(back, { source1Low: SRC, source1Size: size, destinationLow: DST, maxDestinationSize: M }))).toMatchObject({
      status: 'success',
      outputSize: bytes.length,
    });
    expect(m.got(DST, bytes.length).equals(bytes)).toBe(true);
    expect(m.execute(m.build(back, { source1Low: SRC, source1Size: size, destinationLow: DST, maxDestinationSize: 99 }))).toMatchObject({
      status: 'analyticsError',
      error: 'outputOverflow',
    });
  });
});

describe('pages that are not there', () => {
  const bytes = text(50_000);
  const cases = [
    ['compress', IaxOpcode.compress, compressed, bytes],
    ['decompress', IaxOpcode.decompress, decompressed, deflateRawSync(bytes, { windowBits: 12 })],
  ] as const;
  test.each(cases)('%s waits for each with block-on-fault, and goes on where it was', (_name, opcode, codeFlags, source) => {
    const m = iaxMachine({ wq: { blockOnFault: true } });
    m.compressAecs(AECS, 0b011, 3);
    m.put(SRC, source);
    const d = m.build(opcode, {
      flags: Flag.blockOnFault | (opcode === IaxOpcode.compress ? IaxFlag.readAecs : 0),
      source1Low: SRC,
      source1Size: source.length,
      destinationLow: DST,
      maxDestinationSize: M,
      ...(opcode === IaxOpcode.compress ? { source2Low: AECS, source2Size: COMPRESS_AECS_BYTES } : {}),
      decompressFlags: codeFlags,
    });
    for (let page = SRC / 4096; page < (SRC + source.length) / 4096; page++) m.absent.add(page);
    for (let page = DST / 4096; page < (DST + 50_000) / 4096; page++) m.absent.add(page);
    m.submit(d);
    let asked = 0;
    for (m.run(); m.pageRequests.length > 0; m.run()) {
      const { page, pasid, group } = m.pageRequests.pop()!;
      m.absent.delete(page);
      asked++;
      m.device.pageResponse(pasid, group, 0);
    }
    expect(asked).toBeGreaterThan(5);
    const r = m.record();
    expect(r).toMatchObject({ status: 'success', crc: crc32(bytes) });
    const out = m.got(DST, r.outputSize as number);
    expect((opcode === IaxOpcode.compress ? inflateRawSync(out) : out).equals(bytes)).toBe(true);
  });
  test('without, it ends, and software begins again: nothing is completed in part', () => {
    const m = iaxMachine();
    const [, , , source] = cases[1];
    m.put(SRC, source);
    m.absent.add(DST / 4096 + 2);
    const d = m.build(IaxOpcode.decompress, {
      source1Low: SRC,
      source1Size: source.length,
      destinationLow: DST,
      maxDestinationSize: M,
      decompressFlags: decompressed,
    });
    expect(m.execute(d)).toMatchObject({ status: 'pageFault', faultWrite: 1, faultLow: DST + 0x2000, completed: 0 });
    m.absent.clear();
    expect(m.execute(d)).toMatchObject({ status: 'success', outputSize: bytes.length });
  });
});
