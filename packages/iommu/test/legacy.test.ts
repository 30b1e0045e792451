/** Legacy mode, abort-DMA mode, and invalidation by registers. VT-d, "Legacy Mode Address Translation", "Register-based Invalidation Interface". */
import { describe, expect, test } from 'vitest';
import type { Profile, StaleUse } from '../src/index.js';
import { ContextCommand, Fault, IotlbCommand, LegacyContextEntry, LegacyRootEntry } from '../src/spec/index.js';
import { ATS, bare, NO_PASID, PASID, READ, REG, RID, WRITE } from './machine.js';

const A = 0x18_5000;
const CCMD = 0x28;
const { type, addressWidth } = LegacyContextEntry.is;

/** A unit whose root table is of legacy mode: the function has a second stage with a page at A, in domain 9. */
function legacy(fields: Partial<Record<keyof typeof LegacyContextEntry.set, number>> = {}, profile: Profile = {}) {
  const uses: StaleUse[] = [];
  const m = bare({ profile, onStale: (use) => void uses.push(use) });
  const root = m.allocator.alloc();
  const contexts = m.allocator.alloc();
  const at = { root: m.word(root, (RID >>> 8) * 4), context: m.word(contexts, (RID & 0xff) * 4) };
  LegacyRootEntry.set.contextTable(m.words, at.root, contexts * 4096);
  LegacyRootEntry.set.present(m.words, at.root, 1);
  const set = (values: typeof fields): void => {
    for (const [name, value] of Object.entries(values)) LegacyContextEntry.set[name as 'domainId'](m.words, at.context, value);
  };
  set({ present: 1, secondStage: m.second * 4096, addressWidth: addressWidth.bits48, domainId: 9, ...fields });
  const leaf = m.mapSecond(A, 0x1a0);
  m.write64(REG.rtaddr, root * 4096);
  m.command(30);
  m.command(31);
  const ask = (access: number = READ, address = A, pasid = NO_PASID) => m.request(access, pasid, address).at / 4096;
  const iro = ((m.unit.read(0x10, 4) >>> 8) & 0x3ff) * 16;
  /** CCMD, IOTLB_REG: the granularity that was done. */
  const contextCommand = (granularity: number, domainId = 0, sourceId = 0): number => {
    const w = new Uint32Array(2);
    for (const [name, value] of Object.entries({ granularity, domainId, sourceId, invalidate: 1 }))
      ContextCommand.set[name as 'domainId'](w, 0, value);
    m.unit.write(CCMD, 4, w[0]!);
    m.unit.write(CCMD + 4, 4, w[1]!);
    return ContextCommand.get.actual(Uint32Array.of(0, m.unit.read(CCMD + 4, 4)), 0);
  };
  const iotlbCommand = (granularity: number, domainId = 0, address = 0, order = 0): number => {
    const w = new Uint32Array(2);
    for (const [name, value] of Object.entries({ granularity, domainId, invalidate: 1 })) IotlbCommand.set[name as 'domainId'](w, 0, value);
    m.write64(iro, address + order);
    m.unit.write(iro + 8, 4, w[0]!);
    m.unit.write(iro + 12, 4, w[1]!);
    const done = Uint32Array.of(0, m.unit.read(iro + 12, 4));
    expect(IotlbCommand.get.invalidate(done, 0)).toBe(0);
    return IotlbCommand.get.actual(done, 0);
  };
  return { ...m, at, set, leaf, ask, uses, contextCommand, iotlbCommand };
}

