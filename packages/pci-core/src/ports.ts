/** What pci-core needs from below. */

/** A range of device registers. Offsets in bytes from its start; widths 1, 2, 4 (a 64-bit register is two dword accesses). */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  /** A posted 64-byte store: 16 words of `words` from index `at`. */
  movdir64b?(offset: number, words: Uint32Array, at: number): void;
  /** A deferrable memory write of 64 bytes: 0 accepted, 1 retry. */
  enqcmd?(offset: number, words: Uint32Array, at: number): number;
  /** Reading changes nothing and says nothing to the device: what a read would give may be shown as memory. */
  readonly passiveReads?: boolean;
}

/** The physical address map, where memory BARs appear. Frames are addresses divided by 4096. */
export interface AddressMap<R = unknown> {
  addMmio(firstFrame: number, frames: number, device: Mmio): R;
  remove(region: R): void;
}

/** 64-bit memory BARs by register number. */
export type BarNumber = 0 | 2 | 4;

/** What a root can hold: `PciFunction`, or a function that lives elsewhere (a VMM's view of an assigned device). */
export interface RootFunction {
  /** Bus, device and function number; the root sets it. */
  requesterId: number;
  /** The function calls it when a BAR may decode at another address; the root sets it. */
  decodeChanged: () => void;
  configRead(offset: number, width: number): number;
  configWrite(offset: number, width: number, value: number): void;
  /** The address that a BAR decodes, in bytes, or -1. */
  barAddress(bar: BarNumber): number;
  /** Size in bytes, 0 for none. */
  barBytes(bar: BarNumber): number;
  barMmio(bar: BarNumber): Mmio | undefined;
}
