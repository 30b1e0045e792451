/** Every completion status and parameter error of the analytics accelerator that the model raises, provoked from the outside; and noise. */
import { deflateRawSync } from 'node:zlib';
import { Event } from '@siov/layout/events';
import { describe, expect, test } from 'vitest';
import { type IaxProfile, iax2, sprIax } from '../src/iax/index.js';
import {
  AnalyticsError,
  COMPRESS_AECS_BYTES,
  Command,
  CompressFlag,
  Crc64Flag,
  DECOMPRESS_AECS_BYTES,
  DecompressFlag,
  EventLogCfg,
  EventLogEntry,
  FilterFlags,
  Flag,
  GenCfg,
  HISTOGRAM,
  IaxFlag,
  IaxOpcode,
  IaxRecord,
  IaxStatus,
  iaxDescriptors,
  Register,
} from '../src/spec/index.js';
import { AECS, DST, iaxMachine, RECORD, recorded, SRC } from './iax-machine.js';
import { brokenStreams, longHeader, separately } from './iax-streams.js';
import { machine, type WqOptions } from './machine.js';

type M = ReturnType<typeof iaxMachine>;
type Fields = Parameters<M['build']>[1];
const stream = deflateRawSync(new Uint8Array(5000), { windowBits: 12 });
const basic = { source1Low: SRC, source1Size: 64, destinationLow: DST, maxDestinationSize: 8192 };
const fixed = { ...basic, flags: IaxFlag.readAecs, source2Low: AECS, source2Size: COMPRESS_AECS_BYTES, decompressFlags: CompressFlag.flushOutput };
const decompress = { ...basic, source1Size: stream.length, decompressFlags: DecompressFlag.enable };
const filterFlags = (fields: Partial<{ [K in keyof typeof FilterFlags.set]: number }> = {}): number => {
  const w = new Uint32Array(1);
  for (const [name, value] of Object.entries({ source1Width: 7, ...fields })) FilterFlags.set[name as keyof typeof FilterFlags.set](w, 0, value);
  return w[0]!;
};
const scan = { ...basic, elements: 64, filterFlags: filterFlags() };
const two = { flags: IaxFlag.readSource2, source2Low: AECS, source2Size: 64 };

