/**
 * Engines: take descriptors from the queues of their group, check them, step the operation, and let its record appear when its time has
 * passed. DSA specification, "Engines" and "Descriptor Processing". Functional effects happen at dispatch, in order, unless a schedule says
 * otherwise; time is the clock's.
 */
import { Event } from '@siov/layout/events';
import { DmaAccess, PageResponse, TlpStatus } from '@siov/layout/pcie';
import type { PciFunction } from '@siov/pci-core';
import type { DeviceCosts } from './costs.js';
import { crc32c } from './crc.js';
import { DataPath } from './data-path.js';
import type { Interrupts } from './interrupts.js';
import { extent, type Io, Op, Step } from './op.js';
import { dsa, legalFlags, type Operation, type Operations, readbackDestination, readbackDrain, type Stream } from './operations/index.js';
import type { Clock, Native, Trace, Upstream } from './ports.js';
import { type Check, defaultCheckOrder, type Profile } from './profiles.js';
import { type WorkQueue, WqState } from './queue.js';
import { Schedule, type ScheduleOptions } from './schedule.js';
import { EventError, Flag, Opcode, Status } from './spec/descriptor.js';
import { unconnected } from './unconnected.js';
import { Window } from './window.js';

const IN_FLIGHT = 64;
const READ_BUFFER_BYTES = 128;
/** Cache lines, and the halves in which a memory write may be masked at lower cost. */
const LINE = 64;
const HALF_LINE = 32;
/** In a ring: an operation that was aborted. */
const GONE = -1;
const DESCRIPTOR_BYTES = 64;
/** What a draw of a batch's order came to: an order, no list to read, or a fence after a failure. */
const Drawn = { order: 0, fault: 1, fenced: 2 } as const;
/** A completion event names an operation and which life of it: an event of a life that a reset ended does nothing. */
const POOL_SHIFT = 12;
const POOL_LIMIT = 1 << POOL_SHIFT;
const LIFE_MASK = 0x3_ffff;

/** What became of a record: it was written or not wanted, the event log has it, or nobody. */
const Lost = { no: 0, logged: 1, gone: 2 } as const;

/** Counters of the data path, always on. */
export const Counter = {
  accepted: 0,
  retried: 1,
  dropped: 2,
  dispatched: 3,
  succeeded: 4,
  failed: 5,
  pageFaults: 6,
  softwareErrors: 7,
  batches: 8,
} as const;

export interface EnginePorts {
  readonly profile: Profile;
  readonly clock: Clock;
  readonly costs: DeviceCosts;
  readonly fn: PciFunction;
  readonly interrupts: Interrupts;
  readonly queues: readonly WorkQueue[];
  readonly trace: Trace | undefined;
  readonly counters: Float64Array;
  readonly schedule: ScheduleOptions | undefined;
  readonly native: Native;
  /** Puts an error into the event log (then true) or SWERROR. */
  softwareError(error: number, op: Op): boolean;
  /** Puts it into the event log, where there is one with room for it. */
  keep(error: number, op: Op): boolean;
  /** A queue's occupancy fell to the limit that interrupts. */
  occupancyReached(wq: WorkQueue): void;
  /** Something finished: a drain or a command may be able to go on. */
  settled(): void;
}

/** A group as it is configured: its engines, one bit each, and how many read buffers they may use. */
export interface Group {
  readonly engines: number;
  readonly readBuffers: number;
  /** Of the descriptors that an engine takes on at a time: all, a half, a quarter, an eighth. */
  readonly descriptorLimit: 0 | 1 | 2 | 3;
}

export class Engines {
  // fixed
  readonly #p: EnginePorts;
  readonly #run: number;
  readonly #start: number;
  readonly #finish: number;
  readonly #depart: number;
  readonly #limit: number;
  readonly #strict: boolean;
  readonly #counters: Float64Array;
  readonly #checks: readonly Check[];
  readonly #fenceInBatch: boolean;
  readonly #operations: Operations;
  readonly #recordBytes: number;
  /** By operation code, what the time of an operation depends on: rows of a table are too many shapes for the hot path. */
  readonly #rate = new Float64Array(256);
  readonly #reading = new Float64Array(256);
  readonly #writing = new Float64Array(256);
  readonly #stalls = new Uint8Array(256);
  readonly #fills = new Uint8Array(256);
  readonly #sized = new Uint8Array(256);
  /** Its size or its parameters can be wrong. */
  readonly #looked = new Uint8Array(256);
  /** Which operations this device offers, the flags that each may have, and the reserved bits of its descriptor. */
  readonly #offered: readonly boolean[];
  readonly #legal: readonly number[];
  readonly #reserved: readonly (Uint32Array | undefined)[];
  readonly #io: Io;
  /** Who chooses where there is a choice; without, everything goes in order. */
  readonly #schedule: Schedule | undefined;
  // state
  readonly #pool: Op[] = [];
  readonly #idle: Op[] = [];
  readonly #free: Float64Array;
  /** How many an engine takes on at a time, as its group is configured. */
  readonly #most: Int32Array;
  readonly #inFlight: Int32Array;
  /** Operations of each engine that wait for a page: the engine takes nothing meanwhile. */
  readonly #blocked: Int32Array;
  /** Queues by engine, highest priority first; rebuilt when a queue or the device changes. */
  #queuesOf: WorkQueue[][] = [];
  /** Whether an engine's queues have one priority, and which is next then. */
  readonly #equal: Uint8Array;
  readonly #turn: Int32Array;
  readonly #path: DataPath;
  /** How much work of the data path, in nanoseconds, an engine may have when it takes the next descriptor: what its read buffers hold. */
  readonly #window: Float64Array;
  /** By engine, a ring of operations in the order of their dispatch (-1: gone without a record): the oldest, and how many. */
  readonly #ring: Int32Array;
  readonly #head: Int32Array;
  readonly #held: Int32Array;
  #drains = 0;
  #sequence = 0;
  /** Of the batch that began last; 8 bits, as events name it. */
  #batchId = 0;
  /** When the next arbitration is due; only the event of the last generation is it. */
  readonly #due = new Float64Array(1);
  #scheduled = false;
  #generation = 0;
  /** When someone looks at the data path, as for arbitration; an engine waits for its read buffers until then. */
  #watching = false;
  readonly #look = new Float64Array(1);
  #lookout = 0;
  #stalled = false;

