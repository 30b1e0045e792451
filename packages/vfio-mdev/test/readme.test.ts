import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual([
    'vendor and device b258086',
    'map 2 pages at 65536',
    'MAP_DMA answers 0',
    'unmap 8192 bytes at 65536',
    'gone',
  ]);
});
