/** mremap, mlock and files of memory. mremap(2), mlock(2), memfd_create(2), ftruncate(2). */
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressSpace, MemoryFile, Mremap, USER_END } from '../src/index.js';
import { machine } from './machine.js';

const RW = Prot.READ | Prot.WRITE;
const ANONYMOUS = MapFlag.PRIVATE | MapFlag.ANONYMOUS;
const PAGE = 4096;
const A = 0x1000_0000;
const B = 0x2000_0000;
const HUGE = 0x20_0000;

const world = (lockedPages?: number) => {
  const { memory, frames } = machine(2048);
  const used = frames.used;
  const mm = new AddressSpace({ memory, frames, lockedPages });
  const map = (at: number, pages: number, flags: number = ANONYMOUS) => mm.mmap(at, pages * PAGE, RW, flags | MapFlag.FIXED);
  const put = (at: number, value: number) => mm.write(at, Uint8Array.of(value));
  const get = (at: number) => {
    const byte = new Uint8Array(1);
    return mm.read(at, byte) || byte[0]!;
  };
  const told: [number, number][] = [];
  mm.subscribe({ invalidate: (start, end) => void told.push([start, end]), release: () => {} });
  return { memory, frames, used, mm, map, put, get, told };
};

describe('mremap', () => {
  test.each<[string, number, (w: ReturnType<typeof world>) => number]>([
    ['an odd address', -Errno.EINVAL, ({ mm }) => mm.mremap(A + 1, PAGE, PAGE)],
    ['to nothing', -Errno.EINVAL, ({ mm }) => mm.mremap(A, PAGE, 0)],
    ['an unknown flag', -Errno.EINVAL, ({ mm }) => mm.mremap(A, PAGE, PAGE, 8)],
    ['FIXED without MAYMOVE', -Errno.EINVAL, ({ mm }) => mm.mremap(A, PAGE, PAGE, Mremap.FIXED, B)],
    ['onto itself', -Errno.EINVAL, ({ mm }) => mm.mremap(A, 4 * PAGE, PAGE, 3, A + PAGE)],
    ['beyond the end', -Errno.EINVAL, ({ mm }) => mm.mremap(A, PAGE, 2 * PAGE, 3, USER_END - PAGE)],
    ['what is not there', -Errno.EFAULT, ({ mm }) => mm.mremap(B, PAGE, PAGE)],
    ['more than one mapping', -Errno.EFAULT, ({ mm }) => mm.mremap(A, 8 * PAGE, 9 * PAGE)],
    ['growth without room, in place', -Errno.ENOMEM, ({ mm }) => mm.mremap(A, 4 * PAGE, 5 * PAGE)],
  ])('%s', (_name, errno, run) => {
    const w = world();
    w.map(A, 4);
    w.mm.mmap(A + 4 * PAGE, 4 * PAGE, Prot.READ, ANONYMOUS | MapFlag.FIXED);
    expect(run(w)).toBe(errno);
    w.mm.exit();
    expect(w.frames.used).toBe(w.used);
  });
  test('shorter: the tail is unmapped; longer where there is room: new pages behind', () => {
    const { mm, map, put, get, told } = world();
    map(A, 4);
    for (let i = 0; i < 4; i++) put(A + i * PAGE, i + 1);
    expect(mm.mremap(A, 4 * PAGE, 2 * PAGE)).toBe(A);
    expect([get(A + PAGE), get(A + 2 * PAGE), told]).toEqual([2, -Errno.EFAULT, [[A + 2 * PAGE, A + 4 * PAGE]]]);
    expect(mm.mremap(A, 2 * PAGE, 6 * PAGE)).toBe(A);
    expect([get(A + PAGE), get(A + 5 * PAGE)]).toEqual([2, 0]);
  });
  test('moved: the same frames at another place, the old one told and gone, also when it is pinned', () => {
    const { mm, map, put, get, told } = world();
    map(A, 3);
    map(A + 3 * PAGE, 1);
    put(A + PAGE, 7);
    const pinned = new Int32Array(1);
    mm.pin(A + PAGE, 1, true, pinned);
    const to = mm.mremap(A, 3 * PAGE, 5 * PAGE, Mremap.MAYMOVE);
    expect(to).not.toBe(A);
    expect([get(to + PAGE), get(A + PAGE), mm.frameOf(to + PAGE), told]).toEqual([7, -Errno.EFAULT, pinned[0], [[A, A + 3 * PAGE]]]);
    expect(mm.mremap(to, 5 * PAGE, 2 * PAGE, 3, B)).toBe(B);
    expect([get(B + PAGE), get(to), get(B + 2 * PAGE)]).toEqual([7, -Errno.EFAULT, -Errno.EFAULT]);
    mm.unpin(pinned, 1);
  });
  test('shared and large pages move too', () => {
    const { mm, map, put, get, frames, used } = world();
    map(A, 2, MapFlag.SHARED | MapFlag.ANONYMOUS);
    put(A, 5);
    const child = mm.fork() as AddressSpace;
    expect(mm.mremap(A, 2 * PAGE, 3 * PAGE, 3, B)).toBe(B);
    put(B, 6);
    const byte = new Uint8Array(1);
    child.read(A, byte);
    expect(byte[0]).toBe(6);
    mm.mmap(B + HUGE, HUGE, RW, ANONYMOUS | MapFlag.FIXED | MapFlag.HUGETLB);
    put(B + HUGE + 5 * PAGE, 9);
    expect(mm.mremap(B + HUGE, PAGE, HUGE, 1)).toBe(-Errno.EINVAL);
    const to = mm.mremap(B + HUGE, HUGE, HUGE, 3, B + 4 * HUGE);
    expect([to, get(to + 5 * PAGE)]).toEqual([B + 4 * HUGE, 9]);
    child.exit();
    mm.exit();
    expect(frames.used).toBe(used);
  });
  test('whatever is mapped, moved, written and unmapped: every page holds what was written there, and everything goes back', () => {
    const step = fc.record({
      kind: fc.constantFrom('map', 'unmap', 'move', 'move', 'write', 'write'),
      at: fc.nat(15),
      pages: fc.integer({ min: 1, max: 5 }),
      more: fc.integer({ min: 1, max: 7 }),
      to: fc.nat(30),
      fixed: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { mm, map, put, get, frames, used } = world();
        /** By page: what it holds. */
        let model = new Map<number, number>();
        let value = 0;
        const page = (n: number) => A / PAGE + n;
        for (const { kind, at, pages, more, to, fixed } of steps) {
          const first = page(at);
          if (kind === 'map') {
            map(first * PAGE, pages);
            for (let i = 0; i < pages; i++) model.set(first + i, 0);
          } else if (kind === 'unmap') {
            mm.munmap(first * PAGE, pages * PAGE);
            for (let i = 0; i < pages; i++) model.delete(first + i);
          } else if (kind === 'write') {
            value = (value % 250) + 1;
            expect(put(first * PAGE, value)).toBe(model.has(first) ? 0 : -Errno.EFAULT);
            if (model.has(first)) model.set(first, value);
          } else {
            const answer = mm.mremap(first * PAGE, pages * PAGE, more * PAGE, fixed ? 3 : 1, fixed ? page(to) * PAGE : 0);
            if (answer < 0) continue;
            const target = answer / PAGE;
            const moved = new Map(model);
            for (let i = 0; i < pages; i++) moved.delete(first + i);
            for (let i = 0; i < more; i++) moved.set(target + i, i < pages ? model.get(first + i)! : 0);
            model = moved;
          }
        }
        for (const [at, expected] of model) expect(get(at * PAGE)).toBe(expected);
        for (let n = 0; n < 40; n++) if (!model.has(page(n))) expect(get(page(n) * PAGE)).toBe(-Errno.EFAULT);
        mm.exit();
        expect(frames.used).toBe(used);
      }),
      { numRuns: 150 },
    );
  });
});

