/**
 * The type 1 IOMMU of a container: mappings of user memory that devices may reach. linux/vfio.h, "IOCTLs for Type1 VFIO IOMMU"; the order
 * of the checks is the kernel's (vfio_iommu_type1.c).
 */
import { Errno, Prot } from '@siov/layout/uapi';
import { CapabilityChain } from './capabilities.js';
import { DirtyTracking } from './dirty.js';
import { PinnedRange } from './pins.js';
import type { PagingDomain, Task } from './ports.js';
import { highOf, join, lowOf, overflows, Structure } from './structure.js';
import {
  DirtyBitmap,
  DMA_ENTRY_LIMIT,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  DmaUnmapFlag,
  Ioctl,
  IommuCap,
  IommuInfo,
  IommuInfoFlag,
  MAX_DIRTY_BITMAP,
} from './uapi.js';

export interface IovaRange {
  readonly start: number;
  /** Inclusive. */
  readonly end: number;
}
export interface Type1Options {
  /** Where mappings may lie (default: 48 bits without the interrupt window 0xfee0_0000 to 0xfeef_ffff). */
  readonly iovaRanges?: readonly IovaRange[];
  /** Bitmap of page sizes (default: 4 KiB, 2 MiB, 1 GiB). */
  readonly pageSizes?: number;
  /** Pages a container may pin (default: no limit). RLIMIT_MEMLOCK. */
  readonly lockedPages?: number;
  /** Mappings a container may have (default 65535). Module parameter dma_entry_limit. */
  readonly mappings?: number;
  /** Whether a frame holds device registers: such pages can be mapped although they cannot be pinned. Absent: -EFAULT. */
  isDevice?(frame: number): boolean;
}
const RANGES: readonly IovaRange[] = [
  { start: 0, end: 0xfedf_ffff },
  { start: 0xfef0_0000, end: 2 ** 48 - 1 },
];
const PAGE_SIZES = 0x4020_1000;

export class Type1 {
  readonly domain: PagingDomain;
  private readonly version2: boolean;
  private readonly options: Type1Options;
  private readonly pageSizes: number;
  private readonly pageBytes: number;
  private readonly limit: number;
  /** By iova. */
  private readonly mappings: PinnedRange[] = [];
  private lockedPages = 0;
  private readonly dirty: DirtyTracking;
  private readonly room = new Structure(IommuInfo, DmaMap, DmaUnmap);
  private readonly bitmap = new Structure(DirtyBitmap);

  constructor(domain: PagingDomain, version2: boolean, options: Type1Options = {}) {
    this.domain = domain;
    this.version2 = version2;
    this.options = options;
    this.pageSizes = options.pageSizes ?? PAGE_SIZES;
    this.pageBytes = this.pageSizes & -this.pageSizes;
    this.limit = options.mappings ?? DMA_ENTRY_LIMIT;
    this.dirty = new DirtyTracking(this.pageBytes, this.mappings);
  }

  ioctl(task: Task, number: number, address: number): number {
    switch (number) {
      case Ioctl.IOMMU_GET_INFO:
        return this.info(task, address);
      case Ioctl.IOMMU_MAP_DMA:
        return this.map(task, address);
      case Ioctl.IOMMU_UNMAP_DMA:
        return this.unmap(task, address);
      case Ioctl.IOMMU_DIRTY_PAGES:
        return this.version2 ? this.dirty.ioctl(task, address) : -Errno.EACCES;
      default:
        return -Errno.ENOTTY;
    }
  }

  /** All mappings go, then the domain, to which nothing is attached any more. */
  free(): void {
    while (this.mappings.length > 0) this.drop(this.mappings.length - 1);
    this.domain.free();
  }

