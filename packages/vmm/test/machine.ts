/** A host with KVM, VFIO, a real remapping unit and driver, one VFIO device with portals, and a VMM with a guest kernel in it. */
import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { InterruptRemapper, IommuDriver, IommuUnit, RegisterFront } from '@siov/iommu';
import { Errno, MapFlag, Open, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { PciFunction } from '@siov/pci-core';
import { type IrqRequest, type RegionInfo, type Sink, VfioCore, type VfioDevice, type VmArea } from '@siov/vfio-mdev';
import { DeviceFlag, IrqSetFlag, PCI_IRQS, PCI_REGIONS, PciIrq, PciRegion, RegionFlag } from '@siov/vfio-mdev/uapi';
import { EventFd, Kernel, type OpenFile } from '@siov/vfs';
import { GuestFrames, GuestMap, Kvm, type NewIommuFront, type VmCosts, Vmm } from '../src/index.js';
import { KvmIoctl } from '../src/kvm/uapi.js';

export const RW = Prot.READ | Prot.WRITE;
export const SHARED = MapFlag.SHARED | MapFlag.ANONYMOUS;
const RID = 0x08;
export const VECTORS = 2;
const PORTAL_FRAME = 0xd_0000;
const HOST_FIRST = 0x100;

export function host(options: { frames?: number; scatter?: number; costs?: VmCosts } = {}) {
  const clock = new Clock();
  const memory = new PhysicalMemory();
  const ram = memory.addRam(HOST_FIRST, options.frames ?? 8192);
  const frames = new FrameAllocator(ram, undefined, undefined, options.scatter === undefined ? {} : { scatter: options.scatter });
  const cpu = new Cpu({ memory, clock });
  const apic = new LocalApic({ clock });
  const newMm = () => new AddressSpace({ memory, frames, clock, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const kernel = new Kernel({ clock, cpu, newMm });
  const eventFd = (file: OpenFile | undefined) => (file instanceof EventFd ? file : undefined);
  const kvm = new Kvm({ memory, frames, cpu, clock, eventFd: (file) => eventFd(file as OpenFile), costs: options.costs });
  kernel.register('/dev/kvm', kvm);
  const task = kernel.spawn({ step: () => 'wait' }, 'vmm');
  const vmOf = (fd: number) => kvm.vmOf(task.file(fd));
  return { clock, memory, ram, frames, cpu, apic, newMm, kernel, kvm, task, vmOf };
}

/** A VM alone: its descriptors, and system calls with structures. */
export function bareVm(options: Parameters<typeof host>[0] = {}) {
  const h = host(options);
  const kvmFd = h.task.open('/dev/kvm', Open.RDWR);
  const vmFd = h.task.ioctl(kvmFd, KvmIoctl.CREATE_VM, 0);
  const vm = h.vmOf(vmFd)!;
  const vcpuFd = h.task.ioctl(vmFd, KvmIoctl.CREATE_VCPU, 0);
  const room = h.task.alloc(8192);
  const ioctl = (number: number, words: Uint32Array): number => {
    h.task.writeStruct(room, words);
    return h.task.ioctl(vmFd, number, room);
  };
  const slot = (id: number, guest: number, bytes: number, user: number, flags = 0): number =>
    ioctl(KvmIoctl.SET_USER_MEMORY_REGION, Uint32Array.of(id, flags, guest, guest / 2 ** 32, bytes, bytes / 2 ** 32, user, user / 2 ** 32));
  return { ...h, kvmFd, vmFd, vm, vcpuFd, room, ioctl, slot };
}

/** A guest's kernel and one process of it, over what a VM shows. */
export function guestOf(h: ReturnType<typeof host>, vm: ReturnType<typeof bareVm>['vm']) {
  const memory = vm.guestMemory();
  const frames = new GuestFrames(memory.regions, (region) => new FrameAllocator(region));
  const apic = new LocalApic({ clock: h.clock });
  vm.apic = apic;
  const newMm = () => new AddressSpace({ memory, frames, flush: (root, page, pages) => h.cpu.flush(root, page, pages) });
  const kernel = new Kernel({ clock: h.clock, cpu: h.cpu, newMm, ...vm.guest });
  const task = kernel.spawn({ step: () => 'wait' }, 'guest program');
  /** Shows a guest physical page to the guest's process. */
  const mapPage = (guestFrame: number, pages = 1): number =>
    task.mm.mmap(0, pages * 4096, RW, MapFlag.SHARED, {
      map: (area) => {
        for (let i = 0; i < pages; i++) area.insert(i, guestFrame + i);
        return 0;
      },
    });
  return { memory, frames, apic, kernel, task, mapPage, newMm };
}

/** A VFIO device with registers in BAR 0 (MSI-X at 0x600, pending bits at 0x700) and two portal pages in BAR 2. */
class PortalDevice implements VfioDevice {
  readonly name = '0000:00:01.0';
  readonly requesterId = RID;
  readonly flags = DeviceFlag.PCI | DeviceFlag.RESET;
  readonly regions = PCI_REGIONS;
  readonly irqs = PCI_IRQS;
  readonly pasids = true;
  readonly registers = new Uint8Array(0x2000);
  readonly function: PciFunction;
  /** Page and first word of every 64-byte store. */
  readonly stores: [page: number, first: number, how: string][] = [];
  readonly sinks: (Sink | undefined)[] = new Array(VECTORS).fill(undefined);
  readonly domains = new Map<number, object>();
  /** Every access by pread and pwrite. */
  readonly accesses: string[] = [];
  readonly areas = new Set<VmArea>();
  constructor(memory: PhysicalMemory) {
    const mmio = { read: () => 0, write: () => {} };
    this.function = new PciFunction({
      vendorId: 0x8086,
      deviceId: 0x0b25,
      classCode: 0x088000,
      bars: { 0: { bytes: 0x2000, mmio }, 2: { bytes: 0x2000, mmio } },
      msix: { vectors: VECTORS, bar: 0, tableOffset: 0x600, pbaOffset: 0x700 },
      pasid: { width: 20 },
    });
    memory.addMmio(PORTAL_FRAME, 2, {
      read: (_offset, width) => 0x1234_5678 % 2 ** (8 * width),
      write: () => {},
      movdir64b: (offset, words, at) => void this.stores.push([offset >>> 12, words[at]!, 'movdir64b']),
      enqcmd: (offset, words, at) => (this.stores.push([offset >>> 12, words[at]!, 'enqcmd']), 0),
    });
  }
  open(): number {
    return 0;
  }
  close(): void {}
  regionInfo(index: number): RegionInfo | number {
    const flags = RegionFlag.READ | RegionFlag.WRITE;
    if (index === PciRegion.BAR0) return { size: 0x2000, flags };
    if (index === PciRegion.BAR2) return { size: 0x2000, flags: flags | RegionFlag.MMAP, sparse: [{ offset: 0, size: 0x2000 }] };
    return index === PciRegion.CONFIG ? { size: 4096, flags } : { size: 0, flags: 0 };
  }
  irqInfo(index: number) {
    return index === PciIrq.MSIX ? { count: VECTORS, flags: 9 } : -Errno.EINVAL;
  }
  read(region: number, offset: number, out: Uint8Array): number {
    if (region === PciRegion.CONFIG) for (let i = 0; i < out.length; i++) out[i] = this.function.configRead(offset + i, 1);
    else {
      this.accesses.push(`read ${region} 0x${offset.toString(16)} ${out.length}`);
      out.set(this.registers.subarray(offset, offset + out.length));
    }
    return out.length;
  }
  write(region: number, offset: number, bytes: Uint8Array): number {
    if (region === PciRegion.CONFIG) for (let i = 0; i < bytes.length; i++) this.function.configWrite(offset + i, 1, bytes[i]!);
    else {
      this.accesses.push(`write ${region} 0x${offset.toString(16)} ${bytes.length}`);
      this.registers.set(bytes, offset);
    }
    return bytes.length;
  }
  mmap(area: VmArea, _region: number, offset: number): number {
    for (let i = 0; i < area.length / 4096; i++) area.insert(i, PORTAL_FRAME + offset / 4096 + i);
    this.areas.add(area);
    return 0;
  }
  setIrqs({ flags, start, count, sinks }: IrqRequest): number {
    if (flags & IrqSetFlag.DATA_EVENTFD) for (let i = 0; i < count; i++) this.sinks[start + i] = sinks![i];
    else this.sinks.fill(undefined);
    return 0;
  }
  reset(): number {
    this.function.functionLevelReset();
    return 0;
  }
  attach(domain: object, pasid: number): number {
    this.domains.set(pasid, domain);
    return 0;
  }
  detach(pasid: number): void {
    this.domains.delete(pasid);
  }
}

/** Host, VMM, a device assigned, and the guest's kernel side by ports. */
export function assigned(
  options: {
    iommu?: boolean;
    remapping?: boolean;
    ramBytes?: number;
    hugePages?: boolean;
    frames?: number;
    costs?: VmCosts;
    pageRequests?: 'watched' | 'of the device too';
  } = {},
) {
  const h = host({ frames: 16_384, ...options });
  const { memory, frames, clock, apic, kernel, task, vmOf } = h;
  const unit = new IommuUnit({ memory, sink: apic });
  const driver = new IommuDriver({ registers: unit, memory, frames, clock, vectors: apic });
  driver.enable();
  const asks = options.pageRequests === 'of the device too';
  driver.addDevice(RID, { pasid: true, ats: asks, pri: asks });
  kernel.register('/dev/iommu', driver.iommufd);
  const device = new PortalDevice(memory);
  const core = new VfioCore({
    kernel,
    iommufd: { contextOf: (file) => driver.iommufd.contextOf(file as never) as never },
    iommu: { pagingDomain: () => driver.pagingDomain() as never },
    isEventFd: (file) => (file instanceof EventFd ? file : undefined),
  });
  const { cdev } = core.add(device);
  let front: RegisterFront | undefined;
  const newFront: NewIommuFront = (hooks, guestMemory, sink) => {
    let message: { address: number; data: number } | undefined;
    front = new RegisterFront({ memory: guestMemory, sink, hooks, profile: { capability: { cachingMode: 1 } } });
    const remapper = new InterruptRemapper(front, guestMemory, {
      deliver: (vector, destination) => {
        message = { address: 0xfee0_0000 | (destination << 12), data: vector };
      },
    });
    const f = front;
    return {
      read: (o, w) => f.read(o, w),
      write: (o, w, v) => f.write(o, w, v),
      pasidEntry: (rid, pasid, words) => f.pasidEntry(rid, pasid, words),
      queuePageRequest: (rid, pasid, hi, lo, access, group, last) => f.queuePageRequest(rid, pasid, hi, lo, access, group, last),
      ...(options.remapping
        ? {
            remap: (rid: number, address: number, data: number) => {
              message = undefined;
              remapper.invalidate(0, -1);
              remapper.message(rid, address, data);
              return message;
            },
          }
        : {}),
    };
  };
  /** What the VMM's thread does when a descriptor can be read. */
  const threads: (() => void)[] = [];
  const vmm = new Vmm({
    task,
    vmOf,
    ramBytes: options.ramBytes ?? 2 ** 23,
    hugePages: options.hugePages ?? false,
    ...(options.iommu ? { iommu: newFront } : {}),
    ...(options.pageRequests ? { watch: (_fd: number, run: () => void) => void threads.push(run) } : {}),
  });
  const assignedDevice = vmm.assign(cdev);
  const guest = guestOf(h, vmm.vm);
  const ecam = vmm.ioremap(GuestMap.ecam);
  const at = assignedDevice.requesterId * 4096;
  const config = {
    read: (offset: number, width = 4) => ecam.read(at + offset, width),
    write: (offset: number, value: number, width = 4) => ecam.write(at + offset, width, value),
  };
  /** Places BAR 0 and BAR 2 one after the other, and turns decoding and bus mastering on. */
  const bars = { 0: GuestMap.window.base, 2: GuestMap.window.base + 0x10_0000 };
  const enable = () => {
    for (const bar of [0, 2] as const) {
      config.write(0x10 + bar * 4, bars[bar]);
      config.write(0x14 + bar * 4, 0);
    }
    config.write(4, 6, 2);
  };
  return { ...h, unit, driver, device, vmm, assignedDevice, guest, config, bars, enable, threads, front: () => front! };
}
