/**
 * An I/O address space: areas of pages by IOVA, mapped into every page table that stands on it. Areas are whole: never merged, and split
 * by the old VFIO interface alone. linux/iommufd.h, IOMMU_IOAS_MAP, _UNMAP, _COPY, _ALLOW_IOVAS; Linux, struct io_pagetable.
 */
import { Errno } from '@siov/layout/uapi';
import type { Access } from './access.js';
import type { IovaSpan, PageTable } from './ops.js';
import type { Pages } from './pages.js';

const PAGE = 4096;
const PAGE_N = 4096n;
const HUGE = 0x20_0000n;
export const LAST_IOVA = 2n ** 64n - 1n;

/** Part of some pages. */
export interface Part {
  readonly pages: Pages;
  /** From the start of its first page. */
  readonly startByte: number;
  readonly bytes: number;
}
export interface Area extends Part {
  readonly iova: bigint;
  /** The last byte's. */
  readonly last: bigint;
  readonly prot: number;
  /** Pins of accesses, and those that also keep it from being unmapped. */
  accesses: number;
  locks: number;
  /** It is being unmapped: no access begins. */
  going: boolean;
}
interface Reserved extends IovaSpan {
  readonly owner: object | undefined;
}
/** A piece of an area. */
export interface Slice {
  readonly area: Area;
  readonly iova: bigint;
  readonly last: bigint;
}
const firstPage = ({ startByte }: Part): number => Math.floor(startByte / PAGE);
const pageCount = ({ startByte, bytes }: Part): number => Math.ceil((startByte + bytes) / PAGE) - Math.floor(startByte / PAGE);
const overlap = (a: IovaSpan, start: bigint, last: bigint): boolean => a.start <= last && a.last >= start;

export class Ioas {
  /** By IOVA. */
  readonly areas: Area[] = [];
  readonly tables = new Set<PageTable>();
  readonly accesses = new Set<Access>();
  largePages = true;
  /** Every area's IOVA, length and offset in its page are multiples of it. */
  alignment = 1n;
  private reserved: Reserved[] = [];
  private allowed: readonly IovaSpan[] = [];
  private readonly fails: (what: string) => boolean;

  constructor(fails: (what: string) => boolean = () => false) {
    this.fails = fails;
  }

  /** Where IOVAs may lie. */
  get ranges(): IovaSpan[] {
    return holes(this.reserved, 0n, LAST_IOVA);
  }
  get mappedPages(): number {
    return this.areas.reduce((sum, area) => sum + pageCount(area), 0);
  }
  /** Sizes of pages that all page tables have; none without one. */
  get pageSizes(): number | undefined {
    let sizes: number | undefined;
    for (const table of this.tables) sizes = (sizes ?? -1) & table.pageSizes;
    return sizes;
  }

  /** Maps parts one behind the other. `iova` undefined: choose one. The IOVA, or -errno. `prot`: Prot bits. */
  map(parts: readonly Part[], iova: bigint | undefined, prot: number): bigint {
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    const length = BigInt(bytes);
    for (const _ of parts) if (this.fails('area')) return error(Errno.ENOMEM);
    if (length === 0n || length & (this.alignment - 1n)) return error(Errno.EINVAL);
    const head = parts[0]!;
    const at = iova === undefined ? this.choose(length, head.pages.start + BigInt(head.startByte)) : this.check(iova, length);
    if (at < 0n) return at;
    const made: Area[] = [];
    let next = at;
    for (const part of parts) {
      if (prot & 2 && !part.pages.writable) return error(Errno.EPERM);
      if (BigInt(part.startByte % PAGE) & (this.alignment - 1n)) return error(Errno.EINVAL);
      const last = next + BigInt(part.bytes) - 1n;
      made.push({ ...part, iova: next, last, prot, accesses: 0, locks: 0, going: false });
      next = last + 1n;
    }
    for (const [i, area] of made.entries()) {
      const failed = this.fill(area);
      if (!failed) continue;
      for (const done of made.slice(0, i)) this.unfill(done);
      return BigInt(failed);
    }
    for (const area of made) area.pages.references++;
    this.areas.splice(this.indexAt(at), 0, ...made);
    return at;
  }

