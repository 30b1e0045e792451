/** The mdev parent: the idxd driver's dedicated queues of type mdev, each of which can become a virtual device of type 1dwq-v1. */
import type { IdxdDriver, Wq } from '@siov/idxd-driver';
import { Errno } from '@siov/layout/uapi';
import type { MdevParent } from '@siov/vfio-mdev';
import type { PasidDomains } from './ports.js';
import { Vdev } from './vdev.js';

/** The one type there is. Linux's name for it: idxd-1dwq-v1. */
export const TYPE_1DWQ = '1dwq-v1';

/** For `MdevBus.registerParent`. */
export interface IdxdMdevParent extends MdevParent {
  /** The virtual devices that live, by uuid. */
  readonly devices: ReadonlyMap<string, Vdev>;
}

export function idxdMdevParent({ driver, iommu }: { readonly driver: IdxdDriver; readonly iommu: PasidDomains }): IdxdMdevParent {
  const devices = new Map<string, Vdev>();
  const free = (): Wq[] => driver.wqs.filter((wq) => wq.config.type === 'mdev' && wq.config.mode === 'dedicated' && wq.owner === undefined);
  return {
    name: driver.ports.device.name,
    driverName: 'idxd',
    types: [{ sysfsName: TYPE_1DWQ, available: () => free().length, description: () => 'one dedicated work queue of a DSA device' }],
    devices,
    create(type, uuid) {
      const wq = free()[0];
      if (type.sysfsName !== TYPE_1DWQ) return -Errno.EINVAL;
      if (!wq) return -Errno.EUSERS;
      const vdev = new Vdev(uuid, { driver, wq, iommu });
      wq.owner = vdev;
      wq.clients++;
      devices.set(uuid, vdev);
      return vdev;
    },
    remove(device) {
      const vdev = devices.get(device.name);
      if (!vdev) return;
      devices.delete(device.name);
      const wq = driver.wqs.find((w) => w.owner === vdev);
      if (wq) {
        wq.owner = undefined;
        wq.clients--;
      }
    },
  };
}