  private info(task: Task, address: number): number {
    const { room } = this;
    const { words } = room;
    const { get, set, bytes } = IommuInfo;
    const smallest = 16;
    const refused = room.copyIn(task, address, smallest);
    if (refused) return refused;
    const argsz = get.argsz(words, 0);
    const chain = this.capabilities();
    set.flags(words, 0, IommuInfoFlag.PGSIZES | IommuInfoFlag.CAPS);
    set.pageSizesLow(words, 0, this.pageSizes);
    set.pageSizesHigh(words, 0, 0);
    const fits = argsz >= chain.need;
    set.capOffset(words, 0, fits ? bytes : 0);
    if (!fits) set.argsz(words, 0, chain.need);
    const withOffset = 20;
    return (fits && chain.copyOut(task, address)) || room.copyOut(task, address, argsz >= withOffset ? withOffset : smallest);
  }

  private capabilities(): CapabilityChain {
    const chain = new CapabilityChain(IommuInfo.bytes);
    const migration = chain.add(IommuCap.MIGRATION, 1, 32);
    migration[4] = this.pageBytes;
    migration[6] = MAX_DIRTY_BITMAP;
    chain.add(IommuCap.DMA_AVAIL, 1, 12)[2] = this.limit - this.mappings.length;
    const ranges = this.options.iovaRanges ?? RANGES;
    const words = chain.add(IommuCap.IOVA_RANGE, 1, 16 + ranges.length * 16);
    words[2] = ranges.length;
    ranges.forEach(({ start, end }, i) => {
      words.set([lowOf(start), highOf(start), lowOf(end), highOf(end)], 4 + i * 4);
    });
    return chain;
  }

  private map(task: Task, address: number): number {
    const { words } = this.room;
    const refused = this.room.copyIn(task, address, DmaMap.bytes);
    if (refused) return refused;
    const { get } = DmaMap;
    const flags = get.flags(words, 0);
    const { READ, WRITE, VADDR } = DmaMapFlag;
    if (flags & ~(READ | WRITE | VADDR)) return -Errno.EINVAL;
    const [sizeHigh, sizeLow] = [get.sizeHigh(words, 0), get.sizeLow(words, 0)];
    const [iovaHigh, iovaLow] = [get.iovaHigh(words, 0), get.iovaLow(words, 0)];
    const [vaddrHigh, vaddrLow] = [get.vaddrHigh(words, 0), get.vaddrLow(words, 0)];
    if (sizeHigh === 0 && sizeLow === 0) return -Errno.EINVAL;
    if (overflows(iovaHigh, iovaLow, sizeHigh, sizeLow) || overflows(vaddrHigh, vaddrLow, sizeHigh, sizeLow)) return -Errno.EOVERFLOW;
    const rights = (flags & (READ | WRITE)) !== 0;
    if (rights === ((flags & VADDR) !== 0)) return -Errno.EINVAL;
    if ((sizeLow | iovaLow | vaddrLow) & (this.pageBytes - 1)) return -Errno.EINVAL;
    const iova = join(iovaHigh, iovaLow);
    const size = join(sizeHigh, sizeLow);
    const at = this.firstFrom(iova);
    const next = this.mappings[at];
    // No mapping here ever loses its address, so there is none to be given a new one.
    if (flags & VADDR) return next?.iova === iova ? -Errno.EINVAL : -Errno.ENOENT;
    if (next && next.iova < iova + size) return -Errno.EEXIST;
    if (this.mappings.length >= this.limit) return -Errno.ENOSPC;
    const ranges = this.options.iovaRanges ?? RANGES;
    if (!ranges.some(({ start, end }) => iova >= start && iova + size - 1 <= end)) return -Errno.EINVAL;
    const pages = size / 4096;
    if (this.lockedPages + pages > (this.options.lockedPages ?? Number.POSITIVE_INFINITY)) return -Errno.ENOMEM;
    const { options } = this;
    const isDevice = options.isDevice && ((frame: number): boolean => options.isDevice!(frame));
    const range = new PinnedRange(task.mm, this.domain, iova, size);
    const prot = (flags & READ ? Prot.READ : 0) | (flags & WRITE ? Prot.WRITE : 0);
    const result = range.take(join(vaddrHigh, vaddrLow), prot, isDevice);
    if (result < 0) return result;
    this.lockedPages += pages;
    this.mappings.splice(at, 0, range);
    return 0;
  }

