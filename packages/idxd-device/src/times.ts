/** How long operations take, from the table of costs: apart from what they do, and never asked by it. */
import type { DeviceCosts } from './costs.js';
import type { Op } from './op.js';
import type { Operation, Operations, Stream } from './operations/index.js';

/** Cache lines, and the halves in which a memory write may be masked at lower cost. */
const LINE = 64;
const HALF_LINE = 32;

/** By operation code: rows of a table are too many shapes for the hot path. Nanoseconds. */
export class Times {
  /** A byte on the data path. */
  readonly rate = new Float64Array(256);
  /** First reads, and posted writes. */
  readonly reading = new Float64Array(256);
  readonly writing = new Float64Array(256);
  /** 1: writes as many bytes at the destination, whose ends may lie inside a cache line. */
  readonly fills = new Uint8Array(256);
  readonly #stalls = new Uint8Array(256);
  readonly #costs: DeviceCosts;
  /** The stall of so many pages, worked out last: descriptors of a program are often alike. */
  #stalledPages = 0;
  readonly #stall = new Float64Array(1);

  constructor(costs: DeviceCosts, operations: Operations) {
    this.#costs = costs;
    const rates: { readonly [S in Stream]: number } = {
      none: 0,
      move: costs.streamMove,
      fill: costs.streamFill,
      pattern: costs.streamPattern,
      crc: costs.streamCrc,
      compare: costs.streamCompare,
      compress: costs.streamCompress ?? costs.streamCrc,
      decompress: costs.streamDecompress ?? costs.streamCrc,
      filter: costs.streamFilter ?? costs.streamCrc,
    };
    for (const [code, row] of Object.entries(operations) as unknown as [number, Operation][]) {
      this.rate[code] = rates[row.stream];
      this.reading[code] = (row.reads > 0 ? costs.read : 0) + (row.reads > 1 ? costs.secondRead : 0);
      this.writing[code] = row.writes > 0 ? costs.write : 0;
      this.#stalls[code] = row.reads > 0 && row.writes > 0 ? 1 : 0;
      this.fills[code] = row.fillsDestination ? 1 : 0;
    }
  }

  /**
   * What of the time of translations is seen: the first page of each operand in full; the later ones overlap with the data. In operations that
   * both read and write there is a stall besides that grows slowly with their number; fitted to published latencies from 4 KiB to 1 MiB, in
   * which operations that only read or only write show none.
   */
  exposed(ns: number, bytes: number, opcode: number): number {
    if (bytes <= 4096) return ns;
    const pages = Math.ceil(bytes / 4096);
    if (!this.#stalls[opcode]) return ns / pages;
    if (pages !== this.#stalledPages) {
      const { pageStall, pageStallGrowth } = this.#costs;
      this.#stalledPages = pages;
      this.#stall[0] = pageStall * (Math.min(pages, 4) - 1) + (pages > 4 ? pageStallGrowth * Math.log2(pages / 4) : 0);
    }
    return Math.min(ns, ns / pages + this.#stall[0]!);
  }
  /** What a destination costs whose first or last line is written in part. */
  partial(op: Op): number {
    const ends = op.descriptor[6]! | (op.descriptor[6]! + op.descriptor[8]!);
    if ((ends & (LINE - 1)) === 0) return 0;
    return (ends & (HALF_LINE - 1)) === 0 ? this.#costs.partialHalf : this.#costs.partialLine;
  }
}