type Row = readonly [
  status: keyof typeof IaxStatus,
  rule: string,
  opcode: number,
  fields: Fields | ((m: M) => Fields),
  more?: {
    readonly words?: Readonly<Record<number, number>>;
    readonly wq?: WqOptions;
    readonly response?: number;
    readonly invalid?: number;
    readonly unmapped?: true;
  },
];
const { compress: COMPRESS, decompress: DECOMPRESS, scan: SCAN } = IaxOpcode;
const rows: readonly Row[] = [
  ['success', 'the operation was done', COMPRESS, fixed],
  ['pageFault', 'a page is not there, and block-on-fault is clear', DECOMPRESS, (m) => (m.absent.add(DST >> 12), decompress)],
  [
    'pageRequestInvalid',
    'a page request is answered invalid',
    DECOMPRESS,
    (m) => (m.absent.add(DST >> 12), { ...decompress, flags: Flag.blockOnFault }),
    { wq: { blockOnFault: true }, response: 1 },
  ],
  ['analyticsError', 'the stream is none', DECOMPRESS, (m) => (m.bytes.fill(0xff, SRC, SRC + 64), { ...decompress, source1Size: 64 })],
  ['outputOverflow', 'decompression has more than the destination takes', DECOMPRESS, { ...decompress, maxDestinationSize: 4999 }],
  ['unsupportedOperation', 'a batch', 0x01, {}],
  ['unsupportedOperation', 'an operation of 2.0', IaxOpcode.zeroCompress8, basic],
  ['invalidFlags', 'a fence', IaxOpcode.nop, { flags: Flag.fence }, { invalid: Flag.fence }],
  [
    'invalidFlags',
    'cache control for a CRC',
    IaxOpcode.crc64,
    { source1Low: SRC, source1Size: 9, flags: Flag.cacheControl },
    { invalid: Flag.cacheControl },
  ],
  ['invalidFlags', 'source 2 as a second input of compression', COMPRESS, { ...fixed, flags: IaxFlag.readSource2 }, { invalid: IaxFlag.readSource2 }],
  [
    'invalidFlags',
    'both ways of writing AECS',
    DECOMPRESS,
    { ...decompress, flags: IaxFlag.writeAecs | IaxFlag.writeAecsOnOverflow, source2Low: AECS, source2Size: DECOMPRESS_AECS_BYTES },
  ],
  ['invalidFlags', 'AECS written back by a filter', SCAN, { ...scan, flags: IaxFlag.writeAecs }, { invalid: IaxFlag.writeAecs }],
  ['invalidFlags', 'a filter with two inputs that has one', IaxOpcode.select, scan, { invalid: IaxFlag.readSource2 }],
  ['invalidFlags', 'a filter with one input that has two', SCAN, { ...scan, ...two }, { invalid: IaxFlag.readSource2 }],
  ['nonZeroReserved', 'a reserved field', IaxOpcode.crc64, { source1Low: SRC, source1Size: 9 }, { words: { 6: 1 } }],
  ['size', 'a source of no bytes', COMPRESS, { ...fixed, source1Size: 0 }],
  ['size', 'a source beyond the maximum of the queue', COMPRESS, { ...fixed, source1Size: 4097 }, { wq: { maxTransferShift: 12 } }],
  ['size', 'a destination beyond the maximum of the queue', COMPRESS, fixed, { wq: { maxTransferShift: 12 } }],
  ['size', 'a destination of no bytes', DECOMPRESS, { ...decompress, maxDestinationSize: 0 }],
  [
    'size',
    'a destination that takes no histogram',
    COMPRESS,
    { ...basic, maxDestinationSize: HISTOGRAM.bytes - 1, decompressFlags: CompressFlag.statistics },
  ],
  ['size', 'AECS that is too small', COMPRESS, { ...fixed, source2Size: COMPRESS_AECS_BYTES - 32 }],
  ['size', 'half an element', IaxOpcode.zeroCompress16, { ...basic, source1Size: 65 }],
  ['overlap', 'the destination in the source', COMPRESS, { ...fixed, destinationLow: SRC + 63 }],
  ['overlap', 'the destination in source 2', IaxOpcode.select, { ...scan, ...two, destinationLow: AECS + 63 }],
  [
    'privilege',
    'a privileged descriptor, and privileged mode is off in configuration space',
    COMPRESS,
    (m) => (m.fn.configWrite(m.fn.at.pasid + 6, 2, 1), fixed),
    { wq: { pasid: 5, privileged: true } },
  ],
  ['trafficClass', 'a traffic class that is not mapped', DECOMPRESS, { ...decompress, flags: Flag.trafficClass2 }, { unmapped: true }],
  [
    'readbackFault',
    'a destination that cannot be read back',
    DECOMPRESS,
    (m) => (m.writeOnly.add(DST >> 12).add((DST >> 12) + 1), { ...decompress, flags: Flag.destinationReadback }),
  ],
  ['interruptHandle', 'a handle that is none', IaxOpcode.nop, { flags: Flag.requestInterrupt, interruptHandle: 99 }],
  ['alignment', 'AECS at no multiple of 32', COMPRESS, { ...fixed, source2Low: AECS + 16 }],
  ['alignment', 'AECS of no multiple of 32 bytes', COMPRESS, { ...fixed, source2Size: COMPRESS_AECS_BYTES + 8 }],
  [
    'translationError',
    'an address that the unit refuses',
    DECOMPRESS,
    (m) => (m.fn.configWrite(m.fn.at.ats + 6, 2, 0), { ...decompress, source1Low: 0x7000_0000 }),
  ],
  ['invalidCompressFlags', 'decompression that is not enabled', DECOMPRESS, { ...decompress, decompressFlags: DecompressFlag.flushOutput }],
  [
    'invalidCompressFlags',
    'a flag of decompression that is none',
    DECOMPRESS,
    { ...decompress, decompressFlags: DecompressFlag.enable | (1 << 15) },
    { invalid: 1 << 15 },
  ],
  ['invalidCompressFlags', 'indexing', DECOMPRESS, { ...decompress, decompressFlags: DecompressFlag.enable | (1 << DecompressFlag.indexShift) }],
  ['invalidCompressFlags', 'a flag of compression that is none', COMPRESS, { ...fixed, decompressFlags: 1 << 9 }, { invalid: 1 << 9 }],
  ['invalidCompressFlags', 'second flags of compression', COMPRESS, { ...fixed, filterFlags: 2 }],
  [
    'invalidCompressFlags',
    'a flag of a CRC that is none',
    IaxOpcode.crc64,
    { source1Low: SRC, source1Size: 9, decompressFlags: Crc64Flag.invert | 1 },
    { invalid: 1 },
  ],
  ['invalidCompressFlags', 'flags of decompression that is not enabled', SCAN, { ...scan, decompressFlags: DecompressFlag.flushOutput }],
  [
    'invalidCompressFlags',
    'suppressed output of a filter',
    SCAN,
    { ...scan, decompressFlags: DecompressFlag.enable | DecompressFlag.suppressOutput },
  ],
  ['invalidFilterFlags', 'a reserved parser', SCAN, { ...scan, filterFlags: filterFlags({ parser: 3 }) }],
  ['invalidFilterFlags', 'dropped bits where there is no set', SCAN, { ...scan, filterFlags: filterFlags({ dropLowBits: 1 }) }],
  ['invalidFilterFlags', 'a source 2 that is no bit vector', IaxOpcode.select, { ...scan, ...two, filterFlags: filterFlags({ source2Width: 3 }) }],
  ['invalidFilterFlags', 'arrays by force before 2.0', SCAN, { ...scan, filterFlags: filterFlags({ forceArray: 1 }) }],
  ['invalidFilterFlags', 'a width for Parquet RLE', SCAN, { ...scan, filterFlags: filterFlags({ parser: 2 }) }],
  ['elements', 'no elements', SCAN, { ...scan, elements: 0 }],
  ['source1Width', 'a set of more than 15 bits', IaxOpcode.findUnique, { ...scan, filterFlags: filterFlags({ source1Width: 15 }) }],
  [
    'source1Width',
    'more dropped bits than there are',
    IaxOpcode.findUnique,
    { ...scan, filterFlags: filterFlags({ dropLowBits: 4, dropHighBits: 4 }) },
  ],
  ['source1Width', 'counts of another width', IaxOpcode.rleBurst, { ...scan, ...two, filterFlags: filterFlags({ source1Width: 9 }) }],
  ['invertOutput', 'inverted output that is no bit vector', IaxOpcode.extract, { ...scan, filterFlags: filterFlags({ invertOutput: 1 }) }],
];

