import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual(['/dev/idxd_swq-0 idxd_swq_v1\n', 'status 1 moved under its own PASID']);
});
