import { Clock, Cpu } from '@siov/cpu';
import { Errno, MapFlag, Open, Poll, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { evaluate, kernelHeader } from '@siov/testkit';
import { Kernel, type Mm, type UserTask } from '@siov/vfs';
import { describe, expect, test } from 'vitest';
import { type Queue, registerUacce, type UacceOps } from '../src/index.js';
import { UacceIoctl, UacceRegion } from '../src/uapi.js';

/** A kernel with one uacce device whose driver has `instances` queues and one page of doorbells, and logs what it is asked. */
function machine(options: { instances?: number; sva?: boolean } = {}) {
  const clock = new Clock();
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0, 1024);
  const frames = new FrameAllocator(ram);
  const doorbells: number[] = [];
  memory.addMmio(0x10_0000, 1, { read: () => 0, write: (_o, _w, v) => void doorbells.push(v) });
  const cpu = new Cpu({ memory, clock });
  const kernel = new Kernel({ clock, cpu, newMm: () => new AddressSpace({ memory, frames, flush: (r, p, n) => cpu.flush(r, p, n) }) });
  const log: string[] = [];
  let free = options.instances ?? 1;
  const updated = new Set<Queue<Mm, number>>();
  const live: Queue<Mm, number>[] = [];
  let nextPasid = 1;
  const bound = new Map<Mm, { pasid: number; uses: number }>();
  const ops: UacceOps<Mm, number> = {
    getAvailableInstances: () => free,
    getQueue(pasid, queue) {
      if (free === 0) return -Errno.EBUSY;
      free--;
      live.push(queue);
      log.push(`get ${pasid}`);
      return 0;
    },
    putQueue: () => {
      free++;
      log.push('put');
    },
    startQueue: () => (log.push('start'), 0),
    stopQueue: () => void log.push('stop'),
    isQueueUpdated: (queue) => updated.delete(queue),
    mmap: (_queue, area, region) => (region === UacceRegion.MMIO ? (area.insert(0, 0x10_0000), 0) : -Errno.EINVAL),
    ioctl: (_q, task, number, argument) => (number === 0x4801 ? task.copyOut(argument, Uint8Array.of(7)) : -Errno.EINVAL),
    getIsolateState: () => 0,
  };
  const sva = {
    bind(mm: Mm) {
      const b = bound.get(mm) ?? { pasid: nextPasid++, uses: 0 };
      bound.set(mm, b);
      b.uses++;
      return { pasid: b.pasid, unbind: () => void (--b.uses === 0 && bound.delete(mm)) };
    },
  };
  const device = registerUacce<Mm, number>({
    name: 'acc',
    id: 0,
    api: 'test_v1',
    algorithms: ['copy', 'crc'],
    regionPages: [1, 0],
    ops,
    kernel,
    ...(options.sva === false ? {} : { sva }),
  });
  const task = (): UserTask => kernel.spawn({ step: () => 'wait' });
  return {
    kernel,
    device,
    task,
    log,
    updated,
    live,
    bound,
    doorbells,
    get free() {
      return free;
    },
  };
}
const open = (t: UserTask): number => t.open('/dev/acc-0', Open.RDWR);

