/** Facts of the x86-64 platform that several parts share. Intel SDM volume 3 (paging, EPT, MSI), VT-d (interrupt range). */
import { address, layout, oneOf } from './layout.js';

/** Bytes of the smallest page, and its shift. */
export const PAGE = 4096;
export const PAGE_SHIFT = 12;

/** Paging-structure entry of 4-level paging, any level. SDM 3A, "4-Level Paging"; also VT-d first-stage tables. */
export const PageEntry = /* @__PURE__ */ layout('page entry', 8, {
  0: {
    present: '0',
    write: '1',
    user: '2',
    writeThrough: '3',
    cacheDisable: '4',
    accessed: '5',
    dirty: '6',
    /** A leaf at levels 2 (2 MiB) and 3 (1 GiB); PAT in a 4 KiB leaf. */
    pageSize: '7',
    global: '8',
    address: address('51:12'),
    executeDisable: '63',
  },
});

/** Extended page table entry, any level. SDM 3C, "The Extended Page Table Mechanism (EPT)". */
export const EptEntry = /* @__PURE__ */ layout('EPT entry', 8, {
  0: {
    read: '0',
    write: '1',
    execute: '2',
    memoryType: oneOf('5:3', { uncacheable: 0, writeBack: 6 }),
    pageSize: '7',
    accessed: '8',
    dirty: '9',
    address: address('51:12'),
  },
});

/** MSI address, compatibility and remappable format. SDM 3A, "Message Signalled Interrupts"; VT-d, "Interrupt Requests in Remappable Format". */
export const MsiAddress = /* @__PURE__ */ layout('MSI address', 4, {
  0: { destinationMode: '2', redirectionHint: '3', destination: '19:12', base: '31:20' },
});
export const RemappableMsiAddress = /* @__PURE__ */ layout('remappable MSI address', 4, {
  0: { handleHigh: '2', subhandleValid: '3', format: '4', handle: '19:5', base: '31:20' },
});
export const MsiData = /* @__PURE__ */ layout('MSI data', 4, {
  0: { vector: '7:0', deliveryMode: oneOf('10:8', { fixed: 0 }), level: '14', trigger: oneOf('15', { edge: 0, level: 1 }) },
});
/** Bits 31:20 of an interrupt message's address. */
export const MSI_BASE = 0xfee;
/** First byte of the interrupt range 0xFEE0_0000 to 0xFEEF_FFFF. */
export const MSI_RANGE = 0xfee0_0000;

/** IA32_PASID MSR (0xD93). SDM 2, "ENQCMD". */
export const PasidMsr = /* @__PURE__ */ layout('IA32_PASID', 8, { 0: { pasid: '19:0', valid: '31' } });

/** VMX PASID translation. SDM 3C, "PASID Translation". Directory entry: 8 bytes; table entry: 4 bytes. */
export const PasidDirectoryEntry = /* @__PURE__ */ layout('VMX PASID directory entry', 8, { 0: { present: '0', table: address('51:12') } });
export const PasidTranslationEntry = /* @__PURE__ */ layout('VMX PASID table entry', 4, { 0: { pasid: '19:0', valid: '31' } });

/** The page frame (int32) that a paging-structure entry, first- or second-stage, points at; -1 for an address of 2^43 or more, where no memory is. */
export const entryFrame = (words: Uint32Array, at: number): number => {
  const high = words[at + 1]! & 0xf_ffff;
  return high > 0x7ff ? -1 : (high << 20) | (words[at]! >>> 12);
};
/** Writes a whole entry from a frame and the low (11:0) and high (63:52, in place in the upper word) bits. */
export const setEntry = (words: Uint32Array, at: number, frame: number, low: number, high: number): void => {
  words[at] = (frame << 12) | low;
  words[at + 1] = (frame >>> 20) | high;
};
