/** NOP, batch, drain and cache flush: no data passes. DSA specification, "No-op", "Batch", "Drain", "Cache Flush". */
import { blocked, type Io, type Op, Step } from '../op.js';
import { Flag, Opcode, Status } from '../spec/descriptor.js';
import { acquireDestination, type Operations, writeFlags } from './operation.js';

/** The model has no CPU cache: a flush proves that the region is reachable, and that is what software can see of it. */
function stepFlush(io: Io, op: Op): number {
  while (op.remaining > 0) {
    const write = acquireDestination(io, op, op.remaining, io.b);
    if (write !== 0) return blocked(io, op, write, 1, op.destinationHigh, op.destinationLow);
    op.advanceDestination(io.b.length);
    op.advance(io.b.length);
  }
  return op.end(Status.success);
}

const done = (_io: Io, op: Op): number => op.end(Status.success);
/** The engine runs these two itself: they are about other descriptors. */
const byEngine = (): number => Step.done;

export const controls: Operations = {
  [Opcode.nop]: { name: 'nop', flags: Flag.fence, reads: 0, writes: 0, stream: 'none', sized: false, step: done },
  [Opcode.batch]: { name: 'batch', flags: Flag.trafficClass1, reads: 1, writes: 0, stream: 'none', sized: false, step: byEngine },
  [Opcode.drain]: {
    name: 'drain',
    flags: Flag.trafficClass1 | Flag.trafficClass2,
    reads: 0,
    writes: 0,
    stream: 'none',
    sized: false,
    step: byEngine,
  },
  [Opcode.cacheFlush]: { name: 'cache-flush', flags: writeFlags, reads: 0, writes: 1, stream: 'none', sized: true, step: stepFlush },
};