describe('legacy mode', () => {
  test('a function has one address space, of its context entry: the second stage, or pass-through', () => {
    expect(legacy().ask()).toBe(0x1a0);
    expect(legacy().ask(WRITE)).toBe(0x1a0);
    expect(legacy({ type: type.passThrough }).ask()).toBe(A / 4096);
  });
  test('widths of 39, 48 and 57 bits, where the unit has them', () => {
    const m = legacy({ addressWidth: addressWidth.bits39 }, { capability: { adjustedWidths: 0b110 } });
    // Three levels: the table that the walk begins at is the one below.
    const below = m.words[m.word(m.second, 0)]! & ~0xfff;
    m.set({ secondStage: below });
    expect(m.ask()).toBe(0x1a0);
    const five = legacy({ addressWidth: addressWidth.bits57 }, { capability: { adjustedWidths: 0b110 } });
    expect([five.ask() >= 0, five.faults().map((fault) => fault.reason)]).toEqual([false, [Fault.legacyContextInvalid]]);
  });
  test('translation requests need translation type 1', () => {
    expect(legacy({ type: type.deviceTlb }).ask(READ | ATS)).toBe(0x1a0);
    const m = legacy();
    expect([m.ask(READ | ATS) >= 0, m.faults().map((fault) => fault.reason)]).toEqual([false, [Fault.legacyBlocked]]);
  });
  test.each([
    ['a request with PASID', Fault.legacyWithPasid, (m: ReturnType<typeof legacy>) => m.ask(READ, A, PASID)],
    ['a page request', Fault.legacyPageRequest, (m: ReturnType<typeof legacy>) => m.upstream.pageRequest(NO_PASID, 0, A, READ, 1)],
    ['no root entry', Fault.legacyRootNotPresent, (m: ReturnType<typeof legacy>) => ((m.words[m.at.root] = 0), m.ask())],
    ['a reserved bit of the root entry', Fault.legacyRootReserved, (m: ReturnType<typeof legacy>) => ((m.words[m.at.root + 2] = 1), m.ask())],
    [
      'a context table that is not memory',
      Fault.legacyContextAccess,
      (m: ReturnType<typeof legacy>) => (LegacyRootEntry.set.contextTable(m.words, m.at.root, 0x7_0000_0000), m.ask()),
    ],
    ['no context entry', Fault.legacyContextNotPresent, (m: ReturnType<typeof legacy>) => (m.set({ present: 0 }), m.ask())],
    [
      'a reserved bit of the context entry',
      Fault.legacyContextReserved,
      (m: ReturnType<typeof legacy>) => ((m.words[m.at.context + 2] = m.words[m.at.context + 2]! | 0x80), m.ask()),
    ],
    ['translation type 3', Fault.legacyContextInvalid, (m: ReturnType<typeof legacy>) => (m.set({ type: 3 }), m.ask())],
    ['an address beyond the tables', Fault.legacyBeyondWidth, (m: ReturnType<typeof legacy>) => m.ask(READ, 2 ** 48)],
    ['a page that is not there, read', Fault.legacyReadRefused, (m: ReturnType<typeof legacy>) => m.ask(READ, A + 4096)],
    ['a page that is not there, written', Fault.legacyWriteRefused, (m: ReturnType<typeof legacy>) => m.ask(WRITE, A + 4096)],
    [
      'a page that may be read, written',
      Fault.legacyWriteRefused,
      (m: ReturnType<typeof legacy>) => ((m.words[m.leaf] = m.words[m.leaf]! & ~2), m.ask(WRITE)),
    ],
    [
      'a reserved bit of a paging entry',
      Fault.legacySecondStageReserved,
      (m: ReturnType<typeof legacy>) => ((m.words[m.leaf + 1] = 0x4000_0000), m.ask()),
    ],
    ['a table that is not memory', Fault.legacySecondStageAccess, (m: ReturnType<typeof legacy>) => (m.set({ secondStage: 0x7_0000_0000 }), m.ask())],
  ] as const)('%s: its own fault', (_rule, reason, run) => {
    const m = legacy();
    run(m);
    expect(m.faults().map((fault) => [fault.reason, fault.sourceId])).toEqual([[reason, RID]]);
  });
  test('Fault Processing Disable of the context entry silences what is qualified', () => {
    const m = legacy({ faultDisable: 1 });
    expect([m.ask(READ, A + 4096) >= 0, m.faults()]).toEqual([false, []]);
    m.words[m.at.root] = 0;
    m.contextCommand(1);
    expect([m.ask() >= 0, m.faults().map((fault) => fault.reason)]).toEqual([false, [Fault.legacyRootNotPresent]]);
  });
});

describe('register-based invalidation', () => {
  const moved = (): ReturnType<typeof legacy> => {
    const m = legacy();
    m.ask();
    m.mapSecond(A, 0x1b0);
    expect(m.ask()).toBe(0x1a0);
    return m;
  };
  test.each([
    ['global', 1, 0, 0, 0, 0x1b0],
    ['the domain', 2, 9, 0, 0, 0x1b0],
    ['another domain', 2, 8, 0, 0, 0x1a0],
    ['the page', 3, 9, A, 0, 0x1b0],
    ['another page', 3, 9, A + 0x1000, 0, 0x1a0],
    ['a range that holds the page', 3, 9, 0x18_0000, 4, 0x1b0],
  ])('IOTLB_REG, %s', (_name, granularity, domainId, address, order, expected) => {
    const m = moved();
    expect(m.iotlbCommand(granularity, domainId, address, order)).toBe(granularity);
    expect(m.ask()).toBe(expected);
  });
  test.each([
    ['global', 1, 0, true],
    ['the function', 3, RID, true],
    ['another function', 3, RID + 8, false],
  ])('CCMD, %s: the context entry is read again', (_name, granularity, sourceId, again) => {
    const m = legacy();
    m.ask();
    m.set({ type: type.passThrough });
    expect(m.contextCommand(granularity, 0, sourceId)).toBe(granularity);
    m.iotlbCommand(1);
    expect(m.ask()).toBe(again ? A / 4096 : 0x1a0);
    // What was forgotten is noticed.
    expect(m.uses.map((use) => [use.cache, use.missing.descriptor])).toEqual(again ? [] : [['pasid', 'context']]);
  });
  test('does nothing where the queue is in use, and says that nothing was done', () => {
    const m = moved();
    m.startQueue();
    expect([m.iotlbCommand(1), m.contextCommand(1), m.ask()]).toEqual([0, 0, 0x1a0]);
  });
});

describe('abort-DMA mode', () => {
  const aborting = (abortMode: number) => {
    const m = bare({ profile: { extendedCapability: { abortMode } } });
    m.mapFirst(A, 0x180);
    m.firstStage(PASID);
    m.write64(REG.rtaddr, m.root * 4096 + (3 << 10));
    m.command(30);
    m.command(31);
    return m;
  };
  test('refuses every request, without a fault record', () => {
    const m = aborting(1);
    expect([m.request(READ, PASID, A).status, m.request(WRITE, NO_PASID, A).status, m.upstream.pageRequest(PASID, 0, A, READ, 1)]).toEqual([1, 1, 1]);
    expect(m.faults()).toEqual([]);
  });
  test('is an invalid mode on a unit without it', () => {
    const m = aborting(0);
    expect([m.request(READ, PASID, A).status, m.faults().map((fault) => fault.reason)]).toEqual([1, [Fault.rootTableAddress]]);
  });
});
