/**
 * Delta records: an ascending list of ten-byte entries, where source 2 differs from source 1 (in units of eight bytes) and what it has there.
 * DSA specification, "Create Delta Record" and "Apply Delta Record".
 *
 * After a partial completion software continues a creation at both sources plus the bytes completed, into a new record (record addresses
 * are aligned to eight bytes) whose offsets count from there; it is applied to the destination plus the same bytes. An application is
 * continued at the record plus the bytes completed, or repeated: writing twice is harmless.
 */
import { blocked, type Io, type Op } from '../op.js';
import { ApplyDeltaDescriptor, CreateDeltaDescriptor, DELTA_ENTRY_BYTES, Flag, Opcode, Status } from '../spec/descriptor.js';
import { acquireSource, acquireSource2, moveFlags, type Operations, overlapping } from './operation.js';

const create = CreateDeltaDescriptor.get;
const apply = ApplyDeltaDescriptor.get;
/** An offset has 16 bits and counts eight bytes. */
const MAX_BYTES = 0x8_0000;
/**
 * "No less than the deltas of one cache line." unconfirmed: whether the largest record of a creation must be whole entries as well. Intel's own
 * programs for the device (dsa_test, twice the size; dsa_perf_micros, any from 80 on) ask for others, so it need not; DML's library refuses those
 * before the device sees them. What does not hold one more entry is an overflow.
 */
const MIN_RECORD_BYTES = 80;
const Result = { same: 0, record: 1, overflow: 2 } as const;
/** Applied entries are reported in steps whose end is aligned again, so that the record plus the bytes completed is a legal address. */
const ALIGNED_ENTRIES_BYTES = 40;

function checkCreate(op: Op): number {
  const d = op.descriptor;
  const low = create.deltaLow(d, 0) | 0;
  const high = create.deltaHigh(d, 0) | 0;
  const max = create.maxDeltaSize(d, 0);
  if (op.remaining & 7 || op.remaining > MAX_BYTES) return Status.transferSize;
  if (max < MIN_RECORD_BYTES) return Status.deltaRecordSize;
  if ((op.sourceLow | op.destinationLow | low) & 7) return Status.alignment;
  const crossed =
    overlapping(op.sourceHigh, op.sourceLow, op.remaining, high, low, max) ||
    overlapping(op.destinationHigh, op.destinationLow, op.remaining, high, low, max);
  return crossed ? Status.overlap : 0;
}

function stepCreate(io: Io, op: Op): number {
  const d = op.descriptor;
  const max = create.maxDeltaSize(d, 0);
  const record = io.other;
  record.open(create.deltaHigh(d, 0) | 0, create.deltaLow(d, 0) | 0);
  while (op.remaining > 0) {
    const one = acquireSource(io, op, op.remaining, io.a);
    if (one !== 0) return blocked(io, op, one, 0, op.sourceHigh, op.sourceLow);
    const two = acquireSource2(io, op, io.a.length, io.b);
    if (two !== 0) return blocked(io, op, two, 0, op.destinationHigh, op.destinationLow, 2);
    const bytes = io.b.length;
    const a = io.a.words;
    const b = io.b.words;
    const x = io.a.offset >>> 2;
    const y = io.b.offset >>> 2;
    let at = 0;
    let answer = 0;
    for (; at < bytes; at += 8) {
      const w = at >>> 2;
      const low = b[y + w]!;
      const high = b[y + w + 1]!;
      if (a[x + w] === low && a[x + w + 1] === high) continue;
      if (op.value + DELTA_ENTRY_BYTES > max) {
        op.result = Result.overflow;
        break;
      }
      answer = record.write(io, op, op.value, DELTA_ENTRY_BYTES, max - op.value);
      if (answer === 0) {
        put(record.view, record.at, (op.completed + at) >>> 3, low, high);
        answer = record.commit(io, op);
      }
      if (answer !== 0) break;
      op.value += DELTA_ENTRY_BYTES;
      op.result = Result.record;
      io.bytesWritten += DELTA_ENTRY_BYTES;
    }
    op.advanceSource(at);
    op.advanceDestination(at);
    op.advance(at);
    op.moved += at;
    io.bytesRead += 2 * at;
    if (answer !== 0) return blocked(io, op, answer, 1, record.faultHigh, record.faultLow, 3);
    if (op.result === Result.overflow) break;
  }
  const expected = (create.expectedMask(d, 0) >>> op.result) & 1;
  return op.end(op.flags & Flag.checkResult && !expected ? Status.successFalsePredicate : Status.success);
}

