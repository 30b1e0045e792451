import { describe, expect, test } from 'vitest';
import { Command, Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

const SRC = 0x1_0000;
const DST = 0x4_0000;
const counts = (m: ReturnType<typeof machine>) => {
  const { deviceTlbHits: hits, deviceTlbMisses: misses } = m.device.traffic;
  return { requests: hits + misses, hits };
};

describe('one entry per operand slot', () => {
  // The counts that performance counters of the real device show for k moves of p pages each between the same buffers, one at a time.
  test.each([
    [1, 1],
    [10, 1],
    [5, 3],
    [20, 8],
  ])('%i moves of %i pages: k(1 + 2p) requests; 3k - 3 hits for one page, k - 1 for more', (k, p) => {
    const m = machine();
    m.start({ pasid: 5 });
    for (let i = 0; i < k; i++)
      expect(m.execute(m.descriptor(Opcode.memmove, { sourceLow: SRC, destinationLow: DST, size: p * 4096 })).status).toBe('success');
    expect(counts(m)).toEqual({ requests: k * (1 + 2 * p), hits: p === 1 ? 3 * k - 3 : k - 1 });
  });
  test('a NOP asks for its record only', () => {
    const m = machine();
    m.start({ pasid: 5 });
    for (let i = 0; i < 4; i++) m.execute(m.descriptor(Opcode.nop));
    expect(counts(m)).toEqual({ requests: 4, hits: 3 });
  });
  test('without ATS nothing is kept', () => {
    const m = machine();
    m.fn.configWrite(m.fn.at.pri + 4, 2, 0);
    m.fn.configWrite(m.fn.at.ats + 6, 2, 0);
    m.start({ pasid: 5 });
    for (let i = 0; i < 4; i++) m.execute(m.descriptor(Opcode.nop));
    expect([counts(m), m.seen.length]).toEqual([{ requests: 0, hits: 0 }, 4]);
  });
});

describe('what a translation is good for', () => {
  const moved = (m: ReturnType<typeof machine>) => m.execute(m.descriptor(Opcode.memmove, { sourceLow: SRC, destinationLow: DST, size: 64 })).status;
  test('it is used until the remapping unit invalidates it, even when the tables have changed, as hardware uses it', () => {
    const m = machine();
    m.start({ pasid: 5 });
    expect(moved(m)).toBe('success');
    m.absent.add(DST / 4096);
    expect(moved(m)).toBe('success');
    m.device.invalidate();
    expect(moved(m)).toBe('pageFault');
  });
  test('not for another PASID, nor for a write when it was asked for a read', () => {
    const m = machine();
    m.start({ pasid: 5 }, { shared: true });
    expect(moved(m)).toBe('success');
    m.strangers.add(9);
    m.submit(m.descriptor(Opcode.nop), 0);
    m.enqueue(m.descriptor(Opcode.memmove, { pasid: 9, sourceLow: SRC, destinationLow: DST, size: 64 }), 1);
    m.run();
    expect(m.device.describe().swError).toMatchObject({ valid: 1, error: 0x1a, pasid: 9 });
    m.readOnly.add(SRC / 4096);
    expect(m.execute(m.descriptor(Opcode.compare, { sourceLow: SRC, destinationLow: SRC, size: 64 })).status).toBe('success');
    expect(m.execute(m.descriptor(Opcode.fill, { destinationLow: SRC, size: 64 })).status).toBe('pageFault');
  });
  test('a reset and switching ATS off forget it', () => {
    for (const forget of [
      (m: ReturnType<typeof machine>) => m.fn.configWrite(m.fn.at.ats + 6, 2, 0),
      (m: ReturnType<typeof machine>) => m.fn.functionLevelReset(),
    ]) {
      const m = machine();
      m.start({ pasid: 5 });
      moved(m);
      const before = counts(m).hits;
      forget(m);
      m.fn.configWrite(4, 2, 6);
      m.fn.configWrite(m.fn.at.pasid + 6, 2, 5);
      m.fn.configWrite(m.fn.at.ats + 6, 2, 0x8000);
      if (m.read(0x90) === 0) m.start({ pasid: 5 });
      moved(m);
      expect(counts(m).hits).toBe(before);
    }
  });
});

describe('one of the device, or one of each engine', () => {
  /** Two engines that take turns with moves between their own buffers: hits after the first round. */
  const turns = (deviceTlb: 'device' | 'engine') => {
    const m = machine({ deviceTlb });
    m.configureGroup(0, 1, 1);
    m.configureGroup(1, 2, 2);
    for (const wq of [0, 1]) m.configureWq(wq, { pasid: 5 });
    for (const [code, operand] of [
      [Command.enableDevice, 0],
      [Command.enableWq, 0],
      [Command.enableWq, 1],
    ] as const)
      expect(m.command(code, operand)).toBe(0);
    const record = (wq: number) => 0x1000 * (wq + 1);
    const round = (): string[] =>
      [0, 1].map((wq) => {
        const d = { sourceLow: SRC + wq * 0x1000, destinationLow: DST + wq * 0x1000, size: 64, recordLow: record(wq) };
        m.submit(m.descriptor(Opcode.memmove, d), wq);
        m.run();
        return m.record(record(wq)).status as string;
      });
    round();
    const before = counts(m).hits;
    for (let i = 0; i < 4; i++) expect(round()).toEqual(['success', 'success']);
    return { m, hits: counts(m).hits - before, round };
  };
  test('of the device: each pushes out what the other used', () => {
    expect(turns('device').hits).toBe(0);
  });
  test('of each engine: each keeps its own, until an invalidation takes both', () => {
    const { m, hits, round } = turns('engine');
    expect(hits).toBe(4 * 2 * 3);
    m.device.invalidate();
    const before = counts(m).hits;
    round();
    expect(counts(m).hits).toBe(before);
  });
  test('what is neither is refused', () => {
    expect(() => machine({ deviceTlb: 'queue' as never })).toThrow('deviceTlb: queue is not true, false, device or engine');
  });
});
