/**
 * An I/O address space: areas of pinned user pages by IOVA, mapped into every page table that stands on it. Areas are whole: never split,
 * never merged. linux/iommufd.h, IOMMU_IOAS_MAP, _UNMAP, _COPY.
 */
import { Errno } from '@siov/layout/uapi';
import type { PinningMm } from '../ports.js';
import type { PagingDomain } from './types.js';

/** Pages pinned by one IOMMU_IOAS_MAP; areas that copy shares hold a reference each. */
interface Pinned {
  readonly mm: PinningMm;
  readonly frames: Int32Array;
  references: number;
}
interface Area {
  /** First page of the IOVA range. */
  readonly page: number;
  readonly frames: Int32Array;
  readonly prot: number;
  readonly pinned: readonly Pinned[];
}
/** What hardware reserves: the interrupt range 0xFEE0_0000 to 0xFEEF_FFFF. Pages. */
const RESERVED_FROM = 0xf_ee00;
const RESERVED_TO = 0xf_ef00;
/** Without hardware behind it an IOAS has all 64-bit addresses: 2^52 pages. */
const ALL_PAGES = 2 ** 52;

export class Ioas {
  private readonly areas: Area[] = [];
  private readonly domains = new Map<PagingDomain, number>();

  /** Ranges of IOVAs that may be mapped, in bytes: [start, end). */
  get ranges(): readonly (readonly [start: number, end: number])[] {
    const limit = this.limit;
    if (limit === ALL_PAGES) return [[0, 2 ** 64]];
    return [
      [0, RESERVED_FROM * 4096],
      [RESERVED_TO * 4096, limit * 4096],
    ];
  }
  private get limit(): number {
    return Math.min(ALL_PAGES, ...this.domains.values());
  }
  get mappedPages(): number {
    return this.areas.reduce((sum, area) => sum + area.frames.length, 0);
  }

  /** Pins user pages and maps them. Returns the IOVA in bytes, or -errno. `iova` undefined: choose one. All in bytes, page-aligned. */
  mapUser(mm: PinningMm, address: number, length: number, iova: number | undefined, prot: number, writable: boolean): number {
    if (length === 0) return -Errno.EOVERFLOW;
    if (address % 4096 || length % 4096) return -Errno.EINVAL;
    const pages = length / 4096;
    const page = iova === undefined ? this.choose(pages, address) : this.check(iova, pages);
    if (page < 0) return page;
    if (pages > 2 ** 30) return -Errno.ENOMEM;
    const frames = new Int32Array(pages);
    const pinned = mm.pin(address, pages, writable, frames);
    if (pinned !== pages) {
      if (pinned > 0) mm.unpin(frames, pinned);
      return pinned < 0 ? pinned : -Errno.EFAULT;
    }
    const owner: Pinned = { mm, frames, references: 0 };
    const error = this.add({ page, frames, prot, pinned: [owner] });
    if (error) mm.unpin(frames, pages);
    return error || page * 4096;
  }

  /** Maps what another IOAS (or this one) has at [sourceIova, + length) here too. Returns the IOVA, or -errno: ENOENT when a byte is missing. */
  copy(source: Ioas, sourceIova: number, length: number, iova: number | undefined, prot: number): number {
    if (length === 0) return -Errno.EOVERFLOW;
    if (sourceIova % 4096 || length % 4096) return -Errno.EINVAL;
    const pages = length / 4096;
    const from = sourceIova / 4096;
    const parts: Area[] = [];
    let at = from;
    for (let i = source.indexAt(from); at < from + pages; i++) {
      const area = source.areas[i];
      if (!area || area.page > at || area.page + area.frames.length <= at) return -Errno.ENOENT;
      parts.push(area);
      at = area.page + area.frames.length;
    }
    const page = iova === undefined ? this.choose(pages, 0) : this.check(iova, pages);
    if (page < 0) return page;
    const frames = new Int32Array(pages);
    for (const area of parts) {
      const start = Math.max(area.page, from);
      const end = Math.min(area.page + area.frames.length, from + pages);
      frames.set(area.frames.subarray(start - area.page, end - area.page), start - from);
    }
    return this.add({ page, frames, prot, pinned: [...new Set(parts.flatMap((area) => area.pinned))] }) || page * 4096;
  }

