/** The core: which device is behind which node. Linux, drivers/vfio; Documentation/driver-api/vfio.rst. */
import { Errno } from '@siov/layout/uapi';
import { CdevFile, type CdevPorts } from './cdev.js';
import { Container, type ContainerPorts } from './container.js';
import { GroupFile, type GroupPorts } from './group.js';
import type { UserSpace, VfioDevice } from './ports.js';
import { Registration } from './registration.js';

export interface VfioOptions extends CdevPorts, ContainerPorts {
  readonly kernel: UserSpace;
}
export interface VfioNodes {
  /** '/dev/vfio/devices/vfio0' */
  readonly cdev: string;
  /** '/dev/vfio/0' */
  readonly group: string;
  /** Somebody has it open. */
  readonly inUse: boolean;
  /** The nodes go at once; open files stay until they are closed. `released` is called when the last one is. */
  remove(released?: () => void): void;
}
/** Majors of the two kinds of node, which the kernel gives dynamically; ours. */
const CDEV_MAJOR = 511;

export class VfioCore {
  private readonly options: VfioOptions;
  private readonly numbers = new Set<number>();
  private readonly groups = new Set<number>();

  constructor(options: VfioOptions) {
    this.options = options;
    options.kernel.register('/dev/vfio/vfio', { open: () => new Container(options) });
  }

  /** Nodes and sysfs entries for a device. `sysfs`: its directory (default: /sys/bus/pci/devices/ and the name). */
  add(device: VfioDevice, sysfs = `/sys/bus/pci/devices/${device.name}`): VfioNodes {
    const { kernel } = this.options;
    const number = lowestFree(this.numbers);
    const groupNumber = lowestFree(this.groups);
    const registration = new Registration(device, number, groupNumber);
    const cdev = `/dev/vfio/devices/vfio${number}`;
    const group = `/dev/vfio/${groupNumber}`;
    const ports: GroupPorts = {
      contextOf: (file) => this.options.iommufd.contextOf(file),
      isEventFd: (file) => this.options.isEventFd(file),
    };
    kernel.register(cdev, { open: () => new CdevFile(registration, this.options) });
    kernel.register(group, {
      open: () => (registration.groupOpen || registration.bound ? -Errno.EBUSY : new GroupFile(registration, ports)),
    });
    const groupDirectory = `/sys/kernel/iommu_groups/${groupNumber}`;
    const nodeDirectory = `${sysfs}/vfio-dev/vfio${number}`;
    kernel.sysfs.add(`${nodeDirectory}/dev`, { show: () => `${CDEV_MAJOR}:${number}\n` });
    kernel.sysfs.link(`/sys/class/vfio-dev/vfio${number}`, nodeDirectory);
    kernel.sysfs.link(`${groupDirectory}/devices/${device.name}`, sysfs);
    kernel.sysfs.link(`${sysfs}/iommu_group`, groupDirectory);
    return {
      cdev,
      group,
      get inUse() {
        return registration.inUse;
      },
      remove: (released) => {
        if (registration.removed) return;
        kernel.unregister(cdev);
        kernel.unregister(group);
        for (const path of [`/sys/class/vfio-dev/vfio${number}`, groupDirectory, `${sysfs}/iommu_group`, `${sysfs}/vfio-dev`])
          kernel.sysfs.remove(path);
        registration.remove(() => {
          this.numbers.delete(number);
          this.groups.delete(groupNumber);
          released?.();
        });
      },
    };
  }
}

function lowestFree(taken: Set<number>): number {
  let number = 0;
  while (taken.has(number)) number++;
  taken.add(number);
  return number;
}
