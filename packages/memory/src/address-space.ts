/**
 * A process's mm: areas, demand paging, pins and notifiers over page tables in physical memory. mmap(2), munmap(2), mprotect(2),
 * fork(2); linux/mm.h and linux/mmu_notifier.h for what drivers see. Addresses are bytes as Numbers; answers are values or -errno.
 */
import { hi, lo } from '@siov/layout';
import { Event } from '@siov/layout/events';
import { DmaAccess } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { entryFrame } from '@siov/layout/x86';
import { Area, AreaList, type AreaOwner, type Backing, FileMapping, orderOfFlags, SharedPages } from './areas.js';
import { type Order, type Pins, pinsOf } from './pins.js';
import type { Clock, Frames, MmuNotifier, PhysicalMap, Trace } from './ports.js';
import { EXECUTE_DISABLE, Low, PageTables } from './tables.js';

/** User addresses end here with 4 levels, and with 5 for who does not ask for more. Linux, TASK_SIZE and DEFAULT_MAP_WINDOW. */
export const USER_END = 0x7fff_ffff_f000;
/** With 5 levels, for who does: the processor's are 2^56, a Number holds whole bytes up to 2^53. */
export const USER_END_5 = 2 ** 53 - 4096;
/** The lowest address that mmap gives. Linux, vm.mmap_min_addr. */
export const USER_START = 0x1_0000;
/** linux/mman.h. */
export const Mremap = { MAYMOVE: 1, FIXED: 2 } as const;
/** Linux, vm.max_map_count. */
const MAX_AREAS = 65_530;
/** Bits of a large page's entry. */
const largeBit = (order: Order): number => (order ? Low.pageSize : 0);
/** Level of the entry of a page. */
const levelOf = (order: Order): number => 1 + order / 9;

export const Counter = { pageFaults: 0, framesMapped: 1, framesFreed: 2, pins: 3, unpins: 4, notifications: 5, flushes: 6 } as const;

/** Integer nanoseconds; all default to 0. */
export interface MemoryCosts {
  readonly pageFault?: number;
  /** Of a page of 2 MiB or 1 GiB. */
  readonly hugePageFault?: number;
  /** Per page of 4 KiB. */
  readonly pin?: number;
  readonly unpin?: number;
}
export interface AddressSpaceOptions {
  readonly memory: PhysicalMap;
  readonly frames: Frames;
  /** Of page tables (default 4). CR4.LA57. */
  readonly levels?: 4 | 5 | undefined;
  readonly costs?: MemoryCosts | undefined;
  readonly clock?: Clock | undefined;
  readonly trace?: Trace | undefined;
  /** Pages that may be locked, by mlock or by drivers that pin for long; default: no limit. RLIMIT_MEMLOCK. */
  readonly lockedPages?: number | undefined;
  /** TLB shootdown: called with every unmap and every right taken away, before frames are freed. Pages are address / 4096. */
  readonly flush?: ((rootFrame: number, startPage: number, pages: number) => void) | undefined;
}

export class AddressSpace implements AreaOwner {
  readonly counters = new Float64Array(Object.keys(Counter).length);
  /** CR3 >>> 12, or -1 after exit. */
  readonly rootFrame: number;
  /** Of its page tables. */
  readonly levels: 4 | 5;
  /** The PASID this address space is bound to, or -1. Whoever binds writes it. Linux, mm_get_enqcmd_pasid. */
  pasid = -1;
  private readonly ports: AddressSpaceOptions;
  private readonly memory: PhysicalMap;
  private readonly frames: Frames;
  private readonly pins: Pins;
  private readonly tables: PageTables;
  private readonly areas = new AreaList();
  private readonly notifiers = new Set<MmuNotifier>();
  private locked = 0;
  private readonly userEnd: number;

