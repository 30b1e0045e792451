import { hi, lo } from '@siov/layout';
import { Errno as E, PENDING, Poll } from '@siov/layout/uapi';
import { expect, test } from 'vitest';
import { Counter, type OpenFile, schedule, type UserTask, WaitQueue } from '../src/index.js';
import { ANONYMOUS, machine, RDWR, RW, SHARED, steps } from './machine.js';

test('a process that ends, is killed or dies of a signal gives back every frame: memory first, then files in order', () => {
  for (const death of ['done', 'exit', 'kill', 'kill itself', 'signal'] as const) {
    const { kernel, frames, memory } = machine();
    memory.addMmio(0x9000, 1, { read: () => 0, write() {} });
    const log: string[] = [];
    const file = (name: string): OpenFile => ({
      mmap(_task, area) {
        area.insert(0, 0x9000);
        area.onClose = () => log.push(`unmapped ${name}`);
        return 0;
      },
      close: () => log.push(`closed ${name}`),
    });
    for (const name of ['a', 'b', 'c']) kernel.register(`/dev/${name}`, { open: () => file(name) });
    const task = kernel.spawn({
      step(self) {
        if (self.file(0)) return 'wait';
        for (const name of ['a', 'b', 'c']) self.open(`/dev/${name}`, RDWR);
        self.mmap(0, 4096, RW, SHARED, 1, 0);
        self.mmap(0, 4096, RW, SHARED, 2, 0);
        self.close(1);
        self.alloc(10 * 4096);
        self.mm.subscribe({ invalidate() {}, release: () => log.push('mm released') });
        if (death === 'exit') self.exit(3);
        if (death === 'kill itself') self.kill(self.pid);
        if (death === 'signal') self.load(8, 4);
        return death === 'done' || death === 'exit' ? 'done' : 'wait';
      },
    });
    const other = kernel.spawn({ step: (self) => (self.getpid(), 'wait') });
    kernel.run();
    if (death === 'kill') expect([frames.used > 10, kernel.kill(task.pid)]).toEqual([true, 0]);
    expect(log).toEqual(['mm released', 'unmapped c', 'unmapped b', 'closed b', 'closed a', 'closed c']);
    expect([task.exited, task.exitCode, task.signal]).toEqual([
      true,
      death === 'exit' ? 3 : 0,
      death === 'signal' ? 'SIGSEGV' : death.startsWith('kill') ? 'SIGKILL' : undefined,
    ]);
    expect(other.exited).toBe(false);
    expect(kernel.kill(other.pid)).toBe(0);
    expect([frames.used, kernel.kill(task.pid)]).toEqual([0, -E.ESRCH]);
    expect(kernel.counters[Counter.signals]).toBe(death === 'signal' ? 1 : 0);
  }
});

test('after exit nothing works, and nothing throws but accesses', () => {
  const { kernel, frames, idleTask } = machine();
  kernel.register('/dev/a', { open: () => ({}) });
  const task = idleTask();
  const page = task.alloc(4096);
  task.exit(0);
  expect([
    task.open('/dev/a', RDWR),
    task.eventfd(),
    task.mmap(0, 4096, RW, ANONYMOUS),
    task.read(0, 0, 1),
    task.fork({ step: () => 'done' }),
  ]).toEqual([-E.ESRCH, -E.ESRCH, -E.ENOMEM, -E.EBADF, -E.ESRCH]);
  expect(task.copyIn(page, new Uint8Array(1))).toBe(-E.EFAULT);
  expect(() => task.load(page, 4)).toThrow(/SIGSEGV/);
  expect(frames.used).toBe(0);
});

test('an error that is no signal is a bug of the program and reaches the caller', () => {
  const { kernel } = machine();
  kernel.spawn({
    step() {
      throw new TypeError('oops');
    },
  });
  expect(() => kernel.run()).toThrow('oops');
});

test('fork: own memory, the same open files, no PASID', () => {
  const { kernel, frames } = machine();
  const log: string[] = [];
  kernel.register('/dev/a', { open: () => ({ read: (_task, _address, length) => length, close: () => log.push('closed') }) });
  let page = 0;
  const parent = kernel.spawn(
    steps(
      (task) => {
        page = task.alloc(4096);
        task.store(page, 4, 1);
        task.context.pasidMsr = 1 << 31;
        const fd = task.open('/dev/a', RDWR);
        const pid = task.fork(
          steps((child) => {
            log.push(
              `child sees ${child.load(page, 4)} msr ${child.context.pasidMsr} reads ${child.read(fd, page, 3)} pid ${child.getpid() === pid}`,
            );
            child.store(page, 4, 2);
            return 'done';
          }),
        );
        expect(pid).toBeGreaterThan(task.pid);
        return 'again';
      },
      () => 'again',
      (task) => {
        log.push(`parent sees ${task.load(page, 4)}`);
        return 'done';
      },
    ),
  );
  kernel.run();
  expect(log).toEqual(['child sees 1 msr 0 reads 3 pid true', 'parent sees 1', 'closed']);
  expect([parent.exited, frames.used]).toEqual([true, 0]);
});

