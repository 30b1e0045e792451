/** What a user of a queue calls: a builder for each operation, typed results, batches, and going on after page faults. */
import { gnrD } from '@siov/idxd-device';
import { DIF_BLOCKS, DIF_BYTES, Flag } from '@siov/idxd-device/spec';
import { MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Client, type Dif } from '../src/client.js';
import { machine, openPortal } from './machine.js';

const PAGE = 4096;
const m = machine({
  profile: gnrD,
  config: {
    wqs: [
      { mode: 'dedicated', size: 16, group: 0 },
      { mode: 'shared', size: 4, group: 0 },
    ],
  },
});
const paths = m.driver.wqs.map((wq) => m.node(wq).path);
const bytesOf = (seed: number, n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (Math.imul(i + seed, 0x9e37_79b1) >>> 24) & 0xff);

let owner: { end(): void } | undefined;
/** A process with a queue; the dedicated one belongs to the process that was made last. */
function process(mode: 'dedicated' | 'shared' = 'dedicated', depth = 8) {
  if (mode === 'dedicated') owner?.end();
  const t = m.task();
  const { portal } = openPortal(t, paths[mode === 'dedicated' ? 0 : 1]!);
  const client = new Client(t, { address: portal, mode }, { depth });
  const untouched = (pages: number): number => t.mmap(0, pages * PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
  const put = (at: number, bytes: Uint8Array): number => t.copyOut(at, bytes);
  const get = (at: number, n: number): Uint8Array => {
    const out = new Uint8Array(n);
    expect(t.copyIn(at, out)).toBe(0);
    return out;
  };
  /** Bytes at a place of their own. */
  const place = (bytes: Uint8Array, offset = 0): number => {
    const at = t.alloc(Math.ceil((bytes.length + offset) / PAGE) * PAGE) + offset;
    put(at, bytes);
    return at;
  };
  const run = (slot = 0) => client.run(slot, m.clock)!;
  const it = { t, client, untouched, put, get, place, run, end: () => void m.kernel.kill(t.pid) };
  if (mode === 'dedicated') owner = it;
  return it;
}
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe('each operation by its own words', () => {
  const a = bytesOf(1, 9000);
  const world = () => {
    const p = process();
    return { p, client: p.client, source: p.place(a, 100) };
  };
  test('nop, drain, cache flush, translation fetch', () => {
    const { p, client, source } = world();
    client.nop(0);
    expect(p.run()).toMatchObject({ operation: 'nop', status: 'success', ok: true });
    client.drain(0);
    expect(p.run()).toMatchObject({ operation: 'drain', ok: true });
    client.cacheFlush(0, source, 5000);
    expect(p.run()).toMatchObject({ operation: 'cacheFlush', ok: true, completed: 5000 });
    client.translationFetch(0, source, 9000);
    expect(p.run()).toMatchObject({ operation: 'translationFetch', ok: true, completed: 9000 });
  });
  test('memmove, fill, dualcast, CRC with a copy: into pages that nobody touched', () => {
    const { p, client, source } = world();
    const to = p.untouched(6);
    client.memmove(0, to + 50, source, a.length);
    expect(p.run()).toMatchObject({ operation: 'memmove', ok: true });
    expect(same(p.get(to + 50, a.length), a)).toBe(true);
    client.fill(0, to + 3, 0x0403_0201, 0x0807_0605, 9999);
    expect(p.run().ok).toBe(true);
    expect(p.get(to + 3, 9999).findIndex((byte, i) => byte !== (i & 7) + 1)).toBe(-1);
    const [one, two] = [p.untouched(4), p.untouched(4)];
    client.dualcast(0, one + 64, two + 64, source, a.length);
    expect(p.run().ok).toBe(true);
    expect([same(p.get(one + 64, a.length), a), same(p.get(two + 64, a.length), a)]).toEqual([true, true]);
    client.crc(0, source, 4000);
    const first = p.run();
    client.crc(0, source + 4000, 5000, first.operation === 'crc' ? first.crc : 0);
    const whole = p.run();
    const copy = p.untouched(4);
    client.copyCrc(0, copy, source, a.length);
    expect(p.run()).toMatchObject({ operation: 'copyCrc', crc: whole.operation === 'crc' ? whole.crc : -1 });
    expect(same(p.get(copy, a.length), a)).toBe(true);
  });
  test('compare: equal, or where it differs; an expectation that is not met is status 0x02', () => {
    const { p, client, source } = world();
    const b = a.slice();
    b[7000] = b[7000]! ^ 1;
    const other = p.place(b);
    client.compare(0, source, other, a.length);
    expect(p.run()).toMatchObject({ operation: 'compare', status: 'success', equal: false, differsAt: 7000 });
    client.compare(0, source, other, 7000, 0);
    expect(p.run()).toMatchObject({ status: 'success', equal: true });
    client.compare(0, source, other, 7000, 1);
    expect(p.run()).toMatchObject({ status: 'successFalsePredicate', ok: true, equal: true });
    const pattern = p.place(Uint8Array.from({ length: 8192 }, (_, i) => (i & 7) + 1));
    client.comparePattern(0, pattern, 0x0403_0201, 0x0807_0605, 8192);
    expect(p.run()).toMatchObject({ operation: 'comparePattern', equal: true });
  });
  test('what goes wrong is named: invalid flags, a page that is nobody’s', () => {
    const { p, client, source } = world();
    client.nop(0, Flag.checkResult);
    expect(p.run()).toMatchObject({ status: 'invalidFlags', ok: false, invalidFlags: Flag.checkResult });
    client.memmove(0, source, 0x7000_0000_0000, 64);
    client.submit(0);
    m.run();
    expect(client.result(0)).toMatchObject({ status: 'pageFault', fault: { address: 0x7000_0000_0000, write: false }, completed: 0 });
    client.nop(1);
    expect(client.result(1)).toBeUndefined();
  });
});

test('delta: what creation says is what a plain comparison finds, and applied it makes source 2, whatever pages are absent', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1200 }), fc.array(fc.nat(1199), { maxLength: 900 }), fc.nat(), (units, changes, seed) => {
      const p = process();
      const a = bytesOf(seed, units * 8);
      const b = a.slice();
      for (const at of changes) b[(at % units) * 8] = b[(at % units) * 8]! ^ 0x5a;
      const different = Array.from({ length: units }, (_, i) => !same(a.subarray(i * 8, i * 8 + 8), b.subarray(i * 8, i * 8 + 8))).filter(
        Boolean,
      ).length;
      const [one, two] = [p.place(a), p.place(b)];
      const record = p.untouched(4);
      p.client.createDelta(0, one, two, a.length, record, 12_000);
      const made = p.run();
      expect(made).toMatchObject({ operation: 'createDelta', ok: true, outcome: different > 0 ? 'record' : 'same', recordBytes: different * 10 });
      if (different > 0) {
        const target = p.place(a);
        p.client.applyDelta(0, target, record, different * 10, a.length);
        expect(p.run()).toMatchObject({ operation: 'applyDelta', ok: true });
        expect(same(p.get(target, b.length), b)).toBe(true);
        // Onto pages that were never touched: the same where the delta has an entry, and zero elsewhere.
        const fresh = p.untouched(3);
        p.client.applyDelta(0, fresh, record, different * 10, a.length);
        expect(p.run().ok).toBe(true);
        const zeros = p.get(fresh, b.length);
        for (let i = 0; i < units; i++) {
          const changed = !same(a.subarray(i * 8, i * 8 + 8), b.subarray(i * 8, i * 8 + 8));
          expect(same(zeros.subarray(i * 8, i * 8 + 8), changed ? b.subarray(i * 8, i * 8 + 8) : new Uint8Array(8))).toBe(true);
        }
      }
    }),
    { numRuns: 15 },
  );
});
test('delta: a record that is too small overflows', () => {
  const p = process();
  const [one, two] = [p.place(bytesOf(1, 800)), p.place(bytesOf(2, 800))];
  p.client.createDelta(0, one, two, 800, p.untouched(1), 80);
  expect(p.run()).toMatchObject({ outcome: 'overflow', recordBytes: 80 });
});

