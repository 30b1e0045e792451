/** Numbers of the system calls' counters, costs and flags. linux/eventfd.h, asm-generic/fcntl.h, linux/limits.h. */

/** Index of each system call's counter and `call` argument of the trace; ours, not the kernel's numbers. */
export const Syscall = {
  open: 0,
  close: 1,
  read: 2,
  write: 3,
  pread: 4,
  pwrite: 5,
  ioctl: 6,
  mmap: 7,
  munmap: 8,
  mprotect: 9,
  poll: 10,
  eventfd: 11,
  fork: 12,
  exit: 13,
  kill: 14,
  getpid: 15,
  // 16 to 18 are the scheduler's counters.
  memfd: 19,
  ftruncate: 20,
  mremap: 21,
  mlock: 22,
  munlock: 23,
} as const;
export type Syscall = (typeof Syscall)[keyof typeof Syscall];
/** Counters: one a system call, then the scheduler's. */
export const Counter = { ...Syscall, pending: 16, contextSwitches: 17, signals: 18 } as const;

/** linux/eventfd.h. */
export const EventFdFlag = { SEMAPHORE: 1, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
/** Low bits of open's flags. */
export const ACCESS_MODE = 3;
export const PATH_MAX = 4096;
/** Largest read or write of one call. */
export const MAX_RW_COUNT = 0x7fff_f000;

/** Integer nanoseconds; all default to 0. A call costs `syscall` unless it has a row of its own. */
export interface KernelCosts {
  readonly syscall?: number;
  readonly ioctl?: number;
  readonly mmap?: number;
  readonly eventfdWrite?: number;
  readonly contextSwitch?: number;
}
