import { expect, test } from 'vitest';
import { bytesSource, MdevStack, openGuestQueue, Workload } from '../src/mdev.js';

const data = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
test('memmove in a guest', () => {
  const stack = new MdevStack({ ramBytes: 256 << 20 });
  const program = new Workload({ source: bytesSource(data), op: 'memmove', size: 4096, depth: 8 }, openGuestQueue(stack));
  stack.guest.user.spawn(program);
  stack.run();
  expect(program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: 25 } });
});
