/**
 * Structures in memory that the unit reads: the lookup path, second-stage entries, interrupt remapping. First-stage entries are x86-64
 * page entries (`@siov/layout/x86`). VT-d, "Translation Structure Formats", "Interrupt Remapping Structures".
 */
import { address, layout, oneOf } from '@siov/layout';

/** Half of a scalable-mode root entry: functions 0 to 127, or 128 to 255, of the bus. */
export const RootEntry = /* @__PURE__ */ layout('root entry half', 8, { 0: { present: '0', contextTable: address('63:12') } });

/** Scalable-mode context entry. */
export const ContextEntry = /* @__PURE__ */ layout('context entry', 32, {
  0: {
    present: '0',
    faultDisable: '1',
    deviceTlbEnable: '2',
    pasidEnable: '3',
    pageRequestEnable: '4',
    /** The directory has 2^(this + 7) entries. */
    directorySize: '11:9',
    directory: address('63:12'),
  },
  8: { ridPasid: '19:0', ridPrivilege: '20' },
});

/** Legacy-mode root entry, of a whole bus. */
export const LegacyRootEntry = /* @__PURE__ */ layout('legacy root entry', 16, { 0: { present: '0', contextTable: address('63:12') } });
/** Legacy-mode context entry: the address space of a function stands in it. */
export const LegacyContextEntry = /* @__PURE__ */ layout('legacy context entry', 16, {
  0: {
    present: '0',
    faultDisable: '1',
    /** What is translated: untranslated requests alone, those and the function's translation requests, or nothing. */
    type: oneOf('3:2', { untranslated: 0, deviceTlb: 1, passThrough: 2 }),
    secondStage: address('63:12'),
  },
  8: { addressWidth: oneOf('2:0', { bits39: 1, bits48: 2, bits57: 3 }), ignored: '6:3', domainId: '23:8' },
});

export const PasidDirectoryEntry = /* @__PURE__ */ layout('PASID directory entry', 8, {
  0: { present: '0', faultDisable: '1', table: address('63:12') },
});

/** Scalable-mode PASID table entry. */
export const PasidEntry = /* @__PURE__ */ layout('PASID entry', 64, {
  0: {
    present: '0',
    faultDisable: '1',
    addressWidth: oneOf('4:2', { bits39: 1, bits48: 2, bits57: 3 }),
    type: oneOf('8:6', { firstStage: 1, secondStage: 2, nested: 3, passThrough: 4 }),
    secondStageAccessedDirty: '9',
    secondStage: address('63:12'),
  },
  8: { domainId: '15:0', pageWalkSnoop: '23', pageSnoop: '24', cacheDisable: '25', memoryTypeEnable: '26' },
  12: { pageAttributes: '31:0' },
  16: {
    supervisorRequests: '0',
    firstStageMode: oneOf('3:2', { level4: 0, level5: 1 }),
    writeProtect: '4',
    /** Were NXE and SMEP: not looked at. */
    ignored: '6:5',
    extendedAccessed: '7',
    firstStage: address('63:12'),
  },
});

/** Second-stage paging entry, any level. */
export const SecondStageEntry = /* @__PURE__ */ layout('second-stage entry', 8, {
  0: {
    read: '0',
    write: '1',
    ignored: '6:2',
    /** A leaf at levels 2 (2 MiB) and 3 (1 GiB). */
    pageSize: '7',
    accessed: '8',
    dirty: '9',
    software: '10',
    /** Leaf only. */
    snoop: '11',
    address: address('51:12'),
    ignoredHigh: '61:52',
    ignoredTop: '63',
  },
});

/** Interrupt remapping table entry, as far as both formats agree. */
export const InterruptEntry = /* @__PURE__ */ layout('IRTE', 16, {
  0: {
    present: '0',
    faultDisable: '1',
    destinationMode: '2',
    redirectionHint: '3',
    trigger: '4',
    deliveryMode: oneOf('7:5', { fixed: 0, lowestPriority: 1, smi: 2, nmi: 4, init: 5, extInt: 7 }),
    available: '11:8',
    posted: '15',
    vector: '23:16',
    destination: '63:32',
  },
  8: { sourceId: '15:0', sourceQualifier: '17:16', sourceValidation: oneOf('19:18', { none: 0, sourceId: 1, busRange: 2 }) },
});
/** Interrupt remapping table entry for posted interrupts. */
export const PostedInterruptEntry = /* @__PURE__ */ layout('posted IRTE', 16, {
  0: { present: '0', faultDisable: '1', available: '11:8', urgent: '14', posted: '15', vector: '23:16', descriptorLow: '63:38' },
  8: { sourceId: '15:0', sourceQualifier: '17:16', sourceValidation: '19:18' },
  12: { descriptorHigh: '31:0' },
});
/** Posted-interrupt descriptor: 256 request bits, then the notification. unconfirmed: positions of the notification fields. */
export const PostedDescriptor = /* @__PURE__ */ layout('posted-interrupt descriptor', 64, {
  32: { outstanding: '0', suppress: '1', notificationVector: '23:16', notificationDestination: '63:32' },
});
