/**
 * Intel VT-d scalable mode. `IommuUnit` is the hardware: PASID tables, first stage, second stage and nested walks from memory, caches,
 * the invalidation queue, page requests, interrupt remapping. `RegisterFront` is its register and queue front alone, for a virtual IOMMU.
 * `IommuDriver` is the software on top: domains, SVA, interrupts, iommufd. Sources: Intel Virtualization Technology for Directed I/O,
 * PCI Express Base Specification, linux/iommufd.h.
 */
export type { CoherentMemory, DmaSpace, FlushQueueOptions } from './driver/dma.js';
export type { DriverCosts, DriverPorts } from './driver/driver.js';
export { IommuDriver } from './driver/driver.js';
export type { Access, AccessOwner } from './driver/iommufd/access.js';
export { type IommufdContext, IommufdDevice, type IommufdFile, type IommufdOptions } from './driver/iommufd/file.js';
export type * from './driver/iommufd/ops.js';
export type {
  AttachHandle,
  AttachTarget,
  DeviceCapabilities,
  Domain,
  DomainEvents,
  FaultRecord,
  NestedDomain,
  PageRequestEvent,
  PagingDomain,
  SvaHandle,
} from './driver/types.js';
export type * from './ports.js';
export { UnitCounter } from './unit/counters.js';
export type { FrontHooks, FrontOptions } from './unit/front.js';
export { RegisterFront } from './unit/front.js';
export { InterruptRemapper } from './unit/interrupts.js';
export type { CacheSizes, Profile, UnitCosts } from './unit/options.js';
export { describeStale, type MissingInvalidation, type StaleUse, type Translation } from './unit/stale.js';
export type { UnitOptions } from './unit/unit.js';
export { IommuUnit } from './unit/unit.js';
