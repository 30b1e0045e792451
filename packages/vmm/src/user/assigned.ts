/**
 * A device assigned to the guest through VFIO: a function of the guest's PCI bus whose configuration space and registers are the device's,
 * reached by pread and pwrite, whose mappable areas are shown to the guest while their BAR decodes, and whose MSI-X the VMM keeps.
 * linux/vfio.h; Documentation/driver-api/vfio.rst.
 */
import { join } from '@siov/layout';
import { NO_PASID } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { type BarNumber, config, type RootFunction } from '@siov/pci-core';
import {
  AttachPt,
  BindIommufd,
  CapHeader,
  DetachPt,
  DeviceFlag,
  DeviceInfo,
  Ioctl,
  IrqInfoLayout,
  PCI_REGIONS,
  PciIrq,
  PciRegion,
  PtFlag,
  RegionCap,
  RegionFlag,
  RegionInfoLayout,
  SparseArea,
  SparseMmap,
} from '@siov/vfio-mdev/uapi';
import type { Mmio } from '../ports.js';
import { VmmError } from './calls.js';
import type { Machine } from './machine.js';
import { GuestMsix, type MsixOptions } from './msix.js';

interface Area {
  readonly offset: number;
  readonly bytes: number;
}
interface DeviceRegion {
  readonly bytes: number;
  readonly flags: number;
  /** Byte offset in the device file. */
  readonly at: number;
  readonly areas: readonly Area[];
}
/** Room for the capabilities of a region. */
const REGION_INFO_WORDS = 256;
const HEADER_BYTES = 64;
const BARS = [0, 2, 4] as const;
/** In Device Control. */
const INITIATE_RESET = 0x8000;

export class AssignedDevice implements RootFunction {
  // fixed
  readonly path: string;
  readonly fd: number;
  /** Of the iommufd. */
  readonly deviceId: number;
  readonly msix: GuestMsix | undefined;
  private readonly machine: Machine;
  private readonly regions: readonly DeviceRegion[];
  private readonly bars = new Map<BarNumber, AssignedBar>();
  private readonly msixAt: number = 0;
  private readonly pcieAt: number = 0;
  // ports
  decodeChanged: () => void = () => {};
  requesterId = 0;
  // state
  private readonly header = new Uint32Array(HEADER_BYTES / 4);

  /** Opens and binds it, attaches it to `ptId()`, and learns its shape. A VmmError when the kernel refuses. */
  constructor(
    path: string,
    machine: Machine,
    options: Pick<MsixOptions, 'refused'> & {
      readonly iommufd: number;
      ptId(deviceId: number): number;
      remap(device: AssignedDevice, address: number, data: number): ReturnType<MsixOptions['remap']>;
    },
  ) {
    const { calls } = machine;
    this.path = path;
    this.machine = machine;
    this.fd = calls.must(`open ${path}`, calls.task.open(path, 2));
    try {
      this.deviceId = this.bind(options.iommufd);
      calls.must('VFIO_DEVICE_ATTACH_IOMMUFD_PT', this.attach(options.ptId(this.deviceId), NO_PASID));
      const irqs = this.info();
      this.regions = Array.from({ length: PCI_REGIONS }, (_, index) => this.regionInfo(index));
      this.readHeader();
      this.msixAt = this.capability(config.Capability.msix);
      this.pcieAt = this.capability(config.Capability.pcie);
      if (this.msixAt && irqs > PciIrq.MSIX) {
        const control = Uint32Array.of(this.configRead(this.msixAt, 4), 0, 0);
        const vectors = Math.min(config.Msix.get.tableSize(control, 0) + 1, this.irqCount(PciIrq.MSIX));
        const remap = (address: number, data: number) => options.remap(this, address, data);
        if (vectors > 0) this.msix = new GuestMsix({ machine, fd: this.fd, vectors, remap, refused: options.refused });
      }
      for (const bar of BARS) if (this.regions[bar]!.bytes > 0) this.bars.set(bar, this.makeBar(bar));
    } catch (error) {
      calls.task.close(this.fd);
      throw error;
    }
  }

  // --- as a function of the guest's bus

  configRead(offset: number, width: number): number {
    return offset + width <= this.region(PciRegion.CONFIG).bytes
      ? this.machine.calls.read(this.fd, this.region(PciRegion.CONFIG).at + offset, width)
      : width === 4
        ? 0xffff_ffff
        : 2 ** (8 * width) - 1;
  }

