/**
 * What a workload does with each piece of its bytes, by operation: how the buffers are filled, which descriptor is built, and what must come
 * of it, computed plainly here from the operation's definition.
 */
import { DELTA_ENTRY_BYTES, DIF_BLOCKS, DIF_BYTES, Opcode } from '@siov/idxd-device/spec';
import type { Client, Dif } from '@siov/idxd-driver/client';

/** Addresses of the process's buffers. */
export interface Buffers {
  readonly source: number;
  readonly destination: number;
  /** A second destination, or delta records. */
  readonly second: number;
}
/** One descriptor's part of the window. */
export interface Piece {
  /** Which one, and its offset in the window. */
  readonly index: number;
  readonly at: number;
  /** Bytes, a multiple of the operation's granule. */
  readonly bytes: number;
  /** Bytes of every piece but the last. */
  readonly size: number;
}
interface Memory {
  write(address: number, bytes: Uint8Array): void;
}
export interface WorkloadOperation {
  readonly opcode: number;
  /** Sizes are multiples of it (default 1); the rest of the last piece is zeros. */
  readonly granule?: number;
  /** The largest size, in bytes. */
  readonly most?: number;
  /** It moves no bytes: a piece stands for 64 of the source. */
  readonly empty?: true;
  /** Room that a buffer needs for each byte of the window (default 1), and whether there is a second destination. */
  readonly growth?: number;
  readonly second?: true;
  /** What is in the buffers before: of the source the window itself, unless this says otherwise. `data` is padded to the granule. */
  load?(memory: Memory, buffers: Buffers, data: Uint8Array, size: number): void;
  build(client: Client, slot: number, buffers: Buffers, piece: Piece, data: Uint8Array): void;
  /** Whether the record is right. */
  record?(client: Client, slot: number, piece: Piece, data: Uint8Array): boolean;
  /** What must be in memory afterwards. */
  left?(buffers: Buffers, piece: Piece, data: Uint8Array): readonly (readonly [address: number, bytes: Uint8Array])[];
}

const result = (client: Client, slot: number): number => (client.record(slot, 0) >>> 8) & 0xff;
const part = (data: Uint8Array, { at, bytes }: Piece): Uint8Array => data.subarray(at, at + bytes);
const copied = ({ destination }: Buffers, piece: Piece, data: Uint8Array) => [[destination + piece.at, part(data, piece)] as const];

/** Four bytes, little endian; zero beyond the end. */
function word(data: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 0; i < 4 && at + i < data.length; i++) value |= data[at + i]! << (8 * i);
  return value >>> 0;
}
function filled(data: Uint8Array, { at, bytes }: Piece): Uint8Array {
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) out[i] = at + (i & 7) < data.length ? data[at + (i & 7)]! : 0;
  return out;
}

// --- delta records: source 2 is source 1 with every fifth unit of eight bytes changed, from each piece's first on

const UNIT = 8;
const changed = (data: Uint8Array, piece: Piece): Uint8Array => {
  const other = part(data, piece).slice();
  for (let at = 0; at < other.length; at += 5 * UNIT) other[at] = other[at]! ^ 0xff;
  return other;
};
const recordRoom = (size: number): number => Math.ceil(Math.max(80, (size / UNIT) * DELTA_ENTRY_BYTES) / 64) * 64;
const recordAt = ({ second }: Buffers, { index, size }: Piece): number => second + index * recordRoom(size);
/** The entries of a piece, by the definition of a delta record. */
function deltaRecord(data: Uint8Array, piece: Piece): Uint8Array {
  const entries: number[] = [];
  const one = part(data, piece);
  const two = changed(data, piece);
  for (let at = 0; at < piece.bytes; at += UNIT)
    if (one[at] !== two[at]) entries.push((at / UNIT) & 0xff, (at / UNIT) >>> 8, ...two.subarray(at, at + UNIT));
  return Uint8Array.from(entries);
}
/** Pieces of a window. */
function* pieces(data: Uint8Array, size: number): Iterable<Piece> {
  for (let index = 0; index * size < data.length; index++) yield { index, at: index * size, bytes: Math.min(size, data.length - index * size), size };
}

// --- data integrity fields: blocks of 512 bytes

