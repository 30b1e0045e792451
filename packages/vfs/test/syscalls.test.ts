import { Errno as E, PENDING, Poll } from '@siov/layout/uapi';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Counter, type OpenFile, type Task, type UserTask, type VmArea } from '../src/index.js';
import { ANONYMOUS, machine, NONBLOCK, POPULATE, RDONLY, RDWR, RW, SHARED, WRONLY } from './machine.js';

function device(file: OpenFile = {}) {
  const world = machine();
  const log: string[] = [];
  world.kernel.register('/dev/thing', {
    open: (_task, flags) => {
      log.push(`open ${flags}`);
      return { close: () => log.push('close'), ...file };
    },
  });
  const task = world.idleTask();
  return { ...world, log, task };
}

test('open(2): no node is ENOENT, a long path ENAMETOOLONG, a driver refuses as it likes, descriptors end with EMFILE', () => {
  const { kernel, idleTask, task, log } = device();
  expect([task.open('/dev/none', RDWR), task.open('/'.repeat(4096), RDWR)]).toEqual([-E.ENOENT, -E.ENAMETOOLONG]);
  kernel.register('/dev/busy', { open: () => -E.EBUSY });
  expect(task.open('/dev/busy', RDWR)).toBe(-E.EBUSY);
  expect([task.open('/dev/thing', RDWR | NONBLOCK), task.open('/dev/thing', RDWR), log[0]]).toEqual([0, 1, `open ${RDWR | NONBLOCK}`]);
  task.close(0);
  expect(task.open('/dev/thing', RDWR)).toBe(0);
  kernel.unregister('/dev/thing');
  expect([task.open('/dev/thing', RDWR), task.close(1)]).toEqual([-E.ENOENT, 0]);
  expect(() => kernel.register('/dev/busy', { open: () => 0 })).toThrow(/path/);
  const small = machine({ maxFiles: 2 });
  const other = small.idleTask();
  expect([other.eventfd(), other.eventfd(), other.eventfd(), other.install({})]).toEqual([0, 1, -E.EMFILE, -E.EMFILE]);
  idleTask();
});

test('an open beyond the limit closes what it opened', () => {
  const { kernel, idleTask } = machine({ maxFiles: 1 });
  let closed = 0;
  kernel.register('/dev/thing', { open: () => ({ close: () => closed++ }) });
  const task = idleTask();
  expect([task.open('/dev/thing', RDWR), task.open('/dev/thing', RDWR), closed]).toEqual([0, -E.EMFILE, 1]);
});

test.each<[name: string, call: (t: UserTask, fd: number) => number]>([
  ['close', (t, fd) => t.close(fd)],
  ['ioctl', (t, fd) => t.ioctl(fd, 1, 0)],
  ['read', (t, fd) => t.read(fd, 0, 1)],
  ['write', (t, fd) => t.write(fd, 0, 1)],
  ['pread', (t, fd) => t.pread(fd, 0, 1, 0)],
  ['pwrite', (t, fd) => t.pwrite(fd, 0, 1, 0)],
  ['mmap', (t, fd) => t.mmap(0, 4096, RW, SHARED, fd, 0)],
])('%s of a descriptor that is not open is EBADF', (_name, call) => {
  const { task } = device();
  for (const fd of [-1, 0, 5, 1e9, Number.NaN, 0.5]) expect(call(task, fd)).toBe(-E.EBADF);
  const fd = task.open('/dev/thing', RDWR);
  task.close(fd);
  expect(call(task, fd)).toBe(-E.EBADF);
});

test('what a driver does not do: ENOTTY, EINVAL, ENODEV, and always ready', () => {
  const { task } = device();
  const fd = task.open('/dev/thing', RDWR);
  const polled = { fd, events: Poll.IN | Poll.OUT, revents: 0 };
  expect([task.ioctl(fd, 1, 0), task.read(fd, 0, 1), task.write(fd, 0, 1), task.mmap(0, 4096, RW, SHARED, fd, 0), task.poll([polled])]).toEqual([
    -E.ENOTTY,
    -E.EINVAL,
    -E.EINVAL,
    -E.ENODEV,
    1,
  ]);
  expect(polled.revents).toBe(Poll.IN | Poll.OUT);
});

