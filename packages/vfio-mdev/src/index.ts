/**
 * VFIO in the simulated kernel: device files, containers and groups, the mdev bus with its types, and an adapter that shows a plain PCI
 * function. linux/vfio.h; Documentation/driver-api/vfio.rst and vfio-mediated-device.rst.
 */
export type { CdevPorts } from './cdev.js';
export type { ContainerPorts } from './container.js';
export type { VfioNodes, VfioOptions } from './core.js';
export { VfioCore } from './core.js';
export type { MdevBusOptions, MdevParent, MdevType } from './mdev.js';
export { MdevBus } from './mdev.js';
export type { InterruptPort } from './pci-irqs.js';
export { PciIrqs } from './pci-irqs.js';
export type * from './ports.js';
export type { IrqSetCall } from './set-irqs.js';
export { refusals } from './set-irqs.js';
export type { IovaRange, Type1Options } from './type1.js';
export type { AttachPort, BarMmio, PciPort, VfioPciOptions } from './vfio-pci.js';
export { VfioPciDevice } from './vfio-pci.js';
