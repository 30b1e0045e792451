import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { alone, finish, open, type Step } from '../src/steps.js';

interface World {
  inputs: string[];
  ran: string[];
  fails?: string;
}
const names = ['one', 'two', 'three', 'four'];
const steps: Step<World>[] = names.map((name, i) => ({
  ...{ name, about: name },
  inputs: (world) => [world.inputs[i]!],
  async run(world) {
    if (world.fails === name) throw new Error(`${name} fails`);
    world.ran.push(name);
  },
}));
const world = (): World & { folder: string; go(): Promise<string[]> } => ({
  ...{ inputs: ['a', 'b', 'c', 'd'], ran: [], folder: join(mkdtempSync(join(tmpdir(), 'siov-steps-')), 'stamps') },
  async go() {
    this.ran = [];
    await finish(this.folder, steps, this, () => {});
    return this.ran;
  },
});

test('everything is done once, in order', async () => {
  const w = world();
  expect(open(w.folder, steps, w).map(({ step }) => step.name)).toEqual(names);
  expect(await w.go()).toEqual(names);
  expect(await w.go()).toEqual([]);
  expect(open(w.folder, steps, w)).toEqual([]);
});

test.each(names.map((name, i) => [name, i] as const))('what %s is made from changes: it and what follows is done again', async (_, i) => {
  const w = world();
  await w.go();
  w.inputs[i] += '!';
  expect(await w.go()).toEqual(names.slice(i));
  expect(await w.go()).toEqual([]);
});

test.each(names.map((name, i) => [name, i] as const))('%s fails: the next run begins there', async (name, i) => {
  const w = world();
  w.fails = name;
  await expect(w.go()).rejects.toThrow(`${name} fails`);
  expect(readdirSync(w.folder).sort()).toEqual(
    names
      .slice(0, i)
      .map((done) => `${done}.done`)
      .sort(),
  );
  delete w.fails;
  expect(await w.go()).toEqual(names.slice(i));
});

test('a step that failed when it was done again is open, though an older stamp of it had been there', async () => {
  const w = world();
  await w.go();
  w.inputs[1] = 'new';
  w.fails = 'three';
  await expect(w.go()).rejects.toThrow();
  w.inputs[1] = 'b';
  delete w.fails;
  expect(await w.go()).toEqual(['two', 'three', 'four']);
});

test('inputs are told apart by where they end', async () => {
  const of = (...inputs: string[]): string => {
    const step: Step<null> = { name: 's', about: '', inputs: () => inputs, run: async () => {} };
    return open('/nowhere', [step], null)[0]!.made;
  };
  expect(of('ab', 'c')).not.toBe(of('a', 'bc'));
  expect(of('ab', 'c')).toBe(of('ab', 'c'));
});

describe('one process at a time', () => {
  const lock = (): string => join(mkdtempSync(join(tmpdir(), 'siov-lock-')), 'lock');
  const never = (pid: number): void => expect.fail(`waits for ${pid}`);

  test('work is done, and nothing stays behind, also when it fails', async () => {
    const file = lock();
    expect(await alone(file, never, async () => readdirSync(join(file, '..')))).toEqual(['lock']);
    await expect(alone(file, never, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(readdirSync(join(file, '..'))).toEqual([]);
  });
  test('whoever comes second waits, and is told once for whom', async () => {
    const file = lock();
    const order: string[] = [];
    let go = (): void => {};
    const first = alone(file, never, () => new Promise<void>((resolve) => (go = resolve)).then(() => void order.push('first')));
    const told: number[] = [];
    const second = alone(
      file,
      (pid) => told.push(pid),
      async () => void order.push('second'),
    );
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect([order, told]).toEqual([[], [process.pid]]);
    go();
    await Promise.all([first, second]);
    expect(order).toEqual(['first', 'second']);
  });
  test('a process that died holds nothing', async () => {
    const file = lock();
    writeFileSync(file, `${spawnSync('true').pid}`);
    expect(await alone(file, never, async () => 'done')).toBe('done');
  });
});
