/**
 * A file of memory: pages that whoever maps it shares, and that stay while the file is open or mapped. memfd_create(2).
 */
import { Errno } from '@siov/layout/uapi';
import { SharedPages } from './areas.js';
import { type Pins, pinsOf } from './pins.js';
import type { Frames, PhysicalMap } from './ports.js';

const PAGE = 4096;

export class MemoryFile extends SharedPages {
  readonly writable = true;
  /** For an address space that maps it. */
  readonly shared = this;
  private readonly frameSource: Frames;
  private readonly memory: PhysicalMap;
  private readonly pins: Pins;
  private length = 0;

  constructor(ports: { readonly memory: PhysicalMap; readonly frames: Frames }) {
    super();
    this.memory = ports.memory;
    this.frameSource = ports.frames;
    this.pins = pinsOf(ports.frames);
    // The open file is a user, as a mapping is.
    this.users = 1;
  }

  get bytes(): number {
    return this.length;
  }
  override get pages(): number {
    return Math.ceil(this.length / PAGE);
  }
  /**
   * ftruncate(2): 0 or -EINVAL. What is cut off is gone from all mappings, copies that private ones had made of it too, and an access there is
   * SIGBUS; pages that are pinned stay with who pinned them. What comes back is zero.
   */
  resize(bytes: number): number {
    if (!Number.isSafeInteger(bytes) || bytes < 0) return -Errno.EINVAL;
    const shorter = bytes < this.length;
    this.length = bytes;
    if (!shorter) return 0;
    const { pages } = this;
    for (const area of this.areas) area.owner.cutOff(area, pages);
    for (const [page, frame] of this.frames) {
      if (page < pages) continue;
      this.frames.delete(page);
      this.pins.release(frame, 0);
    }
    const rest = bytes % PAGE;
    const frame = this.frames.get(pages - 1);
    const region = frame === undefined ? undefined : this.memory.regionOf(frame);
    if (rest > 0 && region) region.bytes.fill(0, (frame! - region.firstFrame) * PAGE + rest, (frame! - region.firstFrame + 1) * PAGE);
    return 0;
  }
  /** Without anonymous memory behind it: see `shared`. */
  map(): number {
    return 0;
  }

  /** Pins pages, which are there from then on. Their number, or -errno with nothing pinned: -EINVAL beyond the end, -ENOMEM. */
  pin(first: number, pages: number, out: Int32Array, at = 0): number {
    if (first < 0 || first + pages > this.pages) return -Errno.EINVAL;
    for (let i = 0; i < pages; i++) {
      const frame = this.frameOf(first + i);
      if (frame < 0) {
        this.unpin(out.subarray(at), i);
        return -Errno.ENOMEM;
      }
      this.pins.pin(frame);
      out[at + i] = frame;
    }
    return pages;
  }
  unpin(frames: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) this.pins.unpin(frames[i]!);
  }

  /** Bytes read from an offset: fewer at the end. */
  read(offset: number, out: Uint8Array): number {
    return this.copy(offset, out, false);
  }
  /** Bytes written; the file grows. -ENOMEM when there is no page for the first of them. */
  write(offset: number, bytes: Uint8Array): number {
    if (offset + bytes.length > this.length) this.length = offset + bytes.length;
    return this.copy(offset, bytes, true);
  }
  /** Somebody in the kernel keeps the pages; returns what ends that. */
  hold(): () => void {
    this.users++;
    return () => this.close();
  }
  /** The last descriptor is gone; mappings and holders keep the pages. */
  close(): void {
    if (--this.users > 0) return;
    for (const frame of this.frames.values()) this.pins.release(frame, 0);
    this.frames.clear();
  }

  /** A page's frame, made when it is asked for; -1 without memory. */
  frameOf(page: number): number {
    let frame = this.frames.get(page) ?? -1;
    if (frame >= 0) return frame;
    frame = this.frameSource.alloc();
    if (frame >= 0) this.frames.set(page, frame);
    return frame;
  }
  private copy(offset: number, bytes: Uint8Array, write: boolean): number {
    const end = Math.min(bytes.length, Math.max(0, this.length - offset));
    let done = 0;
    while (done < end) {
      const at = offset + done;
      const frame = this.frameOf(Math.floor(at / PAGE));
      const region = frame < 0 ? undefined : this.memory.regionOf(frame);
      if (!region) return done || -Errno.ENOMEM;
      const length = Math.min(PAGE - (at % PAGE), end - done);
      const from = (frame - region.firstFrame) * PAGE + (at % PAGE);
      if (write) region.bytes.set(bytes.subarray(done, done + length), from);
      else bytes.set(region.bytes.subarray(from, from + length), done);
      done += length;
    }
    return done;
  }
}
