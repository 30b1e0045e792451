/**
 * /dev/iommu: objects of an open file, their ioctls, and the door for VFIO and other drivers of the kernel, which bind devices, attach them
 * and reach user memory through an access. linux/iommufd.h.
 */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { CharDevice, OpenFile, Task, VmArea } from '../../ports.js';
import { HwptAllocFlag, IommufdIoctl } from '../../spec/iommufd.js';
import type { AttachTarget, Domain } from '../types.js';
import { Access, type AccessOwner, type FrameBytes } from './access.js';
import { Ioas } from './ioas.js';
import { ioctls, MAX_WORDS } from './ioctls.js';
import type {
  AccessObject,
  DeviceObject,
  HwptObject,
  IoasObject,
  IommufdObject,
  NestedObject,
  ObjectKind,
  ObjectOf,
  PagingObject,
  VdeviceObject,
} from './objects.js';
import type { ExtraIoctl, IommufdOps, Table, UserData } from './ops.js';
import { type Account, nobody } from './pages.js';
import { vfioIoctl } from './vfio-compat.js';

/** Whether an attachment must be new, must be there, or either. */
export type AttachMode = 'attach' | 'replace' | 'either';
/** A file of /dev/iommu, as VFIO sees it. */
export interface IommufdContext {
  /** A device object for a function of this driver; its id, or -errno. Devices that share a parent's RID each bind it. */
  bindDevice(requesterId: number): number;
  /** Attaches to an HWPT or (RID only) an IOAS; `mode` default 'either'. 0 or -errno. `pasid` NO_PASID: the RID. */
  attach(deviceId: number, ptId: number, pasid: number, mode?: AttachMode): number;
  detach(deviceId: number, pasid: number): void;
  /** Detaches everything and takes the object away; with the last one of a closed file, all its objects. */
  unbind(deviceId: number): void;
  /**
   * The domain behind an HWPT, or an IOAS's own; -errno. For a device that attaches (parent RID, host PASID) by itself through
   * IommuDriver.attachPasid: while attached, the object cannot be destroyed. With the device's id, and the PASID that user space calls the
   * attachment (NO_PASID: the device), an HWPT whose events user space hears comes with that name: hand it on as it is.
   */
  domainOf(ptId: number, deviceId?: number, pasid?: number): Domain | AttachTarget | number;
  /** Reaches user memory by IOVA, attached to an IOAS; -errno. */
  createAccess(owner: AccessOwner, ioasId: number): AccessObject | number;
  replaceAccess(access: AccessObject, ioasId: number): number;
  destroyAccess(access: AccessObject): void;
  /** The IOAS that the VFIO ioctls work on, made if there is none. */
  compatIoas(): number;
}
export interface IommufdOptions {
  readonly ops: IommufdOps;
  readonly bytesOf: FrameBytes;
  /** Pages that this machine's user may have pinned by iommufd; default: no limit. RLIMIT_MEMLOCK, rlimit mode 0. */
  readonly lockedPages?: number | undefined;
  readonly extra?: ReadonlyMap<number, ExtraIoctl<IommufdFile>> | undefined;
}

/** Names as in the header, for whoever counts calls. */
const ioctlNames: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(IommufdIoctl).map(([name, number]) => [number, `IOMMU_${name}`]),
);
/** What its owner in the kernel destroys, not the program. */
const OWNED: readonly ObjectKind[] = ['device', 'access'];

export class IommufdFile implements OpenFile, IommufdContext {
  // fixed
  readonly ops: IommufdOps;
  readonly ioctlNames = ioctlNames;
  private readonly options: IommufdOptions;
  private readonly userAccount: Account;
  // state
  readonly objects = new Map<number, IommufdObject>();
  /** Whom pinned pages are charged to. */
  accountMode: 'user' | 'mm' = 'user';
  vfioIoas: IoasObject | undefined;
  /** What user space may map, by offset. */
  private readonly mappings = new Map<number, { readonly frame: number; readonly owner: IommufdObject }>();
  private lowest = 1;
  private closed = false;
  /** Files and drivers of the kernel that keep the objects. */
  private holders = 0;
  private made: number | undefined;

