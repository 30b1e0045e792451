import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FrameAllocator, PhysicalMemory } from '../src/index.js';

const world = (firstFrame: number, count: number, scatter?: number) => {
  const ram = new PhysicalMemory().addRam(firstFrame, count);
  return { ram, frames: new FrameAllocator(ram, undefined, undefined, scatter === undefined ? {} : { scatter }) };
};

test('no frame is handed out twice; blocks are aligned, zeroed, inside; all come back', () => {
  const steps = fc.array(fc.record({ order: fc.integer({ min: 0, max: 4 }), give: fc.boolean(), pick: fc.nat() }), { maxLength: 150 });
  fc.assert(
    fc.property(
      steps,
      fc.integer({ min: 0, max: 70 }),
      fc.integer({ min: 20, max: 150 }),
      fc.option(fc.integer({ min: 1 })),
      (list, first, count, seed) => {
        const { ram, frames } = world(first, count, seed ?? undefined);
        const held: [frame: number, order: number][] = [];
        const owned = new Set<number>();
        for (const { order, give, pick } of list) {
          if (give && held.length > 0) {
            const [frame, size] = held.splice(pick % held.length, 1)[0]!;
            frames.free(frame, size);
            for (let i = 0; i < 1 << size; i++) owned.delete(frame + i);
          } else {
            const frame = frames.alloc(order);
            if (frame < 0) continue;
            held.push([frame, order]);
            expect(frame % (1 << order)).toBe(0);
            for (let i = frame; i < frame + (1 << order); i++) {
              expect([owned.has(i), i >= first && i < first + count && i > 0]).toEqual([false, true]);
              owned.add(i);
            }
            const bytes = ram.bytes.subarray((frame - first) * 4096, (frame - first + (1 << order)) * 4096);
            expect(bytes.every((byte) => byte === 0)).toBe(true);
            bytes.fill(0xaa);
          }
          expect(frames.used).toBe(owned.size);
        }
        for (const [frame, order] of held) frames.free(frame, order);
        expect(frames.used).toBe(0);
        let singles = 0;
        while (frames.alloc() >= 0) singles++;
        expect(singles).toBe(frames.total);
      },
    ),
    { numRuns: 60 },
  );
});

test('freed blocks join again to the largest', () => {
  const { frames } = world(0x400, 0x400);
  const singles = Array.from({ length: 0x400 }, () => frames.alloc());
  expect(frames.alloc()).toBe(-1);
  for (const frame of singles.reverse()) frames.free(frame);
  expect(frames.alloc(10)).toBe(0x400);
});

test('scatter hands out single frames out of order, the same for the same seed', () => {
  const take = (seed?: number) => {
    const { frames } = world(0x100, 512, seed);
    return Array.from({ length: 100 }, () => frames.alloc());
  };
  const neighbours = (list: number[]) => list.filter((frame, i) => i > 0 && frame === list[i - 1]! + 1).length;
  expect(take(1)).toEqual(take(1));
  expect(take(1)).not.toEqual(take(2));
  expect(neighbours(take())).toBe(99);
  expect(neighbours(take(1))).toBeLessThan(10);
});

test('what was not handed out is not taken back', () => {
  const { frames } = world(0x100, 64);
  const block = frames.alloc(2);
  expect(() => frames.free(block, 1)).toThrow(RangeError);
  expect(() => frames.free(block + 1)).toThrow(RangeError);
  frames.free(block, 2);
  expect(() => frames.free(block, 2)).toThrow(RangeError);
  expect(() => frames.alloc(19)).toThrow(/order/);
});