  constructor(ports: AddressSpaceOptions) {
    const { levels = 4 } = ports;
    if (levels !== 4 && levels !== 5) throw new RangeError(`levels: 4 or 5, not ${levels}`);
    this.levels = levels;
    this.userEnd = levels === 5 ? USER_END_5 : USER_END;
    this.ports = ports;
    this.memory = ports.memory;
    this.frames = ports.frames;
    this.pins = pinsOf(ports.frames);
    this.tables = new PageTables(ports.memory, ports.frames, levels);
    this.rootFrame = this.tables.root;
  }

  /**
   * Maps anonymous memory, or what `backing` shows. Returns the address or -errno. Without MAP_FIXED the address is a hint, then the
   * highest free place below 2^47, or with 5 levels and a hint above it, below their end. MAP_HUGETLB rounds to pages of 2 MiB, or 1 GiB with
   * MAP_HUGE_1GB. A private mapping of a file of memory shows the file's pages until they are written. MAP_POPULATE answers -ENOMEM where a
   * fault would.
   */
  mmap(address: number, length: number, prot: number, flags: number, backing?: Backing, offset = 0): number {
    const order = orderOfFlags(flags);
    if (order === undefined) return -Errno.EINVAL;
    const align = 4096 * 2 ** order;
    if (!whole(address) || !whole(length) || !whole(offset) || offset % 4096 || length === 0) return -Errno.EINVAL;
    if (!(flags & (MapFlag.SHARED | MapFlag.PRIVATE)) || (backing && flags & MapFlag.HUGETLB)) return -Errno.EINVAL;
    length = Math.ceil(length / align) * align;
    if (length > this.userEnd || this.rootFrame < 0 || this.areas.list.length >= MAX_AREAS) return -Errno.ENOMEM;
    let start: number;
    if (flags & MapFlag.FIXED) {
      start = address;
      if (start % align) return -Errno.EINVAL;
      if (start + length > this.userEnd) return -Errno.ENOMEM;
      if (start < USER_START) return -Errno.EPERM;
      const refused = this.munmapRange(start, start + length);
      if (refused < 0) return refused;
    } else {
      const top = address > USER_END ? this.userEnd : USER_END;
      start = Math.ceil(address / align) * align;
      if (start < USER_START || start + length > top || this.areas.touching(start, start + length).length > 0)
        start = this.areas.gap(length, align, USER_START, top);
      if (start < 0) return -Errno.ENOMEM;
    }
    const end = start + length;
    const file = backing && !backing.shared ? new FileMapping(start, length, offset, prot, flags) : undefined;
    const shared = backing?.shared ?? (!backing && flags & MapFlag.SHARED ? new SharedPages() : undefined);
    const area = new Area(this, start, end, prot & 7, flags, shared ? offset / 4096 : 0, file, shared);
    this.areas.insert(area);
    const answer = backing && file ? backing.map(file) : 0;
    if (answer < 0) {
      delete file!.onClose;
      this.munmapRange(start, end);
      return answer;
    }
    if (flags & MapFlag.POPULATE && !file && prot & 7) {
      for (let at = start; at < end; at += align) {
        const result = this.faultIn(area, at, (prot & Prot.WRITE) !== 0);
        if (result === 0) continue;
        this.munmapRange(start, end);
        return result;
      }
    }
    return start;
  }

  /** 0 or -errno. Pages without a mapping are no error; part of a large page is. */
  munmap(address: number, length: number): number {
    if (!whole(address) || !whole(length) || address % 4096 || length === 0) return -Errno.EINVAL;
    const end = address + Math.ceil(length / 4096) * 4096;
    if (end > this.userEnd) return -Errno.EINVAL;
    return this.munmapRange(address, end);
  }

