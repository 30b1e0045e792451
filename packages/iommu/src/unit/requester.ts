/**
 * The door of one function into the unit: translation of its requests, its interrupt messages, its page requests. The hot path of the
 * package: nothing is allocated, addresses are int32 words, and what the caches said of the address space last used is kept in fields,
 * good as long as the unit's `epoch` stays (any invalidation or replacement in the context and PASID caches moves it).
 */
import { Event, MessageStore } from '@siov/layout/events';
import { DmaAccess, NO_PASID, PageResponse, TlpStatus } from '@siov/layout/pcie';
import { frameOf } from '../memory.js';
import type { Endpoint, Extent, ForeignProcesses, Region, Upstream } from '../ports.js';
import { Fault, legacyReasons } from '../spec/faults.js';
import { PasidEntry } from '../spec/structures.js';
import { Context, ContextFlag, Space, SpaceFlag, tagOf } from './address-spaces.js';
import { UnitCounter } from './counters.js';
import { type Iotlb, Right, Slot } from './iotlb.js';
import { Queued } from './page-requests.js';
import type { IommuUnit } from './unit.js';
import type { Walker } from './walk.js';
import { traceWalk } from './walk-trace.js';

const { firstStage, passThrough, secondStage } = PasidEntry.is.type;
/** 4 KiB pages of an IOTLB entry less one, by the size class in its tag. */
const WITHIN = Int32Array.of(0, 0, 0x1ff, 0x3_ffff);
/** No extent is longer. */
const LONGEST = 0x4000_0000;
/** No page number (bits 31:12 of an address) is this. */
const NO_AHEAD = 1 << 21;
/** No PASID, and not NO_PASID either. */
const UNSELECTED = -2;
// Copies: V8 folds constants of a module itself into the code, and loads those that it imports.
const { ats: ATS, write: WRITE, privileged: PRIVILEGED } = DmaAccess;
const { frame: FRAME, rights: RIGHTS, run: RUN, version: VERSION, runEnds: RUN_ENDS } = Slot;
const { success } = TlpStatus;
const WITHOUT = NO_PASID;
const NO_FAULT = Fault.none;
const { translations, contextHits, contextMisses, pasidHits, pasidMisses, iotlbHits, iotlbMisses, atsRequests } = UnitCounter;
const { read, write, supervisorWrite, execute, user, dirty } = Right;

/** Rights that a request needs, by DmaAccess bits and, from 8 on, with WPE = 1. A supervisor ignores U/S, and R/W unless WPE. */
const NEED = Int32Array.from({ length: 16 }, (_, i) => {
  const supervisor = (i & DmaAccess.privileged) !== 0;
  const writes = (supervisor && i < 8 ? supervisorWrite : write) | dirty;
  return (i & DmaAccess.write ? writes : read) | (supervisor ? 0 : user) | (i & DmaAccess.execute ? execute : 0);
});

export class Requester implements Upstream {
  // fixed
  readonly requesterId: number;
  private readonly tag: number;
  // ports
  private readonly unit: IommuUnit;
  private readonly counters: Float64Array;
  private readonly iotlb: Iotlb;
  private readonly walker: Walker;
  private readonly entries: Int32Array;
  private readonly lookupCost: number;
  private readonly atsLookupCost: number;
  endpoint: Endpoint | undefined;
  // state: the address space last used
  private epoch = -1;
  private pasid = UNSELECTED;
  /** DmaAccess bits that this address space refuses, so that the long way says why. */
  private refuses = 0;
  /** Output is input: translation off, or pass-through. */
  private straight = false;
  /** 1: the context and PASID caches are asked (translation is on). */
  private looked = 0;
  private faultDisable = 0;
  private domainId = 0;
  private iotlbPasid = 0;
  private salt = 0;
  private needs = 0;
  private second = false;
  /** The first stage is a process's of the machine that this runs on: its root frame; -1: page tables in memory. */
  private foreignFrame = -1;
  /** Places in the context and PASID caches. */
  private contextAt = 0;
  private spaceAt = 0;
  // state: the region last given out
  private region: Region | undefined;
  // state: a page that was translated ahead, and turned out not to follow: its next use is not counted again
  private aheadHi = 0;
  private aheadLo = NO_AHEAD;
  private aheadPasid = WITHOUT;
  // state: the epoch in which the short way is open (nobody watches, and there are entries to find), and what went there and is not counted yet
  private shortEpoch = -1;
  private hits = 0;
  private pages = 0;
  private atsPages = 0;
  private misses = 0;
  private reads = 0;
  // state: the modelled cost of the request in hand
  private ns = 0;
  // state: a write to the interrupt range between acquire and commit
  private readonly messageWords = new Uint32Array(1);
  private readonly messageBytes = new Uint8Array(this.messageWords.buffer);
  private messageAddress = 0;

