import { Client } from '@siov/idxd-driver/client';
import { MapFlag, Open, Prot } from '@siov/layout/uapi';
import { UacceIoctl, UacceRegion } from '@siov/uacce/uapi';
import type { UserTask } from '@siov/vfs';
// The same machine that the driver's own tests run on.
import { machine as driverMachine } from '../../idxd-driver/test/machine.js';
import { registerIdxdUacce } from '../src/index.js';

/** The driver's machine with its queues, all of one mode, shared through uacce. */
export function machine(mode: 'dedicated' | 'shared', queues = 1) {
  const m = driverMachine({ config: { wqs: Array.from({ length: queues }, () => ({ mode, size: 16, group: 0 }) as const) } });
  const uacce = registerIdxdUacce({ driver: m.driver, wqs: m.driver.wqs, kernel: m.kernel });
  const { path } = uacce;
  const map = (t: UserTask, fd: number, length = 4096, region: number = UacceRegion.MMIO): number =>
    t.mmap(0, length, Prot.WRITE, MapFlag.SHARED, fd, region * 4096);
  /** open, mmap, START_Q by system calls of `t`, and a client on the portal. */
  const start = (t: UserTask, options: { interruptHandle?: number; depth?: number } = {}) => {
    const fd = t.open(path, Open.RDWR);
    const portal = map(t, fd);
    const started = t.ioctl(fd, UacceIoctl.START_Q, 0);
    if (fd < 0 || portal < 0 || started < 0) throw new RangeError(`start: ${fd} ${portal} ${started}`);
    return { fd, portal, client: new Client(t, { address: portal, mode }, { depth: 8, ...options }) };
  };
  const available = (): number => Number(m.kernel.sysfs.read(`/sys/class/uacce/${path.slice(5)}/available_instances`));
  const bound = (pasid: number): boolean => m.iommu.attachedTo(m.pci.requesterId, pasid) !== undefined;
  return { ...m, uacce, path, map, start, available, bound };
}
