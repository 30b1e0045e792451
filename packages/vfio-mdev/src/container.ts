/** A container, /dev/vfio/vfio: groups that share one address space. linux/vfio.h, "IOCTLs for VFIO file descriptor". */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { OpenFile, PagingDomain, Task, VfioDevice } from './ports.js';
import { Type1, type Type1Options } from './type1.js';
import { API_VERSION, containerIoctlNames, Extension, Ioctl } from './uapi.js';

export interface ContainerPorts {
  readonly iommu: { pagingDomain(): PagingDomain };
  readonly type1?: Type1Options | undefined;
}

export class Container implements OpenFile {
  readonly ioctlNames = containerIoctlNames;
  private readonly ports: ContainerPorts;
  private readonly devices = new Set<VfioDevice>();
  private type1: Type1 | undefined;

  constructor(ports: ContainerPorts) {
    this.ports = ports;
  }

  /** An IOMMU is set: devices may be opened. */
  get ready(): boolean {
    return this.type1 !== undefined;
  }

  ioctl(task: Task, number: number, argument: number): number {
    switch (number) {
      case Ioctl.GET_API_VERSION:
        return API_VERSION;
      case Ioctl.CHECK_EXTENSION:
        return this.extension(argument);
      case Ioctl.SET_IOMMU:
        return this.setIommu(argument);
      default:
        return this.type1 ? this.type1.ioctl(task, number, argument) : -Errno.EINVAL;
    }
  }

  /** A group's device comes: 0, or the device's refusal to be attached. */
  join(device: VfioDevice): number {
    const result = this.type1 ? device.attach(this.type1.domain, NO_PASID) : 0;
    if (result < 0) return result;
    this.devices.add(device);
    return 0;
  }

  /** A device is opened for the first time, or closed for the last: it was attached with its group. */
  enter(_device: VfioDevice): number {
    return 0;
  }
  exit(_device: VfioDevice): void {}

  /** With the last device the address space goes, mappings and all; the container can be set up anew. */
  leave(device: VfioDevice): void {
    this.devices.delete(device);
    if (!this.type1) return;
    device.detach(NO_PASID);
    if (this.devices.size > 0) return;
    this.type1.free();
    this.type1 = undefined;
  }

  private extension(argument: number): number {
    switch (argument) {
      case Extension.TYPE1:
      case Extension.TYPE1v2:
      case Extension.UNMAP_ALL:
        return 1;
      case Extension.DMA_CC:
        return this.type1 ? 1 : 0;
      default:
        return 0;
    }
  }

  private setIommu(type: number): number {
    if (this.devices.size === 0 || this.type1) return -Errno.EINVAL;
    if (type !== Extension.TYPE1 && type !== Extension.TYPE1v2) return -Errno.ENODEV;
    const domain = this.ports.iommu.pagingDomain();
    const attached: VfioDevice[] = [];
    for (const device of this.devices) {
      const result = device.attach(domain, NO_PASID);
      if (result < 0) {
        for (const each of attached) each.detach(NO_PASID);
        domain.free();
        return result;
      }
      attached.push(device);
    }
    this.type1 = new Type1(domain, type === Extension.TYPE1v2, this.ports.type1);
    return 0;
  }
}
