/** Group 4: what page tables hold. Our own words. */
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { Mock, MockDeviceFlag } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { ALL, APERTURE, BUFFER, BUFFER_BYTES, type Mocked, mocked, NOTHING, PAGE } from '../mock.js';

const { HwptAllocFlag, IoasMapFlag } = uapi;
const err = (number: number): bigint => BigInt(-number);
const MEBI = 2 ** 20;

describe.each([
  ['one domain', 1, false, false],
  ['two domains', 2, false, false],
  ['one domain, large pages', 1, true, false],
  ['two domains, large pages', 2, true, false],
  ['one domain, a memory file', 1, false, true],
  ['two domains, a memory file', 2, false, true],
] as const)('%s', (_name, domains, huge, filed) => {
  let m: Mocked;
  let id: number;
  let made: { stdev: number; hwpt: number; device: number }[];
  let buffer: number;
  let file: ReturnType<Mocked['memoryFile']> | undefined;
  beforeEach(() => {
    m = mocked(huge ? 8192 : 4096);
    id = m.ioas();
    made = Array.from({ length: domains }, () => {
      const { result, ...rest } = m.domain(id, huge ? MockDeviceFlag.HUGE_IOVA : 0);
      expect(result).toBe(0);
      return rest;
    });
    buffer = BUFFER;
    file = undefined;
    const flags = MapFlag.SHARED | MapFlag.FIXED;
    if (huge) {
      // Memory in one piece, as the kernel's large pages are.
      buffer = BUFFER + 4 * MEBI;
      m.me.mm.mmap(buffer, 4 * MEBI, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED | MapFlag.HUGETLB);
    } else if (filed) {
      file = m.memoryFile(BUFFER_BYTES);
      m.me.mm.mmap(BUFFER, BUFFER_BYTES, Prot.READ | Prot.WRITE, flags, file.memory);
    }
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });
  /** Maps bytes of the buffer: as memory of the process, or of the file. */
  const map = (address: number, length: number, iova?: number | bigint) =>
    file ? m.mapFile(id, file.fd, address - buffer, length, iova) : m.map(id, address, length, iova);
  const shows = (iova: bigint, address: number, length: number): number[] => made.map(({ hwpt }) => m.checkMap(hwpt, iova, address, length));
  const right = (): number[] => new Array(domains).fill(0);

  test('what is mapped is what the user has, page by page', () => {
    for (const pages of [1, 2, 5, 16, 33]) {
      const iova = map(buffer, pages * PAGE);
      expect(iova).toBeGreaterThanOrEqual(BigInt(APERTURE));
      expect(shows(iova, buffer, pages * PAGE)).toEqual(right());
      expect(m.unmap(id, iova, pages * PAGE)).toBe(BigInt(pages * PAGE));
    }
  });
  test('every start and length in its pages: pinned once however many page tables there are, and let go', () => {
    const step = huge ? MEBI / 2 : 2048;
    const bytes = huge ? 4 * MEBI : 4 * PAGE;
    for (let start = 0; start < bytes; start += step)
      for (let length = step; start + length <= bytes; length += step) {
        const iova = map(buffer + start, length);
        expect(shows(iova, buffer + start, length)).toEqual(right());
        const from = Math.floor(start / PAGE) * PAGE;
        const to = Math.ceil((start + length) / PAGE) * PAGE;
        if (!huge) expect(m.checkRefs(buffer + from, to - from, 1)).toBe(0);
        expect(m.unmap(id, iova, length)).toBe(BigInt(length));
        if (!huge) expect(m.checkRefs(buffer, bytes, 0)).toBe(0);
      }
  });
  test('the same with a copy of it and a page table that comes and goes', () => {
    const step = huge ? MEBI : 2048;
    const bytes = huge ? 4 * MEBI : 4 * PAGE;
    const other = m.ioas();
    const there = m.domain(other, huge ? MockDeviceFlag.HUGE_IOVA : 0);
    for (let start = 0; start < bytes; start += step) {
      const length = bytes - start;
      const iova = map(buffer + start, length);
      // Within the area, since a copy may begin anywhere in it.
      const copied = m.copy(other, id, iova, length);
      expect(m.checkMap(there.hwpt, copied, buffer + start, length)).toBe(0);
      if (!huge) expect(m.checkRefs(buffer + Math.floor(start / PAGE) * PAGE, PAGE, 1)).toBe(0);
      const late = m.domain(id, huge ? MockDeviceFlag.HUGE_IOVA : 0);
      expect([late.result, m.checkMap(late.hwpt, iova, buffer + start, length)]).toEqual([0, 0]);
      m.destroy(late.stdev);
      m.unmap(id, iova, length);
      expect(m.checkMap(there.hwpt, copied, buffer + start, length)).toBe(0);
      m.unmap(other, copied, length);
      if (!huge) expect(m.checkRefs(buffer, bytes, 0)).toBe(0);
    }
    // The last page table gone, the areas stay and nothing is pinned.
    const iova = map(buffer, bytes);
    for (const { stdev } of made) m.destroy(stdev);
    if (!huge) expect(m.checkRefs(buffer, bytes, 0)).toBe(0);
    const again = m.domain(id, huge ? MockDeviceFlag.HUGE_IOVA : 0);
    expect(m.checkMap(again.hwpt, iova, buffer, bytes)).toBe(0);
  });
  test('a hole in the middle, or at the start: EFAULT, and nothing is left', () => {
    if (filed) {
      // A file ends; it has no holes.
      expect(map(buffer, BUFFER_BYTES + PAGE)).toBe(err(Errno.EINVAL));
      expect(map(buffer + BUFFER_BYTES - PAGE, 2 * PAGE)).toBe(err(Errno.EINVAL));
      expect(m.checkRefs(buffer, BUFFER_BYTES, 0)).toBe(0);
      return;
    }
    const hole = huge ? 2 * MEBI : 2 * PAGE;
    m.me.mm.munmap(buffer + hole, hole);
    expect(m.map(id, buffer, 2 * hole, APERTURE)).toBe(err(Errno.EFAULT));
    expect(m.map(id, buffer + hole, PAGE, APERTURE)).toBe(err(Errno.EFAULT));
    if (!huge) expect(m.checkRefs(buffer, hole, 0)).toBe(0);
    expect(m.map(id, buffer, hole, APERTURE)).toBe(BigInt(APERTURE));
  });
  test('pages that are only read stay where they are when the program writes them', () => {
    m.fill(buffer, 2 * PAGE);
    const iova = file
      ? m.mapFile(id, file.fd, 0, 2 * PAGE, undefined, IoasMapFlag.READABLE)
      : m.map(id, buffer, 2 * PAGE, undefined, IoasMapFlag.READABLE);
    m.fill(buffer, 2 * PAGE, 99);
    expect(shows(iova, buffer, 2 * PAGE)).toEqual(right());
  });
  test('user space copies through another address space after it took its place', () => {
    const other = m.ioas();
    const [first, second] = [map(buffer, 2 * PAGE), buffer + 8 * PAGE];
    const fd = m.access(id, false);
    expect(m.copy(other, id, first, 2 * PAGE, first)).toBe(first);
    expect(m.command('ACCESS_REPLACE_IOAS', fd, [other]).result).toBe(0);
    m.fill(buffer, PAGE, 3);
    expect(m.transfer(fd, first, PAGE, second, false)).toBe(0);
    expect(m.bytes(second, PAGE)).toEqual(m.bytes(buffer, PAGE));
  });
  test('another page table takes its place: the automatic one goes with its last device', () => {
    const other = m.ioas();
    const [{ stdev, hwpt }] = made as [(typeof made)[0]];
    const auto = m.replace(stdev, other);
    expect(auto).toBeGreaterThan(0);
    expect(auto).not.toBe(hwpt);
    expect(m.destroy(hwpt)).toBe(domains === 1 ? -Errno.ENOENT : -Errno.EBUSY);
    expect([m.destroy(auto), m.destroy(other)]).toEqual([-Errno.EBUSY, -Errno.EBUSY]);
    expect(m.replace(stdev, auto)).toBe(auto);
    expect(m.replace(stdev, 99)).toBe(-Errno.ENOENT);
    expect(m.replace(stdev, made[0]!.device)).toBe(-Errno.EINVAL);
    expect(m.replace(99, other)).toBe(-Errno.ENOENT);
    expect(m.replace(stdev, id)).toBeGreaterThan(0);
    expect(m.destroy(auto)).toBe(-Errno.ENOENT);
    expect(m.destroy(other)).toBe(0);
  });
  test('page tables of the program: in turn, each busy while a device is there', () => {
    const [{ stdev, device }] = made as [(typeof made)[0]];
    expect(m.hwpt(device, id, 1 << 31)).toBe(-Errno.EOPNOTSUPP);
    const [one, two] = [m.hwpt(device, id), m.hwpt(device, id, HwptAllocFlag.NEST_PARENT)];
    const iova = map(buffer, PAGE);
    for (const table of [one, two, one]) {
      expect(m.replace(stdev, table)).toBe(table);
      expect(m.checkMap(table, iova, buffer, PAGE)).toBe(0);
      expect(m.destroy(table)).toBe(-Errno.EBUSY);
      expect(m.destroy(id)).toBe(-Errno.EBUSY);
    }
    expect(m.replace(stdev, id)).toBeGreaterThan(0);
    expect([m.destroy(one), m.destroy(two)]).toEqual([0, 0]);
    m.unmap(id, 0, ALL);
  });
});

