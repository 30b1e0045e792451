/** A file's bytes through an analytics accelerator: as `Workload` of @siov/stack does it for DSA. Each result is judged. */
import { DecompressAecs, decompressAecsBytes, IaxStatus, iaxDescriptors, iaxRecordLayout } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { IaxClient, type IaxResult } from '@siov/idxd-driver/client-iax';
import type { OpenQueue, WorkloadOptions, WorkloadResult } from '@siov/stack';
import type { Program, StepResult, UserTask } from '@siov/vfs';
import { type AnalyticsOp, type AnalyticsOperation, type AnalyticsPiece, analyticsOperations, STREAM, type Version } from './analytics-ops.js';

export interface AnalyticsOptions extends Omit<WorkloadOptions, 'op' | 'batch' | 'inject'> {
  readonly op: AnalyticsOp;
  readonly version: Version;
  /** Gets what was written, in the file's order. */
  readonly output?: (bytes: Uint8Array) => void;
}

const statusNames = Object.fromEntries(Object.entries(IaxStatus).map(([name, code]) => [code, name]));
const PAGE = 4096;
const pages = (bytes: number): number => Math.ceil(Math.max(bytes, 1) / PAGE) * PAGE;
const WORDS = 16;

/** One descriptor's buffers, and what is in them. */
interface Slot extends AnalyticsPiece {
  data: Uint8Array;
  last: boolean;
  source: { address: number; bytes: number };
  destination: { address: number; bytes: number };
  second: { address: number; bytes: number };
  /** Which piece of the file; -1: none. */
  piece: number;
  waiting: boolean;
  startedAt: number;
}

export class Analytics implements Program {
  // fixed
  readonly #o: AnalyticsOptions;
  readonly #open: OpenQueue;
  readonly #op: AnalyticsOperation;
  // state
  #queue!: ReturnType<OpenQueue>;
  #iax!: IaxClient;
  #slots: Slot[] = [];
  #phase: 'open' | 'run' | 'closed' = 'open';
  #offset = 0;
  #pieces = 0;
  #done = 0;
  #left = -1;
  #virtual = 0;
  #setup = 0;
  #wall = 0;
  #wrong = 0;
  #bytes = 0;
  #half = false;
  readonly #statuses = new Map<string, number>();
  readonly #latencies: number[] = [];
  /** Outputs that came before those in front of them. */
  readonly #early = new Map<number, Uint8Array>();
  #written = 0;
  /** Of a stream: descriptors so far. */
  #links = 0;
  /** Why there is not all of the output. */
  failure: string | undefined;

  constructor(options: AnalyticsOptions, open: OpenQueue) {
    this.#o = options;
    this.#open = open;
    this.#op = analyticsOperations[options.op];
  }

