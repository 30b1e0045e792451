/**
 * The driver: probe, configuration, commands, interrupts. It reaches the device through configuration space, MMIO and interrupts alone, in
 * the order of Linux drivers/dma/idxd (init.c, device.c, irq.c), so it runs on a physical function and on a virtual device alike.
 */

import * as spec from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import { unbindWq, type WqDriver } from './bind.js';
import { readCapabilities, type Tables } from './capabilities.js';
import type { CdevOptions } from './cdev.js';
import { type CompletionInterrupt, CompletionInterrupts } from './completion.js';
import { type Capabilities, checkConfig, type DeviceConfig, type WqConfig } from './config.js';
import type { DmaChannel } from './dma.js';
import { EventLogService, type EventRecord, type User } from './event-log.js';
import { Hardware } from './hardware.js';
import type { Interrupts, Iommu, Irq, KernelDma, Mm, PciDevice, UserSpace, Waiter } from './ports.js';
import { copyWords, functionLevelReset } from './reset.js';
import { clearDevice, configOf, newSettings, type Settings, settle } from './settings.js';
import { IAX_DEVICES, SoftStatus, WqDefault } from './spec.js';
import { type DeviceTree, deviceTree } from './sysfs.js';
import { readConfiguration, writeGroup, writeWq } from './tables.js';

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
  /** Of a queue bound to dmaengine. */
  channel: DmaChannel | undefined;
  /** Minor number of its character device, while it has one. */
  minor: number | undefined;
  /** Takes the queue from those that have it open. */
  readonly holders: Set<() => void>;
}
const MSIX = 0x11;

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
  /** Address spaces that have PASIDs of this device, and how often each was added. */
  readonly #users = new Map<number, User & { references: number }>();
  #hardware!: Hardware;
  #at!: Tables;
  #msix!: ReturnType<Interrupts['msix']>;
  #completions!: CompletionInterrupts;
  #misc: Irq | undefined;
  #eventLog: EventLogService | undefined;
  #dma: KernelDma | undefined;
  #commandDone = false;
  #commanding = false;
  /** Work that came while a command was in progress. */
  readonly #postponed: (() => void)[] = [];
  #tree: DeviceTree | undefined;
  /** Queues that are on, or were when the device halted, and what their WQCFG says of PASIDs. */
  readonly #running = new Map<Wq, readonly [pasid: number | undefined, privileged: boolean]>();
  readonly #errorListeners = new Set<(record: SoftwareErrorRecord) => void>();

  constructor(ports: DriverPorts, id = 0) {
    this.ports = ports;
    this.id = id;
  }

  /** Its name on the bus: dsaN, or iaxN of an analytics accelerator. */
  get name(): string {
    return `${this.#type}${this.id}`;
  }
  get #type(): Capabilities['type'] {
    return IAX_DEVICES.includes(this.ports.device.deviceId) ? 'iax' : 'dsa';
  }
  /** Its directory in sysfs. */
  get sysfsPath(): string {
    return `/sys/devices/pci0000:00/${this.ports.device.name}/${this.name}`;
  }
  /** Where the character devices of its queues are. */
  get devPath(): string {
    return `/dev/${this.#type}`;
  }

  /** Finds out what the device can and makes it quiet. 0, or -errno. Linux idxd_probe. */
  probe(): number {
    const { device, iommu, interrupts } = this.ports;
    const bar0 = device.bars.get(0);
    const bar2 = device.bars.get(2);
    if (!bar0 || !bar2) return -Errno.ENODEV;
    this.#hardware = new Hardware(bar0.mmio);
    device.command({ memory: true, busMaster: true });
    const services = device.enableSva();
    iommu.addDevice(device.requesterId, services);

    const version = this.#hardware.read(spec.Register.version);
    if (version === 0xffff_ffff) return -Errno.ENODEV;
    if (spec.GenSts.get.state(this.#hardware.word(spec.Register.genSts), 0) === spec.GenSts.is.state.halt) return -Errno.ENXIO;
    if (this.command(spec.Command.resetDevice, 0, false) !== 0) return -Errno.ENXIO;

    const { can, at } = readCapabilities(this.#hardware, version, services.pasid, this.#type);
    this.capabilities = can;
    this.#at = at;
    this.settings = newSettings(can);
    if (!can.configurable) {
      const configs = readConfiguration(this.#hardware, at, can, this.settings);
      if (typeof configs === 'number') return configs;
      this.wqs = configs.map((config, index) => this.#wq(index, bar2.address, config));
    }

    this.#msix = interrupts.msix(device, device.capability(MSIX), bar0.mmio);
    this.#misc = this.#msix.alloc(() => this.#miscInterrupt(), 0);
    if (!this.#misc) return -Errno.ENOSPC;
    const slots = {
      read: (o: number, w: number) => bar0.mmio.read(at.ims + o, w),
      write: (o: number, w: number, v: number) => bar0.mmio.write(at.ims + o, w, v),
    };
    const ims = can.imsEntries > 0 ? interrupts.ims?.(slots, device.requesterId, can.imsEntries) : undefined;
    this.#completions = new CompletionInterrupts(this.#hardware, at, { msix: this.#msix, ims }, can.commands, (code, operand, byInterrupt) => {
      const status = this.command(code, operand, byInterrupt);
      return { status, result: spec.CmdSts.get.result(this.#hardware.word(spec.Register.cmdSts), 0) };
    });
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
    this.#misc?.free();
    this.#misc = undefined;
    this.#tree?.remove();
    this.#tree = undefined;
  }

  #unmaskErrors(): void {
    const control = this.#hardware.word(spec.Register.genCtrl);
    spec.GenCtrl.set.softwareErrorInterrupt(control, 0, 1);
    spec.GenCtrl.set.haltInterrupt(control, 0, 1);
    this.#hardware.write(spec.Register.genCtrl, control);
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
      channel: undefined,
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
    return spec.WqCfg.get.occupancy(this.#hardware.words(this.#at.wqs + index * this.#at.wqStride, spec.WqCfg.bytes), 0);
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
    this.#commanding = true;
    this.#hardware.write(spec.Register.cmd, word);
    let status: Uint32Array = new Uint32Array(1);
    const done = this.ports.clock.wait(() => {
      if (byInterrupt && !this.#commandDone) return false;
      status = this.#hardware.word(spec.Register.cmdSts);
      return spec.CmdSts.get.active(status, 0) === 0;
    });
    this.#commanding = false;
    for (const work of this.#postponed.splice(0)) this.#later(work);
    this.commandStatus = done ? spec.CmdSts.get.error(status, 0) : spec.CommandStatus.hardwareError;
    const answer = this.commandStatus;
    if (answer === spec.CommandStatus.hardwareError) this.checkHalt();
    return answer;
  }
  /** Leaves work that gives commands to a worker thread, and there waits for its turn. */
  #later(work: () => void): void {
    this.ports.clock.defer(() => {
      if (this.#commanding) this.#postponed.push(work);
      else work();
    });
  }

  /** Vector 0. Linux idxd_misc_thread. */
  #miscInterrupt(): void {
    const cause = this.#hardware.word(spec.Register.intCause);
    this.#hardware.write(spec.Register.intCause, cause);
    const { get } = spec.IntCause;
    if (get.commandDone(cause, 0)) this.#commandDone = true;
    if (get.softwareError(cause, 0)) {
      this.lastError = this.#hardware.words(spec.Register.swError, spec.SwError.bytes);
      this.#hardware.write(spec.Register.swError, [3]);
      this.#report(spec.SwError.json(this.lastError, 0));
    }
    if (get.eventLog(cause, 0)) this.#eventLog?.service();
    if (get.handlesRevoked(cause, 0)) this.#later(() => this.#completions.revoked());
    if (get.halt(cause, 0) && !this.halted) {
      this.#halt();
      // The device itself asks: what can be brought back is. Linux idxd_device_reinit.
      this.#later(() => this.recover());
    }
  }
  #report(record: SoftwareErrorRecord): void {
    if (this.softwareErrors.push(record) > 256) this.softwareErrors.shift();
    for (const listener of this.#errorListeners) listener(record);
  }
  #halt(): void {
    this.halted = true;
    this.enabled = false;
    for (const wq of this.wqs) {
      wq.enabled = false;
      wq.channel?.abort();
    }
  }

  /**
   * Asks GENSTS. A device whose bus mastering is off cannot say by interrupt that it halted, nor what for: both are read here. True when it
   * is halted.
   */
  checkHalt(): boolean {
    const status = this.#hardware.read(spec.Register.genSts);
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
    const needs = spec.GenSts.get.reset(this.#hardware.word(spec.Register.genSts), 0);
    const { software, functionLevel } = spec.GenSts.is.reset;
    if (needs !== software && needs !== functionLevel) return -Errno.ENXIO;
    if (needs === functionLevel && !device.functionLevelReset) return -Errno.EOPNOTSUPP;
    const { mmio } = this.#hardware;
    const tables = [...this.#completions.vectors].map((vector) =>
      copyWords(mmio, this.#at.msixPermission + vector * spec.MsixPermission.bytes, spec.MsixPermission.bytes),
    );
    if (this.capabilities.imsEntries > 0) tables.push(copyWords(mmio, this.#at.ims, this.capabilities.imsEntries * spec.ImsEntry.bytes));
    this.#stopEventLog();
    if (needs === functionLevel) functionLevelReset(device);
    else if (this.command(spec.Command.resetDevice, 0, false) !== 0) return -Errno.ENXIO;
    if (this.#hardware.read(spec.Register.genSts) !== spec.GenSts.is.state.disabled) return -Errno.ENXIO;
    this.halted = false;
    for (const write of tables) write();
    this.#unmaskErrors();
    this.#completions.restore();
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
        const general = this.#hardware.word(spec.Register.genCfg);
        spec.GenCfg.set.readBufferLimit(general, 0, settings.readBufferLimit);
        this.#hardware.write(spec.Register.genCfg, general);
      }
      for (let g = 0; g < can.groups; g++) writeGroup(this.#hardware, this.#at, can, settings, g);
      for (const wq of this.wqs) this.#writeWq(wq);
    }
    this.#startEventLog();
    const status = this.command(spec.Command.enableDevice);
    if (status !== 0 && status !== spec.CommandStatus.deviceEnabled) return status;
    this.enabled = this.bound = true;
    this.#tree?.sync();
    return 0;
  }
  /** A log that there is no memory for is left out: errors go to SWERROR. */
  #startEventLog(): void {
    const { capabilities: can, settings } = this;
    if (!can.eventLog) return;
    const memory = this.dma?.alloc(settings.eventLogSize * can.eventBytes);
    if (!memory) return;
    this.#eventLog = new EventLogService(this.#hardware, memory, settings.eventLogSize, can, this.#users, (event) => this.#report(asError(event)));
  }
  #stopEventLog(): void {
    this.#eventLog?.stop();
    this.#eventLog = undefined;
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
    this.#stopEventLog();
    if (!this.capabilities.configurable) return 0;
    if (this.command(spec.Command.resetDevice) !== 0) return -Errno.ENXIO;
    this.#unmaskErrors();
    return 0;
  }

  #writeWq(wq: Wq, pasid?: number, privileged = false): void {
    writeWq(this.#hardware, this.#at, this.capabilities, this.settings, wq.index, pasid, privileged);
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
   * A completion interrupt for descriptors of `pasid` (-1: without one) on a queue: the queue's own MSI-X vector while that is free, else an
   * IMS slot; or the store that is asked for. Undefined when there is none left.
   */
  completionInterrupt(wq: Wq, pasid: number, handler: () => void, store?: 'msix' | 'ims'): CompletionInterrupt | undefined {
    return this.#completions.alloc(wq.index, pasid, handler, store);
  }

  /** The kernel's own DMA of the function, set up when it is first wanted. */
  get dma(): KernelDma | undefined {
    this.#dma ??= this.ports.iommu.dma?.(this.ports.device.requesterId);
    return this.#dma;
  }

  /**
   * An address space has a PASID of this device: completion records that the event log kept for it go there. Returns what happened to them,
   * and how to take it off again, behind the last events of it.
   */
  addUser(pasid: number, mm: Mm): { readonly user: User; remove(): void } {
    let user = this.#users.get(pasid);
    if (!user) this.#users.set(pasid, (user = { mm, faults: 0, failures: 0, references: 0 }));
    user.references++;
    let there = true;
    return {
      user,
      remove: () => {
        if (!there) return;
        there = false;
        this.#eventLog?.service();
        if (--user.references === 0) this.#users.delete(pasid);
      },
    };
  }

  /** Frame of the portal page that a user of the queue may have: the limited one, by interrupt store. */
  portalFrame(wq: Wq, ims = false, limited = true): number {
    return wq.portalFrame + (ims ? 2 : 0) + (limited ? 1 : 0);
  }
}

/** An event in the words of SWERROR. */
function asError(event: EventRecord): SoftwareErrorRecord {
  const { information, errorInfoValid, batchId: _id, record: _record, ...common } = event;
  return { ...common, valid: 1, overflow: 0, invalidFlags: event.error === spec.Status.invalidFlags && errorInfoValid ? information! : 0 };
}
const texts = Object.fromEntries([...Object.entries(spec.CommandStatus), ...Object.entries(SoftStatus)].map(([name, code]) => [code, name]));
/** The name of a command status code, the device's or the driver's. */
export const commandText = (status: number): string => texts[status] ?? `0x${status.toString(16)}`;
