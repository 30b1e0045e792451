/** What the processor needs from memory and from whoever runs on it. Types only; whoever has the methods fits. */

/** A range of device registers. Offsets in bytes from the range's start; widths 1, 2 and 4. */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  movdir64b?(offset: number, words: Uint32Array, at: number): void;
  /** 0 accepted, 1 retry. */
  enqcmd?(offset: number, words: Uint32Array, at: number): number;
}
export interface Region {
  readonly kind: 'ram' | 'mmio';
  readonly firstFrame: number;
  readonly frames: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly device: Mmio | undefined;
}
export interface PhysicalMap {
  regionOf(frame: number): Region | undefined;
}
export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}

/** Who runs on the processor: its registers, and the handlers of its faults and exits. */
export interface Context {
  /** CR3 >>> 12: a guest frame where `eptRoot` is not -1. */
  readonly rootFrame: number;
  /** Levels of its page tables (default 4). CR4.LA57. */
  readonly levels?: 4 | 5;
  /** Host frame of the EPT's PML4 table, or -1 outside a guest. */
  readonly eptRoot: number;
  /** IA32_PASID, low word: 19:0 PASID, bit 31 valid. */
  pasidMsr: number;
  /** Host frame of the VMX low PASID directory (PASIDs below 2^19), or -1: no PASID translation. Used where `eptRoot` is not -1. */
  readonly pasidTranslation: number;
  /** Host frame of the high PASID directory; absent, those PASIDs exit. */
  readonly pasidTranslationHigh?: number;
  /** Page fault: 0 to try again, else -errno, which becomes a Signal. `access` holds DmaAccess bits. */
  handleFault(hi: number, lo: number, access: number): number;
  /** ENQCMD met an invalid IA32_PASID: true when it is valid now. Linux, try_fixup_enqcmd_gp. */
  fixPasid?: (() => boolean) | undefined;
  /**
   * VM exit. EPT violation: `offset` in the page, `width` in bytes (64: MOVDIR64B, `value` 0, or ENQCMD, `value` 1; the data are in `cpu.packet`).
   * When the page is accessible afterwards, the access is tried again; else it was emulated, and the answer is the value read, or
   * ENQCMD's zero flag. -1 always tries again. PASID exits: `value` is the guest PASID; tried again once, then #GP.
   */
  exit?: ((reason: number, gpaFrame: number, offset: number, width: number, write: boolean, value: number) => number) | undefined;
}
