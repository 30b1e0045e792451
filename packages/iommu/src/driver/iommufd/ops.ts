/**
 * What iommufd needs of an IOMMU driver: devices, page tables, virtual IOMMUs. `vtd.ts` has those of this package's driver; whoever has
 * the methods fits. Linux, struct iommu_ops, iommu_domain_ops, iommu_dirty_ops, iommufd_viommu_ops. Failures are -errno.
 */
import type { Task } from '../../ports.js';
import type { AttachHandle, Domain, DomainEvents } from '../types.js';

/** What a device can do. */
export interface DeviceFacts {
  /** Width of its PASIDs; 0: none. */
  readonly pasidBits: number;
  /** HwInfoCapability bits. */
  readonly capabilities: number;
  /** It can ask for pages. */
  readonly pageRequests: boolean;
  readonly dirtyTracking: boolean;
}
/** A structure that user space handed in with its type. Linux, struct iommu_user_data. */
export interface UserData {
  readonly type: number;
  readonly bytes: number;
  /** The first `size` bytes, of which the caller must give `least`: -EINVAL, -EFAULT, -E2BIG for an unknown tail. */
  read(size: number, least?: number): Uint32Array | number;
  /** Writes it back. 0 or -EFAULT. */
  write(words: Uint32Array): number;
}
/** An array of requests of user space. Linux, struct iommu_user_data_array. */
export interface UserArray {
  readonly type: number;
  readonly count: number;
  /** Entry `index` as `size` bytes: -EINVAL, -EFAULT, -E2BIG. */
  read(index: number, size: number): Uint32Array | number;
  /** Entries that are done; goes back to the caller. */
  done: number;
}
/** Addresses from `start` to `last`. */
export interface IovaSpan {
  readonly start: bigint;
  readonly last: bigint;
}
/** Notes that a page of `bytes` at `iova` was written. */
export type RecordDirty = (iova: bigint, bytes: bigint) => void;
/** A page table that IOVAs are mapped in. */
export interface PageTable {
  readonly kind: 'paging';
  /** What an attacher outside of iommufd attaches. */
  readonly domain: Domain | undefined;
  /** Sizes of its pages: a bit each, below 2^31. */
  readonly pageSizes: number;
  /** Addresses that it cannot map. */
  readonly reserved: readonly IovaSpan[];
  /** `address`: host physical. Whole pages of the smallest size. `large`: pages larger than 4 KiB may be used. 0 or -errno, with nothing mapped. */
  map(iova: bigint, address: number, bytes: number, prot: number, large: boolean): number;
  /** The frames may be reused when it returns. */
  unmap(iova: bigint, bytes: number): void;
  /** Absent: it was not made for dirty tracking. */
  readonly dirty?:
    | {
        set(on: boolean): number;
        /** `record` absent: only clears. */
        read(iova: bigint, bytes: bigint, clear: boolean, record: RecordDirty | undefined): number;
      }
    | undefined;
  events: DomainEvents | undefined;
  /** Somebody whom iommufd does not know is attached, or stands on it. */
  readonly busy: boolean;
  free(): void;
}
/** A page table of user space over a PageTable. */
export interface NestedTable {
  readonly kind: 'nested';
  readonly domain: Domain | undefined;
  invalidate(array: UserArray): number;
  events: DomainEvents | undefined;
  readonly busy: boolean;
  free(): void;
}
export type Table = PageTable | NestedTable;

/** What a virtual IOMMU may ask iommufd. */
export interface ViommuContext {
  /** The device object behind a virtual id. */
  deviceOf(virtualId: bigint): { readonly deviceId: number; readonly requesterId: number } | undefined;
  /** The virtual id of a device object. */
  virtualIdOf(deviceId: number): bigint | undefined;
  /** Lets user space map a page frame; the offset of it in the file. */
  offer(frame: number): number;
  /** An event for the vEVENTQ of a type: 0 or -errno. Linux, iommufd_viommu_report_event. */
  report(type: number, event: Uint32Array): number;
}
/** A virtual IOMMU's half that the driver knows. */
export interface Viommu {
  nestedTable?(flags: number, data: UserData): NestedTable | number;
  invalidate?(array: UserArray): number;
  /** A device is there under its virtual id, or goes. */
  deviceAdded?(requesterId: number, virtualId: bigint): number;
  deviceRemoved?(requesterId: number, virtualId: bigint): void;
  /** A nested table of this virtual IOMMU is attached to a device only under a virtual id. */
  readonly needsDevice?: boolean;
  readonly eventTypes?: readonly number[];
  readonly queueTypes?: readonly number[];
  /** The queue's memory is contiguous and pinned. */
  queueAdded?(index: number, address: number, bytes: number): number;
  queueRemoved?(index: number): void;
  free(): void;
}

/** An ioctl of the driver's own on iommufd's file. */
export interface ExtraIoctl<F> {
  readonly size: number;
  readonly least: number;
  run(file: F, task: Task, words: Uint32Array): number;
}
export interface IommufdOps {
  /** Undefined: no device of this driver. */
  device(requesterId: number): DeviceFacts | undefined;
  /** `type` HwInfoType.NONE: whatever there is; another: -EOPNOTSUPP when it is not that. */
  hwInfo(requesterId: number, type: number): { readonly type: number; readonly words: Uint32Array } | number;
  /** `flags`: HwptAllocFlag without FAULT_ID_VALID. */
  pageTable(requesterId: number, flags: number, data: UserData | undefined): PageTable | number;
  nestedTable?(requesterId: number, parent: PageTable, flags: number, data: UserData): NestedTable | number;
  /** In place of what is attached, which stays when this fails. */
  attach(requesterId: number, pasid: number, table: Table, handle: AttachHandle): number;
  detach(requesterId: number, pasid: number): void;
  pageResponse(requesterId: number, pasid: number, group: number, code: number): void;
  /** Types of virtual IOMMUs. */
  readonly viommuTypes?: readonly number[];
  viommu?(requesterId: number, type: number, parent: PageTable, data: UserData | undefined, context: ViommuContext): Viommu | number;
  /** Asked before anything is allocated: true, and the allocation fails. For tests. Linux, fail_iommufd. */
  fails?(what: string): boolean;
}
