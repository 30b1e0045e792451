/**
 * The first-stage paging-structure cache: for 2 MiB of addresses, the last-level table that their walk comes to (as a host frame, also under
 * nesting) and the rights gathered on the way. VT-d, "First-Stage Paging-Structure Caches". Entries are used until an invalidation that is
 * not for leaves only; absent entries are never kept.
 */

/** Words of an entry: address prefix, root, second stage, then what is kept. */
const STRIDE = 9;

export class StructureCache {
  readonly size: number;
  hits = 0;
  // the entry that `find` found
  frame = 0;
  all = 0;
  noExecute = 0;
  tableRights = 0;
  private readonly entries: Int32Array;

  constructor(size: number) {
    if (size !== 0 && (size & (size - 1)) !== 0) throw new RangeError(`sizes.pagingStructure: a power of two or 0, not ${size}`);
    this.size = size;
    this.entries = new Int32Array(size * STRIDE).fill(-1);
  }

  /** Whether the last-level table of (hi, lo) under this root and second stage (frame, or -1) is known. */
  find(hi: number, lo: number, rootHi: number, rootLo: number, second: number): boolean {
    const e = this.entries;
    const at = this.at(hi, lo, rootLo);
    if (e[at] !== lo >>> 21 || e[at + 1] !== hi || e[at + 2] !== rootLo || e[at + 3] !== rootHi || e[at + 4] !== second) return false;
    this.frame = e[at + 5]!;
    this.all = e[at + 6]!;
    this.noExecute = e[at + 7]!;
    this.tableRights = e[at + 8]!;
    this.hits++;
    return true;
  }

  keep(
    hi: number,
    lo: number,
    rootHi: number,
    rootLo: number,
    second: number,
    frame: number,
    all: number,
    noExecute: number,
    tableRights: number,
  ): void {
    const e = this.entries;
    const at = this.at(hi, lo, rootLo);
    e[at] = lo >>> 21;
    e[at + 1] = hi;
    e[at + 2] = rootLo;
    e[at + 3] = rootHi;
    e[at + 4] = second;
    e[at + 5] = frame;
    e[at + 6] = all;
    e[at + 7] = noExecute;
    e[at + 8] = tableRights;
  }

  clear(): void {
    this.entries.fill(-1);
  }

  private at(hi: number, lo: number, rootLo: number): number {
    return (((lo >>> 21) ^ (hi << 5) ^ (rootLo >>> 12)) & (this.size - 1)) * STRIDE;
  }
}
