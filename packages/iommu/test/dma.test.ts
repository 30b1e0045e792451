/** The kernel's own DMA: what a function reaches without a PASID. */
import { NO_PASID } from '@siov/layout/pcie';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { CoherentMemory } from '../src/index.js';
import { machine, RID } from './machine.js';

const host = () => {
  const m = machine();
  m.driver.addDevice(RID, { pasid: true, ats: true });
  const dma = m.driver.dma(RID)!;
  const reads = (iova: number): number => {
    const bytes = new Uint8Array(4);
    const status = m.access(RID, NO_PASID, iova, bytes, false);
    return status === 0 ? new DataView(bytes.buffer).getUint32(0, true) : -status;
  };
  return { ...m, dma, reads };
};

describe('coherent memory', () => {
  test('is the same bytes for the kernel and the function, zeroed, in either direction', () => {
    const m = host();
    const memory = m.dma.alloc(8192)!;
    expect([memory.iova % 4096, memory.words.length, m.reads(memory.iova + 4096)]).toEqual([0, 2048, 0]);
    memory.words[1024] = 0x1234;
    expect(m.reads(memory.iova + 4096)).toBe(0x1234);
    expect(m.access(RID, NO_PASID, memory.iova, Uint8Array.of(1, 2, 3, 4), true)).toBe(0);
    expect(memory.words[0]).toBe(0x0403_0201);
  });
  test('is gone for the function when it was freed, and its frames and addresses are used again', () => {
    const m = host();
    const first = m.dma.alloc(4096)!;
    m.reads(first.iova);
    first.free();
    expect(m.reads(first.iova)).toBeLessThan(0);
    const second = m.dma.alloc(4096)!;
    expect([second.iova, m.reads(second.iova)]).toEqual([first.iova, 0]);
  });
  test('is reached by a PASID too, once that is asked for', () => {
    const m = host();
    const memory = m.dma.alloc(4096)!;
    memory.words[1] = 77;
    const pasid = m.dma.enablePasid();
    const bytes = new Uint8Array(4);
    expect([pasid > 0, m.dma.enablePasid() === pasid, m.access(RID, pasid, memory.iova + 4, bytes, false), bytes[0]]).toEqual([true, true, 0, 77]);
    m.driver.removeDevice(RID);
    m.driver.addDevice(RID, { pasid: true });
    expect([m.driver.dma(RID)!.enablePasid(), m.access(RID, NO_PASID, memory.iova, bytes, false) !== 0]).toEqual([pasid, true]);
  });
  test('a function that was not added has none', () => {
    expect(machine().driver.dma(RID)).toBeUndefined();
  });
});

test('whatever is allocated and freed: ranges never overlap, never touch the interrupt range, and read what was written into them', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 20_000 }), fc.boolean()), { maxLength: 40 }), (steps) => {
      const m = host();
      const held: CoherentMemory[] = [];
      for (const [i, [bytes, release]] of steps.entries()) {
        if (release && held.length > 0) held.splice(i % held.length, 1)[0]!.free();
        const memory = m.dma.alloc(bytes)!;
        memory.words.fill(i + 1);
        held.push(memory);
      }
      const ranges = held.map((h) => [h.iova, h.iova + h.words.length * 4] as const).sort((a, b) => a[0] - b[0]);
      for (const [i, [from, to]] of ranges.entries())
        expect(i + 1 < ranges.length ? to <= ranges[i + 1]![0] : to <= 0xfee0_0000 && from > 0).toBe(true);
      for (const h of held) expect(m.reads(h.iova + h.words.length * 4 - 4)).toBe(h.words[0]);
    }),
    { numRuns: 25 },
  );
});