  private unmap(task: Task, address: number): number {
    const { words } = this.room;
    const { get, set, bytes } = DmaUnmap;
    const refused = this.room.copyIn(task, address, bytes);
    if (refused) return refused;
    const flags = get.flags(words, 0);
    const { GET_DIRTY_BITMAP, ALL, VADDR } = DmaUnmapFlag;
    if (flags & ~(GET_DIRTY_BITMAP | ALL | VADDR)) return -Errno.EINVAL;
    const wantsBitmap = (flags & GET_DIRTY_BITMAP) !== 0;
    if (wantsBitmap && flags & (ALL | VADDR)) return -Errno.EINVAL;
    if (wantsBitmap) {
      if (get.argsz(words, 0) < bytes + DirtyBitmap.bytes || !this.dirty.on) return -Errno.EINVAL;
      if (task.copyIn(address + bytes, new Uint8Array(this.bitmap.words.buffer)) < 0) return -Errno.EFAULT;
    }
    // Addresses cannot be taken back from mappings: the answer of a container with an mdev.
    if (flags & VADDR) return -Errno.EBUSY;
    const [sizeHigh, sizeLow] = [get.sizeHigh(words, 0), get.sizeLow(words, 0)];
    const [iovaHigh, iovaLow] = [get.iovaHigh(words, 0), get.iovaLow(words, 0)];
    const iova = join(iovaHigh, iovaLow);
    let end = iova + join(sizeHigh, sizeLow);
    if (iovaLow & (this.pageBytes - 1)) return -Errno.EINVAL;
    if (flags & ALL) {
      if (iova !== 0 || end !== 0) return -Errno.EINVAL;
      end = Number.POSITIVE_INFINITY;
    } else {
      if (end === iova && sizeLow === 0 && sizeHigh === 0) return -Errno.EINVAL;
      if (sizeLow & (this.pageBytes - 1)) return -Errno.EINVAL;
      if (overflows(iovaHigh, iovaLow, sizeHigh, sizeLow)) return -Errno.EOVERFLOW;
    }
    if (wantsBitmap) {
      const bad = this.dirty.refuse(this.bitmap.words, 0, end - iova);
      if (bad) return bad;
    }
    const first = this.firstFrom(iova);
    let last = this.firstFrom(end);
    const cutsStart = first < this.mappings.length && this.mappings[first]!.iova < iova;
    const cutsEnd = last < this.mappings.length && this.mappings[last]!.iova < end;
    if (this.version2 && (cutsStart || cutsEnd)) return -Errno.EINVAL;
    // Version 1: a mapping that starts in the range goes whole, one that starts before it stays.
    if (cutsEnd) last++;
    const from = cutsStart ? first + 1 : first;
    if (wantsBitmap) {
      const fault = this.dirty.report(task, this.bitmap.words, 0, iova, end - iova);
      if (fault) return fault;
    }
    let unmapped = 0;
    for (let at = last - 1; at >= from; at--) unmapped += this.drop(at);
    set.sizeLow(words, 0, lowOf(unmapped));
    set.sizeHigh(words, 0, highOf(unmapped));
    return this.room.copyOut(task, address, bytes);
  }

  /** Index of the first mapping that ends after `iova`. */
  private firstFrom(iova: number): number {
    let low = 0;
    for (let high = this.mappings.length; low < high; ) {
      const middle = (low + high) >>> 1;
      const { iova: start, size } = this.mappings[middle]!;
      if (start + size > iova) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  private drop(at: number): number {
    const [range] = this.mappings.splice(at, 1);
    range!.release();
    this.lockedPages -= range!.size / 4096;
    return range!.size;
  }
}
