/** Numbers of the configuration interface. linux/idxd.h, enum idxd_scmd_stat; Linux drivers/dma/idxd/idxd.h. */

/** What cmd_status says when the driver itself refused: bit 31 set, unlike the device's codes. */
export const SoftStatus = {
  deviceEnabled: 0x8000_0010,
  deviceNotEnabled: 0x8000_0020,
  wqEnabled: 0x8000_0021,
  deviceDma: 0x8002_0000,
  wqNoGroup: 0x8003_0000,
  wqNoName: 0x8004_0000,
  wqNoSva: 0x8005_0000,
  wqNoThreshold: 0x8006_0000,
  wqPortal: 0x8007_0000,
  wqResources: 0x8008_0000,
  percpu: 0x8009_0000,
  dmaChannel: 0x800a_0000,
  characterDevice: 0x800b_0000,
  wqNoSharedSupport: 0x800c_0000,
  wqNoneConfigured: 0x800d_0000,
  wqNoSize: 0x800e_0000,
  wqNoPrivilege: 0x800f_0000,
  wqInterrupt: 0x8010_0000,
  wqUserNoIommu: 0x8011_0000,
  eventLog: 0x8012_0000,
  wqNoDriverName: 0x8020_0000,
} as const;
export type SoftStatus = (typeof SoftStatus)[keyof typeof SoftStatus];

/** What a queue has before anyone writes its attributes, and limits of what may be written. */
export const WqDefault = { size: 4, maxTransferSize: 2 ** 21, maxBatchSize: 32, enqcmdsRetries: 32 } as const;
export const Limit = {
  priority: 15,
  enqcmdsRetries: 64,
  name: 1024,
  driverName: 128,
  trafficClass: 7,
  eventLogMin: 64,
  eventLogMax: 65535,
  operations: 256,
} as const;
/** Functions that are analytics accelerators; every other one is a DSA. Linux drivers/dma/idxd/registers.h, PCI_DEVICE_ID_INTEL_IA[AX]_*. */
export const IAX_DEVICES: readonly number[] = [0x0cfe, 0x1216, 0xb02d, 0xfd2d];
/** Character device major of the queues; the kernel gives out what is free. */
export const CDEV_MAJOR = 235;
