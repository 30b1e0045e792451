/**
 * The VMM as a program: makes a VM over its own memory, shows the guest a PCI bus with assigned devices and a virtual IOMMU, and answers
 * the accesses that end in user space. All that it wants of the kernel it gets by system calls of its process. Documentation/virt/kvm/api.rst;
 * linux/vfio.h, linux/iommufd.h.
 */
import { iommufd } from '@siov/iommu/spec';
import { MapFlag, Open, Prot } from '@siov/layout/uapi';
import { MSI_RANGE } from '@siov/layout/x86';
import { ECAM_BUS_BYTES, PciRoot } from '@siov/pci-core';
import type { GuestMemory } from '../kvm/guest-memory.js';
import { API_VERSION, KvmIoctl } from '../kvm/uapi.js';
import type { GuestHooks, Vcpu, Vm } from '../kvm/vm.js';
import type { IommuFront, Mmio, NewIommuFront, Process } from '../ports.js';
import { type AssignedBar, AssignedDevice } from './assigned.js';
import { Calls, high, low, VmmError } from './calls.js';
import { Machine } from './machine.js';
import { VirtualIommu } from './virtual-iommu.js';

export interface VmmOptions {
  /** The process it runs in. */
  readonly task: Process;
  /** The VM behind a descriptor of that process. */
  vmOf(fd: number): Vm | undefined;
  /** A multiple of 2 MiB, below the guest's device space at 3.5 GiB. */
  readonly ramBytes: number;
  /** Guest memory in pages of 2 MiB. */
  readonly hugePages?: boolean;
  /** Makes the front of the virtual IOMMU; absent, the guest has none and assigned devices reach all of its memory. */
  readonly iommu?: NewIommuFront | undefined;
  /**
   * Calls `run` whenever a descriptor of the process can be read: a thread of the VMM that sleeps in poll. With it, page requests of assigned
   * devices go to the guest; absent, they are refused.
   */
  readonly watch?: ((fd: number, run: () => void) => void) | undefined;
}
/** The guest's physical address space. */
export const GuestMap = {
  ram: 0,
  ecam: 0xe000_0000,
  window: { base: 0xe100_0000, bytes: 0x1000_0000 },
  iommu: 0xfed9_0000,
  iommuBytes: 0x4000,
} as const;
export interface Refusal {
  readonly call: string;
  /** -errno. */
  readonly errno: number;
}
interface Range {
  readonly base: number;
  readonly bytes: number;
  readonly device: Mmio;
}
const HUGE = 2 ** 21;
const PACKET = 64;
const REFUSALS = 256;
const { HwptAlloc, HwptAllocFlag, IoasAlloc, IoasMap, IoasMapFlag, IommufdIoctl } = iommufd;

export class Vmm {
  // fixed
  readonly task: Process;
  readonly vm: Vm;
  readonly ramBytes: number;
  /** Where guest memory lies in the process. */
  readonly ramAddress: number;
  readonly root: PciRoot<Range>;
  /** The last system calls that were refused while the guest ran. */
  readonly refusals: Refusal[] = [];
  private readonly calls: Calls;
  private readonly machine: Machine;
  private readonly kvmFd: number;
  private readonly vcpuFd: number;
  private readonly iommufdFd: number;
  private readonly ioasId: number;
  private readonly virtualIommu: VirtualIommu | undefined;
  // state
  private readonly assigned = new Set<AssignedDevice>();
  private readonly ranges: Range[] = [];
  private parentId = -1;

