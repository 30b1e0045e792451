/** Page tables of 5 levels, pages of 1 GiB, and tables that go with what they served: Intel SDM 3A, chapter 5; mmap(2); Linux, free_pgtables. */

import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { PageEntry } from '@siov/layout/x86';
import { describe, expect, test } from 'vitest';
import { AddressSpace, FrameAllocator, PhysicalMemory, USER_END, USER_END_5 } from '../src/index.js';
import { machine } from './machine.js';

const RW = Prot.READ | Prot.WRITE;
const PAGE = 4096;
const GIB = 2 ** 30;
const ANONYMOUS = MapFlag.PRIVATE | MapFlag.ANONYMOUS;
const FIXED = ANONYMOUS | MapFlag.FIXED;
const HUGETLB = MapFlag.HUGETLB | MapFlag.HUGE_1GB;

/** The walk as the manual draws it, by whole numbers: frame of the leaf and its level; undefined: not present. */
function plainWalk(memory: PhysicalMemory, root: number, levels: number, address: number): { frame: number; level: number } | undefined {
  let table = root;
  for (let level = levels; level >= 1; level--) {
    const region = memory.regionOf(table)!;
    const index = Number((BigInt(address) >> BigInt(3 + 9 * level)) & 511n);
    const words = region.words.subarray((table - region.firstFrame) * 1024 + index * 2);
    if (!PageEntry.get.present(words, 0)) return undefined;
    table = (words[0]! >>> 12) | ((words[1]! & 0xf_ffff) << 20);
    if (level === 1 || (level <= 3 && PageEntry.get.pageSize(words, 0))) return { frame: table, level };
  }
  return undefined;
}
const put = (mm: AddressSpace, at: number, value: number): number => mm.write(at, Uint8Array.of(value));
const get = (mm: AddressSpace, at: number): number => {
  const byte = new Uint8Array(1);
  return mm.read(at, byte) || byte[0]!;
};

describe('5 levels', () => {
  const world = () => {
    const { memory, frames } = machine(256);
    return { memory, frames, mm: new AddressSpace({ memory, frames, levels: 5 }) };
  };
  test('mmap goes above 2^47 only for who asks for it', () => {
    const { mm } = world();
    expect(mm.mmap(0, PAGE, RW, ANONYMOUS)).toBeLessThan(USER_END);
    expect(mm.mmap(USER_END, 2 * PAGE, RW, ANONYMOUS)).toBeLessThan(USER_END);
    const high = mm.mmap(2 ** 52, PAGE, RW, ANONYMOUS);
    expect(high).toBe(2 ** 52);
    // The hint is taken: the highest free place.
    expect(mm.mmap(2 ** 52, PAGE, RW, ANONYMOUS)).toBe(USER_END_5 - PAGE);
    expect(mm.mmap(USER_END_5, PAGE, RW, FIXED)).toBe(-Errno.ENOMEM);
    expect(new AddressSpace(world()).mmap(2 ** 52, PAGE, RW, FIXED)).toBe(-Errno.ENOMEM);
  });
  test('pages at every level-5 index are where a plain walk of five levels finds them, and differ', () => {
    const { mm, memory, frames } = world();
    const before = frames.used;
    const addresses = [0x1000_0000, 2 ** 47, 2 ** 48, 3 * 2 ** 48 + 5 * PAGE, 2 ** 52, USER_END_5 - PAGE];
    for (const [i, at] of addresses.entries()) {
      expect(mm.mmap(at, PAGE, RW, FIXED)).toBe(at);
      put(mm, at + 9, i + 1);
    }
    for (const [i, at] of addresses.entries()) {
      expect(get(mm, at + 9)).toBe(i + 1);
      expect(plainWalk(memory, mm.rootFrame, 5, at)).toEqual({ frame: mm.frameOf(at), level: 1 });
    }
    expect(new Set(addresses.map((at) => mm.frameOf(at))).size).toBe(addresses.length);
    const child = mm.fork() as AddressSpace;
    expect([child.levels, get(child, USER_END_5 - PAGE + 9)]).toEqual([5, 6]);
    child.exit();
    for (const at of addresses) mm.munmap(at, PAGE);
    expect(frames.used).toBe(before);
  });
  test('levels is 4 or 5', () => {
    expect(() => new AddressSpace({ ...machine(), levels: 3 as 4 })).toThrow('levels: 4 or 5, not 3');
  });
});

