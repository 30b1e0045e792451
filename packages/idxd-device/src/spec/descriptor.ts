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
/** The layout of a descriptor by its operation code: what printers use. */
export const descriptors = /* @__PURE__ */ variants(Descriptor, Descriptor.get.opcode, {
  [Opcode.batch]: BatchDescriptor,
  [Opcode.fill]: FillDescriptor,
  [Opcode.compare]: CompareDescriptor,
  [Opcode.comparePattern]: CompareDescriptor,
  [Opcode.crc]: CrcDescriptor,
  [Opcode.copyCrc]: CrcDescriptor,
  [Opcode.dualcast]: DualcastDescriptor,
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