describe('mlock', () => {
  test('pages are there at once, counted once, and not counted when they are unmapped', () => {
    const { mm, map } = world();
    map(A, 4);
    expect([mm.mlock(A + 100, 2 * PAGE), mm.lockedPages]).toEqual([0, 3]);
    expect([mm.frameOf(A + 2 * PAGE) >= 0, mm.frameOf(A + 3 * PAGE)]).toEqual([true, -1]);
    expect([mm.mlock(A, 4 * PAGE), mm.lockedPages]).toEqual([0, 4]);
    mm.munmap(A + PAGE, PAGE);
    expect(mm.lockedPages).toBe(3);
    expect([mm.munlock(A, PAGE), mm.lockedPages]).toEqual([0, 2]);
    expect(mm.munlock(A, 4 * PAGE)).toBe(-Errno.ENOMEM);
    expect((mm.fork() as AddressSpace).lockedPages).toBe(0);
    mm.exit();
    expect(mm.lockedPages).toBe(0);
  });
  test('the limit counts mlock and drivers’ pins together', () => {
    const { mm, map } = world(5);
    map(A, 8);
    expect(mm.lockPages(2)).toBe(0);
    expect([mm.mlock(A, 4 * PAGE), mm.lockedPages]).toEqual([-Errno.ENOMEM, 2]);
    expect([mm.mlock(A, 3 * PAGE), mm.lockPages(1)]).toEqual([0, -Errno.ENOMEM]);
    expect(mm.mremap(A, 3 * PAGE, 2 * PAGE)).toBe(A);
    expect(mm.lockedPages).toBe(4);
    expect(mm.mremap(A, 2 * PAGE, 6 * PAGE, Mremap.MAYMOVE)).toBe(-Errno.EAGAIN);
    const to = mm.mremap(A, 2 * PAGE, 3 * PAGE, Mremap.MAYMOVE);
    expect([to > 0, mm.lockedPages]).toEqual([true, 5]);
  });
  test('what is not mapped, and without memory', () => {
    const { mm, map } = world();
    map(A, 2);
    expect([mm.mlock(A, 3 * PAGE), mm.mlock(B, PAGE), mm.mlock(A, 0), mm.lockedPages]).toEqual([-Errno.ENOMEM, -Errno.ENOMEM, 0, 0]);
  });
});

