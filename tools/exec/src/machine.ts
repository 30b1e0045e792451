/** The machine that programs see: a host with accelerators, its kernel and drivers, and a configuration. */
import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { iax2, sprIax } from '@siov/idxd-device/iax';
import { applyConfig, type IdxdDriver, loadConfig } from '@siov/idxd-driver';
import { errnoName } from '@siov/layout/uapi';
import { Host } from '@siov/stack';
import type { BoundVfioPci } from '@siov/stack/vfio';
import { ForeignMemory } from './foreign.js';
import type { Native, NativeBytes } from './native.js';
import { offerUacce } from './uacce.js';
import { offerVfio } from './vfio.js';

/** A name or a configuration that the machine cannot be built from. */
export class MachineError extends Error {}

export const deviceProfiles: Readonly<Record<string, { readonly about: string; readonly profile: Profile }>> = {
  'dsa-spr': { about: "DSA of Sapphire Rapids' shape", profile: sprDsa },
  'dsa-gnrd': { about: "DSA 2.0 of Granite Rapids-D's shape, with an event log", profile: gnrD },
  'dsa-small': {
    about: 'the same with transfers of at most 64 KiB and batches of at most 32: for programs that ask for all that a device can do',
    profile: { ...sprDsa, name: 'dsa-small', maxTransferShift: 16, maxBatchShift: 5 },
  },
  'iax-spr': { about: "IAX, the analytics accelerator, of Sapphire Rapids' shape", profile: sprIax },
  'iax-2.0': { about: 'an IAX of version 2.0', profile: iax2 },
};

/** How programs get at a device. */
export const deviceDrivers: Readonly<Record<string, string>> = {
  idxd: '/dev/dsa or /dev/iax, configured as accel-config does',
  uacce: '/dev/idxd_dwq-N and /dev/idxd_swq-N, found by /sys/class/uacce',
  'vfio-pci': 'the whole function: /dev/vfio/vfio and /dev/vfio/N, or /dev/vfio/devices/vfioN and /dev/iommu',
};

/** One shared and one dedicated queue for user programs, in the format of accel-config's files. */
const defaultConfig = ({ name, id, capabilities }: IdxdDriver): string =>
  JSON.stringify([
    {
      dev: name,
      groups: [
        {
          dev: `group${id}.0`,
          grouped_workqueues: [
            queue(id, 0, { mode: 'shared', size: 16, threshold: 15, ...most(capabilities) }),
            queue(id, 1, { mode: 'dedicated', size: 16, ...most(capabilities) }),
          ],
          grouped_engines: Array.from({ length: capabilities.engines }, (_, engine) => ({ dev: `engine${id}.${engine}`, group_id: 0 })),
        },
      ],
    },
  ]);
/** Compression asks for room of twice its largest source; the driver's own default is 2 MiB. */
const most = ({ type }: IdxdDriver['capabilities']): object => (type === 'iax' ? { max_transfer_size: 4 * 2 ** 20 } : {});
const queue = (id: number, index: number, more: object): object => ({
  dev: `wq${id}.${index}`,
  ...more,
  group_id: 0,
  priority: 10,
  block_on_fault: 1,
  type: 'user',
  driver_name: 'user',
  name: `app${index}`,
});

export interface Machine {
  readonly host: Host;
  /** Of the devices that this kernel drives itself. */
  readonly drivers: readonly IdxdDriver[];
  /** Devices that programs drive. */
  readonly vfio?: readonly BoundVfioPci[];
  readonly foreign: ForeignMemory;
  /** The host's RAM, from frame 0 on. */
  readonly ram: NativeBytes;
}
export interface MachineOptions {
  /** Names of `deviceProfiles`, each with a driver of `deviceDrivers` after a colon (default: idxd); default: one 'dsa-spr'. */
  readonly devices?: readonly string[];
  /** The text of a file for `accel-config load-config`; default: a shared and a dedicated queue of each device. '': nothing is configured. */
  readonly config?: string;
  /** Pages that a process may have pinned through a container, and all together through /dev/iommu (default: no limit). RLIMIT_MEMLOCK. */
  readonly lockedPages?: number;
  readonly trace?: { emit(event: number, a: number, b: number, c: number, d: number): void };
}

const RAM_BYTES = 64 * 2 ** 20;

/** NAME or NAME:DRIVER. */
function parseDevice(text: string): { readonly profile: Profile; readonly driver: string } {
  const [name = '', driver = 'idxd', ...more] = text.split(':');
  if (!Object.hasOwn(deviceProfiles, name))
    throw new MachineError(`there is no device '${name}'; there are ${Object.keys(deviceProfiles).join(', ')}`);
  if (more.length > 0 || !Object.hasOwn(deviceDrivers, driver))
    throw new MachineError(
      `there is no driver '${[driver, ...more].join(':')}' for ${name}; after the colon stands one of ${Object.keys(deviceDrivers).join(', ')}`,
    );
  return { profile: deviceProfiles[name]!.profile, driver };
}

/** Throws MachineError. */
export function buildMachine(native: Native, options: MachineOptions = {}): Machine {
  const { devices = ['dsa-spr'], config, trace, lockedPages } = options;
  const wanted = devices.map(parseDevice);
  const foreign = new ForeignMemory(native, lockedPages === undefined ? {} : { lockedPages });
  const ram = native.allocate(RAM_BYTES);
  const host = new Host({
    devices: wanted.map(({ profile }) => profile),
    foreign,
    ram: ram.bytes,
    ...(lockedPages === undefined ? {} : { lockedPages }),
    ...(trace ? { trace } : {}),
  });
  const { kernel } = host;
  const functions = kernel.devices.map((fn, i) => ({ fn, driver: wanted[i]!.driver }));
  const idle: IdxdDriver[] = [];
  const drivers: IdxdDriver[] = [];
  for (const [i, { fn, driver }] of functions.entries()) {
    if (driver === 'vfio-pci') continue;
    drivers.push(driver === 'uacce' ? offerUacce(host, fn, i).driver : kernel.bindIdxd(fn));
    if (driver === 'idxd') idle.push(drivers.at(-1)!);
  }
  const vfio = offerVfio(
    host,
    functions.filter(({ driver }) => driver === 'vfio-pci').map(({ fn }) => fn),
  );
  const { sysfs } = kernel.user;
  sysfs.add('/sys/module/idxd/parameters/sva', { show: () => 'Y\n' });
  // As after boot: configured by nobody, and off.
  if (config === undefined) for (const driver of idle) apply(defaultConfig(driver));
  if (config) apply(config);
  return { host, drivers, vfio, foreign, ram };

  function apply(text: string): void {
    const loaded = loadConfig(text, drivers[0]?.capabilities.version);
    if ('why' in loaded) throw new MachineError(`the configuration is refused: ${loaded.attribute}: ${loaded.why}`);
    for (const writes of [loaded.writes, loaded.enable]) {
      const { error, attribute } = applyConfig(sysfs, writes);
      if (error < 0) throw new MachineError(`the configuration is refused: ${attribute}: ${errnoName(error)}`);
    }
  }
}
