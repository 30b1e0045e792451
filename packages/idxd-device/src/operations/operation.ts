/** What an operation is to the engine, and what several operations share: legal flags, operands, copying, overlap. */
import type { Io, Op } from '../op.js';
import type { Extent } from '../ports.js';
import { Flag, Opcode, Status } from '../spec/descriptor.js';

/** Which data rate of the cost table an operation streams at. */
export type Stream = 'none' | 'move' | 'fill' | 'pattern' | 'crc' | 'compare' | 'compress' | 'decompress' | 'filter';

export interface Operation {
  readonly name: string;
  readonly flags: number;
  readonly reads: number;
  readonly writes: number;
  readonly stream: Stream;
  /** Has a transfer size that must be 1 to the queue's maximum. */
  readonly sized: boolean;
  /** Writes as many bytes at the destination: where these begin or end inside a cache line, that costs. */
  readonly fillsDestination?: boolean;
  /** A status other than 0 refuses the descriptor. `most`: the queue's largest transfer. */
  check?(op: Op, overlapping: boolean, most: number): number;
  step(io: Io, op: Op): number;
}
export type Operations = Readonly<Record<number, Operation>>;

const F = Flag;
/** Flags that every operation may have. */
const alwaysLegal = F.recordAddressValid | F.requestRecord | F.requestInterrupt | F.recordTrafficClass | F.recordSteeringTag;
/** Flags of what reads one operand and writes one. */
export const moveFlags =
  F.fence | F.blockOnFault | F.cacheControl | F.trafficClass1 | F.trafficClass2 | F.strictOrdering | F.destinationReadback | F.destinationSteeringTag;
/** Flags of what only writes. */
export const writeFlags = moveFlags & ~F.trafficClass1;

/** What a profile says about flags. */
export interface Capabilities {
  readonly cacheControlMemory?: boolean;
  readonly cacheControlFlush?: boolean;
  readonly destinationReadback?: boolean;
  readonly drainReadback?: boolean;
  readonly longPatternFlag?: number;
}
/** Flags that an operation may have on a device with these capabilities. */
export function legalFlags(code: number, row: Operation, has: Capabilities): number {
  let flags = row.flags | alwaysLegal;
  if ((code === Opcode.cacheFlush ? has.cacheControlFlush : has.cacheControlMemory) === false) flags &= ~F.cacheControl;
  if (has.destinationReadback === false) flags &= ~F.destinationReadback;
  if (code === Opcode.drain && has.drainReadback) flags |= F.drainReadback1 | F.drainReadback2 | F.drainSuppressA | F.drainSuppressB;
  if (code === Opcode.fill) flags |= has.longPatternFlag ?? 0;
  return flags;
}

export const acquireSource = (io: Io, op: Op, max: number, out: Extent): number => {
  const answer = io.upstream.acquire(op.access, op.pasid, op.sourceHigh, op.sourceLow, max, out);
  op.ns += out.ns;
  return answer;
};
/** Where the destination field is a second source. */
export const acquireSource2 = (io: Io, op: Op, max: number, out: Extent): number => {
  const answer = io.upstream.acquire(op.access, op.pasid, op.destinationHigh, op.destinationLow, max, out);
  op.ns += out.ns;
  return answer;
};
export const acquireDestination = (io: Io, op: Op, max: number, out: Extent): number => {
  const answer = io.upstream.acquire(op.access | 1, op.pasid, op.destinationHigh, op.destinationLow, max, out);
  op.ns += out.ns;
  return answer;
};

/** Copies between two extents; within one memory no view is made. */
export function copy(from: Extent, to: Extent, bytes: number): void {
  if (from.view === to.view) to.view.copyWithin(to.offset, from.offset, from.offset + bytes);
  else to.view.set(from.view.subarray(from.offset, from.offset + bytes), to.offset);
}

/** The distance from one address to another when it is 0 to 2^32 - 1, else -1. */
export function distance(fromHigh: number, fromLow: number, toHigh: number, toLow: number): number {
  const low = (toLow >>> 0) - (fromLow >>> 0);
  const high = ((toHigh - fromHigh) | 0) - (low < 0 ? 1 : 0);
  return high === 0 ? (low < 0 ? low + 0x1_0000_0000 : low) : -1;
}
export const overlaps = (aHigh: number, aLow: number, bHigh: number, bLow: number, bytes: number): boolean => {
  const forward = distance(aHigh, aLow, bHigh, bLow);
  const backward = distance(bHigh, bLow, aHigh, aLow);
  return (forward >= 0 && forward < bytes) || (backward >= 0 && backward < bytes);
};

/** The same for two ranges of their own lengths. */
export const overlapping = (aHigh: number, aLow: number, aBytes: number, bHigh: number, bLow: number, bBytes: number): boolean => {
  const forward = distance(aHigh, aLow, bHigh, bLow);
  const backward = distance(bHigh, bLow, aHigh, aLow);
  return (forward >= 0 && forward < aBytes) || (backward >= 0 && backward < bBytes);
};
export const noOverlap = (op: Op): number =>
  overlaps(op.sourceHigh, op.sourceLow, op.destinationHigh, op.destinationLow, op.remaining) ? Status.overlap : 0;
