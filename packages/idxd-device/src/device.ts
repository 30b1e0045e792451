/**
 * The device: a PCI function with registers in BAR 0 and portals in BAR 2, work queues, engines and commands. It is driven through
 * configuration space, MMIO, portals and memory alone.
 */
import { Event } from '@siov/layout/events';
import { type Mmio, PciFunction } from '@siov/pci-core';
import { Assembly } from './assembly.js';
import { type Commanded, commands } from './commands.js';
import { type DeviceCosts, noCosts } from './costs.js';
import { Counter } from './counters.js';
import { DeviceTlb } from './device-tlb.js';
import { Engines } from './engine.js';
import { describeError, EventLog } from './event-log.js';
import { Interrupts } from './interrupts.js';
import type { Op } from './op.js';
import type { Clock, Native, Trace, Upstream } from './ports.js';
import { defaultGroupChecks, type GroupCheck, type Profile, sprDsa } from './profiles.js';
import { WorkQueue, WqState } from './queue.js';
import { deviceRegisters, offeredCommands, placeTables, type Registers } from './registers.js';
import type { ScheduleOptions } from './schedule.js';
import * as spec from './spec/index.js';

export interface DeviceOptions {
  readonly profile?: Profile;
  readonly clock: Clock;
  readonly costs?: Partial<DeviceCosts>;
  readonly trace?: Trace;
  /**
   * Keep translations per operand slot: of the device (true, `device`, default, the shape that counters of the real one show), or of each engine
   * (`engine`). Off: every request is translated by the remapping unit.
   */
  readonly deviceTlb?: boolean | 'device' | 'engine';
  /**
   * Take sixteen dword stores, ascending from a slot of 64 bytes of a portal with no other store to the queue between them, as one posted
   * write of 64 bytes (default false: they do nothing). unconfirmed: that a device does so.
   */
  readonly assembleStores?: boolean;
  /**
   * Choose every order that the specification leaves open by this seed. Default: descriptors take effect in the order of their dispatch, and the
   * records of an engine appear in that order too; engines overtake each other as their shares of the data path have it.
   */
  readonly schedule?: ScheduleOptions;
  /** Native code for CRC-32C and comparisons, where there is some (default: this package's own). */
  readonly native?: Native;
}

const cfg = spec.WqCfg.get;
const groupErrors = [
  spec.CommandStatus.groupConfig1,
  spec.CommandStatus.groupConfig2,
  spec.CommandStatus.groupConfig3,
  spec.CommandStatus.groupConfig4,
] as const;
/** WQCFG words that software may write at any time: the occupancy limit and its enable. unconfirmed. */
const ALWAYS_WRITABLE = 0x14;
const PASID_WORD = 8;
const PASID_FIELDS = (() => {
  const w = new Uint32Array(spec.WqCfg.bytes / 4);
  const { set } = spec.WqCfg;
  set.pasid(w, 0, 0xf_ffff);
  set.pasidEnable(w, 0, 1);
  set.privileged(w, 0, 1);
  return w[PASID_WORD / 4]!;
})();

export class IdxdDevice {
  // fixed
  readonly profile: Profile;
  /** Plug it into a root; then `connect` the upstream port of its requester id. */
  readonly function: PciFunction;
  readonly counters = new Float64Array(Object.keys(Counter).length);
  readonly #clock: Clock;
  readonly #costs: DeviceCosts;
  readonly #trace: Trace | undefined;
  readonly #command: number;
  /** How many sets of slots. */
  readonly #tlbSets: number;
  /** One bit per command. */
  readonly #commands: number;
  /** By queue; none without the option. */
  readonly #assemblies: readonly Assembly[];
  // state
  readonly #registers: Registers;
  readonly #queues: readonly WorkQueue[];
  readonly #interrupts: Interrupts;
  readonly #eventLog: EventLog;
  readonly #engines: Engines;
  #tlb: DeviceTlb | undefined;
  /** The command in progress, until its condition holds. */
  #active: { readonly code: number; readonly operand: number; readonly interrupt: boolean; started: boolean } | undefined;

