/** A structure of the user API on its way in from the caller's memory and out again. */
import type { AnyLayout } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';
import type { Task } from './ports.js';

/** Room for one structure; `words` is for the layout's accessors, index 0. All structures start with argsz. */
export class Structure {
  readonly words: Uint32Array;
  private readonly bytes: Uint8Array;

  /** `layouts`: the largest one's size is the room. */
  constructor(...layouts: readonly Pick<AnyLayout, 'bytes'>[]) {
    this.words = new Uint32Array(Math.max(...layouts.map((each) => each.bytes)) / 4);
    this.bytes = new Uint8Array(this.words.buffer);
  }

  /** Reads the first `bytes` bytes, the rest is 0: 0, -EFAULT, or -EINVAL for an argsz that does not cover them. */
  copyIn(task: Task, address: number, bytes: number): number {
    this.words.fill(0);
    if (task.copyIn(address, this.bytes.subarray(0, bytes)) < 0) return -Errno.EFAULT;
    return this.words[0]! < bytes ? -Errno.EINVAL : 0;
  }

  /** Reads bytes `from` to `to` of a structure whose start is here already. */
  copyMore(task: Task, address: number, from: number, to: number): number {
    return task.copyIn(address + from, this.bytes.subarray(from, to)) < 0 ? -Errno.EFAULT : 0;
  }

  copyOut(task: Task, address: number, bytes: number): number {
    return task.copyOut(address, this.bytes.subarray(0, bytes)) < 0 ? -Errno.EFAULT : 0;
  }
}

const WORD = 0x1_0000_0000;
/** The low and high half of a non-negative Number. */
export const lowOf = (value: number): number => value % WORD;
export const highOf = (value: number): number => Math.floor(value / WORD);
/** Two unsigned halves as a Number: exact below 2^53, and above it never rounded below 2^53. */
export const join = (high: number, low: number): number => high * WORD + low;

/** Whether the range from `address` of `size` bytes (not 0) passes 2^64; each given as unsigned halves. */
export function overflows(addressHigh: number, addressLow: number, sizeHigh: number, sizeLow: number): boolean {
  const low = addressLow + sizeLow;
  const high = addressHigh + sizeHigh + (low >= WORD ? 1 : 0);
  return high > WORD || (high === WORD && low % WORD !== 0);
}
