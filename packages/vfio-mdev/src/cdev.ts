/** The device's own node, /dev/vfio/devices/vfioN: nothing works before it is bound to an iommufd. linux/vfio.h, BIND_IOMMUFD and after. */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { DeviceAccess } from './device-file.js';
import type { IommufdContext, OpenFile, Sink, Task, VmArea } from './ports.js';
import type { Registration } from './registration.js';
import { Structure } from './structure.js';
import { AttachPt, BindIommufd, DetachPt, deviceIoctlNames, Ioctl, PtFlag } from './uapi.js';

export interface CdevPorts {
  readonly iommufd: { contextOf(file: OpenFile): IommufdContext | undefined };
  isEventFd(file: OpenFile): Sink | undefined;
}
/** A PASID has 20 bits. */
const MAX_PASID = 0xf_ffff;
/** argsz of BIND beyond which nothing can be meant. */
const MAX_BIND = 4096;

export class CdevFile implements OpenFile {
  readonly ioctlNames = deviceIoctlNames;
  private readonly registration: Registration;
  private readonly ports: CdevPorts;
  private readonly access: DeviceAccess;
  private readonly room = new Structure(BindIommufd, AttachPt, DetachPt);
  /** PASIDs with a page table attached; NO_PASID for the device itself. */
  private readonly attached = new Set<number>();
  private context: IommufdContext | undefined;
  private deviceId = -1;

  constructor(registration: Registration, ports: CdevPorts) {
    this.registration = registration;
    this.ports = ports;
    this.access = new DeviceAccess(registration.device, (file) => ports.isEventFd(file));
  }

  ioctl(task: Task, number: number, address: number): number {
    if (number === Ioctl.DEVICE_BIND_IOMMUFD) return this.bind(task, address);
    if (!this.context) return -Errno.EINVAL;
    if (number === Ioctl.DEVICE_ATTACH_IOMMUFD_PT) return this.attach(task, address);
    if (number === Ioctl.DEVICE_DETACH_IOMMUFD_PT) return this.detach(task, address);
    return this.access.ioctl(task, number, address);
  }
  read(task: Task, address: number, length: number, offset: number): number {
    return this.context ? this.access.read(task, address, length, offset) : -Errno.EINVAL;
  }
  write(task: Task, address: number, length: number, offset: number): number {
    return this.context ? this.access.write(task, address, length, offset) : -Errno.EINVAL;
  }
  mmap(_task: Task, area: VmArea): number {
    return this.context ? this.access.mmap(area) : -Errno.EINVAL;
  }

  close(): void {
    const { context, registration } = this;
    if (!context) return;
    this.context = undefined;
    // The device is quiet before its page tables go.
    registration.close();
    for (const pasid of this.attached) registration.device.detach(pasid);
    this.attached.clear();
    context.unbind(this.deviceId);
    registration.bound = false;
    registration.settle();
  }

  private bind(task: Task, address: number): number {
    const { room, registration } = this;
    const { words } = room;
    const smallest = 16;
    const { get, set, bytes } = BindIommufd;
    const refused = room.copyIn(task, address, smallest);
    if (refused) return refused;
    const argsz = get.argsz(words, 0);
    const trailing = this.trailing(task, address, argsz, bytes);
    if (trailing) return trailing;
    // No device here checks a token: its flag is as unknown as the others.
    if (get.flags(words, 0) !== 0 || (get.iommufd(words, 0) | 0) < 0) return -Errno.EINVAL;
    if (registration.removed && !this.context) return -Errno.ENODEV;
    const busy = registration.bind();
    if (busy) return busy;
    const result = this.take(task, get.iommufd(words, 0));
    if (result < 0) {
      registration.bound = false;
      return result;
    }
    set.deviceId(words, 0, this.deviceId);
    const fault = room.copyOut(task, address, smallest);
    if (fault) this.close();
    return fault;
  }

  /** Bytes that a newer caller gives and we do not know must be 0. Linux, copy_struct_from_user. */
  private trailing(task: Task, address: number, argsz: number, known: number): number {
    if (argsz > MAX_BIND) return -Errno.E2BIG;
    if (argsz <= known) return 0;
    const rest = new Uint8Array(argsz - known);
    if (task.copyIn(address + known, rest) < 0) return -Errno.EFAULT;
    return rest.some((byte) => byte !== 0) ? -Errno.E2BIG : 0;
  }

  private take(task: Task, fd: number): number {
    const file = task.file(fd);
    if (!file) return -Errno.EBADF;
    const context = this.ports.iommufd.contextOf(file);
    if (!context) return -Errno.EBADFD;
    const deviceId = context.bindDevice(this.registration.device.requesterId);
    if (deviceId < 0) return deviceId;
    const opened = this.registration.open();
    if (opened < 0) {
      context.unbind(deviceId);
      return opened;
    }
    this.context = context;
    this.deviceId = deviceId;
    return 0;
  }

  private attach(task: Task, address: number): number {
    const { room } = this;
    const { words } = room;
    const { get } = AttachPt;
    const smallest = 12;
    const refused = room.copyIn(task, address, smallest);
    if (refused) return refused;
    const pasid = this.pasidOf(task, address, smallest);
    if (pasid < NO_PASID) return pasid - NO_PASID;
    if (pasid > MAX_PASID) return -Errno.EINVAL;
    const domain = this.context!.domainOf(get.ptId(words, 0), this.deviceId, pasid);
    if (typeof domain === 'number') return domain;
    const result = this.registration.device.attach(domain, pasid);
    if (result < 0) return result;
    this.attached.add(pasid);
    const fault = room.copyOut(task, address, smallest);
    if (fault && this.attached.delete(pasid)) this.registration.device.detach(pasid);
    return fault;
  }

  private detach(task: Task, address: number): number {
    const smallest = 8;
    const refused = this.room.copyIn(task, address, smallest);
    if (refused) return refused;
    const pasid = this.pasidOf(task, address, smallest);
    if (pasid < NO_PASID) return pasid - NO_PASID;
    if (this.attached.delete(pasid)) this.registration.device.detach(pasid);
    return 0;
  }

  /** The PASID behind the first `smallest` bytes, NO_PASID without the flag, or -errno + NO_PASID. Attach and detach differ only in place. */
  private pasidOf(task: Task, address: number, smallest: number): number {
    const { words } = this.room;
    const flags = words[1]!;
    if (flags & ~PtFlag.PASID) return -Errno.EINVAL + NO_PASID;
    if (!(flags & PtFlag.PASID)) return NO_PASID;
    if (this.registration.device.pasids === false) return -Errno.EOPNOTSUPP + NO_PASID;
    if (words[0]! < smallest + 4) return -Errno.EINVAL + NO_PASID;
    if (this.room.copyMore(task, address, smallest, smallest + 4) < 0) return -Errno.EFAULT + NO_PASID;
    return words[smallest / 4]!;
  }
}
