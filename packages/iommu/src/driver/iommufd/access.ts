/**
 * A kernel driver's access to an I/O address space without DMA: pages are pinned, or bytes are copied. The owner is told before an area
 * goes and must have let go of it when it returns. Linux, struct iommufd_access.
 */
import { Errno } from '@siov/layout/uapi';
import { LAST_IOVA, type Slice } from './ioas.js';
import type { IoasObject } from './objects.js';

const PAGE = 4096;
const PAGE_N = 4096n;

export interface AccessOwner {
  /** Alignment of a page; without it pages cannot be pinned, and areas may lie anywhere. */
  readonly pins: boolean;
  /** Unpin what is in [iova, + length). */
  unmap?(iova: bigint, length: bigint): void;
  /** Pins also keep areas from being unmapped (-EBUSY). */
  readonly locks?: boolean;
}
/** Bytes of a page frame. */
export type FrameBytes = (frame: number) => Uint8Array | undefined;

export class Access {
  readonly alignment: bigint;
  /** What it is attached to. */
  object: IoasObject | undefined;
  private readonly owner: AccessOwner;
  private readonly bytesOf: FrameBytes;

  constructor(owner: AccessOwner, bytesOf: FrameBytes) {
    this.owner = owner;
    this.bytesOf = bytesOf;
    this.alignment = owner.pins ? PAGE_N : 1n;
  }

  /** To another address space, or away. The owner is told that all of the old one goes. 0 or -errno. */
  change(object: IoasObject | undefined): number {
    const before = this.object;
    if (before === object) return 0;
    const refused = object?.ioas.addAccess(this) ?? 0;
    if (refused) return refused;
    if (object) object.users++;
    if (before) {
      this.owner.unmap?.(0n, LAST_IOVA);
      before.ioas.removeAccess(this);
      before.users--;
    }
    this.object = object;
    return 0;
  }
  tell(iova: bigint, length: bigint): void {
    this.owner.unmap?.(iova, length);
  }

  /** Pins the pages of [iova, + length): their frames, or -errno with nothing pinned. */
  pin(iova: bigint, length: bigint, write: boolean): Int32Array | number {
    if (!this.owner.pins || length === 0n) return -Errno.EINVAL;
    const slices = this.slices(iova, length);
    if (typeof slices === 'number') return slices;
    const first = iova / PAGE_N;
    const out = new Int32Array(Number((iova + length - 1n) / PAGE_N - first) + 1);
    let at = 0;
    let refused = 0;
    for (const [i, slice] of slices.entries()) {
      const { area } = slice;
      const [page, count] = pagesOf(slice);
      // A page must not belong to two areas.
      const whole =
        (i === 0 || (BigInt(area.startByte) % PAGE_N === 0n && area.iova % PAGE_N === 0n)) &&
        (i === slices.length - 1 || (slice.last + 1n) % PAGE_N === 0n);
      if (area.going || !whole || (BigInt(area.startByte) - area.iova) % PAGE_N !== 0n) refused = -Errno.EINVAL;
      else if (write && !area.pages.writable) refused = -Errno.EPERM;
      else refused = area.pages.hold(page, count);
      if (refused) {
        for (const done of slices.slice(0, i)) this.release(done);
        return refused;
      }
      area.accesses++;
      if (this.owner.locks) area.locks++;
      out.set(area.pages.frames.subarray(page, page + count), at);
      at += count;
    }
    return out;
  }
  /** Takes a `pin` of exactly this range back. */
  unpin(iova: bigint, length: bigint): void {
    const slices = this.slices(iova, length);
    if (typeof slices !== 'number') for (const slice of slices) this.release(slice);
  }

  /** Copies bytes out of the address space, or into it. 0 or -errno. */
  copy(iova: bigint, bytes: Uint8Array, write: boolean): number {
    if (bytes.length === 0) return -Errno.EINVAL;
    const last = iova + BigInt(bytes.length) - 1n;
    if (last > LAST_IOVA) return -Errno.EOVERFLOW;
    const slices = this.object?.ioas.slicesUntilGap(iova, last) ?? [];
    let done = 0;
    for (const slice of slices) {
      const { pages } = slice.area;
      if (slice.area.going) return -Errno.EBUSY;
      if (write && !pages.writable) return -Errno.EPERM;
      const [page, count] = pagesOf(slice);
      const refused = pages.hold(page, count);
      if (refused) return refused;
      let byte = slice.area.startByte + Number(slice.iova - slice.area.iova);
      for (const end = byte + Number(slice.last - slice.iova) + 1; byte < end; ) {
        const length = Math.min(end - byte, PAGE - (byte % PAGE));
        const memory = this.bytesOf(pages.frames[Math.floor(byte / PAGE)]!)?.subarray(byte % PAGE, (byte % PAGE) + length);
        if (memory && write) memory.set(bytes.subarray(done, done + length));
        else if (memory) bytes.set(memory, done);
        byte += length;
        done += length;
      }
      pages.drop(page, count);
    }
    // What is there before a gap was copied.
    return slices.at(-1)?.last === last ? 0 : -Errno.ENOENT;
  }

  private slices(iova: bigint, length: bigint): Slice[] | number {
    if (iova + length - 1n > LAST_IOVA) return -Errno.EOVERFLOW;
    return this.object?.ioas.slices(iova, iova + length - 1n) ?? -Errno.ENOENT;
  }
  private release({ area, ...slice }: Slice): void {
    const [page, count] = pagesOf({ area, ...slice });
    area.pages.drop(page, count);
    area.accesses--;
    if (this.owner.locks) area.locks--;
  }
}

/** First page and number of pages of a slice, within its area's pages. */
function pagesOf({ area, iova, last }: Slice): [first: number, count: number] {
  const start = area.startByte + Number(iova - area.iova);
  const end = area.startByte + Number(last - area.iova);
  return [Math.floor(start / PAGE), Math.floor(end / PAGE) - Math.floor(start / PAGE) + 1];
}
