import { runReadmeExample } from '@siov/testkit';
import { expect, test } from 'vitest';

test("the README's example is the example file, and it runs", async () => {
  const [text, record] = await runReadmeExample(import.meta.url);
  expect(text).toBe('moved by a model of DSA');
  expect(record).toContain('completion record status=success faultWrite=0 result=0 faultInfo=0 completed=0x17');
});