test('fork without memory is ENOMEM', () => {
  const { idleTask } = machine({ frames: 18 });
  const task = idleTask();
  task.alloc(12 * 4096);
  expect(task.fork({ step: () => 'done' })).toBe(-E.ENOMEM);
});

test('run ends when nothing can ever run; parked processes live on', () => {
  const { kernel, clock } = machine();
  const queue = new WaitQueue();
  let calls = 0;
  const file: OpenFile = { read: (task) => (++calls, queue.park(task)) };
  kernel.register('/dev/never', { open: () => file });
  kernel.spawn(
    steps(
      (task) => (task.open('/dev/never', RDWR), 'again'),
      (task) => (task.read(0, 0, 1) === PENDING ? 'wait' : 'done'),
    ),
  );
  kernel.run();
  expect(kernel.tasks.length).toBe(1);
  const before = calls;
  const noise = clock.handler(() => queue.wake());
  clock.after(10, noise, 0);
  kernel.run();
  expect(calls).toBeGreaterThan(before);
  machine().kernel.run();
});

test('run stops where until holds', () => {
  const { kernel } = machine();
  let count = 0;
  kernel.spawn({ step: () => (count++, 'again') });
  kernel.spawn({ step: () => (count++, 'again') });
  kernel.run(() => count === 7);
  expect(count).toBe(7);
});

test('processes take turns; a switch costs', () => {
  const { kernel, clock } = machine({ costs: { contextSwitch: 1500 } });
  const order: string[] = [];
  for (const name of ['a', 'b', 'c']) kernel.spawn(steps(...[1, 2].map(() => (task: UserTask) => (order.push(task.name), 'again' as const))), name);
  kernel.run();
  expect(order.join('')).toBe('abcabc');
  expect([clock.now, kernel.counters[Counter.contextSwitches]]).toEqual([5 * 1500, 5]);
});

test('a program that spins for free does not stop the events it waits for', () => {
  const { kernel, clock } = machine();
  let done = false;
  const finish = clock.handler(() => (done = true));
  clock.after(1e6, finish, 0);
  kernel.spawn({ step: () => (done ? 'done' : 'again') });
  kernel.run();
  expect([kernel.tasks.length, clock.now]).toEqual([0, 1e6]);
});

test('a program that spins at a cost sees the event at its time', () => {
  const { kernel, clock } = machine({ cpuCosts: { load: 60 } });
  const ran: number[] = [];
  const finish = clock.handler(() => ran.push(clock.now));
  clock.after(1000, finish, 0);
  let page = 0;
  kernel.spawn({
    step(task) {
      page ||= task.alloc(4096);
      task.load(page, 4);
      return ran.length > 0 ? 'done' : 'again';
    },
  });
  kernel.run();
  expect([ran, clock.now]).toEqual([[1000], 1080]);
});

test('poll with a time limit answers 0 when the time is over', () => {
  const { kernel, clock } = machine();
  const seen: number[] = [];
  const list = [{ fd: 0, events: Poll.IN, revents: 0 }];
  kernel.spawn(
    steps(
      (task) => (task.eventfd(), 'again'),
      (task) => {
        const result = task.poll(list, 5);
        seen.push(result);
        return result === PENDING ? 'wait' : 'done';
      },
    ),
  );
  kernel.run();
  expect([seen, clock.now]).toEqual([[PENDING, 0], 5e6]);
});

test('two kernels share one clock: a round robin over both', () => {
  const host = machine();
  const guest = machine({ clock: host.clock, eptRoot: 5, pasidTranslation: 6 });
  const order: string[] = [];
  for (const [name, kernel] of [
    ['host', host.kernel],
    ['guest', guest.kernel],
  ] as const)
    kernel.spawn(steps(...[1, 2].map(() => () => (order.push(name), 'again' as const))));
  const task = guest.kernel.tasks[0]!;
  expect([task.context.eptRoot, task.context.pasidTranslation, host.kernel.tasks[0]!.context.eptRoot]).toEqual([5, 6, -1]);
  schedule([host.kernel, guest.kernel], host.clock);
  expect(order).toEqual(['host', 'guest', 'host', 'guest']);
});

