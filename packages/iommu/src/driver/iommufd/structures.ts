/** Structures of the user API on their way between user space and an ioctl. linux/iommufd.h; Linux, copy_struct_from_user. */
import { join } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';
import type { Task } from '../../ports.js';
import type { IommufdFile } from './file.js';
import type { UserArray, UserData } from './ops.js';

export interface Ioctl {
  /** Bytes of the structure, and how many the caller must give at least. */
  readonly size: number;
  readonly least: number;
  /** The structure goes back to the caller on failure too. */
  readonly alwaysAnswers?: true;
  /** It makes a descriptor. */
  readonly installs?: true;
  /** Works on the structure's words, in place; they go back to the caller. */
  run(file: IommufdFile, task: Task, words: Uint32Array): number;
}
/** From here on a 64-bit value is not exact as a Number. */
export const HUGE = 2 ** 53;
export const U32 = 0xffff_ffff;
const WORD = 2n ** 32n;
export const big = (high: number, low: number): bigint => BigInt(high) * WORD + BigInt(low);
export const lowOf = (value: bigint): number => Number(value % WORD);
export const highOf = (value: bigint): number => Number(value / WORD);

/** Reads a structure from the caller's memory; undefined: EFAULT. */
export function fetch(task: Task, address: number, bytes: number): Uint32Array | undefined {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  return task.copyIn(address, new Uint8Array(words.buffer, 0, bytes)) ? undefined : words;
}
export const store = (task: Task, address: number, words: Uint32Array, bytes: number): number =>
  task.copyOut(address, new Uint8Array(words.buffer, words.byteOffset, bytes)) ? -Errno.EFAULT : 0;

/** `size` bytes of a structure of which the caller gives `given`, at least `least`. */
function copy(task: Task, address: number, given: number, size: number, least: number): Uint32Array | number {
  if (given < least) return -Errno.EINVAL;
  if (given > 4096) return -Errno.E2BIG;
  const all = new Uint8Array(given);
  if (task.copyIn(address, all)) return -Errno.EFAULT;
  if (all.subarray(size).some((byte) => byte !== 0)) return -Errno.E2BIG;
  const words = new Uint32Array(Math.ceil(size / 4));
  new Uint8Array(words.buffer).set(all.subarray(0, size));
  return words;
}
export function userData(task: Task, type: number, bytes: number, high: number, low: number): UserData {
  const address = join(high, low);
  return {
    type,
    bytes,
    read: (size, least = size) => copy(task, address, bytes, size, least),
    write: (words) => store(task, address, words, Math.min(words.byteLength, bytes)),
  };
}
export function userArray(task: Task, type: number, count: number, bytes: number, high: number, low: number): UserArray {
  const address = join(high, low);
  return {
    type,
    count,
    done: 0,
    read: (index, size) => copy(task, address + index * bytes, bytes, size, size),
  };
}
