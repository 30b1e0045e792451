import { Clock, Cpu } from '@siov/cpu';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { MdevBus, type PagingDomain, VfioCore, type VfioDevice } from '@siov/vfio-mdev';
import { DmaMap, Extension, Ioctl, PciRegion, regionOffset } from '@siov/vfio-mdev/uapi';
import { EventFd, Kernel } from '@siov/vfs';

const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0x100, 256));
const clock = new Clock();
const cpu = new Cpu({ memory, clock });
const kernel = new Kernel({ clock, cpu, newMm: () => new AddressSpace({ memory, frames, clock }) });

// An IOMMU driver that only prints, and a mediated device with nothing but a vendor id.
const domain: PagingDomain = {
  map: (iova, _frame, count) => (console.log('map', count, 'pages at', iova), 0),
  unmap: (iova, bytes) => (console.log('unmap', bytes, 'bytes at', iova), bytes),
  free: () => 0,
};
const create = (uuid: string): VfioDevice => ({
  ...{ name: uuid, requesterId: 0x08, flags: 2, regions: 9, irqs: 5, open: () => 0, close() {}, reset: () => 0 },
  ...{ attach: () => 0, detach() {}, mmap: () => -22, setIrqs: () => -25, irqInfo: () => ({ count: 0, flags: 0 }) },
  regionInfo: (index) => (index === PciRegion.CONFIG ? { size: 256, flags: 1 } : { size: 0, flags: 0 }),
  read: (_region, offset, out) => (out.set([0x86, 0x80, 0x25, 0x0b].slice(offset)), out.length),
  write: () => -22,
});

const core = new VfioCore({
  kernel,
  iommu: { pagingDomain: () => domain },
  iommufd: { contextOf: () => undefined },
  isEventFd: (file) => (file instanceof EventFd ? file : undefined),
});
const bus = new MdevBus({ core, kernel });
const types = [{ sysfsName: '1dwq-v1' }];
bus.registerParent({ name: '0000:00:01.0', driverName: 'idxd', types, create: (_type, uuid) => create(uuid), remove: () => console.log('gone') });

// The administrator makes a device, a program uses it.
const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
kernel.sysfs.write('/sys/class/mdev_bus/0000:00:01.0/mdev_supported_types/idxd-1dwq-v1/create', uuid);
kernel.spawn({
  step(task) {
    const at = task.alloc(4096);
    const call = (fd: number, number: number, words: number[]) => (task.writeStruct(at, Uint32Array.from(words)), task.ioctl(fd, number, at));
    const container = task.open('/dev/vfio/vfio', 2);
    const group = task.open('/dev/vfio/0', 2);
    call(group, Ioctl.GROUP_SET_CONTAINER, [container]);
    task.ioctl(container, Ioctl.SET_IOMMU, Extension.TYPE1v2);
    task.writeStruct(at, new TextEncoder().encode(`${uuid}\0`));
    const device = task.ioctl(group, Ioctl.GROUP_GET_DEVICE_FD, at);
    task.pread(device, at, 4, regionOffset(PciRegion.CONFIG));
    console.log('vendor and device', task.load(at, 4).toString(16));

    const buffer = task.alloc(8192);
    const map = new Uint32Array(DmaMap.bytes / 4).fill(0);
    DmaMap.set.argsz(map, 0, DmaMap.bytes);
    DmaMap.set.flags(map, 0, 3);
    DmaMap.set.vaddrLow(map, 0, buffer);
    DmaMap.set.vaddrHigh(map, 0, buffer / 2 ** 32);
    DmaMap.set.iovaLow(map, 0, 0x10000);
    DmaMap.set.sizeLow(map, 0, 8192);
    console.log('MAP_DMA answers', call(container, Ioctl.IOMMU_MAP_DMA, [...map]));
    return 'done'; // its end closes all, and unpins
  },
});
kernel.run();
kernel.sysfs.write(`/sys/bus/mdev/devices/${uuid}/remove`, '1');