  /** A VmmError when the kernel refuses what a VM needs. */
  constructor(options: VmmOptions) {
    const { task, ramBytes, hugePages = false } = options;
    if (!(Number.isInteger(ramBytes / HUGE) && ramBytes > 0 && ramBytes <= GuestMap.ecam))
      throw new RangeError(`ramBytes: a multiple of 2 MiB up to 3.5 GiB, not ${ramBytes}`);
    this.task = task;
    this.ramBytes = ramBytes;
    this.calls = new Calls(task);
    const { calls } = this;
    this.kvmFd = calls.must('open /dev/kvm', task.open('/dev/kvm', Open.RDWR));
    if (task.ioctl(this.kvmFd, KvmIoctl.GET_API_VERSION, 0) !== API_VERSION) throw new VmmError('KVM_GET_API_VERSION', -1);
    const vmFd = calls.must('KVM_CREATE_VM', task.ioctl(this.kvmFd, KvmIoctl.CREATE_VM, 0));
    const vm = options.vmOf(vmFd);
    if (!vm) throw new TypeError('vmOf: knows no VM behind the descriptor that KVM_CREATE_VM gave');
    this.vm = vm;
    this.machine = new Machine(calls, vmFd);
    this.vcpuFd = calls.must('KVM_CREATE_VCPU', task.ioctl(vmFd, KvmIoctl.CREATE_VCPU, 0));
    const vcpu: Vcpu = vm.vcpus.get(0)!;
    vcpu.onMmio = (address, width, write, value, packet) => this.access(address, width, write, value, packet);

    const flags = MapFlag.SHARED | MapFlag.ANONYMOUS | (hugePages ? MapFlag.HUGETLB : 0);
    this.ramAddress = calls.must('mmap of guest memory', task.mmap(0, ramBytes, Prot.READ | Prot.WRITE, flags));
    calls.must('KVM_SET_USER_MEMORY_REGION', this.machine.addSlot(GuestMap.ram, ramBytes, this.ramAddress));
    this.iommufdFd = calls.must('open /dev/iommu', task.open('/dev/iommu', Open.RDWR));
    this.ioasId = this.makeIoas();

    this.root = new PciRoot({
      window: GuestMap.window,
      map: {
        addMmio: (firstFrame, frames, device) => this.addBar({ base: firstFrame * 4096, bytes: frames * 4096, device }),
        remove: (range: Range) => this.removeBar(range),
      },
    });
    this.ranges.push({ base: GuestMap.ecam, bytes: ECAM_BUS_BYTES, device: this.root });
    if (options.iommu) {
      this.virtualIommu = new VirtualIommu({
        calls,
        iommufd: this.iommufdFd,
        memory: vm.guestMemory(),
        sink: { deliver: (vector, destination) => void this.machine.signal(MSI_RANGE | (destination << 12), vector) },
        front: options.iommu,
        parent: (deviceId) => this.nestParent(deviceId),
        devices: this.assigned,
        pasidGone: (pasid) => vm.pasids.clear(pasid),
        refused: (call, errno) => this.refused(call, errno),
        watch: options.watch,
      });
      this.ranges.push({ base: GuestMap.iommu, bytes: GuestMap.iommuBytes, device: this.virtualIommu.front });
    }
  }

  /** Guest physical RAM, for the guest's kernel. */
  get guestMemory(): GuestMemory {
    return this.vm.guestMemory();
  }
  /** What makes a kernel instance this VM's guest. */
  get guest(): GuestHooks {
    return this.vm.guest;
  }
  get devices(): Iterable<AssignedDevice> {
    return this.assigned;
  }
  get iommu(): IommuFront | undefined {
    return this.virtualIommu?.front;
  }
  /** Guest PASIDs of an assigned device that have page tables on the host. */
  pasidsOf(device: AssignedDevice): number[] {
    return this.virtualIommu?.pasidsOf(device) ?? [];
  }

  /** Device registers at a guest physical address, as the guest's kernel reaches them. */
  ioremap(address: number): Mmio {
    return this.vm.ioremap(address);
  }

  /** Gives the guest a device, such as '/dev/vfio/devices/vfio0', at a free slot of bus 0. A VmmError when the kernel refuses. */
  assign(path: string, slot = this.freeSlot()): AssignedDevice {
    const device = new AssignedDevice(path, this.machine, {
      iommufd: this.iommufdFd,
      ptId: (deviceId) => (this.virtualIommu ? this.nestParent(deviceId) : this.ioasId),
      remap: (each, address, data) => {
        const front = this.virtualIommu?.front;
        return front?.remap ? front.remap(each.requesterId, address, data) : { address, data };
      },
      refused: (call, errno) => this.refused(call, errno),
    });
    try {
      this.root.add(device, slot);
    } catch (error) {
      device.close();
      throw error;
    }
    this.assigned.add(device);
    this.virtualIommu?.add(device);
    return device;
  }

