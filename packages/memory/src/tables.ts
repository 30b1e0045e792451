/**
 * A process's page tables of 4 or 5 levels, written into physical memory in the processor's own format. Intel SDM 3A, "4-Level Paging and
 * 5-Level Paging". An entry that is not zero holds a frame; its present bit says whether anyone may use it now (PROT_NONE keeps the frame).
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
  /** Frame of the PML4 or PML5 table. */
  root: number;
  readonly levels: 4 | 5;
  /** The entry that the last `find` or `make` reached. */
  words: Uint32Array = NO_WORDS;
  at = 0;
  /** Bytes that the entry spans, also when it is missing: a whole table's worth. */
  span = 0;
  private readonly memory: PhysicalMap;
  private readonly frames: Frames;

  constructor(memory: PhysicalMap, frames: Frames, levels: 4 | 5 = 4) {
    this.memory = memory;
    this.frames = frames;
    this.levels = levels;
    this.root = frames.alloc();
    if (this.root < 0) throw new RangeError('frames: no frame is left for a page table');
  }

  /** Looks for the leaf entry of an address; false when a table on the way is missing. The leaf may be zero. */
  find(hi: number, lo: number): boolean {
    let table = this.root;
    for (let level = this.levels; level > 1; level--) {
      this.enter(table, indexOf(level, hi, lo));
      this.span = spanOf(level);
      if (this.words[this.at]! === 0) return false;
      if (level <= 3 && pageSize(this.words, this.at)) return true;
      table = entryFrame(this.words, this.at);
    }
    this.enter(table, indexOf(1, hi, lo));
    this.span = 4096;
    return true;
  }

  /** Reaches the entry of an address at a level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), making the tables above it; false when no frame is left. */
  make(hi: number, lo: number, level: number): boolean {
    this.enter(this.root, indexOf(this.levels, hi, lo));
    for (let above: number = this.levels; above > level; above--) {
      if (this.words[this.at] === 0) {
        const frame = this.frames.alloc();
        if (frame < 0) return false;
        setEntry(this.words, this.at, frame, TABLE, 0);
      }
      this.enter(entryFrame(this.words, this.at), indexOf(above - 1, hi, lo));
    }
    return true;
  }

  /**
   * Takes the tables out that serve nothing but [start, end), where no page is mapped any more: their frames go to `out`, to be freed when no
   * cache knows them. Linux, free_pgtables.
   */
  prune(start: number, end: number, out: number[]): void {
    if (this.root >= 0 && start < end) this.pruneTable(this.root, this.levels, 0, start, end, out);
  }
  private pruneTable(table: number, level: number, base: number, start: number, end: number, out: number[]): void {
    const span = spanOf(level);
    const region = this.memory.regionOf(table);
    if (region?.kind !== 'ram') return;
    const { words } = region;
    const first = Math.max(0, Math.floor((start - base) / span));
    const last = Math.min(511, Math.ceil((end - base) / span) - 1);
    for (let index = first; index <= last; index++) {
      const at = (table - region.firstFrame) * 1024 + index * 2;
      if (words[at] === 0 || (level <= 3 && pageSize(words, at))) continue;
      const below = base + index * span;
      const frame = entryFrame(words, at);
      if (level > 2) this.pruneTable(frame, level - 1, below, start, end, out);
      if (below < start || below + span > end) continue;
      setEntry(words, at, 0, 0, 0);
      out.push(frame);
    }
  }

  set(frame: number, low: number, high: number): void {
    setEntry(this.words, this.at, frame, low, high);
  }

  /** Gives the tables back. Leaf frames are the caller's. */
  free(): void {
    if (this.root >= 0) this.freeTable(this.root, this.levels);
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

/** Bytes that an entry of a level spans. */
const spanOf = (level: number): number => 2 ** (3 + 9 * level);
const indexOf = (level: number, hi: number, lo: number): number =>
  level === 1
    ? (lo >>> 12) & 511
    : level === 2
      ? (lo >>> 21) & 511
      : level === 3
        ? ((hi & 0x7f) << 2) | (lo >>> 30)
        : level === 4
          ? (hi >>> 7) & 511
          : (hi >>> 16) & 511;
