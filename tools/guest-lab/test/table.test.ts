import { expect, test } from 'vitest';
import { Lab, type Outcome } from '../src/lab.js';
import { afterName } from '../src/processes.js';
import { scenarios } from '../src/scenarios/index.js';
import { Cache } from '../src/setup.js';
import { table } from '../src/table.js';

const outcome: Outcome = {
  ...{ id: 'd', name: 'dmatest', passed: true, seconds: 12.34, iops: { '1 wq': 2345, '8 wq': 99 }, share: 0.216 },
  ...{ log: ['x'.repeat(300)], failures: [] },
};

test('a row for each scenario, its lines under it, what failed marked', () => {
  const failed = {
    ...outcome,
    id: 'f',
    name: 'halt',
    passed: false,
    iops: {},
    share: undefined,
    log: ['said'],
    failures: ['a: 1, not 2', 'two\nlines'],
  };
  const lines = table([outcome, failed], 100).split('\n');
  expect(lines[0]).toMatch(/^scenario +result +time +iops +our CPU$/);
  expect(lines[2]).toMatch(/^d dmatest +passed +12\.3 s +99 to 2345 +22 %$/);
  expect(lines[3]).toBe('    iops: 1 wq 2345 · 8 wq 99');
  expect([lines[4]!.length, lines[4]!.at(-1)]).toEqual([100, '…']);
  expect(lines[5]).toMatch(/^f halt +FAILED +12\.3 s$/);
  expect(lines.slice(6)).toEqual(['    said', '    ! a: 1, not 2', '    ! two', '    ! lines', '']);
});

test('many rates are wrapped between them', () => {
  const iops = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`kind ${i}`, 1000 + i]));
  const lines = table([{ ...outcome, iops, log: [] }], 80)
    .trimEnd()
    .split('\n')
    .slice(3);
  expect(lines.length).toBeGreaterThan(5);
  for (const line of lines) expect(line).toMatch(/^ {4}(iops: )?kind \d+ \d+( · kind \d+ \d+)*$/);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
  expect(lines.join(' ').match(/kind/g)).toHaveLength(30);
});

test('scenarios have letters of their own, in order, and say what holds', () => {
  const ids = scenarios.map(({ id }) => id);
  expect(ids).toEqual([...new Set(ids)].sort());
  for (const { id, name, about } of scenarios) {
    expect(id).toMatch(/^[a-z]$/);
    expect(name).toMatch(/^[a-z-]+$/);
    expect(about.length).toBeGreaterThan(20);
  }
});

test('a scenario fails by each check that does not hold, and goes on behind it', () => {
  const lab = new Lab(new Cache('/nowhere'), ['true'], '/nowhere');
  const thread = { channel: 'dma0chan0', tests: 500, failures: 0, iops: 1000.4, status: 0 };
  const expected = { channels: 1, threads: 2, tests: 500 };
  lab.equal('same', { a: [1] }, { a: [1] });
  lab.holds('true', true);
  lab.dmatest('good', [thread, thread], expected);
  lab.logged(['[    1.000000] idxd: here'], /here/);
  expect(lab.failures).toEqual([]);
  expect([lab.iops, lab.shown]).toEqual([{ good: 2001 }, ['idxd: here']]);
  for (const bad of [[thread], [thread, { ...thread, failures: 1 }], [thread, { ...thread, status: -110 }], [thread, { ...thread, tests: 499 }], []])
    lab.dmatest('bad', bad, expected);
  lab.equal('other', 1, 2);
  lab.holds('false', false);
  lab.logged(['nothing'], /here/);
  // Without any thread, both their number and that of channels are wrong.
  expect(lab.failures).toHaveLength(9);
  expect(lab.failures[6]).toBe('other: 1, not 2');
});

test("proc(5): a process's name may hold spaces and parentheses", () => {
  expect(afterName('12 (a) b (c) S 1 2 3').slice(0, 2)).toEqual(['S', '1']);
});