  constructor(unit: IommuUnit, requesterId: number, endpoint: Endpoint | undefined) {
    this.unit = unit;
    this.requesterId = requesterId;
    this.tag = tagOf(requesterId);
    this.endpoint = endpoint;
    this.counters = unit.totals;
    this.iotlb = unit.iotlb;
    this.entries = unit.iotlb.data;
    this.lookupCost = unit.lookupCost;
    this.atsLookupCost = unit.lookupCost + unit.atsCost;
    this.walker = unit.walker;
  }

  /**
   * The short way: the address space last used, an entry with the rights, an extent that it ends or a run that is known, in the region last given
   * out. What it does not answer goes the long way, unchanged by it.
   */
  acquire(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { iotlb, region } = this;
    if (pasid !== this.pasid || this.shortEpoch !== this.unit.epoch || access & this.refuses) return this.long(access, pasid, hi, lo, max, out);
    if (pasid === WITHOUT && hi === 0 && lo >>> 20 === 0xfee) return this.long(access, pasid, hi, lo, max, out);
    const found = iotlb.find(this.domainId, this.iotlbPasid, this.salt, hi, lo);
    if (found < 0) return this.missed(access, pasid, hi, lo, max, out);
    const entries = iotlb.data;
    const need = NEED[(access & 7) | this.needs]!;
    if ((entries[found + RIGHTS]! & need) !== need || lo >> 12 === this.aheadLo) return this.long(access, pasid, hi, lo, max, out);
    const within = WITHIN[entries[found]! & 3]!;
    const first = entries[found + FRAME]! + ((lo >>> 12) & within);
    const offset = lo & 0xfff;
    let length = ((within + 1) << 12) - (lo & ((within << 12) | 0xfff));
    let pages = 1;
    if (length >= max) length = max;
    else {
      const known = entries[found + VERSION] === iotlb.version ? entries[found + RUN]! : 0;
      const run = known & ~RUN_ENDS;
      const more = (max - length + 0xfff) >>> 12;
      if (more <= run) {
        pages += more;
        length = max;
      } else if (known & RUN_ENDS) {
        pages += run;
        length += run << 12;
      } else return this.long(access, pasid, hi, lo, max, out);
    }
    if (region === undefined) return this.long(access, pasid, hi, lo, max, out);
    const start = region.firstFrame;
    const end = first + ((offset + length + 0xfff) >>> 12);
    if ((first - start) >>> 0 >= region.frames || end - start > region.frames || (first < INTERRUPT_END && end > INTERRUPT_FRAME))
      return this.long(access, pasid, hi, lo, max, out);
    if (out.view !== region.bytes) {
      out.view = region.bytes;
      out.words = region.words;
    }
    out.offset = (first - start) * 4096 + offset;
    out.length = length;
    this.hits++;
    this.pages += pages;
    if (access & ATS) {
      this.atsPages += pages;
      out.ns = pages === 1 ? this.atsLookupCost : pages * this.atsLookupCost;
    } else out.ns = pages === 1 ? this.lookupCost : pages * this.lookupCost;
    if (this.pages > MANY) this.tell();
    return success;
  }

