/** memfd_create, ftruncate, mremap and mlock as system calls. */
import { Errno, MapFlag } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { Kernel } from '../src/index.js';
import { machine, RW } from './machine.js';

const PAGE = 4096;

describe('memfd_create', () => {
  test('two processes share what one of them gives the other; read and write go on where they were', () => {
    const { kernel, idleTask, frames } = machine();
    const used = frames.used;
    const [one, two] = [idleTask('one'), idleTask('two')];
    const fd = one.memfd();
    expect(one.ftruncate(fd, 2 * PAGE)).toBe(0);
    const at = one.mmap(0, 2 * PAGE, RW, MapFlag.SHARED, fd, 0);
    const room = one.alloc(PAGE);
    one.writeStruct(room, new TextEncoder().encode('shared memory'));
    expect([one.write(fd, room, 6), one.write(fd, room + 6, 7)]).toEqual([6, 7]);
    const there = one.passFile(fd, two);
    const other = two.mmap(0, PAGE, RW, MapFlag.SHARED, there, 0);
    expect(new TextDecoder().decode(two.readStruct(other, new Uint8Array(13)))).toBe('shared memory');
    two.store(other + 100, 1, 77);
    expect([one.load(at + 100, 1), one.pread(fd, room, 1, 100), one.load(room, 1)]).toEqual([77, 1, 77]);
    expect([one.pread(fd, room, PAGE, 2 * PAGE - 5), one.pread(fd, room, 1, 2 * PAGE)]).toEqual([5, 0]);
    one.close(fd);
    two.close(there);
    expect(two.load(other, 1)).toBe('s'.charCodeAt(0));
    for (const { pid } of [one, two]) kernel.kill(pid);
    expect(frames.used).toBeLessThanOrEqual(used);
  });
  test('what it refuses', () => {
    const { idleTask, clock, cpu, newMm } = machine();
    const task = idleTask();
    expect([task.memfd(8), task.ftruncate(9, PAGE), task.ftruncate(task.eventfd(), PAGE)]).toEqual([-Errno.EINVAL, -Errno.EBADF, -Errno.EINVAL]);
    const fd = task.memfd(3);
    task.ftruncate(fd, PAGE);
    expect([task.ftruncate(fd, -1), task.ftruncate(fd, 1), task.ftruncate(fd, PAGE)]).toEqual([-Errno.EINVAL, 0, 0]);
    expect([task.write(fd, 0x1000, 4), task.pread(fd, 0x1000, 4, 0)]).toEqual([-Errno.EFAULT, -Errno.EFAULT]);
    const bare = new Kernel({ clock, cpu, newMm });
    expect(bare.spawn({ step: () => 'wait' }).memfd()).toBe(-Errno.ENOSYS);
  });
});
test('mremap and mlock reach the address space', () => {
  const { idleTask } = machine();
  const task = idleTask();
  const at = task.alloc(2 * PAGE);
  task.store(at, 4, 5);
  const to = task.mremap(at, 2 * PAGE, 8 * PAGE, 1);
  expect([task.load(to, 4), task.mlock(to, 8 * PAGE), task.munlock(to, PAGE), task.mlock(0x1000, PAGE)]).toEqual([5, 0, 0, -Errno.ENOMEM]);
});