  constructor(options: IommufdOptions, userAccount: Account) {
    this.ops = options.ops;
    this.options = options;
    this.userAccount = userAccount;
  }

  /** Reads the structure as long as the caller says it is, runs the ioctl, writes it back. */
  ioctl(task: Task, number: number, argument: number): number {
    const row = ioctls.get(number >>> 0) ?? this.options.extra?.get(number >>> 0);
    if (!row) return vfioIoctl(this, task, number >>> 0, argument);
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
    // A descriptor that is in the table cannot be taken back: the answer must have a place first.
    if ('installs' in row && task.copyOut(argument, all)) return -Errno.EFAULT;
    this.made = undefined;
    const result = row.run(this, task, words);
    if (result < 0 && !('alwaysAnswers' in row)) return result;
    if (!task.copyOut(argument, bytes.subarray(0, Math.min(size, known)))) return result;
    if (this.made !== undefined) this.destroy(this.made);
    return -Errno.EFAULT;
  }

  /** Pages that an object offers for user space to map. Linux, iommufd_fops_mmap. */
  mmap(_task: Task, area: VmArea): number {
    const found = this.mappings.get(area.offset);
    if (!found || area.length !== 4096) return -Errno.ENXIO;
    if (!(area.flags & 1)) return -Errno.EINVAL;
    area.insert(0, found.frame);
    found.owner.users++;
    const { onClose } = area;
    area.onClose = () => {
      onClose?.();
      found.owner.users--;
      this.settleAll();
    };
    return 0;
  }
  /** Offers a page; its offset in the file. */
  offer(frame: number, owner: IommufdObject): number {
    let offset = 4096;
    while (this.mappings.has(offset)) offset += 4096;
    this.mappings.set(offset, { frame, owner });
    return offset;
  }
  withdraw(owner: IommufdObject): void {
    for (const [offset, mapping] of this.mappings) if (mapping.owner === owner) this.mappings.delete(offset);
  }

  /**
   * The program's last reference is gone. A device that VFIO bound holds the objects until it unbinds, since it may be attached to them by
   * itself; so do files that belong to objects. Linux, iommufd_ctx_get.
   */
  close(): void {
    this.closed = true;
    for (const object of [...this.objects.values()]) if (object.kind === 'other') this.destroy(object.id);
    this.settleAll();
  }
  hold(): void {
    this.holders++;
  }
  put(): void {
    this.holders--;
    this.settleAll();
  }
  /** Destroys what nothing uses, until nothing is left. */
  private settleAll(): void {
    if (!this.closed || this.holders) return;
    for (let before = -1; before !== this.objects.size; ) {
      before = this.objects.size;
      for (const id of [...this.objects.keys()]) this.destroy(id);
    }
  }

  /** Whether something that is about to be made cannot be. */
  fails(what: string): boolean {
    return this.ops.fails?.(what) === true;
  }
  /** Gives it the lowest id that is free. */
  add<K extends IommufdObject>(object: Omit<K, 'id' | 'users'>): K {
    while (this.objects.has(this.lowest)) this.lowest++;
    const added = Object.assign(object, { id: this.lowest, users: 0 }) as K;
    this.objects.set(added.id, added);
    this.made = added.id;
    return added;
  }
  remove(id: number): void {
    this.objects.delete(id);
    this.lowest = Math.min(this.lowest, id);
  }
  find<K extends ObjectKind>(id: number, ...kinds: readonly K[]): ObjectOf<K> | undefined {
    const object = this.objects.get(id);
    return object && (kinds as readonly ObjectKind[]).includes(object.kind) ? (object as ObjectOf<K>) : undefined;
  }
  /** Whom pages of a process's mapping are charged to. */
  accountOf(task: Task): Account {
    if (this.accountMode === 'user') return this.userAccount;
    const { mm } = task;
    return mm.lockPages ? { charge: (pages) => mm.lockPages!(pages), uncharge: (pages) => void mm.lockPages!(-pages) } : nobody;
  }

