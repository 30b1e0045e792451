/** An eventfd: a 64-bit counter that is written, read and polled. eventfd(2); linux/eventfd.h. */
import { Errno, Poll } from '@siov/layout/uapi';
import type { OpenFile, Task } from './files.js';
import { EventFdFlag } from './spec.js';
import { WaitQueue } from './wait.js';

const WORD = 0x1_0000_0000;
const ALL = 0xffff_ffff;

export class EventFd implements OpenFile {
  readonly stream = true;
  readonly writeCost = 'eventfdWrite';
  /** Called after every signal and write: the hook of an irqfd. Linux, eventfd_ctx with a wait queue entry. */
  onSignal?: () => void;
  private readonly flags: number;
  private readonly queue = new WaitQueue();
  private readonly buffer = new Uint32Array(2);
  private readonly bytes = new Uint8Array(this.buffer.buffer);
  private high = 0;
  private low = 0;

  constructor(initial = 0, flags = 0) {
    this.low = initial % WORD;
    this.high = Math.floor(initial / WORD);
    this.flags = flags;
  }

  /** The counter, exact below 2^53. */
  get count(): number {
    return this.high * WORD + this.low;
  }

  /** The kernel adds `n`; the counter stops at 2^64 - 1. Linux, eventfd_signal. */
  signal(n = 1): void {
    if (!this.add(Math.floor(n / WORD), n % WORD, true)) this.high = this.low = ALL;
    this.changed();
  }

  /** The kernel takes the count and resets it, without waiting. Linux, eventfd_ctx_do_read. */
  consume(): number {
    const { count } = this;
    if (this.flags & EventFdFlag.SEMAPHORE && count > 0) {
      if (this.low-- === 0) {
        this.low = ALL;
        this.high--;
      }
      return 1;
    }
    this.high = this.low = 0;
    return count;
  }

  read(task: Task, address: number, length: number): number {
    if (length < 8) return -Errno.EINVAL;
    if (this.high === 0 && this.low === 0) return this.flags & EventFdFlag.NONBLOCK ? -Errno.EAGAIN : this.queue.park(task);
    const one = this.flags & EventFdFlag.SEMAPHORE;
    this.buffer[0] = one ? 1 : this.low;
    this.buffer[1] = one ? 0 : this.high;
    this.consume();
    this.queue.wake();
    return task.copyOut(address, this.bytes) < 0 ? -Errno.EFAULT : 8;
  }

  write(task: Task, address: number, length: number): number {
    if (length < 8) return -Errno.EINVAL;
    if (task.copyIn(address, this.bytes) < 0) return -Errno.EFAULT;
    const low = this.buffer[0]!;
    const high = this.buffer[1]!;
    if (low === ALL && high === ALL) return -Errno.EINVAL;
    if (!this.add(high, low, false)) return this.flags & EventFdFlag.NONBLOCK ? -Errno.EAGAIN : this.queue.park(task);
    this.changed();
    return 8;
  }

  poll(task: Task): number {
    this.queue.park(task);
    const { high, low } = this;
    let ready = 0;
    if (high !== 0 || low !== 0) ready |= Poll.IN;
    if (high === ALL && low === ALL) ready |= Poll.ERR;
    if (high !== ALL || low < ALL - 1) ready |= Poll.OUT;
    return ready;
  }

  /** False, and nothing added, when the sum passes 2^64 - 2 (with `toTop`: 2^64 - 1). */
  private add(high: number, low: number, toTop: boolean): boolean {
    let sumLow = this.low + low;
    const carry = sumLow >= WORD ? 1 : 0;
    if (carry) sumLow -= WORD;
    const sumHigh = this.high + high + carry;
    if (sumHigh >= WORD || (!toTop && sumHigh === ALL && sumLow === ALL)) return false;
    this.high = sumHigh;
    this.low = sumLow;
    return true;
  }

  private changed(): void {
    this.queue.wake();
    this.onSignal?.();
  }
}
