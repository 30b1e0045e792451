/** The unit's walks against the plain walker, over tables full of chance. */
import { TlpStatus } from '@siov/layout/pcie';
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { SecondStageEntry } from '../src/spec/index.js';
import { type Bare, bare, EXECUTE, PASID, PRIVILEGED, READ, WRITE } from './machine.js';
import { type Spaces, translate } from './oracle.js';

const FRAMES = 48;
const FIRST = 0x100;
/** A memory of few frames in which any frame may be a table of either stage, so that walks go far. */
function chaos(seed: number[], frames = FRAMES): Bare {
  const m = bare({}, frames + 16);
  let i = 0;
  const chance = (n: number): number => (Math.imul(seed[i++ % seed.length]! + i * 0x9e37, 0x85eb_ca6b) >>> 8) % n;
  // Frames that the machine does not use itself.
  const from = m.queueFrame - FIRST + 1;
  for (let frame = from; frame < frames; frame++)
    for (let index = 0; index < 512; index += 1) {
      const at = frame * 1024 + index * 2;
      // Mostly healthy entries; sometimes a right less, a leaf where none may be, a reserved bit, an address beyond memory.
      const rare = chance(24);
      const target = rare === 0 ? chance(2 ** 20) : FIRST + from + chance(frames - from);
      let low = (target << 12) | 7 | (chance(2) ? 0x60 : 0);
      if (rare === 1) low &= ~(1 << chance(3));
      if (rare === 2) low |= 0x80;
      if (rare === 3) low |= 0x800;
      if (rare === 5) low = (low & ~0x1f_ffff) | 0x87;
      m.words[at] = low >>> 0;
      m.words[at + 1] = rare === 4 ? 1 << chance(32) : 0;
    }
  return m;
}
const load = (m: Bare) => (address: bigint) => {
  const at = Number(address - BigInt(FIRST) * 4096n) / 4;
  if (at < 0 || at + 1 >= m.words.length || address >> 43n) return undefined;
  return (BigInt(m.words[at + 1]!) << 32n) | BigInt(m.words[at]!);
};

const spaces = fc.record({
  type: fc.constantFrom('first', 'second', 'nested'),
  levels: fc.constantFrom(4, 4, 5),
  firstTable: fc.nat(),
  secondTable: fc.nat(),
  supervisor: fc.boolean(),
  writeProtect: fc.boolean(),
});
const requests = fc.record({
  address: fc.oneof(fc.bigInt(0n, 2n ** 47n - 1n), fc.bigInt(-(2n ** 47n), -1n), fc.bigInt(0n, 2n ** 64n - 1n)),
  write: fc.boolean(),
  execute: fc.boolean(),
  supervisor: fc.boolean(),
});

