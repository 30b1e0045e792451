/**
 * A file of /dev/iommu in place of a container: the group's device is bound to it when it is opened, and attached to the IOAS that the VFIO
 * ioctls of that file work on. Linux, vfio_iommufd_compat_attach_ioas.
 */
import { NO_PASID } from '@siov/layout/pcie';
import type { IommufdContext, VfioDevice } from './ports.js';

export class IommufdContainer {
  private readonly context: IommufdContext;
  private ioas = -1;
  private deviceId = -1;

  constructor(context: IommufdContext) {
    this.context = context;
  }
  /** Devices may be opened at once: SET_IOMMU only says what unmapping may do. */
  readonly ready = true;

  /** The group comes: from now on there is an IOAS to map into. 0 or -errno. */
  join(): number {
    this.ioas = this.context.compatIoas();
    return Math.min(this.ioas, 0);
  }
  /** The group's device is opened for the first time, or closed for the last. */
  enter(device: VfioDevice): number {
    const id = this.context.bindDevice(device.requesterId);
    if (id < 0) return id;
    const domain = this.context.domainOf(this.ioas, id, NO_PASID);
    const result = typeof domain === 'number' ? domain : device.attach(domain, NO_PASID);
    if (result < 0) this.context.unbind(id);
    else this.deviceId = id;
    return Math.min(result, 0);
  }
  exit(device: VfioDevice): void {
    device.detach(NO_PASID);
    this.context.unbind(this.deviceId);
  }
  leave(): void {}
}
