/**
 * What the operations do. DSA specification, "Descriptor and Operation Details". One row an operation: the flags that are legal, what it
 * reads and writes (for the time it takes), its own rules, and the step. The loop that runs them is the engine's.
 */
import { crc32c, reverse32 } from './crc.js';
import { blocked, type Io, type Op, Step } from './op.js';
import type { Extent } from './ports.js';
import { CrcDescriptor, DualcastDescriptor, Flag, Opcode, Status } from './spec/descriptor.js';

/** Which data rate of the cost table an operation streams at. */
export type Stream = 'none' | 'move' | 'fill' | 'pattern' | 'crc' | 'compare';

export interface Operation {
  readonly name: string;
  readonly flags: number;
  readonly reads: number;
  readonly writes: number;
  readonly stream: Stream;
  /** Has a transfer size that must be 1 to the queue's maximum. */
  readonly sized: boolean;
  /** A status other than 0 refuses the descriptor. */
  check?(op: Op, overlapping: boolean): number;
  step(io: Io, op: Op): number;
}

const ALWAYS = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt | Flag.recordTrafficClass | Flag.recordSteeringTag;
const F = Flag;
const move =
  F.fence | F.blockOnFault | F.cacheControl | F.trafficClass1 | F.trafficClass2 | F.strictOrdering | F.destinationReadback | F.destinationSteeringTag;
const fillFlags = move & ~F.trafficClass1;
const compareFlags = F.fence | F.blockOnFault | F.checkResult | F.trafficClass1 | F.trafficClass2;
const crcFlags = F.crcSeedInMemory | F.crcBypassInversion | F.crcBypassReflection;

const acquireSource = (io: Io, op: Op, max: number, out: Extent): number => {
  const answer = io.upstream.acquire(op.access, op.pasid, op.sourceHigh, op.sourceLow, max, out);
  op.ns += out.ns;
  return answer;
};
const acquireDestination = (io: Io, op: Op, max: number, out: Extent): number => {
  const answer = io.upstream.acquire(op.access | 1, op.pasid, op.destinationHigh, op.destinationLow, max, out);
  op.ns += out.ns;
  return answer;
};

/** Copies between two extents; within one memory no view is made. */
function copy(from: Extent, to: Extent, bytes: number): void {
  if (from.view === to.view) to.view.copyWithin(to.offset, from.offset, from.offset + bytes);
  else to.view.set(from.view.subarray(from.offset, from.offset + bytes), to.offset);
}

/** The distance from one address to another when it is 0 to 2^32 - 1, else -1. */
function distance(fromHigh: number, fromLow: number, toHigh: number, toLow: number): number {
  const low = (toLow >>> 0) - (fromLow >>> 0);
  const high = ((toHigh - fromHigh) | 0) - (low < 0 ? 1 : 0);
  return high === 0 ? (low < 0 ? low + 0x1_0000_0000 : low) : -1;
}
const overlaps = (aHigh: number, aLow: number, bHigh: number, bLow: number, bytes: number): boolean => {
  const forward = distance(aHigh, aLow, bHigh, bLow);
  const backward = distance(bHigh, bLow, aHigh, aLow);
  return (forward >= 0 && forward < bytes) || (backward >= 0 && backward < bytes);
};

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

