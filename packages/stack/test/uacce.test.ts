import { expect, test } from 'vitest';
import { bytesSource, openUacceQueue, UacceStack, Workload } from '../src/uacce.js';

const data = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);

test.each(['nop', 'memmove', 'fill', 'compare', 'crc', 'copy-crc', 'dualcast'] as const)('%s through a dedicated queue: every result equals a plain computation', (op) => {
  const stack = new UacceStack({ ramBytes: 64 << 20 });
  const program = new Workload({ source: bytesSource(data), op, size: 4096, depth: 8 }, openUacceQueue(stack, 'dedicated'));
  stack.host.kernel.user.spawn(program);
  stack.host.kernel.user.run();
  expect(program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: op === 'nop' ? Math.ceil(data.length / 64) : 25 } });
});
