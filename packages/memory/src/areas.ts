/** The areas of an address space: where they lie, whose frames they show. Linux, vm_area_struct and vm_operations_struct. */
import { MapFlag } from '@siov/layout/uapi';
import type { Order } from './pins.js';

/** What a driver's mmap sees of the area it backs. Pages are counted from the area's start; all pieces of a split or forked area obey. */
export interface VmArea {
  readonly start: number;
  readonly length: number;
  /** Byte offset in the file. */
  readonly offset: number;
  readonly prot: number;
  readonly flags: number;
  /** Shows one page: an MMIO frame, or a RAM frame that the driver owns. Linux, remap_pfn_range. */
  insert(pageIndex: number, frame: number): void;
  /** Takes all frames away; later access is SIGBUS. Linux, unmap_mapping_range. */
  zap(): void;
  /** A forked child does not get the area. Linux, VM_DONTCOPY. */
  dontCopy: boolean;
  /** Rights that mprotect may not exceed (default: all). Linux, VM_MAYWRITE and its like. */
  maxProt: number;
  /** Asked for a page that is not there: 0 after `insert`, else the access is SIGBUS. Linux, vm_operations_struct.fault. */
  onFault?: (pageIndex: number) => number;
  /** The last piece is unmapped. */
  onClose?: () => void;
}
const HUGE_SIZE = 0x3f << 26;
/** Pages that mmap's flags ask for; undefined: of a size that there is not. linux/mman.h, MAP_HUGE_SHIFT; without one, 2 MiB. */
export function orderOfFlags(flags: number): Order | undefined {
  if (!(flags & MapFlag.HUGETLB)) return 0;
  const size = flags & HUGE_SIZE;
  return size === 0 || size === MapFlag.HUGE_2MB ? 9 : size === MapFlag.HUGE_1GB ? 18 : undefined;
}
const orderOf = (flags: number): Order => orderOfFlags(flags) ?? 0;

/** A file that is mapped: 0, or -errno, which becomes mmap's answer. Called once by mmap. */
export interface Backing {
  map(area: VmArea): number;
  /** A file of memory: its pages are mapped, `map` is not asked. */
  readonly shared?: SharedPages;
}

/** What an area needs of the address space it lies in. */
export interface AreaOwner {
  show(area: Area, pageIndex: number, frame: number): void;
  hide(area: Area): void;
  /** Pages of the backing from this index on are gone. */
  cutOff(area: Area, pageIndex: number): void;
}

/** A device file's frames, shared by all pieces of the area that showed them. */
export class FileMapping implements VmArea {
  readonly start: number;
  readonly length: number;
  readonly offset: number;
  readonly prot: number;
  readonly flags: number;
  dontCopy = false;
  maxProt = 7;
  onFault?: (pageIndex: number) => number;
  onClose?: () => void;
  readonly frames = new Map<number, number>();
  readonly pieces = new Set<Area>();
  constructor(start: number, length: number, offset: number, prot: number, flags: number) {
    this.start = start;
    this.length = length;
    this.offset = offset;
    this.prot = prot;
    this.flags = flags;
  }
  insert(pageIndex: number, frame: number): void {
    if (!(pageIndex >= 0 && pageIndex * 4096 < this.length)) throw new RangeError(`pageIndex: ${pageIndex} is not a page of the area`);
    this.frames.set(pageIndex, frame);
    for (const piece of this.pieces) piece.owner.show(piece, pageIndex, frame);
  }
  zap(): void {
    this.frames.clear();
    for (const piece of this.pieces) piece.owner.hide(piece);
  }
}

/** Memory that mappings share: pages by index, given back with the last of its users. Linux, shmem. */
export class SharedPages {
  readonly frames = new Map<number, number>();
  /** Areas that show it, and whoever else holds it. */
  users = 0;
  readonly areas = new Set<Area>();
  /** An access to a page from here on is SIGBUS. */
  get pages(): number {
    return Number.POSITIVE_INFINITY;
  }
}

