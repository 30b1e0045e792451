import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual(['configured', '/dev/dsa/wq0.0 memmove success after 2 page faults: moved']);
});
