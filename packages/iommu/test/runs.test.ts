/**
 * Pages that lie one behind the other are one extent, and what was found out of them is kept beside the IOTLB's entries. That changes nothing that anybody
 * can see: a unit with the detector of stale entries looks at every page anew, and is the reference.
 */
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { type Bare, bare, NO_PASID, PASID, READ, WRITE } from './machine.js';

/** The interrupt range is among them: 16 pages on either side of its first. */
const BASES = [0x20_0000, 0xfee0_0000 - 8 * 4096, 0x1_0000_0000 - 8 * 4096];
const PAGES = 16;

type Action =
  | { kind: 'ask'; base: number; page: number; offset: number; max: number; write: boolean; pasid: boolean }
  | { kind: 'map'; base: number; page: number; frame: number; writable: boolean; invalidate: boolean }
  | { kind: 'invalidate'; base: number; page: number; order: number }
  | { kind: 'forget' };
const base = fc.nat(BASES.length - 1);
const page = fc.nat(PAGES - 1);
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      base,
      page,
      offset: fc.oneof(fc.constant(0), fc.nat(4095)),
      max: fc.oneof(fc.constant(PAGES * 4096), fc.integer({ min: 1, max: PAGES * 4096 })),
      write: fc.boolean(),
      pasid: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('map' as const),
      base,
      page,
      // Often the one that continues what lies before.
      frame: fc.oneof(fc.constant(-1), fc.nat(63)),
      writable: fc.boolean(),
      invalidate: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invalidate' as const), base, page, order: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'forget' as const }) },
);

function perform(m: Bare, frames: Map<number, number>, a: Action): unknown {
  const invalidate = (address: number, order: number): void =>
    m.submit(6 | (3 << 4) | (1 << 16), PASID, (address & ~0xfff) | order, Math.floor(address / 2 ** 32));
  switch (a.kind) {
    case 'ask': {
      const address = BASES[a.base]! + a.page * 4096 + a.offset;
      const answer = m.request(a.write ? WRITE : READ, a.pasid ? PASID : NO_PASID, address, a.max);
      m.faults();
      return answer;
    }
    case 'map': {
      const address = BASES[a.base]! + a.page * 4096;
      const frame = a.frame < 0 ? (frames.get(address - 4096) ?? 0x180) + 1 : 0x180 + a.frame;
      frames.set(address, frame);
      const slot = m.mapFirst(address, frame);
      if (!a.writable) PageEntry.set.write(m.words, slot, 0);
      if (a.invalidate) invalidate(address, 0);
      return 0;
    }
    case 'invalidate':
      invalidate(BASES[a.base]! + (a.page & -(1 << a.order)) * 4096, a.order);
      return 0;
    case 'forget':
      m.submit(2 | (1 << 4));
      return 0;
  }
}

/** `looks`: at every page anew. Small caches, so that entries push each other out. */
function unit(looks: boolean, entries: number): Bare {
  const m = bare({ sizes: { iotlb: entries }, ...(looks ? { onStale: () => {} } : {}) });
  m.firstStage(PASID);
  // Requests without PASID are of the same address space, and share its entries.
  m.words[m.at.context + 2] = PASID;
  for (const from of BASES) for (let n = 0; n < PAGES; n++) m.mapFirst(from + n * 4096, 0x1c0 + n);
  m.enable();
  m.startQueue();
  return m;
}
const seen = [UnitCounter.faults, UnitCounter.pasidHits, UnitCounter.contextHits];

test('extents, faults and times are those of a unit that looks at every page anew', () => {
  let long = 0;
  fc.assert(
    fc.property(fc.array(action, { minLength: 20, maxLength: 120 }), fc.constantFrom(8, 64), (actions, entries) => {
      const [fast, plain] = [unit(false, entries), unit(true, entries)];
      const frames = [new Map<number, number>(), new Map<number, number>()] as const;
      for (const a of actions) {
        const got = perform(fast, frames[0], a);
        expect(got).toEqual(perform(plain, frames[1], a));
        if ((got as { length?: number }).length! > 4096) long++;
      }
      for (const counter of seen) expect(fast.unit.counters[counter]).toBe(plain.unit.counters[counter]);
    }),
    { numRuns: 300 },
  );
  expect(long).toBeGreaterThan(1000);
});

test('pages of a run are counted as translations, each time', () => {
  const m = unit(false, 64);
  const counts = () => [UnitCounter.translations, UnitCounter.iotlbHits].map((c) => m.unit.counters[c]!);
  m.request(READ, PASID, BASES[0]!, PAGES * 4096);
  for (let i = 0; i < 3; i++) {
    const before = counts();
    expect(m.request(READ, PASID, BASES[0]!, PAGES * 4096).length).toBe(PAGES * 4096);
    expect(counts().map((n, c) => n - before[c]!)).toEqual([PAGES, PAGES]);
  }
});

test('a run that a PASID may use across the interrupt range is none without a PASID', () => {
  const m = unit(false, 64);
  const from = BASES[1]!;
  for (let i = 0; i < 3; i++) expect(m.request(READ, PASID, from, PAGES * 4096).length).toBe(PAGES * 4096);
  expect(m.request(READ, NO_PASID, from, PAGES * 4096).length).toBe(0xfee0_0000 - from);
});
