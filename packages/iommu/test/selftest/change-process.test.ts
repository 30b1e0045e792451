/** Group 2: the pages of files change from one process's account to another's. Our own words. */
import { Errno } from '@siov/layout/uapi';
import { afterEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { APERTURE, BUFFER, type Mocked, mocked, NOTHING, PAGE } from '../mock.js';

const { IommufdIoctl, OptionId, OptionOp } = uapi;
let m: Mocked;
afterEach(() => {
  expect(m.end()).toEqual(NOTHING);
});
const change = () => m.ioctl(IommufdIoctl.IOAS_CHANGE_PROCESS, [8, 0]).result;

test('memory of a process cannot change hands; a reserved field must be 0', () => {
  m = mocked();
  const id = m.ioas();
  expect(change()).toBe(0);
  m.map(id, BUFFER, PAGE, APERTURE);
  expect(change()).toBe(-Errno.EINVAL);
  m.unmap(id, 0, 2n ** 64n - 1n);
  expect(change()).toBe(0);
  expect(m.ioctl(IommufdIoctl.IOAS_CHANGE_PROCESS, [8, 1]).result).toBe(-Errno.EOPNOTSUPP);
});

describe.each(['user', 'mm'] as const)('charged to the %s', (mode) => {
  test('what is pinned counts for the parent, then for the child; the child cannot take more than its limit', () => {
    m = mocked(4096, { userPages: 12 });
    if (mode === 'mm') m.option(OptionId.RLIMIT_MODE, 0, OptionOp.SET, 1);
    const id = m.ioas();
    m.domain(id);
    const { fd } = m.memoryFile(16 * PAGE);
    expect(m.mapFile(id, fd, 0, 10 * PAGE, APERTURE)).toBe(BigInt(APERTURE));
    // The same pages seen twice count once.
    expect(m.copy(id, id, APERTURE, 4 * PAGE, APERTURE + 32 * PAGE)).toBe(BigInt(APERTURE + 32 * PAGE));
    const parent = m.me;
    const locked = () => [parent.mm.lockedPages, m.device.lockedPages];
    expect(locked()).toEqual(mode === 'mm' ? [10, 0] : [0, 10]);
    const child = m.process();
    m.me = child;
    expect(change()).toBe(0);
    expect([child.mm.lockedPages, ...locked()]).toEqual(mode === 'mm' ? [10, 0, 0] : [0, 0, 10]);
    expect(change()).toBe(0);
    // A grandchild that has other pages locked has no room for these.
    const poor = m.process();
    poor.mm.lockPages(5);
    m.me = poor;
    expect(change()).toBe(mode === 'mm' ? -Errno.ENOMEM : 0);
    expect(child.mm.lockedPages).toBe(mode === 'mm' ? 10 : 0);
    m.unmap(id, 0, 2n ** 64n - 1n);
    expect([child.mm.lockedPages, m.device.lockedPages]).toEqual([0, 0]);
    m.me = parent;
    child.mm.exit();
    poor.mm.exit();
  });
});
test('beyond the limit nothing is pinned', () => {
  m = mocked(4096, { lockedPages: 3 });
  const id = m.ioas();
  m.domain(id);
  expect(m.map(id, BUFFER, 4 * PAGE, APERTURE)).toBe(BigInt(-Errno.ENOMEM));
  expect(m.map(id, BUFFER, 3 * PAGE, APERTURE)).toBe(BigInt(APERTURE));
  expect(m.device.lockedPages).toBe(3);
});
