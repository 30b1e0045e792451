/** The end of an access that cannot be: unwinds the user program; the scheduler turns it into the task's death. signal(7). */
import { hex64 } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';

export class Signal extends Error {
  readonly signal: 'SIGSEGV' | 'SIGBUS' | 'SIGILL';
  /** The linear address, exact below 2^53. */
  readonly address: number;
  constructor(signal: 'SIGSEGV' | 'SIGBUS' | 'SIGILL', hi: number, lo: number, why: string) {
    super(`${signal} at ${hex64(hi, lo)}: ${why}`);
    this.name = 'Signal';
    this.signal = signal;
    this.address = (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0);
  }
}

/** A page fault that was not resolved: SIGBUS where there is an area but no page, SIGSEGV else. */
export const faultSignal = (hi: number, lo: number, result: number): Signal =>
  result === -Errno.EIO
    ? new Signal('SIGBUS', hi, lo, 'the page was taken away')
    : result === -Errno.ENOMEM
      ? new Signal('SIGBUS', hi, lo, 'out of memory')
      : new Signal('SIGSEGV', hi, lo, 'no mapping, or not the right');
