/** Group 7: virtual IOMMUs, their devices, event queues and hardware queues; page faults through nested page tables. Our own words. */
import { Errno, MapFlag, Poll, Prot } from '@siov/layout/uapi';
import { Mock } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { ALL, APERTURE, BUFFER, DATA, type Mocked, mocked, NOTHING, PAGE, two } from '../mock.js';

const { IommufdIoctl, HwptAllocFlag, PageFaultFlag, PageAnswerCode, VeventFlag } = uapi;
const S1 = { type: Mock.HWPT_DATA, words: [Mock.IOTLB_DEFAULT] };
const FAULTS = HwptAllocFlag.FAULT_ID_VALID;
let m: Mocked;
let s: { id: number; stdev: number; device: number; parent: number };
beforeEach(() => {
  m = mocked();
  const id = m.ioas();
  const { stdev, device } = m.domain(id);
  s = { id, stdev, device, parent: m.hwpt(device, id, HwptAllocFlag.NEST_PARENT) };
});
afterEach(() => {
  expect(m.end()).toEqual(NOTHING);
});

const viommu = (hwpt = s.parent, type: number = Mock.VIOMMU, device = s.device, data: readonly number[] = []) => {
  const at = data.length ? two(m.put(data, DATA + 0x800)) : [0, 0];
  const { result, words } = m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 0, type, device, hwpt, 0, data.length * 4, 0, ...at]);
  return result || words[5]!;
};
const vdevice = (id: number, virtualId: number | bigint, device = s.device) => {
  const { result, words } = m.ioctl(IommufdIoctl.VDEVICE_ALLOC, [24, id, device, 0, ...two(virtualId)]);
  return result || words[3]!;
};
const events = (id: number, depth: number, type: number = Mock.VEVENTQ) => {
  const { result, words } = m.ioctl(IommufdIoctl.VEVENTQ_ALLOC, [32, 0, id, type, depth, 0, 0, 0]);
  return { result, id: words[5]!, fd: words[6]! };
};
const trigger = (count: number, device = s.device) => {
  for (let i = 0; i < count; i++) expect(m.command('TRIGGER_VEVENT', 0, [device]).result).toBe(0);
};
const queue = (id: number, index: number, iova: number | bigint = APERTURE, length: number | bigint = PAGE, type: number = Mock.HW_QUEUE) => {
  const { result, words } = m.ioctl(IommufdIoctl.HW_QUEUE_ALLOC, [40, 0, id, type, index, 0, ...two(iova), ...two(length)]);
  return result || words[5]!;
};

describe('a virtual IOMMU', () => {
  test.each<[string, number, () => number]>([
    ['on a page table that is none', -Errno.ENOENT, () => viommu(s.id)],
    ['on one that is no parent', -Errno.EINVAL, () => viommu(m.hwpt(s.device, s.id))],
    ['of no type', -Errno.EOPNOTSUPP, () => viommu(s.parent, 0)],
    ['of an unknown type', -Errno.EOPNOTSUPP, () => viommu(s.parent, 0xdeadbeee)],
    ['of a device that is none', -Errno.ENOENT, () => viommu(s.parent, Mock.VIOMMU, s.id)],
    ['with too little data', -Errno.EINVAL, () => viommu(s.parent, Mock.VIOMMU, s.device, [1])],
    ['with a flag', -Errno.EOPNOTSUPP, () => m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 1, Mock.VIOMMU, s.device, s.parent, 0, 0, 0, 0, 0]).result],
  ])('%s', (_rule, errno, run) => {
    expect(run()).toBe(errno);
  });
  test('holds its parent, and is held by what is made on it', () => {
    const id = viommu();
    expect(m.destroy(s.parent)).toBe(-Errno.EBUSY);
    const table = m.hwpt(s.device, id, 0, S1);
    const device = vdevice(id, 99);
    const { fd, id: eventId } = events(id, 2);
    for (const [made, busy] of [
      [table, 0],
      [device, 0],
      [eventId, -Errno.EBUSY],
    ] as const) {
      expect(m.destroy(id)).toBe(-Errno.EBUSY);
      expect(m.destroy(made)).toBe(busy);
    }
    m.me.close(fd);
    expect([m.destroy(eventId), m.destroy(id), m.destroy(s.parent)]).toEqual([0, 0, 0]);
  });
  test('tells what it was given, and a page that is mapped at the offset and size that it says', () => {
    const id = viommu(s.parent, Mock.VIOMMU, s.device, [0xfeed, 0, 0, 0, 0, 0]);
    const [given, back, offset, , length] = m.get(6, DATA + 0x800) as [number, number, number, number, number];
    expect([given, back, length]).toEqual([0xfeed, 0xfeed, PAGE]);
    const map = (at: number, bytes: number, flags: number = MapFlag.SHARED) =>
      m.me.mm.mmap(0, bytes, Prot.READ, flags, { map: (area) => m.file.mmap!(m.me.task, area) }, at);
    expect(map(offset + PAGE, PAGE)).toBe(-Errno.ENXIO);
    expect(map(offset, 2 * PAGE)).toBe(-Errno.ENXIO);
    expect(map(offset, PAGE, MapFlag.PRIVATE)).toBe(-Errno.EINVAL);
    const address = map(offset, PAGE);
    expect(address).toBeGreaterThan(0);
    expect(m.get(1, address)).toEqual([0xfeed]);
    expect(m.destroy(id)).toBe(-Errno.EBUSY);
    m.me.mm.munmap(address, PAGE);
    expect(m.destroy(id)).toBe(0);
    expect(map(offset, PAGE)).toBe(-Errno.ENXIO);
  });
});

