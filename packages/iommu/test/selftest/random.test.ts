/** Any ioctls and operations of the mock driver in any order, most of them nearly right, some allocations failing: an answer to each, and nothing left at the end. */
import { io, MapFlag, Prot } from '@siov/layout/uapi';
import { Mock, TestOp } from '@siov/testkit';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { IommufdFile } from '../../src/index.js';
import { iommufd as uapi, VfioIoctl } from '../../src/spec/index.js';
import { APERTURE, BUFFER, DATA, type Mocked, mocked, NOTHING, PAGE, two } from '../mock.js';

/** Bytes of the structures of 0x80 to 0x94, then of IOMMU_TEST_CMD and the VFIO ioctls. */
const SIZES = [8, 12, 24, 40, 32, 40, 24, 24, 12, 48, 40, 16, 48, 32, 16, 40, 40, 24, 8, 32, 40];
const VFIO: readonly (readonly [number, number])[] = [
  [VfioIoctl.GET_INFO, 24],
  [VfioIoctl.MAP_DMA, 32],
  [VfioIoctl.UNMAP_DMA, 24],
];
const TYPES = [0, 1, Mock.HWPT_DATA, Mock.VIOMMU, Mock.VEVENTQ, Mock.HW_INFO_TYPE];
const ADDRESSES = [BUFFER, BUFFER + PAGE, BUFFER + 2048, DATA, APERTURE, APERTURE + 4 * PAGE, 0x1000, 0];
const LENGTHS = [PAGE, 2 * PAGE, 2048, 1, 0, 8 * PAGE, 16 * PAGE];

const step = fc.record({
  kind: fc.constantFrom('ioctl', 'ioctl', 'ioctl', 'test', 'test', 'test', 'vfio', 'file', 'close', 'put', 'unmap', 'arm'),
  which: fc.nat(1000),
  words: fc.array(fc.tuple(fc.nat(7), fc.nat(0xffff_ffff)), { minLength: 24, maxLength: 24 }),
});

