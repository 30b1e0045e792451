/**
 * Engines: take descriptors from the queues of their group, check them, step the operation, and let its record appear when its time has
 * passed. DSA specification, "Engines" and "Descriptor Processing". Functional effects happen at dispatch, in order; time is the clock's.
 */
import { Event } from '@siov/layout/events';
import { DmaAccess, PageResponse } from '@siov/layout/pcie';
import type { PciFunction } from '@siov/pci-core';
import type { DeviceCosts } from './costs.js';
import type { Interrupts } from './interrupts.js';
import { extent, type Io, Op, Step } from './op.js';
import { legalFlags, operations, readbackDestination, readbackDrain, type Stream } from './operations/index.js';
import type { Clock, Trace, Upstream } from './ports.js';
import type { Profile } from './profiles.js';
import { type WorkQueue, WqState } from './queue.js';
import { descriptors, Flag, Opcode, RECORD_BYTES, Status } from './spec/descriptor.js';
import { unconnected } from './unconnected.js';
import { Window } from './window.js';

/** Descriptors in progress per engine. unconfirmed: bits 39:32 of GENCAP in older revisions say 64. */
const IN_FLIGHT = 64;
/** A completion event names an operation and which life of it: an event of a life that a reset ended does nothing. */
const POOL_SHIFT = 12;
const POOL_LIMIT = 1 << POOL_SHIFT;
const LIFE_MASK = 0x3_ffff;

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
  /** Puts an error into SWERROR. */
  softwareError(error: number, op: Op): void;
  /** Something finished: a drain or a command may be able to go on. */
  settled(): void;
}

export class Engines {
  // fixed
  readonly #p: EnginePorts;
  readonly #run: number;
  readonly #finish: number;
  readonly #rates: Readonly<{ [S in Stream]: number }>;
  /** Which operations this device offers, the flags that each may have, and the reserved bits of its descriptor. */
  readonly #offered: readonly boolean[];
  readonly #legal: readonly number[];
  readonly #reserved: readonly (Uint32Array | undefined)[];
  readonly #io: Io;
  // state
  readonly #pool: Op[] = [];
  readonly #idle: Op[] = [];
  readonly #free: Float64Array;
  readonly #inFlight: Int32Array;
  /** Operations of each engine that wait for a page: the engine takes nothing meanwhile. */
  readonly #blocked: Int32Array;
  /** Queues by engine, highest priority first; rebuilt when a queue or the device changes. */
  #queuesOf: WorkQueue[][] = [];
  readonly #turn: Int32Array;
  /** When the device's data path is free, and the drains that wait. */
  readonly #bus = new Float64Array(1);
  #drains = 0;
  #sequence = 0;
  #scheduled = false;