test('every walk over random tables ends where the plain walker ends: same address or same fault, same number of reads', () => {
  let successes = 0;
  const seen = new Set<number>();
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 4, maxLength: 8 }), spaces, fc.array(requests, { minLength: 8, maxLength: 24 }), (seed, s, list) => {
      const m = chaos(seed);
      const from = m.queueFrame + 1;
      const pick = (n: number): number => from + (n % (FIRST + FRAMES - from));
      const oracle: Spaces = {
        type: s.type as Spaces['type'],
        levels: s.levels as 4 | 5,
        first: BigInt(pick(s.firstTable)) * 4096n,
        second: BigInt(pick(s.secondTable)) * 4096n,
        supervisor: s.supervisor,
        writeProtect: s.writeProtect,
      };
      m.setPasid(PASID, {
        type: { first: 1, second: 2, nested: 3 }[oracle.type],
        firstStage: Number(oracle.first),
        secondStage: Number(oracle.second),
        addressWidth: 2,
        firstStageMode: s.levels === 5 ? 1 : 0,
        supervisorRequests: s.supervisor ? 1 : 0,
        writeProtect: s.writeProtect ? 1 : 0,
        domainId: 9,
      });
      m.enable();
      m.startQueue();
      for (const r of list) {
        const expected = translate(load(m), oracle, {
          ...r,
          supervisor: r.supervisor && oracle.type !== 'second',
          execute: r.execute && oracle.type !== 'second',
        });
        m.submit(2 | (1 << 4), 0);
        const before = m.unit.counters[UnitCounter.walkReads]!;
        const access = (r.write ? WRITE : READ) | (r.supervisor ? PRIVILEGED : 0) | (r.execute ? EXECUTE : 0);
        const got = m.request(access, PASID, r.address, 1);
        const [record] = m.faults();
        expect(m.unit.counters[UnitCounter.walkReads]! - before).toBe(expected.reads);
        if ('fault' in expected) {
          seen.add(expected.fault);
          expect({ reason: record?.reason, status: got.status }).toEqual({ reason: expected.fault, status: TlpStatus.unsupportedRequest });
        } else {
          const inside = expected.at >= BigInt(FIRST) * 4096n && expected.at < BigInt(FIRST + FRAMES + 16) * 4096n;
          expect(record).toBe(undefined);
          expect(got).toMatchObject(inside ? { status: 0, at: Number(expected.at) } : { status: TlpStatus.unsupportedRequest, at: -1 });
          if (inside) successes++;
        }
      }
    }),
    { numRuns: 150 },
  );
  // The tables are such that much succeeds, and much fails in many ways.
  expect(successes).toBeGreaterThan(100);
  expect(seen.size).toBeGreaterThan(8);
});

test.each([
  ['first stage, 4 KiB', 'first', 1, 4],
  ['first stage, 2 MiB', 'first', 2, 3],
  ['first stage, 1 GiB', 'first', 3, 2],
  ['second stage, 4 KiB', 'second', 1, 4],
  ['second stage, 2 MiB', 'second', 2, 3],
  ['second stage, 1 GiB', 'second', 3, 2],
  ['nested, 4 KiB over 4 KiB', 'nested', 1, 24],
] as const)('a miss of a %s page reads %s entries', (_name, type, level, reads) => {
  const m = bare();
  const address = 0x40_4000_0000 + 0x5000;
  const frame = level === 1 ? 0x180 : 0;
  if (type === 'second') m.mapSecond(address, frame, level);
  else m.mapFirst(address, frame, level, type === 'nested');
  if (type === 'nested') m.mapSecond(frame * 4096, 0x190);
  if (type === 'first') m.firstStage(PASID);
  else if (type === 'second') m.secondStage(PASID);
  else m.nested(PASID);
  m.enable();
  m.request(READ, PASID, address);
  expect(m.unit.counters[UnitCounter.walkReads]).toBe(reads);
});

test.each([3, 4, 5])('a second stage of %i levels translates up to its width and not beyond', (levels) => {
  const m = bare({ profile: { capability: { adjustedWidths: 0b1110 } } });
  const width = 12 + 9 * levels;
  const last = 2 ** width - 4096;
  m.mapSecond(last, 0x180, 1, m.second, levels);
  m.setPasid(PASID, { type: 2, secondStage: m.second * 4096, addressWidth: levels - 2, domainId: 2 });
  m.enable();
  expect(m.request(READ, PASID, last)).toMatchObject({ status: 0, at: 0x180 * 4096 });
  expect(m.unit.counters[UnitCounter.walkReads]).toBe(levels);
  expect(m.request(READ, PASID, 2n ** BigInt(width)).status).toBe(TlpStatus.unsupportedRequest);
  expect(m.faults()[0]!.reason).toBe(0x84);
});

test('accessed is set in every entry used, dirty in the leaf on a write alone, also when the page is cached clean', () => {
  const m = bare();
  const leaf = m.mapFirst(0x5000, 0x180);
  m.firstStage(PASID);
  m.enable();
  m.request(READ, PASID, 0x5000);
  expect([PageEntry.get.accessed(m.words, leaf), PageEntry.get.dirty(m.words, leaf)]).toEqual([1, 0]);
  expect(PageEntry.get.accessed(m.words, m.word(m.first, 0))).toBe(1);
  m.request(WRITE, PASID, 0x5000);
  expect(PageEntry.get.dirty(m.words, leaf)).toBe(1);
  expect(PageEntry.get.dirty(m.words, m.word(m.first, 0))).toBe(0);
});

