/** Group 6: the VFIO type 1 ioctls on the file. Our own words. */
import { Errno } from '@siov/layout/uapi';
import { MockDeviceFlag } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi, VfioDmaMap, VfioDmaUnmap, VfioExtension, VfioInfo, VfioIoctl } from '../../src/spec/index.js';
import { ALL, APERTURE, BUFFER, type Mocked, mocked, NOTHING, PAGE, two } from '../mock.js';

const { IommufdIoctl, VfioIoasOp } = uapi;
let m: Mocked;
beforeEach(() => {
  m = mocked();
});
afterEach(() => {
  expect(m.end()).toEqual(NOTHING);
});
const call = (number: number, argument = 0) => m.file.ioctl!(m.me.task, number, argument);
const vfioIoas = (op: number, id = 0) => {
  const { result, words } = m.ioctl(IommufdIoctl.VFIO_IOAS, [12, id, op]);
  return result || words[1]!;
};
const map = (iova: number, length: number, user = BUFFER, flags = 3, argsz: number = VfioDmaMap.bytes) =>
  m.ioctl(VfioIoctl.MAP_DMA, [argsz, flags, ...two(user), ...two(iova), ...two(length)]).result;
/** Bytes, or -errno. */
const unmap = (iova: number, length: number, flags = 0, argsz: number = VfioDmaUnmap.bytes) => {
  const { result, words } = m.ioctl(VfioIoctl.UNMAP_DMA, [argsz, flags, ...two(iova), ...two(length)]);
  return result || words[5]! * 2 ** 32 + words[4]!;
};
const info = (argsz: number) => m.ioctl(VfioIoctl.GET_INFO, [argsz, ...new Array(40).fill(0xeeee_eeee)]);

describe('without an address space', () => {
  test('the version and the extensions are as VFIO’s', () => {
    expect(call(VfioIoctl.GET_API_VERSION)).toBe(0);
    expect([1, 3, 9].map((n) => call(VfioIoctl.CHECK_EXTENSION, n))).toEqual([1, 1, 1]);
    expect([2, 6, 8, 10, 99].map((n) => call(VfioIoctl.CHECK_EXTENSION, n))).toEqual([0, 0, 0, 0, 0]);
    expect(call(VfioIoctl.CHECK_EXTENSION, VfioExtension.DMA_CC)).toBe(-Errno.ENODEV);
  });
  test('the rest is ENODEV; a wrong structure comes first', () => {
    expect([call(VfioIoctl.SET_IOMMU, 1), call(VfioIoctl.SET_IOMMU, 3), call(VfioIoctl.SET_IOMMU, 7)]).toEqual([
      -Errno.ENODEV,
      -Errno.ENODEV,
      -Errno.EINVAL,
    ]);
    expect([map(APERTURE, PAGE), unmap(APERTURE, PAGE), info(24).result]).toEqual([-Errno.ENODEV, -Errno.ENODEV, -Errno.ENODEV]);
    expect([map(APERTURE, PAGE, BUFFER, 3, 31), unmap(APERTURE, PAGE, 0, 23), info(15).result]).toEqual([
      -Errno.EINVAL,
      -Errno.EINVAL,
      -Errno.EINVAL,
    ]);
    expect([map(APERTURE, PAGE, BUFFER, 4), unmap(APERTURE, PAGE, 1)]).toEqual([-Errno.EINVAL, -Errno.EINVAL]);
    for (const number of [VfioIoctl.MAP_DMA, VfioIoctl.UNMAP_DMA, VfioIoctl.GET_INFO]) expect(call(number, 0)).toBe(-Errno.EFAULT);
    expect(call(0x3b75)).toBe(-Errno.ENOTTY);
  });
  test('the address space that they work on is set, told and cleared', () => {
    expect(vfioIoas(VfioIoasOp.GET)).toBe(-Errno.ENODEV);
    expect(vfioIoas(VfioIoasOp.SET, 99)).toBe(-Errno.ENOENT);
    const id = m.ioas();
    expect([vfioIoas(VfioIoasOp.SET, id), vfioIoas(VfioIoasOp.GET)]).toEqual([id, id]);
    vfioIoas(VfioIoasOp.CLEAR);
    expect(vfioIoas(VfioIoasOp.GET)).toBe(-Errno.ENODEV);
    vfioIoas(VfioIoasOp.SET, id);
    m.destroy(id);
    expect(vfioIoas(VfioIoasOp.GET)).toBe(-Errno.ENODEV);
    expect(vfioIoas(3)).toBe(-Errno.EOPNOTSUPP);
    expect(m.ioctl(IommufdIoctl.VFIO_IOAS, [12, 0, 0x1_0000]).result).toBe(-Errno.EOPNOTSUPP);
  });
  test('VFIO itself makes one when it needs it', () => {
    const context = m.device.contextOf(m.file)!;
    const id = context.compatIoas();
    expect([id, context.compatIoas(), vfioIoas(VfioIoasOp.GET)]).toEqual([id, id, id]);
  });
});

