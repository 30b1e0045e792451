/**
 * Extended page tables of one guest, written into host memory: 4 levels, leaves of 4 KiB and 2 MiB. Intel SDM 3C, "The Extended Page
 * Table Mechanism (EPT)". Frames are int32.
 */
import { EptEntry, entryFrame, setEntry } from '@siov/layout/x86';
import type { Frames, PhysicalMap } from '../ports.js';

const { read, write, pageSize } = EptEntry.get;
const LARGE = 512;

const bits = (fields: Partial<Record<keyof typeof EptEntry.set, number>>): number => {
  const words = new Uint32Array(2);
  for (const [name, value] of Object.entries(fields)) EptEntry.set[name as keyof typeof EptEntry.set](words, 0, value);
  return words[0]!;
};
const TABLE = bits({ read: 1, write: 1, execute: 1 });
const WRITABLE = bits({ write: 1 });
const PAGE_SIZE = bits({ pageSize: 1 });
/** Memory is write-back, device registers are uncacheable and not executed. */
const RAM = bits({ read: 1, execute: 1, memoryType: EptEntry.is.memoryType.writeBack });
const DEVICE = bits({ read: 1, memoryType: EptEntry.is.memoryType.uncacheable });

export class Ept {
  /** Host frame of the top table. */
  readonly root: number;
  /** Of the last `lookup` that found something. */
  writable = false;
  private readonly memory: PhysicalMap;
  private readonly frames: Frames;
  private readonly tables: number[] = [];
  /** Where `find` stopped: an entry's words, index, and level. */
  private words: Uint32Array = new Uint32Array(0);
  private at = 0;
  private level = 0;

  constructor(memory: PhysicalMap, frames: Frames) {
    this.memory = memory;
    this.frames = frames;
    this.root = frames.alloc();
    if (this.root < 0) throw new RangeError('frames: no memory for the root of the EPT');
  }

  /** Frames that the tables take. */
  get tableFrames(): number {
    return 1 + this.tables.length;
  }

  /** Host frame of a guest frame, or -1. Changes nothing. */
  lookup(guestFrame: number): number {
    if (!this.find(guestFrame)) return -1;
    const { words, at, level } = this;
    this.writable = write(words, at) === 1;
    const frame = entryFrame(words, at);
    return level === 2 ? frame + (guestFrame & (LARGE - 1)) : frame;
  }

  /** Writes the leaf of a guest frame; `large`: of its 2 MiB block, whose first frames are given. False when no table can be had. */
  map(guestFrame: number, hostFrame: number, large: boolean, writable: boolean, device: boolean): boolean {
    let table = this.root;
    for (let level = 4; ; level--) {
      const words = this.wordsOf(table);
      if (!words) return false;
      const at = this.indexIn(table, guestFrame, level);
      if (level === (large ? 2 : 1)) {
        const low = (device ? DEVICE : RAM) | (writable ? WRITABLE : 0) | (large ? PAGE_SIZE : 0);
        if (large && read(words, at) && !pageSize(words, at)) this.drop(entryFrame(words, at));
        setEntry(words, at, hostFrame, low, 0);
        return true;
      }
      if (read(words, at) && !(level === 2 && pageSize(words, at))) table = entryFrame(words, at);
      else {
        const next = this.frames.alloc();
        if (next < 0) return false;
        this.tables.push(next);
        setEntry(words, at, next, TABLE, 0);
        table = next;
      }
    }
  }

  /** Takes away the leaves that touch `count` guest frames; how many there were. The processor must forget them afterwards. */
  unmap(guestFrame: number, count: number): number {
    let removed = 0;
    const end = guestFrame + count;
    for (let frame = guestFrame; frame < end; ) {
      if (this.find(frame)) {
        setEntry(this.words, this.at, 0, 0, 0);
        removed++;
      }
      const span = 512 ** (this.level - 1);
      frame += span - (frame % span);
    }
    return removed;
  }

  /** Everything is taken away. The root stays, empty: a processor may still name it. */
  clear(): void {
    const words = this.wordsOf(this.root);
    const at = this.indexIn(this.root, 0, 4);
    words?.fill(0, at, at + 1024);
    for (const table of this.tables) this.frames.free(table);
    this.tables.length = 0;
  }

  /** Walks to the leaf, or to the entry that is not present. */
  private find(guestFrame: number): boolean {
    let table = this.root;
    for (let level = 4; ; level--) {
      this.level = level;
      const words = this.wordsOf(table);
      if (!words) return false;
      const at = this.indexIn(table, guestFrame, level);
      if (!read(words, at)) return false;
      if (level === 1 || (level === 2 && pageSize(words, at))) {
        this.words = words;
        this.at = at;
        return true;
      }
      table = entryFrame(words, at);
    }
  }

  private wordsOf(table: number): Uint32Array | undefined {
    const region = this.memory.regionOf(table);
    return region?.kind === 'ram' ? region.words : undefined;
  }
  private indexIn(table: number, guestFrame: number, level: number): number {
    return (table - this.memory.regionOf(table)!.firstFrame) * 1024 + ((guestFrame >>> (9 * (level - 1))) & 511) * 2;
  }
  private drop(table: number): void {
    const at = this.tables.indexOf(table);
    if (at < 0) return;
    this.tables.splice(at, 1);
    this.frames.free(table);
  }
}
