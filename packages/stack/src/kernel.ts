/**
 * A kernel instance: user-space door, interrupt domains, IOMMU driver, PCI bus and device drivers over one set of hardware ports. Built once
 * for the host, and once for each guest over what its VMM shows it: the same code, its own page tables.
 */
import type { Cpu, LocalApic } from '@siov/cpu';
import { type DeviceConfig, IdxdDriver } from '@siov/idxd-driver';
import { ImsDomain, type IrqParent, MsixDomain, VectorDomain } from '@siov/ims-irq';
import { IommuDriver } from '@siov/iommu';
import { AddressSpace, type Frames, MemoryFile, type PhysicalMap } from '@siov/memory';
import { enumerate, type Mmio, type PciDevice } from '@siov/pci-core';
import { Kernel, type KernelOptions } from '@siov/vfs';
import type { PartCosts } from './costs.js';
import type { Clock, Trace } from './ports.js';

export interface KernelInstanceOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly cpu: Cpu;
  readonly apic: LocalApic;
  readonly memory: PhysicalMap;
  readonly frames: Frames;
  readonly costs: PartCosts;
  readonly trace?: Trace | undefined;
  /** Registers of the IOMMU, through the kernel's own mapping. */
  readonly iommu: Mmio;
  /** Interrupts through the IOMMU's remapping table, or straight to the APIC. */
  readonly interruptRemapping: boolean;
  /** As `HostOptions` has it. */
  readonly lockedPages?: number | undefined;
  readonly ecam: Mmio;
  readonly window: { readonly base: number; readonly bytes: number };
  ioremap(address: number, bytes: number): Mmio;
  /** A guest's: how its processes' accesses leave it. */
  readonly guest?: Pick<KernelOptions, 'eptRoot' | 'exit' | 'pasidTranslation' | 'pasidTranslationHigh'>;
}

export class KernelInstance {
  readonly name: string;
  readonly user: Kernel;
  readonly iommu: IommuDriver;
  readonly interrupts: IrqParent;
  readonly devices: readonly PciDevice[];
  readonly drivers: IdxdDriver[] = [];
  readonly #o: KernelInstanceOptions;

  constructor(options: KernelInstanceOptions) {
    this.#o = options;
    this.name = options.name;
    const { clock, cpu, memory, frames, costs, trace, apic } = options;
    this.user = new Kernel({
      clock,
      cpu,
      costs: costs.kernel,
      ...(trace ? { trace } : {}),
      ...options.guest,
      newMemoryFile: () => new MemoryFile({ memory, frames }),
      newMm: () =>
        new AddressSpace({
          memory,
          frames,
          clock,
          costs: costs.memory,
          ...(trace ? { trace } : {}),
          flush: (root, page, pages) => cpu.flush(root, page, pages),
        }),
    });
    this.iommu = new IommuDriver({
      registers: options.iommu,
      memory,
      frames,
      clock,
      vectors: apic,
      costs: costs.iommuDriver,
      lockedPages: options.lockedPages,
      ...(trace ? { trace } : {}),
    });
    this.iommu.enable();
    this.user.register('/dev/iommu', this.iommu.iommufd);
    this.interrupts = options.interruptRemapping ? this.iommu.irqDomain() : new VectorDomain({ vectors: apic });
    this.devices = enumerate({ ecam: options.ecam, window: options.window, ioremap: (address, bytes) => options.ioremap(address, bytes) });
  }

  /**
   * Binds the idxd driver to a function, configures it and enables it. Without queues in `config` it is left to sysfs, off as after boot, unless its
   * configuration is fixed. Throws with the kernel's words when it refuses.
   */
  bindIdxd(device: PciDevice, config: Partial<DeviceConfig> = {}): IdxdDriver {
    const { clock } = this.#o;
    const driver = new IdxdDriver(
      {
        device,
        clock,
        iommu: this.iommu,
        kernel: this.user,
        interrupts: {
          msix: (d, capability, bar) => new MsixDomain(this.interrupts, d, capability, bar),
          ims: (slots, rid, size) => new ImsDomain(this.interrupts, slots, rid, size),
        },
        // write() on a queue's character device: the kernel's own stores to the portal.
        submit: {
          movdir64b: (frame, offset, words) => this.#o.ioremap(frame * 4096, 4096).movdir64b?.(offset, words, 0),
          enqcmds: (frame, offset, words) => this.#o.ioremap(frame * 4096, 4096).enqcmd?.(offset, words, 0) ?? 1,
        },
      },
      this.drivers.length,
    );
    const error = driver.probe();
    if (error !== 0) throw new RangeError(`bindIdxd: probe of ${device.name} on ${this.name} failed (${error})`);
    const { wqs = [] } = config;
    const configured = wqs.length > 0 || !driver.capabilities.configurable ? driver.configure({ ...config, wqs }) : { error: 0, why: '' };
    if (configured.error !== 0) throw new RangeError(`bindIdxd: config is refused: ${configured.why}`);
    this.drivers.push(driver);
    return driver;
  }
}
