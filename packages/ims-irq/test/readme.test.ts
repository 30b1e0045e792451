import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual(['taken', 'slot 0 message fee00000 30 taken 1 time']);
});
