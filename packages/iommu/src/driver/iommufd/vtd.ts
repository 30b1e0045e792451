/** This package's driver as iommufd sees it. linux/iommufd.h, "VT-d"; the virtual IOMMU's type is ours. */
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { Capability, ExtendedCapability } from '../../spec/capabilities.js';
import {
  HwInfoCapability,
  HwInfoType,
  HwInfoVtd,
  HwptAllocFlag,
  HwptDataType,
  HwptInvalidateDataType,
  HwptVtdS1,
  VeventVtd,
  ViommuType,
  ViommuVtdInvalidate,
  VTD_S1_INVALIDATE_LEAF,
  VtdS1Flag,
  VtdS1Invalidate,
} from '../../spec/iommufd.js';
import type { AttachableDomain, FirstStageOnSecond, SecondStageDomain } from '../domains.js';
import type { IommuDriver } from '../driver.js';
import type { AttachHandle, DomainEvents, FaultRecord } from '../types.js';
import { LAST_IOVA } from './ioas.js';
import type {
  DeviceFacts,
  IommufdOps,
  IovaSpan,
  NestedTable,
  PageTable,
  RecordDirty,
  Table,
  UserArray,
  UserData,
  Viommu,
  ViommuContext,
} from './ops.js';
import { big, U32 } from './structures.js';

const PAGE = 4096;
const PAGE_N = 4096n;
/** Messages of interrupts: never translated. */
const INTERRUPTS: IovaSpan = { start: 0xfee0_0000n, last: 0xfeef_ffffn };
/** From here on a table's address is in no memory. */
const NOWHERE = 2 ** 53;

class VtdPageTable implements PageTable {
  readonly kind = 'paging';
  readonly domain: SecondStageDomain;
  readonly pageSizes: number;
  readonly reserved: readonly IovaSpan[];
  readonly dirty?: NonNullable<PageTable['dirty']>;

  constructor(domain: SecondStageDomain, pageSizes: number, reserved: readonly IovaSpan[], tracks: boolean) {
    this.domain = domain;
    this.pageSizes = pageSizes;
    this.reserved = reserved;
    if (!tracks) return;
    this.dirty = {
      set: (on) => domain.trackDirty(on),
      read: (iova, bytes, clear, record) => this.readDirty(iova, bytes, clear, record),
    };
  }
  get events(): DomainEvents | undefined {
    return this.domain.events;
  }
  set events(events: DomainEvents | undefined) {
    this.domain.events = events;
  }
  get busy(): boolean {
    return this.domain.attachments.size > 0 || this.domain.children.size > 0;
  }
  map(iova: bigint, address: number, bytes: number, prot: number, large: boolean): number {
    const at = Number(iova);
    if (large) return this.domain.map(at, address / PAGE, bytes / PAGE, prot);
    for (let done = 0; done < bytes; done += PAGE) {
      const error = this.domain.map(at + done, (address + done) / PAGE, 1, prot);
      if (!error) continue;
      if (done) this.domain.unmap(at, done);
      return error;
    }
    return 0;
  }
  unmap(iova: bigint, bytes: number): void {
    this.domain.unmap(Number(iova), bytes);
  }
  free(): void {
    this.domain.free();
  }
  private readDirty(iova: bigint, bytes: bigint, clear: boolean, record: RecordDirty | undefined): number {
    if (record && !this.domain.tracking) return -Errno.EINVAL;
    this.domain.readDirty(Number(iova / PAGE_N), Number(bytes / PAGE_N), clear, (page, pages) =>
      record?.(BigInt(page) * PAGE_N, BigInt(pages) * PAGE_N),
    );
    return 0;
  }
}

class VtdNestedTable implements NestedTable {
  readonly kind = 'nested';
  readonly domain: FirstStageOnSecond;
  constructor(domain: FirstStageOnSecond) {
    this.domain = domain;
  }
  get events(): DomainEvents | undefined {
    return this.domain.events;
  }
  set events(events: DomainEvents | undefined) {
    this.domain.events = events;
  }
  get busy(): boolean {
    return this.domain.attachments.size > 0;
  }
  free(): void {
    this.domain.free();
  }
  invalidate(array: UserArray): number {
    if (array.type !== HwptInvalidateDataType.VTD_S1) return -Errno.EINVAL;
    for (; array.done < array.count; array.done++) {
      const entry = array.read(array.done, VtdS1Invalidate.bytes);
      if (typeof entry === 'number') return entry;
      const { get } = VtdS1Invalidate;
      if (get.reserved(entry, 0)) return -Errno.EOPNOTSUPP;
      const address: Halves = [get.addressHigh(entry, 0), get.addressLow(entry, 0)];
      const refused = this.flush(get.flags(entry, 0), address, [get.pagesHigh(entry, 0), get.pagesLow(entry, 0)]);
      if (refused) return refused;
    }
    return 0;
  }
  flush(flags: number, [high, low]: Halves, [pagesHigh, pagesLow]: Halves): number {
    if (flags & ~VTD_S1_INVALIDATE_LEAF) return -Errno.EOPNOTSUPP;
    const all = pagesLow === U32 && pagesHigh === U32;
    if (low & 0xfff || (all && (low || high))) return -Errno.EINVAL;
    const pages = big(pagesHigh, pagesLow);
    if (pages) this.domain.invalidate(high | 0, low | 0, pages > 2n ** 40n ? -1 : Number(pages), flags === VTD_S1_INVALIDATE_LEAF);
    return 0;
  }
}
type Halves = readonly [high: number, low: number];

