/** Compare two operands, or one with a pattern. DSA specification, "Compare" and "Compare Pattern". */
import { blocked, type Io, type Op } from '../op.js';
import type { Extent } from '../ports.js';
import { Flag, Opcode, Status } from '../spec/descriptor.js';
import { acquireSource, acquireSource2, type Operations } from './operation.js';

const compareFlags = Flag.fence | Flag.blockOnFault | Flag.checkResult | Flag.trafficClass1 | Flag.trafficClass2;

/** Below, a call into native code costs more than it saves. */
const NATIVE_BYTES = 512;

/** Index of the first difference between two extents, or `bytes`. */
function firstDifference(io: Io, a: Extent, b: Extent, bytes: number): number {
  if (io.equal && bytes >= NATIVE_BYTES && io.equal(a.view, a.offset, b.view, b.offset, bytes)) return bytes;
  let i = 0;
  if (((a.offset | b.offset) & 3) === 0) {
    const aw = a.words;
    const bw = b.words;
    let x = a.offset >>> 2;
    let y = b.offset >>> 2;
    for (const end = x + (bytes >>> 2); x < end && aw[x] === bw[y]; x++) y++;
    i = (x - (a.offset >>> 2)) * 4;
  }
  while (i < bytes && a.view[a.offset + i] === b.view[b.offset + i]) i++;
  return i;
}

function stepCompare(io: Io, op: Op): number {
  while (op.remaining > 0) {
    const one = acquireSource(io, op, op.remaining, io.a);
    if (one !== 0) return blocked(io, op, one, 0, op.sourceHigh, op.sourceLow);
    const two = acquireSource2(io, op, io.a.length, io.b);
    if (two !== 0) return blocked(io, op, two, 0, op.destinationHigh, op.destinationLow, 2);
    const bytes = io.b.length;
    const same = firstDifference(io, io.a, io.b, bytes);
    op.advance(same);
    op.moved += same;
    io.bytesRead += 2 * same;
    if (same < bytes) {
      op.result = 1;
      break;
    }
    op.advanceSource(bytes);
    op.advanceDestination(bytes);
  }
  return predicate(op);
}

function stepComparePattern(io: Io, op: Op): number {
  const low = op.descriptor[6]!;
  const high = op.descriptor[7]!;
  while (op.remaining > 0) {
    const read = acquireSource(io, op, op.remaining, io.a);
    if (read !== 0) return blocked(io, op, read, 0, op.sourceHigh, op.sourceLow);
    const { view, words, offset, length } = io.a;
    let i = 0;
    if (((offset | op.completed) & 7) === 0) {
      let w = offset >>> 2;
      for (const end = w + ((length >>> 3) << 1); w < end && words[w] === low && words[w + 1] === high; w += 2);
      i = w * 4 - offset;
    }
    for (; i < length; i++) {
      const at = (op.completed + i) & 7;
      if (view[offset + i] !== ((at < 4 ? low >>> (8 * at) : high >>> (8 * at - 32)) & 0xff)) break;
    }
    op.advance(i);
    op.moved += i;
    io.bytesRead += i;
    if (i < length) {
      op.result = 1;
      break;
    }
    op.advanceSource(length);
  }
  return predicate(op);
}

/** Check Result: success with a false predicate when the result is not the expected one. */
const predicate = (op: Op): number =>
  op.end(op.flags & Flag.checkResult && op.result !== (op.descriptor[10]! & 0xff) ? Status.successFalsePredicate : Status.success);

export const compares: Operations = {
  [Opcode.compare]: { name: 'compare', flags: compareFlags, reads: 2, writes: 0, stream: 'compare', sized: true, step: stepCompare },
  [Opcode.comparePattern]: {
    name: 'compare-pattern',
    flags: compareFlags & ~Flag.trafficClass2,
    reads: 1,
    writes: 0,
    stream: 'pattern',
    sized: true,
    step: stepComparePattern,
  },
};