const BLOCK = DIF_BLOCKS[0];
const TAGGED = BLOCK + DIF_BYTES;
const APPLICATION = 0x1234;
const UPDATED = 0x4321;
const dif: Dif = { block: BLOCK, source: { application: APPLICATION }, destination: { application: APPLICATION } };
const update: Dif = { ...dif, destination: { application: UPDATED } };
const tagged = (at: number): number => (at / BLOCK) * TAGGED;
/** T10 SBC-3, "CRC generation": polynomial 0x8BB7, most significant bit first. */
const crc16 = /* @__PURE__ */ Uint16Array.from({ length: 256 }, (_, n) => {
  let c = n << 8;
  for (let i = 0; i < 8; i++) c = c & 0x8000 ? (c << 1) ^ 0x8bb7 : c << 1;
  return c & 0xffff;
});
function field(block: Uint8Array, index: number, application: number): Uint8Array {
  let guard = 0;
  for (const byte of block) guard = ((guard << 8) ^ crc16[(guard >>> 8) ^ byte]!) & 0xffff;
  return Uint8Array.of(guard >>> 8, guard, application >>> 8, application, index >>> 24, index >>> 16, index >>> 8, index);
}
/** A piece's blocks with their fields (or the fields alone). The reference tag counts from 0 in each. */
function fields(data: Uint8Array, piece: Piece, application = APPLICATION, alone = false): Uint8Array {
  const each = alone ? DIF_BYTES : TAGGED;
  const out = new Uint8Array((piece.bytes / BLOCK) * each);
  for (let i = 0; i * BLOCK < piece.bytes; i++) {
    const block = data.subarray(piece.at + i * BLOCK, piece.at + (i + 1) * BLOCK);
    if (!alone) out.set(block, i * each);
    out.set(field(block, i, application), (i + 1) * each - DIF_BYTES);
  }
  return out;
}
/** The source has fields. */
const loadTagged = (memory: Memory, { source }: Buffers, data: Uint8Array, size: number): void => {
  for (const piece of pieces(data, size)) memory.write(source + tagged(piece.at), fields(data, piece));
};
const taggedBytes = ({ bytes }: Piece): number => tagged(bytes);
const ofBlocks = { granule: BLOCK, growth: TAGGED / BLOCK } as const;

