/** Frames for pinned pages of processes: one frame a page for as long as it is pinned, neighbours beside each other. Linux, pin_user_pages. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PIN_WINDOW, PinWindow } from '../src/pins.js';

const space = fc.constantFrom('a', 'b', 'c');
/** Near each other, across the borders of pieces, and far away. */
const page = fc.oneof(
  fc.integer({ min: 0, max: 8 }),
  fc.integer({ min: 2 ** 18 - 4, max: 2 ** 18 + 4 }),
  fc.integer({ min: 2 ** 35 - 8, max: 2 ** 35 - 1 }),
);
const step = fc.record({ pin: fc.boolean(), space, page });

test('a page that is pinned twice has one frame, which leads back to it until the last unpin; no two pages share one', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const window = new PinWindow<string>();
      const held = new Map<string, { readonly frame: number; readonly space: string; readonly page: number; pins: number }>();
      for (const { pin, space: owner, page: number } of steps) {
        const key = `${owner} ${number}`;
        const known = held.get(key);
        if (pin) {
          const frame = window.pin(owner, number);
          if (known) expect(frame).toBe(known.frame);
          expect(window.owns(frame) && frame < 2 ** 31).toBe(true);
          held.set(key, { frame, space: owner, page: number, pins: (known?.pins ?? 0) + 1 });
        } else if (known) {
          window.unpin(known.frame);
          if (--known.pins > 0) continue;
          held.delete(key);
          expect(window.spaceOf(known.frame)).toBeUndefined();
          expect(() => window.unpin(known.frame)).toThrow(RangeError);
        }
        for (const each of held.values()) expect([window.spaceOf(each.frame), window.pageOf(each.frame)]).toEqual([each.space, each.page]);
        expect(window.pages).toBe(held.size);
        expect(new Set([...held.values()].map(({ frame }) => frame)).size).toBe(held.size);
      }
    }),
  );
});

test('pages beside each other have frames beside each other, as far as all are pinned', () => {
  const window = new PinWindow<string>();
  const first = window.pin('a', 512);
  for (let i = 1; i < 10; i++) expect(window.pin('a', 512 + i)).toBe(first + i);
  expect([first % 512, window.run(first, 100), window.run(first + 4, 3)]).toEqual([0, 10, 3]);
  window.unpin(first + 6);
  expect([window.run(first, 100), window.run(first + 7, 100)]).toEqual([6, 3]);
});

test('frames outside of the window, or of nothing, are nobody\u2019s', () => {
  const window = new PinWindow<string>();
  const { first, frames } = PIN_WINDOW;
  expect([window.owns(first - 1), window.owns(first), window.owns(first + frames - 1), window.owns(first + frames)]).toEqual([
    false,
    true,
    true,
    false,
  ]);
  expect([window.owns(-1), window.spaceOf(first), window.spaceOf(0), window.spaceOf(-1)]).toEqual([false, undefined, undefined, undefined]);
  expect(() => window.unpin(first)).toThrow(RangeError);
  expect(() => window.unpin(0)).toThrow(RangeError);
});

test('as many gigabytes as the window has: then there is no memory, until one is given back', () => {
  const window = new PinWindow<string>();
  const pieces = PIN_WINDOW.frames / 2 ** 18;
  const frames = Array.from({ length: pieces }, (_, i) => window.pin('a', i * 2 ** 18));
  expect(window.pin('b', 0)).toBe(-12);
  window.unpin(frames[7]!);
  expect(window.pin('b', 0)).toBe(frames[7]);
});