  configWrite(offset: number, width: number, value: number): void {
    const { bytes, at } = this.region(PciRegion.CONFIG);
    if (offset + width > bytes) return;
    this.machine.calls.write(this.fd, at + offset, width, value);
    const touches = (from: number, to: number): boolean => offset < to && offset + width > from;
    // Device Control may start a function level reset.
    const control = this.pcieAt !== 0 && touches(this.pcieAt + 8, this.pcieAt + 10);
    if (touches(4, 6) || touches(config.BAR0, config.BAR0 + 4 * config.BARS) || control) {
      this.readHeader();
      this.decodeChanged();
    }
    if (control && (value << (8 * (offset - this.pcieAt - 8))) & INITIATE_RESET) this.msix?.reset();
    if (this.msix && (control || touches(this.msixAt + 2, this.msixAt + 4))) {
      const bits = this.configRead(this.msixAt + 2, 2);
      this.msix.control((bits & 0x8000) !== 0, (bits & 0x4000) !== 0);
    }
  }

  barAddress(bar: BarNumber): number {
    const { header } = this;
    const bytes = this.barBytes(bar);
    if (bytes === 0 || !config.Header.get.memoryEnable(header, 0)) return -1;
    const word = config.BAR0 / 4 + bar;
    const wide = (header[word]! & 0b110) === 0b100;
    const address = join(wide ? header[word + 1]! : 0, header[word]! & ~0xf);
    return address > 0 && address + bytes <= 2 ** 43 && address % 4096 === 0 ? address : -1;
  }
  barBytes(bar: BarNumber): number {
    return this.region(bar).bytes;
  }
  barMmio(bar: BarNumber): Mmio | undefined {
    return this.bars.get(bar);
  }

  // --- DMA

  /** The whole device (NO_PASID) or one PASID of its own goes to an IOAS or HWPT, in place of what it had. 0 or -errno. */
  attach(ptId: number, pasid: number): number {
    const words = new Uint32Array(AttachPt.bytes / 4);
    const { set } = AttachPt;
    set.argsz(words, 0, AttachPt.bytes);
    set.ptId(words, 0, ptId);
    if (pasid !== NO_PASID) {
      set.flags(words, 0, PtFlag.PASID);
      set.pasid(words, 0, pasid);
    }
    return this.machine.calls.ioctl(this.fd, Ioctl.DEVICE_ATTACH_IOMMUFD_PT, words);
  }
  detach(pasid: number): number {
    const words = new Uint32Array(DetachPt.bytes / 4);
    const { set } = DetachPt;
    set.argsz(words, 0, DetachPt.bytes);
    if (pasid !== NO_PASID) {
      set.flags(words, 0, PtFlag.PASID);
      set.pasid(words, 0, pasid);
    }
    return this.machine.calls.ioctl(this.fd, Ioctl.DEVICE_DETACH_IOMMUFD_PT, words);
  }

  /** VFIO_DEVICE_RESET. 0 or -errno. */
  reset(): number {
    const result = this.machine.calls.task.ioctl(this.fd, Ioctl.DEVICE_RESET, 0);
    this.readHeader();
    this.decodeChanged();
    this.msix?.reset();
    return result;
  }

  /** Interrupts off, mappings away, the file closed. */
  close(): void {
    this.msix?.disable();
    for (const bar of this.bars.values()) bar.unmap();
    this.machine.calls.task.close(this.fd);
  }

  // --- set-up

  private bind(iommufd: number): number {
    const words = new Uint32Array(BindIommufd.bytes / 4);
    BindIommufd.set.argsz(words, 0, 16);
    BindIommufd.set.iommufd(words, 0, iommufd);
    this.must('VFIO_DEVICE_BIND_IOMMUFD', Ioctl.DEVICE_BIND_IOMMUFD, words);
    return BindIommufd.get.deviceId(words, 0);
  }

  /** How many interrupt indexes it has. */
  private info(): number {
    const words = new Uint32Array(DeviceInfo.bytes / 4);
    DeviceInfo.set.argsz(words, 0, DeviceInfo.bytes);
    this.must('VFIO_DEVICE_GET_INFO', Ioctl.DEVICE_GET_INFO, words);
    if (!(DeviceInfo.get.flags(words, 0) & DeviceFlag.PCI) || DeviceInfo.get.regions(words, 0) < PCI_REGIONS)
      throw new VmmError(`${this.path} is no PCI device`, -Errno.ENODEV);
    return DeviceInfo.get.irqs(words, 0);
  }

