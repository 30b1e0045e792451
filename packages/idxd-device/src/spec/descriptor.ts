/** Descriptors and completion records. linux/idxd.h: struct dsa_hw_desc, dsa_completion_record; DSA specification, "Descriptors". */
import { layout, variants } from '@siov/layout';

export const DESCRIPTOR_BYTES = 64;
export const RECORD_BYTES = 32;

/** Operation codes. linux/idxd.h, enum dsa_opcode. */
export const Opcode = {
  nop: 0x00,
  batch: 0x01,
  drain: 0x02,
  memmove: 0x03,
  fill: 0x04,
  compare: 0x05,
  comparePattern: 0x06,
  createDelta: 0x07,
  applyDelta: 0x08,
  dualcast: 0x09,
  translationFetch: 0x0a,
  crc: 0x10,
  copyCrc: 0x11,
  difCheck: 0x12,
  difInsert: 0x13,
  difStrip: 0x14,
  difUpdate: 0x15,
  dixGenerate: 0x17,
  cacheFlush: 0x20,
} as const;
export type Opcode = (typeof Opcode)[keyof typeof Opcode];

/** Flags, bits of the descriptor's second dword. linux/idxd.h, IDXD_OP_FLAG_*. */
export const Flag = {
  fence: 1 << 0,
  blockOnFault: 1 << 1,
  recordAddressValid: 1 << 2,
  requestRecord: 1 << 3,
  requestInterrupt: 1 << 4,
  recordSteeringTag: 1 << 5,
  checkResult: 1 << 7,
  cacheControl: 1 << 8,
  trafficClass1: 1 << 9,
  trafficClass2: 1 << 10,
  trafficClass3: 1 << 11,
  recordTrafficClass: 1 << 12,
  strictOrdering: 1 << 13,
  destinationReadback: 1 << 14,
  destinationSteeringTag: 1 << 15,
  /** CRC: bit 16 the seed is in memory, 17 no inversion and reflection, 18 no data reflection. */
  crcSeedInMemory: 1 << 16,
  crcBypassInversion: 1 << 17,
  crcBypassReflection: 1 << 18,
  /** Drain: bits 16 and 17 an address is read back, 18 and 19 no implicit readback of traffic class A, B. */
  drainReadback1: 1 << 16,
  drainReadback2: 1 << 17,
  drainSuppressA: 1 << 18,
  drainSuppressB: 1 << 19,
  /** Dualcast: the second destination has a steering tag. */
  destination2SteeringTag: 1 << 16,
  /** Fill: the pattern has 16 bytes. unconfirmed: the bit; a profile names the one it has. */
  fillLongPattern: 1 << 16,
} as const;

