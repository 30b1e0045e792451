/** Containers and groups, and the type 1 IOMMU. linux/vfio.h; the order of the refusals is the kernel's. */
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Extension, Ioctl } from '../src/uapi.js';
import { machine } from './machine.js';

const NOWHERE = 0x10;
const PAGE = 4096;
const TOP = 2 ** 64 - PAGE;
const container = (options: Parameters<typeof machine>[0] = {}, type: number = Extension.TYPE1v2) => {
  const m = machine(options);
  const fds = m.client.openInContainer(m.nodes.group, m.name, type);
  const memory = m.task.alloc(64 * PAGE);
  const { counters } = m.task.mm as unknown as { counters: Float64Array };
  /** Pins not taken back. */
  const pinned = (): number => counters[3]! - counters[4]!;
  return { ...m, pci: m.device, ...fds, memory, pinned, domain: m.domains.at(-1)! };
};

describe('the way to a device', () => {
  test('API version, extensions before and after SET_IOMMU', () => {
    const { task, client, open, nodes } = machine();
    const fd = open('/dev/vfio/vfio');
    const ask = (argument: number): number => task.ioctl(fd, Ioctl.CHECK_EXTENSION, argument);
    expect(task.ioctl(fd, Ioctl.GET_API_VERSION, 0)).toBe(0);
    expect([1, 3, 9, 2, 4, 5, 6, 7, 8, 10, 77].map(ask)).toEqual([1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    client.call(open(nodes.group), Ioctl.GROUP_SET_CONTAINER, [fd]);
    task.ioctl(fd, Ioctl.SET_IOMMU, 3);
    expect(ask(Extension.DMA_CC)).toBe(1);
  });
  test('SET_IOMMU: without a group EINVAL, unknown type ENODEV, twice EINVAL', () => {
    const { task, client, open, nodes } = machine();
    const fd = open('/dev/vfio/vfio');
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 3)).toBe(-Errno.EINVAL);
    client.call(open(nodes.group), Ioctl.GROUP_SET_CONTAINER, [fd]);
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 2)).toBe(-Errno.ENODEV);
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 3)).toBe(0);
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 3)).toBe(-Errno.EINVAL);
  });
  test('an unknown ioctl is EINVAL before SET_IOMMU and ENOTTY after', () => {
    const { task, open } = machine();
    expect(task.ioctl(open('/dev/vfio/vfio'), 0x3bff, 0)).toBe(-Errno.EINVAL);
    const m = container();
    expect(m.task.ioctl(m.container, 0x3bff, 0)).toBe(-Errno.ENOTTY);
    expect(m.task.ioctl(m.group, 0x3bff, 0)).toBe(-Errno.ENOTTY);
  });
  test('group status: viable, then with a container', () => {
    const { client, open, nodes } = machine();
    const group = open(nodes.group);
    const status = (argsz = 8) => client.call(group, Ioctl.GROUP_GET_STATUS, [argsz, 0]);
    expect(status(7).result).toBe(-Errno.EINVAL);
    expect(status().words[1]).toBe(1);
    client.call(group, Ioctl.GROUP_SET_CONTAINER, [open('/dev/vfio/vfio')]);
    expect(status().words[1]).toBe(3);
  });
  test('SET_CONTAINER: EFAULT, EBADF, EBADFD, and EINVAL the second time', () => {
    const { task, client, open, nodes } = machine();
    const group = open(nodes.group);
    const set = (fd: number): number => client.call(group, Ioctl.GROUP_SET_CONTAINER, [fd]).result;
    expect(task.ioctl(group, Ioctl.GROUP_SET_CONTAINER, NOWHERE)).toBe(-Errno.EFAULT);
    expect(set(99)).toBe(-Errno.EBADF);
    expect(set(-1)).toBe(-Errno.EBADF);
    expect(set(client.eventfd())).toBe(-Errno.EBADFD);
    const fd = open('/dev/vfio/vfio');
    expect(set(fd)).toBe(0);
    expect(set(fd)).toBe(-Errno.EINVAL);
  });
  test('UNSET_CONTAINER: EINVAL without one, EBUSY with a device open', () => {
    const { task, open, nodes } = machine();
    expect(task.ioctl(open(nodes.group), Ioctl.GROUP_UNSET_CONTAINER, 0)).toBe(-Errno.EINVAL);
    const m = container();
    expect(m.task.ioctl(m.group, Ioctl.GROUP_UNSET_CONTAINER, 0)).toBe(-Errno.EBUSY);
    m.task.close(m.device);
  });
  test('GET_DEVICE_FD: EFAULT, ENODEV for another name, EINVAL without an IOMMU', () => {
    const { task, client, open, nodes, name } = machine();
    const group = open(nodes.group);
    expect(task.ioctl(group, Ioctl.GROUP_GET_DEVICE_FD, NOWHERE)).toBe(-Errno.EFAULT);
    expect(client.deviceFd(group, '0000:00:02.0')).toBe(-Errno.ENODEV);
    expect(client.deviceFd(group, name)).toBe(-Errno.EINVAL);
  });
  test('one opener a group: EBUSY until the file and its device files are closed', () => {
    const { task, open, nodes, group, device } = container();
    expect(open(nodes.group)).toBe(-Errno.EBUSY);
    task.close(group);
    expect(open(nodes.group)).toBe(-Errno.EBUSY);
    task.close(device);
    expect(open(nodes.group)).toBeGreaterThanOrEqual(0);
  });
  test('the last device out takes the address space with it, and detaches', () => {
    const { task, group, device, domain, attached } = container();
    expect(attached.get(-1)).toBe(domain);
    task.close(device);
    expect(task.ioctl(group, Ioctl.GROUP_UNSET_CONTAINER, 0)).toBe(0);
    expect([attached.size, domain.freed]).toEqual([0, true]);
  });
  test('a device that refuses to be attached leaves the container without an IOMMU', () => {
    const { task, client, open, nodes, iommu, domains } = machine();
    const fd = open('/dev/vfio/vfio');
    client.call(open(nodes.group), Ioctl.GROUP_SET_CONTAINER, [fd]);
    iommu.refuse = -Errno.ENOMEM;
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 3)).toBe(-Errno.ENOMEM);
    expect(domains[0]!.freed).toBe(true);
    iommu.refuse = 0;
    expect(task.ioctl(fd, Ioctl.SET_IOMMU, 3)).toBe(0);
  });
});

