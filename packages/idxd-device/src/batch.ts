/** Batches: members one after the other, fences, continuation behind records in the log. DSA specification, "Batch" and "Batch Descriptor Processing". */
import { TlpStatus } from '@siov/layout/pcie';
import type { Checks } from './checks.js';
import type { DeviceCosts } from './costs.js';
import { Counter } from './counters.js';
import { type Io, Op, Step } from './op.js';
import type { Profile } from './profiles.js';
import type { WorkQueue } from './queue.js';
import type { Schedule } from './schedule.js';
import { Flag, Status } from './spec/descriptor.js';
import type { Times } from './times.js';

const DESCRIPTOR_BYTES = 64;
/** What a draw of a batch's order came to: an order, no list to read, or a fence after a failure. */
const Drawn = { order: 0, fault: 1, fenced: 2 } as const;
/** What became of a record: it was written or not wanted, the event log has it, or nobody. */
export const Lost = { no: 0, logged: 1, gone: 2 } as const;

export interface BatchPorts {
  readonly profile: Profile;
  readonly costs: DeviceCosts;
  readonly queues: readonly WorkQueue[];
  readonly io: Io;
  readonly checks: Checks;
  readonly times: Times;
  readonly counters: Float64Array;
  readonly schedule: Schedule | undefined;
  /** Steps a member as any operation. */
  step(op: Op): number;
  /** Ends one: its record, and what became of that. */
  complete(op: Op): number;
}

export class Batches {
  readonly #p: BatchPorts;
  /** Of the batch that began last; 8 bits, as events name it. */
  #batchId = 0;
  constructor(ports: BatchPorts) {
    this.#p = ports;
  }

  /** Members one after the other; a member's fault parks the batch. A fence after a failure skips the rest. */
  step(op: Op): number {
    const { costs, checks, times, schedule } = this.#p;
    op.child ??= new Op(op.id);
    const { child } = op;
    const { list } = this.#p.io;
    const wq = this.#p.queues[op.wq]!;
    if (op.phase === 0) {
      op.phase = 1;
      this.#p.counters[Counter.batches]!++;
      op.batchId = this.#batchId = (this.#batchId + 1) & 0xff;
      op.ns += costs.batchFetch;
      op.busyNs = 0;
    }
    // The list is read a page at a time: which members the piece at hand has, and where in it they are.
    let from = 0;
    let to = 0;
    while (op.index < op.count) {
      if (!child.active) {
        if (schedule && op.index === op.first + op.members) {
          const drawn = this.#drawOrder(op, schedule);
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
        const refusal = checks.refusal(child, wq);
        if (refusal !== 0) child.end(refusal);
      }
      if (child.status === 0 && this.#p.step(child) === Step.waiting) return Step.waiting;
      const lost = this.#p.complete(child);
      child.active = 0;
      if (lost === Lost.logged) op.keptMembers++;
      const { opcode, moved } = child;
      let busy = costs.occupancy;
      op.busNs += costs.batchNext;
      // What the first member waits for is seen; later members' translations overlap with the work before them.
      if (op.index === 0) op.ns += times.exposed(child.ns, moved, opcode);
      if (moved > 0) {
        busy += moved * costs.occupancyPerByte;
        op.busNs += moved * times.rate[opcode]!;
        if (times.fills[opcode]) busy += times.partial(child);
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
    return this.#p.io.upstream.acquire(op.access, op.pasid, high, low | 0, (op.count - member) * DESCRIPTOR_BYTES, this.#p.io.list);
  }
  #listFault(op: Op, member: number): number {
    op.advanceSource(member * DESCRIPTOR_BYTES);
    op.faultHigh = op.sourceHigh;
    op.faultLow = op.sourceLow;
    return this.#endBatch(op, Status.batchFault);
  }

  /** The members up to the next fence in an order of the schedule: each once, in strides that the number of them has no factor in common with. */
  #drawOrder(op: Op, schedule: Schedule): number {
    const { list } = this.#p.io;
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
}

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b));