test('DIF: insert, check, update and strip over pages that come one by one; a damaged block is found where it is', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...DIF_BLOCKS),
      fc.integer({ min: 1, max: 12 }),
      fc.nat(0xffff_ff00),
      fc.nat(0xff00),
      fc.boolean(),
      fc.nat(PAGE - 1),
      fc.nat(),
      (block, blocks, reference, application, applicationIncrements, offset, damage) => {
        const p = process();
        const data = bytesOf(damage, block * blocks);
        const source = p.place(data, offset);
        const tags = { reference, application, applicationIncrements };
        const dif: Dif = { block, seedOnes: blocks % 2 === 0, source: tags, destination: tags };
        const pages = Math.ceil((blocks * (block + DIF_BYTES) + offset) / PAGE) + 1;
        const whole = blocks * (block + DIF_BYTES);
        const [tagged, updated, back, fields] = [p.untouched(pages), p.untouched(pages), p.untouched(pages), p.untouched(1)];
        p.client.difInsert(0, tagged + offset, source, data.length, dif);
        expect(p.run()).toMatchObject({ operation: 'difInsert', ok: true });
        p.client.difCheck(0, tagged + offset, whole, dif);
        expect(p.run()).toMatchObject({ ok: true, wrong: [] });
        const other = { ...dif, destination: { reference: 5, referenceFixed: true } };
        p.client.difUpdate(0, updated, tagged + offset, whole, other);
        expect(p.run().ok).toBe(true);
        p.client.difCheck(0, updated, whole, { ...dif, source: { reference: 5, referenceFixed: true } });
        expect(p.run()).toMatchObject({ ok: true, wrong: [] });
        p.client.difStrip(0, back + 1, tagged + offset, whole, dif);
        expect(p.run().ok).toBe(true);
        expect(same(p.get(back + 1, data.length), data)).toBe(true);
        p.client.dixGenerate(0, fields, source, data.length, dif);
        expect(p.run().ok).toBe(true);
        for (let i = 0; i < blocks; i++) expect(same(p.get(fields + i * 8, 8), p.get(tagged + offset + i * (block + 8) + block, 8))).toBe(true);
        const bad = damage % blocks;
        const at = tagged + offset + bad * (block + 8);
        p.put(at, Uint8Array.of(p.get(at, 1)[0]! ^ 0x80));
        p.client.difCheck(0, tagged + offset, whole, dif);
        expect(p.run()).toMatchObject({ status: 'difError', ok: false, wrong: ['guard'] });
      },
    ),
    { numRuns: 25 },
  );
});
test('DIF: the very first descriptor of a process has its tags', () => {
  const p = process();
  const source = p.place(bytesOf(1, 512));
  const to = p.place(new Uint8Array(PAGE));
  p.client.difInsert(0, to, source, 512, { block: 512, destination: { application: 0x1234 } });
  expect(p.run().ok).toBe(true);
  expect([...p.get(to + 514, 2)]).toEqual([0x12, 0x34]);
});
test('DIF: a block size that there is not is refused', () => {
  const p = process();
  expect(() => p.client.difCheck(0, 0, 512, { block: 500 as 512 })).toThrow(RangeError);
});