  // --- devices

  bindDevice(requesterId: number): number {
    if (!this.ops.device(requesterId)) return -Errno.ENODEV;
    if (this.fails('device')) return -Errno.ENOMEM;
    this.holders++;
    return this.add<DeviceObject>({ kind: 'device', requesterId, attached: new Map(), vdevice: undefined }).id;
  }

  attach(deviceId: number, ptId: number, pasid: number, mode: AttachMode = 'either'): number {
    const device = this.find(deviceId, 'device');
    const target = this.objects.get(ptId);
    if (!device || !target || target.kind === 'tombstone') return -Errno.ENOENT;
    if (target.kind === 'paging' || target.kind === 'nested') return this.attachTo(device, target, pasid, mode);
    if (target.kind !== 'ioas' || pasid !== NO_PASID) return -Errno.EINVAL;
    const known = [...this.objects.values()].filter((each): each is PagingObject => each.kind === 'paging' && each.automatic && each.ioas === target);
    for (const hwpt of known) {
      const error = this.attachTo(device, hwpt, pasid, mode);
      if (error !== -Errno.EINVAL) return error;
    }
    const hwpt = this.createPaging(target, device.requesterId, 0, undefined, true);
    return typeof hwpt === 'number' ? hwpt : this.settle(hwpt, this.attachTo(device, hwpt, pasid, mode));
  }
  /** What a device (NO_PASID) or a PASID of it is attached to. */
  hwptOf(deviceId: number, pasid: number): HwptObject | undefined {
    return this.find(deviceId, 'device')?.attached.get(pasid);
  }

  private attachTo(device: DeviceObject, hwpt: HwptObject, pasid: number, mode: AttachMode): number {
    const before = device.attached.get(pasid);
    if (!before && mode === 'replace') return -Errno.EINVAL;
    if (before && mode === 'attach') return -Errno.EBUSY;
    if (before === hwpt) return 0;
    const refused = this.refuses(device, hwpt, pasid);
    if (refused) return refused;
    if (this.fails('attach')) return -Errno.ENOMEM;
    const error = this.ops.attach(device.requesterId, pasid, hwpt.table, { deviceId: device.id, pasid });
    if (error) return error;
    device.attached.set(pasid, hwpt);
    hwpt.users++;
    if (before) this.release(before);
    return 0;
  }
  /** Linux, iommufd_hwpt_pasid_compat and what comes before it. */
  private refuses(device: DeviceObject, hwpt: HwptObject, pasid: number): number {
    const facts = this.ops.device(device.requesterId);
    if (!facts) return -Errno.ENODEV;
    const compatible = ({ flags }: HwptObject): boolean => (flags & HwptAllocFlag.PASID) !== 0;
    if (pasid === NO_PASID) {
      if (!compatible(hwpt) && [...device.attached.keys()].some((other) => other !== NO_PASID)) return -Errno.EINVAL;
    } else {
      const rid = device.attached.get(NO_PASID);
      if (!compatible(hwpt) || (rid && !compatible(rid)) || pasid >= 2 ** facts.pasidBits || pasid < 0) return -Errno.EINVAL;
    }
    if (hwpt.fault && !facts.pageRequests) return -Errno.ENODEV;
    if (hwpt.kind === 'nested' && hwpt.viommu?.viommu.needsDevice && device.vdevice?.viommu !== hwpt.viommu) return -Errno.ENOENT;
    return 0;
  }

  detach(deviceId: number, pasid: number): void {
    const device = this.find(deviceId, 'device');
    const hwpt = device?.attached.get(pasid);
    if (!device || !hwpt) return;
    device.attached.delete(pasid);
    this.ops.detach(device.requesterId, pasid);
    this.release(hwpt);
  }

