/**
 * A workload as a user program: bytes from a source are cut into descriptors, submitted to a mapped portal, polled, resumed after page
 * faults, and every result is compared with a plain computation of the same thing. It runs on any queue that `open` can give it, so the
 * same program measures each model.
 */

import { Opcode, Status } from '@siov/idxd-device/spec';
import { Client, type Portal } from '@siov/idxd-driver/client';
import { hi, join, lo } from '@siov/layout';
import type { Program, StepResult, UserTask } from '@siov/vfs';
import { type Buffers, type Piece, type WorkloadOp, type WorkloadOperation, workloadOperations } from './workload-ops.js';

export { plainCrc32c, type WorkloadOp, workloadOperations, workloadOps } from './workload-ops.js';

/** Where the bytes come from: `read` fills `into` from `offset` on and answers how many there were. */
export interface Source {
  readonly bytes: number;
  read(offset: number, into: Uint8Array): number;
}
export const bytesSource = (data: Uint8Array): Source => ({
  bytes: data.length,
  read(offset, into) {
    const piece = data.subarray(offset, offset + into.length);
    into.set(piece);
    return piece.length;
  },
});

/** What goes wrong on purpose: every `every`-th descriptor (from the first on). */
export interface Injection {
  readonly kind: 'reserved-field' | 'opcode' | 'foreign-address';
  readonly every: number;
}
export interface WorkloadOptions {
  readonly source: Source;
  readonly op: WorkloadOp;
  /** Bytes per descriptor. */
  readonly size: number;
  /** Descriptors (or batches) in flight. */
  readonly depth: number;
  /** Members of a batch; 1: no batches. */
  readonly batch?: number;
  /** Flags of every descriptor. */
  readonly flags?: number;
  /** Back the buffers by 2 MiB pages. */
  readonly hugePages?: boolean;
  /** Touch the destination before the device does. Off: the first descriptor on each page faults and is resumed. */
  readonly touch?: boolean;
  readonly inject?: Injection;
  /** Modelled CPU work around a descriptor, in nanoseconds. */
  readonly costs?: { readonly prepare: number; readonly harvest: number; readonly notice: number };
  /** Wall clock in milliseconds, for the time the submit-and-poll loop takes. */
  readonly wallClock?: () => number;
  /** Called once when the queue is open and the buffers are there: counters before it are set-up. */
  readonly ready?: () => void;
  /** Sees the descriptor that finished first and its record, as words; with batches the first batch and its record besides. */
  readonly show?: (descriptor: Uint32Array, record: Uint32Array) => void;
  /** Called once when half of the descriptors' bytes are done: for what shall happen in the middle of the work. */
  readonly halfway?: () => void;
  /** Hears how far it is, in bytes. */
  readonly progress?: (done: number) => void;
}
/** Opens a queue as its model has it, by system calls of the task. Throws with a reason when it cannot. */
export type OpenQueue = (task: UserTask) => Portal & { readonly depthLimit: number; close?(): void };

export interface WorkloadResult {
  readonly descriptors: number;
  readonly bytes: number;
  /** Results that differ from the plain computation. */
  readonly wrong: number;
  /** Descriptors by the name of their last status. */
  readonly statuses: Readonly<Record<string, number>>;
  readonly submissions: number;
  readonly retries: number;
  readonly resumes: number;
  /** Modelled nanoseconds from portal write to harvested record: mean, median, 99th percentile (of samples), longest. */
  readonly latency: { readonly mean: number; readonly p50: number; readonly p99: number; readonly max: number };
  /** Elapsed virtual time of the loop, and of the set-up before it, in nanoseconds. */
  readonly virtualNs: number;
  readonly setupNs: number;
  readonly wallMs: number;
  /** Virtual time between two reads of the source that the program itself took is not in `virtualNs`. */
  readonly finished: boolean;
}

