/**
 * A second-stage page table: map and unmap with the largest pages that fit. VT-d, "Second-Stage Paging Entries". Software that holds it
 * invalidates; tables that an unmap empties are handed back after that.
 */
import { Errno, Prot } from '@siov/layout/uapi';
import { SecondStageEntry } from '../spec/structures.js';
import type { Hardware } from './hardware.js';

const { get, set } = SecondStageEntry;
/** 4 KiB pages of one entry, by level. */
const SPAN = [0, 1, 512, 512 ** 2, 512 ** 3, 512 ** 4];

export class SecondStageTable {
  private readonly hardware: Hardware;
  readonly levels: number;
  /** Highest level at which a leaf may be. */
  private readonly largest: number;
  /** Top table, or -1 when there was no memory for it. */
  readonly rootFrame: number;
  /** Tables taken out by `unmap`, to be freed when no cache can lead to them. */
  private readonly retired: number[] = [];

  constructor(hardware: Hardware, levels: number, largest: number) {
    this.hardware = hardware;
    this.levels = levels;
    this.largest = largest;
    this.rootFrame = hardware.alloc();
  }

  /** Pages that addresses can name. */
  get pages(): number {
    return SPAN[this.levels]! * 512;
  }

  /** Maps `count` frames from `frame` at `page`. 0, -EEXIST (something is there) or -ENOMEM; on failure nothing stays mapped. */
  map(page: number, frame: number, count: number, prot: number): number {
    if (this.rootFrame < 0) return -Errno.ENOMEM;
    let done = 0;
    while (done < count) {
      const level = this.fitting(page + done, frame + done, count - done);
      const error = this.place(page + done, frame + done, level, prot);
      if (error) {
        if (done) this.unmap(page, done);
        return error;
      }
      done += SPAN[level]!;
    }
    return 0;
  }

  /** Unmaps a range; pages that were not mapped are passed over. Returns the pages that were. */
  unmap(page: number, count: number): number {
    return this.rootFrame < 0 ? 0 : this.clear(this.rootFrame, this.levels, 0, page, page + count);
  }

  /** Calls `record` for every leaf in the range whose dirty bit is set, and clears it if told to. Whether there was one. */
  readDirty(page: number, count: number, clear: boolean, record: (page: number, pages: number) => void): boolean {
    return this.rootFrame >= 0 && this.dirtyBelow(this.rootFrame, this.levels, 0, page, page + count, clear, record);
  }
  private dirtyBelow(
    table: number,
    level: number,
    base: number,
    from: number,
    to: number,
    clear: boolean,
    record: (page: number, pages: number) => void,
  ): boolean {
    const span = SPAN[level]!;
    const last = Math.min(Math.ceil((to - base) / span), 512);
    let any = false;
    for (let index = Math.max(Math.floor((from - base) / span), 0); index < last; index++) {
      const at = this.hardware.at(table) + index * 2;
      const { words } = this.hardware;
      if (!isPresent(words, at)) continue;
      const start = base + index * span;
      if (level > 1 && !get.pageSize(words, at)) {
        any = this.dirtyBelow(get.address(words, at) / 4096, level - 1, start, from, to, clear, record) || any;
        continue;
      }
      if (!get.dirty(words, at)) continue;
      if (clear) set.dirty(words, at, 0);
      record(start, span);
      any = true;
    }
    return any;
  }

  /** The frame that a page is mapped to, or -1. */
  lookup(page: number): number {
    let frame = this.rootFrame;
    for (let level = this.levels; frame >= 0; level--) {
      const at = this.slot(frame, page, level);
      const { words } = this.hardware;
      if (!isPresent(words, at)) return -1;
      frame = get.address(words, at) / 4096;
      if (level === 1 || get.pageSize(words, at)) return frame + (page % SPAN[level]!);
    }
    return -1;
  }

  /** Tables were taken out: walks that are cached may still lead to them. */
  get hasRetired(): boolean {
    return this.retired.length > 0;
  }
  /** Frees the tables that `unmap` took out. To be called when the caches are clean. */
  reclaim(): void {
    for (const frame of this.retired) this.hardware.free(frame);
    this.retired.length = 0;
  }
  /** Frees everything. */
  free(): void {
    if (this.rootFrame < 0) return;
    this.clear(this.rootFrame, this.levels, 0, 0, this.pages);
    this.reclaim();
    this.hardware.free(this.rootFrame);
  }

