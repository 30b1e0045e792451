/** /dev/iommu on the unit itself: page faults, dirty bits and a virtual IOMMU of our own type, from a device's request to user space and back. */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import type { IommufdContext, OpenFile, Task } from '../src/index.js';
import { iommufd as uapi } from '../src/spec/index.js';
import { machine, RID } from './machine.js';

const { IommufdIoctl, HwptAllocFlag, ViommuType, PageFaultFlag } = uapi;
const BASE = 0x7f00_0000_0000;
const ARGUMENT = BASE + 0x10_0000;
const DATA = ARGUMENT + 0x1000;
const two = (value: number | bigint): [number, number] => [Number(BigInt(value) & 0xffff_ffffn), Number(BigInt(value) >> 32n)];

function user(frames = 16384) {
  const m = machine({}, frames);
  const responses: [number, number, number][] = [];
  const up = m.unit.requester(RID, { pageResponse: (pasid, group, code) => void responses.push([pasid, group, code]) });
  m.driver.addDevice(RID, { ats: true, pri: true, pasid: true });
  const mm = m.newMm();
  mm.mmap(BASE, 0x40_0000, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
  const files: OpenFile[] = [];
  const task: Task = { ...m.task(mm), install: (file) => files.push(file) + 2 };
  const file = m.driver.iommufd.open() as OpenFile;
  const context = m.driver.iommufd.contextOf(file) as IommufdContext;
  const ioctl = (number: number, words: readonly number[]) => {
    const out = Uint32Array.from(words.map((word) => word >>> 0));
    mm.write(ARGUMENT, new Uint8Array(out.buffer));
    const result = file.ioctl!(task, number, ARGUMENT);
    mm.read(ARGUMENT, new Uint8Array(out.buffer));
    return { result, words: out };
  };
  const put = (...words: number[]): number => {
    mm.write(DATA, new Uint8Array(Uint32Array.from(words.map((word) => word >>> 0)).buffer));
    return DATA;
  };
  const get = (count: number): number[] => {
    const words = new Uint32Array(count);
    mm.read(DATA, new Uint8Array(words.buffer));
    return [...words];
  };
  const ioas = ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0]).words[2]!;
  const device = context.bindDevice(RID);
  const hwpt = (parent: number, flags = 0, data?: readonly number[], fault = 0) => {
    const at = data ? two(put(...data)) : [0, 0];
    const { result, words } = ioctl(IommufdIoctl.HWPT_ALLOC, [
      48,
      flags,
      device,
      parent,
      0,
      0,
      data ? 1 : 0,
      (data?.length ?? 0) * 4,
      ...at,
      fault,
      0,
    ]);
    return result || words[4]!;
  };
  const map = (iova: number, length: number, address = BASE) =>
    ioctl(IommufdIoctl.IOAS_MAP, [40, 7, ioas, 0, ...two(address), ...two(length), ...two(iova)]).result;
  const faultQueue = () => {
    const { words } = ioctl(IommufdIoctl.FAULT_QUEUE_ALLOC, [16, 0, 0, 0]);
    return { id: words[2]!, file: files[words[3]! - 3]! };
  };
  const ask = (pasid: number, address: number, group: number, access = 1) =>
    up.pageRequest(pasid, (address / 2 ** 32) | 0, address | 0, access, group);
  const dma = (pasid: number, iova: number, bytes: Uint8Array, write: boolean) => m.access(RID, pasid, iova, bytes, write);
  return { ...m, files, up, responses, mm, task, file, context, ioctl, put, get, ioas, device, hwpt, map, faultQueue, ask, dma };
}
let m: ReturnType<typeof user>;
beforeEach(() => {
  m = user();
});
/** First-stage tables in guest memory at 0x1000 to 0x4000; page `page` shows guest page `to`. */
const entry = (gfn: number, index: number, to: number) =>
  m.mm.write(BASE + gfn * 4096 + index * 8, new Uint8Array(new BigUint64Array([BigInt(to * 4096 + 7)]).buffer));