/** One contiguous piece of the address space with the same rights throughout. */
export class Area {
  start: number;
  end: number;
  prot: number;
  readonly flags: number;
  /** Index of the first page within `file` or `shared`. */
  pageOffset: number;
  readonly owner: AreaOwner;
  readonly file: FileMapping | undefined;
  readonly shared: SharedPages | undefined;
  /** Of its pages. */
  readonly order: Order;
  /** Locked by mlock. */
  locked = false;
  constructor(
    owner: AreaOwner,
    start: number,
    end: number,
    prot: number,
    flags: number,
    pageOffset: number,
    file: FileMapping | undefined,
    shared: SharedPages | undefined,
  ) {
    this.owner = owner;
    this.start = start;
    this.end = end;
    this.prot = prot;
    this.flags = flags;
    this.pageOffset = pageOffset;
    this.file = file;
    this.shared = shared;
    this.order = orderOf(flags);
    if (shared) {
      shared.users++;
      shared.areas.add(this);
    }
    file?.pieces.add(this);
  }
  /** Bytes of a page. */
  get pageBytes(): number {
    return 4096 * 2 ** this.order;
  }
  /** Shows a file's pages until they are written, then its own. */
  get copies(): boolean {
    return this.shared !== undefined && (this.flags & MapFlag.SHARED) === 0;
  }
  /** The area is no more; whether it was the last user of `shared`. */
  detach(): boolean {
    if (!this.shared) return false;
    this.shared.areas.delete(this);
    return --this.shared.users === 0;
  }
  /** Index of the 4 KiB page at `address` within the backing. */
  pageIndex(address: number): number {
    return (address - this.start) / 4096 + this.pageOffset;
  }
}

/** Areas sorted by address, with the last one found remembered. */
export class AreaList {
  readonly list: Area[] = [];
  private last: Area | undefined;

  find(address: number): Area | undefined {
    const last = this.last;
    if (last && address >= last.start && address < last.end) return last;
    const found = this.list[this.after(address) - 1];
    return found && address < found.end ? (this.last = found) : undefined;
  }

  insert(area: Area): void {
    this.list.splice(this.after(area.start), 0, area);
    this.last = undefined;
  }

  /** Cuts the area at `address` into two. */
  split(area: Area, address: number): void {
    const upper = new Area(area.owner, address, area.end, area.prot, area.flags, area.pageIndex(address), area.file, area.shared);
    upper.locked = area.locked;
    area.end = address;
    this.insert(upper);
  }

  /** Makes `start` and `end` edges of areas; returns [first, last) indices of the areas between. */
  cut(start: number, end: number): [number, number] {
    const low = this.find(start);
    if (low && low.start < start) this.split(low, start);
    const high = this.find(end - 1);
    if (high && high.end > end) this.split(high, end);
    return [this.after(start - 1), this.after(end - 1)];
  }

  removeAt(first: number, last: number): Area[] {
    this.last = undefined;
    return this.list.splice(first, last - first);
  }

  /** Whether nothing lies in [start, end). */
  free(start: number, end: number): boolean {
    return this.touching(start, end).length === 0;
  }

  remove(area: Area): void {
    const at = this.list.indexOf(area);
    if (at >= 0) this.removeAt(at, at + 1);
  }

  /** The areas that touch [start, end), uncut. */
  touching(start: number, end: number): Area[] {
    const found: Area[] = [];
    for (let i = Math.max(0, this.after(start) - 1); i < this.list.length && this.list[i]!.start < end; i++)
      if (this.list[i]!.end > start) found.push(this.list[i]!);
    return found;
  }

  /** The highest free place for `length` bytes in [floor, top), or -1. */
  gap(length: number, align: number, floor: number, top: number): number {
    for (let i = this.list.length; i >= 0; i--) {
      const bottom = i > 0 ? this.list[i - 1]!.end : floor;
      const start = Math.floor((top - length) / align) * align;
      if (start >= bottom) return start;
      if (i > 0) top = this.list[i - 1]!.start;
    }
    return -1;
  }

  /** Index of the first area that starts above `address`. */
  private after(address: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.list[middle]!.start > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
