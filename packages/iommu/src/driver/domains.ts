/**
 * Domains: what a (RID) or (RID, PASID) can be attached to. Each knows how its PASID entry reads and what must be invalidated when its
 * mappings, or its attachments, change. VT-d, "Guidance to Software for Invalidations".
 */
import { Errno, Prot } from '@siov/layout/uapi';
import type { Mm } from '../ports.js';
import { Capability } from '../spec/capabilities.js';
import { VtdS1Flag } from '../spec/iommufd.js';
import { PasidEntry } from '../spec/structures.js';
import type { Hardware } from './hardware.js';
import { coveringOrder, type DriverQueue } from './queue.js';
import { SecondStageTable } from './second-stage.js';
import type { AttachHandle, Domain, DomainEvents, NestedDomain, PagingDomain } from './types.js';

/** Domain id of first-stage and pass-through entries, which need none of their own. Linux keeps 0 for caching mode. */
const SHARED_DOMAIN_ID = 1;
const FIRST_FREE_ID = 2;
const { set, is } = PasidEntry;

/** A place where a domain is attached. */
export interface Attachment {
  readonly requesterId: number;
  /** NO_PASID: the RID itself. */
  readonly pasid: number;
  readonly deviceTlb: boolean;
  readonly handle: AttachHandle | undefined;
}

/** What domains share: the unit, its queue, the registry of ids. */
export class DomainContext {
  readonly hardware: Hardware;
  readonly queue: DriverQueue;
  /** Width of second-stage tables: levels, and what the PASID entry calls it. */
  readonly levels: number;
  readonly addressWidth: number;
  /** Writes an attachment's PASID entry anew. */
  refresh: (domain: AttachableDomain, at: Attachment) => void = () => {};
  private readonly ids: number;
  private next = FIRST_FREE_ID;
  private readonly freed: number[] = [];

  constructor(hardware: Hardware, queue: DriverQueue) {
    this.hardware = hardware;
    this.queue = queue;
    const widths = Capability.get.adjustedWidths(hardware.capability, 0);
    this.addressWidth = widths & 4 ? 2 : widths & 2 ? 1 : 3;
    this.levels = this.addressWidth + 2;
    this.ids = 2 ** (4 + 2 * Capability.get.domains(hardware.capability, 0));
  }
  /** A domain id, or -1. */
  allocId(): number {
    return this.freed.pop() ?? (this.next < this.ids ? this.next++ : -1);
  }
  freeId(id: number): void {
    if (id >= FIRST_FREE_ID) this.freed.push(id);
  }
  /** Page walks snoop where the unit can. */
  fillCommon(words: Uint32Array, at: number, domainId: number): void {
    set.domainId(words, at, domainId);
    set.pageWalkSnoop(words, at, this.hardware.has('coherentWalk') ? 1 : 0);
  }
}

export abstract class AttachableDomain implements Domain {
  abstract readonly kind: Domain['kind'];
  readonly domainId: number;
  readonly attachments = new Set<Attachment>();
  events: DomainEvents | undefined;
  protected readonly context: DomainContext;
  constructor(context: DomainContext, domainId: number) {
    this.context = context;
    this.domainId = domainId;
  }
  /** 0, or -errno why it cannot be attached now. */
  ready(): number {
    return this.domainId < 0 ? -Errno.ENOSPC : 0;
  }
  /** Writes the PASID entry's fields, all but P. */
  abstract fill(words: Uint32Array, at: number): void;
  /** Queues the IOTLB invalidation after the entry of `pasid` (0: the RID's) changed. */
  abstract invalidateEntry(pasid: number): void;
  free(): number {
    return this.attachments.size ? -Errno.EBUSY : 0;
  }
  /** Queues device-TLB invalidation at every attachment that has one. */
  protected deviceTlbs(page?: number, order?: number): void {
    for (const { requesterId, pasid, deviceTlb } of this.attachments) if (deviceTlb) this.context.queue.deviceTlb(requesterId, pasid, page, order);
  }
}

export class PassThroughDomain extends AttachableDomain {
  readonly kind = 'identity';
  constructor(context: DomainContext) {
    super(context, SHARED_DOMAIN_ID);
  }
  override ready(): number {
    return this.context.hardware.has('passThrough') ? 0 : -Errno.EOPNOTSUPP;
  }
  fill(words: Uint32Array, at: number): void {
    this.context.fillCommon(words, at, this.domainId);
    set.addressWidth(words, at, this.context.addressWidth);
    set.type(words, at, is.type.passThrough);
  }
  invalidateEntry(pasid: number): void {
    this.context.queue.pasidIotlb(this.domainId, pasid);
  }
}

