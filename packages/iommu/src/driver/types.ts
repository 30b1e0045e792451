/** What the driver hands out. */
export interface FaultRecord {
  readonly reason: number;
  readonly requesterId: number;
  /** NO_PASID (-1) when the request had none. */
  readonly pasid: number;
  /** Page-aligned address, as two int32 words. */
  readonly hi: number;
  readonly lo: number;
  readonly read: boolean;
}
/** A page request that an attached nested domain's owner may answer. */
export interface PageRequestEvent {
  readonly requesterId: number;
  readonly pasid: number;
  readonly hi: number;
  readonly lo: number;
  /** DmaAccess bits: write 1, privileged 2, execute 4. */
  readonly access: number;
  /** False: the right to read is not asked for. */
  readonly reads?: boolean;
  /** 9 bits. */
  readonly group: number;
}
/** How the owner of a domain names an attachment of it. */
export interface AttachHandle {
  readonly deviceId: number;
  /** NO_PASID: the RID. */
  readonly pasid: number;
}
/** What a domain's owner hears of its attachments. */
export interface DomainEvents {
  /** The page requests of one group, in order. Answer with IommuDriver.pageResponse. */
  pageRequests(group: readonly PageRequestEvent[], handle: AttachHandle | undefined): void;
  /** An attachment is gone; what it still waits for is to be answered. */
  detached(requesterId: number, pasid: number): void;
}
/** A domain together with the name of the attachment that is to be made. */
export interface AttachTarget {
  readonly domain: Domain;
  readonly handle: AttachHandle;
}
/** An address space that (RID) or (RID, PASID) can be attached to. */
export interface Domain {
  readonly kind: 'identity' | 'paging' | 'nested' | 'sva';
  /** The tag of its cache entries. */
  readonly domainId: number;
  /** Takes page requests of what is attached here; absent: they are answered Invalid Request. A process's pages are its mm's business. */
  events?: DomainEvents | undefined;
  /** Releases tables and domain id; -EBUSY while attached or while nested domains stand on it. */
  free(): number;
}
export interface PagingDomain extends Domain {
  readonly kind: 'paging';
  /** Top second-stage table. */
  readonly rootFrame: number;
  /** Maps `frames` contiguous frames at `iova` (bytes). `prot`: Prot.READ | Prot.WRITE. 0 or -errno (EEXIST: something is there; nothing changed). */
  map(iova: number, frame: number, frames: number, prot: number): number;
  /** Unmaps and invalidates; returns the bytes that were mapped. The frames may be reused when it returns. */
  unmap(iova: number, length: number): number;
}
export interface NestedDomain extends Domain {
  readonly kind: 'nested';
  readonly parent: PagingDomain;
  /** First-stage invalidation of `pages` 4 KiB pages from (hi, lo); pages -1: all. */
  invalidate(hi: number, lo: number, pages: number, leafOnly: boolean): void;
}
export interface SvaHandle {
  readonly pasid: number;
  unbind(): void;
}
export interface DeviceCapabilities {
  readonly ats?: boolean;
  readonly pri?: boolean;
  readonly pasid?: boolean;
}
