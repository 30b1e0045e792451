/**
 * The driver: probe, configuration, commands, interrupts. It reaches the device through configuration space, MMIO and interrupts alone, in
 * the order of Linux drivers/dma/idxd (init.c, device.c, irq.c), so it runs on a physical function and on a virtual device alike.
 */

import * as spec from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import { unbindWq, type WqDriver } from './bind.js';
import type { CdevOptions } from './cdev.js';
import { type Capabilities, checkConfig, type DeviceConfig, type WqConfig } from './config.js';
import type { Interrupts, Iommu, Irq, Mmio, PciDevice, UserSpace, Waiter } from './ports.js';
import { copyWords, functionLevelReset } from './reset.js';
import { clearDevice, configOf, newSettings, type Settings, settle, settleWq } from './settings.js';
import { SoftStatus, WqDefault } from './spec.js';
import { type DeviceTree, deviceTree } from './sysfs.js';

export interface DriverPorts {
  readonly device: PciDevice;
  readonly interrupts: Interrupts;
  readonly iommu: Iommu;
  readonly clock: Waiter;
  readonly kernel: UserSpace;
  /** The kernel's own way to a portal, for write() on queues that were bound through sysfs. Absent: write answers EINVAL. */
  readonly submit?: CdevOptions['submit'];
}

/** One software error as the driver logs it. */
export type SoftwareErrorRecord = ReturnType<typeof spec.SwError.json>;

/** A work queue as the driver keeps it. */
export interface Wq {
  readonly index: number;
  /** Page frame of the queue's first portal page (unlimited MSI-X), in the driver's physical address space. */
  readonly portalFrame: number;
  config: WqConfig;
  enabled: boolean;
  /** Who holds a dedicated queue, or undefined. */
  owner: unknown;
  /** Open files of the queue. */
  clients: number;
  /** Who was bound to it through sysfs, and the character device made by that. */
  driver: WqDriver | undefined;
  node: { remove(): void } | undefined;
  /** Minor number of its character device, while it has one. */
  minor: number | undefined;
  /** Takes the queue from those that have it open. */
  readonly holders: Set<() => void>;
}
/** A completion interrupt of a queue for one PASID: put `handle` into descriptors and submit through the half of the portal that `ims` names. */
export interface CompletionInterrupt {
  readonly handle: number;
  readonly ims: boolean;
  free(): void;
}

const MSIX = 0x11;
/** Without CMDCAP a device has commands 1 to 12. */
const DEFAULT_COMMANDS = 0x1ffe;
/** Operand of the interrupt handle commands: the index is one of IMS. */
const HANDLE_OF_IMS = 0x1_0000;

export class IdxdDriver {
  // fixed
  readonly ports: DriverPorts;
  // state, from probe on
  capabilities!: Capabilities;
  /** The number in names such as wq0.1. */
  readonly id: number;
  wqs: Wq[] = [];
  enabled = false;
  /** Software errors that the device reported, newest last; at most 256 are kept. */
  readonly softwareErrors: SoftwareErrorRecord[] = [];
  /** What the last SWERROR said, whole. */
  lastError: Uint32Array = new Uint32Array(spec.SwError.bytes / 4);
  /** Status code of the last command, or why the driver itself refused (bit 31). sysfs cmd_status. */
  commandStatus = 0;
  halted = false;
  /** Bound to the driver 'idxd': enabled, or halted since. */
  bound = false;
  /** What the attributes say. */
  settings!: Settings;
  #registers!: Mmio;
  #msix!: ReturnType<Interrupts['msix']>;
  #ims: ReturnType<NonNullable<Interrupts['ims']>> | undefined;
  #misc: Irq | undefined;
  #commandDone = false;
  #tree: DeviceTree | undefined;
  /** Queues that are on, or were when the device halted, and what their WQCFG says of PASIDs. */
  readonly #running = new Map<Wq, readonly [pasid: number | undefined, privileged: boolean]>();
  #at = { groups: 0, wqs: 0, wqStride: 32, msixPermission: 0, ims: 0 };
  readonly #vectors = new Set<number>();
  readonly #errorListeners = new Set<(record: SoftwareErrorRecord) => void>();

  constructor(ports: DriverPorts, id = 0) {
    this.ports = ports;
    this.id = id;
  }