describe('pages of 1 GiB', () => {
  const memory = new PhysicalMemory();
  // One block of 1 GiB, and some frames before it for tables.
  const ram = memory.addRam(0x4_0000 - 0x400, 0x4_0000 + 0x400);
  const frames = new FrameAllocator(ram);
  test('one entry at level 3 shows all of it; it is split by nothing, pinned as one, and comes back whole', () => {
    const used = frames.used;
    const mm = new AddressSpace({ memory, frames });
    const at = mm.mmap(0, 1, RW, ANONYMOUS | HUGETLB);
    expect(at % GIB).toBe(0);
    put(mm, at, 1);
    put(mm, at + GIB - 1, 2);
    const leaf = plainWalk(memory, mm.rootFrame, 4, at + GIB - 1)!;
    expect(leaf).toEqual({ frame: mm.frameOf(at), level: 3 });
    expect([mm.frameOf(at + GIB - 1) - leaf.frame, leaf.frame % 0x4_0000]).toEqual([0x3_ffff, 0]);
    expect([get(mm, at), get(mm, at + GIB - 1), get(mm, at + GIB / 2)]).toEqual([1, 2, 0]);
    for (const refused of [mm.munmap(at, PAGE), mm.mprotect(at + 2 ** 21, 2 ** 21, Prot.READ), mm.mlock(at, PAGE)])
      expect(refused).toBe(-Errno.EINVAL);
    // There is no second one.
    const other = mm.mmap(0, GIB, RW, ANONYMOUS | HUGETLB);
    expect(put(mm, other, 1)).toBe(-Errno.EFAULT);
    expect(mm.mmap(0, GIB, RW, ANONYMOUS | HUGETLB | MapFlag.POPULATE)).toBe(-Errno.ENOMEM);
    const out = new Int32Array(2);
    expect(mm.pin(at + 5 * PAGE, 2, true, out)).toBe(2);
    expect([...out]).toEqual([leaf.frame + 5, leaf.frame + 6]);
    const before = frames.used;
    mm.exit();
    expect(before - frames.used).toBeLessThan(8);
    mm.unpin(out, 2);
    expect(frames.used).toBe(used);
  });
  test('mremap moves it, mprotect changes its rights', () => {
    const mm = new AddressSpace({ memory, frames });
    const at = mm.mmap(0, GIB, RW, ANONYMOUS | HUGETLB);
    put(mm, at + 77, 7);
    const to = mm.mremap(at, GIB, GIB, 3, 16 * GIB);
    expect([to, get(mm, to + 77), get(mm, at + 77)]).toEqual([16 * GIB, 7, -Errno.EFAULT]);
    expect([mm.mprotect(to, GIB, Prot.READ), put(mm, to, 1), get(mm, to + 77)]).toEqual([0, -Errno.EFAULT, 7]);
    mm.exit();
  });
  test('a size that there is not is refused', () => {
    const mm = new AddressSpace({ memory, frames });
    expect(mm.mmap(0, GIB, RW, ANONYMOUS | MapFlag.HUGETLB | (24 << 26))).toBe(-Errno.EINVAL);
    expect(mm.mmap(0, 2 ** 21, RW, ANONYMOUS | MapFlag.HUGETLB | MapFlag.HUGE_2MB) % 2 ** 21).toBe(0);
    mm.exit();
  });
});

describe('tables', () => {
  test('go with the last mapping that they served, after whoever walks them was told, and large pages can take their place', () => {
    const { memory, frames } = machine(2048);
    let freed = 0;
    const mm = new AddressSpace({ memory, frames, flush: () => (freed = frames.used) });
    const before = frames.used;
    const at = 2 ** 40;
    mm.mmap(at, 2 * PAGE, RW, FIXED);
    put(mm, at, 1);
    put(mm, at + PAGE, 1);
    expect(frames.used - before).toBe(5);
    mm.munmap(at, PAGE);
    // Another mapping needs them.
    expect(frames.used - before).toBe(4);
    mm.munmap(at + PAGE, PAGE);
    expect([freed - before, frames.used - before]).toEqual([4, 0]);
    mm.mmap(at, 2 ** 21, RW, FIXED | MapFlag.HUGETLB);
    put(mm, at + 5, 9);
    expect([get(mm, at + 5), plainWalk(memory, mm.rootFrame, 4, at)?.level]).toEqual([9, 2]);
    mm.exit();
  });
});
