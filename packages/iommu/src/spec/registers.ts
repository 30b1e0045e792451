/** The register map. VT-d, "Register Descriptions". Access kinds: what software may write; what a bit does is in `unit/front.ts`. */
import { address, layout, oneOf, ro, rw1c } from '@siov/layout';
import { Capability, ExtendedCapability } from './capabilities.js';

export const Version = /* @__PURE__ */ layout('VER', 4, { 0: { minor: ro('3:0'), major: ro('7:4') } });
/** Write only; a read gives 0. Software changes one bit a write and repeats the others from GSTS. */
export const GlobalCommand = /* @__PURE__ */ layout('GCMD', 4, {
  0: {
    compatibilityFormat: '23',
    setInterruptTable: '24',
    interruptRemapping: '25',
    queuedInvalidation: '26',
    flushWriteBuffer: '27',
    advancedFaultLog: '28',
    setFaultLog: '29',
    setRootTable: '30',
    translation: '31',
  },
});
export const GlobalStatus = /* @__PURE__ */ layout('GSTS', 4, {
  0: {
    compatibilityFormat: ro('23'),
    interruptTable: ro('24'),
    interruptRemapping: ro('25'),
    queuedInvalidation: ro('26'),
    writeBuffer: ro('27'),
    advancedFaultLog: ro('28'),
    faultLog: ro('29'),
    rootTable: ro('30'),
    translation: ro('31'),
  },
});
export const RootTable = /* @__PURE__ */ layout('RTADDR', 8, {
  0: { mode: { bits: '11:10', is: { legacy: 0, scalable: 1, abort: 3 } }, address: address('63:12') },
});
export const ContextCommand = /* @__PURE__ */ layout('CCMD', 8, {
  0: { domainId: '15:0', sourceId: '31:16' },
  4: { functionMask: '1:0', actual: ro('28:27'), granularity: '30:29', invalidate: '31' },
});
export const FaultStatus = /* @__PURE__ */ layout('FSTS', 4, {
  0: {
    overflow: rw1c('0'),
    pending: ro('1'),
    queueError: rw1c('4'),
    completionError: rw1c('5'),
    timeOut: rw1c('6'),
    /** Index of the first pending record. */
    record: ro('15:8'),
  },
});
/** FECTL, IECTL, PECTL. */
export const EventControl = /* @__PURE__ */ layout('event control', 4, { 0: { pending: ro('30'), mask: '31' } });
/** FEDATA, IEDATA, PEDATA. */
export const EventData = /* @__PURE__ */ layout('event data', 4, { 0: { data: '15:0' } });
export const EventAddress = /* @__PURE__ */ layout('event address', 4, { 0: { address: '31:2' } });
export const EventUpperAddress = /* @__PURE__ */ layout('event upper address', 4, { 0: { address: '31:0' } });
/** IQH, in bytes; 16-byte units whatever the descriptor's width. */
export const QueueHead = /* @__PURE__ */ layout('IQH', 8, { 0: { offset: { bits: '18:4', access: 'ro' } } });
export const QueueTail = /* @__PURE__ */ layout('IQT', 8, { 0: { offset: '18:4' } });
export const QueueAddress = /* @__PURE__ */ layout('IQA', 8, {
  /** 2^size pages. */
  0: { size: '2:0', width: { bits: '11', is: { bits128: 0, bits256: 1 } }, address: address('63:12') },
});
export const CompletionStatus = /* @__PURE__ */ layout('ICS', 4, { 0: { waitCompleted: rw1c('0') } });
export const QueueErrorRecord = /* @__PURE__ */ layout('IQERCD', 8, {
  0: { reason: ro('3:0') },
  4: { timeOutSource: ro('15:0'), errorSource: ro('31:16') },
});
export const InterruptTable = /* @__PURE__ */ layout('IRTA', 8, {
  /** 2^(size + 1) entries. */
  0: { size: '3:0', extendedMode: '11', address: address('63:12') },
});
/** PQH and PQT, in bytes. */
export const PageQueuePointer = /* @__PURE__ */ layout('page request queue pointer', 8, { 0: { offset: '18:5' } });
export const PageQueueAddress = /* @__PURE__ */ layout('PQA', 8, {
  /** 2^size pages. */
  0: { size: '2:0', address: address('63:12') },
});
export const PageRequestStatus = /* @__PURE__ */ layout('PRS', 4, { 0: { pending: rw1c('0'), overflow: rw1c('1') } });
/** FRCD. A fault record; `type1` is 1 for a read. */
export const FaultRecordRegister = /* @__PURE__ */ layout('FRCD', 16, {
  0: { addressLow: ro('31:12') },
  4: { addressHigh: ro('31:0') },
  8: { sourceId: ro('15:0'), type2: ro('28'), privileged: ro('29'), execute: ro('30'), pasidPresent: ro('31') },
  12: { reason: ro('7:0'), pasid: ro('27:8'), addressType: ro('29:28'), type1: ro('30'), fault: rw1c('31') },
});