  get result(): WorkloadResult {
    const sorted = Float64Array.from(this.#latencies).sort();
    const n = sorted.length;
    return {
      descriptors: n,
      bytes: this.#bytes,
      wrong: this.#wrong,
      statuses: Object.fromEntries(this.#statuses),
      submissions: this.#iax?.client.submissions ?? 0,
      retries: this.#iax?.client.retries ?? 0,
      resumes: this.#iax?.client.resumes ?? 0,
      latency: {
        mean: n ? sorted.reduce((a, b) => a + b, 0) / n : 0,
        p50: sorted[n >> 1] ?? 0,
        p99: sorted[Math.floor(n * 0.99)] ?? 0,
        max: sorted[n - 1] ?? 0,
      },
      virtualNs: this.#virtual,
      setupNs: this.#setup,
      wallMs: this.#wall,
      finished: this.#phase === 'closed',
    };
  }

  step(task: UserTask): StepResult {
    if (this.#phase === 'open') this.#start(task);
    const { clock } = task.kernel;
    const { wallClock } = this.#o;
    const from = wallClock?.() ?? 0;
    const before = clock.now;
    let progressed = false;
    for (const [slot, own] of this.#slots.entries()) if (this.#turn(task, slot, own)) progressed = true;
    this.#virtual += clock.now - before + (this.#left >= 0 ? before - this.#left : 0);
    this.#left = clock.now;
    if (wallClock) this.#wall += wallClock() - from;
    if (this.#offset < this.#o.source.bytes || this.#inside || this.#slots.some(({ piece }) => piece >= 0)) return progressed ? 'again' : 'wait';
    this.#queue.close?.();
    this.#phase = 'closed';
    return 'done';
  }

  #start(task: UserTask): void {
    const { clock } = task.kernel;
    const from = clock.now;
    const { size, depth, flags = 0, hugePages, touch = true, version } = this.#o;
    const { room, firstRoom, secondRoom, stream } = this.#op;
    this.#queue = this.#open(task);
    const slots = stream ? 1 : Math.min(depth, this.#queue.depthLimit);
    this.#iax = new IaxClient(new Client(task, this.#queue, { depth: slots, flags }));
    const reserve = (bytes: number, touched: boolean): number => {
      // MAP_PRIVATE | MAP_ANONYMOUS, and MAP_POPULATE where the pages shall be there.
      const address = task.mmap(
        0,
        hugePages ? Math.ceil(bytes / 2 ** 21) * 2 ** 21 : bytes,
        3,
        0x22 | (hugePages ? 0x40000 : 0) | (touched ? 0x8000 : 0),
      );
      if (address < 0) throw new RangeError(`no memory for buffers of ${bytes} bytes (${address})`);
      return address;
    };
    const rooms = [firstRoom?.(size) ?? size, room(size), secondRoom?.(size, version) ?? 0].map(pages) as [number, number, number];
    const [source, destination, second] = rooms.map((bytes, i) => reserve(bytes * slots, i !== 1 || touch)) as [number, number, number];
    this.#slots = Array.from({ length: slots }, (_, i) => ({
      data: new Uint8Array(0),
      last: false,
      source: { address: source + i * rooms[0], bytes: 0 },
      destination: { address: destination + i * rooms[1], bytes: rooms[1] },
      second: { address: second + i * rooms[2], bytes: 0 },
      piece: -1,
      waiting: false,
      startedAt: 0,
    }));
    this.#setup = clock.now - from;
    this.#phase = 'run';
    this.#o.ready?.();
  }

  /** Submits what there is room for, harvests what is ready. */
  #turn(task: UserTask, slot: number, own: Slot): boolean {
    const { clock } = task.kernel;
    const { costs } = this.#o;
    const { client } = this.#iax;
    if (own.piece < 0) {
      if (!this.#next(task, slot, own)) return false;
      own.startedAt = clock.now;
      own.waiting = true;
      if (costs) clock.spend(costs.prepare);
    }
    if (own.waiting) {
      if (client.submit(slot) !== 0) return false; // retry later: the queue was full
      own.waiting = false;
      return true;
    }
    if (client.poll(slot) === 0) return false;
    if ((client.poll(slot) & 0x7f) === IaxStatus.pageFault && client.resume(slot)) {
      own.waiting = true;
      return true;
    }
    if (costs) clock.spend(costs.notice);
    this.#finish(task, slot, own, this.#iax.result(slot)!);
    if (costs) clock.spend(costs.harvest);
    return true;
  }

  /** The next piece of the file into the slot's buffers; false: there is none. */
  #next(task: UserTask, slot: number, own: Slot): boolean {
    const { source, size, version } = this.#o;
    const op = this.#op;
    const length = Math.min(size, source.bytes - this.#offset);
    if (length <= 0 && !this.#inside) return false;
    // What is left of a stream is all in its state: then any byte goes along, which the end of the stream does not reach.
    const { element = 1 } = op;
    const data = new Uint8Array(Math.ceil(Math.max(length, 1) / element) * element);
    if (length > 0) source.read(this.#offset, data.subarray(0, length));
    own.data = data;
    own.last = this.#offset + length === source.bytes;
    const first = op.first?.(data) ?? data;
    task.writeStruct(own.source.address, first);
    own.source.bytes = first.length;
    const second = op.second?.(data, own.last);
    if (second) task.writeStruct(own.second.address, second);
    own.second.bytes = second?.length ?? 0;
    own.piece = this.#pieces++;
    if (op.stream) {
      const aecs = {
        address: own.second.address,
        bytes: decompressAecsBytes(version.history),
        read: this.#links > 0,
        write: true,
        second: (this.#links & 1) === 1,
      };
      this.#iax.decompress(slot, own.destination, own.source, aecs, STREAM);
      this.#links++;
    } else {
      this.#offset += length;
      op.build(this.#iax, slot, own, version);
    }
    return true;
  }

  #finish(task: UserTask, slot: number, own: Slot, result: IaxResult): void {
    const { clock } = task.kernel;
    const name = statusNames[result.statusCode] ?? `0x${result.statusCode.toString(16)}`;
    const whole = result.error ? `${name} (${result.error})` : name;
    this.#statuses.set(whole, (this.#statuses.get(whole) ?? 0) + 1);
    if (this.#done++ === 0 || (!result.ok && result.status !== 'outputOverflow' && this.failure === undefined)) this.#show(task, slot);
    this.#latencies.push(clock.now - own.startedAt);
    const output = 'outputSize' in result ? task.readStruct(own.destination.address, new Uint8Array(result.outputSize)) : new Uint8Array(0);
    if (this.#op.stream) this.#goOn(task, own, result);
    else if (result.ok) {
      this.#bytes += own.data.length;
      if (!this.#op.judge(result, output, own)) this.#wrong++;
    } else this.failure ??= whole;
    this.#put(own.piece, output);
    own.piece = -1;
    const { source, halfway, progress } = this.#o;
    progress?.(Math.min(this.#offset, source.bytes));
    if (!this.#half && 2 * this.#offset >= source.bytes) {
      this.#half = true;
      halfway?.();
    }
  }
  /** A stream goes on behind what was used of the file, with the state that the last descriptor left. */
  #goOn(task: UserTask, own: Slot, result: IaxResult): void {
    const { source } = this.#o;
    const taken = Math.min(result.completed, source.bytes - this.#offset);
    this.#offset += taken;
    this.#bytes += taken;
    // The copy that was not read is the one that was written.
    const written = own.second.address + (this.#links & 1 ? decompressAecsBytes(this.#o.version.history) : 0);
    const aecs = task.readStruct(written, new Uint32Array(DecompressAecs.bytes / 4));
    const overflow = result.status === 'outputOverflow';
    this.#inside = overflow && this.#offset >= source.bytes;
    if (!result.ok && !overflow) this.failure = result.error ?? result.status;
    else if (result.ok && DecompressAecs.get.terminated(aecs, 0) === 1) this.behind = source.bytes - this.#offset;
    else if (result.ok && this.#offset >= source.bytes) this.failure = 'the file ends before the last block does';
    else return;
    this.#offset = source.bytes;
  }
  /** The file has ended, but not what comes of it. */
  #inside = false;
  /** Of a stream that has ended: bytes of the file behind it. */
  behind = 0;

  #put(piece: number, bytes: Uint8Array): void {
    const { output } = this.#o;
    if (!output) return;
    this.#early.set(piece, bytes);
    for (let next = this.#early.get(this.#written); next; next = this.#early.get(this.#written)) {
      this.#early.delete(this.#written++);
      output(next);
    }
  }
  #show(task: UserTask, slot: number): void {
    const { descriptors, records } = this.#iax.client;
    this.#o.show?.(task.readStruct(descriptors + slot * 64, new Uint32Array(WORDS)), task.readStruct(records + slot * 64, new Uint32Array(WORDS)));
  }
}

/** A descriptor and its record by field names. */
export function shown(descriptor: Uint32Array, record: Uint32Array): { readonly lines: readonly string[]; readonly json: object } {
  const layout = iaxRecordLayout(descriptor[1]! >>> 24);
  return {
    lines: [iaxDescriptors.show(descriptor, 0), layout.show(record, 0)],
    json: { descriptor: iaxDescriptors.json(descriptor, 0), record: layout.json(record, 0) },
  };
}
