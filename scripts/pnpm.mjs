/**
 * The two commands of a fresh machine: it has Node and npm, and nothing else. `start` installs, builds the command line's JavaScript and
 * hands the rest of the arguments to it; `test` installs and runs every package's tests. The pinned pnpm comes through npx. What the tools
 * say goes to standard error, so that standard output is the program's alone.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const { packageManager } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', npm_config_update_notifier: 'false', NPM_CONFIG_YES: 'true' };
const [what, ...rest] = process.argv.slice(2);

function run(command, args, stdio) {
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio });
  if (error) process.stderr.write(`${command}: ${error.message}\n`);
  return status ?? 1;
}
const pnpm = (args, stdio) => run('npx', ['--yes', '--loglevel=error', packageManager, ...args], stdio);

let status = pnpm(['run', '--silent', what === 'start' ? 'ready:start' : 'ready:test'], ['ignore', 2, 2]);
if (status !== 0) process.stderr.write(`set-up failed: ${packageManager} could not install or build; the lines above say why\n`);
else if (what === 'start') status = run(process.execPath, ['tools/siov/bin/siov.js', ...(rest.length > 0 ? rest : ['compare'])], 'inherit');
else status = run(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...rest], 'inherit');
process.exit(status);