/** A process's page table as first stage. */
export class SvaDomain extends AttachableDomain {
  readonly kind = 'sva';
  private readonly rootFrame: number;
  private readonly levels: number;
  constructor(context: DomainContext, { rootFrame, levels = 4 }: Pick<Mm, 'rootFrame' | 'levels'>) {
    super(context, SHARED_DOMAIN_ID);
    this.rootFrame = rootFrame;
    this.levels = levels;
  }
  /** A process of 5 levels needs a unit that walks them. Linux, iommu_enable_sva and cap_fl5lp_support. */
  override ready(): number {
    const { hardware } = this.context;
    const deep = this.levels === 4 || Capability.get.firstStage5Level(hardware.capability, 0) === 1;
    return hardware.has('firstStage') && deep ? 0 : -Errno.EOPNOTSUPP;
  }
  fill(words: Uint32Array, at: number): void {
    this.context.fillCommon(words, at, this.domainId);
    set.addressWidth(words, at, this.context.addressWidth);
    set.firstStage(words, at, this.rootFrame * 4096);
    set.firstStageMode(words, at, this.levels === 5 ? 1 : 0);
    set.pageSnoop(words, at, this.context.hardware.has('snoopControl') ? 1 : 0);
    set.type(words, at, is.type.firstStage);
  }
  invalidateEntry(pasid: number): void {
    this.context.queue.pasidIotlb(this.domainId, pasid);
  }
  /** The mm changed [start, end). */
  invalidateRange(start: number, end: number): void {
    if (!this.attachments.size) return;
    const first = Math.floor(start / 4096);
    const order = coveringOrder(first, Math.max(Math.ceil(end / 4096) - first, 1));
    const done = new Set<number>();
    for (const { pasid } of this.attachments) {
      if (!done.has(pasid)) this.context.queue.pasidIotlb(this.domainId, pasid, first, order);
      done.add(pasid);
    }
    this.deviceTlbs(first, order);
    this.context.queue.flush();
  }
}

/** Input addresses mapped by this driver: a second stage. */
export class SecondStageDomain extends AttachableDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly table: SecondStageTable;
  /** Nested domains that stand on this one. */
  readonly children = new Set<FirstStageOnSecond>();
  /** Accessed and dirty bits are kept. */
  tracking = false;

  constructor(context: DomainContext) {
    super(context, context.allocId());
    const large = Capability.get.secondStageLargePages(context.hardware.capability, 0);
    this.table = new SecondStageTable(context.hardware, context.levels, large & 2 ? 3 : large & 1 ? 2 : 1);
  }
  get rootFrame(): number {
    return this.table.rootFrame;
  }
  override ready(): number {
    if (!this.context.hardware.has('secondStage')) return -Errno.EOPNOTSUPP;
    return this.rootFrame < 0 ? -Errno.ENOMEM : super.ready();
  }
  fill(words: Uint32Array, at: number): void {
    this.context.fillCommon(words, at, this.domainId);
    this.fillSecond(words, at);
    set.type(words, at, is.type.secondStage);
  }
  fillSecond(words: Uint32Array, at: number): void {
    set.addressWidth(words, at, this.context.addressWidth);
    set.secondStage(words, at, this.rootFrame * 4096);
    set.secondStageAccessedDirty(words, at, this.tracking ? 1 : 0);
  }
  /** Writes are noted in the tables from now on, or no more. 0 or -EOPNOTSUPP. */
  trackDirty(on: boolean): number {
    if (!this.context.hardware.has('secondStageAccessedDirty')) return -Errno.EOPNOTSUPP;
    if (this.tracking === on) return 0;
    this.tracking = on;
    for (const domain of [this, ...this.children]) for (const at of domain.attachments) this.context.refresh(domain, at);
    return 0;
  }
  /** Calls `record` for every page (first page, pages of 4 KiB) that was written; `clear`: they count anew from here on. */
  readDirty(page: number, pages: number, clear: boolean, record: (page: number, pages: number) => void): void {
    if (this.table.readDirty(page, pages, clear, record) && clear) this.invalidatePages(page, pages);
  }
  invalidateEntry(): void {
    this.context.queue.iotlb(this.domainId);
  }

  map(iova: number, frame: number, frames: number, prot: number): number {
    const page = iova / 4096;
    if (!Number.isInteger(page) || !Number.isInteger(frame) || !Number.isInteger(frames) || page < 0 || frame < 0 || frames < 1) return -Errno.EINVAL;
    if (!(prot & (Prot.READ | Prot.WRITE))) return -Errno.EINVAL;
    if (page + frames > this.table.pages) return -Errno.EOVERFLOW;
    const error = this.table.map(page, frame, frames, prot);
    // A unit in caching mode may hold the absence of what is now there.
    if (!error && this.context.hardware.cachingMode) this.invalidatePages(page, frames);
    return error;
  }
  unmap(iova: number, length: number): number {
    const first = Math.floor(iova / 4096);
    const last = Math.min(Math.ceil((iova + length) / 4096), this.table.pages);
    if (!(first >= 0 && last > first)) return 0;
    const pages = this.table.unmap(first, last - first);
    if (pages) this.invalidatePages(first, last - first);
    this.table.reclaim();
    return pages * 4096;
  }
  /**
   * Unmaps without invalidating: devices may go on with what they cached until `flush`. True when that must be now: tables went, and a cached
   * pointer to one would hide what is mapped in its place.
   */
  unmapLater(iova: number, length: number): boolean {
    this.table.unmap(Math.floor(iova / 4096), Math.ceil(length / 4096));
    return this.table.hasRetired;
  }
  /** Invalidates everything of the domain; what was unmapped until now may be used anew. */
  flush(): void {
    const { queue } = this.context;
    if (this.attachments.size) queue.iotlb(this.domainId);
    this.deviceTlbs();
    for (const child of this.children) child.invalidateAll();
    queue.flush();
    this.table.reclaim();
  }
  override free(): number {
    if (this.attachments.size || this.children.size) return -Errno.EBUSY;
    this.table.free();
    this.context.freeId(this.domainId);
    return 0;
  }

  /** Own results by range; of nested ones nobody knows which depend on it, so all. */
  private invalidatePages(page: number, pages: number): void {
    const { queue } = this.context;
    const order = coveringOrder(page, pages);
    if (this.attachments.size) queue.iotlb(this.domainId, page, order);
    this.deviceTlbs(page, order);
    for (const child of this.children) child.invalidateAll();
    queue.flush();
  }
}

