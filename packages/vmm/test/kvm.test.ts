/** KVM's ioctls by the rules of Documentation/virt/kvm/api.rst. */
import { Errno, Open, PENDING } from '@siov/layout/uapi';
import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import type { EventFd } from '@siov/vfs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Counter } from '../src/index.js';
import * as uapi from '../src/kvm/uapi.js';
import { bareVm, host, RW, SHARED } from './machine.js';

const { KvmIoctl } = uapi;
const MiB = 2 ** 20;

const header = kernelHeader('linux/kvm.h');
test.skipIf(!header.here)(`structures and numbers are those of linux/kvm.h ${header.why}`, () => {
  const structs = [
    [
      'struct kvm_userspace_memory_region',
      uapi.MemoryRegion,
      { slot: 'slot', flags: 'flags', guest_phys_addr: 'guestLow', memory_size: 'sizeLow', userspace_addr: 'userLow' },
    ],
    ['struct kvm_irq_routing', uapi.IrqRouting, { nr: 'count', flags: 'flags' }],
    [
      'struct kvm_irq_routing_entry',
      uapi.RoutingEntry,
      {
        gsi: 'gsi',
        type: 'type',
        flags: 'flags',
        'u.msi.address_lo': 'addressLow',
        'u.msi.address_hi': 'addressHigh',
        'u.msi.data': 'data',
        'u.msi.devid': 'deviceId',
      },
    ],
    ['struct kvm_irqfd', uapi.Irqfd, { fd: 'fd', gsi: 'gsi', flags: 'flags', resamplefd: 'resampleFd' }],
    ['struct kvm_msi', uapi.Msi, { address_lo: 'addressLow', address_hi: 'addressHigh', data: 'data', flags: 'flags', devid: 'deviceId' }],
  ] as const;
  for (const [struct, layout, members] of structs) {
    const { gcc, ours } = compareLayout('linux/kvm.h', struct, layout, members);
    expect(ours).toEqual(gcc);
  }
  const names = Object.keys(KvmIoctl) as (keyof typeof KvmIoctl)[];
  expect(names.map((name) => KvmIoctl[name])).toEqual(
    evaluate(
      ['linux/kvm.h'],
      names.map((name) => `KVM_${name}`),
    ),
  );
  const capabilities = Object.keys(uapi.Capability) as (keyof typeof uapi.Capability)[];
  expect(capabilities.map((name) => uapi.Capability[name])).toEqual(
    evaluate(
      ['linux/kvm.h'],
      capabilities.map((name) => `KVM_CAP_${name}`),
    ),
  );
  expect([
    uapi.API_VERSION,
    uapi.RoutingType.MSI,
    uapi.IrqfdFlag.DEASSIGN,
    uapi.IrqfdFlag.RESAMPLE,
    uapi.MemoryFlag.READONLY,
    uapi.MSI_VALID_DEVID,
  ]).toEqual(
    evaluate(
      ['linux/kvm.h'],
      ['KVM_API_VERSION', 'KVM_IRQ_ROUTING_MSI', 'KVM_IRQFD_FLAG_DEASSIGN', 'KVM_IRQFD_FLAG_RESAMPLE', 'KVM_MEM_READONLY', 'KVM_MSI_VALID_DEVID'],
    ),
  );
});

test('the version is 12; arguments that mean nothing are refused; a vCPU exists once', () => {
  const { task, kvmFd, vmFd } = bareVm();
  expect(task.ioctl(kvmFd, KvmIoctl.GET_API_VERSION, 0)).toBe(12);
  expect(task.ioctl(kvmFd, KvmIoctl.GET_API_VERSION, 1)).toBe(-Errno.EINVAL);
  expect(task.ioctl(kvmFd, KvmIoctl.CREATE_VM, 7)).toBe(-Errno.EINVAL);
  expect(task.ioctl(kvmFd, KvmIoctl.CHECK_EXTENSION, uapi.Capability.IRQFD)).toBe(1);
  expect(task.ioctl(kvmFd, KvmIoctl.CHECK_EXTENSION, 12345)).toBe(0);
  expect(task.ioctl(vmFd, KvmIoctl.CREATE_VCPU, 0)).toBe(-Errno.EEXIST);
  expect(task.ioctl(vmFd, KvmIoctl.CREATE_VCPU, uapi.MAX_VCPUS)).toBe(-Errno.EINVAL);
  expect(task.ioctl(vmFd, 0x1234, 0)).toBe(-Errno.ENOTTY);
  expect(task.ioctl(vmFd, KvmIoctl.SET_USER_MEMORY_REGION, 0x10)).toBe(-Errno.EFAULT);
});

test('a VM belongs to the process that made it', () => {
  const { kernel, task, vmFd } = bareVm();
  const pid = task.fork({ step: () => 'wait' });
  const child = kernel.task(pid)!;
  expect(child.ioctl(vmFd, KvmIoctl.CREATE_VCPU, 1)).toBe(-Errno.EIO);
});