  /** Takes a device out of the guest. */
  unassign(device: AssignedDevice): void {
    if (!this.assigned.delete(device)) throw new RangeError('device: not assigned to this guest');
    this.root.remove(device);
    device.close();
    this.virtualIommu?.remove(device);
  }

  /** Ends the VM: devices first, then all descriptors and the guest's memory. */
  close(): void {
    const { task } = this;
    for (const device of [...this.assigned]) this.unassign(device);
    this.virtualIommu?.close();
    for (const fd of [this.vcpuFd, this.machine.vmFd, this.kvmFd, this.iommufdFd]) task.close(fd);
    task.munmap(this.ramAddress, this.ramBytes);
  }

  // --- exits

  private access(address: number, width: number, write: boolean, value: number, packet: Uint32Array): number {
    const range = this.rangeOf(address);
    if (width === PACKET) {
      const offset = range ? address - range.base : 0;
      if (value === 1) return range?.device.enqcmd?.(offset, packet, 0) ?? 1;
      range?.device.movdir64b?.(offset, packet, 0);
      return 0;
    }
    if (!range) return write ? 0 : width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1;
    if (!write) return range.device.read(address - range.base, width);
    range.device.write(address - range.base, width, width === 4 ? value >>> 0 : value & (2 ** (8 * width) - 1));
    return 0;
  }

  private rangeOf(address: number): Range | undefined {
    for (const range of this.ranges) if (address >= range.base && address < range.base + range.bytes) return range;
    return undefined;
  }

  private addBar(range: Range): Range {
    this.ranges.push(range);
    (range.device as Partial<AssignedBar>).place?.(range.base);
    return range;
  }
  private removeBar(range: Range): void {
    const at = this.ranges.indexOf(range);
    if (at >= 0) this.ranges.splice(at, 1);
    (range.device as Partial<AssignedBar>).unplace?.();
  }

  // --- set-up

  private freeSlot(): number {
    for (let slot = 1; slot < 32; slot++) if (!this.root.function(slot << 3)) return slot;
    throw new RangeError('assign: all slots of bus 0 are taken');
  }

  /** An address space of the IOMMU with all of the guest's memory at its guest physical addresses. */
  private makeIoas(): number {
    const { calls, iommufdFd } = this;
    const alloc = new Uint32Array(IoasAlloc.bytes / 4);
    IoasAlloc.set.size(alloc, 0, IoasAlloc.bytes);
    calls.must('IOMMU_IOAS_ALLOC', calls.ioctl(iommufdFd, IommufdIoctl.IOAS_ALLOC, alloc));
    const id = IoasAlloc.get.ioasId(alloc, 0);
    const words = new Uint32Array(IoasMap.bytes / 4);
    const { set } = IoasMap;
    set.size(words, 0, IoasMap.bytes);
    set.flags(words, 0, IoasMapFlag.FIXED_IOVA | IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE);
    set.ioasId(words, 0, id);
    set.userLow(words, 0, low(this.ramAddress));
    set.userHigh(words, 0, high(this.ramAddress));
    set.lengthLow(words, 0, low(this.ramBytes));
    set.lengthHigh(words, 0, high(this.ramBytes));
    set.iovaLow(words, 0, GuestMap.ram);
    calls.must('IOMMU_IOAS_MAP', calls.ioctl(iommufdFd, IommufdIoctl.IOAS_MAP, words));
    return id;
  }

  /** The page table of all guest memory, on which the guest's own first stages are nested. Made with the first device. */
  private nestParent(deviceId: number): number {
    if (this.parentId >= 0) return this.parentId;
    const words = new Uint32Array(HwptAlloc.bytes / 4);
    const { set } = HwptAlloc;
    set.size(words, 0, HwptAlloc.bytes);
    set.flags(words, 0, HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID);
    set.deviceId(words, 0, deviceId);
    set.parentId(words, 0, this.ioasId);
    this.calls.must('IOMMU_HWPT_ALLOC', this.calls.ioctl(this.iommufdFd, IommufdIoctl.HWPT_ALLOC, words));
    return (this.parentId = HwptAlloc.get.hwptId(words, 0));
  }

  private refused(call: string, errno: number): void {
    if (this.refusals.length >= REFUSALS) this.refusals.shift();
    this.refusals.push({ call, errno });
  }
}
