/** Configuration space. PCI Express Base Specification, "Configuration Space"; field offsets as in linux/pci_regs.h. */
import { layout, oneOf, ro, rw1c } from '@siov/layout';

/** Type 0 header. Base address registers are made by `bars.ts`: their writable bits depend on the size. */
export const Header = /* @__PURE__ */ layout('type 0 header', 64, {
  0: { vendorId: ro('15:0'), deviceId: ro('31:16') },
  4: { ioEnable: '0', memoryEnable: '1', busMaster: '2', parityResponse: '6', serrEnable: '8', intxDisable: '10' },
  6: {
    interruptStatus: ro('3'),
    capabilitiesList: ro('4'),
    parityError: rw1c('8'),
    signaledTargetAbort: rw1c('11'),
    receivedTargetAbort: rw1c('12'),
    receivedMasterAbort: rw1c('13'),
    signaledSystemError: rw1c('14'),
    detectedParityError: rw1c('15'),
  },
  8: { revisionId: ro('7:0'), classCode: ro('31:8') },
  12: { cacheLineSize: '7:0' },
  14: { headerType: ro('6:0'), multiFunction: ro('7') },
  44: { subsystemVendorId: ro('15:0'), subsystemId: ro('31:16') },
  52: { capabilitiesPointer: ro('7:0') },
  60: { interruptLine: '7:0', interruptPin: ro('15:8') },
});
/** First base address register, and how many a type 0 header has. */
export const BAR0 = 0x10;
export const BARS = 6;

export const Capability = { powerManagement: 0x01, msi: 0x05, pcie: 0x10, msix: 0x11 } as const;
export const ExtendedCapability = { aer: 0x01, ats: 0x0f, pri: 0x13, pasid: 0x1b, dvsec: 0x23 } as const;

/** Every capability in the first 256 bytes starts with this. */
export const CapabilityHeader = /* @__PURE__ */ layout('capability', 2, { 0: { id: ro('7:0'), next: ro('15:8') } });
/** Every capability from 0x100 on starts with this. */
export const ExtendedHeader = /* @__PURE__ */ layout('extended capability', 4, { 0: { id: ro('15:0'), version: ro('19:16'), next: ro('31:20') } });

/** Power Management capability; only D0 and D3hot, no soft reset on the way back. */
export const PowerManagement = /* @__PURE__ */ layout('PM', 8, {
  0: { id: ro('7:0'), next: ro('15:8'), version: ro('18:16') },
  4: { powerState: oneOf('1:0', { D0: 0, D3hot: 3 }), noSoftReset: ro('3') },
});
export const Msix = /* @__PURE__ */ layout('MSI-X', 12, {
  0: { id: ro('7:0'), next: ro('15:8'), tableSize: ro('26:16'), functionMask: '30', enable: '31' },
  4: { tableBir: ro('2:0'), tableOffset: ro('31:3') },
  8: { pbaBir: ro('2:0'), pbaOffset: ro('31:3') },
});
export const MsixEntry = /* @__PURE__ */ layout('MSI-X entry', 16, {
  0: { addressLow: '31:0' },
  4: { addressHigh: '31:0' },
  8: { data: '31:0' },
  12: { masked: '0' },
});
/** PCI Express capability, version 2. */
export const Pcie = /* @__PURE__ */ layout('PCI Express', 60, {
  0: { id: ro('7:0'), next: ro('15:8'), version: ro('19:16'), portType: oneOf('23:20', { endpoint: 0, rootPort: 4, rootComplexEndpoint: 9 }, 'ro') },
  4: { maxPayload: ro('2:0'), extendedTag: ro('5'), roleBasedErrors: ro('15'), functionLevelReset: ro('28') },
  8: {
    correctableErrors: '0',
    nonFatalErrors: '1',
    fatalErrors: '2',
    unsupportedRequests: '3',
    relaxedOrdering: '4',
    payloadSize: '7:5',
    extendedTagEnable: '8',
    noSnoop: '11',
    readRequestSize: '14:12',
    /** Initiates a function level reset; reads 0. */
    initiateReset: '15',
  },
  10: { correctableError: rw1c('0'), nonFatalError: rw1c('1'), fatalError: rw1c('2'), unsupportedRequest: rw1c('3'), transactionsPending: ro('5') },
  36: { completionTimeoutRanges: ro('3:0'), completionTimeoutDisable: ro('4'), endToEndPrefixes: ro('21'), maxEndToEndPrefixes: ro('23:22') },
  40: { completionTimeout: '3:0', completionTimeoutDisabled: '4' },
});
/** Address Translation Services. PCIe, "ATS Extended Capability Structure". Smallest translation unit: 2^(stu + 12) bytes. */
export const Ats = /* @__PURE__ */ layout('ATS', 8, {
  0: { header: ro('31:0') },
  4: { queueDepth: ro('4:0'), pageAligned: ro('5'), globalInvalidate: ro('6') },
  6: { stu: '4:0', enable: '15' },
});
/** Page Request Interface. PCIe, "Page Request Extended Capability Structure". */
export const Pri = /* @__PURE__ */ layout('PRI', 16, {
  0: { header: ro('31:0') },
  4: { enable: '0', reset: '1' },
  6: { responseFailure: rw1c('0'), unexpectedGroup: rw1c('1'), stopped: ro('8'), responsePasidRequired: ro('15') },
  8: { capacity: ro('31:0') },
  12: { allocation: '31:0' },
});
/** Process Address Space ID. PCIe, "PASID Extended Capability Structure". */
export const Pasid = /* @__PURE__ */ layout('PASID', 8, {
  0: { header: ro('31:0') },
  4: { execute: ro('1'), privileged: ro('2'), width: ro('12:8') },
  6: { enable: '0', executeEnable: '1', privilegedEnable: '2' },
});
/**
 * The designated vendor-specific capability by which software finds Scalable IOV. Intel Scalable I/O Virtualization specification,
 * "Enumeration". unconfirmed: all but the vendor, the id 5 and the IMS bit are not backed by a public header.
 */
export const SiovDvsec = /* @__PURE__ */ layout('SIOV DVSEC', 24, {
  0: { header: ro('31:0') },
  4: { vendor: ro('15:0'), revision: ro('19:16'), length: ro('31:20') },
  8: { dvsecId: ro('15:0'), functionLink: ro('23:16'), homogeneous: ro('24') },
  12: { supportedPageSizes: ro('31:0') },
  16: { systemPageSize: '31:0' },
  20: { ims: ro('0') },
});
export const SIOV_DVSEC_ID = 5;
export const INTEL = 0x8086;