describe('MAP_DMA', () => {
  test.each<[rule: string, vaddr: number, iova: number, size: number, flags: number, errno: number]>([
    ['an unknown flag', 0, 0, PAGE, 8, Errno.EINVAL],
    ['size 0', 0, 0, 0, 3, Errno.EINVAL],
    ['iova + size beyond 2^64', 0, TOP, 2 * PAGE, 3, Errno.EOVERFLOW],
    ['vaddr + size beyond 2^64', TOP, 0, 2 * PAGE, 3, Errno.EOVERFLOW],
    ['neither right', 0, 0, PAGE, 0, Errno.EINVAL],
    ['VADDR together with rights', 0, 0, PAGE, 5, Errno.EINVAL],
    ['an unaligned iova', 0, 12, PAGE, 3, Errno.EINVAL],
    ['an unaligned vaddr', 12, 0, PAGE, 3, Errno.EINVAL],
    ['an unaligned size', 0, 0, 12, 3, Errno.EINVAL],
    ['VADDR where nothing is mapped', 0, 0, PAGE, 4, Errno.ENOENT],
    ['VADDR of a mapping that kept its address', 0, 0x10_0000, PAGE, 4, Errno.EINVAL],
    ['overlap at its end', 0, 0x10_0000 - PAGE, 2 * PAGE, 3, Errno.EEXIST],
    ['overlap at its start', 0, 0x10_3000, 2 * PAGE, 3, Errno.EEXIST],
    ['the interrupt window', 0, 0xfee0_0000, PAGE, 3, Errno.EINVAL],
    ['a range across the interrupt window', 0, 0xfed0_0000, 0x30_0000, 3, Errno.EINVAL],
    ['the very last page, beyond the width of the IOMMU', 0, TOP, PAGE, 3, Errno.EINVAL],
    ['memory that is not there', 0x7000_0000, 0x20_0000, PAGE, 3, Errno.EFAULT],
  ])('%s is refused', (_rule, vaddr, iova, size, flags, errno) => {
    const { client, container: fd, memory, pinned, domain } = container();
    expect(client.mapDma(fd, memory, 0x10_0000, 4 * PAGE)).toBe(0);
    expect(client.mapDma(fd, vaddr, iova, size, flags)).toBe(-errno);
    expect([pinned(), domain.pages.size]).toEqual([4, 4]);
  });
  test('argsz below 32 and a bad pointer', () => {
    const { client, task, container: fd } = container();
    expect(client.call(fd, Ioctl.IOMMU_MAP_DMA, [31, 3, 0, 0, 0, 0, PAGE, 0]).result).toBe(-Errno.EINVAL);
    expect(task.ioctl(fd, Ioctl.IOMMU_MAP_DMA, NOWHERE)).toBe(-Errno.EFAULT);
  });
  test("each page shows the frame of the user's page, with the rights asked for", () => {
    const { client, task, container: fd, memory, domain } = container();
    expect(client.mapDma(fd, memory, 0x4000, 3 * PAGE, 1)).toBe(0);
    for (let i = 0; i < 3; i++) expect(domain.pages.get(4 + i)).toEqual({ frame: task.mm.frameOf(memory + i * PAGE), prot: Prot.READ });
  });
  test('limits: mappings ENOSPC, locked pages ENOMEM', () => {
    const { client, container: fd, memory } = container({ type1: { mappings: 1, lockedPages: 4 } });
    expect(client.mapDma(fd, memory, 0, 5 * PAGE)).toBe(-Errno.ENOMEM);
    expect(client.mapDma(fd, memory, 0, 4 * PAGE)).toBe(0);
    expect(client.mapDma(fd, memory, 0x10_0000, PAGE)).toBe(-Errno.ENOSPC);
  });
  test("pinned pages count as the process's locked ones, as long as they are pinned: beyond its limit ENOMEM, and nothing stays", () => {
    const { client, task, container: fd, memory, pinned } = container({ lockedPages: 6 });
    const locked = () => [(task.mm as { lockedPages?: number }).lockedPages, pinned()];
    expect(client.mapDma(fd, memory, 0, 4 * PAGE)).toBe(0);
    expect(client.mapDma(fd, memory, 0x10_0000, 3 * PAGE)).toBe(-Errno.ENOMEM);
    expect(locked()).toEqual([4, 4]);
    expect(client.mapDma(fd, memory, 0x10_0000, 2 * PAGE)).toBe(0);
    expect(locked()).toEqual([6, 6]);
    expect([client.unmapDma(fd, 0, 4 * PAGE), ...locked()]).toEqual([4 * PAGE, 2, 2]);
  });
  test('a domain that runs out in the middle leaves nothing mapped or pinned', () => {
    const { client, container: fd, memory, domain, pinned } = container({ scatter: 1 });
    domain.mapsLeft = 2;
    expect(client.mapDma(fd, memory, 0, 8 * PAGE)).toBe(-Errno.ENOMEM);
    expect([pinned(), domain.pages.size]).toEqual([0, 0]);
  });
  test('a mapped BAR can be mapped for DMA, whole or in part, without pins; not where the option is absent', () => {
    const { client, task, container: fd, device, domain, pinned } = container();
    const bar = task.mmap(0, 0x2000, 3, MapFlag.SHARED, device, 2 * 2 ** 40);
    expect(client.mapDma(fd, bar, 0, 0x2000)).toBe(0);
    expect(domain.pages.get(1)!.frame).toBe(0xe001_1000 / PAGE);
    expect(pinned()).toBe(0);
    expect(client.unmapDma(fd, 0, 0x2000)).toBe(0x2000);
  });
});

