import { Clock, Cpu } from '@siov/cpu';
import { PENDING } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { Kernel, type OpenFile, WaitQueue } from '@siov/vfs';

const memory = new PhysicalMemory();
const frames = new FrameAllocator(memory.addRam(0x100, 256));
const clock = new Clock();
const cpu = new Cpu({ memory, clock });
const newMm = () => new AddressSpace({ memory, frames, clock, flush: (root, page, pages) => cpu.flush(root, page, pages) });
const kernel = new Kernel({ clock, cpu, newMm });

// A driver: reads answer when its timer has run.
const queue = new WaitQueue();
let ready = false;
const tick = clock.handler(() => {
  ready = true;
  queue.wake();
});
const file: OpenFile = {
  read: (task, address) => (ready ? task.copyOut(address, new TextEncoder().encode('tick')) || 4 : queue.park(task)),
  close: () => console.log('closed'),
};
kernel.register('/dev/timer', { open: () => file });
clock.after(5000, tick, 0);

// A program: a step that cannot go on returns 'wait' and makes the same call again.
let fd = -1;
let buffer = 0;
kernel.spawn({
  step(task) {
    if (fd < 0) {
      fd = task.open('/dev/timer', 2);
      buffer = task.alloc(4096);
    }
    if (task.read(fd, buffer, 4) === PENDING) return 'wait';
    console.log(new TextDecoder().decode(task.readStruct(buffer, new Uint8Array(4))), 'at', clock.now);
    return 'done';
  },
});
kernel.run();
console.log('frames in use', frames.used);
