/** An analytics accelerator over one flat memory: `machine` with descriptors, records and AECS of its own. */
import { crc32 } from 'node:zlib';
import { fixedCodes } from '../src/iax/huffman.js';
import { type IaxProfile, sprIax } from '../src/iax/index.js';
import {
  COMPRESS_ACCUMULATOR,
  COMPRESS_AECS_BYTES,
  COMPRESS_DISTANCES,
  COMPRESS_LITERALS,
  CompressAecs,
  Flag,
  IaxDescriptor,
  IaxRecord,
} from '../src/spec/index.js';
import { machine, type WqOptions } from './machine.js';

export const SRC = 0x2_0000;
export const DST = 0x8_0000;
export const AECS = 0x1_0000;
export const RECORD = 0x1000;
export const recorded = Flag.recordAddressValid | Flag.requestRecord;
export { crc32 };

type Fields = Partial<{ [K in keyof typeof IaxDescriptor.set]: number }>;
interface Options {
  profile?: IaxProfile;
  wq?: WqOptions;
  trafficClassB?: number;
  puttingOff?: boolean;
}
export function iaxMachine({ profile = sprIax, wq = {}, trafficClassB = 0, puttingOff = false }: Options = {}) {
  // Requests are put off where it has no translations of its own, as behind a socket.
  const m = machine({ profile, trafficClassB, ...(puttingOff ? { puttingOff, deviceTlb: false } : {}) });
  m.start({ size: 16, maxBatchShift: 0, ...wq });
  /** A descriptor with the record at `RECORD`: fields by name; `flags` besides those that ask for the record. */
  const build = (opcode: number, { flags = 0, ...fields }: Fields): Uint32Array => {
    const d = new Uint32Array(16);
    const { set } = IaxDescriptor;
    set.opcode(d, 0, opcode);
    set.flags(d, 0, recorded | flags);
    set.recordLow(d, 0, RECORD);
    for (const [name, value] of Object.entries(fields)) set[name as keyof typeof set](d, 0, value);
    return d;
  };
  const record = () => IaxRecord.json(m.words, RECORD / 4) as Record<string, number | string>;
  const execute = (d: Uint32Array) => {
    m.words.fill(0xdead_beef, RECORD / 4, RECORD / 4 + 16);
    m.words[RECORD / 4] = 0;
    m.submit(d);
    m.run();
    while (m.answered()) {}
    return record();
  };
  /** AECS for compression with the fixed codes and the first bits of the output, as Linux iaa_crypto has it. */
  const compressAecs = (at: number, bits: number, width: number): void => {
    const words = m.words.subarray(at / 4, (at + COMPRESS_AECS_BYTES) / 4).fill(0);
    CompressAecs.set.accumulatorBits(words, 0, width);
    words[COMPRESS_ACCUMULATOR.offset / 4] = bits;
    words.set(fixedCodes.literals, COMPRESS_LITERALS.offset / 4);
    words.set(fixedCodes.distances, COMPRESS_DISTANCES.offset / 4);
  };
  const put = (at: number, bytes: Uint8Array): void => m.bytes.set(bytes, at);
  const got = (at: number, length: number): Buffer => Buffer.from(m.bytes.slice(at, at + length));
  return { ...m, build, record, execute, compressAecs, put, got };
}
