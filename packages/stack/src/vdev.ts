/**
 * Recipe: the virtual device of the mdev model with nothing above it: a host with its driver, and one dedicated queue of it as a device of type 1dwq-v1,
 * whose DMA goes through the host's IOMMU to memory that somebody else has. For a VMM on the other side of a socket.
 */
import type { Clock } from '@siov/cpu';
import { Counter, type Extent, type Profile } from '@siov/idxd-device';
import { idxdMdevParent, TYPE_1DWQ, type Vdev } from '@siov/idxd-mdev';
import { Errno, errnoName } from '@siov/layout/uapi';
import type { Region } from '@siov/memory';
import type { IrqInfo, IrqRequest, RegionInfo, VfioDevice, VmArea } from '@siov/vfio-mdev';
import { PciRegion } from '@siov/vfio-mdev/uapi';
import { Host } from './host.js';

/** A range of addresses that the client announced. */
interface Announced {
  readonly address: number;
  readonly size: number;
  /** 1 read, 2 write. */
  readonly flags: number;
}
/** Memory that says what comes and goes, and shows it in place: `DmaSpace` of `@siov/vfio-user` fits, as far as the client's files are mapped. */
export interface AnnouncedMemory {
  listener: { added(range: Announced): void; removed(range: Announced): void } | undefined;
  view(range: Announced, offset: number, out: Extent): boolean;
}
export interface BareVdevOptions {
  readonly profile?: Profile;
  readonly name?: string;
}

const HOST_RAM = 64 << 20;
/** Where the client's memory appears in the host's physical address space. */
const FIRST_FRAME = 2 ** 24;
const FRAMES_END = 2 ** 31;
const UUID = '6f1d9a5e-0c4b-4f6d-9a56-8d6c3f1f4b00';
const SLOT_WORDS = 16;
/** GENSTS reset types, as `IdxdDevice.injectHalt` names them. */
type Reset = Parameters<Host['devices'][0]['injectHalt']>[0];

export class BareVdev implements VfioDevice {
  readonly host: Host;
  readonly name: string;
  readonly #vdev: Vdev;
  readonly #driver;
  readonly #domain;
  readonly #regions = new Map<Announced, Region[]>();
  readonly #free = new Map<number, number[]>();
  #nextFrame = FIRST_FRAME;
  /** Stores to the portal page, put together: where the next dword is due, and what came so far. */
  #due = -1;
  readonly #slot = new Uint32Array(SLOT_WORDS);
  /** Ranges that this device cannot reach: they are not mapped files. */
  unreachable = 0;
  interrupts = 0;

