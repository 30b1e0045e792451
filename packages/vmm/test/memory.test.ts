/** Guest memory: EPT on violation, what follows the host's mm, and exits. Intel SDM 3C, "EPT"; KVM, "mmu notifier". */

import { Signal } from '@siov/cpu';
import { hi, lo } from '@siov/layout';
import { MapFlag } from '@siov/layout/uapi';
import { EptEntry } from '@siov/layout/x86';
import { expect, test } from 'vitest';
import { Counter } from '../src/index.js';
import { bareVm, guestOf, RW, SHARED } from './machine.js';

const MiB = 2 ** 20;
const HUGETLB = MapFlag.HUGETLB;

function withGuest(options: { huge?: boolean; scatter?: number; bytes?: number; costs?: object } = {}) {
  const m = bareVm({
    frames: 8192,
    ...(options.scatter === undefined ? {} : { scatter: options.scatter }),
    ...(options.costs ? { costs: options.costs } : {}),
  });
  const bytes = options.bytes ?? 4 * MiB;
  const user = m.task.mmap(0, bytes, RW, SHARED | (options.huge ? HUGETLB : 0));
  expect(m.slot(0, 0, bytes, user)).toBe(0);
  return { ...m, user, bytes, guest: guestOf(m, m.vm) };
}
const at = (address: number): [number, number] => [hi(address), lo(address)];

