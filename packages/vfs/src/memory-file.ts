/** An open file of memory. memfd_create(2). */
import { Errno } from '@siov/layout/uapi';
import type { OpenFile, Task } from './files.js';
import type { MemoryFile } from './ports.js';

/** Bytes copied at a time. */
const PIECE = 65_536;

export class MemoryFd implements OpenFile {
  readonly memory: MemoryFile;
  constructor(memory: MemoryFile) {
    this.memory = memory;
  }
  read(task: Task, address: number, length: number, offset: number): number {
    const left = Math.max(0, Math.min(length, this.memory.bytes - offset));
    for (let done = 0; done < left; ) {
      const piece = new Uint8Array(Math.min(PIECE, left - done));
      const got = this.memory.read(offset + done, piece);
      if (got <= 0) return done || got;
      if (task.copyOut(address + done, piece.subarray(0, got)) < 0) return done || -Errno.EFAULT;
      done += got;
    }
    return left;
  }
  write(task: Task, address: number, length: number, offset: number): number {
    for (let done = 0; done < length; ) {
      const piece = new Uint8Array(Math.min(PIECE, length - done));
      if (task.copyIn(address + done, piece) < 0) return done || -Errno.EFAULT;
      const got = this.memory.write(offset + done, piece);
      if (got <= 0) return done || got;
      done += got;
    }
    return length;
  }
  close(): void {
    this.memory.close();
  }
}
