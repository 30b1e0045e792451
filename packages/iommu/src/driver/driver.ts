/**
 * The IOMMU driver of a kernel instance. It drives the unit (or a virtual one) through registers and memory only: tables are set up and
 * torn down in the order that the specification asks for, every change is followed by its invalidation. VT-d, "Guidance to Software for
 * Invalidations", "Set Up and Tear Down"; Linux, drivers/iommu/intel.
 */
import { NO_PASID, PageResponse } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { Frames, IrqParent, Mm, Mmio, PhysicalMap, Trace, Vectors, Waiter } from '../ports.js';
import { ExtendedCapability } from '../spec/capabilities.js';
import { RootTable } from '../spec/registers.js';
import { ContextEntry, RootEntry } from '../spec/structures.js';
import type { VirtualCommandLayout } from '../spec/virtual-commands.js';
import { DmaSpace, type FlushQueueOptions } from './dma.js';
import { type AttachableDomain, type Attachment, DomainContext, FirstStageOnSecond, PassThroughDomain, SecondStageDomain } from './domains.js';
import { FaultHandler, PageRequestHandlerQueue } from './events.js';
import { Hardware } from './hardware.js';
import { RemappingDomain } from './interrupts.js';
import { IommufdDevice } from './iommufd/file.js';
import { VtdOps } from './iommufd/vtd.js';
import { PasidTable } from './pasid-table.js';
import { PasidAllocator, VirtualPasids } from './pasids.js';
import { DriverQueue } from './queue.js';
import { SvaBindings } from './sva.js';
import type {
  AttachHandle,
  AttachTarget,
  DeviceCapabilities,
  Domain,
  FaultRecord,
  NestedDomain,
  PageRequestEvent,
  PagingDomain,
  SvaHandle,
} from './types.js';

/** Integer nanoseconds of driver work: an invalidation queue flush, setting and clearing a PASID entry, binding an mm. Default 0. */
export interface DriverCosts {
  readonly queueWait: number;
  readonly pasidSet: number;
  readonly pasidClear: number;
  /** A page request, apart from its interrupt, the page fault and the queued response. */
  readonly pageRequest: number;
  readonly svaBind: number;
}
export interface DriverPorts {
  readonly registers: Mmio;
  readonly memory: PhysicalMap;
  readonly frames: Frames;
  readonly clock: Waiter;
  readonly vectors: Vectors;
  readonly costs?: Partial<DriverCosts> | undefined;
  readonly trace?: Trace | undefined;
  /** The kernel's own DMA mappings are invalidated together and later; default: each when it goes. */
  readonly flushQueue?: FlushQueueOptions | undefined;
  /** Pages that user space may have pinned through /dev/iommu; default: no limit. RLIMIT_MEMLOCK. */
  readonly lockedPages?: number | undefined;
  /** Asked before /dev/iommu allocates something: true, and that fails. For tests. */
  readonly fails?: ((what: string) => boolean) | undefined;
  /** Of a unit with virtual commands (a guest's): where their registers are. Default 'current'. */
  readonly virtualCommandLayout?: VirtualCommandLayout | undefined;
}
interface Device {
  readonly requesterId: number;
  readonly capabilities: DeviceCapabilities;
  readonly table: PasidTable;
  /** By PASID; NO_PASID is the RID. */
  readonly attached: Map<number, { readonly domain: AttachableDomain; readonly at: Attachment }>;
  dma: { readonly space: DmaSpace; readonly domain: SecondStageDomain } | undefined;
}
const CONTEXT_WORDS = 8;

export class IommuDriver {
  /** '/dev/iommu'. */
  readonly iommufd: IommufdDevice;
  readonly hardware: Hardware;
  private readonly ports: DriverPorts;
  private readonly queue: DriverQueue;
  private readonly context: DomainContext;
  private readonly pasids: PasidAllocator | VirtualPasids;
  private readonly sva: SvaBindings;
  private readonly faultHandler: FaultHandler;
  private readonly pageRequests: PageRequestHandlerQueue;
  private readonly devices = new Map<number, Device>();
  private readonly identity: PassThroughDomain;
  private rootFrame = -1;
  private remapping: RemappingDomain | undefined;