test('a process whose memory was bound to a PASID gets it with its first ENQCMD', () => {
  const { idleTask, memory } = machine();
  const sent: number[] = [];
  memory.addMmio(0x9000, 1, { read: () => 0, write() {}, enqcmd: (_offset, words) => (sent.push(words[0]!), 0) });
  const task = idleTask();
  const portal = task.mm.mmap(0, 4096, RW, SHARED, { map: (area) => (area.insert(0, 0x9000), 0) });
  const page = task.alloc(4096);
  const enqcmd = () => task.enqcmd(hi(portal), lo(portal), hi(page), lo(page));
  expect(enqcmd).toThrow(/IA32_PASID/);
  task.mm.pasid = 0x2a;
  expect([enqcmd(), sent]).toEqual([0, [0x2a]]);
});

test('instructions on two words reach the same memory as system calls', () => {
  const { idleTask } = machine();
  const task = idleTask();
  const page = task.alloc(8192);
  task.store32(hi(page), lo(page + 8), -2);
  expect(task.load32(hi(page), lo(page + 8))).toBe(0xffff_fffe);
  const at = task.words(hi(page), lo(page + 64), 1);
  task.view[at] = 7;
  task.movdir64b(hi(page), lo(page + 128), hi(page), lo(page + 64));
  expect([...task.readStruct(page + 128, new Uint32Array(2))]).toEqual([7, 0]);
  const byte = task.bytes(hi(page), lo(page + 64), 0);
  expect(task.byteView[byte]).toBe(7);
});

/** What a process outside has, when nothing of its own descriptors matters. */
const door = { file: () => undefined, newNumber: () => -E.EMFILE, installed() {} };
test('a process outside of the simulation brings its memory and its number; nobody else gets that while it lives', () => {
  const { kernel, newMm } = machine();
  const mm = newMm();
  const outside = kernel.spawn({ step: () => 'wait' }, 'outside', { ...door, mm, pid: 2 });
  expect([outside.pid, outside.mm === mm, kernel.task(2) === outside]).toEqual([2, true, true]);
  expect([kernel.spawn({ step: () => 'wait' }).pid, kernel.spawn({ step: () => 'wait' }).pid]).toEqual([1, 3]);
  expect(() => kernel.spawn({ step: () => 'wait' }, 'again', { ...door, mm: newMm(), pid: 2 })).toThrow(/pid/);
  outside.end(0, undefined);
  expect(kernel.spawn({ step: () => 'wait' }, 'again', { ...door, mm: newMm(), pid: 2 }).pid).toBe(2);
});

test("a process outside of the simulation: drivers see descriptors by the process's own numbers, and files that they give get one of those", () => {
  const { kernel, newMm } = machine();
  const own = { name: 'of the real process' } as OpenFile;
  const given: number[] = [];
  let closed = 0;
  const seen: (OpenFile | undefined)[] = [];
  kernel.register('/dev/x', {
    open: () => ({
      // Looks at a descriptor, or gives one.
      ioctl: (task, number, argument) => (number === 1 ? Number(seen.push(task.file(argument)) && 0) : task.install({ close: () => void closed++ })),
    }),
  });
  const task = kernel.spawn({ step: () => 'wait' }, 'outside', {
    mm: newMm(),
    pid: 7,
    file: (fd) => (fd === 3 ? own : undefined),
    newNumber: (taken) => [600, 601].find((fd) => !taken(fd)) ?? -E.EMFILE,
    installed: (fd) => void given.push(fd),
  });
  const fd = task.open('/dev/x', 2);
  // No number of a real descriptor.
  expect(fd).toBeGreaterThanOrEqual(2 ** 30);
  expect([task.ioctl(fd, 1, 3), task.ioctl(fd, 1, fd), task.ioctl(fd, 1, 600)]).toEqual([0, 0, 0]);
  expect(seen).toEqual([own, undefined, undefined]);
  expect([task.ioctl(fd, 2, 0), task.ioctl(fd, 2, 0), task.ioctl(fd, 2, 0)]).toEqual([600, 601, -E.EMFILE]);
  expect(given).toEqual([600, 601]);
  expect([task.close(600), closed, task.ioctl(fd, 2, 0)]).toEqual([0, 1, 600]);
  task.end(0, undefined);
  expect(closed).toBe(3);
});

test('unix(7), SCM_RIGHTS: a descriptor that another process got keeps the file open', () => {
  const { kernel, idleTask } = machine();
  let closed = 0;
  kernel.register('/dev/x', { open: () => ({ close: () => void closed++ }) });
  const [a, b] = [idleTask(), idleTask()];
  const fd = a.open('/dev/x', 2);
  const there = a.passFile(fd, b);
  expect([there, a.passFile(99, b), b.file(there) === a.file(fd)]).toEqual([0, -E.EBADF, true]);
  a.end(0, undefined);
  expect([closed, b.passFile(there, a)]).toEqual([0, -E.ESRCH]);
  b.close(there);
  expect(closed).toBe(1);
});
