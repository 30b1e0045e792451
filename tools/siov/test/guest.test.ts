import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scenarios } from '@siov/guest-lab';
import { expect, test } from 'vitest';

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const cache = mkdtempSync(join(tmpdir(), 'siov-guest-cli-'));
const guest = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=@siov/source', '--import', 'tsx', main, 'guest', ...args], {
    encoding: 'utf8',
    env: { ...process.env, XDG_CACHE_HOME: cache, ...env },
  });
  return { status, stdout, stderr };
};

test.each([
  [['--only', 'z'], /--only: 'z' is not one of a, b/],
  [['--only', ','], /--only: names no scenario/],
  [['--ony', 'a'], /did you mean --only\?/],
  [['a'], /scenarios are chosen with --only/],
])('siov guest %j is one line that says how to mend it, and exit code 2', (args, message) => {
  const { status, stdout, stderr } = guest(args);
  expect([status, stdout, stderr.trim().split('\n').length]).toEqual([2, '', 1]);
  expect(stderr).toMatch(message);
});

test('siov guest --help names every scenario', () => {
  const { status, stdout } = guest(['--help']);
  expect(status).toBe(0);
  for (const { name, about } of scenarios) expect(stdout).toContain(`${name.padEnd(16)}${about}`);
});

test('a machine without the programs of the set-up is told which, and what would have them; nothing is left half made', () => {
  const { status, stderr } = guest(['--set-up'], { PATH: '/nowhere' });
  expect(status).toBe(2);
  expect(stderr).toMatch(/no apt-get, dpkg-deb, tar: the set-up needs a Debian or Ubuntu system/);
  expect(readdirSync(join(cache, 'siov/guest-lab/stamps'))).toEqual([]);
});
