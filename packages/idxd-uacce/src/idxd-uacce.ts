/**
 * The driver's uacce operations: a queue of the uacce device is a work queue of DSA, bound to the PASID of the process that opened it. A
 * dedicated queue belongs to one file and carries the PASID itself; a shared queue serves many, whose ENQCMD carries it.
 */
import type { CompletionInterrupt, IdxdDriver, Mm, Wq } from '@siov/idxd-driver';
import { Errno, ior } from '@siov/layout/uapi';
import { type Queue, registerUacce, type UacceOps, type UserSpace } from '@siov/uacce';
import { UacceRegion } from '@siov/uacce/uapi';

/**
 * The queue's completion interrupt, for Request Completion Interrupt: a u32 handle. The region that is mapped afterwards is the half of the
 * portal that uses its store. Our own number, in the manner of the kernel's uacce drivers, which have one for their queue's context.
 */
export const IDXD_UACCE_GET_INTERRUPT = ior('D', 1, 4);

/** What a queue keeps. */
interface Private {
  readonly wq: Wq;
  interrupt: CompletionInterrupt | undefined;
  /** Completion interrupts since poll last said so. */
  pending: number;
  /** Takes the address space off the driver's users. */
  forget: (() => void) | undefined;
}

export interface IdxdUacceOptions {
  readonly driver: IdxdDriver;
  /** All of one mode. */
  readonly wqs: readonly Wq[];
  readonly kernel: UserSpace<Mm>;
  readonly id?: number;
}

/** Shares queues of a configured device with user space: /dev/idxd_dwq-N or /dev/idxd_swq-N. */
export function registerIdxdUacce({ driver, wqs, kernel, id = 0 }: IdxdUacceOptions): ReturnType<typeof registerUacce> {
  const mode = wqs[0]?.config.mode;
  if (!mode || wqs.some((wq) => wq.config.mode !== mode)) throw new TypeError('registerIdxdUacce: wqs is one or more queues of one mode');
  const dedicated = mode === 'dedicated';
  const { iommu, device } = driver.ports;

  const ops: UacceOps<Mm, Private> = {
    ioctlNames: { [IDXD_UACCE_GET_INTERRUPT]: 'IDXD_UACCE_GET_INTERRUPT' },
    getAvailableInstances: () => (dedicated ? wqs.filter((wq) => wq.owner === undefined).length : wqs.length),
    getQueue(_pasid, queue) {
      // A free dedicated queue, or the shared one with the fewest users.
      const wq = dedicated ? wqs.find((w) => w.owner === undefined) : [...wqs].sort((a, b) => a.clients - b.clients)[0];
      if (!wq) return -Errno.EBUSY;
      if (dedicated) wq.owner = queue;
      wq.clients++;
      queue.private = { wq, interrupt: undefined, pending: 0, forget: undefined };
      return 0;
    },
    putQueue(queue) {
      const { wq, interrupt } = queue.private!;
      interrupt?.free();
      if (wq.owner === queue) wq.owner = undefined;
      wq.clients--;
    },
    startQueue(queue) {
      const error = driver.enableWq(queue.private!.wq, dedicated ? queue.pasid : undefined);
      if (error === 0) queue.private!.forget ??= driver.addUser(queue.pasid, queue.mm).remove;
      return error;
    },
    stopQueue(queue) {
      const { wq } = queue.private!;
      // What is in flight belongs to an address space that may be about to go.
      if (dedicated) driver.disableWq(wq);
      else driver.drainPasid(queue.pasid);
      queue.private!.forget?.();
      queue.private!.forget = undefined;
    },
    isQueueUpdated(queue) {
      const updated = queue.private!.pending > 0;
      queue.private!.pending = 0;
      return updated;
    },
    mmap(queue, area, region) {
      if (region !== UacceRegion.MMIO || area.length !== 4096) return -Errno.EINVAL;
      area.insert(0, driver.portalFrame(queue.private!.wq, queue.private!.interrupt?.ims ?? false));
      return 0;
    },
    ioctl(queue: Queue<Mm, Private>, task, number, argument) {
      if (number !== IDXD_UACCE_GET_INTERRUPT) return -Errno.EINVAL;
      const own = queue.private!;
      own.interrupt ??= driver.completionInterrupt(own.wq, queue.pasid, () => {
        own.pending++;
        queue.wake();
      });
      if (!own.interrupt) return -Errno.ENOSPC;
      return task.copyOut(argument, new Uint8Array(Uint32Array.of(own.interrupt.handle).buffer)) < 0 ? -Errno.EFAULT : 0;
    },
  };
  return registerUacce<Mm, Private>({
    name: dedicated ? 'idxd_dwq' : 'idxd_swq',
    id,
    api: dedicated ? 'idxd_dwq_v1' : 'idxd_swq_v1',
    algorithms: driver.capabilities?.type === 'iax' ? ['deflate', 'crc64'] : ['memmove', 'fill', 'compare', 'crc32c'],
    regionPages: [1, 0],
    ops,
    kernel,
    sva: { bind: (mm) => iommu.svaBind(device.requesterId, mm) },
  });
}
