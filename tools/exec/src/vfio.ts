/**
 * Accelerators that programs have whole, through VFIO: /dev/vfio/vfio with a group, or a device node with /dev/iommu. What the simulated kernel's
 * vfio-pci is bound to stands in /sys/bus/pci/devices. Linux, Documentation/driver-api/vfio.rst.
 */
import type { Host } from '@siov/stack';
import { type BoundVfioPci, bindVfioPci, vfioOf } from '@siov/stack/vfio';

/** Binds vfio-pci to functions that nothing is bound to. */
export function offerVfio(host: Host, devices: readonly Host['kernel']['devices'][number][]): readonly BoundVfioPci[] {
  if (devices.length === 0) return [];
  const core = vfioOf(host);
  return devices.map((device) => bindVfioPci(host, core, device));
}
