/** A plain PCI function as a VFIO device. Linux, drivers/vfio/pci: vfio_pci_core.c, vfio_pci_rdwr.c. */
import { Errno } from '@siov/layout/uapi';
import { VirtualConfig } from './pci-config.js';
import { type InterruptPort, PciIrqs } from './pci-irqs.js';
import type { IrqInfo, IrqRequest, RegionInfo, VfioDevice, VmArea } from './ports.js';
import { CONFIG_BYTES, Msix, Offset } from './spec/config.js';
import { DeviceFlag, PCI_IRQS, PCI_REGIONS, PciIrq, PciRegion, RegionFlag } from './uapi.js';

/** Registers behind a BAR: widths 1, 2, 4. */
export interface BarMmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
}
/** The function, as its driver reaches it: `PciFunction` of @siov/pci-core fits. BARs that it has not: 0 bytes. */
export interface PciPort {
  readonly requesterId: number;
  configRead(offset: number, width: number): number;
  configWrite(offset: number, width: number, value: number): void;
  barBytes(bar: number): number;
  barMmio(bar: number): BarMmio | undefined;
  /** The physical address that the BAR decodes, or -1. */
  barAddress(bar: number): number;
  functionLevelReset(): void;
}
/** Where DMA of the function goes: the IOMMU driver. */
export interface AttachPort {
  /** `pasid` -1: the function itself. 0 or -errno. */
  attach(domain: object, pasid: number): number;
  detach(pasid: number): void;
}
export interface VfioPciOptions {
  /** '0000:00:01.0' */
  readonly name: string;
  readonly fn: PciPort;
  readonly interrupts: InterruptPort;
  readonly iommu: AttachPort;
}
const BARS = 6;

export class VfioPciDevice implements VfioDevice {
  readonly name: string;
  readonly flags = DeviceFlag.PCI | DeviceFlag.RESET;
  readonly regions = PCI_REGIONS;
  readonly irqs = PCI_IRQS;
  private readonly fn: PciPort;
  private readonly iommu: AttachPort;
  private readonly config: VirtualConfig;
  private readonly interrupts: PciIrqs;
  /** The MSI-X table's place: the user can neither read nor write it through its region. */
  private readonly table: { readonly bar: number; readonly from: number; readonly to: number };
  private readonly areas = new Set<VmArea>();

  constructor({ name, fn, interrupts, iommu }: VfioPciOptions) {
    this.name = name;
    this.fn = fn;
    this.iommu = iommu;
    this.config = new VirtualConfig(
      fn,
      (bar) => fn.barBytes(bar),
      () => this.reset(),
    );
    const place = this.config.msixPlace();
    this.table = place ? { bar: place.bar, from: place.offset, to: place.offset + place.vectors * Msix.entryBytes } : { bar: -1, from: 0, to: 0 };
    this.interrupts = new PciIrqs(interrupts, place?.vectors ?? 0);
  }

  get requesterId(): number {
    return this.fn.requesterId;
  }

  open(): number {
    this.resetFunction();
    this.config.enable();
    return 0;
  }

  close(): void {
    this.config.disable();
    this.interrupts.clear();
    this.resetFunction();
  }

  regionInfo(index: number): RegionInfo | number {
    const { READ, WRITE, MMAP } = RegionFlag;
    if (index < BARS) {
      const size = this.fn.barBytes(index);
      if (size === 0) return { size: 0, flags: 0 };
      return { size, flags: READ | WRITE | (this.fn.barAddress(index) < 0 ? 0 : MMAP), msixMappable: index === this.table.bar };
    }
    if (index === PciRegion.CONFIG) return { size: CONFIG_BYTES, flags: READ | WRITE };
    // No expansion ROM.
    return index === PciRegion.ROM ? { size: 0, flags: 0 } : -Errno.EINVAL;
  }

  irqInfo(index: number): IrqInfo | number {
    return this.interrupts.info(index);
  }

  read(region: number, offset: number, out: Uint8Array): number {
    if (region === PciRegion.CONFIG) {
      this.config.read(offset, out);
      return out.length;
    }
    return this.access(region, offset, out, false);
  }

  write(region: number, offset: number, bytes: Uint8Array): number {
    if (region === PciRegion.CONFIG) {
      this.config.write(offset, bytes);
      this.memoryChanged();
      return bytes.length;
    }
    return this.access(region, offset, bytes, true);
  }

  mmap(area: VmArea, region: number, offset: number): number {
    const first = this.fn.barAddress(region);
    if (first < 0) return -Errno.EINVAL;
    const frame = first / 4096 + Math.floor(offset / 4096);
    area.onFault = (page) => {
      if (!this.config.memoryEnabled) return -Errno.EIO;
      area.insert(page, frame + page);
      return 0;
    };
    this.areas.add(area);
    area.onClose = () => this.areas.delete(area);
    return 0;
  }

  setIrqs(request: IrqRequest): number {
    return this.interrupts.set(request);
  }

  /** The interrupts that the user set up stay. */
  reset(): number {
    for (const area of this.areas) area.zap();
    this.resetFunction();
    this.interrupts.again();
    return 0;
  }

  attach(domain: object, pasid: number): number {
    return this.iommu.attach(domain, pasid);
  }

  detach(pasid: number): void {
    this.iommu.detach(pasid);
  }

  request(): void {
    this.interrupts.signal(PciIrq.REQ);
  }

  /** A function level reset after which configuration space is as before. Linux, pci_reset_function. */
  private resetFunction(): void {
    const { fn } = this;
    const saved: number[] = [];
    for (let at = 0; at < CONFIG_BYTES; at += 4) saved.push(fn.configRead(at, 4));
    fn.functionLevelReset();
    // The command register last: nothing decodes before its address is back.
    for (let at = CONFIG_BYTES - 4; at >= 0; at -= 4) if (at !== Offset.command) fn.configWrite(at, 4, saved[at / 4]!);
    fn.configWrite(Offset.command, 2, saved[Offset.command / 4]! & 0xffff);
  }

  /** Mapped registers vanish while memory decoding is off for the user, and come back by faults. */
  private memoryChanged(): void {
    if (!this.config.memoryEnabled) for (const area of this.areas) area.zap();
  }

  /** Aligned accesses of 4, 2 and 1 bytes; the MSI-X table reads as all ones and takes no writes. */
  private access(bar: number, offset: number, bytes: Uint8Array, writing: boolean): number {
    const mmio = this.fn.barMmio(bar);
    if (!mmio || !this.config.memoryEnabled) return -Errno.EIO;
    for (let done = 0; done < bytes.length; ) {
      const at = offset + done;
      const left = bytes.length - done;
      const width = left >= 4 && at % 4 === 0 ? 4 : left >= 2 && at % 2 === 0 ? 2 : 1;
      const inTable = bar === this.table.bar && at >= this.table.from && at < this.table.to;
      let value = 0xffff_ffff;
      if (writing) {
        value = 0;
        for (let i = width - 1; i >= 0; i--) value = value * 256 + bytes[done + i]!;
        if (!inTable) mmio.write(at, width, value);
      } else {
        if (!inTable) value = mmio.read(at, width);
        for (let i = 0; i < width; i++) bytes[done + i] = value >>> (8 * i);
      }
      done += width;
    }
    return bytes.length;
  }
}
