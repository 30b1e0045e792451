/**
 * The page walks: first stage, second stage, and nested, where every first-stage table pointer and the result pass through the second
 * stage. Rules in the specification's order, per entry: access, present, reserved bits, rights, accessed and dirty. VT-d, "First-Stage
 * Translation", "Second-Stage Translation", "Nested Translation". Nothing is allocated; addresses are two int32 words, tables page frames.
 */
import { DmaAccess } from '@siov/layout/pcie';
import { frameOf, MemoryWords } from '../memory.js';
import type { PhysicalMap } from '../ports.js';
import { Capability, ExtendedCapability } from '../spec/capabilities.js';
import { Fault } from '../spec/faults.js';
import { Right } from './iotlb.js';
import type { Resolved } from './options.js';
import { StructureCache } from './structure-cache.js';
import type { Tables } from './walk-trace.js';

const {
  beyondGuestWidth,
  firstStageAccess,
  firstStageNotPresent,
  firstStageReserved,
  firstStageRootAccess,
  nestedBeyondWidth,
  nestedRootRead,
  nestedTableRead,
  nestedTableWrite,
  none,
  notCanonical,
  notExecutable,
  notUser,
  readRefused,
  secondStageAccess,
  secondStageNoRight,
  secondStageReserved,
  secondStageRootAccess,
  writeRefused,
} = Fault;
// Copies: V8 folds constants of a module itself into the code, and loads those that it imports.
const { write: WRITES, privileged: PRIVILEGED, execute: EXECUTES } = DmaAccess;
const { read, supervisorWrite, execute, user, dirty: DIRTY, nested: NESTED } = Right;
// The entries' bits, as the loops test them: SecondStageEntry and PageEntry of the layouts.
const PRESENT = 1;
const WRITE = 2;
const READ_WRITE = 3;
const USER = 4;
const FS_ACCESSED = 0x20;
const FS_DIRTY = 0x40;
const PAGE_SIZE = 0x80;
const EXTENDED_ACCESSED = 0x400;
const SS_ACCESSED = 0x100;
const SS_DIRTY = 0x200;
const SNOOP = 0x800;
/**
 * Bits of a leaf's low word that must be 0, by level; at a level where no leaf may be, PS itself. Below a large leaf's size, address bits
 * (bit 12 of a first-stage one is PAT).
 */
const leafMasks = (has2M: boolean, has1G: boolean, from: number, leaf: number): Int32Array =>
  Int32Array.of(0, leaf, has2M ? (2 ** 21 - from) | leaf : PAGE_SIZE, has1G ? (2 ** 30 - from) | leaf : PAGE_SIZE, PAGE_SIZE, PAGE_SIZE);
/** 4 KiB pages of a leaf less one, and the shift of its size, by level. */
const WITHIN = Int32Array.of(0, 0, 0x1ff, 0x3_ffff);
const SHIFT = Int32Array.of(0, 12, 21, 30);

/** Bits 29:12 of an address: the indices of levels 2 and 1. */
const lower = (lo: number): number => (lo >>> 12) & 0x3_ffff;
/** Bits 61:30 of an address: the indices of levels 5 (bits 26:18 here), 4 and 3. */
const upper = (hi: number, lo: number): number => (hi << 2) | (lo >>> 30);
export class Walker {
  // fixed
  private readonly beyond: number;
  private readonly secondReserved: number;
  private readonly firstLeaf: Int32Array;
  private readonly secondLeaf: Int32Array;
  // ports
  readonly memory: MemoryWords;
  // state: the address space walked, set by `select`
  private firstHi = 0;
  private firstLo = 0;
  private firstLevels = 4;
  private secondFrame = 0;
  private secondLevels = 4;
  private nested = false;
  private writeProtect = false;
  private extendedAccessed = false;
  private keepsDirty = false;
  // state: the result of the last walk
  /** Frame of the 4 KiB page asked for. */
  frame = 0;
  /** 12, 21 or 30. */
  shift = 12;
  /** Right bits. */
  rights = 0;
  /** Entries read by it. */
  reads = 0;
  private leafWords: Uint32Array;
  private leafAt = 0;
  // state: the first-stage paging-structure cache
  readonly structures: StructureCache;

  /** `structures`: entries of the first-stage paging-structure cache, a power of two; 0: none. */
  constructor(map: PhysicalMap, { capability, extended, hostAddressWidth }: Resolved, structures = 0) {
    this.memory = new MemoryWords(map);
    this.structures = new StructureCache(structures);
    this.leafWords = this.memory.words;
    this.beyond = ~(2 ** (hostAddressWidth - 32) - 1) & 0xf_ffff;
    this.secondReserved = this.beyond | 0x4000_0000;
    this.firstLeaf = leafMasks(true, Capability.get.firstStage1G(capability, 0) === 1, 0x2000, 0);
    const large = Capability.get.secondStageLargePages(capability, 0);
    const snoop = ExtendedCapability.get.snoopControl(extended, 0) ? 0 : SNOOP;
    this.secondLeaf = leafMasks((large & 1) !== 0, (large & 2) !== 0, 0x1000, snoop);
  }

