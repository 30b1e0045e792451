import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { finish, open, type Step } from '../src/steps.js';

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
