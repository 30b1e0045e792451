/** What a scenario has at hand on the host, and what came of it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type Boot, Guest } from './guest.js';
import { type DmatestThread, troubleIn, withoutTime } from './report.js';
import { type Command, type Counters, Server } from './server.js';
import type { Cache } from './setup.js';

export interface Scenario {
  /** One letter, for --only. */
  readonly id: string;
  readonly name: string;
  /** What holds if it passes. */
  readonly about: string;
  run(lab: Lab): Promise<void>;
}
export interface Outcome {
  readonly id: string;
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** By what was varied: tests a second, over all threads. */
  readonly iops: Readonly<Record<string, number>>;
  /** Of the processor time that the devices' processes and QEMU used while work was done: the devices' part, 0 to 1. */
  readonly share: number | undefined;
  readonly log: readonly string[];
  readonly failures: readonly string[];
}

export class Lab {
  readonly failures: string[] = [];
  readonly iops: Record<string, number> = {};
  readonly shown: string[] = [];
  readonly #guests: Guest[] = [];
  readonly #servers: Server[] = [];
  readonly #cache: Cache;
  readonly #serve: Command;
  readonly #folder: string;

  constructor(cache: Cache, serve: Command, folder: string) {
    this.#cache = cache;
    this.#serve = serve;
    this.#folder = folder;
  }

  /** A process with devices, on sockets of their own. */
  async serve(device: 'dsa-spr' | 'dsa-gnrd' | 'iax' | 'iax-2.0', count = 1): Promise<Server> {
    const first = this.#servers.reduce((sum, server) => sum + server.sockets.length, 0);
    const server = await Server.start(
      this.#serve,
      device,
      Array.from({ length: count }, (_, i) => join(this.#folder, `${first + i}.sock`)),
    );
    this.#servers.push(server);
    return server;
  }
  /** A module as the guest has it, below /modules. */
  module(name: string): Buffer {
    return readFileSync(this.#cache.modules(name));
  }
  /** Switches a guest on. */
  boot(boot: Boot): Guest {
    const guest = new Guest(this.#cache, this.#folder, `guest${this.#guests.length}`, boot);
    this.#guests.push(guest);
    return guest;
  }
  /** A guest from power-on to power-off, whose kernel never complains. */
  async guest(boot: Boot): Promise<Guest> {
    const guest = this.boot(boot);
    await guest.end();
    this.equal("complaints in the kernel's log", troubleIn(guest.log), []);
    return guest;
  }

  /** Checks: what does not hold makes the scenario fail, and the rest is checked all the same. */
  equal(what: string, actual: unknown, expected: unknown): void {
    if (!isDeepStrictEqual(actual, expected)) this.failures.push(`${what}: ${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`);
  }
  holds(what: string, condition: boolean): void {
    if (!condition) this.failures.push(what);
  }
  /** dmatest ran on so many channels, with so many threads each, and nothing failed. Its rate goes to the table, under a name. */
  dmatest(
    name: string,
    threads: readonly DmatestThread[],
    expected: { readonly channels: number; readonly threads: number; readonly tests: number },
  ): void {
    this.equal(`dmatest, ${name}: channels`, new Set(threads.map((t) => t.channel)).size, expected.channels);
    this.equal(`dmatest, ${name}: threads`, threads.length, expected.channels * expected.threads);
    for (const thread of threads)
      this.equal(
        `dmatest, ${name}, ${thread.channel}: tests, failures, status`,
        [thread.tests, thread.failures, thread.status],
        [expected.tests, 0, 0],
      );
    this.iops[name] = Math.round(threads.reduce((sum, thread) => sum + thread.iops, 0));
  }
  /** A guest's log has such a line: the first one goes to the table. */
  logged(log: readonly string[], pattern: RegExp): void {
    const line = log.find((text) => pattern.test(text));
    if (line === undefined) this.failures.push(`the guest's log has no line like ${pattern}`);
    else this.show(withoutTime(line));
  }
  /** How long descriptors took in the device, from the slot that is complete to the record that is written: to the table. */
  latency(name: string, counters: Counters | undefined): void {
    const { p50 = 0, p99 = 0 } = counters ?? {};
    this.holds(`descriptors, ${name}: that they took time`, p50 > 0 && p99 >= p50);
    this.show(`slot to record, ${name}: p50 ${p50.toFixed(0)} us, p99 ${p99.toFixed(0)} us`);
  }
  /** A line for the table. */
  show(line: string): void {
    this.shown.push(line);
  }

  get share(): number | undefined {
    let ours = 0;
    let all = 0;
    for (const { stretches } of this.#guests)
      for (const stretch of stretches) {
        ours += stretch.ours;
        all += stretch.ours + stretch.qemu;
      }
    return all > 0 ? ours / all : undefined;
  }
  /** Ends what is still there. */
  async close(): Promise<void> {
    for (const guest of this.#guests) await guest.kill();
    for (const server of this.#servers) {
      try {
        if (server.lost) this.failures.push(`the process of ${server.device} was gone: ${server.errors}`);
        await server.stop();
      } catch (error) {
        this.failures.push((error as Error).message);
        server.kill();
      }
    }
  }
}