const SAMPLES = 1 << 16;
/** Buffers hold one window of the source at a time, so a source may be larger than all memory. */
const WINDOW = 4 << 20;
/** Bytes of the source that an operation without operands stands for. */
const EMPTY_UNIT = 64;
const statusNames = Object.fromEntries(Object.entries(Status).map(([name, code]) => [code, name]));
/** An address that no process of the model maps. */
const FOREIGN = 0x10_0000_0000;

export class Workload implements Program {
  // fixed
  readonly #o: WorkloadOptions;
  readonly #open: OpenQueue;
  readonly #op: WorkloadOperation;
  readonly #batch: number;
  // state
  #queue!: ReturnType<OpenQueue>;
  #client!: Client;
  #batches: Client | undefined;
  #buffers: Buffers = { source: 0, destination: 0, second: 0 };
  #room = 0;
  #phase: 'open' | 'window' | 'run' | 'closed' = 'open';
  /** Offset of the window in the source, and bytes in it. */
  #offset = 0;
  #length = 0;
  #window = new Uint8Array(0);
  /** Its bytes that are in use, to the operation's granule. */
  #data = new Uint8Array(0);
  #units = 0;
  #next = 0;
  #done = 0;
  /** By slot: the unit it works on (-1 free), when it was submitted, whether it waits to be submitted (again). */
  #unitOf = new Int32Array(0);
  #startedAt = new Float64Array(0);
  #again = new Uint8Array(0);
  /** Members of a slot's batch that are not finished; 0: the batch's own record is awaited. */
  #members = new Int32Array(0);
  #memberDone = new Uint8Array(0);
  #depth = 0;
  #descriptors = 0;
  #wrong = 0;
  #bytes = 0;
  readonly #statuses = new Float64Array(256);
  readonly #samples = new Float64Array(SAMPLES);
  #sum = 0;
  #max = 0;
  #seen = 0;
  #virtual = 0;
  #setup = 0;
  #wall = 0;

  constructor(options: WorkloadOptions, open: OpenQueue) {
    const { size, depth, batch = 1 } = options;
    if (!(Number.isInteger(size) && size >= 1 && size <= WINDOW)) throw new RangeError(`Workload: size is 1 to ${WINDOW} bytes, not ${size}`);
    if (!(Number.isInteger(depth) && depth >= 1 && depth <= 1024)) throw new RangeError(`Workload: depth is 1 to 1024, not ${depth}`);
    if (!(Number.isInteger(batch) && batch >= 1 && batch * depth <= 4096))
      throw new RangeError(`Workload: batch times depth is 1 to 4096, not ${batch * depth}`);
    this.#o = options;
    this.#open = open;
    this.#batch = batch;
    this.#op = workloadOperations[options.op];
    const { granule = 1, most = WINDOW } = this.#op;
    if (size % granule !== 0 || size > most)
      throw new RangeError(`Workload: size for ${options.op} is a multiple of ${granule} up to ${most}, not ${size}`);
  }