  /** 0 or -errno: -ENOMEM where part of the range is not mapped, -EACCES beyond the rights of the mapped file. */
  mprotect(address: number, length: number, prot: number): number {
    if (!whole(address) || !whole(length) || address % 4096 || prot & ~7) return -Errno.EINVAL;
    const end = address + Math.ceil(length / 4096) * 4096;
    if (length === 0) return 0;
    if (end > this.userEnd) return -Errno.ENOMEM;
    const touched = this.areas.touching(address, end);
    let covered = address;
    for (const area of touched) {
      if (area.start > covered) return -Errno.ENOMEM;
      covered = area.end;
      if (area.file && prot & ~area.file.maxProt) return -Errno.EACCES;
      if (Math.max(area.start, address) % area.pageBytes || Math.min(area.end, end) % area.pageBytes) return -Errno.EINVAL;
    }
    if (covered < end || this.areas.list.length + 2 > MAX_AREAS) return -Errno.ENOMEM;
    const [first, last] = this.areas.cut(address, end);
    for (const area of this.areas.list.slice(first, last)) {
      area.prot = prot;
      this.each(area.start, area.end, (page) => {
        const { words, at } = this.tables;
        const frame = entryFrame(words, at);
        const keep = words[at]! & (Low.accessed | Low.dirty | Low.cacheDisable | Low.pageSize);
        // What another process or a file shows too is copied before it is written.
        const rights = lowBits(prot) & (this.isLent(area, page, frame) ? ~Low.write : -1);
        this.tables.set(frame, keep | rights, highBits(prot));
      });
    }
    this.notify(address, end);
    return 0;
  }

  /**
   * mremap(2): the mapping is shortened or lengthened, in its place or (flag MREMAP_MAYMOVE) at another one with its pages, which is where
   * `newAddress` says with MREMAP_FIXED. The address, or -errno: -EFAULT where the old range is not one mapping or a device's that would grow.
   */
  mremap(address: number, oldLength: number, newLength: number, flags = 0, newAddress = 0): number {
    if (!whole(address) || !whole(oldLength) || !whole(newLength) || address % 4096 || newLength === 0 || oldLength === 0) return -Errno.EINVAL;
    const fixed = (flags & Mremap.FIXED) !== 0;
    if (flags & ~(Mremap.MAYMOVE | Mremap.FIXED) || (fixed && !(flags & Mremap.MAYMOVE))) return -Errno.EINVAL;
    const end = address + Math.ceil(oldLength / 4096) * 4096;
    const length = Math.ceil(newLength / 4096) * 4096;
    if (fixed && (!whole(newAddress) || newAddress % 4096 || (newAddress < end && newAddress + length > address))) return -Errno.EINVAL;
    if (fixed && newAddress + length > this.userEnd) return -Errno.EINVAL;
    const area = this.areas.find(address);
    if (!area || area.end < end) return -Errno.EFAULT;
    if (address % area.pageBytes || end % area.pageBytes || length % area.pageBytes || (fixed && newAddress % area.pageBytes)) return -Errno.EINVAL;
    const grows = length > end - address;
    if (grows && area.file) return -Errno.EFAULT;
    const more = grows && area.locked ? (address + length - end) / 4096 : 0;
    if (more && this.lockPages(more) < 0) return -Errno.EAGAIN;
    let result: number;
    if (!fixed && !grows) result = this.munmapRange(address + length, end) || address;
    else if (!fixed && area.end === end && address + length <= this.userEnd && this.areas.free(end, address + length)) {
      area.end = address + length;
      result = address;
    } else if (flags & Mremap.MAYMOVE) result = this.move(address, end, length, fixed ? newAddress : -1);
    else result = -Errno.ENOMEM;
    if (result < 0 && more) this.lockPages(-more);
    return result;
  }

  /** mlock(2): pages are there from now on, and count as locked. 0, or -ENOMEM: part is not mapped, or the limit is passed. */
  mlock(address: number, length: number): number {
    return this.lock(address, length, true);
  }
  /** munlock(2). */
  munlock(address: number, length: number): number {
    return this.lock(address, length, false);
  }

  /**
   * A page fault by this process, its device or its kernel: 0 when the page is there now, -EFAULT without an area or the right, -ENOMEM,
   * -EIO (SIGBUS) where a device took its frames back. `access` holds DmaAccess bits.
   */
  handleFault(high: number, low: number, access: number): number {
    this.counters[Counter.pageFaults]!++;
    const result = this.resolveFault(high, low, access);
    if (this.ports.trace) this.ports.trace.emit(Event.pageFault, high, low, access, result);
    return result;
  }

