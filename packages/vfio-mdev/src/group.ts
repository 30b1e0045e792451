/** A group, /dev/vfio/N: how a device is reached through a container. linux/vfio.h, "IOCTLs for GROUP file descriptors". */
import { Errno } from '@siov/layout/uapi';
import { Container } from './container.js';
import { DeviceAccess } from './device-file.js';
import { IommufdContainer } from './iommufd-container.js';
import type { IommufdContext, OpenFile, Sink, Task, VmArea } from './ports.js';
import type { Registration } from './registration.js';
import { Structure } from './structure.js';
import { deviceIoctlNames, GroupFlag, GroupStatus, groupIoctlNames, Ioctl } from './uapi.js';

export interface GroupPorts {
  /** The objects of a file of /dev/iommu, which may stand for a container. */
  contextOf(file: OpenFile): IommufdContext | undefined;
  isEventFd(file: OpenFile): Sink | undefined;
}
/** A device's name ends within a page. */
const MAX_NAME = 4096;

export class GroupFile implements OpenFile {
  readonly ioctlNames = groupIoctlNames;
  private readonly registration: Registration;
  private readonly ports: GroupPorts;
  private readonly room = new Structure(GroupStatus);
  private container: Container | IommufdContainer | undefined;
  private devices = 0;
  private closed = false;

  constructor(registration: Registration, ports: GroupPorts) {
    this.registration = registration;
    this.ports = ports;
    registration.groupOpen = true;
  }

  ioctl(task: Task, number: number, argument: number): number {
    switch (number) {
      case Ioctl.GROUP_GET_STATUS:
        return this.status(task, argument);
      case Ioctl.GROUP_SET_CONTAINER:
        return this.setContainer(task, argument);
      case Ioctl.GROUP_UNSET_CONTAINER:
        if (!this.container) return -Errno.EINVAL;
        if (this.devices > 0) return -Errno.EBUSY;
        this.unsetContainer();
        return 0;
      case Ioctl.GROUP_GET_DEVICE_FD:
        return this.deviceFd(task, argument);
      default:
        return -Errno.ENOTTY;
    }
  }

  /** The group stays taken until its device files are closed too: they hold it. */
  close(): void {
    this.closed = true;
    this.release();
  }

  private release(): void {
    if (!this.closed || this.devices > 0) return;
    if (this.container) this.unsetContainer();
    this.registration.groupOpen = false;
    this.registration.settle();
  }

  private status(task: Task, address: number): number {
    const { room, registration } = this;
    const refused = room.copyIn(task, address, GroupStatus.bytes);
    if (refused) return refused;
    if (registration.removed) return -Errno.ENODEV;
    GroupStatus.set.flags(room.words, 0, GroupFlag.VIABLE | (this.container ? GroupFlag.CONTAINER_SET : 0));
    return room.copyOut(task, address, GroupStatus.bytes);
  }

  private setContainer(task: Task, address: number): number {
    const fd = new Int32Array(1);
    if (task.copyIn(address, new Uint8Array(fd.buffer)) < 0) return -Errno.EFAULT;
    const file = fd[0]! < 0 ? undefined : task.file(fd[0]!);
    if (!file) return -Errno.EBADF;
    if (this.container) return -Errno.EINVAL;
    if (this.registration.removed) return -Errno.ENODEV;
    const context = file instanceof Container ? undefined : this.ports.contextOf(file);
    if (!(file instanceof Container || context)) return -Errno.EBADFD;
    const container = file instanceof Container ? file : new IommufdContainer(context!);
    const result = container.join(this.registration.device);
    if (result < 0) return result;
    this.container = container;
    return 0;
  }

  private unsetContainer(): void {
    this.container!.leave(this.registration.device);
    this.container = undefined;
  }

  private deviceFd(task: Task, address: number): number {
    const name = readName(task, address);
    if (typeof name === 'number') return name;
    const { registration } = this;
    if (registration.removed || name !== registration.device.name) return -Errno.ENODEV;
    if (!this.container?.ready) return -Errno.EINVAL;
    const entered = this.devices === 0 ? this.container.enter(registration.device) : 0;
    if (entered < 0) return entered;
    const opened = registration.open();
    const fd =
      opened < 0
        ? opened
        : task.install(
            new DeviceFile(
              registration,
              (file) => this.ports.isEventFd(file),
              () => this.deviceClosed(),
            ),
          );
    if (fd >= 0) this.devices++;
    else if (opened >= 0) registration.close();
    if (this.devices === 0) this.container.exit(registration.device);
    return fd;
  }

  private deviceClosed(): void {
    this.registration.close();
    if (--this.devices === 0) this.container?.exit(this.registration.device);
    this.release();
  }
}

/** A device as its group gives it. */
class DeviceFile implements OpenFile {
  readonly ioctlNames = deviceIoctlNames;
  private readonly access: DeviceAccess;
  private readonly closed: () => void;
  constructor(registration: Registration, isEventFd: (file: OpenFile) => Sink | undefined, closed: () => void) {
    this.access = new DeviceAccess(registration.device, isEventFd);
    this.closed = closed;
  }
  ioctl(task: Task, number: number, argument: number): number {
    // Only a device file of its own can be bound.
    return number === Ioctl.DEVICE_BIND_IOMMUFD ? -Errno.EINVAL : this.access.ioctl(task, number, argument);
  }
  read(task: Task, address: number, length: number, offset: number): number {
    return this.access.read(task, address, length, offset);
  }
  write(task: Task, address: number, length: number, offset: number): number {
    return this.access.write(task, address, length, offset);
  }
  mmap(_task: Task, area: VmArea): number {
    return this.access.mmap(area);
  }
  close(): void {
    this.closed();
  }
}

/** A string of the caller's memory, or -errno. */
function readName(task: Task, address: number): string | number {
  const byte = new Uint8Array(1);
  let name = '';
  for (let i = 0; i < MAX_NAME; i++) {
    if (task.copyIn(address + i, byte) < 0) return -Errno.EFAULT;
    if (byte[0] === 0) return name;
    name += String.fromCharCode(byte[0]!);
  }
  return -Errno.EINVAL;
}