test.each([
  ['an unaligned size', 0, 0, 4097, 0, 0, -Errno.EINVAL],
  ['an unaligned guest address', 0, 0x10, 4096, 0, 0, -Errno.EINVAL],
  ['an unaligned user address', 0, 0, 4096, 1, 0, -Errno.EINVAL],
  ['a user address of the kernel', 0, 0, 4096, 2 ** 47, 0, -Errno.EINVAL],
  ['a slot number beyond the last', uapi.MAX_MEMSLOTS, 0, 4096, 0, 0, -Errno.EINVAL],
  ['another address space', 0x1_0000, 0, 4096, 0, 0, -Errno.EINVAL],
  ['an unknown flag', 0, 0, 4096, 0, 0x80, -Errno.EINVAL],
  ['dirty logging, which is left out', 0, 0, 4096, 0, 1, -Errno.EINVAL],
  ['a guest address beyond the machine', 0, 2 ** 43, 4096, 0, 0, -Errno.EINVAL],
  ['the deletion of a slot that is not there', 9, 0, 0, 0, 0, -Errno.EINVAL],
] as const)('KVM_SET_USER_MEMORY_REGION refuses %s', (_rule, id, guest, bytes, offset, flags, errno) => {
  const { task, slot } = bareVm();
  const user = task.alloc(8192);
  expect(slot(id, guest, bytes, user + offset, flags)).toBe(errno);
});

test('memory slots do not overlap; a slot moves, but keeps its size, its memory and its rights; deletion frees the place', () => {
  const { task, slot } = bareVm();
  const user = task.alloc(1 * MiB);
  expect(slot(1, 0, 0x8000, user)).toBe(0);
  expect(slot(2, 0x7000, 0x1000, user)).toBe(-Errno.EEXIST);
  expect(slot(2, 0x8000, 0x1000, user)).toBe(0);
  expect(slot(1, 0, 0x4000, user)).toBe(-Errno.EINVAL);
  expect(slot(1, 0, 0x8000, user + 4096)).toBe(-Errno.EINVAL);
  expect(slot(1, 0, 0x8000, user, 2)).toBe(-Errno.EINVAL);
  expect(slot(1, 0x4000, 0x8000, user)).toBe(-Errno.EEXIST);
  expect(slot(1, 0x1_0000, 0x8000, user)).toBe(0);
  expect(slot(3, 0, 0x8000, user)).toBe(0);
  expect(slot(3, 0, 0, 0)).toBe(0);
  expect(slot(4, 0, 0x8000, user)).toBe(0);
});

const routing = (...entries: number[][]): Uint32Array => {
  const words = new Uint32Array(2 + entries.length * 12);
  words[0] = entries.length;
  for (const [i, entry] of entries.entries()) words.set(entry, 2 + i * 12);
  return words;
};
const msi = (gsi: number, vector: number, destination = 0): number[] => [gsi, 2, 0, 0, 0xfee0_0000 + destination * 4096, 0, vector, 0];

function withApic() {
  const m = bareVm();
  const seen: [number, number][] = [];
  m.vm.apic = { deliver: (vector, destination) => void seen.push([vector, destination]) };
  const eventFd = () => {
    const fd = m.task.eventfd();
    return { fd, file: m.task.file(fd) as EventFd };
  };
  const irqfd = (fd: number, gsi: number, flags = 0) => m.ioctl(KvmIoctl.IRQFD, Uint32Array.of(fd, gsi, flags, 0, 0, 0, 0, 0));
  const settle = () => {
    while (m.clock.idle());
  };
  return { ...m, seen, eventFd, irqfd, settle };
}

test('the signal of an irqfd becomes the message of its gsi at the guest APIC', () => {
  const { ioctl, irqfd, eventFd, seen, settle, vm } = withApic();
  const { fd, file } = eventFd();
  expect(ioctl(KvmIoctl.SET_GSI_ROUTING, routing(msi(24, 0x41, 3), msi(25, 0x42)))).toBe(0);
  expect(irqfd(fd, 24)).toBe(0);
  file.signal();
  expect(seen).toEqual([]);
  settle();
  expect(seen).toEqual([[0x41, 3]]);
  expect(file.count).toBe(0);
  // The route that holds at delivery counts.
  file.signal();
  expect(ioctl(KvmIoctl.SET_GSI_ROUTING, routing(msi(24, 0x50)))).toBe(0);
  settle();
  expect(seen[1]).toEqual([0x50, 0]);
  expect(irqfd(fd, 24, uapi.IrqfdFlag.DEASSIGN)).toBe(0);
  file.signal();
  settle();
  expect(seen.length).toBe(2);
  expect(file.count).toBe(1);
  // What waited in the eventfd is delivered with the binding.
  expect(irqfd(fd, 24)).toBe(0);
  settle();
  expect(seen.length).toBe(3);
  expect(vm.counters[Counter.irqfds]).toBe(3);
});

test('the cost of an irqfd is the time from signal to delivery', () => {
  const m = bareVm({ costs: { irqfd: 700 } });
  let at = -1;
  m.vm.apic = { deliver: () => void (at = m.clock.now) };
  const fd = m.task.eventfd();
  m.ioctl(KvmIoctl.SET_GSI_ROUTING, routing(msi(30, 0x30)));
  m.ioctl(KvmIoctl.IRQFD, Uint32Array.of(fd, 30, 0, 0, 0, 0, 0, 0));
  const start = m.clock.now;
  (m.task.file(fd) as EventFd).signal();
  while (m.clock.idle());
  expect(at - start).toBe(700);
});