  /** What is mapped at [iova, + length), as parts; -EINVAL, -EOVERFLOW, -ENOENT when a byte is missing. */
  partsAt(iova: bigint, length: bigint): Part[] | number {
    if (length === 0n) return -Errno.EINVAL;
    if (iova + length - 1n > LAST_IOVA) return -Errno.EOVERFLOW;
    const slices = this.slices(iova, iova + length - 1n);
    if (!slices) return -Errno.ENOENT;
    if (slices.some(() => this.fails('part'))) return -Errno.ENOMEM;
    return slices.map(({ area, iova: from, last }) => ({
      pages: area.pages,
      startByte: area.startByte + Number(from - area.iova),
      bytes: Number(last - from) + 1,
    }));
  }
  /** The pieces of areas that make up [start, last]; undefined with a gap. */
  slices(start: bigint, last: bigint): Slice[] | undefined {
    const found = this.slicesUntilGap(start, last);
    return found.at(-1)?.last === last ? found : undefined;
  }
  slicesUntilGap(start: bigint, last: bigint): Slice[] {
    const found: Slice[] = [];
    let at = start;
    for (let i = this.indexAt(start); at <= last; i++) {
      const area = this.areas[i];
      if (!area || area.iova > at) break;
      const end = area.last < last ? area.last : last;
      found.push({ area, iova: at, last: end });
      at = end + 1n;
    }
    return found;
  }

  /**
   * Unmaps the areas within [start, last], in order, until one is only partly in it (-ENOENT) or locked (-EBUSY). Accesses are told first.
   * `bytes` says how much went either way.
   */
  unmap(start: bigint, last: bigint): { readonly bytes: bigint; readonly error: number } {
    let bytes = 0n;
    for (let tries = 0; ; ) {
      const index = this.indexAt(start);
      const area = this.areas[index];
      if (!area || area.iova > last) return { bytes, error: 0 };
      if (area.locks) return { bytes, error: -Errno.EBUSY };
      if (area.iova < start || area.last > last) return { bytes, error: -Errno.ENOENT };
      if (area.accesses) {
        area.going = true;
        for (const access of this.accesses) access.tell(area.iova, area.last - area.iova + 1n);
        // Somebody does not let go.
        if (area.accesses && ++tries > 100) return { bytes, error: -EDEADLOCK };
        continue;
      }
      this.areas.splice(index, 1);
      this.unfill(area);
      if (--area.pages.references === 0) area.pages.freed();
      bytes += area.last - area.iova + 1n;
    }
  }

  /** Cuts the areas in two that have `last` as an inner byte. For the old VFIO interface. 0 or -errno. */
  cut(last: bigint): number {
    const index = this.indexAt(last);
    const area = this.areas[index];
    if (!area || area.iova > last || last === area.last) return 0;
    const head = Number(last - area.iova) + 1;
    const mask = this.alignment - 1n;
    if (area.going) return -Errno.EBUSY;
    if ((last + 1n) & mask || BigInt(area.startByte + head) & mask) return -Errno.EINVAL;
    if (this.fails('area') || this.fails('area')) return -Errno.ENOMEM;
    // What an access pinned is not known well enough; a page table may have used a large page.
    if (area.accesses || (this.tables.size > 0 && this.largePages)) return -Errno.EINVAL;
    const lower: Area = { ...area, last, bytes: head };
    const upper: Area = { ...area, iova: last + 1n, startByte: area.startByte + head, bytes: area.bytes - head };
    this.areas.splice(index, 1, lower, upper);
    area.pages.references++;
    // A page that both show counts twice.
    if (this.tables.size > 0 && (area.startByte + head) % PAGE) area.pages.hold(firstPage(upper), 1, true);
    return 0;
  }

