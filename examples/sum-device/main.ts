/** A process hands its own addresses to the device of `device.ts`: the IOMMU walks the process's page tables, uacce binds and maps. */
import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { Errno, MapFlag, Open, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { registerUacce } from '@siov/uacce';
import { UacceIoctl } from '@siov/uacce/uapi';
import { Kernel, type Mm, type Program } from '@siov/vfs';
import { Control, Queue, SumDevice } from './device.js';

// The machine: 16 MiB, a processor, an IOMMU, our device as function 00:02.0.
const clock = new Clock();
const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0, 4096));
const cpu = new Cpu({ memory, clock });
const apic = new LocalApic({ clock });
const unit = new IommuUnit({ memory, sink: apic, clock });
const RID = 0x10;
const device = new SumDevice(clock, unit.requester(RID));
memory.addMmio(0xf0000, 1, device.queue);
memory.addMmio(0xf0001, 1, device.control);

// The kernel: its IOMMU driver, user space, and our driver's seven lines.
const iommu = new IommuDriver({ registers: unit, memory, frames, clock, vectors: apic });
iommu.enable();
iommu.addDevice(RID, { pasid: true });
const kernel = new Kernel({
  clock,
  cpu,
  newMm: () => new AddressSpace({ memory, frames, flush: (root, page, pages) => cpu.flush(root, page, pages) }),
});
registerUacce<Mm, never>({
  name: 'sum',
  id: 0,
  api: 'sum_v1',
  regionPages: [1, 0],
  kernel,
  sva: { bind: (mm) => iommu.svaBind(RID, mm) },
  ops: {
    getQueue: () => 0,
    putQueue() {},
    startQueue: (queue) => (device.control.write(Control.pasid, 4, queue.pasid), 0),
    stopQueue: () => device.control.write(Control.pasid, 4, -1),
    isQueueUpdated: () => true,
    mmap: (_queue, area) => (area.length === 4096 ? (area.insert(0, 0xf0000), 0) : -Errno.EINVAL),
  },
});

// The user: opens, maps, starts, asks, waits, reads.
let page = 0;
const program: Program = {
  step(task) {
    if (page === 0) {
      const fd = task.open('/dev/sum-0', Open.RDWR);
      page = task.mmap(0, 4096, Prot.READ | Prot.WRITE, MapFlag.SHARED, fd, 0);
      task.ioctl(fd, UacceIoctl.START_Q, 0);
      const buffer = task.alloc(20_000);
      task.writeStruct(buffer, new Uint8Array(20_000).fill(3));
      task.store(page + Queue.addressLow, 4, buffer % 2 ** 32);
      task.store(page + Queue.addressHigh, 4, Math.floor(buffer / 2 ** 32));
      task.store(page + Queue.length, 4, 20_000);
      task.store(page + Queue.go, 4, 1);
      return 'wait';
    }
    if (task.load(page + Queue.state, 4) === 1) return 'wait';
    console.log(`state ${task.load(page + Queue.state, 4)}, sum ${task.load(page + Queue.sum, 4)}, PASID ${task.mm.pasid}`);
    return 'done';
  },
};
kernel.spawn(program, 'sum');
kernel.run();
