/** Programs of these tests, compiled once, and a server for them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildMachine, compileShim, ExecServer, type MachineOptions, native, type ServerOptions } from '../src/index.js';

const sources = fileURLToPath(new URL('./programs/', import.meta.url));
const compiler = spawnSync('cc', ['--version']).error === undefined;
/** Why nothing here can run on this machine, or undefined. */
export const missing = process.platform !== 'linux' || process.arch !== 'x64' ? 'Linux on x86-64' : compiler ? undefined : 'a C compiler';
if (missing) console.log(`left out: programs under siov exec need ${missing}`);

export const programs: readonly string[] = readdirSync(sources)
  .filter((name) => name.endsWith('.c'))
  .map((name) => name.slice(0, -2));

let folder: string | undefined;
process.on('exit', () => folder && rmSync(folder, { recursive: true, force: true }));
/** A folder that goes with the tests. */
export const scratch = (): string => (folder ??= mkdtempSync(join(tmpdir(), 'siov-exec-test-')));

/** The path of a compiled program of test/programs. */
export function compiled(name: string): string {
  const path = join(scratch(), name);
  const { status, stderr } = spawnSync('cc', ['-O1', '-o', path, join(sources, `${name}.c`), '-lpthread'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name}.c does not compile:\n${stderr}`);
  return path;
}

/** A machine behind a server, for as long as `use` takes. */
export async function serving<T>(
  use: (server: ExecServer, shim: string) => Promise<T>,
  machine: MachineOptions = {},
  options: ServerOptions = {},
): Promise<T> {
  const server = new ExecServer(native(), buildMachine(native(), machine), options);
  try {
    return await use(server, compileShim());
  } finally {
    server.close();
  }
}
/** What must be left when all programs have ended. */
export const nothing = { processes: 0, files: 0, memories: 0 };