describe('a virtual device', () => {
  test('is one for a device, and one for a number', () => {
    const id = viommu();
    const other = m.domain(s.id);
    const made = vdevice(id, 0x99);
    expect(made).toBeGreaterThan(0);
    expect(vdevice(id, 0x99)).toBe(-Errno.EEXIST);
    expect(vdevice(id, 0x88)).toBe(-Errno.EEXIST);
    expect(vdevice(id, 0x99, other.device)).toBe(-Errno.EEXIST);
    expect(vdevice(id, 0x88, other.device)).toBeGreaterThan(0);
    expect([vdevice(s.id, 1), vdevice(id, 1, s.id)]).toEqual([-Errno.ENOENT, -Errno.ENOENT]);
    m.destroy(made);
    expect(vdevice(id, 0x77)).toBe(made);
  });
  test('goes with its device, and nobody gets its id again', () => {
    const id = viommu();
    const other = m.domain(s.id);
    const made = vdevice(id, 7, other.device);
    m.destroy(other.stdev);
    expect(m.destroy(made)).toBe(-Errno.ENOENT);
    expect([m.ioas(), m.ioas(), m.ioas(), m.ioas()]).not.toContain(made);
    expect(m.destroy(made)).toBe(-Errno.ENOENT);
    expect(m.hwpt(s.device, made, 0, S1)).toBe(-Errno.EINVAL);
    expect(m.replace(s.stdev, made)).toBe(-Errno.ENOENT);
    expect(m.destroy(id)).toBe(0);
  });
});

