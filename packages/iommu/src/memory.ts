/** Word access to the tables and queues that lie in memory, the last region remembered. Word indices are int32: a region has less than 8 GiB. */
import type { PhysicalMap, Region } from './ports.js';

const NO_WORDS = new Uint32Array(0);

export class MemoryWords {
  /** The words that the index of the last successful `at` counts in. */
  words: Uint32Array = NO_WORDS;
  /** Undefined before the first; no stand-in, so that the code sees regions of one shape. */
  region: Region | undefined;
  private readonly map: PhysicalMap;
  constructor(map: PhysicalMap) {
    this.map = map;
  }
  /** The index in `words` of the first word of a page frame; -1: no RAM there. */
  at(frame: number): number {
    // What comes from a call or a field is any number to the compiler: it would subtract in floating point.
    frame |= 0;
    let region = this.region;
    if (region === undefined || (frame - region.firstFrame) >>> 0 >= region.frames) {
      const found = this.map.regionOf(frame);
      if (found === undefined || found.kind !== 'ram') return -1;
      this.region = region = found;
      this.words = found.words;
    }
    return (frame - region.firstFrame) << 10;
  }
}

/** The page frame of an address in two words; valid below 2^43. */
export const frameOf = (hi: number, lo: number): number => (hi << 20) | (lo >>> 12);
