import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual(['status 0 at 16 length 8000', 'reads of the walks 8', 'interrupt 48', 'another PASID 1']);
});
