/** Recipe: a host whose work queues are shared with user space through uacce. Pulls in no VFIO and no VMM. */
import type { DeviceConfig, IdxdDriver } from '@siov/idxd-driver';
import { registerIdxdUacce } from '@siov/idxd-uacce';
import { Host, type HostOptions } from './host.js';

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
export { Host, type HostOptions } from './host.js';