  constructor(options: BareVdevOptions = {}) {
    this.host = new Host({ ramBytes: HOST_RAM, devices: [options.profile] });
    const { kernel } = this.host;
    this.#driver = kernel.bindIdxd(kernel.devices[0]!, { wqs: [{ mode: 'dedicated', size: 128, group: 0, type: 'mdev' }] });
    const parent = idxdMdevParent({ driver: this.#driver, iommu: kernel.iommu });
    const made = parent.create({ sysfsName: TYPE_1DWQ }, UUID);
    if (typeof made === 'number') throw new RangeError(`BareVdev: create of ${TYPE_1DWQ}: ${errnoName(made)}`);
    this.#vdev = parent.devices.get(UUID)!;
    this.name = options.name ?? UUID;
    this.#domain = kernel.iommu.pagingDomain();
  }

  get clock(): Clock {
    return this.host.clock;
  }
  /** Counts so far. */
  get counters(): {
    readonly descriptors: number;
    readonly failed: number;
    readonly faults: number;
    readonly bytes: number;
    readonly interrupts: number;
  } {
    const [device] = this.host.devices;
    const of = (index: number): number => device!.counters[index]!;
    const { bytesRead, bytesWritten } = device!.traffic;
    return {
      descriptors: of(Counter.succeeded) + of(Counter.failed),
      failed: of(Counter.failed),
      faults: of(Counter.pageFaults) + of(Counter.softwareErrors),
      bytes: bytesRead + bytesWritten,
      interrupts: this.interrupts,
    };
  }
  /** Faults on demand are the parent's: its driver and the virtual device hear of them. */
  injectHalt(reset: Reset): void {
    this.host.devices[0]!.injectHalt(reset);
  }
  injectSoftwareError(error: number): void {
    this.host.devices[0]!.injectSoftwareError(error);
  }

  /** Works until `over` says so: true when there is more to do at once. */
  run(over: () => boolean): boolean {
    const { clock } = this.host;
    while (clock.pending > 0) {
      if (!clock.pump() && !clock.idle()) return false;
      if (over()) return clock.pending > 0;
    }
    return false;
  }

  // --- memory

  attach(domain: object, pasid: number): number {
    if (pasid >= 0) return -Errno.EOPNOTSUPP;
    const memory = domain as AnnouncedMemory;
    memory.listener = { added: (range) => this.#added(memory, range), removed: (range) => this.#removed(range) };
    return this.#vdev.attach(this.#domain, -1);
  }
  detach(pasid: number): void {
    this.#vdev.detach(pasid);
  }
  #added(memory: AnnouncedMemory, range: Announced): void {
    const regions: Region[] = [];
    const out: Extent = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
    for (let offset = 0; offset < range.size; offset += out.length) {
      if (!memory.view(range, offset, out)) {
        this.unreachable++;
        break;
      }
      const frames = out.length / 4096;
      const first = this.#frames(frames);
      if (first < 0) break;
      regions.push(this.host.memory.addRam(first, frames, out.view.subarray(out.offset, out.offset + out.length)));
      this.#domain.map(range.address + offset, first, frames, range.flags);
    }
    this.#regions.set(range, regions);
  }
  #removed(range: Announced): void {
    // The unit forgets its translations, and the device its own, before the memory goes.
    this.#domain.unmap(range.address, range.size);
    for (const region of this.#regions.get(range) ?? []) {
      const { frames, firstFrame } = region;
      this.host.memory.remove(region);
      this.#free.set(frames, [...(this.#free.get(frames) ?? []), firstFrame]);
    }
    this.#regions.delete(range);
  }
  #frames(frames: number): number {
    const used = this.#free.get(frames)?.pop();
    if (used !== undefined) return used;
    if (this.#nextFrame + frames > FRAMES_END) return -1;
    this.#nextFrame += frames;
    return this.#nextFrame - frames;
  }

  // --- VFIO

  get requesterId(): number {
    return this.#vdev.requesterId;
  }
  get flags(): number {
    return this.#vdev.flags;
  }
  get regions(): number {
    return this.#vdev.regions;
  }
  get irqs(): number {
    return this.#vdev.irqs;
  }
  open(): number {
    return this.#vdev.open();
  }
  close(): void {
    this.#vdev.close();
  }
  regionInfo(index: number): RegionInfo | number {
    return this.#vdev.regionInfo(index);
  }
  irqInfo(index: number): IrqInfo | number {
    return this.#vdev.irqInfo(index);
  }
  read(region: number, offset: number, out: Uint8Array): number {
    return this.#vdev.read(region, offset, out);
  }
  /** A trapped store to a portal page is the client's processor storing to the parent's. */
  write(region: number, offset: number, bytes: Uint8Array): number {
    if (region !== PciRegion.BAR2) return this.#vdev.write(region, offset, bytes);
    for (let at = 0; at + 4 <= bytes.length; at += 4)
      this.#store(offset + at, (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0);
    return bytes.length;
  }
  /** Sixteen dwords in ascending order from a slot of 64 bytes are one posted write. */
  #store(offset: number, value: number): void {
    const word = (offset & 63) >>> 2;
    if (offset !== this.#due) {
      this.#due = -1;
      if (word !== 0 || offset & 3) return;
    }
    this.#slot[word] = value;
    this.#due = word === SLOT_WORDS - 1 ? -1 : offset + 4;
    if (this.#due >= 0) return;
    const frame = this.#driver.portalFrame(this.#driver.wqs[0]!, true, offset >>> 12 === 1);
    const page = this.host.memory.regionOf(frame);
    page?.device?.movdir64b?.((frame - page.firstFrame) * 4096 + (offset & 0xfc0), this.#slot, 0);
  }
  mmap(area: VmArea, region: number, offset: number): number {
    return this.#vdev.mmap(area, region, offset);
  }
  setIrqs(request: IrqRequest): number {
    if (!request.sinks) return this.#vdev.setIrqs(request);
    const counting = (sink: (typeof request.sinks)[0]) =>
      sink && {
        signal: (n?: number) => {
          this.interrupts++;
          sink.signal(n);
        },
      };
    return this.#vdev.setIrqs({ ...request, sinks: request.sinks.map(counting) });
  }
  reset(): number {
    return this.#vdev.reset();
  }
  request(): void {
    this.#vdev.request();
  }
}