  get result(): WorkloadResult {
    const n = Math.min(this.#seen, SAMPLES);
    const sorted = this.#samples.slice(0, n).sort();
    const statuses: Record<string, number> = {};
    for (let code = 0; code < 128; code++) {
      const count = this.#statuses[code]! + this.#statuses[code + 128]!;
      if (count > 0) statuses[statusNames[code] ?? `0x${code.toString(16)}`] = count;
    }
    return {
      descriptors: this.#descriptors,
      bytes: this.#bytes,
      wrong: this.#wrong,
      statuses,
      submissions: (this.#batches?.submissions ?? 0) + (this.#client?.submissions ?? 0),
      retries: (this.#batches?.retries ?? 0) + (this.#client?.retries ?? 0),
      resumes: this.#client?.resumes ?? 0,
      latency: { mean: this.#seen ? this.#sum / this.#seen : 0, p50: sorted[n >> 1] ?? 0, p99: sorted[Math.floor(n * 0.99)] ?? 0, max: this.#max },
      virtualNs: this.#virtual,
      setupNs: this.#setup,
      wallMs: this.#wall,
      finished: this.#phase === 'closed',
    };
  }

  step(task: UserTask): StepResult {
    if (this.#phase === 'open') this.#start(task);
    if (this.#phase === 'window') this.#load(task);
    if (this.#phase === 'closed') return 'done';
    const { clock } = task.kernel;
    const wall = this.#o.wallClock;
    const from = wall?.() ?? 0;
    const before = clock.now;
    // From the last step's end on the program only waited: that time counts too.
    const progressed = this.#turn(task);
    this.#virtual += clock.now - before + (this.#left >= 0 ? before - this.#left : 0);
    this.#left = clock.now;
    if (wall) this.#wall += wall() - from;
    if (this.#done < this.#units) return progressed ? 'again' : 'wait';
    this.#verify(task);
    this.#offset += this.#length;
    this.#phase = 'window';
    this.#left = -1;
    this.#o.progress?.(this.#offset);
    return 'again';
  }
  #left = -1;

  #start(task: UserTask): void {
    const { clock } = task.kernel;
    const from = clock.now;
    const { size, depth, hugePages } = this.#o;
    this.#queue = this.#open(task);
    this.#depth = Math.min(depth, this.#queue.depthLimit);
    const slots = this.#depth * this.#batch;
    const flags = this.#o.flags ?? 0;
    this.#client = new Client(task, this.#queue, { depth: slots, flags });
    if (this.#batch > 1) this.#batches = new Client(task, this.#queue, { depth: this.#depth });
    this.#unitOf = new Int32Array(slots).fill(-1);
    this.#startedAt = new Float64Array(slots);
    this.#again = new Uint8Array(slots);
    this.#members = new Int32Array(this.#depth);
    this.#memberDone = new Uint8Array(slots);
    // Whole units in a window; dualcast's destinations need equal page offsets, which 4 KiB aligned buffers of one size have.
    const { empty, growth = 1, second } = this.#op;
    const unit = empty ? EMPTY_UNIT : size;
    const bytes = Math.max(unit, Math.floor(WINDOW / unit) * unit);
    this.#window = new Uint8Array(bytes);
    const huge = hugePages ? 0x40000 : 0;
    // Records have 64 bytes at least.
    this.#room = Math.ceil((bytes * growth + (growth > 1 ? (bytes / unit) * 128 : 0)) / 2 ** 21) * 2 ** 21;
    const room = this.#room;
    const touch = this.#o.touch ?? true;
    this.#buffers = {
      source: this.#reserve(task, room, huge, true),
      destination: this.#reserve(task, room, huge, touch),
      second: second ? this.#reserve(task, room, huge, touch) : 0,
    };
    this.#setup = clock.now - from;
    this.#o.ready?.();
    this.#phase = 'window';
  }
  #reserve(task: UserTask, bytes: number, flags: number, touch: boolean): number {
    // MAP_PRIVATE | MAP_ANONYMOUS, and MAP_POPULATE where the pages shall be there.
    const address = task.mmap(0, bytes, 3, 0x22 | flags | (touch ? 0x8000 : 0));
    if (address < 0) throw new RangeError(`no memory for a buffer of ${bytes} bytes (${address})`);
    return address;
  }

  /** Reads the next window into the process's buffers. */
  #load(task: UserTask): void {
    const { source, size } = this.#o;
    this.#length = this.#offset < source.bytes ? source.read(this.#offset, this.#window) : 0;
    if (this.#length <= 0) {
      this.#queue.close?.();
      this.#phase = 'closed';
      return;
    }
    const { granule = 1, empty, load } = this.#op;
    const padded = Math.ceil(this.#length / granule) * granule;
    this.#window.fill(0, this.#length, padded);
    this.#data = this.#window.subarray(0, padded);
    const memory = { write: (address: number, bytes: Uint8Array) => task.writeStruct(address, bytes) };
    if (load) load(memory, this.#buffers, this.#data, size);
    else if (!empty) memory.write(this.#buffers.source, this.#data);
    this.#units = Math.ceil(this.#length / (empty ? EMPTY_UNIT : size));
    this.#next = this.#done = 0;
    this.#phase = 'run';
  }

  /** Submits what there is room for, harvests what is ready. */
  #turn(task: UserTask): boolean {
    let progressed = false;
    for (let slot = 0; slot < this.#depth; slot++) {
      if (this.#batch > 1 ? this.#turnBatch(task, slot) : this.#turnSlot(task, slot, -1)) progressed = true;
    }
    return progressed;
  }

  /** One slot; `batch` is the batch slot that its member belongs to, or -1. */
  #turnSlot(task: UserTask, slot: number, batch: number): boolean {
    const { clock } = task.kernel;
    const costs = this.#o.costs;
    const client = this.#client;
    if (this.#unitOf[slot]! < 0) {
      if (batch >= 0 || this.#next >= this.#units) return false;
      this.#prepare(task, slot, this.#next++);
      this.#again[slot] = 1;
    }
    if (this.#again[slot]) {
      if (this.#startedAt[slot]! < 0) this.#startedAt[slot] = clock.now;
      if (costs && batch < 0) clock.spend(costs.prepare);
      if (client.submit(slot) !== 0) return false; // retry later: the queue was full
      this.#again[slot] = 0;
      return true;
    }
    const status = client.poll(slot);
    if (status === 0) return false;
    if ((status & 0x7f) === Status.pageFault && this.#owns(slot) && client.resume(slot)) {
      this.#again[slot] = 1;
      return true;
    }
    if (costs) clock.spend(costs.notice);
    this.#finish(task, slot, status);
    if (costs) clock.spend(costs.harvest);
    return true;
  }

  /** Whether a fault is at an address of our buffers, which a touch mends; others are errors of the descriptor. */
  #owns(slot: number): boolean {
    const at = join(this.#client.record(slot, 3), this.#client.record(slot, 2));
    const { source, destination, second } = this.#buffers;
    for (const buffer of [source, destination, second]) if (buffer > 0 && at >= buffer && at < buffer + this.#room) return true;
    return false;
  }

  #turnBatch(task: UserTask, slot: number): boolean {
    const { clock } = task.kernel;
    const costs = this.#o.costs;
    const n = this.#batch;
    const first = slot * n;
    const batches = this.#batches!;
    const state = this.#members[slot]!;
    if (state === 0) {
      // Free: a batch of the next units; a last unit alone goes as a descriptor of its own.
      const left = this.#units - this.#next;
      if (left <= 0) return false;
      const count = Math.min(n, left);
      for (let i = 0; i < count; i++) this.#prepare(task, first + i, this.#next++);
      this.#memberDone.fill(0, first, first + n);
      for (let i = count; i < n; i++) this.#memberDone[first + i] = 1;
      if (costs) clock.spend(costs.prepare * count);
      if (count === 1) {
        this.#members[slot] = 2;
        this.#again[first] = 1;
        return true;
      }
      const list = this.#client.descriptors + first * 64;
      batches.prepare(slot, Opcode.batch, hi(list), lo(list), 0, 0, count);
      this.#members[slot] = 1;
      this.#startedAt[first] = clock.now;
      for (let i = 0; i < count; i++) this.#startedAt[first + i] = clock.now;
      this.#unsent[slot] = 1;
    }
    if (this.#members[slot] === 1) {
      if (this.#unsent[slot]) {
        if (batches.submit(slot) !== 0) return false;
        this.#unsent[slot] = 0;
        return true;
      }
      if (batches.poll(slot) === 0) return false;
      if (!this.#shownBatch) this.#show(task, batches, slot);
      this.#shownBatch = true;
      if (costs) clock.spend(costs.notice);
      this.#members[slot] = 2;
    }
    let progressed = false;
    let left = 0;
    for (let i = first; i < first + n; i++) {
      if (this.#memberDone[i]) continue;
      if (this.#turnSlot(task, i, slot)) progressed = true;
      if (this.#unitOf[i]! < 0) this.#memberDone[i] = 1;
      else left++;
    }
    if (left === 0) this.#members[slot] = 0;
    return progressed;
  }
  readonly #unsent = new Uint8Array(1024);

  #prepare(_task: UserTask, slot: number, unit: number): void {
    const { inject } = this.#o;
    const bad = inject && this.#descriptors % inject.every === 0 ? inject.kind : undefined;
    this.#descriptors++;
    this.#unitOf[slot] = unit;
    this.#startedAt[slot] = -1;
    const client = this.#client;
    this.#op.build(client, slot, this.#buffers, this.#at(unit), this.#data);
    if (bad === 'reserved-field') client.patch(slot, 15, 1);
    else if (bad === 'opcode') client.patch(slot, 1, (0x7f << 24) | 0xc);
    else if (bad === 'foreign-address') {
      client.patch(slot, 6, lo(FOREIGN));
      client.patch(slot, 7, hi(FOREIGN));
    }
  }

  #show(task: UserTask, { descriptors, records }: Client, slot: number): void {
    this.#o.show?.(task.readStruct(descriptors + slot * 64, new Uint32Array(16)), task.readStruct(records + slot * 64, new Uint32Array(16)));
  }
  #shownBatch = false;
  /** Where a unit is; one object, used again. */
  #at(unit: number): Piece {
    const { size } = this.#o;
    const piece = this.#piece;
    piece.index = unit;
    piece.at = unit * size;
    piece.bytes = Math.min(size, this.#data.length - piece.at);
    piece.size = size;
    return piece;
  }
  readonly #piece = { index: 0, at: 0, bytes: 0, size: 0 };

  #finish(task: UserTask, slot: number, status: number): void {
    const { clock } = task.kernel;
    const unit = this.#unitOf[slot]!;
    const { size } = this.#o;
    const bytes = this.#op.empty ? 0 : Math.min(size, this.#length - unit * size);
    this.#statuses[status]!++;
    if (this.#done === 0 && this.#offset === 0) this.#show(task, this.#client, slot);
    if ((status & 0x7f) === Status.success) {
      this.#bytes += bytes;
      if (this.#op.record?.(this.#client, slot, this.#at(unit), this.#data) === false) this.#wrong++;
    } else this.#failed.add(unit);
    const latency = clock.now - this.#startedAt[slot]!;
    this.#sum += latency;
    if (latency > this.#max) this.#max = latency;
    this.#samples[this.#seen++ % SAMPLES] = latency;
    this.#unitOf[slot] = -1;
    this.#done++;
    if (!this.#half && 2 * (this.#offset + unit * size) >= this.#o.source.bytes) {
      this.#half = true;
      this.#o.halfway?.();
    }
  }
  #half = false;
  readonly #failed = new Set<number>();
  #got = new Uint8Array(0);

  /** Looks at what the operations left in memory, against the source. Units whose descriptors failed are not results. */
  #verify(task: UserTask): void {
    const { left } = this.#op;
    if (left) {
      for (let unit = 0; unit < this.#units; unit++) {
        if (this.#failed.has(unit)) continue;
        const right = left(this.#buffers, this.#at(unit), this.#data).every(([address, expected]) => {
          const got = task.readStruct(address, this.#got.length === expected.length ? this.#got : (this.#got = new Uint8Array(expected.length)));
          return same(got, expected, expected.length);
        });
        if (!right) this.#wrong++;
      }
    }
    this.#failed.clear();
  }
}

const same = (a: Uint8Array, b: Uint8Array, bytes: number): boolean => {
  for (let i = 0; i < bytes; i++) if (a[i] !== b[i]) return false;
  return true;
};
