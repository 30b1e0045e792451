/** The device's process: `siov serve`, started by us and spoken to as anybody would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { CommandFailed } from './problem.js';
import { descriptorCount, mappings, ours, processorSeconds } from './processes.js';

/** A program and its first arguments. */
export type Command = readonly [program: string, ...args: string[]];
/** Of one device, since it was made (`siov serve --json`). */
export interface Counters {
  readonly descriptors: number;
  readonly failed: number;
  readonly bytes: number;
  readonly faults: number;
  readonly interrupts: number;
  /** Microseconds from the store that made a descriptor whole to its record, of the last few thousand. */
  readonly p50: number;
  readonly p99: number;
}
interface Event {
  readonly event: string;
  readonly devices?: readonly Counters[];
  readonly why?: string;
}

export class Server {
  readonly sockets: readonly string[];
  readonly device: string;
  /** What it said, in order. */
  readonly events: Event[] = [];
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #errors = '';
  #ended = false;
  #stopped = false;

  private constructor(child: ChildProcess, sockets: readonly string[], device: string) {
    this.#child = child;
    this.sockets = sockets;
    this.device = device;
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.events.push(JSON.parse(line) as Event);
      this.#wake();
    });
    child.stderr!.on('data', (chunk: Buffer) => (this.#errors += chunk));
    child.once('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  static async start(serve: Command, device: string, sockets: readonly string[]): Promise<Server> {
    const [program, ...args] = serve;
    const child = ours(spawn(program, [...args, '--json', '--device', device, '--socket', sockets.join(',')], { stdio: ['pipe', 'pipe', 'pipe'] }));
    const server = new Server(child, sockets, device);
    await server.says('listening');
    return server;
  }

  /** Whether it is gone without having been asked to. */
  get lost(): boolean {
    return this.#ended && !this.#stopped;
  }
  /** Why it ended, if it did. */
  get errors(): string {
    return this.#errors.trim();
  }
  get #pid(): number {
    return this.#child.pid!;
  }
  /** Seconds of processor time so far. */
  get seconds(): number {
    return processorSeconds(this.#pid);
  }
  get descriptors(): number {
    return descriptorCount(this.#pid);
  }
  /** Guest memory that it has mapped: files of memfd_create(2). */
  get guestMappings(): string[] {
    return mappings(this.#pid).filter((line) => line.includes('memfd:memory-backend'));
  }
  /** The latest counters of a device. */
  now(device: number): Counters {
    const latest = this.events.filter((e) => e.devices).at(-1)?.devices?.[device];
    return latest ?? { descriptors: 0, failed: 0, bytes: 0, faults: 0, interrupts: 0, p50: 0, p99: 0 };
  }
  count(event: string): number {
    return this.events.filter((e) => e.event === event).length;
  }
  /** Until it has said something so many times. */
  async says(event: string, times = 1): Promise<void> {
    const until = performance.now() + 30_000;
    while (this.count(event) < times) {
      if (this.#ended) throw new CommandFailed(`the device's process ended: ${this.errors || 'without a word'}`);
      if (performance.now() > until) throw new CommandFailed(`the device's process did not say '${event}' within 30 s`);
      await this.#next(until - performance.now());
    }
  }
  /** A fault on demand: what a person would type. */
  async inject(fault: string): Promise<void> {
    const times = this.count('injected') + this.count('problem') + 1;
    this.#child.stdin!.write(`${fault}\n`);
    await this.says('injected', times);
  }
  /** Ends it: the last counters. */
  async stop(): Promise<readonly Counters[]> {
    this.#stopped ||= !this.#ended;
    if (!this.#ended) {
      this.#child.kill('SIGTERM');
      const late = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
      await once(this.#child, 'close');
      clearTimeout(late);
    }
    if (this.#child.exitCode !== 0)
      throw new CommandFailed(`the device's process ended with ${this.#child.signalCode ?? this.#child.exitCode}: ${this.errors}`);
    return this.events.find((e) => e.event === 'end')?.devices ?? [];
  }
  /** The same, where it failed already. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
  #next(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#waiting.add(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
