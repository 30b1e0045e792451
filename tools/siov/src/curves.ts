/** `siov curves`: the set-ups of published measurements on the model, point by point beside what was measured. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { bytesSource, Workload } from '@siov/stack';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import { curves as all, type Curve, type CurveOp, missing, pageStates } from './curves-data.js';
import { helpText, type Option, parseOptions, sizeText, UsageError } from './options.js';
import { progress, table } from './text.js';

const GIB = 2 ** 30;
/** Bytes of each buffer: operations walk through it, so that each is on pages of its own. */
const BUFFER = 32 << 20;
const IDLE = { step: () => 'wait' as const };

const options: readonly Option[] = [
  { name: 'svg', value: 'DIR', help: 'also draw each curve into DIR' },
  { name: 'json', help: 'print JSON for machines' },
  { name: 'help', help: 'this text' },
];

const opcodes: Record<CurveOp, number> = { memmove: Opcode.memmove, fill: Opcode.fill, compare: Opcode.compare, pattern: Opcode.comparePattern };

/** One thread on a shared queue. */
class Rig {
  readonly stack: UacceStack;
  readonly client: Client;
  readonly batches: Client;
  readonly #source: number;
  readonly #destination: number;
  #at = 0;

  constructor(engines: number) {
    this.stack = new UacceStack({
      ramBytes: 256 << 20,
      config: { wqs: [{ mode: 'shared', size: 128, group: 0 }], groups: [{ engines: Array.from({ length: engines }, (_, i) => i) }] },
    });
    const task = this.stack.host.kernel.user.spawn(IDLE);
    const queue = openUacceQueue(this.stack, 'shared')(task);
    this.client = new Client(task, queue, { depth: 512 });
    this.batches = new Client(task, queue, { depth: 16 });
    this.#source = task.mmap(0, BUFFER, 3, 0x8022);
    this.#destination = task.mmap(0, BUFFER, 3, 0x8022);
  }
  get clock() {
    return this.stack.host.clock;
  }
  prepare(slot: number, op: CurveOp, bytes: number): void {
    if (this.#at + bytes > BUFFER) this.#at = 0;
    const from = this.#source + this.#at;
    const to = this.#destination + this.#at;
    // Buffers are zero: a comparison with each other or with a pattern of zeros goes to the end.
    if (op === 'fill') this.client.prepare(slot, opcodes.fill, 0, 0, hi(to), lo(to), bytes);
    else if (op === 'pattern') this.client.prepare(slot, opcodes.pattern, hi(from), lo(from), 0, 0, bytes);
    else this.client.prepare(slot, opcodes[op], hi(from), lo(from), hi(to), lo(to), bytes);
    // The next one is on a new page, or on the next lines of this one.
    this.#at += Math.max(bytes, 64);
  }
  #until(client: Client, slot: number): void {
    if (!this.clock.wait(() => client.poll(slot) !== 0) || (client.poll(slot) & 0x7f) !== 1)
      throw new Error(`a descriptor ended with status ${client.poll(slot)}`);
  }

  /** Mean microseconds of one operation at a time. */
  sync(op: CurveOp, bytes: number): number {
    const n = Math.min(200, Math.max(20, Math.floor(BUFFER / bytes)));
    const { clock } = this;
    let ns = 0;
    for (let i = -10; i < n; i++) {
      const from = clock.now;
      clock.spend(20);
      this.prepare(0, op, bytes);
      while (this.client.submit(0) !== 0) clock.idle();
      this.#until(this.client, 0);
      clock.spend(70);
      if (i >= 0) ns += clock.now - from;
    }
    return ns / n / 1000;
  }
  /** GiB/s with `depth` descriptors in flight, in order. */
  asynchronous(op: CurveOp, bytes: number, depth = 128): number {
    const n = Math.min(4000, Math.max(600, Math.floor((2 * BUFFER) / bytes)));
    const { clock } = this;
    let started = 0;
    let done = 0;
    let from = 0;
    const submit = (): void => {
      const slot = started % depth;
      clock.spend(20);
      this.prepare(slot, op, bytes);
      while (this.client.submit(slot) !== 0) if (!clock.pump()) clock.idle();
      started++;
    };
    while (done < n) {
      while (started < n && started - done < depth) {
        submit();
        clock.pump();
      }
      if (done === depth) from = clock.now;
      const slot = done % depth;
      if (this.client.poll(slot) === 0) this.#until(this.client, slot);
      clock.spend(10);
      done++;
    }
    return (((n - depth) * bytes) / (clock.now - from)) * (1e9 / GIB);
  }
  /** GiB/s of batches of 32, `inFlight` of them. */
  batch(op: CurveOp, bytes: number, inFlight = 8): number {
    const members = 32;
    const n = Math.min(200, Math.max(40, Math.floor((2 * BUFFER) / bytes / members)));
    const { clock } = this;
    let started = 0;
    let done = 0;
    let from = 0;
    const warm = inFlight;
    while (done < n + warm) {
      while (started < n + warm && started - done < inFlight) {
        const slot = started % inFlight;
        for (let i = 0; i < members; i++) this.prepare(slot * members + i, op, bytes);
        clock.spend(20 * members);
        const list = this.client.descriptors + slot * members * 64;
        this.batches.prepare(slot, Opcode.batch, hi(list), lo(list), 0, 0, members);
        while (this.batches.submit(slot) !== 0) if (!clock.pump()) clock.idle();
        started++;
        clock.pump();
      }
      if (done === warm) from = clock.now;
      this.#until(this.batches, done % inFlight);
      done++;
    }
    return ((n * members * bytes) / (clock.now - from)) * (1e9 / GIB);
  }
}

