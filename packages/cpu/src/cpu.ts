/**
 * What a processor does that a device can see: user loads and stores, MOVDIR64B, ENQCMD and ENQCMDS, through a TLB, page tables and EPT.
 * Intel SDM 2, "MOVDIR64B", "ENQCMD", "ENQCMDS"; 3C, "PASID Translation". Addresses are two int32 words; nothing is allocated per access.
 */
import { Event } from '@siov/layout/events';
import { DmaAccess } from '@siov/layout/pcie';
import { entryFrame, PasidDirectoryEntry, PasidMsr, PasidTranslationEntry } from '@siov/layout/x86';
import type { Context, Mmio, PhysicalMap, Region, Trace } from './ports.js';
import { faultSignal, Signal } from './signal.js';
import { Counter, type CpuCosts, ExitReason } from './spec.js';
import { Walk, Walker } from './walk.js';

const ENTRIES = 1024;
/** Words of one TLB entry: address high, page low, root, EPT root, rights, frame, index of the region. */
const STRIDE = 8;
const ROOT = 2;
const EPT = 3;
const RIGHTS = 4;
const FRAME = 5;
const REGION = 6;
const MAX_REGIONS = 256;
/** Faults and exits of one access before it is given up: a handler answered "try again" and changed nothing. */
const MAX_TRIES = 16;
const RIGHTS_MASK = DmaAccess.write | DmaAccess.execute;
/** The `kind` of the trace's portalWrite. */
export const PortalKind = { movdir64b: 0, enqcmd: 1 } as const;

const pasidValid = PasidTranslationEntry.get.valid;
const pasidOf = PasidTranslationEntry.get.pasid;
const directoryPresent = PasidDirectoryEntry.get.present;
const MSR_VALID = 1 << PasidMsr.fields.find((field) => field.name === 'valid')!.low;
const PASID_MASK = 0xf_ffff;

/** Where no memory and no device is: reads are ones, writes are lost, nothing takes an enqueue. */
const nobody: Mmio = { read: (_offset, width) => 2 ** (8 * width) - 1, write() {}, movdir64b() {} };
const NOWHERE: Region = {
  kind: 'mmio',
  firstFrame: 0,
  frames: 2 ** 32,
  bytes: new Uint8Array(0),
  words: new Uint32Array(0),
  device: nobody,
};

export interface CpuClock {
  spend(ns: number): void;
}
export interface CpuOptions {
  readonly memory: PhysicalMap;
  readonly clock?: CpuClock | undefined;
  readonly costs?: CpuCosts | undefined;
  readonly trace?: Trace | undefined;
}

export class Cpu {
  readonly counters = new Float64Array(Object.keys(Counter).length);
  /** The region of the last `words` or `bytes`. */
  view: Uint32Array = NOWHERE.words;
  byteView: Uint8Array = NOWHERE.bytes;
  /** The 64 bytes of the MOVDIR64B or ENQCMD that runs; for the handler of its exit. */
  readonly packet = new Uint32Array(16);
  private readonly memory: PhysicalMap;
  private readonly clock: CpuClock;
  private readonly trace: Trace | undefined;
  private readonly costs: Required<CpuCosts>;
  private readonly walker: Walker;
  private readonly tlb = new Int32Array(ENTRIES * STRIDE).fill(-1);
  private regions: Region[] = [];
  /** Where the last access went: a region and the page in it; and what an emulated access answered. */
  private region: Region = NOWHERE;
  private page = 0;
  private answer = 0;

  constructor(options: CpuOptions) {
    this.memory = options.memory;
    this.clock = options.clock ?? { spend() {} };
    this.trace = options.trace;
    const { load = 0, store = 0, movdir64b = 0, enqcmd = 0, enqcmdRetry = enqcmd, mmioRead = 0, mmioWrite = 0, vmExit = 0 } = options.costs ?? {};
    this.costs = { load, store, movdir64b, enqcmd, enqcmdRetry, mmioRead, mmioWrite, vmExit };
    this.walker = new Walker(options.memory);
  }