  unbind(deviceId: number): void {
    const device = this.find(deviceId, 'device');
    if (!device) return;
    for (const pasid of [...device.attached.keys()]) this.detach(deviceId, pasid);
    if (device.vdevice) {
      const { id } = device.vdevice;
      this.removeVdevice(device.vdevice);
      this.objects.set(id, { kind: 'tombstone', id, users: 0 });
    }
    this.remove(deviceId);
    this.put();
  }

  domainOf(ptId: number, deviceId?: number, pasid: number = NO_PASID): Domain | AttachTarget | number {
    const object = this.objects.get(ptId);
    if (!object || object.kind === 'tombstone') return -Errno.ENOENT;
    let hwpt: HwptObject | number = -Errno.EINVAL;
    if (object.kind === 'paging' || object.kind === 'nested') hwpt = object;
    else if (object.kind === 'ioas') hwpt = this.ownTable(object, deviceId);
    if (typeof hwpt === 'number') return hwpt;
    const device = deviceId === undefined ? undefined : this.find(deviceId, 'device');
    if (hwpt.fault && device && !this.ops.device(device.requesterId)?.pageRequests) return -Errno.ENODEV;
    const { domain } = hwpt.table;
    if (!domain) return -Errno.EINVAL;
    const heard = hwpt.fault || (hwpt.kind === 'nested' && hwpt.viommu);
    return heard && device ? { domain, handle: { deviceId: device.id, pasid } } : domain;
  }
  /** The automatic page table of an IOAS. */
  private ownTable(object: IoasObject, deviceId: number | undefined): HwptObject | number {
    for (const each of this.objects.values()) if (each.kind === 'paging' && each.automatic && each.ioas === object) return each;
    const devices = [...this.objects.values()].filter((each): each is DeviceObject => each.kind === 'device');
    const device = devices.find(({ id }) => id === deviceId) ?? devices[0];
    return device ? this.createPaging(object, device.requesterId, 0, undefined, true) : -Errno.EINVAL;
  }

  /** A page table on an IOAS, with all that is mapped there; or -errno. */
  createPaging(
    ioas: IoasObject,
    requesterId: number,
    flags: number,
    data: UserData | undefined,
    automatic: boolean,
    allFlags = flags,
  ): PagingObject | number {
    if (this.fails('page table')) return -Errno.ENOMEM;
    const table = this.ops.pageTable(requesterId, flags, data);
    if (typeof table === 'number') return table;
    const error = ioas.ioas.addTable(table);
    if (error) {
      table.free();
      return error;
    }
    ioas.users++;
    return this.add<PagingObject>({ kind: 'paging', table, ioas, flags: allFlags, automatic, fault: undefined });
  }
  /** The bytes of user space's page faults go where the object says. */
  listen(hwpt: HwptObject): void {
    const { fault } = hwpt;
    if (!fault) return;
    fault.users++;
    (hwpt.table as Table).events = {
      pageRequests: (group, handle) => {
        if (handle) fault.queue.add(group, handle);
        else this.ops.pageResponse(group[0]!.requesterId, group[0]!.pasid, group[0]!.group, 1);
      },
      detached: (requesterId, pasid) => fault.queue.drop(requesterId, pasid),
    };
  }

  // --- accesses

  createAccess(owner: AccessOwner, ioasId: number): AccessObject | number {
    if (this.fails('access')) return -Errno.ENOMEM;
    const ioas = this.find(ioasId, 'ioas');
    if (!ioas) return -Errno.ENOENT;
    const access = new Access(owner, this.options.bytesOf);
    const refused = access.change(ioas);
    if (refused) return refused;
    this.holders++;
    return this.add<AccessObject>({ kind: 'access', access });
  }
  replaceAccess({ access }: AccessObject, ioasId: number): number {
    if (!access.object) return -Errno.ENOENT;
    const ioas = this.find(ioasId, 'ioas');
    return ioas ? access.change(ioas) : -Errno.ENOENT;
  }
  destroyAccess({ id, access }: AccessObject): void {
    access.change(undefined);
    this.remove(id);
    this.put();
  }

