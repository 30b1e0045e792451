/** What a device offers, as one object, and the presets. The capability registers are computed from it. */
import type { Family } from './family.js';
import type { Tables } from './registers.js';
import { Flag, Opcode } from './spec/descriptor.js';

/** The kinds of checks on a descriptor. */
export const defaultCheckOrder = [
  'operation',
  'flags',
  'reserved',
  'record',
  'privilege',
  'interrupt',
  'size',
  'parameters',
  'trafficClass',
] as const;
export type Check = (typeof defaultCheckOrder)[number];

export interface Profile {
  readonly name: string;
  /** Its kind of accelerator; default: DSA. */
  readonly family?: Family;
  readonly deviceId: number;
  /** 0x100 = 1.0, 0x200 = 2.0. */
  readonly version: number;
  readonly wqs: number;
  /** Entries that all queues share. */
  readonly totalWqSize: number;
  readonly groups: number;
  readonly engines: number;
  readonly readBuffers: number;
  /**
   * Bytes that a read buffer holds while they are under way; default 128. A group's engines together have no more than that times its read buffers
   * in progress. unconfirmed; with this and 96 buffers the reads of the whole rate are covered.
   */
  readonly readBufferBytes?: number;
  /** Descriptors in progress per engine; default 64. unconfirmed: bits 39:32 of GENCAP in older revisions say so. */
  readonly descriptorsPerEngine?: number;
  /** Bits 63:40 of GENCAP, about which nobody who can be read says anything; default 0. */
  readonly capabilityHigh?: number;
  /** Bits 31:0 of IAACAP (`spec/iax.ts`), of analytics accelerators from 2.0 on; default: there is no such register. */
  readonly iaaCapabilities?: number;
  /**
   * How a group chooses between its queues: `weighted` (default) serves them in proportion to their priorities, so that none starves; `strict`
   * serves the highest that has work. unconfirmed: the rule, beyond that priority is relative to the other queues of the group.
   */
  readonly arbitration?: 'weighted' | 'strict';
  readonly msixVectors: number;
  /** Interrupt message storage entries, a multiple of 256; 0: none. */
  readonly imsEntries: number;
  readonly maxTransferShift: number;
  readonly maxBatchShift: number;
  readonly blockOnFault: boolean;
  readonly overlappingCopy: boolean;
  /** Operation codes: OPCAP, and what a descriptor may ask for. */
  readonly operations: readonly number[];
  /** Hints where writes and flushes leave their lines (GENCAP; default true): without, the flag is illegal. A model without a cache does nothing else. */
  readonly cacheControlMemory?: boolean;
  readonly cacheControlFlush?: boolean;
  /** The destination may be read back after the last write (GENCAP; default true). */
  readonly destinationReadback?: boolean;
  /** Drain takes addresses to read back (GENCAP; default false). */
  readonly drainReadback?: boolean;
  /** Each queue says which operations it takes: WQCFG has 64 bytes (WQCAP; default false). */
  readonly operationConfig?: boolean;
  /**
   * Commands are announced in CMDCAP, and interrupt handles are requested and released (GENCAP; default false: the handle is the index of the
   * table entry, without asking).
   */
  readonly commandCapabilities?: boolean;
  /** The event log's entries have 32 bytes times two to this (GENCAP; 1 for DSA, 2 for IAX); 0 (default): there is no event log. */
  readonly eventLogSize?: 0 | 1 | 2;
  /**
   * A fence in a batch goes on behind a member whose record the event log keeps (GENCAP; default false: it stops there). unconfirmed: that
   * this is what the capability says.
   */
  readonly batchContinuation?: boolean;
  /** What queues can (WQCAP); by default all but a switch of their own for page requests. */
  readonly queues?: {
    readonly sharedMode?: boolean;
    readonly dedicatedMode?: boolean;
    readonly atsControl?: boolean;
    readonly priority?: boolean;
    readonly occupancy?: boolean;
    readonly occupancyInterrupt?: boolean;
    readonly prsControl?: boolean;
  };
  /** Software does not configure it (GENCAP bit 31 clear): one group with all engines, and queues of this size and mode. Only their PASID is software's to say. */
  readonly fixed?: { readonly size: number; readonly mode: 'dedicated' | 'shared' };
  /** Where its tables lie in BAR 0, in bytes; default: those of Sapphire Rapids' as the model has it. */
  readonly tables?: Partial<Tables>;
  /** Groups can have engines take on fewer descriptors at a time (GRPCAP bit 18; default false). */
  readonly progressLimit?: boolean;
  /** How many interrupt handles there are at a time, of both tables together; default: one for each entry. */
  readonly interruptHandles?: number;
  /** The flag that gives fill a pattern of 16 bytes; 0 (default): there is none. unconfirmed: which of bits 23:16 it is. */
  readonly longPatternFlag?: number;
  /**
   * Which of several errors of a descriptor its record tells: that of the first check in this order (default `defaultCheckOrder`, from what the
   * descriptor is to what its operands are). unconfirmed.
   */
  readonly checkOrder?: readonly Check[];
  /**
   * A fence flag on a descriptor that is in no batch does nothing (`ignored`, default: it is a legal flag of the operation, and there is nothing
   * before it to wait for) or is an invalid flag (`refused`). unconfirmed.
   */
  readonly fenceOutsideBatch?: 'ignored' | 'refused';
  /**
   * Byte 2 of a record that ends with a fault on an operand: 0 (`none`, default: what is published of 1.0 has none), or which operand it was in bits
   * 3:1, in the order of the descriptor's addresses from 1 (`operand`). unconfirmed: the layout, which is said of 2.0. Of the address nothing is masked.
   */
  readonly faultInformation?: 'none' | 'operand';
  /**
   * The status of descriptors that an abort throws away before they began: each gets a record with it that asked for one. 0 (default): none gets a
   * record. unconfirmed: the rule.
   */
  readonly abortedStatus?: number;
  /**
   * What the errors 1 to 4 of a group's configuration stand for, in this order, which is also that of looking: a queue of another group or none that
   * there is, the same of an engine, queues without an engine, read buffers. unconfirmed: which is which.
   */
  readonly groupChecks?: readonly GroupCheck[];
  /**
   * The SWERROR code of a descriptor that a dedicated queue drops, because it is full or not enabled; 0 (default): it is dropped without a word.
   * unconfirmed: that there is one, and which. The same for stores to a portal that are not of 64 bytes.
   */
  readonly droppedError?: number;
  readonly smallStoreError?: number;
  /**
   * Bit n: traffic class n is mapped to a virtual channel; default 0xff. A descriptor that selects another ends with 0x1e. unconfirmed: that
   * this is what the status stands for.
   */
  readonly trafficClasses?: number;
}