test.each(rows.map(([status, rule, opcode, fields, more]) => [status, rule, opcode, fields, more ?? {}] as const))(
  '%s: %s',
  (status, _rule, opcode, given, more) => {
    const unmapped = more.unmapped ? { profile: { ...sprIax, trafficClasses: 0b1 }, trafficClassB: 1 } : {};
    const m = iaxMachine({ ...(more.wq ? { wq: more.wq } : {}), ...unmapped });
    m.compressAecs(AECS, 0b011, 3);
    m.put(SRC, stream);
    const d = m.build(opcode, typeof given === 'function' ? given(m) : given);
    for (const [word, value] of Object.entries(more.words ?? {})) d[Number(word)] = value;
    m.execute(d);
    for (const r of m.pageRequests.splice(0)) m.device.pageResponse(r.pasid, r.group, more.response ?? 0);
    m.run();
    const r = m.record();
    expect(r.status).toBe(status);
    if (more.invalid !== undefined) expect(r.invalidFlags).toBe(more.invalid);
    // The whole of the 64 bytes is the record's.
    expect([...m.words.subarray(RECORD / 4 + 12, RECORD / 4 + 16)]).toEqual([0, 0, 0, 0]);
  },
);
// 0x32: of linux/idxd.h alone, which does not say what it is of.
test('every status is above, or below with the records, but those that nothing here raises', () => {
  const elsewhere = ['none', 'recordFault', 'recordAlignment'];
  const never = ['hardwareError1', 'hardwareError2', 'pageRequestTimeout', 'watchdog', 'inputSize'];
  expect(Object.keys(IaxStatus).sort()).toEqual([...new Set(rows.map(([status]) => status)), ...elsewhere, ...never].sort());
});

