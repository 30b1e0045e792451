/**
 * Processes of this machine as first stages, and as address spaces of the simulated kernel. The device's accesses become reads and writes of
 * the process's memory, through files of procfs that stay with the address space they were opened for (after exec they give nothing). Rights
 * come from its mappings, presence from its page map: those files heed neither. proc(5), Documentation/admin-guide/mm/pagemap.rst.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import type { Extent, ForeignProcesses } from '@siov/iommu';
import { DmaAccess, TlpStatus } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { Backing, Mm, MmuNotifier, VmArea } from '@siov/vfs';
import type { Native, NativeBytes } from './native.js';
import { REGIONS } from './wire.js';

/** Root frames of processes: where no host has memory. */
const FIRST_ROOT = 0x4000_0000;
/** The largest piece that the device gets at once. */
const CHUNK = 512 * 1024;
const PAGE = 4096;
/** Up to the size of a completion record, the first byte is written last: programs wait for it. */
const RECORD = 64;
/** Of a page map's entry: present in memory. */
const PRESENT = 0x80;
const READ = 1;
const WRITE = 2;

/** Memory that one extent of the device is lent. */
interface Staging extends NativeBytes {
  readonly words: Uint32Array;
  mm: ForeignMm | undefined;
  /** Address in the process of the staging's first byte. */
  base: number;
  /** Offsets of bytes that were committed and not yet written; none: equal. */
  from: number;
  to: number;
}

/** What the device did in processes' memory. */
export interface ForeignCounts {
  /** Accesses that found no page or no right. */
  absent: number;
  /** Writes that the process was gone for. */
  lost: number;
}

export class ForeignMemory implements ForeignProcesses {
  readonly counts: ForeignCounts = { absent: 0, lost: 0 };
  readonly #native: Native;
  readonly #spaces = new Map<number, ForeignMm>();
  readonly #stagings = new Map<Extent, Staging>();
  /** Those with bytes that are not written yet. */
  #unwritten: Staging | undefined;
  readonly #pagemap = Buffer.alloc((CHUNK / PAGE + 1) * 8);
  #nextRoot = FIRST_ROOT;

  constructor(native: Native) {
    this.#native = native;
  }

  /** Address spaces that are known. */
  get size(): number {
    return this.#spaces.size;
  }

