/** The stale-cache detector: what software forgot to invalidate is reported at its use, and nothing else is. VT-d, "Guidance to Software for Invalidations". */
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { describeStale, type StaleUse } from '../src/index.js';
import { ContextEntry, InterruptEntry, PasidEntry, SecondStageEntry } from '../src/spec/index.js';
import { bare, machine, NO_PASID, PASID, READ, RID, WRITE } from './machine.js';
import { type Spaces, translate } from './oracle.js';

const A = 0x5000;
const pasidIotlb = (did: number, pasid: number, address?: number, leaf = true) => [
  6 | ((address === undefined ? 2 : 3) << 4) | (did << 16),
  pasid,
  (address ?? 0) | (leaf ? 64 : 0),
  0,
];
const iotlb = (did: number, address?: number) => [2 | ((address === undefined ? 2 : 3) << 4) | (did << 16), 0, address ?? 0, 0];
const pasidCache = (did: number, pasid: number) => [7 | (1 << 4) | (did << 16), pasid];
const contextCache = (sid: number) => [1 | (3 << 4), sid];

/** First-stage PASID 5 in domain 1, second-stage 7 in domain 2, nested 8 in domain 3, pass-through 9: each with a page at A. */
function warm(sizes = {}) {
  const uses: StaleUse[] = [];
  const m = bare({ onStale: (use) => void uses.push(use), sizes });
  const leaf = m.mapFirst(A, 0x180, 1, true);
  const second = m.mapSecond(A, 0x1a0);
  const under = m.mapSecond(0x180 * 4096, 0x190);
  m.mapSecond(0x280 * 4096, 0x290);
  m.firstStage(PASID);
  m.secondStage(7);
  m.nested(8);
  m.passThrough(9);
  m.enable();
  m.startQueue();
  const ask = (pasid: number, address = A) => m.request(READ, pasid, address).at / 4096;
  for (const pasid of [PASID, 7, 8, 9]) ask(pasid);
  expect(uses).toEqual([]);
  return { ...m, leaf, second, under, uses, ask };
}
const page = (frame: number): bigint => BigInt(frame) * 4096n;