  /** Chooses tables: `flags` as the PASID cache keeps them (see translation.ts). */
  select(
    firstHi: number,
    firstLo: number,
    firstLevels: number,
    secondFrame: number,
    secondLevels: number,
    nested: boolean,
    writeProtect: boolean,
    extended: boolean,
    keepsDirty: boolean,
  ): void {
    this.firstHi = firstHi;
    this.firstLo = firstLo;
    this.firstLevels = firstLevels;
    this.secondFrame = secondFrame;
    this.secondLevels = secondLevels;
    this.nested = nested;
    this.writeProtect = writeProtect;
    this.extendedAccessed = extended;
    this.keepsDirty = keepsDirty;
  }

  /** What `select` chose, for the trace. */
  tables(hasFirst: boolean): Tables {
    const { firstHi, firstLo, firstLevels, secondLevels } = this;
    return { firstHi, firstLo, firstLevels, secondLevels, secondFrame: !hasFirst || this.nested ? this.secondFrame : -1, hasFirst };
  }

  /** Second stage alone. Returns a fault reason; on none, `frame`, `shift` and `rights` hold the result. */
  secondStage(hi: number, lo: number, access: number): number {
    this.reads = 0;
    const write = (access & WRITES) !== 0;
    const frame = this.second(hi, lo, write ? WRITE : PRESENT);
    if (frame < 0) return ~frame;
    this.frame = frame;
    const dirty = !this.keepsDirty || this.leafWords[this.leafAt]! & SS_DIRTY ? DIRTY : 0;
    this.rights |= (this.rights & WRITE) << 1;
    this.rights |= execute | user | dirty;
    return none;
  }

  /** First stage, alone or nested. `access`: DmaAccess bits. */
  firstStage(hi: number, lo: number, access: number): number {
    this.reads = 0;
    const top = this.firstLevels;
    const sign = top === 4 ? hi >> 15 : hi >> 24;
    if (sign !== 0 && sign !== -1) return notCanonical;
    const { nested, memory } = this;
    const beyond = nested ? 0 : this.beyond;
    const accessed = FS_ACCESSED | (this.extendedAccessed ? EXTENDED_ACCESSED : 0);
    // What nearly all entries that point to a table look like.
    const usual = PRESENT | accessed;
    const tested = usual | PAGE_SIZE;
    const down = lower(lo);
    let indices = upper(hi, lo);
    let shift = (top - 3) * 9;
    let tableHi = this.firstHi;
    let tableLo = this.firstLo;
    let all = WRITE | USER;
    let noExecute = 0;
    let tableRights = WRITE;
    let level = top;
    // With accessed and dirty bits of the second stage, the way to a table must be walked: its dirty bit may have to be set.
    const { structures } = this;
    const caching = structures.size !== 0 && !this.keepsDirty;
    const second = nested ? this.secondFrame : -1;
    let frame = -1;
    if (caching && structures.find(hi, lo, this.firstHi, this.firstLo, second)) {
      level = 1;
      indices = down;
      shift = 0;
      frame = structures.frame;
      all = structures.all;
      noExecute = structures.noExecute;
      tableRights = structures.tableRights;
    }
    for (;;) {
      let base: number;
      if (frame >= 0) {
        base = memory.at(frame);
        if (base < 0) return firstStageAccess;
      } else {
        frame = nested ? this.second(tableHi, tableLo, PRESENT) : frameOf(tableHi, tableLo);
        if (frame < 0) return tableFault(~frame, level === top);
        if (nested) tableRights = this.rights;
        base = memory.at(frame);
        if (base < 0) return level === top ? firstStageRootAccess : firstStageAccess;
        if (caching && level === 1) structures.keep(hi, lo, this.firstHi, this.firstLo, second, frame, all, noExecute, tableRights);
      }
      frame = -1;
      const { words } = memory;
      const at = base + (((indices >>> shift) & 511) << 1);
      const low = words[at]! | 0;
      const high = words[at + 1]! | 0;
      this.reads++;
      all &= low;
      noExecute |= high >>> 31;
      tableHi = high & 0xf_ffff;
      tableLo = low & ~0xfff;
      if (level === 1 || (low & tested) !== usual || high & beyond) {
        if (!(low & PRESENT)) return firstStageNotPresent;
        const leaf = level === 1 || (low & PAGE_SIZE) !== 0;
        if ((leaf && low & this.firstLeaf[level]!) || high & beyond) return firstStageReserved;
        let set = accessed;
        if (leaf) {
          const fault = this.refused(all, noExecute, access);
          if (fault !== none) return fault;
          if (access & WRITES) set |= FS_DIRTY;
        }
        if ((low & set) !== set) {
          if (!(tableRights & WRITE)) return nestedTableWrite;
          words[at] = low | set;
          if (nested && this.keepsDirty) this.leafWords[this.leafAt]! |= SS_DIRTY;
        }
        if (leaf) {
          const rights = (all & USER ? user : 0) | (noExecute ? 0 : execute) | ((low | set) & FS_DIRTY ? DIRTY : 0);
          return this.finish(lo, tableHi, tableLo, level, all & WRITE, rights, access);
        }
      }
      level--;
      shift -= 9;
      if (level === 2) {
        indices = down;
        shift = 9;
      }
    }
  }

