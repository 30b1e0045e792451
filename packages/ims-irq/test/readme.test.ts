import { readFileSync } from 'node:fs';
import { expect, test, vi } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  const file = readFileSync(new URL('../example/example.ts', import.meta.url), 'utf8');
  expect(readFileSync(new URL('../README.md', import.meta.url), 'utf8')).toContain(file.trim());
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  await import('../example/example.js');
  expect(log.mock.calls).toEqual([['taken'], ['slot', 0, 'message', 'fee00000', '30', 'taken', 1, 'time']]);
});
