/** Benchmarks across packages. `pnpm bench [FILTER] [--json]`: mitata's own report, then ratios; `--json` also writes bench-results/. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { run } from 'mitata';
import { mdev, uacce } from './factory.js';
import { registerIommu } from './iommu.js';
import { registerPath } from './path.js';

const words = process.argv.slice(2);
const filter = words.find((w) => !w.startsWith('--'));
registerIommu();
registerPath([uacce('dedicated'), uacce('shared'), mdev]);
const result = await run({ ...(filter ? { filter: new RegExp(filter, 'i') } : {}), format: 'mitata' });

if (words.includes('--json')) {
  const file = new URL('../../bench-results/results.json', import.meta.url);
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
