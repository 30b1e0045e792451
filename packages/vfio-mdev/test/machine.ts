/** A host with VFIO, one PCI function behind it, and stand-ins for the IOMMU driver and iommufd that only remember what they were told. */
import { Clock, Cpu } from '@siov/cpu';
import { Errno, Open } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { PciFunction, PciRoot } from '@siov/pci-core';
import { VfioClient } from '@siov/testkit';
import { EventFd, Kernel, type OpenFile, type UserTask } from '@siov/vfs';
import { type InterruptPort, type IommufdContext, type PagingDomain, type Type1Options, VfioCore, VfioPciDevice } from '../src/index.js';

/** What lies at each page of an address space. */
export class FakeDomain implements PagingDomain {
  readonly pages = new Map<number, { frame: number; prot: number }>();
  freed = false;
  /** Refuses the map call after so many. */
  mapsLeft = Number.POSITIVE_INFINITY;
  map(iova: number, frame: number, frames: number, prot: number): number {
    if (this.mapsLeft-- <= 0) return -Errno.ENOMEM;
    for (let i = 0; i < frames; i++) this.pages.set(iova / 4096 + i, { frame: frame + i, prot });
    return 0;
  }
  unmap(iova: number, length: number): number {
    for (let page = iova / 4096; page < (iova + length) / 4096; page++) this.pages.delete(page);
    return length;
  }
  free(): number {
    this.freed = true;
    return 0;
  }
}

/** /dev/iommu: page tables by id, 1 and 2. */
export class FakeIommufd implements OpenFile, IommufdContext {
  readonly stream = true;
  readonly bound = new Map<number, number>();
  readonly tables = new Map<number, FakeDomain>([
    [1, new FakeDomain()],
    [2, new FakeDomain()],
  ]);
  private next = 10;
  bindDevice(requesterId: number): number {
    this.bound.set(this.next, requesterId);
    return this.next++;
  }
  unbind(deviceId: number): number {
    this.bound.delete(deviceId);
    return 0;
  }
  domainOf(ptId: number): FakeDomain | number {
    return this.tables.get(ptId) ?? -Errno.ENOENT;
  }
  compatIoas(): number {
    return 1;
  }
}

const NAME = '0000:00:01.0';
export const VECTORS = 4;

export function machine(options: { type1?: Type1Options; frames?: number; scatter?: number; lockedPages?: number } = {}) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0x100, options.frames ?? 2048);
  const frames = new FrameAllocator(ram, undefined, undefined, options.scatter === undefined ? {} : { scatter: options.scatter });
  const clock = new Clock();
  const cpu = new Cpu({ memory, clock });
  const newMm = () =>
    new AddressSpace({ memory, frames, clock, lockedPages: options.lockedPages, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const kernel = new Kernel({ clock, cpu, newMm });

  // The function: a register file behind BAR 0, with the MSI-X table at 0x1000.
  const registers = new Uint8Array(0x4000);
  const mmio = {
    read: (o: number, w: number) => new Uint32Array(registers.slice(o, o + 4).buffer)[0]! & (w === 4 ? -1 : 2 ** (8 * w) - 1),
    write: (o: number, w: number, v: number) => {
      for (let i = 0; i < w; i++) registers[o + i] = v >>> (8 * i);
    },
  };
  const fn = new PciFunction({
    vendorId: 0x8086,
    deviceId: 0x0b25,
    classCode: 0x088000,
    bars: { 0: { bytes: 0x4000, mmio }, 2: { bytes: 0x2000, mmio } },
    msix: { vectors: VECTORS, bar: 0, tableOffset: 0x1000, pbaOffset: 0x2000 },
    ats: {},
    pri: { capacity: 4 },
    pasid: { width: 20 },
    siov: { ims: true },
  });
  const root = new PciRoot({ map: memory, window: { base: 0xe000_0000, bytes: 0x100_0000 } });
  root.add(fn, 1);
  fn.configWrite(0x10, 4, 0xe000_0000);
  fn.configWrite(0x18, 4, 0xe001_0000);
  fn.configWrite(4, 2, 2);

  const handlers = new Map<number, () => void>();
  fn.msix!.send = (_address, data) => handlers.get(data)?.();
  const interrupts: InterruptPort & { limit: number } = {
    limit: VECTORS,
    alloc(vector, handler) {
      if (handlers.size >= interrupts.limit) return undefined;
      fn.configWrite(fn.at.msix + 2, 2, 0x8000);
      fn.msix!.table.write(vector * 16, 4, 0xfee0_0000);
      fn.msix!.table.write(vector * 16 + 8, 4, vector);
      fn.msix!.table.write(vector * 16 + 12, 4, 0);
      handlers.set(vector, handler);
      return { free: () => handlers.delete(vector) };
    },
  };
  /** What the function and its PASIDs are attached to. */
  const attached = new Map<number, object>();
  const iommu = {
    refuse: 0,
    attach(domain: object, pasid: number): number {
      if (iommu.refuse) return iommu.refuse;
      attached.set(pasid, domain);
      return 0;
    },
    detach: (pasid: number): void => void attached.delete(pasid),
  };
  const device = new VfioPciDevice({ name: NAME, fn, interrupts, iommu });

  const domains: FakeDomain[] = [];
  kernel.register('/dev/iommu', { open: () => new FakeIommufd() });
  const core = new VfioCore({
    kernel,
    iommu: {
      pagingDomain() {
        const domain = new FakeDomain();
        domains.push(domain);
        return domain;
      },
    },
    iommufd: { contextOf: (file) => (file instanceof FakeIommufd ? file : undefined) },
    isEventFd: (file) => (file instanceof EventFd ? file : undefined),
    type1: { isDevice: (frame) => memory.regionOf(frame)?.kind === 'mmio', ...options.type1 },
  });
  const nodes = core.add(device);
  const idleTask = (): UserTask => kernel.spawn({ step: () => 'wait' });
  const task = idleTask();
  const client = new VfioClient(task);
  const open = (path: string): number => task.open(path, Open.RDWR);
  return {
    memory,
    ram,
    frames,
    clock,
    kernel,
    fn,
    registers,
    handlers,
    interrupts,
    attached,
    iommu,
    device,
    domains,
    core,
    nodes,
    idleTask,
    task,
    client,
    open,
    name: NAME,
  };
}
