import { hi, lo } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type AddressSpace, Counter, USER_END, type VmArea } from '../src/index.js';
import { ANONYMOUS, FIXED, HUGETLB, machine, POPULATE, RW, SHARED_ANONYMOUS } from './machine.js';

const BASE = 0x10_0000_0000;
const PAGES = 24;

test('mmap, munmap, mprotect and accesses agree with a plain map of pages', () => {
  const action = fc.record({
    kind: fc.constantFrom('map', 'map', 'unmap', 'protect', 'write', 'write', 'read', 'fork'),
    page: fc.integer({ min: 0, max: PAGES - 1 }),
    pages: fc.integer({ min: 1, max: 8 }),
    prot: fc.constantFrom(0, 1, 3, 3, 5),
    value: fc.integer({ min: 1, max: 255 }),
    shared: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const { mm: first, frames } = machine(512);
      let mm = first;
      const model = new Map<number, { prot: number; value: number }>();
      const one = new Uint8Array(1);
      for (const { kind, page, pages, prot, value, shared } of actions) {
        const address = BASE + page * 4096;
        const covered = Array.from({ length: pages }, (_, i) => page + i);
        const known = model.get(page);
        if (kind === 'map') {
          expect(mm.mmap(address, pages * 4096, prot, (shared ? SHARED_ANONYMOUS : ANONYMOUS) | FIXED)).toBe(address);
          for (const each of covered) model.set(each, { prot, value: 0 });
        } else if (kind === 'unmap') {
          expect(mm.munmap(address, pages * 4096)).toBe(0);
          for (const each of covered) model.delete(each);
        } else if (kind === 'protect') {
          const whole = covered.every((each) => model.has(each));
          expect(mm.mprotect(address, pages * 4096, prot)).toBe(whole ? 0 : -Errno.ENOMEM);
          if (whole) for (const each of covered) model.get(each)!.prot = prot;
        } else if (kind === 'write') {
          const allowed = known !== undefined && (known.prot & 2) !== 0;
          expect(mm.write(address + 5, Uint8Array.of(value))).toBe(allowed ? 0 : -Errno.EFAULT);
          if (allowed) known.value = value;
        } else if (kind === 'read') {
          const allowed = known !== undefined && known.prot !== 0;
          expect(mm.read(address + 5, one)).toBe(allowed ? 0 : -Errno.EFAULT);
          if (allowed) expect(one[0]).toBe(known.value);
        } else {
          const child = mm.fork() as AddressSpace;
          mm.exit();
          mm = child;
        }
      }
      for (const [page, { prot, value }] of model) {
        if (!prot) continue;
        expect(mm.read(BASE + page * 4096 + 5, one)).toBe(0);
        expect(one[0]).toBe(value);
      }
      mm.exit();
      expect(frames.used).toBe(0);
    }),
    { numRuns: 120 },
  );
});

test('a child of fork has its own private pages and the same shared ones', () => {
  const { mm, frames, byteAt } = machine();
  const own = mm.mmap(0, 4096, RW, ANONYMOUS);
  const common = mm.mmap(0, 8192, RW, SHARED_ANONYMOUS);
  mm.write(own, Uint8Array.of(1));
  const child = mm.fork() as AddressSpace;
  child.write(own, Uint8Array.of(2));
  child.write(common + 4096, Uint8Array.of(3));
  const seen = new Uint8Array(1);
  expect(mm.read(common + 4096, seen)).toBe(0);
  expect([byteAt(own), seen[0]]).toEqual([1, 3]);
  mm.exit();
  expect(child.read(common + 4096, seen)).toBe(0);
  expect(seen[0]).toBe(3);
  child.exit();
  expect(frames.used).toBe(0);
});

test('fork without memory for the page tables is ENOMEM and leaves nothing', () => {
  const { mm, frames } = machine(14);
  const address = mm.mmap(0, 8 * 4096, RW, ANONYMOUS | POPULATE);
  expect(address).toBeGreaterThan(0);
  const { used } = frames;
  expect(mm.fork()).toBe(-Errno.ENOMEM);
  expect(frames.used).toBe(used);
});

