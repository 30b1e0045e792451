/**
 * /dev/iommu: objects of an open file, their ioctls, and the door for VFIO, which binds devices and attaches them. linux/iommufd.h.
 */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { CharDevice, OpenFile, Task } from '../ports.js';
import { HwptAllocFlag, IommufdIoctl } from '../spec/iommufd.js';
import type { IommuDriver } from './driver.js';
import type { Ioas } from './ioas.js';
import { ioctls, MAX_WORDS } from './iommufd-ioctls.js';
import type { Domain, NestedDomain, PagingDomain } from './types.js';

/** A file of /dev/iommu, as VFIO sees it. */
export interface IommufdContext {
  /** A device object for a function of this driver; its id, or -errno. Devices that share a parent's RID each bind it. */
  bindDevice(requesterId: number): number;
  /** Attaches to an HWPT or (RID only) an IOAS, in place of what is attached. 0 or -errno. `pasid` NO_PASID: the RID. */
  attach(deviceId: number, ptId: number, pasid: number): number;
  detach(deviceId: number, pasid: number): void;
  /** Detaches everything and takes the object away; with the last one of a closed file, all its objects. */
  unbind(deviceId: number): void;
  /**
   * The domain behind an HWPT, or an IOAS's own; -errno. For a device that attaches (parent RID, host PASID) by itself through
   * IommuDriver.attachPasid: while attached, the object cannot be destroyed.
   */
  domainOf(ptId: number): Domain | number;
}

interface DeviceObject {
  readonly kind: 'device';
  readonly requesterId: number;
  /** By PASID. */
  readonly attached: Map<number, HwptObject>;
}
export interface IoasObject {
  readonly kind: 'ioas';
  readonly ioas: Ioas;
  /** Made when a device is attached to the IOAS itself. */
  automatic: HwptObject | undefined;
  hwpts: number;
}
export interface HwptObject {
  readonly kind: 'hwpt';
  readonly domain: PagingDomain | NestedDomain;
  readonly ioas: IoasObject | undefined;
  readonly parent: HwptObject | undefined;
  readonly flags: number;
  users: number;
}
export type IommufdObject = DeviceObject | IoasObject | HwptObject;

/** Names as in the header, for whoever counts calls. */
const ioctlNames: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(IommufdIoctl).map(([name, number]) => [number, `IOMMU_${name}`]),
);

export class IommufdFile implements OpenFile, IommufdContext {
  readonly driver: IommuDriver;
  readonly ioctlNames = ioctlNames;
  readonly objects = new Map<number, IommufdObject>();
  private next = 1;
  private closed = false;

  constructor(driver: IommuDriver) {
    this.driver = driver;
  }

  /** Reads the structure as long as the caller says it is, runs the ioctl, writes it back. */
  ioctl(task: Task, number: number, argument: number): number {
    const row = ioctls.get(number >>> 0);
    if (!row) return -Errno.ENOTTY;
    const words = new Uint32Array(MAX_WORDS);
    const bytes = new Uint8Array(words.buffer);
    const { size: known } = row;
    if (task.copyIn(argument, bytes.subarray(0, 4))) return -Errno.EFAULT;
    const size = words[0]!;
    if (size < row.least) return -Errno.EINVAL;
    if (size > 4096) return -Errno.E2BIG;
    const all = new Uint8Array(size);
    if (task.copyIn(argument, all)) return -Errno.EFAULT;
    if (all.subarray(known).some((byte) => byte !== 0)) return -Errno.E2BIG;
    bytes.set(all.subarray(0, known));
    const result = row.run(this, task, words);
    if (result < 0 && !row.alwaysAnswers) return result;
    return task.copyOut(argument, bytes.subarray(0, Math.min(size, known))) ? -Errno.EFAULT : result;
  }

  /**
   * The program's last reference is gone. A device that VFIO bound holds the objects until it unbinds, since it may be attached to them by
   * itself. Linux, iommufd_device_bind: iommufd_ctx_get.
   */
  close(): void {
    this.closed = true;
    this.settleAll();
  }
  /** Page tables, then address spaces, once neither the program nor a device holds them. */
  private settleAll(): void {
    if (!this.closed) return;
    for (const object of this.objects.values()) if (object.kind === 'device') return;
    for (const object of this.objects.values()) if (object.kind === 'hwpt' && object.parent) object.domain.free();
    for (const object of this.objects.values()) if (object.kind === 'hwpt' && object.ioas) this.freePaging(object);
    for (const object of this.objects.values()) if (object.kind === 'ioas') this.freeIoas(object);
    this.objects.clear();
  }

  add(object: IommufdObject): number {
    this.objects.set(this.next, object);
    return this.next++;
  }
  find<K extends IommufdObject['kind']>(id: number, kind: K): Extract<IommufdObject, { kind: K }> | undefined {
    const object = this.objects.get(id);
    return object?.kind === kind ? (object as Extract<IommufdObject, { kind: K }>) : undefined;
  }

  bindDevice(requesterId: number): number {
    if (!this.driver.capabilitiesOf(requesterId)) return -Errno.ENODEV;
    return this.add({ kind: 'device', requesterId, attached: new Map() });
  }

