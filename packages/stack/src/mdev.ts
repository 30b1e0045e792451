/**
 * Recipe: a host that cuts a dedicated work queue out as a virtual device, a VMM process that assigns it through VFIO, and a guest whose own
 * kernel drives it. Pulls in no uacce. The guest runs the same kernel code as the host, on what the VMM shows it.
 */
import { LocalApic } from '@siov/cpu';
import { type IdxdDriver, userQueue, type WqConfig } from '@siov/idxd-driver';
import { type IdxdMdevParent, idxdMdevParent, TYPE_1DWQ, type Vdev } from '@siov/idxd-mdev';
import { RegisterFront } from '@siov/iommu';
import { errnoName, MapFlag, Open, Poll, Prot } from '@siov/layout/uapi';
import { FrameAllocator } from '@siov/memory';
import { MdevBus } from '@siov/vfio-mdev';
import { EventFd, type Program, type Scheduled, schedule, type UserTask } from '@siov/vfs';
import { GuestFrames, GuestMap, Kvm, type Vm, Counter as VmCounter, Vmm } from '@siov/vmm';
import { Host, type HostOptions } from './host.js';
import { KernelInstance } from './kernel.js';
import { vfioOf } from './vfio.js';
import type { OpenQueue } from './workload.js';

export interface MdevStackOptions extends HostOptions {
  /** The queue behind the virtual device; dedicated. */
  readonly wq?: Partial<WqConfig>;
  /** How many virtual devices the guest gets, each with a queue of its own (default 1). */
  readonly vdevs?: number;
  /** Bytes of guest memory, a multiple of 2 MiB (default 64 MiB). */
  readonly guestRamBytes?: number;
  /** Guest memory in 2 MiB pages of the VMM (default true). */
  readonly guestHugePages?: boolean;
}

/** The VMM is a process that serves exits; between them it sleeps. */
const parked: Program = { step: () => 'wait' };
const uuid = (n: number): string => `6f1d9a5e-0c4b-4f6d-9a56-8d6c3f1f4b${n.toString(16).padStart(2, '0')}`;

export class MdevStack {
  readonly host: Host;
  readonly driver: IdxdDriver;
  readonly parent: IdxdMdevParent;
  readonly #parent: { unregister(): void };
  readonly vdevs: readonly Vdev[];
  /** The VMM's process on the host. */
  readonly vmmTask: UserTask;
  readonly vmm: Vmm;
  readonly vm: Vm;
  readonly guest: KernelInstance;
  readonly guestApic: LocalApic;
  /** The guest's drivers, one a virtual device. */
  readonly guestDrivers: readonly IdxdDriver[];
  /** The guest's own character devices of the queues. */
  readonly guestPaths: readonly string[];