describe('a file of memory', () => {
  const file = () => {
    const w = world();
    const made = new MemoryFile(w);
    made.resize(3 * PAGE + 100);
    return { ...w, file: made };
  };
  test('is read and written, shared by all who map it, at any offset', () => {
    const w = file();
    expect(w.mm.mmap(A, 4 * PAGE, RW, MapFlag.SHARED | MapFlag.FIXED, w.file, 0)).toBe(A);
    expect(w.mm.mmap(B, PAGE, RW, MapFlag.SHARED | MapFlag.FIXED, w.file, 2 * PAGE)).toBe(B);
    w.put(A + 2 * PAGE + 5, 42);
    expect(w.get(B + 5)).toBe(42);
    const bytes = new Uint8Array(3);
    expect([w.file.read(2 * PAGE + 4, bytes), ...bytes]).toEqual([3, 0, 42, 0]);
    expect(w.file.write(2 * PAGE + 4, Uint8Array.of(1, 2))).toBe(2);
    expect([w.get(B + 4), w.get(A + 2 * PAGE + 5)]).toEqual([1, 2]);
    const other = new AddressSpace(w);
    other.mmap(A, PAGE, RW, MapFlag.SHARED | MapFlag.FIXED, w.file, 2 * PAGE);
    other.read(A + 4, bytes);
    expect([...bytes]).toEqual([1, 2, 0]);
    other.exit();
  });
  test('ends: a read is short, a page beyond is SIGBUS until the file grows', () => {
    const w = file();
    w.mm.mmap(A, 8 * PAGE, RW, MapFlag.SHARED | MapFlag.FIXED, w.file, 0);
    expect(w.file.read(3 * PAGE, new Uint8Array(PAGE))).toBe(100);
    expect(w.file.read(5 * PAGE, new Uint8Array(1))).toBe(0);
    expect([w.get(A + 3 * PAGE), w.mm.handleFault(0, A + 4 * PAGE, 0)]).toEqual([0, -Errno.EIO]);
    expect([w.file.resize(-1), w.file.resize(5 * PAGE), w.get(A + 4 * PAGE)]).toEqual([-Errno.EINVAL, 0, 0]);
    w.file.write(6 * PAGE, Uint8Array.of(3));
    expect([w.file.bytes, w.get(A + 6 * PAGE)]).toEqual([6 * PAGE + 1, 3]);
  });
  test('keeps its pages while it is open, mapped or pinned', () => {
    const w = file();
    const pinned = new Int32Array(2);
    expect([w.file.pin(3, 2, pinned), w.file.pin(0, 2, pinned)]).toEqual([-Errno.EINVAL, 2]);
    w.mm.mmap(A, PAGE, RW, MapFlag.SHARED | MapFlag.FIXED, w.file, 0);
    w.put(A, 1);
    expect(w.mm.frameOf(A)).toBe(pinned[0]);
    const kept = w.frames.used;
    const end = w.file.hold();
    w.file.close();
    expect([w.frames.used, w.get(A)]).toEqual([kept, 1]);
    w.mm.exit();
    end();
    expect(w.frames.used).toBe(w.used + 2);
    w.file.unpin(pinned, 2);
    expect(w.frames.used).toBe(w.used);
  });
});