describe('page faults', () => {
  const ASK = 1 | 2;
  /** A fault's record: flags, device, pasid, group, permissions, reserved, address, length, cookie. */
  const record = (at = 0) => m.get(10, DATA + at * 40);
  test('a nested page table of a virtual IOMMU needs the virtual device first; then its faults are read and answered', () => {
    const id = viommu();
    const { id: faultId, fd } = m.faultQueue();
    const table = m.hwpt(s.device, id, FAULTS, S1, faultId);
    expect(m.replace(s.stdev, table)).toBe(-Errno.ENOENT);
    const device = vdevice(id, 0x99);
    expect(m.replace(s.stdev, table)).toBe(table);
    expect(m.poll(fd)).toBe(Poll.OUT);
    expect(m.fault(s.device, 0x1a2, ASK, 0x1_2345_6000n)).toBe(0);
    expect(m.poll(fd)).toBe(Poll.OUT | Poll.IN);
    expect(m.read(fd, 40)).toBe(40);
    expect(record()).toEqual([PageFaultFlag.LAST_PAGE, s.device, 0, 0x1a2, ASK, 0, 0x2345_6000, 1, 0, 1]);
    expect(m.write(fd, [1, PageAnswerCode.SUCCESS])).toBe(8);
    expect(m.mock.responses).toEqual([[-1, 0x1a2, 0]]);
    expect(m.replace(s.stdev, s.parent)).toBe(s.parent);
    expect([m.destroy(table), m.destroy(device)]).toEqual([0, 0]);
  });
  test('the file: whole records and answers, cookies that are known, codes that there are', () => {
    const { id: faultId, fd } = m.faultQueue();
    const table = m.hwpt(s.device, s.parent, FAULTS, S1, faultId);
    m.replace(s.stdev, table);
    expect([m.read(fd, 39), m.read(fd, 41), m.read(fd, 40), m.read(fd, 0)]).toEqual([-Errno.ESPIPE, -Errno.ESPIPE, 0, 0]);
    expect([m.write(fd, [1, 0], 7), m.write(fd, [1, 0]), m.write(fd, [0, 0])]).toEqual([-Errno.ESPIPE, -Errno.EINVAL, -Errno.EINVAL]);
    for (let group = 0; group < 3; group++) m.fault(s.device, group, ASK, 0);
    expect(m.read(fd, 80)).toBe(80);
    expect([record(0)[9], record(1)[9]]).toEqual([1, 2]);
    expect(m.write(fd, [1, 2])).toBe(-Errno.EINVAL);
    // The first is answered, the second's code is none: so far it went.
    expect(m.write(fd, [2, 1, 1, 15])).toBe(8);
    expect(m.write(fd, [2, 0])).toBe(-Errno.EINVAL);
    expect(m.mock.responses).toEqual([[-1, 1, 1]]);
    // A place that is not there loses nothing.
    expect(m.read(fd, 40, 0x1000)).toBe(-Errno.EFAULT);
    expect(m.read(fd, 40)).toBe(40);
    expect(record()[3]).toBe(2);
    m.replace(s.stdev, s.id);
    expect(m.mock.responses).toEqual([
      [-1, 1, 1],
      [-1, 0, 1],
      [-1, 2, 1],
    ]);
  });
  test('what waits is answered Invalid Request when the device goes elsewhere; nothing that was answered is', () => {
    const { id: faultId, fd } = m.faultQueue();
    const [one, other] = [m.hwpt(s.device, s.parent, FAULTS, S1, faultId), m.hwpt(s.device, s.parent, FAULTS, S1, faultId)];
    const second = m.domain(other);
    m.replace(s.stdev, one);
    m.fault(s.device, 1, ASK, 0);
    m.fault(second.device, 2, ASK, 0);
    m.read(fd, 40);
    m.fault(s.device, 3, ASK, 0);
    m.replace(s.stdev, s.id);
    expect(m.mock.responses.map(([, group, code]) => [group, code])).toEqual([
      [3, 1],
      [1, 1],
    ]);
    expect(m.read(fd, 400)).toBe(40);
    expect(record().slice(0, 4)).toEqual([PageFaultFlag.LAST_PAGE, second.device, 0, 2]);
    m.destroy(second.stdev);
    expect(m.mock.responses.length).toBe(3);
  });
  test('a fault of a device that nobody hears is answered at once', () => {
    m.fault(s.device, 5, ASK, 0);
    expect(m.mock.responses).toEqual([[-1, 5, 1]]);
    expect(m.fault(99, 5, ASK, 0)).toBe(-Errno.ENOENT);
  });
  test('its descriptor and every page table keep the queue; a closed one answers by itself', () => {
    const { id: faultId, fd } = m.faultQueue();
    const table = m.hwpt(s.device, s.parent, FAULTS, S1, faultId);
    expect(m.destroy(faultId)).toBe(-Errno.EBUSY);
    m.replace(s.stdev, table);
    m.fault(s.device, 1, ASK, 0);
    m.me.close(fd);
    expect(m.mock.responses).toEqual([[-1, 1, 1]]);
    m.fault(s.device, 2, ASK, 0);
    expect(m.mock.responses.length).toBe(2);
    expect(m.destroy(faultId)).toBe(-Errno.EBUSY);
    m.replace(s.stdev, s.id);
    m.destroy(table);
    expect(m.destroy(faultId)).toBe(0);
  });
  test('on an ordinary page table, too', () => {
    const { id: faultId, fd } = m.faultQueue();
    const table = m.hwpt(s.device, s.id, FAULTS, undefined, faultId);
    m.replace(s.stdev, table);
    m.fault(s.device, 9, 15, 0xffff_ffff_ffff_f000n);
    expect(m.read(fd, 40)).toBe(40);
    expect(record().slice(3, 8)).toEqual([9, 15, 0, 0xffff_f000, 0xffff_ffff]);
  });
  test('whoever waits for one is woken', () => {
    const { id: faultId, fd } = m.faultQueue();
    m.replace(s.stdev, m.hwpt(s.device, s.parent, FAULTS, S1, faultId));
    m.poll(fd);
    m.fault(s.device, 1, ASK, 0);
    m.fault(s.device, 2, ASK, 0);
    expect(m.me.woken()).toBe(1);
  });
});

