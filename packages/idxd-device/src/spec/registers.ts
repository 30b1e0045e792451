/**
 * Control registers (BAR 0) and tables of DSA. Intel Data Streaming Accelerator Architecture Specification (341204), "Register
 * Descriptions"; bits and offsets as in Linux drivers/dma/idxd/registers.h.
 */
import { layout, oneOf, ro, rw1c } from '@siov/layout';

export const Version = /* @__PURE__ */ layout('VERSION', 4, { 0: { minor: ro('7:0'), major: ro('15:8') } });
export const GenCap = /* @__PURE__ */ layout('GENCAP', 8, {
  0: {
    blockOnFault: ro('0'),
    overlappingCopy: ro('1'),
    cacheControlMemory: ro('2'),
    cacheControlFlush: ro('3'),
    commandCapabilities: ro('4'),
    destinationReadback: ro('8'),
    drainReadback: ro('9'),
    eventLogSize: ro('14:13'),
    batchContinuation: ro('15'),
    maxTransferShift: ro('20:16'),
    maxBatchShift: ro('24:21'),
    /** Interrupt message storage, in units of 256 entries. */
    imsUnits: ro('30:25'),
    configurationSupport: ro('31'),
    /** unconfirmed: descriptors in progress per engine, in older revisions. */
    descriptorsPerEngine: ro('39:32'),
    /** Of analytics accelerators; nobody says what. */
    high: ro('63:40'),
  },
});
export const WqCap = /* @__PURE__ */ layout('WQCAP', 8, {
  0: {
    totalSize: ro('15:0'),
    count: ro('23:16'),
    configSize: ro('27:24'),
    sharedMode: ro('48'),
    dedicatedMode: ro('49'),
    atsControl: ro('50'),
    priority: ro('51'),
    occupancy: ro('52'),
    occupancyInterrupt: ro('53'),
    operationConfig: ro('54'),
    prsControl: ro('55'),
  },
});
export const GroupCap = /* @__PURE__ */ layout('GRPCAP', 8, {
  0: { count: ro('7:0'), readBuffers: ro('15:8'), readBufferControl: ro('16'), readBufferLimit: ro('17'), progressLimit: ro('18') },
});
export const EngineCap = /* @__PURE__ */ layout('ENGCAP', 8, { 0: { count: ro('7:0') } });
/** One bit per operation code, 256 in all. */
export const OpCap = /* @__PURE__ */ layout('OPCAP', 32, {
  0: { bits0: ro('31:0') },
  4: { bits32: ro('31:0') },
  8: { bits64: ro('31:0') },
  12: { bits96: ro('31:0') },
});
/** Byte offsets of the tables in BAR 0, each in units of 0x100. */
export const TableOffsets = /* @__PURE__ */ layout('OFFSETS', 16, {
  0: { groupConfig: ro('15:0'), wqConfig: ro('31:16') },
  4: { msixPermission: ro('15:0'), ims: ro('31:16') },
  8: { perfmon: ro('15:0') },
});
export const TABLE_UNIT = 0x100;
/** Writable while the device is disabled. */
export const GenCfg = /* @__PURE__ */ layout('GENCFG', 4, { 0: { readBufferLimit: '7:0', userInterrupts: '12', eventLog: '13' } });
export const GenCtrl = /* @__PURE__ */ layout('GENCTRL', 4, { 0: { softwareErrorInterrupt: '0', haltInterrupt: '1', eventLogInterrupt: '2' } });
export const GenSts = /* @__PURE__ */ layout('GENSTS', 4, {
  0: {
    state: oneOf('1:0', { disabled: 0, enabled: 1, draining: 2, halt: 3 }, 'ro'),
    reset: oneOf('3:2', { software: 0, functionLevel: 1, warm: 2, cold: 3 }, 'ro'),
  },
});
export const IntCause = /* @__PURE__ */ layout('INTCAUSE', 4, {
  0: {
    softwareError: rw1c('0'),
    commandDone: rw1c('1'),
    occupancy: rw1c('2'),
    perfmon: rw1c('3'),
    halt: rw1c('4'),
    eventLog: rw1c('5'),
    handlesRevoked: rw1c('31'),
  },
});
export const Cmd = /* @__PURE__ */ layout('CMD', 4, { 0: { operand: '19:0', code: '24:20', interrupt: '31' } });
export const CmdSts = /* @__PURE__ */ layout('CMDSTS', 4, { 0: { error: ro('7:0'), result: ro('23:8'), active: ro('31') } });
export const CmdCap = /* @__PURE__ */ layout('CMDCAP', 4, { 0: { commands: ro('31:0') } });
export const SwError = /* @__PURE__ */ layout('SWERROR', 32, {
  0: {
    valid: rw1c('0'),
    overflow: rw1c('1'),
    descriptorValid: ro('2'),
    wqValid: ro('3'),
    batch: ro('4'),
    write: ro('5'),
    privileged: ro('6'),
    error: ro('15:8'),
    wq: ro('23:16'),
    operation: ro('39:32'),
    pasid: ro('59:40'),
  },
  8: { batchIndex: ro('15:0') },
  12: { invalidFlags: ro('31:0') },
  16: { addressLow: ro('31:0') },
  20: { addressHigh: ro('31:0') },
});

