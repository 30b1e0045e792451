/** A host: physical memory, a processor, a remapping unit, a PCI root with accelerators in it, and the kernel that runs on them. */
import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice, type Native, type Profile } from '@siov/idxd-device';
import { type ForeignProcesses, IommuUnit } from '@siov/iommu';
import { FrameAllocator, PhysicalMemory, type Region } from '@siov/memory';
import { ECAM_BUS_BYTES, type Mmio, PciRoot } from '@siov/pci-core';
import { type CostTable, defaultCosts, type PartCosts, partCosts } from './costs.js';
import { KernelInstance } from './kernel.js';
import type { Trace } from './ports.js';

export interface HostOptions {
  /** Bytes of RAM, a multiple of 2 MiB up to 2 GiB (default 256 MiB). */
  readonly ramBytes?: number;
  /** Backing of the RAM; a SharedArrayBuffer or a mapping made elsewhere will do. */
  readonly ram?: Uint8Array;
  /** Hand out single frames at scattered places, by this seed. */
  readonly scatter?: number;
  readonly costs?: CostTable;
  readonly trace?: Trace;
  /** Accelerators to plug in, one per slot from 1 on (default: one of Sapphire Rapids' shape). */
  readonly devices?: readonly (Profile | undefined)[];
  /** Native code for the accelerators' CRC-32C and comparisons, where there is some. */
  readonly native?: Native;
  /** Processes of the machine itself that SVA may bind. The accelerators then keep no translations of their own. */
  readonly foreign?: ForeignProcesses;
  /** Pages that users of /dev/iommu may have pinned, all together (default: no limit). RLIMIT_MEMLOCK. */
  readonly lockedPages?: number;
  /** Entries of the unit's IOTLB, a power of two. */
  readonly iotlb?: number;
}

/** Where things are in a host's physical address space. */
export const HostMap = { ecam: 0xe000_0000, window: { base: 0xe100_0000, bytes: 0x1000_0000 }, iommu: 0xfed9_0000, iommuBytes: 0x4000 } as const;

export class Host {
  readonly clock = new Clock();
  readonly memory = new PhysicalMemory();
  readonly ram: Region;
  readonly frames: FrameAllocator;
  readonly cpu: Cpu;
  readonly apic: LocalApic;
  readonly unit: IommuUnit;
  readonly root: PciRoot;
  readonly devices: readonly IdxdDevice[];
  readonly kernel: KernelInstance;
  readonly costs: PartCosts;
  readonly trace: Trace | undefined;

  constructor(options: HostOptions = {}) {
    const bytes = options.ram?.length ?? options.ramBytes ?? 256 * 2 ** 20;
    if (!(bytes >= 2 ** 24 && bytes <= 2 ** 31 && bytes % 2 ** 21 === 0))
      throw new RangeError(`Host: ramBytes is a multiple of 2 MiB from 16 MiB to 2 GiB, not ${bytes}`);
    const { clock, memory } = this;
    const trace = options.trace;
    this.trace = trace;
    this.costs = partCosts(options.costs ?? defaultCosts);
    this.ram = memory.addRam(0, bytes / 4096, options.ram);
    this.frames = new FrameAllocator(this.ram, 256, bytes / 4096, options.scatter === undefined ? {} : { scatter: options.scatter });
    const traced = trace ? { trace } : {};
    this.cpu = new Cpu({ memory, clock, costs: this.costs.cpu, ...traced });
    this.apic = new LocalApic({ clock, costs: this.costs.apic, ...traced });
    this.unit = new IommuUnit({
      memory,
      sink: this.apic,
      clock,
      costs: this.costs.unit,
      ...traced,
      ...(options.foreign ? { foreign: options.foreign } : {}),
      sizes: { pagingStructure: 64, ...(options.iotlb ? { iotlb: options.iotlb } : {}) },
    });
    memory.addMmio(HostMap.iommu / 4096, HostMap.iommuBytes / 4096, this.unit);
    this.root = new PciRoot({ map: memory, window: HostMap.window });
    memory.addMmio(HostMap.ecam / 4096, ECAM_BUS_BYTES / 4096, this.root);
    this.devices = (options.devices ?? [undefined]).map((profile, i) => {
      const device = new IdxdDevice({
        clock,
        costs: this.costs.device,
        ...(profile ? { profile } : {}),
        ...(options.native ? { native: options.native } : {}),
        ...(options.foreign ? { deviceTlb: false } : {}),
        ...traced,
      });
      this.root.add(device.function, i + 1);
      device.connect(this.unit.requester(device.function.requesterId, device));
      return device;
    });
    this.kernel = new KernelInstance({
      name: 'host',
      clock,
      cpu: this.cpu,
      apic: this.apic,
      memory,
      frames: this.frames,
      costs: this.costs,
      trace,
      iommu: this.ioremap(HostMap.iommu),
      interruptRemapping: true,
      lockedPages: options.lockedPages,
      ecam: this.ioremap(HostMap.ecam),
      window: HostMap.window,
      ioremap: (address) => this.ioremap(address),
    });
  }

  /** The kernel's uncached mapping of device registers: each access costs what crossing the fabric does. */
  ioremap(address: number): Mmio {
    const { memory, clock } = this;
    const { mmioRead, mmioWrite, movdir64b, enqcmd } = this.costs.cpu;
    const first = address / 4096;
    return {
      read(offset, width) {
        clock.spend(mmioRead);
        const region = memory.regionOf(first + (offset >>> 12));
        return region?.device?.read((first - region.firstFrame) * 4096 + offset, width) ?? (width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1);
      },
      write(offset, width, value) {
        clock.spend(mmioWrite);
        const region = memory.regionOf(first + (offset >>> 12));
        region?.device?.write((first - region.firstFrame) * 4096 + offset, width, value);
      },
      movdir64b(offset, words, at) {
        clock.spend(movdir64b);
        const region = memory.regionOf(first + (offset >>> 12));
        region?.device?.movdir64b?.((first - region.firstFrame) * 4096 + offset, words, at);
      },
      enqcmd(offset, words, at) {
        clock.spend(enqcmd);
        const region = memory.regionOf(first + (offset >>> 12));
        return region?.device?.enqcmd?.((first - region.firstFrame) * 4096 + offset, words, at) ?? 1;
      },
    };
  }
}
