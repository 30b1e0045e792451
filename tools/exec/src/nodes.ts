/** Device nodes of the simulated kernel, and their numbers as stat(2) gives them. Documentation/admin-guide/devices.txt. */
import type { Machine } from './machine.js';

/** Majors that the kernel hands out when a driver starts; those of the accelerators' queues stand in their attributes. */
const Major = { misc: 10, group: 240, device: 241, other: 242 } as const;
const VFIO_MINOR = 196;
const IOMMU_MINOR = 121;

/** All that programs can open. /dev/iommu is there where a device is that could be bound to it. */
export function nodesOf({ host }: Machine): ReadonlyMap<string, number> {
  const { user } = host.kernel;
  const nodes = new Map<string, number>();
  const paths = user.nodes();
  const vfio = paths.some((path) => path.startsWith('/dev/vfio/'));
  let others = 0;
  const number = (path: string): number => {
    const [, type, queue, device] = /^\/dev\/(dsa|iax)\/(wq(\d+)\.\d+)$/.exec(path) ?? [];
    if (queue !== undefined) {
      const text = (name: string): number => Number(user.sysfs.read(`/sys/bus/dsa/devices/${name}`));
      return (text(`${type}${device}/cdev_major`) << 8) | text(`${queue}/cdev_minor`);
    }
    if (path === '/dev/vfio/vfio') return (Major.misc << 8) | VFIO_MINOR;
    if (path === '/dev/iommu') return (Major.misc << 8) | IOMMU_MINOR;
    const [, cdev, minor] = /^\/dev\/vfio\/(devices\/vfio)?(\d+)$/.exec(path) ?? [];
    return minor === undefined ? (Major.other << 8) | others++ : ((cdev ? Major.device : Major.group) << 8) | Number(minor);
  };
  for (const path of paths) if (path !== '/dev/iommu' || vfio) nodes.set(path, number(path));
  return nodes;
}
