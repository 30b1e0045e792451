/**
 * The user's side of a queue of an analytics accelerator: what its operations take, and their records in words of their own. Submitting, polling and
 * waiting are the `Client`'s. An operation without block-on-fault that met a page that is not there is submitted as it was.
 */
import {
  AnalyticsError,
  COMPRESS_ACCUMULATOR,
  COMPRESS_AECS_BYTES,
  COMPRESS_DISTANCES,
  COMPRESS_LITERALS,
  CompressAecs,
  CompressFlag,
  DecompressFlag,
  EndProcessing,
  FilterAecs,
  FilterFlags,
  IaxCrc64Record,
  IaxDescriptor,
  IaxFlag,
  IaxOpcode,
  IaxRecord,
  IaxStatus,
} from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';
import { type Client, PENDING_RECORD, type Waiter } from './client.js';

/** Bytes from an address on. */
export interface Region {
  readonly address: number;
  readonly bytes: number;
}
/** Configuration and state. Where it is written, the same number of bytes behind it are its other copy; `second`: that one is read. */
export interface Aecs extends Region {
  readonly read?: boolean;
  readonly write?: boolean | 'overflow';
  readonly second?: boolean;
}
export type FilterName = 'scan' | 'setMembership' | 'extract' | 'select' | 'rleBurst' | 'findUnique' | 'expand';
export interface FilterOptions {
  /** Of source 1; of source 2 when expanding. */
  readonly elements: number;
  /** Bits of an element of source 1, 1 to 32; Parquet RLE says so itself. */
  readonly width?: number;
  readonly parser?: keyof (typeof FilterFlags.is)['parser'];
  /** Bits of an element of the output; default: as it is. */
  readonly outputWidth?: 8 | 16 | 32;
  readonly outputBigEndian?: boolean;
  readonly invert?: boolean;
  readonly dropLowBits?: number;
  readonly dropHighBits?: number;
  /** The second input, and how it is read. */
  readonly source2?: Region & { readonly width?: number; readonly bigEndian?: boolean };
  /** Bounds and so on, for scan and extract. */
  readonly aecs?: Region;
  /** Source 1 is a compressed stream: `DecompressFlag` bits. */
  readonly decompress?: number;
}

type StatusName = keyof typeof IaxStatus;
type ErrorName = keyof typeof AnalyticsError;
interface Common {
  readonly status: StatusName | 'unknown';
  readonly statusCode: number;
  readonly ok: boolean;
  /** Bytes of source 1. */
  readonly completed: number;
  readonly fault?: { readonly address: number; readonly write: boolean };
  readonly invalidFlags?: number;
  /** Of status analyticsError. */
  readonly error?: ErrorName | 'unknown';
}
interface Output {
  /** Bytes at the destination. */
  readonly outputSize: number;
  readonly crc: number;
  readonly xorChecksum: number;
}
type Coded = 'compress' | 'decompress';
type Zero = Extract<keyof typeof IaxOpcode, `zero${string}`>;
/** What a descriptor came to. `operation` tells what else is there. */
export type IaxResult = Common &
  (
    | { readonly operation: 'nop' | 'drain' | 'memmove' | 'translationFetch' }
    | (Output & { readonly operation: Coded | Zero })
    | (Output & {
        readonly operation: FilterName;
        /** Bits of the last byte; 0: all. */
        readonly outputBits: number;
        /** Of a bit vector: first and last index of a one, and how many; of an array: least, largest, sum. */
        readonly min: number;
        readonly max: number;
        readonly sum: number;
      })
    | { readonly operation: 'crc64'; readonly crcHigh: number; readonly crcLow: number }
  );

const nameOf = <N extends string>(table: Readonly<Record<N, number>>) => {
  const names = Object.fromEntries(Object.entries(table).map(([name, code]) => [code, name])) as Readonly<Record<number, N>>;
  return (code: number): N | undefined => names[code];
};
const operationName = nameOf<keyof typeof IaxOpcode>(IaxOpcode);
const statusName = nameOf<StatusName>(IaxStatus);
const errorName = nameOf<ErrorName>(AnalyticsError);
const FAULTS: readonly number[] = [IaxStatus.pageFault, IaxStatus.pageRequestInvalid, IaxStatus.readbackFault, IaxStatus.translationError];
const RECORD_WORDS = IaxRecord.bytes / 4;