describe('a use of a cached answer that the tables no longer bear out', () => {
  test.each([
    [
      'a first-stage leaf',
      PASID,
      (m: ReturnType<typeof warm>) => PageEntry.set.address(m.words, m.leaf, 0x280 * 4096),
      0x180,
      0x280,
      { descriptor: 'pasidIotlb', domainId: 1, pasid: PASID, address: BigInt(A) },
    ],
    [
      'a second-stage leaf',
      7,
      (m: ReturnType<typeof warm>) => SecondStageEntry.set.address(m.words, m.second, 0x2a0 * 4096),
      0x1a0,
      0x2a0,
      { descriptor: 'iotlb', domainId: 2, address: BigInt(A) },
    ],
    [
      'a first-stage leaf under nesting',
      8,
      (m: ReturnType<typeof warm>) => PageEntry.set.address(m.words, m.leaf, 0x280 * 4096),
      0x190,
      0x290,
      { descriptor: 'pasidIotlb', domainId: 3, pasid: 8, address: BigInt(A) },
    ],
    [
      'a second-stage leaf under nesting',
      8,
      (m: ReturnType<typeof warm>) => SecondStageEntry.set.address(m.words, m.under, 0x2a0 * 4096),
      0x190,
      0x2a0,
      { descriptor: 'iotlb', domainId: 3, address: page(0x180) },
    ],
  ] as const)(
    '%s that changed: both translations, who cached it, and the invalidation that is missing',
    (_name, pasid, change, before, after, missing) => {
      const m = warm();
      change(m);
      expect(m.ask(pasid)).toBe(before);
      expect(m.uses).toMatchObject([
        {
          cache: 'iotlb',
          requesterId: RID,
          pasid,
          address: BigInt(A),
          used: { hpa: page(before) },
          now: { hpa: page(after) },
          cachedBy: { requesterId: RID, pasid },
          missing,
        },
      ]);
      expect(m.uses[0]!.missing.deviceTlb).toBe(true);
      // Told once, not at every use.
      m.ask(pasid);
      expect(m.uses.length).toBe(1);
      m.submit(
        ...(missing.descriptor === 'iotlb' ? iotlb(missing.domainId, Number(missing.address)) : pasidIotlb(missing.domainId, missing.pasid, A)),
      );
      expect([m.ask(pasid), m.uses.length]).toEqual([after, 1]);
    },
  );

  test('a page that was unmapped: the tables refuse it now', () => {
    const m = warm();
    m.words[m.leaf] = 0;
    m.ask(PASID);
    expect(m.uses[0]!.now).toEqual({ refused: 'first stage, level 1: not present' });
    expect(describeStale(m.uses[0]!)).toMatch(
      /^0x310 PASID 5 read 0x5000: the iotlb entry of request 1 .* missing: pasidIotlb invalidation of domain 1, PASID 5, page 0x5000, then the device TLB$/,
    );
  });
  test('a right that was taken: reading is as before, writing is told', () => {
    const m = warm();
    expect(m.request(WRITE, PASID, A).at).toBe(0x180 * 4096);
    PageEntry.set.write(m.words, m.leaf, 0);
    m.ask(PASID);
    expect(m.uses).toEqual([]);
    m.request(WRITE, PASID, A);
    expect(m.uses).toMatchObject([{ access: WRITE, now: { refused: 'first stage: not writable' } }]);
  });
  test('a PASID entry that points elsewhere', () => {
    const m = warm();
    const top = m.allocator.alloc();
    m.mapFirst(A, 0x2b0, 1, false, top);
    PasidEntry.set.firstStage(m.words, m.at.pasid(PASID), top * 4096);
    m.ask(PASID);
    expect(m.uses).toMatchObject([{ cache: 'pasid', now: { hpa: page(0x2b0) }, missing: { descriptor: 'pasidCache', domainId: 1, pasid: PASID } }]);
    m.submit(...pasidCache(1, PASID));
    m.submit(...pasidIotlb(1, PASID));
    expect([m.ask(PASID), m.uses.length]).toEqual([0x2b0, 1]);
  });
  test('a PASID entry that is gone, also of a pass-through', () => {
    const m = warm();
    for (const pasid of [PASID, 9]) PasidEntry.set.present(m.words, m.at.pasid(pasid), 0);
    m.ask(PASID);
    m.ask(9);
    expect(m.uses.map(({ cache, pasid, now }) => [cache, pasid, now.refused])).toEqual([
      ['pasid', PASID, 'PASID entry, reason 0x59'],
      ['pasid', 9, 'PASID entry, reason 0x59'],
    ]);
  });
  test('a context entry that changed', () => {
    const m = warm();
    ContextEntry.set.present(m.words, m.at.context, 0);
    m.ask(7);
    expect(m.uses).toMatchObject([{ cache: 'context', missing: { descriptor: 'context', requesterId: RID } }]);
    ContextEntry.set.present(m.words, m.at.context, 1);
    m.submit(...contextCache(RID));
    m.ask(7);
    expect(m.uses.length).toBe(1);
  });
  test('a table pointer that changed, with an invalidation for leaves only', () => {
    const uses: StaleUse[] = [];
    const m = bare({ onStale: (use) => void uses.push(use), sizes: { pagingStructure: 64 } });
    const leaf = m.mapFirst(A, 0x180);
    m.firstStage(PASID);
    m.enable();
    m.startQueue();
    m.request(READ, PASID, A);
    // The last-level table is replaced by one in which A leads elsewhere.
    const other = m.allocator.alloc();
    const slot = m.word(other, (A >>> 12) * 2);
    m.words.set(m.words.subarray(leaf, leaf + 2), slot);
    PageEntry.set.address(m.words, slot, 0x2c0 * 4096);
    PageEntry.set.address(m.words, pointerTo(m, leaf), other * 4096);
    m.submit(...pasidIotlb(1, PASID, A));
    expect(m.request(READ, PASID, A).at).toBe(0x180 * 4096);
    expect(uses).toMatchObject([{ cache: 'pagingStructure', now: { hpa: page(0x2c0) }, missing: { descriptor: 'pasidIotlb', leafOnly: false } }]);
    expect(describeStale(uses[0]!)).toContain('page 0x5000, IH = 0');
    m.submit(...pasidIotlb(1, PASID, A, false));
    expect([m.request(READ, PASID, A).at, uses.length]).toEqual([0x2c0 * 4096, 1]);
  });
  test('an interrupt entry that changed', () => {
    const m = warm();
    const frame = m.allocator.alloc();
    const at = m.word(frame, 7 * 4);
    for (const [name, value] of Object.entries({ present: 1, vector: 0x55, destination: 0x300, sourceId: RID, sourceValidation: 1 }))
      InterruptEntry.set[name as 'vector'](m.words, at, value);
    m.write64(0xb8, frame * 4096 + 8);
    m.command(24);
    m.command(25);
    const send = () => m.upstream.message(0xfee0_0010 | (7 << 5), 0);
    send();
    send();
    expect(m.uses).toEqual([]);
    InterruptEntry.set.vector(m.words, at, 0x56);
    send();
    send();
    expect(m.uses).toMatchObject([{ cache: 'interrupt', address: 7n, missing: { descriptor: 'interruptEntry', index: 7 } }]);
    expect(m.delivered.map(([vector]) => vector)).toEqual([0x55, 0x55, 0x55, 0x55]);
  });
});

/** The word of the entry that points to the table of `leaf`: found by looking through memory. */
function pointerTo(m: ReturnType<typeof bare>, leaf: number): number {
  const frame = Math.floor(leaf / 1024) + 0x100;
  for (let at = 0; at < m.words.length; at += 2)
    if (m.words[at]! & 1 && PageEntry.get.address(m.words, at) / 4096 === frame && at !== leaf && Math.floor(at / 1024) !== Math.floor(leaf / 1024))
      return at;
  throw new RangeError('no table points there');
}