  /** Unmaps the areas within [iova, iova + length). Bytes unmapped, or -ENOENT: none, or one lies only partly within. */
  unmap(iova: number, length: number): number {
    const from = iova / 4096;
    const to = (iova + length) / 4096;
    const first = this.indexAt(Math.floor(from));
    let last = first;
    for (; last < this.areas.length && this.areas[last]!.page < to; last++) {
      const area = this.areas[last]!;
      if (area.page < from || area.page + area.frames.length > to) return -Errno.ENOENT;
    }
    if (last === first) return -Errno.ENOENT;
    let pages = 0;
    for (const area of this.areas.splice(first, last - first)) pages += this.drop(area);
    return pages * 4096;
  }
  unmapAll(): number {
    let pages = 0;
    for (const area of this.areas.splice(0)) pages += this.drop(area);
    return pages * 4096;
  }

  /** A page table stands on this IOAS from now on: it gets all areas. `pages`: what its addresses can name. 0 or -errno. */
  addDomain(domain: PagingDomain, pages: number): number {
    for (const area of this.areas) {
      const end = area.page + area.frames.length;
      if (end > pages || (area.page < RESERVED_TO && end > RESERVED_FROM)) return -Errno.EADDRINUSE;
    }
    for (const [i, area] of this.areas.entries()) {
      const error = mapArea(domain, area);
      if (!error) continue;
      for (const done of this.areas.slice(0, i)) domain.unmap(done.page * 4096, done.frames.length * 4096);
      return error;
    }
    this.domains.set(domain, pages);
    return 0;
  }
  /** It goes; its own table is its owner's to free. */
  removeDomain(domain: PagingDomain): void {
    this.domains.delete(domain);
  }

  private add(area: Area): number {
    const done: PagingDomain[] = [];
    for (const domain of this.domains.keys()) {
      const error = mapArea(domain, area);
      if (error) {
        for (const other of done) other.unmap(area.page * 4096, area.frames.length * 4096);
        return error;
      }
      done.push(domain);
    }
    for (const owner of area.pinned) owner.references++;
    this.areas.splice(this.indexAt(area.page), 0, area);
    return 0;
  }

  private drop(area: Area): number {
    for (const domain of this.domains.keys()) domain.unmap(area.page * 4096, area.frames.length * 4096);
    for (const owner of area.pinned) if (--owner.references === 0) owner.mm.unpin(owner.frames, owner.frames.length);
    return area.frames.length;
  }

  /** The page of a fixed IOVA, or -errno. */
  private check(iova: number, pages: number): number {
    if (iova % 4096) return -Errno.EINVAL;
    const page = iova / 4096;
    const end = page + pages;
    if (end > ALL_PAGES) return -Errno.EOVERFLOW;
    const { limit } = this;
    if (end > limit || (limit !== ALL_PAGES && page < RESERVED_TO && end > RESERVED_FROM)) return -Errno.EINVAL;
    const next = this.areas[this.indexAt(page)];
    return next && next.page < end ? -Errno.EEXIST : page;
  }

  /** A free IOVA, never 0: aligned to the least of the length, the user address's own alignment and 2 MiB. The page, or -ENOSPC. */
  private choose(pages: number, address: number): number {
    let align = 1;
    while (align < 512 && align < pages && address % (align * 2 * 4096) === 0) align *= 2;
    const limit = Math.min(this.limit, 2 ** 36);
    let page = align;
    for (const area of [...this.areas, undefined]) {
      if (page < RESERVED_TO && page + pages > RESERVED_FROM) page = Math.ceil(RESERVED_TO / align) * align;
      if (page + pages <= (area ? area.page : limit)) return page;
      if (area) page = Math.max(page, Math.ceil((area.page + area.frames.length) / align) * align);
    }
    return -Errno.ENOSPC;
  }

  /** The index of the first area that ends beyond a page. */
  private indexAt(page: number): number {
    let low = 0;
    let high = this.areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const area = this.areas[middle]!;
      if (area.page + area.frames.length <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Maps an area run by run of contiguous frames. */
function mapArea(domain: PagingDomain, { page, frames, prot }: Area): number {
  for (let i = 0; i < frames.length; ) {
    let run = 1;
    while (i + run < frames.length && frames[i + run] === frames[i]! + run) run++;
    const error = domain.map((page + i) * 4096, frames[i]!, run, prot);
    if (error) {
      if (i) domain.unmap(page * 4096, i * 4096);
      return error;
    }
    i += run;
  }
  return 0;
}
