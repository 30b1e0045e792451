/** Memory move and dualcast. DSA specification, "Memory Move" and "Dualcast". */
import { blocked, type Io, type Op } from '../op.js';
import { DualcastDescriptor, Flag, Opcode, Status } from '../spec/descriptor.js';
import { acquireDestination, acquireSource, copy, distance, moveFlags, noOverlap, type Operations, overlaps } from './operation.js';

function stepMove(io: Io, op: Op): number {
  const gap = distance(op.sourceHigh, op.sourceLow, op.destinationHigh, op.destinationLow);
  // A destination inside the source is copied from its end: the record then says so in its result, and what completed is at the end.
  if (op.result || (gap > 0 && gap < op.remaining && op.completed === 0)) return stepMoveBackward(io, op);
  while (op.remaining > 0) {
    const read = acquireSource(io, op, op.remaining, io.a);
    if (read !== 0) return blocked(io, op, read, 0, op.sourceHigh, op.sourceLow);
    const write = acquireDestination(io, op, io.a.length, io.b);
    if (write !== 0) return blocked(io, op, write, 1, op.destinationHigh, op.destinationLow);
    const bytes = io.b.length;
    copy(io.a, io.b, bytes);
    io.upstream.commit(io.b);
    op.advanceSource(bytes);
    op.advanceDestination(bytes);
    op.advance(bytes);
    op.moved += bytes;
    io.bytesRead += bytes;
    io.bytesWritten += bytes;
  }
  return op.end(Status.success);
}

function stepMoveBackward(io: Io, op: Op): number {
  op.result = 1;
  while (op.remaining > 0) {
    // The last piece of what remains that crosses no page of either operand.
    const sourceEnd = (op.sourceLow >>> 0) + op.remaining;
    const destinationEnd = (op.destinationLow >>> 0) + op.remaining;
    const bytes = Math.min(op.remaining, ((sourceEnd - 1) % 4096) + 1, ((destinationEnd - 1) % 4096) + 1);
    const from = op.remaining - bytes;
    const { sourceHigh, sourceLow, destinationHigh, destinationLow } = op;
    op.advanceSource(from);
    op.advanceDestination(from);
    const read = acquireSource(io, op, bytes, io.a);
    const write = read === 0 ? acquireDestination(io, op, bytes, io.b) : 0;
    const high = read !== 0 ? op.sourceHigh : op.destinationHigh;
    const low = read !== 0 ? op.sourceLow : op.destinationLow;
    op.sourceHigh = sourceHigh;
    op.sourceLow = sourceLow;
    op.destinationHigh = destinationHigh;
    op.destinationLow = destinationLow;
    if (read !== 0) return blocked(io, op, read, 0, high, low);
    if (write !== 0) return blocked(io, op, write, 1, high, low);
    copy(io.a, io.b, bytes);
    io.upstream.commit(io.b);
    op.advance(bytes);
    op.moved += bytes;
    io.bytesRead += bytes;
    io.bytesWritten += bytes;
  }
  op.result = 0;
  return op.end(Status.success);
}

function stepDualcast(io: Io, op: Op): number {
  const low2 = DualcastDescriptor.get.destination2Low(op.descriptor, 0);
  const high2 = DualcastDescriptor.get.destination2High(op.descriptor, 0);
  while (op.remaining > 0) {
    const read = acquireSource(io, op, op.remaining, io.a);
    if (read !== 0) return blocked(io, op, read, 0, op.sourceHigh, op.sourceLow);
    const first = acquireDestination(io, op, io.a.length, io.b);
    if (first !== 0) return blocked(io, op, first, 1, op.destinationHigh, op.destinationLow);
    const low = low2 + op.completed;
    const high = (high2 + (low > 0xffff_ffff ? 1 : 0)) | 0;
    const second = io.upstream.acquire(op.access | 1, op.pasid, high, low | 0, io.b.length, io.c);
    op.ns += io.c.ns;
    if (second !== 0) return blocked(io, op, second, 1, high, low | 0, 3);
    const bytes = io.c.length;
    copy(io.a, io.b, bytes);
    copy(io.a, io.c, bytes);
    io.upstream.commit(io.b);
    io.upstream.commit(io.c);
    op.advanceSource(bytes);
    op.advanceDestination(bytes);
    op.advance(bytes);
    op.moved += bytes;
    io.bytesRead += bytes;
    io.bytesWritten += 2 * bytes;
  }
  return op.end(Status.success);
}

export const moves: Operations = {
  [Opcode.memmove]: {
    name: 'memmove',
    flags: moveFlags,
    reads: 1,
    writes: 1,
    stream: 'move',
    sized: true,
    fillsDestination: true,
    step: stepMove,
    check: (op, overlapping) => (overlapping ? 0 : noOverlap(op)),
  },
  [Opcode.dualcast]: {
    name: 'dualcast',
    flags: moveFlags | Flag.trafficClass3 | Flag.destination2SteeringTag,
    reads: 1,
    writes: 2,
    stream: 'move',
    sized: true,
    fillsDestination: true,
    step: stepDualcast,
    check: (op) => {
      const low2 = DualcastDescriptor.get.destination2Low(op.descriptor, 0) | 0;
      const high2 = DualcastDescriptor.get.destination2High(op.descriptor, 0) | 0;
      if ((low2 ^ op.destinationLow) & 0xfff) return Status.dualcastAlignment;
      const crossed =
        overlaps(op.sourceHigh, op.sourceLow, high2, low2, op.remaining) ||
        overlaps(op.destinationHigh, op.destinationLow, high2, low2, op.remaining);
      return crossed ? Status.overlap : noOverlap(op);
    },
  },
};
