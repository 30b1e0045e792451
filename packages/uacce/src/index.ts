/**
 * The uacce character device. Numbers of its user API have the entry point `@siov/uacce/uapi`.
 * Sources: Linux drivers/misc/uacce/uacce.c (behaviour), misc/uacce/uacce.h, Documentation/misc-devices/uacce.rst.
 */
export type { Mm, OpenFile, Sva, Task, UserSpace, VmArea } from './ports.js';
export { type Queue, type QueueState, registerUacce, type UacceOps, type UacceOptions } from './uacce.js';