  /** The first stage's result: a host address, or the second stage's input. */
  private finish(lo: number, outHi: number, outLo: number, level: number, write: number, rights: number, access: number): number {
    const within = WITHIN[level]!;
    const shift = SHIFT[level]!;
    // The leaf's address bits below its size are reserved or PAT; the request's take their place.
    const pageLo = (outLo & ~(within << 12)) | (lo & (within << 12));
    if (!this.nested) {
      this.frame = frameOf(outHi, pageLo);
      this.shift = shift;
      this.rights = rights | read | write | supervisorWrite;
      return none;
    }
    const frame = this.second(outHi, pageLo, access & WRITES ? WRITE : PRESENT);
    if (frame < 0) return ~frame;
    this.frame = frame;
    const kept = !this.keepsDirty || this.leafWords[this.leafAt]! & SS_DIRTY ? -1 : ~DIRTY;
    const second = this.rights;
    this.rights = (rights & kept) | (second & read) | (second & write) | ((second & WRITE) << 1) | NESTED;
    if (shift < this.shift) this.shift = shift;
    return none;
  }

  /** The leaf's verdict on a request. Rights are those of all levels together. */
  private refused(all: number, noExecute: number, access: number): number {
    const supervisor = (access & PRIVILEGED) !== 0;
    if (!supervisor && !(all & USER)) return notUser;
    if (access & EXECUTES && noExecute) return notExecutable;
    if (access & WRITES && !(all & WRITE) && (!supervisor || this.writeProtect)) return writeRefused;
    return none;
  }

  /**
   * One walk of the second stage. `need`: 1 read, 2 write. The frame of the 4 KiB page, or the complement of a fault reason; leaves shift,
   * rights (R and W bits), and with A/D where the leaf lies.
   */
  private second(hi: number, lo: number, need: number): number {
    const top = this.secondLevels;
    if ((top === 4 ? hi >>> 16 : top === 3 ? hi >>> 7 : hi >>> 25) !== 0) return ~beyondGuestWidth;
    const { keepsDirty, secondReserved, memory } = this;
    // What nearly all entries that point to a table look like.
    const usual = keepsDirty ? READ_WRITE | SS_ACCESSED : READ_WRITE;
    const tested = usual | PAGE_SIZE | SNOOP;
    const down = lower(lo);
    let indices = upper(hi, lo);
    let shift = (top - 3) * 9;
    let frame = this.secondFrame;
    let rights = READ_WRITE;
    let level = top;
    for (;;) {
      if (memory.at(frame) < 0) {
        this.reads += top - level;
        return ~(level === top ? secondStageRootAccess : secondStageAccess);
      }
      // Within one region, nothing is called between the steps.
      const { firstFrame, frames } = memory.region!;
      const { words } = memory;
      while ((frame - firstFrame) >>> 0 < frames) {
        const at = ((frame - firstFrame) << 10) + (((indices >>> shift) & 511) << 1);
        const low = words[at]! | 0;
        const high = words[at + 1]! | 0;
        frame = (high << 20) | (low >>> 12);
        if (level === 1 || (low & tested) !== usual || high & secondReserved) {
          rights &= low;
          const table = level !== 1 && (low & PAGE_SIZE) === 0;
          let fault: number = none;
          if (rights === 0) fault = secondStageNoRight;
          else if (high & secondReserved || low & (table ? SNOOP : this.secondLeaf[level]!)) fault = secondStageReserved;
          else if (!table && !(rights & need)) fault = need === WRITE ? writeRefused : readRefused;
          if (!table || fault !== none) {
            this.reads += top - level + 1;
            if (fault !== none) return ~fault;
            if (keepsDirty) {
              words[at] = low | SS_ACCESSED | (need === WRITE ? SS_DIRTY : 0);
              this.leafWords = words;
              this.leafAt = at;
            }
            this.shift = SHIFT[level]!;
            this.rights = rights;
            const within = WITHIN[level]!;
            return (frame & ~within) | (down & within);
          }
          if (keepsDirty && !(low & SS_ACCESSED)) words[at] = low | SS_ACCESSED;
        }
        level--;
        shift -= 9;
        if (level === 2) {
          indices = down;
          shift = 9;
        }
      }
    }
  }
}

/** What a second-stage fault on the way to a first-stage table is called. */
const tableFault = (fault: number, top: boolean): number => {
  if (fault === beyondGuestWidth) return nestedBeyondWidth;
  if (fault === secondStageNoRight || fault === readRefused) return top ? nestedRootRead : nestedTableRead;
  return fault;
};
