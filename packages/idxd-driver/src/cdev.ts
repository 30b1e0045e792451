/**
 * The driver's own character device, /dev/dsa/wqD.W or /dev/iax/wqD.W: open binds the caller's address space to a PASID, mmap gives the queue's limited portal,
 * write submits, close drains. Linux drivers/dma/idxd/cdev.c.
 */

import { DESCRIPTOR_BYTES, Descriptor, Opcode } from '@siov/idxd-device/spec';
import { Errno, Poll } from '@siov/layout/uapi';
import type { IdxdDriver, Wq } from './driver.js';
import type { User } from './event-log.js';
import type { OpenFile, SysfsTree, Task, UserSpace, VmArea } from './ports.js';

export interface CdevOptions {
  /** The way to a portal by write(): posts 64 bytes to a page frame, or enqueues them (0 taken, 1 retry). Absent: write answers EINVAL. */
  readonly submit?: {
    movdir64b(frame: number, offset: number, words: Uint32Array): void;
    enqcmds(frame: number, offset: number, words: Uint32Array): number;
  };
  /** How often a write() to a full shared queue tries again. Default: what the queue's enqcmds_retries says. */
  readonly enqcmdsRetries?: number;
}

/** Makes the node of a user queue; returns how to remove it. */
export function userQueue(driver: IdxdDriver, wq: Wq, options: CdevOptions = {}): { readonly path: string; remove(): void } {
  const path = `${driver.devPath}/wq${driver.id}.${wq.index}`;
  const { kernel } = driver.ports;
  kernel.register(path, { open: (task) => openQueue(driver, wq, task, options) });
  const taken = minors.get(kernel) ?? new Set<number>();
  minors.set(kernel, taken);
  let minor = 0;
  while (taken.has(minor)) minor++;
  taken.add(minor);
  wq.minor = minor;
  let there = true;
  const remove = (): void => {
    if (!there) return;
    there = false;
    kernel.unregister(path);
    taken.delete(minor);
    wq.minor = undefined;
  };
  return { path, remove };
}
/** The open file in sysfs, below its queue: who has it, and what became of its completion records. */
function addFile(driver: IdxdDriver, wq: Wq, pid: number, user: User): { remove(): void } {
  const { sysfs } = driver.ports.kernel;
  if (!sysfs) return { remove() {} };
  const taken = files.get(sysfs) ?? new Set<number>();
  files.set(sysfs, taken);
  let id = 0;
  while (taken.has(id)) id++;
  taken.add(id);
  const path = `${driver.sysfsPath}/wq${driver.id}.${wq.index}/file${id}`;
  sysfs.add(`${path}/cr_faults`, { show: () => `${user.faults}\n` });
  sysfs.add(`${path}/cr_fault_failures`, { show: () => `${user.failures}\n` });
  sysfs.add(`${path}/pid`, { show: () => `${pid}\n` });
  return {
    remove() {
      taken.delete(id);
      sysfs.remove(path);
    },
  };
}
/** File numbers in use, by kernel. */
const files = new WeakMap<SysfsTree, Set<number>>();
/** Minor numbers in use, by kernel. */
const minors = new WeakMap<UserSpace, Set<number>>();

function openQueue(driver: IdxdDriver, wq: Wq, task: Task, options: CdevOptions): OpenFile | number {
  const dedicated = wq.config.mode === 'dedicated';
  if (!driver.enabled) return -Errno.ENXIO;
  if (dedicated && wq.owner !== undefined) return -Errno.EBUSY;
  const { iommu, device } = driver.ports;
  const handle = iommu.svaBind(device.requesterId, task.mm);
  if (typeof handle === 'number') return handle;
  const { pasid } = handle;
  const { mm } = task;
  mm.pasid = pasid;
  // A dedicated queue carries its PASID itself: off, written, on again.
  if (dedicated) driver.disableWq(wq);
  const error = driver.enableWq(wq, dedicated ? pasid : undefined);
  if (error !== 0) {
    handle.unbind();
    return error;
  }
  if (dedicated) wq.owner = handle;
  wq.clients++;
  const { user, remove: forget } = driver.addUser(pasid, mm);
  const file = addFile(driver, wq, task.pid, user);
  const mapped = new Set<VmArea>();
  let gone = false;
  const revoke = (): void => {
    gone = true;
    for (const area of mapped) area.zap();
  };
  wq.holders.add(revoke);
  const words = new Uint32Array(DESCRIPTOR_BYTES / 4);
  const bytes = new Uint8Array(words.buffer);

  return {
    mmap(by, area) {
      if (by.mm !== mm) return -Errno.EPERM;
      if (gone) return -Errno.ENODEV;
      if (area.length !== 4096) return -Errno.EINVAL;
      area.dontCopy = true;
      area.insert(0, driver.portalFrame(wq));
      mapped.add(area);
      return 0;
    },
    write(by, address, length) {
      if (by.mm !== mm) return -Errno.EPERM;
      if (gone) return -Errno.ENODEV;
      if (!options.submit) return -Errno.EINVAL;
      let done = 0;
      for (; done + DESCRIPTOR_BYTES <= length; done += DESCRIPTOR_BYTES) {
        const error = by.copyIn(address + done, bytes) || submit(words);
        if (error < 0) return done > 0 ? done : error;
      }
      return done;
    },
    poll: (by) => (by.mm !== mm ? Poll.NVAL : gone ? Poll.ERR : driver.softwareErrors.length > 0 ? Poll.IN : 0),
    close() {
      for (const area of mapped) area.zap();
      if (!gone) {
        if (dedicated) {
          driver.disableWq(wq);
          wq.owner = undefined;
          // A queue that is bound stays on, without a PASID.
          if (wq.driver) driver.enableWq(wq);
        } else driver.drainPasid(pasid);
        wq.clients--;
        wq.holders.delete(revoke);
      }
      file.remove();
      forget();
      handle.unbind();
    },
  };

  function submit(descriptor: Uint32Array): number {
    const { type, version, recordBytes } = driver.capabilities;
    if (type === 'dsa' && Descriptor.get.opcode(descriptor, 0) === Opcode.batch && version < 0x200) return -Errno.EINVAL;
    if (Descriptor.get.recordLow(descriptor, 0) % recordBytes !== 0) return -Errno.EINVAL;
    const frame = driver.portalFrame(wq);
    if (dedicated) {
      options.submit!.movdir64b(frame, 0, descriptor);
      return 0;
    }
    Descriptor.set.privileged(descriptor, 0, 0);
    Descriptor.set.pasid(descriptor, 0, pasid);
    for (let tries = options.enqcmdsRetries ?? driver.settings.wqs[wq.index]!.enqcmdsRetries; tries >= 0; tries--)
      if (options.submit!.enqcmds(frame, 0, descriptor) === 0) return 0;
    return -Errno.EAGAIN;
  }
}