test('the access mode binds: EBADF for transfers, EACCES for mappings', () => {
  const { task } = device({ read: () => 1, write: () => 1, mmap: () => 0 });
  const [reader, writer] = [task.open('/dev/thing', RDONLY), task.open('/dev/thing', WRONLY)];
  expect([task.read(reader, 0, 1), task.write(reader, 0, 1), task.read(writer, 0, 1), task.write(writer, 0, 1)]).toEqual([1, -E.EBADF, -E.EBADF, 1]);
  expect([task.mmap(0, 4096, RW, SHARED, reader, 0), task.mmap(0, 4096, 1, SHARED, writer, 0)]).toEqual([-E.EACCES, -E.EACCES]);
  const mapped = task.mmap(0, 4096, 1, SHARED, reader, 0);
  expect([mapped > 0, task.mprotect(mapped, 4096, RW)]).toEqual([true, -E.EACCES]);
});

test('read and write move the position, pread and pwrite do not', () => {
  const offsets: number[] = [];
  const { task } = device({
    read: (_task, _address, length, offset) => (offsets.push(offset), length),
    write: (_task, _address, length, offset) => (offsets.push(offset), length > 10 ? -E.EINVAL : length),
  });
  const fd = task.open('/dev/thing', RDWR);
  expect([task.read(fd, 0, 5), task.pread(fd, 0, 5, 100), task.write(fd, 0, 3), task.write(fd, 0, 11), task.read(fd, 0, 1)]).toEqual([
    5,
    5,
    3,
    -E.EINVAL,
    1,
  ]);
  expect(offsets).toEqual([0, 100, 5, 8, 8]);
  expect([task.pread(fd, 0, 1, -1), task.read(fd, 0, -1)]).toEqual([-E.EINVAL, -E.EINVAL]);
});

test('ioctl arguments are structures in the caller: a bad pointer is EFAULT', () => {
  const bytes = new Uint8Array(8);
  const { task } = device({
    ioctl(caller: Task, number, argument) {
      if (number !== 0x3b64) return -E.ENOTTY;
      if (caller.copyIn(argument, bytes) < 0) return -E.EFAULT;
      bytes[7] = bytes[0]! + 1;
      return caller.copyOut(argument, bytes) < 0 ? -E.EFAULT : 0;
    },
  });
  const fd = task.open('/dev/thing', RDWR);
  const address = task.alloc(4096);
  task.writeStruct(address + 3, Uint32Array.of(41, 0));
  expect([task.ioctl(fd, 0x3b64, address + 3), task.load(address + 10, 1)]).toEqual([0, 42]);
  const readOnly = task.mmap(0, 4096, 1, ANONYMOUS);
  for (const bad of [0, address + 4096 - 4 - 4096 * 2, -8, 2 ** 60, Number.NaN, readOnly]) expect(task.ioctl(fd, 0x3b64, bad)).toBe(-E.EFAULT);
  expect(task.ioctl(fd, 1, address)).toBe(-E.ENOTTY);
});

test('a mapping holds the file open until it and the descriptor are gone', () => {
  let area!: VmArea;
  const { task, log, memory } = device({
    mmap(_task, given) {
      area = given;
      area.insert(0, 0x9000);
      area.onClose = () => log.push('area closed');
      return 0;
    },
  });
  let stored = 0;
  memory.addMmio(0x9000, 1, { read: () => stored, write: (_offset, _width, value) => (stored = value) });
  const fd = task.open('/dev/thing', RDWR);
  const address = task.mmap(0, 8192, RW, SHARED, fd, 0x3000);
  expect(area).toMatchObject({ start: address, length: 8192, offset: 0x3000, prot: RW, flags: SHARED });
  task.close(fd);
  task.store(address + 4, 4, 0x77);
  expect([task.load(address, 4), log.slice(1)]).toEqual([0x77, []]);
  expect(() => task.load(address + 4096, 4)).toThrow(/SIGBUS/);
  task.munmap(address, 8192);
  expect(log.slice(1)).toEqual(['area closed', 'close']);
});

test('mmap of a file: refusals in the order of the kernel, the errno of the driver', () => {
  const { task } = device({ mmap: () => -E.EINVAL });
  const fd = task.open('/dev/thing', RDWR);
  expect([
    task.mmap(0, 4096, RW, SHARED, fd, 5),
    task.mmap(0, 4096, RW, SHARED, 99, 5),
    task.mmap(0, 0, RW, SHARED, fd, 0),
    task.mmap(0, 4096, RW, SHARED, fd, 0),
    task.mmap(0, 4096, RW, ANONYMOUS, 99, 0) > 0,
  ]).toEqual([-E.EINVAL, -E.EINVAL, -E.EINVAL, -E.EINVAL, true]);
});

