import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual(['/dev/acc-0 flags 1 pasid 5', 'start 0 again -22']);
});