describe.each([
  ['version 1', VfioExtension.TYPE1, false],
  ['version 2', VfioExtension.TYPE1V2, false],
  ['version 1, large pages', VfioExtension.TYPE1, true],
  ['version 2, large pages', VfioExtension.TYPE1V2, true],
] as const)('with one, %s', (_name, version, huge) => {
  let id: number;
  let hwpt: number;
  beforeEach(() => {
    id = m.ioas();
    vfioIoas(VfioIoasOp.SET, id);
    expect(call(VfioIoctl.SET_IOMMU, version)).toBe(0);
    hwpt = m.domain(id, huge ? MockDeviceFlag.HUGE_IOVA : 0).hwpt;
  });
  test('it is mapped and unmapped; nothing there is 0 bytes, all of it needs 0 and 0', () => {
    expect(call(VfioIoctl.CHECK_EXTENSION, VfioExtension.DMA_CC)).toBe(1);
    expect(map(APERTURE, 8 * PAGE)).toBe(0);
    expect(map(APERTURE, PAGE)).toBe(-Errno.EEXIST);
    expect(m.checkMap(hwpt, APERTURE, BUFFER, 8 * PAGE)).toBe(0);
    expect(unmap(APERTURE, 8 * PAGE)).toBe(8 * PAGE);
    expect(unmap(APERTURE, 8 * PAGE)).toBe(0);
    map(APERTURE, 2 * PAGE);
    map(APERTURE + 64 * PAGE, PAGE);
    expect(unmap(APERTURE, PAGE, 2)).toBe(-Errno.EINVAL);
    expect(unmap(0, 0, 2)).toBe(3 * PAGE);
    expect(unmap(0, 0, 2)).toBe(0);
    expect(unmap(APERTURE, 0)).toBe(-Errno.EINVAL);
    expect(map(0, PAGE)).toBe(-Errno.EINVAL);
  });
  test('a part of a mapping: version 1 cuts it out, version 2 does not', () => {
    expect(map(APERTURE, 16 * PAGE)).toBe(0);
    const cut = version === VfioExtension.TYPE1;
    expect(unmap(APERTURE + 4 * PAGE, 4 * PAGE)).toBe(cut ? 4 * PAGE : -Errno.ENOENT);
    expect(m.checkRefs(BUFFER + 4 * PAGE, 4 * PAGE, cut ? 0 : 1)).toBe(0);
    expect(m.checkMap(hwpt, APERTURE, BUFFER, 4 * PAGE)).toBe(0);
    expect(m.checkMap(hwpt, APERTURE + 8 * PAGE, BUFFER + 8 * PAGE, 8 * PAGE)).toBe(0);
    for (let page = 0; page < 16; page += 2) unmap(APERTURE + page * PAGE, 2 * PAGE);
    expect(m.checkRefs(BUFFER, 16 * PAGE, cut ? 0 : 1)).toBe(0);
    expect(m.unmap(id, 0, ALL)).toBe(cut ? 0n : BigInt(16 * PAGE));
  });
  test('what it tells of itself fits into whatever room there is, and says how much it would take', () => {
    const whole = info(256);
    const total = whole.words[0]!;
    expect([whole.result, VfioInfo.get.flags(whole.words, 0), VfioInfo.get.capOffset(whole.words, 0)]).toEqual([0, 3, 24]);
    expect(VfioInfo.get.pageSizesLow(whole.words, 0) & 0xfff).toBe(0);
    // Capability 3 (how many mappings are left), then 1 (one range).
    expect([...whole.words.subarray(6, 9)]).toEqual([3 | (1 << 16), 40, 0xffff_ffff]);
    expect([...whole.words.subarray(10, 13)]).toEqual([1 | (1 << 16), 0, 1]);
    expect(total).toBe(24 + 16 + 32);
    for (let room = 16; room < total + 8; room++) {
      const { result, words } = info(room);
      expect([result, words[0]]).toEqual([0, total]);
      // Nothing beyond the room is written.
      const bytes = new Uint8Array(words.buffer).subarray(Math.max(room, 4), 164);
      expect(bytes.every((byte) => byte === 0xee)).toBe(true);
      if (room >= 24) expect(words[4]).toBe(room >= total ? 24 : 0);
    }
  });
});
