/**
 * What `siov run` does with the bytes of a file on an analytics accelerator, by operation: what stands in memory before, which descriptor is built, and
 * what must come of it: by node:zlib, or computed plainly here from the operation's definition. Elements of filters are bytes.
 */
import { constants, inflateRawSync } from 'node:zlib';
import { CompressFlag, DecompressFlag, decompressAecsBytes, EndProcessing, HeaderGeneration, IaxOpcode } from '@siov/idxd-device/spec';
import { type Aecs, type FilterOptions, filterAecs, fixedAecs, type IaxClient, type IaxResult, type Region } from '@siov/idxd-driver/client-iax';
import type { CostName } from '@siov/stack';

/** One descriptor's part of the file. */
export interface AnalyticsPiece {
  readonly data: Uint8Array;
  /** Of the whole file. */
  readonly last: boolean;
  readonly source: Region;
  readonly destination: Region;
  /** Source 2: `second` of the row is there. */
  readonly second: Region;
}
export interface AnalyticsOperation {
  readonly opcode: number;
  /** Sizes are multiples of it (default 1). */
  readonly granule?: number;
  /** Bytes of an element: the file is filled up with zeros to a multiple of it. */
  readonly element?: number;
  /** One after the other: the state goes from one descriptor to the next. */
  readonly stream?: true;
  /** Bytes that a descriptor of so many may write. */
  room(size: number): number;
  /** What is put into source 1, where that is not the file's bytes, and how many bytes that may be. */
  first?(data: Uint8Array): Uint8Array;
  firstRoom?(size: number): number;
  second?(data: Uint8Array, last: boolean): Uint8Array;
  secondRoom?(size: number, version: Version): number;
  build(iax: IaxClient, slot: number, piece: AnalyticsPiece, version: Version): void;
  /** Whether that is right. */
  judge(result: IaxResult, output: Uint8Array, piece: AnalyticsPiece): boolean;
}
/** What differs by version. */
export interface Version {
  /** The device makes codes and headers itself. */
  readonly makesHeaders: boolean;
  /** How far back a match may begin, in bytes. */
  readonly history: number;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

// --- DEFLATE

const HEADER_BYTES = 512;
/** Fixed codes may take nine bits for a byte. */
const packedRoom = (size: number): number => size + (size >> 3) + HEADER_BYTES;
const AECS_BYTES = fixedAecs().length;
/** A piece is a block of its own, and all but the last end with an empty stored one, so that the next begins at a byte. */
function compressFlags(last: boolean, { makesHeaders }: Version): number {
  const end = last ? EndProcessing.endOfBlock : EndProcessing.storedBlock;
  const header = makesHeaders ? HeaderGeneration.enable | (last ? HeaderGeneration.final : 0) : 0;
  return CompressFlag.flushOutput | (end << CompressFlag.endShift) | (header << CompressFlag.headerShift);
}
/** Raw DEFLATE as zlib has it: all of a stream, or one that ends at a byte somewhere. */
export const inflated = (stream: Uint8Array, whole: boolean, most: number): Uint8Array | string => {
  try {
    return inflateRawSync(stream, { finishFlush: whole ? constants.Z_FINISH : constants.Z_SYNC_FLUSH, maxOutputLength: Math.max(1, most) });
  } catch (error) {
    return (error as Error).message;
  }
};

/** To the end of the last block; what there is no room for comes with the next descriptor. */
export const STREAM = DecompressFlag.enable | DecompressFlag.flushOutput | DecompressFlag.stopOnEndOfBlock | DecompressFlag.selectFinal;

// --- filters: bit vectors begin at bit 0 of their first byte

function bits(count: number, set: (i: number) => boolean): Uint8Array {
  const out = new Uint8Array(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) if (set(i)) out[i >> 3]! |= 1 << (i & 7);
  return out;
}
/** Lower case letters. */
const [LOW, HIGH] = [0x61, 0x7a];
const letter = (x: number): boolean => x >= LOW && x <= HIGH;
/** A quarter of the elements to three quarters. */
const inner = (n: number): readonly [low: number, high: number] => [Math.floor(n / 4), Math.max(Math.floor(n / 4), Math.ceil((3 * n) / 4) - 1)];
const third = (i: number): boolean => i % 3 === 0;
const counted = (n: number): number => 32 * n + 8;

const filter =
  (name: Parameters<IaxClient['filter']>[1], options: (piece: AnalyticsPiece) => Omit<FilterOptions, 'width'>): AnalyticsOperation['build'] =>
  (iax, slot, piece) =>
    iax.filter(slot, name, piece.destination, piece.source, { width: 8, ...options(piece) });
const withBounds = ({ data, second }: AnalyticsPiece) => ({ elements: data.length, aecs: second });
const withSecond = ({ data, second }: AnalyticsPiece) => ({ elements: data.length, source2: second });
const outputIs =
  (plain: (data: Uint8Array) => Uint8Array): AnalyticsOperation['judge'] =>
  (_result, output, { data }) =>
    same(output, plain(data));
function repeated(data: Uint8Array): Uint8Array {
  const total = data.reduce((sum, n) => sum + n, 0);
  const out = new Uint8Array(Math.ceil(total / 8));
  let at = 0;
  for (const [i, n] of data.entries()) {
    if (third(i)) for (let k = 0; k < n; k++) out[(at + k) >> 3]! |= 1 << ((at + k) & 7);
    at += n;
  }
  return out;
}

// --- CRC-64/ECMA-182

const POLYNOMIAL = { high: 0x42f0_e1eb, low: 0xa9ea_3693 } as const;
/** A bit at a time, the most significant first. */
function crc64(data: Uint8Array): readonly [high: number, low: number] {
  let high = 0;
  let low = 0;
  for (const byte of data) {
    high ^= byte << 24;
    for (let k = 0; k < 8; k++) {
      const out = high < 0;
      high = (high << 1) | (low >>> 31);
      low <<= 1;
      if (out) {
        high ^= POLYNOMIAL.high;
        low ^= POLYNOMIAL.low;
      }
    }
  }
  return [high >>> 0, low >>> 0];
}

// --- zero compression

type Width = 8 | 16 | 32;
const BLOCK = 128;
/** By blocks of 128 bytes: a bit for each element that is not zero, then these. What lies behind the end of the last one counts as not zero. */
function zeroCompressed(data: Uint8Array, width: Width): Uint8Array {
  const element = width / 8;
  const out: number[] = [];
  for (let at = 0; at < data.length; at += BLOCK) {
    const block = data.subarray(at, at + BLOCK);
    const kept: number[] = [];
    const vector = bits(BLOCK / element, (i) => {
      const one = block.subarray(i * element, (i + 1) * element);
      if (one.some((byte) => byte !== 0)) kept.push(...one);
      return one.length === 0 || one.some((byte) => byte !== 0);
    });
    out.push(...vector, ...kept);
  }
  return Uint8Array.from(out);
}
const zeroRoom = (size: number): number => size + Math.ceil(size / BLOCK) * 16 + BLOCK;
const zeroCompress = (width: Width): AnalyticsOperation => ({
  opcode: IaxOpcode[`zeroCompress${width}`],
  granule: BLOCK,
  element: width / 8,
  room: zeroRoom,
  build: (iax, slot, { destination, source }) => iax.zeroCompress(slot, destination, source, width),
  judge: (_result, output, { data }) => same(output, zeroCompressed(data, width)),
});
/** The source is what the plain computation makes of the file's bytes. */
const zeroDecompress = (width: Width): AnalyticsOperation => ({
  opcode: IaxOpcode[`zeroDecompress${width}`],
  granule: BLOCK,
  element: width / 8,
  room: (size) => size + BLOCK,
  first: (data) => zeroCompressed(data, width),
  firstRoom: zeroRoom,
  build: (iax, slot, { destination, source }) => iax.zeroDecompress(slot, destination, source, width),
  judge: (_result, output, { data }) => same(output, data),
});

/** By the names of the command line. */
export const analyticsOperations = {
  compress: {
    opcode: IaxOpcode.compress,
    room: packedRoom,
    second: (_data, last) => fixedAecs(last),
    secondRoom: () => AECS_BYTES,
    build(iax, slot, { destination, source, second, last }, version) {
      const aecs: Aecs = { ...second, read: !version.makesHeaders };
      iax.compress(slot, destination, source, aecs, compressFlags(last, version));
    },
    judge(_result, output, { data, last }) {
      const plain = inflated(output, last, data.length);
      return typeof plain !== 'string' && same(plain, data);
    },
  },
  decompress: {
    opcode: IaxOpcode.decompress,
    stream: true,
    room: (size) => Math.max(1 << 16, 4 * size),
    // Two of them, in turn: one is read, the other written.
    secondRoom: (_size, { history }) => 2 * decompressAecsBytes(history),
    build: () => {},
    judge: () => true,
  },
  crc64: {
    opcode: IaxOpcode.crc64,
    room: () => 0,
    build: (iax, slot, { source }) => iax.crc64(slot, source, POLYNOMIAL),
    judge(result, _output, { data }) {
      const [high, low] = crc64(data);
      return result.operation === 'crc64' && result.crcHigh === high && result.crcLow === low;
    },
  },
  scan: {
    opcode: IaxOpcode.scan,
    room: (size) => Math.ceil(size / 8),
    second: () => filterAecs(LOW, HIGH),
    secondRoom: () => 32,
    build: filter('scan', withBounds),
    judge(result, output, { data }) {
      const hits = data.reduce((n, x) => n + (letter(x) ? 1 : 0), 0);
      return (
        'sum' in result &&
        result.sum === hits &&
        same(
          output,
          bits(data.length, (i) => letter(data[i]!)),
        )
      );
    },
  },
  'set-membership': {
    opcode: IaxOpcode.setMembership,
    room: (size) => Math.ceil(size / 8),
    second: () => bits(256, letter),
    secondRoom: () => 32,
    build: filter('setMembership', withSecond),
    judge: outputIs((data) => bits(data.length, (i) => letter(data[i]!))),
  },
  extract: {
    opcode: IaxOpcode.extract,
    room: (size) => size,
    second: (data) => filterAecs(...inner(data.length)),
    secondRoom: () => 32,
    build: filter('extract', withBounds),
    judge: outputIs((data) => data.subarray(inner(data.length)[0], inner(data.length)[1] + 1)),
  },
  select: {
    opcode: IaxOpcode.select,
    room: (size) => size,
    second: (data) => bits(data.length, third),
    secondRoom: (size) => Math.ceil(size / 8),
    build: filter('select', withSecond),
    judge: outputIs((data) => data.filter((_, i) => third(i))),
  },
  'rle-burst': {
    opcode: IaxOpcode.rleBurst,
    room: counted,
    second: (data) => bits(data.length, third),
    secondRoom: (size) => Math.ceil(size / 8),
    build: filter('rleBurst', withSecond),
    judge: outputIs(repeated),
  },
  'find-unique': {
    opcode: IaxOpcode.findUnique,
    room: () => 32,
    build: filter('findUnique', ({ data }) => ({ elements: data.length })),
    judge(result, output, { data }) {
      const values = new Set(data);
      return (
        'sum' in result &&
        result.sum === values.size &&
        same(
          output,
          bits(256, (x) => values.has(x)),
        )
      );
    },
  },
  expand: {
    opcode: IaxOpcode.expand,
    room: (size) => 2 * size,
    // Every other element of the output.
    second: (data) => bits(2 * data.length, (i) => i % 2 === 1),
    secondRoom: (size) => Math.ceil(size / 4),
    build: filter('expand', ({ data, second }) => ({ elements: 2 * data.length, source2: second })),
    judge: outputIs((data) => Uint8Array.from({ length: 2 * data.length }, (_, i) => (i % 2 === 1 ? data[i >> 1]! : 0))),
  },
  'zero-compress-8': zeroCompress(8),
  'zero-compress-16': zeroCompress(16),
  'zero-compress-32': zeroCompress(32),
  'zero-decompress-8': zeroDecompress(8),
  'zero-decompress-16': zeroDecompress(16),
  'zero-decompress-32': zeroDecompress(32),
} as const satisfies Readonly<Record<string, AnalyticsOperation>>;
export type AnalyticsOp = keyof typeof analyticsOperations;
export const analyticsOps = Object.keys(analyticsOperations) as readonly AnalyticsOp[];
/** What each byte of it costs. */
export const analyticsCost = (op: AnalyticsOp): CostName =>
  op === 'compress' ? 'iax.streamCompress' : op === 'decompress' ? 'iax.streamDecompress' : op === 'crc64' ? 'dsa.streamCrc' : 'iax.streamFilter';
export const isAnalyticsOp = (op: string): op is AnalyticsOp => op in analyticsOperations;