const common = {
  0: { pasid: '19:0', privileged: '31' },
  4: { flags: '23:0', opcode: { bits: '31:24', is: Opcode } },
  8: { recordLow: '31:0' },
  12: { recordHigh: '31:0' },
  36: { interruptHandle: '15:0' },
} as const;
/** What all operations share; source and destination under their usual names. */
export const Descriptor = /* @__PURE__ */ layout('descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  /** Transfer size in bytes; descriptor count of a batch. */
  32: { size: '31:0' },
});
export const NopDescriptor = /* @__PURE__ */ layout('nop descriptor', 64, common);
export const BatchDescriptor = /* @__PURE__ */ layout('batch descriptor', 64, {
  ...common,
  16: { listLow: '31:0' },
  20: { listHigh: '31:0' },
  32: { count: '31:0' },
});
export const FillDescriptor = /* @__PURE__ */ layout('fill descriptor', 64, {
  ...common,
  16: { patternLow: '31:0' },
  20: { patternHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  32: { size: '31:0' },
  /** Bytes 8 to 15 of a long pattern; else reserved. */
  40: { patternUpperLow: '31:0' },
  44: { patternUpperHigh: '31:0' },
});
export const DrainDescriptor = /* @__PURE__ */ layout('drain descriptor', 64, {
  ...common,
  16: { readback1Low: '31:0' },
  20: { readback1High: '31:0' },
  24: { readback2Low: '31:0' },
  28: { readback2High: '31:0' },
});
export const CompareDescriptor = /* @__PURE__ */ layout('compare descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { source2Low: '31:0' },
  28: { source2High: '31:0' },
  32: { size: '31:0' },
  40: { expectedResult: '7:0' },
});
/** unconfirmed: that CRC generation, which has no destination, does not look at that field; Intel's own tests fill it in. */
export const CrcDescriptor = /* @__PURE__ */ layout('CRC descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  32: { size: '31:0' },
  40: { seed: '31:0' },
  48: { seedLow: '31:0' },
  52: { seedHigh: '31:0' },
});
export const DualcastDescriptor = /* @__PURE__ */ layout('dualcast descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  32: { size: '31:0' },
  40: { destination2Low: '31:0' },
  44: { destination2High: '31:0' },
});
export const CreateDeltaDescriptor = /* @__PURE__ */ layout('create delta descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { source2Low: '31:0' },
  28: { source2High: '31:0' },
  32: { size: '31:0' },
  40: { deltaLow: '31:0' },
  44: { deltaHigh: '31:0' },
  48: { maxDeltaSize: '31:0' },
  /** Bit n: result n is as expected. */
  56: { expectedMask: '2:0' },
});
export const ApplyDeltaDescriptor = /* @__PURE__ */ layout('apply delta descriptor', 64, {
  ...common,
  16: { deltaLow: '31:0' },
  20: { deltaHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  32: { size: '31:0' },
  40: { deltaSize: '31:0' },
});
/** One entry of a delta record: what source 2 has at `offset` times 8. Ten bytes, back to back. */
export const DELTA_ENTRY_BYTES = 10;

/** Source DIF flags. DSA specification, "DIF Check": when a block's tags say that it is not to be checked, and what is not checked at all. */
export const DifSource = {
  allOnesError: 1 << 0,
  allOnesDetect: 1 << 1,
  appTagDetect: 1 << 2,
  appAndRefTagDetect: 1 << 3,
  appTagIncrements: 1 << 4,
  guardDisable: 1 << 5,
  refTagDisable: 1 << 6,
  refTagFixed: 1 << 7,
} as const;
/** Destination DIF flags. */
export const DifDestination = { appTagPass: 1 << 3, appTagIncrements: 1 << 4, guardPass: 1 << 5, refTagPass: 1 << 6, refTagFixed: 1 << 7 } as const;
/** DIF flags: the block size in bits 1:0 as an index of `DIF_BLOCKS`, and the guard's CRC. */
export const DifFlag = { block: 3, seedOnes: 1 << 2, invert: 1 << 3 } as const;
export const DIF_BLOCKS = [512, 520, 4096, 4104] as const;
/** Guard (CRC-16 T10-DIF), application tag and reference tag, each big endian. */
export const DIF_BYTES = 8;
/** What was wrong with a block: bits of the record's result. */
export const DifStatus = { guard: 1, appTag: 2, refTag: 4, allOnes: 8 } as const;

const difSource = { 48: { sourceRefTag: '31:0' }, 52: { sourceAppMask: '15:0', sourceAppTag: '31:16' } } as const;
const difDestination = { 56: { destinationRefTag: '31:0' }, 60: { destinationAppMask: '15:0', destinationAppTag: '31:16' } } as const;
const difOperands = {
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
} as const;
export const DifCheckDescriptor = /* @__PURE__ */ layout('DIF check descriptor', 64, {
  ...common,
  16: { sourceLow: '31:0' },
  20: { sourceHigh: '31:0' },
  32: { size: '31:0' },
  40: { sourceFlags: '7:0', difFlags: '19:16' },
  ...difSource,
});
export const DifStripDescriptor = /* @__PURE__ */ layout('DIF strip descriptor', 64, {
  ...common,
  ...difOperands,
  32: { size: '31:0' },
  40: { sourceFlags: '7:0', difFlags: '19:16' },
  ...difSource,
});
/** DIF insert and DIX generate: nothing can pass through, so bits 4 and 7 of the destination flags are all there is. */
export const DifInsertDescriptor = /* @__PURE__ */ layout('DIF insert descriptor', 64, {
  ...common,
  ...difOperands,
  32: { size: '31:0' },
  40: { appTagIncrements: '12', refTagFixed: '15', difFlags: '19:16' },
  ...difDestination,
});
export const DifUpdateDescriptor = /* @__PURE__ */ layout('DIF update descriptor', 64, {
  ...common,
  ...difOperands,
  32: { size: '31:0' },
  40: { sourceFlags: '7:0', destinationFlags: '15:11', difFlags: '19:16' },
  ...difSource,
  ...difDestination,
});
/** unconfirmed: the stride's meaning (DSA 2.0). */
export const TranslationFetchDescriptor = /* @__PURE__ */ layout('translation fetch descriptor', 64, {
  ...common,
  16: { regionLow: '31:0' },
  20: { regionHigh: '31:0' },
  /** Bytes. */
  32: { size: '31:0' },
  /** Bytes from one translation to the next; 0: every page. */
  48: { stride: '31:0' },
});
export const CacheFlushDescriptor = /* @__PURE__ */ layout('cache flush descriptor', 64, {
  ...common,
  24: { destinationLow: '31:0' },
  28: { destinationHigh: '31:0' },
  32: { size: '31:0' },
});
/** The layout of a descriptor by its operation code: what printers use. */
export const descriptors = /* @__PURE__ */ variants(Descriptor, Descriptor.get.opcode, {
  [Opcode.nop]: NopDescriptor,
  [Opcode.batch]: BatchDescriptor,
  [Opcode.fill]: FillDescriptor,
  [Opcode.compare]: CompareDescriptor,
  [Opcode.comparePattern]: CompareDescriptor,
  [Opcode.crc]: CrcDescriptor,
  [Opcode.copyCrc]: CrcDescriptor,
  [Opcode.dualcast]: DualcastDescriptor,
  [Opcode.drain]: DrainDescriptor,
  [Opcode.createDelta]: CreateDeltaDescriptor,
  [Opcode.applyDelta]: ApplyDeltaDescriptor,
  [Opcode.difCheck]: DifCheckDescriptor,
  [Opcode.difInsert]: DifInsertDescriptor,
  [Opcode.difStrip]: DifStripDescriptor,
  [Opcode.difUpdate]: DifUpdateDescriptor,
  [Opcode.dixGenerate]: DifInsertDescriptor,
  [Opcode.translationFetch]: TranslationFetchDescriptor,
  [Opcode.cacheFlush]: CacheFlushDescriptor,
});

/** Completion status codes, bits 6:0 of the first byte; bit 7: the faulting access was a write. linux/idxd.h, enum dsa_completion_status. */
export const Status = {
  none: 0x00,
  success: 0x01,
  successFalsePredicate: 0x02,
  pageFault: 0x03,
  pageRequestInvalid: 0x04,
  batchFail: 0x05,
  batchFault: 0x06,
  deltaOffsetOrder: 0x07,
  deltaOffsetRange: 0x08,
  difError: 0x09,
  unsupportedOperation: 0x10,
  invalidFlags: 0x11,
  nonZeroReserved: 0x12,
  transferSize: 0x13,
  descriptorCount: 0x14,
  deltaRecordSize: 0x15,
  overlap: 0x16,
  dualcastAlignment: 0x17,
  listAlignment: 0x18,
  interruptHandle: 0x19,
  recordFault: 0x1a,
  recordAlignment: 0x1b,
  alignment: 0x1c,
  privilege: 0x1d,
  trafficClass: 0x1e,
  readbackFault: 0x1f,
  hardwareError1: 0x20,
  hardwareError2: 0x21,
  translationError: 0x22,
} as const;
export type Status = (typeof Status)[keyof typeof Status];
/** Errors of the event log alone: the record of a drain or a batch is kept there, since one before it is. linux/idxd.h, DSA_COMP_DRAIN_EVL, DSA_COMP_BATCH_EVL_ERR. */
export const EventError = { drain: 0x26, batch: 0x27 } as const;

export const Record = /* @__PURE__ */ layout('completion record', 32, {
  0: { status: { bits: '6:0', is: Status }, faultWrite: '7' },
  1: { result: '7:0' },
  2: { faultInfo: '7:0' },
  /** Bytes, or descriptors of a batch, completed. */
  4: { completed: '31:0' },
  8: { faultLow: '31:0' },
  12: { faultHigh: '31:0' },
  /** CRC, size of a delta record, or the invalid flags. */
  16: { value: '31:0' },
  20: { valueHigh: '31:0' },
});
/** The record of DIF check and strip has its next tags where update has the source's; of insert and DIX generate, the destination's. */
export const DifRecord = /* @__PURE__ */ layout('DIF completion record', 32, {
  0: { status: { bits: '6:0', is: Status }, faultWrite: '7' },
  1: { difStatus: '7:0' },
  4: { completed: '31:0' },
  8: { faultLow: '31:0' },
  12: { faultHigh: '31:0' },
  16: { sourceRefTag: '31:0' },
  20: { sourceAppMask: '15:0', sourceAppTag: '31:16' },
  24: { destinationRefTag: '31:0' },
  28: { destinationAppMask: '15:0', destinationAppTag: '31:16' },
});
/** The layout of a completion record by its descriptor's operation code: what printers use. */
export const recordLayout = (opcode: number): typeof Record | typeof DifRecord =>
  (opcode >= Opcode.difCheck && opcode <= Opcode.difUpdate) || opcode === Opcode.dixGenerate ? DifRecord : Record;