  /**
   * Pins `pages` pages from `address`, faulting them in; their frames go to `out` from `at`. Returns `pages`, or -errno with nothing
   * pinned. A device's pages cannot be pinned (-EFAULT). Linux, pin_user_pages with FOLL_LONGTERM.
   */
  pin(address: number, pages: number, write: boolean, out: Int32Array, at = 0): number {
    if (!whole(address) || !whole(pages) || at + pages > out.length) return -Errno.EINVAL;
    const start = address - (address % 4096);
    for (let i = 0; i < pages; i++) {
      const area = this.areas.find(start + i * 4096);
      const frame = !area || area.file ? -Errno.EFAULT : this.resolveOwn(area, start + i * 4096, write);
      if (frame < 0) {
        this.unpin(out.subarray(at), i);
        return frame;
      }
      this.pins.pin(frame);
      out[at + i] = frame;
    }
    this.counters[Counter.pins]! += pages;
    this.ports.clock?.spend(pages * (this.ports.costs?.pin ?? 0));
    return pages;
  }

  /** Pages that count as locked. Linux, VmLck and VmPin. */
  get lockedPages(): number {
    return this.locked;
  }
  /** Counts pages as locked: 0, or -ENOMEM beyond the limit. A negative number takes them back. Linux, account_locked_vm. */
  lockPages(pages: number): number {
    if (pages > 0 && this.locked + pages > (this.ports.lockedPages ?? Number.POSITIVE_INFINITY)) return -Errno.ENOMEM;
    this.locked += pages;
    return 0;
  }

