import { hi, lo } from '@siov/layout';
import { EptEntry, PasidDirectoryEntry, PasidTranslationEntry } from '@siov/layout/x86';
import { expect, test } from 'vitest';
import { Counter, ExitReason, Signal } from '../src/index.js';
import { ANONYMOUS, contextOf, guestMachine, POPULATE, RW } from './machine.js';

type ExitArguments = [reason: number, gpaFrame: number, offset: number, width: number, write: boolean, value: number];

test('EPT: guest tables and data are reached through it, 24 reads for 4 levels over 4', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot } = world;
  world.mapAll();
  const at = guestMm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  guestMm.write(at, Uint8Array.of(1, 2, 3, 4));
  const context = contextOf(guestMm, { eptRoot });
  // The kernel's write left the leaf accessed and dirty; the upper tables get their accessed flags (one more walk each) with the first access.
  cpu.load(context, hi(at), lo(at), 4);
  cpu.flushAll();
  const before = cpu.counters[Counter.walkReads]!;
  expect(cpu.load(context, hi(at), lo(at), 4)).toBe(0x0403_0201);
  expect(cpu.counters[Counter.walkReads]! - before).toBe(24);
  cpu.store(context, hi(at), lo(at), 4, 99);
  const back = new Uint8Array(4);
  guestMm.read(at, back);
  expect(back[0]).toBe(99);
});

test('EPT: a violation of table or data exits, and the access goes on where the handler mapped the frame', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot, FIRST, block, map } = world;
  const at = guestMm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  const dataFrame = guestMm.frameOf(at);
  const exits: ExitArguments[] = [];
  const context = contextOf(guestMm, {
    eptRoot,
    exit(...exit) {
      exits.push(exit);
      map(exit[1], block + exit[1] - FIRST, exit[4] ? 7 : 5);
      return 0;
    },
  });
  cpu.store(context, hi(at), lo(at) | 8, 4, 0x1234);
  expect(cpu.load(context, hi(at), lo(at) | 8, 4)).toBe(0x1234);
  // Four tables, each first read and then written for its accessed flag, and the data.
  const frames = exits.map(([, frame]) => frame);
  expect(new Set(frames).size).toBe(5);
  expect(exits.at(-1)).toEqual([ExitReason.eptViolation, dataFrame, (at + 8) % 4096, 4, true, 0x1234]);
  expect(cpu.counters[Counter.exits]).toBe(exits.length);
});

test('EPT: what stays not present is emulated: reads have the answer of the exit', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot } = world;
  world.mapAll();
  const GUEST_BAR = 0x4_0000;
  const at = guestMm.mmap(0, 4096, RW, 1, { map: (area) => (area.insert(0, GUEST_BAR), 0) });
  const exits: ExitArguments[] = [];
  let packet: number[] = [];
  const context = contextOf(guestMm, {
    eptRoot,
    pasidMsr: 0x8000_0003 | 0,
    exit(...exit) {
      exits.push(exit);
      if (exit[3] === 64) {
        packet = [...cpu.packet];
        cpu.packet.fill(0);
      }
      return exit[4] ? 1 : 0xdead_beef;
    },
  });
  expect(cpu.load(context, hi(at), lo(at) | 12, 4)).toBe(0xdead_beef);
  cpu.store(context, hi(at), lo(at) | 2, 2, 7);
  const source = guestMm.mmap(0, 4096, RW, ANONYMOUS);
  guestMm.write(source, Uint8Array.of(0, 0, 0, 0, 5));
  cpu.movdir64b(context, hi(at), lo(at) | 64, hi(source), lo(source));
  expect(packet.slice(0, 2)).toEqual([0, 5]);
  expect(cpu.enqcmd(context, hi(at), lo(at) | 128, hi(source), lo(source))).toBe(1);
  expect(packet.slice(0, 2)).toEqual([3, 5]);
  const v = ExitReason.eptViolation;
  expect(exits).toEqual([
    [v, GUEST_BAR, 12, 4, false, 0],
    [v, GUEST_BAR, 2, 2, true, 7],
    [v, GUEST_BAR, 64, 64, true, 0],
    [v, GUEST_BAR, 128, 64, true, 1],
  ]);
  expect(() => cpu.words(context, hi(at), lo(at), 0)).toThrow(Signal);
});

