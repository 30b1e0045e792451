/** An operation in progress: a preallocated record of cursors, advanced by `step`. Never an object per descriptor. */
import { TlpStatus } from '@siov/layout/pcie';
import type { Extent, Native, Upstream } from './ports.js';
import { Flag, Status } from './spec/descriptor.js';
import type { Window } from './window.js';

/** What a step says: finished (look at `status`), or waiting for memory (an answer will resume it at the same cursors). */
export const Step = { done: 0, waiting: 1 } as const;

const WRITE_FAULT = 0x80;
/** Where byte 2 of a record has the operand. */
const FAULT_OPERAND = 1;

const none = /* @__PURE__ */ new Uint32Array(0);

export class Op {
  // fixed
  /** Index in the device's pool; also the page request group index. */
  readonly id: number;
  /** Exchanged with a queue's when one is taken from there. */
  descriptor = new Uint32Array(16);
  /** Words of the record from byte 24 on, of families whose records are larger. */
  readonly extra: Uint32Array;
  // state
  wq = 0;
  engine = 0;
  /** Order of arrival in the device, for drains. */
  sequence = 0;
  /** From the IMS half of the portal pages. */
  ims = 0;
  pasid = -1;
  /** `DmaAccess` bits of every request: privileged, ats. */
  access = 0;
  opcode = 0;
  flags = 0;
  active = 0;
  /** How often this record was reused. */
  life = 0;
  /** Parked: for a page, or (drain) for older descriptors. */
  waiting = 0;
  /** `Status` bit of the write that faulted. */
  faultWrite = 0;
  /** The record's byte 2: which operand it was. */
  faultInformation = 0;
  sourceHigh = 0;
  sourceLow = 0;
  destinationHigh = 0;
  destinationLow = 0;
  remaining = 0;
  completed = 0;
  /** Running CRC; invalid flags when that is the error. */
  value = 0;
  /** The record's last three words, when an operation has any: then `tagged` is 1. */
  readonly tags = new Int32Array(3);
  tagged = 0;
  phase = 0;
  result = 0;
  status = 0;
  faultHigh = 0;
  faultLow = 0;
  /** Modelled nanoseconds of translations and stalls so far. */
  ns = 0;
  /** Bytes that crossed the device, for its rate. */
  moved = 0;
  /** Nanoseconds of streaming that were accounted for. */
  busNs = 0;
  /** Batch: how long its members kept the engine. */
  busyNs = 0;
  /** Its bytes share the data path with others': when they are through is not known yet. */
  streaming = 0;
  /** What is seen of it besides its bytes' time, in nanoseconds; until when it keeps one that waits in any case; when it ends. */
  after = 0;
  until = 0;
  due = 0;
  /** Its place among the operations of its engine, and whether its record only waits for theirs. */
  place = 0;
  ready = 0;
  /** A member of a batch, and its place there. */
  inBatch = 0;
  batchIndex = 0;
  /** What events call its batch; how many members' records the event log keeps; of a member: whether its would be the first. */
  batchId = 0;
  keptMembers = 0;
  firstKept = 0;
  /** Batch: how many members, how many are done, how many failed, and the record of the member in progress. */
  count = 0;
  index = 0;
  failures = 0;
  /** With a schedule, the members between two fences: the first, how many, and the order as a stride and an offset among them. */
  first = 0;
  members = 0;
  stride = 1;
  shift = 0;
  child: Op | undefined;

  constructor(id: number, extraWords = 0) {
    this.id = id;
    this.extra = extraWords > 0 ? new Uint32Array(extraWords) : none;
  }

  /** Back to the beginning of a descriptor that stands in `descriptor`. */
  begin(): void {
    const d = this.descriptor;
    this.opcode = d[1]! >>> 24;
    this.flags = d[1]! & 0xff_ffff;
    this.sourceLow = d[4]! | 0;
    this.sourceHigh = d[5]! | 0;
    this.destinationLow = d[6]! | 0;
    this.destinationHigh = d[7]! | 0;
    this.remaining = d[8]!;
    this.completed = this.value = this.phase = this.result = this.status = this.ns = this.moved = this.busNs = 0;
    this.tagged = 0;
    this.faultHigh = this.faultLow = this.faultInformation = 0;
    this.count = this.index = this.failures = this.first = this.members = this.keptMembers = 0;
    this.streaming = this.ready = 0;
    if (this.extra.length > 0) this.extra.fill(0);
    this.active = 1;
  }

  advanceSource(bytes: number): void {
    const low = (this.sourceLow >>> 0) + bytes;
    if (low > 0xffff_ffff) this.sourceHigh = (this.sourceHigh + 1) | 0;
    this.sourceLow = low | 0;
  }
  advanceDestination(bytes: number): void {
    const low = (this.destinationLow >>> 0) + bytes;
    if (low > 0xffff_ffff) this.destinationHigh = (this.destinationHigh + 1) | 0;
    this.destinationLow = low | 0;
  }
  advance(bytes: number): void {
    this.remaining -= bytes;
    this.completed += bytes;
  }
  /** The completion record. The status byte last: a poller that sees it sees the rest. */
  putRecord(words: Uint32Array, at: number): void {
    words[at + 1] = this.completed;
    words[at + 2] = this.faultLow;
    words[at + 3] = this.faultHigh;
    words[at + 4] = this.value;
    words[at + 5] = words[at + 6] = words[at + 7] = 0;
    if (this.tagged) words.set(this.tags, at + 5);
    if (this.extra.length > 0) {
      words.set(this.extra, at + 6);
      words.fill(0, at + 6 + this.extra.length, at + 16);
    }
    words[at] = this.status | (this.result << 8) | (this.faultInformation << 16);
  }
  end(status: number): number {
    this.status = status;
    return Step.done;
  }
}

/** What operations work with: the upstream port and the extents that are reused for every request. */
export interface Io {
  upstream: Upstream;
  readonly crc32c: NonNullable<Native['crc32c']>;
  readonly equal: Native['equal'];
  /** Records say which operand a fault is about. */
  readonly faultInformation: boolean;
  readonly a: Extent;
  readonly b: Extent;
  readonly c: Extent;
  /** The engine's, for batches' lists. */
  readonly list: Extent;
  /** For operations on small structures: windows by the three extents. */
  readonly source: Window;
  readonly target: Window;
  readonly other: Window;
  bytesRead: number;
  bytesWritten: number;
  pageRequests: number;
}

export const extent = (): Extent => ({ view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 });

/**
 * A request got another answer than success. Not present: with block-on-fault a page request goes out and the operation waits; without,
 * it ends with a partial completion that software resumes (DSA specification, "Page Faults"). Anything else is a translation error. `operand`:
 * which of the descriptor's addresses, from 1; by default reads are of the first, and writes of the second.
 */
export function blocked(io: Io, op: Op, answer: number, write: number, high: number, low: number, operand = write ? 2 : 1): number {
  if (answer === TlpStatus.waiting) return Step.waiting;
  op.faultHigh = high;
  op.faultLow = low;
  if (io.faultInformation) op.faultInformation = operand << FAULT_OPERAND;
  op.faultWrite = write ? WRITE_FAULT : 0;
  if (answer !== TlpStatus.notPresent) return op.end(Status.translationError | op.faultWrite);
  if (!(op.flags & Flag.blockOnFault)) return op.end(Status.pageFault | op.faultWrite);
  io.pageRequests++;
  if (io.upstream.pageRequest(op.pasid, high, low, op.access | write, op.id) === 0) return Step.waiting;
  return op.end(Status.pageRequestInvalid | op.faultWrite);
}