describe('a queue', () => {
  test('one open file is one queue; when none is left open says EBUSY', () => {
    const m = machine({ instances: 1 });
    const [a, b] = [m.task(), m.task()];
    expect([open(a), open(b)]).toEqual([0, -Errno.EBUSY]);
    expect(m.bound.size).toBe(1);
    a.close(0);
    expect([open(b), m.log]).toEqual([0, ['get 1', 'put', 'get 3']]);
  });
  test('the same process opening twice has one PASID and two queues', () => {
    const m = machine({ instances: 2 });
    const t = m.task();
    expect([open(t), open(t)]).toEqual([0, 1]);
    expect(m.log).toEqual(['get 1', 'get 1']);
    expect(t.mm.pasid).toBe(1);
  });
  test('START_Q works from INIT only; PUT_Q stops and frees nothing', () => {
    const m = machine();
    const t = m.task();
    open(t);
    expect([UacceIoctl.PUT_Q, UacceIoctl.START_Q, UacceIoctl.START_Q, UacceIoctl.PUT_Q, UacceIoctl.START_Q].map((n) => t.ioctl(0, n, 0))).toEqual([
      0,
      0,
      -Errno.EINVAL,
      0,
      0,
    ]);
    expect([m.log, m.free]).toEqual([['get 1', 'start', 'stop', 'start'], 0]);
  });
  test('another ioctl is the driver’s, or EINVAL', () => {
    const m = machine();
    const t = m.task();
    open(t);
    const at = t.alloc(4096);
    expect([t.ioctl(0, 0x4801, at), t.load(at, 1), t.ioctl(0, 0x4801, 8), t.ioctl(0, 0x1234, 0)]).toEqual([0, 7, -Errno.EFAULT, -Errno.EINVAL]);
  });
  test('mmap chooses the region by page offset; a second mapping is EEXIST until the first is gone', () => {
    const m = machine();
    const t = m.task();
    open(t);
    const map = (offset: number): number => t.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, 0, offset);
    const at = map(0);
    t.store(at, 4, 0x77);
    expect([m.doorbells, map(0), map(4096), map(8192)]).toEqual([[0x77], -Errno.EEXIST, -Errno.EINVAL, -Errno.EINVAL]);
    t.munmap(at, 4096);
    expect(map(0)).toBeGreaterThan(0);
  });
  test('poll says IN when the driver says the queue is updated', () => {
    const m = machine();
    const t = m.task();
    open(t);
    const fds = [{ fd: 0, events: Poll.IN, revents: 0 }];
    expect(t.poll(fds, 0)).toBe(0);
    m.updated.add(m.live[0]!);
    expect([t.poll(fds, 0), fds[0]!.revents]).toEqual([1, Poll.IN]);
  });
  test('the last close stops, puts and unbinds; a mapping keeps the file', () => {
    const m = machine();
    const t = m.task();
    open(t);
    t.ioctl(0, UacceIoctl.START_Q, 0);
    const at = t.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, 0, 0);
    t.close(0);
    expect(m.log).toEqual(['get 1', 'start']);
    t.munmap(at, 4096);
    expect([m.log, m.bound.size]).toEqual([['get 1', 'start', 'stop', 'put'], 0]);
  });
});

describe('removal under its users', () => {
  test('queues become zombies: ioctl and mmap ENXIO, poll nothing, a store to the mapped region SIGBUS; close is harmless', () => {
    const m = machine();
    const t = m.task();
    open(t);
    t.ioctl(0, UacceIoctl.START_Q, 0);
    const at = t.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, 0, 0);
    m.device.remove();
    expect([t.ioctl(0, UacceIoctl.START_Q, 0), t.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, 0, 0)]).toEqual([-Errno.ENXIO, -Errno.ENXIO]);
    expect(t.poll([{ fd: 0, events: Poll.IN, revents: 0 }], 0)).toBe(0);
    expect(() => t.store(at, 4, 1)).toThrow(/SIGBUS/);
    expect([t.close(0), m.log, m.bound.size, open(t)]).toEqual([0, ['get 1', 'start', 'stop', 'put'], 0, -Errno.ENOENT]);
  });
  test('a process that dies gives its queue back', () => {
    const m = machine();
    const t = m.task();
    open(t);
    t.ioctl(0, UacceIoctl.START_Q, 0);
    m.kernel.kill(t.pid);
    expect([m.log, m.bound.size, m.free]).toEqual([['get 1', 'start', 'stop', 'put'], 0, 1]);
  });
});

test('sysfs describes the device', () => {
  const m = machine({ instances: 3 });
  const read = (name: string) => m.kernel.sysfs.read(`/sys/class/uacce/acc-0/${name}`);
  expect(['api', 'flags', 'available_instances', 'algorithms', 'region_mmio_size', 'isolate'].map(read)).toEqual([
    'test_v1\n',
    '1\n',
    '3\n',
    'copy\ncrc\n',
    '4096\n',
    '0\n',
  ]);
  expect(read('region_dus_size')).toBe(-Errno.ENOENT);
  m.device.remove();
  expect(read('api')).toBe(-Errno.ENOENT);
});
test('without SVA a queue has no PASID and the flag is clear', () => {
  const m = machine({ sva: false });
  open(m.task());
  expect([m.log, m.kernel.sysfs.read('/sys/class/uacce/acc-0/flags')]).toEqual([['get -1'], '0\n']);
});

const { here, why } = kernelHeader('misc/uacce/uacce.h');
if (!here) console.log(`left out: uacce numbers against misc/uacce/uacce.h (${why})`);
// UACCE_DEV_SVA is BIT(0), which the header uses without defining it.
test.skipIf(!here)('numbers equal misc/uacce/uacce.h', () => {
  expect([UacceIoctl.START_Q, UacceIoctl.PUT_Q, UacceRegion.MMIO, UacceRegion.DUS]).toEqual(
    evaluate(['misc/uacce/uacce.h'], ['UACCE_CMD_START_Q', 'UACCE_CMD_PUT_Q', 'UACCE_QFRT_MMIO', 'UACCE_QFRT_DUS']),
  );
});
