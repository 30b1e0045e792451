/** Capability registers. VT-d, "Capability Register" and "Extended Capability Register". */
import { layout } from '@siov/layout';

/** CAP_REG. */
export const Capability = /* @__PURE__ */ layout('CAP', 8, {
  0: {
    /** Domain ids have 4 + 2 * this many bits. */
    domains: '2:0',
    advancedFaultLog: '3',
    writeBufferFlush: '4',
    protectedLow: '5',
    protectedHigh: '6',
    cachingMode: '7',
    /** Second-stage widths: bit 1 39-bit, bit 2 48-bit, bit 3 57-bit. */
    adjustedWidths: '12:8',
    /** Bits of a guest address, less one. */
    maximumGuestWidth: '21:16',
    zeroLengthRead: '22',
  },
  3: {
    /** Fault records at 16 * this (ten bits, of which the upper two are in the next word). */
    faultRecordOffset: '7:0',
  },
  4: {
    faultRecordOffsetHigh: '1:0',
    /** Bit 0: 2 MiB, bit 1: 1 GiB. */
    secondStageLargePages: '5:2',
    pageSelective: '7',
    /** Fault records, less one. */
    faultRecords: '15:8',
    maximumAddressMask: '21:16',
    drainWrites: '22',
    drainReads: '23',
    firstStage1G: '24',
    postedInterrupts: '27',
    firstStage5Level: '28',
    enhancedCommands: '29',
    setIrtaFlushes: '30',
    setRootFlushes: '31',
  },
});

/** ECAP_REG. */
export const ExtendedCapability = /* @__PURE__ */ layout('ECAP', 8, {
  0: {
    coherent: '0',
    queuedInvalidation: '1',
    deviceTlb: '2',
    interruptRemapping: '3',
    extendedInterruptMode: '4',
    passThrough: '6',
    snoopControl: '7',
    /** IVA and IOTLB registers at 16 * this. */
    iotlbOffset: '17:8',
    /** Largest IM of an interrupt entry cache descriptor. */
    maximumHandleMask: '23:20',
    memoryTypes: '25',
    nested: '26',
    pageRequests: '29',
    executeRequests: '30',
    supervisorRequests: '31',
  },
  4: {
    noWriteFlag: '1',
    extendedAccessed: '2',
    /** PASIDs have one bit more than this. */
    pasidWidth: '7:3',
    pasid: '8',
    throttle: '9',
    pageRequestDrain: '10',
    scalableMode: '11',
    virtualCommands: '12',
    secondStageAccessedDirty: '13',
    secondStage: '14',
    firstStage: '15',
    coherentWalk: '16',
    ridPasid: '17',
    performance: '19',
    abortMode: '20',
    ridPrivilege: '21',
  },
});

/**
 * The default profile: the capability values that a Sapphire Rapids unit reports (version 6.0), with what a unit that carries scalable
 * devices adds (ECAP bits 29 PRS, 30 ERS, 40 PASID), eight fault records where that unit has one, and without what this model leaves out
 * (protected memory ranges, memory types).
 */
export const defaultProfile = {
  version: 0x60,
  capability: [0x4078_0c06, 0x19ed_078c],
  extendedCapability: [0xe4f0_50df, 0x0003_ef9e],
} as const;