describe('errors of the analytics engine, from the outside', () => {
  type Case = readonly [
    rule: string,
    error: keyof typeof AnalyticsError,
    opcode: number,
    source: Uint8Array,
    fields: Fields,
    prepare?: (m: M) => void,
  ];
  const names = Object.fromEntries(Object.entries(AnalyticsError).map(([name, code]) => [code, name as keyof typeof AnalyticsError]));
  // So that no code is cut short.
  const zeros = new Uint8Array(4);
  const bytes = (...n: number[]) => Uint8Array.from(n);
  const parquet = filterFlags({ parser: FilterFlags.is.parser.parquetRle, source1Width: 0 });
  const dictionary = Buffer.from('what came before the stream');
  const far = Uint8Array.from({ length: 10_000 }, (_, i) => Math.imul(i % 5000, 2654435761) >>> 24);
  const cases: readonly Case[] = [
    ...brokenStreams.map(([rule, error, source]): Case => [rule, names[error]!, DECOMPRESS, Uint8Array.of(...source, ...zeros), {}]),
    ['a distance beyond the history', 'distanceRange', DECOMPRESS, deflateRawSync(far), {}],
    ['a distance before the start', 'beforeStart', DECOMPRESS, deflateRawSync(dictionary, { dictionary }), {}],
    [
      'no end of a block, where it is checked for',
      'endOfBlock',
      DECOMPRESS,
      stream.subarray(0, 9),
      { decompressFlags: DecompressFlag.enable | DecompressFlag.checkForEndOfBlock },
    ],
    [
      'AECS that says of 65 bits in a quadword',
      'aecs',
      DECOMPRESS,
      stream,
      { flags: IaxFlag.readAecs, source2Low: AECS, source2Size: DECOMPRESS_AECS_BYTES },
      (m) => m.bytes.fill(0, AECS, AECS + DECOMPRESS_AECS_BYTES).fill(65, AECS + 0x1b8, AECS + 0x1b9),
    ],
    [
      'an end in a header that is too long for AECS',
      'headerTooBig',
      DECOMPRESS,
      longHeader.subarray(0, -1),
      { flags: IaxFlag.writeAecs, source2Low: AECS, source2Size: DECOMPRESS_AECS_BYTES },
    ],
    ['a symbol without a code', 'noCode', COMPRESS, bytes(1, 2, 3), { ...fixed, source1Size: 3 }, (m) => m.bytes.fill(0, AECS + 0x120, AECS + 0x600)],
    ['an output that does not fit', 'outputOverflow', SCAN, new Uint8Array(64), { ...scan, maxDestinationSize: 7 }],
    ['a source 1 that is short', 'source1Short', SCAN, new Uint8Array(63), scan],
    ['a source 2 that is short', 'source2Short', IaxOpcode.select, new Uint8Array(64), { ...scan, ...two, source2Size: 7 }],
    [
      'an element wider than the output',
      'outputWidth',
      IaxOpcode.extract,
      new Uint8Array(128),
      { ...scan, filterFlags: filterFlags({ source1Width: 8, outputWidth: 1 }) },
    ],
    ['Parquet RLE of no bits', 'parquetFormat', SCAN, bytes(0, 2, 0), { ...scan, filterFlags: parquet }],
    ['Parquet RLE of 33 bits', 'parquetWidth', SCAN, bytes(33, 2, 0, 0, 0, 0, 0), { ...scan, filterFlags: parquet }],
    ['zero decompression of half a vector', 'zeroHeader', IaxOpcode.zeroDecompress16, bytes(1, 2, 3), {}],
  ];
  const provoke = (profile: IaxProfile, opcode: number, source: Uint8Array, fields: Fields, prepare?: (m: M) => void) => {
    const m = iaxMachine({ profile });
    m.compressAecs(AECS, 0b011, 3);
    prepare?.(m);
    m.put(SRC, source);
    const common = { ...basic, ...(opcode === DECOMPRESS ? { decompressFlags: DecompressFlag.enable } : {}) };
    return m.execute(m.build(opcode, { ...common, ...fields, source1Size: source.length }));
  };
  test.each(cases.map(([rule, error, ...how]) => [rule, error, how] as const))('%s: %s', (_rule, error, [opcode, source, fields, prepare]) => {
    expect(provoke(sprIax, opcode, source, fields, prepare)).toMatchObject({ status: 'analyticsError', error });
  });
  test.each(separately)('a profile in which lengths are two sequences: %s', (_rule, error, source) => {
    expect(provoke({ ...sprIax, separateLengths: true }, DECOMPRESS, source, {})).toMatchObject({ status: 'analyticsError', error: names[error] });
    expect(provoke(sprIax, DECOMPRESS, source, {}).error).not.toBe(names[error]);
  });
  test('those are all that there are but of what is not modelled: mini-blocks, verification, time, streams that end within elements', () => {
    const never = ['none', 'timeout', 'distanceSpansBlocks', 'lengthSpansBlocks', 'blockSize', 'verification', 'elementsShort'];
    const raised = [...cases.map(([, error]) => error), ...separately.map(([, error]) => names[error]!)];
    expect(Object.keys(AnalyticsError).sort()).toEqual([...new Set([...raised, ...never])].sort());
  });
});