test('poll(2): events asked for, errors always, NVAL for what is not open; the structures in memory too', () => {
  let ready: number = Poll.IN | Poll.HUP;
  const { task } = device({ poll: () => ready });
  const fd = task.open('/dev/thing', RDWR);
  const list = [
    { fd, events: Poll.OUT, revents: 9 },
    { fd: 77, events: 0, revents: 0 },
    { fd: -1, events: Poll.IN, revents: 9 },
  ];
  expect([task.poll(list, 0), list.map((entry) => entry.revents)]).toEqual([2, [Poll.HUP, Poll.NVAL, 0]]);
  ready = 0;
  expect([task.poll([list[0]!], 0), task.poll([list[0]!])]).toEqual([0, PENDING]);
  ready = Poll.IN;
  const address = task.alloc(4096);
  task.writeStruct(address, Uint32Array.of(fd, Poll.IN | Poll.OUT, 77, 0));
  expect(task.pollAt(address, 2, 0)).toBe(2);
  expect([...task.readStruct(address, new Uint32Array(4))]).toEqual([fd, Poll.IN | Poll.OUT | (Poll.IN << 16), 77, Poll.NVAL << 16]);
  expect([task.pollAt(0, 1, 0), task.pollAt(address, -1, 0), task.pollAt(address, 5000, 0)]).toEqual([-E.EFAULT, -E.EINVAL, -E.EINVAL]);
});

test('calls are counted by name, ioctls by number with the names of the file; costs and trace follow', () => {
  const events: number[][] = [];
  const { kernel, clock, idleTask } = machine({
    costs: { syscall: 100, ioctl: 200, mmap: 3000, eventfdWrite: 210 },
    trace: { emit: (...event) => events.push(event) },
  });
  kernel.register('/dev/thing', { open: () => ({ ioctl: (_task, number) => (number === 3 ? PENDING : 0), ioctlNames: { 7: 'DO_IT' } }) });
  const task = idleTask();
  const fd = task.open('/dev/thing', RDWR);
  task.ioctl(fd, 7, 0);
  task.ioctl(fd, 7, 0);
  task.ioctl(fd, 8, 0);
  task.ioctl(fd, 3, 0);
  expect(clock.now).toBe(900);
  const page = task.alloc(4096);
  expect(clock.now).toBe(3900);
  const event = task.eventfd();
  task.store(page, 4, 1);
  task.write(event, page, 8);
  expect(clock.now).toBe(4210);
  expect([...kernel.ioctls.values()]).toEqual([
    { number: 7, name: 'DO_IT', count: 2 },
    { number: 8, name: '0x8', count: 1 },
  ]);
  expect([kernel.counters[Counter.ioctl], kernel.counters[Counter.pending], kernel.counters[Counter.open]]).toEqual([3, 1, 1]);
  expect(events[0]).toEqual([0, Counter.open, -1, 0, fd]);
});

test('garbage in any system call is an answer, never a throw', () => {
  const wild = fc.oneof(fc.double(), fc.integer(), fc.maxSafeInteger(), fc.constantFrom(0, 4096, 2 ** 47));
  fc.assert(
    fc.property(wild, wild, fc.integer(), fc.integer(), wild, (a, b, c, d, e) => {
      const { task } = device({
        mmap: () => 0,
        read: () => 0,
        write: (t, at, n) => t.copyIn(at, new Uint8Array(n % 64)),
        ioctl: (t, _n, at) => t.copyIn(at, new Uint8Array(8)),
      });
      const fd = task.open('/dev/thing', RDWR);
      const event = task.eventfd();
      const results = [task.ioctl(fd, a, b), task.read(fd, a, b), task.write(fd, a, b), task.pread(fd, a, b, e), task.pwrite(event, a, b, e)];
      results.push(task.mmap(a, b, c, d & ~POPULATE & ~0x40000, fd, e), task.munmap(a, b), task.mprotect(a, b, c), task.read(event, a, b));
      results.push(task.write(event, a, b), task.eventfd(a, c), task.kill(c | 0x100), task.pollAt(a, c, 0), task.open(String(a), c), task.close(a));
      for (const result of results) expect(Number.isSafeInteger(result)).toBe(true);
    }),
  );
});