/** Index of the first difference between two extents, or `bytes`. */
function firstDifference(a: Extent, b: Extent, bytes: number): number {
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
    // The destination field is the second source here: a read.
    const two = io.upstream.acquire(op.access, op.pasid, op.destinationHigh, op.destinationLow, io.a.length, io.b);
    op.ns += io.b.ns;
    if (two !== 0) return blocked(io, op, two, 0, op.destinationHigh, op.destinationLow);
    const bytes = io.b.length;
    const same = firstDifference(io.a, io.b, bytes);
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
    const { view, offset, length } = io.a;
    let i = 0;
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
  op.end(op.flags & F.checkResult && op.result !== (op.descriptor[10]! & 0xff) ? Status.successFalsePredicate : Status.success);

/** CRC alone (`destination` false) or with a copy. The register is kept reflected and inverted; `phase` 1: the seed is in it. */
function stepCrc(io: Io, op: Op, destination: boolean): number {
  const bypass = (op.flags & F.crcBypassInversion) !== 0;
  if (op.phase === 0) {
    let seed = op.descriptor[10]!;
    if (op.flags & F.crcSeedInMemory) {
      const high = CrcDescriptor.get.seedHigh(op.descriptor, 0) | 0;
      const low = CrcDescriptor.get.seedLow(op.descriptor, 0) | 0;
      const answer = io.upstream.acquire(op.access, op.pasid, high, low, 4, io.c);
      op.ns += io.c.ns;
      if (answer !== 0) return blocked(io, op, answer, 0, high, low);
      const { view, offset } = io.c;
      seed = view[offset]! | (view[offset + 1]! << 8) | (view[offset + 2]! << 16) | (view[offset + 3]! << 24);
    }
    // The register runs reflected: a seed that bypasses inversion and reflection is turned round once.
    op.value = bypass ? reverse32(seed) : ~seed;
    op.phase = 1;
  }
  const reflect = (op.flags & F.crcBypassReflection) === 0;
  while (op.remaining > 0) {
    const read = acquireSource(io, op, op.remaining, io.a);
    if (read !== 0) return crcSoFar(op, blocked(io, op, read, 0, op.sourceHigh, op.sourceLow));
    let bytes = io.a.length;
    if (destination) {
      const write = acquireDestination(io, op, bytes, io.b);
      if (write !== 0) return crcSoFar(op, blocked(io, op, write, 1, op.destinationHigh, op.destinationLow));
      bytes = io.b.length;
      copy(io.a, io.b, bytes);
      io.upstream.commit(io.b);
      op.advanceDestination(bytes);
      io.bytesWritten += bytes;
    }
    const from = destination ? io.b : io.a;
    op.value = reflect ? crc32c(op.value, from.view, from.words, from.offset, bytes) : crcBytesReversed(op.value, from, bytes);
    op.advanceSource(bytes);
    op.advance(bytes);
    op.moved += bytes;
    io.bytesRead += bytes;
  }
  return crcSoFar(op, op.end(Status.success));
}
/** When the operation ends, whole or in part, the record has a CRC that can seed the rest. */
function crcSoFar(op: Op, step: number): number {
  if (step === Step.done) op.value = op.flags & F.crcBypassInversion ? reverse32(op.value) : ~op.value;
  return step;
}
const one = new Uint8Array(4);
const oneWord = new Uint32Array(one.buffer);
/** Without data reflection each byte enters with its bits in reverse. */
function crcBytesReversed(crc: number, from: Extent, bytes: number): number {
  let c = crc;
  for (let i = 0; i < bytes; i++) {
    one[0] = reverse32(from.view[from.offset + i]!) >>> 24;
    c = crc32c(c, one, oneWord, 0, 1);
  }
  return c;
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
    if (second !== 0) return blocked(io, op, second, 1, high, low | 0);
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

const noOverlap = (op: Op): number =>
  overlaps(op.sourceHigh, op.sourceLow, op.destinationHigh, op.destinationLow, op.remaining) ? Status.overlap : 0;

export const operations: Readonly<Record<number, Operation>> = {
  [Opcode.nop]: { name: 'nop', flags: F.fence, reads: 0, writes: 0, stream: 'none', sized: false, step: done },
  [Opcode.batch]: { name: 'batch', flags: F.trafficClass1, reads: 1, writes: 0, stream: 'none', sized: false, step: byEngine },
  [Opcode.drain]: { name: 'drain', flags: F.trafficClass1 | F.trafficClass2, reads: 0, writes: 0, stream: 'none', sized: false, step: byEngine },
  [Opcode.memmove]: {
    name: 'memmove',
    flags: move,
    reads: 1,
    writes: 1,
    stream: 'move',
    sized: true,
    step: stepMove,
    check: (op, overlapping) => (overlapping ? 0 : noOverlap(op)),
  },
  [Opcode.fill]: { name: 'fill', flags: fillFlags, reads: 0, writes: 1, stream: 'fill', sized: true, step: stepFill },
  [Opcode.compare]: { name: 'compare', flags: compareFlags, reads: 2, writes: 0, stream: 'compare', sized: true, step: stepCompare },
  [Opcode.comparePattern]: {
    name: 'compare-pattern',
    flags: compareFlags & ~F.trafficClass2,
    reads: 1,
    writes: 0,
    stream: 'pattern',
    sized: true,
    step: stepComparePattern,
  },
  [Opcode.dualcast]: {
    name: 'dualcast',
    flags: move | F.trafficClass3,
    reads: 1,
    writes: 2,
    stream: 'move',
    sized: true,
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
  [Opcode.crc]: {
    name: 'crc',
    flags: F.fence | F.blockOnFault | F.trafficClass1 | F.trafficClass3 | crcFlags,
    reads: 1,
    writes: 0,
    stream: 'crc',
    sized: true,
    step: (io, op) => stepCrc(io, op, false),
  },
  [Opcode.copyCrc]: {
    name: 'copy-crc',
    flags: move | F.trafficClass3 | crcFlags,
    reads: 1,
    writes: 1,
    stream: 'crc',
    sized: true,
    check: noOverlap,
    step: (io, op) => stepCrc(io, op, true),
  },
  [Opcode.cacheFlush]: { name: 'cache-flush', flags: fillFlags, reads: 0, writes: 1, stream: 'none', sized: true, step: stepFlush },
};

/** Flags that every operation may have. */
export const alwaysLegal = ALWAYS;
