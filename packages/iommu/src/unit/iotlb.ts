/**
 * The IOTLB: results of whole translations by 4 KiB, 2 MiB and 1 GiB page. First-stage and nested results carry domain id and PASID in
 * their tag, second-stage results the domain id alone. VT-d, "IOTLB".
 *
 * Entry: [address low | page size class, address high, PASID or -1, domain id, first frame of the page, rights, run, version]. Of a 4 KiB page, `run`
 * is how many pages behind it are known to have entries of the same rights and the frames behind its own, and whether the one after them is known to
 * have another frame; good as long as the cache's `version` is the entry's.
 */
import { TagCache } from './cache.js';

/** Rights of an entry; a request needs some of them. */
export const Right = {
  read: 1,
  write: 2,
  /** Write by a supervisor that ignores the first stage's R/W (WPE = 0). */
  supervisorWrite: 4,
  execute: 8,
  user: 16,
  /** The dirty bit is set already (or none is kept). */
  dirty: 32,
  /** The result depends on a second stage below a first one. */
  nested: 64,
} as const;
/** Words of an entry behind its tag. */
export const Slot = {
  frame: 4,
  rights: 5,
  run: 6,
  version: 7,
  /** In `run`: the page behind the run has another frame. */
  runEnds: 1 << 30,
} as const;
/** Tag of results that no PASID selects. */
export const ANY_PASID = -1;

const MASK_2M = 0xffe0_0000 | 0;
const MASK_1G = 0xc000_0000 | 0;
/** Below this many pages each one is looked for; above it the whole cache is looked through. */
const FEW_PAGES = 64;

export class Iotlb {
  readonly cache: TagCache;
  readonly data: Int32Array;
  private readonly setMask: number;
  /** 1: entries of large pages may be there. */
  private large = 0;
  /** Another one after each change. */
  version = 0;

  constructor(entries: number) {
    this.cache = new TagCache(entries, 3, 'iotlb');
    this.data = this.cache.data;
    this.setMask = this.cache.setMask;
  }

  /** The entry of the page that holds (hi, lo), or -1. `salt` spreads address spaces over the sets. */
  find(domainId: number, pasid: number, salt: number, hi: number, lo: number): number {
    const at = this.probe((lo & ~0xfff) | 1, hi, pasid, domainId, (lo >>> 12) ^ salt);
    return at >= 0 || this.large === 0 ? at : this.findLarge(domainId, pasid, salt, hi, lo);
  }

  private findLarge(domainId: number, pasid: number, salt: number, hi: number, lo: number): number {
    const at = this.probe((lo & MASK_2M) | 2, hi, pasid, domainId, (lo >>> 21) ^ salt);
    return at >= 0 ? at : this.probe((lo & MASK_1G) | 3, hi, pasid, domainId, ((hi << 2) | (lo >>> 30)) ^ salt);
  }

  /** TagCache.find with the entry's size known. */
  private probe(a: number, b: number, c: number, d: number, hash: number): number {
    const { data } = this;
    const first = (hash & this.setMask) << 5;
    for (let at = first; at < first + 32; at += 8) if (data[at] === a && data[at + 1] === b && data[at + 2] === c && data[at + 3] === d) return at;
    return -1;
  }

  /** Keeps a result: `frame` is that of the 4 KiB page asked for, `shift` 12, 21 or 30. `old`: what `find` said. Returns the entry. */
  insert(old: number, domainId: number, pasid: number, salt: number, hi: number, lo: number, shift: number, frame: number, rights: number): number {
    const { cache, data } = this;
    this.version = (this.version + 1) | 0;
    // What is known of the page already goes: its size may have changed.
    if (old >= 0) cache.drop(old);
    let at: number;
    if (shift === 12) at = cache.add((lo & ~0xfff) | 1, hi, pasid, domainId, (lo >>> 12) ^ salt);
    else {
      this.large = 1;
      if (shift === 21) at = cache.place((lo & MASK_2M) | 2, hi, pasid, domainId, (lo >>> 21) ^ salt);
      else at = cache.place((lo & MASK_1G) | 3, hi, pasid, domainId, ((hi << 2) | (lo >>> 30)) ^ salt);
    }
    data[at + Slot.frame] = frame & (-1 << (shift - 12));
    data[at + Slot.rights] = rights;
    data[at + Slot.version] = ~this.version;
    return at;
  }

  /** As FrontHooks.iotlbInvalidated says. */
  invalidate(domainId: number, pasid: number, hi: number, lo: number, pages: number): void {
    this.version = (this.version + 1) | 0;
    if (domainId < 0) {
      this.cache.clear();
      this.large = 0;
      return;
    }
    if (pasid >= 0 && pages >= 0 && pages <= FEW_PAGES) {
      this.each(domainId, pasid, hi, lo, pages);
      return;
    }
    const { data } = this;
    const first = page(hi, lo);
    for (let at = 0; at < data.length; at += 8) {
      if (data[at] === 0 || data[at + 3] !== domainId) continue;
      if (pasid >= 0 && data[at + 2] !== pasid) continue;
      if (pages >= 0) {
        const nested = (data[at + Slot.rights]! & Right.nested) !== 0;
        // A range of a domain names second-stage input addresses: what nested results depend on cannot be told, so they all go.
        if (pasid < 0 && nested) this.cache.drop(at);
        if (pasid < 0 && data[at + 2] !== ANY_PASID) continue;
        const from = page(data[at + 1]!, data[at]! & ~0xfff);
        const size = SIZE[data[at]! & 3]!;
        if (from >= first + pages || from + size <= first) continue;
      }
      this.cache.drop(at);
    }
  }

  /** Page by page, for the usual small range of one PASID. */
  private each(domainId: number, pasid: number, hi: number, lo: number, pages: number): void {
    const salt = saltOf(domainId, pasid);
    for (let i = 0; i < pages; i++) {
      for (let at = this.find(domainId, pasid, salt, hi, lo); at >= 0; at = this.find(domainId, pasid, salt, hi, lo)) this.cache.drop(at);
      lo = (lo + 4096) | 0;
      if (lo >>> 12 === 0) hi = (hi + 1) | 0;
    }
  }
}

const SIZE = [0, 1, 512, 512 * 512];
/** Page number as a Number: exact, 52 bits. */
const page = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);
export const saltOf = (domainId: number, pasid: number): number => (Math.imul(pasid, 0x9e37_79b1) >>> 7) ^ Math.imul(domainId, 0x85eb);
