import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  const lines = await runReadmeExample(import.meta.url);
  expect(lines[0]).toMatch(/^the VMM reads 7 at guest frame \d+$/);
  expect(lines.slice(1)).toEqual([
    'exit: write 3 to 0xe1000010, 4 bytes',
    'exit: read of 0xe1000014, 4 bytes',
    "the guest's kernel reads 42",
    '2 exits to user space',
  ]);
});
