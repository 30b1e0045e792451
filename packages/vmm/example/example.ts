import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { MapFlag, Open, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { EventFd, Kernel } from '@siov/vfs';
import { Counter, GuestFrames, Kvm, kvm } from '@siov/vmm';

// A host with KVM.
const clock = new Clock();
const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0, 8192));
const cpu = new Cpu({ memory, clock });
const flush = (root: number, page: number, pages: number) => cpu.flush(root, page, pages);
const host = new Kernel({ clock, cpu, newMm: () => new AddressSpace({ memory, frames, flush }) });
const device = new Kvm({ memory, frames, cpu, clock, eventFd: (file) => (file instanceof EventFd ? file : undefined) });
host.register('/dev/kvm', device);

// A program makes a VM with 4 MiB of its own memory, and answers the accesses that no memory answers.
const program = host.spawn({ step: () => 'wait' }, 'vmm');
const vmFd = program.ioctl(program.open('/dev/kvm', Open.RDWR), kvm.KvmIoctl.CREATE_VM, 0);
const vcpu = device.vcpuOf(program.file(program.ioctl(vmFd, kvm.KvmIoctl.CREATE_VCPU, 0)))!;
vcpu.onMmio = (address, width, write, value) => {
  console.log(`exit: ${write ? `write ${value} to` : 'read of'} 0x${address.toString(16)}, ${width} bytes`);
  return 42;
};
const bytes = 4 * 2 ** 20;
const ram = program.mmap(0, bytes, Prot.READ | Prot.WRITE, MapFlag.SHARED | MapFlag.ANONYMOUS);
const argument = program.alloc(4096);
program.writeStruct(argument, Uint32Array.of(0, 0, 0, 0, bytes, 0, ram, ram / 2 ** 32));
program.ioctl(vmFd, kvm.KvmIoctl.SET_USER_MEMORY_REGION, argument);

// The guest's kernel lives in that memory; its programs run through the EPT.
const vm = device.vmOf(program.file(vmFd))!;
vm.apic = new LocalApic({ clock });
const guestMemory = vm.guestMemory();
const guestFrames = new GuestFrames(guestMemory.regions, (region) => new FrameAllocator(region));
const newMm = () => new AddressSpace({ memory: guestMemory, frames: guestFrames, flush });
const guest = new Kernel({ clock, cpu, newMm, ...vm.guest }).spawn({ step: () => 'wait' }, 'guest program');

const page = guest.alloc(4096);
guest.store(page, 4, 7);
const frame = guest.mm.frameOf(page);
console.log(`the VMM reads ${program.load(ram + frame * 4096, 4)} at guest frame ${frame}`);

const registers = vm.ioremap(0xe100_0000);
registers.write(0x10, 4, 3);
console.log(`the guest's kernel reads ${registers.read(0x14, 4)}`);
console.log(`${vm.counters[Counter.mmioReads]! + vm.counters[Counter.mmioWrites]!} exits to user space`);