describe('batches', () => {
  test('slots that were prepared go in one submission; each has its record besides the batch’s', () => {
    const p = process('dedicated', 16);
    const from = p.place(bytesOf(3, 15 * 64));
    const to = p.untouched(1);
    p.put(to, Uint8Array.of(0));
    for (let i = 0; i < 15; i++) p.client.memmove(i, to + i * 64, from + i * 64, 64);
    p.client.batch(15, 0, 15);
    expect(p.run(15)).toMatchObject({ operation: 'batch', status: 'success', completed: 15 });
    for (let i = 0; i < 15; i++) expect(p.client.result(i)).toMatchObject({ operation: 'memmove', ok: true });
    expect(same(p.get(to, 15 * 64), bytesOf(3, 15 * 64))).toBe(true);
    expect(() => p.client.batch(3, 0, 15)).toThrow(RangeError);
  });
  test('a member that failed is named by its record, the batch by 0x05', () => {
    const p = process();
    p.client.nop(0);
    p.client.nop(1, Flag.checkResult);
    p.client.batch(2, 0, 2);
    expect(p.run(2)).toMatchObject({ status: 'batchFail', ok: false, completed: 2 });
    expect([p.client.result(0)!.status, p.client.result(1)!.status]).toEqual(['success', 'invalidFlags']);
  });
  test.each([1, 2, 5])('a list whose last %i members lie on a page that is not there: the batch goes on behind those that were done', (left) => {
    const p = process('dedicated', 129);
    const from = p.place(bytesOf(4, 4096));
    const to = p.place(new Uint8Array(4096));
    const done = 4;
    // The arena's second page begins at slot 64.
    const first = 64 - done;
    for (let i = 0; i < done + left; i++) p.client.memmove(first + i, to + i * 8, from + i * 8, 8);
    const list = p.client.descriptors + PAGE;
    // Swapped out and in again: the bytes stay, the mapping goes at the first access of the device only.
    const saved = p.get(list, PAGE);
    p.t.munmap(list, PAGE);
    const answer = (() => {
      p.t.mmap(list, PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
      p.client.batch(0, first, done + left);
      p.client.submit(0);
      m.run();
      const fault = p.client.result(0)!;
      p.put(list, saved);
      expect(p.client.resume(0)).toBe(true);
      return [fault, p.run(0)] as const;
    })();
    expect(answer[0]).toMatchObject({ status: 'batchFault', completed: done, fault: { address: list, write: false } });
    expect(answer[1]).toMatchObject({ status: 'success' });
    for (let i = 0; i < done + left; i++) expect(p.client.result(first + i)).toMatchObject({ ok: true });
    expect(same(p.get(to, (done + left) * 8), p.get(from, (done + left) * 8))).toBe(true);
  });
});

test('a full shared queue: run backs off and gets in', () => {
  const crowd = process('shared', 8);
  const p = process('shared', 2);
  for (let i = 0; i < 4; i++) {
    crowd.client.nop(i);
    expect(crowd.client.submit(i)).toBe(0);
  }
  p.client.nop(0);
  expect(p.run()).toMatchObject({ ok: true });
  expect(p.client.retries).toBeGreaterThan(0);
});
test('a queue that is off: run ends without a result instead of for ever', () => {
  const p = process('shared', 2);
  m.driver.disableWq(m.driver.wqs[1]!);
  p.client.nop(0);
  expect(p.client.run(0, m.clock)).toBeUndefined();
  m.driver.enableWq(m.driver.wqs[1]!);
});
