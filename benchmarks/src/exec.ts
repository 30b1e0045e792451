/**
 * `siov exec` beside C programs that do the same without a device: what a trapped instruction costs over the bare signal, batches over singles, a large
 * copy over process_vm_readv and writev, and a program that never looks at the device. Ratios of one run; `pnpm bench exec`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROUNDS = 5;
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** Runs the benchmark; the exit code. */
export function exec(json: boolean): number {
  if (process.platform !== 'linux' || process.arch !== 'x64' || spawnSync('cc', ['--version']).status !== 0) {
    console.log('exec: left out: it needs Linux on x86-64 and a C compiler');
    return 0;
  }
  const folder = mkdtempSync(join(tmpdir(), 'siov-bench-'));
  const program = join(folder, 'program');
  execFileSync('cc', ['-O2', '-o', program, here('./exec.c')]);
  const numbers = (text: string): number[] => text.trim().split('\n').map(Number);
  // The program and the server on a processor each, where there are two.
  const pinned = availableParallelism() > 1 && spawnSync('taskset', ['--version']).status === 0;
  const on = (processor: number, ...command: readonly string[]): string[] => [...(pinned ? ['taskset', '-c', `${processor}`] : []), ...command];
  const output = ([command, ...rest]: readonly string[]): string => execFileSync(command!, rest, { encoding: 'utf8' });
  const bare = (what: string): number[] => numbers(output(on(0, program, what)));
  const siov = here('../../tools/siov/bin/siov.js');
  // One queue of each kind, as exec has them by itself, but with room for batches of 64: the driver's default is 32.
  const config = join(folder, 'config.json');
  const queue = (index: number, more: object): object => ({
    dev: `wq0.${index}`,
    size: 16,
    ...more,
    group_id: 0,
    priority: 10,
    block_on_fault: 1,
    max_batch_size: 64,
    type: 'user',
    driver_name: 'user',
    name: 'bench',
  });
  const queues = [queue(0, { mode: 'shared', threshold: 15 }), queue(1, { mode: 'dedicated' })];
  const engines = [0, 1, 2, 3].map((engine) => ({ dev: `engine0.${engine}`, group_id: 0 }));
  writeFileSync(config, JSON.stringify([{ dev: 'dsa0', groups: [{ dev: 'group0.0', grouped_workqueues: queues, grouped_engines: engines }] }]));
  const served = (what: string): number[] =>
    numbers(output(on(1, process.execPath, siov, 'exec', '--no-summary', '--config', config, '--', ...on(0, program, what))));
  const names = ['movdir64b', 'enqcmd', 'batch', 'memmove', 'nothing'] as const;
  const ratios: Record<(typeof names)[number], number[]> = { movdir64b: [], enqcmd: [], batch: [], memmove: [], nothing: [] };
  const seen: Record<string, number[]> = {};
  const see = (name: string, value: number): number => {
    (seen[name] ??= []).push(value);
    return value;
  };
  // Side by side in each round: what else the machine does hits all of them.
  for (let round = 0; round < ROUNDS; round++) {
    const [fault, illegal] = bare('bare') as [number, number];
    ratios.movdir64b.push(see('MOVDIR64B, posted', served('movdir64b')[0]!) / see('a store to a page out of reach: signal and back', fault));
    const [answered, idle] = served('enqcmd') as [number, number];
    see('ENQCMD while the server sleeps', idle);
    ratios.enqcmd.push(see('ENQCMD, answered', answered) / see('ENQCMD without a device: signal and back', illegal));
    const [one, deep, batch] = served('rates') as [number, number, number];
    see('NOP, 16 in flight, a descriptor', deep);
    ratios.batch.push(see('NOP, one at a time', one) / see('NOPs in a batch of 64, a descriptor', batch));
    ratios.memmove.push(see('process_vm_readv and writev of 2 MiB', bare('copy')[0]!) / see('memmove of 2 MiB', served('memmove')[0]!));
    ratios.nothing.push(
      see('files, memory, processes under siov exec', served('nothing')[0]!) / see('files, memory, processes', bare('nothing')[0]!),
    );
  }
  rmSync(folder, { recursive: true });
  console.log(`siov exec (medians of ${ROUNDS} rounds)`);
  for (const [name, values] of Object.entries(seen)) console.log(`  ${name.padEnd(52)} ${(median(values) / 1e3).toFixed(2).padStart(10)} us`);
  const said: Readonly<Record<(typeof names)[number], string>> = {
    movdir64b: 'a trapped MOVDIR64B over the bare signal (goal at most 1.5)',
    enqcmd: 'a trapped ENQCMD over the bare signal (goal at most 2)',
    batch: 'descriptors a second: batches of 64 over one at a time (goal at least 20)',
    memmove: 'memmove of 2 MiB: throughput over process_vm_readv and writev (goal at least 0.5)',
    nothing: 'a program that never looks at the device, over it alone (goal at most 1.1)',
  };
  for (const name of names) console.log(`${said[name]}: ${median(ratios[name]).toFixed(2)}`);
  if (json) {
    const file = new URL('../../bench-results/exec.json', import.meta.url);
    mkdirSync(new URL('.', file), { recursive: true });
    writeFileSync(file, JSON.stringify({ ns: seen, ratios }, null, 2));
  }
  return 0;
}
