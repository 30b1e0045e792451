/** Group 5: dirty tracking. Our own words. */
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { Mock, MockDeviceFlag } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { APERTURE, BUFFER, DATA, type Mocked, mocked, NOTHING, PAGE, two } from '../mock.js';

const { IommufdIoctl, HwptAllocFlag, GetDirtyBitmapFlag, HwInfoCapability } = uapi;
const KIBI = 1024;
const MEBI = 2 ** 20;
const { DIRTY_TRACKING } = HwptAllocFlag;

/** Where bitmaps lie: beyond everything else. */
const BITMAP = BUFFER - 0x400_0000;
const FLAGS = MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED;

describe.each([
  ['8 KiB', 8 * KIBI, false],
  ['16 KiB', 16 * KIBI, false],
  ['64 KiB', 64 * KIBI, false],
  ['128 KiB', 128 * KIBI, false],
  ['320 KiB', 320 * KIBI, false],
  ['64 MiB', 64 * MEBI, false],
  ['64 MiB in large pages', 64 * MEBI, true],
  ['128 MiB', 128 * MEBI, false],
  ['128 MiB in large pages', 128 * MEBI, true],
] as const)('%s', (_name, bytes, huge) => {
  const large = bytes >= MEBI;
  const page = huge ? Mock.HUGE_PAGE : Mock.IO_PAGE;
  let m: Mocked;
  let id: number;
  let stdev: number;
  let device: number;
  beforeEach(() => {
    m = mocked(large ? 4096 + bytes / PAGE + 1024 : 4096);
    m.me.mm.mmap(BITMAP, 0x10_0000, Prot.READ | Prot.WRITE, FLAGS);
    if (large) m.me.mm.mmap(BUFFER, bytes, Prot.READ | Prot.WRITE, FLAGS | MapFlag.HUGETLB);
    else m.me.mm.mmap(BUFFER, 512 * KIBI, Prot.READ | Prot.WRITE, FLAGS);
    id = m.ioas();
    expect(m.map(id, BUFFER, bytes, APERTURE)).toBe(BigInt(APERTURE));
    ({ stdev, device } = m.domain(id, (huge ? MockDeviceFlag.HUGE_IOVA : 0) | MockDeviceFlag.PASID));
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });
  const set = (table: number, on: boolean) => m.ioctl(IommufdIoctl.HWPT_SET_DIRTY_TRACKING, [16, on ? 1 : 0, table, 0]).result;
  const read = (table: number, at: number, flags = 0, size: number = page, iova: number = APERTURE, length: number = bytes) =>
    m.ioctl(IommufdIoctl.HWPT_GET_DIRTY_BITMAP, [48, table, flags, 0, ...two(iova), ...two(length), ...two(size), ...two(at)]).result;
  const bytesOfMap = Math.max(1, Math.ceil(bytes / page / 8));
  /** Every other page, and those at the ends. */
  const pattern = (): Uint8Array => {
    const map = new Uint8Array(bytesOfMap);
    for (let i = 0; i < bytes / page; i += 2) map[i >>> 3]! |= 1 << (i & 7);
    return map;
  };
  const write = (table: number, map: Uint8Array): number => {
    m.me.mm.write(BITMAP + 0x8_0000, map);
    const { result, words } = m.command('DIRTY', table, [0, 0, ...two(APERTURE), ...two(bytes), ...two(page), ...two(BITMAP + 0x8_0000), 0, 0]);
    return result || words[10]!;
  };
  const ones = (map: Uint8Array): number => map.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);

  test('tracking is a property of the page table, which a device without it does not take', () => {
    const table = m.hwpt(device, id, DIRTY_TRACKING);
    expect(table).toBeGreaterThan(0);
    expect(m.replace(stdev, table)).toBe(table);
    const { result, ...plain } = m.domain(m.ioas(), MockDeviceFlag.NO_DIRTY);
    expect(result).toBe(0);
    expect(m.hwpt(plain.device, id, DIRTY_TRACKING)).toBe(-Errno.EOPNOTSUPP);
    expect(m.replace(plain.stdev, table)).toBe(-Errno.EINVAL);
    const info = (of: number) => m.ioctl(IommufdIoctl.GET_HW_INFO, [40, 0, of, 0, 0, 0, 0, 0, 0, 0]).words[8]!;
    expect([info(device), info(plain.device)].map((bits) => bits & HwInfoCapability.DIRTY_TRACKING)).toEqual([1, 0]);
    m.destroy(stdev);
    m.destroy(plain.stdev);
  });
  test('it is switched on and off; without it there are no bits', () => {
    const table = m.hwpt(device, id, DIRTY_TRACKING);
    const plain = m.hwpt(device, id);
    m.replace(stdev, table);
    expect([set(table, true), set(table, true), set(table, false)]).toEqual([0, 0, 0]);
    expect(read(table, BITMAP)).toBe(-Errno.EINVAL);
    expect(write(table, pattern())).toBe(-Errno.EINVAL);
    expect([set(plain, true), read(plain, BITMAP)]).toEqual([-Errno.EOPNOTSUPP, -Errno.EOPNOTSUPP]);
    expect(set(99, true)).toBe(-Errno.ENOENT);
    expect(m.ioctl(IommufdIoctl.HWPT_SET_DIRTY_TRACKING, [16, 2, table, 0]).result).toBe(-Errno.EOPNOTSUPP);
    m.destroy(stdev);
  });
  test('the same for a PASID', () => {
    const table = m.hwpt(device, id, DIRTY_TRACKING | HwptAllocFlag.PASID);
    const rid = m.hwpt(device, id, HwptAllocFlag.PASID);
    m.replace(stdev, rid);
    expect(m.pasid.attach(stdev, 100, table)).toBe(0);
    expect([set(table, true), set(table, false)]).toEqual([0, 0]);
    m.pasid.detach(stdev, 100);
  });
  test.each([
    ['aligned', 0],
    ['with a page’s edge inside', PAGE - 4],
    ['at an odd byte', 13],
  ])('a bitmap %s: exactly what was written; read means read away, unless told not to', (_where, offset) => {
    const table = m.hwpt(device, id, DIRTY_TRACKING);
    m.replace(stdev, table);
    set(table, true);
    const map = pattern();
    const at = BITMAP + 0x1000 + offset;
    const seen = (): Uint8Array => m.bytes(at, bytesOfMap + 1);
    const clear = () => m.me.mm.write(at, new Uint8Array(bytesOfMap + 1));
    const expected = Uint8Array.from([...map, 0]);
    expect(write(table, map)).toBe(ones(map));
    clear();
    expect(read(table, at, GetDirtyBitmapFlag.NO_CLEAR)).toBe(0);
    expect(seen()).toEqual(expected);
    clear();
    expect(read(table, at)).toBe(0);
    expect(seen()).toEqual(expected);
    clear();
    expect(read(table, at)).toBe(0);
    expect(ones(seen())).toBe(0);
    // Bits are added to what is there.
    m.me.mm.write(at, new Uint8Array(bytesOfMap).fill(0x80));
    expect(read(table, at)).toBe(0);
    expect(ones(seen())).toBe(bytesOfMap);
    // Writes from before do not count.
    write(table, map);
    set(table, false);
    set(table, true);
    clear();
    expect([read(table, at), ones(seen())]).toEqual([0, 0]);
    m.destroy(stdev);
  });
  test('ranges and sizes that are none', () => {
    const table = m.hwpt(device, id, DIRTY_TRACKING);
    m.replace(stdev, table);
    set(table, true);
    expect(read(table, BITMAP, 2)).toBe(-Errno.EOPNOTSUPP);
    expect(read(table, BITMAP, 0, 0)).toBe(-Errno.EINVAL);
    expect(read(table, BITMAP, 0, page, APERTURE + 512)).toBe(-Errno.EINVAL);
    expect(read(table, BITMAP, 0, page, APERTURE, bytes + page)).toBe(-Errno.EINVAL);
    expect(
      m.ioctl(IommufdIoctl.HWPT_GET_DIRTY_BITMAP, [48, table, 0, 0, ...two(2n ** 64n - 4096n), ...two(8192), ...two(page), ...two(DATA)]).result,
    ).toBe(-Errno.EOVERFLOW);
    write(table, pattern());
    expect(read(table, 0x1000)).toBe(-Errno.EFAULT);
    m.destroy(stdev);
  });
});
