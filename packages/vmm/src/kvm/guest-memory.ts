/**
 * Guest physical RAM as a map of its own: the guest's kernel reads and writes the host frames behind its memslots through regions numbered
 * by guest frames, one for each contiguous run of host frames. A run that the host takes back has 0 frames and no bytes from then on.
 */
import type { PhysicalMap, Region } from '../ports.js';
import type { Memslot } from './memslots.js';

export interface GuestBacking {
  /** The slot with RAM at a guest frame. */
  slotOf(guestFrame: number): Memslot | undefined;
  slots(): readonly Memslot[];
  /** Host frame of a guest frame of the slot, faulted in; -1 when it cannot be had. */
  hostFrame(slot: Memslot, guestFrame: number): number;
}
const NO_BYTES = new Uint8Array(0);
const NO_WORDS = new Uint32Array(0);

class GuestRegion implements Region {
  readonly kind = 'ram';
  readonly firstFrame: number;
  frames: number;
  bytes: Uint8Array;
  words: Uint32Array;
  readonly device = undefined;
  constructor(firstFrame: number, frames: number, bytes: Uint8Array, words: Uint32Array) {
    this.firstFrame = firstFrame;
    this.frames = frames;
    this.bytes = bytes;
    this.words = words;
  }
  drop(): void {
    this.frames = 0;
    this.bytes = NO_BYTES;
    this.words = NO_WORDS;
  }
}

export class GuestMemory implements PhysicalMap {
  private readonly backing: GuestBacking;
  private readonly host: PhysicalMap;
  private list: GuestRegion[] = [];
  private last = new GuestRegion(0, 0, NO_BYTES, NO_WORDS);

  constructor(backing: GuestBacking, host: PhysicalMap) {
    this.backing = backing;
    this.host = host;
  }

  /** All RAM there is now, by guest address; faults it in. */
  get regions(): readonly Region[] {
    for (const slot of this.backing.slots())
      for (let frame = slot.firstFrame; frame < slot.firstFrame + slot.frames; ) {
        const region = this.regionOf(frame);
        frame = region ? region.firstFrame + region.frames : frame + 1;
      }
    return this.list;
  }

  regionOf(frame: number): Region | undefined {
    const { last } = this;
    if ((frame - last.firstFrame) >>> 0 < last.frames) return last;
    const at = this.below(frame);
    const region = this.list[at];
    if (region && frame - region.firstFrame < region.frames) return (this.last = region);
    return this.add(frame, at);
  }

  /** The host took `count` guest frames back. */
  invalidate(firstFrame: number, count: number): void {
    const end = firstFrame + count;
    this.list = this.list.filter((region) => {
      if (region.firstFrame >= end || region.firstFrame + region.frames <= firstFrame) return true;
      region.drop();
      return false;
    });
  }

  /** Index of the last region that starts at or below a frame, or -1. */
  private below(frame: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.list[middle]!.firstFrame <= frame) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** A region around `frame`, as far as host frames follow each other, between region `below` and the next. */
  private add(frame: number, below: number): Region | undefined {
    const { backing } = this;
    const slot = backing.slotOf(frame);
    const hostFrame = slot && !slot.readOnly ? backing.hostFrame(slot, frame) : -1;
    const host = hostFrame < 0 ? undefined : this.host.regionOf(hostFrame);
    if (!slot || host?.kind !== 'ram') return undefined;
    const previous = this.list[below];
    const floor = Math.max(slot.firstFrame, previous ? previous.firstFrame + previous.frames : 0);
    const top = Math.min(slot.firstFrame + slot.frames, this.list[below + 1]?.firstFrame ?? Infinity);
    const follows = (at: number): boolean => {
      const expected = hostFrame + at - frame;
      return (expected - host.firstFrame) >>> 0 < host.frames && backing.hostFrame(slot, at) === expected;
    };
    let first = frame;
    while (first > floor && follows(first - 1)) first--;
    let end = frame + 1;
    while (end < top && follows(end)) end++;
    const from = hostFrame + first - frame - host.firstFrame;
    const to = from + end - first;
    const region = new GuestRegion(first, end - first, host.bytes.subarray(from * 4096, to * 4096), host.words.subarray(from * 1024, to * 1024));
    this.list.splice(below + 1, 0, region);
    return (this.last = region);
  }
}
