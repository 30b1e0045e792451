/**
 * Page frames by the buddy system: free blocks of 2^order frames, naturally aligned, split on demand and joined with their buddy when
 * freed. Lists and states live in typed arrays, one entry a frame.
 */
import type { Frames, Region } from './ports.js';

/** Largest block: 2^18 frames, 1 GiB. */
export const MAX_ORDER = 18;
const NONE = -1;
/** States: -1 inside a block, 0 to 18 first frame of a free block, USED + order first frame of a block handed out. */
const USED = 64;
const WORDS_PER_FRAME = 1024;
const SCATTER_TRIES = 64;

export interface FrameAllocatorOptions {
  /** Hands out single frames at random places, by this seed, so that consecutive pages are not consecutive frames. */
  readonly scatter?: number;
}

export class FrameAllocator implements Frames {
  /** Frames this allocator manages, and how many of them are handed out. */
  readonly total: number;
  used = 0;
  private readonly region: Region;
  private readonly from: number;
  private readonly to: number;
  private readonly state: Int8Array;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly heads = new Int32Array(MAX_ORDER + 1).fill(NONE);
  private readonly scatter: boolean;
  private random: number;

  /** Manages frames [from, to) of a RAM region (default: all of it). Frame 0 is never handed out. */
  constructor(region: Region, from = region.firstFrame, to = region.firstFrame + region.frames, options: FrameAllocatorOptions = {}) {
    if (region.kind !== 'ram') throw new TypeError('region: only RAM has frames to hand out');
    if (from < region.firstFrame || to > region.firstFrame + region.frames || from >= to)
      throw new RangeError(`from, to: [${from}, ${to}) is not inside the region`);
    this.region = region;
    this.from = from = Math.max(from, 1);
    this.to = to;
    this.total = to - from;
    this.state = new Int8Array(this.total).fill(NONE);
    this.next = new Int32Array(this.total);
    this.previous = new Int32Array(this.total);
    this.scatter = options.scatter !== undefined;
    this.random = (options.scatter ?? 0) | 0 || 0x9e3779b9 | 0;
    for (let end = to; end > from; ) {
      let order = MAX_ORDER;
      while ((1 << order) - 1 && (end % (1 << order) !== 0 || end - (1 << order) < from)) order--;
      end -= 1 << order;
      this.push(end, order);
    }
  }

  /** First frame of 2^order zeroed frames, or -1 when no block is left. */
  alloc(order = 0): number {
    if (!(order >= 0 && order <= MAX_ORDER && order === (order | 0))) throw new RangeError(`order: ${order} is not 0 to ${MAX_ORDER}`);
    const frame = this.scatter && order === 0 ? this.takeRandom() : this.takeFirst(order);
    if (frame < 0) return NONE;
    this.state[frame - this.from] = USED + order;
    this.used += 1 << order;
    const at = (frame - this.region.firstFrame) * WORDS_PER_FRAME;
    this.region.words.fill(0, at, at + (WORDS_PER_FRAME << order));
    return frame;
  }

  /** Takes back a block with the order it was handed out with. */
  free(frame: number, order = 0): void {
    if (!(frame >= this.from && frame < this.to) || this.state[frame - this.from] !== USED + order)
      throw new RangeError(`frame: no block of order ${order} was handed out at frame ${frame}`);
    this.used -= 1 << order;
    this.state[frame - this.from] = NONE;
    for (; order < MAX_ORDER; order++) {
      const buddy = frame ^ (1 << order);
      if (buddy < this.from || buddy >= this.to || this.state[buddy - this.from] !== order) break;
      this.unlink(buddy, order);
      frame &= ~(1 << order);
    }
    this.push(frame, order);
  }

  private takeFirst(order: number): number {
    let found = order;
    while (found <= MAX_ORDER && this.heads[found] === NONE) found++;
    if (found > MAX_ORDER) return NONE;
    const frame = this.heads[found]!;
    this.unlink(frame, found);
    this.split(frame, found, frame, order);
    return frame;
  }

  private takeRandom(): number {
    for (let tries = 0; tries < SCATTER_TRIES; tries++) {
      this.random ^= this.random << 13;
      this.random ^= this.random >>> 17;
      this.random ^= this.random << 5;
      const frame = this.from + ((this.random >>> 0) % this.total);
      for (let order = 0; order <= MAX_ORDER; order++) {
        const head = frame & (-1 << order);
        if (head < this.from) break;
        if (this.state[head - this.from] !== order) continue;
        this.unlink(head, order);
        this.split(head, order, frame, 0);
        return frame;
      }
    }
    return this.takeFirst(0);
  }

  /** Puts back the halves of the block (head, have) that do not hold `keep`, down to order `want`. */
  private split(head: number, have: number, keep: number, want: number): void {
    for (let order = have - 1; order >= want; order--) {
      const upper = head + (1 << order);
      if (keep < upper) this.push(upper, order);
      else {
        this.push(head, order);
        head = upper;
      }
    }
  }

  private push(frame: number, order: number): void {
    const at = frame - this.from;
    const head = this.heads[order]!;
    this.state[at] = order;
    this.next[at] = head;
    this.previous[at] = NONE;
    if (head !== NONE) this.previous[head - this.from] = frame;
    this.heads[order] = frame;
  }

  private unlink(frame: number, order: number): void {
    const at = frame - this.from;
    const next = this.next[at]!;
    const previous = this.previous[at]!;
    this.state[at] = NONE;
    if (previous === NONE) this.heads[order] = next;
    else this.next[previous - this.from] = next;
    if (next !== NONE) this.previous[next - this.from] = previous;
  }
}
