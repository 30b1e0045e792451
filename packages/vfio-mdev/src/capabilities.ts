/** Chains of capabilities behind an info structure. linux/vfio.h, struct vfio_info_cap_header. */
import { Errno } from '@siov/layout/uapi';
import type { Task } from './ports.js';
import { CapHeader } from './uapi.js';

const { set } = CapHeader;

/** A chain as it grows; each capability is padded to 8 bytes. */
export class CapabilityChain {
  private readonly start: number;
  private readonly links: Uint32Array[] = [];
  private size = 0;

  /** `start`: bytes of the structure before the chain. */
  constructor(start: number) {
    this.start = start;
  }

  /** A capability of `bytes` bytes, header included. Its words are there to be filled. */
  add(id: number, version: number, bytes: number): Uint32Array {
    const link = new Uint32Array(Math.ceil(bytes / 8) * 2);
    set.id(link, 0, id);
    set.version(link, 0, version);
    const last = this.links.at(-1);
    if (last) set.next(last, 0, this.start + this.size);
    this.links.push(link);
    this.size += link.byteLength;
    return link;
  }

  get empty(): boolean {
    return this.size === 0;
  }
  /** What argsz must be for the structure and the chain. */
  get need(): number {
    return this.start + this.size;
  }

  /** Writes the chain behind the structure at `address`: 0 or -EFAULT. */
  copyOut(task: Task, address: number): number {
    let at = address + this.start;
    for (const link of this.links) {
      if (task.copyOut(at, new Uint8Array(link.buffer)) < 0) return -Errno.EFAULT;
      at += link.byteLength;
    }
    return 0;
  }
}
