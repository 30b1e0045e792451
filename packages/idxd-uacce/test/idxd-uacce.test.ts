import { Opcode, Portal, Status } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { Errno, MapFlag, Open, PENDING, Poll, Prot } from '@siov/layout/uapi';
import { UacceIoctl } from '@siov/uacce/uapi';
import type { UserTask } from '@siov/vfs';
import { describe, expect, test } from 'vitest';
import { IDXD_UACCE_GET_INTERRUPT, registerIdxdUacce } from '../src/index.js';
import { machine } from './machine.js';

const modes = ['dedicated', 'shared'] as const;
const PAGE = 4096;
const RW = Prot.READ | Prot.WRITE;
/** Places of the address space that nobody else uses. */
const ONLY_THERE = 0x2000_0000_0000;
const mapAt = (t: UserTask, at: number): number => t.mmap(at, PAGE, RW, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED | MapFlag.POPULATE);
const move = (client: Client, from: number, to: number, size = 64, slot = 0): number => {
  client.prepare(slot, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), size);
  return client.submit(slot);
};

describe.each(modes)('a %s queue', (mode) => {
  test('open, map, start, submit, poll, close: data moves in the memory of the process, and nothing is left', () => {
    const m = machine(mode);
    const t = m.task();
    const { fd, portal, client } = m.start(t);
    const [a, b] = [t.alloc(PAGE), t.alloc(PAGE)];
    t.writeStruct(a, Uint8Array.of(1, 2, 3, 4));
    expect([move(client, a, b), client.poll(0)]).toEqual([0, 0]);
    m.run();
    expect([client.poll(0), t.load(b, 4)]).toEqual([Status.success, 0x0403_0201]);
    const pasid = t.mm.pasid;
    t.munmap(portal, PAGE);
    expect([m.bound(pasid), t.close(fd), m.bound(pasid), m.uacce.queues]).toEqual([true, 0, false, 0]);
  });
  test('the node and sysfs say what it is', () => {
    const m = machine(mode, 2);
    const short = mode === 'dedicated' ? 'dwq' : 'swq';
    const read = (name: string) => m.kernel.sysfs.read(`/sys/class/uacce/idxd_${short}-0/${name}`);
    expect(['api', 'flags', 'available_instances', 'region_mmio_size', 'region_dus_size'].map(read)).toEqual([
      `idxd_${short}_v1\n`,
      '1\n',
      '2\n',
      '4096\n',
      -Errno.ENOENT,
    ]);
    expect(m.path).toBe(`/dev/idxd_${short}-0`);
  });
  test('the mapped page is the limited portal of one page; other regions and lengths are EINVAL', () => {
    const m = machine(mode);
    const t = m.task();
    const fd = t.open(m.path, Open.RDWR);
    const frames: number[] = [];
    const area = { length: PAGE, offset: 0, dontCopy: false, insert: (_i: number, frame: number) => void frames.push(frame), zap() {} };
    expect([t.file(fd)!.mmap!(t, area as never), frames, area.dontCopy]).toEqual([
      0,
      [m.pci.bars.get(2)!.address / PAGE + Portal.limitedMsix / PAGE],
      true,
    ]);
    const other = machine(mode);
    const u = other.task();
    const f = u.open(other.path, Open.RDWR);
    expect([other.map(u, f, 2 * PAGE), other.map(u, f, PAGE, 1)]).toEqual([-Errno.EINVAL, -Errno.EINVAL]);
  });
  test('stop and start again: PUT_Q waits for what is in flight', () => {
    const m = machine(mode);
    const t = m.task();
    const { fd, client } = m.start(t);
    client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(0);
    expect([client.poll(0), t.ioctl(fd, UacceIoctl.PUT_Q, 0), client.poll(0)]).toEqual([0, 0, Status.success]);
    expect(t.ioctl(fd, UacceIoctl.START_Q, 0)).toBe(0);
    client.prepare(1, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(1);
    m.run();
    expect(client.poll(1)).toBe(Status.success);
  });
  test('a driver that is off refuses START_Q with ENXIO', () => {
    const m = machine(mode);
    const t = m.task();
    const fd = t.open(m.path, Open.RDWR);
    m.driver.disable();
    expect(t.ioctl(fd, UacceIoctl.START_Q, 0)).toBe(-Errno.ENXIO);
  });
  test('another ioctl is EINVAL', () => {
    const m = machine(mode);
    const t = m.task();
    expect(t.ioctl(t.open(m.path, Open.RDWR), 0x1234, 0)).toBe(-Errno.EINVAL);
  });
  test('a process that is killed with work in flight leaves nothing bound, nothing in flight and a queue that works', () => {
    const m = machine(mode);
    const t = m.task();
    const { fd, client } = m.start(t);
    const handle = t.alloc(PAGE);
    expect(t.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, handle)).toBe(0);
    const [a, b] = [t.alloc(16 * PAGE), t.mmap(0, 16 * PAGE, RW, MapFlag.PRIVATE | MapFlag.ANONYMOUS)];
    for (let slot = 0; slot < 8; slot++) move(client, a, b, 16 * PAGE, slot);
    const pasid = t.mm.pasid;
    m.kernel.kill(t.pid);
    m.run();
    expect([m.bound(pasid), m.uacce.queues, m.available(), m.driver.wqs[0]!.clients, m.driver.wqs[0]!.owner]).toEqual([false, 0, 1, 0, undefined]);
    const next = m.task();
    const again = m.start(next);
    again.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    again.client.submit(0);
    m.run();
    expect(again.client.poll(0)).toBe(Status.success);
  });
  test('killed by its own fault in the middle of a step: the same', () => {
    const m = machine(mode);
    let pasid = -1;
    const t = m.task({
      step(task) {
        const { client } = m.start(task);
        pasid = task.mm.pasid;
        client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
        client.submit(0);
        task.store(8, 4, 1);
        return 'done';
      },
    });
    m.kernel.run();
    expect([t.signal, m.bound(pasid), m.uacce.queues, m.available()]).toEqual(['SIGSEGV', false, 0, 1]);
  });
  test('removal of the device: a store to the mapped portal is SIGBUS, the binding is gone, and what was in flight finished', () => {
    const m = machine(mode);
    const t = m.task();
    const { fd, client } = m.start(t);
    client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(0);
    m.uacce.remove();
    expect(client.poll(0)).toBe(Status.success);
    expect(() => client.submit(0)).toThrow(/SIGBUS/);
    expect([m.bound(t.mm.pasid), t.ioctl(fd, UacceIoctl.START_Q, 0), t.open(m.path, Open.RDWR), t.close(fd)]).toEqual([
      false,
      -Errno.ENXIO,
      -Errno.ENOENT,
      0,
    ]);
  });
  test('a completion interrupt wakes a process that sleeps in poll', () => {
    const m = machine(mode);
    const log: string[] = [];
    let client: Client;
    let fd = -1;
    let state = 0;
    m.task({
      step(t) {
        if (state === 0) {
          fd = t.open(m.path, Open.RDWR);
          const handle = t.alloc(PAGE);
          log.push(`handle ${t.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, handle)}`);
          const portal = m.map(t, fd);
          t.ioctl(fd, UacceIoctl.START_Q, 0);
          client = new Client(t, { address: portal, mode }, { depth: 1, interruptHandle: t.load(handle, 4) });
          client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
          client.submit(0);
          state = 1;
        }
        const fds = [{ fd, events: Poll.IN, revents: 0 }];
        const ready = t.poll(fds);
        if (ready === PENDING) {
          log.push('sleeps');
          return 'wait';
        }
        log.push(`${ready} ready, revents ${fds[0]!.revents}, status ${client.poll(0)}, then ${t.poll(fds, 0)}`);
        return 'done';
      },
    });
    m.kernel.run();
    expect(log).toEqual(['handle 0', 'sleeps', '1 ready, revents 1, status 1, then 0']);
  });
  test('the handle that cannot be copied out is EFAULT; asked again, it is the same', () => {
    const m = machine(mode);
    const t = m.task();
    const fd = t.open(m.path, Open.RDWR);
    const at = t.alloc(PAGE);
    expect([t.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, 8), t.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, at), t.load(at, 4)]).toEqual([-Errno.EFAULT, 0, 1]);
    expect([t.ioctl(fd, IDXD_UACCE_GET_INTERRUPT, at), t.load(at, 4)]).toEqual([0, 1]);
  });
});