/** What can be wrong with a group's configuration. */
export type GroupCheck = 'queues' | 'engines' | 'noEngine' | 'readBuffers';
export const defaultGroupChecks: readonly GroupCheck[] = ['queues', 'engines', 'noEngine', 'readBuffers'];

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

/**
 * Granite Rapids-D: DSA 2.0 with its two further operations, a choice of operations by queue, drains that read back, interrupt handles
 * that are requested, and an event log. unconfirmed: the numbers of queues, engines and entries, which are those of Sapphire Rapids here.
 */
export const gnrD: Profile = {
  ...sprDsa,
  name: 'dsa-gnrd',
  deviceId: 0x11fb,
  version: 0x200,
  operations: [...dsa1, Opcode.translationFetch, Opcode.dixGenerate],
  drainReadback: true,
  operationConfig: true,
  commandCapabilities: true,
  eventLogSize: 1,
  longPatternFlag: Flag.fillLongPattern,
  progressLimit: true,
};

/**
 * The virtual device of the 2020 series (type 1dwq-v1) as a function of its own: one dedicated queue whose configuration is fixed, two vectors, no
 * interrupt message storage, interrupt handles that are requested, tables as there (drivers/vfio/mdev/idxd/mdev.h). What an `@siov/idxd-mdev` vdev
 * shows, for stacks without VFIO.
 */
export const vdev: Profile = {
  ...sprDsa,
  name: 'dsa-1dwq-v1',
  wqs: 1,
  totalWqSize: 16,
  groups: 1,
  engines: 1,
  msixVectors: 2,
  imsEntries: 0,
  commandCapabilities: true,
  queues: { sharedMode: false, atsControl: false, priority: false, occupancy: false, occupancyInterrupt: false },
  fixed: { size: 16, mode: 'dedicated' },
  tables: { msixPermission: 0x300, groupConfig: 0x400, wqConfig: 0x500, msix: 0x600, pba: 0x700, ims: 0x1000 },
};