interface Point {
  readonly x: number;
  readonly measured: number;
  readonly model: number;
  readonly tolerance: number;
}

const run = (curve: Curve): Point[] => {
  const rig = new Rig(curve.engines);
  return curve.sizes.map((x, i) => ({
    x,
    measured: curve.measured[i]!,
    model: curve.kind === 'sync' ? rig.sync(curve.op, x) : curve.kind === 'async' ? rig.asynchronous(curve.op, x) : rig.batch(curve.op, x),
    tolerance: curve.tolerance(x),
  }));
};

/** C11: one file-sized memmove over pages in three states. */
function runPageStates(): { readonly what: string; readonly measured: number; readonly model: number }[] {
  return pageStates.map(({ what, measured }, i) => {
    const stack = new UacceStack({ ramBytes: 256 << 20, config: { wqs: [{ mode: 'dedicated', size: 128, group: 0, blockOnFault: i === 0 }] } });
    const program = new Workload(
      {
        source: bytesSource(new Uint8Array(4 << 20)),
        op: 'memmove',
        size: i === 1 ? 32 << 10 : 256 << 10,
        depth: 4,
        touch: i === 2,
        flags: i === 0 ? 2 : 0,
      },
      openUacceQueue(stack, 'dedicated'),
    );
    stack.host.kernel.user.spawn(program);
    stack.host.kernel.user.run();
    return { what, measured, model: (program.result.bytes / program.result.virtualNs) * (1e9 / GIB) };
  });
}

/** C13: translation requests and hits of k moves of p pages between the same buffers. */
function runCounts(): {
  readonly k: number;
  readonly p: number;
  readonly requests: number;
  readonly hits: number;
  readonly wantRequests: number;
  readonly wantHits: number;
}[] {
  return [
    [1, 1],
    [10, 1],
    [5, 3],
    [20, 8],
  ].map(([k, p]) => {
    const stack = new UacceStack({ ramBytes: 64 << 20 });
    const task = stack.host.kernel.user.spawn(IDLE);
    const client = new Client(task, openUacceQueue(stack, 'dedicated')(task), { depth: 1 });
    const [from, to] = [task.mmap(0, 1 << 20, 3, 0x8022), task.mmap(0, 1 << 20, 3, 0x8022)];
    for (let i = 0; i < k!; i++) {
      client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), p! * 4096);
      client.submit(0);
      stack.host.clock.wait(() => client.poll(0) !== 0);
    }
    // The unit counts pages; the device's cache, what it answered itself.
    const { deviceTlbHits: hits } = stack.host.devices[0]!.traffic;
    const requests = hits + stack.host.unit.counters[0]!;
    return { k: k!, p: p!, requests, hits, wantRequests: k! * (1 + 2 * p!), wantHits: p === 1 ? 3 * k! - 3 : k! - 1 };
  });
}

