/** Group 1 of the kernel's selftest of iommufd: opening, lengths of structures, unknown calls, global options. Our own words. */
import { Errno, io } from '@siov/layout/uapi';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { type Mocked, mocked, NOTHING } from '../mock.js';

const { IommufdIoctl, OptionId, OptionOp } = uapi;
let m: Mocked;
beforeEach(() => {
  m = mocked();
});
afterEach(() => {
  expect(m.end()).toEqual(NOTHING);
});

test('a file is opened, and closed without having been used', () => {
  expect(m.file).toBeDefined();
});
test('object 0 is none, a null pointer is EFAULT, a number of nobody is ENOTTY', () => {
  expect(m.destroy(0)).toBe(-Errno.ENOENT);
  expect(m.file.ioctl!(m.me.task, IommufdIoctl.DESTROY, 0)).toBe(-Errno.EFAULT);
  expect(m.file.ioctl!(m.me.task, io(';', 0x80 + 63), 0)).toBe(-Errno.ENOTTY);
});

/** The shortest structure that each call takes: the end of its last member that was there from the start. */
const least: Readonly<Record<string, number>> = {
  DESTROY: 8,
  IOAS_ALLOC: 12,
  IOAS_ALLOW_IOVAS: 24,
  IOAS_COPY: 40,
  IOAS_IOVA_RANGES: 32,
  IOAS_MAP: 40,
  IOAS_UNMAP: 24,
  OPTION: 24,
  VFIO_IOAS: 12,
  HWPT_ALLOC: 24,
  GET_HW_INFO: 32,
  HWPT_SET_DIRTY_TRACKING: 16,
  HWPT_GET_DIRTY_BITMAP: 48,
  HWPT_INVALIDATE: 32,
  FAULT_QUEUE_ALLOC: 16,
  IOAS_MAP_FILE: 40,
  VIOMMU_ALLOC: 24,
  VDEVICE_ALLOC: 24,
  IOAS_CHANGE_PROCESS: 8,
  VEVENTQ_ALLOC: 28,
  HW_QUEUE_ALLOC: 40,
};
describe.each(Object.entries(least))('%s', (name, bytes) => {
  const number = IommufdIoctl[name as keyof typeof IommufdIoctl];
  test('one byte too short is EINVAL; longer with zeroes is as if it were not; longer with anything else is E2BIG', () => {
    const words = (size: number, tail = 0): number[] => [size, ...new Array(20).fill(0), tail];
    expect(m.ioctl(number, words(bytes - 1)).result).toBe(-Errno.EINVAL);
    expect(m.ioctl(number, words(88, 1)).result).toBe(-Errno.E2BIG);
    const short = m.ioctl(number, words(bytes)).result;
    m.end();
    m = mocked();
    expect(m.ioctl(number, words(88)).result).toBe(short);
    expect([-Errno.EINVAL, -Errno.E2BIG].includes(short) && name !== 'VEVENTQ_ALLOC' && name !== 'HW_QUEUE_ALLOC').toBe(
      ['IOAS_MAP', 'IOAS_MAP_FILE', 'IOAS_COPY'].includes(name),
    );
  });
});

describe('options of the file', () => {
  const mode = (op: number, value = 0, object = 0) => m.option(OptionId.RLIMIT_MODE, object, op, value);
  test('whom pinned pages are charged to: 0 or 1, read back', () => {
    for (const value of [1, 0]) {
      expect(mode(OptionOp.SET, value).result).toBe(0);
      expect(mode(OptionOp.GET)).toEqual({ result: 0, value: BigInt(value) });
    }
    expect(mode(OptionOp.SET, 2).result).toBe(-Errno.EINVAL);
    expect(mode(OptionOp.GET, 0, 1).result).toBe(-Errno.EOPNOTSUPP);
    expect(mode(2).result).toBe(-Errno.EOPNOTSUPP);
  });
  test('not once there is an object', () => {
    m.ioas();
    expect(mode(OptionOp.SET, 1).result).toBe(-Errno.EBUSY);
    expect(mode(OptionOp.GET).result).toBe(0);
  });
  test('large pages are an option of an address space, not of the file', () => {
    expect(m.option(OptionId.HUGE_PAGES, 0, OptionOp.SET, 0).result).toBe(-Errno.ENOENT);
    expect(m.option(7, 0, OptionOp.GET).result).toBe(-Errno.EOPNOTSUPP);
  });
});

test('a fault queue whose answer has no place in memory is not made', () => {
  const before = m.me.files.length;
  m.me.mm.munmap(0x7fef_0000_0000, 4096);
  expect(m.file.ioctl!(m.me.task, IommufdIoctl.FAULT_QUEUE_ALLOC, 0x6000_0000)).toBe(-Errno.EFAULT);
  expect(m.me.files.length).toBe(before);
});
