/**
 * Engines: take descriptors from the queues of their group, check them, step the operation, and let its record appear when its time has
 * passed. DSA specification, "Engines" and "Descriptor Processing". Functional effects happen at dispatch, in order, unless a schedule says
 * otherwise; time is the clock's.
 */
import { Event } from '@siov/layout/events';
import { DmaAccess, PageResponse } from '@siov/layout/pcie';
import type { PciFunction } from '@siov/pci-core';
import { Arbiter } from './arbiter.js';
import { Batches, Lost } from './batch.js';
import { Checks } from './checks.js';
import type { DeviceCosts } from './costs.js';
import { Counter } from './counters.js';
import { crc32c } from './crc.js';
import { DataPath } from './data-path.js';
import type { Interrupts } from './interrupts.js';
import { extent, type Io, Op, Step } from './op.js';
import { dsa, type Operations, readbackDestination, readbackDrain } from './operations/index.js';
import type { Clock, Native, Trace, Upstream } from './ports.js';
import type { Profile } from './profiles.js';
import { type WorkQueue, WqState } from './queue.js';
import { Schedule, type ScheduleOptions } from './schedule.js';
import { EventError, Flag, Opcode, Status } from './spec/descriptor.js';
import { Times } from './times.js';
import { unconnected } from './unconnected.js';
import { Window } from './window.js';

const IN_FLIGHT = 64;
const READ_BUFFER_BYTES = 128;
/** In a ring: an operation that was aborted. */
const GONE = -1;
/** A completion event names an operation and which life of it: an event of a life that a reset ended does nothing. */
const POOL_SHIFT = 12;
const POOL_LIMIT = 1 << POOL_SHIFT;
const LIFE_MASK = 0x3_ffff;

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
  readonly #counters: Float64Array;
  readonly #checks: Checks;
  readonly #operations: Operations;
  readonly #recordBytes: number;
  readonly #times: Times;
  readonly #io: Io;
  readonly #batches: Batches;
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
  readonly #arbiter: Arbiter;
  readonly #path: DataPath;
  /** How much work of the data path, in nanoseconds, an engine may have when it takes the next descriptor: what its read buffers hold. */
  readonly #window: Float64Array;
  /** By engine, a ring of operations in the order of their dispatch (-1: gone without a record): the oldest, and how many. */
  readonly #ring: Int32Array;
  readonly #head: Int32Array;
  readonly #held: Int32Array;
  #drains = 0;
  #sequence = 0;
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
    this.#counters = ports.counters;
    this.#checks = new Checks(ports, family, operations);
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
    this.#arbiter = new Arbiter(profile.engines, profile.arbitration === 'strict', this.#schedule);
    this.#ring = new Int32Array(profile.engines * this.#limit);
    this.#head = new Int32Array(profile.engines);
    this.#held = new Int32Array(profile.engines);
    this.#times = new Times(costs, operations);
    this.#batches = new Batches({
      profile,
      costs,
      queues: ports.queues,
      io: this.#io,
      checks: this.#checks,
      times: this.#times,
      schedule: this.#schedule,
      step: (op) => this.#step(op),
      counters: this.#counters,
      complete: (op) => this.#complete(op),
    });
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
    this.#arbiter.configure(queues, groups);
    for (const wq of queues) if (wq.state === WqState.enabled) this.#checks.tabulate(wq);
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
    const n = this.#arbiter.engines;
    const first = this.#schedule && n > 0 ? this.#schedule.below(n) : 0;
    this.#stalled = false;
    let next = -1;
    for (let i = 0; i < n; i++) {
      const engine = first + i < n ? first + i : first + i - n;
      while (this.#blocked[engine] === 0 && this.#inFlight[engine]! < this.#most[engine]! && this.#arbiter.waiting(engine)) {
        const free = this.#freeAt(engine, now);
        if (free > now) {
          if (free < Number.POSITIVE_INFINITY && (next < 0 || free < next)) next = free;
          break;
        }
        this.#dispatch(engine, this.#arbiter.pick(engine));
      }
    }
    if (next >= 0) this.kick(Math.ceil(next - now));
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
    const refusal = this.#checks.refusal(op, wq);
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
      const step = op.opcode === Opcode.batch ? this.#batches.step(op) : op.opcode === Opcode.drain ? this.#stepDrain(op) : this.#step(op);
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
      op.busNs += moved * this.#times.rate[opcode]!;
      busy += moved * costs.occupancyPerByte;
      after += this.#times.exposed(op.ns - before, moved, opcode) + this.#times.reading[opcode]! + this.#times.writing[opcode]!;
      const partial = this.#times.fills[opcode] ? this.#times.partial(op) : 0;
      if (partial > 0) {
        busy += partial;
        after += costs.partialLatency;
      }
    } else after += op.ns - before + this.#times.writing[opcode]!;
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
    this.#arbiter.reset();
  }
}
