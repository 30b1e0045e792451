/**
 * The uacce character device: one open file is one queue of an accelerator; the caller's address space is bound to a PASID at open; regions
 * of the device are mapped by page offset. Linux drivers/misc/uacce/uacce.c, Documentation/misc-devices/uacce.rst.
 */
import { Errno, Poll } from '@siov/layout/uapi';
import type { Mm, OpenFile, Sva, Task, UserSpace, VmArea } from './ports.js';
import { REGIONS, UacceFlag, UacceIoctl } from './uapi.js';

/** Life of a queue: UACCE_Q_INIT, UACCE_Q_STARTED, UACCE_Q_ZOMBIE. */
export type QueueState = 'init' | 'started' | 'zombie';

export interface Queue<M extends Mm = Mm, P = unknown> {
  /** -1 without SVA. */
  readonly pasid: number;
  readonly mm: M;
  readonly state: QueueState;
  /** The driver's own. */
  private: P | undefined;
  /** The driver's interrupt handler calls it: pollers look again. */
  wake(): void;
}

/** What a driver implements. Linux struct uacce_ops; results are 0 or -errno. */
export interface UacceOps<M extends Mm = Mm, P = unknown> {
  getAvailableInstances?(): number;
  getQueue(pasid: number, queue: Queue<M, P>): number;
  putQueue(queue: Queue<M, P>): void;
  startQueue(queue: Queue<M, P>): number;
  stopQueue(queue: Queue<M, P>): void;
  isQueueUpdated(queue: Queue<M, P>): boolean;
  mmap?(queue: Queue<M, P>, area: VmArea, region: number): number;
  ioctl?(queue: Queue<M, P>, task: Task<M>, number: number, argument: number): number;
  /** 1: isolated after too many errors. */
  getIsolateState?(): number;
  /** Names of the driver's own ioctl numbers. */
  readonly ioctlNames?: Readonly<Record<number, string>>;
}

export interface UacceOptions<M extends Mm, P> {
  /** The node is /dev/<name>-<id>. */
  readonly name: string;
  readonly id: number;
  /** How users tell kinds of devices apart. */
  readonly api: string;
  readonly algorithms?: readonly string[];
  /** Pages of each region: MMIO, then device-user shared. */
  readonly regionPages: readonly [mmio: number, dus: number];
  readonly ops: UacceOps<M, P>;
  readonly kernel: UserSpace<M>;
  /** Absent: a device without shared virtual addressing. */
  readonly sva?: Sva<M>;
}

const names: Readonly<Record<number, string>> = Object.fromEntries(Object.entries(UacceIoctl).map(([name, number]) => [number, `UACCE_CMD_${name}`]));

interface Open<M extends Mm, P> extends Queue<M, P> {
  state: QueueState;
  readonly regions: (VmArea | undefined)[];
  readonly pollers: Set<Task<M>>;
  handle: { readonly pasid: number; unbind(): void } | undefined;
}