const guest = (page: number, to: number) => {
  entry(1, 0, 2);
  entry(2, 0, 3);
  entry(3, 0, 4);
  if (to >= 0) entry(4, page, to);
};
const S1 = [0, 0, 0x1000, 0, 48, 0];

describe('page faults of a nested table', () => {
  const attach = (pasid: number) => {
    const queue = m.faultQueue();
    const parent = m.hwpt(m.ioas, HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID);
    m.map(0, 0x10_0000);
    const table = m.hwpt(parent, HwptAllocFlag.PASID | HwptAllocFlag.FAULT_ID_VALID, S1, queue.id);
    expect(m.context.attach(m.device, parent, NO_PASID)).toBe(0);
    if (pasid !== NO_PASID) expect(m.context.attach(m.device, table, pasid)).toBe(0);
    else expect(m.context.attach(m.device, table, NO_PASID)).toBe(0);
    return { ...queue, parent, table };
  };
  test('the device asks, user space reads, makes the page, answers, and the device goes on', () => {
    const { file } = attach(33);
    guest(5, -1);
    const byte = Uint8Array.of(0);
    expect(m.dma(33, 0x5000, byte, false)).not.toBe(0);
    expect(m.ask(33, 0x5000, 17)).toBe(0);
    m.settle();
    expect(m.responses).toEqual([]);
    expect(file.read!(m.task, DATA, 4000, 0)).toBe(40);
    expect(m.get(10)).toEqual([PageFaultFlag.PASID_VALID | PageFaultFlag.LAST_PAGE, m.device, 33, 17, 2, 0, 0x5000, 0, 0, 1]);
    guest(5, 9);
    m.mm.write(BASE + 9 * 4096, Uint8Array.of(99));
    expect(file.write!(m.task, m.put(1, 0), 8, 0)).toBe(8);
    m.settle();
    expect(m.responses).toEqual([[33, 17, 0]]);
    expect([m.dma(33, 0x5000, byte, false), byte[0]]).toEqual([0, 99]);
  });
  test.each([['a PASID', 33] as const, ['the device itself', NO_PASID] as const])(
    '%s: what waits is answered Invalid Request when it is detached',
    (_name, pasid) => {
      const { file, parent } = attach(pasid);
      m.ask(pasid, 0x5000, 1);
      m.ask(pasid, 0x6000, 2);
      m.settle();
      expect(file.read!(m.task, DATA, 40, 0)).toBe(40);
      if (pasid === NO_PASID) expect(m.context.attach(m.device, parent, NO_PASID)).toBe(0);
      else m.context.detach(m.device, pasid);
      m.settle();
      expect(m.responses.map(([, group, code]) => [group, code]).sort()).toEqual([
        [1, 1],
        [2, 1],
      ]);
      expect(file.read!(m.task, DATA, 40, 0)).toBe(0);
      expect(file.write!(m.task, m.put(1, 0), 8, 0)).toBe(-Errno.EINVAL);
    },
  );
  test('a device that attaches by itself is named as user space names it', () => {
    const { file, table } = attach(33);
    m.context.detach(m.device, 33);
    const target = m.context.domainOf(table, m.device, 7);
    expect(target).toMatchObject({ handle: { deviceId: m.device, pasid: 7 } });
    const host = m.driver.allocPasid();
    expect(m.driver.attachPasid(RID, host, target as never)).toBe(0);
    m.ask(host, 0x5000, 3);
    m.settle();
    expect(file.read!(m.task, DATA, 40, 0)).toBe(40);
    expect(m.get(4)).toEqual([3, m.device, 7, 3]);
    m.driver.detachPasid(RID, host);
    m.settle();
    expect(m.responses).toEqual([[host, 3, 1]]);
  });
  test('a device that cannot ask for pages does not get such a table', () => {
    const { table } = attach(33);
    const dumb = 0x0320;
    m.driver.addDevice(dumb, { pasid: true });
    const other = m.context.bindDevice(dumb);
    expect(m.context.attach(other, table, NO_PASID)).toBe(-Errno.ENODEV);
    expect(m.context.domainOf(table, other, NO_PASID)).toBe(-Errno.ENODEV);
  });
});

