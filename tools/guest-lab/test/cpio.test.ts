import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cpio, type Entry } from '../src/cpio.js';
import { Cache } from '../src/setup.js';

const entries: Entry[] = [
  { path: 'proc', folder: true },
  { path: 'a/b/c/file', data: 'four' },
  { path: 'a/b/odd', data: Uint8Array.of(1, 2, 3) },
  { path: 'a/empty', data: '' },
  { path: 'a/run', data: '#!/bin/sh\n', executable: true },
  { path: 'link', link: 'a/b' },
];

/** An unpacker that we did not write: the system's, or busybox' of the set-up. */
const busybox = new Cache().tree('usr/bin/busybox');
const unpacker = spawnSync('cpio', ['--version']).status === 0 ? ['cpio'] : existsSync(busybox) ? [busybox, 'cpio'] : undefined;
if (!unpacker) console.log('left out: archives unpacked by cpio (no cpio here, and no set-up of the guest lab)');

test.skipIf(!unpacker)('cpio unpacks what was packed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'siov-cpio-'));
  const [program, ...args] = unpacker!;
  const { status, stderr } = spawnSync(program!, [...args, '-i', '-d'], { cwd: folder, input: cpio(entries), encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, expect.not.stringMatching(/bad|corrupt|short/i)]);
  const at = (path: string): string => join(folder, path);
  expect(readFileSync(at('a/b/c/file'), 'utf8')).toBe('four');
  expect([...readFileSync(at('a/b/odd'))]).toEqual([1, 2, 3]);
  expect(readFileSync(at('a/empty'), 'utf8')).toBe('');
  expect(readlinkSync(at('link'))).toBe('a/b');
  expect([at('a/run'), at('a/b/odd')].map((path) => statSync(path).mode & 0o777)).toEqual([0o755, 0o644]);
  expect(statSync(at('proc')).isDirectory()).toBe(true);
});

test.skipIf(!unpacker)('devices are there as such, with their numbers; folders once', () => {
  const archive = cpio([{ path: 'dev/console', device: [5, 1] }, ...entries]);
  const [program, ...args] = unpacker!;
  const { stdout } = spawnSync(program!, [...args, '-i', '-t', '-v'], { input: archive, encoding: 'utf8' });
  const lines = stdout.trim().split('\n');
  expect(lines.filter((line) => /\ba\/b$/.test(line) && line.startsWith('d'))).toHaveLength(1);
  expect(lines.find((line) => line.endsWith('dev/console'))).toMatch(/^crw-------/);
  // c_rdevmajor and c_rdevminor are the tenth and eleventh of 13 fields, behind the magic; the name follows them.
  const header = archive.indexOf('dev/console') - 6 - 13 * 8;
  expect(archive.toString('latin1', header, header + 6)).toBe('070701');
  expect([9, 10].map((field) => Number.parseInt(archive.toString('latin1', header + 6 + field * 8, header + 14 + field * 8), 16))).toEqual([5, 1]);
});

test('every part lies at a multiple of four bytes, so that archives can follow one another', () => {
  for (let length = 0; length < 9; length++) expect(cpio([{ path: 'x', data: new Uint8Array(length) }]).length % 4).toBe(0);
});
