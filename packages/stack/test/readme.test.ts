import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  const lines = await runReadmeExample(import.meta.url);
  expect(lines).toHaveLength(2);
  for (const line of lines) expect(line).toMatch(/^18 descriptors, 0 wrong, median \d+ ns$/);
});