/** Registers the device; `remove` takes it away under its users: their queues become zombies and their mappings fault. */
export function registerUacce<M extends Mm, P>(options: UacceOptions<M, P>): { readonly path: string; readonly queues: number; remove(): void } {
  const { name, id, ops, kernel, sva } = options;
  if (!/^[\w.-]+$/.test(name)) throw new TypeError(`registerUacce: name is a file name, not ${JSON.stringify(name)}`);
  const path = `/dev/${name}-${id}`;
  const directory = `/sys/class/uacce/${name}-${id}`;
  const open = new Set<Open<M, P>>();

  const stop = (queue: Open<M, P>): void => {
    if (queue.state === 'started') ops.stopQueue(queue);
    if (queue.state !== 'zombie') ops.putQueue(queue);
    queue.state = 'zombie';
    queue.handle?.unbind();
    queue.handle = undefined;
    for (const area of queue.regions) area?.zap();
    queue.regions.fill(undefined);
    open.delete(queue);
    queue.wake();
  };

  const device = {
    open(task: Task<M>): OpenFile<M> | number {
      let handle: Open<M, P>['handle'];
      if (sva) {
        const bound = sva.bind(task.mm);
        if (typeof bound === 'number') return bound;
        handle = bound;
        task.mm.pasid = bound.pasid;
      }
      const pollers = new Set<Task<M>>();
      const queue: Open<M, P> = {
        pasid: handle?.pasid ?? -1,
        mm: task.mm,
        state: 'init',
        private: undefined,
        regions: new Array(REGIONS).fill(undefined),
        pollers,
        handle,
        wake() {
          for (const poller of pollers) poller.wakeUp();
          pollers.clear();
        },
      };
      const error = ops.getQueue(queue.pasid, queue);
      if (error < 0) {
        handle?.unbind();
        return error;
      }
      open.add(queue);
      return new QueueFile(queue, ops, stop);
    },
  };

  kernel.register(path, device);
  const attributes: Record<string, (() => string) | undefined> = {
    api: () => options.api,
    flags: () => String(sva ? UacceFlag.SVA : 0),
    available_instances: ops.getAvailableInstances && (() => String(ops.getAvailableInstances!())),
    algorithms: () => (options.algorithms ?? []).join('\n'),
    region_mmio_size: options.regionPages[0] ? () => String(options.regionPages[0] * 4096) : undefined,
    region_dus_size: options.regionPages[1] ? () => String(options.regionPages[1] * 4096) : undefined,
    isolate: ops.getIsolateState && (() => String(ops.getIsolateState!())),
  };
  for (const [attribute, show] of Object.entries(attributes)) if (show) kernel.sysfs.add(`${directory}/${attribute}`, { show: () => `${show()}\n` });

  return {
    path,
    get queues() {
      return open.size;
    },
    remove() {
      kernel.unregister(path);
      kernel.sysfs.remove(directory);
      for (const queue of [...open]) stop(queue);
    },
  };
}

class QueueFile<M extends Mm, P> implements OpenFile<M> {
  readonly ioctlNames: Readonly<Record<number, string>>;
  readonly #queue: Open<M, P>;
  readonly #ops: UacceOps<M, P>;
  readonly #stop: (queue: Open<M, P>) => void;

  constructor(queue: Open<M, P>, ops: UacceOps<M, P>, stop: (queue: Open<M, P>) => void) {
    this.#queue = queue;
    this.#ops = ops;
    this.#stop = stop;
    this.ioctlNames = ops.ioctlNames ? { ...ops.ioctlNames, ...names } : names;
  }

  ioctl(task: Task<M>, number: number, argument: number): number {
    const queue = this.#queue;
    if (queue.state === 'zombie') return -Errno.ENXIO;
    if (number === UacceIoctl.START_Q) {
      if (queue.state !== 'init') return -Errno.EINVAL;
      const error = this.#ops.startQueue(queue);
      if (error === 0) queue.state = 'started';
      return error;
    }
    if (number === UacceIoctl.PUT_Q) {
      // Despite its name it stops the queue and frees nothing.
      if (queue.state === 'started') this.#ops.stopQueue(queue);
      queue.state = 'init';
      return 0;
    }
    return this.#ops.ioctl?.(queue, task, number, argument) ?? -Errno.EINVAL;
  }

  mmap(_task: Task<M>, area: VmArea): number {
    const queue = this.#queue;
    const region = area.offset / 4096;
    if (queue.state === 'zombie') return -Errno.ENXIO;
    if (region >= REGIONS) return -Errno.EINVAL;
    if (queue.regions[region]) return -Errno.EEXIST;
    if (!this.#ops.mmap) return -Errno.EINVAL;
    area.dontCopy = true;
    const error = this.#ops.mmap(queue, area, region);
    if (error < 0) return error;
    queue.regions[region] = area;
    area.onClose = () => {
      if (queue.regions[region] === area) queue.regions[region] = undefined;
    };
    return 0;
  }

  poll(task: Task<M>): number {
    const queue = this.#queue;
    if (queue.state === 'zombie') return 0;
    if (this.#ops.isQueueUpdated(queue)) return Poll.IN;
    queue.pollers.add(task);
    return 0;
  }

  close(): void {
    if (this.#queue.state !== 'zombie') this.#stop(this.#queue);
  }
}