describe('dedicated queues', () => {
  test('available_instances counts down, and EBUSY follows; a close makes room', () => {
    const m = machine('dedicated', 2);
    const tasks = [m.task(), m.task(), m.task()];
    const seen = [m.available()];
    for (const t of tasks.slice(0, 2)) {
      t.open(m.path, Open.RDWR);
      seen.push(m.available());
    }
    expect([seen, tasks[2]!.open(m.path, Open.RDWR)]).toEqual([[2, 1, 0], -Errno.EBUSY]);
    tasks[0]!.close(0);
    expect([m.available(), tasks[2]!.open(m.path, Open.RDWR), m.available()]).toEqual([1, 0, 0]);
  });
  test('one process can hold two, under one PASID', () => {
    const m = machine('dedicated', 2);
    const t = m.task();
    const [a, b] = [m.start(t), m.start(t)];
    for (const { client } of [a, b]) {
      client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(0);
    }
    m.run();
    expect([a.client.poll(0), b.client.poll(0), a.portal === b.portal]).toEqual([1, 1, false]);
    t.munmap(a.portal, PAGE);
    t.close(a.fd);
    b.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    b.client.submit(0);
    m.run();
    expect([m.bound(t.mm.pasid), b.client.poll(0)]).toEqual([true, 1]);
  });
  test('the PASID is the queue’s: one in the descriptor changes nothing', () => {
    const m = machine('dedicated', 2);
    const [a, b] = [m.task(), m.task()];
    const { client } = m.start(a);
    m.start(b);
    mapAt(b, ONLY_THERE);
    b.store(ONLY_THERE, 4, 0x5afe);
    const source = a.alloc(PAGE);
    client.prepare(0, Opcode.memmove, hi(source), lo(source), hi(ONLY_THERE), lo(ONLY_THERE), 64);
    client.patch(0, 0, b.mm.pasid);
    client.submit(0);
    m.run();
    // unconfirmed: whether a device ignores the field on a dedicated queue; it must not use it.
    expect(client.poll(0) & 0x7f).not.toBe(Status.success);
    expect(b.load(ONLY_THERE, 4)).toBe(0x5afe);
  });
});