test.each([
  ['pages of 4 KiB', {}],
  ['pages of 2 MiB', { huge: true }],
  ['scattered frames', { scatter: 7 }],
] as const)("a guest program's stores and loads reach the process's memory (%s)", (_how, options) => {
  const { guest, vm, task, user } = withGuest(options);
  const page = guest.task.mmap(0, 64 * 4096, RW, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
  for (let i = 0; i < 64; i++) guest.task.store32(...at(page + i * 4096), i * 3);
  for (let i = 0; i < 64; i++) expect(guest.task.load32(...at(page + i * 4096))).toBe(i * 3);
  // The host's process sees the same bytes at the guest's physical address.
  const frame = guest.task.mm.frameOf(page + 5 * 4096);
  expect(task.readStruct(user + frame * 4096, new Uint32Array(1))[0]).toBe(15);
  expect(vm.counters[Counter.eptViolations]).toBeGreaterThan(0);
  const { counters } = vm;
  if ('huge' in options) expect([counters[Counter.mapped4K], counters[Counter.mapped2M]! > 0]).toEqual([0, true]);
  else if ('scatter' in options) expect([counters[Counter.mapped4K]! > 64, counters[Counter.mapped2M]]).toEqual([true, 0]);
  expect(counters[Counter.mmioReads]! + counters[Counter.mmioWrites]!).toBe(0);
});

test('the guest kernel and the guest program share memory: regions are the host frames', () => {
  const { guest, memory, vm } = withGuest({ scatter: 3 });
  const page = guest.task.alloc(4096);
  guest.task.store32(...at(page), 0xabcd);
  const frame = guest.task.mm.frameOf(page);
  const region = guest.memory.regionOf(frame)!;
  expect(region.words[(frame - region.firstFrame) * 1024]).toBe(0xabcd);
  const hostFrame = vm.ept.lookup(frame);
  const host = memory.regionOf(hostFrame)!;
  expect(host.words[(hostFrame - host.firstFrame) * 1024]).toBe(0xabcd);
});

test('RAM is write-back, a mapped device frame is uncacheable and takes MOVDIR64B without an exit', () => {
  const m = withGuest();
  const stores: number[] = [];
  m.memory.addMmio(0x9_0000, 1, { read: () => 0x77, write: () => {}, movdir64b: (_offset, words, i) => void stores.push(words[i]!) });
  const portal = m.task.mm.mmap(0, 4096, RW, MapFlag.SHARED, { map: (area) => (area.insert(0, 0x9_0000), 0) });
  expect(m.slot(1, 0xe100_0000, 4096, portal)).toBe(0);
  let exits = 0;
  m.vm.vcpus.get(0)!.onMmio = () => ++exits;
  const guestPortal = m.guest.mapPage(0xe1000);
  const source = m.guest.task.alloc(4096);
  for (let i = 1; i <= 3; i++) {
    m.guest.task.store32(...at(source), i);
    m.guest.task.movdir64b(...at(guestPortal), ...at(source));
  }
  expect(stores).toEqual([1, 2, 3]);
  expect(exits).toBe(0);
  const typeOf = (guestFrame: number): number => {
    const { root } = m.vm.ept;
    let table = root;
    for (let level = 4; ; level--) {
      const i = (table - m.ram.firstFrame) * 1024 + ((guestFrame >>> (9 * (level - 1))) & 511) * 2;
      if (level === 1 || EptEntry.get.pageSize(m.ram.words, i)) return EptEntry.get.memoryType(m.ram.words, i);
      table = EptEntry.get.address(m.ram.words, i) / 4096;
    }
  };
  expect(typeOf(0xe1000)).toBe(EptEntry.is.memoryType.uncacheable);
  expect(typeOf(m.guest.task.mm.frameOf(source))).toBe(EptEntry.is.memoryType.writeBack);
  // The guest's kernel reaches it without an exit too.
  expect(m.vm.ioremap(0xe100_0000).read(0, 4)).toBe(0x77);
  expect(exits).toBe(0);
});

test('an address without memory exits to user space with address, width and value', () => {
  const m = withGuest({ costs: { trap: 1500 } });
  const seen: unknown[] = [];
  m.vm.vcpus.get(0)!.onMmio = (address, width, write, value, packet) => {
    seen.push([address, width, write, value, width === 64 ? packet[0] : undefined]);
    return write ? 0 : 0xffff_fffe;
  };
  const page = m.guest.mapPage(0xe1000);
  const source = m.guest.task.alloc(4096);
  m.guest.task.store32(...at(source), 99);
  const start = m.clock.now;
  expect(m.guest.task.load(page + 8, 4)).toBe(0xffff_fffe);
  expect(m.guest.task.load(page + 6, 2)).toBe(0xfffe);
  expect(m.guest.task.load(page + 3, 1)).toBe(0xfe);
  m.guest.task.store(page + 12, 4, 0x8000_0001);
  m.guest.task.movdir64b(...at(page + 64), ...at(source));
  expect(m.clock.now - start).toBe(5 * 1500);
  expect(seen).toEqual([
    [0xe100_0008, 4, false, 0, undefined],
    [0xe100_0006, 2, false, 0, undefined],
    [0xe100_0003, 1, false, 0, undefined],
    [0xe100_000c, 4, true, 0x8000_0001, undefined],
    [0xe100_0040, 64, true, 0, 99],
  ]);
  const { counters } = m.vm;
  expect([counters[Counter.mmioReads], counters[Counter.mmioWrites], counters[Counter.mmioPackets]]).toEqual([3, 1, 1]);
  // The guest's kernel takes the same way.
  const registers = m.vm.ioremap(0xe100_0000);
  expect(registers.read(4, 4)).toBe(0xffff_fffe);
  registers.write(20, 2, 7);
  expect(seen.slice(5)).toEqual([
    [0xe100_0004, 4, false, 0, undefined],
    [0xe100_0014, 2, true, 7, undefined],
  ]);
});

test('with nobody in user space reads are ones, writes are lost, ENQCMD is told to retry', () => {
  const m = withGuest();
  const page = m.guest.mapPage(0xe1000);
  expect(m.guest.task.load(page, 4)).toBe(0xffff_ffff);
  expect(m.guest.task.load(page, 1)).toBe(0xff);
  m.guest.task.store(page, 4, 1);
  const source = m.guest.task.alloc(4096);
  (m.guest.task.context as { pasidMsr: number }).pasidMsr = 0x8000_0005 | 0;
  m.vm.pasids.set(5, 50);
  expect(m.guest.task.enqcmd(...at(page), ...at(source))).toBe(1);
});

test.each([
  ['munmap', (m: ReturnType<typeof withGuest>, address: number) => m.task.munmap(address, 4096)],
  ['the deletion of the slot', (m: ReturnType<typeof withGuest>) => m.slot(0, 0, 0, 0)],
  ["the process's end", (m: ReturnType<typeof withGuest>) => m.task.exit(0)],
])('%s takes the EPT entry away: the next access does not see the old frame', (_how, take) => {
  const m = withGuest();
  const page = m.guest.task.alloc(4096);
  m.guest.task.store32(...at(page), 1);
  const frame = m.guest.task.mm.frameOf(page);
  const region = m.guest.memory.regionOf(frame)!;
  expect(m.vm.ept.lookup(frame)).toBeGreaterThan(0);
  take(m, m.user + frame * 4096);
  expect(m.vm.ept.lookup(frame)).toBe(-1);
  // A data page reads as ones; a page table that went stops the program.
  let read: unknown;
  try {
    read = m.guest.task.load32(...at(page));
  } catch (error) {
    read = error;
  }
  expect(read === 0xffff_ffff || read instanceof Signal).toBe(true);
  // Neither does the guest's kernel.
  expect([region.frames, region.words.length]).toEqual([0, 0]);
  expect(m.guest.memory.regionOf(frame)).toBe(undefined);
});

test('a page that comes back is found again: new frame, same guest address', () => {
  const m = withGuest();
  const page = m.guest.task.alloc(4096);
  m.guest.task.store32(...at(page), 1);
  const user = m.user + m.guest.task.mm.frameOf(page) * 4096;
  m.task.munmap(user, 4096);
  expect(m.task.mmap(user, 4096, RW, SHARED | MapFlag.FIXED)).toBe(user);
  expect(m.guest.task.load32(...at(page))).toBe(0);
  m.guest.task.store32(...at(page), 2);
  expect(m.task.readStruct(user, new Uint32Array(1))[0]).toBe(2);
});

test('part of a 2 MiB entry that goes takes the whole entry; the rest is mapped again', () => {
  const m = withGuest();
  // Contiguous frames, so that the block is shown by one entry.
  const page = m.guest.task.alloc(4096);
  m.guest.task.store32(...at(page), 5);
  const frame = m.guest.task.mm.frameOf(page);
  const other = frame ^ 1;
  m.task.munmap(m.user + other * 4096, 4096);
  expect(m.vm.ept.lookup(other)).toBe(-1);
  expect(m.guest.task.load32(...at(page))).toBe(5);
  expect(m.vm.ept.lookup(frame)).toBeGreaterThan(0);
  expect(m.vm.ept.lookup(other)).toBe(-1);
});

test('a device that takes its frames back: ones instead of its registers, no exit to user space', () => {
  const m = withGuest();
  m.memory.addMmio(0x9_0000, 1, { read: () => 0x77, write: () => {} });
  let zap = () => {};
  const portal = m.task.mm.mmap(0, 4096, RW, MapFlag.SHARED, { map: (area) => (area.insert(0, 0x9_0000), (zap = () => area.zap()), 0) });
  m.slot(1, 0xe100_0000, 4096, portal);
  const page = m.guest.mapPage(0xe1000);
  expect(m.guest.task.load(page, 4)).toBe(0x77);
  zap();
  expect(m.guest.task.load(page, 4)).toBe(0xffff_ffff);
  expect(m.vm.counters[Counter.failed]).toBe(1);
  expect(m.vm.counters[Counter.mmioReads]).toBe(0);
});

test('a read-only slot is read without an exit, its writes exit', () => {
  const m = withGuest();
  const rom = m.task.alloc(4096);
  m.task.writeStruct(rom, Uint32Array.of(0x5555));
  expect(m.slot(1, 0xf000_0000, 4096, rom, 2)).toBe(0);
  const writes: number[] = [];
  m.vm.vcpus.get(0)!.onMmio = (_address, _width, _write, value) => (writes.push(value), 0);
  const page = m.guest.mapPage(0xf_0000);
  expect(m.guest.task.load(page, 4)).toBe(0x5555);
  m.guest.task.store(page, 4, 3);
  expect(writes).toEqual([3]);
  expect(m.guest.task.load(page, 4)).toBe(0x5555);
});

test("a guest's ENQCMD carries the host's PASID; one without a translation faults, after one exit", () => {
  const m = withGuest();
  const got: number[] = [];
  m.memory.addMmio(0x9_0000, 1, { read: () => 0, write: () => {}, enqcmd: (_offset, words, i) => (got.push(words[i]!), 0) });
  const portal = m.task.mm.mmap(0, 4096, RW, MapFlag.SHARED, { map: (area) => (area.insert(0, 0x9_0000), 0) });
  m.slot(1, 0xe100_0000, 4096, portal);
  const page = m.guest.mapPage(0xe1000);
  const source = m.guest.task.alloc(4096);
  const context = m.guest.task.context as { pasidMsr: number };
  const enqcmd = (pasid: number) => {
    context.pasidMsr = 0x8000_0000 | pasid | 0;
    return m.guest.task.enqcmd(...at(page), ...at(source));
  };
  const asked: number[] = [];
  m.vm.resolvePasid = (guest) => (asked.push(guest), guest === 7 || guest === 0x8_0007 ? guest + 1000 : -1);
  expect(enqcmd(7)).toBe(0);
  expect(enqcmd(7)).toBe(0);
  expect(enqcmd(0x8_0007)).toBe(0);
  expect(got).toEqual([1007, 1007, 0x8_0007 + 1000]);
  expect(() => enqcmd(8)).toThrow(Signal);
  expect(asked).toEqual([7, 0x8_0007, 8]);
  m.vm.pasids.clear(7);
  m.vm.resolvePasid = () => -1;
  expect(() => enqcmd(7)).toThrow(Signal);
  expect(m.vm.ioremap(0xe100_0000).enqcmd!(0, new Uint32Array(16).fill(7, 0, 1), 0)).toBe(1);
  expect(m.vm.ioremap(0xe100_0000).enqcmd!(0, new Uint32Array(16).fill(0x8_0007, 0, 1), 0)).toBe(0);
});
