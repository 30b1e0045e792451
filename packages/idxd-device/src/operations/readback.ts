/**
 * Reading back: the answer proves that earlier writes arrived. DSA specification, "Destination Readback" and "Drain". Writes of this model
 * arrive at once, so what software sees is that the address can be read, or status 0x1f. unconfirmed: which byte of a destination is read.
 */
import { TlpStatus } from '@siov/layout/pcie';
import { type Io, type Op, Step } from '../op.js';
import { Flag, Opcode, Status } from '../spec/descriptor.js';

function readback(io: Io, op: Op, high: number, low: number): boolean {
  const answer = io.upstream.acquire(op.access, op.pasid, high, low, 1, io.c);
  op.ns += io.c.ns;
  // Memory that answers later takes requests in order: what tells of the end arrives after what was written before.
  if (answer === 0 || answer === TlpStatus.waiting) return true;
  op.faultHigh = high;
  op.faultLow = low;
  op.faultWrite = 0;
  op.end(Status.readbackFault);
  return false;
}
const at = (io: Io, op: Op, word: number): boolean => readback(io, op, op.descriptor[word + 1]! | 0, op.descriptor[word]! | 0);

/** After an operation that succeeded: what it wrote. */
export function readbackDestination(io: Io, op: Op): number {
  if (op.opcode === Opcode.createDelta) {
    if (op.value > 0) at(io, op, 10);
  } else if (at(io, op, 6) && op.opcode === Opcode.dualcast) at(io, op, 10);
  return Step.done;
}

/** A drain's own addresses. */
export function readbackDrain(io: Io, op: Op): number {
  op.end(Status.success);
  if (op.flags & Flag.drainReadback1 && !at(io, op, 4)) return Step.done;
  if (op.flags & Flag.drainReadback2) at(io, op, 6);
  return Step.done;
}