  attach(deviceId: number, ptId: number, pasid: number): number {
    const device = this.find(deviceId, 'device');
    if (!device) return -Errno.ENOENT;
    const hwpt = this.hwptOf(ptId, pasid === NO_PASID);
    if (typeof hwpt === 'number') return hwpt;
    if (pasid !== NO_PASID && !(hwpt.flags & HwptAllocFlag.PASID)) return this.settle(hwpt, -Errno.EINVAL);
    const before = device.attached.get(pasid);
    if (before === hwpt) return 0;
    let error: number;
    if (pasid === NO_PASID) error = this.driver.attach(device.requesterId, hwpt.domain);
    else {
      if (before) this.driver.detachPasid(device.requesterId, pasid);
      error = this.driver.attachPasid(device.requesterId, pasid, hwpt.domain);
      if (error && before) this.driver.attachPasid(device.requesterId, pasid, before.domain);
    }
    if (error) return this.settle(hwpt, error);
    device.attached.set(pasid, hwpt);
    hwpt.users++;
    if (before) this.release(before);
    return 0;
  }

  detach(deviceId: number, pasid: number): void {
    const device = this.find(deviceId, 'device');
    const hwpt = device?.attached.get(pasid);
    if (!device || !hwpt) return;
    device.attached.delete(pasid);
    if (pasid === NO_PASID) this.driver.attach(device.requesterId, undefined);
    else this.driver.detachPasid(device.requesterId, pasid);
    this.release(hwpt);
  }

  unbind(deviceId: number): void {
    const device = this.find(deviceId, 'device');
    if (!device) return;
    for (const pasid of [...device.attached.keys()]) this.detach(deviceId, pasid);
    this.objects.delete(deviceId);
    this.settleAll();
  }

  domainOf(ptId: number): Domain | number {
    const hwpt = this.hwptOf(ptId, true);
    return typeof hwpt === 'number' ? hwpt : hwpt.domain;
  }

  /** A page table on an IOAS, with all that is mapped there; or -errno. */
  createPaging(ioas: IoasObject, flags: number): HwptObject | number {
    const domain = this.driver.pagingDomain();
    const error = ioas.ioas.addDomain(domain, this.driver.addressablePages);
    if (error) {
      domain.free();
      return error;
    }
    ioas.hwpts++;
    return { kind: 'hwpt', domain, ioas, parent: undefined, flags, users: 0 };
  }

  /** IOMMU_DESTROY. */
  destroy(id: number): number {
    const object = this.objects.get(id);
    if (!object) return -Errno.ENOENT;
    if (object.kind === 'device') return -Errno.EBUSY;
    if (object.kind === 'ioas') {
      if (object.automatic) this.dropAutomatic(object);
      if (object.hwpts) return -Errno.EBUSY;
      this.freeIoas(object);
    } else {
      if (object.users) return -Errno.EBUSY;
      const error = object.ioas ? this.freePaging(object) : object.domain.free();
      if (error) return error;
      if (object.parent) object.parent.users--;
    }
    this.objects.delete(id);
    return 0;
  }

  private hwptOf(ptId: number, ioasToo: boolean): HwptObject | number {
    const object = this.objects.get(ptId);
    if (object?.kind === 'hwpt') return object;
    if (object?.kind !== 'ioas') return object ? -Errno.EINVAL : -Errno.ENOENT;
    if (!ioasToo) return -Errno.EINVAL;
    if (object.automatic) return object.automatic;
    const hwpt = this.createPaging(object, 0);
    if (typeof hwpt !== 'number') object.automatic = hwpt;
    return hwpt;
  }
  /** An automatic page table that an attach made in vain goes again. */
  private settle(hwpt: HwptObject, error: number): number {
    if (hwpt.users === 0 && hwpt.ioas?.automatic === hwpt) this.dropAutomatic(hwpt.ioas);
    return error;
  }
  private release(hwpt: HwptObject): void {
    hwpt.users--;
    this.settle(hwpt, 0);
  }
  private dropAutomatic(object: IoasObject): void {
    const { automatic } = object;
    if (automatic && automatic.users === 0 && this.freePaging(automatic) === 0) object.automatic = undefined;
  }
  private freePaging(hwpt: HwptObject): number {
    const error = hwpt.domain.free();
    if (error) return error;
    const { ioas } = hwpt;
    if (ioas && hwpt.domain.kind === 'paging') {
      ioas.ioas.removeDomain(hwpt.domain);
      ioas.hwpts--;
    }
    return 0;
  }
  private freeIoas(object: IoasObject): void {
    this.dropAutomatic(object);
    object.ioas.unmapAll();
  }
}

/** The character device. */
export class IommufdDevice implements CharDevice {
  private readonly driver: IommuDriver;
  constructor(driver: IommuDriver) {
    this.driver = driver;
  }
  open(): OpenFile {
    return new IommufdFile(this.driver);
  }
  /** The objects of an open file; undefined when it is not a file of this device. */
  contextOf(file: OpenFile | undefined): IommufdContext | undefined {
    return file instanceof IommufdFile && file.driver === this.driver ? file : undefined;
  }
}
