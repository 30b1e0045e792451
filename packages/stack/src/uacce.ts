/** Recipe: a host whose work queues are shared with user space through uacce. Pulls in no VFIO and no VMM. */
import type { DeviceConfig, IdxdDriver } from '@siov/idxd-driver';
import { registerIdxdUacce } from '@siov/idxd-uacce';
import { errnoName, MapFlag, Open, Prot } from '@siov/layout/uapi';
import { UacceIoctl } from '@siov/uacce/uapi';
import { Host, type HostOptions } from './host.js';
import type { OpenQueue } from './workload.js';

export interface UacceStackOptions extends HostOptions {
  /** Default: one queue, dedicated, of 128 entries, and all engines. */
  readonly config?: DeviceConfig;
}

export class UacceStack {
  readonly host: Host;
  readonly driver: IdxdDriver;
  /** Nodes of the uacce devices, by mode. */
  readonly paths: { readonly dedicated?: string; readonly shared?: string };
  readonly #registered: { remove(): void }[] = [];

  constructor(options: UacceStackOptions = {}) {
    this.host = new Host(options);
    const { kernel } = this.host;
    this.driver = kernel.bindIdxd(kernel.devices[0]!, options.config ?? { wqs: [{ mode: 'dedicated', size: 128, group: 0, type: 'user' }] });
    const paths: { dedicated?: string; shared?: string } = {};
    for (const mode of ['dedicated', 'shared'] as const) {
      const wqs = this.driver.wqs.filter((wq) => wq.config.mode === mode && (wq.config.type ?? 'user') === 'user');
      if (wqs.length === 0) continue;
      const device = registerIdxdUacce({ driver: this.driver, wqs, kernel: kernel.user });
      paths[mode] = device.path;
      this.#registered.push(device);
    }
    this.paths = paths;
  }

  /** Unbinds: queues become zombies, mapped portals fault. */
  unbind(): void {
    for (const device of this.#registered.splice(0)) device.remove();
  }
}

/**
 * Opens a queue as a user program does: open the node, map the portal, start. For `Workload`, or for a program of one's own.
 */
export function openUacceQueue(stack: UacceStack, mode: 'dedicated' | 'shared'): OpenQueue {
  return (task) => {
    const path = stack.paths[mode];
    if (!path) throw new RangeError(`openUacceQueue: the stack has no ${mode} queue`);
    const fd = task.open(path, Open.RDWR);
    if (fd < 0) throw new RangeError(`open ${path}: ${errnoName(fd)}`);
    const address = task.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, fd, 0);
    const started = task.ioctl(fd, UacceIoctl.START_Q, 0);
    if (address < 0 || started < 0) throw new RangeError(`${path}: ${errnoName(address < 0 ? address : started)}`);
    const wq = stack.driver.wqs.find((w) => w.config.mode === mode)!;
    return { address, mode, depthLimit: wq.config.size, close: () => void task.close(fd) };
  };
}

export { Host, type HostOptions } from './host.js';
export { bytesSource, type OpenQueue, Workload, type WorkloadOptions, type WorkloadResult } from './workload.js';