test('EPT: a device that it maps is reached without an exit', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot, memory, map } = world;
  world.mapAll();
  const seen: string[] = [];
  memory.addMmio(0x9_0000, 1, {
    read: () => 0,
    write() {},
    enqcmd: (offset, words) => (seen.push(`${offset} ${words[0]}`), 0),
  });
  map(0x4_0000, 0x9_0000);
  const at = guestMm.mmap(0, 4096, RW, 1, { map: (area) => (area.insert(0, 0x4_0000), 0) });
  const source = guestMm.mmap(0, 4096, RW, ANONYMOUS);
  const context = contextOf(guestMm, { eptRoot, pasidMsr: 0x8000_0042 | 0 });
  expect(cpu.enqcmd(context, hi(at), lo(at) | 192, hi(source), lo(source))).toBe(0);
  expect([seen, cpu.counters[Counter.exits]]).toEqual([[`192 ${0x42}`], 0]);
});

test('EPT: a 2 MiB leaf maps its 512 frames', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot, host, FIRST, size } = world;
  // Guest memory begins at frame 0x10 of a block that is 2 MiB aligned: show it by small pages, and the block itself as large page at 0x200.
  world.mapAll();
  world.map(0x200, world.block, 7, 2);
  const at = guestMm.mmap(0, 4096, RW, 1, { map: (area) => (area.insert(0, 0x200 + 5), 0) });
  host.ram.words[(world.block + 5 - host.ram.firstFrame) * 1024 + 1] = 0x55;
  expect(cpu.load(contextOf(guestMm, { eptRoot }), hi(at), lo(at) | 4, 4)).toBe(0x55);
  expect(FIRST + size).toBeGreaterThan(0x200);
});

test('EPT: rights of both stages must allow; the dirty flag follows writes', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot, map, block, FIRST, ram } = world;
  world.mapAll();
  const at = guestMm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  const frame = guestMm.frameOf(at);
  const entry = map(frame, block + frame - FIRST, 5);
  const writes: number[] = [];
  const context = contextOf(guestMm, { eptRoot, exit: (_reason, gpa, _offset, _width, _write, value) => (writes.push(gpa, value), 0) });
  expect(cpu.load(context, hi(at), lo(at), 4)).toBe(0);
  cpu.store(context, hi(at), lo(at), 4, 5);
  expect([writes, cpu.load(context, hi(at), lo(at), 4)]).toEqual([[frame, 5], 0]);
  expect([EptEntry.get.accessed(ram.words, entry), EptEntry.get.dirty(ram.words, entry)]).toEqual([1, 0]);
  map(frame, block + frame - FIRST, 7);
  cpu.flushEpt(eptRoot);
  cpu.load(context, hi(at), lo(at), 4);
  expect(EptEntry.get.dirty(ram.words, entry)).toBe(0);
  cpu.store(context, hi(at), lo(at), 4, 6);
  expect([EptEntry.get.dirty(ram.words, entry), cpu.load(context, hi(at), lo(at), 4)]).toEqual([1, 6]);
});

test('EPT: guests with the same root frame do not share translations', () => {
  const one = guestMachine(64);
  one.mapAll();
  const at = one.guestMm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  one.guestMm.write(at, Uint8Array.of(1));
  // A second EPT over copies of the guest's frames.
  const copy = one.frames.alloc(6);
  const words = (frame: number) => (frame - one.ram.firstFrame) * 1024;
  one.ram.words.copyWithin(words(copy), words(one.block), words(one.block + 64));
  const secondRoot = one.frames.alloc();
  const tables = [one.frames.alloc(), one.frames.alloc(), one.frames.alloc()];
  for (const [i, table] of tables.entries()) {
    const index = words(i === 0 ? secondRoot : tables[i - 1]!);
    one.ram.words[index] = (table << 12) | 7;
  }
  for (let i = 0; i < 64; i++) one.ram.words[words(tables[2]!) + (one.FIRST + i) * 2] = ((copy + i) << 12) | 7;
  const frame = copy + one.guestMm.frameOf(at) - one.FIRST;
  one.ram.words[words(frame)] = 2;
  const first = contextOf(one.guestMm, { eptRoot: one.eptRoot });
  const second = contextOf(one.guestMm, { eptRoot: secondRoot });
  for (let i = 0; i < 2; i++) expect([one.cpu.load(first, hi(at), lo(at), 4), one.cpu.load(second, hi(at), lo(at), 4)]).toEqual([1, 2]);
});

