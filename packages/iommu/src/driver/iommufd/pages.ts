/**
 * Pages of user memory, of a file or of a device's buffer, that areas of I/O address spaces show. A page is pinned while a page table or
 * an access uses it, once however many they are. Linux, struct iopt_pages.
 */
import { Errno } from '@siov/layout/uapi';
import type { PageSource, PinningMm } from '../../ports.js';

const PAGE = 4096;

/** Who is charged for pinned pages: -ENOMEM beyond RLIMIT_MEMLOCK. */
export interface Account {
  charge(pages: number): number;
  uncharge(pages: number): void;
}
export const nobody: Account = { charge: () => 0, uncharge: () => {} };

/** A process's memory from `address` on. */
export const userSource = (mm: PinningMm, address: number, writable: boolean): PageSource => ({
  pin: (first, pages, out, at) => mm.pin(address + first * PAGE, pages, writable, out, at),
  unpin: (frames, count) => mm.unpin(frames, count),
});

export class Pages {
  readonly kind: 'user' | 'file' | 'buffer';
  /** Byte address (user memory) or offset (file) of the first page. */
  readonly start: bigint;
  readonly count: number;
  readonly writable: boolean;
  mm: PinningMm | undefined;
  private readonly source: PageSource;
  account: Account;
  /** Areas that show them. */
  references = 0;
  /** Pinned now. */
  pinned = 0;
  /** Its owner took it back: nothing of it is mapped any more. */
  revoked = false;
  /** By page; -1 while not pinned. */
  frames = new Int32Array(0);
  private uses = new Uint32Array(0);
  private readonly one = new Int32Array(1);
  /** Nothing shows them any more. */
  freed: () => void = () => {};

  constructor(options: {
    readonly kind: Pages['kind'];
    readonly start: bigint;
    readonly count: number;
    readonly writable: boolean;
    readonly source: PageSource;
    readonly account: Account;
    readonly mm?: PinningMm;
  }) {
    ({ kind: this.kind, start: this.start, count: this.count, writable: this.writable, source: this.source, account: this.account } = options);
    this.mm = options.mm;
  }

  /**
   * Uses `count` pages from `first` on; they are pinned if nobody used them. 0 or -errno, with nothing changed. Pages that were taken back are
   * -ENODEV, unless `there`: a page table comes to an area that shows them, with nothing in it.
   */
  hold(first: number, count: number, there = false): number {
    if (this.count > 2 ** 30) return -Errno.ENOMEM;
    if (this.revoked && !there) return -Errno.ENODEV;
    if (this.frames.length === 0) {
      this.frames = new Int32Array(this.count).fill(-1);
      this.uses = new Uint32Array(this.count);
    }
    for (let i = first; i < first + count; ) {
      let run = 0;
      while (i + run < first + count && this.uses[i + run] === 0) run++;
      const error = run && !this.revoked ? this.pin(i, run) : 0;
      if (error) {
        this.drop(first, i - first);
        return error;
      }
      for (let k = i; k < i + Math.max(run, 1); k++) this.uses[k]!++;
      i += Math.max(run, 1);
    }
    return 0;
  }
  /** Takes a `hold` of the same pages back. */
  drop(first: number, count: number): void {
    for (let i = first; i < first + count; i++) {
      if (--this.uses[i]! > 0 || this.frames[i]! < 0) continue;
      this.one[0] = this.frames[i]!;
      this.frames[i] = -1;
      this.source.unpin(this.one, 1);
      this.pinned--;
      this.account.uncharge(1);
    }
  }
  /** What was pinned counts for another now, who is charged already. */
  move(account: Account, mm: PinningMm): void {
    this.account.uncharge(this.pinned);
    this.account = account;
    this.mm = mm;
  }

  private pin(first: number, count: number): number {
    const refused = this.account.charge(count);
    if (refused) return refused;
    const got = this.source.pin(first, count, this.frames, first);
    if (got === count) {
      this.pinned += count;
      return 0;
    }
    if (got > 0) this.source.unpin(this.frames.subarray(first), got);
    this.frames.fill(-1, first, first + count);
    this.account.uncharge(count);
    return got < 0 ? got : -Errno.EFAULT;
  }
}
