/** From portal write to completion record, in each model, beside the fastest plain form of the same work. */
import { Opcode } from '@siov/idxd-device/spec';
import { bench, do_not_optimize, summary } from 'mitata';
import { Driver, type StackFactory } from './factory.js';

const plain = (bytes: number): (() => void) => {
  const from = new Uint8Array(bytes).fill(1);
  const to = new Uint8Array(bytes);
  return () => to.set(from);
};

export function registerPath(factories: readonly StackFactory[]): void {
  const stacks = factories.map((f) => f());
  for (const stack of stacks) {
    summary(() => {
      const one = new Driver(stack);
      const many = new Driver(stack, { depth: 64 });
      bench(`NOP, ${stack.name}, one at a time`, () => one.nops()).gc('once');
      bench(`64 NOPs in flight, ${stack.name}`, () => many.nops()).gc('once');
    });
  }
  for (const [label, bytes, huge] of [
    ['4 KiB', 4096, false],
    ['64 KiB, 4 KiB pages', 1 << 16, false],
    ['2 MiB, 4 KiB pages', 2 << 20, false],
    ['2 MiB, 2 MiB pages', 2 << 20, true],
  ] as const)
    summary(() => {
      const set = plain(bytes);
      bench(`TypedArray.set, ${label}`, () => do_not_optimize(set())).baseline(true);
      for (const stack of stacks) {
        const driver = new Driver(stack, { bytes, huge });
        bench(`memmove ${label}, ${stack.name}`, () => driver.run(Opcode.memmove, bytes)).gc('once');
      }
    });
}