  constructor(options: MdevStackOptions = {}) {
    const host = new Host(options);
    this.host = host;
    const { kernel, clock } = host;
    const trace = options.trace ? { trace: options.trace } : {};

    // Host: dedicated queues of type mdev, VFIO, the mdev bus, and virtual devices made by writing UUIDs.
    const uuids = Array.from({ length: options.vdevs ?? 1 }, (_, n) => uuid(n));
    this.driver = kernel.bindIdxd(kernel.devices[0]!, {
      wqs: uuids.map(() => ({ mode: 'dedicated', size: Math.floor(128 / uuids.length), group: 0, ...options.wq, type: 'mdev' })),
    });
    const core = vfioOf(host);
    const bus = new MdevBus({ core, kernel: kernel.user });
    this.parent = idxdMdevParent({ driver: this.driver, iommu: kernel.iommu });
    this.#parent = bus.registerParent(this.parent);
    const create = `/sys/class/mdev_bus/${this.parent.name}/mdev_supported_types/idxd-${TYPE_1DWQ}/create`;
    for (const id of uuids) {
      const made = kernel.user.sysfs.write(create, id);
      if (made < 0) throw new RangeError(`MdevStack: create of ${TYPE_1DWQ}: ${errnoName(made)}`);
    }
    this.vdevs = uuids.map((id) => this.parent.devices.get(id)!);

    // The VMM.
    this.guestApic = new LocalApic({ clock, costs: host.costs.apic, ...trace });
    const kvm = new Kvm({
      memory: host.memory,
      frames: host.frames,
      cpu: host.cpu,
      clock,
      costs: { ...host.costs.vmm, mmioRead: host.costs.cpu.mmioRead, mmioWrite: host.costs.cpu.mmioWrite },
      eventFd: (file) => (file instanceof EventFd ? file : undefined),
      newApic: () => this.guestApic,
      ...trace,
    });
    kernel.user.register('/dev/kvm', kvm);
    this.vmmTask = kernel.user.spawn(parked, 'vmm');
    const { vmmTask } = this;
    // A thread of the VMM that sleeps in poll: it runs by itself, even while the guest's kernel waits for its device.
    const watch = (fd: number, run: () => void): void => {
      const handler = clock.handler(() => {
        if (vmmTask.exited) return;
        run();
        sleep();
      });
      const waiter = Object.assign(Object.create(vmmTask), { wakeUp: () => clock.after(0, handler, 0) });
      const sleep = (): void => {
        const file = vmmTask.file(fd);
        if ((file?.poll?.(waiter) ?? 0) & Poll.IN) clock.after(0, handler, 0);
      };
      sleep();
    };
    this.vmm = new Vmm({
      task: vmmTask,
      vmOf: (fd) => kvm.vmOf(vmmTask.file(fd)),
      ramBytes: options.guestRamBytes ?? 64 << 20,
      hugePages: options.guestHugePages ?? true,
      watch,
      iommu: (hooks, memory, sink) =>
        new RegisterFront({ hooks, memory, sink, profile: { capability: { cachingMode: 1 }, extendedCapability: { interruptRemapping: 0 } } }),
    });
    this.vm = this.vmm.vm;
    for (const id of uuids) this.vmm.assign(bus.find(id)!.nodes.cdev);

    // The guest's kernel.
    const memory = this.vmm.guestMemory;
    this.guest = new KernelInstance({
      name: 'guest',
      clock,
      cpu: host.cpu,
      apic: this.guestApic,
      memory,
      frames: new GuestFrames(memory.regions, (region) => new FrameAllocator(region)),
      costs: host.costs,
      trace: options.trace,
      iommu: this.vmm.ioremap(GuestMap.iommu),
      interruptRemapping: false,
      ecam: this.vmm.ioremap(GuestMap.ecam),
      window: GuestMap.window,
      ioremap: (address) => this.vmm.ioremap(address),
      guest: this.vmm.guest,
    });
    this.guestDrivers = this.guest.devices.map((device) => this.guest.bindIdxd(device, { wqs: [] }));
    this.guestPaths = this.guestDrivers.map(
      (driver) => userQueue(driver, driver.wqs[0]!, driver.ports.submit ? { submit: driver.ports.submit } : {}).path,
    );
  }

  /** The first virtual device. */
  get vdev(): Vdev {
    return this.vdevs[0]!;
  }
  /** VM exits by reason so far. */
  get exits(): Record<string, number> {
    return Object.fromEntries(Object.entries(VmCounter).map(([name, index]) => [name, this.vm.counters[index]!]));
  }
  /** All of them. */
  get traps(): number {
    return this.vm.counters[VmCounter.eptViolations]! + this.vm.counters[VmCounter.pasidExits]!;
  }
  /**
   * The driver takes the queues back: the mdev parent goes, VFIO asks the VMM for its devices (the REQ interrupt), and the VMM gives them up.
   * The guest sees a surprise removal: its portal pages are gone, and a store to them reaches nothing.
   */
  unbind(): void {
    this.#parent.unregister();
    for (const device of [...this.vmm.devices]) this.vmm.unassign(device);
  }
  /** Runs the processes of host and guest until nothing can run, or until `until`. A guest whose VMM has died does not run. */
  run(until?: () => boolean): void {
    const { vmmTask } = this;
    const { user } = this.guest;
    const guest: Scheduled = {
      get tasks() {
        return vmmTask.exited ? [] : user.tasks;
      },
      step: (task) => !vmmTask.exited && user.step(task as UserTask),
      wakeAll: () => user.wakeAll(),
    };
    schedule([this.host.kernel.user, guest], this.host.clock, until);
  }
}

/** Opens a queue as a program in the guest does: the character device of the guest's own driver. For `Workload`. */
export function openGuestQueue(stack: MdevStack, vdev = 0): OpenQueue {
  return (task) => {
    const path = stack.guestPaths[vdev];
    if (!path) throw new RangeError(`openGuestQueue: the guest has ${stack.guestPaths.length} virtual devices, no number ${vdev}`);
    const fd = task.open(path, Open.RDWR);
    if (fd < 0) throw new RangeError(`open ${path} in the guest: ${errnoName(fd)}`);
    const address = task.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, fd, 0);
    if (address < 0) throw new RangeError(`${path}: ${errnoName(address)}`);
    return { address, mode: 'dedicated', depthLimit: stack.guestDrivers[vdev]!.wqs[0]!.config.size, close: () => void task.close(fd) };
  };
}

export { Host, type HostOptions } from './host.js';
export { bytesSource, type OpenQueue, Workload, type WorkloadOptions, type WorkloadResult } from './workload.js';