  constructor(options: DeviceOptions) {
    const profile = options.profile ?? sprDsa;
    this.profile = profile;
    this.#clock = options.clock;
    this.#costs = { ...noCosts, ...options.costs };
    this.#trace = options.trace;
    const { deviceTlb = true } = options;
    if (![true, false, 'device', 'engine'].includes(deviceTlb)) throw new TypeError(`deviceTlb: ${deviceTlb} is not true, false, device or engine`);
    this.#tlbSets = deviceTlb === 'engine' ? profile.engines : deviceTlb ? 1 : 0;
    this.#registers = deviceRegisters(profile);
    const { at: tables, bytes: bar0 } = placeTables(profile);
    this.#commands = offeredCommands(profile);
    this.#queues = Array.from({ length: profile.wqs }, (_, i) => new WorkQueue(i));
    this.#assemblies = options.assembleStores ? this.#queues.map(() => new Assembly()) : [];
    const portalBytes = 2 ** Math.ceil(Math.log2(profile.wqs * spec.Portal.bytesPerWq));
    this.function = new PciFunction({
      vendorId: 0x8086,
      deviceId: profile.deviceId,
      classCode: 0x088000,
      subsystemVendorId: 0x8086,
      subsystemId: 0,
      bars: { 0: { bytes: bar0, mmio: this.#controlBar() }, 2: { bytes: portalBytes, mmio: this.#portalBar() } },
      msix: { vectors: profile.msixVectors, bar: 0, tableOffset: tables.msix, pbaOffset: tables.pba },
      ats: {},
      pri: { capacity: 512 },
      pasid: { width: 20, privileged: true },
      siov: { ims: profile.imsEntries > 0 },
    });
    this.#interrupts = new Interrupts(this.#registers, this.function, profile, this.#trace);
    this.#eventLog = new EventLog(this.#registers, this.#interrupts, profile);
    this.#engines = new Engines({
      profile,
      clock: this.#clock,
      costs: this.#costs,
      fn: this.function,
      interrupts: this.#interrupts,
      queues: this.#queues,
      trace: this.#trace,
      counters: this.counters,
      schedule: options.schedule,
      native: options.native ?? {},
      softwareError: (error, op) => this.#softwareError(error, op),
      keep: (error, op) => this.#eventLog.take(error, op),
      occupancyReached: (wq) => this.#occupancyReached(wq),
      settled: () => this.#settle(),
    });
    this.#command = this.#clock.handler(() => this.#commandStarted());
    this.function.listener = {
      functionLevelReset: () => this.#powerOn(),
      configChanged: () => {
        if (!this.function.atsEnabled) this.#tlb?.clear();
        if (this.#enabled && !this.function.busMaster) this.#halt(spec.SoftwareError.pciConfigChanged);
      },
    };
  }

  /** Gives the device its way to memory. */
  connect(upstream: Upstream): void {
    const { a, b, c, list } = this.#engines.io;
    this.#tlb = this.#tlbSets > 0 ? new DeviceTlb(upstream, [a, b, c, list], this.#tlbSets) : undefined;
    this.#engines.connect(this.#tlb ?? upstream, this.#tlbSets > 1 ? this.#tlb : undefined);
    this.#interrupts.upstream = this.#eventLog.upstream = upstream;
  }

  // What the remapping unit tells an endpoint.
  pageResponse(_pasid: number, group: number, code: number): void {
    this.#engines.pageResponse(group, code);
  }
  invalidate(): void {
    this.#tlb?.clear();
  }

  /**
   * Takes all interrupt handles away, as when messages come to go elsewhere: software is told by INTCAUSE and vector 0, and requests them
   * again. A descriptor that is fetched with an old one ends with 0x19; unconfirmed: one in progress still sends its interrupt.
   */
  revokeHandles(): void {
    if (!this.profile.commandCapabilities) throw new TypeError('revokeHandles: a device without commandCapabilities has no handles to revoke');
    this.#interrupts.reset();
    this.#interrupts.misc('handlesRevoked');
  }

  /**
   * A fault on demand: the device stops as after a fatal error of its own, and asks for `reset`. Software is told by INTCAUSE bit 4 and
   * vector 0 when it enabled that (GENCTRL).
   */
  injectHalt(reset: keyof typeof spec.GenSts.is.reset): void {
    if (!(reset in spec.GenSts.is.reset)) throw new TypeError(`injectHalt: reset is ${Object.keys(spec.GenSts.is.reset).join(', ')}, not ${reset}`);
    this.#stop(reset);
  }
  /** A fault on demand: an error of no descriptor (8 bits) in SWERROR, as the device reports its own. */
  injectSoftwareError(error: number): void {
    if (!(Number.isInteger(error) && error > 0 && error < 0x80)) throw new RangeError(`injectSoftwareError: error is 1 to 0x7f, not ${error}`);
    this.#softwareError(error);
  }

  /** Bytes and interrupts that crossed the device so far. */
  get traffic(): {
    readonly bytesRead: number;
    readonly bytesWritten: number;
    readonly pageRequests: number;
    readonly msix: number;
    readonly ims: number;
    readonly deviceTlbHits: number;
    readonly deviceTlbMisses: number;
  } {
    const { bytesRead, bytesWritten, pageRequests } = this.#engines.io;
    const { msixSent: msix, imsSent: ims } = this.#interrupts;
    return { bytesRead, bytesWritten, pageRequests, msix, ims, deviceTlbHits: this.#tlb?.hits ?? 0, deviceTlbMisses: this.#tlb?.misses ?? 0 };
  }
  /** Registers and tables by field names, for printing. IMS shows entries in use only. */
  describe(): Record<string, unknown> {
    this.#refresh();
    return Object.fromEntries(
      Object.entries(this.#registers.json()).filter(([name, row]) => !/^ims\[/.test(name) || (row as { data: number }).data !== 0),
    );
  }

  get #enabled(): boolean {
    return spec.GenSts.get.state(this.#registers.words, this.#registers.at('genSts')) === spec.GenSts.is.state.enabled;
  }
  #state(name: keyof typeof spec.GenSts.is.state): void {
    spec.GenSts.set.state(this.#registers.words, this.#registers.at('genSts'), spec.GenSts.is.state[name]);
  }

  // --- BAR 2

  #portalBar(): Mmio {
    const bytes = this.profile.wqs * spec.Portal.bytesPerWq;
    return {
      read: (_offset, width) => (width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1),
      // Stores of other sizes than 64 bytes do nothing, unless they are put together.
      write: (offset, width, value) => this.#store(offset, width, value),
      movdir64b: (offset, words, at) => {
        if (offset < bytes) this.#post(this.#queues[offset >>> 14]!, (offset >>> 13) & 1, words, at);
      },
      enqcmd: (offset, words, at) => (offset < bytes ? this.#enqueue(this.#queues[offset >>> 14]!, (offset >>> 12) & 3, words, at) : 1),
    };
  }

  /** A posted write: a dedicated queue takes it or drops it, and the sender is not told. */
  #post(wq: WorkQueue, ims: number, words: Uint32Array, at: number): void {
    if (wq.state !== WqState.enabled || wq.shared || wq.occupancy >= wq.size) {
      this.counters[Counter.dropped]!++;
      if (this.profile.droppedError) this.#softwareError(this.profile.droppedError);
      return;
    }
    this.#accept(wq, ims, words, at, this.#costs.portalArrival);
  }

  #store(offset: number, width: number, value: number): void {
    const assembly = this.#assemblies[offset >>> 14];
    const outcome = assembly?.store(offset, width, value) ?? 0;
    if (outcome < 0) this.counters[Counter.dropped]!++;
    if (!assembly && this.profile.smallStoreError) this.#softwareError(this.profile.smallStoreError);
    else if (outcome > 0) this.#post(this.#queues[offset >>> 14]!, (offset >>> 13) & 1, assembly!.words, 0);
  }

  /** A deferrable write: 0 taken, 1 retry. Only enabled shared queues are enqueue targets. */
  #enqueue(wq: WorkQueue, page: number, words: Uint32Array, at: number): number {
    if (wq.state !== WqState.enabled || !wq.shared || !wq.hasRoom((page & 1) === 1)) {
      this.counters[Counter.retried]!++;
      return 1;
    }
    // The answer has come back by now: the way there is part of what ENQCMD costs the processor.
    this.#accept(wq, page >>> 1, words, at, 0);
    return 0;
  }

