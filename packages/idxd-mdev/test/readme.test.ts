import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual([
    'available 1\n',
    'host PASID in the queue 1',
    'status 1 bytes',
    'host PASIDs after the end 0',
  ]);
});
