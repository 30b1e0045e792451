/**
 * The physical address map: RAM and MMIO ranges by page frame, sparse. One map routes a frame to its bytes or to its device;
 * the kind of a memory is found after translation, never carried by an address.
 */
import { PAGE } from '@siov/layout/x86';
import type { Mmio, PhysicalMap, Region } from './ports.js';

/** Frames are int32, so physical addresses end at 2^43. */
const FRAME_LIMIT = 2 ** 31;
const NO_BYTES = new Uint8Array(0);
const NO_WORDS = new Uint32Array(0);

class MapRegion implements Region {
  readonly kind: 'ram' | 'mmio';
  readonly firstFrame: number;
  frames: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly device: Mmio | undefined;
  constructor(firstFrame: number, frames: number, bytes: Uint8Array, words: Uint32Array, device: Mmio | undefined) {
    this.kind = device ? 'mmio' : 'ram';
    this.firstFrame = firstFrame;
    this.frames = frames;
    this.bytes = bytes;
    this.words = words;
    this.device = device;
  }
}
const NOWHERE = new MapRegion(0, 0, NO_BYTES, NO_WORDS, undefined);

/** Sparse physical memory by regions. */
export class PhysicalMemory implements PhysicalMap {
  private list: MapRegion[] = [];
  private last = NOWHERE;

  /** All regions, by address. */
  get regions(): readonly Region[] {
    return this.list;
  }

  /** RAM at `firstFrame`. `bytes` (a view of any ArrayBuffer or SharedArrayBuffer, 4-byte aligned) becomes the memory; absent, a new buffer. */
  addRam(firstFrame: number, frames: number, bytes?: Uint8Array): Region {
    this.check(firstFrame, frames);
    const memory = bytes ?? new Uint8Array(frames * PAGE);
    if (memory.length !== frames * PAGE) throw new RangeError(`bytes: ${frames} frames need ${frames * PAGE} bytes, not ${memory.length}`);
    if (memory.byteOffset % 4) throw new RangeError(`bytes: the view starts at byte ${memory.byteOffset} of its buffer, not at a multiple of 4`);
    return this.add(new MapRegion(firstFrame, frames, memory, new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4), undefined));
  }

  /** A device's registers at `firstFrame`. */
  addMmio(firstFrame: number, frames: number, device: Mmio): Region {
    this.check(firstFrame, frames);
    if (!device) throw new TypeError('device: an MMIO region needs a device');
    return this.add(new MapRegion(firstFrame, frames, NO_BYTES, NO_WORDS, device));
  }

  /** Takes the region out; later accesses to its frames reach nothing, also through a remembered region or TLB entry. */
  remove(region: Region): void {
    const at = this.list.indexOf(region as MapRegion);
    if (at < 0) throw new RangeError('region: not in this map');
    this.list[at]!.frames = 0;
    this.list.splice(at, 1);
    this.last = NOWHERE;
  }

  regionOf(frame: number): Region | undefined {
    const last = this.last;
    if ((frame - last.firstFrame) >>> 0 < last.frames) return last;
    const list = this.list;
    let low = 0;
    let high = list.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const region = list[middle]!;
      if (frame < region.firstFrame) high = middle - 1;
      else if (frame - region.firstFrame >= region.frames) low = middle + 1;
      else return (this.last = region);
    }
    return undefined;
  }

  private add(region: MapRegion): Region {
    let at = 0;
    while (at < this.list.length && this.list[at]!.firstFrame < region.firstFrame) at++;
    this.list.splice(at, 0, region);
    return region;
  }

  private check(firstFrame: number, frames: number): void {
    if (!Number.isInteger(firstFrame) || firstFrame < 0) throw new RangeError(`firstFrame: ${firstFrame} is not a page frame`);
    if (!Number.isInteger(frames) || frames < 1 || firstFrame + frames > FRAME_LIMIT)
      throw new RangeError(`frames: ${frames} from frame ${firstFrame} leave the physical address space of 2^43 bytes`);
    for (const other of this.list)
      if (firstFrame < other.firstFrame + other.frames && other.firstFrame < firstFrame + frames)
        throw new RangeError(`firstFrame: frames ${firstFrame} to ${firstFrame + frames - 1} overlap the ${other.kind} at ${other.firstFrame}`);
  }
}
