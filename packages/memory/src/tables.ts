/**
 * A process's 4-level page tables, written into physical memory in the processor's own format. Intel SDM 3A, "4-Level Paging".
 * An entry that is not zero holds a frame; its present bit says whether anyone may use it now (PROT_NONE keeps the frame).
 */
import { entryFrame, PageEntry, setEntry } from '@siov/layout/x86';
import type { Frames, PhysicalMap } from './ports.js';

const { present, pageSize } = PageEntry.get;

const bitOf = (name: keyof typeof PageEntry.get): number => PageEntry.fields.find((field) => field.name === name)!.low;
/** Masks of bits 11:0 of an entry. */
export const Low = {
  present: 1 << bitOf('present'),
  write: 1 << bitOf('write'),
  user: 1 << bitOf('user'),
  cacheDisable: 1 << bitOf('cacheDisable'),
  accessed: 1 << bitOf('accessed'),
  dirty: 1 << bitOf('dirty'),
  pageSize: 1 << bitOf('pageSize'),
} as const;
/** In the upper word. */
export const EXECUTE_DISABLE = 1 << (bitOf('executeDisable') - 32);
const TABLE = Low.present | Low.write | Low.user;
const NO_WORDS = new Uint32Array(0);

export class PageTables {
  /** Frame of the PML4 table. */
  root: number;
  /** The entry that the last `find` or `make` reached. */
  words: Uint32Array = NO_WORDS;
  at = 0;
  /** Bytes that the entry spans, also when it is missing: a whole table's worth. */
  span = 0;
  private readonly memory: PhysicalMap;
  private readonly frames: Frames;

  constructor(memory: PhysicalMap, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
    this.root = frames.alloc();
    if (this.root < 0) throw new RangeError('frames: no frame is left for a page table');
  }

  /** Looks for the leaf entry of an address; false when a table on the way is missing. The leaf may be zero. */
  find(hi: number, lo: number): boolean {
    if (!this.step(this.root, (hi >>> 7) & 511, 2 ** 39)) return false;
    if (!this.step(entryFrame(this.words, this.at), ((hi & 0x7f) << 2) | (lo >>> 30), 2 ** 30)) return false;
    if (!this.step(entryFrame(this.words, this.at), (lo >>> 21) & 511, 2 ** 21)) return false;
    if (pageSize(this.words, this.at)) return true;
    this.enter(entryFrame(this.words, this.at), (lo >>> 12) & 511);
    this.span = 4096;
    return true;
  }

  /** Reaches the entry of an address at level 1 or 2, making the tables above it; false when no frame is left. */
  make(hi: number, lo: number, level: 1 | 2): boolean {
    this.enter(this.root, (hi >>> 7) & 511);
    if (!this.down(((hi & 0x7f) << 2) | (lo >>> 30))) return false;
    if (!this.down((lo >>> 21) & 511)) return false;
    if (level === 2) return true;
    return this.down((lo >>> 12) & 511);
  }

  set(frame: number, low: number, high: number): void {
    setEntry(this.words, this.at, frame, low, high);
  }

  /** Gives the tables back. Leaf frames are the caller's. */
  free(): void {
    if (this.root >= 0) this.freeTable(this.root, 4);
    this.root = -1;
  }

  private freeTable(frame: number, level: number): void {
    if (level > 1) {
      const region = this.memory.regionOf(frame);
      if (region?.kind !== 'ram') return;
      const start = (frame - region.firstFrame) * 1024;
      for (let at = start; at < start + 1024; at += 2)
        if (present(region.words, at) && !(level <= 3 && pageSize(region.words, at))) this.freeTable(entryFrame(region.words, at), level - 1);
    }
    this.frames.free(frame);
  }

  private step(table: number, index: number, span: number): boolean {
    this.enter(table, index);
    this.span = span;
    return this.words[this.at]! !== 0;
  }

  private down(index: number): boolean {
    if (this.words[this.at] === 0) {
      const frame = this.frames.alloc();
      if (frame < 0) return false;
      setEntry(this.words, this.at, frame, TABLE, 0);
    }
    this.enter(entryFrame(this.words, this.at), index);
    return true;
  }

  private enter(table: number, index: number): void {
    const region = this.memory.regionOf(table);
    if (region?.kind === 'ram') {
      this.words = region.words;
      this.at = (table - region.firstFrame) * 1024 + index * 2;
    } else {
      // Somebody's DMA overwrote a table: no memory there, so nothing is mapped.
      this.words = new Uint32Array(2);
      this.at = 0;
    }
  }
}