describe('UNMAP_DMA', () => {
  const three = (type: number) => {
    const m = container({}, type);
    for (const iova of [0x10_0000, 0x20_0000, 0x30_0000]) m.client.mapDma(m.container, m.memory, iova, 4 * PAGE);
    return m;
  };
  test.each<[rule: string, iova: number, size: number, flags: number, answer: number]>([
    ['an unknown flag', 0, PAGE, 8, -Errno.EINVAL],
    ['an unaligned iova', 12, PAGE, 0, -Errno.EINVAL],
    ['size 0', 0, 0, 0, -Errno.EINVAL],
    ['an unaligned size', 0, 12, 0, -Errno.EINVAL],
    ['a range beyond 2^64', TOP, 2 * PAGE, 0, -Errno.EOVERFLOW],
    ['ALL with an address', PAGE, 0, 2, -Errno.EINVAL],
    ['ALL with a size', 0, PAGE, 2, -Errno.EINVAL],
    ['a bitmap together with ALL', 0, 0, 3, -Errno.EINVAL],
    ['a bitmap without tracking', 0, PAGE, 1, -Errno.EINVAL],
    ['a range that cuts a mapping at its start', 0x10_1000, 3 * PAGE, 0, -Errno.EINVAL],
    ['a range that cuts a mapping at its end', 0x10_0000, 3 * PAGE, 0, -Errno.EINVAL],
    ['nothing mapped', 0x40_0000, PAGE, 0, 0],
    ['one mapping', 0x10_0000, 4 * PAGE, 0, 4 * PAGE],
    ['two mappings and the hole between', 0x10_0000, 0x10_4000, 0, 8 * PAGE],
    ['to the very end of the address space', 0x20_0000, TOP - 0x20_0000 + PAGE, 0, 8 * PAGE],
    ['ALL', 0, 0, 2, 12 * PAGE],
  ])('version 2, %s', (_rule, iova, size, flags, answer) => {
    const { client, container: fd, pinned, domain } = three(Extension.TYPE1v2);
    expect(client.unmapDma(fd, iova, size, flags)).toBe(answer);
    const left = 12 - Math.max(answer, 0) / PAGE;
    expect([pinned(), domain.pages.size]).toEqual([left, left]);
  });
  test.each<[rule: string, iova: number, size: number, answer: number]>([
    ['a mapping that starts in the range goes whole', 0x10_0000, PAGE, 4 * PAGE],
    ['one that starts before it stays', 0x10_1000, PAGE, 0],
    ['both at once', 0x10_1000, 0x10_0000, 4 * PAGE],
  ])('version 1: %s', (_rule, iova, size, answer) => {
    const { client, container: fd } = three(Extension.TYPE1);
    expect(client.unmapDma(fd, iova, size)).toBe(answer);
  });
});

