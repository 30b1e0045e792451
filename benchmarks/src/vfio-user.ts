/**
 * Register reads over a socket, beside the same round trips between two ends in C that do nothing: on one processor (taskset) and free; then 64 devices in
 * one process. Ratios of one run; `pnpm bench vfio-user`.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROUNDS = 5;
const TRIPS = 100_000;
const DEVICES = 64;
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

interface Server {
  readonly rssPerDevice: number;
  stop(): void;
}
/** `pin`: the processor that it may use. */
async function start(transport: 'koffi' | 'net', paths: readonly string[], pin: string | undefined): Promise<Server> {
  for (const path of paths) rmSync(path, { force: true });
  const words = [process.execPath, '--expose-gc', '--import', 'tsx', here('./vfio-user-server.ts'), transport, ...paths];
  const [command, ...rest] = pin === undefined ? words : ['taskset', '-c', pin, ...words];
  const child: ChildProcess = spawn(command!, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once('line', resolve);
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
  });
  child.removeAllListeners('exit');
  await new Promise((resolve) => setTimeout(resolve, 50));
  // It waits in system calls, and has nothing to lose.
  return { ...(JSON.parse(line) as { rssPerDevice: number }), stop: () => child.kill('SIGKILL') };
}

/** Runs the benchmark; the exit code. */
export async function vfioUser(json: boolean): Promise<number> {
  if (spawnSync('gcc', ['--version']).status !== 0 || spawnSync('taskset', ['--version']).status !== 0) {
    console.log('vfio-user: left out: it needs gcc and taskset (Debian packages gcc, libc6-dev and util-linux)');
    return 0;
  }
  const folder = mkdtempSync(join(tmpdir(), 'siov-bench-'));
  const ping = join(folder, 'ping');
  execFileSync('gcc', ['-O2', '-o', ping, here('./vfio-user.c'), '-lpthread']);
  const trips = (pin: string | undefined, ...words: string[]): number =>
    Number(
      execFileSync(pin === undefined ? ping : 'taskset', [...(pin === undefined ? [] : ['-c', pin, ping]), `${TRIPS}`, ...words], {
        encoding: 'utf8',
      }),
    );
  const results: Record<string, unknown> = {};
  const row = (name: string, rate: number, of: number): void =>
    console.log(`  ${name.padEnd(34)} ${Math.round(rate).toLocaleString('en').padStart(9)} a second  ${(rate / of).toFixed(2)}`);

  const socket = (n: number): string => join(folder, `${n}`);
  for (const [where, pin] of [
    ['on one processor', '0'],
    ['free', undefined],
  ] as const) {
    const ours = await start('koffi', [socket(0)], pin);
    const net = await start('net', [socket(1)], pin);
    const rates = { threads: [] as number[], processes: [] as number[], ours: [] as number[], net: [] as number[] };
    trips(pin, socket(0));
    trips(pin, socket(1));
    // Side by side in each round: what else the machine does hits all of them.
    for (let round = 0; round < ROUNDS; round++) {
      rates.threads.push(trips(pin, 'threads'));
      rates.processes.push(trips(pin, 'processes'));
      rates.ours.push(trips(pin, socket(0)));
      rates.net.push(trips(pin, socket(1)));
    }
    ours.stop();
    net.stop();
    const ratio = (of: readonly number[]): number => median(rates.ours.map((rate, i) => rate / of[i]!));
    const base = median(rates.threads);
    console.log(`\nREGION_READ of 8 bytes, ${where} (medians of ${ROUNDS} rounds of ${TRIPS}; ratio to the first row)`);
    row('two threads in C, no protocol', base, base);
    row('two processes in C, no protocol', median(rates.processes), base);
    row('VfioUserServer, client in C', median(rates.ours), base);
    row('NetServer (node:net), client in C', median(rates.net), base);
    console.log(
      `  VfioUserServer, median of the rounds' ratios: ${ratio(rates.threads).toFixed(2)} of the threads, ${ratio(rates.processes).toFixed(2)} of the processes`,
    );
    if (pin !== undefined) console.log('  goal: 0.65, 0.75 wanted');
    results[where] = {
      ...Object.fromEntries(Object.entries(rates).map(([name, values]) => [name, median(values)])),
      ...{ ratioToThreads: ratio(rates.threads), ratioToProcesses: ratio(rates.processes) },
    };
  }

  const paths = Array.from({ length: DEVICES }, (_, i) => socket(100 + i));
  const rates = { one: [] as number[], listening: [] as number[], connected: [] as number[] };
  const one = await start('koffi', [socket(0)], '0');
  const many = await start('koffi', paths, '0');
  trips('0', socket(0));
  trips('0', paths[0]!);
  for (let round = 0; round < ROUNDS; round++) {
    rates.one.push(trips('0', socket(0)));
    rates.listening.push(trips('0', paths[0]!));
    rates.connected.push(trips('0', ...paths));
  }
  one.stop();
  many.stop();
  const slower = (list: readonly number[]): number => median(list.map((rate, i) => rates.one[i]! / rate));
  console.log(`\n${DEVICES} devices in one process, on one processor`);
  console.log(`  memory: ${(many.rssPerDevice / 1024).toFixed(0)} KiB each`);
  console.log(`  one client, the other devices without: ${slower(rates.listening).toFixed(2)} times slower than one device alone`);
  console.log(`  one client at work, ${DEVICES - 1} connected:    ${slower(rates.connected).toFixed(2)} times slower (goal: below 1.2)`);
  results.devices = {
    count: DEVICES,
    bytesEach: many.rssPerDevice,
    slowerListening: slower(rates.listening),
    slowerConnected: slower(rates.connected),
  };
  rmSync(folder, { recursive: true });
  if (json) {
    const file = new URL('../../bench-results/vfio-user.json', import.meta.url);
    mkdirSync(new URL('.', file), { recursive: true });
    writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  }
  return 0;
}
