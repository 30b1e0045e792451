/** The flush queue: mappings of the kernel's own DMA that go are invalidated together and later. Linux, iommu.strict=0. */
import { NO_PASID } from '@siov/layout/pcie';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { describeStale, type FlushQueueOptions, type StaleUse } from '../src/index.js';
import { machine, RID } from './machine.js';

const lazy = (queue: Partial<FlushQueueOptions> = {}) => {
  const uses: StaleUse[] = [];
  const m = machine({ onStale: (use) => void uses.push(use) }, 8192, (clock) => ({ flushQueue: { clock, ...queue } }));
  m.driver.addDevice(RID, { ats: true });
  const dma = m.driver.dma(RID)!;
  const reads = (iova: number): boolean => m.access(RID, NO_PASID, iova, new Uint8Array(4), false) === 0;
  // Something stays mapped, so that the tables do.
  const frame = m.allocator.alloc(4);
  const kept = dma.map(frame, 1);
  return { ...m, dma, reads, frame, kept, uses };
};

describe('a mapping that went', () => {
  test('can be reached by who cached it, until all are flushed; its address is nobody else’s before', () => {
    const m = lazy();
    const iova = m.dma.map(m.frame + 1, 1);
    expect(m.reads(iova)).toBe(true);
    m.dma.unmap(iova, 1);
    // That is what the option costs, and the detector says so.
    expect([m.reads(iova), m.dma.unflushed, m.uses.length]).toEqual([true, 1, 1]);
    expect(describeStale(m.uses[0]!)).toContain('missing: iotlb invalidation');
    expect(m.dma.map(m.frame + 2, 1)).not.toBe(iova);
    m.dma.flush();
    expect([m.reads(iova), m.dma.unflushed]).toEqual([false, 0]);
    expect(m.dma.map(m.frame + 3, 1)).toBe(iova);
    expect(m.uses.length).toBe(1);
  });
  test('is flushed when its time has come', () => {
    const m = lazy({ timeoutNs: 5000 });
    const iova = m.dma.map(m.frame + 1, 1);
    m.reads(iova);
    m.dma.unmap(iova, 1);
    const before = m.clock.now;
    expect(m.clock.wait(() => m.dma.unflushed === 0)).toBe(true);
    expect([m.clock.now - before, m.reads(iova)]).toEqual([5000, false]);
  });
  test('is flushed when there are enough of them: one invalidation for all', () => {
    const m = lazy({ entries: 8 });
    const iovas = Array.from({ length: 8 }, (_, i) => m.dma.map(m.frame + 1 + i, 1));
    for (const iova of iovas) m.reads(iova);
    for (const [i, iova] of iovas.entries()) {
      m.dma.unmap(iova, 1);
      expect(m.dma.unflushed).toBe((i + 1) % 8);
    }
    expect(iovas.map(m.reads)).toEqual(new Array(8).fill(false));
    expect(m.uses).toEqual([]);
  });
  test('takes a table with it: flushed at once, since a cached pointer to the table would hide what comes in its place', () => {
    const m = lazy();
    // A table full of small pages.
    const iova = m.dma.map(m.allocator.alloc(10) + 1, 512);
    m.reads(iova);
    m.dma.unmap(iova, 512);
    expect([m.dma.unflushed, m.reads(iova)]).toEqual([0, false]);
  });
  test('goes with the device', () => {
    const m = lazy();
    const used = m.allocator.used;
    const memory = m.dma.alloc(8192)!;
    memory.free();
    expect([m.dma.unflushed, m.allocator.used]).toEqual([1, used]);
    m.driver.removeDevice(RID);
    expect(m.dma.unflushed).toBe(0);
    m.settle();
  });
});

test('whatever is mapped, unmapped, used and flushed: nothing but what waits to be flushed is ever stale', () => {
  const step = fc.record({ kind: fc.constantFrom('map', 'map', 'unmap', 'ask', 'ask', 'flush', 'time'), pick: fc.nat(30) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const m = lazy({ entries: 6 });
      const live: number[] = [];
      let gone = new Set<number>();
      for (const { kind, pick } of steps) {
        if (kind === 'map') live.push(m.dma.map(m.frame + 1 + (pick % 15), 1));
        else if (kind === 'unmap' && live.length) {
          const [iova] = live.splice(pick % live.length, 1);
          m.dma.unmap(iova!, 1);
          gone.add(iova!);
        } else if (kind === 'ask') for (const iova of live) expect(m.reads(iova)).toBe(true);
        else if (kind === 'flush') m.dma.flush();
        else if (kind === 'time') m.settle();
        if (m.dma.unflushed === 0) gone = new Set();
        for (const iova of gone) m.reads(iova);
        expect(m.uses.every((use) => !live.includes(Number(use.address) - (Number(use.address) % 4096)))).toBe(true);
        m.uses.length = 0;
      }
      m.dma.flush();
      for (const iova of gone) if (!live.includes(iova)) expect(m.reads(iova)).toBe(false);
      expect(m.uses).toEqual([]);
    }),
    { numRuns: 100 },
  );
});
