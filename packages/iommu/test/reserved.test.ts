/**
 * Every reserved bit of every structure on the way of a request, generated from the layout tables: set, it is the structure's fault. And every
 * field that a capability gates: legal with it, reserved without. VT-d, "Translation Structure Formats", "Fault Conditions".
 */
import { describe, expect, test } from 'vitest';
import { type Profile, UnitCounter } from '../src/index.js';
import { ContextEntry, Fault, InterruptEntry, PasidDirectoryEntry, PasidEntry, PostedInterruptEntry, RootEntry } from '../src/spec/index.js';
import { type Bare, bare, NO_PASID, PASID, READ, RID } from './machine.js';

const A = 0x18_0000;
const HOST_WIDTH = 43;
type Kind = 'firstStage' | 'secondStage' | 'nested' | 'passThrough';
const kinds: readonly Kind[] = ['firstStage', 'secondStage', 'nested', 'passThrough'];

/** A unit on which PASID 5, of the kind asked for, reaches a page at A (which is memory itself, for pass-through). */
function world(kind: Kind, profile: Profile = {}): Bare {
  const m = bare({ profile });
  m.mapFirst(A, 0x180, 1, true);
  m.mapSecond(0x180 * 4096, 0x190);
  m.mapSecond(A, 0x1a0);
  m[kind](PASID);
  m.enable();
  m.startQueue();
  return m;
}
/** Everything is forgotten, so that memory is read again. */
const flush = (m: Bare): void => {
  m.submit(1 | (1 << 4));
  m.submit(7 | (3 << 4));
  m.submit(2 | (1 << 4));
};
/** At A, or straight through. */
const reaches = (m: Bare, pasid = PASID): boolean => m.request(READ, pasid, A).status === 0;

interface Structure {
  readonly layout: { readonly bytes: number; readonly masks: { readonly reserved: Uint32Array } };
  readonly at: (m: Bare) => number;
  readonly reason: number;
  /** Words that hold an address above the page: their bits from the host's width on are reserved too. */
  readonly addressWords: readonly number[];
}
const structures: Readonly<Record<string, Structure>> = {
  'root entry': { layout: RootEntry, at: (m) => m.at.root, reason: Fault.rootReserved, addressWords: [1] },
  'context entry': { layout: ContextEntry, at: (m) => m.at.context, reason: Fault.contextReserved, addressWords: [1] },
  'PASID directory entry': { layout: PasidDirectoryEntry, at: (m) => m.at.directory, reason: Fault.directoryReserved, addressWords: [1] },
  'PASID entry': { layout: PasidEntry, at: (m) => m.at.pasid(PASID), reason: Fault.pasidReserved, addressWords: [1] },
};

describe.each(kinds)('a PASID of kind %s', (kind) => {
  test.each(Object.entries(structures))('every reserved bit of the %s', (_name, { layout, at, reason, addressWords }) => {
    const m = world(kind);
    expect(reaches(m)).toBe(true);
    let tried = 0;
    for (let word = 0; word < layout.bytes / 4; word++) {
      const beyond = addressWords.includes(word) ? ~(2 ** (HOST_WIDTH - 32) - 1) >>> 0 : 0;
      const reserved = (layout.masks.reserved[word]! | beyond) >>> 0;
      for (let bit = 0; bit < 32; bit++) {
        if (!((reserved >>> bit) & 1)) continue;
        tried++;
        const index = at(m) + word;
        m.words[index] = m.words[index]! ^ (1 << bit);
        flush(m);
        expect([word, bit, reaches(m)]).toEqual([word, bit, false]);
        expect([word, bit, m.faults().map((fault) => fault.reason)]).toEqual([word, bit, [reason]]);
        m.words[index] = m.words[index]! ^ (1 << bit);
      }
    }
    flush(m);
    expect([reaches(m), tried > 0]).toEqual([true, true]);
  });
});

const gates: readonly (readonly [structure: string, field: string, capability: string, value: number])[] = [
  ['context entry', 'deviceTlbEnable', 'deviceTlb', 1],
  ['context entry', 'pageRequestEnable', 'pageRequests', 1],
  ['context entry', 'ridPasid', 'ridPasid', 5],
  ['context entry', 'ridPrivilege', 'ridPrivilege', 1],
  ['PASID entry', 'secondStageAccessedDirty', 'secondStageAccessedDirty', 1],
  ['PASID entry', 'pageWalkSnoop', 'coherentWalk', 1],
  ['PASID entry', 'pageSnoop', 'snoopControl', 1],
  ['PASID entry', 'cacheDisable', 'memoryTypes', 1],
  ['PASID entry', 'memoryTypeEnable', 'memoryTypes', 1],
  ['PASID entry', 'pageAttributes', 'memoryTypes', 6],
  ['PASID entry', 'supervisorRequests', 'supervisorRequests', 1],
  ['PASID entry', 'extendedAccessed', 'extendedAccessed', 1],
];
test.each(gates)('%s, %s: legal with ECAP %s, reserved without', (name, field, capability, value) => {
  const { layout, at, reason } = structures[name]!;
  const set = (layout as unknown as { set: Record<string, (w: Uint32Array, a: number, v: number) => void> }).set[field]!;
  for (const has of [1, 0]) {
    // What else a context entry enables goes with its own capability; here only the field in question is set.
    const m = world('firstStage', { extendedCapability: { [capability]: has } });
    ContextEntry.set.deviceTlbEnable(m.words, m.at.context, 0);
    ContextEntry.set.pageRequestEnable(m.words, m.at.context, 0);
    expect([has, reaches(m)]).toEqual([has, true]);
    set(m.words, at(m), value);
    flush(m);
    expect([has, reaches(m)]).toEqual([has, has === 1]);
    expect(m.faults().map((fault) => fault.reason)).toEqual(has ? [] : [reason]);
  }
});

