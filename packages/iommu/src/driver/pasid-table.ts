/**
 * The PASID table of one device: directory and tables in memory. An entry is written whole, P last; it is cleared P first. VT-d,
 * "Scalable-Mode PASID Table Entry". A present entry is never changed: replacing is clearing, then setting.
 */
import { PasidDirectoryEntry, PasidEntry } from '../spec/structures.js';
import type { Hardware } from './hardware.js';

const ENTRY_WORDS = 16;
const { present } = PasidEntry.set;

export class PasidTable {
  private readonly hardware: Hardware;
  /** -1 when there was no memory. */
  readonly directoryFrame: number;
  /** PDTS: the directory has 2^(this + 7) entries. */
  readonly directorySize: number;
  private readonly order: number;
  private readonly tables: number[] = [];

  /** `bits`: width of the device's PASIDs; as many as memory allows are covered. */
  constructor(hardware: Hardware, bits: number) {
    this.hardware = hardware;
    let size = Math.min(Math.max(bits - 13, 0), 7);
    let frame = -1;
    for (; size >= 0; size--) if ((frame = hardware.alloc(orderOf(size))) >= 0) break;
    this.directorySize = Math.max(size, 0);
    this.order = orderOf(this.directorySize);
    this.directoryFrame = frame;
  }

  /** PASIDs from 0 that the directory covers. */
  get limit(): number {
    return 2 ** (this.directorySize + 13);
  }

  /** Writes an entry through `fill` (its words, zeroed, from `at` on) and makes it present. False: no memory. */
  set(pasid: number, fill: (words: Uint32Array, at: number) => void): boolean {
    const at = this.entry(pasid, true);
    if (at < 0) return false;
    const { words } = this.hardware;
    words.fill(0, at, at + ENTRY_WORDS);
    fill(words, at);
    present(words, at, 1);
    return true;
  }
  /** Fields of a present entry that hardware may see change; the caches are its owner's to flush. */
  change(pasid: number, fill: (words: Uint32Array, at: number) => void): void {
    const at = this.entry(pasid, false);
    if (at >= 0) fill(this.hardware.words, at);
  }
  isPresent(pasid: number): boolean {
    const at = this.entry(pasid, false);
    return at >= 0 && PasidEntry.get.present(this.hardware.words, at) === 1;
  }
  /** First step of tearing down. */
  clearPresent(pasid: number): void {
    const at = this.entry(pasid, false);
    if (at >= 0) present(this.hardware.words, at, 0);
  }
  /** Last step of tearing down, when no cache holds the entry any more. */
  zero(pasid: number): void {
    const at = this.entry(pasid, false);
    if (at >= 0) this.hardware.words.fill(0, at, at + ENTRY_WORDS);
  }
  /** Gives all memory back; the context entry must be gone. */
  free(): void {
    for (const frame of this.tables) this.hardware.free(frame);
    this.tables.length = 0;
    if (this.directoryFrame >= 0) this.hardware.free(this.directoryFrame, this.order);
  }

  private entry(pasid: number, make: boolean): number {
    const index = pasid >>> 6;
    const slot = this.hardware.at(this.directoryFrame + (index >>> 9)) + (index & 511) * 2;
    const { words } = this.hardware;
    let frame = PasidDirectoryEntry.get.table(words, slot) / 4096;
    if (!PasidDirectoryEntry.get.present(words, slot)) {
      if (!make) return -1;
      frame = this.hardware.alloc();
      if (frame < 0) return -1;
      this.tables.push(frame);
      PasidDirectoryEntry.set.table(words, slot, frame * 4096);
      PasidDirectoryEntry.set.present(words, slot, 1);
    }
    return this.hardware.at(frame) + (pasid & 63) * ENTRY_WORDS;
  }
}
/** Directory entries are 8 bytes: PDTS 2 fills a page. */
const orderOf = (directorySize: number): number => Math.max(directorySize - 2, 0);