  /** Reads 1, 2 or 4 bytes within a page, unsigned. */
  load(context: Context, hi: number, lo: number, width: number): number {
    checkWidth(lo, width);
    this.counters[Counter.loads]!++;
    if (!this.reach(context, hi, lo, DmaAccess.read, width, 0)) return this.answer;
    const { region } = this;
    const offset = this.page * 4096 + (lo & 0xfff);
    if (region.device) {
      this.counters[Counter.mmioReads]!++;
      this.clock.spend(this.costs.mmioRead);
      return region.device.read(offset, width);
    }
    this.clock.spend(this.costs.load);
    if (width === 4 && !(offset & 3)) return region.words[offset >>> 2]!;
    let value = 0;
    for (let i = width - 1; i >= 0; i--) value = (value << 8) | region.bytes[offset + i]!;
    return value >>> 0;
  }

  /** Writes the low 1, 2 or 4 bytes of `value` within a page. */
  store(context: Context, hi: number, lo: number, width: number, value: number): void {
    checkWidth(lo, width);
    this.counters[Counter.stores]!++;
    if (!this.reach(context, hi, lo, DmaAccess.write, width, value)) return;
    const { region } = this;
    const offset = this.page * 4096 + (lo & 0xfff);
    if (region.device) {
      this.counters[Counter.mmioWrites]!++;
      this.clock.spend(this.costs.mmioWrite);
      region.device.write(offset, width, width === 4 ? value >>> 0 : value & (width === 1 ? 0xff : 0xffff));
      return;
    }
    this.clock.spend(this.costs.store);
    if (width === 4 && !(offset & 3)) {
      region.words[offset >>> 2] = value;
      return;
    }
    for (let i = 0; i < width; i++) region.bytes[offset + i] = value >>> (8 * i);
  }

  /**
   * Translates for direct use: the word index into `view` of an address, a multiple of 4, valid to the end of its page and until the
   * next call that may run others. RAM only; a Signal else. `access` holds DmaAccess bits.
   */
  words(context: Context, hi: number, lo: number, access: number): number {
    if (lo & 3) throw new RangeError(`lo: ${lo} is not a multiple of 4`);
    const at = this.bytes(context, hi, lo, access);
    this.view = this.region.words;
    return at >>> 2;
  }

  /** The same for bytes, over `byteView`. */
  bytes(context: Context, hi: number, lo: number, access: number): number {
    if (!this.reach(context, hi, lo, access & RIGHTS_MASK, 4, 0) || this.region.device) throw new Signal('SIGBUS', hi, lo, 'not memory');
    this.byteView = this.region.bytes;
    return this.page * 4096 + (lo & 0xfff);
  }

  /** Reads user memory from `address` into `bytes`, as the program would. */
  copyIn(context: Context, address: number, bytes: Uint8Array): void {
    this.copy(context, address, bytes, DmaAccess.read);
  }

  /** Writes `bytes` to user memory at `address`, as the program would. */
  copyOut(context: Context, address: number, bytes: Uint8Array): void {
    this.copy(context, address, bytes, DmaAccess.write);
  }

  /** 64 bytes from any address, stored at once to a 64-byte aligned one. SDM 2, "MOVDIR64B". */
  movdir64b(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): void {
    if (dstLo & 63) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, MOVDIR64B to an address that is no multiple of 64');
    this.counters[Counter.movdir64b]!++;
    this.clock.spend(this.costs.movdir64b);
    // From memory to a device, both known: the device takes the words where they are.
    if (!(srcLo & 3) && (srcLo & 0xfff) <= 0xfc0 && this.hit(context, srcHi, srcLo, DmaAccess.read)) {
      const { words } = this.region;
      const at = this.page * 1024 + ((srcLo & 0xfff) >>> 2);
      if (at < words.length && this.hit(context, dstHi, dstLo, DmaAccess.write) && this.region.device?.movdir64b) {
        this.post(dstLo, words, at);
        return;
      }
    }
    this.fetch(context, srcHi, srcLo);
    if (this.reach(context, dstHi, dstLo, DmaAccess.write, 64, 0)) this.post(dstLo, this.packet, 0);
  }

