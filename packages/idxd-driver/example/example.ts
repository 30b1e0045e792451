import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice } from '@siov/idxd-device';
import { IdxdDriver, type Interrupts, userQueue } from '@siov/idxd-driver';
import { Client } from '@siov/idxd-driver/client';
import { MsixDomain } from '@siov/ims-irq';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { MapFlag, Open, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { ECAM_BUS_BYTES, enumerate, PciRoot } from '@siov/pci-core';
import { Kernel } from '@siov/vfs';

// Hardware: memory, a processor, a remapping unit, and the accelerator on a PCI root.
const clock = new Clock();
const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0, 4096));
const cpu = new Cpu({ memory, clock });
const apic = new LocalApic({ clock });
const unit = new IommuUnit({ memory, sink: apic, clock });
const window = { base: 0xe100_0000, bytes: 0x1000_0000 };
const root = new PciRoot({ map: memory, window });
memory.addMmio(0xe0000, ECAM_BUS_BYTES / 4096, root);
const dsa = new IdxdDevice({ clock });
root.add(dsa.function, 1);
dsa.connect(unit.requester(dsa.function.requesterId, dsa));

// The kernel: its user-space door, the IOMMU's driver, the bus, and this driver.
const kernel = new Kernel({ clock, cpu, newMm: () => new AddressSpace({ memory, frames, flush: (r, p, n) => cpu.flush(r, p, n) }) });
const iommu = new IommuDriver({ registers: unit, memory, frames, clock, vectors: apic });
iommu.enable();
const irqs = iommu.irqDomain();
const registers = (address: number) => memory.regionOf(address >>> 12)!.device!;
const ioremap = (address: number) => ({
  read: (o: number, width: number) => registers(address + o).read(at(address + o), width),
  write: (o: number, width: number, value: number) => registers(address + o).write(at(address + o), width, value),
});
const at = (address: number) => address - memory.regionOf(address >>> 12)!.firstFrame * 4096;
const [device] = enumerate({ ecam: root, window, ioremap });
const interrupts: Interrupts = { msix: (d, capability, bar) => new MsixDomain(irqs, d, capability, bar) };
const driver = new IdxdDriver({ device: device!, clock, iommu, kernel, interrupts });
driver.probe();
console.log(driver.configure({ wqs: [{ mode: 'shared', size: 16, group: 0, name: 'mine' }] }).why || 'configured');
const { path } = userQueue(driver, driver.wqs[0]!);

// A process: opens the queue, maps its portal, and has memory moved to pages that it never touched.
const task = kernel.spawn({ step: () => 'wait' });
const fd = task.open(path, Open.RDWR);
const portal = task.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, fd, 0);
const source = task.alloc(8192);
const destination = task.mmap(0, 8192, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
task.writeStruct(source + 5000, new TextEncoder().encode('moved'));
const client = new Client(task, { address: portal, mode: 'shared' }, { depth: 1 });
client.memmove(0, destination, source, 8192);
const result = client.run(0, clock);
console.log(
  path,
  result?.operation,
  result?.status,
  'after',
  client.resumes,
  'page faults:',
  new TextDecoder().decode(task.readStruct(destination + 5000, new Uint8Array(5))),
);
