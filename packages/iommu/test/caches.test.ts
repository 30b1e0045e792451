/** VT-d, "Caching Translation Information" and "Invalidation of Translation Caches": what is cached stays until it is invalidated. */
import { TlpStatus } from '@siov/layout/pcie';
import { PageEntry } from '@siov/layout/x86';
import { describe, expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { ContextEntry, PasidEntry, SecondStageEntry } from '../src/spec/index.js';
import { bare, NO_PASID, PASID, READ, WRITE } from './machine.js';

const A = 0x5000;
const OTHER = 6;
/** Descriptors as eight words, low first. */
const context = (granularity: number, sid = 0, mask = 0) => [1 | (granularity << 4), sid | (mask << 16)];
const iotlb = (granularity: number, did = 0, address = 0, order = 0) => [2 | (granularity << 4) | (did << 16), 0, address | order, 0];
const pasidIotlb = (granularity: number, did: number, pasid: number, address = 0, order = 0) => [
  6 | (granularity << 4) | (did << 16),
  pasid,
  address | order,
  0,
];
const pasidCache = (granularity: number, did = 0, pasid = 0) => [7 | (granularity << 4) | (did << 16), pasid];

/** First-stage PASID 5 (domain 1) and 6 (domain 1), second-stage 7 (domain 2), nested 8 (domain 3); each with a page at A. */
function warm() {
  const m = bare();
  const leaf = m.mapFirst(A, 0x180, 1, true);
  const second = m.mapSecond(A, 0x1a0);
  m.mapSecond(0x180 * 4096, 0x190);
  m.firstStage(PASID);
  m.firstStage(OTHER);
  m.secondStage(7);
  m.nested(8);
  m.enable();
  m.startQueue();
  const pasids = [PASID, OTHER, 7, 8];
  const ask = () => pasids.map((pasid) => m.request(READ, pasid, A).at / 4096);
  expect(ask()).toEqual([0x180, 0x180, 0x1a0, 0x190]);
  // Memory says something else now.
  PageEntry.set.address(m.words, leaf, 0x280 * 4096);
  SecondStageEntry.set.address(m.words, second, 0x2a0 * 4096);
  m.mapSecond(0x280 * 4096, 0x290);
  expect(ask()).toEqual([0x180, 0x180, 0x1a0, 0x190]);
  return { ...m, ask };
}
const NEW = [0x280, 0x280, 0x2a0, 0x290];
const OLD = [0x180, 0x180, 0x1a0, 0x190];
/** OLD with some of NEW. */
const mixed = (...fresh: number[]) => OLD.map((old, i) => (fresh.includes(i) ? NEW[i] : old));

describe('an IOTLB entry is used until an invalidation names it', () => {
  test.each([
    ['global', iotlb(1), NEW],
    ['domain 1', iotlb(2, 1), mixed(0, 1)],
    ['domain 2', iotlb(2, 2), mixed(2)],
    ['domain 3', iotlb(2, 3), mixed(3)],
    ['a domain that nobody has', iotlb(2, 4), OLD],
    ['the page of domain 2', iotlb(3, 2, A), mixed(2)],
    ['another page of domain 2', iotlb(3, 2, A + 0x1000), OLD],
    ['a range that holds the page', iotlb(3, 2, 0, 4), mixed(2)],
    ['a range of domain 3: all nested results depend on it', iotlb(3, 3, 0x80_0000), mixed(3)],
    ['a range of domain 1: first-stage results do not', iotlb(3, 1, A), OLD],
    ['all of PASID 5 in domain 1', pasidIotlb(2, 1, PASID), mixed(0)],
    ['all of PASID 5 in another domain', pasidIotlb(2, 2, PASID), OLD],
    ['the page of PASID 6', pasidIotlb(3, 1, OTHER, A), mixed(1)],
    ['another page of PASID 6', pasidIotlb(3, 1, OTHER, A + 0x1000), OLD],
    ['a large range of PASID 6', pasidIotlb(3, 1, OTHER, 0, 20), mixed(1)],
    ['PASID 8, nested', pasidIotlb(3, 3, 8, A), mixed(3)],
    ['a second-stage result is not selected by PASID', pasidIotlb(2, 2, 7), OLD],
  ])('%s', (_name, descriptor, expected) => {
    const m = warm();
    m.submit(...descriptor);
    expect(m.ask()).toEqual(expected);
  });

  test.each([
    [2, 0x20_0000],
    [3, 0x4000_0000],
  ])('a page of level %i is one entry, and goes by any page in it', (level, size) => {
    const m = bare();
    const slot = m.mapFirst(size, 0, level);
    m.firstStage(PASID);
    m.enable();
    m.startQueue();
    m.request(READ, PASID, size + 0x10_0000);
    expect(m.request(READ, PASID, size + 0x1f_f000)).toMatchObject({ status: TlpStatus.success, at: 0x1f_f000 });
    expect(m.unit.counters[UnitCounter.iotlbMisses]).toBe(1);
    PageEntry.set.present(m.words, slot, 0);
    expect(m.request(READ, PASID, size + 0x10_0000).status).toBe(TlpStatus.success);
    m.submit(...pasidIotlb(3, 1, PASID, size + 0x3000));
    expect(m.request(READ, PASID, size + 0x10_0000).status).toBe(TlpStatus.unsupportedRequest);
  });
});

describe('PASID cache and context cache', () => {
  test.each([
    ['global', pasidCache(3), true],
    ['its domain', pasidCache(0, 1), true],
    ['its PASID', pasidCache(1, 1, PASID), true],
    ['another PASID', pasidCache(1, 1, OTHER), false],
    ['another domain', pasidCache(0, 2), false],
  ])('a cleared PASID entry is refused after %s, not before', (_name, descriptor, refused) => {
    const m = warm();
    PasidEntry.set.present(m.words, m.at.pasid(PASID), 0);
    expect(m.request(READ, PASID, A).status).toBe(TlpStatus.success);
    m.submit(...descriptor);
    expect(m.request(READ, PASID, A).status).toBe(refused ? TlpStatus.unsupportedRequest : TlpStatus.success);
  });

  test.each([
    ['global', context(1), true],
    ['the device', context(3, 0x0310), true],
    ['its functions by mask', context(3, 0x0314, 1), true],
    ['another device', context(3, 0x0318), false],
  ])('a context without PASIDE is noticed after %s, not before', (_name, descriptor, refused) => {
    const m = warm();
    ContextEntry.set.pasidEnable(m.words, m.at.context, 0);
    expect(m.request(READ, PASID, A).status).toBe(TlpStatus.success);
    m.submit(...descriptor);
    expect(m.request(READ, PASID, A).status).toBe(refused ? TlpStatus.unsupportedRequest : TlpStatus.success);
  });
});

test('what is not present is never cached: an entry made present works at once', () => {
  const m = bare();
  m.enable();
  for (const make of [() => m.firstStage(PASID), () => m.mapFirst(A, 0x180)]) {
    expect(m.request(READ, PASID, A).status).toBe(TlpStatus.unsupportedRequest);
    make();
  }
  expect(m.request(READ, PASID, A).status).toBe(TlpStatus.success);
});

test('hits and misses are counted by cache', () => {
  const m = warm();
  const before = m.unit.counters.slice();
  for (let i = 0; i < 10; i++) m.request(READ, PASID, A);
  m.submit(...pasidIotlb(2, 1, PASID));
  m.submit(...pasidCache(3));
  m.submit(...context(1));
  m.request(READ, PASID, A);
  const change = (name: keyof typeof UnitCounter) => m.unit.counters[UnitCounter[name]]! - before[UnitCounter[name]]!;
  expect([change('contextHits'), change('contextMisses')]).toEqual([10, 1]);
  expect([change('pasidHits'), change('pasidMisses')]).toEqual([10, 1]);
  expect([change('iotlbHits'), change('iotlbMisses')]).toEqual([10, 1]);
  expect(change('lookupReads')).toBe(4);
  expect(change('walkReads')).toBe(4);
});

test('caches are bounded: more pages, PASIDs and functions than entries still translate right', () => {
  const m = bare({ sizes: { context: 4, pasid: 4, iotlb: 4, interrupt: 4 } });
  for (let i = 0; i < 40; i++) m.mapFirst(i * 4096, 0x180 + i);
  for (let pasid = 1; pasid < 60; pasid++) m.firstStage(pasid);
  m.enable();
  for (let round = 0; round < 2; round++)
    for (let i = 0; i < 40; i++) expect(m.request(READ, 1 + ((i * 7) % 59), i * 4096).at / 4096).toBe(0x180 + i);
});

test('a page request forgets what is cached of its page', () => {
  const m = warm();
  m.write64(0xd0, m.allocator.alloc() * 4096);
  expect(m.upstream.pageRequest(PASID, 0, A, READ, 1)).toBe(0);
  expect(m.ask()).toEqual(mixed(0));
});

test('translation off: identity, without tables; on again: tables', () => {
  const m = warm();
  m.command(31, false);
  expect(m.request(WRITE, NO_PASID, 0x180_123).at).toBe(0x180_123);
  expect(m.request(WRITE, PASID, 0x180_123).at).toBe(0x180_123);
  m.command(31);
  expect(m.ask()).toEqual(OLD);
});

test('a new root table counts after SRTP alone, and RTADDR by itself changes nothing', () => {
  const m = warm();
  m.write64(0x20, 0x90_0000_0000 + 1024);
  m.submit(...context(1));
  expect(m.ask()).toEqual(OLD);
  m.command(30);
  m.submit(...context(1));
  expect(m.request(READ, PASID, A).status).toBe(TlpStatus.unsupportedRequest);
});

test('a request without PASID goes by RID_PASID', () => {
  const m = bare();
  m.mapFirst(A, 0x180);
  m.firstStage(OTHER);
  ContextEntry.set.ridPasid(m.words, m.at.context, OTHER);
  m.enable();
  expect(m.request(READ, NO_PASID, A).at / 4096).toBe(0x180);
  m.request(READ, NO_PASID, 0x9000);
  expect(m.faults()).toMatchObject([{ reason: 0x71, pasidPresent: 0 }]);
});