test.each([
  ['with and without the right invalidation, and requests: reported exactly when the answer is not that of the tables', false],
  ['each with the right invalidation, and requests: always the answer of the tables, and nothing is reported', true],
])('random tables, changes %s', (_rule, keeps) => {
  const PAGES = 6;
  const step = fc.record({
    kind: fc.constantFrom('ask', 'ask', 'ask', 'first', 'second', 'under'),
    page: fc.nat(PAGES - 1),
    frame: fc.integer({ min: 0x200, max: 0x20f }),
    gone: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
    invalidate: fc.boolean(),
    pasid: fc.constantFrom(PASID, 7, 8),
    write: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const uses: StaleUse[] = [];
      const m = bare({ onStale: (use) => void uses.push(use), sizes: { iotlb: 64 } });
      const at = (n: number): number => A + n * 4096;
      const first = Array.from({ length: PAGES }, (_, n) => m.mapFirst(at(n), 0x200 + n, 1, true));
      const second = Array.from({ length: PAGES }, (_, n) => m.mapSecond(at(n), 0x300 + n));
      const under = Array.from({ length: 16 }, (_, n) => m.mapSecond((0x200 + n) * 4096, 0x240 + n));
      m.firstStage(PASID);
      m.secondStage(7);
      m.nested(8);
      m.enable();
      m.startQueue();
      const load = (address: bigint): bigint | undefined => {
        const word = Number(address / 4n) - 0x100 * 1024;
        return word >= 0 && word < m.words.length ? (BigInt(m.words[word + 1]!) << 32n) | BigInt(m.words[word]!) : undefined;
      };
      const spaces = (type: Spaces['type']): Spaces => ({
        type,
        first: page(m.first),
        levels: 4,
        second: page(m.second),
        supervisor: false,
        writeProtect: false,
      });
      const kinds = { [PASID]: spaces('first'), 7: spaces('second'), 8: spaces('nested') } as const;
      for (const { kind, page: n, frame, gone, invalidate, pasid, write } of steps) {
        if (kind === 'ask') {
          // The tables before the request sets its bits.
          const truth = translate(load, kinds[pasid as 7], { address: BigInt(at(n)), write, execute: false, supervisor: false });
          const right = 'at' in truth ? truth.at : undefined;
          const before = uses.length;
          const { status, at: got } = m.request(write ? WRITE : READ, pasid, at(n));
          if (status !== 0) {
            expect(right).toBeUndefined();
            continue;
          }
          const stale = right !== BigInt(got);
          if (keeps) expect([stale, uses]).toEqual([false, []]);
          const told = uses.slice(before);
          if (!stale) expect(told).toEqual([]);
          for (const use of told) expect([use.pasid, use.address, use.used.hpa, use.now.hpa]).toEqual([pasid, BigInt(at(n)), BigInt(got), right]);
          // Once for each entry.
          if (stale) expect(uses.some((use) => use.pasid === pasid && use.address === BigInt(at(n)) && use.used.hpa === BigInt(got))).toBe(true);
          continue;
        }
        if (kind === 'first') {
          if (gone) m.words[first[n]!] = 0;
          else m.mapFirst(at(n), frame);
          if (invalidate || keeps) {
            m.submit(...pasidIotlb(1, PASID, at(n)));
            m.submit(...pasidIotlb(3, 8, at(n)));
          }
        } else {
          const slot = kind === 'second' ? second[n]! : under[frame - 0x200]!;
          if (gone) m.words[slot] = 0;
          else SecondStageEntry.set.address(m.words, slot, (frame + 0x80) * 4096), (m.words[slot] = m.words[slot]! | 3);
          const address = kind === 'second' ? at(n) : frame * 4096;
          if (invalidate || keeps) for (const did of [2, 3]) m.submit(...iotlb(did, address));
        }
      }
    }),
    { numRuns: 200 },
  );
});

test('a driver that keeps the rules is never reported, whatever it maps, unmaps, attaches and detaches', () => {
  const step = fc.record({
    kind: fc.constantFrom('map', 'unmap', 'ask', 'ask', 'detach', 'attach'),
    page: fc.nat(40),
    pages: fc.integer({ min: 1, max: 9 }),
    pasid: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const uses: StaleUse[] = [];
      const m = machine({ onStale: (use) => void uses.push(use), sizes: { pagingStructure: 16 } });
      m.driver.addDevice(RID, { pasid: true, ats: true });
      const domains = Array.from({ length: 4 }, () => m.driver.pagingDomain());
      const bytes = new Uint8Array(64);
      for (const { kind, page: at, pages, pasid } of steps) {
        const domain = domains[pasid]!;
        if (kind === 'map') domain.map(at * 4096, 0x800 + at, pages, 3);
        else if (kind === 'unmap') domain.unmap(at * 4096, pages * 4096);
        else if (kind === 'attach') m.driver.attachPasid(RID, pasid, domain);
        else if (kind === 'detach') m.driver.detachPasid(RID, pasid);
        else m.access(RID, pasid, at * 4096, bytes, at % 2 === 0);
      }
      m.access(RID, NO_PASID, 0, bytes, false);
      expect(uses.map(describeStale)).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
