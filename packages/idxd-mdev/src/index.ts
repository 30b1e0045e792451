/**
 * Userspace model 1: virtual devices composed of a work queue of DSA, for VFIO. Sources: the kernel series "VFIO mediated device support for
 * idxd" (2020, 2021; Documentation/driver-api/vfio/mdev-idxd.rst), linux/vfio.h.
 */
export { type IdxdMdevParent, idxdMdevParent, TYPE_1DWQ } from './parent.js';
export type { PasidDomains } from './ports.js';
export { Vdev, type VdevPorts } from './vdev.js';
