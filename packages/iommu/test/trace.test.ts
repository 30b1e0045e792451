import { Event, events } from '@siov/layout/events';
import { expect, test } from 'vitest';
import { UnitCounter } from '../src/index.js';
import { bare, PASID, READ } from './machine.js';

const A = 0x20_0000;
function traced(nested: boolean) {
  const seen: [string, ...number[]][] = [];
  const trace = { emit: (event: number, a: number, b: number, c: number, d: number) => void seen.push([events[event]!.name, a, b, c, d]) };
  const m = bare({ trace });
  m.mapFirst(A, 0x180, 1, nested);
  if (nested) m.mapSecond(0x180 * 4096, 0x190);
  if (nested) m.nested(PASID);
  else m.firstStage(PASID);
  m.enable();
  m.request(READ, PASID, A);
  return { m, steps: seen.filter(([name]) => name === 'walkStep') };
}

test('a first-stage walk emits one step a level, from the top, with the table and the index', () => {
  const { m, steps } = traced(false);
  expect(steps.map(([, stage, level]) => [stage, level])).toEqual([
    [1, 4],
    [1, 3],
    [1, 2],
    [1, 1],
  ]);
  expect(steps[0]!.slice(3)).toEqual([m.first, 0]);
  expect(steps[2]![4]).toBe(1);
  expect(Event.walkStep).toBeGreaterThan(0);
});
test('a nested walk emits the 24 entries that it reads, each table pointer through the second stage first', () => {
  const { m, steps } = traced(true);
  expect(steps).toHaveLength(m.unit.counters[UnitCounter.walkReads]!);
  expect(steps.map(([, stage]) => stage)).toEqual([2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 2, 2, 2, 2]);
});