  /** The short way to a page that the IOTLB has not: nobody watches, and the address space is the one last used. */
  private missed(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { unit, walker } = this;
    if (unit.walked !== this.spaceAt || unit.walkedEpoch !== unit.epoch) this.direct();
    const fault = this.second ? walker.secondStage(hi, lo, access) : walker.firstStage(hi, lo, access);
    const { reads } = walker;
    this.misses++;
    this.reads += reads;
    let ns = this.lookupCost;
    if (access & ATS) {
      this.atsPages++;
      ns = this.atsLookupCost;
    }
    this.ns = reads === 0 ? ns : ns + reads * unit.walkCost;
    if (this.reads > MANY) this.tell();
    if (fault !== NO_FAULT) return this.refuse(fault, access, pasid, hi, lo);
    const at = this.iotlb.insert(-1, this.domainId, this.iotlbPasid, this.salt, hi, lo, walker.shift, walker.frame, walker.rights);
    return this.extent(at, access, pasid, hi, lo, max, out);
  }

  /** Counts what went the short way. */
  tell(): void {
    const { counters, hits, pages, misses } = this;
    if (hits + misses === 0) return;
    counters[contextHits]! += hits + misses;
    counters[pasidHits]! += hits + misses;
    counters[translations]! += pages + misses;
    counters[iotlbHits]! += pages;
    counters[iotlbMisses]! += misses;
    counters[atsRequests]! += this.atsPages;
    counters[UnitCounter.walkReads]! += this.reads;
    counters[UnitCounter.pagingStructureHits] = this.walker.structures.hits;
    this.hits = this.pages = this.atsPages = this.misses = this.reads = 0;
  }

  private long(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { unit, counters } = this;
    this.ns = 0;
    if (unit.detector !== undefined) unit.detector.request();
    if (unit.trace) unit.trace.emit(Event.translate, this.requesterId, pasid, hi, lo);
    if (pasid === WITHOUT && hi === 0 && lo >>> 20 === 0xfee) return this.interruptRange(access, lo, max, out);
    if (pasid !== this.pasid || this.epoch !== unit.epoch || access & this.refuses) {
      const fault = this.select(access, pasid);
      if (fault !== NO_FAULT) return this.refuse(fault, access, pasid, hi, lo);
    } else {
      counters[contextHits]! += this.looked;
      counters[pasidHits]! += this.looked;
    }
    if (max > LONGEST) max = LONGEST;
    if (this.straight) return this.identity(access, pasid, hi, lo, max, out);
    if (this.foreignFrame >= 0) return this.presence(access, pasid, hi, lo, max, out);
    const found = this.translate(access, hi, lo);
    if (found < 0) return this.refuse(-found, access, pasid, hi, lo);
    if (lo >> 12 === this.aheadLo) this.countedAhead(access, pasid, hi);
    return this.extent(found, access, pasid, hi, lo, max, out);
  }

  /** Gives out what an entry leads to, and the pages behind it as far as they go on. */
  private extent(found: number, access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { unit, entries } = this;
    const within = WITHIN[entries[found]! & 3]!;
    const first = entries[found + FRAME]! + ((lo >>> 12) & within);
    const offset = lo & 0xfff;
    // Bytes from `offset` of the first frame on that are known to be contiguous.
    let length = ((within + 1) << 12) - (lo & ((within << 12) | 0xfff));
    if (length < max) {
      if (max > LONGEST) max = LONGEST;
      // Where the next page is known to lie elsewhere there is nothing to find out.
      if (entries[found + RUN] !== RUN_ENDS || entries[found + VERSION] !== this.iotlb.version || unit.detector !== undefined)
        length = this.grow(found, access, pasid, hi, lo, length, max, first);
    }
    if (length > max) length = max;
    if (first >>> 8 === 0xfee) return this.refuse(Fault.interruptRange, access, pasid, hi, lo);
    const filled = this.fill(first, offset, length, out);
    return filled === success || unit.foreign === undefined ? filled : this.pinned(unit.foreign, first, offset, length, access, pasid, hi, lo, out);
  }

  /** A frame that no memory has may stand for a page of a process that is pinned. Where the process has no such page any more, it is not mapped. */
  private pinned(
    foreign: ForeignProcesses,
    frame: number,
    offset: number,
    length: number,
    access: number,
    pasid: number,
    hi: number,
    lo: number,
    out: Extent,
  ): number {
    if (!foreign.ownsFrame?.(frame)) return TlpStatus.unsupportedRequest;
    const answer = foreign.acquireFrame!(frame, offset, access, length, out);
    if (answer === TlpStatus.notPresent)
      return this.refuse(this.second ? Fault.secondStageNoRight : Fault.firstStageNotPresent, access, pasid, hi, lo);
    out.ns = this.ns;
    return answer;
  }

