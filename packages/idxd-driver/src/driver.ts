/**
 * The driver: probe, configuration, commands, interrupts. It reaches the device through configuration space, MMIO and interrupts alone, in
 * the order of Linux drivers/dma/idxd (init.c, device.c, irq.c), so it runs on a physical function and on a virtual device alike.
 */

import * as spec from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import { type Capabilities, checkConfig, type DeviceConfig, type WqConfig } from './config.js';
import type { Interrupts, Iommu, Irq, Mmio, PciDevice, UserSpace, Waiter } from './ports.js';

export interface DriverPorts {
  readonly device: PciDevice;
  readonly interrupts: Interrupts;
  readonly iommu: Iommu;
  readonly clock: Waiter;
  readonly kernel: UserSpace;
}

/** One software error as the driver logs it. */
export type SoftwareErrorRecord = ReturnType<typeof spec.SwError.json>;

/** A work queue as the driver keeps it. */
export interface Wq {
  readonly index: number;
  /** Page frame of the queue's first portal page (unlimited MSI-X), in the driver's physical address space. */
  readonly portalFrame: number;
  readonly config: WqConfig;
  enabled: boolean;
  /** Who holds a dedicated queue, or undefined. */
  owner: unknown;
  /** Holders of a shared queue. */
  clients: number;
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
  /** Status code of the last command, and of halts. */
  commandStatus = 0;
  halted = false;
  #registers!: Mmio;
  #msix!: ReturnType<Interrupts['msix']>;
  #ims: ReturnType<NonNullable<Interrupts['ims']>> | undefined;
  #misc: Irq | undefined;
  #commandDone = false;
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
    iommu.addDevice(device.requesterId, device.enableSva());

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
    };
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
    return 0;
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
      this.wqs.push(
        this.#wq(index, portals, {
          mode: 'dedicated',
          size: get.size(words, 0),
          group: wqs.findIndex((mask) => (mask >>> index) & 1),
          priority: get.priority(words, 0),
          maxTransferSize: 2 ** get.maxTransferShift(words, 0),
          maxBatchSize: 2 ** get.maxBatchShift(words, 0),
          type: 'user',
        }),
      );
    }
    return 0;
  }
  #wq(index: number, portals: number, config: WqConfig): Wq {
    const portalFrame = (portals + index * spec.Portal.bytesPerWq) / 4096;
    return { index, portalFrame, config, enabled: false, owner: undefined, clients: 0 };
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
    return this.commandStatus;
  }

  /** Vector 0. Linux idxd_misc_thread. */
  #miscInterrupt(): void {
    const cause = Uint32Array.of(this.#read(spec.Register.intCause));
    this.#writeWords(spec.Register.intCause, cause);
    if (spec.IntCause.get.commandDone(cause, 0)) this.#commandDone = true;
    if (spec.IntCause.get.softwareError(cause, 0)) {
      const record = spec.SwError.json(this.#readWords(spec.Register.swError, 32), 0);
      this.#registers.write(spec.Register.swError, 4, 3);
      if (this.softwareErrors.push(record) > 256) this.softwareErrors.shift();
      for (const listener of this.#errorListeners) listener(record);
    }
    if (spec.IntCause.get.halt(cause, 0)) {
      this.halted = true;
      this.enabled = false;
      for (const wq of this.wqs) wq.enabled = false;
    }
  }
  /** Hears of every software error; returns how to stop. */
  onSoftwareError(listener: (record: SoftwareErrorRecord) => void): () => void {
    this.#errorListeners.add(listener);
    return () => void this.#errorListeners.delete(listener);
  }

  /** Writes the configuration and enables the device. 0, or -errno with `why`. The queues stay off until `enableWq`. */
  configure(config: DeviceConfig): { readonly error: number; readonly why: string } {
    if (this.enabled) return { error: -Errno.EPERM, why: 'the device is enabled' };
    const { capabilities: can } = this;
    if (can.configurable) {
      const checked = checkConfig(config, can);
      if (checked.error !== 0) return checked;
      const engines = config.groups ?? [{ engines: Array.from({ length: can.engines }, (_, i) => i) }];
      const bar2 = this.ports.device.bars.get(2)!;
      this.wqs = config.wqs.map((wq, index) => this.#wq(index, bar2.address, wq));
      for (let g = 0; g < can.groups; g++) {
        const words = new Uint32Array(16);
        let wqs = 0;
        for (const wq of this.wqs) if (wq.config.group === g) wqs |= 1 << wq.index;
        spec.GroupCfg.set.wqs(words, 0, wqs);
        spec.GroupCfg.set.engines(
          words,
          0,
          (engines[g]?.engines ?? []).reduce((mask, e) => mask | (1 << e), 0),
        );
        this.#writeWords(this.#at.groups + g * spec.GroupCfg.bytes, words);
      }
      for (const wq of this.wqs) this.#writeWq(wq);
    }
    const status = this.command(spec.Command.enableDevice);
    if (status !== 0 && status !== spec.CommandStatus.deviceEnabled) return { error: -Errno.ENXIO, why: `enable device: ${commandText(status)}` };
    this.enabled = true;
    return { error: 0, why: '' };
  }

  /**
   * Disables the device, and with it all queues; what is in flight ends first. A configurable device is reset, so that nothing of this
   * configuration is left in its tables. Linux idxd_device_drv_remove.
   */
  disable(): number {
    if (!this.enabled) return -Errno.ENXIO;
    const status = this.command(spec.Command.disableDevice);
    this.enabled = false;
    for (const wq of this.wqs) wq.enabled = false;
    if (status !== 0 && status !== spec.CommandStatus.deviceNotEnabledForDisable) return -Errno.ENXIO;
    if (!this.capabilities.configurable) return 0;
    if (this.command(spec.Command.resetDevice) !== 0) return -Errno.ENXIO;
    this.#unmaskErrors();
    return 0;
  }

  /** The bits of WQCFG that the device keeps are read back and kept, as the kernel does. `pasid` undefined: none. */
  #writeWq(wq: Wq, pasid?: number, privileged = false): void {
    const { config, capabilities: can } = { config: wq.config, capabilities: this.capabilities };
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
    set.size(words, 0, config.size);
    set.threshold(words, 0, config.mode === 'shared' ? (config.threshold ?? config.size) : 0);
    set.mode(words, 0, spec.WqCfg.is.mode[config.mode]);
    set.priority(words, 0, config.priority ?? 10);
    set.blockOnFault(words, 0, config.blockOnFault ? 1 : 0);
    set.maxTransferShift(words, 0, config.maxTransferSize ? Math.log2(config.maxTransferSize) : can.maxTransferShift);
    set.maxBatchShift(words, 0, config.maxBatchSize ? Math.log2(config.maxBatchSize) : can.maxBatchShift);
    if (config.mode === 'shared' || pasid !== undefined) set.pasidEnable(words, 0, 1);
    if (pasid !== undefined) set.pasid(words, 0, pasid);
    set.privileged(words, 0, privileged ? 1 : 0);
    this.#writeWords(at, words.subarray(0, 6));
  }

  /** Enables a queue; a dedicated one with the PASID that its descriptors shall have. 0, or -errno. */
  enableWq(wq: Wq, pasid?: number, privileged = false): number {
    if (!this.enabled) return -Errno.ENXIO;
    if (wq.enabled) return 0;
    this.#writeWq(wq, pasid, privileged);
    const status = this.command(spec.Command.enableWq, wq.index);
    if (status !== 0 && status !== spec.CommandStatus.wqEnabled) return -Errno.ENXIO;
    wq.enabled = true;
    return 0;
  }
  /** Drains and resets a queue. */
  disableWq(wq: Wq): number {
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

const texts = Object.fromEntries(Object.entries(spec.CommandStatus).map(([name, code]) => [code, name]));
/** The name of a command status code. */
export const commandText = (status: number): string => texts[status] ?? `0x${status.toString(16)}`;