  constructor(ports: DriverPorts) {
    for (const name of ['registers', 'memory', 'frames', 'clock', 'vectors'] as const)
      if (!ports[name]) throw new TypeError(`ports.${name}: the driver needs it`);
    this.ports = ports;
    this.hardware = new Hardware(ports);
    for (const name of ['queuedInvalidation', 'scalableMode'] as const)
      if (!this.hardware.has(name)) throw new RangeError(`registers: the unit does not have ECAP.${name}`);
    this.queue = new DriverQueue(this.hardware, ports.costs?.queueWait ?? 0);
    this.context = new DomainContext(this.hardware, this.queue);
    const virtual = this.hardware.has('virtualCommands') ? new VirtualPasids(this.hardware, ports.virtualCommandLayout ?? 'current') : undefined;
    this.pasids = virtual?.available ? virtual : new PasidAllocator(ExtendedCapability.get.pasidWidth(this.hardware.extended, 0) + 1);
    this.sva = new SvaBindings(this.context, this.pasids, this);
    this.faultHandler = new FaultHandler(this.hardware);
    this.pageRequests = new PageRequestHandlerQueue(this.hardware, this.queue, (group) => this.handlePageRequests(group));
    this.identity = new PassThroughDomain(this.context);
    this.context.refresh = (domain, at) => this.refreshEntry(domain, at);
    this.iommufd = new IommufdDevice({
      ops: new VtdOps(this, ports.fails),
      bytesOf: (frame) => bytesOf(ports.memory, frame),
      lockedPages: ports.lockedPages,
    });
  }

  /** The last 256 faults, oldest first. */
  get faults(): readonly FaultRecord[] {
    return this.faultHandler.faults;
  }
  get onFault(): ((fault: FaultRecord) => void) | undefined {
    return this.faultHandler.onFault;
  }
  set onFault(hook: ((fault: FaultRecord) => void) | undefined) {
    this.faultHandler.onFault = hook;
  }

  /** Hears of every fault; the answer ends that. */
  listenFaults(listener: (fault: FaultRecord) => void): () => void {
    this.faultHandler.listeners.add(listener);
    return () => this.faultHandler.listeners.delete(listener);
  }

  /** Brings the unit up: queue, events, root table, global invalidation, translation. */
  enable(): void {
    if (this.rootFrame >= 0) throw new TypeError('enable: already done');
    const { hardware, queue } = this;
    this.rootFrame = hardware.alloc();
    if (this.rootFrame < 0) throw new RangeError('frames: no memory for the root table');
    if (!queue.enable()) throw new RangeError('registers: the unit does not enable its invalidation queue');
    this.faultHandler.enable(this.ports.vectors);
    if (hardware.has('pageRequests')) this.pageRequests.enable(this.ports.vectors);
    const mode = new Uint32Array(2);
    RootTable.set.mode(mode, 0, RootTable.is.mode.scalable);
    hardware.writeAddress('rootTable', this.rootFrame, mode[0]!);
    hardware.command('rootTable');
    queue.context();
    queue.pasidCache();
    queue.iotlbAll();
    queue.flush();
    hardware.command('translation');
  }

