/** What a device offers, as one object, and the presets. The capability registers are computed from it. */
import { Opcode } from './spec/descriptor.js';

export interface Profile {
  readonly name: string;
  readonly deviceId: number;
  /** 0x100 = 1.0, 0x200 = 2.0. */
  readonly version: number;
  readonly wqs: number;
  /** Entries that all queues share. */
  readonly totalWqSize: number;
  readonly groups: number;
  readonly engines: number;
  readonly readBuffers: number;
  readonly msixVectors: number;
  /** Interrupt message storage entries, a multiple of 256; 0: none. */
  readonly imsEntries: number;
  readonly maxTransferShift: number;
  readonly maxBatchShift: number;
  readonly blockOnFault: boolean;
  readonly overlappingCopy: boolean;
  readonly operations: readonly number[];
}

const dsa1 = [
  Opcode.nop,
  Opcode.batch,
  Opcode.drain,
  Opcode.memmove,
  Opcode.fill,
  Opcode.compare,
  Opcode.comparePattern,
  Opcode.createDelta,
  Opcode.applyDelta,
  Opcode.dualcast,
  Opcode.crc,
  Opcode.copyCrc,
  Opcode.difCheck,
  Opcode.difInsert,
  Opcode.difStrip,
  Opcode.difUpdate,
  Opcode.cacheFlush,
];

/**
 * Sapphire Rapids' shape: 8 queues over 128 entries, 4 groups, 4 engines, 96 read buffers, 9 vectors, 2048 IMS entries.
 * unconfirmed: taken from published accel-config samples.
 */
export const sprDsa: Profile = {
  name: 'dsa-spr',
  deviceId: 0x0b25,
  version: 0x100,
  wqs: 8,
  totalWqSize: 128,
  groups: 4,
  engines: 4,
  readBuffers: 96,
  msixVectors: 9,
  imsEntries: 2048,
  maxTransferShift: 31,
  maxBatchShift: 10,
  blockOnFault: true,
  overlappingCopy: true,
  operations: dsa1,
};