/** A guest's first stage over a paging domain. */
export class FirstStageOnSecond extends AttachableDomain implements NestedDomain {
  readonly kind = 'nested';
  readonly parent: SecondStageDomain;
  private readonly root: number;
  private readonly addressWidth: number;
  private readonly flags: number;

  /** `root`: address of the top first-stage table, in the parent's input addresses. */
  constructor(context: DomainContext, parent: SecondStageDomain, root: number, addressWidth: number, flags: number) {
    super(context, context.allocId());
    this.parent = parent;
    this.root = root;
    this.addressWidth = addressWidth;
    this.flags = flags;
    parent.children.add(this);
  }
  override ready(): number {
    const { hardware } = this.context;
    if (!hardware.has('nested') || (this.addressWidth === 57 && !Capability.get.firstStage5Level(hardware.capability, 0))) return -Errno.EOPNOTSUPP;
    if (this.addressWidth !== 48 && this.addressWidth !== 57) return -Errno.EINVAL;
    if (this.flags & VtdS1Flag.SRE && !hardware.has('supervisorRequests')) return -Errno.EOPNOTSUPP;
    if (this.flags & VtdS1Flag.EAFE && !hardware.has('extendedAccessed')) return -Errno.EOPNOTSUPP;
    return this.parent.ready() || super.ready();
  }
  fill(words: Uint32Array, at: number): void {
    this.context.fillCommon(words, at, this.domainId);
    this.parent.fillSecond(words, at);
    set.firstStage(words, at, this.root);
    set.firstStageMode(words, at, this.addressWidth === 57 ? 1 : 0);
    set.supervisorRequests(words, at, this.flags & VtdS1Flag.SRE ? 1 : 0);
    set.extendedAccessed(words, at, this.flags & VtdS1Flag.EAFE ? 1 : 0);
    set.writeProtect(words, at, this.flags & VtdS1Flag.WPE ? 1 : 0);
    set.type(words, at, is.type.nested);
  }
  invalidateEntry(): void {
    this.context.queue.iotlb(this.domainId);
  }

  invalidate(hi: number, lo: number, pages: number, leafOnly: boolean): void {
    if (!this.attachments.size) return;
    const { queue } = this.context;
    if (pages < 0) {
      for (const { pasid } of this.attachments) queue.pasidIotlb(this.domainId, Math.max(pasid, 0));
      this.deviceTlbs();
    } else {
      const page = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
      const order = coveringOrder(page, Math.max(pages, 1));
      for (const { pasid } of this.attachments) queue.pasidIotlb(this.domainId, Math.max(pasid, 0), page, order, leafOnly);
      this.deviceTlbs(page, order);
    }
    queue.flush();
  }
  /** Queues the invalidation of everything cached of this domain. */
  invalidateAll(): void {
    if (!this.attachments.size) return;
    this.context.queue.iotlb(this.domainId);
    this.deviceTlbs();
  }
  override free(): number {
    if (this.attachments.size) return -Errno.EBUSY;
    this.parent.children.delete(this);
    this.context.freeId(this.domainId);
    return 0;
  }
}
