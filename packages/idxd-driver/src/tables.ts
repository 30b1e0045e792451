/** GRPCFG and WQCFG: what the attributes say, in the device's tables, and back. Linux drivers/dma/idxd/device.c, idxd_device_config and idxd_device_load_config. */
import * as spec from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import type { Tables } from './capabilities.js';
import type { Capabilities, WqConfig } from './config.js';
import type { Hardware } from './hardware.js';
import { type Settings, settleWq } from './settings.js';

export function writeGroup(hardware: Hardware, at: Tables, can: Capabilities, settings: Settings, index: number): void {
  const { set } = spec.GroupCfg;
  const group = settings.groups[index]!;
  const words = new Uint32Array(spec.GroupCfg.bytes / 4);
  for (const [w, wq] of settings.wqs.entries()) if (wq.group === index) words[w >>> 5]! |= 1 << (w & 31);
  set.engines(
    words,
    0,
    settings.engines.reduce((mask, of, e) => (of === index ? mask | (1 << e) : mask), 0),
  );
  // Class 0 for low, 1 for high bandwidth memory is what a driver with a choice takes.
  set.trafficClassA(words, 0, Math.max(group.trafficClassA, 0));
  set.trafficClassB(words, 0, group.trafficClassB < 0 ? 1 : group.trafficClassB);
  set.useReadBufferLimit(words, 0, group.useReadBufferLimit ? 1 : 0);
  set.readBuffersReserved(words, 0, group.readBuffersReserved);
  set.readBuffersAllowed(words, 0, group.readBuffersAllowed || can.readBuffers);
  set.descriptorLimit(words, 0, group.descriptorLimit);
  set.batchLimit(words, 0, group.batchLimit);
  hardware.write(at.groups + index * spec.GroupCfg.bytes, words);
}

/** `pasid` undefined: none. Of a device whose configuration is fixed only the PASID is software's to say (Linux idxd_wq_set_pasid). */
export function writeWq(
  hardware: Hardware,
  tables: Tables,
  can: Capabilities,
  settings: Settings,
  index: number,
  pasid?: number,
  privileged = false,
): void {
  const wq = settings.wqs[index]!;
  const at = tables.wqs + index * tables.wqStride;
  const words = new Uint32Array(8);
  const { set } = spec.WqCfg;
  if (!can.configurable) {
    words[2] = hardware.read(at + 8);
    set.pasidEnable(words, 0, pasid === undefined ? 0 : 1);
    set.pasid(words, 0, pasid ?? 0);
    set.privileged(words, 0, privileged ? 1 : 0);
    hardware.write(at + 8, [words[2]!]);
    return;
  }
  set.size(words, 0, wq.size);
  set.threshold(words, 0, wq.mode === 'shared' ? wq.threshold : 0);
  set.mode(words, 0, spec.WqCfg.is.mode[wq.mode]);
  set.priority(words, 0, wq.priority);
  set.blockOnFault(words, 0, wq.blockOnFault ? 1 : 0);
  if (can.atsControl) set.atsDisable(words, 0, wq.atsDisable ? 1 : 0);
  if (can.prsControl) set.prsDisable(words, 0, wq.prsDisable ? 1 : 0);
  set.maxTransferShift(words, 0, Math.log2(wq.maxTransferSize));
  set.maxBatchShift(words, 0, Math.log2(wq.maxBatchSize));
  if (wq.mode === 'shared' || pasid !== undefined) set.pasidEnable(words, 0, 1);
  if (pasid !== undefined) set.pasid(words, 0, pasid);
  set.privileged(words, 0, privileged ? 1 : 0);
  hardware.write(at, words.subarray(0, 6));
  if (can.operationConfig) hardware.write(at + spec.WqCfg.bytes, wq.operations);
}

/**
 * A device whose configuration is fixed says it in its tables: into the settings, and as a configuration by queue. -EOPNOTSUPP: the kernel
 * takes dedicated queues without a PASID only, since it could not give a shared one its own.
 */
export function readConfiguration(hardware: Hardware, at: Tables, can: Capabilities, settings: Settings): readonly WqConfig[] | number {
  const groups = Array.from({ length: can.groups }, (_, g) => hardware.words(at.groups + g * spec.GroupCfg.bytes, spec.GroupCfg.bytes));
  const { get } = spec.WqCfg;
  const configs: WqConfig[] = [];
  for (let index = 0; index < can.wqs; index++) {
    const words = hardware.words(at.wqs + index * at.wqStride, 32);
    if (get.mode(words, 0) !== spec.WqCfg.is.mode.dedicated || get.pasidEnable(words, 0)) return -Errno.EOPNOTSUPP;
    const config: WqConfig = {
      mode: 'dedicated',
      size: get.size(words, 0),
      group: groups.findIndex((group) => (spec.GroupCfg.get.wqs(group, 0) >>> index) & 1),
      priority: get.priority(words, 0),
      maxTransferSize: 2 ** get.maxTransferShift(words, 0),
      maxBatchSize: 2 ** get.maxBatchShift(words, 0),
      type: 'user',
    };
    settleWq(settings.wqs[index]!, config, can);
    configs.push(config);
  }
  for (const [g, group] of groups.entries())
    for (let e = 0; e < can.engines; e++) if ((spec.GroupCfg.get.engines(group, 0) >>> e) & 1) settings.engines[e] = g;
  return configs;
}
