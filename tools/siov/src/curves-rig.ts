/** What published measurements of DSA were taken with, as one rig on the model: one thread, one queue, and what it does around each descriptor. */
import { Flag, Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { type CostTable, defaultCosts } from '@siov/stack';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import type { CurveOp } from './curves-data.js';

export const GIB = 2 ** 30;
/** Bytes of each buffer: operations walk through it, so that each is on pages of its own. */
const BUFFER = 32 << 20;
const PAGE = 4096;
const MEMBERS = 32;
const IDLE = { step: () => 'wait' as const };
/** mmap flags: anonymous, private; with its pages there; in 2 MiB pages. */
const ANONYMOUS = 0x22;
const POPULATE = 0x8000;
const HUGE = 0x40000;

/** What the thread spends on one descriptor, and on a member of a batch (reading its record, which the device wrote last), in nanoseconds. */
const PREPARE = 20;
const NOTICE_AND_HARVEST = 70;
const HARVEST = 10;
/** Set by batches of 64-byte moves, which take as long with four engines as with one: 43 ns each, less ENQCMD and the preparation. */
const MEMBER = 18;

const opcodes: Record<CurveOp | 'nop', number> = {
  memmove: Opcode.memmove,
  fill: Opcode.fill,
  compare: Opcode.compare,
  pattern: Opcode.comparePattern,
  nop: Opcode.nop,
};
type Op = keyof typeof opcodes;

export interface RigOptions {
  readonly engines: number;
  /** 2 MiB pages (default 4 KiB). */
  readonly huge?: boolean;
  /** The same two buffers for every operation. */
  readonly reuse?: boolean;
  /** Bytes into a line at which buffers begin. */
  readonly offset?: number;
  /** How many threads submit: together they need this part of the time. */
  readonly threads?: number;
}

export class Rig {
  readonly stack: UacceStack;
  readonly #client: Client;
  readonly #batches: Client;
  readonly #source: number;
  readonly #destination: number;
  readonly #o: RigOptions;
  readonly #threads: number;
  #at = 0;

  constructor(options: RigOptions) {
    const { engines, huge = false, threads = 1 } = options;
    this.#o = options;
    this.#threads = threads;
    this.stack = new UacceStack({
      ramBytes: 256 << 20,
      costs: shared(threads),
      config: { wqs: [{ mode: 'shared', size: 128, group: 0 }], groups: [{ engines: Array.from({ length: engines }, (_, i) => i) }] },
    });
    const task = this.stack.host.kernel.user.spawn(IDLE);
    const queue = openUacceQueue(this.stack, 'shared')(task);
    this.#client = new Client(task, queue, { depth: 512 });
    this.#batches = new Client(task, queue, { depth: 17 });
    const flags = ANONYMOUS | POPULATE | (huge ? HUGE : 0);
    // A page beyond the end, for buffers that do not begin on one.
    this.#source = task.mmap(0, BUFFER + (huge ? 2 << 20 : PAGE), 3, flags);
    this.#destination = task.mmap(0, BUFFER + (huge ? 2 << 20 : PAGE), 3, flags);
  }
  get clock() {
    return this.stack.host.clock;
  }
  #spend(ns: number): void {
    this.clock.spend(Math.round(ns / this.#threads));
  }
  #prepare(client: Client, slot: number, op: Op, bytes: number, at = this.#next(bytes)): void {
    const from = this.#source + at;
    const to = this.#destination + at;
    // Buffers are zero: a comparison with each other or with a pattern of zeros goes to the end.
    if (op === 'nop') client.prepare(slot, opcodes.nop, 0, 0, 0, 0, 0);
    else if (op === 'fill') client.prepare(slot, opcodes.fill, 0, 0, hi(to), lo(to), bytes);
    else if (op === 'pattern') client.prepare(slot, opcodes.pattern, hi(from), lo(from), 0, 0, bytes);
    else client.prepare(slot, opcodes[op], hi(from), lo(from), hi(to), lo(to), bytes);
  }
  /** Where the next operation works: on a new page, or on the next lines of this one. */
  #next(bytes: number): number {
    const { offset = 0, reuse } = this.#o;
    if (reuse) return offset;
    const step = Math.max(bytes, offset ? 128 : 64);
    if (this.#at + step > BUFFER) this.#at = 0;
    const at = this.#at + offset;
    this.#at += step;
    return at;
  }
  #until(client: Client, slot: number): void {
    if (!this.clock.wait(() => client.poll(slot) !== 0) || (client.poll(slot) & 0x7f) !== 1)
      throw new Error(`a descriptor ended with status ${client.poll(slot)}`);
  }
  #submit(client: Client, slot: number): void {
    while (client.submit(slot) !== 0) if (!this.clock.pump()) this.clock.idle();
  }

  /** Mean microseconds of one operation at a time. */
  sync(op: Op, bytes: number): number {
    const n = Math.min(200, Math.max(20, Math.floor(BUFFER / bytes)));
    const { clock } = this;
    let ns = 0;
    for (let i = -10; i < n; i++) {
      const from = clock.now;
      this.#spend(PREPARE);
      this.#prepare(this.#client, 0, op, bytes);
      this.#submit(this.#client, 0);
      this.#until(this.#client, 0);
      this.#spend(NOTICE_AND_HARVEST);
      if (i >= 0) ns += clock.now - from;
    }
    return ns / n / 1000;
  }
  /** Microseconds per operation with `depth` descriptors in flight, harvested in order. */
  asynchronous(op: Op, bytes: number, depth = 128): number {
    const n = Math.min(4000, Math.max(600, Math.floor((2 * BUFFER) / bytes)));
    const { clock } = this;
    let started = 0;
    let done = 0;
    let from = 0;
    while (done < n) {
      while (started < n && started - done < depth) {
        const slot = started++ % depth;
        this.#spend(PREPARE);
        this.#prepare(this.#client, slot, op, bytes);
        this.#submit(this.#client, slot);
        clock.pump();
      }
      if (done === depth) from = clock.now;
      const slot = done % depth;
      if (this.#client.poll(slot) === 0) this.#until(this.#client, slot);
      this.#spend(HARVEST);
      done++;
    }
    return (clock.now - from) / (n - depth) / 1000;
  }
  /** GiB/s of batches, eight of them in flight. */
  batch(op: Op, bytes: number, members = MEMBERS, inFlight = 8): number {
    const n = Math.min(200, Math.max(40, Math.floor((2 * BUFFER) / bytes / members)));
    const { clock } = this;
    let started = 0;
    let done = 0;
    let from = 0;
    const warm = inFlight;
    while (done < n + warm) {
      while (started < n + warm && started - done < inFlight) {
        const slot = started++ % inFlight;
        this.#list(slot, op, bytes, members);
        this.#spend(PREPARE * members);
        this.#submit(this.#batches, slot);
        clock.pump();
      }
      if (done === warm) from = clock.now;
      this.#until(this.#batches, done % inFlight);
      this.#spend(MEMBER * members);
      clock.pump();
      done++;
    }
    return ((n * members * bytes) / (clock.now - from)) * (1e9 / GIB);
  }
  #list(slot: number, op: Op, bytes: number, members: number): void {
    for (let i = 0; i < members; i++) this.#prepare(this.#client, slot * members + i, op, bytes);
    const list = this.#client.descriptors + slot * members * 64;
    this.#batches.prepare(slot, Opcode.batch, hi(list), lo(list), 0, 0, members);
  }

  /** One large operation, and behind it batches of 32 of 1 KiB: how many are finished before it. */
  overtaking(op: Op, large: number): number {
    const slots = 12;
    const { clock } = this;
    const last = slots;
    this.#at = 0;
    this.#prepare(this.#batches, last, op, large, 0);
    this.#at = large;
    // Lists are made before, so that the thread is not the limit.
    for (let slot = 0; slot < slots; slot++) this.#list(slot, op, 1024, MEMBERS);
    this.#submit(this.#batches, last);
    for (let slot = 0; slot < slots; slot++) this.#submit(this.#batches, slot);
    let finished = 0;
    let next = 0;
    while (this.#batches.poll(last) === 0) {
      if (!clock.wait(() => this.#batches.poll(last) !== 0 || this.#batches.poll(next) !== 0)) throw new Error('the device stopped');
      while (this.#batches.poll(next) !== 0) {
        finished++;
        const list = this.#client.descriptors + next * MEMBERS * 64;
        this.#batches.prepare(next, Opcode.batch, hi(list), lo(list), 0, 0, MEMBERS);
        this.#submit(this.#batches, next);
        next = (next + 1) % slots;
      }
    }
    clock.wait(() => false);
    return finished;
  }
}

/** The table with the processor's part divided among threads. */
function shared(threads: number): CostTable {
  const { 'cpu.enqcmd': enqcmd, 'cpu.enqcmdRetry': retry } = defaultCosts;
  const part = <T extends { readonly ns: number }>(row: T): T => ({ ...row, ns: Math.round(row.ns / threads) });
  return { ...defaultCosts, 'cpu.enqcmd': part(enqcmd), 'cpu.enqcmdRetry': part(retry) };
}

/** What the destination's pages are like when the device comes, and what the processor does about it. */
export interface Pages {
  readonly blockOnFault?: boolean;
  /** Touch all before, or each operation's pages before it; `resume`: after a partial completion so many bytes from the fault on. */
  readonly touch?: 'all' | 'each';
  readonly resume?: number;
  readonly huge?: boolean;
  readonly populated?: boolean;
}
/** GiB/s of moving `bytes` into pages of that kind, with all that the processor does for them. */
export function intoPages(pages: Pages, size: number, bytes: number): number {
  const stack = new UacceStack({
    ramBytes: 256 << 20,
    config: { wqs: [{ mode: 'dedicated', size: 128, group: 0, blockOnFault: pages.blockOnFault ?? false }] },
  });
  const { clock, kernel } = stack.host;
  const task = kernel.user.spawn(IDLE);
  const depth = 8;
  const client = new Client(task, openUacceQueue(stack, 'dedicated')(task), { depth, flags: pages.blockOnFault ? Flag.blockOnFault : 0 });
  const source = task.mmap(0, bytes, 3, ANONYMOUS | POPULATE);
  const destination = task.mmap(0, bytes, 3, ANONYMOUS | (pages.huge ? HUGE : 0) | (pages.populated ? POPULATE : 0));
  const touch = (from: number, to: number): void => {
    for (let at = from; at < to; at += PAGE) task.words(hi(at), lo(at), 1);
  };
  const begin = clock.now;
  if (pages.touch === 'all') touch(destination, destination + bytes);
  const waiting: number[] = [];
  const harvest = (): void => {
    const slot = waiting.shift()!;
    for (;;) {
      clock.wait(() => client.poll(slot) !== 0);
      if (!client.resume(slot)) break;
      const fault = client.record(slot, 2) + client.record(slot, 3) * 2 ** 32;
      touch(fault, Math.min(fault + (pages.resume ?? PAGE), destination + bytes));
      client.submit(slot);
    }
    if (client.poll(slot) !== 1) throw new Error(`a descriptor ended with status ${client.poll(slot)}`);
  };
  for (let at = 0; at < bytes; at += size) {
    if (waiting.length === depth) harvest();
    if (pages.touch === 'each') touch(destination + at, destination + at + size);
    const slot = (at / size) % depth;
    client.prepare(slot, Opcode.memmove, hi(source + at), lo(source + at), hi(destination + at), lo(destination + at), size);
    clock.spend(PREPARE);
    client.submit(slot);
    waiting.push(slot);
    clock.pump();
  }
  while (waiting.length > 0) harvest();
  return (bytes / (clock.now - begin)) * (1e9 / GIB);
}

export interface Counts {
  readonly what: string;
  readonly requests: number;
  readonly hits: number;
  readonly wantRequests: number;
  /** Not published for batches. */
  readonly wantHits?: number;
}
/** C13: translation requests and hits of the device's cache. */
export function translationCounts(): Counts[] {
  const rig = (depth: number) => {
    const stack = new UacceStack({ ramBytes: 64 << 20 });
    const task = stack.host.kernel.user.spawn(IDLE);
    const queue = openUacceQueue(stack, 'dedicated')(task);
    const client = new Client(task, queue, { depth });
    const [from, to] = [task.mmap(0, 1 << 20, 3, ANONYMOUS | POPULATE), task.mmap(0, 1 << 20, 3, ANONYMOUS | POPULATE)];
    const device = stack.host.devices[0]!;
    // The unit counts pages; the device's cache, what it answered itself.
    const counts = () => ({ hits: device.traffic.deviceTlbHits, requests: device.traffic.deviceTlbHits + stack.host.unit.counters[0]! });
    const run = (submitter: Client, slot: number): void => {
      submitter.submit(slot);
      stack.host.clock.wait(() => submitter.poll(slot) !== 0);
    };
    return { task, queue, client, from, to, counts, run };
  };
  const moves = [
    [1, 1],
    [10, 1],
    [5, 3],
    [20, 8],
  ].map(([k, p]): Counts => {
    const { client, from, to, counts, run } = rig(1);
    for (let i = 0; i < k!; i++) {
      client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), p! * PAGE);
      run(client, 0);
    }
    return { what: `${k} moves of ${p} pages`, ...counts(), wantRequests: k! * (1 + 2 * p!), wantHits: p === 1 ? 3 * k! - 3 : k! - 1 };
  });
  const batches = [
    [8, 0],
    [0, 8],
    [40, 40],
  ].map(([n, m]): Counts => {
    const { task, queue, client, from, to, counts, run } = rig(n! + m!);
    const batch = new Client(task, queue, { depth: 1 });
    for (let i = 0; i < n!; i++) client.prepare(i, Opcode.nop, 0, 0, 0, 0, 0);
    for (let i = n!; i < n! + m!; i++) client.prepare(i, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), PAGE);
    const list = client.descriptors;
    batch.prepare(0, Opcode.batch, hi(list), lo(list), 0, 0, n! + m!);
    run(batch, 0);
    const listPages = Math.ceil(((n! + m!) * 64) / PAGE);
    return { what: `a batch of ${n} NOPs and ${m} moves of a page`, ...counts(), wantRequests: 2 + n! + 3 * m! + listPages - 1 };
  });
  return [...moves, ...batches];
}