test('SDM 4-level paging: the tables hold what mmap and mprotect said', () => {
  const { mm, ram, memory } = machine();
  const address = mm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  const entry = (): [Uint32Array, number] => {
    let frame = mm.rootFrame;
    for (let size = 2 ** 39; ; size /= 512) {
      const at = (frame - ram.firstFrame) * 1024 + (Math.floor(address / size) % 512) * 2;
      if (size === 4096) return [memory.regionOf(frame)!.words, at];
      expect(PageEntry.get.present(ram.words, at) & PageEntry.get.user(ram.words, at) & PageEntry.get.write(ram.words, at)).toBe(1);
      frame = PageEntry.get.address(ram.words, at) / 4096;
    }
  };
  expect(PageEntry.json(...entry())).toMatchObject({
    present: 1,
    write: 1,
    user: 1,
    pageSize: 0,
    executeDisable: 1,
    address: mm.frameOf(address) * 4096,
  });
  mm.mprotect(address, 4096, 5);
  expect(PageEntry.json(...entry())).toMatchObject({ present: 1, write: 0, user: 1, executeDisable: 0 });
  mm.mprotect(address, 4096, 0);
  expect(PageEntry.get.present(...entry())).toBe(0);
});

test('mmap places areas top-down below the end of user addresses, and takes free hints', () => {
  const { mm } = machine();
  const first = mm.mmap(0, 8192, RW, ANONYMOUS);
  expect(first).toBe(USER_END - 8192);
  const second = mm.mmap(0, 4096, RW, ANONYMOUS);
  expect(second).toBe(first - 4096);
  mm.munmap(first, 8192);
  expect(mm.mmap(0, 4096, RW, ANONYMOUS)).toBe(USER_END - 4096);
  expect(mm.mmap(0x123_4567, 4096, RW, ANONYMOUS)).toBe(0x123_5000);
  expect(mm.mmap(0x123_5000, 4096, RW, ANONYMOUS)).not.toBe(0x123_5000);
});

const E = Errno;
test.each([
  ['a length of 0', [0, 0, RW, ANONYMOUS], E.EINVAL],
  ['neither shared nor private', [0, 4096, RW, 0x20], E.EINVAL],
  ['a fixed address within a page', [BASE + 1, 4096, RW, ANONYMOUS | FIXED], E.EINVAL],
  ['a fixed address below vm.mmap_min_addr', [0, 4096, RW, ANONYMOUS | FIXED], E.EPERM],
  ['a fixed address beyond the user half', [USER_END, 4096, RW, ANONYMOUS | FIXED], E.ENOMEM],
  ['more than the address space', [0, 2 ** 47, RW, ANONYMOUS], E.ENOMEM],
  ['what is no number of bytes', [0, Number.NaN, RW, ANONYMOUS], E.EINVAL],
  ['a fixed 2 MiB page at another multiple', [BASE + 4096, 4096, RW, ANONYMOUS | HUGETLB | FIXED], E.EINVAL],
] as const)('mmap(2): %s is refused', (_rule, [address, length, prot, flags], errno) => {
  expect(machine().mm.mmap(address, length, prot, flags)).toBe(-errno);
});

test('munmap(2) and mprotect(2): unaligned and empty ranges, holes', () => {
  const { mm } = machine();
  const at = mm.mmap(0, 3 * 4096, RW, ANONYMOUS);
  expect([mm.munmap(at + 1, 4096), mm.munmap(at, 0), mm.munmap(BASE, 4096), mm.munmap(USER_END, 4096)]).toEqual([-E.EINVAL, -E.EINVAL, 0, -E.EINVAL]);
  mm.munmap(at + 4096, 4096);
  expect([mm.mprotect(at, 3 * 4096, 1), mm.mprotect(at + 1, 4096, 1), mm.mprotect(at, 0, 1), mm.mprotect(at, 4096, 8)]).toEqual([
    -E.ENOMEM,
    -E.EINVAL,
    0,
    -E.EINVAL,
  ]);
});

test('a fault says why it is refused', () => {
  const { mm, fault } = machine(8);
  const readOnly = mm.mmap(0, 4096, 1, ANONYMOUS);
  expect([fault(readOnly), fault(readOnly, 1), fault(readOnly, 4), fault(BASE)]).toEqual([0, -E.EFAULT, -E.EFAULT, -E.EFAULT]);
  expect(mm.handleFault(0xffff_8000 | 0, 0, 0)).toBe(-E.EFAULT);
  const large = mm.mmap(0, 64 * 4096, RW, ANONYMOUS);
  const results = Array.from({ length: 8 }, (_, i) => fault(large + i * 4096, 1));
  expect(results.at(-1)).toBe(-E.ENOMEM);
  expect(mm.mmap(0, 64 * 4096, RW, ANONYMOUS | POPULATE)).toBe(-E.ENOMEM);
  mm.munmap(large, 64 * 4096);
  expect(fault(mm.mmap(0, 4096, RW, ANONYMOUS), 1)).toBe(0);
});

