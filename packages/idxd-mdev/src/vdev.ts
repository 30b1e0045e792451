/**
 * The composed virtual device of type 1dwq-v1: configuration space, registers and commands emulated, one dedicated work queue of the parent
 * behind it whose portals are mapped straight through. The guest's PASIDs are its own; each is a host PASID of the parent function.
 */
import * as spec from '@siov/idxd-device/spec';
import type { CompletionInterrupt, IdxdDriver, SoftwareErrorRecord, Wq } from '@siov/idxd-driver';
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { type Mmio, PciFunction } from '@siov/pci-core';
import { type IrqInfo, type IrqRequest, PciIrqs, type RegionInfo, type VfioDevice, type VmArea } from '@siov/vfio-mdev';
import { DeviceFlag, IrqInfoFlag, PCI_IRQS, PCI_REGIONS, PciIrq, PciRegion, RegionFlag } from '@siov/vfio-mdev/uapi';
import type { PasidDomains } from './ports.js';
import { BAR0_BYTES, BAR2_BYTES, type VdevRegisters, VdevTable, VECTORS, vdevRegisters } from './registers.js';

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
  /** Guest PASID (NO_PASID: the default one) to host PASID, and to what that is attached to. */
  readonly #hostPasids = new Map<number, number>();
  readonly #domains = new Map<number, object>();
  /** Detached, but the queue or the IMS slot still carries the host PASID: nobody else may get it. */
  readonly #kept = new Map<number, number>();
  /** Host PASID in WQCFG of the parent while the queue is on, and in the slot of the handle; NO_PASID: none. */
  #queuePasid: number = NO_PASID;
  #handlePasid: number = NO_PASID;
  /** What an interrupt of each vector does, while its eventfd is set. */
  readonly #vectors: ((() => void) | undefined)[] = new Array(VECTORS).fill(undefined);
  readonly #irqs = new PciIrqs({ alloc: (vector, handler) => this.#wire(vector, handler) }, VECTORS);
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
      functionLevelReset: () => this.#restart(),
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
  /** What is attached stays so: who attached it detaches it. */
  close(): void {
    this.#opened = false;
    this.#stopListening();
    this.reset();
    for (const area of this.#areas) area.zap();
    this.#areas.clear();
    this.#irqs.clear();
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
    return index < PCI_IRQS ? { count: 0, flags: 0 } : -Errno.EINVAL;
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
    return this.#irqs.set(request);
  }
  #wire(vector: number, handler: () => void): { free(): void } {
    this.#vectors[vector] = handler;
    return {
      free: () => {
        if (this.#vectors[vector] === handler) this.#vectors[vector] = undefined;
      },
    };
  }

  request(): void {
    this.#irqs.signal(PciIrq.REQ);
  }

  /** As a function level reset: configuration space and registers as when the device was made. Eventfds and attachments stay. */
  reset(): number {
    this.function.functionLevelReset();
    return 0;
  }
  #restart(): void {
    this.#queueOff(true);
    this.#freeHandle();
    this.#registers.reset();
  }

  // --- DMA: each PASID of the guest is one of the parent's

  attach(domain: object, pasid: number): number {
    const { iommu } = this.#p;
    const rid = this.requesterId;
    const before = this.#domains.get(pasid);
    const host = this.#hostPasids.get(pasid) ?? this.#kept.get(pasid) ?? iommu.allocPasid();
    if (host < 0) return -Errno.ENOSPC;
    // A second attach replaces the first.
    if (before) iommu.detachPasid(rid, host);
    const error = iommu.attachPasid(rid, host, domain as never);
    if (error < 0 && before && iommu.attachPasid(rid, host, before as never) >= 0) return error;
    this.#kept.delete(pasid);
    if (error < 0) {
      this.#forget(pasid, host);
      return error;
    }
    this.#hostPasids.set(pasid, host);
    this.#domains.set(pasid, domain);
    return 0;
  }
  detach(pasid: number): void {
    const host = this.#hostPasids.get(pasid);
    if (host === undefined) return;
    const { iommu, driver, wq } = this.#p;
    // Descriptors of this PASID end before its tables go.
    if (wq.enabled) driver.drainPasid(host);
    iommu.detachPasid(this.requesterId, host);
    this.#forget(pasid, host);
  }
  #forget(pasid: number, host: number): void {
    this.#hostPasids.delete(pasid);
    this.#domains.delete(pasid);
    this.#kept.set(pasid, host);
    this.#freeKept();
  }
  /** Host PASIDs that neither the queue nor the slot carries any more are free for others. */
  #freeKept(): void {
    for (const [pasid, host] of this.#kept) {
      if (host === this.#queuePasid || host === this.#handlePasid) continue;
      this.#kept.delete(pasid);
      this.#p.iommu.freePasid(host);
    }
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
      case 'wqConfig':
        if (this.#wqState === spec.WqCfg.is.state.disabled) regs.write(offset, width, value);
        return;
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
    // Out of the halt leads a function level reset only, as GENSTS says.
    const { error, result = 0 } =
      this.#state === spec.GenSts.is.state.halt
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
        this.#restart();
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
        if (!enabled) return { error: status.deviceNotEnabledForDisable };
        const pasid = this.#hostPasids.get(operand);
        if (pasid === undefined) return { error: status.pasidInvalid };
        return host(!wq.enabled ? 0 : code === spec.Command.drainPasid ? driver.drainPasid(pasid) : driver.abortPasid(pasid));
      }
      case spec.Command.requestInterruptHandle:
        return this.#requestHandle(operand);
      case spec.Command.releaseInterruptHandle:
        if (!this.#handle || operand !== this.#handle.handle) return { error: status.interruptHandleNotAllocated };
        this.#freeHandle();
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
    this.#queuePasid = pasid;
    return { error: 0 };
  }
  #queueOff(abort: boolean): void {
    const { driver, wq } = this.#p;
    if (wq.enabled) {
      if (abort) driver.abortWq(wq);
      driver.disableWq(wq);
    }
    this.#wqState = spec.WqCfg.is.state.disabled;
    this.#queuePasid = NO_PASID;
    this.#freeKept();
  }
  #freeHandle(): void {
    this.#handle?.free();
    this.#handle = undefined;
    this.#handlePasid = NO_PASID;
    this.#freeKept();
  }

  /** The guest gets the number of the parent's IMS slot, since its descriptors go to the parent's IMS portal. */
  #requestHandle(operand: number): { error: number; result?: number } {
    const index = operand & 0xffff;
    if (operand & 0x1_0000) return { error: spec.CommandStatus.noInterruptHandle };
    if (index !== 1) return { error: spec.CommandStatus.interruptTableIndex };
    const { words } = this.#registers;
    const at = this.#registers.at('msixPermission', index);
    const pasid = this.#translate(spec.MsixPermission.get.pasidEnable(words, at), spec.MsixPermission.get.pasid(words, at));
    // The guest gave the vector to another PASID: the slot's goes with it.
    if (this.#handle && pasid !== this.#handlePasid) this.#freeHandle();
    if (!this.#handle && pasid !== undefined) {
      this.#handle = this.#p.driver.completionInterrupt(this.#p.wq, pasid, () => this.#vectors[1]?.(), 'ims');
      if (this.#handle) {
        this.#handlePasid = pasid;
        // The guest asks again, and is told what the parent got.
        this.#handle.onRevoked = () => this.#misc('handlesRevoked');
      }
    }
    return this.#handle && this.#handle.handle >= 0 ? { error: 0, result: this.#handle.handle } : { error: spec.CommandStatus.noInterruptHandle };
  }

  // --- errors

  #misc(cause: 'commandDone' | 'softwareError' | 'halt' | 'handlesRevoked'): void {
    spec.IntCause.set[cause](this.#registers.words, this.#registers.at('intCause'), 1);
    this.#vectors[0]?.();
  }

  /** An error of the parent's queue is the guest's, in the guest's own numbers: queue 0, its own PASID. */
  #hostError(record: SoftwareErrorRecord): void {
    if (!record.wqValid || record.wq !== this.#p.wq.index) return;
    const guest = [...this.#hostPasids, ...this.#kept].find(([, host]) => host === record.pasid)?.[0] ?? NO_PASID;
    this.#softwareError({ ...record, wq: 0, pasid: Math.max(guest, 0), overflow: 0 });
  }
  #softwareError(fields: Readonly<Partial<Record<keyof typeof spec.SwError.set, number>>>): void {
    const { words } = this.#registers;
    const at = this.#registers.at('swError');
    if (spec.SwError.get.valid(words, at)) spec.SwError.set.overflow(words, at, 1);
    else {
      words.fill(0, at, at + spec.SwError.bytes / 4);
      for (const [name, value] of Object.entries({ ...fields, valid: 1 })) spec.SwError.set[name as keyof typeof spec.SwError.set](words, at, value);
    }
    if (spec.GenCtrl.get.softwareErrorInterrupt(words, this.#registers.at('genCtrl'))) this.#misc('softwareError');
  }
  #halt(error: number): void {
    this.#queueOff(true);
    this.#state = spec.GenSts.is.state.halt;
    spec.GenSts.set.reset(this.#registers.words, this.#registers.at('genSts'), spec.GenSts.is.reset.functionLevel);
    this.#softwareError({ error });
    if (spec.GenCtrl.get.haltInterrupt(this.#registers.words, this.#registers.at('genCtrl'))) this.#misc('halt');
  }
}
