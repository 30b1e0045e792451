/**
 * The page walk of the processor: 4 or 5 levels, each guest frame translated by the EPT where there is one. Intel SDM 3A, "4-Level
 * Paging and 5-Level Paging"; 3C, "The Extended Page Table Mechanism (EPT)". Runs on int32 frames and allocates nothing; the answer is left in fields.
 */
import { DmaAccess } from '@siov/layout/pcie';
import { EptEntry, entryFrame, PageEntry } from '@siov/layout/x86';
import type { PhysicalMap, Region } from './ports.js';

const { present, write, user, accessed, dirty, pageSize, executeDisable } = PageEntry.get;
const setAccessed = PageEntry.set.accessed;
const setDirty = PageEntry.set.dirty;
const { read: eptRead, write: eptWrite, execute: eptExecute, pageSize: eptPageSize } = EptEntry.get;
const setEptAccessed = EptEntry.set.accessed;
const setEptDirty = EptEntry.set.dirty;

export const Walk = { ok: 0, pageFault: 1, eptViolation: 2 } as const;
export type Walk = (typeof Walk)[keyof typeof Walk];

export class Walker {
  /** Of the last `ok`: the page's frame, and the DmaAccess bits beyond reading that need no further walk. */
  frame = 0;
  rights = 0;
  /** Of the last violation: the guest frame, whether it was written, and whether it holds a table rather than the data. */
  gpaFrame = 0;
  violationWrite = false;
  violationTable = false;
  /** Entries read since the start. */
  reads = 0;
  private readonly memory: PhysicalMap;
  private region: Region | undefined;

  constructor(memory: PhysicalMap) {
    this.memory = memory;
  }

  /** Translates a user access to a canonical address below 2^47, or 2^56 with 5 levels. */
  walk(root: number, eptRoot: number, hi: number, lo: number, access: number, levels = 4): Walk {
    let table = root;
    let writable = 1;
    let byUser = 1;
    let execute = 1;
    for (let level = levels; ; level--) {
      if (eptRoot >= 0 && (table = this.ept(eptRoot, table, false, true)) < 0) return Walk.eptViolation;
      const region = this.ram(table);
      if (!region) return Walk.pageFault;
      const words = region.words;
      const at = ((table - region.firstFrame) << 10) | (indexOf(level, hi, lo) << 1);
      this.reads++;
      if (!present(words, at)) return Walk.pageFault;
      writable &= write(words, at);
      byUser &= user(words, at);
      execute &= executeDisable(words, at) ^ 1;
      const large = level === 2 || level === 3 ? pageSize(words, at) : 0;
      const leaf = level === 1 || large === 1;
      if (leaf && (!byUser || (access & DmaAccess.write && !writable) || (access & DmaAccess.execute && !execute))) return Walk.pageFault;
      const dirties = leaf && (access & DmaAccess.write) !== 0 && !dirty(words, at);
      if (!accessed(words, at) || dirties) {
        // The update of a guest's entry is a write to the page that holds it.
        if (eptRoot >= 0 && this.ept(eptRoot, this.gpaFrame, true, true) < 0) return Walk.eptViolation;
        setAccessed(words, at, 1);
        if (dirties) setDirty(words, at, 1);
      }
      table = entryFrame(words, at);
      if (!leaf) continue;
      const mask = level === 1 ? 0 : level === 2 ? 0x1ff : 0x3_ffff;
      let frame = table < 0 ? -1 : (table & ~mask) | ((((hi & 0x3f) << 20) | (lo >>> 12)) & mask);
      let rights = execute ? DmaAccess.execute : 0;
      if (writable && dirty(words, at)) rights |= DmaAccess.write;
      if (eptRoot >= 0) {
        frame = this.ept(eptRoot, frame, (access & DmaAccess.write) !== 0, false);
        if (frame < 0) return Walk.eptViolation;
        rights &= this.eptRights;
      }
      this.frame = frame;
      this.rights = rights;
      return Walk.ok;
    }
  }

  /** Rights of the last EPT translation: write only when the leaf is dirty already. */
  private eptRights = 0;

  /** Host frame of a guest frame, or -1 after noting the violation. */
  private ept(root: number, gpaFrame: number, forWrite: boolean, forTable: boolean): number {
    this.gpaFrame = gpaFrame;
    this.violationWrite = forWrite;
    this.violationTable = forTable;
    if (gpaFrame < 0) return -1;
    let table = root;
    let writable = 1;
    let execute = 1;
    for (let level = 4; level > 0; level--) {
      const region = this.ram(table);
      if (!region) return -1;
      const words = region.words;
      const at = ((table - region.firstFrame) << 10) | (((gpaFrame >>> (9 * (level - 1))) & 511) << 1);
      this.reads++;
      if (!eptRead(words, at)) return -1;
      writable &= eptWrite(words, at);
      execute &= eptExecute(words, at);
      table = entryFrame(words, at);
      const large = level === 2 || level === 3 ? eptPageSize(words, at) : 0;
      if (level > 1 && !large) {
        setEptAccessed(words, at, 1);
        continue;
      }
      if (forWrite && !writable) return -1;
      setEptAccessed(words, at, 1);
      if (forWrite) setEptDirty(words, at, 1);
      const mask = level === 1 ? 0 : level === 2 ? 0x1ff : 0x3_ffff;
      this.eptRights = (writable && EptEntry.get.dirty(words, at) ? DmaAccess.write : 0) | (execute ? DmaAccess.execute : 0);
      return table < 0 ? -1 : (table & ~mask) | (gpaFrame & mask);
    }
    return -1;
  }

  private ram(frame: number): Region | undefined {
    let region = this.region;
    if (region && (frame - region.firstFrame) >>> 0 < region.frames) return region;
    region = this.memory.regionOf(frame);
    return region?.kind === 'ram' ? (this.region = region) : undefined;
  }
}

const indexOf = (level: number, hi: number, lo: number): number =>
  level === 5
    ? (hi >>> 16) & 511
    : level === 4
      ? (hi >>> 7) & 511
      : level === 3
        ? ((hi & 0x7f) << 2) | (lo >>> 30)
        : level === 2
          ? (lo >>> 21) & 511
          : (lo >>> 12) & 511;
