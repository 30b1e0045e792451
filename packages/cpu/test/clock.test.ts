import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Clock, ReentryError } from '../src/index.js';

test('events run in order of due time, ties in order of registration, each at its own time', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 200 }), fc.integer({ min: 0, max: 60 }), (delays, spent) => {
      const clock = new Clock();
      const ran: [argument: number, now: number][] = [];
      const handler = clock.handler((argument) => ran.push([argument, clock.now]));
      for (const [i, delay] of delays.entries()) clock.after(delay, handler, i);
      clock.spend(spent);
      const expected = delays.map((delay, i) => [i, delay] as [number, number]).sort((a, b) => a[1] - b[1] || a[0] - b[0]);
      expect(clock.pump()).toBe(delays.some((delay) => delay <= spent));
      expect(ran).toEqual(expected.filter(([, delay]) => delay <= spent));
      expect(clock.now).toBe(spent);
      while (clock.idle());
      expect(ran).toEqual(expected);
      expect(clock.now).toBe(Math.max(spent, ...delays));
      expect(clock.pending).toBe(0);
    }),
  );
});

test('an event that schedules within the pumped time is followed by what it scheduled', () => {
  const clock = new Clock();
  const ran: string[] = [];
  const late = clock.handler((n) => ran.push(`late ${n} at ${clock.now}`));
  const early = clock.handler(() => {
    ran.push(`early at ${clock.now}`);
    clock.after(5, late, 1);
    clock.after(50, late, 2);
  });
  clock.after(10, early, 0);
  clock.after(12, late, 0);
  clock.spend(30);
  expect(clock.pump()).toBe(true);
  expect(ran).toEqual(['early at 10', 'late 0 at 12', 'late 1 at 15']);
  expect([clock.now, clock.pump()]).toEqual([30, false]);
  expect(clock.idle()).toBe(true);
  expect([ran.at(-1), clock.now]).toEqual(['late 2 at 60', 60]);
});

test('work done in a handler moves the time when it ends later than the CPU', () => {
  const clock = new Clock();
  const work = clock.handler((ns) => clock.spend(ns));
  clock.after(10, work, 5);
  clock.after(10, work, 100);
  clock.spend(20);
  clock.pump();
  expect(clock.now).toBe(110);
});

test('wait ends with its condition, or false when the queue runs dry', () => {
  const clock = new Clock();
  let count = 0;
  const tick = clock.handler(() => {
    if (++count < 5) clock.after(10, tick, 0);
  });
  clock.after(10, tick, 0);
  expect([clock.wait(() => count === 3), clock.now]).toEqual([true, 30]);
  expect([clock.wait(() => count === 9), count, clock.idle()]).toEqual([false, 5, false]);
});

test('an event handler never waits', () => {
  const clock = new Clock();
  const errors: unknown[] = [];
  const calls = [() => clock.wait(() => true), () => clock.pump(), () => clock.idle()];
  const handler = clock.handler((i) => {
    try {
      calls[i]!();
    } catch (error) {
      errors.push(error);
    }
  });
  for (const i of calls.keys()) clock.after(i, handler, i);
  while (clock.idle());
  expect(errors.map((error) => error instanceof ReentryError)).toEqual([true, true, true]);
  expect(clock.wait(() => true)).toBe(true);
});

test('a handler that throws leaves the clock usable', () => {
  const clock = new Clock();
  const bad = clock.handler(() => {
    throw new Error('broken');
  });
  clock.after(1, bad, 0);
  expect(() => clock.idle()).toThrow('broken');
  expect([clock.idle(), clock.now]).toEqual([false, 1]);
});

test('delays and handlers are checked', () => {
  const clock = new Clock();
  const handler = clock.handler(() => {});
  for (const ns of [-1, Number.NaN, Number.POSITIVE_INFINITY]) expect(() => clock.after(ns, handler, 0)).toThrow(/ns/);
  expect(() => clock.after(1, 7, 0)).toThrow(/handler/);
});

test('work that events leave runs after them, in order, and may wait', () => {
  const clock = new Clock();
  const ran: string[] = [];
  let answered = false;
  const answer = clock.handler(() => {
    answered = true;
  });
  const event = clock.handler((n) => {
    ran.push(`event ${n}`);
    clock.defer(() => {
      ran.push(`work ${n}`);
      if (n !== 1) return;
      clock.after(100, answer, 0);
      ran.push(`waited ${clock.wait(() => answered)}`);
    });
  });
  clock.after(0, event, 1);
  clock.after(0, event, 2);
  expect(clock.pump()).toBe(true);
  expect(ran).toEqual(['event 1', 'event 2', 'work 1', 'work 2', 'waited true']);
  clock.defer(() => ran.push('alone'));
  expect([clock.pending, clock.idle(), clock.idle(), ran.at(-1)]).toEqual([1, true, false, 'alone']);
  expect(() => clock.defer(1 as never)).toThrow(TypeError);
});
