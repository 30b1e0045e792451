import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice } from '@siov/idxd-device';
import { Command, Descriptor, Flag, Opcode, Register } from '@siov/idxd-device/spec';
import { IdxdDriver } from '@siov/idxd-driver';
import { idxdMdevParent, TYPE_1DWQ } from '@siov/idxd-mdev';
import { ImsDomain, MsixDomain } from '@siov/ims-irq';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { hi, lo } from '@siov/layout';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { enumerate, type Mmio, PciRoot } from '@siov/pci-core';
import { MdevBus, VfioCore } from '@siov/vfio-mdev';
import { Extension, Ioctl, PciRegion, regionOffset } from '@siov/vfio-mdev/uapi';
import { EventFd, Kernel } from '@siov/vfs';

// A host: memory, a processor, a remapping unit, one DSA device on the bus.
const clock = new Clock();
const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0, 8192), 16, 8192);
const cpu = new Cpu({ memory, clock });
const apic = new LocalApic({ clock });
const unit = new IommuUnit({ memory, sink: apic, clock });
const window = { base: 0xe100_0000, bytes: 0x100_0000 };
const root = new PciRoot({ map: memory, window });
const device = new IdxdDevice({ clock });
root.add(device.function, 1);
device.connect(unit.requester(device.function.requesterId, device));
const ioremap = (address: number): Mmio => {
  const at = (offset: number): [Mmio, number] => {
    const region = memory.regionOf((address + offset) >>> 12)!;
    return [region.device!, address + offset - region.firstFrame * 4096];
  };
  const read: Mmio['read'] = (offset, width) => at(offset)[0].read(at(offset)[1], width);
  return { read, write: (offset, width, value) => at(offset)[0].write(at(offset)[1], width, value) };
};

// Its kernel: IOMMU driver, idxd driver with a dedicated queue of type mdev, VFIO, and the mdev parent.
const kernel = new Kernel({ clock, cpu, newMm: () => new AddressSpace({ memory, frames, clock }) });
const iommu = new IommuDriver({ registers: unit, memory, frames, clock, vectors: apic });
iommu.enable();
const irqs = iommu.irqDomain();
const driver = new IdxdDriver({
  device: enumerate({ ecam: root, window, ioremap })[0]!,
  clock,
  iommu,
  kernel,
  interrupts: {
    msix: (pci, capability, bar) => new MsixDomain(irqs, pci, capability, bar),
    ims: (slots, requesterId, size) => new ImsDomain(irqs, slots, requesterId, size),
  },
});
driver.probe();
driver.configure({ wqs: [{ mode: 'dedicated', size: 16, group: 0, type: 'mdev' }] });
const core = new VfioCore({
  kernel,
  iommu,
  iommufd: { contextOf: (file) => iommu.iommufd.contextOf(file as never) },
  isEventFd: (file) => (file instanceof EventFd ? file : undefined),
});
const parent = idxdMdevParent({ driver, iommu });
new MdevBus({ core, kernel }).registerParent(parent);

// The administrator makes a virtual device.
const uuid = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const type = `/sys/class/mdev_bus/${parent.name}/mdev_supported_types/idxd-${TYPE_1DWQ}`;
console.log('available', kernel.sysfs.read(`${type}/available_instances`));
kernel.sysfs.write(`${type}/create`, uuid);

// A program opens it and gives it the arena, at address 0x10000 for DMA: a descriptor, its record, a source and a destination.
const task = kernel.spawn({ step: () => 'wait' });
const arena = task.alloc(4096);
const scratch = task.alloc(4096);
const call = (fd: number, number: number, ...words: number[]): number => {
  task.writeStruct(scratch, Uint32Array.from(words));
  return task.ioctl(fd, number, scratch);
};
const container = task.open('/dev/vfio/vfio', 2);
const group = task.open('/dev/vfio/0', 2);
call(group, Ioctl.GROUP_SET_CONTAINER, container);
task.ioctl(container, Ioctl.SET_IOMMU, Extension.TYPE1v2);
call(container, Ioctl.IOMMU_MAP_DMA, 32, 3, lo(arena), hi(arena), 0x10000, 0, 4096, 0);
task.writeStruct(scratch, new TextEncoder().encode(`${uuid}\0`));
const fd = task.ioctl(group, Ioctl.GROUP_GET_DEVICE_FD, scratch);

// It drives the virtual device as a driver would: bus master, enable device, enable queue.
const write = (region: number, offset: number, value: number): void => {
  task.store(scratch, 4, value);
  task.pwrite(fd, scratch, 4, regionOffset(region) + offset);
};
write(PciRegion.CONFIG, 4, 6);
write(PciRegion.BAR0, Register.cmd, Command.enableDevice << 20);
write(PciRegion.BAR0, Register.cmd, Command.enableWq << 20);
const vdev = parent.devices.get(uuid)!;
console.log('host PASID in the queue', vdev.hostPasids.get(-1));

// From here on no system call: a store to the mapped portal starts the work.
const portal = task.mmap(0, 4096, 3, 1, fd, regionOffset(PciRegion.BAR2));
const words = new Uint32Array(16);
const { set } = Descriptor;
set.opcode(words, 0, Opcode.memmove);
set.flags(words, 0, Flag.recordAddressValid | Flag.requestRecord);
set.recordLow(words, 0, 0x10040);
set.sourceLow(words, 0, 0x10080);
set.destinationLow(words, 0, 0x10100);
set.size(words, 0, 5);
task.writeStruct(arena, words);
task.writeStruct(arena + 0x80, new TextEncoder().encode('bytes'));
task.movdir64b(hi(portal), lo(portal), hi(arena), lo(arena));
clock.wait(() => task.load(arena + 0x40, 1) !== 0);
console.log('status', task.load(arena + 0x40, 1), new TextDecoder().decode(task.readStruct(arena + 0x100, new Uint8Array(5))));

task.exit(0);
console.log('host PASIDs after the end', vdev.hostPasids.size);
