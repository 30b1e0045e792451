/** One guest: QEMU from power-on to power-off, and the talk with the scenario's part in it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { cpio, type Entry } from './cpio.js';
import { CommandFailed } from './problem.js';
import { ours, processorSeconds } from './processes.js';
import { qemuArguments } from './qemu.js';
import { type DmatestThread, parseDmatest, parseSaid } from './report.js';
import type { Server } from './server.js';
import { type Cache, guestFiles } from './setup.js';

export interface Boot {
  readonly servers: readonly Server[];
  /** The guest's part, a shell script: guest/functions says what it can use. */
  readonly script: string;
  /** Files for it, beside it. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  readonly cpus?: number;
  readonly dma?: 'mapped' | 'messages';
  readonly iommu?: boolean;
  readonly reboots?: boolean;
  /** What the host does when the guest asks, and what it answers. */
  readonly answer?: (question: string) => Promise<string | undefined> | string | undefined;
}
/** A stretch of work in the guest: from `ask begin` to `ask done`. */
export interface Stretch {
  readonly wall: number;
  /** Seconds of processor time: the devices' processes, and QEMU. */
  readonly ours: number;
  readonly qemu: number;
}

/** Longer than any guest of ours works, even on a slow machine. */
const DEADLINE = 180_000;

export class Guest {
  readonly #said = new Map<string, string[]>();
  readonly stretches: Stretch[] = [];
  readonly #child: ChildProcess;
  readonly #log: string;
  readonly #boot: Boot;
  readonly #over: Promise<void>;
  #begin: { readonly wall: number; readonly ours: number; readonly qemu: number } | undefined;
  #ended = false;
  #killed = false;
  #failed: Error | undefined;

  constructor(cache: Cache, folder: string, name: string, boot: Boot) {
    this.#boot = boot;
    this.#log = join(folder, `${name}.log`);
    const initrd = join(folder, `${name}.initrd`);
    const files = Object.entries({ ...boot.files, scenario: boot.script }).map(([path, data]): Entry => ({ path: `guest/${path}`, data }));
    writeFileSync(initrd, Buffer.concat([readFileSync(cache.initrd()), cpio([...guestFiles(), ...files])]));
    const { cpus = 1, dma = 'mapped', iommu = false, reboots = false } = boot;
    const sockets = boot.servers.flatMap((server) => server.sockets);
    const machine = { kernel: cache.kernel(), tree: cache.tree(), initrd, log: this.#log, sockets, cpus, dma, iommu, reboots };
    const [program, args] = cache.program('usr/bin/qemu-system-x86_64', ...qemuArguments(machine));
    this.#child = ours(spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] }));
    this.#over = this.#follow();
  }

  #follow(): Promise<void> {
    const child = this.#child;
    let errors = '';
    child.stderr!.on('data', (chunk: Buffer) => (errors += chunk));
    child.stdin!.on('error', () => {});
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const { name, text } = parseSaid(line);
      if (name === '?') void this.#answer(text);
      else if (name === 'end') this.#ended = true;
      else if (this.#said.has(name)) this.#said.get(name)!.push(text);
      else this.#said.set(name, [text]);
    });
    return new Promise((resolve) => {
      const late = setTimeout(() => {
        this.#failed ??= new CommandFailed(
          `the guest did not finish within ${DEADLINE / 1000} s; its last words:\n${this.#console().slice(-8).join('\n')}`,
        );
        child.kill('SIGKILL');
      }, DEADLINE);
      child.once('error', (error) => (this.#failed ??= new CommandFailed(`QEMU: ${error.message}`)));
      child.once('close', (status, signal) => {
        clearTimeout(late);
        if (!this.#killed && (status !== 0 || !this.#ended))
          this.#failed ??= new CommandFailed(
            `the guest ended before its scenario did (QEMU: ${signal ?? `exit code ${status}`}); its last words:\n${[...this.#console().slice(-8), errors.trim()].join('\n')}`,
          );
        resolve();
      });
    });
  }
  #console(): string[] {
    try {
      return readFileSync(this.#log, 'latin1').replace(/\r/g, '').trimEnd().split('\n');
    } catch {
      return [];
    }
  }
  async #answer(question: string): Promise<void> {
    let answer: string | undefined;
    try {
      if (question === 'begin') this.#begin = this.#now();
      else if (question === 'done' && this.#begin) this.stretches.push(since(this.#begin, this.#now()));
      answer = await this.#boot.answer?.(question);
    } catch (error) {
      this.#failed ??= error as Error;
      this.#child.kill('SIGKILL');
      return;
    }
    this.#child.stdin!.write(`${answer ?? 'ok'}\n`);
  }
  #now(): Stretch {
    return {
      wall: performance.now() / 1000,
      ours: this.#boot.servers.reduce((sum, server) => sum + server.seconds, 0),
      qemu: processorSeconds(this.#child.pid!),
    };
  }

  /** Until it has powered itself off. */
  async end(): Promise<void> {
    await this.#over;
    if (this.#failed) throw this.#failed;
  }
  /** Pulls the plug. */
  async kill(): Promise<void> {
    this.#killed = true;
    this.#child.kill('SIGKILL');
    await this.#over;
  }
  /** What it sent under a name. */
  lines(name: string): readonly string[] {
    return this.#said.get(name) ?? [];
  }
  /** The same as one value. */
  text(name: string): string {
    return this.lines(name).join('\n').trim();
  }
  json(name: string): unknown {
    try {
      return JSON.parse(this.text(name));
    } catch (error) {
      throw new CommandFailed(`${name} is not JSON (${(error as Error).message}):\n${this.text(name).slice(0, 400)}`);
    }
  }
  dmatest(name: string): DmatestThread[] {
    return parseDmatest(this.lines(name));
  }
  /** The kernel's log, of all boots. */
  get log(): readonly string[] {
    return this.lines('dmesg');
  }
}

const since = (from: Stretch, to: Stretch): Stretch => ({ wall: to.wall - from.wall, ours: to.ours - from.ours, qemu: to.qemu - from.qemu });
