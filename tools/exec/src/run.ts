/** A program under the server. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { ExecServer } from './server.js';

export interface Ending {
  readonly code: number;
  /** It died of this signal. */
  readonly signal: NodeJS.Signals | null;
}
export interface RunOptions {
  readonly stdio?: 'inherit' | 'pipe';
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}
export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ending>;
}

/** What a program must find in its environment. */
export function environment(server: ExecServer, shim: string, base: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return { ...base, LD_PRELOAD: base.LD_PRELOAD ? `${shim} ${base.LD_PRELOAD}` : shim, SIOV_EXEC: server.root };
}

/** Starts a program; somebody runs the server meanwhile. 127 and 126 as of a shell: not found, not executable. */
export function start(server: ExecServer, shim: string, program: string, args: readonly string[], options: RunOptions = {}): Started {
  const child = spawn(program, args, {
    stdio: options.stdio ?? 'inherit',
    env: environment(server, shim, options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  if (child.pid !== undefined) server.wakeFor(child.pid);
  const ended = new Promise<Ending>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      process.stderr.write(`siov exec: ${program}: ${error.code === 'ENOENT' ? 'not found' : error.message}\n`);
      resolve({ code: error.code === 'ENOENT' ? 127 : 126, signal: null });
    });
    child.once('close', (code, signal) => resolve({ code: code ?? 128, signal }));
  });
  return { child, ended };
}

/** Runs a program to its end. */
export async function runProgram(
  server: ExecServer,
  shim: string,
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ending & { readonly output: string }> {
  const { child, ended } = start(server, shim, program, args, options);
  let output = '';
  child.stdout?.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr?.on('data', (text: Buffer) => (output += text.toString()));
  let ending: Ending | undefined;
  void ended.then((how) => {
    ending = how;
  });
  await server.run(() => ending !== undefined);
  return { ...ending!, output };
}