function put(view: Uint8Array, at: number, offset: number, low: number, high: number): void {
  view[at] = offset;
  view[at + 1] = offset >>> 8;
  for (let i = 0; i < 4; i++) {
    view[at + 2 + i] = low >>> (8 * i);
    view[at + 6 + i] = high >>> (8 * i);
  }
}

/**
 * unconfirmed: an empty record is applied, and changes nothing. dsa_test asks for it where a creation stopped at its first entry, and DML's rule (whole
 * entries) lets it pass.
 */
function checkApply(op: Op): number {
  const bytes = apply.deltaSize(op.descriptor, 0);
  if (op.remaining & 7 || op.remaining > MAX_BYTES) return Status.transferSize;
  if (bytes % DELTA_ENTRY_BYTES !== 0) return Status.deltaRecordSize;
  if ((op.sourceLow | op.destinationLow) & 7) return Status.alignment;
  return overlapping(op.sourceHigh, op.sourceLow, bytes, op.destinationHigh, op.destinationLow, op.remaining) ? Status.overlap : 0;
}

/** `completed` counts bytes of the record; `phase` is one more than the last offset. */
function stepApply(io: Io, op: Op): number {
  const size = op.descriptor[8]!;
  const bytes = apply.deltaSize(op.descriptor, 0);
  const record = io.source;
  const target = io.target;
  record.open(op.sourceHigh, op.sourceLow);
  target.open(op.destinationHigh, op.destinationLow);
  while (op.completed < bytes) {
    const read = record.read(io, op, op.completed, DELTA_ENTRY_BYTES, bytes - op.completed);
    if (read !== 0) return alignedEnd(op, blocked(io, op, read, 0, record.faultHigh, record.faultLow));
    const { view, at } = record;
    const offset = view[at]! | (view[at + 1]! << 8);
    if (offset < op.phase) return op.end(Status.deltaOffsetOrder);
    if (offset * 8 >= size) return op.end(Status.deltaOffsetRange);
    // Only the pages that entries name are touched.
    const page = 4096 - ((op.destinationLow + offset * 8) & 4095);
    let write = target.write(io, op, offset * 8, 8, Math.min(page, size - offset * 8));
    if (write === 0) {
      for (let i = 0; i < 8; i++) target.view[target.at + i] = view[at + 2 + i]!;
      write = target.commit(io, op);
    }
    if (write !== 0) return alignedEnd(op, blocked(io, op, write, 1, target.faultHigh, target.faultLow));
    op.phase = offset + 1;
    op.completed += DELTA_ENTRY_BYTES;
    op.moved += DELTA_ENTRY_BYTES;
    io.bytesRead += DELTA_ENTRY_BYTES;
    io.bytesWritten += 8;
  }
  return op.end(Status.success);
}
function alignedEnd(op: Op, step: number): number {
  if (op.status !== 0) op.completed -= op.completed % ALIGNED_ENTRIES_BYTES;
  return step;
}

export const deltas: Operations = {
  [Opcode.createDelta]: {
    name: 'create-delta',
    flags: moveFlags | Flag.checkResult | Flag.trafficClass3,
    reads: 2,
    writes: 1,
    stream: 'compare',
    sized: true,
    check: checkCreate,
    step: stepCreate,
  },
  [Opcode.applyDelta]: {
    name: 'apply-delta',
    flags: moveFlags,
    reads: 1,
    writes: 1,
    stream: 'move',
    sized: true,
    check: checkApply,
    step: stepApply,
  },
};