export class VtdOps implements IommufdOps {
  readonly viommuTypes = [ViommuType.SIOV_VTD];
  private readonly driver: IommuDriver;
  private readonly failing: ((what: string) => boolean) | undefined;

  constructor(driver: IommuDriver, fails?: (what: string) => boolean) {
    this.driver = driver;
    this.failing = fails;
  }

  fails(what: string): boolean {
    return this.failing?.(what) === true;
  }
  device(requesterId: number): DeviceFacts | undefined {
    const has = this.driver.capabilitiesOf(requesterId);
    if (!has) return undefined;
    const { hardware } = this.driver;
    const dirtyTracking = hardware.has('secondStageAccessedDirty');
    const { DIRTY_TRACKING, PASID_EXEC, PASID_PRIV, ATS_NOT_SUPPORTED } = HwInfoCapability;
    return {
      pasidBits: has.pasid ? ExtendedCapability.get.pasidWidth(hardware.extended, 0) + 1 : 0,
      capabilities: (dirtyTracking ? DIRTY_TRACKING : 0) | (has.pasid ? PASID_EXEC | PASID_PRIV : 0) | (has.ats ? 0 : ATS_NOT_SUPPORTED),
      pageRequests: has.pri === true,
      dirtyTracking,
    };
  }
  hwInfo(_requesterId: number, type: number): { type: number; words: Uint32Array } | number {
    if (type !== HwInfoType.NONE && type !== HwInfoType.INTEL_VTD) return -Errno.EOPNOTSUPP;
    const { capability, extended } = this.driver.hardware;
    const words = new Uint32Array(HwInfoVtd.bytes / 4);
    HwInfoVtd.set.capabilityLow(words, 0, capability[0]!);
    HwInfoVtd.set.capabilityHigh(words, 0, capability[1]!);
    HwInfoVtd.set.extendedLow(words, 0, extended[0]!);
    HwInfoVtd.set.extendedHigh(words, 0, extended[1]!);
    return { type: HwInfoType.INTEL_VTD, words };
  }

