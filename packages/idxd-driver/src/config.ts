/** How queues, groups and engines are to be set up, in the words of the sysfs ABI (Documentation/ABI/stable/sysfs-driver-dma-idxd). */
import { Errno } from '@siov/layout/uapi';

export interface WqConfig {
  readonly mode: 'dedicated' | 'shared';
  /** Entries of the device's total. */
  readonly size: number;
  readonly group: number;
  /** 1 to 15. */
  readonly priority?: number;
  /** Shared queues: entries that the limited portals may take. Default: the size. */
  readonly threshold?: number;
  readonly blockOnFault?: boolean;
  /** Bytes, a power of two; default: what the device can. */
  readonly maxTransferSize?: number;
  /** Descriptors, a power of two; default: what the device can. */
  readonly maxBatchSize?: number;
  readonly type?: 'user' | 'kernel' | 'mdev';
  readonly name?: string;
}
export interface DeviceConfig {
  readonly wqs: readonly WqConfig[];
  /** Engines by group; default: all engines in group 0. */
  readonly groups?: readonly { readonly engines: readonly number[] }[];
}
/** What the device can, from its capability registers. */
export interface Capabilities {
  /** The kind of accelerator: its devices are dsaN or iaxN. */
  readonly type: 'dsa' | 'iax';
  /** Bytes of a completion record, and its alignment. */
  readonly recordBytes: 32 | 64;
  /** IAACAP, of analytics accelerators from 2.0 on: 64 bits as two words. */
  readonly iaaCap: Uint32Array | undefined;
  readonly version: number;
  readonly wqs: number;
  readonly totalWqSize: number;
  readonly groups: number;
  readonly engines: number;
  readonly maxTransferShift: number;
  readonly maxBatchShift: number;
  readonly blockOnFault: boolean;
  readonly imsEntries: number;
  readonly configurable: boolean;
  readonly operations: ReadonlySet<number>;
  /** Bit per administrative command. */
  readonly commands: number;
  /** OPCAP and GENCAP as they are. */
  readonly operationMask: Uint32Array;
  readonly genCapLow: number;
  readonly genCapHigh: number;
  readonly eventLog: boolean;
  /** Bytes of an event; 0 without a log. */
  readonly eventBytes: number;
  readonly readBuffers: number;
  readonly readBufferLimit: boolean;
  readonly progressLimit: boolean;
  readonly sharedMode: boolean;
  readonly atsControl: boolean;
  readonly prsControl: boolean;
  readonly occupancy: boolean;
  readonly operationConfig: boolean;
  /** The function has PASIDs: address spaces can be shared. */
  readonly pasid: boolean;
}

/** The kernel's answer to a configuration: 0, or the errno of the attribute that would be refused first, and which. */
export function checkConfig(config: DeviceConfig, can: Capabilities): { readonly error: number; readonly why: string } {
  const bad = (error: number, why: string) => ({ error: -error, why });
  if (config.wqs.length > can.wqs) return bad(Errno.EINVAL, `the device has ${can.wqs} work queues, not ${config.wqs.length}`);
  const engines = new Set<number>();
  for (const [g, group] of (config.groups ?? []).entries()) {
    if (g >= can.groups) return bad(Errno.EINVAL, `the device has ${can.groups} groups`);
    for (const e of group.engines) {
      if (e >= can.engines || engines.has(e)) return bad(Errno.EINVAL, `engine${e}: group_id names an engine twice, or one that is not there`);
      engines.add(e);
    }
  }
  let sizes = 0;
  for (const [i, wq] of config.wqs.entries()) {
    const at = `wq${i}: `;
    sizes += wq.size;
    if (wq.size < 1 || sizes > can.totalWqSize) return bad(Errno.EINVAL, `${at}size: 1 or more, ${can.totalWqSize} in all`);
    if (wq.group < 0 || wq.group >= can.groups) return bad(Errno.EINVAL, `${at}group_id: 0 to ${can.groups - 1}`);
    const priority = wq.priority ?? 10;
    if (priority < 1 || priority > 15) return bad(Errno.EINVAL, `${at}priority: 1 to 15`);
    if (wq.threshold !== undefined && (wq.mode === 'dedicated' || wq.threshold < 1 || wq.threshold > wq.size))
      return bad(Errno.EINVAL, `${at}threshold: of a shared queue, 1 to its size`);
    if (wq.blockOnFault && !can.blockOnFault) return bad(Errno.EOPNOTSUPP, `${at}block_on_fault: not offered by the device`);
    for (const [name, value, shift] of [
      ['max_transfer_size', wq.maxTransferSize, can.maxTransferShift],
      ['max_batch_size', wq.maxBatchSize, can.maxBatchShift],
    ] as const)
      if (value !== undefined && (value < 1 || value > 2 ** shift || !Number.isInteger(Math.log2(value))))
        return bad(Errno.EINVAL, `${at}${name}: a power of two up to ${2 ** shift}`);
  }
  return { error: 0, why: '' };
}