test('irqfds: one gsi an eventfd, no other files, no resampling', () => {
  const { irqfd, eventFd, vmFd } = withApic();
  const { fd } = eventFd();
  expect(irqfd(fd, 1)).toBe(0);
  expect(irqfd(fd, 2)).toBe(-Errno.EBUSY);
  expect(irqfd(vmFd, 2)).toBe(-Errno.EINVAL);
  expect(irqfd(999, 2)).toBe(-Errno.EBADF);
  expect(irqfd(eventFd().fd, uapi.MAX_ROUTES)).toBe(-Errno.EINVAL);
  expect(irqfd(eventFd().fd, 3, uapi.IrqfdFlag.RESAMPLE)).toBe(-Errno.EINVAL);
});

test('KVM_SIGNAL_MSI delivers at once and says whether anybody took it', () => {
  const { ioctl, seen } = withApic();
  const send = (address: number, data: number, flags = 0) => ioctl(KvmIoctl.SIGNAL_MSI, Uint32Array.of(address, 0, data, flags, 0, 0, 0, 0));
  expect(send(0xfee0_1000, 0x33)).toBe(1);
  expect(seen).toEqual([[0x33, 1]]);
  expect(send(0x1000, 0x33)).toBe(0);
  // NMI has no vector to deliver.
  expect(send(0xfee0_0000, 0x433)).toBe(0);
  expect(send(0xfee0_0000, 0x33, 1)).toBe(-Errno.EINVAL);
});

test('a routing table with a wrong entry changes nothing', () => {
  const { ioctl, irqfd, eventFd, seen, settle } = withApic();
  const { fd, file } = eventFd();
  ioctl(KvmIoctl.SET_GSI_ROUTING, routing(msi(24, 0x41)));
  irqfd(fd, 24);
  for (const bad of [
    routing(msi(24, 1), msi(24, 2)),
    routing([5, 1, 0, 0, 0, 0, 0, 0]),
    routing(msi(uapi.MAX_ROUTES, 1)),
    Uint32Array.of(5000, 0),
    Uint32Array.of(0, 1),
  ])
    expect(ioctl(KvmIoctl.SET_GSI_ROUTING, bad)).toBe(-Errno.EINVAL);
  file.signal();
  settle();
  expect(seen).toEqual([[0x41, 0]]);
});

test('whatever a program hands to the ioctls, it gets an answer', () => {
  const m = withApic();
  const numbers = Object.values(KvmIoctl);
  const user = m.task.mmap(0, MiB, RW, SHARED);
  const word = fc.oneof(
    fc.integer({ min: 0, max: 0xffff_ffff }),
    fc.constantFrom(0, 1, 2, 24, 4096, 0x8000, user % 2 ** 32, Math.floor(user / 2 ** 32)),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...numbers),
      fc.constantFrom(m.kvmFd, m.vmFd, m.vcpuFd),
      fc.array(word, { minLength: 8, maxLength: 40 }),
      fc.boolean(),
      (number, fd, words, direct) => {
        m.task.writeStruct(m.room, Uint32Array.from(words));
        const result = m.task.ioctl(fd, number, direct ? words[0]! : m.room);
        expect(Number.isInteger(result) && result > PENDING).toBe(true);
        if (result > 100) m.task.close(result);
        // Descriptors that the garbage made.
        for (let made = m.vcpuFd + 1; m.task.file(made); made++) m.task.close(made);
      },
    ),
    { numRuns: 2000 },
  );
});

test('closing the last file of a VM gives back all frames but three empty roots', () => {
  const m = host();
  const fd = m.task.open('/dev/kvm', Open.RDWR);
  const room = m.task.alloc(4096);
  const user = m.task.mmap(0, 4 * MiB, RW, SHARED);
  const before = m.frames.used;
  const vmFd = m.task.ioctl(fd, KvmIoctl.CREATE_VM, 0);
  const vm = m.vmOf(vmFd)!;
  const vcpu = m.task.ioctl(vmFd, KvmIoctl.CREATE_VCPU, 0);
  m.task.writeStruct(room, Uint32Array.of(0, 0, 0, 0, 4 * MiB, 0, user, user / 2 ** 32));
  expect(m.task.ioctl(vmFd, KvmIoctl.SET_USER_MEMORY_REGION, room)).toBe(0);
  vm.guest.exit(48, 5, 0, 4, false, 0);
  vm.pasids.set(3, 4);
  expect(vm.ept.lookup(5)).toBeGreaterThan(0);
  m.task.close(vmFd);
  expect(vm.ept.lookup(5)).toBeGreaterThan(0);
  m.task.close(vcpu);
  expect(vm.ept.lookup(5)).toBe(-1);
  expect(vm.pasids.get(3)).toBe(-1);
  m.task.munmap(user, 4 * MiB);
  // Page tables of the process stay where they grew.
  expect(m.frames.used - before).toBeLessThanOrEqual(3 + 3);
});
