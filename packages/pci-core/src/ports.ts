/** What pci-core needs from below. */

/** A range of device registers. Offsets in bytes from its start; widths 1, 2, 4 (a 64-bit register is two dword accesses). */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  /** A posted 64-byte store: 16 words of `words` from index `at`. */
  movdir64b?(offset: number, words: Uint32Array, at: number): void;
  /** A deferrable memory write of 64 bytes: 0 accepted, 1 retry. */
  enqcmd?(offset: number, words: Uint32Array, at: number): number;
}

/** The physical address map, where memory BARs appear. Frames are addresses divided by 4096. */
export interface AddressMap<R = unknown> {
  addMmio(firstFrame: number, frames: number, device: Mmio): R;
  remove(region: R): void;
}
