/**
 * A process of this machine as an address space of the simulated kernel: its memory through files of procfs, its mappings of devices' files, and
 * the pages of it that drivers have pinned. Rights come from its mappings, presence from its page map: the files heed neither. proc(5),
 * Documentation/admin-guide/mm/pagemap.rst.
 */
import { closeSync, readFileSync, readSync } from 'node:fs';
import { DmaAccess } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { Backing, Mm, MmuNotifier, VmArea } from '@siov/vfs';
import type { Native } from './native.js';
import type { PinWindow } from './pins.js';
import { REGIONS } from './wire.js';

const PAGE = 4096;
/** Rights of mappings; `any`: that there is one. */
export const MappingRight = { any: 0, read: 1, write: 2 } as const;
/** Of a page map's entry, in its last byte: present in memory; swapped out, or on its way. */
export const PagePresence = { present: 0x80, swapped: 0x40 } as const;
const ENTRIES_AT_ONCE = 4096;

/** A mapping of a device's file, in bytes; `region`: its number among those of the process. */
export interface MappedRegion {
  readonly region: number;
  readonly start: number;
  readonly length: number;
}
/** Portals that a process has mapped, as its ring shows them. */
export interface ForeignPortals {
  /** A mapping came, has frames behind it or none any more, or went (length 0). */
  show(region: MappedRegion, live: boolean): void;
}

/** One mapping of a device's file. */
class Area implements VmArea {
  dontCopy = false;
  maxProt = 7;
  onFault?: (pageIndex: number) => number;
  onClose?: () => void;
  readonly frames = new Map<number, number>();
  readonly start: number;
  readonly length: number;
  readonly offset: number;
  readonly prot: number;
  readonly flags: number;
  readonly region: number;
  readonly #portals: ForeignPortals;
  #gone = false;
  constructor(start: number, length: number, offset: number, prot: number, flags: number, region: number, portals: ForeignPortals) {
    this.start = start;
    this.length = length;
    this.offset = offset;
    this.prot = prot;
    this.flags = flags;
    this.region = region;
    this.#portals = portals;
  }
  insert(pageIndex: number, frame: number): void {
    this.frames.set(pageIndex, frame);
    this.#portals.show(this, true);
  }
  zap(): void {
    this.frames.clear();
    if (!this.#gone) this.#portals.show(this, false);
  }
  /** It is no mapping any more, whatever its file still does with it. */
  end(): void {
    this.zap();
    this.#gone = true;
    this.#portals.show({ region: this.region, start: this.start, length: 0 }, false);
  }
}

interface ProcFiles {
  readonly pid: number;
  readonly mem: number;
  readonly maps: number;
  readonly pagemap: number;
}
interface PinLimits {
  readonly pins: PinWindow<ForeignMm>;
  readonly lockedPages: number;
}

/** An address space of a process of this machine. Its own mappings are its own business; those of devices' files are kept here. */
export class ForeignMm implements Mm {
  rootFrame: number;
  pasid = -1;
  readonly files: ProcFiles;
  readonly areas: Area[] = [];
  readonly #native: Native;
  readonly #portals: ForeignPortals;
  readonly #limits: PinLimits;
  readonly #gone: () => void;
  #locked = 0;
  readonly #notifiers = new Set<MmuNotifier>();
  /** The mapping last looked up, as bytes and rights; empty: none. */
  #start = 0;
  #end = 0;
  #rights = 0;

  constructor(native: Native, root: number, files: ProcFiles, portals: ForeignPortals, limits: PinLimits, gone: () => void) {
    this.#native = native;
    this.rootFrame = root;
    this.files = files;
    this.#portals = portals;
    this.#limits = limits;
    this.#gone = gone;
  }

  // --- the process's own memory

