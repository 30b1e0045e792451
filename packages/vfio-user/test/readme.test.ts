import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  expect(await runReadmeExample(import.meta.url)).toEqual([
    '9 regions, 5 kinds of interrupts',
    'vendor and device 0b258086',
    'BAR 2 has 131072 bytes of portals; MSI-X has 9 vectors',
    'reset',
    'REGION_READ: EINVAL',
  ]);
});
