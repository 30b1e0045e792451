/** Other programs: run to their end, or kept at hand; none outlives us. And what the kernel knows of them (proc(5)). */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { CommandFailed } from './problem.js';

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});
/** Ends with us, whatever ends us. */
export function ours<T extends ChildProcess>(child: T): T {
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Runs a program to its end: its standard output. Throws CommandFailed. */
export function run(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = ours(spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] }));
    const out: Buffer[] = [];
    const all: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => void (out.push(chunk), all.push(chunk)));
    child.stderr.on('data', (chunk: Buffer) => void all.push(chunk));
    child.once('error', (error) => reject(new CommandFailed(`${command}: ${error.message}`)));
    child.once('close', (status, signal) => {
      if (status === 0) return resolve(Buffer.concat(out).toString());
      const tail = Buffer.concat(all).toString().trim().split('\n').slice(-12).join('\n');
      reject(new CommandFailed(`${command} ${args.slice(-3).join(' ')}: ${signal ?? `exit code ${status}`}\n${tail}`));
    });
  });
}

/** Ticks of the times in /proc/PID/stat: USER_HZ, 100 on x86-64. */
const TICKS = 100;
/** Seconds of processor time that a process has used so far, in user and in kernel mode; 0 if it is gone. */
export function processorSeconds(pid: number): number {
  try {
    const fields = afterName(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  } catch {
    return 0;
  }
}
/** Fields from the third on: the second is a name in parentheses that may hold anything. */
export const afterName = (stat: string): string[] => stat.slice(stat.lastIndexOf(')') + 2).split(' ');

/** How many file descriptors a process holds. */
export const descriptorCount = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
/** What a process has mapped. */
export const mappings = (pid: number): string[] => readFileSync(`/proc/${pid}/maps`, 'latin1').trimEnd().split('\n');
