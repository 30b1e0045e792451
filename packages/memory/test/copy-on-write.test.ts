/** Copy on write: fork(2); Linux, do_wp_page and copy_present_page. */
import { DmaAccess } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressSpace, Mremap } from '../src/index.js';
import { machine } from './machine.js';

const RW = Prot.READ | Prot.WRITE;
const PAGE = 4096;
const A = 0x1000_0000;
const HUGE = 0x20_0000;
const FIXED = MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED;

const world = (frameCount = 4096) => {
  const { memory, frames } = machine(frameCount);
  const used = frames.used;
  const mm = new AddressSpace({ memory, frames });
  mm.mmap(A, 4 * PAGE, RW, FIXED);
  return { memory, frames, used, mm };
};
const put = (mm: AddressSpace, at: number, value: number) => mm.write(at, Uint8Array.of(value));
const get = (mm: AddressSpace, at: number) => {
  const byte = new Uint8Array(1);
  return mm.read(at, byte) || byte[0]!;
};

describe('after fork', () => {
  test('both show the same frame until one writes; then that one has its own, and its devices are told', () => {
    const { mm, frames } = world();
    put(mm, A, 1);
    const told: number[] = [];
    mm.subscribe({ invalidate: (start) => void told.push(start), release: () => {} });
    const before = frames.used;
    const child = mm.fork() as AddressSpace;
    // Three tables and their root, no page.
    expect([frames.used - before, child.frameOf(A) === mm.frameOf(A), told]).toEqual([4, true, [A]]);
    put(child, A, 2);
    expect([get(mm, A), get(child, A), child.frameOf(A) === mm.frameOf(A), told.length]).toEqual([1, 2, false, 1]);
    // The last one writes in place.
    const frame = mm.frameOf(A);
    put(mm, A, 3);
    expect([mm.frameOf(A), get(child, A), told.length]).toEqual([frame, 2, 1]);
  });
  test('a page that a device has pinned stays the parent’s, and one that is pinned later becomes its own', () => {
    const { mm } = world();
    const out = new Int32Array(1);
    put(mm, A, 1);
    put(mm, A + PAGE, 5);
    mm.pin(A, 1, true, out);
    const child = mm.fork() as AddressSpace;
    expect([mm.frameOf(A), get(child, A)]).toEqual([out[0], 1]);
    put(mm, A, 9);
    expect([mm.frameOf(A), get(child, A)]).toEqual([out[0], 1]);
    mm.unpin(out, 1);
    // Also to be read only: what the device sees must stay what the process sees.
    child.pin(A + PAGE, 1, false, out);
    put(child, A + PAGE, 6);
    expect([child.frameOf(A + PAGE), get(mm, A + PAGE)]).toEqual([out[0], 5]);
    child.unpin(out, 1);
  });
  test('rights that come back do not bring the write with them', () => {
    const { mm } = world();
    put(mm, A, 1);
    const child = mm.fork() as AddressSpace;
    child.mprotect(A, PAGE, Prot.READ);
    child.mprotect(A, PAGE, RW);
    put(child, A, 2);
    expect([get(mm, A), get(child, A)]).toEqual([1, 2]);
  });
  test('large pages, too', () => {
    const { mm, frames, used } = world();
    mm.mmap(A + HUGE, HUGE, RW, FIXED | MapFlag.HUGETLB);
    put(mm, A + HUGE + 5 * PAGE, 7);
    const child = mm.fork() as AddressSpace;
    expect(child.frameOf(A + HUGE)).toBe(mm.frameOf(A + HUGE));
    put(child, A + HUGE, 1);
    expect([get(mm, A + HUGE), get(child, A + HUGE + 5 * PAGE)]).toEqual([0, 7]);
    mm.exit();
    expect(get(child, A + HUGE + 5 * PAGE)).toBe(7);
    child.exit();
    expect(frames.used).toBe(used);
  });
  test('without memory the write fails and nothing else changes', () => {
    const { mm, frames } = world(16);
    put(mm, A, 1);
    const child = mm.fork() as AddressSpace;
    while (frames.alloc() >= 0);
    expect([child.handleFault(0, A, DmaAccess.write), put(child, A, 2), get(child, A), get(mm, A)]).toEqual([-Errno.ENOMEM, -Errno.EFAULT, 1, 1]);
    mm.exit();
    expect([put(child, A, 2), get(child, A)]).toEqual([0, 2]);
  });
});

test('any processes that fork, write, move, protect, pin and end: each sees what it wrote or inherited, and everything goes back', () => {
  const step = fc.record({
    kind: fc.constantFrom('fork', 'write', 'write', 'write', 'end', 'pin', 'unmap', 'protect', 'move'),
    who: fc.nat(7),
    page: fc.nat(3),
    value: fc.integer({ min: 1, max: 255 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { mm, frames, used } = world();
      /** Of each process: what its pages hold; undefined: unmapped. `pins`: frames, and what was there. */
      let live = [{ mm, base: A, pages: [0, 0, 0, 0] as (number | undefined)[], pins: [] as Int32Array[] }];
      for (const { kind, who, page, value } of steps) {
        const one = live[who % live.length]!;
        const at = one.base + page * PAGE;
        if (kind === 'fork' && live.length < 6) live.push({ mm: one.mm.fork() as AddressSpace, base: one.base, pages: [...one.pages], pins: [] });
        else if (kind === 'write' && one.pages[page] !== undefined) {
          expect(put(one.mm, at, value)).toBe(0);
          one.pages[page] = value;
        } else if (kind === 'end' && live.length > 1) {
          one.mm.exit();
          for (const out of one.pins) one.mm.unpin(out, 1);
          live = live.filter((each) => each !== one);
        } else if (kind === 'pin' && one.pages[page] !== undefined) {
          const out = new Int32Array(1);
          expect(one.mm.pin(at, 1, value % 2 === 0, out)).toBe(1);
          one.pins.push(out);
        } else if (kind === 'unmap') {
          one.mm.munmap(at, PAGE);
          one.pages[page] = undefined;
        } else if (kind === 'protect' && one.pages[page] !== undefined) {
          one.mm.mprotect(at, PAGE, Prot.READ);
          one.mm.mprotect(at, PAGE, RW);
        } else if (kind === 'move' && one.pages.every((held) => held !== undefined)) {
          const to = one.mm.mremap(one.base, 4 * PAGE, 4 * PAGE, Mremap.MAYMOVE | Mremap.FIXED, one.base + 0x100_0000);
          if (to > 0) one.base = to;
        }
      }
      for (const { mm: each, base, pages } of live)
        for (const [page, held] of pages.entries()) expect(get(each, base + page * PAGE)).toBe(held ?? -Errno.EFAULT);
      for (const { mm: each, pins } of live) {
        each.exit();
        for (const out of pins) each.unpin(out, 1);
      }
      expect(frames.used).toBe(used);
    }),
    { numRuns: 300 },
  );
});
