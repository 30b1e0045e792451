/**
 * The composed virtual device of type 1dwq-v1: configuration space, registers and commands emulated, one dedicated work queue of the parent
 * behind it whose portals are mapped straight through. The guest's PASIDs are its own; each is a host PASID of the parent function.
 */
import * as spec from '@siov/idxd-device/spec';
import type { CompletionInterrupt, IdxdDriver, SoftwareErrorRecord, Wq } from '@siov/idxd-driver';
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { type Mmio, PciFunction } from '@siov/pci-core';
import type { IrqInfo, IrqRequest, RegionInfo, VfioDevice, VmArea } from '@siov/vfio-mdev';
import { DeviceFlag, IrqInfoFlag, IrqSetFlag, PCI_IRQS, PCI_REGIONS, PciIrq, PciRegion, RegionFlag } from '@siov/vfio-mdev/uapi';
import type { PasidDomains, Sink } from './ports.js';
import { BAR0_BYTES, BAR2_BYTES, GUEST_WQCFG, type VdevRegisters, VdevTable, VECTORS, vdevRegisters } from './registers.js';

export interface VdevPorts {
  readonly driver: IdxdDriver;
  readonly wq: Wq;
  readonly iommu: PasidDomains;
}

export class Vdev implements VfioDevice {
  // fixed
  readonly name: string;
  readonly flags = DeviceFlag.RESET | DeviceFlag.PCI;
  readonly regions = PCI_REGIONS;
  readonly irqs = PCI_IRQS;
  readonly pasids = true;
  /** Requests carry the parent's. */
  readonly requesterId: number;
  readonly function: PciFunction;
  readonly #p: VdevPorts;
  // state
  readonly #registers: VdevRegisters;
  readonly #bar0: Mmio;
  /** Guest PASID (NO_PASID: the default one) to host PASID. */
  readonly #hostPasids = new Map<number, number>();
  readonly #sinks: (Sink | undefined)[] = new Array(VECTORS).fill(undefined);
  #request: Sink | undefined;
  readonly #areas = new Set<VmArea>();
  #handle: CompletionInterrupt | undefined;
  #stopListening: () => void = () => {};
  #opened = false;

