/** VT-d, "First-Stage Paging-Structure Caches": the way to the last-level table is kept, and used until it is invalidated. */
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { bare, PASID, READ, WRITE } from './machine.js';

const A = 0x20_0000;
/** All in PASID 5 of domain 1; `leaf`: only leaves changed (IH). */
const pasidIotlb = (leaf: boolean) => [6 | (2 << 4) | (1 << 16), PASID, leaf ? 1 << 6 : 0, 0];
const page = (leaf: boolean, address: number) => [6 | (3 << 4) | (1 << 16), PASID, address | (leaf ? 1 << 6 : 0), 0];

function warm(options: { nested?: boolean } = {}) {
  const m = bare({ sizes: { pagingStructure: 64 } });
  for (let n = 0; n < 8; n++) {
    m.mapFirst(A + n * 4096, 0x180 + n, 1, options.nested ?? false);
    if (options.nested) m.mapSecond((0x180 + n) * 4096, 0x190 + n);
  }
  if (options.nested) m.nested(PASID);
  else m.firstStage(PASID);
  m.enable();
  m.startQueue();
  const reads = () => m.unit.counters[UnitCounter.walkReads]!;
  /** The frame a page translates to, and how many entries that read. */
  const ask = (n: number, access: number = READ) => {
    const before = reads();
    const { at } = m.request(access, PASID, A + n * 4096);
    return [at / 4096, reads() - before];
  };
  return { ...m, ask };
}

describe('walks that begin at the last level', () => {
  test('first stage: four reads for the first page, one for the others of its 2 MiB', () => {
    const m = warm();
    expect([m.ask(0), m.ask(1), m.ask(2)]).toEqual([
      [0x180, 4],
      [0x181, 1],
      [0x182, 1],
    ]);
    expect(m.unit.counters[UnitCounter.pagingStructureHits]).toBe(2);
  });
  test('nested: 24 reads, then one entry and the second stage of the result', () => {
    const m = warm({ nested: true });
    expect([m.ask(0), m.ask(1)]).toEqual([
      [0x190, 24],
      [0x191, 5],
    ]);
  });
  test('off by default: every walk reads all levels', () => {
    const m = bare();
    m.mapFirst(A, 0x180);
    m.mapFirst(A + 4096, 0x181);
    m.firstStage(PASID);
    m.enable();
    for (let n = 0; n < 2; n++) m.request(READ, PASID, A + n * 4096);
    expect(m.unit.counters[UnitCounter.walkReads]).toBe(8);
  });
  test('rights of the levels above still count', () => {
    const m = warm();
    PageEntry.set.write(m.words, m.word(m.first, 0), 0);
    expect([m.request(READ, PASID, A).status, m.request(WRITE, PASID, A + 4096).status !== 0]).toEqual([0, true]);
  });
});

describe('invalidation', () => {
  /** Another last-level table for the same 2 MiB, behind the unit's back. */
  const move = (m: ReturnType<typeof warm>) => {
    const next = (slot: number): number => PageEntry.get.address(m.words, slot) / 4096;
    const pointer = m.word(next(m.word(next(m.word(m.first, 0)), 0)), 2);
    const other = m.allocator.alloc();
    m.words.copyWithin(m.word(other), m.word(next(pointer)), m.word(next(pointer)) + 1024);
    for (let n = 0; n < 8; n++) PageEntry.set.address(m.words, m.word(other, n * 2), (0x280 + n) * 4096);
    PageEntry.set.address(m.words, pointer, other * 4096);
  };
  test('forgotten: the old table is used', () => {
    const m = warm();
    m.ask(0);
    move(m);
    expect(m.ask(1)[0]).toBe(0x181);
  });
  test.each([
    ['of the page, table pointers changed', page(false, A), 0x281],
    ['of the PASID, table pointers changed', pasidIotlb(false), 0x281],
    ['of the page, leaves only', page(true, A), 0x181],
  ])('%s', (_name, descriptor, expected) => {
    const m = warm();
    m.ask(0);
    move(m);
    m.submit(...descriptor);
    expect(m.ask(1)[0]).toBe(expected);
  });
});

test('with every change invalidated, answers are those of a unit without the cache', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(7), fc.integer({ min: 0x180, max: 0x2ff }), fc.nat(7), fc.boolean()), { minLength: 1, maxLength: 30 }),
      (steps) => {
        const machines = [bare({ sizes: { pagingStructure: 4 } }), bare()];
        for (const m of machines) {
          m.firstStage(PASID);
          m.enable();
          m.startQueue();
        }
        for (const [n, frame, other, write] of steps) {
          const answers = machines.map((m) => {
            m.mapFirst(A * (n + 1) + other * 4096, frame);
            m.submit(...pasidIotlb(false));
            return [0, 1, 2, 3].map((k) => m.request(write ? WRITE : READ, PASID, A * (n + 1) + ((other + k) % 8) * 4096).at);
          });
          expect(answers[0]).toEqual(answers[1]);
        }
      },
    ),
    { numRuns: 40 },
  );
});