describe('records', () => {
  test('lie at multiples of 64 bytes', () => {
    const m = iaxMachine();
    m.submit(m.build(IaxOpcode.nop, { recordLow: 0x120 }));
    m.run();
    expect(m.words[0x120 / 4]).toBe(0);
    expect((m.read(Register.swError) >>> 8) & 0xff).toBe(IaxStatus.recordAlignment);
  });
  test('that cannot be written go into the event log, whole, in the second half of 128 bytes', () => {
    const m = machine({ profile: iax2 });
    const log = 0x4000;
    const cfg = new Uint32Array(EventLogCfg.bytes / 4);
    EventLogCfg.set.baseLow(cfg, 0, log / 4096);
    EventLogCfg.set.size(cfg, 0, 64);
    for (const [i, word] of cfg.entries()) m.write(Register.eventLogCfg + 4 * i, word);
    const gen = new Uint32Array(1);
    GenCfg.set.eventLog(gen, 0, 1);
    m.write(Register.genCfg, gen[0]!);
    m.start({ maxBatchShift: 0 });
    m.bytes.set(stream, SRC);
    m.absent.add(1);
    const d = new Uint32Array(16);
    d[1] = (IaxOpcode.decompress << 24) | recorded;
    d[2] = 0x1040;
    d[4] = SRC;
    d[6] = DST;
    d[8] = stream.length;
    d[9] = DecompressFlag.enable << 16;
    d[12] = 8192;
    for (let i = 0; i < 2; i++) {
      m.submit(d);
      m.run();
      const at = (log + 128 * i) / 4;
      expect(EventLogEntry.get.error(m.words, at)).toBe(IaxStatus.recordFault);
      expect(IaxRecord.json(m.words, at + 16)).toMatchObject({ status: 'success', completed: stream.length, outputSize: 5000 });
    }
  });
});

