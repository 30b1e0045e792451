/** How long things take in the model, in nanoseconds of virtual time. Data never depends on it. All zero: everything happens at once. */

export interface DeviceCosts {
  /** From the store that reaches the portal to the arbiter. */
  readonly portalArrival: number;
  /** Arbiter, decoding and operand check of one descriptor. */
  readonly dispatch: number;
  /** First DMA read of an operation, and what a second operand adds. */
  readonly read: number;
  readonly secondRead: number;
  readonly write: number;
  readonly recordWrite: number;
  /** Of operations that read and write: what pages 2 to 4 add each, and what each doubling of their number adds from there. */
  readonly pageStall: number;
  readonly pageStallGrowth: number;
  /** How long a descriptor keeps its engine from the next one. */
  readonly occupancy: number;
  /** What each byte adds to that. */
  readonly occupancyPerByte: number;
  /** What a destination adds whose first or last line is written in part: in halves of 32 bytes, or in smaller pieces. On the engine, and seen by one that waits. */
  readonly partialHalf: number;
  readonly partialLine: number;
  readonly partialLatency: number;
  /** Reading a batch's list: the first piece, and what each descriptor takes of the data path. */
  readonly batchFetch: number;
  readonly batchNext: number;
  /** Nanoseconds per byte of the whole device, shared by its engines, by operation. */
  readonly streamMove: number;
  readonly streamFill: number;
  readonly streamPattern: number;
  readonly streamCrc: number;
  readonly streamCompare: number;
  /** Of the analytics accelerator: per byte of source 1; default: as the CRC. */
  readonly streamCompress?: number;
  readonly streamDecompress?: number;
  readonly streamFilter?: number;
  /** An administrative command. */
  readonly command: number;
}

export const noCosts: DeviceCosts = {
  portalArrival: 0,
  dispatch: 0,
  read: 0,
  secondRead: 0,
  write: 0,
  recordWrite: 0,
  pageStall: 0,
  pageStallGrowth: 0,
  occupancy: 0,
  occupancyPerByte: 0,
  partialHalf: 0,
  partialLine: 0,
  partialLatency: 0,
  batchFetch: 0,
  batchNext: 0,
  streamMove: 0,
  streamFill: 0,
  streamPattern: 0,
  streamCrc: 0,
  streamCompare: 0,
  command: 0,
};
