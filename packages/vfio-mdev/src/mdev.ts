/**
 * The mediated device bus: parents offer types, user space makes devices of them by writing a UUID. Linux, drivers/vfio/mdev;
 * Documentation/driver-api/vfio-mediated-device.rst.
 */
import { Errno } from '@siov/layout/uapi';
import type { VfioCore, VfioNodes } from './core.js';
import type { UserSpace, VfioDevice } from './ports.js';

export interface MdevType {
  /** The directory is named after the driver and this. */
  readonly sysfsName: string;
  readonly prettyName?: string;
  /** 'vfio-pci' unless given. */
  readonly deviceApi?: string;
  /** How many more could be made; absent: the parent's counter says it. */
  available?(): number;
  description?(): string;
}
export interface MdevParent {
  /** The parent device: '0000:00:01.0'. */
  readonly name: string;
  readonly driverName: string;
  readonly types: readonly MdevType[];
  /** Its directory (default: /sys/devices/pci0000:00/ and the name). */
  readonly path?: string;
  /** The counter's start, for types without `available` (default 1). */
  readonly maxInstances?: number;
  /** The driver's probe: a device named `uuid`, or -errno. */
  create(type: MdevType, uuid: string): VfioDevice | number;
  /** The last user has gone. */
  remove(device: VfioDevice): void;
}
export interface MdevBusOptions {
  readonly core: Pick<VfioCore, 'add'>;
  readonly kernel: Pick<UserSpace, 'sysfs'>;
  /** Told of 'MDEV_STATE=registered' and 'MDEV_STATE=unregistered' of a parent. */
  uevent?(path: string, variable: string): void;
}
interface Mdev {
  readonly uuid: string;
  readonly device: VfioDevice;
  readonly nodes: VfioNodes;
  readonly parent: Parent;
  leaving: boolean;
}
interface Parent {
  readonly given: MdevParent;
  readonly path: string;
  available: number;
  leaving: boolean;
}
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const BUS = '/sys/bus/mdev/devices';

export class MdevBus {
  private readonly options: MdevBusOptions;
  private readonly sysfs: UserSpace['sysfs'];
  private readonly parents = new Map<string, Parent>();
  /** By UUID, until released. A UUID whose device is being made is here as undefined. */
  private readonly devices = new Map<string, Mdev | undefined>();

  constructor(options: MdevBusOptions) {
    this.options = options;
    this.sysfs = options.kernel.sysfs;
  }

  /** The device that a UUID names, and its nodes. */
  find(uuid: string): { readonly device: VfioDevice; readonly nodes: VfioNodes } | undefined {
    return this.devices.get(uuid.toLowerCase());
  }

  registerParent(given: MdevParent): { unregister(): void } {
    if (this.parents.has(given.name)) throw new RangeError(`name: ${given.name} is a parent already`);
    const path = given.path ?? `/sys/devices/pci0000:00/${given.name}`;
    const parent: Parent = { given, path, available: given.maxInstances ?? 1, leaving: false };
    this.parents.set(given.name, parent);
    for (const type of given.types) this.addType(parent, type);
    this.sysfs.link(`/sys/class/mdev_bus/${given.name}`, path);
    this.options.uevent?.(path, 'MDEV_STATE=registered');
    return { unregister: () => this.unregister(parent) };
  }

  private unregister(parent: Parent): void {
    if (parent.leaving) return;
    parent.leaving = true;
    this.options.uevent?.(parent.path, 'MDEV_STATE=unregistered');
    for (const mdev of [...this.devices.values()]) if (mdev?.parent === parent) this.remove(mdev);
    this.sysfs.remove(`/sys/class/mdev_bus/${parent.given.name}`);
    this.sysfs.remove(`${parent.path}/mdev_supported_types`);
    this.parents.delete(parent.given.name);
  }

  private addType(parent: Parent, type: MdevType): void {
    const directory = this.typeDirectory(parent, type);
    const show = (text: () => string | number) => ({ show: () => `${text()}\n` });
    this.sysfs.add(
      `${directory}/name`,
      show(() => type.prettyName ?? type.sysfsName),
    );
    this.sysfs.add(
      `${directory}/device_api`,
      show(() => type.deviceApi ?? 'vfio-pci'),
    );
    this.sysfs.add(
      `${directory}/available_instances`,
      show(() => (type.available ? type.available() : parent.available)),
    );
    if (type.description)
      this.sysfs.add(
        `${directory}/description`,
        show(() => type.description!()),
      );
    this.sysfs.add(`${directory}/create`, { store: (text) => this.create(parent, type, text) });
  }

  private typeDirectory(parent: Parent, type: MdevType): string {
    return `${parent.path}/mdev_supported_types/${parent.given.driverName}-${type.sysfsName}`;
  }

  /** Answers 0 or -errno, in the kernel's order. */
  private create(parent: Parent, type: MdevType, text: string): number {
    const uuid = text.replace(/\n$/, '').toLowerCase();
    if (text.length > 37 || !UUID.test(uuid)) return -Errno.EINVAL;
    if (this.devices.has(uuid)) return -Errno.EEXIST;
    if (!type.available && parent.available === 0) return -Errno.EUSERS;
    if (parent.leaving) return -Errno.ENODEV;
    this.devices.set(uuid, undefined);
    if (!type.available) parent.available--;
    const device = parent.given.create(type, uuid);
    if (typeof device === 'number') {
      this.devices.delete(uuid);
      if (!type.available) parent.available++;
      return device;
    }
    const path = `${parent.path}/${uuid}`;
    const nodes = this.options.core.add(device, path);
    const mdev: Mdev = { uuid, device, nodes, parent, leaving: false };
    this.devices.set(uuid, mdev);
    const typeDirectory = this.typeDirectory(parent, type);
    this.sysfs.link(`${path}/mdev_type`, typeDirectory);
    this.sysfs.add(`${path}/remove`, { store: (value) => this.store(mdev, value) });
    this.sysfs.link(`${BUS}/${uuid}`, path);
    this.sysfs.link(`${typeDirectory}/devices/${uuid}`, path);
    this.released.set(mdev, () => {
      this.devices.delete(uuid);
      if (!type.available) parent.available++;
      parent.given.remove(device);
    });
    return 0;
  }
  /** What remains to be done for a device when its last user has gone. */
  private readonly released = new WeakMap<Mdev, () => void>();

  private store(mdev: Mdev, text: string): number {
    const value = Number(text.trim() === '' ? Number.NaN : text.trim());
    if (!Number.isInteger(value) || value < 0) return -Errno.EINVAL;
    if (value === 0) return 0;
    if (mdev.leaving) return -Errno.EAGAIN;
    if (mdev.parent.leaving) return -Errno.ENODEV;
    this.remove(mdev);
    return 0;
  }

  /** Its directory goes at once; UUID and instance come back when the last user has gone. */
  private remove(mdev: Mdev): void {
    if (mdev.leaving) return;
    mdev.leaving = true;
    const { parent, uuid } = mdev;
    for (const type of parent.given.types) this.sysfs.remove(`${this.typeDirectory(parent, type)}/devices/${uuid}`);
    this.sysfs.remove(`${BUS}/${uuid}`);
    mdev.nodes.remove(this.released.get(mdev));
    this.sysfs.remove(`${parent.path}/${uuid}`);
  }
}