  createIoas(): IoasObject | number {
    return this.fails('ioas') ? -Errno.ENOMEM : this.add<IoasObject>({ kind: 'ioas', ioas: new Ioas((what) => this.fails(what)) });
  }
  compatIoas(): number {
    if (!this.vfioIoas) {
      const made = this.createIoas();
      if (typeof made === 'number') return made;
      this.vfioIoas = made;
    }
    return this.vfioIoas.id;
  }

  // --- the end of objects

  /** IOMMU_DESTROY. */
  destroy(id: number): number {
    const object = this.objects.get(id);
    if (!object || (object.kind === 'tombstone' && !this.closed)) return -Errno.ENOENT;
    if (object.kind === 'ioas')
      for (const each of [...this.objects.values()]) if (each.kind === 'paging' && each.ioas === object) this.settle(each, 0);
    if (object.users || OWNED.includes(object.kind)) return -Errno.EBUSY;
    if ((object.kind === 'paging' || object.kind === 'nested') && object.table.busy) return -Errno.EBUSY;
    this.end(object);
    return 0;
  }

  /** Nothing uses it. */
  private end(object: IommufdObject): void {
    this.remove(object.id);
    switch (object.kind) {
      case 'ioas':
        object.ioas.unmap(0n, 2n ** 64n - 1n);
        if (this.vfioIoas === object) this.vfioIoas = undefined;
        return;
      case 'paging':
        object.ioas.ioas.removeTable(object.table);
        object.ioas.users--;
        this.endTable(object);
        return;
      case 'nested':
        this.endTable(object);
        (object.viommu ?? object.parent).users--;
        return;
      case 'fault':
        object.queue.drop();
        return;
      case 'viommu':
        this.withdraw(object);
        object.viommu.free();
        object.parent.users--;
        return;
      case 'vdevice':
        this.removeVdevice(object);
        return;
      case 'veventq':
        object.viommu.queues.delete(object.type);
        object.viommu.users--;
        return;
      case 'hwQueue':
        object.viommu.viommu.queueRemoved?.(object.index);
        object.release();
        object.viommu.users--;
        return;
      case 'other':
        object.destroy();
        return;
      default:
    }
  }
  private endTable(hwpt: PagingObject | NestedObject): void {
    hwpt.table.free();
    if (hwpt.fault) hwpt.fault.users--;
  }
  private removeVdevice(vdevice: VdeviceObject): void {
    const { viommu, device, virtualId } = vdevice;
    this.remove(vdevice.id);
    viommu.viommu.deviceRemoved?.(device.requesterId, virtualId);
    viommu.devices.delete(virtualId);
    viommu.users--;
    device.vdevice = undefined;
  }
  /** An automatic page table goes with its last user. */
  private settle(hwpt: PagingObject, error: number): number {
    if (hwpt.automatic && hwpt.users === 0 && !hwpt.table.busy && this.objects.has(hwpt.id)) this.end(hwpt);
    return error;
  }
  private release(hwpt: HwptObject): void {
    hwpt.users--;
    if (hwpt.kind === 'paging') this.settle(hwpt, 0);
  }
}

/** The character device. */
export class IommufdDevice implements CharDevice {
  private readonly options: IommufdOptions;
  private locked = 0;
  private readonly account: Account;

  constructor(options: IommufdOptions) {
    this.options = options;
    const { lockedPages = Number.POSITIVE_INFINITY } = options;
    this.account = {
      charge: (pages) => {
        if (this.locked + pages > lockedPages) return -Errno.ENOMEM;
        this.locked += pages;
        return 0;
      },
      uncharge: (pages) => {
        this.locked -= pages;
      },
    };
  }
  /** Pages that are pinned and charged to the user. */
  get lockedPages(): number {
    return this.locked;
  }
  open(): OpenFile {
    return new IommufdFile(this.options, this.account);
  }
  /** The objects of an open file; undefined when it is not a file of this device. */
  contextOf(file: OpenFile | undefined): IommufdContext | undefined {
    return file instanceof IommufdFile && file.ops === this.options.ops ? file : undefined;
  }
}