  /** The level of the largest leaf for what is left. */
  private fitting(page: number, frame: number, count: number): number {
    for (let level = this.largest; level > 1; level--) {
      const span = SPAN[level]!;
      if (count >= span && page % span === 0 && frame % span === 0) return level;
    }
    return 1;
  }

  private place(page: number, frame: number, leaf: number, prot: number): number {
    let table = this.rootFrame;
    for (let level = this.levels; ; level--) {
      const at = this.slot(table, page, level);
      const { words } = this.hardware;
      const there = isPresent(words, at);
      if (level === leaf) {
        // A table left empty by unmaps may stand where a large leaf goes.
        if (there && (level === 1 || get.pageSize(words, at) || !this.empty(get.address(words, at) / 4096, level - 1))) return -Errno.EEXIST;
        if (there) this.retire(get.address(words, at) / 4096, level - 1);
        write(words, at, frame, prot, leaf > 1);
        return 0;
      }
      if (there && get.pageSize(words, at)) return -Errno.EEXIST;
      if (there) table = get.address(words, at) / 4096;
      else {
        const made = this.hardware.alloc();
        if (made < 0) return -Errno.ENOMEM;
        write(words, at, made, Prot.READ | Prot.WRITE, false);
        table = made;
      }
    }
  }

  /** Clears [from, to) below a table whose first page is `base`. */
  private clear(table: number, level: number, base: number, from: number, to: number): number {
    const span = SPAN[level]!;
    const first = Math.max(Math.floor((from - base) / span), 0);
    const last = Math.min(Math.ceil((to - base) / span), 512);
    let cleared = 0;
    for (let index = first; index < last; index++) {
      const at = this.hardware.at(table) + index * 2;
      const { words } = this.hardware;
      if (!isPresent(words, at)) continue;
      const start = base + index * span;
      const whole = from <= start && start + span <= to;
      const next = get.address(words, at) / 4096;
      if (level === 1 || get.pageSize(words, at)) {
        if (whole) {
          erase(words, at);
          cleared += span;
        } else if (this.split(words, at, level)) cleared += this.clear(get.address(words, at) / 4096, level - 1, start, from, to);
        continue;
      }
      cleared += this.clear(next, level - 1, start, from, to);
      if (!whole) continue;
      erase(words, at);
      this.retired.push(next);
    }
    return cleared;
  }

  /** Replaces a large leaf by a table of smaller ones. False: no memory, and the leaf stays. */
  private split(words: Uint32Array, at: number, level: number): boolean {
    const frame = get.address(words, at) / 4096;
    const prot = (get.read(words, at) ? Prot.READ : 0) | (get.write(words, at) ? Prot.WRITE : 0);
    const table = this.hardware.alloc();
    if (table < 0) return false;
    const first = this.hardware.at(table);
    for (let i = 0; i < 512; i++) write(this.hardware.words, first + i * 2, frame + i * SPAN[level - 1]!, prot, level > 2);
    write(words, at, table, Prot.READ | Prot.WRITE, false);
    return true;
  }

  private slot(table: number, page: number, level: number): number {
    return this.hardware.at(table) + (Math.floor(page / SPAN[level]!) % 512) * 2;
  }
  private empty(table: number, level: number): boolean {
    for (let i = 0; i < 512; i++) {
      const at = this.hardware.at(table) + i * 2;
      const { words } = this.hardware;
      if (!isPresent(words, at)) continue;
      if (level === 1 || get.pageSize(words, at) || !this.empty(get.address(words, at) / 4096, level - 1)) return false;
    }
    return true;
  }
  /** Takes an empty table out of use, with those below it. */
  private retire(table: number, level: number): void {
    for (let i = 0; level > 1 && i < 512; i++) {
      const at = this.hardware.at(table) + i * 2;
      const { words } = this.hardware;
      if (isPresent(words, at)) this.retire(get.address(words, at) / 4096, level - 1);
    }
    this.retired.push(table);
  }
}
const isPresent = (words: Uint32Array, at: number): boolean => (words[at]! & 3) !== 0;
const erase = (words: Uint32Array, at: number): void => {
  words[at] = 0;
  words[at + 1] = 0;
};
/** Writes an entry: a leaf, or (READ | WRITE, not large) a pointer to a table. */
const write = (words: Uint32Array, at: number, frame: number, prot: number, large: boolean): void => {
  erase(words, at);
  set.address(words, at, frame * 4096);
  set.pageSize(words, at, large ? 1 : 0);
  set.write(words, at, prot & Prot.WRITE ? 1 : 0);
  set.read(words, at, prot & Prot.READ ? 1 : 0);
};
