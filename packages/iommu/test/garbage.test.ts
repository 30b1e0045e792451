/** Bad input: whatever bytes the structures hold and whatever is asked, there is an answer, and no access outside the memory given. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { IommuUnit } from '../src/index.js';
import { extent, world } from './machine.js';

const FRAMES = 24;
/** Reasons met over all runs. */
const reasons = new Set<number>();
let successes = 0;
/**
 * What a word of a world that nearly makes sense holds: frame 0 root, 1 to 3 contexts, 4 to 7 PASID directories, 8 to 11 PASID tables, the
 * rest page tables. `r`: chance.
 */
function likely(frame: number, word: number, r: number): number {
  const pick = (bits: readonly number[]): number => bits[(r >>> 12) % bits.length]!;
  const to = (first: number, count: number): number => (0x100 + first + ((r >>> 4) % count)) << 12;
  if (frame === 0) return word % 2 ? 0 : to(1, 3) | 1;
  if (frame < 4) return word % 8 ? 0 : to(4, 4) | pick([0x1d, 0x1d, 0x0d, 0x1f, 0x1c]);
  if (frame < 8) return word % 2 ? 0 : to(8, 4) | 1;
  if (frame < 12)
    return word % 16 === 0 ? to(12, FRAMES - 12) | pick([0x41, 0xc9, 0x89, 0x101, 0xcd, 0x8f]) : word % 16 === 4 ? to(12, FRAMES - 12) : 0;
  return word % 2 ? 0 : to(12, FRAMES - 12) | pick([0x67, 0x67, 0x07, 0x67, 0x87, 0x03]);
}
const w32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

test('random memory, random registers, random requests: an answer each time, extents within memory', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { minLength: 64, maxLength: 256 }),
      fc.integer({ min: 0, max: 3 }),
      fc.array(
        fc.tuple(
          fc.nat(0xf),
          fc.oneof(fc.integer({ min: -1, max: 2 ** 20 - 1 }), fc.nat(8191)),
          fc.oneof(w32, fc.nat(0xffff)),
          w32,
          fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        ),
        {
          minLength: 20,
          maxLength: 60,
        },
      ),
      (noise, kind, requests) => {
        const { memory, words } = world(FRAMES);
        for (let i = 0; i < words.length; i++) {
          const r = Math.imul(noise[i % noise.length]! ^ Math.imul(i, 0x9e37_79b1), 0x85eb_ca6b) >>> 0;
          // Kind 0: pure noise. Others: pointers that mostly lead on, so that look-ups get far; loops are the rule.
          words[i] = kind === 0 || r % 32 === 0 ? r : likely(i >>> 10, i & 1023, r);
        }
        const deliveries: number[] = [];
        const unit = new IommuUnit({ memory, sink: { deliver: (vector) => void deliveries.push(vector) } });
        unit.write(0x20, 4, 0x10_0400);
        unit.write(0x18, 4, 0x4000_0000);
        unit.write(0x90, 4, 0x10_3800);
        unit.write(0xb8, 4, 0x10_500f);
        unit.write(0x18, 4, 0x0100_0000);
        unit.write(0xd0, 4, 0x10_7000);
        unit.write(0x18, 4, 0x8600_0000);
        unit.write(0x88, 4, noise[0]! & 0xff0);
        const out = extent();
        for (const [access, pasid, hi, lo, max] of requests) {
          const up = unit.requester(hi & 0x7f);
          const status = up.acquire(access, pasid, hi, lo, max, out);
          expect([0, 1, 4, 9]).toContain(status);
          if (status !== 0) for (let k = 0; k < 8; k++) reasons.add(unit.read(0x40c + 16 * k, 4) & 0xff);
          else {
            successes++;
            expect(out.length).toBeGreaterThan(0);
            expect(out.length).toBeLessThanOrEqual(max);
            expect(out.offset).toBeGreaterThanOrEqual(0);
            expect(out.offset + out.length).toBeLessThanOrEqual(out.view.length);
            up.commit(out);
          }
          up.message(lo, hi);
          up.pageRequest(pasid, hi, lo, access, hi & 0x1ff);
          unit.write(0x34, 4, 0x7f);
          for (let k = 0; k < 8; k++) unit.write(0x40c + 16 * k, 4, 0x8000_0000);
        }
        unit.reset();
        expect(unit.requester(3).acquire(0, -1, 0, 0x10_0000, 4, out)).toBe(0);
      },
    ),
    { numRuns: 200 },
  );
  // The noise reaches beyond the first check.
  expect(reasons.size).toBeGreaterThan(12);
  expect(successes).toBeGreaterThan(0);
});

test('reset restores every register', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(0x3ff), fc.integer({ min: 0, max: 2 ** 32 - 1 })), { maxLength: 200 }), (writes) => {
      const { memory } = world(FRAMES);
      const unit = new IommuUnit({ memory, sink: { deliver: () => {} } });
      const dump = () => Array.from({ length: 1024 }, (_, i) => unit.read(i * 4, 4));
      const before = dump();
      for (const [word, value] of writes) unit.write(word * 4, 4, value);
      unit.reset();
      expect(dump()).toEqual(before);
    }),
    { numRuns: 100 },
  );
});

test('read-only registers and reserved bits keep their values; GCMD reads 0', () => {
  const { memory } = world(FRAMES);
  const unit = new IommuUnit({ memory, sink: { deliver: () => {} } });
  const fixed = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c, 0xb0];
  const before = fixed.map((offset) => unit.read(offset, 4));
  for (const offset of fixed) unit.write(offset, 4, 0xffff_ffff);
  expect(fixed.map((offset) => unit.read(offset, 4))).toEqual(before);
  expect(before[1]).toBe(0x4078_0c06);
  unit.write(0x18, 4, 0x0080_0000);
  expect(unit.read(0x18, 4)).toBe(0);
  expect(unit.read(0x1c, 4)).toBe(0x0080_0000);
  unit.write(0x3c, 4, 0xffff_ffff);
  expect(unit.read(0x3c, 4)).toBe(0xffff);
});