  /** Enqueues 64 bytes with the PASID of IA32_PASID: the zero flag, 0 accepted or 1 retry. SDM 2, "ENQCMD". */
  enqcmd(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): number {
    if (dstLo & 63) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, ENQCMD to an address that is no multiple of 64');
    if (!(context.pasidMsr & MSR_VALID) && !context.fixPasid?.()) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, ENQCMD without a valid IA32_PASID');
    this.fetch(context, srcHi, srcLo);
    const pasid = this.hostPasid(context, context.pasidMsr & PASID_MASK, ExitReason.enqcmdPasid);
    if (pasid < 0) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, the PASID of ENQCMD has no translation');
    this.packet[0] = pasid;
    return this.enqueue(context, dstHi, dstLo);
  }

  /** The same for the supervisor: PASID (19:0) and privilege (31) come from the first dword of the source. SDM 2, "ENQCMDS". */
  enqcmds(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): number {
    if (dstLo & 63) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, ENQCMDS to an address that is no multiple of 64');
    this.fetch(context, srcHi, srcLo);
    const first = this.packet[0]!;
    const pasid = this.hostPasid(context, first & PASID_MASK, ExitReason.enqcmdsPasid);
    if (pasid < 0) throw new Signal('SIGSEGV', dstHi, dstLo, '#GP, the PASID of ENQCMDS has no translation');
    this.packet[0] = (first & 0x8000_0000) | pasid;
    return this.enqueue(context, dstHi, dstLo);
  }

  /** Forgets translations of `pages` pages from page number `startPage` (address / 4096). INVLPG and its like. */
  flush(rootFrame: number, startPage: number, pages: number): void {
    this.counters[Counter.flushes]!++;
    const { tlb } = this;
    if (pages >= ENTRIES) {
      for (let at = 0; at < tlb.length; at += STRIDE) {
        const page = tlb[at]! * 0x10_0000 + tlb[at + 1]!;
        if (tlb[at + ROOT] === rootFrame && page >= startPage && page < startPage + pages) tlb[at] = -1;
      }
      return;
    }
    for (let number = startPage; number < startPage + pages; number++) {
      const hi = Math.floor(number / 0x10_0000);
      const page = number % 0x10_0000;
      const at = slotOf(hi, page, rootFrame);
      if (tlb[at] === hi && tlb[at + 1] === page && tlb[at + ROOT] === rootFrame) tlb[at] = -1;
    }
  }

  /** Forgets all translations through one EPT. INVEPT. */
  flushEpt(eptRoot: number): void {
    this.counters[Counter.flushes]!++;
    for (let at = 0; at < this.tlb.length; at += STRIDE) if (this.tlb[at + EPT] === eptRoot) this.tlb[at] = -1;
  }

  flushAll(): void {
    this.counters[Counter.flushes]!++;
    this.tlb.fill(-1);
    this.regions = [];
  }

  /** Finds where an access goes: true with `region` and `page` set, false when an exit emulated it, with `answer` set. A Signal else. */
  private reach(context: Context, hi: number, lo: number, access: number, width: number, value: number): boolean {
    return this.hit(context, hi, lo, access) || this.miss(context, hi, lo, access, width, value);
  }

  /** The TLB: true with `region` and `page` set. Small, so that it is inlined where it is used. */
  private hit(context: Context, hi: number, lo: number, access: number): boolean {
    const { tlb } = this;
    const root = context.rootFrame;
    const at = slotOf(hi, lo >>> 12, root);
    // One comparison of all tags: any difference leaves a bit.
    if (
      (tlb[at]! ^ hi) |
      (tlb[at + 1]! ^ (lo >>> 12)) |
      (tlb[at + ROOT]! ^ root) |
      (tlb[at + EPT]! ^ context.eptRoot) |
      (access & ~tlb[at + RIGHTS]!)
    )
      return false;
    const region = this.regions[tlb[at + REGION]!]!;
    const page = tlb[at + FRAME]! - region.firstFrame;
    if (page < 0 || page >= region.frames) return false;
    this.counters[Counter.tlbHits]!++;
    this.region = region;
    this.page = page;
    return true;
  }