describe('paging entries', () => {
  /** Bits of an entry's two words that are reserved at a leaf of a level. */
  const beyondHost = Array.from({ length: 52 - HOST_WIDTH }, (_, i) => HOST_WIDTH + i);
  const range = (from: number, to: number): number[] => Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
  const flip = (m: Bare, slot: number, bit: number): void => {
    m.words[slot + (bit >>> 5)] = m.words[slot + (bit >>> 5)]! ^ (1 << (bit & 31));
  };
  test.each([
    [1, 0x5000, [...beyondHost]],
    [2, 0x4000_0000, [...beyondHost, ...range(13, 20)]],
    [3, 0x80_0000_0000, [...beyondHost, ...range(13, 29)]],
  ])('first stage, a leaf of level %i: address bits beyond the host’s, and those below the page’s size', (level, address, bits) => {
    const m = bare();
    const slot = m.mapFirst(address, level === 3 ? 0 : 0x200, level);
    const ask = address + (level === 3 ? 0x20_0000 : 0);
    m.firstStage(PASID);
    m.enable();
    m.startQueue();
    expect(m.request(READ, PASID, ask).status).toBe(0);
    for (const bit of bits) {
      flip(m, slot, bit);
      flush(m);
      expect([bit, m.request(READ, PASID, ask).status === 0, m.faults().map((fault) => fault.reason)]).toEqual([
        bit,
        false,
        [Fault.firstStageReserved],
      ]);
      flip(m, slot, bit);
    }
  });
  test.each([
    [1, 0x5000, [...beyondHost, 62]],
    [2, 0x4000_0000, [...beyondHost, 62, ...range(12, 20)]],
    [3, 0x40_0000_0000, [...beyondHost, 62, ...range(12, 29)]],
  ])('second stage, a leaf of level %i: the same, and bit 62', (level, address, bits) => {
    const m = bare();
    const slot = m.mapSecond(address, level === 3 ? 0 : 0x200, level);
    const ask = address + (level === 3 ? 0x20_0000 : 0);
    m.secondStage(PASID);
    m.enable();
    m.startQueue();
    expect(m.request(READ, PASID, ask).status).toBe(0);
    for (const bit of bits) {
      flip(m, slot, bit);
      flush(m);
      expect([bit, m.request(READ, PASID, ask).status === 0, m.faults().map((fault) => fault.reason)]).toEqual([
        bit,
        false,
        [Fault.secondStageReserved],
      ]);
      flip(m, slot, bit);
    }
  });
});

describe('interrupt remapping entries', () => {
  test.each([
    ['remapped', InterruptEntry, { present: 1, vector: 0x55, destination: 0x300, sourceId: RID, sourceValidation: 1 }],
    ['posted', PostedInterruptEntry, { present: 1, posted: 1, vector: 0x55, sourceId: RID, sourceValidation: 1 }],
  ] as const)('%s: every reserved bit', (_kind, layout, fields) => {
    const m = bare();
    const table = m.allocator.alloc();
    const at = m.word(table, 7 * 4);
    const descriptor = m.allocator.alloc();
    for (const [name, value] of Object.entries(fields))
      (layout.set as Record<string, (w: Uint32Array, a: number, v: number) => void>)[name]!(m.words, at, value);
    if (layout === PostedInterruptEntry) m.words[at + 1] = m.words[at + 1]! | (descriptor * 4096);
    m.write64(0xb8, table * 4096 + 8);
    m.command(24);
    m.command(25);
    m.startQueue();
    const send = (): number[] => {
      m.submit(4);
      m.upstream.message(0xfee0_0010 | (7 << 5), 0);
      return m.faults().map((fault) => fault.reason as number);
    };
    expect(send()).toEqual([]);
    let tried = 0;
    for (let word = 0; word < 4; word++)
      for (let bit = 0; bit < 32; bit++) {
        if (!((layout.masks.reserved[word]! >>> bit) & 1)) continue;
        tried++;
        m.words[at + word] = m.words[at + word]! ^ (1 << bit);
        expect([word, bit, send()]).toEqual([word, bit, [Fault.interruptEntryReserved]]);
        m.words[at + word] = m.words[at + word]! ^ (1 << bit);
      }
    expect([send(), tried > 0]).toEqual([[], true]);
  });
});

test('a request without a PASID takes the same way by RID_PASID, and its faults name no PASID', () => {
  const m = world('firstStage');
  ContextEntry.set.ridPasid(m.words, m.at.context, PASID);
  expect(reaches(m, NO_PASID)).toBe(true);
  m.words[m.at.pasid(PASID) + 15] = 1;
  flush(m);
  expect(reaches(m, NO_PASID)).toBe(false);
  expect(m.faults()).toMatchObject([{ reason: Fault.pasidReserved, pasidPresent: 0 }]);
  expect(m.unit.counters[UnitCounter.faults]).toBe(1);
});
