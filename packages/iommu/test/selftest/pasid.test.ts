/** Group 8: PASIDs of a device, by HWPTs made for it. Our own words. */
import { Errno } from '@siov/layout/uapi';
import { Mock, MockDeviceFlag } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { DATA, type Mocked, mocked, NOTHING } from '../mock.js';

const { HwptAllocFlag, PageFaultFlag } = uapi;
const { PASID, NEST_PARENT, FAULT_ID_VALID } = HwptAllocFlag;
const S1 = { type: Mock.HWPT_DATA, words: [Mock.IOTLB_DEFAULT] };

describe.each([
  ['a device without PASIDs', 0],
  ['a device with PASIDs', MockDeviceFlag.PASID],
] as const)('%s', (_name, flags) => {
  let m: Mocked;
  let id: number;
  let stdev: number;
  let device: number;
  beforeEach(() => {
    m = mocked();
    id = m.ioas();
    ({ stdev, device } = m.domain(id, flags));
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });

  test('a PASID that has nothing is detached in peace', () => {
    expect(m.pasid.detach(stdev, 100)).toBe(0);
    expect(m.pasid.check(stdev, 100, 0)).toBe(0);
    expect(m.pasid.detach(99, 100)).toBe(-Errno.ENOENT);
  });
  test('only a page table made for PASIDs, under a device that has one too, and only if it has PASIDs', () => {
    const [plain, table] = [m.hwpt(device, id), m.hwpt(device, id, PASID)];
    // The device itself is on an automatic page table.
    expect(m.pasid.attach(stdev, 100, table)).toBe(-Errno.EINVAL);
    m.replace(stdev, table);
    expect(m.pasid.attach(stdev, 100, plain)).toBe(-Errno.EINVAL);
    expect(m.pasid.attach(stdev, 100, id)).toBe(-Errno.EINVAL);
    expect(m.pasid.attach(stdev, 100, 99)).toBe(-Errno.ENOENT);
    expect(m.pasid.attach(stdev, 100, table)).toBe(flags ? 0 : -Errno.EINVAL);
    if (!flags) return;
    expect(m.pasid.attach(stdev, 2 ** 20, table)).toBe(-Errno.EINVAL);
    expect(m.pasid.attach(stdev, 2 ** 20 - 1, table)).toBe(0);
    // While a PASID is there, the device stays on such a page table.
    expect(m.replace(stdev, plain)).toBe(-Errno.EINVAL);
    expect(m.replace(stdev, id)).toBe(-Errno.EINVAL);
    m.pasid.detach(stdev, 100);
    m.pasid.detach(stdev, 2 ** 20 - 1);
    expect(m.replace(stdev, plain)).toBe(plain);
  });

  if (!flags) return;
  describe('its page tables', () => {
    test('attached once; replaced only what is there, by the same, another and nested ones', () => {
      const parent = m.hwpt(device, id, NEST_PARENT | PASID);
      const [one, two] = [m.hwpt(device, parent, PASID, S1), m.hwpt(device, parent, PASID, S1)];
      m.replace(stdev, parent);
      const at = 100;
      expect(m.pasid.replace(stdev, at, parent)).toBe(-Errno.EINVAL);
      expect(m.pasid.attach(stdev, at, parent)).toBe(0);
      expect(m.pasid.check(stdev, at, parent)).toBe(0);
      expect([m.pasid.attach(stdev, at, parent), m.pasid.attach(stdev, at, one)]).toEqual([-Errno.EBUSY, -Errno.EBUSY]);
      for (const table of [parent, one, two, one, parent, two]) {
        expect(m.pasid.replace(stdev, at, table)).toBe(0);
        expect(m.pasid.check(stdev, at, table)).toBe(0);
        expect(m.destroy(table)).toBe(-Errno.EBUSY);
      }
      expect(m.pasid.check(stdev, at, one)).toBe(-Errno.EINVAL);
      expect(m.destroy(one)).toBe(0);
      m.pasid.detach(stdev, at);
      expect(m.pasid.check(stdev, at, 0)).toBe(0);
      expect(m.destroy(two)).toBe(0);
    });
    test('a replacement that fails leaves what was', () => {
      const [one, two] = [m.hwpt(device, id, PASID), m.hwpt(device, id, PASID)];
      m.replace(stdev, one);
      const at = Mock.PASID_RESERVED;
      expect(m.pasid.attach(stdev, at, one)).toBe(0);
      expect(m.pasid.replace(stdev, at, two)).toBe(-Errno.ENOMEM);
      expect(m.pasid.check(stdev, at, one)).toBe(0);
      expect(m.destroy(two)).toBe(0);
      m.pasid.detach(stdev, at);
    });
    test('page faults come under the PASID, and are answered when it goes', () => {
      const { id: faultId, fd } = m.faultQueue();
      const parent = m.hwpt(device, id, NEST_PARENT | PASID);
      const table = m.hwpt(device, parent, PASID | FAULT_ID_VALID, S1, faultId);
      m.replace(stdev, parent);
      const at = 2048;
      expect(m.pasid.attach(stdev, at, table)).toBe(0);
      m.fault(device, 3, 3, 0x5000, at);
      m.fault(device, 4, 3, 0x6000, at);
      expect(m.read(fd, 40)).toBe(40);
      expect(m.get(5, DATA)).toEqual([PageFaultFlag.PASID_VALID | PageFaultFlag.LAST_PAGE, device, at, 3, 3]);
      expect(m.write(fd, [1, 0])).toBe(8);
      m.pasid.detach(stdev, at);
      expect(m.mock.responses).toEqual([
        [at, 3, 0],
        [at, 4, 1],
      ]);
      expect(m.read(fd, 40)).toBe(0);
    });
    test('what is attached goes with the device', () => {
      const table = m.hwpt(device, id, PASID);
      m.replace(stdev, table);
      m.pasid.attach(stdev, 5, table);
      expect(m.destroy(stdev)).toBe(0);
      expect(m.destroy(table)).toBe(0);
    });
  });
});
