/** The preload shim, compiled with the machine's own compiler when it is first needed. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The shim cannot be had; the message says what to do. */
export class ShimError extends Error {}

const folder = fileURLToPath(new URL('../shim/', import.meta.url));
const sources = ['server.c', 'paths.c', 'files.c', 'traps.c'];
const flags = ['-O2', '-fPIC', '-shared', '-fvisibility=hidden', '-Wl,-z,now'];

/** The path of the shared object. Throws ShimError. */
export function compileShim(cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'siov', 'exec'), compiler = 'cc'): string {
  const hash = createHash('sha256').update(flags.join(' '));
  for (const name of [...sources, 'shim.h', 'wire.h']) hash.update(readFileSync(join(folder, name)));
  const path = join(cache, `shim-${hash.digest('hex').slice(0, 16)}.so`);
  if (existsSync(path)) return path;
  mkdirSync(cache, { recursive: true });
  const made = `${path}.${process.pid}`;
  const done = spawnSync(compiler, [...flags, '-o', made, ...sources.map((name) => join(folder, name)), '-ldl', '-lpthread'], { encoding: 'utf8' });
  if (done.error)
    throw new ShimError(
      `the shim is C and needs a compiler once: '${compiler}' does not start (${done.error.message}); on Debian: apt install gcc libc6-dev`,
    );
  if (done.status !== 0) throw new ShimError(`'${compiler}' does not compile the shim:\n${done.stderr}`);
  renameSync(made, path);
  return path;
}
