import { MdevStack, openGuestQueue } from '@siov/stack/mdev';
import { bytesSource, openUacceQueue, UacceStack, Workload } from '@siov/stack/uacce';

const source = bytesSource(new TextEncoder().encode('the same bytes through both models '.repeat(2000)));

// A process on a host: uacce binds its address space, it maps a portal and submits.
const native = new UacceStack();
const one = new Workload({ source, op: 'memmove', size: 4096, depth: 8 }, openUacceQueue(native, 'dedicated'));
native.host.kernel.user.spawn(one);
native.host.kernel.user.run();

// A process in a guest: the guest's own driver on a virtual device, its page table nested under the host's second stage.
const virtual = new MdevStack();
const two = new Workload({ source, op: 'memmove', size: 4096, depth: 8 }, openGuestQueue(virtual));
virtual.guest.user.spawn(two);
virtual.run();

for (const { descriptors, wrong, latency } of [one.result, two.result])
  console.log(`${descriptors} descriptors, ${wrong} wrong, median ${latency.p50} ns`);
