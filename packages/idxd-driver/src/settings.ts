/**
 * What the attributes of device, groups, engines and queues say: written through sysfs or by `configure`, and put into the device's tables
 * when it is enabled. Linux drivers/dma/idxd/idxd.h; cleared as in idxd_device_clear_state.
 */
import type { Capabilities, DeviceConfig, WqConfig } from './config.js';
import { WqDefault } from './spec.js';

export interface WqSettings {
  mode: 'dedicated' | 'shared';
  size: number;
  /** -1: in none. */
  group: number;
  priority: number;
  threshold: number;
  blockOnFault: boolean;
  atsDisable: boolean;
  prsDisable: boolean;
  maxTransferSize: number;
  maxBatchSize: number;
  type: 'none' | 'kernel' | 'user' | 'mdev';
  name: string;
  driverName: string;
  enqcmdsRetries: number;
  /** Bit per operation that the queue takes. */
  operations: Uint32Array;
}
export interface GroupSettings {
  readBuffersReserved: number;
  /** 0: all that the device has. */
  readBuffersAllowed: number;
  useReadBufferLimit: boolean;
  /** -1: the driver's choice. */
  trafficClassA: number;
  trafficClassB: number;
  descriptorLimit: number;
  batchLimit: number;
}
export interface Settings {
  readBufferLimit: number;
  eventLogSize: number;
  readonly wqs: WqSettings[];
  readonly groups: GroupSettings[];
  /** By engine: its group, or -1. */
  readonly engines: number[];
}

/** Up to DSA 2.0 both traffic classes are 1 and fixed, since the platform does nothing better with others. */
export const trafficClassesAreFixed = (can: Capabilities): boolean => can.version <= 0x200;

export function newSettings(can: Capabilities): Settings {
  const settings: Settings = {
    readBufferLimit: 0,
    eventLogSize: 64,
    wqs: Array.from({ length: can.wqs }, () => ({ ...emptyWq(can), size: 0, group: -1 })),
    groups: [],
    engines: [],
  };
  clearDevice(settings, can);
  for (const group of settings.groups) group.readBuffersAllowed = can.readBuffers;
  return settings;
}

const emptyWq = (can: Capabilities) =>
  ({
    mode: 'shared',
    priority: 0,
    threshold: 0,
    blockOnFault: false,
    atsDisable: false,
    prsDisable: false,
    maxTransferSize: Math.min(WqDefault.maxTransferSize, 2 ** can.maxTransferShift),
    maxBatchSize: Math.min(WqDefault.maxBatchSize, 2 ** can.maxBatchShift),
    type: 'none',
    name: '',
    driverName: '',
    enqcmdsRetries: WqDefault.enqcmdsRetries,
    operations: can.operationMask.slice(),
  }) as const;

/** A queue that was disabled keeps its size, its group and the name of its driver. */
export function clearWq(wq: WqSettings, can: Capabilities): void {
  const { driverName } = wq;
  Object.assign(wq, emptyWq(can), { driverName });
}

/** A device that was disabled or reset: nothing is in a group, and nothing has a size. */
export function clearDevice(settings: Settings, can: Capabilities): void {
  for (const wq of settings.wqs) {
    clearWq(wq, can);
    wq.size = 0;
    wq.group = -1;
  }
  const trafficClass = trafficClassesAreFixed(can) ? 1 : -1;
  settings.groups.length = settings.engines.length = 0;
  for (let g = 0; g < can.groups; g++)
    settings.groups.push({
      readBuffersReserved: 0,
      readBuffersAllowed: 0,
      useReadBufferLimit: false,
      trafficClassA: trafficClass,
      trafficClassB: trafficClass,
      descriptorLimit: 0,
      batchLimit: 0,
    });
  for (let e = 0; e < can.engines; e++) settings.engines.push(-1);
}

/** Settings as `configure` asks for them; the configuration was checked. */
export function settle(settings: Settings, config: DeviceConfig, can: Capabilities): void {
  clearDevice(settings, can);
  for (const [index, wq] of config.wqs.entries()) settleWq(settings.wqs[index]!, wq, can);
  const groups = config.groups ?? [{ engines: Array.from({ length: can.engines }, (_, e) => e) }];
  for (const [group, { engines }] of groups.entries()) for (const engine of engines) settings.engines[engine] = group;
}
export function settleWq(to: WqSettings, wq: WqConfig, can: Capabilities): void {
  to.mode = wq.mode;
  to.size = wq.size;
  to.group = wq.group;
  to.priority = wq.priority ?? 10;
  to.threshold = wq.mode === 'shared' ? (wq.threshold ?? wq.size) : 0;
  to.blockOnFault = wq.blockOnFault ?? false;
  to.maxTransferSize = wq.maxTransferSize || 2 ** can.maxTransferShift;
  to.maxBatchSize = wq.maxBatchSize || 2 ** can.maxBatchShift;
  to.type = wq.type ?? 'user';
  to.name = wq.name ?? '';
  to.driverName = to.type === 'kernel' ? 'dmaengine' : to.type;
}
/** The way back: a queue's settings in the words of `configure`. */
export function configOf(wq: WqSettings): WqConfig {
  return {
    mode: wq.mode,
    size: wq.size,
    group: wq.group,
    priority: wq.priority,
    ...(wq.mode === 'shared' ? { threshold: wq.threshold } : {}),
    blockOnFault: wq.blockOnFault,
    maxTransferSize: wq.maxTransferSize,
    maxBatchSize: wq.maxBatchSize,
    ...(wq.type === 'none' ? {} : { type: wq.type }),
    ...(wq.name === '' ? {} : { name: wq.name }),
  };
}
