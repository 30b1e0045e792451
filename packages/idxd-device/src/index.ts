/**
 * A functional model of the Intel Data Streaming Accelerator. Facts have the entry point `@siov/idxd-device/spec`.
 * Sources: Intel Data Streaming Accelerator Architecture Specification (341204), linux/idxd.h, Linux drivers/dma/idxd/registers.h.
 */
export { type DeviceCosts, noCosts } from './costs.js';
export { Counter } from './counters.js';
export { crc32c } from './crc.js';
export { type DeviceOptions, IdxdDevice } from './device.js';
export type { Clock, Extent, Native, Trace, Upstream } from './ports.js';
export { type Check, defaultCheckOrder, defaultGroupChecks, type GroupCheck, gnrD, type Profile, sprDsa, vdev } from './profiles.js';
export type { Tables } from './registers.js';
export type { ScheduleOptions } from './schedule.js';
