/**
 * The front of a remapping unit: register file, GCMD and GSTS, latching of table pointers, fault records, the two queues and the three
 * events. What an invalidation means is told through hooks, so that the unit's caches or a VMM's virtual IOMMU stand behind the same
 * front. VT-d, "Register Descriptions", "Invalidation of Translation Caches", "Page Requests".
 */
import { NO_PASID } from '@siov/layout/pcie';
import { frameOf, MemoryWords } from '../memory.js';
import type { InterruptSink, Mmio, PhysicalMap, Trace } from '../ports.js';
import { Capability, ExtendedCapability } from '../spec/capabilities.js';
import { Fault } from '../spec/faults.js';
import { ContextCommand, GlobalCommand, GlobalStatus, InterruptTable, InvalidateAddress, IotlbCommand } from '../spec/registers.js';
import { EventRegisters } from './events.js';
import { FaultLog } from './fault-log.js';
import { InvalidationQueue } from './invalidation-queue.js';
import { StructureReader } from './lookup.js';
import { type Profile, type Resolved, resolve } from './options.js';
import { PageRequestQueue } from './page-requests.js';
import { type FrontRegisters, faultRecords, frontRegisters, identify } from './register-file.js';
import { VirtualCommands } from './virtual-commands.js';

/** What a register front tells whoever stands behind it: the unit's own caches, or a VMM. All optional. */
export interface FrontHooks {
  /** GCMD.TE changed. */
  translationEnabled?(enabled: boolean): void;
  /** A new root table was latched (GCMD.SRTP). */
  rootChanged?(): void;
  /** A new interrupt remapping table was latched (GCMD.SIRTP). */
  interruptTableChanged?(): void;
  /** Context-cache invalidation: granularity 1 global, 2 domain, 3 device (`functionMask` low function bits ignored). */
  contextChanged?(granularity: number, domainId: number, sourceId: number, functionMask: number): void;
  /** PASID-cache invalidation: granularity 0 all of the domain, 1 one PASID, 3 global. */
  pasidChanged?(granularity: number, domainId: number, pasid: number): void;
  /**
   * IOTLB invalidation. `domainId` -1: all domains. `pasid` -1: not PASID-selective (second-stage results, and nested ones that depend on
   * them; with `pages` -1 everything of the domain). `pages` -1: all addresses; else that many 4 KiB pages from (hi, lo).
   */
  iotlbInvalidated?(domainId: number, pasid: number, hi: number, lo: number, pages: number, leafOnly: boolean): void;
  /** Device-TLB invalidation; `pasid` -1: of requests without PASID. `bytes` Infinity: all. */
  deviceTlbInvalidated?(requesterId: number, pasid: number, hi: number, lo: number, bytes: number): void;
  /** Interrupt entry cache invalidation: `count` -1: all. */
  interruptEntriesChanged?(index: number, count: number): void;
  /** Virtual commands: a PASID for the guest, or -1; one comes back, false when it was not given out. Absent: VCCAP says that there are none. */
  allocPasid?(): number;
  freePasid?(pasid: number): boolean;
  /** Page group response. `pasid` -1: without PASID. */
  pageResponse?(requesterId: number, pasid: number, group: number, code: number): void;
}

export interface FrontOptions {
  readonly memory: PhysicalMap;
  /** Where the unit's own events (fault, invalidation completion, page request) go. */
  readonly sink: InterruptSink;
  readonly hooks?: FrontHooks | undefined;
  readonly profile?: Profile | undefined;
  readonly trace?: Trace | undefined;
}

const command = GlobalCommand.get;
/** Commands that switch something on and off, as bits that GSTS mirrors. */
const TOGGLES = switches(['compatibilityFormat', 'interruptRemapping', 'queuedInvalidation', 'translation']);
function switches(names: readonly (keyof typeof GlobalCommand.set)[]): number {
  const word = new Uint32Array(1);
  for (const name of names) GlobalCommand.set[name](word, 0, 1);
  return word[0]!;
}

/** Registers, queues and fault records of a remapping unit, without translation. */
export class RegisterFront implements Mmio {
  // fixed
  readonly resolved: Resolved;
  readonly hooks: FrontHooks;
  // ports
  readonly memory: MemoryWords;
  // state
  readonly registers: FrontRegisters;
  readonly structures: StructureReader;
  readonly faults: FaultLog;
  readonly invalidations: InvalidationQueue;
  readonly pageRequests: PageRequestQueue;
  /** GSTS.TES. */
  translationEnabled = false;
  /** GSTS.IRES, and the table that SIRTP latched. */
  interruptRemapping = false;
  /** GSTS.CFIS. */
  compatibilityFormat = false;
  interruptTableFrame = -1;
  interruptTableEntries = 0;
  extendedInterruptMode = false;
  private readonly virtualCommands: VirtualCommands | undefined;
  private readonly faultEvent: EventRegisters;
  private readonly completionEvent: EventRegisters;
  private readonly pageEvent: EventRegisters;

