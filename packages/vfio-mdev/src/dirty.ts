/**
 * Dirty pages of a container. Without help of the hardware all pinned pages count as dirty, at every report, as in the kernel.
 * linux/vfio.h, VFIO_IOMMU_DIRTY_PAGES.
 */
import { Errno } from '@siov/layout/uapi';
import type { Task } from './ports.js';
import { join, overflows, Structure } from './structure.js';
import { DirtyBitmap, DirtyPages, DirtyPagesFlag, DirtyRange, MAX_DIRTY_BITMAP } from './uapi.js';

interface Mapping {
  readonly iova: number;
  readonly size: number;
}
/** Bytes of the bitmap written at a time. */
const PIECE = 4096;
/** Where DirtyRange holds a DirtyBitmap, in words. */
const BITMAP = 4;

export class DirtyTracking {
  on = false;
  private readonly pageBytes: number;
  private readonly mappings: readonly Mapping[];
  private readonly room = new Structure(DirtyPages);
  private readonly range = new Uint32Array(DirtyRange.bytes / 4);

  /** `mappings` is the container's own list, by iova. */
  constructor(pageBytes: number, mappings: readonly Mapping[]) {
    this.pageBytes = pageBytes;
    this.mappings = mappings;
  }

  ioctl(task: Task, address: number): number {
    const refused = this.room.copyIn(task, address, DirtyPages.bytes);
    if (refused) return refused;
    const argsz = DirtyPages.get.argsz(this.room.words, 0);
    switch (DirtyPages.get.flags(this.room.words, 0)) {
      case DirtyPagesFlag.START:
        this.on = true;
        return 0;
      case DirtyPagesFlag.STOP:
        this.on = false;
        return 0;
      case DirtyPagesFlag.GET_BITMAP:
        return this.get(task, address, argsz);
      default:
        return -Errno.EINVAL;
    }
  }

  /** What is wrong with a DirtyBitmap for `size` bytes of iova: 0 or -EINVAL. */
  refuse(words: Uint32Array, at: number, size: number): number {
    const { get } = DirtyBitmap;
    const bytes = join(get.sizeHigh(words, at), get.sizeLow(words, at));
    if (get.pageSizeHigh(words, at) !== 0 || get.pageSizeLow(words, at) !== this.pageBytes) return -Errno.EINVAL;
    const need = Math.ceil(size / this.pageBytes / 64) * 8;
    return bytes === 0 || bytes > MAX_DIRTY_BITMAP || bytes < need ? -Errno.EINVAL : 0;
  }

  /** Sets the bits of pinned pages from `iova` in the caller's bitmap; clears no bit. 0 or -EFAULT. */
  report(task: Task, words: Uint32Array, at: number, iova: number, size: number): number {
    const { get } = DirtyBitmap;
    const data = join(get.dataHigh(words, at), get.dataLow(words, at));
    const piece = new Uint8Array(PIECE);
    for (const mapping of this.mappings) {
      if (mapping.iova < iova || mapping.iova >= iova + size) continue;
      const first = (mapping.iova - iova) / this.pageBytes;
      const end = first + mapping.size / this.pageBytes;
      for (let bit = first; bit < end; ) {
        const byte = Math.floor(bit / 8);
        const bits = Math.min(end - byte * 8, PIECE * 8);
        const bytes = piece.subarray(0, Math.ceil(bits / 8));
        if (task.copyIn(data + byte, bytes) < 0) return -Errno.EFAULT;
        for (let i = bit - byte * 8; i < bits; i++) bytes[i >>> 3]! |= 1 << (i & 7);
        if (task.copyOut(data + byte, bytes) < 0) return -Errno.EFAULT;
        bit = byte * 8 + bits;
      }
    }
    return 0;
  }

  private get(task: Task, address: number, argsz: number): number {
    const { range } = this;
    const { get, bytes } = DirtyRange;
    if (!this.on || argsz < DirtyPages.bytes + bytes) return -Errno.EINVAL;
    if (task.copyIn(address + DirtyPages.bytes, new Uint8Array(range.buffer)) < 0) return -Errno.EFAULT;
    const iova = join(get.iovaHigh(range, 0), get.iovaLow(range, 0));
    const size = join(get.sizeHigh(range, 0), get.sizeLow(range, 0));
    if (size !== 0 && overflows(get.iovaHigh(range, 0), get.iovaLow(range, 0), get.sizeHigh(range, 0), get.sizeLow(range, 0))) return -Errno.EINVAL;
    if (size === 0 || (get.iovaLow(range, 0) | get.sizeLow(range, 0)) & (this.pageBytes - 1)) return -Errno.EINVAL;
    const bad = this.refuse(range, BITMAP, size);
    if (bad) return bad;
    const end = iova + size;
    if (this.mappings.some((m) => m.iova < end && m.iova + m.size > iova && (m.iova < iova || m.iova + m.size > end))) return -Errno.EINVAL;
    return this.report(task, range, BITMAP, iova, size);
  }
}
