/** A program opens /dev/iommu by system calls, as any other file; its death takes down what it set up. */
import { Cpu } from '@siov/cpu';
import { NO_PASID } from '@siov/layout/pcie';
import { AddressSpace, MemoryFile } from '@siov/memory';
import { Kernel, type OpenFile, type UserTask } from '@siov/vfs';
import { expect, test } from 'vitest';
import { iommufd as uapi } from '../src/spec/index.js';
import { machine, RID } from './machine.js';

function kernelOn() {
  const m = machine();
  m.driver.addDevice(RID, { pasid: true });
  const cpu = new Cpu({ memory: m.memory, clock: m.clock });
  const newMm = () => new AddressSpace({ memory: m.memory, frames: m.allocator, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const newMemoryFile = () => new MemoryFile({ memory: m.memory, frames: m.allocator });
  const kernel = new Kernel({ clock: m.clock, cpu, newMm, newMemoryFile });
  kernel.register('/dev/iommu', m.driver.iommufd);
  // The device's PASID table keeps a leaf table that it needed once.
  const domain = m.driver.pagingDomain();
  m.driver.attachPasid(RID, 1, domain);
  m.driver.detachPasid(RID, 1);
  domain.free();
  return { ...m, kernel };
}

test('open, IOMMU_IOAS_ALLOC and IOMMU_IOAS_MAP by system calls, a device of VFIO attached; the process dies, and with its device goes everything', () => {
  const m = kernelOn();
  const used = m.allocator.used;
  const task: UserTask = m.kernel.spawn({ step: () => 'wait' });
  const fd = task.open('/dev/iommu', 2);
  const buffer = task.alloc(4096);
  const call = (number: number, words: readonly number[]) => {
    const bytes = new Uint8Array(Uint32Array.from(words.map((w) => w >>> 0)).buffer);
    task.writeStruct(buffer, bytes);
    const result = task.ioctl(fd, number, buffer);
    task.readStruct(buffer, bytes);
    return { result, words: new Uint32Array(bytes.buffer) };
  };
  const { result, words } = call(uapi.IommufdIoctl.IOAS_ALLOC, [12, 0, 0]);
  expect(result).toBe(0);
  const user = task.alloc(8192);
  const map = [40, 7, words[2]!, 0, user, user / 2 ** 32, 8192, 0, 0x10_0000, 0];
  expect(call(uapi.IommufdIoctl.IOAS_MAP, map).result).toBe(0);
  // What VFIO does with the descriptor it is given.
  const context = m.driver.iommufd.contextOf(task.file(fd) as OpenFile)!;
  const device = context.bindDevice(RID);
  expect(context.attach(device, words[2]!, NO_PASID)).toBe(0);
  expect(m.access(RID, NO_PASID, 0x10_0000, Uint8Array.of(9), true)).toBe(0);
  expect(task.readStruct(user, new Uint8Array(1))).toEqual(Uint8Array.of(9));
  task.exit(0);
  // VFIO's device file may be closed after this one: until then the device keeps what it is attached to.
  expect(m.access(RID, NO_PASID, 0x10_0000, Uint8Array.of(9), true)).toBe(0);
  context.unbind(device);
  expect(m.allocator.used).toBe(used);
  expect(m.access(RID, NO_PASID, 0x10_0000, Uint8Array.of(9), true)).not.toBe(0);
});

test('a device that attaches by itself keeps the page table alive after the file is closed, until it unbinds', () => {
  const m = kernelOn();
  const used = m.allocator.used;
  const task: UserTask = m.kernel.spawn({ step: () => 'wait' });
  const fd = task.open('/dev/iommu', 2);
  const at = task.alloc(8192);
  const call = (number: number, words: readonly number[]) => {
    task.writeStruct(at, Uint32Array.from(words));
    expect(task.ioctl(fd, number, at)).toBe(0);
    return task.readStruct(at, new Uint32Array(words.length));
  };
  const ioas = call(uapi.IommufdIoctl.IOAS_ALLOC, [12, 0, 0])[2]!;
  const user = task.alloc(4096);
  call(uapi.IommufdIoctl.IOAS_MAP, [40, 7, ioas, 0, user, user / 2 ** 32, 4096, 0, 0x10_0000, 0]);
  const context = m.driver.iommufd.contextOf(task.file(fd) as OpenFile)!;
  const [one, two] = [context.bindDevice(RID), context.bindDevice(RID)];
  const domain = context.domainOf(ioas);
  if (typeof domain === 'number') throw new Error(`domainOf: ${domain}`);
  expect(m.driver.attachPasid(RID, 5, domain)).toBe(0);
  task.exit(0);
  expect(m.access(RID, 5, 0x10_0000, Uint8Array.of(9), true)).toBe(0);
  context.unbind(one);
  expect(m.access(RID, 5, 0x10_0000, Uint8Array.of(9), true)).toBe(0);
  m.driver.detachPasid(RID, 5);
  context.unbind(two);
  expect(m.access(RID, 5, 0x10_0000, Uint8Array.of(9), true)).not.toBe(0);
  expect(m.allocator.used).toBe(used);
});

test('memory of memfd_create is mapped by its descriptor, and a device, the program and its child share it', () => {
  const m = kernelOn();
  const used = m.allocator.used;
  const task: UserTask = m.kernel.spawn({ step: () => 'wait' });
  const fd = task.open('/dev/iommu', 2);
  const at = task.alloc(8192);
  const call = (number: number, words: readonly number[]) => {
    task.writeStruct(at, Uint32Array.from(words));
    const result = task.ioctl(fd, number, at);
    return result || task.readStruct(at, new Uint32Array(words.length))[2]!;
  };
  const ioas = call(uapi.IommufdIoctl.IOAS_ALLOC, [12, 0, 0]);
  const file = task.memfd();
  task.ftruncate(file, 3 * 4096);
  const context = m.driver.iommufd.contextOf(task.file(fd) as OpenFile)!;
  const device = context.bindDevice(RID);
  context.attach(device, ioas, NO_PASID);
  const { IOAS_MAP_FILE } = uapi.IommufdIoctl;
  expect(call(IOAS_MAP_FILE, [40, 7, ioas, file, 4096, 0, 3 * 4096, 0, 0x10_0000, 0])).toBe(-22);
  expect(call(IOAS_MAP_FILE, [40, 7, ioas, fd, 4096, 0, 4096, 0, 0x10_0000, 0])).toBe(-22);
  expect(call(IOAS_MAP_FILE, [40, 7, ioas, file, 4096, 0, 2 * 4096, 0, 0x10_0000, 0])).toBe(ioas);
  const user = task.mmap(0, 3 * 4096, 3, 1, file, 0);
  expect(m.access(RID, NO_PASID, 0x10_0005, Uint8Array.of(9), true)).toBe(0);
  expect(task.load(user + 4096 + 5, 1)).toBe(9);
  expect(task.pread(file, at, 1, 4096 + 5)).toBe(1);
  expect(task.load(at, 1)).toBe(9);
  task.exit(0);
  context.unbind(device);
  expect(m.allocator.used).toBe(used);
});
