import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual([
    'portal 0: PASID 5, command 42',
    'answers 0 1 at 320',
    'portal 0: PASID 5, command 42',
    'answer 0 at 1320',
  ]);
});
