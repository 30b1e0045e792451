/** What every model must do with a workload, whatever it is composed of: one suite, given a `setup()`, run on each implementation. */
import type { UserTask } from '@siov/vfs';
import { describe, expect, test } from 'vitest';
import { type WorkloadOp, workloadOps } from '../src/index.js';
import { bytesSource, type OpenQueue, Workload, type WorkloadOptions } from '../src/uacce.js';

/** A stack that is ready for programs. */
interface World {
  readonly open: OpenQueue;
  spawn(program: Workload): UserTask;
  run(until?: () => boolean): void;
}
/** `scatter`: 4 KiB pages at scattered places of the host's memory. */
export type Setup = (options?: { readonly scatter?: number }) => World;

export const sample = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
/** Of DSA 1.0; drains are not for batches. */
const ops = workloadOps.filter((op) => !['drain', 'translation-fetch', 'dix-generate'].includes(op));
const blocks = (op: WorkloadOp): boolean => op.startsWith('dif');

function start(world: World, options: Partial<WorkloadOptions> = {}): { readonly program: Workload; readonly task: UserTask } {
  const program = new Workload({ source: bytesSource(sample), op: 'memmove', size: 4096, depth: 8, ...options }, world.open);
  return { program, task: world.spawn(program) };
}

export function workloadSuite(label: string, setup: Setup): void {
  describe(`workloads through ${label}`, () => {
    test.each(ops.flatMap((op) => [1, 5].map((batch) => [op, batch] as const)))(
      '%s in batches of %i: every result equals a plain computation',
      (op, batch) => {
        const world = setup();
        const { program } = start(world, { op, batch });
        world.run();
        expect(program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: op === 'nop' ? Math.ceil(sample.length / 64) : 25 } });
      },
    );
    test.each(ops.slice(1))('%s into absent pages: partial completions are resumed', (op) => {
      const world = setup();
      const size = blocks(op) ? 20_480 : 20_000;
      const { program } = start(world, { op, size, touch: false });
      world.run();
      expect(program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: 5 } });
      if (['memmove', 'fill', 'copy-crc', 'dualcast', 'create-delta', 'dif-insert', 'dif-strip', 'dif-update'].includes(op))
        expect(program.result.resumes).toBeGreaterThan(0);
    });
    test('scattered pages and sizes that divide nothing', () => {
      const world = setup({ scatter: 7 });
      const { program } = start(world, { size: 7777, batch: 3, depth: 3 });
      world.run();
      expect(program.result).toMatchObject({ finished: true, wrong: 0, bytes: sample.length });
    });
    test('a source larger than the simulated memory goes through in bounded memory', () => {
      const world = setup();
      const bytes = 160 << 20;
      const source = {
        bytes,
        read: (offset: number, into: Uint8Array) => (into.fill((offset >>> 20) & 0xff), Math.min(into.length, bytes - offset)),
      };
      const { program } = start(world, { source, size: 1 << 20, depth: 4 });
      world.run();
      expect(program.result).toMatchObject({ finished: true, wrong: 0, bytes });
    });
    test.each([
      ['reserved-field', 'nonZeroReserved'],
      ['opcode', 'unsupportedOperation'],
      ['foreign-address', 'pageFault'],
    ] as const)('bad descriptors (%s): the status that the specification names, the rest of the work unharmed', (kind, status) => {
      const world = setup();
      const { program } = start(world, { inject: { kind, every: 10 } });
      world.run();
      const { statuses, wrong, finished } = program.result;
      expect({ statuses, wrong, finished }).toEqual({ statuses: { success: 22, [status]: 3 }, wrong: 0, finished: true });
    });
  });
}