  /** The owner of some pages takes them back: they are in no page table when this returns. */
  revoke(pages: Pages): void {
    for (const area of this.areas) if (area.pages === pages) for (const table of this.tables) table.unmap(area.iova, area.bytes);
  }
  /** Addresses that nobody may map. -EADDRINUSE when an area or an allowed range is there. */
  reserve(start: bigint, last: bigint, owner: object | undefined): number {
    const area = this.areas[this.indexAt(start)];
    if ((area && area.iova <= last) || this.allowed.some((span) => overlap(span, start, last))) return -Errno.EADDRINUSE;
    if (this.fails('reserved')) return -Errno.ENOMEM;
    this.reserved.push({ start, last, owner });
    return 0;
  }
  unreserve(owner: object): void {
    this.reserved = this.reserved.filter((span) => span.owner !== owner);
  }
  /** Replaces the ranges that IOVAs are chosen from. */
  allow(spans: readonly IovaSpan[]): number {
    if (spans.some(({ start, last }) => this.reserved.some((span) => overlap(span, start, last)))) return -Errno.EADDRINUSE;
    this.allowed = spans;
    return 0;
  }
  /** Whether pages larger than 4 KiB are used. -EINVAL when some may be in use already. */
  setLargePages(on: boolean): number {
    if (this.largePages === on) return 0;
    if (!on && this.tables.size > 0 && this.areas.length > 0) return -Errno.EINVAL;
    this.largePages = on;
    const refused = this.align();
    if (refused) this.largePages = !on;
    return refused;
  }

  /** A page table stands on this address space from now on: it gets all areas. 0, or -errno and it stays empty. */
  addTable(table: PageTable): number {
    const smallest = BigInt(table.pageSizes & -table.pageSizes);
    const alignment = smallest > this.alignment ? smallest : this.alignment;
    if (alignment > PAGE_N) return -Errno.EINVAL;
    let refused = this.fits(alignment);
    for (const { start, last } of table.reserved) refused ||= this.reserve(start, last, table);
    for (const [i, area] of refused ? [] : this.areas.entries()) {
      refused = this.tables.size === 0 ? area.pages.hold(firstPage(area), pageCount(area), true) : 0;
      if (!refused && (refused = mapArea(table, area, this.largePages)) && this.tables.size === 0) area.pages.drop(firstPage(area), pageCount(area));
      if (!refused) continue;
      for (const done of this.areas.slice(0, i)) this.leave(table, done, this.tables.size === 0);
      break;
    }
    if (refused) {
      this.unreserve(table);
      return refused;
    }
    this.tables.add(table);
    this.alignment = alignment;
    return 0;
  }
  /** It goes. */
  removeTable(table: PageTable): void {
    if (!this.tables.delete(table)) return;
    for (const area of this.areas) this.leave(table, area, this.tables.size === 0);
    this.unreserve(table);
    this.align();
  }
  /** An access comes: -EADDRINUSE when an area does not fit its alignment. */
  addAccess(access: Access): number {
    this.accesses.add(access);
    const refused = this.align();
    if (refused) this.accesses.delete(access);
    return refused;
  }
  removeAccess(access: Access): void {
    if (this.accesses.delete(access)) this.align();
  }

  private align(): number {
    let alignment = this.largePages ? 1n : PAGE_N;
    for (const { pageSizes } of this.tables) if (BigInt(pageSizes & -pageSizes) > alignment) alignment = BigInt(pageSizes & -pageSizes);
    for (const access of this.accesses) if (access.alignment > alignment) alignment = access.alignment;
    const refused = alignment > this.alignment ? this.fits(alignment) : 0;
    if (!refused) this.alignment = alignment;
    return refused;
  }
  private fits(alignment: bigint): number {
    const mask = alignment - 1n;
    return this.areas.some(({ iova, bytes, startByte }) => (iova | BigInt(bytes) | BigInt(startByte % PAGE)) & mask) ? -Errno.EADDRINUSE : 0;
  }

