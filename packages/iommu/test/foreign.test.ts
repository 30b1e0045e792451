/**
 * First stages that are processes of the machine itself: looked up as any PASID, asked every time, never kept. And their pinned pages, which
 * page tables in memory lead to: translations of those are kept, what lies behind them is asked for.
 */
import { TlpStatus } from '@siov/layout/pcie';
import { expect, test } from 'vitest';
import { type Extent, type ForeignProcesses, UnitCounter } from '../src/index.js';
import { PasidEntry } from '../src/spec/index.js';
import { ATS, bare, extent, PASID, READ, RID, WRITE } from './machine.js';

const ROOT = 0x4000_0007;

function world() {
  const asked: [access: number, hi: number, lo: number, max: number][] = [];
  const committed: Extent[] = [];
  const bytes = new Uint8Array(64);
  let present = true;
  const foreign: ForeignProcesses = {
    owns: (root) => root === ROOT,
    acquire(_root, access, hi, lo, max, out) {
      asked.push([access, hi, lo, max]);
      if (!present) return TlpStatus.notPresent;
      out.view = bytes;
      out.words = new Uint32Array(bytes.buffer);
      out.offset = 0;
      out.length = Math.min(max, 64);
      return TlpStatus.success;
    },
    commit: (out) => void committed.push(out),
  };
  const m = bare({ foreign, costs: { lookup: 5 } });
  m.setPasid(PASID, { type: PasidEntry.is.type.firstStage, firstStage: ROOT * 4096, domainId: 1 });
  m.enable();
  const door = m.unit.requester(RID);
  return { ...m, asked, committed, door, leave: () => (present = false) };
}

test('a request of the PASID goes to the process with its whole address, and commits name what was written', () => {
  const { door, asked, committed } = world();
  const out = extent();
  expect(door.acquire(WRITE, PASID, 0x7fff, 0x1234_5678 | 0, 4096, out)).toBe(TlpStatus.success);
  door.commit(out);
  expect([asked, committed, out.length, out.ns]).toEqual([[[WRITE, 0x7fff, 0x1234_5678, 4096]], [out], 64, 5]);
});

test('nothing of an answer is kept: a page that went is refused at once, without an invalidation', () => {
  const { door, leave, asked, unit, fault } = { ...world(), fault: UnitCounter.faults };
  const out = extent();
  expect(door.acquire(READ, PASID, 0, 0x1000, 8, out)).toBe(TlpStatus.success);
  leave();
  expect(door.acquire(READ | ATS, PASID, 0, 0x1000, 8, out)).toBe(TlpStatus.notPresent);
  expect(unit.counters[fault]).toBe(0);
  expect(door.acquire(READ, PASID, 0, 0x1000, 8, out)).toBe(TlpStatus.unsupportedRequest);
  expect([asked.length, unit.counters[fault]]).toEqual([3, 1]);
});

test('without the PASID entry the process is not asked', () => {
  const { door, asked } = world();
  expect(door.acquire(READ, PASID + 1, 0, 0x1000, 8, extent())).toBe(TlpStatus.unsupportedRequest);
  expect(asked).toEqual([]);
});

const WINDOW = 0x5000_0000;

/** Pages of processes from WINDOW on, behind a second stage: whether each is there still. */
function pinnedWorld(there: boolean[]) {
  const asked: [frame: number, offset: number, access: number, max: number][] = [];
  const pages = there.map((_, page) => Uint8Array.from({ length: 4096 }, (_, i) => page * 7 + i));
  const inWindow = (frame: number): boolean => frame >= WINDOW && frame < WINDOW + there.length;
  const foreign: ForeignProcesses = {
    owns: () => false,
    acquire: () => TlpStatus.notPresent,
    ownsFrame: inWindow,
    acquireFrame(frame, offset, access, max, out) {
      asked.push([frame, offset, access, max]);
      if (!there[frame - WINDOW]) return TlpStatus.notPresent;
      const bytes = pages[frame - WINDOW]!;
      out.view = bytes;
      out.words = new Uint32Array(bytes.buffer);
      out.offset = offset;
      out.length = Math.min(max, 4096 - offset);
      return TlpStatus.success;
    },
    commit() {},
  };
  const m = bare({ foreign, costs: { lookup: 5 } });
  m.secondStage(PASID);
  m.enable();
  return { ...m, asked, pages };
}

test('frames that stand for pinned pages: as long a piece as they follow each other is asked for at once', () => {
  const { mapSecond, upstream, asked, pages } = pinnedWorld([true, true, true, true]);
  for (const [page, frame] of [0, 1, 3].entries()) mapSecond(0x10_0000 + page * 4096, WINDOW + frame);
  const out = extent();
  for (let again = 0; again < 2; again++) {
    expect(upstream.acquire(READ, PASID, 0, 0x10_0010, 0x3000, out)).toBe(TlpStatus.success);
    expect([out.view === pages[0], out.offset, out.length]).toEqual([true, 16, 4080]);
    expect(out.ns).toBeGreaterThan(0);
    expect(asked.pop()).toEqual([WINDOW, 16, READ, 0x2000 - 16]);
  }
  expect(upstream.acquire(WRITE, PASID, 0, 0x10_2000, 64, out)).toBe(TlpStatus.success);
  expect(asked).toEqual([[WINDOW + 3, 0, WRITE, 64]]);
});

test('a pinned page that the process lost refuses, with a record of its address, though the translation is kept; it may come back', () => {
  const there = [true];
  const { mapSecond, upstream, faults, unit } = pinnedWorld(there);
  mapSecond(0x10_0000, WINDOW);
  const out = extent();
  expect(upstream.acquire(READ, PASID, 0, 0x10_0000, 64, out)).toBe(TlpStatus.success);
  const misses = unit.counters[UnitCounter.iotlbMisses];
  there[0] = false;
  expect(upstream.acquire(WRITE, PASID, 0, 0x10_0000, 64, out)).toBe(TlpStatus.unsupportedRequest);
  expect(faults()).toMatchObject([{ fault: 1, reason: 0x79, pasid: PASID }]);
  expect(upstream.acquire(READ | ATS, PASID, 0, 0x10_0000, 64, out)).toBe(TlpStatus.notPresent);
  expect(faults()).toEqual([]);
  there[0] = true;
  expect(upstream.acquire(READ, PASID, 0, 0x10_0000, 64, out)).toBe(TlpStatus.success);
  expect(unit.counters[UnitCounter.iotlbMisses]).toBe(misses);
});

test('a frame that neither memory nor a process has is refused; RAM beside the window stays RAM', () => {
  const { mapSecond, upstream, asked, region } = pinnedWorld([true]);
  mapSecond(0x10_0000, WINDOW + 1);
  mapSecond(0x10_1000, 0x180);
  mapSecond(0x10_2000, WINDOW);
  const out = extent();
  expect(upstream.acquire(READ, PASID, 0, 0x10_0000, 64, out)).toBe(TlpStatus.unsupportedRequest);
  for (let again = 0; again < 2; again++) {
    expect(upstream.acquire(READ, PASID, 0, 0x10_1000, 64, out)).toBe(TlpStatus.success);
    expect(out.view).toBe(region.bytes);
    expect(upstream.acquire(READ, PASID, 0, 0x10_2000, 64, out)).toBe(TlpStatus.success);
  }
  expect(asked.length).toBe(2);
});
