/** Configuration files of accel-config. */

interface Queue {
  readonly dev: string;
  readonly mode: string;
  readonly size: number;
  readonly group_id: number;
  readonly priority: number;
  readonly block_on_fault: number;
  readonly type: string;
  readonly name: string;
  readonly driver_name: string;
}
interface Group {
  readonly dev: string;
  readonly grouped_workqueues: readonly Queue[];
  readonly grouped_engines: readonly { readonly dev: string; readonly group_id: number }[];
}
export interface Device {
  readonly dev: string;
  readonly groups: readonly Group[];
}

/** A device with so many dedicated queues of the kernel, and an engine for each up to four, all in one group. */
export const kernelQueues = (device: number, count: number): Device => ({
  dev: `dsa${device}`,
  groups: [
    {
      dev: `group${device}.0`,
      grouped_workqueues: Array.from({ length: count }, (_, i) => ({
        ...{ dev: `wq${device}.${i}`, mode: 'dedicated', size: 16, group_id: 0, priority: 10, block_on_fault: 0 },
        ...{ type: 'kernel', name: `queue${i}`, driver_name: 'dmaengine' },
      })),
      grouped_engines: Array.from({ length: Math.min(count, 4) }, (_, i) => ({ dev: `engine${device}.${i}`, group_id: 0 })),
    },
  ],
});
/** An analytics accelerator with so many dedicated queues for iaa_crypto, each with a number of entries of its own. */
export const analyticsQueues = (device: number, count: number): Device => ({
  dev: `iax${device}`,
  groups: [
    {
      dev: `group${device}.0`,
      grouped_workqueues: Array.from({ length: count }, (_, i) => ({
        ...{ dev: `wq${device}.${i}`, mode: 'dedicated', size: 16 + i, group_id: 0, priority: 10, block_on_fault: 0 },
        ...{ type: 'kernel', name: 'iaa_crypto', driver_name: 'crypto' },
      })),
      grouped_engines: Array.from({ length: 8 }, (_, i) => ({ dev: `engine${device}.${i}`, group_id: 0 })),
    },
  ],
});
export const configFile = (...devices: readonly Device[]): string => `${JSON.stringify(devices, null, 2)}\n`;