  /** A function on the bus: its context entry is set, nothing is attached (every request faults). 0 or -errno. */
  addDevice(requesterId: number, capabilities: DeviceCapabilities = {}): number {
    if (!Number.isInteger(requesterId) || requesterId < 0 || requesterId > 0xffff) throw new RangeError(`requesterId: 16 bits, not ${requesterId}`);
    if (this.rootFrame < 0) throw new TypeError('addDevice: enable() comes first');
    if (this.devices.has(requesterId)) return -Errno.EEXIST;
    const { hardware } = this;
    const usable: DeviceCapabilities = {
      ats: capabilities.ats === true && hardware.has('deviceTlb'),
      pri: capabilities.pri === true && hardware.has('pageRequests') && this.pageRequests.enabled,
      pasid: capabilities.pasid === true && hardware.has('pasid'),
    };
    const width = ExtendedCapability.get.pasidWidth(hardware.extended, 0) + 1;
    const table = new PasidTable(hardware, usable.pasid ? width : 0);
    const at = table.directoryFrame < 0 ? -1 : this.contextEntry(requesterId, true);
    if (at < 0) {
      table.free();
      return -Errno.ENOMEM;
    }
    const { words } = hardware;
    const { set } = ContextEntry;
    words.fill(0, at, at + CONTEXT_WORDS);
    set.directory(words, at, table.directoryFrame * 4096);
    set.directorySize(words, at, table.directorySize);
    set.pasidEnable(words, at, usable.pasid ? 1 : 0);
    set.deviceTlbEnable(words, at, usable.ats ? 1 : 0);
    set.pageRequestEnable(words, at, usable.pri ? 1 : 0);
    set.present(words, at, 1);
    this.devices.set(requesterId, { requesterId, capabilities: usable, table, attached: new Map(), dma: undefined });
    // In caching mode the absence of the entry may be cached, under domain id 0.
    if (hardware.cachingMode) {
      this.queue.context(requesterId);
      this.queue.iotlb(0);
      this.queue.flush();
    }
    return 0;
  }

  /** The function goes: everything is detached, its context entry is cleared. */
  removeDevice(requesterId: number): void {
    const device = this.devices.get(requesterId);
    if (!device) return;
    for (const pasid of [...device.attached.keys()]) this.tearDown(device, pasid);
    const at = this.contextEntry(requesterId, false);
    if (at >= 0) this.hardware.words.fill(0, at, at + CONTEXT_WORDS);
    this.queue.context(requesterId);
    this.queue.pasidCache();
    if (device.capabilities.ats) this.queue.deviceTlb(requesterId, NO_PASID);
    this.queue.flush();
    device.table.free();
    device.dma?.space.release();
    device.dma?.domain.free();
    this.devices.delete(requesterId);
  }

  /** A new second stage. When memory or domain ids are used up, attaching it says so. */
  pagingDomain(): PagingDomain {
    return new SecondStageDomain(this.context);
  }
  /** `firstStageRoot`: frame of the top table, in the parent's input addresses. `flags`: VtdS1Flag bits. Attaching says what is not possible. */
  nestedDomain(parent: PagingDomain, firstStageRoot: number, addressWidth = 48, flags = 0): NestedDomain {
    if (!(parent instanceof SecondStageDomain)) throw new TypeError('parent: a domain of pagingDomain()');
    return new FirstStageOnSecond(this.context, parent, firstStageRoot * 4096, addressWidth, flags);
  }
  identityDomain(): Domain {
    return this.identity;
  }

  /** Attaches the RID, in place of what it is attached to; undefined: nothing, every request faults. 0 or -errno. */
  attach(requesterId: number, target: Domain | AttachTarget | undefined): number {
    const device = this.devices.get(requesterId);
    if (!device) return -Errno.ENODEV;
    const { domain, handle } = parts(target);
    const error = domain === undefined ? 0 : known(domain).ready();
    if (error) return error;
    const before = device.attached.get(NO_PASID);
    if (before?.domain === domain) return 0;
    if (before) this.tearDown(device, NO_PASID);
    if (domain === undefined) return 0;
    const failed = this.setUp(device, NO_PASID, known(domain), handle);
    if (failed && before) this.setUp(device, NO_PASID, before.domain, before.at.handle);
    return failed;
  }