describe('events', () => {
  /** Reads all; [lost, sequence, number of the device (none when lost)]. */
  const readAll = (fd: number): [number, number, number?][] => {
    const bytes = m.read(fd, 4096);
    const words = m.get(bytes / 4);
    const found: [number, number, number?][] = [];
    for (let at = 0; at < words.length; ) {
      const lost = words[at]! & VeventFlag.LOST_EVENTS;
      found.push(lost ? [1, words[at + 1]!] : [0, words[at + 1]!, words[at + 2]!]);
      at += lost ? 2 : 3;
    }
    return found;
  };
  test('a queue: its depth, one of a type, none of no type', () => {
    const id = viommu();
    expect([0, 2 ** 19 + 1].map((depth) => events(id, depth).result)).toEqual([-Errno.EINVAL, -Errno.EINVAL]);
    expect(events(id, 1, 0).result).toBe(-Errno.EOPNOTSUPP);
    expect(events(s.id, 1).result).toBe(-Errno.ENOENT);
    expect(events(id, 2 ** 19).result).toBe(0);
    expect(events(id, 2).result).toBe(-Errno.EEXIST);
    expect(m.command('TRIGGER_VEVENT', 0, [s.device]).result).toBe(-Errno.ENOENT);
    vdevice(id, 0x99);
    trigger(1);
  });
  test('no queue for them: EOPNOTSUPP', () => {
    vdevice(viommu(), 0x99);
    expect(m.command('TRIGGER_VEVENT', 0, [s.device]).result).toBe(-Errno.EOPNOTSUPP);
  });
  test('read in order under the device’s own number; too little room is EINVAL', () => {
    const id = viommu();
    vdevice(id, 0x99);
    const { fd } = events(id, 3);
    expect([m.poll(fd), m.read(fd, 12)]).toEqual([0, 0]);
    trigger(2);
    expect(m.poll(fd)).toBe(Poll.IN);
    expect([m.read(fd, 7), m.read(fd, 11)]).toEqual([-Errno.EINVAL, -Errno.EINVAL]);
    expect(m.read(fd, 23)).toBe(12);
    expect(m.get(3)).toEqual([0, 0, 0x99]);
    expect(readAll(fd)).toEqual([[0, 1, 0x99]]);
    expect([m.poll(fd), readAll(fd)]).toEqual([0, []]);
  });
  test('more than there is room for: the numbers go on, a record behind the last says that some are lost', () => {
    const id = viommu();
    vdevice(id, 0x99);
    const { fd } = events(id, 3);
    trigger(5);
    expect(readAll(fd)).toEqual([
      [0, 0, 0x99],
      [0, 1, 0x99],
      [0, 2, 0x99],
      [1, 4],
    ]);
    trigger(1);
    expect(readAll(fd)).toEqual([[0, 5, 0x99]]);
    // Room again while the record is still there: it is one event no more, the gap in the numbers tells.
    trigger(4);
    expect(m.read(fd, 12)).toBe(12);
    trigger(1);
    expect(readAll(fd).map(([lost, sequence]) => [lost, sequence])).toEqual([
      [0, 7],
      [0, 8],
      [0, 10],
    ]);
  });
});

