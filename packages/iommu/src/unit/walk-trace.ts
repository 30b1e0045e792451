/**
 * The steps of a walk, for the trace. The hot walk has no branch for it: with a trace sink the tables are read once more, plainly, before
 * the walk that counts. Stops where the walk would.
 */
import { Event } from '@siov/layout/events';
import { frameOf, type MemoryWords } from '../memory.js';
import type { Trace } from '../ports.js';

const PRESENT = 1;
const READ_WRITE = 3;
const PAGE_SIZE = 0x80;
export interface Tables {
  readonly firstHi: number;
  readonly firstLo: number;
  readonly firstLevels: number;
  /** -1: no second stage. */
  readonly secondFrame: number;
  readonly secondLevels: number;
  readonly hasFirst: boolean;
}

/** Index of a level (1 to 5) in an address of two int32 words. */
const indexOf = (hi: number, lo: number, level: number): number => Math.floor(((hi >>> 0) * 2 ** 32 + (lo >>> 0)) / 2 ** (3 + 9 * level)) % 512;

/** Emits each entry read: stage, level, frame of the table, index. */
export function traceWalk(trace: Trace, memory: MemoryWords, tables: Tables, hi: number, lo: number): void {
  if (!tables.hasFirst) {
    second(trace, memory, tables, hi, lo);
    return;
  }
  let tableHi = tables.firstHi;
  let tableLo = tables.firstLo;
  for (let level = tables.firstLevels; level >= 1; level--) {
    const frame = tables.secondFrame >= 0 ? second(trace, memory, tables, tableHi, tableLo) : frameOf(tableHi, tableLo);
    const base = frame < 0 ? -1 : memory.at(frame);
    if (base < 0) return;
    const index = indexOf(hi & 0xffff, lo, level);
    trace.emit(Event.walkStep, 1, level, frame, index);
    const low = memory.words[base + index * 2]! | 0;
    if (!(low & PRESENT)) return;
    tableHi = memory.words[base + index * 2 + 1]! & 0xf_ffff;
    tableLo = low & ~0xfff;
    if (level > 1 && low & PAGE_SIZE) break;
  }
  if (tables.secondFrame >= 0) second(trace, memory, tables, tableHi, tableLo);
}

/** One walk of the second stage; the frame of the 4 KiB page, or -1. */
function second(trace: Trace, memory: MemoryWords, tables: Tables, hi: number, lo: number): number {
  let frame = tables.secondFrame;
  for (let level = tables.secondLevels; level >= 1; level--) {
    const base = memory.at(frame);
    if (base < 0) return -1;
    const index = indexOf(hi, lo, level);
    trace.emit(Event.walkStep, 2, level, frame, index);
    const low = memory.words[base + index * 2]! | 0;
    if (!(low & READ_WRITE)) return -1;
    frame = ((memory.words[base + index * 2 + 1]! & 0xf_ffff) << 20) | (low >>> 12);
    if (level > 1 && low & PAGE_SIZE) {
      const within = 2 ** (9 * (level - 1)) - 1;
      return (frame & ~within) | (Math.floor(((hi >>> 0) * 2 ** 32 + (lo >>> 0)) / 4096) & within);
    }
  }
  return frame;
}