test('a 2 MiB page is one aligned leaf, unmapped only whole', () => {
  const { mm, frames, memory } = machine(2048);
  const start = frames.used;
  const at = mm.mmap(0, 4096, RW, ANONYMOUS | HUGETLB);
  expect(at % 0x20_0000).toBe(0);
  expect(mm.write(at + 0x12_3456, Uint8Array.of(9))).toBe(0);
  const frame = mm.frameOf(at);
  expect([frame % 512, mm.frameOf(at + 0x12_3456)]).toEqual([0, frame + 0x123]);
  const region = memory.regionOf(frame)!;
  expect(region.bytes[(frame - region.firstFrame) * 4096 + 0x12_3456]).toBe(9);
  expect([mm.munmap(at, 4096), mm.mprotect(at, 4096, 1)]).toEqual([-E.EINVAL, -E.EINVAL]);
  const pinned = new Int32Array(2);
  expect(mm.pin(at + 0x12_3000, 2, true, pinned)).toBe(2);
  expect(mm.munmap(at, 0x20_0000)).toBe(0);
  expect(frames.used - start).toBeGreaterThanOrEqual(512);
  mm.unpin(pinned, 2);
  mm.exit();
  expect(frames.used).toBe(0);
});

test('a pinned frame outlives munmap and exit until its last unpin', () => {
  const { mm, frames } = machine();
  const at = mm.mmap(0, 2 * 4096, RW, ANONYMOUS);
  const one = new Int32Array(2);
  const two = new Int32Array(2);
  expect([mm.pin(at, 2, true, one), mm.pin(at, 2, false, two)]).toEqual([2, 2]);
  expect(one).toEqual(two);
  mm.munmap(at, 4096);
  mm.exit();
  expect(frames.used).toBe(2);
  mm.unpin(one, 2);
  expect(frames.used).toBe(2);
  mm.unpin(two, 2);
  expect(frames.used).toBe(0);
  expect(() => mm.unpin(two, 1)).toThrow(/pinned/);
});

test('a pin that fails pins nothing', () => {
  const { mm, frames } = machine();
  const at = mm.mmap(0, 4096, RW, ANONYMOUS);
  const out = new Int32Array(4);
  expect(mm.pin(at, 2, true, out)).toBe(-E.EFAULT);
  mm.exit();
  expect(frames.used).toBe(0);
  expect(mm.pin(at, 1, false, out)).toBe(-E.EFAULT);
});

test('notifiers and the TLB hear of unmaps and lost rights before the frames are free, and of nothing after release', () => {
  const told: string[] = [];
  const world = machine(64, { flush: (root, page, pages) => told.push(`flush ${root === world.mm.rootFrame} ${page * 4096 - at} ${pages}`) });
  const { mm, frames } = world;
  const at = mm.mmap(0, 4 * 4096, RW, ANONYMOUS | POPULATE);
  let usedThen = 0;
  mm.subscribe({
    invalidate(start, end) {
      usedThen = frames.used;
      told.push(`invalidate ${start - at} ${end - at} ${mm.frameOf(start)}`);
    },
    release: () => told.push('release'),
  });
  const off = mm.subscribe({ invalidate: () => told.push('never'), release() {} });
  off();
  const before = frames.used;
  mm.munmap(at, 4096);
  expect([usedThen, frames.used]).toEqual([before, before - 1]);
  mm.mprotect(at + 4096, 4096, 1);
  expect(told).toEqual(['invalidate 0 4096 -1', 'flush true 0 1', `invalidate 4096 8192 ${mm.frameOf(at + 4096)}`, 'flush true 4096 1']);
  told.length = 0;
  mm.exit();
  expect(told[0]).toBe('release');
  expect(told.filter((line) => !line.startsWith('flush true')).length).toBe(1);
  expect([mm.rootFrame, mm.mmap(0, 4096, RW, ANONYMOUS), frames.used]).toEqual([-1, -E.ENOMEM, 0]);
});

function fileArea() {
  const world = machine();
  const mmio = world.memory.addMmio(0x9000, 4, { read: () => 0, write() {} });
  let area!: VmArea;
  const log: string[] = [];
  const address = world.mm.mmap(
    0,
    3 * 4096,
    RW,
    1,
    {
      map(given) {
        area = given;
        area.insert(0, mmio.firstFrame);
        area.insert(1, mmio.firstFrame + 1);
        area.onClose = () => log.push('closed');
        return 0;
      },
    },
    0x2000,
  );
  return { ...world, mmio, area, address, log };
}

