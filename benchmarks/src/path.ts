/** From portal write to completion record, in each model, beside the fastest plain form of the same work. */
import { Opcode } from '@siov/idxd-device/spec';
import { bench, do_not_optimize, summary } from 'mitata';
import { Driver, type StackFactory } from './factory.js';

const plain = (bytes: number): (() => void) => {
  const from = new Uint8Array(bytes).fill(1);
  const to = new Uint8Array(bytes);
  return () => to.set(from);
};

/** NOPs in a stack's own way; `copies`: and one memmove, of which `operations.ts` has the rest for the first stack. */
export function registerPath(factory: StackFactory, copies: boolean): void {
  const stack = factory();
  summary(() => {
    const one = new Driver(stack);
    const many = new Driver(stack, { depth: 64 });
    // Not the first ones: a first call that is slow makes mitata time each call by itself, clock and all.
    for (let i = 0; i < 20_000; i++) one.nops();
    bench(`NOP, ${stack.name}, one at a time`, () => one.nops()).gc('once');
    bench(`64 NOPs in flight, ${stack.name}`, () => many.nops()).gc('once');
    const batch = new Driver(stack, { depth: 64 });
    bench(`a batch of 64 NOPs, ${stack.name}`, () => batch.batchOfNops()).gc('once');
  });
  if (!copies) return;
  summary(() => {
    const set = plain(65_536);
    bench(`TypedArray.set, 64 KiB (${stack.name})`, () => do_not_optimize(set())).baseline(true);
    const driver = new Driver(stack, { bytes: 65_536 });
    bench(`memmove 64 KiB, 4 KiB pages, ${stack.name}`, () => driver.run(Opcode.memmove, 65_536)).gc('once');
  });
}
