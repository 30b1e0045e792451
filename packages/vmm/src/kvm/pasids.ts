/**
 * PASID translation of a guest's ENQCMD and ENQCMDS: two directories and their tables in host memory, from the guest's PASID to the host's.
 * Intel SDM 3C, "PASID Translation".
 */
import { entryFrame, PasidDirectoryEntry, PasidTranslationEntry, setEntry } from '@siov/layout/x86';
import type { Frames, PhysicalMap } from '../ports.js';

const { present } = PasidDirectoryEntry.get;
const { valid, pasid: pasidOf } = PasidTranslationEntry.get;
const LIMIT = 2 ** 20;

export class PasidTranslation {
  /** Host frames of the directories of guest PASIDs below 2^19, and from there on. */
  readonly low: number;
  readonly high: number;
  private readonly memory: PhysicalMap;
  private readonly frames: Frames;
  private readonly tables: number[] = [];

  constructor(memory: PhysicalMap, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
    this.low = frames.alloc();
    this.high = frames.alloc();
    if (this.low < 0 || this.high < 0) throw new RangeError('frames: no memory for the PASID directories');
  }

  /** The host PASID behind a guest's, or -1. */
  get(guest: number): number {
    const at = this.entry(guest, false);
    return at >= 0 && valid(this.words, at) ? pasidOf(this.words, at) : -1;
  }

  /** False when it is no PASID, or no memory is left for its table. */
  set(guest: number, host: number): boolean {
    if (!isPasid(host)) return false;
    const at = this.entry(guest, true);
    if (at < 0) return false;
    this.words[at] = 0;
    PasidTranslationEntry.set.pasid(this.words, at, host);
    PasidTranslationEntry.set.valid(this.words, at, 1);
    return true;
  }

  /** The guest's next ENQCMD with this PASID exits. */
  clear(guest: number): void {
    const at = this.entry(guest, false);
    if (at >= 0) this.words[at] = 0;
  }

  /** All go; the directories stay, empty. */
  clearAll(): void {
    for (const directory of [this.low, this.high]) {
      const at = this.wordsAt(directory);
      if (at >= 0) this.words.fill(0, at, at + 1024);
    }
    for (const table of this.tables) this.frames.free(table);
    this.tables.length = 0;
  }

  /** Views of the last place found. */
  private words: Uint32Array = new Uint32Array(0);
  private wordsAt(frame: number): number {
    const region = this.memory.regionOf(frame);
    if (region?.kind !== 'ram') return -1;
    this.words = region.words;
    return (frame - region.firstFrame) * 1024;
  }

  private entry(guest: number, make: boolean): number {
    if (!isPasid(guest)) return -1;
    const directory = this.wordsAt(guest & 0x8_0000 ? this.high : this.low);
    if (directory < 0) return -1;
    const at = directory + ((guest >>> 10) & 511) * 2;
    const { words } = this;
    if (!present(words, at)) {
      const table = make ? this.frames.alloc() : -1;
      if (table < 0) return -1;
      this.tables.push(table);
      setEntry(words, at, table, 1, 0);
    }
    const table = this.wordsAt(entryFrame(words, at));
    return table < 0 ? -1 : table + (guest & 1023);
  }
}

const isPasid = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < LIMIT;