const OUTPUT = CompressFlag.flushOutput | (EndProcessing.endOfBlock << CompressFlag.endShift);
const STREAM =
  DecompressFlag.enable |
  DecompressFlag.flushOutput |
  DecompressFlag.stopOnEndOfBlock |
  DecompressFlag.checkForEndOfBlock |
  DecompressFlag.selectFinal;

export class IaxClient {
  readonly client: Client;
  constructor(client: Client) {
    this.client = client;
  }

  /** `source` is compressed with the codes of AECS (`fixedAecs` makes one). `compress`: `CompressFlag` bits, by default a block that ends, in whole bytes. */
  compress(slot: number, destination: Region, source: Region, aecs: Aecs, compress: number = OUTPUT, flags = 0): void {
    this.#coded(slot, IaxOpcode.compress, destination, source, aecs, compress, flags);
  }
  /** A raw DEFLATE stream. `decompress`: `DecompressFlag` bits, by default one that must end with its last block, at which it stops. */
  decompress(slot: number, destination: Region, source: Region, aecs?: Aecs, decompress: number = STREAM, flags = 0): void {
    this.#coded(slot, IaxOpcode.decompress, destination, source, aecs, decompress, flags);
  }
  /** The polynomial at the upper end of 64 bits, without its highest; `crc`: `Crc64Flag` bits. */
  crc64(slot: number, source: Region, polynomial: { readonly high: number; readonly low: number }, crc = 0, flags = 0): void {
    this.#build(slot, IaxOpcode.crc64, undefined, source, flags, { decompressFlags: crc, filterFlags: polynomial.low, elements: polynomial.high });
  }
  /** Elements of 8 (2.0), 16 or 32 bits. */
  zeroCompress(slot: number, destination: Region, source: Region, width: 8 | 16 | 32, flags = 0): void {
    this.#build(slot, IaxOpcode[`zeroCompress${width}`], destination, source, flags, {});
  }
  zeroDecompress(slot: number, destination: Region, source: Region, width: 8 | 16 | 32, flags = 0): void {
    this.#build(slot, IaxOpcode[`zeroDecompress${width}`], destination, source, flags, {});
  }
  filter(slot: number, name: FilterName, destination: Region, source: Region, options: FilterOptions, flags = 0): void {
    const w = new Uint32Array(1);
    const { set, is } = FilterFlags;
    set.parser(w, 0, is.parser[options.parser ?? 'littleEndian']);
    set.source1Width(w, 0, (options.width ?? 1) - 1);
    set.source2Width(w, 0, (options.source2?.width ?? 1) - 1);
    set.source2BigEndian(w, 0, options.source2?.bigEndian ? 1 : 0);
    set.outputWidth(w, 0, options.outputWidth ? Math.log2(options.outputWidth / 4) : 0);
    set.outputBigEndian(w, 0, options.outputBigEndian ? 1 : 0);
    set.invertOutput(w, 0, options.invert ? 1 : 0);
    set.dropLowBits(w, 0, options.dropLowBits ?? 0);
    set.dropHighBits(w, 0, options.dropHighBits ?? 0);
    const second = options.source2 ?? options.aecs;
    const reads = options.source2 ? IaxFlag.readSource2 : options.aecs ? IaxFlag.readAecs : 0;
    this.#build(slot, IaxOpcode[name], destination, source, flags | reads, {
      decompressFlags: options.decompress ?? 0,
      filterFlags: w[0]!,
      elements: options.elements,
      ...(second ? sourceTwo(second) : {}),
    });
  }

  /** The slot's record in words of its operation. Undefined while it is under way. */
  result(slot: number): IaxResult | undefined {
    const { client } = this;
    if (client.poll(slot) === PENDING_RECORD) return undefined;
    const record = Uint32Array.from({ length: RECORD_WORDS }, (_, word) => client.record(slot, word));
    return resultOf(client.word(slot, 1) >>> 24, record);
  }
  /** As `Client.run`. */
  run(slot: number, waiter: Waiter): IaxResult | undefined {
    return this.client.run(slot, waiter) && this.result(slot);
  }

  #coded(slot: number, opcode: number, destination: Region, source: Region, aecs: Aecs | undefined, coded: number, flags: number): void {
    let more = flags;
    if (aecs) {
      more |= aecs.read === false ? 0 : IaxFlag.readAecs;
      more |= aecs.write === 'overflow' ? IaxFlag.writeAecsOnOverflow : aecs.write ? IaxFlag.writeAecs : 0;
      more |= aecs.second ? IaxFlag.aecsSecond : 0;
    }
    this.#build(slot, opcode, destination, source, more, { decompressFlags: coded, ...(aecs ? sourceTwo(aecs) : {}) });
  }
  #build(slot: number, opcode: number, destination: Region | undefined, source: Region, flags: number, fields: Fields): void {
    const { client } = this;
    const to = destination?.address ?? 0;
    client.prepare(slot, opcode, hi(source.address), lo(source.address), hi(to), lo(to), source.bytes);
    const d = new Uint32Array(IaxDescriptor.bytes / 4);
    for (const [name, value] of Object.entries(fields)) IaxDescriptor.set[name as keyof Fields](d, 0, value);
    if (destination) IaxDescriptor.set.maxDestinationSize(d, 0, destination.bytes);
    d[1] = flags;
    for (const [word, value] of d.entries()) if (value !== 0) client.patch(slot, word, client.word(slot, word) | value);
  }
}
type Fields = Partial<{ [K in keyof typeof IaxDescriptor.set]: number }>;
const sourceTwo = ({ address, bytes }: Region): Fields => ({ source2Low: lo(address), source2High: hi(address), source2Size: bytes });

