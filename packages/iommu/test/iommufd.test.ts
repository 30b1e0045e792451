/** /dev/iommu through its ioctls, structures in the caller's memory. linux/iommufd.h. Rows of refusals: what is broken, the errno. */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno, io, MapFlag, Prot } from '@siov/layout/uapi';
import { beforeEach, describe, expect, test } from 'vitest';
import type { IommufdContext, OpenFile } from '../src/index.js';
import { iommufd as uapi } from '../src/spec/index.js';
import { machine, RID } from './machine.js';

const { IommufdIoctl, IoasMapFlag, HwptAllocFlag } = uapi;
const BASE = 0x7f00_0000_0000;
const ARGUMENT = BASE + 0x10_0000;
const RW = IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE;

function user() {
  const m = machine();
  m.driver.addDevice(RID, { ats: true, pri: true, pasid: true });
  // The device's first PASID table is made, and stays.
  m.driver.attach(RID, m.driver.identityDomain());
  m.driver.attach(RID, undefined);
  const empty = m.allocator.used;
  const mm = m.newMm();
  mm.mmap(BASE, 0x40_0000, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
  const task = m.task(mm);
  const file = m.driver.iommufd.open() as OpenFile;
  const context = m.driver.iommufd.contextOf(file) as IommufdContext;
  /** Runs an ioctl on a structure of 64-bit and 32-bit values; gives result and the structure back. */
  const ioctl = (number: number, words: readonly number[], at = ARGUMENT) => {
    const out = Uint32Array.from(words.map((w) => w >>> 0));
    mm.write(at, new Uint8Array(out.buffer));
    const result = file.ioctl!(task, number, at);
    mm.read(at, new Uint8Array(out.buffer));
    return { result, words: out };
  };
  const two = (value: number): [number, number] => [(value % 2 ** 32) >>> 0, Math.floor(value / 2 ** 32)];
  const ioas = () => ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0]).words[2]!;
  const map = (id: number, address: number, length: number, iova?: number, flags = RW) => {
    const { result, words } = ioctl(IommufdIoctl.IOAS_MAP, [
      40,
      flags | (iova === undefined ? 0 : IoasMapFlag.FIXED_IOVA),
      id,
      0,
      ...two(address),
      ...two(length),
      ...two(iova ?? 0),
    ]);
    return result || words[9]! * 2 ** 32 + words[8]!;
  };
  const unmap = (id: number, iova: number, length: number) => {
    const { result, words } = ioctl(IommufdIoctl.IOAS_UNMAP, [24, id, ...two(iova), ...two(length)]);
    return result || words[5]! * 2 ** 32 + words[4]!;
  };
  const hwpt = (device: number, parent: number, flags = 0, type = 0, data: readonly number[] = []) => {
    if (data.length) mm.write(ARGUMENT + 0x800, new Uint8Array(Uint32Array.from(data.map((d) => d >>> 0)).buffer));
    const { result, words } = ioctl(IommufdIoctl.HWPT_ALLOC, [
      48,
      flags,
      device,
      parent,
      0,
      0,
      type,
      data.length * 4,
      ...two(data.length ? ARGUMENT + 0x800 : 0),
      0,
      0,
    ]);
    return result || words[4]!;
  };
  const destroy = (id: number) => ioctl(IommufdIoctl.DESTROY, [8, id]).result;
  const dma = (pasid: number, iova: number, bytes: Uint8Array, write: boolean) => m.access(RID, pasid, iova, bytes, write);
  return { ...m, empty, mm, task, file, context, ioctl, two, ioas, map, unmap, hwpt, destroy, dma };
}
let m: ReturnType<typeof user>;
beforeEach(() => {
  m = user();
});

