/** First stages that are processes of the machine itself: looked up as any PASID, asked every time, never kept. */
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
