import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice } from '@siov/idxd-device';
import { Opcode } from '@siov/idxd-device/spec';
import { IdxdDriver, type Interrupts } from '@siov/idxd-driver';
import { Client } from '@siov/idxd-driver/client';
import { IDXD_UACCE_GET_INTERRUPT, registerIdxdUacce } from '@siov/idxd-uacce';
import { MsixDomain } from '@siov/ims-irq';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { hi, lo } from '@siov/layout';
import { MapFlag, Open, PENDING, Poll, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { ECAM_BUS_BYTES, enumerate, PciRoot } from '@siov/pci-core';
import { UacceIoctl } from '@siov/uacce/uapi';
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

// The kernel: its user-space door, the IOMMU's driver, the bus, and the device's driver.
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
driver.configure({ wqs: [{ mode: 'shared', size: 16, group: 0 }] });
const { path } = registerIdxdUacce({ driver, wqs: driver.wqs, kernel });
console.log(path, kernel.sysfs.read('/sys/class/uacce/idxd_swq-0/api'));

// A process: opens a queue, asks for its interrupt, maps the portal, starts, submits, and sleeps in poll until the record is there.
let fd = -1;
let client: Client;
let text = 0;
kernel.spawn({
  step(task) {
    if (fd < 0) {
      fd = task.open(path, Open.RDWR);
      const handle = task.alloc(4096);
      task.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, handle);
      const address = task.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, fd, 0);
      task.ioctl(fd, UacceIoctl.START_Q, 0);
      client = new Client(task, { address, mode: 'shared' }, { depth: 1, interruptHandle: task.load(handle, 4) });
      const [from, to] = [task.alloc(4096), task.alloc(4096)];
      task.writeStruct(from, new TextEncoder().encode('moved under its own PASID'));
      client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), 25);
      client.submit(0);
      text = to;
    }
    const fds = [{ fd, events: Poll.IN, revents: 0 }];
    if (task.poll(fds) === PENDING) return 'wait';
    console.log('status', client.poll(0), new TextDecoder().decode(task.readStruct(text, new Uint8Array(25))));
    return 'done';
  },
});
kernel.run();
