import { describe, expect, test } from 'vitest';
import { Opcode } from '../src/spec/index.js';
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