  constructor(options: FrontOptions) {
    const { memory, sink, hooks = {}, profile, trace } = options;
    if (!memory || !sink) throw new TypeError('options: memory and sink are needed');
    this.resolved = resolve(profile);
    this.hooks = hooks;
    this.memory = new MemoryWords(memory);
    this.structures = new StructureReader(this.memory, this.resolved);
    this.registers = frontRegisters(this.resolved);
    if (ExtendedCapability.get.virtualCommands(this.resolved.extended, 0))
      this.virtualCommands = new VirtualCommands(profile?.virtualCommandLayout ?? 'current', hooks);
    const { words } = this.registers;
    const event = (row: 'faultControl' | 'completionControl' | 'pageRequestControl') => new EventRegisters(words, this.registers.at(row), sink);
    this.faultEvent = event('faultControl');
    this.completionEvent = event('completionControl');
    this.pageEvent = event('pageRequestControl');
    this.faults = new FaultLog(
      words,
      this.registers.at('faultStatus'),
      this.registers.at('faultRecord'),
      faultRecords(this.resolved),
      this.faultEvent,
      trace,
    );
    this.invalidations = new InvalidationQueue(this, this.completionEvent, trace);
    this.pageRequests = new PageRequestQueue(this.registers, this.memory, this.resolved, this.pageEvent, trace);
  }

  /** A software read. GCMD reads 0. */
  read(offset: number, width: number): number {
    if (VirtualCommands.has(offset)) return this.virtualCommands?.read(offset, width) ?? 0;
    return this.registers.read(offset, width) >>> 0;
  }

  write(offset: number, width: number, value: number): void {
    if (VirtualCommands.has(offset)) {
      this.virtualCommands?.write(offset, width, value);
      return;
    }
    const row = this.registers.write(offset, width, value);
    const low = (offset & 4) === 0;
    switch (row) {
      case 'globalCommand':
        this.command();
        return;
      case 'faultStatus':
        if (this.faults.acknowledged()) this.invalidations.run();
        return;
      case 'faultRecord':
        this.faults.refresh();
        return;
      case 'faultControl':
        this.faultEvent.update();
        return;
      case 'completionStatus':
        if (!this.registers.words[this.registers.at('completionStatus')]) this.completionEvent.clear();
        return;
      case 'completionControl':
        this.completionEvent.update();
        return;
      case 'pageRequestStatus':
        if (!this.registers.words[this.registers.at('pageRequestStatus')]) this.pageEvent.clear();
        return;
      case 'pageRequestControl':
        this.pageEvent.update();
        return;
      case 'queueTail':
        if (low) this.invalidations.run();
        return;
      case 'contextCommand':
        this.contextCommand();
        return;
      case 'iotlbCommand':
        this.iotlbCommand();
        return;
    }
  }

  /** Everything as after power-on. */
  reset(): void {
    this.registers.reset();
    identify(this.registers, this.resolved);
    this.virtualCommands?.reset();
    this.structures.rootFrame = this.interruptTableFrame = -1;
    this.structures.mode = 0;
    this.translationEnabled = this.interruptRemapping = this.compatibilityFormat = this.extendedInterruptMode = false;
    this.interruptTableEntries = 0;
    this.faults.reset();
    this.invalidations.enable(false);
    this.hooks.translationEnabled?.(false);
    this.hooks.rootChanged?.();
    this.hooks.interruptTableChanged?.();
  }

  /** Reads the PASID entry of (requester, pasid) from memory into 16 words; pasid -1: RID_PASID. False when there is no valid, present one. */
  pasidEntry(requesterId: number, pasid: number, words: Uint32Array): boolean {
    const { structures } = this;
    if (structures.readContext(requesterId) !== Fault.none) return false;
    const { context } = structures;
    if (pasid !== NO_PASID && !((context[0]! >>> 3) & 1)) return false;
    const number = pasid === NO_PASID ? context[2]! & 0xf_ffff : pasid;
    if (structures.readPasid(number, frameOf(context[1]!, context[0]!), (context[0]! >>> 9) & 7, 0) !== Fault.none) return false;
    words.set(structures.pasid);
    return true;
  }