test('sizes of the structures, as the header has them', () => {
  const sizes = {
    Destroy: 8,
    IoasAlloc: 12,
    IovaRanges: 32,
    IovaRange: 16,
    IoasMap: 40,
    IoasCopy: 40,
    IoasUnmap: 24,
    HwptAlloc: 48,
    HwptVtdS1: 24,
    HwptInvalidate: 32,
    VtdS1Invalidate: 24,
    HwInfo: 40,
    HwInfoVtd: 24,
    AllowIovas: 24,
    Option: 24,
    VfioIoas: 12,
    SetDirtyTracking: 16,
    GetDirtyBitmap: 48,
    FaultAlloc: 16,
    PageFault: 40,
    PageAnswer: 8,
    IoasMapFile: 40,
    ViommuAlloc: 40,
    VdeviceAlloc: 24,
    ChangeProcess: 8,
    VeventqAlloc: 32,
    VeventHeader: 8,
    HwQueueAlloc: 40,
  } as const;
  for (const [name, bytes] of Object.entries(sizes)) expect(uapi[name as keyof typeof sizes].bytes, name).toBe(bytes);
  expect(IommufdIoctl.DESTROY).toBe(0x3b80);
  expect(IommufdIoctl.HW_QUEUE_ALLOC).toBe(0x3b94);
});

