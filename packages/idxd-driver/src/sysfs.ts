/**
 * The driver's tree in sysfs: the bus 'dsa' with the devices, their groups, engines and queues, and the drivers' bind and unbind files.
 * Documentation/ABI/stable/sysfs-driver-dma-idxd; Linux drivers/base/bus.c.
 */
import { Errno } from '@siov/layout/uapi';
import { attributesOf, deviceAttributes, engineAttributes, groupAttributes, wqAttributes } from './attributes.js';
import { bindDevice, bindWq, unbindDevice, unbindWq, WQ_DRIVERS, type WqDriver } from './bind.js';
import type { IdxdDriver } from './driver.js';
import { line } from './parse.js';
import type { SysfsTree } from './ports.js';

const BUS = '/sys/bus/dsa';

/** One device of the bus: who may be bound to it, and who is. */
interface BusDevice {
  readonly path: string;
  readonly takes: readonly string[];
  readonly bound: () => string | undefined;
  /** The driver that the old file 'dsa' means, or -errno. */
  readonly usual: () => string | number;
  bind(driver: string): number;
  unbind(): void;
}
interface Bus {
  readonly devices: Map<string, BusDevice>;
  readonly linked: Map<string, string>;
  sync(): void;
}
/** One bus a kernel. */
const buses = new WeakMap<SysfsTree, Bus>();

function busOf(sysfs: SysfsTree): Bus {
  const known = buses.get(sysfs);
  if (known) return known;
  const devices = new Map<string, BusDevice>();
  const linked = new Map<string, string>();
  const bus: Bus = {
    devices,
    linked,
    /** Links from device to driver and back, as things are now. */
    sync() {
      for (const [name, device] of devices) {
        const now = device.bound();
        const before = linked.get(name);
        if (now === before) continue;
        if (before) {
          sysfs.remove(`${device.path}/driver`);
          sysfs.remove(`${BUS}/drivers/${before}/${name}`);
          linked.delete(name);
        }
        if (!now) continue;
        const up = '../'.repeat(device.path.split('/').length - 2);
        sysfs.link(`${device.path}/driver`, `${up}bus/dsa/drivers/${now}`);
        sysfs.link(`${BUS}/drivers/${now}/${name}`, `../../../..${device.path.slice('/sys'.length)}`);
        linked.set(name, now);
      }
    },
  };
  // A name that no device has, or a device that is not the driver's to bind: ENODEV. One that is bound already: EBUSY.
  const bind = (driver: string | undefined, text: string): number => {
    const device = devices.get(line(text));
    const name = driver ?? device?.usual();
    if (typeof name === 'number') return name;
    if (!device || name === undefined || !device.takes.includes(name)) return -Errno.ENODEV;
    if (device.bound() !== undefined) return -Errno.EBUSY;
    const error = device.bind(name);
    bus.sync();
    return error < 0 ? error : text.length;
  };
  const unbind = (driver: string | undefined, text: string): number => {
    const device = devices.get(line(text));
    if (!device || device.bound() === undefined || (driver !== undefined && device.bound() !== driver)) return -Errno.ENODEV;
    device.unbind();
    bus.sync();
    return text.length;
  };
  for (const driver of ['idxd', ...WQ_DRIVERS]) {
    sysfs.add(`${BUS}/drivers/${driver}/bind`, { store: (text) => bind(driver, text) });
    sysfs.add(`${BUS}/drivers/${driver}/unbind`, { store: (text) => unbind(driver, text) });
  }
  // The files of the first driver, which chooses by what the device is. Linux drivers/dma/idxd/compat.c.
  sysfs.add(`${BUS}/drivers/dsa/bind`, { store: (text) => bind(undefined, text) });
  sysfs.add(`${BUS}/drivers/dsa/unbind`, { store: (text) => unbind(undefined, text) });
  buses.set(sysfs, bus);
  return bus;
}

/** The driver's part of the tree: `sync` after a change of what is bound, `remove` when the device goes. */
export interface DeviceTree {
  sync(): void;
  remove(): void;
}

export function deviceTree(driver: IdxdDriver, sysfs: SysfsTree): DeviceTree {
  const bus = busOf(sysfs);
  const { id, capabilities: can } = driver;
  const device = driver.name;
  if (bus.devices.has(device)) throw new RangeError(`IdxdDriver: id ${id} has another device of this kernel`);
  const home = driver.sysfsPath;
  const names: string[] = [];
  const place = (name: string, path: string, table: Parameters<typeof attributesOf>[0], index: number): string => {
    for (const [attribute, file] of attributesOf(table, { d: driver, index })) sysfs.add(`${path}/${attribute}`, file);
    sysfs.link(`${path}/subsystem`, `${'../'.repeat(path.split('/').length - 2)}bus/dsa`);
    sysfs.link(`${BUS}/devices/${name}`, `../../..${path.slice('/sys'.length)}`);
    names.push(name);
    return path;
  };
  place(device, home, deviceAttributes, 0);
  for (let g = 0; g < can.groups; g++) place(`group${id}.${g}`, `${home}/group${id}.${g}`, groupAttributes, g);
  for (let e = 0; e < can.engines; e++) place(`engine${id}.${e}`, `${home}/engine${id}.${e}`, engineAttributes, e);
  bus.devices.set(device, {
    path: home,
    takes: ['idxd'],
    bound: () => (driver.bound ? 'idxd' : undefined),
    usual: () => 'idxd',
    bind: () => bindDevice(driver),
    unbind: () => unbindDevice(driver),
  });
  for (let w = 0; w < can.wqs; w++) {
    const name = `wq${id}.${w}`;
    const wq = () => driver.wqs.find((queue) => queue.index === w);
    bus.devices.set(name, {
      path: place(name, `${home}/${name}`, wqAttributes, w),
      takes: WQ_DRIVERS,
      bound: () => wq()?.driver,
      usual() {
        const { type } = driver.settings.wqs[w]!;
        return type === 'none' ? -Errno.EINVAL : type === 'kernel' ? 'dmaengine' : type;
      },
      bind: (by) => bindWq(driver, w, by as WqDriver),
      unbind: () => unbindWq(driver, wq()!),
    });
  }
  bus.sync();
  return {
    sync: () => bus.sync(),
    remove() {
      for (const name of names) {
        const by = bus.linked.get(name);
        if (by) sysfs.remove(`${BUS}/drivers/${by}/${name}`);
        bus.linked.delete(name);
        bus.devices.delete(name);
        sysfs.remove(`${BUS}/devices/${name}`);
      }
      sysfs.remove(home);
    },
  };
}
