import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', npm_config_update_notifier: 'false', npm_config_prefer_offline: 'true' };
const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { packageManager: string };
const pnpm = (...args: string[]): void => void execFileSync('npx', ['--yes', packageManager, ...args], { cwd: root, env, stdio: 'pipe' });
const packages = ['layout', 'pci-core', 'iommu', 'idxd-device', 'uacce'];

test('the packed iommu, idxd-device and uacce, installed by npm into an empty project, make a stack in at most 30 lines', () => {
  pnpm('turbo', 'run', 'build:js', '--output-logs=errors-only', ...packages.map((p) => `--filter=@siov/${p}`));
  const project = mkdtempSync(join(tmpdir(), 'siov-pack-'));
  for (const p of packages) pnpm('--filter', `@siov/${p}`, 'pack', '--pack-destination', project);
  const archives = readdirSync(project).filter((f) => f.endsWith('.tgz'));
  expect(archives).toHaveLength(packages.length);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'outside', version: '1.0.0', type: 'module' }));
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', ...archives.map((f) => `./${f}`)], {
    cwd: project,
    env,
    stdio: 'pipe',
  });
  cpSync(new URL('../outside/stack.mjs', import.meta.url), join(project, 'stack.mjs'));
  const lines = readFileSync(join(project, 'stack.mjs'), 'utf8')
    .trim()
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.trim().startsWith('//'));
  expect(lines.length).toBeLessThanOrEqual(30);
  expect(execFileSync(process.execPath, ['stack.mjs'], { cwd: project, encoding: 'utf8' })).toBe(
    'moved through (0x0008, PASID 7) by the IOMMU\nDSA says success\n',
  );
}, 240_000);