describe('information and dirty pages', () => {
  test("page sizes, and a chain of what remains, in the kernel's order", () => {
    const { client, container: fd, task, memory } = container();
    client.mapDma(fd, memory, 0, PAGE);
    const short = client.call(fd, Ioctl.IOMMU_GET_INFO, [24, 0, 0, 0, 99, 0]).words;
    expect([short[1], short[2], short[4]]).toEqual([3, 0x4020_1000, 0]);
    const full = client.call(fd, Ioctl.IOMMU_GET_INFO, [short[0]!, ...new Array(short[0]! / 4 - 1).fill(0)]).words;
    const found: [number, number][] = [];
    for (let at = full[4]!; at !== 0; at = full[at / 4 + 1]!) found.push([full[at / 4]! & 0xffff, full[at / 4 + 2]!]);
    expect(found).toEqual([
      [2, 0],
      [3, 65_534],
      [1, 2],
    ]);
    expect(client.call(fd, Ioctl.IOMMU_GET_INFO, [16, 0, 0, 0, 99]).words[4]).toBe(99);
    expect(client.call(fd, Ioctl.IOMMU_GET_INFO, [15]).result).toBe(-Errno.EINVAL);
    expect(task.ioctl(fd, Ioctl.IOMMU_GET_INFO, NOWHERE)).toBe(-Errno.EFAULT);
  });
  test('dirty pages: one flag; GET needs START; every pinned page is reported, every time', () => {
    const { client, container: fd, task, memory } = container();
    client.mapDma(fd, memory, 0x2000, 3 * PAGE);
    const bits = task.alloc(PAGE);
    const dirty = (flags: number, ...more: number[]): number =>
      client.call(fd, Ioctl.IOMMU_DIRTY_PAGES, [8 + more.length * 4, flags, ...more]).result;
    const get = (size: number, bytes = 8): number => dirty(4, 0, 0, size, 0, PAGE, 0, bytes, 0, bits % 2 ** 32, Math.floor(bits / 2 ** 32));
    expect([dirty(0), dirty(3), dirty(8)]).toEqual([-Errno.EINVAL, -Errno.EINVAL, -Errno.EINVAL]);
    expect(get(8 * PAGE)).toBe(-Errno.EINVAL);
    expect([dirty(1), dirty(1)]).toEqual([0, 0]);
    for (let round = 0; round < 2; round++) {
      task.writeStruct(bits, new Uint8Array(8));
      expect(get(8 * PAGE)).toBe(0);
      expect([...task.readStruct(bits, new Uint8Array(8))]).toEqual([0b11100, 0, 0, 0, 0, 0, 0, 0]);
    }
    expect([get(8 * PAGE, 4), get(3 * PAGE), get(12)]).toEqual([-Errno.EINVAL, -Errno.EINVAL, -Errno.EINVAL]);
    expect([dirty(2), get(8 * PAGE)]).toEqual([0, -Errno.EINVAL]);
    const old = container({}, Extension.TYPE1);
    expect(old.client.call(old.container, Ioctl.IOMMU_DIRTY_PAGES, [8, 1]).result).toBe(-Errno.EACCES);
  });
});

