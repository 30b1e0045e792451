import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mirror, mirrorIn } from '../src/mirror.js';

test.each([
  ['one line', 'deb http://mirror.example/debian bookworm main', 'http://mirror.example/debian'],
  ['one line with options', 'deb [arch=amd64 signed-by=/x.gpg] https://mirror.example/pub/debian/ sid main', 'https://mirror.example/pub/debian'],
  ['deb822', 'Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie', 'http://mirror.example/debian'],
  [
    'security comes first, and is not it',
    'deb http://s.example/debian-security x main\ndeb http://m.example/debian x main',
    'http://m.example/debian',
  ],
  [
    'comments',
    '# deb http://old.example/debian x main\n  # URIs: http://old.example/debian\nURIs: http://m.example/debian',
    'http://m.example/debian',
  ],
  ['another system', 'deb http://archive.example/ubuntu noble main', undefined],
  ['nothing', '', undefined],
])('the Debian archive of apt sources: %s', (_, text, expected) => {
  expect(mirrorIn(text)).toBe(expected);
});

test('the environment comes before the main file, and that before the others by name; no file is no answer', () => {
  const etc = mkdtempSync(join(tmpdir(), 'siov-apt-'));
  expect(mirror({}, etc)).toBeUndefined();
  mkdirSync(join(etc, 'sources.list.d'));
  writeFileSync(join(etc, 'sources.list.d/b.sources'), 'URIs: http://b.example/debian\n');
  writeFileSync(join(etc, 'sources.list.d/a.list.save'), 'deb http://saved.example/debian x main\n');
  expect(mirror({}, etc)).toBe('http://b.example/debian');
  writeFileSync(join(etc, 'sources.list'), 'deb http://main.example/debian x main\n');
  expect(mirror({}, etc)).toBe('http://main.example/debian');
  expect(mirror({ SIOV_DEBIAN_MIRROR: 'http://own.example/d' }, etc)).toBe('http://own.example/d');
});