  /** Takes back the pins of the first `count` frames; also after exit. */
  unpin(frames: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) this.pins.unpin(frames[i]!);
    this.counters[Counter.unpins]! += count;
    this.ports.clock?.spend(count * (this.ports.costs?.unpin ?? 0));
  }

  /** The frame that shows at an address now, or -1; nothing is faulted in. Linux, follow_pfnmap_start and its like. */
  frameOf(address: number): number {
    if (!whole(address) || address >= this.userEnd || this.rootFrame < 0 || !this.tables.find(hi(address), lo(address))) return -1;
    const { words, at, span } = this.tables;
    return words[at]! & Low.present ? entryFrame(words, at) + (Math.floor(address / 4096) & (span / 4096 - 1)) : -1;
  }

  /** The kernel reads user memory into `out`: 0 or -EFAULT. Linux, copy_from_user. */
  read(address: number, out: Uint8Array): number {
    return this.copy(address, out, false);
  }

  /** The kernel writes user memory: 0 or -EFAULT. Linux, copy_to_user. */
  write(address: number, bytes: Uint8Array): number {
    return this.copy(address, bytes, true);
  }

  /** Returns what takes the notifier off again. */
  subscribe(notifier: MmuNotifier): () => void {
    this.notifiers.add(notifier);
    return () => this.notifiers.delete(notifier);
  }

  /**
   * A child that shows private pages until one of both writes them, has copies of pinned ones and the same shared ones; or -ENOMEM. Device
   * areas follow unless `dontCopy`.
   */
  fork(): AddressSpace | number {
    if (this.rootFrame < 0) return -Errno.ENOMEM;
    let child: AddressSpace;
    try {
      child = new AddressSpace(this.ports);
    } catch {
      return -Errno.ENOMEM;
    }
    for (const area of this.areas.list) {
      if (area.file?.dontCopy) continue;
      const copy = new Area(child, area.start, area.end, area.prot, area.flags, area.pageOffset, area.file, area.shared);
      child.areas.insert(copy);
      if (area.file || (area.shared && !area.copies)) continue;
      let failed = false;
      let protectedNow = false;
      this.each(area.start, area.end, (address) => {
        if (failed) return;
        const { words, at } = this.tables;
        const frame = entryFrame(words, at);
        // The child finds the file's pages there.
        if (this.isFilePage(area, address, frame)) return;
        // Somebody does DMA to a page that is pinned: it stays the parent's. Linux, copy_present_page.
        if (this.pins.count(frame) > 0) {
          const own = child.pins.alloc(area.order);
          failed = own < 0 || !child.tables.make(hi(address), lo(address), levelOf(area.order));
          if (failed) {
            if (own >= 0) child.pins.release(own, area.order);
            return;
          }
          child.counters[Counter.framesMapped]! += 2 ** area.order;
          child.tables.set(own, lowBits(area.prot) | largeBit(area.order), highBits(area.prot));
          this.copyPages(frame, own, 2 ** area.order);
          return;
        }
        failed = !child.tables.make(hi(address), lo(address), levelOf(area.order));
        if (failed) return;
        this.pins.share(frame);
        if (words[at]! & Low.write) protectedNow = true;
        words[at]! &= ~Low.write;
        child.tables.set(frame, words[at]! & 0xfff, (words[at + 1]! & EXECUTE_DISABLE) >>> 0);
      });
      if (protectedNow) this.notify(area.start, area.end);
      if (!failed) continue;
      child.exit();
      return -Errno.ENOMEM;
    }
    return child;
  }

  /** Notifiers are released, everything is unmapped, the tables go. Pinned frames stay until their unpin. */
  exit(): void {
    if (this.rootFrame < 0) return;
    for (const notifier of [...this.notifiers]) notifier.release();
    this.notifiers.clear();
    this.munmapRange(0, this.userEnd);
    this.tables.free();
    (this as { rootFrame: number }).rootFrame = -1;
  }

  /** For FileMapping: one page shows. */
  show(area: Area, pageIndex: number, frame: number): void {
    const address = area.start + (pageIndex - area.pageOffset) * 4096;
    if (address < area.start || address >= area.end || !this.tables.make(hi(address), lo(address), 1)) return;
    const { words, at } = this.tables;
    const stale = words[at]! !== 0 && entryFrame(words, at) !== frame;
    const uncached = this.memory.regionOf(frame)?.kind === 'mmio' ? Low.cacheDisable : 0;
    this.tables.set(frame, lowBits(area.prot) | uncached, highBits(area.prot));
    if (stale) this.notify(address, address + 4096);
  }

  /** For FileMapping: all pages of a piece go. */
  hide(area: Area): void {
    this.each(area.start, area.end, () => this.tables.set(0, 0, 0));
    this.notify(area.start, area.end);
  }

  /** For MemoryFile: pages from an index on go, with the copies made of them. */
  cutOff(area: Area, pageIndex: number): void {
    const start = Math.max(area.start, area.start + (pageIndex - area.pageOffset) * 4096);
    if (start >= area.end) return;
    const own: number[] = [];
    this.each(start, area.end, (address) => {
      const frame = entryFrame(this.tables.words, this.tables.at);
      if (!this.isFilePage(area, address, frame) && area.copies) own.push(frame);
      this.tables.set(0, 0, 0);
    });
    this.notify(start, area.end);
    for (const frame of own) this.pins.release(frame, 0);
    this.counters[Counter.framesFreed]! += own.length;
  }

  /** Whether a page that shows in an area is the page of a file that other mappings have too. */
  private isFilePage(area: Area, address: number, frame: number): boolean {
    return area.shared !== undefined && area.shared.frames.get(area.pageIndex(address)) === frame;
  }
  /** Whether a page that shows in an area is also somebody else's, and not to be written. */
  private isLent(area: Area, address: number, frame: number): boolean {
    return this.pins.isShared(frame) || (area.copies && this.isFilePage(area, address, frame));
  }

  /** Moves [start, end) with its pages; the rest of `length` is new. `to` -1: wherever there is room. The new address, or -errno. */
  private move(start: number, end: number, length: number, to: number): number {
    if (this.areas.list.length + 3 > MAX_AREAS) return -Errno.ENOMEM;
    const bytes = this.areas.find(start)!.pageBytes;
    const level = levelOf(this.areas.find(start)!.order);
    const at = to < 0 ? this.areas.gap(length, bytes, USER_START, USER_END) : to;
    if (at < 0) return -Errno.ENOMEM;
    if (at < USER_START) return -Errno.EPERM;
    const kept = Math.min(end - start, length);
    const refused = to < 0 ? 0 : this.munmapRange(at, at + length);
    if (refused < 0) return refused;
    // Tables for what goes there, before anything moves. A table of small pages stays where it is.
    for (let done = 0; done < kept; done += bytes)
      if (!this.tables.make(hi(at + done), lo(at + done), level) || this.tables.words[this.tables.at] !== 0) return -Errno.ENOMEM;
    if (start + kept < end) this.munmapRange(start + kept, end);
    const [first] = this.areas.cut(start, start + kept);
    const [old] = this.areas.removeAt(first, first + 1) as [Area];
    const pages: [offset: number, frame: number, low: number, high: number][] = [];
    this.each(start, start + kept, (address) => {
      const { words, at: entry } = this.tables;
      pages.push([address - start, entryFrame(words, entry), words[entry]! & 0xfff, (words[entry + 1]! & EXECUTE_DISABLE) >>> 0]);
      this.tables.set(0, 0, 0);
    });
    this.notify(start, start + kept);
    const area = new Area(this, at, at + length, old.prot, old.flags, old.pageOffset, old.file, old.shared);
    area.locked = old.locked;
    old.detach();
    old.file?.pieces.delete(old);
    this.areas.insert(area);
    for (const [offset, frame, low, high] of pages) {
      this.tables.make(hi(at + offset), lo(at + offset), level);
      this.tables.set(frame, low, high);
    }
    return at;
  }

  private lock(address: number, length: number, on: boolean): number {
    if (!whole(address) || !whole(length)) return -Errno.EINVAL;
    const start = address - (address % 4096);
    const end = Math.ceil((address + length) / 4096) * 4096;
    if (length === 0) return 0;
    let covered = start;
    let pages = 0;
    for (const area of this.areas.touching(start, end)) {
      if (area.start > covered) return -Errno.ENOMEM;
      covered = area.end;
      if (area.locked !== on) pages += (Math.min(area.end, end) - Math.max(area.start, start)) / 4096;
      if (Math.max(area.start, start) % area.pageBytes || Math.min(area.end, end) % area.pageBytes) return -Errno.EINVAL;
    }
    if (covered < end || this.areas.list.length + 2 > MAX_AREAS) return -Errno.ENOMEM;
    const refused = this.lockPages(on ? pages : -pages);
    if (refused) return refused;
    const [first, last] = this.areas.cut(start, end);
    const touched = this.areas.list.slice(first, last);
    for (const area of touched) area.locked = on;
    if (!on) return 0;
    for (const area of touched)
      for (let at = area.start; at < area.end; at += area.pageBytes)
        if (!(area.prot & 7) || this.faultIn(area, at, (area.prot & Prot.WRITE) !== 0) < 0) {
          // What is locked stays so, as the kernel leaves it.
          return -Errno.ENOMEM;
        }
    return 0;
  }

  private resolveFault(high: number, low: number, access: number): number {
    if (high >>> (this.levels === 5 ? 24 : 15) !== 0) return -Errno.EFAULT;
    const address = high * 0x1_0000_0000 + ((low & ~0xfff) >>> 0);
    const area = this.areas.find(address);
    if (!area || !(area.prot & 7)) return -Errno.EFAULT;
    if (access & DmaAccess.write && !(area.prot & Prot.WRITE)) return -Errno.EFAULT;
    if (access & DmaAccess.execute && !(area.prot & Prot.EXEC)) return -Errno.EFAULT;
    return this.faultIn(area, address, (access & DmaAccess.write) !== 0);
  }

  private faultIn(area: Area, address: number, write = false): number {
    if (area.file) return this.faultInFile(area.file, area, address);
    const { order, pageBytes } = area;
    const start = address - (address % pageBytes);
    if (!this.tables.make(hi(start), lo(start), levelOf(order))) return -Errno.ENOMEM;
    const { words, at } = this.tables;
    const writes = write && (area.prot & Prot.WRITE) !== 0;
    if (words[at] !== 0) {
      if (writes && !(words[at]! & Low.write) && (!area.shared || area.copies)) return this.unshare(area, start);
      return 0;
    }
    const index = area.pageIndex(start);
    if (area.shared && index >= area.shared.pages) return -Errno.EIO;
    let frame = area.shared?.frames.get(index) ?? -1;
    if (frame < 0) {
      frame = this.pins.alloc(order);
      if (frame < 0) return -Errno.ENOMEM;
      area.shared?.frames.set(index, frame);
      this.counters[Counter.framesMapped]! += 2 ** order;
    }
    const rights = lowBits(area.prot) & (area.copies ? ~Low.write : -1);
    this.tables.set(frame, rights | largeBit(order), highBits(area.prot));
    this.ports.clock?.spend((order ? this.ports.costs?.hugePageFault : this.ports.costs?.pageFault) ?? 0);
    return writes && area.copies ? this.unshare(area, start) : 0;
  }

  /** A page of its own for what is shown copy-on-write, with the area's rights. `tables` is at its entry. 0 or -ENOMEM. */
  private unshare(area: Area, start: number): number {
    const { words, at } = this.tables;
    const frame = entryFrame(words, at);
    if (!this.isLent(area, start, frame)) {
      words[at]! |= lowBits(area.prot) & Low.write;
      return 0;
    }
    const { order, pageBytes } = area;
    const ofFile = this.isFilePage(area, start, frame);
    const own = this.pins.alloc(order);
    if (own < 0) return -Errno.ENOMEM;
    this.counters[Counter.framesMapped]! += 2 ** order;
    this.copyPages(frame, own, 2 ** order);
    this.tables.set(own, (words[at]! & (Low.accessed | Low.dirty | Low.pageSize)) | lowBits(area.prot), highBits(area.prot));
    this.notify(start, start + pageBytes);
    if (!ofFile) this.pins.release(frame, order);
    return 0;
  }
  /** As `resolve`, and the page is nobody else's: for whoever does DMA to it. Linux, FAULT_FLAG_UNSHARE. */
  private resolveOwn(area: Area, address: number, write: boolean): number {
    const frame = this.resolve(address, write);
    if (frame < 0 || (area.shared && !area.copies)) return frame;
    const { words, at } = this.tables;
    const start = address - (address % area.pageBytes);
    if (!this.isLent(area, start, entryFrame(words, at))) return frame;
    return this.unshare(area, start) || this.resolve(address, write);
  }
  private copyPages(from: number, to: number, pages: number): void {
    for (let i = 0; i < pages; i++) this.pageBytes(to + i).set(this.pageBytes(from + i));
  }

  private faultInFile(file: FileMapping, area: Area, address: number): number {
    const index = area.pageIndex(address);
    if (!file.frames.has(index) && (!file.onFault || file.onFault(index) < 0)) return -Errno.EIO;
    const frame = file.frames.get(index);
    if (frame === undefined) return -Errno.EIO;
    this.show(area, index, frame);
    return this.frameOf(address) === frame ? 0 : -Errno.ENOMEM;
  }

  /** The frame of a page with the right to read or write it, faulted in; or -errno. */
  private resolve(address: number, write: boolean): number {
    const high = hi(address);
    const low = lo(address);
    if (this.rootFrame < 0) return -Errno.EFAULT;
    const need = Low.present | (write ? Low.write : 0);
    if (!this.tables.find(high, low) || (this.tables.words[this.tables.at]! & need) !== need) {
      const result = this.handleFault(high, low, write ? DmaAccess.write : DmaAccess.read);
      if (result < 0) return result;
      this.tables.find(high, low);
    }
    const { words, at, span } = this.tables;
    words[at]! |= write ? Low.accessed | Low.dirty : Low.accessed;
    return entryFrame(words, at) + ((((high & 0x3f) << 20) | (low >>> 12)) & (span / 4096 - 1));
  }

  private copy(address: number, bytes: Uint8Array, write: boolean): number {
    if (!whole(address) || address + bytes.length > this.userEnd) return -Errno.EFAULT;
    for (let done = 0; done < bytes.length; ) {
      const offset = (address + done) % 4096;
      const frame = this.resolve(address + done, write);
      const region = frame < 0 ? undefined : this.memory.regionOf(frame);
      if (region?.kind !== 'ram') return -Errno.EFAULT;
      const length = Math.min(4096 - offset, bytes.length - done);
      const at = (frame - region.firstFrame) * 4096 + offset;
      if (write) region.bytes.set(bytes.subarray(done, done + length), at);
      else bytes.set(region.bytes.subarray(at, at + length), done);
      done += length;
    }
    return 0;
  }

  private munmapRange(start: number, end: number): number {
    const touched = this.areas.touching(start, end);
    if (touched.length === 0) return 0;
    for (const area of touched) if (Math.max(area.start, start) % area.pageBytes || Math.min(area.end, end) % area.pageBytes) return -Errno.EINVAL;
    if (this.areas.list.length + 1 > MAX_AREAS) return -Errno.ENOMEM;
    const [first, last] = this.areas.cut(start, end);
    const gone = this.areas.removeAt(first, last);
    const freed: number[] = [];
    const tables: number[] = [];
    for (const area of gone) {
      if (area.locked) this.lockPages((area.start - area.end) / 4096);
      this.each(area.start, area.end, (address) => {
        const frame = entryFrame(this.tables.words, this.tables.at);
        if (!area.file && !this.isFilePage(area, address, frame)) freed.push(frame, area.order);
        this.tables.set(0, 0, 0);
      });
      if (area.detach()) for (const frame of area.shared!.frames.values()) freed.push(frame, area.order);
    }
    this.tables.prune(this.areas.list[first - 1]?.end ?? 0, this.areas.list[first]?.start ?? ALL, tables);
    for (const area of gone) this.notify(area.start, area.end);
    for (let i = 0; i < freed.length; i += 2) {
      this.counters[Counter.framesFreed]! += 2 ** freed[i + 1]!;
      this.pins.release(freed[i]!, freed[i + 1]!);
    }
    for (const frame of tables) this.frames.free(frame);
    for (const area of gone) if (area.file?.pieces.delete(area) && area.file.pieces.size === 0) area.file.onClose?.();
    return 0;
  }

  /** Calls `visit` at every entry of [start, end) that holds a frame; `tables.words` and `tables.at` are at it. */
  private each(start: number, end: number, visit: (address: number) => void): void {
    for (let address = start; address < end; ) {
      const found = this.tables.find(hi(address), lo(address));
      const { words, at, span } = this.tables;
      if (found && words[at] !== 0) visit(address);
      address += span - (address % span);
    }
  }

  private notify(start: number, end: number): void {
    for (const notifier of this.notifiers) {
      this.counters[Counter.notifications]!++;
      notifier.invalidate(start, end);
    }
    this.counters[Counter.flushes]!++;
    this.ports.flush?.(this.rootFrame, start / 4096, (end - start) / 4096);
  }

  private pageBytes(frame: number): Uint8Array {
    const region = this.memory.regionOf(frame)!;
    const at = (frame - region.firstFrame) * 4096;
    return region.bytes.subarray(at, at + 4096);
  }
}

/** Above all addresses. */
const ALL = 2 ** 57;
const whole = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
const lowBits = (prot: number): number => (prot & 7 ? Low.present : 0) | (prot & Prot.WRITE ? Low.write : 0) | Low.user;
const highBits = (prot: number): number => (prot & Prot.EXEC ? 0 : EXECUTE_DISABLE);
