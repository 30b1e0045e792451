/**
 * Binding drivers to a device and to its queues: what enables them. The refusals are in the kernel's order, and say why in cmd_status.
 * Linux drivers/dma/idxd/device.c (idxd_device_drv_probe, drv_enable_wq), cdev.c (idxd_user_drv_probe), dma.c.
 */
import { Errno } from '@siov/layout/uapi';
import { userQueue } from './cdev.js';
import { DmaChannel } from './dma.js';
import type { IdxdDriver, Wq } from './driver.js';
import { clearDevice, clearWq, configOf } from './settings.js';
import { SoftStatus, WqDefault } from './spec.js';

/** The drivers of queues. 'mdev' is the RFC's: the queue stays off until its virtual device wants it. */
export const WQ_DRIVERS = ['user', 'dmaengine', 'mdev'] as const;
export type WqDriver = (typeof WQ_DRIVERS)[number];
const typeOf = { user: 'user', dmaengine: 'kernel', mdev: 'mdev' } as const;

export function bindDevice(driver: IdxdDriver): number {
  return driver.enable();
}
/** Queues first. A device that halted stays so, but has nothing of its configuration left. */
export function unbindDevice(driver: IdxdDriver): void {
  if (driver.enabled) driver.disable();
  else {
    for (const wq of driver.wqs) if (wq.driver) unbindWq(driver, wq);
    if (driver.capabilities.configurable) clearDevice(driver.settings, driver.capabilities);
    driver.bound = false;
  }
}

export function bindWq(driver: IdxdDriver, index: number, name: WqDriver): number {
  const { capabilities: can } = driver;
  const settings = driver.settings.wqs[index]!;
  const refuse = (status: SoftStatus, errno: number): number => {
    driver.commandStatus = status;
    return -errno;
  };
  if (!driver.enabled) return -Errno.ENXIO;
  if (name === 'user' && !can.pasid) return refuse(SoftStatus.wqUserNoIommu, Errno.EOPNOTSUPP);
  if (!settings.driverName.startsWith(name)) return refuse(SoftStatus.wqNoDriverName, Errno.ENODEV);
  const wq = driver.queue(index);
  if (wq.enabled) return refuse(SoftStatus.wqEnabled, Errno.EBUSY);
  settings.type = typeOf[name];
  const error = enable();
  if (error < 0) settings.type = 'none';
  else {
    wq.driver = name;
    driver.commandStatus = 0;
  }
  return error;

  function enable(): number {
    if (settings.group < 0) return refuse(SoftStatus.wqNoGroup, Errno.ENXIO);
    if (settings.name === '') return refuse(SoftStatus.wqNoName, Errno.ENXIO);
    if (settings.mode === 'shared') {
      if (!can.pasid || !can.sharedMode) return refuse(SoftStatus.wqNoSva, Errno.ENXIO);
      if (settings.threshold === 0) return refuse(SoftStatus.wqNoThreshold, Errno.ENXIO);
    }
    if (settings.size === 0) settings.size = WqDefault.size;
    wq.config = configOf(settings);
    if (name === 'mdev') return 0;
    if (name === 'dmaengine') return channel(wq);
    const failed = driver.enableWq(wq);
    if (failed < 0) return failed;
    if (wq.minor !== undefined) {
      driver.disableWq(wq);
      return refuse(SoftStatus.characterDevice, Errno.EEXIST);
    }
    const { submit } = driver.ports;
    wq.node = userQueue(driver, wq, submit ? { submit } : {});
    return 0;
  }
  /** A dedicated queue of the kernel goes by the function's own address space; a shared one needs a PASID for it. Linux idxd_dmaengine_drv_probe. */
  function channel(wq: Wq): number {
    const { dma } = driver;
    if (!dma) return refuse(SoftStatus.deviceDma, Errno.EOPNOTSUPP);
    const pasid = settings.mode === 'shared' ? dma.enablePasid() : -1;
    if (settings.mode === 'shared' && pasid < 0) return refuse(SoftStatus.wqNoPrivilege, Errno.EOPNOTSUPP);
    const failed = driver.enableWq(wq, pasid < 0 ? undefined : pasid, pasid >= 0);
    if (failed < 0) return failed;
    const opened = DmaChannel.open(driver, wq, pasid);
    if (typeof opened !== 'number') {
      wq.channel = opened;
      return 0;
    }
    driver.disableWq(wq);
    return refuse(
      opened === -Errno.ENOSPC ? SoftStatus.wqInterrupt : opened === -Errno.ENOMEM ? SoftStatus.wqResources : SoftStatus.dmaChannel,
      -opened,
    );
  }
}

/**
 * The queue goes off with what its attributes said, but for size and group. Who has it open keeps a file that answers ENODEV: a mapping of
 * the portal is taken away, since its next owner's PASID would be in its descriptors.
 */
export function unbindWq(driver: IdxdDriver, wq: Wq): void {
  wq.node?.remove();
  wq.node = undefined;
  for (const revoke of [...wq.holders]) revoke();
  wq.holders.clear();
  wq.owner = undefined;
  wq.clients = 0;
  driver.disableWq(wq);
  wq.channel?.close();
  wq.channel = undefined;
  wq.driver = undefined;
  const settings = driver.settings.wqs[wq.index]!;
  if (driver.capabilities.configurable) clearWq(settings, driver.capabilities);
  else Object.assign(settings, { type: 'none', name: '' });
}
