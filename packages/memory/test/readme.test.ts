import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual([
    'pinned pages 1 frames in use 5',
    'a device must forget 1 pages',
    'and now everything',
    'kept by the pin 1',
    'in use 0',
  ]);
});
