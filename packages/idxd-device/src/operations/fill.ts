/** Fill with a pattern. DSA specification, "Fill". */
import { blocked, type Io, type Op } from '../op.js';
import { Opcode, Status } from '../spec/descriptor.js';
import { acquireDestination, type Operations, writeFlags } from './operation.js';

function stepFill(io: Io, op: Op): number {
  const low = op.descriptor[4]!;
  const high = op.descriptor[5]!;
  const byte = low & 0xff;
  const uniform = low === high && low === (byte * 0x0101_0101) >>> 0;
  while (op.remaining > 0) {
    const write = acquireDestination(io, op, op.remaining, io.b);
    if (write !== 0) return blocked(io, op, write, 1, op.destinationHigh, op.destinationLow);
    const { view, offset, length } = io.b;
    if (uniform) view.fill(byte, offset, offset + length);
    else {
      // The pattern restarts at the destination's first byte, so a later piece may begin inside it. One pattern by hand, then doubled.
      const first = Math.min(8, length);
      for (let i = 0; i < first; i++) {
        const at = (op.completed + i) & 7;
        view[offset + i] = (at < 4 ? low >>> (8 * at) : high >>> (8 * at - 32)) & 0xff;
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

export const fills: Operations = {
  [Opcode.fill]: {
    name: 'fill',
    flags: writeFlags,
    reads: 0,
    writes: 1,
    stream: 'fill',
    sized: true,
    check: (op) => (op.descriptor[10] || op.descriptor[11] ? Status.nonZeroReserved : 0),
    step: stepFill,
  },
};
