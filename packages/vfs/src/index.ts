/**
 * How user space reaches the simulated kernel: processes with an address space and a file table, character devices, sysfs, eventfd, and
 * the system calls with the kernel's errno values. Section 2 of the manual; linux/fs.h, linux/eventfd.h.
 */
export { EventFd } from './eventfd.js';
export type { CharDevice, OpenFile, Task } from './files.js';
export type { Guest, IoctlCount, KernelOptions } from './kernel.js';
export { Kernel } from './kernel.js';
export type { Backing, Clock, Context, Exit, MemoryFile, Mm, MmuNotifier, Outside, Processor, Trace, VmArea } from './ports.js';
export type { Scheduled, ScheduledTask } from './schedule.js';
export { schedule } from './schedule.js';
export type { KernelCosts } from './spec.js';
export { Counter, EventFdFlag, Syscall } from './spec.js';
export type { Attribute, SysfsVisitor } from './sysfs.js';
export { Sysfs } from './sysfs.js';
export type { PollFd, Program, StepResult } from './task.js';
export { UserTask } from './task.js';
export { WaitQueue } from './wait.js';
