import { Clock, Cpu } from '@siov/cpu';
import { hi, lo } from '@siov/layout';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';

const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0x100, 256));
const clock = new Clock();
const cpu = new Cpu({ memory, clock, costs: { enqcmd: 160 } });

// A device with a portal that takes one command at a time.
let busy = false;
const finish = clock.handler(() => {
  busy = false;
});
memory.addMmio(0x9000, 1, {
  read: () => 0,
  write() {},
  enqcmd(offset, words) {
    if (busy) return 1;
    console.log(`portal ${offset}: PASID ${words[0]}, command ${words[1]}`);
    busy = true;
    clock.after(1000, finish, 0);
    return 0;
  },
});

// A process that has the portal mapped and a PASID in its IA32_PASID.
const mm = new AddressSpace({ memory, frames, flush: (root, page, pages) => cpu.flush(root, page, pages) });
const portal = mm.mmap(0, 4096, 3, 1, { map: (area) => (area.insert(0, 0x9000), 0) });
const command = mm.mmap(0, 4096, 3, 0x22);
const process = {
  rootFrame: mm.rootFrame,
  eptRoot: -1,
  pasidMsr: (1 << 31) | 5,
  pasidTranslation: -1,
  handleFault: (high: number, low: number, access: number) => mm.handleFault(high, low, access),
};
cpu.store(process, hi(command), lo(command) + 4, 4, 42);
const enqcmd = () => cpu.enqcmd(process, hi(portal), lo(portal), hi(command), lo(command));
console.log('answers', enqcmd(), enqcmd(), 'at', clock.now);
clock.wait(() => !busy);
console.log('answer', enqcmd(), 'at', clock.now);