describe('the end', () => {
  test.each(['close', 'exit'] as const)('after %s no page is pinned or mapped, and all memory comes back', (how) => {
    const { client, container: fd, group, device, memory, task, frames, domain, pinned } = container();
    const before = frames.used;
    client.mapDma(fd, memory, 0x1000, 32 * PAGE);
    client.mapDma(fd, memory, 0x10_0000, 8 * PAGE);
    task.munmap(memory, 64 * PAGE);
    expect(frames.used).toBeGreaterThan(before - 64);
    if (how === 'exit') task.exit(0);
    else for (const each of [fd, group, device]) task.close(each);
    expect([pinned(), domain.pages.size, domain.freed]).toEqual([0, 0, true]);
    if (how === 'exit') expect(frames.used).toBe(0);
  });
  test('any sequence of mappings and unmappings agrees with a plain model, and ends without pins', () => {
    const step = fc.record({ map: fc.boolean(), page: fc.nat(30), pages: fc.integer({ min: 1, max: 6 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (list) => {
        const { client, container: fd, memory, domain, pinned, task, frames } = container();
        const model: { page: number; pages: number }[] = [];
        for (const { map, page, pages } of list) {
          const end = page + pages;
          const touched = model.filter((m) => m.page < end && m.page + m.pages > page);
          if (map) {
            expect(client.mapDma(fd, memory, page * PAGE, pages * PAGE)).toBe(touched.length ? -Errno.EEXIST : 0);
            if (touched.length === 0) model.push({ page, pages });
          } else {
            const cut = touched.some((m) => m.page < page || m.page + m.pages > end);
            const sum = touched.reduce((n, m) => n + m.pages, 0);
            expect(client.unmapDma(fd, page * PAGE, pages * PAGE)).toBe(cut ? -Errno.EINVAL : sum * PAGE);
            if (!cut) for (const m of touched) model.splice(model.indexOf(m), 1);
          }
        }
        const count = model.reduce((n, m) => n + m.pages, 0);
        expect([domain.pages.size, pinned()]).toEqual([count, count]);
        task.exit(0);
        expect([pinned(), frames.used]).toEqual([0, 0]);
      }),
      { numRuns: 50 },
    );
  });
});