/** IVA: the address of a page-selective IOTLB_REG invalidation. */
export const InvalidateAddress = /* @__PURE__ */ layout('IVA', 8, { 0: { addressMask: '5:0', leafOnly: '6', address: address('63:12') } });
/** IOTLB_REG, behind IVA at ECAP.IRO. */
export const IotlbCommand = /* @__PURE__ */ layout('IOTLB', 8, {
  4: {
    domainId: '15:0',
    drainWrites: '16',
    drainReads: '17',
    actual: ro('26:25'),
    granularity: oneOf('29:28', { global: 1, domain: 2, pages: 3 }),
    invalidate: '31',
  },
});

const capabilityReadOnly = { offset: 0x08, layout: readOnly(Capability) };
function readOnly<T extends typeof Capability | typeof ExtendedCapability>(of: T): T {
  const { rw, ro: fixed, ...rest } = of.masks;
  return { ...of, masks: { ...rest, rw: new Uint32Array(rw.length), ro: fixed.map((m, i) => m | rw[i]!) } };
}

/** Offsets of the registers. */
export const registers = {
  version: { offset: 0x00, layout: Version },
  capability: capabilityReadOnly,
  extendedCapability: { offset: 0x10, layout: readOnly(ExtendedCapability) },
  globalCommand: { offset: 0x18, layout: GlobalCommand },
  globalStatus: { offset: 0x1c, layout: GlobalStatus },
  rootTable: { offset: 0x20, layout: RootTable },
  contextCommand: { offset: 0x28, layout: ContextCommand },
  faultStatus: { offset: 0x34, layout: FaultStatus },
  faultControl: { offset: 0x38, layout: EventControl, reset: [0x8000_0000] },
  faultData: { offset: 0x3c, layout: EventData },
  faultAddress: { offset: 0x40, layout: EventAddress },
  faultUpperAddress: { offset: 0x44, layout: EventUpperAddress },
  queueHead: { offset: 0x80, layout: QueueHead },
  queueTail: { offset: 0x88, layout: QueueTail },
  queueAddress: { offset: 0x90, layout: QueueAddress },
  completionStatus: { offset: 0x9c, layout: CompletionStatus },
  completionControl: { offset: 0xa0, layout: EventControl, reset: [0x8000_0000] },
  completionData: { offset: 0xa4, layout: EventData },
  completionAddress: { offset: 0xa8, layout: EventAddress },
  completionUpperAddress: { offset: 0xac, layout: EventUpperAddress },
  queueErrorRecord: { offset: 0xb0, layout: QueueErrorRecord },
  interruptTable: { offset: 0xb8, layout: InterruptTable },
  pageQueueHead: { offset: 0xc0, layout: PageQueuePointer },
  pageQueueTail: { offset: 0xc8, layout: PageQueuePointer },
  pageQueueAddress: { offset: 0xd0, layout: PageQueueAddress },
  pageRequestStatus: { offset: 0xdc, layout: PageRequestStatus },
  pageRequestControl: { offset: 0xe0, layout: EventControl, reset: [0x8000_0000] },
  pageRequestData: { offset: 0xe4, layout: EventData },
  pageRequestAddress: { offset: 0xe8, layout: EventAddress },
  pageRequestUpperAddress: { offset: 0xec, layout: EventUpperAddress },
} as const;

/** Bytes of the register space. */
export const REGISTER_BYTES = 0x1000;
