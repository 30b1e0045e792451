/**
 * Pin counts of page frames, shared by all address spaces over one allocator: a frame that its owner lets go while it is pinned
 * stays out of the allocator until the last unpin. A block of 2 MiB or 1 GiB counts as one frame, its first.
 */
import type { Frames } from './ports.js';

const CHUNK_SHIFT = 12;
const CHUNK_MASK = (1 << CHUNK_SHIFT) - 1;
const BLOCK = { 9: ~0x1ff, 18: ~0x3_ffff } as const;

/** Pages of 4 KiB, 2 MiB and 1 GiB, as powers of two of 4 KiB. */
export type Order = 0 | 9 | 18;

export class Pins {
  private readonly frames: Frames;
  private readonly chunks = new Map<number, Int32Array>();
  /** First frames of blocks that are handed out, by order. */
  private readonly blocks = { 9: new Set<number>(), 18: new Set<number>() } as const;
  /** Blocks let go by their owner while pinned: first frame to order. */
  private readonly deferred = new Map<number, number>();
  /** Address spaces beside the first that show a block copy-on-write, by its first frame. */
  private readonly sharers = new Map<number, number>();
  private lastChunk = -1;
  private lastCounts: Int32Array = new Int32Array(0);

  constructor(frames: Frames) {
    this.frames = frames;
  }

  /** The first frame of a block of 2^order frames, or -1. */
  alloc(order: Order): number {
    const frame = this.frames.alloc(order);
    if (frame >= 0 && order !== 0) this.blocks[order].add(frame);
    return frame;
  }

  pin(frame: number): void {
    const head = this.headOf(frame);
    this.countsOf(head)[head & CHUNK_MASK]!++;
  }

  /** How often a frame is pinned. */
  count(frame: number): number {
    const head = this.headOf(frame);
    return this.countsOf(head)[head & CHUNK_MASK]!;
  }

  unpin(frame: number): void {
    const head = this.headOf(frame);
    const counts = this.countsOf(head);
    const left = counts[head & CHUNK_MASK]! - 1;
    if (left < 0) throw new RangeError(`frames: frame ${frame} is not pinned`);
    counts[head & CHUNK_MASK] = left;
    if (left > 0) return;
    const order = this.deferred.get(head);
    if (order === undefined) return;
    this.deferred.delete(head);
    this.give(head, order);
  }

  /** One more address space shows a block until it writes it. */
  share(frame: number): void {
    this.sharers.set(frame, (this.sharers.get(frame) ?? 0) + 1);
  }
  isShared(frame: number): boolean {
    return this.sharers.size > 0 && this.sharers.has(frame);
  }

  /** The owner, or one of several, lets the block go. */
  release(frame: number, order: number): void {
    const others = this.sharers.get(frame);
    if (others !== undefined) {
      if (others > 1) this.sharers.set(frame, others - 1);
      else this.sharers.delete(frame);
      return;
    }
    if (this.countsOf(frame)[frame & CHUNK_MASK]! > 0) this.deferred.set(frame, order);
    else this.give(frame, order);
  }

  private give(frame: number, order: number): void {
    if (order === 9 || order === 18) this.blocks[order].delete(frame);
    this.frames.free(frame, order);
  }

  private headOf(frame: number): number {
    const { 9: large, 18: gigantic } = this.blocks;
    if (large.size > 0 && large.has(frame & BLOCK[9])) return frame & BLOCK[9];
    return gigantic.size > 0 && gigantic.has(frame & BLOCK[18]) ? frame & BLOCK[18] : frame;
  }

  private countsOf(frame: number): Int32Array {
    const chunk = frame >>> CHUNK_SHIFT;
    if (chunk === this.lastChunk) return this.lastCounts;
    let counts = this.chunks.get(chunk);
    if (!counts) this.chunks.set(chunk, (counts = new Int32Array(1 << CHUNK_SHIFT)));
    this.lastChunk = chunk;
    return (this.lastCounts = counts);
  }
}

const pinsByFrames = new WeakMap<Frames, Pins>();
/** The one table of an allocator. */
export function pinsOf(frames: Frames): Pins {
  let pins = pinsByFrames.get(frames);
  if (!pins) pinsByFrames.set(frames, (pins = new Pins(frames)));
  return pins;
}
/** How often a frame of an allocator is pinned. */
export const pinCount = (frames: Frames, frame: number): number => pinsOf(frames).count(frame);
