/**
 * Processes of this machine as first stages. The device's accesses become reads and writes of the process's memory, through files of procfs
 * that stay with the address space they were opened for (after exec they give nothing). proc(5), Documentation/admin-guide/mm/pagemap.rst.
 * Pages that drivers pin get frames of a window; what translations lead there reaches the page that the process has at its address.
 */
import { closeSync, openSync } from 'node:fs';
import type { Extent, ForeignProcesses } from '@siov/iommu';
import { DmaAccess, TlpStatus } from '@siov/layout/pcie';
import { ForeignMm, type ForeignPortals, MappingRight, PagePresence } from './foreign-mm.js';
import type { Native, NativeBytes } from './native.js';
import { PinWindow } from './pins.js';

export type { ForeignMm, MappedRegion } from './foreign-mm.js';

/** Root frames of processes: where no host has memory. */
const FIRST_ROOT = 0x4000_0000;
/** The largest piece that the device gets at once. */
const CHUNK = 512 * 1024;
const PAGE = 4096;
/** Up to the size of a completion record, the first byte is written last: programs wait for it. */
const RECORD = 64;
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
export interface ForeignOptions {
  /** Pages that one process may have pinned (default: no limit). RLIMIT_MEMLOCK. */
  readonly lockedPages?: number;
}

export class ForeignMemory implements ForeignProcesses {
  readonly counts: ForeignCounts = { absent: 0, lost: 0 };
  /** Pinned pages of all processes. */
  readonly pins = new PinWindow<ForeignMm>();
  readonly #options: ForeignOptions;
  readonly #native: Native;
  readonly #spaces = new Map<number, ForeignMm>();
  readonly #stagings = new Map<Extent, Staging>();
  /** Those with bytes that are not written yet. */
  #unwritten: Staging | undefined;
  readonly #pagemap = Buffer.alloc((CHUNK / PAGE + 1) * 8);
  #nextRoot = FIRST_ROOT;

  constructor(native: Native, options: ForeignOptions = {}) {
    this.#native = native;
    this.#options = options;
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
    const { lockedPages = Number.POSITIVE_INFINITY } = this.#options;
    const limits = { pins: this.pins, lockedPages };
    const mm = new ForeignMm(this.#native, root, { pid, mem, maps, pagemap }, portals, limits, () => this.#spaces.delete(root));
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
    let length = mm && hi >>> 15 === 0 ? mm.allowed(address, Math.min(max, CHUNK), writes ? MappingRight.write : MappingRight.read) : 0;
    if (length > 0) length = this.#there(mm!, address, length, PagePresence.present);
    return this.#lend(mm, address, length, writes, out);
  }

  ownsFrame(frame: number): boolean {
    return this.pins.owns(frame);
  }
  /** What rights a page had when it was pinned, translation says. It is gone when the process has none at that address that it ever touched. */
  acquireFrame(frame: number, offset: number, access: number, max: number, out: Extent): number {
    this.flush();
    const mm = this.pins.spaceOf(frame);
    if (!mm) return this.#lend(mm, 0, 0, false, out);
    const address = this.pins.pageOf(frame) * PAGE + offset;
    const most = Math.min(max, CHUNK);
    const pinned = this.pins.run(frame, Math.ceil((offset + most) / PAGE)) * PAGE - offset;
    let length = mm.allowed(address, Math.min(most, pinned), MappingRight.any);
    if (length > 0) length = this.#there(mm, address, length, PagePresence.present | PagePresence.swapped);
    return this.#lend(mm, address, length, (access & DmaAccess.write) !== 0, out);
  }

  /** An extent over bytes of a process; none: it has no such page, or no right. */
  #lend(mm: ForeignMm | undefined, address: number, length: number, writes: boolean, out: Extent): number {
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

  /** How many of the bytes from an address on are in pages that are there: with one of the bits. */
  #there(mm: ForeignMm, address: number, length: number, bits: number): number {
    const first = Math.floor(address / PAGE);
    const pages = Math.floor((address + length - 1) / PAGE) - first + 1;
    const there = mm.pagesThere(first, pages, bits, this.#pagemap);
    return there === 0 ? 0 : Math.min(length, there * PAGE - (address % PAGE));
  }
}