export function curves(argv: readonly string[]): number {
  const { words, values } = parseOptions(argv, options, 'curves');
  if (values.help) {
    process.stdout.write(
      helpText(
        'siov curves [ID ...] [options]',
        'Runs the set-ups of published measurements of DSA on the model (one thread, shared queue, 4 KiB pages) and prints, point by\npoint, model, measurement, deviation and the tolerance that the data deserve. C1 to C4, C6 and the floor of C5 calibrated the\ncost table, so they test its shape; the others are mostly independent.',
        options,
      ),
    );
    return 0;
  }
  const known = [...all.map((c) => c.id), ...missing.map((m) => m.id), 'C11', 'C13'];
  for (const w of words) if (!known.includes(w)) throw new UsageError(`there is no curve '${w}'; curves are ${known.join(', ')}`);
  const wanted = (id: string): boolean => words.length === 0 || words.includes(id);
  const chosen = all.filter((c) => wanted(c.id));
  const tell = progress('curves', chosen.length);
  const results = chosen.map((curve, i) => {
    const points = run(curve);
    tell(i + 1);
    return { curve, points };
  });
  const states = wanted('C11') ? runPageStates() : [];
  const counts = wanted('C13') ? runCounts() : [];
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ version: 1, curves: results.map(({ curve: { id, what }, points }) => ({ id, what, points })), C11: states, C13: counts, missing: missing.filter((m) => wanted(m.id)) }, null, 2)}\n`,
    );
  } else {
    for (const { curve, points } of results) {
      const inside = points.filter((p) => Math.abs(p.model / p.measured - 1) <= p.tolerance).length;
      process.stdout.write(`${curve.id}: ${curve.what}; ${inside} of ${points.length} points within the tolerance\n`);
      process.stdout.write(
        `${table(
          points.map((p) => [
            sizeText(p.x),
            p.measured.toFixed(2),
            p.model.toFixed(2),
            percent(p.model / p.measured - 1),
            `${Math.round(p.tolerance * 100)} %`,
            Math.abs(p.model / p.measured - 1) <= p.tolerance ? '' : 'outside',
          ]),
          ['size', 'measured', 'model', 'deviation', 'tolerance', ''],
        )}\n\n`,
      );
    }
    if (states.length > 0)
      process.stdout.write(
        `C11: state of the pages, GiB/s (tolerance 15 %)\n${table(
          states.map((s) => [s.what, s.measured.toFixed(2), s.model.toFixed(2), percent(s.model / s.measured - 1)]),
          ['', 'measured', 'model', 'deviation'],
        )}\n\n`,
      );
    if (counts.length > 0)
      process.stdout.write(
        `C13: translations of k moves of p pages (exact)\n${table(
          counts.map((c) => [`k = ${c.k}, p = ${c.p}`, `${c.requests} of ${c.wantRequests}`, `${c.hits} of ${c.wantHits}`]),
          ['', 'requests', 'hits'],
        )}\n\n`,
      );
    for (const m of missing) if (wanted(m.id)) process.stdout.write(`${m.id} is not drawn: ${m.why}\n`);
  }
  if (values.svg) draw(values.svg as string, results);
  return 0;
}

const percent = (x: number): string => `${x >= 0 ? '+' : ''}${(100 * x).toFixed(1)} %`;

/** Log-log plots: measured points as circles, the model as a line. */
function draw(folder: string, results: readonly { readonly curve: Curve; readonly points: readonly Point[] }[]): void {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new UsageError(`--svg: cannot make '${folder}': ${(error as NodeJS.ErrnoException).code}`);
  }
  for (const { curve, points } of results) {
    const ys = points.flatMap((p) => [p.measured, p.model]);
    const scale = (v: number, low: number, high: number, from: number, to: number): number =>
      from + ((Math.log(v) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (to - from);
    const x = (v: number): string => scale(v, points[0]!.x, points.at(-1)!.x, 60, 580).toFixed(1);
    const y = (v: number): string => scale(v, Math.min(...ys), Math.max(...ys), 340, 40).toFixed(1);
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 380" font-family="sans-serif" font-size="12">
<text x="60" y="20">${curve.id}: ${curve.what}</text>
<polyline fill="none" stroke="#06c" stroke-width="2" points="${points.map((p) => `${x(p.x)},${y(p.model)}`).join(' ')}"/>
${points.map((p) => `<circle cx="${x(p.x)}" cy="${y(p.measured)}" r="4" fill="none" stroke="#c30"><title>${sizeText(p.x)}: measured ${p.measured}, model ${p.model.toFixed(2)}</title></circle>`).join('\n')}
${points.map((p) => `<text x="${x(p.x)}" y="362" text-anchor="middle" font-size="9">${sizeText(p.x).replace('iB', '')}</text>`).join('\n')}
<text x="60" y="34" fill="#06c">line: model</text><text x="140" y="34" fill="#c30">circles: measured</text>
</svg>
`;
    writeFileSync(join(folder, `${curve.id}.svg`), svg);
  }
}