test('invalidation by virtual device: the same rules, all entries are looked at first', () => {
  const id = viommu();
  const { INVALIDATE, INVALIDATE_ALL, CACHE_DEFAULT } = Mock;
  const flush = (count: number, words: readonly number[], type: number = INVALIDATE, bytes = 12) => m.invalidate(id, type, bytes, count, words);
  const cache = (...values: number[]) => {
    for (const [slot, value] of values.entries()) expect(m.checkCache(s.device, slot, value), `${slot}`).toBe(0);
  };
  expect(flush(1, [0, 0x99, 0])).toEqual({ result: -Errno.EINVAL, done: 0 });
  vdevice(id, 0x99);
  cache(CACHE_DEFAULT, CACHE_DEFAULT, CACHE_DEFAULT, CACHE_DEFAULT);
  expect(flush(0, [])).toEqual({ result: 0, done: 0 });
  expect(flush(0, [], 0xdadbeef)).toEqual({ result: -Errno.EINVAL, done: 0 });
  expect(flush(1, [0, 0x99, 0], INVALIDATE, 8)).toEqual({ result: -Errno.EINVAL, done: 0 });
  expect(flush(1, [0, 0x99, 0, 1], INVALIDATE, 16)).toEqual({ result: -Errno.E2BIG, done: 0 });
  expect(flush(1, [2, 0x99, 0])).toEqual({ result: -Errno.EOPNOTSUPP, done: 0 });
  expect(flush(1, [0, 0x99, 4])).toEqual({ result: -Errno.EINVAL, done: 0 });
  expect(flush(1, [0, 0x98, 0])).toEqual({ result: -Errno.EINVAL, done: 0 });
  expect(flush(2, [0, 0x99, 0, 2, 0x99, 1])).toEqual({ result: -Errno.EOPNOTSUPP, done: 1 });
  cache(0, CACHE_DEFAULT, CACHE_DEFAULT, CACHE_DEFAULT);
  expect(flush(2, [0, 0x99, 1, 0, 0x99, 2])).toEqual({ result: 0, done: 2 });
  cache(0, 0, 0, CACHE_DEFAULT);
  expect(flush(1, [INVALIDATE_ALL, 0x99, 0])).toEqual({ result: 0, done: 1 });
  cache(0, 0, 0, 0);
});

describe('a hardware queue', () => {
  /** Two pages in one piece at the aperture. */
  const mapped = () => {
    const huge = 0x7e00_0000_0000;
    m.me.mm.mmap(huge, 2 ** 21, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED | MapFlag.HUGETLB);
    expect(m.map(s.id, huge, 4 * PAGE, APERTURE)).toBe(BigInt(APERTURE));
  };
  test('refused', () => {
    const id = viommu();
    expect(queue(id, 0)).toBe(-Errno.ENOENT);
    mapped();
    expect(queue(s.id, 0)).toBe(-Errno.ENOENT);
    expect(queue(id, 0, APERTURE, PAGE, 0)).toBe(-Errno.EOPNOTSUPP);
    expect(queue(id, 0, APERTURE, PAGE, 0xdeadbeee)).toBe(-Errno.EOPNOTSUPP);
    expect(queue(id, 0, APERTURE, 0)).toBe(-Errno.EINVAL);
    expect(queue(id, 0, ALL, 2)).toBe(-Errno.EOVERFLOW);
    expect(queue(id, 0, APERTURE, 5 * PAGE)).toBe(-Errno.ENOENT);
    expect(queue(id, 2)).toBe(-Errno.EINVAL);
    expect(queue(id, 1)).toBe(-Errno.EIO);
    // Nothing of these kept a page.
    expect(m.unmap(s.id, APERTURE, 4 * PAGE)).toBe(BigInt(4 * PAGE));
  });
  test('in order, its memory in one piece, which stays while it is there', () => {
    const id = viommu();
    mapped();
    const first = queue(id, 0, APERTURE + 64, 2 * PAGE);
    expect(first).toBeGreaterThan(0);
    expect(queue(id, 0)).toBe(-Errno.EEXIST);
    const second = queue(id, 1);
    expect(second).toBeGreaterThan(0);
    expect(m.unmap(s.id, APERTURE, 4 * PAGE)).toBe(BigInt(-Errno.EBUSY));
    expect(m.destroy(id)).toBe(-Errno.EBUSY);
    expect([m.destroy(second), m.unmap(s.id, APERTURE, 4 * PAGE), m.destroy(first)]).toEqual([0, BigInt(-Errno.EBUSY), 0]);
    expect(m.unmap(s.id, APERTURE, 4 * PAGE)).toBe(BigInt(4 * PAGE));
    expect(m.destroy(id)).toBe(0);
  });
  test('scattered memory is EFAULT', () => {
    const id = viommu();
    // Touched in the other order, so that no page follows the one before it.
    for (const page of [3, 2, 1, 0]) m.fill(BUFFER + page * PAGE, 1);
    m.map(s.id, BUFFER, 4 * PAGE, APERTURE);
    expect(queue(id, 0, APERTURE, 2 * PAGE)).toBe(-Errno.EFAULT);
    expect(m.unmap(s.id, APERTURE, 4 * PAGE)).toBe(BigInt(4 * PAGE));
  });
});
