import { Errno as E, PENDING, Poll } from '@siov/layout/uapi';
import { expect, test } from 'vitest';
import { EventFd, EventFdFlag } from '../src/index.js';
import { machine, NONBLOCK, steps } from './machine.js';

function world(initial = 0, flags: number = NONBLOCK) {
  const all = machine();
  const task = all.idleTask();
  const fd = task.eventfd(initial, flags);
  const page = task.alloc(4096);
  const write = (low: number, high = 0) => {
    task.writeStruct(page, Uint32Array.of(low, high));
    return task.write(fd, page, 8);
  };
  const read = () => {
    const result = task.read(fd, page, 8);
    if (result < 0) return result;
    const [low, high] = task.readStruct(page, new Uint32Array(2));
    return high! * 2 ** 32 + low!;
  };
  const poll = () => {
    const entry = { fd, events: Poll.IN | Poll.OUT, revents: 0 };
    task.poll([entry], 0);
    return entry.revents;
  };
  return { ...all, task, fd, page, write, read, poll, file: task.file(fd) as EventFd };
}

test('eventfd(2): writes add up, a read takes all', () => {
  const { write, read } = world(3);
  expect([write(4), write(1, 2), read(), read()]).toEqual([8, 8, 2 * 2 ** 32 + 8, -E.EAGAIN]);
});

test('eventfd(2): a semaphore gives 1 at a time', () => {
  const { read, write } = world(2, NONBLOCK | EventFdFlag.SEMAPHORE);
  expect([read(), read(), read(), write(0, 1), read()]).toEqual([1, 1, -E.EAGAIN, 8, 1]);
});

test('eventfd(2): the counter stops at 2^64 - 2 for writers, 2^64 - 1 for the kernel', () => {
  const { write, poll, file, read } = world();
  expect([write(0xffff_ffff, 0xffff_ffff), write(0xffff_fffe, 0xffff_ffff), write(1), poll()]).toEqual([-E.EINVAL, 8, -E.EAGAIN, Poll.IN]);
  file.signal();
  expect(poll()).toBe(Poll.IN | Poll.ERR);
  file.signal();
  expect([read(), poll()]).toEqual([2 ** 64, Poll.OUT]);
});

test('eventfd(2): short transfers, bad pointers, flags and positions are refused', () => {
  const { task, fd, page } = world(1);
  expect([task.read(fd, page, 7), task.write(fd, page, 7), task.write(fd, 0, 8), task.pread(fd, page, 8, 0)]).toEqual([
    -E.EINVAL,
    -E.EINVAL,
    -E.EFAULT,
    -E.ESPIPE,
  ]);
  expect(task.read(fd, 0, 8)).toBe(-E.EFAULT);
  expect([task.eventfd(0, 2), task.eventfd(-1), task.eventfd(2 ** 32)]).toEqual([-E.EINVAL, -E.EINVAL, -E.EINVAL]);
});

test('a reader parks until somebody writes; a full counter parks the writer', () => {
  const { kernel, clock } = machine();
  const shared = new EventFd(0);
  const log: string[] = [];
  kernel.spawn(
    steps(
      (task) => {
        task.install(shared);
        task.alloc(4096);
        return 'again';
      },
      (task) => {
        const result = task.read(0, 0x7fff_ffff_e000, 8);
        log.push(result === PENDING ? 'parked' : `read ${task.load(0x7fff_ffff_e000, 4)} at ${clock.now}`);
        return result === PENDING ? 'wait' : 'again';
      },
    ),
  );
  const ring = clock.handler(() => shared.signal(5));
  clock.after(700, ring, 0);
  kernel.run();
  expect(log).toEqual(['parked', 'read 5 at 700']);
  expect(kernel.tasks).toEqual([]);
});

test('a write of one task wakes another, and the kernel hook hears every signal', () => {
  const { kernel } = machine();
  const shared = new EventFd(0);
  let heard = 0;
  shared.onSignal = () => heard++;
  const order: string[] = [];
  const reader = steps((task) => {
    const fd = task.file(0) ? 0 : task.install(shared);
    const page = task.alloc(4096);
    if (task.read(fd, page, 8) === PENDING) return 'wait';
    order.push(`got ${task.load(page, 4)}`);
    return 'done';
  });
  kernel.spawn(reader);
  kernel.spawn(
    steps((task) => {
      const page = task.alloc(4096);
      task.store(page, 4, 9);
      order.push('write');
      expect(task.write(task.install(shared), page, 8)).toBe(8);
      return 'done';
    }),
  );
  kernel.run();
  expect([order, heard]).toEqual([['write', 'got 9'], 1]);
  shared.signal(3);
  expect([heard, shared.consume(), shared.count]).toEqual([2, 3, 0]);
});
