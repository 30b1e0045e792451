/** Options of the hardware side: capability profile, sizes of caches, modelled costs. */
import { Capability, defaultProfile, ExtendedCapability } from '../spec/capabilities.js';
import type { VirtualCommandLayout } from '../spec/virtual-commands.js';

type Fields<T extends { get: object }> = { readonly [K in keyof T['get']]?: number };
/** Differences from the default profile, by field name. */
export interface Profile {
  readonly capability?: Fields<typeof Capability>;
  readonly extendedCapability?: Fields<typeof ExtendedCapability>;
  /** Bits of a host physical address; at most 43, so that a page frame fits an int32. Default 43. */
  readonly hostAddressWidth?: number;
  /** Registers of virtual commands, where ECAP.VCS says that there are any; default 'current'. */
  readonly virtualCommandLayout?: VirtualCommandLayout;
}
/** Capability words, resolved. */
export interface Resolved {
  readonly capability: Uint32Array;
  readonly extended: Uint32Array;
  readonly hostAddressWidth: number;
}
/** Entries of each cache; powers of two. */
export interface CacheSizes {
  readonly context?: number;
  readonly pasid?: number;
  readonly iotlb?: number;
  readonly interrupt?: number;
  /** Of the first-stage paging-structure cache; default 0: none, every walk reads all levels. */
  readonly pagingStructure?: number;
}
/** Integer nanoseconds: an IOTLB look-up, one read of a walk, a translation request of a function over the bus. Default 0. */
export interface UnitCosts {
  readonly lookup: number;
  readonly walkRead: number;
  readonly atsRequest: number;
}

const apply = (
  words: Uint32Array,
  set: Readonly<Record<string, (w: Uint32Array, at: number, v: number) => void>>,
  fields: object,
  what: string,
): void => {
  for (const [name, value] of Object.entries(fields)) {
    const write = set[name];
    if (!write) throw new TypeError(`profile.${what}.${name}: no such field`);
    write(words, 0, value as number);
  }
};
export function resolve(profile: Profile = {}): Resolved {
  const capability = Uint32Array.from(defaultProfile.capability);
  const extended = Uint32Array.from(defaultProfile.extendedCapability);
  apply(capability, Capability.set, profile.capability ?? {}, 'capability');
  apply(extended, ExtendedCapability.set, profile.extendedCapability ?? {}, 'extendedCapability');
  const { hostAddressWidth = 43 } = profile;
  if (!(hostAddressWidth >= 32 && hostAddressWidth <= 43)) throw new RangeError(`profile.hostAddressWidth: 32 to 43, not ${hostAddressWidth}`);
  if (Capability.get.faultRecords(capability, 0) > 15) throw new RangeError('profile.capability.faultRecords: at most 15 (sixteen records)');
  return { capability, extended, hostAddressWidth };
}
