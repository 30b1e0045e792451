/** Group 9: every allocation in turn fails, over every path: an error, nothing half done, nothing lost. Our own words. */
import { Mock, MockDeviceFlag } from '@siov/testkit';
import { describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { APERTURE, BUFFER, DATA, type Mocked, mocked, NOTHING, PAGE, two } from '../mock.js';

const { IommufdIoctl, HwptAllocFlag } = uapi;
const S1 = { type: Mock.HWPT_DATA, words: [Mock.IOTLB_DEFAULT] };
const good = (answer: number | bigint): boolean => answer >= 0;
const goodDomain = ({ result }: { result: number }): boolean => result === 0;

/** What is set up before, and what is done while allocations fail: true when all of it went through. */
interface Path {
  before?(m: Mocked): void;
  run(m: Mocked): boolean;
}
let id: number;
let other: number;
let stdev: number;
let device: number;
let file: number;
const withIoas = (m: Mocked): void => {
  id = m.ioas();
};
const withDevice = (m: Mocked): void => {
  withIoas(m);
  ({ stdev, device } = m.domain(id, MockDeviceFlag.PASID));
};
const withPins = (m: Mocked): void => {
  withIoas(m);
  m.map(id, BUFFER, 8 * PAGE, APERTURE);
  file = m.access(id);
};
/** Answers of which the first that is not good ends it. */
const all = (...steps: (() => boolean)[]): boolean => steps.every((step) => step());

const paths: Readonly<Record<string, Path>> = {
  'an address space: made, mapped, copied, unmapped': {
    run: (m) =>
      all(
        () => {
          id = m.ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0]).words[2]!;
          return id > 0;
        },
        () => good(m.map(id, BUFFER, 4 * PAGE, APERTURE)),
        () => good(m.copy(id, id, APERTURE, 2 * PAGE)),
        () => m.allow(id, [APERTURE, APERTURE + 64 * PAGE]) === 0,
        () => m.reserve(id, 0, PAGE) === 0,
        () => good(m.unmap(id, APERTURE, 4 * PAGE)),
      ),
  },
  'a page table, memory before and after it': {
    before: withIoas,
    run: (m) =>
      all(
        () => good(m.map(id, BUFFER, 8 * PAGE, APERTURE)),
        () => goodDomain(m.domain(id)),
        () => good(m.map(id, BUFFER, 8 * PAGE, APERTURE + 64 * PAGE)),
        () => good(m.copy(id, id, APERTURE, 8 * PAGE)),
      ),
  },
  'a page table and a memory file': {
    before: (m) => {
      withIoas(m);
      file = m.memoryFile(16 * PAGE).fd;
    },
    run: (m) =>
      all(
        () => goodDomain(m.domain(id)),
        () => good(m.mapFile(id, file, 0, 16 * PAGE, APERTURE)),
        () => good(m.unmap(id, APERTURE, 16 * PAGE)),
      ),
  },
  'two page tables, one of them late': {
    before: withIoas,
    run: (m) =>
      all(
        () => goodDomain(m.domain(id)),
        () => good(m.map(id, BUFFER, 32 * PAGE, APERTURE)),
        () => goodDomain(m.domain(id, MockDeviceFlag.HUGE_IOVA)),
        () => good(m.map(id, BUFFER, 32 * PAGE, APERTURE + 64 * PAGE)),
      ),
  },
  'an access that copies': {
    before: withIoas,
    run: (m) =>
      all(
        () => good(m.map(id, BUFFER, 8 * PAGE, APERTURE)),
        () => good((file = m.access(id, false))),
        () => m.transfer(file, APERTURE + 100, 3 * PAGE, BUFFER + 16 * PAGE, false) === 0,
        () => m.transfer(file, APERTURE + 100, 16, DATA, true, true) === 0,
      ),
  },
  'an access that pins': {
    before: withIoas,
    run: (m) =>
      all(
        () => good(m.map(id, BUFFER, 8 * PAGE, APERTURE)),
        () => good((file = m.access(id))),
        () => good(m.pin(file, APERTURE, 4 * PAGE, BUFFER)),
        () => good(m.pin(file, APERTURE + 2 * PAGE, 4 * PAGE, BUFFER + 2 * PAGE)),
      ),
  },
  'pins, then a page table, then an address space in place of it': {
    before: withPins,
    run: (m) =>
      all(
        () => good(m.pin(file, APERTURE, 4 * PAGE, BUFFER)),
        () => goodDomain(m.domain(id)),
        () => good(m.pin(file, APERTURE + 4 * PAGE, 4 * PAGE, BUFFER + 4 * PAGE)),
        () => (other = m.ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0]).words[2]!) > 0,
        () => m.command('ACCESS_REPLACE_IOAS', file, [other]).result === 0,
      ),
  },
  'a device: page tables, replaced, by PASID, nested, with faults': {
    before: withDevice,
    run(m) {
      let parent = 0;
      let nested = 0;
      return all(
        () => good((parent = m.hwpt(device, id, HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID))),
        () => good(m.replace(stdev, parent)),
        () => good((nested = m.hwpt(device, parent, HwptAllocFlag.PASID, S1))),
        () => m.pasid.attach(stdev, 200, parent) === 0,
        () => m.pasid.replace(stdev, 200, nested) === 0,
        () => m.pasid.detach(stdev, 200) === 0,
        () => m.ioctl(IommufdIoctl.FAULT_QUEUE_ALLOC, [16, 0, 0, 0]).result === 0,
        () => goodDomain(m.domain(nested, MockDeviceFlag.PASID)),
        () => good(m.replace(stdev, nested)),
      );
    },
  },
  'a virtual IOMMU with everything': {
    before: (m) => {
      withDevice(m);
      m.map(id, BUFFER, PAGE, APERTURE);
    },
    run(m) {
      let parent = 0;
      let viommu = 0;
      return all(
        () => good((parent = m.hwpt(device, id, HwptAllocFlag.NEST_PARENT))),
        () => {
          const { result, words } = m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 0, Mock.VIOMMU, device, parent, 0, 0, 0, 0, 0]);
          viommu = words[5]!;
          return result === 0;
        },
        () => m.ioctl(IommufdIoctl.VDEVICE_ALLOC, [24, viommu, device, 0, 9, 0]).result === 0,
        () => m.ioctl(IommufdIoctl.VEVENTQ_ALLOC, [32, 0, viommu, Mock.VEVENTQ, 4, 0, 0, 0]).result === 0,
        () => m.ioctl(IommufdIoctl.HW_QUEUE_ALLOC, [40, 0, viommu, Mock.HW_QUEUE, 0, 0, ...two(APERTURE), PAGE, 0]).result === 0,
        () => good(m.hwpt(device, viommu, 0, S1)),
      );
    },
  },
};

describe.each(Object.entries(paths))('%s', (_name, { before, run }) => {
  test('with every allocation failing in turn: an error, then all of it goes; nothing is left at the end', () => {
    let succeeded = -1;
    for (let n = 0; n < 100 && succeeded < 0; n++) {
      const m = mocked(1024);
      before?.(m);
      m.failAt(n);
      if (run(m)) succeeded = n;
      m.disarm();
      // What is left can be used: an address space takes memory and a page table.
      const fresh = m.ioas();
      expect(good(m.map(fresh, BUFFER, 4 * PAGE, APERTURE))).toBe(true);
      const { result, hwpt } = m.domain(fresh);
      expect([n, result, m.checkMap(hwpt, APERTURE, BUFFER, 4 * PAGE)]).toEqual([n, 0, 0]);
      expect([n, m.end()]).toEqual([n, NOTHING]);
    }
    expect(succeeded).toBeGreaterThan(2);
  });
});