  /** Maps an area into all page tables. */
  private fill(area: Area): number {
    if (this.tables.size === 0) return 0;
    const refused = area.pages.hold(firstPage(area), pageCount(area));
    if (refused) return refused;
    const done: PageTable[] = [];
    for (const table of this.tables) {
      const failed = mapArea(table, area, this.largePages);
      if (failed) {
        for (const other of done) other.unmap(area.iova, area.bytes);
        area.pages.drop(firstPage(area), pageCount(area));
        return failed;
      }
      done.push(table);
    }
    return 0;
  }
  private unfill(area: Area): void {
    if (this.tables.size === 0) return;
    for (const table of this.tables) table.unmap(area.iova, area.bytes);
    area.pages.drop(firstPage(area), pageCount(area));
  }
  private leave(table: PageTable, area: Area, last: boolean): void {
    table.unmap(area.iova, area.bytes);
    if (last) area.pages.drop(firstPage(area), pageCount(area));
  }

  /** A fixed IOVA, or -errno. */
  private check(iova: bigint, length: bigint): bigint {
    if (iova & (this.alignment - 1n)) return error(Errno.EINVAL);
    const last = iova + length - 1n;
    if (last > LAST_IOVA) return error(Errno.EOVERFLOW);
    if (this.reserved.some((span) => overlap(span, iova, last))) return error(Errno.EINVAL);
    const next = this.areas[this.indexAt(iova)];
    return next && next.iova <= last ? error(Errno.EEXIST) : iova;
  }

  /** A free IOVA, never 0, with the offset of `address` in its page and as aligned as that is, to 2 MiB at most. -errno. */
  private choose(length: bigint, address: bigint): bigint {
    if (length >= LAST_IOVA / 2n) return error(Errno.EOVERFLOW);
    let align = 1n;
    while (align < length && align < HUGE && (address === 0n || address % (align * 2n) === 0n)) align *= 2n;
    if (align < this.alignment) return error(Errno.EINVAL);
    const offset = address % PAGE_N;
    const used = [...this.reserved, ...this.areas.map(({ iova, last }) => ({ start: iova, last }))];
    const within = this.allowed.length ? [...this.allowed].sort(byStart) : [{ start: PAGE_N, last: LAST_IOVA - PAGE_N }];
    for (const span of within)
      for (const hole of holes(used, span.start > PAGE_N ? span.start : PAGE_N, span.last)) {
        const at = (((hole.start + align - 1n) / align) * align) | offset;
        if (at < hole.last && hole.last - at >= length - 1n) return at;
      }
    return error(Errno.ENOSPC);
  }

  /** The index of the first area that ends at `iova` or beyond. */
  private indexAt(iova: bigint): number {
    let low = 0;
    let high = this.areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.areas[middle]!.last < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
/** asm-generic/errno.h. */
const EDEADLOCK = 35;
const error = (number: number): bigint => -BigInt(number);
const byStart = (a: IovaSpan, b: IovaSpan): number => (a.start < b.start ? -1 : 1);

/** What no span of `used` covers in [start, last]. */
function holes(used: readonly IovaSpan[], start: bigint, last: bigint): IovaSpan[] {
  const found: IovaSpan[] = [];
  let at = start;
  for (const span of [...used].sort(byStart)) {
    if (span.start > last) break;
    if (span.start > at) found.push({ start: at, last: span.start - 1n });
    if (span.last >= at) at = span.last + 1n;
  }
  if (at <= last) found.push({ start: at, last });
  return found;
}

/** Maps an area run by run of contiguous frames; without large pages, page by page. */
function mapArea(table: PageTable, area: Area, large: boolean): number {
  const { frames, revoked } = area.pages;
  for (let done = 0; done < area.bytes && !revoked; ) {
    const byte = area.startByte + done;
    const page = Math.floor(byte / PAGE);
    let run = 1;
    while (large && (page + run) * PAGE < area.startByte + area.bytes && frames[page + run] === frames[page]! + run) run++;
    const bytes = Math.min(area.bytes - done, (page + run) * PAGE - byte);
    const failed = table.map(area.iova + BigInt(done), frames[page]! * PAGE + (byte % PAGE), bytes, area.prot, large);
    if (failed) {
      if (done) table.unmap(area.iova, done);
      return failed;
    }
    done += bytes;
  }
  return 0;
}