test('any calls in any order', () => {
  const seen = { good: 0, bad: 0 };
  fc.assert(
    fc.property(fc.array(step, { minLength: 30, maxLength: 120 }), (steps) => {
      const m = mocked(2048);
      const { result, device, stdev } = m.domain(m.ioas(), 4);
      expect(result).toBe(0);
      // Something of everything, so that small numbers are names of objects.
      const parent = m.hwpt(device, 1, 9);
      m.hwpt(device, parent, 8, { type: Mock.HWPT_DATA, words: [1] });
      m.faultQueue();
      m.access(1);
      expect(stdev).toBeGreaterThan(0);
      const note = (answer: number): void => {
        expect(Number.isInteger(answer) && answer > -0x1_0000).toBe(true);
        if (answer < 0) seen.bad++;
        else seen.good++;
      };
      for (const { kind, which, words } of steps) {
        /** A 64-bit value takes two words: half of the time the next word is its upper half. */
        let high = -1;
        const values = words.map(([how, value]) => {
          if (high >= 0) {
            const half = high;
            high = -1;
            return half;
          }
          const wide = (list: readonly number[]): number => {
            const chosen = list[value % list.length]!;
            high = Math.floor(chosen / 2 ** 32);
            return chosen % 2 ** 32;
          };
          return [
            () => value,
            () => value & 7,
            () => value % 16,
            () => wide(ADDRESSES),
            () => wide(LENGTHS),
            () => TYPES[value % TYPES.length]!,
            () => 0,
            () => 1,
          ][how]!();
        });
        const send = (number: number, size: number): void => {
          note(m.ioctl(number, [size, ...values.slice(0, Math.max(size / 4, 18) - 1)]).result);
        };
        if (kind === 'ioctl') send(io(';', 0x80 + (which % SIZES.length)), SIZES[which % SIZES.length]!);
        else if (kind === 'test') {
          values[0] = (which % Object.keys(TestOp).length) + 1;
          // Buffers of a device are as large as one asks.
          if (values[0] === TestOp.DMABUF_GET) values[3] = values[3]! % (8 * PAGE);
          send(Mock.CMD, 72);
        } else if (kind === 'vfio') send(...VFIO[which % VFIO.length]!);
        else if (kind === 'close') m.me.close(3 + (which % 6));
        else if (kind === 'file') {
          const file = m.me.files[which % 6];
          const length = values[0]! % 4096;
          if (which & 64) note(file?.write?.(m.me.task, DATA, length, 0) ?? 0);
          else note(file?.read?.(m.me.task, DATA, length, 0) ?? 0);
        } else if (kind === 'put') m.put(values.slice(0, 16));
        else if (kind === 'unmap') {
          const at = BUFFER + (which % 16) * PAGE;
          if (which & 32) m.me.mm.munmap(at, PAGE);
          else m.me.mm.mmap(at, PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
        } else if (which % 4) m.failAt(which % 32);
        else m.disarm();
      }
      expect(m.end()).toEqual(NOTHING);
    }),
    { numRuns: 300 },
  );
  // Much of it is right.
  expect(seen.good / (seen.good + seen.bad)).toBeGreaterThan(0.1);
}, 120_000);

const { IommufdIoctl, HwptAllocFlag } = uapi;
const S1 = { type: Mock.HWPT_DATA, words: [7] };
/** Calls of which most can be done: `id` picks an object of a kind, `n` is any number. */
type Calls = Readonly<Record<string, (m: Mocked, id: (...kinds: string[]) => number, n: (below: number) => number) => number | bigint>>;
/** A descriptor whose file has a member: `items` are an access's. */
const fd = (m: Mocked, n: (below: number) => number, member: string): number => {
  const fit = [...m.me.files.keys()].filter((i) => m.me.files[i] && member in m.me.files[i]!);
  return 3 + (fit[n(Math.max(fit.length, 1))] ?? 0);
};
const PASIDS = [5, 6, 1024];
const page = (n: (below: number) => number): number => APERTURE + n(24) * PAGE;
const calls: Calls = {
  ioas: (m) => m.ioas(),
  map: (m, id, n) => m.map(id('ioas'), BUFFER + n(16) * 2048, (1 + n(8)) * 2048, n(2) ? APERTURE + n(48) * 2048 : undefined, [6, 4][n(2)]),
  mapFile: (m, id, n) => m.mapFile(id('ioas'), m.memoryFile(4 * PAGE).fd, n(3) * PAGE, (1 + n(3)) * PAGE, page(n)),
  buffer(m, id, n) {
    const fd = m.command('DMABUF_GET', 0, [3 * PAGE, 2]).result;
    m.mapFile(id('ioas'), fd, n(2) * PAGE, PAGE, page(n));
    return n(2) ? m.command('DMABUF_REVOKE', 0, [fd, 1]).result : 0;
  },
  copy: (m, id, n) => m.copy(id('ioas'), id('ioas'), page(n), (1 + n(4)) * PAGE, n(2) ? page(n) : undefined),
  unmap: (m, id, n) => (n(4) ? m.unmap(id('ioas'), page(n), (1 + n(24)) * PAGE) : m.unmap(id('ioas'), 0, 2n ** 64n - 1n)),
  large: (m, id, n) => m.option(1, id('ioas'), 0, n(2)).result,
  domain: (m, id, n) => m.domain(id('ioas', 'paging', 'nested'), [0, 1, 2, 4, 4, 6][n(6)]).result,
  table: (m, id, n) => m.hwpt(id('device'), id('ioas'), [0, 1, 2, 8, 9, 11][n(6)]),
  faulting: (m, id, n) => m.hwpt(id('device'), id('ioas'), HwptAllocFlag.FAULT_ID_VALID | [0, 8][n(2)]!, undefined, id('fault')),
  nested: (m, id, n) => m.hwpt(id('device'), id('paging', 'viommu'), [0, 8][n(2)]!, S1),
  nestedFaulting: (m, id) => m.hwpt(id('device'), id('paging', 'viommu'), 12, S1, id('fault')),
  replace: (m, id) => m.replace(id('other'), id('ioas', 'paging', 'nested')),
  attach: (m, id, n) => m.pasid.attach(id('other'), PASIDS[n(3)]!, id('paging', 'nested')),
  exchange: (m, id, n) => m.pasid.replace(id('other'), PASIDS[n(3)]!, id('paging', 'nested')),
  detach: (m, id, n) => m.pasid.detach(id('other'), PASIDS[n(3)]!),
  destroy: (m, id) => m.destroy(id('other', 'paging', 'nested', 'viommu', 'vdevice', 'veventq', 'hwQueue', 'ioas', 'fault')),
  access: (m, id, n) => m.access(id('ioas'), n(3) > 0),
  pin: (m, _id, n) => m.pin(fd(m, n, 'items'), page(n), (1 + n(3)) * PAGE, 0, n(2) === 1),
  unpin: (m, _id, n) => m.unpin(fd(m, n, 'items'), n(4)),
  transfer: (m, _id, n) => m.transfer(fd(m, n, 'items'), page(n) + n(PAGE), 1 + n(2 * PAGE), BUFFER + 32 * PAGE, n(2) === 1),
  elsewhere: (m, id, n) => m.command('ACCESS_REPLACE_IOAS', fd(m, n, 'items'), [id('ioas')]).result,
  track: (m, id, n) => m.ioctl(IommufdIoctl.HWPT_SET_DIRTY_TRACKING, [16, n(2), id('paging'), 0]).result,
  dirty: (m, id) => m.command('DIRTY', id('paging'), [0, 0, ...two(APERTURE), ...two(8 * PAGE), ...two(2048), ...two(DATA), 0, 0]).result,
  bitmap: (m, id, n) =>
    m.ioctl(IommufdIoctl.HWPT_GET_DIRTY_BITMAP, [48, id('paging'), n(2), 0, ...two(page(n)), ...two(2 * PAGE), ...two(2048), ...two(DATA)]).result,
  flush: (m, id, n) => m.invalidate(id('nested'), Mock.INVALIDATE, 8, 2, [n(2), n(5), 0, 1]).result,
  flushDevice: (m, id, n) => m.invalidate(id('viommu'), Mock.INVALIDATE, 12, 1, [n(2), n(3), n(4)]).result,
  queue: (m) => m.ioctl(IommufdIoctl.FAULT_QUEUE_ALLOC, [16, 0, 0, 0]).result,
  fault: (m, id, n) => m.fault(id('device'), n(4), 3, page(n), [0, 5, 6][n(3)]),
  read: (m, _id, n) => m.me.files[fd(m, n, 'poll') - 3]?.read?.(m.me.task, DATA, 400, 0) ?? 0,
  answer: (m, _id, n) => m.me.files[fd(m, n, 'poll') - 3]?.write?.(m.me.task, m.put([1 + n(6), n(2)]), 8, 0) ?? 0,
  viommu: (m, id) => m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 0, Mock.VIOMMU, id('device'), id('paging'), 0, 24, 0, ...two(DATA)]).result,
  vdevice: (m, id, n) => m.ioctl(IommufdIoctl.VDEVICE_ALLOC, [24, id('viommu'), id('device'), 0, n(3), 0]).result,
  events: (m, id, n) => m.ioctl(IommufdIoctl.VEVENTQ_ALLOC, [32, 0, id('viommu'), Mock.VEVENTQ, 1 + n(3), 0, 0, 0]).result,
  event: (m, id) => m.command('TRIGGER_VEVENT', 0, [id('device')]).result,
  hwQueue: (m, id, n) => m.ioctl(IommufdIoctl.HW_QUEUE_ALLOC, [40, 0, id('viommu'), Mock.HW_QUEUE, n(2), 0, ...two(page(n)), ...two(2048)]).result,
  close: (m, _id, n) => (m.me.close(3 + n(8)), 0),
};