describe('dirty bits', () => {
  const PAGES = 64;
  const table = () => {
    const id = m.hwpt(m.ioas, HwptAllocFlag.DIRTY_TRACKING | HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID);
    m.map(0x100_0000, PAGES * 4096);
    expect(m.context.attach(m.device, id, NO_PASID)).toBe(0);
    return id;
  };
  const set = (id: number, on: boolean) => m.ioctl(IommufdIoctl.HWPT_SET_DIRTY_TRACKING, [16, on ? 1 : 0, id, 0]).result;
  const read = (id: number, flags = 0): bigint => {
    m.put(0, 0);
    const { result } = m.ioctl(IommufdIoctl.HWPT_GET_DIRTY_BITMAP, [
      48,
      id,
      flags,
      0,
      ...two(0x100_0000),
      ...two(PAGES * 4096),
      ...two(4096),
      ...two(DATA),
    ]);
    if (result) return BigInt(result);
    const [low, high] = m.get(2) as [number, number];
    return (BigInt(high) << 32n) | BigInt(low);
  };
  const write = (page: number) => expect(m.dma(NO_PASID, 0x100_0000 + page * 4096 + 8, Uint8Array.of(1), true)).toBe(0);

  test('exactly the pages that a device wrote, since it was switched on or last read', () => {
    const id = table();
    write(3);
    expect(read(id)).toBe(BigInt(-Errno.EINVAL));
    expect(set(id, true)).toBe(0);
    expect(read(id)).toBe(0n);
    // A page whose translation is cached is noted as well.
    for (const page of [3, 7, 63]) write(page);
    m.dma(NO_PASID, 0x100_0000 + 5 * 4096, new Uint8Array(4), false);
    const all = (1n << 3n) | (1n << 7n) | (1n << 63n);
    expect([read(id, 1), read(id), read(id)]).toEqual([all, all, 0n]);
    write(7);
    expect(read(id)).toBe(1n << 7n);
    expect(set(id, false)).toBe(0);
    write(9);
    expect(read(id)).toBe(BigInt(-Errno.EINVAL));
  });
  test('of nested tables that stand on it, too', () => {
    const id = table();
    m.map(0, 0x10_0000, BASE + 0x20_0000);
    const at = BASE + 0x20_0000;
    for (const [gfn, index, to] of [
      [1, 0, 2],
      [2, 0, 3],
      [3, 8, 4],
      [4, 5, 0x1000 + 9],
    ] as const)
      m.mm.write(at + gfn * 4096 + index * 8, new Uint8Array(new BigUint64Array([BigInt(to * 4096 + 7)]).buffer));
    const nested = m.hwpt(id, HwptAllocFlag.PASID, S1);
    expect(m.context.attach(m.device, nested, 33)).toBe(0);
    set(id, true);
    expect(m.dma(33, 8 * 0x20_0000 + 5 * 4096, Uint8Array.of(1), true)).toBe(0);
    expect(read(id)).toBe(1n << 9n);
    m.context.detach(m.device, 33);
  });
  test('any writes and readings in any order: no write is missed, no page is told that was not written', () => {
    const step = fc.record({ kind: fc.constantFrom('write', 'write', 'look', 'read', 'keep', 'off'), page: fc.nat(PAGES - 1) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        m = user(8192);
        const id = table();
        set(id, true);
        let truth = 0n;
        for (const { kind, page } of steps) {
          if (kind === 'write') {
            write(page);
            truth |= 1n << BigInt(page);
          } else if (kind === 'look') m.dma(NO_PASID, 0x100_0000 + page * 4096, new Uint8Array(4), false);
          else if (kind === 'off') {
            set(id, false);
            write(page);
            set(id, true);
            truth = 0n;
          } else {
            expect(read(id, kind === 'keep' ? 1 : 0)).toBe(truth);
            if (kind === 'read') truth = 0n;
          }
        }
        expect(read(id)).toBe(truth);
      }),
      { numRuns: 40 },
    );
  });
});

