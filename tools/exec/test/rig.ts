/** Programs of these tests, compiled once, and a server for them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect } from 'vitest';
import { buildMachine, compileShim, ExecServer, type MachineOptions, native, runProgram, type ServerOptions } from '../src/index.js';

const sources = fileURLToPath(new URL('./programs/', import.meta.url));
/** Why nothing here can run on this machine, or undefined. */
export const missing = ((): string | undefined => {
  try {
    native();
  } catch (error) {
    return (error as Error).message;
  }
  return spawnSync('cc', ['--version']).error ? 'there is no C compiler' : undefined;
})();
if (missing) console.log(`left out: programs under siov exec: ${missing}`);

export const programs: readonly string[] = readdirSync(sources)
  .filter((name) => name.endsWith('.c'))
  .map((name) => name.slice(0, -2));

let folder: string | undefined;
afterAll(() => {
  if (folder) rmSync(folder, { recursive: true, force: true });
});
/** A folder that goes with the tests. */
export const scratch = (): string => (folder ??= mkdtempSync(join(tmpdir(), 'siov-exec-test-')));

/** The path of a compiled program of test/programs. */
export function compiled(name: string): string {
  const path = join(scratch(), name);
  const { status, stderr } = spawnSync('cc', ['-O1', '-o', path, join(sources, `${name}.c`), '-lpthread'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name}.c does not compile:\n${stderr}`);
  return path;
}

/** A machine behind a server, for as long as `use` takes. Programs that ended in it have left nothing. */
export async function serving<T>(
  use: (server: ExecServer, shim: string) => Promise<T>,
  machine: MachineOptions = {},
  options: ServerOptions = {},
): Promise<T> {
  const server = new ExecServer(native(), buildMachine(native(), machine), options);
  try {
    await runProgram(server, compileShim(), '/bin/true', [], { stdio: 'pipe' });
    const before = held(server);
    const result = await use(server, compileShim());
    expect(held(server)).toEqual(before);
    return result;
  } finally {
    server.close();
  }
}
/** What programs leave behind: all of it must go with them. PASIDs, clients of queues, and descriptors of this very process. */
export function held(server: ExecServer) {
  const { drivers, host } = server.machine;
  const { sysfs } = host.kernel.user;
  return {
    ...server.alive,
    pasids: (Reflect.get(host.kernel.iommu, 'pasids') as { readonly count: number }).count,
    clients: drivers.flatMap((driver) => driver.wqs.map((wq) => wq.clients)).reduce((sum, n) => sum + n, 0),
    fileAttributes: drivers
      .flatMap(({ sysfsPath, id, wqs }) => wqs.map(({ index }) => `${sysfsPath}/wq${id}.${index}`))
      .flatMap((path) => sysfs.list(path).filter((name) => /^file\d/.test(name))),
    descriptors: readdirSync('/proc/self/fd').length,
  };
}
