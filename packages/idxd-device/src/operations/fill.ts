/** Fill with a pattern. DSA specification, "Fill". */
import { blocked, type Io, type Op } from '../op.js';
import { Opcode, Status } from '../spec/descriptor.js';
import { acquireDestination, type Operations, writeFlags } from './operation.js';

function stepFill(io: Io, op: Op): number {
  const low = op.descriptor[4]!;
  const high = op.descriptor[5]!;
  const upperLow = op.descriptor[10]!;
  const upperHigh = op.descriptor[11]!;
  const byte = low & 0xff;
  const pattern = isLong(op.flags) ? 16 : 8;
  const uniform = low === high && low === (byte * 0x0101_0101) >>> 0 && (pattern === 8 || (upperLow === low && upperHigh === low));
  while (op.remaining > 0) {
    const write = acquireDestination(io, op, op.remaining, io.b);
    if (write !== 0) return blocked(io, op, write, 1, op.destinationHigh, op.destinationLow);
    const { view, offset, length } = io.b;
    if (uniform) view.fill(byte, offset, offset + length);
    else {
      // The pattern restarts at the destination's first byte, so a later piece may begin inside it. One pattern by hand, then doubled.
      const first = Math.min(pattern, length);
      for (let i = 0; i < first; i++) {
        const at = (op.completed + i) & (pattern - 1);
        const word = at < 8 ? (at < 4 ? low : high) : at < 12 ? upperLow : upperHigh;
        view[offset + i] = word >>> (8 * (at & 3));
      }
      for (let done = first; done < length; ) {
        const more = Math.min(done, length - done);
        view.copyWithin(offset + done, offset, offset + more);
        done += more;
      }
    }
    io.upstream.commit(io.b);
    op.advanceDestination(length);
    op.advance(length);
    op.moved += length;
    io.bytesWritten += length;
  }
  return op.end(Status.success);
}

/** The only flag of its own that a fill may have, whichever bit it is (`Profile.longPatternFlag`); others were refused. */
const isLong = (flags: number): boolean => (flags & 0xff_0000) !== 0;
const check = (op: Op): number => (!isLong(op.flags) && (op.descriptor[10]! | op.descriptor[11]!) !== 0 ? Status.nonZeroReserved : 0);

export const fills: Operations = {
  [Opcode.fill]: {
    name: 'fill',
    flags: writeFlags,
    reads: 0,
    writes: 1,
    stream: 'fill',
    sized: true,
    fillsDestination: true,
    check,
    step: stepFill,
  },
};
