import { Descriptor, Flag, Opcode, Portal } from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';
import { Errno, MapFlag, Open, Poll, Prot } from '@siov/layout/uapi';
import type { UserTask } from '@siov/vfs';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import type { DeviceConfig } from '../src/index.js';
import { machine, openPortal } from './machine.js';

const dedicated: DeviceConfig = { wqs: [{ mode: 'dedicated', size: 16, group: 0 }] };
const shared: DeviceConfig = { wqs: [{ mode: 'shared', size: 16, group: 0 }] };
const map = (t: UserTask, fd: number, length = 4096, offset = 0): number => t.mmap(0, length, Prot.WRITE, MapFlag.SHARED, fd, offset);
const modes = [
  ['dedicated', dedicated],
  ['shared', shared],
] as const;

/** A machine with one queue's node, and a process that opened it. */
function opened(config: DeviceConfig, options?: Parameters<ReturnType<typeof machine>['node']>[1]) {
  const m = machine({ config });
  const { path, remove } = options ? m.node(m.driver.wqs[0], options) : m.node();
  const t = m.task();
  const fd = t.open(path, Open.RDWR);
  const { domain, attached } = { domain: () => m.iommu.attachedTo(m.pci.requesterId, t.mm.pasid), attached: t.mm.pasid };
  return { ...m, path, remove, t, fd, domain, pasid: attached };
}
/** `n` no-operations in the process's memory, with their records behind them. */
function nops(t: UserTask, n: number, change: (d: Uint32Array, i: number) => void = () => {}): { at: number; bytes: number; statuses(): number[] } {
  const at = t.alloc(8192);
  for (let i = 0; i < n; i++) {
    const d = new Uint32Array(16);
    Descriptor.set.opcode(d, 0, Opcode.nop);
    Descriptor.set.flags(d, 0, Flag.recordAddressValid | Flag.requestRecord);
    Descriptor.set.recordHigh(d, 0, hi(at));
    Descriptor.set.recordLow(d, 0, lo(at) + 4096 + i * 32);
    change(d, i);
    t.writeStruct(at + i * 64, d);
  }
  return { at, bytes: n * 64, statuses: () => Array.from({ length: n }, (_, i) => t.load(at + 4096 + i * 32, 1)) };
}

describe('open', () => {
  test.each(modes)('%s: binds the address space, and ENQCMD would carry its PASID', (_mode, config) => {
    const o = opened(config);
    expect([o.fd, o.pasid > 0, o.domain() !== undefined]).toEqual([0, true, true]);
  });
  test('a dedicated queue has one opener: EBUSY for others, until it is closed', () => {
    const o = opened(dedicated);
    const other = o.task();
    expect([other.open(o.path, Open.RDWR), o.t.open(o.path, Open.RDWR)]).toEqual([-Errno.EBUSY, -Errno.EBUSY]);
    o.t.close(o.fd);
    expect(other.open(o.path, Open.RDWR)).toBe(0);
  });
  test('a shared queue has many', () => {
    const o = opened(shared);
    const other = o.task();
    expect([other.open(o.path, Open.RDWR), o.driver.wqs[0]!.clients, other.mm.pasid === o.pasid]).toEqual([0, 2, false]);
  });
  test('of a disabled device it is ENXIO, and of a removed node ENOENT', () => {
    const m = machine();
    const { path, remove } = m.node();
    m.driver.disable();
    expect(m.task().open(path, Open.RDWR)).toBe(-Errno.ENXIO);
    remove();
    expect(m.task().open(path, Open.RDWR)).toBe(-Errno.ENOENT);
  });
  test('a process that may not be bound gets the binding’s errno, and the queue stays free', () => {
    const m = machine();
    const { path } = m.node();
    const t = m.task();
    m.iommu.removeDevice(m.pci.requesterId);
    expect([t.open(path, Open.RDWR), m.driver.wqs[0]!.owner, m.driver.wqs[0]!.clients]).toEqual([-Errno.ENODEV, undefined, 0]);
  });
});

describe('mmap', () => {
  test('gives the limited portal, whatever the offset', () => {
    const o = opened(dedicated);
    const frame = o.pci.bars.get(2)!.address / 4096 + Portal.limitedMsix / 4096;
    for (const offset of [0, 4096, 8192]) {
      let inserted = -1;
      const file = o.t.file(o.fd)!;
      const area = { length: 4096, offset, dontCopy: false, insert: (_i: number, f: number) => void (inserted = f), zap: () => {} };
      expect([file.mmap!(o.t, area as never), inserted, area.dontCopy]).toEqual([0, frame, true]);
    }
  });
  test('of more than a page is EINVAL', () => {
    const o = opened(dedicated);
    expect([map(o.t, o.fd, 8192), map(o.t, o.fd, 100) > 0]).toEqual([-Errno.EINVAL, true]);
  });
  test('by another address space is EPERM, and a fork does not inherit the mapping', () => {
    const o = opened(dedicated);
    const portal = map(o.t, o.fd);
    const child = o.kernel.task(o.t.fork({ step: () => 'wait' }))!;
    expect(map(child, o.fd)).toBe(-Errno.EPERM);
    expect(() => child.store(portal, 4, 1)).toThrow(/SIGSEGV/);
    expect(child.write(o.fd, 0, 64)).toBe(-Errno.EPERM);
    const fds = [{ fd: o.fd, events: Poll.IN, revents: 0 }];
    expect(o.t.file(o.fd)!.poll!(child)).toBe(Poll.NVAL);
    expect(o.t.poll(fds, 0)).toBe(0);
  });
  test('holds the queue after close of the descriptor; munmap then lets go', () => {
    const o = opened(dedicated);
    const portal = map(o.t, o.fd);
    o.t.close(o.fd);
    expect(o.driver.wqs[0]!.enabled).toBe(true);
    o.t.munmap(portal, 4096);
    expect([o.driver.wqs[0]!.enabled, o.driver.wqs[0]!.owner, o.domain()]).toEqual([false, undefined, undefined]);
  });
});