  /** Writes a page request into the queue. 0: queued; 1: there is no queue; 2: dropped by overflow. `last` closes the group. */
  queuePageRequest(requesterId: number, pasid: number, hi: number, lo: number, access: number, group: number, last: boolean): number {
    return this.pageRequests.add(requesterId, pasid, hi, lo, access, group, last);
  }

  /** Records a DMA fault (FRCD, FSTS, event). `pasid` -1: without PASID. `access`: DmaAccess bits. */
  recordFault(reason: number, requesterId: number, pasid: number, hi: number, lo: number, access: number): void {
    this.faults.record(reason, requesterId, pasid, hi, lo, access);
  }

  /** GCMD was written: one change a write; the status mirrors it at once. */
  private command(): void {
    const { words } = this.registers;
    const at = this.registers.at('globalCommand');
    const status = this.registers.at('globalStatus');
    const changed = (words[at]! ^ words[status]!) & TOGGLES;
    const bit = (get: (w: Uint32Array, at: number) => number): boolean => get(words, at) === 1;
    if (command.setRootTable(words, at)) {
      this.structures.latch(words, this.registers.at('rootTable'));
      words[status]! |= 1 << 30;
      this.hooks.rootChanged?.();
    }
    if (command.setInterruptTable(words, at)) this.latchInterruptTable(status);
    words[status] = (words[status]! & ~TOGGLES) | (words[at]! & TOGGLES);
    const translation = bit(command.translation);
    this.interruptRemapping = bit(command.interruptRemapping);
    this.compatibilityFormat = bit(command.compatibilityFormat);
    const queue = bit(command.queuedInvalidation);
    words[at] = 0;
    if (translation !== this.translationEnabled) {
      this.translationEnabled = translation;
      this.hooks.translationEnabled?.(translation);
    }
    if (changed & (1 << 26)) this.invalidations.enable(queue);
  }

  /**
   * Register-based invalidation, of legacy mode: done when the command is written. Where the queue is used these registers may not be
   * (unconfirmed: nothing happens then, and no granularity is reported).
   */
  private contextCommand(): void {
    const { words } = this.registers;
    const at = this.registers.at('contextCommand');
    const { get, set } = ContextCommand;
    if (!get.invalidate(words, at)) return;
    set.invalidate(words, at, 0);
    const granularity = this.registerInvalidation ? get.granularity(words, at) : 0;
    set.actual(words, at, granularity);
    if (granularity !== 0) this.hooks.contextChanged?.(granularity, get.domainId(words, at), get.sourceId(words, at), get.functionMask(words, at));
  }
  private iotlbCommand(): void {
    const { words } = this.registers;
    const at = this.registers.at('iotlbCommand');
    const address = this.registers.at('invalidateAddress');
    const { get, set } = IotlbCommand;
    if (!get.invalidate(words, at)) return;
    set.invalidate(words, at, 0);
    const { global, pages } = IotlbCommand.is.granularity;
    let granularity = this.registerInvalidation ? get.granularity(words, at) : 0;
    const mask = InvalidateAddress.get.addressMask(words, address);
    const { capability } = this.resolved;
    // A range that the unit does not do page by page is done by domain.
    if (granularity === pages && (!Capability.get.pageSelective(capability, 0) || mask > Capability.get.maximumAddressMask(capability, 0)))
      granularity = IotlbCommand.is.granularity.domain;
    set.actual(words, at, granularity);
    if (granularity === 0) return;
    const domainId = granularity === global ? -1 : get.domainId(words, at);
    const low = words[address]! & ~0xfff;
    const count = granularity === pages ? 2 ** mask : -1;
    const aligned = mask >= 20 ? 0 : low & -(4096 << mask);
    this.hooks.iotlbInvalidated?.(
      domainId,
      NO_PASID,
      words[address + 1]! | 0,
      aligned | 0,
      count,
      InvalidateAddress.get.leafOnly(words, address) === 1,
    );
  }
  private get registerInvalidation(): boolean {
    return GlobalStatus.get.queuedInvalidation(this.registers.words, this.registers.at('globalStatus')) === 0;
  }

  private latchInterruptTable(status: number): void {
    const { words } = this.registers;
    const at = this.registers.at('interruptTable');
    const high = words[at + 1]!;
    const legal = high < 2 ** (this.resolved.hostAddressWidth - 32);
    this.interruptTableFrame = legal ? frameOf(high, words[at]!) : -1;
    this.interruptTableEntries = 2 << InterruptTable.get.size(words, at);
    this.extendedInterruptMode = InterruptTable.get.extendedMode(words, at) === 1;
    words[status]! |= 1 << 24;
    this.hooks.interruptTableChanged?.();
  }
}