  constructor(ports: EnginePorts) {
    this.#p = ports;
    const { profile, clock, costs } = ports;
    const family = profile.family ?? dsa;
    const operations = family.operations(profile);
    this.#operations = operations;
    this.#recordBytes = family.recordBytes;
    const [a, b, c, list] = [extent(), extent(), extent(), extent()];
    const windows = { source: new Window(a), target: new Window(b), other: new Window(c) };
    this.#io = {
      upstream: unconnected,
      crc32c: ports.native.crc32c ?? crc32c,
      equal: ports.native.equal,
      faultInformation: profile.faultInformation === 'operand',
      a,
      b,
      c,
      list,
      ...windows,
      bytesRead: 0,
      bytesWritten: 0,
      pageRequests: 0,
    };
    this.#limit = profile.descriptorsPerEngine ?? IN_FLIGHT;
    if (!(this.#limit >= 1 && profile.engines * this.#limit <= POOL_LIMIT))
      throw new RangeError(`profile: engines times descriptorsPerEngine is 1 to ${POOL_LIMIT}, not ${profile.engines * this.#limit}`);
    this.#strict = profile.arbitration === 'strict';
    this.#counters = ports.counters;
    this.#checks = profile.checkOrder ?? [];
    if (this.#checks.length > 0 && (this.#checks.length !== defaultCheckOrder.length || new Set(this.#checks).size !== this.#checks.length))
      throw new RangeError(`profile.checkOrder: each of ${defaultCheckOrder.join(', ')} once`);
    this.#fenceInBatch = profile.fenceOutsideBatch === 'refused';
    this.#schedule = ports.schedule && new Schedule(ports.schedule);
    for (let id = 0; id < profile.engines * this.#limit; id++) this.#pool.push(new Op(id, family.extraWords));
    this.#idle.push(...this.#pool);
    this.#aborted = new Op(0, family.extraWords);
    this.#free = new Float64Array(profile.engines);
    this.#inFlight = new Int32Array(profile.engines);
    this.#most = new Int32Array(profile.engines).fill(this.#limit);
    this.#blocked = new Int32Array(profile.engines);
    this.#path = new DataPath(
      profile.engines,
      this.#limit,
      (id) => {
        this.#pool[id]!.streaming = 1;
      },
      (id) => {
        const op = this.#pool[id]!;
        op.streaming = 0;
        this.#finishAt(op, clock.now);
      },
    );
    this.#window = new Float64Array(profile.engines);
    this.#equal = new Uint8Array(profile.engines);
    this.#turn = new Int32Array(profile.engines);
    this.#ring = new Int32Array(profile.engines * this.#limit);
    this.#head = new Int32Array(profile.engines);
    this.#held = new Int32Array(profile.engines);
    const rates: { readonly [S in Stream]: number } = {
      none: 0,
      move: costs.streamMove,
      fill: costs.streamFill,
      pattern: costs.streamPattern,
      crc: costs.streamCrc,
      compare: costs.streamCompare,
      compress: costs.streamCompress ?? costs.streamCrc,
      decompress: costs.streamDecompress ?? costs.streamCrc,
      filter: costs.streamFilter ?? costs.streamCrc,
    };
    for (const [code, row] of Object.entries(operations) as unknown as [number, Operation][]) {
      this.#rate[code] = rates[row.stream];
      this.#reading[code] = (row.reads > 0 ? costs.read : 0) + (row.reads > 1 ? costs.secondRead : 0);
      this.#writing[code] = row.writes > 0 ? costs.write : 0;
      this.#stalls[code] = row.reads > 0 && row.writes > 0 ? 1 : 0;
      this.#fills[code] = row.fillsDestination ? 1 : 0;
      this.#sized[code] = row.sized ? 1 : 0;
      this.#looked[code] = row.sized || row.check ? 1 : 0;
    }
    const codes = Array.from({ length: 256 }, (_, code) => code);
    this.#offered = codes.map((code) => profile.operations.includes(code) && operations[code] !== undefined);
    this.#legal = codes.map((code) => (this.#offered[code] ? legalFlags(code, operations[code]!, profile) : 0));
    this.#reserved = codes.map((code) => (this.#offered[code] ? family.descriptors.of(Uint32Array.of(0, code << 24), 0).masks.reserved : undefined));
    this.#run = clock.handler((generation) => {
      if (generation !== this.#generation) return;
      this.#scheduled = false;
      this.#arbitrate();
    });
    this.#start = clock.handler((ticket) => {
      const op = this.#pool[ticket & (POOL_LIMIT - 1)]!;
      if (op.active && op.life === ticket >>> POOL_SHIFT) this.#advance(op);
    });
    this.#finish = clock.handler((ticket) => {
      const op = this.#pool[ticket & (POOL_LIMIT - 1)]!;
      // An end that was foreseen before others joined the data path is none.
      if (op.active && op.life === ticket >>> POOL_SHIFT && !op.streaming && op.due <= clock.now) this.#timed(op);
    });
    this.#depart = clock.handler((lookout) => {
      if (lookout !== this.#lookout) return;
      this.#watching = false;
      this.#path.settle(clock.now);
      if (this.#stalled) this.#arbitrate();
      if (this.#path.watching > 0) this.#watch();
    });
  }

  get io(): Readonly<Io> {
    return this.#io;
  }
  /** `byEngine`: a translation cache that each engine has a part of. */
  connect(upstream: Upstream, byEngine?: { select(engine: number): void }): void {
    this.#io.upstream = upstream;
    this.#byEngine = byEngine;
  }
  #byEngine: { select(engine: number): void } | undefined;

  /** The group configuration or a queue's state changed. */
  configure(groups: readonly Group[]): void {
    const { profile, costs, queues } = this.#p;
    this.#queuesOf = Array.from({ length: profile.engines }, (_, engine) =>
      queues
        .filter((wq) => wq.state === WqState.enabled && wq.group >= 0 && (groups[wq.group]!.engines >>> engine) & 1)
        .sort((a, b) => b.priority - a.priority),
    );
    for (const wq of queues) if (wq.state === WqState.enabled) this.#tabulate(wq);
    for (const [engine, own] of this.#queuesOf.entries()) {
      this.#equal[engine] = own.every((wq) => wq.priority === own[0]!.priority) ? 1 : 0;
      this.#turn[engine] = 0;
    }
    for (const [index, { engines, readBuffers, descriptorLimit }] of groups.entries()) {
      // What the buffers hold, as time on the data path; in the time of one read it comes and goes once.
      const window = readBuffers * (profile.readBufferBytes ?? READ_BUFFER_BYTES) * costs.streamMove;
      for (let engine = 0; engine < profile.engines; engine++)
        if ((engines >>> engine) & 1) {
          this.#window[engine] = window;
          this.#most[engine] = Math.max(1, this.#limit >> descriptorLimit);
          this.#path.configure(engine, index, window > 0 && costs.read > 0 ? window / costs.read : 1);
        }
    }
  }

  /** What `#passes` needs to know of a queue. */
  #tabulate(wq: WorkQueue): void {
    const asks = Flag.requestInterrupt | (wq.blockOnFault ? 0 : Flag.blockOnFault) | (this.#fenceInBatch ? Flag.fence : 0);
    for (let code = 0; code < wq.plainFlags.length; code++) {
      const simple = this.#offered[code] && code !== Opcode.batch && code !== Opcode.drain && wq.trafficClassFault === 0;
      wq.plainFlags[code] = simple && (wq.operations[code >>> 5]! >>> (code & 31)) & 1 ? this.#legal[code]! & ~asks : 0;
    }
  }

  /** A queue got work, or an engine may take some. */
  kick(delay: number): void {
    const due = this.#p.clock.now + delay;
    if (this.#scheduled && this.#due[0]! <= due) return;
    this.#scheduled = true;
    this.#due[0] = due;
    this.#generation = (this.#generation + 1) & 0x3fff_ffff;
    this.#p.clock.after(delay, this.#run, this.#generation);
  }

  /** A descriptor that an abort took out of a queue: the record that it asked for says so. */
  aborted(descriptor: Uint32Array, ims: number, wq: WorkQueue, status: number): void {
    const op = this.#aborted;
    op.descriptor.set(descriptor);
    op.begin();
    op.active = 0;
    op.wq = wq.index;
    op.ims = ims;
    this.#ownerOf(op, wq);
    op.end(status);
    this.#complete(op);
  }
  readonly #aborted: Op;
  /** Whose requests an operation's are. */
  #ownerOf(op: Op, wq: WorkQueue): void {
    const word0 = op.descriptor[0]!;
    op.pasid = wq.shared ? word0 & 0xf_ffff : wq.pasid;
    const privileged = wq.shared ? word0 >>> 31 : wq.privileged;
    op.access = (privileged ? DmaAccess.privileged : 0) | (wq.ats && this.#p.fn.atsEnabled ? DmaAccess.ats : 0);
  }

  /** Whether an operation of the queue and PASID (-1: any) is in progress. */
  busy(wq: number, pasid = -1): boolean {
    for (const op of this.#pool) if (op.active && (wq < 0 || op.wq === wq) && (pasid < 0 || op.pasid === pasid)) return true;
    return false;
  }

  /** Ends what waits for pages in a queue, without records; the rest finishes by itself. */
  abort(wq: number, pasid = -1): void {
    for (const op of this.#pool)
      if (op.active && op.waiting && (wq < 0 || op.wq === wq) && (pasid < 0 || op.pasid === pasid)) {
        this.#unblock(op);
        if (!this.#schedule) this.#ring[op.place] = GONE;
        this.#release(op);
        this.#retire(op.engine);
        this.kick(0);
      }
  }

  /** A page request group response. */
  pageResponse(group: number, code: number): void {
    const op = this.#pool[group];
    if (!op?.active || !op.waiting || op.opcode === Opcode.drain) return;
    this.#unblock(op);
    const member = op.child?.active ? op.child : op;
    if (code !== PageResponse.success) member.end(Status.pageRequestInvalid | member.faultWrite);
    else member.faultHigh = member.faultLow = member.faultInformation = 0;
    this.#advance(op);
    this.kick(0);
  }

  #unblock(op: Op): void {
    op.waiting = 0;
    if (op.opcode === Opcode.drain) this.#drains--;
    else this.#blocked[op.engine]!--;
  }

  #arbitrate(): void {
    const now = this.#p.clock.now;
    const n = this.#queuesOf.length;
    const first = this.#schedule && n > 0 ? this.#schedule.below(n) : 0;
    this.#stalled = false;
    let next = -1;
    for (let i = 0; i < n; i++) {
      const engine = first + i < n ? first + i : first + i - n;
      while (this.#blocked[engine] === 0 && this.#inFlight[engine]! < this.#most[engine]! && this.#waiting(engine)) {
        const free = this.#freeAt(engine, now);
        if (free > now) {
          if (free < Number.POSITIVE_INFINITY && (next < 0 || free < next)) next = free;
          break;
        }
        this.#dispatch(engine, this.#pick(engine));
      }
    }
    if (next >= 0) this.kick(Math.ceil(next - now));
  }

  #waiting(engine: number): boolean {
    const queues = this.#queuesOf[engine]!;
    for (let i = 0; i < queues.length; i++) if (queues[i]!.occupancy > 0) return true;
    return false;
  }

  /**
   * When an engine takes its next descriptor: the last one's occupancy has passed, and its read buffers hold what it still has to move. Among
   * others, that is looked at whenever a piece of work is through.
   */
  #freeAt(engine: number, now: number): number {
    const free = this.#free[engine]!;
    if (free > now) return free;
    const path = this.#path;
    const over = path.backlog(engine, now) - this.#window[engine]!;
    if (over <= 0) return now;
    if (path.alone(engine, now)) return now + Math.max(1, path.time(engine, over));
    this.#stalled = true;
    return Number.POSITIVE_INFINITY;
  }

  /** The queue that is served next. One has work. */
  #pick(engine: number): WorkQueue {
    const queues = this.#queuesOf[engine]!;
    if (queues.length === 1) return queues[0]!;
    if (this.#schedule) return this.#draw(queues, this.#schedule);
    if (this.#equal[engine]) {
      // They take turns: the next one after the last that was served.
      for (let at = this.#turn[engine]!; ; ) {
        const wq = queues[at]!;
        at = at + 1 === queues.length ? 0 : at + 1;
        if (wq.occupancy === 0) continue;
        this.#turn[engine] = at;
        return wq;
      }
    }
    // Every queue with work earns its priority; the one that is owed most is served, and pays for all. Among equals they take turns.
    let best: WorkQueue | undefined;
    let total = 0;
    for (let i = 0; i < queues.length; i++) {
      const wq = queues[i]!;
      if (wq.occupancy === 0 || (this.#strict && best && wq.priority < best.priority)) continue;
      wq.credit += wq.priority;
      total += wq.priority;
      if (!best || wq.credit > best.credit) best = wq;
    }
    best!.credit -= total;
    return best!;
  }

  #draw(queues: readonly WorkQueue[], schedule: Schedule): WorkQueue {
    let total = 0;
    let highest = 0;
    for (const wq of queues)
      if (wq.occupancy > 0 && !(this.#strict && wq.priority < highest)) {
        total += wq.priority;
        highest = Math.max(highest, wq.priority);
      }
    let draw = schedule.below(total);
    let last = queues[0]!;
    for (const wq of queues)
      if (wq.occupancy > 0 && !(this.#strict && wq.priority < highest)) {
        last = wq;
        draw -= wq.priority;
        if (draw < 0) break;
      }
    return last;
  }

  #dispatch(engine: number, wq: WorkQueue): void {
    const op = this.#idle.pop()!;
    op.ims = wq.shift(op);
    if (wq.occupancy === wq.occupancyLimit) this.#p.occupancyReached(wq);
    op.begin();
    op.wq = wq.index;
    op.engine = engine;
    op.sequence = ++this.#sequence;
    op.inBatch = op.batchIndex = 0;
    this.#ownerOf(op, wq);
    wq.inFlight++;
    this.#inFlight[engine]!++;
    this.#counters[Counter.dispatched]!++;
    this.#p.trace?.emit(Event.dispatch, wq.index, op.opcode, op.pasid, engine);
    const refusal = this.#refusal(op, wq);
    if (refusal !== 0) op.end(refusal);
    if (!this.#schedule) {
      let place = this.#head[engine]! + this.#held[engine]!++;
      if (place >= this.#limit) place -= this.#limit;
      op.place = engine * this.#limit + place;
      this.#ring[op.place] = op.id;
      this.#advance(op);
      return;
    }
    const { clock, costs } = this.#p;
    this.#free[engine] = clock.now + costs.occupancy;
    clock.after(this.#schedule.below(this.#schedule.spread + 1), this.#start, (op.life << POOL_SHIFT) | op.id);
  }

  /** Steps an operation to its end or to a page that is not there, and gives it its time. */
  #advance(op: Op): void {
    const { clock, costs } = this.#p;
    const before = op.ns;
    const busBefore = op.busNs;
    const movedBefore = op.moved;
    this.#byEngine?.select(op.engine);
    if (op.status === 0) {
      const step = op.opcode === Opcode.batch ? this.#stepBatch(op) : op.opcode === Opcode.drain ? this.#stepDrain(op) : this.#step(op);
      if (step === Step.waiting) {
        op.waiting = 1;
        if (op.opcode === Opcode.drain) this.#drains++;
        else this.#blocked[op.engine]!++;
        return;
      }
    }
    // Time: the bytes' share of the data path, and all that one who waits sees besides (decoding, translations, first read, posted writes). An
    // engine takes the next descriptor long before: this one keeps it for its occupancy alone.
    const now = clock.now;
    let after = costs.dispatch + costs.recordWrite;
    let busy = costs.occupancy;
    let seen = 0;
    const { opcode } = op;
    if (opcode === Opcode.batch) {
      after += op.ns - before;
      if (op.busNs > busBefore) after += costs.read;
      busy = Math.max(busy, op.busyNs);
      seen = busy;
    } else if (op.moved > movedBefore) {
      const moved = op.moved - movedBefore;
      op.busNs += moved * this.#rate[opcode]!;
      busy += moved * costs.occupancyPerByte;
      after += this.#exposed(op.ns - before, moved, opcode) + this.#reading[opcode]! + this.#writing[opcode]!;
      const partial = this.#fills[opcode] ? this.#partial(op) : 0;
      if (partial > 0) {
        busy += partial;
        after += costs.partialLatency;
      }
    } else after += op.ns - before + this.#writing[opcode]!;
    const free = now + busy;
    if (free > this.#free[op.engine]!) this.#free[op.engine] = free;
    const stream = op.busNs - busBefore;
    op.after = after;
    op.until = now + seen;
    if (stream === 0) this.#finishAt(op, op.until);
    else {
      const time = this.#path.add(op.engine, now, stream, op.id);
      if (time < 0) {
        op.streaming = 1;
        // Behind another piece of its engine it cannot be the next that is through.
        if (!this.#watching || this.#path.first(op.engine)) this.#watch();
      } else this.#finishAt(op, now + time);
    }
  }

  /** The bytes are through: what remains is known. */
  #finishAt(op: Op, end: number): void {
    const { clock } = this.#p;
    const delay = Math.round(Math.max(end, op.until) + op.after - clock.now);
    op.due = clock.now + delay;
    clock.after(delay, this.#finish, (op.life << POOL_SHIFT) | op.id);
  }

  /** Makes sure that someone looks when the next piece of the data path's work is through. */
  #watch(): void {
    const { clock } = this.#p;
    const delay = Math.ceil(this.#path.next());
    const due = clock.now + delay;
    if (this.#watching && this.#look[0]! <= due) return;
    this.#watching = true;
    this.#look[0] = due;
    this.#lookout = (this.#lookout + 1) & 0x3fff_ffff;
    clock.after(delay, this.#depart, this.#lookout);
  }

  /**
   * What of the time of translations is seen: the first page of each operand in full; the later ones overlap with the data. In operations that
   * both read and write there is a stall besides that grows slowly with their number; fitted to published latencies from 4 KiB to 1 MiB, in
   * which operations that only read or only write show none.
   */
  #exposed(ns: number, bytes: number, opcode: number): number {
    if (bytes <= 4096) return ns;
    const pages = Math.ceil(bytes / 4096);
    if (!this.#stalls[opcode]) return ns / pages;
    if (pages !== this.#stalledPages) {
      const { pageStall, pageStallGrowth } = this.#p.costs;
      this.#stalledPages = pages;
      this.#stall[0] = pageStall * (Math.min(pages, 4) - 1) + (pages > 4 ? pageStallGrowth * Math.log2(pages / 4) : 0);
    }
    return Math.min(ns, ns / pages + this.#stall[0]!);
  }
  /** The stall of so many pages, worked out last: descriptors of a program are often alike. */
  #stalledPages = 0;
  readonly #stall = new Float64Array(1);

  /** What a destination costs whose first or last line is written in part. */
  #partial(op: Op): number {
    const ends = op.descriptor[6]! | (op.descriptor[6]! + op.descriptor[8]!);
    if ((ends & (LINE - 1)) === 0) return 0;
    return (ends & (HALF_LINE - 1)) === 0 ? this.#p.costs.partialHalf : this.#p.costs.partialLine;
  }

  /** One operation on memory. */
  #step(op: Op): number {
    if (op.opcode === Opcode.nop) return op.end(Status.success);
    const step = this.#operations[op.opcode]!.step(this.#io, op);
    if (!(op.flags & Flag.destinationReadback) || step === Step.waiting || op.status > Status.successFalsePredicate) return step;
    return readbackDestination(this.#io, op);
  }

  /** Waits for everything older of the same queue and PASID. */
  #stepDrain(op: Op): number {
    for (const other of this.#pool)
      if (other.active && other !== op && other.wq === op.wq && other.pasid === op.pasid && other.sequence < op.sequence) return Step.waiting;
    return readbackDrain(this.#io, op);
  }

  /** Members one after the other; a member's fault parks the batch. A fence after a failure skips the rest. */
  #stepBatch(op: Op): number {
    const { costs } = this.#p;
    op.child ??= new Op(op.id);
    const { child } = op;
    const { list } = this.#io;
    const wq = this.#p.queues[op.wq]!;
    if (op.phase === 0) {
      op.phase = 1;
      this.#counters[Counter.batches]!++;
      op.batchId = this.#batchId = (this.#batchId + 1) & 0xff;
      op.ns += costs.batchFetch;
      op.busyNs = 0;
    }
    // The list is read a page at a time: which members the piece at hand has, and where in it they are.
    let from = 0;
    let to = 0;
    while (op.index < op.count) {
      if (!child.active) {
        if (this.#schedule && op.index === op.first + op.members) {
          const drawn = this.#drawOrder(op, this.#schedule);
          if (drawn === Drawn.fault) return this.#listFault(op, op.index);
          if (drawn === Drawn.fenced) break;
          to = 0;
        }
        const member = op.members === 0 ? op.index : op.first + ((op.shift + (op.index - op.first) * op.stride) % op.members);
        if (member < from || member >= to) {
          const answer = this.#readList(op, member);
          if (answer === TlpStatus.waiting) return Step.waiting;
          if (answer !== 0) return this.#listFault(op, member);
          if (op.index === 0) op.ns += list.ns;
          from = member;
          to = member + Math.max(1, list.length >>> 6);
        }
        const at = (list.offset >>> 2) + (member - from) * 16;
        for (let i = 0; i < 16; i++) child.descriptor[i] = list.words[at + i]!;
        child.begin();
        // What lies between two fences may go in any order: then the fence was looked at where its part began.
        if (child.flags & Flag.fence && op.members === 0 && this.#fenced(op)) {
          child.active = 0;
          break;
        }
        child.wq = op.wq;
        child.engine = op.engine;
        child.ims = op.ims;
        child.pasid = op.pasid;
        child.access = op.access;
        child.inBatch = 1;
        child.batchIndex = member;
        child.batchId = op.batchId;
        child.firstKept = op.keptMembers === 0 ? 1 : 0;
        const refusal = this.#refusal(child, wq);
        if (refusal !== 0) child.end(refusal);
      }
      if (child.status === 0 && this.#step(child) === Step.waiting) return Step.waiting;
      const lost = this.#complete(child);
      child.active = 0;
      if (lost === Lost.logged) op.keptMembers++;
      const { opcode, moved } = child;
      let busy = costs.occupancy;
      op.busNs += costs.batchNext;
      // What the first member waits for is seen; later members' translations overlap with the work before them.
      if (op.index === 0) op.ns += this.#exposed(child.ns, moved, opcode);
      if (moved > 0) {
        busy += moved * costs.occupancyPerByte;
        op.busNs += moved * this.#rate[opcode]!;
        if (this.#fills[opcode]) busy += this.#partial(child);
      }
      op.busyNs += busy;
      // A record that is lost is a failure; one that the log keeps is none by itself.
      if (child.status !== Status.success || lost === Lost.gone) op.failures++;
      op.completed = ++op.index;
    }
    return this.#endBatch(op, op.failures > 0 ? Status.batchFail : Status.success);
  }
  /** The result of a batch says that a member failed. unconfirmed: that a device without an event log leaves it alone. */
  #endBatch(op: Op, status: number): number {
    if (op.failures > 0 && this.#p.profile.eventLogSize) op.result = 1;
    return op.end(status);
  }
  /** Whether a fence stops a batch: behind a failure, and behind a record in the log where the device does not continue batches. */
  #fenced(op: Op): boolean {
    if (op.failures === 0 && op.keptMembers > 0 && !this.#p.profile.batchContinuation) op.failures = 1;
    return op.failures > 0;
  }

  /** Makes a batch's members from this one on readable, as many as the piece of memory has. */
  #readList(op: Op, member: number): number {
    const low = (op.sourceLow >>> 0) + member * DESCRIPTOR_BYTES;
    const high = (op.sourceHigh + (low > 0xffff_ffff ? 1 : 0)) | 0;
    return this.#io.upstream.acquire(op.access, op.pasid, high, low | 0, (op.count - member) * DESCRIPTOR_BYTES, this.#io.list);
  }
  #listFault(op: Op, member: number): number {
    op.advanceSource(member * DESCRIPTOR_BYTES);
    op.faultHigh = op.sourceHigh;
    op.faultLow = op.sourceLow;
    return this.#endBatch(op, Status.batchFault);
  }

  /** The members up to the next fence in an order of the schedule: each once, in strides that the number of them has no factor in common with. */
  #drawOrder(op: Op, schedule: Schedule): number {
    const { list } = this.#io;
    let n = 0;
    for (; op.index + n < op.count; n++) {
      if (this.#readList(op, op.index + n) !== 0) break;
      const fence = list.words[(list.offset >>> 2) + 1]! & Flag.fence;
      if (fence && n > 0) break;
      if (fence && this.#fenced(op)) return Drawn.fenced;
    }
    if (n === 0) return Drawn.fault;
    op.first = op.index;
    op.members = n;
    op.shift = schedule.below(n);
    op.stride = 1 + schedule.below(n);
    while (greatestCommonDivisor(op.stride, n) !== 1) op.stride++;
    return Drawn.order;
  }

  /** The checks on a descriptor, in the order of `defaultCheckOrder`; 0 when it may run. Which of several errors is told, a profile may say. */
  #refusal(op: Op, wq: WorkQueue): number {
    return this.#passes(op, wq) ? 0 : this.#refusalOf(op, wq);
  }
  /** Most descriptors: with a record, and nothing that has to be asked for. True: every check passes. False says nothing. */
  #passes(op: Op, wq: WorkQueue): boolean {
    const { opcode, flags, descriptor } = op;
    if ((flags & ~wq.plainFlags[opcode]!) | (~flags & Flag.recordAddressValid) | (descriptor[2]! & (this.#recordBytes - 1))) return false;
    return (
      (op.access & DmaAccess.privileged) === 0 &&
      this.#refuseReserved(op) === 0 &&
      (this.#looked[opcode] === 0 || (this.#refuseSize(op, wq) === 0 && this.#refuseParameters(op, wq) === 0))
    );
  }
  #refusalOf(op: Op, wq: WorkQueue): number {
    const first =
      this.#refuseOperation(op, wq) ||
      this.#refuseFlags(op, wq) ||
      this.#refuseReserved(op) ||
      this.#refuseRecord(op) ||
      this.#refusePrivilege(op) ||
      this.#refuseInterrupt(op) ||
      this.#refuseSize(op, wq) ||
      this.#refuseParameters(op, wq) ||
      this.#refuseTrafficClass(op, wq);
    return first === 0 || this.#checks.length === 0 ? first : this.#refusalInOrder(op, wq);
  }
  #refusalInOrder(op: Op, wq: WorkQueue): number {
    op.value = 0;
    for (const check of this.#checks) {
      const status = this.#named[check](op, wq);
      if (status !== 0) return status;
    }
    return 0;
  }
  readonly #named: Readonly<Record<Check, (op: Op, wq: WorkQueue) => number>> = {
    operation: (op, wq) => this.#refuseOperation(op, wq),
    flags: (op, wq) => this.#refuseFlags(op, wq),
    reserved: (op) => this.#refuseReserved(op),
    record: (op) => this.#refuseRecord(op),
    privilege: (op) => this.#refusePrivilege(op),
    interrupt: (op) => this.#refuseInterrupt(op),
    size: (op, wq) => this.#refuseSize(op, wq),
    parameters: (op, wq) => this.#refuseParameters(op, wq),
    trafficClass: (op, wq) => this.#refuseTrafficClass(op, wq),
  };
  #refuseOperation(op: Op, wq: WorkQueue): number {
    const { opcode } = op;
    return !this.#offered[opcode] ||
      !((wq.operations[opcode >>> 5]! >>> (opcode & 31)) & 1) ||
      (op.inBatch && (opcode === Opcode.batch || opcode === Opcode.drain))
      ? Status.unsupportedOperation
      : 0;
  }
  #refuseFlags(op: Op, wq: WorkQueue): number {
    const { flags } = op;
    let illegal = flags & ~this.#legal[op.opcode]!;
    if (!wq.blockOnFault) illegal |= flags & Flag.blockOnFault;
    if (flags & Flag.requestRecord && !(flags & Flag.recordAddressValid)) illegal |= Flag.requestRecord;
    if (this.#fenceInBatch && !op.inBatch) illegal |= flags & Flag.fence;
    if (illegal === 0) return 0;
    op.value = illegal;
    return Status.invalidFlags;
  }
  #refuseReserved({ opcode, descriptor }: Op): number {
    const reserved = this.#reserved[opcode];
    if (!reserved) return 0;
    let set = 0;
    for (let i = 0; i < 16; i += 4)
      set |=
        (descriptor[i]! & reserved[i]!) |
        (descriptor[i + 1]! & reserved[i + 1]!) |
        (descriptor[i + 2]! & reserved[i + 2]!) |
        (descriptor[i + 3]! & reserved[i + 3]!);
    return set !== 0 ? Status.nonZeroReserved : 0;
  }
  #refuseRecord(op: Op): number {
    return op.flags & Flag.recordAddressValid && op.descriptor[2]! & (this.#recordBytes - 1) ? Status.recordAlignment : 0;
  }
  #refusePrivilege(op: Op): number {
    return op.access & DmaAccess.privileged && op.pasid >= 0 && !this.#p.fn.privilegedEnabled ? Status.privilege : 0;
  }
  #refuseInterrupt(op: Op): number {
    return op.flags & Flag.requestInterrupt && !this.#p.interrupts.allowed(op.descriptor[9]! & 0xffff, op.ims, op.pasid) ? Status.interruptHandle : 0;
  }
  #refuseSize(op: Op, wq: WorkQueue): number {
    if (this.#sized[op.opcode] && (op.remaining === 0 || op.remaining > wq.maxTransfer)) return Status.transferSize;
    if (op.opcode !== Opcode.batch) return 0;
    op.count = op.remaining;
    return op.count < 2 || op.count > wq.maxBatch ? Status.descriptorCount : 0;
  }
  #refuseParameters(op: Op, wq: WorkQueue): number {
    if (op.opcode === Opcode.batch) return op.sourceLow & 63 ? Status.listAlignment : 0;
    return this.#operations[op.opcode]?.check?.(op, this.#p.profile.overlappingCopy, wq.maxTransfer) ?? 0;
  }
  #refuseTrafficClass(op: Op, wq: WorkQueue): number {
    if (wq.trafficClassFault === 0) return 0;
    return selects(op.flags, this.#operations[op.opcode]?.flags ?? 0, wq.trafficClassFault) ? Status.trafficClass : 0;
  }

  /** Record, software error and interrupt of one finished descriptor. */
  #complete(op: Op): number {
    this.#byEngine?.select(op.engine);
    const { flags, status } = op;
    const ok = status === Status.success;
    this.#counters[ok ? Counter.succeeded : Counter.failed]!++;
    if ((status & 0x7f) === Status.pageFault) this.#counters[Counter.pageFaults]!++;
    this.#p.trace?.emit(Event.complete, op.wq, op.opcode, status, op.completed);
    const aligned = flags & Flag.recordAddressValid && !(op.descriptor[2]! & (this.#recordBytes - 1));
    let lost: number = Lost.no;
    if (aligned) {
      if (this.#keptBehind(op)) lost = Lost.logged;
      else if (!ok || flags & Flag.requestRecord) lost = this.#writeRecord(op);
    } else if (!ok) this.#p.softwareError(status, op);
    if (flags & Flag.requestInterrupt && status !== Status.interruptHandle) this.#p.interrupts.completion(op.descriptor[9]! & 0xffff, op.ims);
    return lost;
  }

  /**
   * The record of a batch whose members' records are in the event log, or of a drain behind any of its PASID, follows them there, so that
   * software sees it after them.
   */
  #keptBehind(op: Op): boolean {
    const { kept } = this.#p.queues[op.wq]!;
    if (op.opcode === Opcode.batch) return op.keptMembers > 0 && this.#p.keep(EventError.batch, op);
    return op.opcode === Opcode.drain && kept.delete(op.pasid) && this.#p.keep(EventError.drain, op);
  }

  #writeRecord(op: Op): number {
    const { c } = this.#io;
    const d = op.descriptor;
    const answer = this.#io.upstream.acquire(op.access | DmaAccess.write, op.pasid, d[3]! | 0, d[2]! | 0, this.#recordBytes, c);
    if (answer !== 0) {
      if (!this.#p.softwareError(Status.recordFault, op)) return Lost.gone;
      this.#p.queues[op.wq]!.kept.add(op.pasid);
      return Lost.logged;
    }
    op.putRecord(c.words, c.offset >>> 2);
    this.#io.upstream.commit(c);
    return Lost.no;
  }

  /** An operation's time is over. */
  #timed(op: Op): void {
    if (this.#schedule) {
      this.#complete(op);
      this.#release(op);
      return;
    }
    op.ready = 1;
    if (this.#ring[op.engine * this.#limit + this.#head[op.engine]!] === op.id) this.#retire(op.engine);
  }

  /** Records appear in the order of dispatch: those of the engine's oldest operations, as far as they are ready. */
  #retire(engine: number): void {
    const base = engine * this.#limit;
    while (this.#held[engine]! > 0) {
      const head = this.#head[engine]!;
      const id = this.#ring[base + head]!;
      const op = id === GONE ? undefined : this.#pool[id]!;
      if (op && !op.ready) return;
      this.#head[engine] = head + 1 === this.#limit ? 0 : head + 1;
      this.#held[engine]!--;
      if (!op) continue;
      this.#complete(op);
      this.#release(op);
    }
  }

  #release(op: Op): void {
    op.active = 0;
    op.life = (op.life + 1) & LIFE_MASK;
    if (op.child) op.child.active = 0;
    this.#p.queues[op.wq]!.inFlight--;
    this.#inFlight[op.engine]!--;
    this.#idle.push(op);
    if (this.#drains > 0) this.#wakeDrains();
    this.#p.settled();
    if (this.#inFlight[op.engine] === this.#most[op.engine]! - 1) this.kick(0);
  }

  #wakeDrains(): void {
    for (const op of this.#pool)
      if (op.active && op.waiting && op.opcode === Opcode.drain) {
        this.#unblock(op);
        this.#advance(op);
      }
  }

  /** Power-on state. What was in progress is gone. */
  reset(): void {
    for (const op of this.#pool) {
      op.active = op.waiting = 0;
      op.life = (op.life + 1) & LIFE_MASK;
    }
    this.#idle.length = 0;
    this.#idle.push(...this.#pool);
    this.#inFlight.fill(0);
    this.#blocked.fill(0);
    this.#free.fill(0);
    this.#path.reset();
    this.#head.fill(0);
    this.#held.fill(0);
    this.#drains = 0;
    this.#stalled = false;
    this.#queuesOf = [];
  }
}

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b));

const SELECTORS = Flag.trafficClass1 | Flag.trafficClass2 | Flag.trafficClass3;
/** Whether an address of the descriptor, or its record, selects a traffic class (bit 0: A, bit 1: B) of `which`. A selector of 0 is class A. */
function selects(flags: number, legal: number, which: number): boolean {
  const addresses = (legal & SELECTORS) | (flags & Flag.recordAddressValid ? Flag.recordTrafficClass : 0);
  return ((which & 1) !== 0 && (addresses & ~flags) !== 0) || ((which & 2) !== 0 && (addresses & flags) !== 0);
}
