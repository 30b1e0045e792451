/** VT-d, "Interrupt Remapping" and "Interrupt Posting". */
import { TlpStatus } from '@siov/layout/pcie';
import { expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { InterruptEntry, PostedInterruptEntry } from '../src/spec/index.js';
import { bare, extent, NO_PASID, PASID, READ, RID, WRITE } from './machine.js';

type Fields = Partial<Record<keyof typeof InterruptEntry.set, number>>;
/** Remapping on, 512 entries; `entry` fills one. */
function remapping(mode = 0) {
  const m = bare();
  const frame = m.allocator.alloc(1);
  const entry = (index: number, fields: Fields, layout: { set: object } = InterruptEntry) => {
    const at = m.word(frame, index * 4);
    m.words.fill(0, at, at + 4);
    for (const [name, value] of Object.entries({ present: 1, ...fields }))
      (layout.set as Record<string, (w: Uint32Array, a: number, v: number) => void>)[name]!(m.words, at, value);
    return at;
  };
  m.write64(0xb8, frame * 4096 + 8 + mode);
  m.command(24);
  m.command(25);
  m.startQueue();
  const message = (index: number, data = 0) => m.upstream.message(0xfee0_0010 | ((index & 0x7fff) << 5) | ((index >>> 15) << 2), data);
  const faults = () => m.faults().map(({ reason, addressHigh, sourceId }) => [reason, (addressHigh as number) >>> 16, sourceId]);
  return { ...m, entry, message, faults };
}
const OK: Fields = { vector: 0x55, destination: 0x0300, sourceId: RID, sourceValidation: 1 };

test('a remappable message goes where its entry says', () => {
  const m = remapping();
  m.entry(7, OK);
  m.message(7);
  expect(m.delivered).toEqual([[0x55, 3]]);
  expect(m.faults()).toEqual([]);
});
test('with SHV the subhandle is added to the handle', () => {
  const m = remapping();
  m.entry(9, OK);
  m.upstream.message(0xfee0_0018 | (7 << 5), 2);
  expect(m.delivered).toEqual([[0x55, 3]]);
});
test('in extended mode the destination has 32 bits', () => {
  const m = remapping(0x800);
  m.entry(7, { ...OK, destination: 0x1_2345 });
  m.message(7);
  expect(m.delivered).toEqual([[0x55, 0x1_2345]]);
});

test.each([
  ['reserved data bits', 0x20, (m: ReturnType<typeof remapping>) => m.upstream.message(0xfee0_0018 | (7 << 5), 0x1_0000)],
  ['an index beyond the table', 0x21, (m: ReturnType<typeof remapping>) => m.message(512), 512],
  ['an entry that is not present', 0x22, (m: ReturnType<typeof remapping>) => m.message(8), 8],
  ['a reserved bit', 0x24, (m: ReturnType<typeof remapping>) => (m.entry(7, OK), (m.words[m.entry(7, OK)]! |= 1 << 12), m.message(7))],
  ['destination bits that xAPIC does not have', 0x24, (m: ReturnType<typeof remapping>) => (m.entry(7, { ...OK, destination: 1 }), m.message(7))],
  ['another source', 0x26, (m: ReturnType<typeof remapping>) => (m.entry(7, { ...OK, sourceId: RID + 1 }), m.message(7))],
  ['SVT 3', 0x26, (m: ReturnType<typeof remapping>) => (m.entry(7, { ...OK, sourceValidation: 3 }), m.message(7))],
  [
    'a bus outside the range',
    0x26,
    (m: ReturnType<typeof remapping>) => (m.entry(7, { ...OK, sourceValidation: 2, sourceId: 0x0406 }), m.message(7)),
  ],
  ['compatibility format', 0x25, (m: ReturnType<typeof remapping>) => m.upstream.message(0xfee0_1000, 0x55), 0],
] as const)('%s is fault 0x%s', (_rule, reason, run, index: number = 7) => {
  const m = remapping();
  run(m);
  expect(m.delivered).toEqual([]);
  expect(m.faults()).toEqual([[reason, index, RID]]);
});
test('a table without memory is fault 0x23', () => {
  const m = remapping();
  m.write64(0xb8, 0x9_0000 * 4096 + 8);
  m.command(24);
  m.message(7);
  expect(m.faults()).toEqual([[0x23, 7, RID]]);
});
test('FPD of the entry silences its faults', () => {
  const m = remapping();
  m.entry(7, { ...OK, present: 0, faultDisable: 1 });
  m.message(7);
  expect(m.faults()).toEqual([]);
});
test.each([
  [0, RID, true],
  [0, RID ^ 4, false],
  [1, RID ^ 4, true],
  [2, RID ^ 6, true],
  [3, RID ^ 7, true],
  [3, RID ^ 8, false],
])('source qualifier %i looks at its bits alone', (sourceQualifier, sourceId, passes) => {
  const m = remapping();
  m.entry(7, { ...OK, sourceQualifier, sourceId });
  m.message(7);
  expect(m.delivered.length).toBe(passes ? 1 : 0);
});
test('a bus range passes its buses', () => {
  const m = remapping();
  m.entry(7, { ...OK, sourceValidation: 2, sourceId: 0x0205 });
  m.message(7);
  expect(m.delivered.length).toBe(1);
});

test('an entry is cached until it is invalidated, by index or globally; another index does not do', () => {
  for (const [words, fresh] of [
    [[0x04], true],
    [[0x14, 7], true],
    [[0x14 | (2 << 27), 4], true],
    [[0x14, 8], false],
  ] as const) {
    const m = remapping();
    m.entry(7, OK);
    m.message(7);
    m.entry(7, { ...OK, vector: 0x66 });
    m.message(7);
    m.submit(...words);
    m.message(7);
    expect(m.delivered.map(([vector]) => vector)).toEqual([0x55, 0x55, fresh ? 0x66 : 0x55]);
    expect([m.unit.counters[UnitCounter.interruptHits], m.unit.counters[UnitCounter.interruptMisses]]).toEqual(fresh ? [1, 2] : [2, 1]);
  }
});

test('compatibility format passes with CFIS, and without remapping', () => {
  const m = remapping();
  m.command(23);
  m.upstream.message(0xfee0_4000, 0x71);
  m.command(25, false);
  m.upstream.message(0xfee0_4000, 0x72);
  expect(m.delivered).toEqual([
    [0x71, 4],
    [0x72, 4],
  ]);
});

test('a posted entry sets the request bit, and notifies once until software clears ON; URG overrides SN', () => {
  const m = remapping();
  const frame = m.allocator.alloc();
  const pid = m.word(frame, 16);
  const posted = (urgent: number) =>
    m.entry(
      7,
      {
        posted: 1,
        vector: 0x91,
        urgent,
        descriptorLow: ((frame * 4096 + 64) >>> 6) & 0x3ff_ffff,
        descriptorHigh: frame >>> 20,
        sourceId: RID,
        sourceValidation: 1,
      } as Fields,
      PostedInterruptEntry,
    );
  posted(0);
  m.words[pid + 8] = 0xf2 << 16;
  m.words[pid + 9] = 0x0200;
  m.message(7);
  m.message(7);
  expect(m.words[pid + 4]).toBe(1 << 17);
  expect(m.delivered).toEqual([[0xf2, 2]]);
  m.words[pid + 8] = (0xf2 << 16) | 2;
  m.message(7);
  expect(m.delivered.length).toBe(1);
  posted(1);
  m.submit(0x04);
  m.message(7);
  expect(m.delivered.length).toBe(2);
});

test('a dword write without PASID to the interrupt range is a message when it is committed; a read, a byte, or a PASID is not', () => {
  const m = remapping();
  m.firstStage(0);
  m.firstStage(PASID);
  m.enable();
  m.entry(7, OK);
  const out = extent();
  expect(m.upstream.acquire(WRITE, NO_PASID, 0, 0xfee0_00f0 | 0, 64, out)).toBe(TlpStatus.success);
  expect(out.length).toBe(4);
  out.words[out.offset / 4] = 0;
  expect(m.delivered).toEqual([]);
  m.upstream.commit(out);
  expect(m.delivered).toEqual([[0x55, 3]]);
  expect(m.upstream.acquire(READ, NO_PASID, 0, 0xfee0_00f0 | 0, 64, out)).toBe(TlpStatus.unsupportedRequest);
  expect(m.upstream.acquire(WRITE, NO_PASID, 0, 0xfee0_00f1 | 0, 1, out)).toBe(TlpStatus.unsupportedRequest);
  expect(m.upstream.acquire(WRITE, PASID, 0, 0xfee0_00f0 | 0, 64, out)).toBe(TlpStatus.unsupportedRequest);
  expect(m.faults().map(([reason]) => reason)).toEqual([0x87, 0x87, 0x71]);
});
