/** Numbers of the Linux user API that several parts share: errno, ioctl encoding, mmap and poll bits. */

/** asm-generic/errno-base.h, errno.h. Functions return the negative of these. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOMSG: 42,
  EOVERFLOW: 75,
  EBADFD: 77,
  EUSERS: 87,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ETIMEDOUT: 110,
} as const;
export type Errno = (typeof Errno)[keyof typeof Errno];
const names = Object.fromEntries(Object.entries(Errno).map(([name, value]) => [value, name]));
/** 'EINVAL' for -22 or 22. */
export const errnoName = (result: number): string => names[Math.abs(result)] ?? `errno ${Math.abs(result)}`;

/** A system call that cannot answer yet: the task parks on a wait queue and calls again. Below every -errno. */
export const PENDING = -0x1_0000;

/** asm-generic/ioctl.h. `size` in bytes. */
export const io = (type: string, number: number): number => ioc(0, type, number, 0);
export const iow = (type: string, number: number, size: number): number => ioc(1, type, number, size);
export const ior = (type: string, number: number, size: number): number => ioc(2, type, number, size);
export const iowr = (type: string, number: number, size: number): number => ioc(3, type, number, size);
const ioc = (direction: number, type: string, number: number, size: number): number =>
  ((direction << 30) | (size << 16) | (type.charCodeAt(0) << 8) | number) >>> 0;

/** asm-generic/mman-common.h, mman.h. */
export const Prot = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;
export const MapFlag = {
  SHARED: 0x01,
  PRIVATE: 0x02,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  POPULATE: 0x8000,
  HUGETLB: 0x40000,
  /** linux/mman.h, with HUGETLB: the page's size as a power of two in bits 31:26. */
  HUGE_2MB: 21 << 26,
  HUGE_1GB: 30 << 26,
} as const;
/** asm-generic/fcntl.h. */
export const Open = { RDONLY: 0, WRONLY: 1, RDWR: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;
/** asm-generic/poll.h. */
export const Poll = { IN: 0x01, PRI: 0x02, OUT: 0x04, ERR: 0x08, HUP: 0x10, NVAL: 0x20 } as const;