/** By the names of the command line. */
export const workloadOperations = {
  nop: { opcode: Opcode.nop, empty: true, build: (client, slot) => client.nop(slot) },
  drain: { opcode: Opcode.drain, empty: true, build: (client, slot) => client.drain(slot) },
  memmove: {
    opcode: Opcode.memmove,
    build: (client, slot, b, p) => client.memmove(slot, b.destination + p.at, b.source + p.at, p.bytes),
    left: copied,
  },
  fill: {
    opcode: Opcode.fill,
    build: (client, slot, b, p, data) => client.fill(slot, b.destination + p.at, word(data, p.at), word(data, p.at + 4), p.bytes),
    left: (b, p, data) => [[b.destination + p.at, filled(data, p)]],
  },
  compare: {
    opcode: Opcode.compare,
    load(memory, b, data) {
      memory.write(b.source, data);
      memory.write(b.destination, data);
    },
    build: (client, slot, b, p) => client.compare(slot, b.source + p.at, b.destination + p.at, p.bytes),
    record: (client, slot) => result(client, slot) === 0,
  },
  'compare-pattern': {
    opcode: Opcode.comparePattern,
    build: (client, slot, b, p, data) => client.comparePattern(slot, b.source + p.at, word(data, p.at), word(data, p.at + 4), p.bytes),
    record(client, slot, p, data) {
      const expected = filled(data, p);
      const differs = part(data, p).findIndex((byte, i) => byte !== expected[i]);
      // The record of a resumed one counts from where it went on.
      return (result(client, slot) !== 0) === differs >= 0;
    },
  },
  'create-delta': {
    opcode: Opcode.createDelta,
    granule: UNIT,
    most: 0x8_0000,
    growth: 2,
    second: true,
    load(memory, b, data, size) {
      memory.write(b.source, data);
      for (const piece of pieces(data, size)) memory.write(b.destination + piece.at, changed(data, piece));
    },
    build: (client, slot, b, p) =>
      client.createDelta(
        slot,
        b.source + p.at,
        b.destination + p.at,
        p.bytes,
        recordAt(b, p),
        Math.floor(recordRoom(p.size) / DELTA_ENTRY_BYTES) * DELTA_ENTRY_BYTES,
      ),
    record(client, slot, p, data) {
      const { length } = deltaRecord(data, p);
      return client.record(slot, 4) === length && result(client, slot) === 1;
    },
    left: (b, p, data) => [[recordAt(b, p), deltaRecord(data, p)]],
  },
  'apply-delta': {
    opcode: Opcode.applyDelta,
    granule: UNIT,
    most: 0x8_0000,
    growth: 2,
    second: true,
    load(memory, b, data, size) {
      memory.write(b.destination, data);
      for (const piece of pieces(data, size)) memory.write(recordAt(b, piece), deltaRecord(data, piece));
    },
    build: (client, slot, b, p) =>
      client.applyDelta(slot, b.destination + p.at, recordAt(b, p), Math.ceil(p.bytes / UNIT / 5) * DELTA_ENTRY_BYTES, p.bytes),
    left: (b, p, data) => [[b.destination + p.at, changed(data, p)]],
  },
  dualcast: {
    opcode: Opcode.dualcast,
    second: true,
    build: (client, slot, b, p) => client.dualcast(slot, b.destination + p.at, b.second + p.at, b.source + p.at, p.bytes),
    left: (b, p, data) => [...copied(b, p, data), [b.second + p.at, part(data, p)]],
  },
  'translation-fetch': {
    opcode: Opcode.translationFetch,
    build: (client, slot, b, p) => client.translationFetch(slot, b.source + p.at, p.bytes),
  },
  crc: {
    opcode: Opcode.crc,
    build: (client, slot, b, p) => client.crc(slot, b.source + p.at, p.bytes),
    record: (client, slot, p, data) => client.record(slot, 4) === plainCrc32c(data, p.at, p.bytes),
  },
  'copy-crc': {
    opcode: Opcode.copyCrc,
    build: (client, slot, b, p) => client.copyCrc(slot, b.destination + p.at, b.source + p.at, p.bytes),
    record: (client, slot, p, data) => client.record(slot, 4) === plainCrc32c(data, p.at, p.bytes),
    left: copied,
  },
  'dif-check': {
    opcode: Opcode.difCheck,
    ...ofBlocks,
    load: loadTagged,
    build: (client, slot, b, p) => client.difCheck(slot, b.source + tagged(p.at), taggedBytes(p), dif),
    record: (client, slot) => result(client, slot) === 0,
  },
  'dif-insert': {
    opcode: Opcode.difInsert,
    ...ofBlocks,
    build: (client, slot, b, p) => client.difInsert(slot, b.destination + tagged(p.at), b.source + p.at, p.bytes, dif),
    left: (b, p, data) => [[b.destination + tagged(p.at), fields(data, p)]],
  },
  'dif-strip': {
    opcode: Opcode.difStrip,
    ...ofBlocks,
    load: loadTagged,
    build: (client, slot, b, p) => client.difStrip(slot, b.destination + p.at, b.source + tagged(p.at), taggedBytes(p), dif),
    left: copied,
  },
  'dif-update': {
    opcode: Opcode.difUpdate,
    ...ofBlocks,
    load: loadTagged,
    build: (client, slot, b, p) => client.difUpdate(slot, b.destination + tagged(p.at), b.source + tagged(p.at), taggedBytes(p), update),
    left: (b, p, data) => [[b.destination + tagged(p.at), fields(data, p, UPDATED)]],
  },
  'dix-generate': {
    opcode: Opcode.dixGenerate,
    ...ofBlocks,
    build: (client, slot, b, p) => client.dixGenerate(slot, b.destination + (p.at / BLOCK) * DIF_BYTES, b.source + p.at, p.bytes, dif),
    left: (b, p, data) => [[b.destination + (p.at / BLOCK) * DIF_BYTES, fields(data, p, APPLICATION, true)]],
  },
  'cache-flush': {
    opcode: Opcode.cacheFlush,
    load(memory, b, data) {
      memory.write(b.destination, data);
    },
    build: (client, slot, b, p) => client.cacheFlush(slot, b.destination + p.at, p.bytes),
    left: copied,
  },
} as const satisfies Readonly<Record<string, WorkloadOperation>>;
export type WorkloadOp = keyof typeof workloadOperations;
export const workloadOps = Object.keys(workloadOperations) as readonly WorkloadOp[];

/** CRC-32C a byte at a time from its definition; shares nothing with the device's. RFC 3720, 12.1. */
const crc32 = /* @__PURE__ */ Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f6_3b78 : c >>> 1;
  return c >>> 0;
});
export function plainCrc32c(bytes: Uint8Array, from: number, length: number): number {
  let crc = -1;
  for (let i = from; i < from + length; i++) crc = crc32[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
