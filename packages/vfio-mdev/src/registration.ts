/** One device known to the core: who has it open, and the rule that its group and its own device file exclude each other. */
import { Errno } from '@siov/layout/uapi';
import type { VfioDevice } from './ports.js';

export class Registration {
  readonly device: VfioDevice;
  /** Number of the group, and of the device node. */
  readonly groupNumber: number;
  readonly number: number;
  /** A file of the group is open, or device files that came from it. */
  groupOpen = false;
  /** A device file is bound to an iommufd. */
  bound = false;
  /** The nodes are gone: nobody new comes. */
  removed = false;
  private users = 0;
  private released: (() => void) | undefined;

  constructor(device: VfioDevice, number: number, groupNumber: number) {
    this.device = device;
    this.number = number;
    this.groupNumber = groupNumber;
  }

  get inUse(): boolean {
    return this.users > 0;
  }

  /** A user more: 0, or the device's answer to its first. */
  open(): number {
    if (this.users === 0) {
      const result = this.device.open();
      if (result < 0) return result;
    }
    this.users++;
    return 0;
  }

  close(): void {
    if (--this.users > 0) return;
    this.device.close();
    this.settle();
  }

  /** Nobody new comes; `released` is called when the last user has gone, at once when there is none. */
  remove(released: () => void): void {
    if (this.removed) return;
    this.removed = true;
    this.released = released;
    if (this.inUse || this.groupOpen || this.bound) this.device.request?.();
    this.settle();
  }

  /** To be called when the last use of any kind may have ended. */
  settle(): void {
    if (!this.removed || this.inUse || this.groupOpen || this.bound) return;
    const { released } = this;
    this.released = undefined;
    released?.();
  }

  /** For BIND_IOMMUFD: the group is not in use, and no other device file is bound. */
  bind(): number {
    if (this.groupOpen) return -Errno.EBUSY;
    if (this.bound || this.inUse) return -Errno.EINVAL;
    this.bound = true;
    return 0;
  }
}