describe('every ioctl', () => {
  const numbers = Array.from({ length: 0x15 }, (_, i) => 0x80 + i);
  test.each(numbers)('0x%s: a bad pointer is EFAULT, a size too small EINVAL, an unknown tail E2BIG', (n) => {
    const number = io(';', n);
    expect(m.file.ioctl!(m.task, number, 0x1000)).toBe(-Errno.EFAULT);
    expect(m.ioctl(number, [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).result).toBe(-Errno.EINVAL);
    expect(m.ioctl(number, [64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).result).toBe(-Errno.E2BIG);
    expect(m.ioctl(number, [0xffff_ffff]).result).toBe(-Errno.E2BIG);
  });
  test.each([0x7f, 0x95, 0xff])('0x%s is not one', (n) => {
    expect(m.file.ioctl!(m.task, io(';', n), ARGUMENT)).toBe(-Errno.ENOTTY);
  });
});

describe('IOAS', () => {
  test('mapped user pages are what the device reaches, and stay pinned when the user unmaps them', () => {
    const id = m.ioas();
    const device = m.context.bindDevice(RID);
    expect(m.context.attach(device, id, NO_PASID)).toBe(0);
    m.mm.write(BASE + 5, new TextEncoder().encode('dma'));
    expect(m.map(id, BASE, 0x3000, 0x100_0000)).toBe(0x100_0000);
    const bytes = new Uint8Array(3);
    expect(m.dma(NO_PASID, 0x100_0005, bytes, false)).toBe(0);
    expect(new TextDecoder().decode(bytes)).toBe('dma');
    m.mm.munmap(BASE, 0x3000);
    expect(m.dma(NO_PASID, 0x100_0005, bytes, true)).toBe(0);
    expect(m.unmap(id, 0x100_0000, 0x3000)).toBe(0x3000);
    expect(m.dma(NO_PASID, 0x100_0005, bytes, false)).not.toBe(0);
  });
  test('areas mapped before the attach are there after it; a detach takes the device out', () => {
    const id = m.ioas();
    m.map(id, BASE, 0x20_0000, 0x100_0000);
    const device = m.context.bindDevice(RID);
    m.context.attach(device, id, NO_PASID);
    expect(m.dma(NO_PASID, 0x111_1000, new Uint8Array(1), true)).toBe(0);
    m.context.detach(device, NO_PASID);
    expect(m.dma(NO_PASID, 0x111_1000, new Uint8Array(1), true)).not.toBe(0);
    expect(m.destroy(id)).toBe(0);
  });
  test('an IOVA that the kernel chooses is free, aligned and not 0', () => {
    const id = m.ioas();
    const seen = [m.map(id, BASE, 0x1000), m.map(id, BASE + 0x1000, 0x2000), m.map(id, BASE, 0x20_0000)];
    expect(new Set(seen).size).toBe(3);
    for (const iova of seen) expect(iova % 4096 === 0 && iova > 0).toBe(true);
    expect(seen[2]! % 0x20_0000).toBe(0);
  });
  test.each([
    ['an unknown flag', -Errno.EOPNOTSUPP, () => m.map(m.ioas(), BASE, 4096, 0x10_0000, RW | 8)],
    ['no right at all', -Errno.EINVAL, () => m.map(m.ioas(), BASE, 4096, 0x10_0000, 0)],
    ['an IOAS that does not exist', -Errno.ENOENT, () => m.map(77, BASE, 4096, 0x10_0000)],
    ['length 0', -Errno.EINVAL, () => m.map(m.ioas(), BASE, 0, 0x10_0000)],
    [
      'memory that the user does not have, with a device',
      -Errno.EFAULT,
      () => {
        const id = m.ioas();
        m.context.attach(m.context.bindDevice(RID), id, NO_PASID);
        return m.map(id, 0x1000, 4096, 0x10_0000);
      },
    ],
    [
      'an odd IOVA, with a device',
      -Errno.EINVAL,
      () => {
        const id = m.ioas();
        m.context.attach(m.context.bindDevice(RID), id, NO_PASID);
        return m.map(id, BASE, 4096, 0x10_0800);
      },
    ],
    [
      'the interrupt range, with a device',
      -Errno.EINVAL,
      () => {
        const id = m.ioas();
        m.context.attach(m.context.bindDevice(RID), id, NO_PASID);
        return m.map(id, BASE, 4096, 0xfee0_0000);
      },
    ],
    [
      'an IOVA in use',
      -Errno.EEXIST,
      () => {
        const id = m.ioas();
        m.map(id, BASE, 0x3000, 0x10_0000);
        return m.map(id, BASE, 4096, 0x10_2000);
      },
    ],
    [
      'a half of an area unmapped',
      -Errno.ENOENT,
      () => {
        const id = m.ioas();
        m.map(id, BASE, 0x3000, 0x10_0000);
        return m.unmap(id, 0x10_0000, 0x1000);
      },
    ],
    ['nothing there to unmap', -Errno.ENOENT, () => m.unmap(m.ioas(), 0x10_0000, 0x1000)],
  ])('%s', (_rule, errno, run) => {
    expect(run()).toBe(errno);
  });
  test('0 to the last unmaps all, and is content with nothing', () => {
    const id = m.ioas();
    m.map(id, BASE, 0x3000, 0x10_0000);
    m.map(id, BASE, 0x1000, 0x20_0000);
    const all = [24, id, 0, 0, 0xffff_ffff, 0xffff_ffff];
    expect(m.ioctl(IommufdIoctl.IOAS_UNMAP, all).words[4]).toBe(0x4000);
    expect(m.ioctl(IommufdIoctl.IOAS_UNMAP, all)).toMatchObject({ result: 0 });
  });
  test('copy shares the pages: the source may go, the copy stays', () => {
    const [a, b] = [m.ioas(), m.ioas()];
    m.mm.write(BASE + 0x1000, Uint8Array.of(42));
    m.map(a, BASE, 0x3000, 0x10_0000);
    const copy = (from: number, length: number, to: number) =>
      m.ioctl(IommufdIoctl.IOAS_COPY, [40, RW | IoasMapFlag.FIXED_IOVA, b, a, ...m.two(length), ...m.two(to), ...m.two(from)]).result;
    expect(copy(0x10_2000, 0x2000, 0x50_0000)).toBe(-Errno.ENOENT);
    expect(copy(0x10_1000, 0x2000, 0x50_0000)).toBe(0);
    m.unmap(a, 0x10_0000, 0x3000);
    m.context.attach(m.context.bindDevice(RID), b, NO_PASID);
    const bytes = new Uint8Array(1);
    expect(m.dma(NO_PASID, 0x50_0000, bytes, false)).toBe(0);
    expect(bytes[0]).toBe(42);
  });
  test('ranges: everything without a device, the hole of interrupts with one; EMSGSIZE says how many', () => {
    const id = m.ioas();
    const ranges = (room: number) => {
      const { result, words } = m.ioctl(IommufdIoctl.IOAS_IOVA_RANGES, [32, id, room, 0, ...m.two(ARGUMENT + 0x800), 0, 0]);
      const bytes = new Uint8Array(words[2]! * 16);
      m.mm.read(ARGUMENT + 0x800, bytes);
      const list = new BigUint64Array(bytes.buffer);
      return { result, count: words[2], alignment: words[6], list: [...list] };
    };
    expect(ranges(4)).toEqual({ result: 0, count: 1, alignment: 1, list: [0n, 2n ** 64n - 1n] });
    m.context.attach(m.context.bindDevice(RID), id, NO_PASID);
    expect(ranges(4)).toEqual({ result: 0, count: 2, alignment: 4096, list: [0n, 0xfedf_ffffn, 0xfef0_0000n, 2n ** 48n - 1n] });
    expect(ranges(1)).toMatchObject({ result: -Errno.EMSGSIZE, count: 2 });
  });
});

describe('HWPT', () => {
  const S1 = 1;
  /** Flags, table, width of the nested data. */
  const data = (table: number, width = 48, flags = 0) => [flags, 0, ...m.two(table), width, 0];
  function nesting() {
    const id = m.ioas();
    const device = m.context.bindDevice(RID);
    const parent = m.hwpt(device, id, HwptAllocFlag.NEST_PARENT);
    expect(parent).toBeGreaterThan(0);
    return { id, device, parent };
  }
  test('a nested table: guest addresses through the user page table over the IOAS, by PASID; invalidated by ioctl', () => {
    const { id, device, parent } = nesting();
    m.map(id, BASE, 0x10_0000, 0);
    // Tables at guest 0x1000, 0x2000, 0x3000, 0x4000; page 5 -> guest page 9.
    const entry = (gfn: number, index: number, to: number) =>
      m.mm.write(BASE + gfn * 4096 + index * 8, new Uint8Array(new BigUint64Array([BigInt(to * 4096 + 7)]).buffer));
    for (const [i, [gfn, to]] of [
      [1, 2],
      [2, 3],
      [3, 4],
    ].entries())
      entry(gfn!, i * 0, to!);
    entry(4, 5, 9);
    m.mm.write(BASE + 9 * 4096, Uint8Array.of(99));
    m.mm.write(BASE + 10 * 4096, Uint8Array.of(100));
    const child = m.hwpt(device, parent, HwptAllocFlag.PASID, S1, data(0x1000));
    expect(child).toBeGreaterThan(0);
    expect(m.context.attach(device, child, 33)).toBe(0);
    const byte = new Uint8Array(1);
    expect(m.dma(33, 0x5000, byte, false)).toBe(0);
    expect(byte[0]).toBe(99);
    entry(4, 5, 10);
    m.dma(33, 0x5000, byte, false);
    expect(byte[0]).toBe(99);
    m.mm.write(ARGUMENT + 0x800, new Uint8Array(new BigUint64Array([0x5000n, 1n, 1n]).buffer));
    const invalidate = (type: number, length: number, count: number) =>
      m.ioctl(IommufdIoctl.HWPT_INVALIDATE, [32, child, ...m.two(ARGUMENT + 0x800), type, length, count, 0]);
    expect(invalidate(0, 24, 1)).toMatchObject({ result: 0 });
    m.dma(33, 0x5000, byte, false);
    expect(byte[0]).toBe(100);
    expect(invalidate(1, 24, 1).result).toBe(-Errno.EINVAL);
    expect(invalidate(0, 16, 1).result).toBe(-Errno.EINVAL);
    expect(invalidate(0, 24, 0).result).toBe(0);
    const failed = invalidate(0, 24, 2);
    expect([failed.result, failed.words[6]]).toEqual([0, 2]);
    m.mm.write(ARGUMENT + 0x818, new Uint8Array(new BigUint64Array([0x5008n, 1n, 1n]).buffer));
    const partly = invalidate(0, 24, 2);
    expect([partly.result, partly.words[6]]).toEqual([-Errno.EINVAL, 1]);
    // In use: nothing of it can be destroyed.
    expect([m.destroy(child), m.destroy(parent), m.destroy(id), m.destroy(device)]).toEqual(Array(4).fill(-Errno.EBUSY));
    m.context.unbind(device);
    expect([m.destroy(child), m.destroy(parent), m.destroy(id)]).toEqual([0, 0, 0]);
    expect(m.destroy(id)).toBe(-Errno.ENOENT);
  });
  test.each([
    ['an unknown flag', -Errno.EOPNOTSUPP, () => m.hwpt(nesting().device, m.ioas(), 16)],
    ['a device that does not exist', -Errno.ENOENT, () => m.hwpt(99, m.ioas())],
    ['a parent that does not exist', -Errno.EINVAL, () => m.hwpt(nesting().device, 99)],
    [
      'nested on a parent without NEST_PARENT',
      -Errno.EINVAL,
      () => {
        const { device, id } = nesting();
        return m.hwpt(device, m.hwpt(device, id), 0, S1, data(0x1000));
      },
    ],
    [
      'an unknown data type',
      -Errno.EOPNOTSUPP,
      () => {
        const { device, parent } = nesting();
        return m.hwpt(device, parent, 0, 2, data(0x1000));
      },
    ],
    [
      'unknown first-stage flags',
      -Errno.EOPNOTSUPP,
      () => {
        const { device, parent } = nesting();
        return m.hwpt(device, parent, 0, S1, data(0x1000, 48, 8));
      },
    ],
    [
      'a PASID on an HWPT without the PASID flag',
      -Errno.EINVAL,
      () => {
        const { device, parent } = nesting();
        return m.context.attach(device, m.hwpt(device, parent, 0, S1, data(0x1000)), 33);
      },
    ],
    [
      'a PASID on an IOAS',
      -Errno.EINVAL,
      () => {
        const { device, id } = nesting();
        return m.context.attach(device, id, 33);
      },
    ],
    [
      'a width that is none',
      -Errno.EINVAL,
      () => {
        const { device, parent } = nesting();
        return m.context.attach(device, m.hwpt(device, parent, HwptAllocFlag.PASID, S1, data(0x1000, 52)), 33);
      },
    ],
    ['a device that the driver does not know', -Errno.ENODEV, () => m.context.bindDevice(RID + 1)],
  ])('%s', (_rule, errno, run) => {
    expect(run()).toBe(errno);
  });
  test("a device that shares its parent's RID attaches the domain itself, and the object is busy while it does", () => {
    const { parent } = nesting();
    const domain = m.context.domainOf(parent);
    if (typeof domain === 'number') throw new Error('domainOf');
    const pasid = m.driver.allocPasid();
    expect(m.driver.attachPasid(RID, pasid, domain)).toBe(0);
    expect(m.destroy(parent)).toBe(-Errno.EBUSY);
    m.driver.detachPasid(RID, pasid);
    expect(m.destroy(parent)).toBe(0);
    expect(m.context.domainOf(parent)).toBe(-Errno.ENOENT);
  });
});

test('GET_HW_INFO gives the capability registers, cut or filled with zeroes to the room there is', () => {
  const device = m.context.bindDevice(RID);
  m.mm.write(ARGUMENT + 0x800, new Uint8Array(64).fill(0xee));
  const { result, words } = m.ioctl(IommufdIoctl.GET_HW_INFO, [40, 0, device, 32, ...m.two(ARGUMENT + 0x800), 0, 0, 0, 0]);
  expect([result, words[3], words[6], words[7]! & 0xff]).toEqual([0, 24, 1, 20]);
  const info = new Uint32Array(9);
  m.mm.read(ARGUMENT + 0x800, new Uint8Array(info.buffer));
  expect([...info]).toEqual([0, 0, ...[0x08, 0x0c, 0x10, 0x14].map((offset) => m.unit.read(offset, 4)), 0, 0, 0xeeee_eeee]);
});

test('the last device that unbinds from a closed file takes everything with it: nothing attached, pages unpinned, memory back', () => {
  const id = m.ioas();
  const device = m.context.bindDevice(RID);
  const parent = m.hwpt(device, id, HwptAllocFlag.NEST_PARENT);
  m.map(id, BASE, 0x20_0000, 0);
  expect(m.context.attach(device, parent, NO_PASID)).toBe(0);
  expect(m.dma(NO_PASID, 0, new Uint8Array(4), true)).toBe(0);
  const other = m.context.bindDevice(RID);
  m.file.close!();
  m.context.unbind(other);
  expect(m.dma(NO_PASID, 0, new Uint8Array(4), true)).toBe(0);
  m.context.unbind(device);
  expect(m.dma(NO_PASID, 0, new Uint8Array(4), true)).not.toBe(0);
  m.mm.exit();
  expect(m.allocator.used).toBe(m.empty);
});

test('any words in any ioctl: an errno or 0, never an exception', () => {
  let seed = 1;
  const next = () => (seed = Math.imul(seed, 1103515245) + 12345) >>> 0;
  m.context.attach(m.context.bindDevice(RID), m.ioas(), NO_PASID);
  for (let i = 0; i < 3000; i++) {
    const words = Array.from({ length: 16 }, () => [0, 1, 2, 3, 4096, 0xffff_ffff, next(), next() & 7, 0x7f00, 0x10_0000][next() % 10]!);
    words[0] = [12, 24, 32, 40, 48, 64, next()][next() % 7]!;
    const { result } = m.ioctl(io(';', 0x80 + (next() % 22)), words);
    expect(result <= 0 && result > -200).toBe(true);
  }
});