  constructor(uuid: string, ports: VdevPorts) {
    this.name = uuid;
    this.requesterId = ports.driver.ports.device.requesterId;
    this.#p = ports;
    this.#registers = vdevRegisters(ports.driver.capabilities, ports.wq);
    this.function = new PciFunction({
      vendorId: ports.driver.ports.device.vendorId,
      deviceId: ports.driver.ports.device.deviceId,
      classCode: 0x088000,
      subsystemVendorId: 0x8086,
      subsystemId: 0x2010,
      bars: {
        0: { bytes: BAR0_BYTES, mmio: { read: (o, w) => this.#registers.read(o, w), write: (o, w, v) => this.#write(o, w, v) } },
        // A portal reads as all ones; a trapped store of less than 64 bytes does nothing.
        2: { bytes: BAR2_BYTES, mmio: { read: (_o, w) => (w === 4 ? 0xffff_ffff : 2 ** (8 * w) - 1), write: () => {} } },
      },
      msix: { vectors: VECTORS, bar: 0, tableOffset: VdevTable.msix, pbaOffset: VdevTable.pba },
      ats: {},
      pri: { capacity: 1 },
      pasid: { width: 20, privileged: true },
      siov: { ims: false },
    });
    this.#bar0 = this.function.barMmio(0)!;
    this.function.listener = {
      functionLevelReset: () => void this.reset(),
      configChanged: () => {
        if (this.#state === spec.GenSts.is.state.enabled && !this.function.busMaster) this.#halt(spec.SoftwareError.pciConfigChanged);
      },
    };
  }

  /** Registers by field names, for printing. */
  describe(): Record<string, unknown> {
    return this.#registers.json();
  }
  /** Guest PASIDs and the host PASIDs behind them; -1 is the default one. */
  get hostPasids(): ReadonlyMap<number, number> {
    return this.#hostPasids;
  }

  get #state(): number {
    return spec.GenSts.get.state(this.#registers.words, this.#registers.at('genSts'));
  }
  set #state(value: number) {
    spec.GenSts.set.state(this.#registers.words, this.#registers.at('genSts'), value);
  }

  // --- VFIO

  open(): number {
    if (this.#opened) return -Errno.EBUSY;
    this.#opened = true;
    this.#stopListening = this.#p.driver.onSoftwareError((record) => this.#hostError(record));
    return 0;
  }
  close(): void {
    this.#opened = false;
    this.#stopListening();
    this.reset();
    for (const area of this.#areas) area.zap();
    this.#areas.clear();
    this.#sinks.fill(undefined);
    this.#request = undefined;
    for (const pasid of [...this.#hostPasids.keys()]) this.detach(pasid);
  }

  regionInfo(index: number): RegionInfo | number {
    switch (index) {
      case PciRegion.BAR0:
        return { size: BAR0_BYTES, flags: RegionFlag.READ | RegionFlag.WRITE };
      case PciRegion.BAR2:
        return { size: BAR2_BYTES, flags: RegionFlag.READ | RegionFlag.WRITE | RegionFlag.MMAP, sparse: [{ offset: 0, size: BAR2_BYTES }] };
      case PciRegion.CONFIG:
        return { size: 4096, flags: RegionFlag.READ | RegionFlag.WRITE };
      default:
        return { size: 0, flags: 0 };
    }
  }

  irqInfo(index: number): IrqInfo | number {
    if (index === PciIrq.MSIX) return { count: VECTORS, flags: IrqInfoFlag.EVENTFD | IrqInfoFlag.NORESIZE };
    if (index === PciIrq.REQ) return { count: 1, flags: IrqInfoFlag.EVENTFD | IrqInfoFlag.NORESIZE };
    return -Errno.EINVAL;
  }

  read(region: number, offset: number, out: Uint8Array): number {
    return this.#access(region, offset, out, false);
  }
  write(region: number, offset: number, bytes: Uint8Array): number {
    return this.#access(region, offset, bytes, true);
  }
  /** In naturally aligned pieces of 4, 2 and 1 bytes. */
  #access(region: number, offset: number, bytes: Uint8Array, write: boolean): number {
    const info = this.regionInfo(region);
    if (typeof info === 'number' || info.size === 0) return -Errno.EINVAL;
    const end = Math.min(bytes.length, info.size - offset);
    const mmio = region === PciRegion.BAR0 ? this.#bar0 : this.function.barMmio(2)!;
    for (let done = 0; done < end; ) {
      const at = offset + done;
      const width = at % 4 === 0 && end - done >= 4 ? 4 : at % 2 === 0 && end - done >= 2 ? 2 : 1;
      if (write) {
        let value = 0;
        for (let i = width - 1; i >= 0; i--) value = value * 256 + bytes[done + i]!;
        if (region === PciRegion.CONFIG) this.function.configWrite(at, width, value);
        else mmio.write(at, width, value);
      } else {
        const value = region === PciRegion.CONFIG ? this.function.configRead(at, width) : mmio.read(at, width);
        for (let i = 0; i < width; i++) bytes[done + i] = value >>> (8 * i);
      }
      done += width;
    }
    return Math.max(end, 0);
  }

  /** The guest's portal pages are the parent queue's IMS portals: page 0 unlimited, page 1 limited. */
  mmap(area: VmArea, region: number, offset: number): number {
    if (region !== PciRegion.BAR2 || offset + area.length > BAR2_BYTES) return -Errno.EINVAL;
    for (let page = 0; page < area.length / 4096; page++) area.insert(page, this.#p.driver.portalFrame(this.#p.wq, true, offset / 4096 + page === 1));
    area.dontCopy = true;
    this.#areas.add(area);
    const { onClose } = area;
    area.onClose = () => {
      onClose?.();
      this.#areas.delete(area);
    };
    return 0;
  }

  setIrqs(request: IrqRequest): number {
    const { flags, index, start, count } = request;
    if (!(flags & IrqSetFlag.ACTION_TRIGGER) || (index !== PciIrq.MSIX && index !== PciIrq.REQ)) return -Errno.ENOTTY;
    const sinks = index === PciIrq.MSIX ? this.#sinks : [this.#request];
    if (flags & IrqSetFlag.DATA_EVENTFD) for (let i = 0; i < count; i++) sinks[start + i] = request.sinks![i];
    else if (flags & IrqSetFlag.DATA_NONE && count === 0) sinks.fill(undefined);
    else for (let i = 0; i < count; i++) if (flags & IrqSetFlag.DATA_NONE || request.bools![i]) sinks[start + i]?.signal();
    if (index === PciIrq.REQ) this.#request = sinks[0];
    return 0;
  }

  request(): void {
    this.#request?.signal();
  }

  reset(): number {
    this.#queueOff(true);
    this.#handle?.free();
    this.#handle = undefined;
    this.#registers.reset();
    return 0;
  }

  // --- DMA: each PASID of the guest is one of the parent's

  attach(domain: object, pasid: number): number {
    const { iommu } = this.#p;
    const rid = this.requesterId;
    const old = this.#hostPasids.get(pasid);
    const host = old ?? iommu.allocPasid();
    if (host < 0) return -Errno.ENOSPC;
    // A second attach replaces the first.
    if (old !== undefined) iommu.detachPasid(rid, old);
    const error = iommu.attachPasid(rid, host, domain as never);
    if (error < 0) {
      iommu.freePasid(host);
      this.#hostPasids.delete(pasid);
      return error;
    }
    this.#hostPasids.set(pasid, host);
    return 0;
  }
  detach(pasid: number): void {
    const host = this.#hostPasids.get(pasid);
    if (host === undefined) return;
    const { iommu, driver, wq } = this.#p;
    // Descriptors of this PASID end before its tables go.
    if (wq.enabled) driver.drainPasid(host);
    iommu.detachPasid(this.requesterId, host);
    iommu.freePasid(host);
    this.#hostPasids.delete(pasid);
  }

  // --- registers

  #write(offset: number, width: number, value: number): void {
    const regs = this.#registers;
    const slot = regs.find(offset);
    if (!slot || offset % width !== 0) return;
    switch (slot.row) {
      case 'cmd':
        if (width === 4) this.#command(value);
        return;
      case 'genCfg':
        if (this.#state === spec.GenSts.is.state.disabled) regs.write(offset, width, value);
        return;
      case 'wqConfig': {
        if (slot.word !== 2 || width !== 4 || this.#wqState !== spec.WqCfg.is.state.disabled) return;
        const at = regs.at('wqConfig') + 2;
        regs.words[at] = (regs.words[at]! & ~GUEST_WQCFG) | (value & GUEST_WQCFG);
        return;
      }
      case 'genCtrl':
      case 'intCause':
      case 'swError':
      case 'msixPermission':
        regs.write(offset, width, value);
        return;
      default: // configuration and capabilities are fixed
    }
  }

  get #wqState(): number {
    return spec.WqCfg.get.state(this.#registers.words, this.#registers.at('wqConfig'));
  }
  set #wqState(value: number) {
    spec.WqCfg.set.state(this.#registers.words, this.#registers.at('wqConfig'), value);
  }

  #command(value: number): void {
    const { words } = this.#registers;
    const word = Uint32Array.of(value);
    const at = this.#registers.at('cmdSts');
    words[this.#registers.at('cmd')] = value;
    const { error, result = 0 } =
      this.#state === spec.GenSts.is.state.halt && spec.Cmd.get.code(word, 0) !== spec.Command.resetDevice
        ? { error: spec.CommandStatus.hardwareError }
        : this.#run(spec.Cmd.get.code(word, 0), spec.Cmd.get.operand(word, 0));
    words[at] = 0;
    spec.CmdSts.set.error(words, at, error);
    spec.CmdSts.set.result(words, at, result);
    if (spec.Cmd.get.interrupt(word, 0)) this.#misc('commandDone');
  }

  #run(code: number, operand: number): { error: number; result?: number } {
    const { driver, wq } = this.#p;
    const status = spec.CommandStatus;
    const is = spec.GenSts.is.state;
    const enabled = this.#state === is.enabled;
    const on = this.#wqState === spec.WqCfg.is.state.enabled;
    const host = (error: number): { error: number } => ({ error: error === 0 ? status.success : status.hardwareError });
    switch (code) {
      case spec.Command.enableDevice:
        if (enabled) return { error: status.deviceEnabled };
        if (!this.function.busMaster) return { error: status.busMaster };
        this.#state = is.enabled;
        return { error: 0 };
      case spec.Command.disableDevice:
        if (!enabled) return { error: status.deviceNotEnabledForDisable };
        this.#queueOff(false);
        this.#state = is.disabled;
        return { error: 0 };
      case spec.Command.drainAll:
        return enabled ? host(wq.enabled ? driver.drainWq(wq) : 0) : { error: status.deviceNotEnabledForDisable };
      case spec.Command.abortAll:
        return enabled ? host(wq.enabled ? driver.abortWq(wq) : 0) : { error: status.deviceNotEnabledForDisable };
      case spec.Command.resetDevice: {
        const permissions = this.#registers.words.slice(this.#registers.at('msixPermission'), this.#registers.at('groupConfig'));
        this.reset();
        this.#registers.words.set(permissions, this.#registers.at('msixPermission'));
        return { error: 0 };
      }
      case spec.Command.enableWq:
        return operand !== 0
          ? { error: status.invalidWq }
          : !enabled
            ? { error: status.deviceNotEnabled }
            : on
              ? { error: status.wqEnabled }
              : this.#queueOn();
      case spec.Command.disableWq:
      case spec.Command.drainWq:
      case spec.Command.abortWq:
      case spec.Command.resetWq:
        if (operand !== 1) return { error: status.invalidWq };
        if (!on) return { error: status.wqNotEnabled };
        if (code === spec.Command.drainWq) return host(driver.drainWq(wq));
        if (code === spec.Command.abortWq) return host(driver.abortWq(wq));
        this.#queueOff(code === spec.Command.resetWq);
        return { error: 0 };
      case spec.Command.drainPasid:
      case spec.Command.abortPasid: {
        const pasid = this.#hostPasids.get(operand);
        if (pasid === undefined) return { error: status.pasidInvalid };
        return host(!wq.enabled ? 0 : code === spec.Command.drainPasid ? driver.drainPasid(pasid) : driver.abortPasid(pasid));
      }
      case spec.Command.requestInterruptHandle:
        return this.#requestHandle(operand);
      case spec.Command.releaseInterruptHandle:
        if (!this.#handle || (operand & 0xffff) !== this.#handle.handle) return { error: status.interruptHandleNotAllocated };
        this.#handle.free();
        this.#handle = undefined;
        return { error: 0 };
      default:
        return { error: status.invalidCommand };
    }
  }

  /** The host PASID of a queue or vector that the guest configured: its own PASID's, or the device's default. */
  #translate(enabled: number, pasid: number): number | undefined {
    return this.#hostPasids.get(enabled ? pasid : NO_PASID);
  }

  /** The guest PASID is translated here. A PASID that nobody attached is refused. */
  #queueOn(): { error: number } {
    const { words } = this.#registers;
    const at = this.#registers.at('wqConfig');
    const pasid = this.#translate(spec.WqCfg.get.pasidEnable(words, at), spec.WqCfg.get.pasid(words, at));
    if (pasid === undefined) return { error: spec.CommandStatus.wqPasidEnable };
    const { driver, wq } = this.#p;
    if (driver.enableWq(wq, pasid, spec.WqCfg.get.privileged(words, at) === 1) !== 0) return { error: spec.CommandStatus.hardwareError };
    this.#wqState = spec.WqCfg.is.state.enabled;
    return { error: 0 };
  }
  #queueOff(abort: boolean): void {
    const { driver, wq } = this.#p;
    if (wq.enabled) {
      if (abort) driver.abortWq(wq);
      driver.disableWq(wq);
    }
    this.#wqState = spec.WqCfg.is.state.disabled;
  }

  /** The guest gets the number of the parent's IMS slot, since its descriptors go to the parent's IMS portal. */
  #requestHandle(operand: number): { error: number; result?: number } {
    const index = operand & 0xffff;
    if (operand & 0x1_0000) return { error: spec.CommandStatus.noInterruptHandle };
    if (index !== 1) return { error: spec.CommandStatus.interruptTableIndex };
    if (!this.#handle) {
      const { words } = this.#registers;
      const at = this.#registers.at('msixPermission', index);
      const pasid = this.#translate(spec.MsixPermission.get.pasidEnable(words, at), spec.MsixPermission.get.pasid(words, at));
      this.#handle = pasid === undefined ? undefined : this.#p.driver.completionInterrupt(this.#p.wq, pasid, () => this.#sinks[1]?.signal(), 'ims');
    }
    return this.#handle ? { error: 0, result: this.#handle.handle } : { error: spec.CommandStatus.noInterruptHandle };
  }

  // --- errors

  #misc(cause: 'commandDone' | 'softwareError' | 'halt'): void {
    spec.IntCause.set[cause](this.#registers.words, this.#registers.at('intCause'), 1);
    this.#sinks[0]?.signal();
  }

  /** An error of the parent's queue is the guest's, in the guest's own numbers: queue 0, its own PASID. */
  #hostError(record: SoftwareErrorRecord): void {
    if (!record.wqValid || record.wq !== this.#p.wq.index) return;
    const guest = [...this.#hostPasids].find(([, host]) => host === record.pasid)?.[0] ?? NO_PASID;
    this.#softwareError({ ...record, wq: 0, pasid: Math.max(guest, 0), valid: 1, overflow: 0 });
  }
  #softwareError(fields: Readonly<Record<string, number | string>>): void {
    const { words } = this.#registers;
    const at = this.#registers.at('swError');
    if (spec.SwError.get.valid(words, at)) spec.SwError.set.overflow(words, at, 1);
    else
      for (const [name, value] of Object.entries(fields))
        if (typeof value === 'number') spec.SwError.set[name as keyof typeof spec.SwError.set](words, at, value);
    if (spec.GenCtrl.get.softwareErrorInterrupt(words, this.#registers.at('genCtrl'))) this.#misc('softwareError');
  }
  #halt(error: number): void {
    this.#queueOff(true);
    this.#state = spec.GenSts.is.state.halt;
    spec.GenSts.set.reset(this.#registers.words, this.#registers.at('genSts'), spec.GenSts.is.reset.functionLevel);
    this.#softwareError({ valid: 1, error });
    if (spec.GenCtrl.get.haltInterrupt(this.#registers.words, this.#registers.at('genCtrl'))) this.#misc('halt');
  }
}