  commit(out: Extent): void {
    const { unit } = this;
    if (unit.foreign !== undefined) unit.foreign.commit(out);
    if (out.view !== this.messageBytes) return;
    if (unit.trace) unit.trace.emit(Event.message, this.requesterId, this.messageAddress, this.messageWords[0]! | 0, MessageStore.untagged);
    this.message(this.messageAddress, this.messageWords[0]!);
  }

  message(address: number, data: number): void {
    this.unit.message(this.requesterId, address, data);
  }

  pageRequest(pasid: number, hi: number, lo: number, access: number, group: number): number {
    const { unit } = this;
    if (!unit.front.translationEnabled) return 1;
    access &= ~ATS;
    const { structures } = unit.front;
    if (structures.aborts) return 1;
    if (structures.legacy) {
      this.faultDisable = 0;
      this.refuse(Fault.legacyPageRequest, access, pasid, hi, lo);
      return 1;
    }
    const context = this.context();
    const flags = context < 0 ? 0 : unit.spaces.contexts.data[context + Context.flags]!;
    if (context >= 0) this.faultDisable = flags & ContextFlag.faultDisable;
    let fault: number = NO_FAULT;
    if (context < 0) fault = -context;
    else if (!(flags & ContextFlag.pageRequests)) fault = Fault.pageRequestsDisabled;
    else if (pasid !== WITHOUT && !(flags & ContextFlag.pasid)) fault = Fault.pasidDisabled;
    if (fault !== NO_FAULT) {
      this.refuse(fault, access, pasid, hi, lo);
      return 1;
    }
    // The unit forgets what it knows of the page before it tells software.
    if (this.select(0, pasid) === NO_FAULT) this.iotlb.invalidate(this.domainId, this.iotlbPasid, hi, lo & ~0xfff, 1);
    const queued = unit.front.queuePageRequest(this.requesterId, pasid, hi, lo, access, group, true);
    if (queued === Queued.absent) return 1;
    if (queued === Queued.overflow) unit.answerLater(this, pasid, group, PageResponse.success);
    else this.counters[UnitCounter.pageRequests]!++;
    return 0;
  }

  /** The IOTLB entry that answers a request of the selected address space, walking if need be; or minus a fault reason. */
  private translate(access: number, hi: number, lo: number): number {
    const { counters } = this;
    counters[translations]!++;
    this.ns += this.lookupCost;
    if (access & ATS) {
      counters[atsRequests]!++;
      this.ns += this.unit.atsCost;
    }
    const need = NEED[(access & 7) | this.needs]!;
    const at = this.iotlb.find(this.domainId, this.iotlbPasid, this.salt, hi, lo);
    if (at >= 0 && (this.entries[at + RIGHTS]! & need) === need) {
      counters[iotlbHits]!++;
      if (this.unit.detector !== undefined) this.detect(at, access, hi, lo);
      return at;
    }
    return this.walk(at, access, hi, lo);
  }

  /** Points the walker at this address space's tables. */
  private direct(): void {
    const { unit } = this;
    unit.spaces.select(unit.walker, this.spaceAt);
    unit.walked = this.spaceAt;
    unit.walkedEpoch = unit.epoch;
  }