test('EPT: a violation that nobody resolves ends the program, not the model', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot } = world;
  const at = guestMm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  let exits = 0;
  for (const exit of [undefined, () => (exits++, 0), () => (exits++, -1)])
    expect(() => cpu.load(contextOf(guestMm, { eptRoot, exit }), hi(at), lo(at), 4)).toThrow(Signal);
  expect(exits).toBeGreaterThan(1);
  expect(exits).toBeLessThan(40);
});

test('VMX PASID translation: ENQCMD sends the host PASID; no entry exits once, then #GP', () => {
  const world = guestMachine();
  const { cpu, guestMm, eptRoot, memory, map, frames, ram } = world;
  world.mapAll();
  const sent: number[] = [];
  memory.addMmio(0x9_0000, 1, { read: () => 0, write() {}, enqcmd: (_offset, words) => (sent.push(words[0]!), 0) });
  map(0x4_0000, 0x9_0000);
  const at = guestMm.mmap(0, 4096, RW, 1, { map: (area) => (area.insert(0, 0x4_0000), 0) });
  const source = guestMm.mmap(0, 4096, RW, ANONYMOUS);
  guestMm.write(source, Uint8Array.of(7, 0x0c, 0, 0x80));
  const [low, high, table] = [frames.alloc(), frames.alloc(), frames.alloc()];
  const words = (frame: number) => (frame - ram.firstFrame) * 1024;
  const install = (guest: number, host: number) => {
    const entry = words(guest & 0x8_0000 ? high : low) + ((guest >>> 10) & 511) * 2;
    PasidDirectoryEntry.set.present(ram.words, entry, 1);
    PasidDirectoryEntry.set.table(ram.words, entry, table * 4096);
    PasidTranslationEntry.set.pasid(ram.words, words(table) + (guest & 1023), host);
    PasidTranslationEntry.set.valid(ram.words, words(table) + (guest & 1023), 1);
  };
  const exits: ExitArguments[] = [];
  let fix = true;
  const context = contextOf(guestMm, {
    eptRoot,
    pasidTranslation: low,
    pasidTranslationHigh: high,
    exit(...exit) {
      exits.push(exit);
      if (fix) install(exit[5], 0x1_0000 + exit[5]);
      return 0;
    },
  });
  const enqcmd = (pasid: number) => {
    context.pasidMsr = 0x8000_0000 | pasid | 0;
    return cpu.enqcmd(context, hi(at), lo(at), hi(source), lo(source));
  };
  install(0x0_0c05, 0x333);
  expect([enqcmd(0x0_0c05), exits.length, sent.pop()]).toEqual([0, 0, 0x333]);
  expect([enqcmd(0x8_0c06), sent.pop()]).toEqual([0, 0x9_0c06]);
  expect(cpu.enqcmds(context, hi(at), lo(at), hi(source), lo(source))).toBe(0);
  expect(sent.pop()).toBe(0x8001_0c07);
  expect(exits.map(([reason, , , , , pasid]) => [reason, pasid])).toEqual([
    [ExitReason.enqcmdPasid, 0x8_0c06],
    [ExitReason.enqcmdsPasid, 0x0_0c07],
  ]);
  fix = false;
  expect(() => enqcmd(0x5_5555)).toThrow(/PASID/);
  expect(sent).toEqual([]);
});