test('calls that can be done, in any order', () => {
  const names = Object.keys(calls);
  const often = [
    'map',
    'map',
    'map',
    'domain',
    'domain',
    'table',
    'table',
    'nested',
    'attach',
    'attach',
    'exchange',
    'access',
    'pin',
    'unpin',
    'viommu',
    'vdevice',
  ];
  const done = new Map<string, number>();
  const one = fc.record({ name: fc.constantFrom(...names, ...often, 'arm'), seed: fc.nat() });
  fc.assert(
    fc.property(fc.array(one, { minLength: 40, maxLength: 160 }), (steps) => {
      const m = mocked(2048);
      // A world in which most of it can be done.
      const first = m.ioas();
      const { device, stdev } = m.domain(first, 4);
      m.faultQueue();
      m.map(first, BUFFER, 24 * PAGE, APERTURE);
      const table = m.hwpt(device, first, 11);
      m.replace(stdev, table);
      m.pasid.attach(stdev, 5, table);
      m.ioctl(IommufdIoctl.HWPT_SET_DIRTY_TRACKING, [16, 1, table, 0]);
      const viommu = m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 0, Mock.VIOMMU, device, table, 0, 0, 0, 0, 0]).words[5]!;
      m.ioctl(IommufdIoctl.VDEVICE_ALLOC, [24, viommu, device, 0, 1, 0]);
      m.access(first);
      for (const { name, seed } of steps) {
        let state = seed | 1;
        const n = (below: number): number => ((state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) >>> 8) % below;
        if (name === 'arm') {
          if (n(4)) m.failAt(n(12));
          else m.disarm();
          continue;
        }
        const { objects } = m.file as IommufdFile;
        const id = (...kinds: string[]): number => {
          const fit = [...objects.values()].filter(({ kind }) => kinds.includes(kind));
          return fit[n(Math.max(fit.length, 1))]?.id ?? 0;
        };
        const answer = calls[name]!(m, id, n);
        if (answer >= 0) done.set(name, (done.get(name) ?? 0) + 1);
      }
      expect(m.end()).toEqual(NOTHING);
    }),
    { numRuns: 300 },
  );
  // Each of them went through, and not by chance once.
  expect(names.filter((name) => (done.get(name) ?? 0) < 5)).toEqual([]);
}, 120_000);