  private walk(old: number, access: number, hi: number, lo: number): number {
    const { unit, counters, walker } = this;
    counters[iotlbMisses]!++;
    if (unit.trace) unit.trace.emit(Event.cacheMiss, IOTLB, this.pasid, hi, lo);
    if (unit.walked !== this.spaceAt || unit.walkedEpoch !== unit.epoch) this.direct();
    if (unit.trace) traceWalk(unit.trace, walker.memory, walker.tables(!this.second), hi, lo);
    const fault = this.second ? walker.secondStage(hi, lo, access) : walker.firstStage(hi, lo, access);
    const { reads } = walker;
    this.counters[UnitCounter.pagingStructureHits] = walker.structures.hits;
    counters[UnitCounter.walkReads]! += reads;
    this.ns += reads * unit.walkCost;
    if (fault !== NO_FAULT) return -fault;
    const at = this.iotlb.insert(old, this.domainId, this.iotlbPasid, this.salt, hi, lo, walker.shift, walker.frame, walker.rights);
    if (unit.detector !== undefined) {
      unit.detector.pageLoaded(at, unit.spaces, this.spaceAt, this.requesterId, this.pasid, hi, lo);
      this.detect(at, access, hi, lo);
    }
    return at;
  }
  /** Shows the detector what the caches made of a page; -1: pass-through. */
  private detect(at: number, access: number, hi: number, lo: number): void {
    const { unit } = this;
    unit.detector!.translated(unit.spaces, this.contextAt, this.spaceAt, this.iotlb, at, this.requesterId, this.pasid, access, hi, lo);
  }

  /** How far an extent of `length` bytes from `first` on, the frame of entry `found`, goes on over the pages behind it. */
  private grow(found: number, access: number, pasid: number, hi: number, lo: number, length: number, max: number, first: number): number {
    const { entries, iotlb, unit } = this;
    const offset = lo & 0xfff;
    // What was found out last time still holds if nothing came into the cache or left it since.
    const small = (entries[found]! & 3) === 1 && unit.detector === undefined;
    let run = 0;
    if (small && entries[found + VERSION] === iotlb.version) {
      const known = entries[found + RUN]!;
      run = Math.min(known & ~RUN_ENDS, (max - length + 0xfff) >>> 12);
      if (run > 0) this.counted(access, run);
      length += run << 12;
      if (length >= max || known & RUN_ENDS) return length;
    }
    const { version } = iotlb;
    const rights = entries[found + RIGHTS]!;
    let alike = small;
    let ends = 0;
    while (length < max) {
      const nextLo = (lo + length) | 0;
      const nextHi = nextLo >>> 0 < lo >>> 0 ? (hi + 1) | 0 : hi;
      if (nextHi === 0 && nextLo >>> 20 === 0xfee) {
        if (pasid === WITHOUT) break;
        // A request without PASID may share the entry, and goes no further.
        alike = false;
      }
      const next = this.translate(access, nextHi, nextLo);
      if (next < 0) break;
      const within = WITHIN[entries[next]! & 3]!;
      if (entries[next + FRAME]! + ((nextLo >>> 12) & within) !== first + ((offset + length) >>> 12)) {
        this.aheadHi = nextHi;
        this.aheadLo = nextLo >> 12;
        this.aheadPasid = pasid;
        if (alike) ends = RUN_ENDS;
        break;
      }
      length += ((within + 1) << 12) - (nextLo & (within << 12));
      alike &&= within === 0 && entries[next + RIGHTS] === rights;
      if (alike) run++;
    }
    // A walk may have pushed out an entry of the run.
    if (small && version === iotlb.version) {
      entries[found + RUN] = run | ends;
      entries[found + VERSION] = version;
    }
    return length;
  }

  /** The counts and the time of `pages` hits. */
  private counted(access: number, pages: number): void {
    const { counters, unit } = this;
    counters[translations]! += pages;
    counters[iotlbHits]! += pages;
    this.ns += pages * this.lookupCost;
    if (!(access & ATS)) return;
    counters[atsRequests]! += pages;
    this.ns += pages * unit.atsCost;
  }

  /** Takes back the count of a hit on a page that was translated, and counted, ahead. */
  private countedAhead(access: number, pasid: number, hi: number): void {
    if (hi !== this.aheadHi || pasid !== this.aheadPasid) return;
    const { counters, unit } = this;
    this.aheadLo = NO_AHEAD;
    counters[translations]!--;
    counters[iotlbHits]!--;
    this.ns -= unit.lookupCost;
    if (!(access & ATS)) return;
    counters[atsRequests]!--;
    this.ns -= unit.atsCost;
  }