  #accept(wq: WorkQueue, ims: number, words: Uint32Array, at: number, delay: number): void {
    wq.push(words, at, ims);
    this.counters[Counter.accepted]!++;
    this.#trace?.emit(Event.accept, wq.index, words[at + 1]! >>> 24, wq.shared ? words[at]! & 0xf_ffff : wq.pasid, wq.occupancy);
    this.#engines.kick(delay);
  }

  // --- BAR 0

  #controlBar(): Mmio {
    const regs = this.#registers;
    return {
      read: (offset, width) => {
        if (regs.find(offset)?.row === 'wqConfig') this.#refresh();
        return regs.read(offset, width);
      },
      write: (offset, width, value) => this.#write(offset, width, value),
      passiveReads: true,
    };
  }

  #write(offset: number, width: number, value: number): void {
    const regs = this.#registers;
    const slot = regs.find(offset);
    if (!slot || offset % width !== 0) return;
    if (slot.row === 'cmd') {
      // "CMD must be written as one 32-bit write."
      if (width === 4) this.#commandWritten(value);
      return;
    }
    // Configuration is locked while what it configures is enabled.
    const ofQueue = slot.row === 'wqOperations' || (slot.row === 'wqConfig' && slot.word * 4 !== ALWAYS_WRITABLE);
    const locked =
      slot.row === 'genCfg' || slot.row === 'eventLogCfg' || slot.row === 'groupConfig'
        ? spec.GenSts.get.state(regs.words, regs.at('genSts')) !== 0
        : ofQueue && this.#queues[slot.index]!.state !== WqState.disabled;
    if (locked) return;
    const fixed =
      this.profile.fixed && slot.row.startsWith('wq')
        ? regs.words.slice(regs.at('wqConfig', slot.index), regs.at('wqConfig', slot.index) + 8)
        : undefined;
    if (this.profile.fixed && slot.row === 'groupConfig') return;
    regs.write(offset, width, value);
    if (fixed) this.#keepFixed(slot.index, fixed);
    if (slot.row === 'ims') this.#interrupts.imsWritten(slot.index);
    else if (slot.row === 'wqConfig' && slot.word * 4 === ALWAYS_WRITABLE) this.#occupancyLimit(this.#queues[slot.index]!);
  }

  /** Of a fixed configuration only the PASID of a queue is software's. */
  #keepFixed(index: number, before: Uint32Array): void {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig', index);
    const after = words[at + PASID_WORD / 4]!;
    words.set(before, at);
    words[at + PASID_WORD / 4] = (before[PASID_WORD / 4]! & ~PASID_FIELDS) | (after & PASID_FIELDS);
  }
  /** unconfirmed: when it interrupts, once each time that the occupancy falls to the limit. */
  #occupancyLimit(wq: WorkQueue): void {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig', wq.index);
    const on = wq.state === WqState.enabled && this.profile.queues?.occupancyInterrupt !== false && cfg.occupancyInterruptEnable(words, at);
    wq.occupancyLimit = on ? cfg.occupancyLimit(words, at) : -1;
  }
  #occupancyReached(wq: WorkQueue): void {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig', wq.index);
    spec.IntCause.set.occupancy(words, this.#registers.at('intCause'), 1);
    const handle = cfg.occupancyHandle(words, at);
    const ims = cfg.occupancyTable(words, at);
    if (this.#interrupts.allowed(handle, ims, wq.pasid)) this.#interrupts.completion(handle, ims);
  }

  /** Brings the read-only words of WQCFG up to date. */
  #refresh(): void {
    const { words } = this.#registers;
    for (const wq of this.#queues) {
      const at = this.#registers.at('wqConfig', wq.index);
      spec.WqCfg.set.occupancy(words, at, wq.occupancy);
      spec.WqCfg.set.modeSupport(words, at, 1);
      spec.WqCfg.set.state(words, at, wq.state === WqState.draining ? spec.WqCfg.is.state.busy : wq.state);
    }
  }

  // --- commands

  #commandWritten(value: number): void {
    const regs = this.#registers;
    const word = Uint32Array.of(value);
    if (this.#active) {
      this.#softwareError(spec.SoftwareError.commandWhileActive);
      return;
    }
    regs.words[regs.at('cmd')] = value;
    const code = spec.Cmd.get.code(word, 0);
    this.#active = { code, operand: spec.Cmd.get.operand(word, 0), interrupt: spec.Cmd.get.interrupt(word, 0) === 1, started: false };
    regs.words[regs.at('cmdSts')] = 0;
    spec.CmdSts.set.active(regs.words, regs.at('cmdSts'), 1);
    this.#clock.after(this.#costs.command, this.#command, 0);
  }

  #commandStarted(): void {
    if (!this.#active) return;
    const { code, operand } = this.#active;
    const row = (this.#commands >>> code) & 1 ? commands[code] : undefined;
    const halted = spec.GenSts.get.state(this.#registers.words, this.#registers.at('genSts')) === spec.GenSts.is.state.halt;
    const refusal = !row
      ? spec.CommandStatus.invalidCommand
      : halted && code !== spec.Command.resetDevice
        ? spec.CommandStatus.hardwareError
        : row.refuse(this.#commanded, operand);
    if (refusal !== spec.CommandStatus.success) {
      this.#commandDone(refusal);
      return;
    }
    this.#active.started = true;
    row?.run?.(this.#commanded, operand);
    this.#settle();
  }

  /** Something finished; the command in progress may be done. */
  #settle(): void {
    if (!this.#active?.started) return;
    const { code, operand } = this.#active;
    const row = commands[code]!;
    if (row.until && !row.until(this.#commanded, operand)) return;
    row.finish?.(this.#commanded, operand);
    this.#commandDone(spec.CommandStatus.success, row.result?.(operand));
  }

  #commandDone(error: number, result = 0): void {
    const { code, operand, interrupt } = this.#active!;
    this.#active = undefined;
    const regs = this.#registers;
    regs.words[regs.at('cmdSts')] = 0;
    spec.CmdSts.set.error(regs.words, regs.at('cmdSts'), error);
    spec.CmdSts.set.result(regs.words, regs.at('cmdSts'), result);
    this.#trace?.emit(Event.command, code, operand, error, 0);
    if (interrupt) this.#interrupts.misc('commandDone');
  }

  readonly #commanded: Commanded = (() => {
    const device = this;
    return {
      get enabled() {
        return device.#enabled;
      },
      get busMaster() {
        return device.function.busMaster;
      },
      get queues() {
        return device.#queues;
      },
      checkDevice: () => this.#checkDevice(),
      checkQueue: (wq) => this.#checkQueue(wq),
      enableDevice: () => {
        this.#eventLog.begin();
        this.#state('enabled');
      },
      disableDevice: () => {
        for (const wq of this.#queues) wq.state = WqState.disabled;
        this.#state('disabled');
        this.#arrange();
      },
      resetDevice: () => {
        const { words } = this.#registers;
        const from = this.#registers.at('msixPermission');
        const msix = words.slice(from, from + (this.profile.msixVectors * spec.MsixPermission.bytes) / 4);
        this.#powerOn();
        words.set(msix, from);
        // The command that is being carried out is still the last one.
        spec.CmdSts.set.active(words, this.#registers.at('cmdSts'), 1);
      },
      enableQueue: (wq) => this.#enableQueue(wq),
      disableQueue: (wq) => {
        wq.state = WqState.disabled;
        this.#arrange();
      },
      resetQueue: (wq) => {
        wq.state = WqState.disabled;
        const at = this.#registers.at('wqConfig', wq.index);
        // Of a fixed configuration only the PASID goes.
        if (this.profile.fixed) this.#registers.words[at + PASID_WORD / 4]! &= ~PASID_FIELDS;
        else this.#registers.words.fill(0, at, at + spec.WqCfg.bytes / 4);
        this.#resetOperations(wq);
        this.#arrange();
      },
      abort: (index, pasid) => {
        const status = this.profile.abortedStatus ?? 0;
        for (const wq of this.#queues)
          if (index < 0 || wq.index === index)
            wq.discard(pasid, status === 0 ? undefined : (descriptor, ims) => this.#engines.aborted(descriptor, ims, wq, status));
        this.#engines.abort(index, pasid);
      },
      quiet: (index, pasid) =>
        this.#queues.every((wq) => (index >= 0 && wq.index !== index) || (pasid < 0 ? wq.occupancy === 0 : !wq.holds(pasid))) &&
        !this.#engines.busy(index, pasid),
      requestHandle: (index, ims) => this.#interrupts.request(index, ims),
      releaseHandle: (handle, ims) => this.#interrupts.release(handle, ims),
    } satisfies Commanded;
  })();

  /** Group and size rules. */
  #checkDevice(): spec.CommandStatus {
    const { words } = this.#registers;
    if (!this.#eventLog.valid) return spec.CommandStatus.configuration;
    // unconfirmed: which combination of the address services is invalid. Here what PCIe rules out: page requests without translation requests.
    if (this.function.priEnabled && !this.function.atsEnabled) return spec.CommandStatus.pasidInvalid;
    let sizes = 0;
    for (const wq of this.#queues) sizes += cfg.size(words, this.#registers.at('wqConfig', wq.index));
    if (sizes > this.profile.totalWqSize) return spec.CommandStatus.wqSizes;
    let wqs = 0;
    let engines = 0;
    let reserved = 0;
    const order = this.profile.groupChecks ?? defaultGroupChecks;
    for (let group = 0; group < this.profile.groups; group++) {
      const at = this.#registers.at('groupConfig', group);
      const groupWqs = spec.GroupCfg.get.wqs(words, at);
      const groupEngines = spec.GroupCfg.get.engines(words, at);
      const { readBuffersReserved, readBuffersAllowed } = spec.GroupCfg.get;
      reserved += readBuffersReserved(words, at);
      // unconfirmed: what of read buffers is an error. 0 allowed stands for all.
      const allowed = readBuffersAllowed(words, at) || this.profile.readBuffers;
      const wrong: Readonly<Record<GroupCheck, boolean>> = {
        queues: (groupWqs & wqs) !== 0 || groupWqs >= 2 ** this.profile.wqs,
        engines: (groupEngines & engines) !== 0 || groupEngines >= 2 ** this.profile.engines,
        noEngine: groupWqs !== 0 && groupEngines === 0,
        readBuffers: reserved > this.profile.readBuffers || allowed > this.profile.readBuffers || allowed < readBuffersReserved(words, at),
      };
      const first = order.findIndex((check) => wrong[check]);
      if (first >= 0) return groupErrors[first]!;
      wqs |= groupWqs;
      engines |= groupEngines;
    }
    return wqs === 0 || engines === 0 ? spec.CommandStatus.configuration : spec.CommandStatus.success;
  }

  #groupOf(wq: number): number {
    for (let group = 0; group < this.profile.groups; group++)
      if ((spec.GroupCfg.get.wqs(this.#registers.words, this.#registers.at('groupConfig', group)) >>> wq) & 1) return group;
    return -1;
  }

  #checkQueue(wq: WorkQueue): spec.CommandStatus {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig', wq.index);
    const shared = cfg.mode(words, at) === spec.WqCfg.is.mode.shared;
    const size = cfg.size(words, at);
    const pasidEnable = cfg.pasidEnable(words, at) === 1;
    if (size === 0 || size > this.profile.totalWqSize || this.#groupOf(wq.index) < 0) return spec.CommandStatus.wqSize;
    if (cfg.priority(words, at) === 0) return spec.CommandStatus.wqPriority;
    if (shared && (!pasidEnable || !this.function.pasidEnabled || this.profile.queues?.sharedMode === false)) return spec.CommandStatus.wqMode;
    if (!shared && this.profile.queues?.dedicatedMode === false) return spec.CommandStatus.wqMode;
    if (cfg.blockOnFault(words, at) && !this.profile.blockOnFault) return spec.CommandStatus.wqBlockOnFault;
    if (pasidEnable && !this.function.pasidEnabled) return spec.CommandStatus.wqPasidEnable;
    if (cfg.maxBatchShift(words, at) > this.profile.maxBatchShift) return spec.CommandStatus.wqMaxBatch;
    if (cfg.maxTransferShift(words, at) > this.profile.maxTransferShift) return spec.CommandStatus.wqMaxTransfer;
    return spec.CommandStatus.success;
  }

  #enableQueue(wq: WorkQueue): void {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig', wq.index);
    wq.resize(cfg.size(words, at));
    wq.shared = cfg.mode(words, at) === spec.WqCfg.is.mode.shared;
    wq.threshold = cfg.threshold(words, at);
    wq.priority = cfg.priority(words, at);
    wq.pasidEnable = cfg.pasidEnable(words, at) === 1;
    wq.pasid = wq.pasidEnable ? cfg.pasid(words, at) : -1;
    wq.privileged = cfg.privileged(words, at);
    wq.blockOnFault = cfg.blockOnFault(words, at) === 1;
    wq.ats = cfg.atsDisable(words, at) === 0;
    wq.maxTransfer = 2 ** cfg.maxTransferShift(words, at);
    wq.maxBatch = 2 ** cfg.maxBatchShift(words, at);
    wq.group = this.#groupOf(wq.index);
    wq.kept.clear();
    this.#occupancyLimit(wq);
    if (this.profile.operationConfig) {
      const operations = this.#registers.at('wqOperations', wq.index);
      wq.operations.set(words.subarray(operations, operations + 8));
    }
    const group = this.#registers.at('groupConfig', wq.group);
    const mapped = this.profile.trafficClasses ?? 0xff;
    const unmapped = (trafficClass: number): number => ((mapped >>> trafficClass) & 1) ^ 1;
    wq.trafficClassFault = unmapped(spec.GroupCfg.get.trafficClassA(words, group)) | (unmapped(spec.GroupCfg.get.trafficClassB(words, group)) << 1);
    wq.state = WqState.enabled;
    this.#arrange();
  }

  #resetOperations(wq: WorkQueue): void {
    if (!this.profile.operationConfig) return;
    const { words } = this.#registers;
    const from = this.#registers.at('opCap');
    words.copyWithin(this.#registers.at('wqOperations', wq.index), from, from + 8);
  }

  #arrange(): void {
    const { words } = this.#registers;
    const { groups, readBuffers, progressLimit = false } = this.profile;
    const get = spec.GroupCfg.get;
    const at = Array.from({ length: groups }, (_, group) => this.#registers.at('groupConfig', group));
    const reserved = at.map((group) => get.readBuffersReserved(words, group));
    const allReserved = reserved.reduce((sum, n) => sum + n, 0);
    this.#engines.configure(
      at.map((group, i) => ({
        engines: get.engines(words, group),
        // What is reserved for other groups is theirs. unconfirmed: that 0 allowed means no limit, and that a group has one in any case. The limit of
        // GENCFG is about low-bandwidth memory, of which there is none here.
        readBuffers: Math.max(1, Math.min(get.readBuffersAllowed(words, group) || readBuffers, readBuffers - allReserved + reserved[i]!)),
        descriptorLimit: progressLimit ? (get.descriptorLimit(words, group) as 0 | 1 | 2 | 3) : 0,
      })),
    );
  }

  // --- errors and resets

  /** The event log takes errors of descriptors. SWERROR keeps the first of the others, and of those that the log has no room for; later ones set overflow. Whether it is in the log. */
  #softwareError(error: number, op?: Op): boolean {
    const { words } = this.#registers;
    const at = this.#registers.at('swError');
    this.counters[Counter.softwareErrors]!++;
    this.#trace?.emit(Event.softwareError, error, op?.wq ?? -1, op?.opcode ?? -1, op?.pasid ?? -1);
    // unconfirmed: errors of no descriptor are SWERROR's even with an event log.
    if (op && this.#eventLog.take(error, op)) return true;
    const put = spec.SwError.set;
    if (spec.SwError.get.valid(words, at)) put.overflow(words, at, 1);
    else {
      words.fill(0, at, at + spec.SwError.bytes / 4);
      put.valid(words, at, 1);
      put.error(words, at, error & 0x7f);
      if (op) describeError(put, words, at, error, op);
    }
    if (spec.GenCtrl.get.softwareErrorInterrupt(words, this.#registers.at('genCtrl'))) this.#interrupts.misc('softwareError');
    return false;
  }

  /** Fatal: the device stops until it is reset. */
  #halt(error: number): void {
    this.#softwareError(error);
    this.#stop('functionLevel');
  }
  #stop(reset: keyof typeof spec.GenSts.is.reset): void {
    this.#state('halt');
    spec.GenSts.set.reset(this.#registers.words, this.#registers.at('genSts'), spec.GenSts.is.reset[reset]);
    for (const wq of this.#queues) {
      wq.discard();
      wq.state = WqState.disabled;
    }
    this.#engines.reset();
    if (spec.GenCtrl.get.haltInterrupt(this.#registers.words, this.#registers.at('genCtrl'))) this.#interrupts.misc('halt');
  }

  #powerOn(): void {
    this.#tlb?.clear();
    this.#engines.reset();
    this.#interrupts.reset();
    for (const assembly of this.#assemblies) assembly.reset();
    for (const wq of this.#queues) {
      wq.resize(0);
      wq.state = WqState.disabled;
      wq.inFlight = 0;
    }
    this.#registers.reset();
    this.#active = this.#active?.code === spec.Command.resetDevice ? this.#active : undefined;
  }
}