test('a device area shows the frames its driver inserted; others, and all after zap, are SIGBUS', () => {
  const { mm, fault, area, address, mmio } = fileArea();
  expect(area).toMatchObject({ start: address, length: 3 * 4096, offset: 0x2000, prot: 3, flags: 1 });
  expect([mm.frameOf(address + 4096), fault(address, 1), fault(address + 8192)]).toEqual([mmio.firstFrame + 1, 0, -E.EIO]);
  expect(mm.pin(address, 1, true, new Int32Array(1))).toBe(-E.EFAULT);
  expect(mm.read(address, new Uint8Array(4))).toBe(-E.EFAULT);
  const heard: number[] = [];
  mm.subscribe({ invalidate: (start, end) => heard.push(start - address, end - address), release() {} });
  area.zap();
  expect([mm.frameOf(address), fault(address), ...heard]).toEqual([-1, -E.EIO, 0, 3 * 4096]);
  area.onFault = (index) => {
    area.insert(index, mmio.firstFrame + index);
    return 0;
  };
  expect([fault(address + 8192), mm.frameOf(address + 8192)]).toEqual([0, mmio.firstFrame + 2]);
});

test('a device area that is cut stays one to its driver, and closes with its last piece', () => {
  const { mm, area, address, log, frames, mmio } = fileArea();
  mm.munmap(address + 4096, 4096);
  expect(log).toEqual([]);
  area.insert(2, mmio.firstFrame + 3);
  area.insert(1, mmio.firstFrame);
  expect([mm.frameOf(address + 8192), mm.frameOf(address + 4096)]).toEqual([mmio.firstFrame + 3, -1]);
  area.zap();
  expect([mm.frameOf(address), mm.frameOf(address + 8192)]).toEqual([-1, -1]);
  mm.munmap(address, 4096);
  expect(log).toEqual([]);
  mm.exit();
  expect([log, frames.used]).toEqual([['closed'], 0]);
});

test('a forked child has the device area unless dontCopy; zap reaches both', () => {
  const { mm, area, address, log, mmio } = fileArea();
  const child = mm.fork() as AddressSpace;
  expect(child.handleFault(hi(address), lo(address), 0)).toBe(0);
  expect(child.frameOf(address)).toBe(mmio.firstFrame);
  area.zap();
  expect([mm.frameOf(address), child.frameOf(address)]).toEqual([-1, -1]);
  mm.exit();
  expect(log).toEqual([]);
  child.exit();
  expect(log).toEqual(['closed']);
  const other = fileArea();
  other.area.dontCopy = true;
  const alone = other.mm.fork() as AddressSpace;
  expect(alone.handleFault(hi(other.address), lo(other.address), 0)).toBe(-E.EFAULT);
});

test('a backing that refuses gives mmap its errno and leaves no area', () => {
  const { mm, fault } = machine();
  expect(mm.mmap(BASE, 4096, RW, 1 | FIXED, { map: () => -E.EBUSY })).toBe(-E.EBUSY);
  expect(fault(BASE)).toBe(-E.EFAULT);
});

test('mprotect does not exceed the rights of the file', () => {
  const { mm, area, address } = fileArea();
  area.maxProt = 1;
  expect([mm.mprotect(address, 4096, 3), mm.mprotect(address, 4096, 1)]).toEqual([-E.EACCES, 0]);
});

test('costs are spent on the clock, events counted', () => {
  let spent = 0;
  const { mm } = machine(64, { clock: { spend: (ns) => (spent += ns) }, costs: { pageFault: 100, pin: 7, unpin: 3 } });
  const at = mm.mmap(0, 4 * 4096, RW, ANONYMOUS);
  const out = new Int32Array(4);
  mm.pin(at, 4, true, out);
  mm.unpin(out, 4);
  expect(spent).toBe(4 * 110);
  expect([mm.counters[Counter.pageFaults], mm.counters[Counter.pins], mm.counters[Counter.framesMapped]]).toEqual([4, 4, 4]);
});

test('garbage arguments never throw', () => {
  const wild = fc.oneof(fc.double(), fc.integer(), fc.maxSafeInteger(), fc.constantFrom(-1, 2 ** 47, 4096, USER_END));
  fc.assert(
    fc.property(wild, wild, fc.integer(), fc.integer(), fc.integer(), (a, b, prot, flags, word) => {
      const { mm } = machine(40);
      // Populating what could be terabytes is the one thing that takes long: it ends when memory does.
      const results = [mm.mmap(a, b, prot, flags & ~HUGETLB), mm.munmap(a, b), mm.mprotect(a, b, prot), mm.handleFault(word, prot, flags & 5)];
      results.push(mm.pin(a, b, true, new Int32Array(4)), mm.read(a, new Uint8Array(9)), mm.write(b, new Uint8Array(9)), mm.frameOf(a));
      for (const result of results) expect(Number.isSafeInteger(result)).toBe(true);
    }),
  );
});