test('extended accessed goes with accessed where EAFE asks for it', () => {
  const m = bare();
  const leaf = m.mapFirst(0x5000, 0x180);
  m.setPasid(PASID, { type: 1, firstStage: m.first * 4096, domainId: 1, extendedAccessed: 1 });
  m.enable();
  m.request(READ, PASID, 0x5000);
  expect(m.words[leaf]! & 0x420).toBe(0x420);
});

test('second-stage accessed and dirty: kept with SSADE, also for the accessed and dirty writes of the first stage', () => {
  const m = bare();
  m.mapFirst(0x5000, 0x180, 1, true);
  const data = m.mapSecond(0x180 * 4096, 0x190);
  const table = m.mapSecond(m.first * 4096, m.first);
  m.setPasid(PASID, { type: 3, firstStage: m.first * 4096, secondStage: m.second * 4096, addressWidth: 2, domainId: 3, secondStageAccessedDirty: 1 });
  m.enable();
  m.request(READ, PASID, 0x5000);
  const { accessed, dirty } = SecondStageEntry.get;
  expect([accessed(m.words, data), dirty(m.words, data)]).toEqual([1, 0]);
  expect([accessed(m.words, table), dirty(m.words, table)]).toEqual([1, 1]);
  m.request(WRITE, PASID, 0x5000);
  expect(dirty(m.words, data)).toBe(1);
});

test('an extent grows over physically contiguous pages, and ends where they do', () => {
  const m = bare();
  for (let i = 0; i < 6; i++) m.mapFirst(0x5000 + i * 4096, i < 4 ? 0x180 + i : 0x200 + i);
  m.firstStage(PASID);
  m.enable();
  expect(m.request(READ, PASID, 0x5010, 2 ** 20)).toEqual({ status: 0, at: 0x180 * 4096 + 0x10, length: 4 * 4096 - 0x10 });
  expect(m.request(READ, PASID, 0x9000, 2 ** 20)).toEqual({ status: 0, at: 0x204 * 4096, length: 2 * 4096 });
  expect(m.request(READ, PASID, 0x5010, 5000)).toEqual({ status: 0, at: 0x180 * 4096 + 0x10, length: 5000 });
  // The page looked at ahead is counted once; the page behind the last one is not there, and no fault of this request.
  expect(m.faults()).toEqual([]);
});

test('pages counted: each page of a scattered transfer once', () => {
  const m = bare();
  for (let i = 0; i < 16; i++) m.mapFirst(0x10_0000 + i * 4096, 0x300 - 2 * i);
  m.firstStage(PASID);
  m.enable();
  const before = () => m.unit.counters[UnitCounter.translations]!;
  for (let i = 0; i < 16; i++) m.request(READ, PASID, 0x10_0000 + i * 4096, (16 - i) * 4096);
  expect(before()).toBe(16);
  expect(m.unit.counters[UnitCounter.iotlbMisses]).toBe(16);
});

test('the modelled cost is what happened times the cost table', () => {
  const m = bare({ costs: { lookup: 5, walkRead: 60, atsRequest: 130 } });
  m.mapFirst(0x5000, 0x180, 1, true);
  m.mapSecond(0x180 * 4096, 0x190);
  m.nested(PASID);
  m.enable();
  const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
  m.upstream.acquire(READ, PASID, 0, 0x5000, 64, out);
  expect(out.ns).toBe(5 + 60 * (24 + 4));
  m.upstream.acquire(READ, PASID, 0, 0x5000, 64, out);
  expect(out.ns).toBe(5);
  m.upstream.acquire(READ | 8, PASID, 0, 0x5000, 64, out);
  expect(out.ns).toBe(135);
});
