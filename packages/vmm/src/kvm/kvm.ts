/** /dev/kvm, and the files of VMs and vCPUs, with the kernel's refusals. Documentation/virt/kvm/api.rst. */
import { Errno } from '@siov/layout/uapi';
import type { EventSource, InterruptSink, OpenFile, Task } from '../ports.js';
import {
  API_VERSION,
  Capability,
  Irqfd,
  IrqfdFlag,
  IrqRouting,
  KvmIoctl,
  kvmIoctlNames,
  MAX_MEMSLOTS,
  MAX_ROUTES,
  MAX_VCPUS,
  MemoryRegion,
  Msi,
  RoutingEntry,
} from './uapi.js';
import { type Vcpu, Vm, type VmPorts } from './vm.js';

export interface KvmOptions extends VmPorts {
  /** The eventfd behind an open file; undefined when it is another kind of file. */
  eventFd(file: OpenFile): EventSource | undefined;
  /** Makes the local APIC of a new guest; absent, whoever builds the guest sets `vm.apic`. */
  newApic?(): InterruptSink;
}

const extensions: Readonly<Record<number, number>> = {
  [Capability.USER_MEMORY]: 1,
  [Capability.NR_VCPUS]: MAX_VCPUS,
  [Capability.NR_MEMSLOTS]: MAX_MEMSLOTS,
  [Capability.IRQ_ROUTING]: MAX_ROUTES,
  [Capability.IRQFD]: 1,
  [Capability.MAX_VCPUS]: MAX_VCPUS,
  [Capability.SIGNAL_MSI]: 1,
  [Capability.READONLY_MEM]: 1,
};

/** The device node. */
export class Kvm {
  private readonly options: KvmOptions;

  constructor(options: KvmOptions) {
    for (const name of ['memory', 'frames', 'cpu', 'clock', 'eventFd'] as const)
      if (!options[name]) throw new TypeError(`options.${name}: KVM needs it`);
    this.options = options;
  }

  open(): OpenFile {
    return {
      ioctlNames: kvmIoctlNames,
      ioctl: (task, number, argument) => {
        switch (number >>> 0) {
          case KvmIoctl.GET_API_VERSION:
            return argument === 0 ? API_VERSION : -Errno.EINVAL;
          case KvmIoctl.CHECK_EXTENSION:
            return extensions[argument] ?? 0;
          case KvmIoctl.CREATE_VM:
            return argument === 0 ? this.create(task) : -Errno.EINVAL;
          default:
            return -Errno.ENOTTY;
        }
      },
    };
  }

  /** The VM of an open file; undefined when it is none of a VM. */
  vmOf(file: OpenFile | undefined): Vm | undefined {
    return file instanceof VmFile ? file.vm : undefined;
  }
  /** The vCPU of an open file, whose `onMmio` stands for KVM_RUN. */
  vcpuOf(file: OpenFile | undefined): Vcpu | undefined {
    return file instanceof VcpuFile ? file.vcpu : undefined;
  }

  private create(task: Task): number {
    let vm: Vm;
    try {
      vm = new Vm(task.mm, this.options);
    } catch (error) {
      if (error instanceof RangeError) return -Errno.ENOMEM;
      throw error;
    }
    vm.apic = this.options.newApic?.();
    const fd = task.install(new VmFile(vm, this.options));
    if (fd < 0) vm.put();
    return fd;
  }
}

class VcpuFile implements OpenFile {
  readonly ioctlNames = kvmIoctlNames;
  readonly vcpu: Vcpu;
  private readonly vm: Vm;
  constructor(vm: Vm, vcpu: Vcpu) {
    this.vm = vm;
    this.vcpu = vcpu;
  }
  close(): void {
    delete this.vcpu.onMmio;
    this.vm.put();
  }
}

class VmFile implements OpenFile {
  readonly ioctlNames = kvmIoctlNames;
  readonly vm: Vm;
  private readonly options: KvmOptions;
  private readonly words = new Uint32Array(MemoryRegion.bytes / 4);
  private readonly bytes = new Uint8Array(this.words.buffer);

  constructor(vm: Vm, options: KvmOptions) {
    this.vm = vm;
    this.options = options;
  }

  ioctl(task: Task, number: number, argument: number): number {
    const { vm, words, bytes } = this;
    // A VM belongs to one process.
    if (task.mm !== vm.mm) return -Errno.EIO;
    switch (number >>> 0) {
      case KvmIoctl.CHECK_EXTENSION:
        return extensions[argument] ?? 0;
      case KvmIoctl.CREATE_VCPU:
        return this.createVcpu(task, argument);
      case KvmIoctl.SET_USER_MEMORY_REGION:
        return task.copyIn(argument, bytes) ? -Errno.EFAULT : vm.memslots.set(words);
      case KvmIoctl.SET_GSI_ROUTING:
        return this.setRouting(task, argument);
      case KvmIoctl.IRQFD:
        return task.copyIn(argument, bytes) ? -Errno.EFAULT : this.irqfd(task);
      case KvmIoctl.SIGNAL_MSI:
        if (task.copyIn(argument, bytes)) return -Errno.EFAULT;
        return Msi.get.flags(words, 0) ? -Errno.EINVAL : vm.interrupts.send(Msi.get.addressLow(words, 0), Msi.get.data(words, 0));
      default:
        return -Errno.ENOTTY;
    }
  }

  close(): void {
    this.vm.put();
  }

  private createVcpu(task: Task, id: number): number {
    const { vm } = this;
    if (!(Number.isInteger(id) && id >= 0 && id < MAX_VCPUS)) return -Errno.EINVAL;
    if (vm.vcpus.has(id)) return -Errno.EEXIST;
    const vcpu: Vcpu = { id };
    const fd = task.install(new VcpuFile(vm, vcpu));
    if (fd < 0) return fd;
    vm.hold();
    vm.vcpus.set(id, vcpu);
    return fd;
  }

  private setRouting(task: Task, argument: number): number {
    const { words, bytes } = this;
    if (task.copyIn(argument, bytes.subarray(0, IrqRouting.bytes))) return -Errno.EFAULT;
    const count = IrqRouting.get.count(words, 0);
    if (count > MAX_ROUTES || IrqRouting.get.flags(words, 0)) return -Errno.EINVAL;
    const entries = new Uint32Array((count * RoutingEntry.bytes) / 4);
    if (count && task.copyIn(argument + IrqRouting.bytes, new Uint8Array(entries.buffer))) return -Errno.EFAULT;
    return this.vm.interrupts.setRouting(entries, count);
  }

  private irqfd(task: Task): number {
    const { get } = Irqfd;
    const flags = get.flags(this.words, 0);
    const gsi = get.gsi(this.words, 0);
    // Level-triggered interrupts, and with them resampling, are not here.
    if (flags & ~IrqfdFlag.DEASSIGN || gsi >= MAX_ROUTES) return -Errno.EINVAL;
    const file = task.file(get.fd(this.words, 0) | 0);
    if (!file) return -Errno.EBADF;
    const source = this.options.eventFd(file);
    return source ? this.vm.interrupts.irqfd(source, gsi, flags) : -Errno.EINVAL;
  }
}
