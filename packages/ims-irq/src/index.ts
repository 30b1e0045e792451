/**
 * Interrupt domains of the simulated kernel: who composes a message (vector domain, or the remapping domain of an IOMMU driver) and where
 * a device finds it (MSI-X table, IMS). Sources: PCI Local Bus 3.0 (MSI-X), Linux kernel/irq/msi.c, the irq-ims-msi series of 2020.
 */
export { type Irq, type IrqParent, type IrqParentHandle, type Message, VectorDomain } from './domain.js';
export type { ConfigSpace, Mmio, Vectors } from './ports.js';
export { ImsDomain, ImsSlot, MsixDomain } from './stores.js';
