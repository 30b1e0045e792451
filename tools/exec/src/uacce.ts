/**
 * An accelerator whose queues programs get through uacce: /dev/idxd_dwq-N and /dev/idxd_swq-N, found by /sys/class/uacce. Linux
 * drivers/misc/uacce/uacce.c, Documentation/ABI/testing/sysfs-driver-uacce.
 */
import type { IdxdDriver } from '@siov/idxd-driver';
import { registerIdxdUacce } from '@siov/idxd-uacce';
import type { Host } from '@siov/stack';

/** Queues of each mode: a dedicated one serves one file, the shared one any number. */
const DEDICATED = 3;
const SIZE = 16;
const THRESHOLD = 15;

export interface OfferedUacce {
  readonly driver: IdxdDriver;
  /** The nodes' paths: dedicated, shared. */
  readonly paths: readonly string[];
  /** The device goes under its users. */
  remove(): void;
}

/** Binds a device that nothing is bound to. `id`: N of the nodes' names. */
export function offerUacce(host: Host, device: Host['kernel']['devices'][number], id: number): OfferedUacce {
  const { kernel } = host;
  const common = { size: SIZE, group: 0, type: 'user', blockOnFault: true } as const;
  const driver = kernel.bindIdxd(device, {
    wqs: [
      ...Array.from({ length: DEDICATED }, () => ({ ...common, mode: 'dedicated' as const })),
      { ...common, mode: 'shared' as const, threshold: THRESHOLD },
    ],
  });
  const { sysfs } = kernel.user;
  const offered = (['dedicated', 'shared'] as const).map((mode) => {
    const wqs = driver.wqs.filter((wq) => wq.config.mode === mode);
    const made = registerIdxdUacce({ driver, wqs, kernel: kernel.user, id });
    const home = `/sys/class/uacce/${made.path.slice('/dev/'.length)}`;
    // The function, which has the node of its memory.
    sysfs.link(`${home}/device`, driver.sysfsPath.slice(0, driver.sysfsPath.lastIndexOf('/')));
    return made;
  });
  const parent = driver.sysfsPath.slice(0, driver.sysfsPath.lastIndexOf('/'));
  if (sysfs.kind(`${parent}/numa_node`) === undefined) sysfs.add(`${parent}/numa_node`, { show: () => '-1\n' });
  return {
    driver,
    paths: offered.map(({ path }) => path),
    remove() {
      for (const each of offered) each.remove();
    },
  };
}
