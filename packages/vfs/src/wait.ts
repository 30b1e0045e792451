/** Tasks that wait for something. Linux, wait_queue_head. A wake-up says "try again"; it may be one too many, never one too few. */
import { PENDING } from '@siov/layout/uapi';

export class WaitQueue {
  private readonly waiters = new Set<{ wakeUp(): void }>();
  /** Remembers the task until the next wake; answers PENDING, for a system call to return. */
  park(task: { wakeUp(): void }): number {
    this.waiters.add(task);
    return PENDING;
  }
  wake(): void {
    if (this.waiters.size === 0) return;
    const waiters = [...this.waiters];
    this.waiters.clear();
    for (const waiter of waiters) waiter.wakeUp();
  }
}
