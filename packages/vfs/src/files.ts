/** Open files, devices and the table of a task. Linux, file_operations and struct file; open(2), dup(2), getrlimit(2). */
import { Errno, Open } from '@siov/layout/uapi';
import type { Context, MemoryFile, Mm, VmArea } from './ports.js';
import { ACCESS_MODE } from './spec.js';

/** The process that calls, as drivers see it. */
export interface Task {
  readonly pid: number;
  readonly mm: Mm;
  readonly context: Context;
  /** Reads the caller's memory: 0 or -EFAULT. */
  copyIn(address: number, out: Uint8Array): number;
  /** Writes the caller's memory: 0 or -EFAULT. */
  copyOut(address: number, bytes: Uint8Array): number;
  /** Gives a new descriptor, or -EMFILE. */
  install(file: OpenFile): number;
  file(fd: number): OpenFile | undefined;
  /** Makes a parked task try again. */
  wakeUp(): void;
  readonly exited: boolean;
}

/** A device node. `open` answers a file or -errno. */
export interface CharDevice {
  open(task: Task, flags: number): OpenFile | number;
}

/** What a driver does for an open file; absent: ENOTTY for ioctl, EINVAL for read and write, ENODEV for mmap, always ready for poll. */
export interface OpenFile {
  ioctl?(task: Task, number: number, argument: number): number;
  read?(task: Task, address: number, length: number, offset: number): number;
  write?(task: Task, address: number, length: number, offset: number): number;
  mmap?(task: Task, area: VmArea): number;
  /** Poll bits that hold now; parks the task on the queues that change them. */
  poll?(task: Task): number;
  /** The last reference (of tables and mappings) is gone. */
  close?(): void;
  /** No position: pread and pwrite answer ESPIPE. */
  readonly stream?: boolean;
  /** A file of memory: mmap shows its pages, ftruncate changes its length. */
  readonly memory?: MemoryFile;
  /** Cost of one write in place of `syscall`: 'eventfdWrite'. */
  readonly writeCost?: 'eventfdWrite';
  /** Names of ioctl numbers, for counters. */
  readonly ioctlNames?: Readonly<Record<number, string>>;
}

/** An open file description: shared by forked tables, held by mappings too. */
export class Description {
  readonly file: OpenFile;
  readonly flags: number;
  offset = 0;
  private references = 1;
  constructor(file: OpenFile, flags: number) {
    this.file = file;
    this.flags = flags;
  }
  get readable(): boolean {
    return (this.flags & ACCESS_MODE) !== Open.WRONLY;
  }
  get writable(): boolean {
    return (this.flags & ACCESS_MODE) !== Open.RDONLY;
  }
  hold(): this {
    this.references++;
    return this;
  }
  put(): void {
    if (--this.references === 0) this.file.close?.();
  }
}

/** Descriptors of one task. */
export class FileTable {
  private readonly descriptors = new Map<number, Description>();
  private readonly limit: number;
  private readonly first: number;
  /** At most `limit` descriptors, numbered from `first`. */
  constructor(limit: number, first = 0) {
    this.limit = limit;
    this.first = first;
  }
  get(fd: number): Description | undefined {
    return this.descriptors.get(fd);
  }
  /** The lowest free descriptor, or -EMFILE; the table takes over the caller's reference when it succeeds. */
  add(description: Description): number {
    let fd = this.first;
    while (this.descriptors.has(fd)) fd++;
    if (fd >= this.first + this.limit) return -Errno.EMFILE;
    this.descriptors.set(fd, description);
    return fd;
  }
  /** As `add`, under a free number of the caller's choice, wherever it is. */
  put(fd: number, description: Description): void {
    this.descriptors.set(fd, description);
  }
  remove(fd: number): Description | undefined {
    const description = this.get(fd);
    this.descriptors.delete(fd);
    return description;
  }
  copy(): FileTable {
    const copy = new FileTable(this.limit, this.first);
    for (const [fd, description] of this.descriptors) copy.put(fd, description.hold());
    return copy;
  }
  closeAll(): void {
    for (const fd of [...this.descriptors.keys()].sort((a, b) => a - b)) this.remove(fd)?.put();
  }
}
