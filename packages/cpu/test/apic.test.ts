import { expect, test } from 'vitest';
import { ApicCounter, Clock, LocalApic } from '../src/index.js';

const machine = (deliver?: number) => {
  const clock = new Clock();
  const apic = new LocalApic({ clock, costs: deliver === undefined ? undefined : { deliver } });
  const seen: [vector: number, now: number][] = [];
  return { clock, apic, seen, note: (vector: number) => seen.push([vector, clock.now]) };
};

test('a message becomes an event: the handler runs when the clock pumps, after the cost of delivery', () => {
  const { clock, apic, seen, note } = machine(1000);
  apic.install(0x41, note);
  apic.deliver(0x41, 0);
  expect([clock.pump(), seen.length]).toEqual([false, 0]);
  clock.idle();
  expect(seen).toEqual([[0x41, 1000]]);
});

test('a vector that is pending is accepted once; after its handler began, again', () => {
  const { clock, apic, seen, note } = machine();
  let again = true;
  apic.install(0x50, (vector) => {
    note(vector);
    if (again) apic.deliver(vector, 0);
    again = false;
  });
  apic.deliver(0x50, 0);
  apic.deliver(0x50, 0);
  clock.pump();
  expect([seen.length, apic.counters[ApicCounter.merged]]).toEqual([2, 1]);
});

test('a vector without handler is spurious', () => {
  const { clock, apic, seen, note } = machine();
  apic.install(0x60, note);
  apic.deliver(0x60, 0);
  apic.remove(0x60);
  apic.deliver(0x03, 0);
  clock.pump();
  expect([seen.length, apic.counters[ApicCounter.spurious]]).toEqual([0, 2]);
});

test('vectors are allocated once, from 0x20, until none is left', () => {
  const { apic } = machine();
  apic.install(0x22, () => {});
  const all = Array.from({ length: 0xe0 - 1 }, () => apic.allocVector());
  expect([Math.min(...all), Math.max(...all), new Set(all).size, all.includes(0x22)]).toEqual([0x20, 0xff, 0xdf, false]);
  expect(apic.allocVector()).toBe(-1);
  apic.freeVector(0x77);
  expect(apic.allocVector()).toBe(0x77);
  expect(() => apic.install(0x1f, () => {})).toThrow(/vector/);
});
