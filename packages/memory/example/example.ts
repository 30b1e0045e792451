import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';

const memory = new PhysicalMemory();
const ram = memory.addRam(0x100, 1024); // 4 MiB of RAM at physical address 0x10_0000
const frames = new FrameAllocator(ram);

const mm = new AddressSpace({ memory, frames });
const address = mm.mmap(0, 3 * 4096, 3, 0x22); // read and write; private, anonymous
mm.write(address, new TextEncoder().encode('paged in on demand'));

mm.subscribe({
  invalidate: (start, end) => console.log(`a device must forget ${(end - start) / 4096} pages`),
  release: () => console.log('and now everything'),
});
const pinned = new Int32Array(1);
console.log('pinned pages', mm.pin(address, 1, true, pinned), 'frames in use', frames.used);
mm.munmap(address, 4096);
mm.exit();
console.log('kept by the pin', frames.used);
mm.unpin(pinned, 1);
console.log('in use', frames.used);