/** A record in words of its operation. */
function resultOf(opcode: number, record: Uint32Array): IaxResult {
  const { get } = IaxRecord;
  const statusCode = get.status(record, 0);
  const common: Common = {
    status: statusName(statusCode) ?? 'unknown',
    statusCode,
    ok: statusCode === IaxStatus.success,
    completed: get.completed(record, 0),
    ...(FAULTS.includes(statusCode)
      ? { fault: { address: get.faultHigh(record, 0) * 2 ** 32 + get.faultLow(record, 0), write: get.faultWrite(record, 0) === 1 } }
      : {}),
    ...(statusCode === IaxStatus.invalidFlags ? { invalidFlags: get.invalidFlags(record, 0) } : {}),
    ...(statusCode === IaxStatus.analyticsError ? { error: errorName(get.error(record, 0)) ?? 'unknown' } : {}),
  };
  const operation = operationName(opcode) ?? 'nop';
  switch (operation) {
    case 'nop':
    case 'drain':
    case 'memmove':
    case 'translationFetch':
      return { ...common, operation };
    case 'crc64':
      return { ...common, operation, crcHigh: IaxCrc64Record.get.crcHigh(record, 0), crcLow: IaxCrc64Record.get.crcLow(record, 0) };
    default: {
      const output: Output = { outputSize: get.outputSize(record, 0), crc: get.crc(record, 0), xorChecksum: get.xorChecksum(record, 0) };
      if (opcode < IaxOpcode.scan) return { ...common, ...output, operation: operation as Coded | Zero };
      return {
        ...common,
        ...output,
        operation: operation as FilterName,
        outputBits: get.outputBits(record, 0),
        min: get.min(record, 0),
        max: get.max(record, 0),
        sum: get.sum(record, 0),
      };
    }
  }
}

/** AECS for compression with the fixed codes: the header of one block, the last unless told, is in the accumulator. Linux iaa_crypto_comp_fixed.c; RFC 1951, 3.2.6. */
export function fixedAecs(final = true): Uint8Array {
  const words = new Uint32Array(COMPRESS_AECS_BYTES / 4);
  CompressAecs.set.accumulatorBits(words, 0, 3);
  words[COMPRESS_ACCUMULATOR.offset / 4] = final ? 0b011 : 0b010;
  const code = (width: number, bits: number): number => (width << 15) | bits;
  for (let i = 0; i < COMPRESS_LITERALS.count; i++)
    words[COMPRESS_LITERALS.offset / 4 + i] =
      i < 144 ? code(8, 0x30 + i) : i < 256 ? code(9, 0x190 + i - 144) : i < 280 ? code(7, i - 256) : code(8, 0xc0 + i - 280);
  for (let i = 0; i < COMPRESS_DISTANCES.count; i++) words[COMPRESS_DISTANCES.offset / 4 + i] = code(5, i);
  return new Uint8Array(words.buffer);
}
/** AECS of filters: the bounds of scan (inclusive) or the indices of extract, and the index of the first element of the output. */
export function filterAecs(low: number, high: number, outputIndex = 0): Uint8Array {
  const words = new Uint32Array(FilterAecs.bytes / 4);
  FilterAecs.set.low(words, 0, low);
  FilterAecs.set.high(words, 0, high);
  FilterAecs.set.outputIndex(words, 0, outputIndex);
  return new Uint8Array(words.buffer);
}
