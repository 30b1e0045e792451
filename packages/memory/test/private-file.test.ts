/** Private mappings of files of memory, and files that are cut: mmap(2), MAP_PRIVATE; ftruncate(2); Linux, do_cow_fault and truncate_pagecache. */
import { DmaAccess } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressSpace, MemoryFile } from '../src/index.js';
import { machine } from './machine.js';

const RW = Prot.READ | Prot.WRITE;
const PAGE = 4096;
const A = 0x1000_0000;
const B = 0x2000_0000;
const PRIVATE = MapFlag.PRIVATE | MapFlag.FIXED;
const SHARED = MapFlag.SHARED | MapFlag.FIXED;

const world = (pages = 4) => {
  const { memory, frames } = machine(1024);
  const used = frames.used;
  const file = new MemoryFile({ memory, frames });
  file.resize(pages * PAGE);
  const mm = new AddressSpace({ memory, frames });
  return { memory, frames, used, file, mm };
};
const put = (mm: AddressSpace, at: number, value: number): number => mm.write(at, Uint8Array.of(value));
const get = (mm: AddressSpace, at: number): number => {
  const byte = new Uint8Array(1);
  return mm.read(at, byte) || byte[0]!;
};
const inFile = (file: MemoryFile, at: number): number => {
  const byte = new Uint8Array(1);
  return file.read(at, byte) === 1 ? byte[0]! : -1;
};

describe('a private mapping of a file', () => {
  test('shows the file until it writes, then a copy that nobody else sees; its devices are told of the new frame', () => {
    const { mm, file, frames } = world();
    file.write(PAGE, Uint8Array.of(7));
    expect(mm.mmap(A, 2 * PAGE, RW, PRIVATE, file, PAGE)).toBe(A);
    mm.mmap(B, 2 * PAGE, RW, SHARED, file, PAGE);
    expect([get(mm, A), get(mm, B), mm.frameOf(A) === mm.frameOf(B)]).toEqual([7, 7, true]);
    put(mm, B, 8);
    expect(get(mm, A)).toBe(8);
    const told: number[] = [];
    mm.subscribe({ invalidate: (start) => void told.push(start), release: () => {} });
    const before = frames.used;
    put(mm, A, 9);
    expect([get(mm, A), get(mm, B), inFile(file, PAGE), told, frames.used - before]).toEqual([9, 8, 8, [A], 1]);
    put(mm, B, 1);
    expect(get(mm, A)).toBe(9);
    // Its last byte was copied with the first.
    expect(mm.munmap(A, PAGE)).toBe(0);
    expect([frames.used - before, inFile(file, PAGE)]).toEqual([0, 1]);
  });
  test('a first write copies at once; a device that writes gets the copy, also by a pin that only reads', () => {
    const { mm, file } = world();
    file.write(0, Uint8Array.of(5));
    mm.mmap(A, 4 * PAGE, RW, PRIVATE, file, 0);
    expect(mm.handleFault(0, A, DmaAccess.write)).toBe(0);
    put(mm, A, 6);
    expect([get(mm, A), inFile(file, 0)]).toEqual([6, 5]);
    const out = new Int32Array(1);
    file.write(PAGE, Uint8Array.of(3));
    expect(mm.pin(A + PAGE, 1, false, out)).toBe(1);
    file.write(PAGE, Uint8Array.of(4));
    expect([get(mm, A + PAGE), mm.frameOf(A + PAGE) === out[0]]).toEqual([3, true]);
    put(mm, A + PAGE, 2);
    expect([mm.frameOf(A + PAGE) === out[0], inFile(file, PAGE)]).toEqual([true, 4]);
    mm.unpin(out, 1);
  });
  test('mprotect never lets it write the file', () => {
    const { mm, file } = world();
    file.write(0, Uint8Array.of(5));
    mm.mmap(A, PAGE, Prot.READ, PRIVATE, file, 0);
    expect([get(mm, A), put(mm, A, 1)]).toEqual([5, -Errno.EFAULT]);
    expect([mm.mprotect(A, PAGE, RW), put(mm, A, 1), get(mm, A), inFile(file, 0)]).toEqual([0, 0, 1, 5]);
  });
  test('a child shares the copies until one of both writes, and the file as before', () => {
    const { mm, file } = world();
    mm.mmap(A, 2 * PAGE, RW, PRIVATE, file, 0);
    put(mm, A, 1);
    get(mm, A + PAGE);
    const child = mm.fork() as AddressSpace;
    file.write(PAGE, Uint8Array.of(9));
    expect([get(child, A), get(child, A + PAGE)]).toEqual([1, 9]);
    put(child, A, 2);
    put(child, A + PAGE, 3);
    expect([get(mm, A), get(mm, A + PAGE), inFile(file, 0), inFile(file, PAGE)]).toEqual([1, 9, 0, 9]);
  });
});

