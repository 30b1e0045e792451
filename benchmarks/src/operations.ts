/** Operations on large pieces beside the fastest plain form of the same work, by the pages that memory is in. */
import { crc32c } from '@siov/idxd-device';
import { Opcode } from '@siov/idxd-device/spec';
import { bench, do_not_optimize, summary } from 'mitata';
import { type BenchStack, Driver, type StackFactory } from './factory.js';
import { native, nativeCrc32c } from './native.js';

const K = 1024;
const sizes = [4 * K, 64 * K, 2048 * K];
const sizeName = (bytes: number): string => (bytes < K * K ? `${bytes / K} KiB` : `${bytes / K / K} MiB`);
const pageKinds = ['2 MiB pages', 'contiguous 4 KiB pages', 'scattered 4 KiB pages'] as const;
type Pages = (typeof pageKinds)[number];

/** A plain form, and how it is made. */
interface Plain {
  readonly plain: string;
  make(bytes: number): () => unknown;
}
/** What the plain form is called, how it is made, and the operation. */
interface Row extends Plain {
  /** Without native code for the model. */
  readonly own?: boolean;
  /** Another plain form: of all the work, where the first is of a part that no device can do less than. */
  readonly whole?: Plain;
  run(driver: Driver, bytes: number): void;
}
const operations: Readonly<Record<string, Row>> = {
  memmove: {
    plain: 'TypedArray.set',
    make(bytes) {
      const from = new Uint8Array(bytes).fill(1);
      const to = new Uint8Array(bytes);
      return () => to.set(from);
    },
    run: (driver, bytes) => driver.run(Opcode.memmove, bytes),
  },
  fill: {
    plain: 'TypedArray.fill',
    make(bytes) {
      const to = new Uint8Array(bytes);
      return () => to.fill(0x5a);
    },
    run: (driver, bytes) => driver.fill(bytes),
  },
  compare: {
    plain: 'Buffer.compare',
    make(bytes) {
      // Written once: memory that never was is one page of zeros, many times.
      const [a, b] = [Buffer.alloc(bytes, 1), Buffer.alloc(bytes, 1)];
      return () => a.compare(b);
    },
    run: (driver, bytes) => driver.run(Opcode.compare, bytes),
  },
  'copy-crc': {
    plain: 'the same CRC-32C alone',
    make(bytes) {
      const from = new Uint8Array(bytes).fill(1);
      return () => nativeCrc32c(from);
    },
    whole: {
      plain: 'TypedArray.set and the same CRC-32C',
      make(bytes) {
        const from = new Uint8Array(bytes).fill(1);
        const to = new Uint8Array(bytes);
        return () => {
          to.set(from);
          return nativeCrc32c(from);
        };
      },
    },
    run: (driver, bytes) => driver.run(Opcode.copyCrc, bytes),
  },
  'copy-crc without native code': {
    plain: 'the same CRC-32C alone',
    own: true,
    make(bytes) {
      const from = new Uint8Array(bytes).fill(1);
      const words = new Uint32Array(from.buffer);
      return () => crc32c(-1, from, words, 0, bytes);
    },
    run: (driver, bytes) => driver.run(Opcode.copyCrc, bytes),
  },
};
/** Goals at least: ratios to the plain form. */
const goals: Readonly<Record<Pages, Readonly<Record<number, number>>>> = {
  '2 MiB pages': { [2048 * K]: 0.9 },
  'contiguous 4 KiB pages': { [64 * K]: 0.65, [2048 * K]: 0.8 },
  'scattered 4 KiB pages': { [64 * K]: 0.45, [2048 * K]: 0.45 },
};
const nameOf = (op: string, bytes: number, pages: Pages): string => `${op} ${sizeName(bytes)}, ${pages}`;
const plainName = (op: string, bytes: number, { plain }: Plain = operations[op]!): string => `${plain}, ${sizeName(bytes)} (${op})`;

export function registerOperations(factory: StackFactory): void {
  const stacks = [{ native }, {}].map((options) => ({ together: factory(options), scattered: factory({ ...options, scatter: 7 }) }));
  for (const [op, { own, make, run, whole }] of Object.entries(operations))
    for (const bytes of sizes)
      summary(() => {
        const plain = make(bytes);
        bench(plainName(op, bytes), () => do_not_optimize(plain())).baseline(true);
        if (whole) {
          const both = whole.make(bytes);
          bench(plainName(op, bytes, whole), () => do_not_optimize(both()));
        }
        for (const pages of pageKinds) {
          const { together, scattered } = stacks[own ? 1 : 0]!;
          const stack: BenchStack = pages === 'scattered 4 KiB pages' ? scattered : together;
          const driver = new Driver(stack, { bytes, huge: pages === '2 MiB pages' });
          run(driver, bytes);
          if (driver.status !== 1) throw new Error(`${op} ended with status ${driver.status}`);
          bench(nameOf(op, bytes, pages), () => run(driver, bytes)).gc('once');
        }
      });
}

/** A table of ratios, medians of the run: 1 is as fast as the plain form. */
export function operationRatios(median: (name: string) => number | undefined): string[] {
  const rows: string[] = [];
  for (const [op, { whole }] of Object.entries(operations))
    for (const bytes of sizes) {
      const row = (what: string, plain: number | undefined): void => {
        if (plain === undefined) return;
        const cells = pageKinds.map((pages) => {
          const goal = goals[pages][bytes];
          const ratio = plain / median(nameOf(op, bytes, pages))!;
          return `${ratio.toFixed(2)}${goal === undefined ? '' : ` (goal ${goal}${ratio >= goal ? '' : ', missed'})`}`;
        });
        rows.push(`| ${what} ${sizeName(bytes)} | ${cells.join(' | ')} |`);
      };
      row(op, median(plainName(op, bytes)));
      if (whole) row(`${op}, beside ${whole.plain},`, median(plainName(op, bytes, whole)));
    }
  return rows.length === 0 ? [] : [`| ratio to the plain form | ${pageKinds.join(' | ')} |`, '| --- | --- | --- | --- |', ...rows];
}