describe.each(modes)('write to a %s queue', (mode, config) => {
  test('submits whole descriptors; the tail is ignored', () => {
    const o = opened(config);
    const n = nops(o.t, 3);
    expect([o.t.write(o.fd, n.at, 64 * 2 + 63), o.t.write(o.fd, n.at, 63)]).toEqual([128, 0]);
    o.run();
    expect(n.statuses()).toEqual([1, 1, 0]);
  });
  test('the PASID is the opener’s and privilege is off, whatever the descriptor says', () => {
    const o = opened(config);
    const n = nops(o.t, 1, (d) => {
      if (mode === 'shared') d[0] = 0x800f_ffff;
    });
    expect(o.t.write(o.fd, n.at, 64)).toBe(64);
    o.run();
    expect(n.statuses()).toEqual([1]);
  });
  test.each([
    ['a record that is not aligned', (d: Uint32Array) => Descriptor.set.recordLow(d, 0, Descriptor.get.recordLow(d, 0) + 16)],
    ['a batch on a 1.0 device', (d: Uint32Array) => Descriptor.set.opcode(d, 0, Opcode.batch)],
  ])('%s is EINVAL when it is the first, else what came before counts', (_rule, spoil) => {
    const o = opened(config);
    expect(o.t.write(o.fd, nops(o.t, 1, spoil).at, 64)).toBe(-Errno.EINVAL);
    const n = nops(o.t, 3, (d, i) => (i === 2 ? spoil(d) : undefined));
    expect(o.t.write(o.fd, n.at, 192)).toBe(128);
    o.run();
    expect(n.statuses().slice(0, 2)).toEqual([1, 1]);
  });
  test('memory that is not there is EFAULT, or ends the count', () => {
    const o = opened(config);
    const at = o.t.alloc(4096);
    o.t.writeStruct(at + 4032, Uint32Array.of(0, 0, ...new Array(14).fill(0)));
    o.t.munmap(at + 4096, 4096);
    expect([o.t.write(o.fd, 4096, 64), o.t.write(o.fd, at + 4032, 128)]).toEqual([-Errno.EFAULT, 64]);
  });
  test('without a way to the portal it is EINVAL', () => {
    const o = opened(config, {});
    expect(o.t.write(o.fd, nops(o.t, 1).at, 64)).toBe(-Errno.EINVAL);
  });
});

test('a shared queue that stays full: ENQCMDS is tried enqcmds_retries + 1 times, then EAGAIN', () => {
  let tries = 0;
  const o = opened(shared, { submit: { movdir64b: () => {}, enqcmds: () => (tries++, 1) }, enqcmdsRetries: 5 });
  expect([o.t.write(o.fd, nops(o.t, 1).at, 64), tries]).toEqual([-Errno.EAGAIN, 6]);
});

test('poll says IN from the first software error on', () => {
  const o = opened(dedicated);
  const fds = [{ fd: o.fd, events: Poll.IN, revents: 0 }];
  expect(o.t.poll(fds, 0)).toBe(0);
  o.t.write(o.fd, nops(o.t, 1, (d) => Descriptor.set.flags(d, 0, 0x40)).at, 64);
  o.run();
  expect([o.t.poll(fds, 0), fds[0]!.revents]).toEqual([1, Poll.IN]);
});
test('read and ioctl are not there', () => {
  const o = opened(dedicated);
  expect([o.t.read(o.fd, o.t.alloc(64), 64), o.t.ioctl(o.fd, 0, 0)]).toEqual([-Errno.EINVAL, -Errno.ENOTTY]);
});

describe.each(modes)('close of a %s queue', (_mode, config) => {
  test('waits for what is in flight, then unbinds', () => {
    const o = opened(config);
    const n = nops(o.t, 8);
    o.t.write(o.fd, n.at, n.bytes);
    expect(n.statuses()).toEqual(new Array(8).fill(0));
    o.t.close(o.fd);
    expect([n.statuses(), o.domain(), o.driver.wqs[0]!.clients]).toEqual([new Array(8).fill(1), undefined, 0]);
  });
  test('by the death of the process: nothing is bound, nothing is in flight, the queue can be opened', () => {
    const o = opened(config);
    const n = nops(o.t, 8);
    o.t.write(o.fd, n.at, n.bytes);
    o.kernel.kill(o.t.pid);
    o.run();
    expect([o.domain(), o.driver.wqs[0]!.clients, o.driver.wqs[0]!.owner]).toEqual([undefined, 0, undefined]);
    const next = o.task();
    expect(next.open(o.path, Open.RDWR)).toBe(0);
    const again = nops(next, 2);
    next.write(0, again.at, again.bytes);
    o.run();
    expect(again.statuses()).toEqual([1, 1]);
  });
});

test('ENQCMD of a bound process gets its PASID with its first use; without a binding it is a #GP', () => {
  const m = machine({ config: shared });
  const { path } = m.node();
  const [t, stranger] = [m.task(), m.task()];
  const { portal } = openPortal(t, path);
  expect(t.context.pasidMsr).toBe(0);
  const client = new Client(t, { address: portal, mode: 'shared' }, { depth: 1 });
  client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
  expect([client.submit(0), t.context.pasidMsr]).toEqual([0, t.mm.pasid | (1 << 31)]);
  m.run();
  expect(client.poll(0)).toBe(1);
  const at = stranger.alloc(4096);
  expect(() => stranger.enqcmd(hi(at), lo(at), hi(at), lo(at))).toThrow(/SIGSEGV.*#GP|#GP/);
});