describe('a file that is cut', () => {
  test('its pages are gone from every mapping, with the copies of them, and the devices are told before the frames are free', () => {
    const { mm, file, frames } = world();
    mm.mmap(A, 4 * PAGE, RW, PRIVATE, file, 0);
    mm.mmap(B, 4 * PAGE, RW, SHARED, file, 0);
    for (let page = 0; page < 4; page++) put(mm, B + page * PAGE, page + 1);
    put(mm, A + 3 * PAGE, 40);
    const before = frames.used;
    const told: [number, number][] = [];
    mm.subscribe({
      invalidate(start) {
        told.push([start, before - frames.used]);
      },
      release() {},
    });
    expect(file.resize(2 * PAGE)).toBe(0);
    expect(told.map(([start]) => start).sort((a, b) => a - b)).toEqual([A + 2 * PAGE, B + 2 * PAGE]);
    expect(told[0]![1]).toBe(0);
    expect(before - frames.used).toBe(3);
    for (const at of [A, B])
      expect([get(mm, at), get(mm, at + PAGE), get(mm, at + 2 * PAGE), mm.handleFault(0, at + 3 * PAGE, 0)]).toEqual([
        1,
        2,
        -Errno.EFAULT,
        -Errno.EIO,
      ]);
    // What comes back is new.
    file.resize(4 * PAGE);
    expect([get(mm, A + 3 * PAGE), get(mm, B + 3 * PAGE)]).toEqual([0, 0]);
  });
  test('the rest of its last page is zero', () => {
    const { mm, file } = world();
    mm.mmap(B, PAGE, RW, SHARED, file, 0);
    put(mm, B + 9, 1);
    put(mm, B + 10, 2);
    expect([file.resize(10), get(mm, B + 9), get(mm, B + 10), file.resize(PAGE), inFile(file, 10)]).toEqual([0, 1, 0, 0, 0]);
  });
  test('a page that is pinned stays with who pinned it', () => {
    const { mm, file, frames, memory } = world();
    const out = new Int32Array(1);
    file.write(0, Uint8Array.of(7));
    file.pin(0, 1, out);
    const before = frames.used;
    file.resize(0);
    const region = memory.regionOf(out[0]!)!;
    expect([frames.used, region.bytes[(out[0]! - region.firstFrame) * PAGE]]).toEqual([before, 7]);
    file.unpin(out, 1);
    expect(before - frames.used).toBe(1);
    mm.exit();
  });
});

test('random mappings, writes, cuts, forks and ends: every byte is that of the plain model, and nothing is left', () => {
  const FILE_PAGES = 6;
  const operation = fc.record({
    what: fc.constantFrom('put', 'put', 'put', 'get', 'get', 'fileWrite', 'resize', 'map', 'unmap', 'protect', 'fork', 'exit', 'pin'),
    who: fc.nat(3),
    page: fc.nat(FILE_PAGES + 1),
    pages: fc.integer({ min: 1, max: 3 }),
    value: fc.integer({ min: 1, max: 255 }),
    flag: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const { frames, used, file, mm: first } = world(FILE_PAGES);
      /** Of a process: what each page of its window is. */
      type Page = { kind: 'file' | 'private'; index: number; own: number | undefined; prot: number };
      interface Process {
        mm: AddressSpace;
        pages: Map<number, Page>;
      }
      const fileBytes = new Map<number, number>();
      let filePages = FILE_PAGES;
      const processes: Process[] = [{ mm: first, pages: new Map() }];
      const all = (): void => {
        for (const { mm, pages } of processes)
          for (let page = 0; page < FILE_PAGES + 2; page++) {
            const known = pages.get(page);
            const readable = known && known.prot & 7 && known.index < filePages;
            const want = readable ? (known.own ?? fileBytes.get(known.index) ?? 0) : -Errno.EFAULT;
            expect(get(mm, A + page * PAGE)).toBe(want);
          }
      };
      for (const { what, who, page, pages, value, flag } of operations) {
        const process = processes[who % processes.length]!;
        const { mm } = process;
        const known = process.pages.get(page);
        if (what === 'map') {
          mm.mmap(A + page * PAGE, pages * PAGE, RW, flag ? PRIVATE : SHARED, file, value % 3 ? page * PAGE : 0);
          for (let i = 0; i < pages; i++)
            process.pages.set(page + i, { kind: flag ? 'private' : 'file', index: (value % 3 ? page : 0) + i, own: undefined, prot: RW });
        } else if (what === 'unmap') {
          mm.munmap(A + page * PAGE, pages * PAGE);
          for (let i = 0; i < pages; i++) process.pages.delete(page + i);
        } else if (what === 'protect') {
          if (mm.mprotect(A + page * PAGE, PAGE, flag ? RW : Prot.READ) === 0) known!.prot = flag ? RW : Prot.READ;
        } else if (what === 'put') {
          const can = known && known.prot & Prot.WRITE && known.index < filePages;
          expect(put(mm, A + page * PAGE, value)).toBe(can ? 0 : -Errno.EFAULT);
          if (can && known.kind === 'private') known.own = value;
          else if (can) fileBytes.set(known.index, value);
        } else if (what === 'fileWrite') {
          file.write(page * PAGE, Uint8Array.of(value));
          fileBytes.set(page, value);
          filePages = Math.max(filePages, page + 1);
        } else if (what === 'resize') {
          file.resize(page * PAGE);
          filePages = page;
          for (const index of [...fileBytes.keys()]) if (index >= page) fileBytes.delete(index);
          for (const p of processes) for (const entry of p.pages.values()) if (entry.index >= page) entry.own = undefined;
        } else if (what === 'fork' && processes.length < 4) {
          const child = mm.fork();
          if (typeof child !== 'number') processes.push({ mm: child, pages: new Map([...process.pages].map(([k, v]) => [k, { ...v }])) });
        } else if (what === 'exit' && processes.length > 1) {
          mm.exit();
          processes.splice(processes.indexOf(process), 1);
        } else if (what === 'pin') {
          // What a device got stays what the process sees, until it is let go.
          const out = new Int32Array(1);
          const got = mm.pin(A + page * PAGE, 1, flag, out);
          if (got < 0) continue;
          expect(mm.frameOf(A + page * PAGE)).toBe(out[0]);
          if (known!.kind === 'private') known!.own ??= fileBytes.get(known!.index) ?? 0;
          mm.unpin(out, 1);
        }
      }
      all();
      for (const { mm } of processes) mm.exit();
      file.close();
      expect(frames.used).toBe(used);
    }),
    { numRuns: 400 },
  );
});