  private miss(context: Context, hi: number, lo: number, access: number, width: number, value: number): boolean {
    this.counters[Counter.tlbMisses]!++;
    const { levels = 4 } = context;
    if (hi >>> (levels === 5 ? 24 : 15) !== 0) throw new Signal('SIGSEGV', hi, lo, 'not a user address');
    const { walker } = this;
    let emulated = false;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const before = walker.reads;
      const result = walker.walk(context.rootFrame, context.eptRoot, hi, lo, access, levels);
      this.counters[Counter.walkReads]! += walker.reads - before;
      if (result === Walk.ok) {
        this.keep(context, hi, lo >>> 12, walker.frame, walker.rights);
        return true;
      }
      if (result === Walk.pageFault) {
        emulated = false;
        this.counters[Counter.pageFaults]!++;
        const answer = context.handleFault(hi, lo, access);
        if (answer < 0) throw faultSignal(hi, lo, answer);
        continue;
      }
      if (emulated && !walker.violationTable) return false;
      if (!context.exit || (emulated && walker.violationTable)) break;
      const table = walker.violationTable;
      this.answer = this.exit(
        context,
        ExitReason.eptViolation,
        walker.gpaFrame,
        table ? 0 : lo & 0xfff,
        table ? 8 : width,
        walker.violationWrite,
        table ? 0 : value,
      );
      // A table's page is never emulated, and -1 is "try again"; else the next walk tells whether the page is accessible now.
      emulated = !table && this.answer !== -1;
    }
    throw new Signal('SIGBUS', hi, lo, 'an EPT violation or page fault was not resolved');
  }

  private exit(context: Context, reason: number, gpaFrame: number, offset: number, width: number, write: boolean, value: number): number {
    this.counters[Counter.exits]!++;
    this.clock.spend(this.costs.vmExit);
    if (this.trace) this.trace.emit(Event.trap, reason, gpaFrame >>> 20, (gpaFrame << 12) | offset, width);
    // The handler may use this processor for its own accesses; the packet belongs to the one that exits.
    const packet = width === 64 ? this.packet.slice() : undefined;
    const answer = context.exit!(reason, gpaFrame, offset, width, write, value);
    if (packet) this.packet.set(packet);
    return answer;
  }

  private keep(context: Context, hi: number, page: number, frame: number, rights: number): void {
    const region = this.memory.regionOf(frame);
    if (!region) {
      this.region = NOWHERE;
      this.page = 0;
      return;
    }
    let index = this.regions.lastIndexOf(region);
    if (index < 0) {
      if (this.regions.length >= MAX_REGIONS) this.flushAll();
      index = this.regions.push(region) - 1;
    }
    const { tlb } = this;
    const at = slotOf(hi, page, context.rootFrame);
    tlb[at] = hi;
    tlb[at + 1] = page;
    tlb[at + ROOT] = context.rootFrame;
    tlb[at + EPT] = context.eptRoot;
    tlb[at + RIGHTS] = rights;
    tlb[at + FRAME] = frame;
    tlb[at + REGION] = index;
    this.region = region;
    this.page = frame - region.firstFrame;
  }

  /** Reads the 64-byte source operand into `packet`. */
  private fetch(context: Context, hi: number, lo: number): void {
    const { packet } = this;
    if (lo & 3 || (lo & 0xfff) > 0xfc0) {
      this.fetchSlowly(context, hi, lo);
      return;
    }
    if (this.reach(context, hi, lo, DmaAccess.read, 4, 0) && !this.region.device) {
      const { words } = this.region;
      const at = this.page * 1024 + ((lo & 0xfff) >>> 2);
      for (let i = 0; i < 16; i++) packet[i] = words[at + i]!;
    } else this.fetchSlowly(context, hi, lo);
  }

  private fetchSlowly(context: Context, hi: number, lo: number): void {
    const { packet } = this;
    if (!(lo & 3)) {
      for (let i = 0; i < 16; i++) packet[i] = this.load(context, carry(hi, lo, 4 * i), (lo + 4 * i) | 0, 4);
      return;
    }
    packet.fill(0);
    for (let i = 0; i < 64; i++) packet[i >> 2]! |= this.load(context, carry(hi, lo, i), (lo + i) | 0, 1) << (8 * (i & 3));
  }

  /** MOVDIR64B's 64 bytes arrive at the region and page that were reached. */
  private post(lo: number, words: Uint32Array, at: number): void {
    const { region } = this;
    const offset = this.page * 4096 + (lo & 0xfff);
    const { device } = region;
    if (!device) {
      for (let i = 0; i < 16; i++) region.words[(offset >>> 2) + i] = words[at + i]!;
    } else if (device.movdir64b) {
      if (this.trace) this.trace.emit(Event.portalWrite, PortalKind.movdir64b, 0, words[at]! & PASID_MASK, offset);
      device.movdir64b(offset, words, at);
    } else for (let i = 0; i < 16; i++) device.write(offset + 4 * i, 4, words[at + i]!);
  }

  private enqueue(context: Context, hi: number, lo: number): number {
    this.counters[Counter.enqcmd]!++;
    let zero = 1;
    let offset = lo & 0xfff;
    // The store goes out and its answer comes back before the next instruction: the device sees it at the end of that time.
    this.clock.spend(this.costs.enqcmd);
    if (this.reach(context, hi, lo, DmaAccess.write, 64, 1)) {
      offset += this.page * 4096;
      const { device } = this.region;
      zero = device?.enqcmd ? device.enqcmd(offset, this.packet, 0) : 1;
    } else zero = this.answer & 1;
    if (zero) {
      this.counters[Counter.enqcmdRetries]!++;
      if (this.costs.enqcmdRetry > this.costs.enqcmd) this.clock.spend(this.costs.enqcmdRetry - this.costs.enqcmd);
    }
    if (this.trace) this.trace.emit(Event.portalWrite, PortalKind.enqcmd, zero, this.packet[0]! & PASID_MASK, offset);
    return zero;
  }

  /** The PASID that goes on the wire: in a guest through the VMX PASID translation tables, with one exit to fix them; -1 when that fails. */
  private hostPasid(context: Context, pasid: number, reason: number): number {
    if (context.eptRoot < 0 || context.pasidTranslation < 0) return pasid;
    const found = this.translatePasid(context, pasid);
    if (found >= 0 || !context.exit) return found;
    this.exit(context, reason, 0, 0, 64, true, pasid);
    return this.translatePasid(context, pasid);
  }

  private translatePasid(context: Context, pasid: number): number {
    const directory = pasid & 0x8_0000 ? (context.pasidTranslationHigh ?? -1) : context.pasidTranslation;
    let region = this.memory.regionOf(directory);
    if (region?.kind !== 'ram') return -1;
    let at = (directory - region.firstFrame) * 1024 + ((pasid >>> 10) & 511) * 2;
    if (!directoryPresent(region.words, at)) return -1;
    const table = entryFrame(region.words, at);
    region = this.memory.regionOf(table);
    if (region?.kind !== 'ram') return -1;
    at = (table - region.firstFrame) * 1024 + (pasid & 1023);
    return pasidValid(region.words, at) ? pasidOf(region.words, at) : -1;
  }

  private copy(context: Context, address: number, bytes: Uint8Array, access: number): void {
    for (let done = 0; done < bytes.length; ) {
      const at = address + done;
      const hi = (at / 0x1_0000_0000) | 0;
      const lo = at | 0;
      const length = Math.min(4096 - (lo & 0xfff), bytes.length - done);
      if (this.reach(context, hi, lo, access, 1, 0) && !this.region.device) {
        const offset = this.page * 4096 + (lo & 0xfff);
        if (access) this.region.bytes.set(bytes.subarray(done, done + length), offset);
        else bytes.set(this.region.bytes.subarray(offset, offset + length), done);
      } else throw new Signal('SIGBUS', hi, lo, 'not memory');
      done += length;
    }
  }
}

const slotOf = (hi: number, page: number, root: number): number => ((page ^ (hi << 4) ^ (root << 3)) & (ENTRIES - 1)) * STRIDE;
/** The upper word of an address plus a small offset. */
const carry = (hi: number, lo: number, offset: number): number => ((lo >>> 0) + offset > 0xffff_ffff ? (hi + 1) | 0 : hi);
const checkWidth = (lo: number, width: number): void => {
  if (width !== 4 && width !== 1 && width !== 2) throw new RangeError(`width: ${width} is not 1, 2 or 4`);
  if ((lo & 0xfff) + width > 4096) throw new RangeError(`lo: ${width} bytes at ${lo} cross a page`);
};