describe('two processes on one shared queue', () => {
  function two() {
    const m = machine('shared');
    const [a, b] = [m.task(), m.task()];
    return { m, a, b, qa: m.start(a), qb: m.start(b) };
  }
  test('have a PASID each, and available_instances stays', () => {
    const { m, a, b } = two();
    expect([a.mm.pasid === b.mm.pasid, m.available(), m.driver.wqs[0]!.clients, m.uacce.queues]).toEqual([false, 1, 2, 2]);
  });
  test('the same address is each one’s own memory', () => {
    const { m, a, b, qa, qb } = two();
    for (const [t, value] of [
      [a, 0xaaaa],
      [b, 0xbbbb],
    ] as const) {
      mapAt(t, ONLY_THERE);
      mapAt(t, ONLY_THERE + PAGE);
      t.store(ONLY_THERE, 4, value);
    }
    move(qa.client, ONLY_THERE, ONLY_THERE + PAGE);
    move(qb.client, ONLY_THERE, ONLY_THERE + PAGE);
    m.run();
    expect([qa.client.poll(0), a.load(ONLY_THERE + PAGE, 4), qb.client.poll(0), b.load(ONLY_THERE + PAGE, 4)]).toEqual([1, 0xaaaa, 1, 0xbbbb]);
  });
  test.each([
    ['writes', (own: number): [number, number] => [own, ONLY_THERE], Status.pageFault | 0x80],
    ['reads', (own: number): [number, number] => [ONLY_THERE, own], Status.pageFault],
  ])('an address that only the other maps: %s end with a page fault at it, nothing is moved', (_what, operands, status) => {
    const { m, a, b, qa } = two();
    mapAt(b, ONLY_THERE);
    b.store(ONLY_THERE, 4, 0x5afe);
    const own = a.alloc(PAGE);
    a.store(own, 4, 0x0bad);
    // A PASID in the descriptor is replaced by that of the process.
    qa.client.prepare(0, Opcode.memmove, hi(operands(own)[0]), lo(operands(own)[0]), hi(operands(own)[1]), lo(operands(own)[1]), 64);
    qa.client.patch(0, 0, b.mm.pasid);
    qa.client.submit(0);
    m.run();
    expect([qa.client.poll(0), qa.client.record(0, 1), b.load(ONLY_THERE, 4), a.load(own, 4)]).toEqual([status, 0, 0x5afe, 0x0bad]);
    expect(qa.client.record(0, 2) + qa.client.record(0, 3) * 2 ** 32).toBe(ONLY_THERE);
    expect(() => qa.client.resume(0)).toThrow(/SIGSEGV/);
  });
  test('a record address that only the other maps is a software error, nothing is written', () => {
    const { m, a, b, qa } = two();
    mapAt(b, ONLY_THERE);
    qa.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    qa.client.patch(0, 2, lo(ONLY_THERE));
    qa.client.patch(0, 3, hi(ONLY_THERE));
    qa.client.submit(0);
    m.run();
    expect(m.driver.softwareErrors).toMatchObject([{ error: Status.recordFault, pasid: a.mm.pasid }]);
    expect(b.readStruct(ONLY_THERE, new Uint8Array(32))).toEqual(new Uint8Array(32));
  });
  test('the interrupt of one is not the other’s to raise', () => {
    const { m, a, b, qa, qb } = two();
    const [at, bt] = [a.alloc(PAGE), b.alloc(PAGE)];
    expect([a.ioctl(qa.fd, IDXD_UACCE_GET_INTERRUPT, at), b.ioctl(qb.fd, IDXD_UACCE_GET_INTERRUPT, bt)]).toEqual([0, 0]);
    const forged = new Client(b, { address: qb.portal, mode: 'shared' }, { depth: 1, interruptHandle: a.load(at, 4) });
    forged.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    forged.submit(0);
    m.run();
    const fds = [{ fd: qa.fd, events: Poll.IN, revents: 0 }];
    expect([forged.poll(0), a.poll(fds, 0)]).toEqual([Status.interruptHandle, 0]);
  });
  test('one closes with its work in flight: the other’s goes on', () => {
    const { m, a, b, qa, qb } = two();
    const [from, to] = [b.alloc(PAGE), b.alloc(PAGE)];
    b.store(from, 4, 77);
    move(qb.client, from, to);
    qa.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    qa.client.submit(0);
    m.kernel.kill(a.pid);
    m.run();
    expect([qb.client.poll(0), b.load(to, 4), m.bound(b.mm.pasid), m.bound(a.mm.pasid)]).toEqual([1, 77, true, false]);
  });
  // Linux frees a PASID with its mm (mm_pasid_drop): an IA32_PASID that still has it never names another process.
  test('a process that opens again after another took its place still reaches its own memory only', () => {
    const m = machine('shared');
    const a = m.task();
    const first = m.start(a);
    first.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    first.client.submit(0);
    m.run();
    a.munmap(first.portal, PAGE);
    a.close(first.fd);
    const b = m.task();
    m.start(b);
    const again = m.start(a);
    for (const [t, value] of [
      [a, 0xaaaa],
      [b, 0xbbbb],
    ] as const) {
      mapAt(t, ONLY_THERE);
      t.store(ONLY_THERE, 4, value);
    }
    again.client.prepare(0, Opcode.fill, -1, -1, hi(ONLY_THERE), lo(ONLY_THERE), 4);
    again.client.submit(0);
    m.run();
    expect([b.load(ONLY_THERE, 4), a.load(ONLY_THERE, 4), again.client.poll(0)]).toEqual([0xbbbb, 0xffff_ffff, Status.success]);
  });
});

test('queues of two modes, or none, are the programmer’s mistake', () => {
  const m = machine('shared');
  const [wq] = m.driver.wqs;
  const other = { ...wq!, config: { ...wq!.config, mode: 'dedicated' as const } };
  for (const wqs of [[], [wq!, other]]) expect(() => registerIdxdUacce({ driver: m.driver, wqs, kernel: m.kernel, id: 1 })).toThrow(TypeError);
});
