import { expect, test, vi } from 'vitest';

test("a user's own device adds up a process's bytes through the IOMMU", async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  await import('../sum-device/main.js');
  expect(log.mock.calls).toEqual([['state 2, sum 60000, PASID 1']]);
});
