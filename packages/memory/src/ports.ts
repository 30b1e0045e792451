/** What the parts of this package need from each other and from below. Types only; whoever has the methods fits. */

/** A range of device registers. Offsets in bytes from the range's start; widths 1, 2 and 4 (a 64-bit register is two dword accesses). */
export interface Mmio {
  /** Returns the value unsigned. */
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  /** A posted 64-byte store: sixteen words from `words[at]`. */
  movdir64b?(offset: number, words: Uint32Array, at: number): void;
  /** A deferrable memory write of 64 bytes: 0 accepted, 1 retry. */
  enqcmd?(offset: number, words: Uint32Array, at: number): number;
  /** Reading changes nothing and says nothing to the device: what a read would give may be shown as memory. */
  readonly passiveReads?: boolean;
}

/** A range of physical page frames of one kind. After `remove` it has 0 frames, so that a remembered region refuses every frame. */
export interface Region {
  readonly kind: 'ram' | 'mmio';
  /** Physical address >>> 12, below 2^31. */
  readonly firstFrame: number;
  readonly frames: number;
  /** The region's own views: index 0 is the first byte of `firstFrame`. Empty for MMIO. */
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  /** MMIO only; the device's offset is (frame - firstFrame) * 4096 + offset in the page. */
  readonly device: Mmio | undefined;
}

export interface PhysicalMap {
  regionOf(frame: number): Region | undefined;
}

export interface Frames {
  /** First frame of 2^order naturally aligned zeroed frames, or -1. */
  alloc(order?: number): number;
  free(frame: number, order?: number): void;
}

/** Told of every change that takes a page or a right away. Linux, mmu_notifier. */
export interface MmuNotifier {
  /** The page table entries of [start, end) are gone or changed; the frames are not yet free. Addresses in bytes. */
  invalidate(start: number, end: number): void;
  /** The address space ends. Nothing is notified after it. */
  release(): void;
}

export interface Clock {
  spend(ns: number): void;
}

export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}