  /** The place of this requester's context in its cache, or minus a fault reason. */
  private context(): number {
    const { unit, counters } = this;
    let at = this.contextAt;
    if (unit.spaces.contexts.data[at] !== this.tag) at = unit.spaces.findContext(this.tag);
    if (at >= 0) counters[contextHits]!++;
    else {
      counters[contextMisses]!++;
      const before = unit.front.structures.reads;
      at = unit.spaces.loadContext(this.tag);
      this.countReads(before);
      if (at < 0) {
        this.faultDisable = unit.spaces.faultDisable;
        return at;
      }
      unit.epoch++;
      unit.detector?.contextLoaded(at, this.requesterId, this.pasid === UNSELECTED ? WITHOUT : this.pasid);
    }
    this.contextAt = at;
    return at;
  }

  /** Makes the address space that a request names the one in the fields. Returns a fault reason. */
  private select(access: number, pasid: number): number {
    const { unit, counters } = this;
    this.pasid = UNSELECTED;
    this.shortEpoch = -1;
    if (!unit.front.translationEnabled) {
      this.looked = 0;
      this.straight = true;
      this.faultDisable = 1;
      return this.selected(pasid, 0);
    }
    this.looked = 1;
    const { structures } = unit.front;
    if (structures.aborts) return ABORTED;
    this.faultDisable = 0;
    if (pasid !== WITHOUT && structures.legacy) return Fault.legacyWithPasid;
    const context = this.context();
    if (context < 0) return -context;
    const from = unit.spaces.contexts.data;
    const flags = from[context + Context.flags]!;
    this.faultDisable = flags & ContextFlag.faultDisable;
    if (access & ATS && !(flags & ContextFlag.deviceTlb)) return Fault.deviceTlbDisabled;
    if (pasid !== WITHOUT && !(flags & ContextFlag.pasid)) return Fault.pasidDisabled;
    const number = pasid === WITHOUT ? from[context + Context.ridPasid]! : pasid;
    let at = unit.spaces.findSpace(this.tag, number);
    if (at >= 0) counters[pasidHits]!++;
    else {
      counters[pasidMisses]!++;
      const before = unit.front.structures.reads;
      at = unit.spaces.loadSpace(this.tag, number, context);
      this.countReads(before);
      if (at < 0) {
        this.faultDisable = unit.spaces.faultDisable;
        return -at;
      }
      unit.epoch++;
      unit.detector?.spaceLoaded(at, this.requesterId, pasid);
    }
    const space = unit.spaces.spaces.data;
    const spaceFlags = space[at + Space.flags]!;
    const type = space[at + Space.type]!;
    this.spaceAt = at;
    this.faultDisable = spaceFlags & SpaceFlag.faultDisable;
    this.straight = type === passThrough;
    this.foreignFrame = -1;
    if (unit.foreign !== undefined && type === firstStage) {
      const root = frameOf(space[at + Space.firstHi]!, space[at + Space.firstLo]!);
      if (unit.foreign.owns(root)) this.foreignFrame = root;
    }
    this.second = type === secondStage;
    this.domainId = space[at + Space.domainId]!;
    this.iotlbPasid = space[at + Space.iotlbPasid]!;
    this.salt = space[at + Space.salt]!;
    this.needs = spaceFlags & SpaceFlag.writeProtect ? 8 : 0;
    const supervisor = this.straight || this.second || spaceFlags & SpaceFlag.supervisor;
    if (access & PRIVILEGED && !supervisor) return Fault.supervisorRefused;
    if (!this.straight && this.foreignFrame < 0 && unit.detector === undefined && !unit.trace) this.shortEpoch = unit.epoch;
    return this.selected(pasid, (supervisor ? 0 : PRIVILEGED) | (flags & ContextFlag.deviceTlb ? 0 : ATS));
  }

  private selected(pasid: number, refuses: number): number {
    this.pasid = pasid;
    this.refuses = refuses;
    this.epoch = this.unit.epoch;
    return NO_FAULT;
  }

  /** Counts and charges the structure reads since `before`. */
  private countReads(before: number): void {
    const reads = this.unit.front.structures.reads - before;
    this.counters[UnitCounter.lookupReads]! += reads;
    this.ns += reads * this.unit.walkCost;
  }

