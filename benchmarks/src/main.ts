/**
 * Benchmarks across packages. `pnpm bench [GROUP | FILTER] [--json]`: mitata's own report, then ratios; `--json` also writes bench-results/. Each
 * group runs in a process of its own, `path-dedicated` and the others of `path` too: what the engine compiled for one kind of work would slow down
 * another.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { run } from 'mitata';
import { deflateRatios, registerDeflate } from './deflate.js';
import { exec } from './exec.js';
import { mdev, uacce } from './factory.js';
import { registerIommu } from './iommu.js';
import { iommuSize } from './iommu-size.js';
import { operationRatios, registerOperations } from './operations.js';
import { registerPath } from './path.js';
import { EIGHT_QUEUES, ONE_QUEUE, registerQueues, sharedQueue } from './queues.js';
import { vfioUser } from './vfio-user.js';

const words = process.argv.slice(2);
const filter = words.find((w) => !w.startsWith('--'));
// Processes of its own, and no mitata.
if (filter === 'exec') process.exit(exec(words.includes('--json')));
if (filter === 'vfio-user') process.exit(await vfioUser(words.includes('--json')));
const groups: Readonly<Record<string, () => void>> = {
  iommu: registerIommu,
  'path-dedicated': () => registerPath(uacce('dedicated'), false),
  'path-shared': () => registerPath(uacce('shared'), true),
  'path-mdev': () => registerPath(mdev, true),
  operations: () => registerOperations(uacce('dedicated')),
  queues: registerQueues,
  deflate: registerDeflate,
};
const group = filter !== undefined && filter in groups ? filter : undefined;
const several = Object.keys(groups).filter((name) => filter === undefined || name.startsWith(`${filter}-`));
if (group === undefined && several.length > 0) {
  const self = fileURLToPath(import.meta.url);
  for (const name of several) {
    const { status } = spawnSync(process.execPath, [...process.execArgv, self, name, ...words.filter((w) => w !== filter)], { stdio: 'inherit' });
    if (status !== 0) process.exit(status ?? 1);
  }
  process.exit(0);
}
for (const [name, register] of Object.entries(groups)) if (group === undefined || name === group) register();
const result = await run({ ...(group ? {} : { filter: new RegExp(filter!, 'i') }), format: 'mitata' });

const medians = new Map(result.benchmarks.flatMap((b) => b.runs.flatMap((r) => (r.stats ? [[b.alias, r.stats.p50] as const] : []))));
const median = (name: string): number | undefined => medians.get(name);
const lines = [...operationRatios(median), ...deflateRatios(median)];
const rate = (name: string, each: number): void => {
  const ns = median(name);
  if (ns !== undefined) lines.push(`${name}: ${((each / ns) * 1e3).toFixed(1)} million descriptors a second`);
};
for (const stack of ['uacce dedicated', 'uacce shared', 'mdev dedicated']) {
  rate(`NOP, ${stack}, one at a time`, 1);
  rate(`64 NOPs in flight, ${stack}`, 64);
  rate(`a batch of 64 NOPs, ${stack}`, 64);
}
const [one, eight] = [median(ONE_QUEUE), median(EIGHT_QUEUES)];
if (one !== undefined && eight !== undefined) lines.push(`8 queues over 1 queue: ${(one / eight).toFixed(2)} of the throughput (goal 0.8)`);
if (group === 'queues') lines.push(...sharedQueue());
if (group === 'iommu') lines.push(...iommuSize());
console.log(`\n${lines.join('\n')}`);

if (words.includes('--json')) {
  const file = new URL(`../../bench-results/${group ?? 'results'}.json`, import.meta.url);
  mkdirSync(new URL('.', file), { recursive: true });
  writeFileSync(
    file,
    JSON.stringify(
      result.benchmarks.map((b) => ({
        name: b.alias,
        runs: b.runs.map((r) => ({
          name: r.name,
          stats: r.stats && { avg: r.stats.avg, p50: r.stats.p50, p99: r.stats.p99, min: r.stats.min, max: r.stats.max, heap: r.stats.heap?.avg },
        })),
      })),
      null,
      2,
    ),
  );
}