test('what looks into the page tables refuses what it should', () => {
  const m = mocked();
  const id = m.ioas();
  const { hwpt } = m.domain(id);
  m.map(id, BUFFER, PAGE, APERTURE);
  expect(m.checkMap(hwpt, APERTURE, BUFFER, PAGE)).toBe(0);
  expect(m.checkMap(hwpt, APERTURE, BUFFER + PAGE, PAGE)).toBe(-Errno.EINVAL);
  expect(m.checkMap(hwpt, APERTURE, BUFFER, 2 * PAGE)).toBe(-Errno.EINVAL);
  expect(m.checkMap(hwpt, APERTURE + 1, BUFFER, PAGE)).toBe(-Errno.EINVAL);
  expect(m.checkMap(id, APERTURE, BUFFER, PAGE)).toBe(-Errno.ENOENT);
  expect(m.checkRefs(BUFFER, PAGE, 2)).toBe(-Errno.EIO);
  expect(m.checkRefs(BUFFER + 1, PAGE, 1)).toBe(-Errno.EINVAL);
  expect(m.command('SET_TEMP_MEMORY_LIMIT', 0, [11]).result).toBe(-Errno.EINVAL);
  expect(m.command('SET_TEMP_MEMORY_LIMIT', 0, [12]).result).toBe(0);
  expect(m.ioctl(Mock.CMD, [72, 99, ...new Array(16).fill(0)]).result).toBe(-Errno.EOPNOTSUPP);
  expect(m.domain(id, 8).result).toBe(-Errno.EINVAL);
  expect(m.end()).toEqual(NOTHING);
});

test('what is mapped of a file outlives its descriptor, also before anything was pinned', () => {
  const m = mocked();
  const id = m.ioas();
  const { fd, memory } = m.memoryFile(2 * PAGE);
  memory.write(0, Uint8Array.of(42));
  m.mapFile(id, fd, 0, 2 * PAGE, APERTURE);
  m.me.close(fd);
  const access = m.access(id, false);
  expect([m.transfer(access, APERTURE, 1, BUFFER, false), m.bytes(BUFFER, 1)[0]]).toEqual([0, 42]);
  const { hwpt, stdev } = m.domain(id);
  m.me.mm.mmap(BUFFER, 2 * PAGE, Prot.READ, MapFlag.SHARED | MapFlag.FIXED, memory);
  expect(m.checkMap(hwpt, APERTURE, BUFFER, 2 * PAGE)).toBe(0);
  m.destroy(stdev);
  expect(m.end()).toEqual(NOTHING);
});