  /** Translation off, or pass-through: output is input. */
  private identity(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { unit, counters } = this;
    counters[translations]!++;
    this.ns += unit.lookupCost;
    if (access & ATS) {
      counters[atsRequests]!++;
      this.ns += unit.atsCost;
    }
    if (hi >>> (unit.front.resolved.hostAddressWidth - 32)) return this.refuse(Fault.beyondHostWidth, access, pasid, hi, lo);
    if (unit.detector !== undefined && this.looked) this.detect(-1, access, hi, lo);
    const frame = frameOf(hi, lo);
    if (frame >>> 8 === 0xfee) return this.refuse(Fault.interruptRange, access, pasid, hi, lo);
    return this.fill(frame, lo & 0xfff, max, out);
  }

  /** A process of the machine itself answers: nothing of that is cached, and who asks for a translation hears of no page as from a walk. */
  private presence(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number {
    const { unit, counters } = this;
    counters[translations]!++;
    this.ns += unit.lookupCost;
    if (access & ATS) {
      counters[atsRequests]!++;
      this.ns += unit.atsCost;
    }
    const answer = (unit.foreign as ForeignProcesses).acquire(this.foreignFrame, access, hi, lo, max, out);
    if (answer === TlpStatus.notPresent) return this.refuse(Fault.firstStageNotPresent, access, pasid, hi, lo);
    out.ns = this.ns;
    return answer;
  }

  /** Gives out memory: at most `length` bytes from `offset` of a frame, less where the region or the interrupt range ends it. */
  private fill(frame: number, offset: number, length: number, out: Extent): number {
    let { region } = this;
    if (region === undefined || (frame - region.firstFrame) >>> 0 >= region.frames) {
      const found = this.unit.map.regionOf(frame);
      if (found === undefined || found.kind !== 'ram') return TlpStatus.unsupportedRequest;
      this.region = region = found;
    }
    const start = region.firstFrame;
    if (offset + length > 4096) length = this.within(frame, offset, length, start + region.frames);
    if (out.view !== region.bytes) {
      out.view = region.bytes;
      out.words = region.words;
    }
    out.offset = (frame - start) * 4096 + offset;
    out.length = length;
    out.ns = this.ns;
    return success;
  }

  private within(frame: number, offset: number, length: number, end: number): number {
    const stop = frame < INTERRUPT_FRAME && end > INTERRUPT_FRAME ? INTERRUPT_FRAME : end;
    return (offset + length + 0xfff) >>> 12 > stop - frame ? (stop - frame) * 4096 - offset : length;
  }

  /** A request without PASID to 0xFEEx_xxxx: an interrupt message when it is a dword write, an error otherwise. */
  private interruptRange(access: number, lo: number, max: number, out: Extent): number {
    if (!(access & WRITE) || access & ATS || lo & 3 || max < 4) {
      this.faultDisable = this.unit.front.translationEnabled ? 0 : 1;
      this.pasid = UNSELECTED;
      return this.refuse(Fault.interruptRange, access, WITHOUT, 0, lo);
    }
    this.messageAddress = lo;
    out.view = this.messageBytes;
    out.words = this.messageWords;
    out.offset = 0;
    out.length = 4;
    out.ns = 0;
    return success;
  }

  private refuse(fault: number, access: number, pasid: number, hi: number, lo: number): number {
    const { unit } = this;
    if (fault === ABORTED) {
      this.counters[UnitCounter.faults]!++;
      return TlpStatus.unsupportedRequest;
    }
    const named = unit.front.structures.legacy ? (legacyReasons[fault]?.[access & WRITE ? 1 : 0] ?? fault) : fault;
    return unit.refuse(named, this.faultDisable, this.requesterId, access, pasid, hi, lo);
  }
}
/** Abort-DMA mode. unconfirmed: that such requests leave no fault record. */
const ABORTED = 0xff;
const INTERRUPT_FRAME = 0xf_ee00;
const INTERRUPT_END = 0xf_ef00;
/** Counts that are not told of stay below it, and so small integers. */
const MANY = 2 ** 29;
/** `cache` of the trace's cacheMiss. */
const IOTLB = 2;