test.each([
  ['a million', iax2, 1_000_000, false],
  ['a hundred thousand, over memory that answers later,', sprIax, 100_000, true],
] as const)(
  '%s random descriptors: no exception, no hang, nothing written outside',
  (_many, profile, count, puttingOff) => {
    const ended = new Map<number, Set<number>>();
    const m = machine({
      profile,
      ...(puttingOff ? { puttingOff, deviceTlb: false } : {}),
      trace: {
        emit(event, _wq, opcode, status) {
          if (event === Event.complete) ended.set(opcode, (ended.get(opcode) ?? new Set()).add(status & 0x7f));
        },
      },
    });
    const start = () => m.start({ pasid: 5, size: 8, blockOnFault: true, maxBatchShift: 0 }, { shared: true, size: 8, maxBatchShift: 0 });
    start();
    m.strangers.add(6);
    let s = 4711;
    const rng = () => {
      s = (Math.imul(s, 1664525) + 1013904223) | 0;
      return s >>> 8;
    };
    // Below: noise, streams and AECS that make sense and then are written over by what is done.
    const aecs = iaxMachine();
    aecs.compressAecs(AECS, 0b011, 3);
    const noise = Uint8Array.from({ length: 0x8_0000 }, () => (rng() & 3 ? rng() & 15 : rng()));
    const streams = [1, 6, 9].map((level) => deflateRawSync(noise.subarray(0, 1500), { level, windowBits: 12 }));
    const refill = () => {
      m.bytes.set(noise);
      for (let i = 0; i < 16; i++) m.bytes.set(streams[i % 3]!, 0x4000 + i * 0x1000);
      for (let i = 0; i < 16; i++) m.bytes.set(aecs.bytes.subarray(AECS, AECS + COMPRESS_AECS_BYTES), 0x2_0000 + i * 0x1000);
    };
    for (let p = 0x80; p < 0x100; p++) m.readOnly.add(p);
    m.absent.add(0x33).add(0x44).add(0x55);
    for (let i = 0x8_0000; i < 0x10_0000; i += 4) m.words[i / 4] = Math.imul(i, 2654435761);
    const guarded = m.bytes.slice(0x8_0000);
    const d = new Uint32Array(16);
    const opcodes = [...Object.values(IaxOpcode), 0x01, 0x41];
    const place = () => (rng() & 3 ? 0x4000 + (rng() & 15) * 0x1000 : rng() & 0xf_ffff);
    for (let i = 0; i < count; i++) {
      if ((i & 0x3fff) === 0) refill();
      const opcode = opcodes[rng() % opcodes.length]!;
      for (let w = 0; w < 16; w++) d[w] = rng() & 15 ? (rng() & 3 ? rng() & 0xf_ffff : rng() * 256) : 0;
      d[1] = (opcode << 24) | (rng() & 3 ? 0xc | (rng() & 7 ? 0 : Flag.blockOnFault) | (rng() & 1 ? 0 : (rng() & 0x7f) << 16) : rng() & 0xff_ffff);
      d[2]! &= rng() & 31 ? ~63 : ~0;
      d[3] = d[5] = d[7] = d[11] = rng() & 15 ? 0 : rng();
      if (rng() & 7) {
        // Most are near something that is right.
        d[2] = 0x1000 + (rng() & 31) * 64;
        d[4] = place();
        d[6] = 0x4_0000 + (rng() & 0x3_ffff);
        d[8] = 1 + (rng() & (rng() & 3 ? 0x7ff : 0x3fff));
        d[9] = (rng() & 3 ? [DecompressFlag.enable, 0x1f, CompressFlag.flushOutput, 0][rng() & 3]! : rng() & 0xffff) << 16;
        d[10] = 0x2_0000 + (rng() & 15) * 0x1000;
        d[12] = 1 + (rng() & 0x3fff);
        d[13] = [COMPRESS_AECS_BYTES, DECOMPRESS_AECS_BYTES, 32, 256][rng() & 3]!;
        if (opcode !== IaxOpcode.crc64) {
          d[14] =
            opcode >= IaxOpcode.scan ? ((rng() & 3 ? rng() & 1 : 2) | ((rng() & 15) << 2) | (rng() & 3 ? 0 : rng())) & (rng() & 3 ? 0x1f07f : ~0) : 0;
          d[15] = opcode >= IaxOpcode.scan ? 1 + (rng() & 0x7ff) : 0;
        }
        if (opcode >= IaxOpcode.scan && opcode !== IaxOpcode.scan && opcode !== IaxOpcode.extract && opcode !== IaxOpcode.findUnique)
          d[1] = (d[1] & ~(15 << 16)) | IaxFlag.readSource2;
        if (opcode === IaxOpcode.translationFetch) d[12] = rng() & 0xffff;
        if (rng() & 31) {
          const { reserved } = iaxDescriptors.of(d, 0).masks;
          for (let w = 0; w < 16; w++) d[w]! &= ~reserved[w]!;
        }
      }
      if (i & 1) m.submit(d, 0, (rng() & 3) * 0x1000);
      else {
        d[0] = rng() & 3 ? 5 : 6;
        m.enqueue(d, 1, (rng() & 3) * 0x1000);
      }
      if ((i & 7) === 0) m.run();
      if (puttingOff && rng() & 1) m.answered();
      for (const r of m.pageRequests.splice(0)) m.device.pageResponse(r.pasid, r.group, rng() & 1);
      if ((i & 0xfff) === 0) {
        m.run();
        expect(m.command(Command.resetDevice)).toBe(0);
        start();
      }
      m.seen.length = m.messages.length = 0;
    }
    m.run();
    while (m.answered()) {}
    expect(Buffer.compare(m.bytes.subarray(0x8_0000), guarded)).toBe(0);
    // A run in which an operation never succeeded, or never failed, would prove nothing of it.
    const never = profile.operations.filter((code) => !ended.get(code)?.has(IaxStatus.success) || !ended.get(code)!.has(IaxStatus.nonZeroReserved));
    expect(never).toEqual([]);
  },
  240_000,
);