  /** The kernel's own DMA of a function: its RID is attached to an address space for it, which is made once. Undefined: it cannot be. */
  dma(requesterId: number): DmaSpace | undefined {
    const device = this.devices.get(requesterId);
    if (!device) return undefined;
    if (!device.dma) {
      const domain = new SecondStageDomain(this.context);
      const attachPasid = (): number => {
        const pasid = this.allocPasid();
        const error = pasid < 0 ? pasid : this.attachPasid(requesterId, pasid, domain);
        if (error < 0 && pasid >= 0) this.freePasid(pasid);
        return error < 0 ? error : pasid;
      };
      device.dma = { space: new DmaSpace(this.hardware, domain, attachPasid, (pasid) => this.freePasid(pasid), this.ports.flushQueue), domain };
    }
    return this.attach(requesterId, device.dma.domain) === 0 ? device.dma.space : undefined;
  }

  /** Attaches a PASID of a function. 0 or -errno: EBUSY when it is attached already. */
  attachPasid(requesterId: number, pasid: number, target: Domain | AttachTarget): number {
    const device = this.devices.get(requesterId);
    if (!device) return -Errno.ENODEV;
    if (!device.capabilities.pasid) return -Errno.EOPNOTSUPP;
    if (!(pasid > 0 && pasid < device.table.limit) || !Number.isInteger(pasid)) return -Errno.EINVAL;
    if (device.attached.has(pasid)) return -Errno.EBUSY;
    const { domain, handle } = parts(target);
    return known(domain).ready() || this.setUp(device, pasid, known(domain), handle);
  }
  detachPasid(requesterId: number, pasid: number): void {
    const device = this.devices.get(requesterId);
    if (device?.attached.has(pasid) && pasid !== NO_PASID) this.tearDown(device, pasid);
  }
  /** What a RID (NO_PASID) or PASID of it is attached to. */
  attachedTo(requesterId: number, pasid: number): Domain | undefined {
    return this.devices.get(requesterId)?.attached.get(pasid)?.domain;
  }
  /** The same with the name that its owner gave the attachment. */
  attachment(requesterId: number, pasid: number): AttachTarget | undefined {
    const found = this.devices.get(requesterId)?.attached.get(pasid);
    return found?.at.handle && { domain: found.domain, handle: found.at.handle };
  }
  /** 4 KiB pages that the addresses of a paging domain can name. */
  get addressablePages(): number {
    return 512 ** this.context.levels;
  }
  /** What of a device's capabilities is in use; undefined: not a device of this driver. */
  capabilitiesOf(requesterId: number): DeviceCapabilities | undefined {
    return this.devices.get(requesterId)?.capabilities;
  }

  /** A PASID, or -ENOSPC. */
  allocPasid(): number {
    return this.pasids.alloc();
  }
  freePasid(pasid: number): void {
    this.pasids.free(pasid);
  }

  /** Binds a process's address space to a function. A handle, or -errno. */
  svaBind(requesterId: number, mm: Mm): SvaHandle | number {
    this.spend(this.ports.costs?.svaBind);
    return this.sva.bind(requesterId, mm);
  }

  /** Answers a group of page requests that a domain's owner took. `code`: PageResponse. */
  pageResponse(requesterId: number, pasid: number, group: number, code: number): void {
    this.queue.pageResponse(requesterId, pasid, group, code);
    this.queue.flush();
  }

  /** The remapping domain; the first call switches interrupt remapping on. */
  irqDomain(): IrqParent {
    if (!this.remapping) {
      this.remapping = new RemappingDomain(this.hardware, this.queue, this.ports.vectors);
      this.remapping.enable();
    }
    return this.remapping;
  }

  /** Writes the PASID entry, P last. A unit in caching mode is told. */
  private setUp(device: Device, pasid: number, domain: AttachableDomain, handle?: AttachHandle): number {
    const number = Math.max(pasid, 0);
    if (!device.table.set(number, (words, at) => domain.fill(words, at))) return -Errno.ENOMEM;
    const at: Attachment = { requesterId: device.requesterId, pasid, deviceTlb: device.capabilities.ats === true, handle };
    device.attached.set(pasid, { domain, at });
    domain.attachments.add(at);
    if (this.hardware.cachingMode) {
      this.queue.pasidCache(domain.domainId, number);
      domain.invalidateEntry(number);
      this.queue.flush();
    }
    this.spend(this.ports.costs?.pasidSet);
    return 0;
  }

