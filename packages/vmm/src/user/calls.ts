/** System calls of the VMM's process with structures in its own memory. */
import { errnoName } from '@siov/layout/uapi';
import type { Process } from '../ports.js';

/** A system call that the VMM cannot go on without was refused. */
export class VmmError extends Error {
  readonly call: string;
  /** -errno. */
  readonly errno: number;
  constructor(call: string, errno: number) {
    super(`${call}: ${errnoName(errno)}`);
    this.name = 'VmmError';
    this.call = call;
    this.errno = errno;
  }
}
/** Where structures and their data are built. */
const STRUCT_BYTES = 2048;
const DATA_BYTES = 14_336;

export class Calls {
  readonly task: Process;
  /** Address of a place for data that a structure points at. */
  readonly data: number;
  private readonly struct: number;
  private readonly one = new Uint32Array(1);
  private readonly byte = new Uint8Array(this.one.buffer);
  private large = { address: 0, bytes: 0 };

  constructor(task: Process) {
    this.task = task;
    this.struct = task.alloc(STRUCT_BYTES + DATA_BYTES);
    this.data = this.struct + STRUCT_BYTES;
  }

  /** A result below 0 becomes a VmmError. */
  must(call: string, result: number): number {
    if (result < 0) throw new VmmError(call, result);
    return result;
  }

  /** The structure goes to memory, and comes back. Up to 2 KiB. */
  ioctl(fd: number, number: number, words: Uint32Array): number {
    const { task, struct } = this;
    task.writeStruct(struct, words);
    const result = task.ioctl(fd, number, struct);
    task.readStruct(struct, words);
    return result;
  }

  /** A structure of any length, which does not come back. */
  ioctlLarge(fd: number, number: number, words: Uint32Array): number {
    if (words.byteLength > this.large.bytes) {
      // What was there before stays mapped: a few pages, once or twice in a VM's life.
      const bytes = Math.ceil((words.byteLength * 2) / 4096) * 4096;
      this.large = { address: this.task.alloc(bytes), bytes };
    }
    this.task.writeStruct(this.large.address, words);
    return this.task.ioctl(fd, number, this.large.address);
  }

  /** pread of 1, 2 or 4 bytes; all ones when it fails. */
  read(fd: number, offset: number, width: number): number {
    const { task, data, one, byte } = this;
    if (task.pread(fd, data, width, offset) !== width) return width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1;
    one[0] = 0;
    task.readStruct(data, byte.subarray(0, width));
    return one[0]!;
  }

  /** pwrite of 1, 2 or 4 bytes; lost when it fails. */
  write(fd: number, offset: number, width: number, value: number): void {
    const { task, data, one, byte } = this;
    one[0] = value;
    task.writeStruct(data, byte.subarray(0, width));
    task.pwrite(fd, data, width, offset);
  }

  /** pwrite of a 64-byte store; its result. */
  writePacket(fd: number, offset: number, words: Uint32Array, at: number): number {
    this.task.writeStruct(this.data, words.subarray(at, at + 16));
    return this.task.pwrite(fd, this.data, 64, offset);
  }
}

export const low = (value: number): number => value % 2 ** 32;
export const high = (value: number): number => Math.floor(value / 2 ** 32);
