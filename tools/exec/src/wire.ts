/**
 * What goes between a program and the server, as shim/wire.h has it: numbers, and where things lie. A test compares the two with a compiler.
 */
export const VERSION = 3;
export const SLOTS = 256;
export const REGIONS = 64;
export const PAYLOAD = 4096;

/** Negative, of a read: not now. */
export const WAIT = 512;
/** The value of a signal that says that memory is gone. */
export const REVOKED = 0x5109;

export const Op = { hello: 1, open: 2, sync: 3, ioctl: 4, mmap: 5, munmap: 6, read: 7, write: 8, wake: 9, trap: 10, piece: 11, poll: 12 } as const;
export const Kind = { movdir64b: 1, enqcmd: 2 } as const;
export const SlotStatus = { empty: 0, waits: 1, answered: 2 } as const;
export const Answer = { done: 0, retry: 1, busError: 2, protection: 3, notOurs: 4 } as const;

/** struct siov_request, in bytes. `args` are five words of 64 bits. */
export const Request = { op: 0, bytes: 4, file: 8, args: 16, size: 56 } as const;
/** struct siov_reply. `args` are four words of 64 bits. */
export const Reply = { result: 0, args: 8, size: 40 } as const;
/** struct siov_slot. */
export const Slot = { sequence: 0, kind: 4, status: 8, answer: 12, address: 16, data: 64, size: 128 } as const;
/** struct siov_region. */
export const Region = { start: 0, length: 8, live: 16, size: 24 } as const;
/** struct siov_ring. */
export const Ring = { tail: 0, sleeping: 4, traps: 8, ns: 16, regions: 64, slots: 4096, size: 4096 + SLOTS * Slot.size } as const;
/** A transfer at the file's own position. */
export const POSITION = 2n ** 64n - 1n;