  forgetMappings(): void {
    this.#end = 0;
  }
  /** How many of the bytes from an address on lie in mappings with a right. None does when the address space has ended, though pages are pinned. */
  allowed(address: number, length: number, right: number): number {
    if (this.rootFrame < 0) return 0;
    let done = 0;
    while (done < length) {
      const at = address + done;
      if (!(at >= this.#start && at < this.#end) && !this.#lookUp(at)) break;
      if ((this.#rights & right) !== right) break;
      done = this.#end - address;
    }
    return Math.min(done, length);
  }
  #lookUp(address: number): boolean {
    const { maps } = this.files;
    const answer = this.#native.vma(maps, address);
    if (answer === 0) {
      this.#start = this.#native.vmaStart;
      this.#end = this.#native.vmaEnd;
      this.#rights = this.#native.vmaRights;
      return true;
    }
    this.#end = 0;
    return answer === -Errno.ENOTTY || answer === -Errno.EINVAL ? this.#lookUpInText(address) : false;
  }
  /** Kernels before 6.11 say it in text alone. */
  #lookUpInText(address: number): boolean {
    let text = '';
    try {
      text = readFileSync(`/proc/${this.files.pid}/maps`, 'latin1');
    } catch {}
    for (const line of text.split('\n')) {
      const [, start, end, read, write] = /^([0-9a-f]+)-([0-9a-f]+) (.)(.)/.exec(line) ?? [];
      if (start === undefined || Number.parseInt(end!, 16) <= address) continue;
      if (Number.parseInt(start, 16) > address) return false;
      this.#start = Number.parseInt(start, 16);
      this.#end = Number.parseInt(end!, 16);
      this.#rights = (read === 'r' ? MappingRight.read : 0) | (write === 'w' ? MappingRight.write : 0);
      return true;
    }
    return false;
  }
  /** How many of the pages from `first` on have one of the bits in their entry of the page map, which is read into `room`. */
  pagesThere(first: number, pages: number, bits: number, room: Uint8Array): number {
    const got = this.#entries(first, pages, room);
    let there = 0;
    while (there < got && room[there * 8 + 7]! & bits) there++;
    return there;
  }
  #entries(first: number, pages: number, room: Uint8Array): number {
    try {
      return Math.floor(readSync(this.files.pagemap, room, 0, pages * 8, first * 8) / 8);
    } catch {
      return 0;
    }
  }
  /** Bytes into memory of ours; how many. */
  readInto(address: number, to: number, length: number): number {
    return this.rootFrame < 0 ? 0 : Math.max(0, this.#native.read(this.files.mem, to, length, address));
  }
  writeFrom(address: number, from: number, length: number): number {
    return this.rootFrame < 0 ? 0 : Math.max(0, this.#native.write(this.files.mem, from, length, address));
  }
  #copy(address: number, bytes: Uint8Array, right: number): number {
    if (this.rootFrame < 0 || !(address >= 0 && address + bytes.length < 2 ** 47)) return -Errno.EFAULT;
    this.forgetMappings();
    if (this.allowed(address, bytes.length, right) < bytes.length) return -Errno.EFAULT;
    for (let done = 0; done < bytes.length; ) {
      const length = Math.min(bytes.length - done, PAGE);
      const { room } = this.#native;
      if (right === MappingRight.write) room.bytes.set(bytes.subarray(done, done + length));
      const moved =
        right === MappingRight.write ? this.writeFrom(address + done, room.address, length) : this.readInto(address + done, room.address, length);
      if (moved < length) return -Errno.EFAULT;
      if (right === MappingRight.read) bytes.set(room.bytes.subarray(0, length), done);
      done += length;
    }
    return 0;
  }
  read(address: number, out: Uint8Array): number {
    return this.#copy(address, out, MappingRight.read);
  }
  write(address: number, bytes: Uint8Array): number {
    return this.#copy(address, bytes, MappingRight.write);
  }
  /** The page is there now, or -EFAULT. A page that is read becomes present; a write then replaces the shared one by itself. */
  handleFault(hi: number, lo: number, access: number): number {
    const address = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
    const area = this.areaAt(address);
    if (area) {
      const page = Math.floor((address - area.start) / PAGE);
      // A page that is there and was asked for all the same is registers, which no device reaches by the process's addresses.
      return area.frames.has(page) ? -Errno.EFAULT : (area.onFault?.(page) ?? -Errno.EFAULT);
    }
    this.forgetMappings();
    if (this.rootFrame < 0 || hi >>> 15 !== 0 || this.allowed(address, 1, access & DmaAccess.write ? MappingRight.write : MappingRight.read) < 1)
      return -Errno.EFAULT;
    return this.readInto(address, this.#native.room.address, 1) === 1 ? 0 : -Errno.EFAULT;
  }

  // --- mappings of devices' files

  /** The process has reserved the place. Only files are mapped here, and only by pages that their drivers insert. */
  mmap(address: number, length: number, prot: number, flags: number, backing?: Backing, offset = 0): number {
    if (!backing || address % PAGE) return -Errno.EINVAL;
    length = Math.ceil(length / PAGE) * PAGE;
    this.munmap(address, length);
    const area = new Area(address, length, offset, prot, flags, this.#freeRegion(), this.#portals);
    if (area.region < 0) return -Errno.ENOMEM;
    const error = backing.map(area);
    if (error < 0) {
      area.end();
      return error;
    }
    this.areas.push(area);
    return address;
  }
  /** The whole mapping goes with any part of it: portals are single pages. */
  munmap(address: number, length: number): number {
    for (const area of this.areas.filter(({ start, length: own }) => start < address + length && address < start + own)) this.#remove(area);
    return 0;
  }
  #freeRegion(): number {
    for (let region = 0; region < REGIONS; region++) if (!this.areas.some((area) => area.region === region)) return region;
    return -1;
  }
  #remove(area: Area): void {
    this.areas.splice(this.areas.indexOf(area), 1);
    area.end();
    area.onClose?.();
  }
  areaAt(address: number): Area | undefined {
    return this.areas.find(({ start, length }) => address >= start && address < start + length);
  }
  frameOf(address: number): number {
    const area = this.areaAt(address);
    return area?.frames.get(Math.floor((address - area.start) / PAGE)) ?? -1;
  }
  mprotect(): number {
    return -Errno.EINVAL;
  }

  // --- pinned pages

  /** Frames for all the pages, which are there when this returns, or -errno and nothing is pinned. What drivers map is no memory: -EFAULT. */
  pin(address: number, pages: number, write: boolean, out: Int32Array, at = 0): number {
    const bytes = pages * PAGE;
    if (this.rootFrame < 0 || !(address >= 0 && address + bytes <= 2 ** 47)) return -Errno.EFAULT;
    if (this.areas.some(({ start, length }) => start < address + bytes && address < start + length)) return -Errno.EFAULT;
    this.forgetMappings();
    if (this.allowed(address, bytes, write ? MappingRight.write : MappingRight.read) < bytes || !this.#faultIn(address / PAGE, pages))
      return -Errno.EFAULT;
    for (let i = 0; i < pages; i++) {
      const frame = this.#limits.pins.pin(this, address / PAGE + i);
      if (frame < 0) {
        this.unpin(out.subarray(at), i);
        return frame;
      }
      out[at + i] = frame;
    }
    return pages;
  }
  /** Also after the address space has ended. */
  unpin(frames: Int32Array, count: number): void {
    for (let i = 0; i < count; i++) this.#limits.pins.unpin(frames[i]!);
  }
  /** Counts pages as locked: 0, or -ENOMEM beyond the limit. A negative number takes them back. */
  lockPages(pages: number): number {
    if (this.#locked + pages > this.#limits.lockedPages) return -Errno.ENOMEM;
    this.#locked += pages;
    return 0;
  }
  #faultIn(first: number, pages: number): boolean {
    const entries = new Uint8Array(Math.min(pages, ENTRIES_AT_ONCE) * 8);
    for (let done = 0; done < pages; done += ENTRIES_AT_ONCE) {
      const count = Math.min(pages - done, ENTRIES_AT_ONCE);
      const got = this.#entries(first + done, count, entries);
      for (let i = 0; i < count; i++) {
        if (i < got && entries[i * 8 + 7]! & PagePresence.present) continue;
        if (this.readInto((first + done + i) * PAGE, this.#native.room.address, 1) !== 1) return false;
      }
    }
    return true;
  }

  subscribe(notifier: MmuNotifier): () => void {
    this.#notifiers.add(notifier);
    return () => this.#notifiers.delete(notifier);
  }
  fork(): number {
    return -Errno.ENOSYS;
  }
  /** The address space ended: notifiers, mappings, then the files of procfs. */
  exit(): void {
    if (this.rootFrame < 0) return;
    for (const notifier of [...this.#notifiers]) notifier.release();
    this.#notifiers.clear();
    for (const area of [...this.areas]) this.#remove(area);
    this.#gone();
    this.rootFrame = -1;
    for (const fd of [this.files.mem, this.files.maps, this.files.pagemap]) closeSync(fd);
  }
}