  /** The address space that a process has now; undefined when it is gone, or not ours to look at. */
  attach(pid: number, portals: ForeignPortals): ForeignMm | undefined {
    const files: number[] = [];
    try {
      for (const [name, flags] of [
        ['mem', 'r+'],
        ['maps', 'r'],
        ['pagemap', 'r'],
      ] as const)
        files.push(openSync(`/proc/${pid}/${name}`, flags));
    } catch {
      for (const fd of files) closeSync(fd);
      return undefined;
    }
    const [mem, maps, pagemap] = files as [number, number, number];
    const root = this.#nextRoot++;
    const mm = new ForeignMm(this.#native, root, { pid, mem, maps, pagemap }, portals, () => this.#spaces.delete(root));
    this.#spaces.set(root, mm);
    return mm;
  }

  /** The device's next accesses look at mappings anew. */
  refresh(): void {
    for (const mm of this.#spaces.values()) mm.forgetMappings();
  }

  owns(root: number): boolean {
    return this.#spaces.has(root);
  }

  acquire(root: number, access: number, hi: number, lo: number, max: number, out: Extent): number {
    this.flush();
    const mm = this.#spaces.get(root);
    const address = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
    const writes = (access & DmaAccess.write) !== 0;
    let length = mm && hi >>> 15 === 0 ? mm.allowed(address, Math.min(max, CHUNK), writes ? WRITE : READ) : 0;
    if (length > 0) length = this.#present(mm!, address, length);
    let staging = this.#stagings.get(out);
    if (!staging) {
      const { address: at, bytes } = this.#native.allocate(CHUNK);
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, CHUNK / 4);
      this.#stagings.set(out, (staging = { address: at, bytes, words, mm: undefined, base: 0, from: 0, to: 0 }));
    }
    if (length > 0 && !writes) length = mm!.readInto(address, staging.address, length);
    if (length <= 0) {
      this.counts.absent++;
      return TlpStatus.notPresent;
    }
    staging.mm = mm;
    staging.base = address;
    out.view = staging.bytes;
    out.words = staging.words;
    out.offset = 0;
    out.length = length;
    return TlpStatus.success;
  }

  commit(out: Extent): void {
    const staging = this.#stagings.get(out);
    if (staging === undefined || out.view !== staging.bytes) return;
    const from = out.offset;
    const to = from + out.length;
    if (this.#unwritten === staging && from === staging.to) {
      staging.to = to;
      return;
    }
    this.flush();
    staging.from = from;
    staging.to = to;
    this.#unwritten = staging;
    if (out.length <= RECORD) return;
    this.flush();
  }

  /** What was committed is in the process's memory when this returns. */
  flush(): void {
    const staging = this.#unwritten;
    if (staging === undefined) return;
    this.#unwritten = undefined;
    const { mm, address, base, from, to } = staging;
    staging.from = staging.to = 0;
    if (!mm) return;
    const length = to - from;
    const small = length > 1 && length <= RECORD;
    const rest = small ? 1 : 0;
    let done = mm.writeFrom(base + from + rest, address + from + rest, length - rest) === length - rest;
    if (small && done) done = mm.writeFrom(base + from, address + from, 1) === 1;
    if (!done) this.counts.lost++;
  }

  /** How many of the bytes from an address on are in pages that are there. */
  #present(mm: ForeignMm, address: number, length: number): number {
    const first = Math.floor(address / PAGE);
    const pages = Math.floor((address + length - 1) / PAGE) - first + 1;
    let got = 0;
    try {
      got = readSync(mm.files.pagemap, this.#pagemap, 0, pages * 8, first * 8);
    } catch {}
    let present = 0;
    while (present < pages && present * 8 + 7 < got && this.#pagemap[present * 8 + 7]! & PRESENT) present++;
    return present === 0 ? 0 : Math.min(length, present * PAGE - (address % PAGE));
  }
}

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

/** An address space of a process of this machine. Its own mappings are its own business; those of devices' files are kept here. */
export class ForeignMm implements Mm {
  rootFrame: number;
  pasid = -1;
  readonly files: ProcFiles;
  readonly areas: Area[] = [];
  readonly #native: Native;
  readonly #portals: ForeignPortals;
  readonly #gone: () => void;
  readonly #notifiers = new Set<MmuNotifier>();
  /** The mapping last looked up, as bytes and rights; empty: none. */
  #start = 0;
  #end = 0;
  #rights = 0;

  constructor(native: Native, root: number, files: ProcFiles, portals: ForeignPortals, gone: () => void) {
    this.#native = native;
    this.rootFrame = root;
    this.files = files;
    this.#portals = portals;
    this.#gone = gone;
  }

  // --- the process's own memory

  forgetMappings(): void {
    this.#end = 0;
  }
  /** How many of the bytes from an address on lie in mappings with a right. */
  allowed(address: number, length: number, right: number): number {
    let done = 0;
    while (done < length) {
      const at = address + done;
      if (!(at >= this.#start && at < this.#end) && !this.#lookUp(at)) break;
      if (!(this.#rights & right)) break;
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
      this.#rights = (read === 'r' ? READ : 0) | (write === 'w' ? WRITE : 0);
      return true;
    }
    return false;
  }
  /** Bytes into memory of ours; how many. */
  readInto(address: number, to: number, length: number): number {
    return Math.max(0, this.#native.read(this.files.mem, to, length, address));
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
      if (right === WRITE) room.bytes.set(bytes.subarray(done, done + length));
      const moved = right === WRITE ? this.writeFrom(address + done, room.address, length) : this.readInto(address + done, room.address, length);
      if (moved < length) return -Errno.EFAULT;
      if (right === READ) bytes.set(room.bytes.subarray(0, length), done);
      done += length;
    }
    return 0;
  }
  read(address: number, out: Uint8Array): number {
    return this.#copy(address, out, READ);
  }
  write(address: number, bytes: Uint8Array): number {
    return this.#copy(address, bytes, WRITE);
  }
  /** The page is there now, or -EFAULT. A page that is read becomes present; a write then replaces the shared one by itself. */
  handleFault(hi: number, lo: number, access: number): number {
    const address = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
    this.forgetMappings();
    if (this.rootFrame < 0 || hi >>> 15 !== 0 || this.allowed(address, 1, access & DmaAccess.write ? WRITE : READ) < 1) return -Errno.EFAULT;
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
  pin(): number {
    return -Errno.EOPNOTSUPP;
  }
  unpin(): void {}
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