  private regionInfo(index: number): DeviceRegion {
    const words = new Uint32Array(REGION_INFO_WORDS);
    const { get, set } = RegionInfoLayout;
    set.argsz(words, 0, words.byteLength);
    set.index(words, 0, index);
    // A region that the device does not have may be refused.
    if (this.machine.calls.ioctl(this.fd, Ioctl.DEVICE_GET_REGION_INFO, words) < 0) return { bytes: 0, flags: 0, at: 0, areas: [] };
    const bytes = join(get.sizeHigh(words, 0), get.sizeLow(words, 0));
    const flags = get.flags(words, 0);
    const sparse = flags & RegionFlag.CAPS ? sparseAreas(words, get.capOffset(words, 0)) : undefined;
    const whole = flags & RegionFlag.MMAP ? [{ offset: 0, bytes: Math.floor(bytes / 4096) * 4096 }] : [];
    return { bytes, flags, at: join(get.offsetHigh(words, 0), get.offsetLow(words, 0)), areas: flags & RegionFlag.MMAP ? (sparse ?? whole) : [] };
  }

  private irqCount(index: number): number {
    const words = new Uint32Array(IrqInfoLayout.bytes / 4);
    IrqInfoLayout.set.argsz(words, 0, IrqInfoLayout.bytes);
    IrqInfoLayout.set.index(words, 0, index);
    const result = this.machine.calls.ioctl(this.fd, Ioctl.DEVICE_GET_IRQ_INFO, words);
    return result < 0 ? 0 : IrqInfoLayout.get.count(words, 0);
  }

  private makeBar(bar: BarNumber): AssignedBar {
    const { at, areas } = this.region(bar);
    const overlay: Overlay[] = [];
    if (this.msix) {
      const words = Uint32Array.of(0, this.configRead(this.msixAt + 4, 4), this.configRead(this.msixAt + 8, 4));
      const { msix } = this;
      const { vectors, pending } = msix.table;
      const place = (word: number): number => (words[word]! & ~7) >>> 0;
      if ((words[1]! & 7) === bar)
        overlay.push({
          from: place(1),
          to: place(1) + vectors * config.MsixEntry.bytes,
          mmio: { read: (o, w) => msix.table.table.read(o, w), write: (o, w, v) => msix.write(o, w, v) },
        });
      // A table at 0 with pending bits at 0 too: the device does not say where they are.
      if ((words[2]! & 7) === bar && !((words[1]! & 7) === bar && place(2) === place(1)))
        overlay.push({
          from: place(2),
          to: place(2) + pending.length * 4,
          mmio: { read: (o, w) => msix.readPending(o, w), write: () => {} },
        });
    }
    return new AssignedBar(this.machine, this.fd, at, without(areas, overlay), overlay);
  }

  private region(index: number): DeviceRegion {
    return this.regions[index]!;
  }

  private readHeader(): void {
    const { task, data } = this.machine.calls;
    if (task.pread(this.fd, data, HEADER_BYTES, this.region(PciRegion.CONFIG).at) === HEADER_BYTES) task.readStruct(data, this.header);
  }

  /** Byte offset of a capability, or 0. A list that loops ends. */
  private capability(id: number): number {
    let at = config.Header.get.capabilitiesPointer(this.header, 0) & 0xfc;
    for (let n = 0; at >= 0x40 && n < 48; n++) {
      const header = this.configRead(at, 2);
      if ((header & 0xff) === id) return at;
      at = (header >>> 8) & 0xfc;
    }
    return 0;
  }

  private must(call: string, number: number, words: Uint32Array): void {
    this.machine.calls.must(`${call} of ${this.path}`, this.machine.calls.ioctl(this.fd, number, words));
  }
}

interface Overlay {
  readonly from: number;
  readonly to: number;
  readonly mmio: Mmio;
}

/** A BAR: what traps, and the areas that do not. */
class AssignedBar implements Mmio {
  private readonly machine: Machine;
  private readonly fd: number;
  private readonly at: number;
  private readonly overlay: readonly Overlay[];
  /** Pieces of the device that are mapped in this process, and the memory slots that show them. */
  private readonly pieces: { readonly offset: number; readonly bytes: number; readonly user: number }[] = [];
  private slots: number[] = [];