describe('a virtual IOMMU of type SIOV_VTD', () => {
  const RIDS = 0x1_0042n;
  const make = () => {
    const parent = m.hwpt(m.ioas, HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID);
    m.map(0, 0x10_0000);
    const { words } = m.ioctl(IommufdIoctl.VIOMMU_ALLOC, [40, 0, ViommuType.SIOV_VTD, m.device, parent, 0, 0, 0, 0, 0]);
    const id = words[5]!;
    const vdevice = m.ioctl(IommufdIoctl.VDEVICE_ALLOC, [24, id, m.device, 0, ...two(RIDS)]).words[3]!;
    guest(5, 9);
    m.mm.write(BASE + 9 * 4096, Uint8Array.of(99));
    m.mm.write(BASE + 10 * 4096, Uint8Array.of(100));
    const table = m.hwpt(id, HwptAllocFlag.PASID, S1);
    expect(m.context.attach(m.device, parent, NO_PASID)).toBe(0);
    expect(m.context.attach(m.device, table, 33)).toBe(0);
    return { parent, id, vdevice, table };
  };
  const invalidate = (id: number, words: readonly number[], type: number = ViommuType.SIOV_VTD) => {
    const { result, words: out } = m.ioctl(IommufdIoctl.HWPT_INVALIDATE, [32, id, ...two(m.put(...words)), type, 32, words.length / 8, 0]);
    return [result, out[6]];
  };
  test('the guest’s first stage, invalidated by the number that the guest knows the device under', () => {
    const { id } = make();
    const byte = new Uint8Array(1);
    m.dma(33, 0x5000, byte, false);
    guest(5, 10);
    m.dma(33, 0x5000, byte, false);
    expect(byte[0]).toBe(99);
    // Another PASID, or nobody's number.
    expect(invalidate(id, [...two(RIDS), 34, 0, 0x5000, 0, 1, 0])).toEqual([0, 1]);
    expect(invalidate(id, [...two(RIDS + 1n), 33, 0, 0x5000, 0, 1, 0])).toEqual([-Errno.EINVAL, 0]);
    expect(invalidate(id, [...two(RIDS), 33, 0, 0x5000, 0, 1, 0], 0)).toEqual([-Errno.EINVAL, 0]);
    m.dma(33, 0x5000, byte, false);
    expect(byte[0]).toBe(99);
    expect(invalidate(id, [...two(RIDS), 33, 1, 0x5000, 0, 1, 0, ...two(RIDS), 33, 0, 0x5008, 0, 1, 0])).toEqual([-Errno.EINVAL, 1]);
    m.dma(33, 0x5000, byte, false);
    expect(byte[0]).toBe(100);
  });
  test('its faults are events under the guest’s names', () => {
    const { id } = make();
    const { result, words } = m.ioctl(IommufdIoctl.VEVENTQ_ALLOC, [32, 0, id, ViommuType.SIOV_VTD, 8, 0, 0, 0]);
    expect(result).toBe(0);
    const file = m.files[words[6]! - 3]!;
    m.dma(33, 0x7000, new Uint8Array(1), true);
    m.dma(44, 0x7000, new Uint8Array(1), true);
    m.settle();
    expect(file.read!(m.task, DATA, 4096, 0)).toBe(32);
    // Header; device, address, PASID, reason (first stage: not present) with a PASID, not a read.
    expect(m.get(8)).toEqual([0, 0, ...two(RIDS), 0x7000, 0, 33, 0x71 | 256]);
  });
  test('everything goes again', () => {
    const { parent, id, vdevice, table } = make();
    const destroy = (object: number) => m.ioctl(IommufdIoctl.DESTROY, [8, object]).result;
    expect([destroy(id), destroy(table), destroy(parent)]).toEqual(new Array(3).fill(-Errno.EBUSY));
    m.context.unbind(m.device);
    expect([destroy(vdevice), destroy(table), destroy(id), destroy(parent), destroy(m.ioas)]).toEqual([-Errno.ENOENT, 0, 0, 0, 0]);
  });
});