  #read(offset: number): number {
    return this.#registers.read(offset, 4);
  }
  #readWords(offset: number, bytes: number): Uint32Array {
    return Uint32Array.from({ length: bytes / 4 }, (_, i) => this.#read(offset + i * 4));
  }
  #writeWords(offset: number, words: ArrayLike<number>): void {
    for (let i = 0; i < words.length; i++) this.#registers.write(offset + i * 4, 4, words[i]!);
  }

  /** Finds out what the device can and makes it quiet. 0, or -errno. Linux idxd_probe. */
  probe(): number {
    const { device, iommu, interrupts } = this.ports;
    const bar0 = device.bars.get(0);
    const bar2 = device.bars.get(2);
    if (!bar0 || !bar2) return -Errno.ENODEV;
    this.#registers = bar0.mmio;
    device.command({ memory: true, busMaster: true });
    const services = device.enableSva();
    iommu.addDevice(device.requesterId, services);

    const version = this.#read(spec.Register.version);
    if (version === 0xffff_ffff) return -Errno.ENODEV;
    const state = Uint32Array.of(this.#read(spec.Register.genSts));
    if (spec.GenSts.get.state(state, 0) === spec.GenSts.is.state.halt) return -Errno.ENXIO;
    if (this.command(spec.Command.resetDevice, 0, false) !== 0) return -Errno.ENXIO;

    const genCap = this.#readWords(spec.Register.genCap, 8);
    const commands = spec.GenCap.get.commandCapabilities(genCap, 0) ? this.#read(spec.Register.cmdCap) : DEFAULT_COMMANDS;
    const groupCap = this.#readWords(spec.Register.groupCap, 8);
    const engineCap = this.#readWords(spec.Register.engineCap, 8);
    const wqCap = this.#readWords(spec.Register.wqCap, 8);
    const opCap = this.#readWords(spec.Register.opCap, 32);
    const offsets = this.#readWords(spec.Register.offsets, 16);
    const table = spec.TableOffsets.get;
    this.#at = {
      groups: table.groupConfig(offsets, 0) * spec.TABLE_UNIT,
      wqs: table.wqConfig(offsets, 0) * spec.TABLE_UNIT,
      wqStride: 32 << spec.WqCap.get.configSize(wqCap, 0),
      msixPermission: table.msixPermission(offsets, 0) * spec.TABLE_UNIT,
      ims: table.ims(offsets, 0) * spec.TABLE_UNIT,
    };
    const operations = new Set<number>();
    for (let code = 0; code < 256; code++) if ((opCap[code >>> 5]! >>> (code & 31)) & 1) operations.add(code);
    this.capabilities = {
      version,
      wqs: spec.WqCap.get.count(wqCap, 0),
      totalWqSize: spec.WqCap.get.totalSize(wqCap, 0),
      groups: spec.GroupCap.get.count(groupCap, 0),
      engines: spec.EngineCap.get.count(engineCap, 0),
      maxTransferShift: spec.GenCap.get.maxTransferShift(genCap, 0),
      maxBatchShift: spec.GenCap.get.maxBatchShift(genCap, 0),
      blockOnFault: spec.GenCap.get.blockOnFault(genCap, 0) === 1,
      imsEntries: this.#at.ims ? spec.GenCap.get.imsUnits(genCap, 0) * 256 : 0,
      configurable: spec.GenCap.get.configurationSupport(genCap, 0) === 1,
      operations,
      commands,
      operationMask: opCap,
      genCapLow: genCap[0]!,
      genCapHigh: genCap[1]!,
      eventLog: spec.GenCap.get.eventLogSize(genCap, 0) !== 0,
      readBuffers: spec.GroupCap.get.readBuffers(groupCap, 0),
      readBufferLimit: spec.GroupCap.get.readBufferLimit(groupCap, 0) === 1,
      progressLimit: spec.GroupCap.get.progressLimit(groupCap, 0) === 1,
      sharedMode: spec.WqCap.get.sharedMode(wqCap, 0) === 1,
      atsControl: spec.WqCap.get.atsControl(wqCap, 0) === 1,
      prsControl: spec.WqCap.get.prsControl(wqCap, 0) === 1,
      occupancy: spec.WqCap.get.occupancy(wqCap, 0) === 1,
      operationConfig: spec.WqCap.get.operationConfig(wqCap, 0) === 1,
      pasid: services.pasid,
    };
    this.settings = newSettings(this.capabilities);
    if (!this.capabilities.configurable) {
      const error = this.#adoptConfiguration(bar2.address);
      if (error !== 0) return error;
    }

    this.#msix = interrupts.msix(device, device.capability(MSIX), this.#registers);
    this.#misc = this.#msix.alloc(() => this.#miscInterrupt(), 0);
    if (!this.#misc) return -Errno.ENOSPC;
    const { ims } = this.#at;
    if (this.capabilities.imsEntries > 0 && interrupts.ims)
      this.#ims = interrupts.ims(
        { read: (o, w) => this.#registers.read(ims + o, w), write: (o, w, v) => this.#registers.write(ims + o, w, v) },
        device.requesterId,
        this.capabilities.imsEntries,
      );
    this.#unmaskErrors();
    const { sysfs } = this.ports.kernel;
    if (sysfs) {
      this.#tree?.remove();
      this.#tree = deviceTree(this, sysfs);
    }
    return 0;
  }
  /** The device goes: it is disabled, and its tree in sysfs is taken down. Linux idxd_remove. */
  remove(): void {
    if (this.enabled) this.disable();
    this.#tree?.remove();
    this.#tree = undefined;
  }

  #unmaskErrors(): void {
    const control = Uint32Array.of(this.#read(spec.Register.genCtrl));
    spec.GenCtrl.set.softwareErrorInterrupt(control, 0, 1);
    spec.GenCtrl.set.haltInterrupt(control, 0, 1);
    this.#writeWords(spec.Register.genCtrl, control);
  }

  /**
   * A device whose configuration is fixed says it in its tables. 0, or -EOPNOTSUPP: the kernel takes dedicated queues without a PASID only,
   * since it could not give a shared one its own. Linux idxd_device_load_config.
   */
  #adoptConfiguration(portals: number): number {
    const wqs = Array.from({ length: this.capabilities.groups }, (_, g) =>
      spec.GroupCfg.get.wqs(this.#readWords(this.#at.groups + g * spec.GroupCfg.bytes, spec.GroupCfg.bytes), 0),
    );
    const { get } = spec.WqCfg;
    for (let index = 0; index < this.capabilities.wqs; index++) {
      const words = this.#readWords(this.#at.wqs + index * this.#at.wqStride, 32);
      if (get.mode(words, 0) !== spec.WqCfg.is.mode.dedicated || get.pasidEnable(words, 0)) return -Errno.EOPNOTSUPP;
      const config: WqConfig = {
        mode: 'dedicated',
        size: get.size(words, 0),
        group: wqs.findIndex((mask) => (mask >>> index) & 1),
        priority: get.priority(words, 0),
        maxTransferSize: 2 ** get.maxTransferShift(words, 0),
        maxBatchSize: 2 ** get.maxBatchShift(words, 0),
        type: 'user',
      };
      settleWq(this.settings.wqs[index]!, config, this.capabilities);
      this.wqs.push(this.#wq(index, portals, config));
    }
    for (let g = 0; g < this.capabilities.groups; g++) {
      const engines = spec.GroupCfg.get.engines(this.#readWords(this.#at.groups + g * spec.GroupCfg.bytes, spec.GroupCfg.bytes), 0);
      for (let e = 0; e < this.capabilities.engines; e++) if ((engines >>> e) & 1) this.settings.engines[e] = g;
    }
    return 0;
  }
  #wq(index: number, portals: number, config: WqConfig): Wq {
    const portalFrame = (portals + index * spec.Portal.bytesPerWq) / 4096;
    return {
      index,
      portalFrame,
      config,
      enabled: false,
      owner: undefined,
      clients: 0,
      driver: undefined,
      node: undefined,
      minor: undefined,
      holders: new Set(),
    };
  }
  /** The queue of that index, made if it was in no group when the device was enabled. */
  queue(index: number): Wq {
    let wq = this.wqs.find((known) => known.index === index);
    if (!wq) this.wqs.push((wq = this.#wq(index, this.ports.device.bars.get(2)!.address, configOf(this.settings.wqs[index]!))));
    return wq;
  }
  /** Entries of a queue that are taken, as WQCFG says. */
  occupancy(index: number): number {
    return spec.WqCfg.get.occupancy(this.#readWords(this.#at.wqs + index * this.#at.wqStride, spec.WqCfg.bytes), 0);
  }

  /**
   * Carries out an administrative command and waits for it: by interrupt, as the kernel does, or by polling. Answers the status code, 0
   * success; a device that never answers is a hardware error (0x03).
   */
  command(code: number, operand = 0, byInterrupt = this.#misc !== undefined): number {
    const word = new Uint32Array(1);
    spec.Cmd.set.code(word, 0, code);
    spec.Cmd.set.operand(word, 0, operand);
    spec.Cmd.set.interrupt(word, 0, byInterrupt ? 1 : 0);
    this.#commandDone = false;
    this.#registers.write(spec.Register.cmd, 4, word[0]!);
    const status = new Uint32Array(1);
    const done = this.ports.clock.wait(() => {
      if (byInterrupt && !this.#commandDone) return false;
      status[0] = this.#read(spec.Register.cmdSts);
      return spec.CmdSts.get.active(status, 0) === 0;
    });
    this.commandStatus = done ? spec.CmdSts.get.error(status, 0) : spec.CommandStatus.hardwareError;
    const answer = this.commandStatus;
    if (answer === spec.CommandStatus.hardwareError) this.checkHalt();
    return answer;
  }

  /** Vector 0. Linux idxd_misc_thread. */
  #miscInterrupt(): void {
    const cause = Uint32Array.of(this.#read(spec.Register.intCause));
    this.#writeWords(spec.Register.intCause, cause);
    if (spec.IntCause.get.commandDone(cause, 0)) this.#commandDone = true;
    if (spec.IntCause.get.softwareError(cause, 0)) {
      this.lastError = this.#readWords(spec.Register.swError, spec.SwError.bytes);
      const record = spec.SwError.json(this.lastError, 0);
      this.#registers.write(spec.Register.swError, 4, 3);
      if (this.softwareErrors.push(record) > 256) this.softwareErrors.shift();
      for (const listener of this.#errorListeners) listener(record);
    }
    if (spec.IntCause.get.halt(cause, 0)) this.#halt();
  }
  #halt(): void {
    this.halted = true;
    this.enabled = false;
    for (const wq of this.wqs) wq.enabled = false;
  }

  /**
   * Asks GENSTS. A device whose bus mastering is off cannot say by interrupt that it halted, nor what for: both are read here. True when it
   * is halted.
   */
  checkHalt(): boolean {
    const status = this.#read(spec.Register.genSts);
    // All ones is a device that does not answer.
    if (status === 0xffff_ffff || spec.GenSts.get.state(Uint32Array.of(status), 0) !== spec.GenSts.is.state.halt) return this.halted;
    if (this.halted) return true;
    this.#halt();
    this.#miscInterrupt();
    return true;
  }

  /**
   * Brings a halted device back: the reset that it asks for, its configuration, and the queues that were on, with the PASIDs that they had.
   * What was in flight is lost. 0; -EOPNOTSUPP where a function level reset is needed and the bus has none; -ENXIO when only a reset of the
   * system helps, or the device does not come up. Linux idxd_device_reinit, idxd_reset_done.
   */
  recover(): number {
    if (!this.checkHalt()) return 0;
    const { device } = this.ports;
    const needs = spec.GenSts.get.reset(Uint32Array.of(this.#read(spec.Register.genSts)), 0);
    const { software, functionLevel } = spec.GenSts.is.reset;
    if (needs !== software && needs !== functionLevel) return -Errno.ENXIO;
    if (needs === functionLevel && !device.functionLevelReset) return -Errno.EOPNOTSUPP;
    const tables = [...this.#vectors].map((vector) =>
      copyWords(this.#registers, this.#at.msixPermission + vector * spec.MsixPermission.bytes, spec.MsixPermission.bytes),
    );
    if (this.#ims) tables.push(copyWords(this.#registers, this.#at.ims, this.capabilities.imsEntries * spec.ImsEntry.bytes));
    if (needs === functionLevel) functionLevelReset(device);
    else if (this.command(spec.Command.resetDevice, 0, false) !== 0) return -Errno.ENXIO;
    if (this.#read(spec.Register.genSts) !== spec.GenSts.is.state.disabled) return -Errno.ENXIO;
    this.halted = false;
    for (const write of tables) write();
    this.#unmaskErrors();
    const running = [...this.#running];
    this.#running.clear();
    let error = 0;
    if (this.bound && this.#start(this.wqs) !== 0) {
      for (const wq of this.wqs) if (wq.driver) unbindWq(this, wq);
      this.bound = false;
      if (this.capabilities.configurable) clearDevice(this.settings, this.capabilities);
      error = -Errno.ENXIO;
    }
    for (const [wq, [pasid, privileged]] of this.enabled ? running : []) error ||= this.enableWq(wq, pasid, privileged);
    this.#tree?.sync();
    return error;
  }
  /** Hears of every software error; returns how to stop. */
  onSoftwareError(listener: (record: SoftwareErrorRecord) => void): () => void {
    this.#errorListeners.add(listener);
    return () => void this.#errorListeners.delete(listener);
  }

  /** Writes the configuration and enables the device. 0, or -errno with `why`. The queues stay off until `enableWq`. */
  configure(config: DeviceConfig): { readonly error: number; readonly why: string } {
    if (this.enabled) return { error: -Errno.EPERM, why: 'the device is enabled' };
    if (this.halted) return { error: -Errno.ENXIO, why: 'the device halted' };
    const { capabilities: can } = this;
    if (can.configurable) {
      const checked = checkConfig(config, can);
      if (checked.error !== 0) return checked;
      settle(this.settings, config, can);
    }
    const status = this.#start();
    return status === 0 ? { error: 0, why: '' } : { error: -Errno.ENXIO, why: `enable device: ${commandText(status)}` };
  }

  /** Enables the device with what its attributes say. 0, or -ENXIO with the reason in `commandStatus`. Linux idxd_device_drv_probe. */
  enable(): number {
    const { settings, capabilities: can } = this;
    if (this.enabled || this.halted) {
      this.commandStatus = SoftStatus.deviceEnabled;
      return -Errno.ENXIO;
    }
    if (can.configurable) {
      const grouped = settings.wqs.filter((wq) => wq.group >= 0);
      const refused =
        grouped.some((wq) => wq.mode === 'shared') && !(can.pasid && can.sharedMode)
          ? SoftStatus.wqNoSharedSupport
          : grouped.length === 0
            ? SoftStatus.wqNoneConfigured
            : 0;
      if (refused) this.commandStatus = refused;
      if (refused || !settings.engines.some((group) => group >= 0)) return -Errno.ENXIO;
    }
    if (this.#start() !== 0) return -Errno.ENXIO;
    this.commandStatus = 0;
    return 0;
  }

  /** Writes the tables and enables the device: the command's status. `known`: queues that stay the objects they are. */
  #start(known: readonly Wq[] = []): number {
    const { settings, capabilities: can } = this;
    if (can.configurable) {
      for (const wq of settings.wqs) if (wq.group >= 0 && wq.size === 0 && wq.type !== 'none') wq.size = WqDefault.size;
      const bar2 = this.ports.device.bars.get(2)!;
      this.wqs = settings.wqs.flatMap((wq, index) =>
        wq.group < 0 ? [] : [known.find((queue) => queue.index === index) ?? this.#wq(index, bar2.address, configOf(wq))],
      );
      if (settings.readBufferLimit > 0) {
        const general = Uint32Array.of(this.#read(spec.Register.genCfg));
        spec.GenCfg.set.readBufferLimit(general, 0, settings.readBufferLimit);
        this.#writeWords(spec.Register.genCfg, general);
      }
      for (let g = 0; g < can.groups; g++) this.#writeGroup(g);
      for (const wq of this.wqs) this.#writeWq(wq);
    }
    const status = this.command(spec.Command.enableDevice);
    if (status !== 0 && status !== spec.CommandStatus.deviceEnabled) return status;
    this.enabled = this.bound = true;
    this.#tree?.sync();
    return 0;
  }
  #writeGroup(index: number): void {
    const { settings, capabilities: can } = this;
    const { set } = spec.GroupCfg;
    const group = settings.groups[index]!;
    const words = new Uint32Array(spec.GroupCfg.bytes / 4);
    for (const [w, wq] of settings.wqs.entries()) if (wq.group === index) words[w >>> 5]! |= 1 << (w & 31);
    set.engines(
      words,
      0,
      settings.engines.reduce((mask, of, e) => (of === index ? mask | (1 << e) : mask), 0),
    );
    // Class 0 for low, 1 for high bandwidth memory is what a driver with a choice takes.
    set.trafficClassA(words, 0, Math.max(group.trafficClassA, 0));
    set.trafficClassB(words, 0, group.trafficClassB < 0 ? 1 : group.trafficClassB);
    set.useReadBufferLimit(words, 0, group.useReadBufferLimit ? 1 : 0);
    set.readBuffersReserved(words, 0, group.readBuffersReserved);
    set.readBuffersAllowed(words, 0, group.readBuffersAllowed || can.readBuffers);
    set.descriptorLimit(words, 0, group.descriptorLimit);
    set.batchLimit(words, 0, group.batchLimit);
    this.#writeWords(this.#at.groups + index * spec.GroupCfg.bytes, words);
  }

  /**
   * Disables the device, and with it all queues; what is in flight ends first. A configurable device is reset, so that nothing of this
   * configuration is left in its tables. Linux idxd_device_drv_remove.
   */
  disable(): number {
    if (!this.enabled) return -Errno.ENXIO;
    for (const wq of this.wqs) if (wq.driver) unbindWq(this, wq);
    const status = this.command(spec.Command.disableDevice);
    this.enabled = this.bound = false;
    for (const wq of this.wqs) wq.enabled = false;
    this.#running.clear();
    if (this.capabilities.configurable) clearDevice(this.settings, this.capabilities);
    this.#tree?.sync();
    if (status !== 0 && status !== spec.CommandStatus.deviceNotEnabledForDisable) return -Errno.ENXIO;
    if (!this.capabilities.configurable) return 0;
    if (this.command(spec.Command.resetDevice) !== 0) return -Errno.ENXIO;
    this.#unmaskErrors();
    return 0;
  }

  /** The bits of WQCFG that the device keeps are read back and kept, as the kernel does. `pasid` undefined: none. */
  #writeWq(wq: Wq, pasid?: number, privileged = false): void {
    const { capabilities: can } = this;
    const settings = this.settings.wqs[wq.index]!;
    const at = this.#at.wqs + wq.index * this.#at.wqStride;
    const words = new Uint32Array(8);
    const set = spec.WqCfg.set;
    if (!can.configurable) {
      // Only the PASID is software's to say. Linux idxd_wq_set_pasid.
      words[2] = this.#read(at + 8);
      set.pasidEnable(words, 0, pasid === undefined ? 0 : 1);
      set.pasid(words, 0, pasid ?? 0);
      set.privileged(words, 0, privileged ? 1 : 0);
      this.#writeWords(at + 8, [words[2]!]);
      return;
    }
    set.size(words, 0, settings.size);
    set.threshold(words, 0, settings.mode === 'shared' ? settings.threshold : 0);
    set.mode(words, 0, spec.WqCfg.is.mode[settings.mode]);
    set.priority(words, 0, settings.priority);
    set.blockOnFault(words, 0, settings.blockOnFault ? 1 : 0);
    if (can.atsControl) set.atsDisable(words, 0, settings.atsDisable ? 1 : 0);
    if (can.prsControl) set.prsDisable(words, 0, settings.prsDisable ? 1 : 0);
    set.maxTransferShift(words, 0, Math.log2(settings.maxTransferSize));
    set.maxBatchShift(words, 0, Math.log2(settings.maxBatchSize));
    if (settings.mode === 'shared' || pasid !== undefined) set.pasidEnable(words, 0, 1);
    if (pasid !== undefined) set.pasid(words, 0, pasid);
    set.privileged(words, 0, privileged ? 1 : 0);
    this.#writeWords(at, words.subarray(0, 6));
    if (can.operationConfig) this.#writeWords(at + spec.WqCfg.bytes, settings.operations);
  }

  /** Enables a queue; a dedicated one with the PASID that its descriptors shall have. 0, or -errno. */
  enableWq(wq: Wq, pasid?: number, privileged = false): number {
    if (!this.enabled) return -Errno.ENXIO;
    if (wq.enabled) return 0;
    this.#writeWq(wq, pasid, privileged);
    const status = this.command(spec.Command.enableWq, wq.index);
    if (status !== 0 && status !== spec.CommandStatus.wqEnabled) return -Errno.ENXIO;
    wq.enabled = true;
    this.#running.set(wq, [pasid, privileged]);
    return 0;
  }
  /** Drains and resets a queue. */
  disableWq(wq: Wq): number {
    this.#running.delete(wq);
    if (!wq.enabled) return 0;
    wq.enabled = false;
    const bit = spec.wqOperand(wq.index);
    this.command(spec.Command.drainWq, bit);
    return this.command(spec.Command.resetWq, bit) === 0 ? 0 : -Errno.ENXIO;
  }
  drainWq(wq: Wq): number {
    return this.command(spec.Command.drainWq, spec.wqOperand(wq.index)) === 0 ? 0 : -Errno.ENXIO;
  }
  abortWq(wq: Wq): number {
    return this.command(spec.Command.abortWq, spec.wqOperand(wq.index)) === 0 ? 0 : -Errno.ENXIO;
  }
  drainPasid(pasid: number): number {
    return this.command(spec.Command.drainPasid, pasid) === 0 ? 0 : -Errno.ENXIO;
  }
  abortPasid(pasid: number): number {
    return this.command(spec.Command.abortPasid, pasid) === 0 ? 0 : -Errno.ENXIO;
  }

  /**
   * A completion interrupt for descriptors of `pasid` on a queue: the queue's own MSI-X vector while that is free, else an IMS slot; or
   * the store that is asked for. Undefined when there is none left.
   */
  completionInterrupt(wq: Wq, pasid: number, handler: () => void, store?: 'msix' | 'ims'): CompletionInterrupt | undefined {
    const vector = wq.index + 1;
    if (store !== 'ims' && !this.#vectors.has(vector)) {
      const irq = this.#msix.alloc(handler, vector);
      if (irq) {
        const permission = new Uint32Array(2);
        spec.MsixPermission.set.pasidEnable(permission, 0, 1);
        spec.MsixPermission.set.pasid(permission, 0, pasid);
        const at = this.#at.msixPermission + vector * spec.MsixPermission.bytes;
        this.#writeWords(at, permission);
        this.#vectors.add(vector);
        const interrupt = this.#withHandle(vector, false, () => {
          this.#writeWords(at, [0, 0]);
          irq.free();
          this.#vectors.delete(vector);
        });
        if (interrupt || store === 'msix') return interrupt;
      }
    }
    if (store === 'msix') return undefined;
    const slot = this.#ims?.allocFor(handler, pasid);
    return slot && this.#withHandle(slot.index, true, () => slot.free());
  }

  #offers(command: number): boolean {
    return ((this.capabilities.commands >>> command) & 1) === 1;
  }
  /** A device that has the command says which handle a table entry has, or that it has none left; else it is the entry's index. */
  #withHandle(index: number, ims: boolean, free: () => void): CompletionInterrupt | undefined {
    const table = ims ? HANDLE_OF_IMS : 0;
    let handle = index;
    if (this.#offers(spec.Command.requestInterruptHandle)) {
      if (this.command(spec.Command.requestInterruptHandle, index | table) !== 0) {
        free();
        return undefined;
      }
      handle = spec.CmdSts.get.result(Uint32Array.of(this.#read(spec.Register.cmdSts)), 0);
    }
    let held = true;
    return {
      handle,
      ims,
      free: () => {
        if (!held) return;
        held = false;
        if (this.#offers(spec.Command.releaseInterruptHandle)) this.command(spec.Command.releaseInterruptHandle, handle | table, false);
        free();
      },
    };
  }

  /** Frame of the portal page that a user of the queue may have: the limited one, by interrupt store. */
  portalFrame(wq: Wq, ims = false, limited = true): number {
    return wq.portalFrame + (ims ? 2 : 0) + (limited ? 1 : 0);
  }
}

const texts = Object.fromEntries([...Object.entries(spec.CommandStatus), ...Object.entries(SoftStatus)].map(([name, code]) => [code, name]));
/** The name of a command status code, the device's or the driver's. */
export const commandText = (status: number): string => texts[status] ?? `0x${status.toString(16)}`;