  /** Rewrites the PASID entry of an attachment whose domain keeps accessed and dirty bits from now on, or no more. Linux, intel_pasid_setup_dirty_tracking. */
  private refreshEntry(domain: AttachableDomain, { requesterId, pasid, deviceTlb }: Attachment): void {
    const number = Math.max(pasid, 0);
    this.devices.get(requesterId)?.table.change(number, (words, at) => domain.fill(words, at));
    this.queue.pasidCache(domain.domainId, number);
    domain.invalidateEntry(number);
    if (deviceTlb) this.queue.deviceTlb(requesterId, pasid);
    this.queue.flush();
  }

  /** Clears P, flushes PASID cache, IOTLB and device TLB, zeroes the entry, drains page requests. */
  private tearDown(device: Device, pasid: number): void {
    const { domain, at } = device.attached.get(pasid)!;
    const number = Math.max(pasid, 0);
    const { queue } = this;
    device.table.clearPresent(number);
    queue.pasidCache(domain.domainId, number);
    domain.invalidateEntry(number);
    if (at.deviceTlb) queue.deviceTlb(device.requesterId, pasid);
    queue.flush();
    device.table.zero(number);
    device.attached.delete(pasid);
    domain.attachments.delete(at);
    if (device.capabilities.pri) {
      queue.flush(this.hardware.has('pageRequestDrain'));
      this.pageRequests.handle();
    }
    domain.events?.detached(device.requesterId, pasid);
    this.spend(this.ports.costs?.pasidClear);
  }

  /** The word index of a context entry; its table is made when asked for. -1: none. */
  private contextEntry(requesterId: number, make: boolean): number {
    const { hardware } = this;
    const slot = hardware.at(this.rootFrame) + (requesterId >>> 8) * 4 + ((requesterId >>> 7) & 1) * 2;
    const { words } = hardware;
    if (!RootEntry.get.present(words, slot)) {
      const frame = make ? hardware.alloc() : -1;
      if (frame < 0) return -1;
      RootEntry.set.contextTable(words, slot, frame * 4096);
      RootEntry.set.present(words, slot, 1);
    }
    return hardware.at(RootEntry.get.contextTable(words, slot) / 4096) + (requesterId & 0x7f) * CONTEXT_WORDS;
  }

  /** SVA first, where the first failure decides; then the owner of a domain; nobody: invalid. */
  private handlePageRequests(group: readonly PageRequestEvent[]): number | undefined {
    const { requesterId, pasid } = group[0]!;
    this.spend((this.ports.costs?.pageRequest ?? 0) * group.length);
    let code: number | undefined;
    for (const { hi, lo, access } of group) {
      code = this.sva.handleFault(requesterId, pasid, hi, lo, access);
      if (code !== PageResponse.success) break;
    }
    if (code !== undefined) return code;
    const attached = this.devices.get(requesterId)?.attached.get(pasid);
    if (!attached?.domain.events) return PageResponse.invalidRequest;
    attached.domain.events.pageRequests(group, attached.at.handle);
    return undefined;
  }

  private spend(ns: number | undefined): void {
    if (ns) this.ports.clock.spend?.(ns);
  }
}

const bytesOf = (memory: PhysicalMap, frame: number): Uint8Array | undefined => {
  const region = memory.regionOf(frame);
  if (region?.kind !== 'ram') return undefined;
  const at = (frame - region.firstFrame) * 4096;
  return region.bytes.subarray(at, at + 4096);
};
const parts = <D extends Domain | undefined>(target: D | AttachTarget): { domain: D | Domain; handle: AttachHandle | undefined } =>
  target && 'handle' in target ? target : { domain: target, handle: undefined };
const known = (domain: Domain): AttachableDomain => {
  if (!('fill' in domain)) throw new TypeError('domain: one that this driver made');
  return domain as AttachableDomain;
};