  pageTable(_requesterId: number, flags: number, data: UserData | undefined): PageTable | number {
    if (data) return -Errno.EOPNOTSUPP;
    const { driver } = this;
    const domain = driver.pagingDomain() as SecondStageDomain;
    if (domain.rootFrame < 0 || domain.domainId < 0) {
      domain.free();
      return domain.rootFrame < 0 ? -Errno.ENOMEM : -Errno.ENOSPC;
    }
    const large = Capability.get.secondStageLargePages(driver.hardware.capability, 0);
    const sizes = PAGE | (large & 1 ? 2 ** 21 : 0) | (large & 2 ? 2 ** 30 : 0);
    const end = BigInt(driver.addressablePages) * PAGE_N;
    return new VtdPageTable(domain, sizes, [INTERRUPTS, { start: end, last: LAST_IOVA }], (flags & HwptAllocFlag.DIRTY_TRACKING) !== 0);
  }
  nestedTable(_requesterId: number, parent: PageTable, _flags: number, data: UserData): VtdNestedTable | number {
    if (data.type !== HwptDataType.VTD_S1) return -Errno.EOPNOTSUPP;
    const words = data.read(HwptVtdS1.bytes);
    if (typeof words === 'number') return words;
    const { get } = HwptVtdS1;
    const known = VtdS1Flag.SRE | VtdS1Flag.EAFE | VtdS1Flag.WPE;
    if (get.flagsLow(words, 0) & ~known || get.flagsHigh(words, 0) || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const root = get.tableHigh(words, 0) * 2 ** 32 + get.tableLow(words, 0);
    if (root % PAGE || root >= NOWHERE) return -Errno.EINVAL;
    const { domain } = parent as VtdPageTable;
    return new VtdNestedTable(
      this.driver.nestedDomain(domain, root / PAGE, get.addressWidth(words, 0), get.flagsLow(words, 0)) as FirstStageOnSecond,
    );
  }

  attach(requesterId: number, pasid: number, table: Table, handle: AttachHandle): number {
    const { driver } = this;
    const target = { domain: (table as VtdPageTable | VtdNestedTable).domain, handle };
    if (pasid === NO_PASID) return driver.attach(requesterId, target);
    const before = driver.attachment(requesterId, pasid);
    const refused = before ? (target.domain as AttachableDomain).ready() : 0;
    if (refused) return refused;
    if (before) driver.detachPasid(requesterId, pasid);
    const error = driver.attachPasid(requesterId, pasid, target);
    if (error && before) driver.attachPasid(requesterId, pasid, before);
    return error;
  }
  detach(requesterId: number, pasid: number): void {
    if (pasid === NO_PASID) this.driver.attach(requesterId, undefined);
    else this.driver.detachPasid(requesterId, pasid);
  }
  pageResponse(requesterId: number, pasid: number, group: number, code: number): void {
    this.driver.pageResponse(requesterId, pasid, group, code);
  }

  viommu(requesterId: number, type: number, parent: PageTable, data: UserData | undefined, context: ViommuContext): Viommu | number {
    if (type !== ViommuType.SIOV_VTD || data) return -Errno.EOPNOTSUPP;
    return new VtdViommu(this.driver, (nested) => this.nestedTable(requesterId, parent, 0, nested), context);
  }
}

/** First stages by virtual device and guest PASID; faults of theirs are events. */
class VtdViommu implements Viommu {
  readonly eventTypes = [ViommuType.SIOV_VTD];
  private readonly driver: IommuDriver;
  private readonly make: (data: UserData) => VtdNestedTable | number;
  private readonly context: ViommuContext;
  private readonly tables = new Set<VtdNestedTable>();
  private readonly stop: () => void;

  constructor(driver: IommuDriver, make: (data: UserData) => VtdNestedTable | number, context: ViommuContext) {
    this.driver = driver;
    this.make = make;
    this.context = context;
    this.stop = driver.listenFaults((fault) => this.fault(fault));
  }
  nestedTable(_flags: number, data: UserData): VtdNestedTable | number {
    const table = this.make(data);
    if (typeof table === 'number') return table;
    this.tables.add(table);
    const free = table.free.bind(table);
    table.free = () => {
      this.tables.delete(table);
      free();
    };
    return table;
  }
  invalidate(array: UserArray): number {
    if (array.type !== ViommuType.SIOV_VTD) return -Errno.EINVAL;
    for (; array.done < array.count; array.done++) {
      const entry = array.read(array.done, ViommuVtdInvalidate.bytes);
      if (typeof entry === 'number') return entry;
      const { get } = ViommuVtdInvalidate;
      const device = this.context.deviceOf(big(get.deviceHigh(entry, 0), get.deviceLow(entry, 0)));
      if (!device) return -Errno.EINVAL;
      const address: Halves = [get.addressHigh(entry, 0), get.addressLow(entry, 0)];
      const pages: Halves = [get.pagesHigh(entry, 0), get.pagesLow(entry, 0)];
      for (const table of this.tables) {
        const named = [...table.domain.attachments].some(
          ({ handle }) => handle?.deviceId === device.deviceId && Math.max(handle.pasid, 0) === get.pasid(entry, 0),
        );
        const refused = named ? table.flush(get.flags(entry, 0), address, pages) : 0;
        if (refused) return refused;
      }
    }
    return 0;
  }
  free(): void {
    this.stop();
  }

  /** The guest sees it under its own names. */
  private fault({ requesterId, pasid, reason, hi, lo, read }: FaultRecord): void {
    const handle = this.driver.attachment(requesterId, pasid)?.handle;
    const virtualId = handle && this.context.virtualIdOf(handle.deviceId);
    if (virtualId === undefined) return;
    const words = new Uint32Array(VeventVtd.bytes / 4);
    const { set } = VeventVtd;
    set.deviceLow(words, 0, Number(virtualId & 0xffff_ffffn));
    set.deviceHigh(words, 0, Number(virtualId >> 32n));
    set.addressLow(words, 0, lo >>> 0);
    set.addressHigh(words, 0, hi >>> 0);
    set.pasid(words, 0, Math.max(handle!.pasid, 0));
    set.pasidPresent(words, 0, handle!.pasid === NO_PASID ? 0 : 1);
    set.reason(words, 0, reason);
    set.read(words, 0, read ? 1 : 0);
    this.context.report(ViommuType.SIOV_VTD, words);
  }
}