  constructor(machine: Machine, fd: number, at: number, areas: readonly Area[], overlay: readonly Overlay[]) {
    this.machine = machine;
    this.fd = fd;
    this.at = at;
    this.overlay = overlay;
    for (const { offset, bytes } of areas)
      if (!this.map(offset, bytes) && bytes > 4096) for (let o = 0; o < bytes; o += 4096) this.map(offset + o, 4096);
  }

  /** The BAR decodes at a guest address: its mapped areas are the guest's. A slot that KVM refuses leaves its area trapped. */
  place(address: number): void {
    for (const { offset, bytes, user } of this.pieces) {
      const slot = this.machine.addSlot(address + offset, bytes, user);
      if (slot >= 0) this.slots.push(slot);
    }
  }
  unplace(): void {
    for (const slot of this.slots) this.machine.removeSlot(slot);
    this.slots = [];
  }
  unmap(): void {
    this.unplace();
    for (const { user, bytes } of this.pieces.splice(0)) this.machine.calls.task.munmap(user, bytes);
  }

  read(offset: number, width: number): number {
    const over = this.over(offset);
    return over ? over.mmio.read(offset - over.from, width) : this.machine.calls.read(this.fd, this.at + offset, width);
  }
  write(offset: number, width: number, value: number): void {
    const over = this.over(offset);
    if (over) over.mmio.write(offset - over.from, width, value);
    else this.machine.calls.write(this.fd, this.at + offset, width, value);
  }
  movdir64b(offset: number, words: Uint32Array, at: number): void {
    this.machine.calls.writePacket(this.fd, this.at + offset, words, at);
  }
  enqcmd(offset: number, words: Uint32Array, at: number): number {
    return this.machine.calls.writePacket(this.fd, this.at + offset, words, at) === 64 ? 0 : 1;
  }

  private over(offset: number): Overlay | undefined {
    for (const over of this.overlay) if (offset >= over.from && offset < over.to) return over;
    return undefined;
  }
  private map(offset: number, bytes: number): boolean {
    const user = this.machine.calls.task.mmap(0, bytes, Prot.READ | Prot.WRITE, MapFlag.SHARED, this.fd, this.at + offset);
    if (user >= 0) this.pieces.push({ offset, bytes, user });
    return user >= 0;
  }
}

export type { AssignedBar };

/** The sparse areas of a region's capability chain; undefined when it has no such capability. A chain that loops ends. */
function sparseAreas(words: Uint32Array, first: number): Area[] | undefined {
  let at = first;
  for (let n = 0; at >= RegionInfoLayout.bytes && at % 4 === 0 && at + SparseMmap.bytes <= words.byteLength && n < 16; n++) {
    if (CapHeader.get.id(words, at / 4) === RegionCap.SPARSE_MMAP) {
      const areas: Area[] = [];
      const { get } = SparseArea;
      const room = (words.byteLength - at - SparseMmap.bytes) / SparseArea.bytes;
      for (let i = 0; i < Math.min(SparseMmap.get.count(words, at / 4), Math.floor(room)); i++) {
        const w = (at + SparseMmap.bytes + i * SparseArea.bytes) / 4;
        areas.push({ offset: join(get.offsetHigh(words, w), get.offsetLow(words, w)), bytes: join(get.sizeHigh(words, w), get.sizeLow(words, w)) });
      }
      return areas;
    }
    at = CapHeader.get.next(words, at / 4);
  }
  return undefined;
}

/** The areas, by whole pages, without the pages of MSI-X structures: their accesses must trap. */
function without(areas: readonly Area[], holes: readonly Overlay[]): Area[] {
  let rest = areas.map(({ offset, bytes }) => ({ offset: Math.ceil(offset / 4096) * 4096, end: Math.floor((offset + bytes) / 4096) * 4096 }));
  for (const { from, to } of holes) {
    const first = Math.floor(from / 4096) * 4096;
    const last = Math.ceil(to / 4096) * 4096;
    rest = rest.flatMap(({ offset, end }) =>
      first >= end || last <= offset
        ? [{ offset, end }]
        : [
            { offset, end: first },
            { offset: last, end },
          ],
    );
  }
  return rest.filter(({ offset, end }) => end > offset).map(({ offset, end }) => ({ offset, bytes: end - offset }));
}
