/** VFIO by system calls of one task: structures are built in the task's own memory, answers are the calls' own. linux/vfio.h. */
import * as uapi from './vfio-numbers.js';

/** The system calls that a VFIO program makes; a task of @siov/vfs fits. */
export interface VfioTask {
  open(path: string, flags: number): number;
  close(fd: number): number;
  ioctl(fd: number, number: number, argument: number): number;
  mmap(address: number, length: number, prot: number, flags: number, fd?: number, offset?: number): number;
  munmap(address: number, length: number): number;
  read(fd: number, address: number, length: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  eventfd(initial?: number, flags?: number): number;
  alloc(bytes: number): number;
  writeStruct(address: number, data: Uint8Array | Uint32Array): void;
  readStruct<T extends Uint8Array | Uint32Array>(address: number, out: T): T;
}
const RDWR = 2;
const NONBLOCK = 0o4000;
const ROOM = 0x1_0000;
const WORD = 2 ** 32;

export class VfioClient {
  readonly task: VfioTask;
  /** Memory of the task for structures. */
  readonly at: number;

  constructor(task: VfioTask) {
    this.task = task;
    this.at = task.alloc(ROOM);
  }

  open(path: string): number {
    return this.task.open(path, RDWR);
  }

  /** An ioctl with a structure of words, then bytes; the words after the call. */
  call(
    fd: number,
    number: number,
    words: readonly number[],
    data: Uint8Array | Int32Array = new Uint8Array(),
  ): { result: number; words: Uint32Array } {
    this.task.writeStruct(this.at, Uint32Array.from(words));
    this.task.writeStruct(this.at + words.length * 4, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const result = this.task.ioctl(fd, number, this.at);
    return { result, words: this.task.readStruct(this.at, new Uint32Array(words.length)) };
  }

  /** The long way through a container: file descriptors, and what each step answered when one failed. */
  openInContainer(
    group: string,
    name: string,
    type: number = uapi.Extension.TYPE1v2,
    path = '/dev/vfio/vfio',
  ): { container: number; group: number; device: number } {
    const container = this.open(path);
    const groupFd = this.open(group);
    const set = this.call(groupFd, uapi.Ioctl.GROUP_SET_CONTAINER, [container]).result;
    const iommu = this.task.ioctl(container, uapi.Ioctl.SET_IOMMU, type);
    const device = this.deviceFd(groupFd, name);
    if (device < 0)
      throw new Error(`no device: container ${container}, group ${groupFd}, SET_CONTAINER ${set}, SET_IOMMU ${iommu}, GET_DEVICE_FD ${device}`);
    return { container, group: groupFd, device };
  }

  deviceFd(group: number, name: string): number {
    this.task.writeStruct(
      this.at,
      Uint8Array.from(`${name}\0`, (c) => c.charCodeAt(0)),
    );
    return this.task.ioctl(group, uapi.Ioctl.GROUP_GET_DEVICE_FD, this.at);
  }

  info(fd: number, argsz = 24) {
    const { result, words } = this.call(fd, uapi.Ioctl.DEVICE_GET_INFO, [argsz, 0, 0, 0, 0, 0]);
    return { result, ...pick(words, 'argsz', 'flags', 'regions', 'irqs', 'capOffset') };
  }

  region(fd: number, index: number, argsz = 32) {
    const { result, words } = this.call(fd, uapi.Ioctl.DEVICE_GET_REGION_INFO, [argsz, 0, index, 0, 0, 0, 0, 0]);
    const size = words[4]! + words[5]! * WORD;
    return { result, ...pick(words, 'argsz', 'flags', 'index', 'capOffset'), size, offset: words[6]! + words[7]! * WORD };
  }

  irq(fd: number, index: number, argsz = 16) {
    const { result, words } = this.call(fd, uapi.Ioctl.DEVICE_GET_IRQ_INFO, [argsz, 0, index, 0]);
    return { result, ...pick(words, 'argsz', 'flags', 'index', 'count') };
  }

  /** SET_IRQS; `argsz` covers the data unless given. */
  setIrqs(
    fd: number,
    flags: number,
    index: number,
    start: number,
    count: number,
    data: Uint8Array | Int32Array = new Uint8Array(),
    argsz = 20 + data.byteLength,
  ) {
    return this.call(fd, uapi.Ioctl.DEVICE_SET_IRQS, [argsz, flags, index, start, count], data).result;
  }

  mapDma(container: number, vaddr: number, iova: number, size: number, flags = 3): number {
    return this.call(container, uapi.Ioctl.IOMMU_MAP_DMA, [32, flags, ...pair(vaddr), ...pair(iova), ...pair(size)]).result;
  }

  /** Bytes unmapped, or -errno. */
  unmapDma(container: number, iova: number, size: number, flags = 0): number {
    const { result, words } = this.call(container, uapi.Ioctl.IOMMU_UNMAP_DMA, [24, flags, ...pair(iova), ...pair(size)]);
    return result < 0 ? result : words[4]! + words[5]! * WORD;
  }

  pread(fd: number, length: number, offset: number): { result: number; bytes: Uint8Array } {
    const result = this.task.pread(fd, this.at, length, offset);
    return { result, bytes: this.task.readStruct(this.at, new Uint8Array(Math.max(result, 0))) };
  }

  pwrite(fd: number, bytes: Uint8Array, offset: number): number {
    this.task.writeStruct(this.at, bytes);
    return this.task.pwrite(fd, this.at, bytes.length, offset);
  }

  eventfd(): number {
    return this.task.eventfd(0, NONBLOCK);
  }

  /** The count of an eventfd of ours, which is 0 afterwards. */
  count(eventfd: number): number {
    return this.task.read(eventfd, this.at, 8) === 8 ? this.task.readStruct(this.at, new Uint32Array(1))[0]! : 0;
  }
}

const pair = (value: number): readonly [number, number] => [value % WORD, Math.floor(value / WORD)];
function pick<const N extends string>(words: Uint32Array, ...names: readonly N[]): Record<N, number> {
  return Object.fromEntries(names.map((name, i) => [name, words[i]!])) as Record<N, number>;
}