  constructor(ports: EnginePorts) {
    this.#p = ports;
    const { profile, clock, costs } = ports;
    const [a, b, c] = [extent(), extent(), extent()];
    const windows = { source: new Window(a), target: new Window(b), other: new Window(c) };
    this.#io = { upstream: unconnected, a, b, c, ...windows, bytesRead: 0, bytesWritten: 0, pageRequests: 0 };
    for (let id = 0; id < profile.engines * IN_FLIGHT; id++) this.#pool.push(new Op(id));
    this.#idle.push(...this.#pool);
    this.#free = new Float64Array(profile.engines);
    this.#inFlight = new Int32Array(profile.engines);
    this.#blocked = new Int32Array(profile.engines);
    this.#turn = new Int32Array(profile.engines);
    this.#rates = {
      none: 0,
      move: costs.streamMove,
      fill: costs.streamFill,
      pattern: costs.streamPattern,
      crc: costs.streamCrc,
      compare: costs.streamCompare,
    };
    const codes = Array.from({ length: 256 }, (_, code) => code);
    this.#offered = codes.map((code) => profile.operations.includes(code) && operations[code] !== undefined);
    this.#legal = codes.map((code) => (this.#offered[code] ? legalFlags(code, operations[code]!, profile) : 0));
    this.#reserved = codes.map((code) => (this.#offered[code] ? descriptors.of(Uint32Array.of(0, code << 24), 0).masks.reserved : undefined));
    this.#run = clock.handler(() => {
      this.#scheduled = false;
      this.#arbitrate();
    });
    this.#finish = clock.handler((ticket) => {
      const op = this.#pool[ticket & (POOL_LIMIT - 1)]!;
      if (op.active && op.life === ticket >>> POOL_SHIFT) this.#finished(op);
    });
  }

  get io(): Readonly<Io> {
    return this.#io;
  }
  connect(upstream: Upstream): void {
    this.#io.upstream = upstream;
  }

  /** The group configuration or a queue's state changed. */
  configure(enginesOf: (group: number) => number): void {
    this.#queuesOf = Array.from({ length: this.#p.profile.engines }, (_, engine) =>
      this.#p.queues
        .filter((wq) => wq.state === WqState.enabled && wq.group >= 0 && (enginesOf(wq.group) >>> engine) & 1)
        .sort((a, b) => b.priority - a.priority),
    );
  }

  /** A queue got work. */
  kick(delay: number): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#p.clock.after(delay, this.#run, 0);
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
        this.#release(op);
      }
  }

  /** A page request group response. */
  pageResponse(group: number, code: number): void {
    const op = this.#pool[group];
    if (!op?.active || !op.waiting || op.opcode === Opcode.drain) return;
    this.#unblock(op);
    const member = op.child?.active ? op.child : op;
    if (code !== PageResponse.success) member.end(Status.pageRequestInvalid | member.faultWrite);
    this.#advance(op);
    this.kick(0);
  }

  #unblock(op: Op): void {
    op.waiting = 0;
    if (op.opcode === Opcode.drain) this.#drains--;
    else this.#blocked[op.engine]!--;
  }

  #arbitrate(): void {
    const { clock } = this.#p;
    const now = clock.now;
    let next = -1;
    for (let engine = 0; engine < this.#queuesOf.length; engine++) {
      for (;;) {
        if (this.#blocked[engine]! > 0 || this.#inFlight[engine]! >= IN_FLIGHT) break;
        const wq = this.#pick(engine);
        if (!wq) break;
        const free = this.#free[engine]!;
        if (free > now) {
          if (next < 0 || free < next) next = free;
          break;
        }
        this.#dispatch(engine, wq);
      }
    }
    if (next >= 0) this.kick(Math.ceil(next - now));
  }

  /** The next queue with work: the highest priority, and among equals the one after the last that was served. */
  #pick(engine: number): WorkQueue | undefined {
    const queues = this.#queuesOf[engine]!;
    const n = queues.length;
    if (n === 1) return queues[0]!.occupancy > 0 ? queues[0] : undefined;
    let best: WorkQueue | undefined;
    for (let i = 0; i < n; i++) {
      const at = (this.#turn[engine]! + i) % n;
      const wq = queues[at]!;
      if (wq.occupancy > 0 && (!best || wq.priority > best.priority)) {
        best = wq;
      }
    }
    if (best) this.#turn[engine] = queues.indexOf(best) + 1;
    return best;
  }

  #dispatch(engine: number, wq: WorkQueue): void {
    const op = this.#idle.pop()!;
    op.ims = wq.shift(op.descriptor);
    op.begin();
    op.wq = wq.index;
    op.engine = engine;
    op.sequence = ++this.#sequence;
    op.inBatch = op.batchIndex = 0;
    const word0 = op.descriptor[0]!;
    op.pasid = wq.shared ? word0 & 0xf_ffff : wq.pasid;
    const privileged = wq.shared ? word0 >>> 31 : wq.privileged;
    op.access = (privileged ? DmaAccess.privileged : 0) | (wq.ats && this.#p.fn.atsEnabled ? DmaAccess.ats : 0);
    wq.inFlight++;
    this.#inFlight[engine]!++;
    this.#p.counters[Counter.dispatched]!++;
    this.#p.trace?.emit(Event.dispatch, wq.index, op.opcode, op.pasid, engine);
    const refusal = this.#refusal(op, wq);
    if (refusal !== 0) op.end(refusal);
    this.#advance(op);
  }

  /** Steps an operation to its end or to a page that is not there, and gives it its time. */
  #advance(op: Op): void {
    const { clock, costs } = this.#p;
    const before = op.ns;
    const busBefore = op.busNs;
    if (op.status === 0) {
      const step = op.opcode === Opcode.batch ? this.#stepBatch(op) : op.opcode === Opcode.drain ? this.#stepDrain(op) : this.#step(op);
      if (step === Step.waiting) {
        op.waiting = 1;
        if (op.opcode === Opcode.drain) this.#drains++;
        else this.#blocked[op.engine]!++;
        return;
      }
    }
    // Time. Decode, first read and translations; then the bytes, when the data path that all engines share is free; then the posted writes.
    // The engine takes the next descriptor long before: it is busy for its occupancy alone.
    const row = operations[op.opcode];
    const now = clock.now;
    const batch = op.opcode === Opcode.batch;
    let t = now + costs.dispatch + this.#exposed(op.ns - before, op.moved);
    if (row && op.moved > 0) t += (row.reads > 0 ? costs.read : 0) + (row.reads > 1 ? costs.secondRead : 0);
    if (row) op.busNs += op.moved * this.#rates[row.stream];
    const stream = op.busNs - busBefore;
    if (batch && stream > 0) t += costs.read;
    const busy = batch ? op.busyNs : costs.occupancy + op.moved * costs.occupancyPerByte;
    const ready = t;
    if (stream > 0) {
      t = Math.max(t, this.#bus[0]!) + stream;
      this.#bus[0] = t;
    }
    if (batch) t = Math.max(t, ready + busy);
    const engineFree = now + Math.max(busy, costs.occupancy);
    this.#free[op.engine] = Math.max(this.#free[op.engine]!, engineFree);
    if (row && row.writes > 0) t += costs.write;
    t += costs.recordWrite;
    clock.after(Math.round(t - now), this.#finish, (op.life << POOL_SHIFT) | op.id);
  }

  /**
   * What of the time of translations is seen: the first page of each operand in full; the later ones overlap with the data but for a stall
   * that grows slowly with their number. Fitted to published latencies of memmove from 4 KiB to 1 MiB.
   */
  #exposed(ns: number, bytes: number): number {
    const pages = Math.ceil(bytes / 4096);
    if (pages <= 1) return ns;
    const { pageStall, pageStallGrowth } = this.#p.costs;
    const stall = pageStall * (Math.min(pages, 4) - 1) + (pages > 4 ? pageStallGrowth * Math.log2(pages / 4) : 0);
    return Math.min(ns, ns / pages + stall);
  }

  /** One operation on memory. */
  #step(op: Op): number {
    const step = operations[op.opcode]!.step(this.#io, op);
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
    const io = this.#io;
    const wq = this.#p.queues[op.wq]!;
    if (op.index === 0 && !child.active) {
      this.#p.counters[Counter.batches]!++;
      op.ns += costs.batchFetch;
      op.busyNs = 0;
    }
    while (op.index < op.count) {
      if (!child.active) {
        const answer = io.upstream.acquire(op.access, op.pasid, op.sourceHigh, op.sourceLow, 64, io.c);
        if (op.index === 0) op.ns += io.c.ns;
        if (answer !== 0) {
          op.faultHigh = op.sourceHigh;
          op.faultLow = op.sourceLow;
          return op.end(Status.batchFault);
        }
        const from = io.c.offset >>> 2;
        for (let i = 0; i < 16; i++) child.descriptor[i] = io.c.words[from + i]!;
        child.begin();
        if (child.flags & Flag.fence && op.failures > 0) {
          child.active = 0;
          break;
        }
        child.wq = op.wq;
        child.engine = op.engine;
        child.ims = op.ims;
        child.pasid = op.pasid;
        child.access = op.access;
        child.inBatch = 1;
        child.batchIndex = op.index;
        const refusal = this.#refusal(child, wq);
        if (refusal !== 0) child.end(refusal);
      }
      if (child.status === 0 && this.#step(child) === Step.waiting) return Step.waiting;
      this.#complete(child);
      child.active = 0;
      const row = operations[child.opcode];
      // What the first member waits for is seen; later members' translations overlap with the work before them.
      if (op.index === 0) op.ns += this.#exposed(child.ns, child.moved);
      op.busyNs += costs.occupancy + costs.batchNext + child.moved * costs.occupancyPerByte;
      if (row) op.busNs += child.moved * this.#rates[row.stream];
      if (child.status !== Status.success) op.failures++;
      op.index++;
      op.completed = op.index;
      op.advanceSource(64);
    }
    return op.end(op.failures > 0 ? Status.batchFail : Status.success);
  }

  /**
   * The checks on a descriptor, in order; 0 when it may run. unconfirmed: the order between kinds of errors.
   */
  #refusal(op: Op, wq: WorkQueue): number {
    const { opcode, flags, descriptor } = op;
    if (
      !this.#offered[opcode] ||
      !((wq.operations[opcode >>> 5]! >>> (opcode & 31)) & 1) ||
      (op.inBatch && (opcode === Opcode.batch || opcode === Opcode.drain))
    )
      return Status.unsupportedOperation;
    const row = operations[opcode]!;
    let illegal = flags & ~this.#legal[opcode]!;
    if (!wq.blockOnFault) illegal |= flags & Flag.blockOnFault;
    if (flags & Flag.requestRecord && !(flags & Flag.recordAddressValid)) illegal |= Flag.requestRecord;
    if (illegal !== 0) {
      op.value = illegal;
      return Status.invalidFlags;
    }
    const reserved = this.#reserved[opcode]!;
    for (let i = 0; i < 16; i++) if ((descriptor[i]! & reserved[i]!) !== 0) return Status.nonZeroReserved;
    if (flags & Flag.recordAddressValid && descriptor[2]! & (RECORD_BYTES - 1)) return Status.recordAlignment;
    if (op.access & DmaAccess.privileged && op.pasid >= 0 && !this.#p.fn.privilegedEnabled) return Status.privilege;
    if (flags & Flag.requestInterrupt && !this.#p.interrupts.allowed(descriptor[9]! & 0xffff, op.ims, op.pasid)) return Status.interruptHandle;
    if (row.sized && (op.remaining === 0 || op.remaining > wq.maxTransfer)) return Status.transferSize;
    if (opcode === Opcode.batch) {
      op.count = op.remaining;
      if (op.count < 2 || op.count > wq.maxBatch) return Status.descriptorCount;
      if (op.sourceLow & 63) return Status.listAlignment;
    }
    const broken = row.check?.(op, this.#p.profile.overlappingCopy) ?? 0;
    if (broken !== 0) return broken;
    return wq.trafficClassFault !== 0 && selects(flags, row.flags, wq.trafficClassFault) ? Status.trafficClass : 0;
  }

  /** Record, software error and interrupt of one finished descriptor. */
  #complete(op: Op): void {
    const { flags, status } = op;
    const ok = status === Status.success;
    this.#p.counters[ok ? Counter.succeeded : Counter.failed]!++;
    if ((status & 0x7f) === Status.pageFault) this.#p.counters[Counter.pageFaults]!++;
    this.#p.trace?.emit(Event.complete, op.wq, op.opcode, status, op.completed);
    const aligned = flags & Flag.recordAddressValid && !(op.descriptor[2]! & (RECORD_BYTES - 1));
    if (aligned) {
      if (!ok || flags & Flag.requestRecord) this.#writeRecord(op);
    } else if (!ok) this.#p.softwareError(status, op);
    if (flags & Flag.requestInterrupt && status !== Status.interruptHandle) this.#p.interrupts.completion(op.descriptor[9]! & 0xffff, op.ims);
  }

  #writeRecord(op: Op): void {
    const { c } = this.#io;
    const d = op.descriptor;
    const answer = this.#io.upstream.acquire(op.access | DmaAccess.write, op.pasid, d[3]! | 0, d[2]! | 0, RECORD_BYTES, c);
    if (answer !== 0) {
      this.#p.softwareError(Status.recordFault, op);
      return;
    }
    op.putRecord(c.words, c.offset >>> 2);
    this.#io.upstream.commit(c);
  }

  #finished(op: Op): void {
    this.#complete(op);
    this.#release(op);
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
    if (this.#inFlight[op.engine] === IN_FLIGHT - 1) this.kick(0);
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
    this.#bus[0] = 0;
    this.#drains = 0;
    this.#queuesOf = [];
  }
}

const SELECTORS = Flag.trafficClass1 | Flag.trafficClass2 | Flag.trafficClass3;
/** Whether an address of the descriptor, or its record, selects a traffic class (bit 0: A, bit 1: B) of `which`. A selector of 0 is class A. */
function selects(flags: number, legal: number, which: number): boolean {
  const addresses = (legal & SELECTORS) | (flags & Flag.recordAddressValid ? Flag.recordTrafficClass : 0);
  return ((which & 1) !== 0 && (addresses & ~flags) !== 0) || ((which & 2) !== 0 && (addresses & flags) !== 0);
}
