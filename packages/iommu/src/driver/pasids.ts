/** PASIDs of one kernel instance, 1 to 2^width - 1. 0 is the RID's own. */
import { Errno } from '@siov/layout/uapi';

export class PasidAllocator {
  private readonly limit: number;
  private next = 1;
  private readonly freed: number[] = [];
  private readonly used = new Set<number>();
  constructor(width: number) {
    this.limit = 2 ** width;
  }
  /** A PASID, or -ENOSPC. */
  alloc(): number {
    const pasid = this.freed.pop() ?? (this.next < this.limit ? this.next++ : -Errno.ENOSPC);
    if (pasid > 0) this.used.add(pasid);
    return pasid;
  }
  /** Gives one back; of one that is not handed out nothing happens. */
  free(pasid: number): void {
    if (this.used.delete(pasid)) this.freed.push(pasid);
  }
  get count(): number {
    return this.used.size;
  }
}