/** Where the event log is; its pages and size are writable while the device is disabled. */
export const EventLogCfg = /* @__PURE__ */ layout('EVLCFG', 16, {
  0: { pasidEnable: '0', privileged: '1', baseLow: '31:12' },
  4: { baseHigh: '31:0' },
  /** In entries, from 64 on. The PASID has 20 bits from bit 16 of this quadword on. */
  8: { size: '15:0', pasidLow: '31:16' },
  12: { pasidHigh: '3:0' },
});
export const EVENT_LOG_MIN = 0x40;
/** Software moves the head, the device the tail. */
export const EventLogSts = /* @__PURE__ */ layout('EVLSTATUS', 8, { 0: { head: '15:0' }, 4: { tail: ro('15:0'), interruptPending: rw1c('30') } });
/** An event: as SWERROR, and behind it the completion record that could not be written. */
export const EventLogEntry = /* @__PURE__ */ layout('event log entry', 64, {
  0: {
    descriptorValid: '2',
    wqValid: '3',
    batch: '4',
    write: '5',
    privileged: '6',
    errorInfoValid: '7',
    error: '15:8',
    wq: '23:16',
    batchId: '31:24',
    operation: '39:32',
    pasid: '59:40',
  },
  8: { batchIndex: '15:0' },
  /** Invalid flags of 0x11; of 0x19, 0x1a, 0x26 and 0x27 an `EventInformation`, of 0x06 and 0x1f its operand alone. */
  12: { information: '31:0' },
  16: { addressLow: '31:0' },
  20: { addressHigh: '31:0' },
  32: { record: '7:0' },
});
/** What else an event says of its descriptor, at byte 12: its interrupt handle, and what it asked for. Linux drivers/dma/idxd/registers.h, __evl_entry. */
export const EventInformation = /* @__PURE__ */ layout('event information', 4, {
  0: {
    interruptHandle: '15:0',
    interruptRequested: '16',
    ims: '17',
    recordRequested: '18',
    firstErrorInBatch: '19',
    /** unconfirmed: 0 the descriptor list or completion record, then the operands in the order of the descriptor. */
    operand: '31:29',
  },
});
export const EVENT_INFORMATION_WORD = 3;

/** WQCFG, one per work queue: table + queue * (32 << WQCAP.configSize). Writable while the queue is disabled. */
export const WqCfg = /* @__PURE__ */ layout('WQCFG', 32, {
  0: { size: '15:0' },
  /** Shared queues only. */
  4: { threshold: '15:0' },
  8: {
    mode: oneOf('0', { shared: 0, dedicated: 1 }),
    blockOnFault: '1',
    atsDisable: '2',
    prsDisable: '3',
    priority: '7:4',
    pasid: '27:8',
    pasidEnable: '28',
    privileged: '29',
  },
  12: { maxTransferShift: '4:0', maxBatchShift: '8:5' },
  16: { occupancyHandle: '15:0', occupancyTable: oneOf('16', { msix: 0, ims: 1 }) },
  20: { occupancyLimit: '15:0', occupancyInterruptEnable: '16' },
  24: { occupancy: ro('15:0'), occupancyState: ro('16'), modeSupport: ro('29'), state: oneOf('31:30', { disabled: 0, enabled: 1, busy: 2 }, 'ro') },
});
/** The second half of a WQCFG of 64 bytes (WQCAP.operationConfig): one bit per operation code that the queue takes. */
export const WQ_OPERATIONS_OFFSET = 32;
export const WqOperations = /* @__PURE__ */ layout('WQ operations', 32, {
  0: { operations0: '31:0' },
  4: { operations32: '31:0' },
  8: { operations64: '31:0' },
  12: { operations96: '31:0' },
  16: { operations128: '31:0' },
  20: { operations160: '31:0' },
  24: { operations192: '31:0' },
  28: { operations224: '31:0' },
});
/** GRPCFG, one per group, stride 64: the work queues and engines of the group. */
export const GroupCfg = /* @__PURE__ */ layout('GRPCFG', 64, {
  0: { wqs: '31:0' },
  32: { engines: '31:0' },
  40: { trafficClassA: '2:0', trafficClassB: '5:3', useReadBufferLimit: '7', readBuffersReserved: '15:8', readBuffersAllowed: '27:20' },
  44: { descriptorLimit: '1:0', batchLimit: '5:4' },
});
/** Per MSI-X vector: whose descriptors may raise it. */
export const MsixPermission = /* @__PURE__ */ layout('MSIXPERM', 8, { 0: { ignore: '2', pasidEnable: '3', pasid: '31:12' } });
/** Interrupt message storage entry; the same permission beside mask and pending bit. unconfirmed: control at byte 12, pending in bit 1. */
export const ImsEntry = /* @__PURE__ */ layout('IMS entry', 16, {
  0: { addressLow: '31:0' },
  4: { addressHigh: '31:0' },
  8: { data: '31:0' },
  12: { masked: '0', pending: ro('1'), ignore: '2', pasidEnable: '3', pasid: '31:12' },
});

/** Byte offsets of the control registers. */
export const Register = {
  version: 0x00,
  genCap: 0x10,
  wqCap: 0x20,
  groupCap: 0x30,
  engineCap: 0x38,
  opCap: 0x40,
  offsets: 0x60,
  genCfg: 0x80,
  genCtrl: 0x88,
  genSts: 0x90,
  intCause: 0x98,
  cmd: 0xa0,
  cmdSts: 0xa8,
  cmdCap: 0xb0,
  swError: 0xc0,
  eventLogCfg: 0xe0,
  eventLogSts: 0xf0,
} as const;

/** Portals: four pages per queue in BAR 2, by protection and interrupt table. Any 64-byte slot of a page is the same portal. */
export const Portal = { bytesPerWq: 0x4000, unlimitedMsix: 0x0000, limitedMsix: 0x1000, unlimitedIms: 0x2000, limitedIms: 0x3000 } as const;

/** Causes that software sees in INTCAUSE. */
export type MiscCause = keyof typeof IntCause.set;
