/**
 * The driver of the simulated kernel for Intel DSA, and its character device. The user's side of a queue has the entry point
 * `@siov/idxd-driver/client`. Sources: Linux drivers/dma/idxd (behaviour), Documentation/ABI/stable/sysfs-driver-dma-idxd.
 */
export { type AttributeWrite, applyConfig, type ConfigError, type LoadedConfig, loadConfig, type SysfsAccess, saveConfig } from './accel-config.js';
export { type CdevOptions, userQueue } from './cdev.js';
export type { CompletionInterrupt } from './completion.js';
export { type Capabilities, checkConfig, type DeviceConfig, type WqConfig } from './config.js';
export { type DmaCallback, DmaChannel, type DmaResult } from './dma.js';
export { commandText, type DriverPorts, IdxdDriver, type SoftwareErrorRecord, type Wq } from './driver.js';
export type { User } from './event-log.js';
export type {
  Attribute,
  CoherentMemory,
  Interrupts,
  Iommu,
  Irq,
  KernelDma,
  Mm,
  Mmio,
  OpenFile,
  PciDevice,
  SvaHandle,
  SysfsTree,
  Task,
  UserSpace,
  VmArea,
  Waiter,
} from './ports.js';
export type { GroupSettings, Settings, WqSettings } from './settings.js';
export { SoftStatus } from './spec.js';
