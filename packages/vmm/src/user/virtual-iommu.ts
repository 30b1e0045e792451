/**
 * The guest's IOMMU: what the guest writes into its PASID entries becomes nested page tables of the host, its invalidations follow them.
 * Works on a register front in caching mode, in which the guest announces every change. VT-d, "Caching Mode"; linux/iommufd.h, HWPT.
 */
import { iommufd, PasidEntry } from '@siov/iommu/spec';
import { NO_PASID } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import type { InterruptSink, IommuFront, IommuHooks, NewIommuFront, PhysicalMap } from '../ports.js';
import type { AssignedDevice } from './assigned.js';
import { type Calls, high, low } from './calls.js';
import { PageFaults } from './page-faults.js';

export interface VirtualIommuOptions {
  readonly calls: Calls;
  readonly iommufd: number;
  readonly memory: PhysicalMap;
  readonly sink: InterruptSink;
  readonly front: NewIommuFront;
  /** HWPT of all guest memory. */
  parent(deviceId: number): number;
  readonly devices: ReadonlySet<AssignedDevice>;
  /** A guest PASID has no host PASID any more. */
  pasidGone(pasid: number): void;
  refused(call: string, errno: number): void;
  /** Calls `run` whenever a descriptor can be read. Absent: page requests of devices are refused. */
  watch?: ((fd: number, run: () => void) => void) | undefined;
}
/** What a PASID of a device is attached to. */
interface Attached {
  readonly key: string;
  /** Its own nested HWPT, or -1: the parent. */
  readonly hwpt: number;
}
const { get, is } = PasidEntry;
const { HwptAlloc, HwptAllocFlag, HwptDataType, HwptInvalidate, HwptInvalidateDataType, HwptVtdS1, IommufdIoctl, VtdS1Flag, VtdS1Invalidate } =
  iommufd;
const ONE_PASID = 1;
const ALL = 0xffff_ffff;
/** PASIDs that are the requests without PASID: the kernel's drivers always have RID_PASID 0. Linux, IOMMU_NO_PASID. */
const isRid = (pasid: number): boolean => pasid <= 0;

export class VirtualIommu {
  readonly front: IommuFront;
  private readonly o: VirtualIommuOptions;
  private readonly attached = new Map<AssignedDevice, Map<number, Attached>>();
  private readonly entry = new Uint32Array(16);
  private translating = false;
  /** Page requests, once there is a first stage that could raise some. */
  private faults: PageFaults | undefined;
  /** Devices that cannot ask for pages. */
  private readonly silent = new Set<AssignedDevice>();

  constructor(options: VirtualIommuOptions) {
    this.o = options;
    this.front = options.front(this.hooks(), options.memory, options.sink);
  }
  /** All devices are gone. */
  close(): void {
    this.faults?.close();
  }

  /** A device came, attached to the parent. */
  add(device: AssignedDevice): void {
    this.attached.set(device, new Map([[NO_PASID, { key: 'parent', hwpt: -1 }]]));
    this.refresh(device, NO_PASID);
  }
  /** A device went; its file is closed already, so that nothing is attached any more. */
  remove(device: AssignedDevice): void {
    for (const [pasid, { hwpt }] of this.attached.get(device) ?? []) {
      this.destroy(hwpt);
      if (pasid !== NO_PASID) this.o.pasidGone(pasid);
    }
    this.attached.delete(device);
    this.silent.delete(device);
  }

  /** Guest PASIDs of a device that have page tables. */
  pasidsOf(device: AssignedDevice): number[] {
    return [...(this.attached.get(device)?.keys() ?? [])].filter((pasid) => pasid !== NO_PASID);
  }

  private hooks(): IommuHooks {
    const all = (): void => this.refreshAll();
    const remapped = (): void => {
      for (const device of this.o.devices) device.msix?.refresh();
    };
    return {
      translationEnabled: (enabled) => {
        this.translating = enabled;
        all();
      },
      rootChanged: all,
      contextChanged: all,
      pasidChanged: (granularity, _domainId, pasid) => {
        if (granularity !== ONE_PASID) all();
        else for (const device of this.attached.keys()) this.refresh(device, isRid(pasid) ? NO_PASID : pasid);
      },
      iotlbInvalidated: (_domainId, pasid, hi, lo, pages, leafOnly) => this.invalidate(pasid, hi, lo, pages, leafOnly),
      interruptTableChanged: remapped,
      interruptEntriesChanged: remapped,
      pageResponse: (requesterId, pasid, group, code) => this.faults?.answer(requesterId, pasid, group, code),
    };
  }

  private refreshAll(): void {
    for (const [device, pasids] of this.attached) {
      this.refresh(device, NO_PASID);
      for (const pasid of [...pasids.keys()]) if (pasid !== NO_PASID) this.refresh(device, pasid);
    }
  }

  /** Makes the host's attachment of (device, PASID) what the guest's entry says. */
  private refresh(device: AssignedDevice, pasid: number): void {
    const pasids = this.attached.get(device);
    if (!pasids) return;
    const now = pasids.get(pasid);
    const key = this.wanted(device, pasid);
    if (key === (now?.key ?? '')) return;
    let next = key === '' ? undefined : this.make(device, key);
    let result = next ? this.attach(device, next, pasid) : -1;
    if (next && result === -Errno.ENODEV && next.hwpt >= 0 && !this.silent.has(device)) {
      // The device cannot ask for pages: the same page table without.
      this.silent.add(device);
      this.destroy(next.hwpt);
      next = this.make(device, key);
      result = next ? this.attach(device, next, pasid) : -1;
    }
    // Until the next ENQCMD looks, the PASID leads to nothing.
    if (pasid !== NO_PASID) this.o.pasidGone(pasid);
    if (next && result >= 0) pasids.set(pasid, next);
    else {
      if (next) {
        this.o.refused('VFIO_DEVICE_ATTACH_IOMMUFD_PT', result);
        this.destroy(next.hwpt);
      }
      if (pasids.delete(pasid)) device.detach(pasid);
    }
    if (!now) return;
    this.faults?.forget(device.requesterId, pasid);
    this.destroy(now.hwpt);
  }

  private attach(device: AssignedDevice, { hwpt }: Attached, pasid: number): number {
    return device.attach(hwpt < 0 ? this.o.parent(device.deviceId) : hwpt, pasid);
  }
  /** The fault queue, made when it is first needed. -1: none. */
  private faultId(device: AssignedDevice): number {
    const { watch, calls, iommufd: fd, devices, refused } = this.o;
    if (!watch || !this.front.queuePageRequest || this.silent.has(device)) return -1;
    this.faults ??= new PageFaults({ calls, iommufd: fd, devices, watch, refused }, () => this.front);
    return this.faults.id;
  }

  /** '' nothing, 'parent' all guest memory, else the guest's first stage: what the entry says. `entry` holds it. */
  private wanted(device: AssignedDevice, pasid: number): string {
    if (!this.translating) return pasid === NO_PASID ? 'parent' : '';
    const { entry } = this;
    if (!this.front.pasidEntry(device.requesterId, pasid, entry)) return '';
    const type = get.type(entry, 0);
    if (type === is.type.passThrough) return 'parent';
    // The capabilities that the guest sees offer no second stage of its own.
    return type === is.type.firstStage ? `${entry[4]! & ~0xfff} ${entry[5]} ${flagsOf(entry)} ${widthOf(entry)}` : '';
  }

  private make(device: AssignedDevice, key: string): Attached | undefined {
    if (key === 'parent') return { key, hwpt: -1 };
    const { calls } = this.o;
    const { entry } = this;
    const faultId = this.faultId(device);
    const data = new Uint32Array(HwptVtdS1.bytes / 4);
    const root = get.firstStage(entry, 0);
    HwptVtdS1.set.flagsLow(data, 0, flagsOf(entry));
    HwptVtdS1.set.tableLow(data, 0, low(root));
    HwptVtdS1.set.tableHigh(data, 0, high(root));
    HwptVtdS1.set.addressWidth(data, 0, widthOf(entry));
    calls.task.writeStruct(calls.data, data);
    const words = new Uint32Array(HwptAlloc.bytes / 4);
    const { set } = HwptAlloc;
    set.size(words, 0, HwptAlloc.bytes);
    set.flags(words, 0, HwptAllocFlag.PASID | (faultId < 0 ? 0 : HwptAllocFlag.FAULT_ID_VALID));
    set.faultId(words, 0, Math.max(faultId, 0));
    set.deviceId(words, 0, device.deviceId);
    set.parentId(words, 0, this.o.parent(device.deviceId));
    set.dataType(words, 0, HwptDataType.VTD_S1);
    set.dataLength(words, 0, HwptVtdS1.bytes);
    set.dataLow(words, 0, low(calls.data));
    set.dataHigh(words, 0, high(calls.data));
    const result = calls.ioctl(this.o.iommufd, IommufdIoctl.HWPT_ALLOC, words);
    if (result >= 0) return { key, hwpt: HwptAlloc.get.hwptId(words, 0) };
    this.o.refused('IOMMU_HWPT_ALLOC', result);
    return undefined;
  }

  private destroy(hwpt: number): void {
    if (hwpt < 0) return;
    const result = this.o.calls.ioctl(this.o.iommufd, IommufdIoctl.DESTROY, Uint32Array.of(8, hwpt));
    if (result < 0) this.o.refused('IOMMU_DESTROY', result);
  }

  /** `pasid` NO_PASID: every first stage, since the invalidation names a domain and the host has one domain for each. */
  private invalidate(pasid: number, hi: number, lo: number, pages: number, leafOnly: boolean): void {
    for (const pasids of this.attached.values())
      for (const [known, { hwpt }] of pasids)
        if (hwpt >= 0 && (pasid === NO_PASID || known === pasid || (isRid(pasid) && known === NO_PASID)))
          this.invalidateHwpt(hwpt, hi, lo, pasid === NO_PASID ? -1 : pages, leafOnly);
  }

  private invalidateHwpt(hwpt: number, hi: number, lo: number, pages: number, leafOnly: boolean): void {
    const { calls } = this.o;
    const entry = new Uint32Array(VtdS1Invalidate.bytes / 4);
    const all = pages < 0;
    VtdS1Invalidate.set.addressLow(entry, 0, all ? 0 : lo & ~0xfff);
    VtdS1Invalidate.set.addressHigh(entry, 0, all ? 0 : hi);
    VtdS1Invalidate.set.pagesLow(entry, 0, all ? ALL : low(pages));
    VtdS1Invalidate.set.pagesHigh(entry, 0, all ? ALL : high(pages));
    VtdS1Invalidate.set.flags(entry, 0, leafOnly && !all ? iommufd.VTD_S1_INVALIDATE_LEAF : 0);
    calls.task.writeStruct(calls.data, entry);
    const words = new Uint32Array(HwptInvalidate.bytes / 4);
    const { set } = HwptInvalidate;
    set.size(words, 0, HwptInvalidate.bytes);
    set.hwptId(words, 0, hwpt);
    set.dataLow(words, 0, low(calls.data));
    set.dataHigh(words, 0, high(calls.data));
    set.dataType(words, 0, HwptInvalidateDataType.VTD_S1);
    set.entryLength(words, 0, VtdS1Invalidate.bytes);
    set.entryCount(words, 0, 1);
    const result = calls.ioctl(this.o.iommufd, IommufdIoctl.HWPT_INVALIDATE, words);
    if (result < 0) this.o.refused('IOMMU_HWPT_INVALIDATE', result);
  }
}

const flagsOf = (entry: Uint32Array): number =>
  (get.supervisorRequests(entry, 0) ? VtdS1Flag.SRE : 0) |
  (get.extendedAccessed(entry, 0) ? VtdS1Flag.EAFE : 0) |
  (get.writeProtect(entry, 0) ? VtdS1Flag.WPE : 0);
const widthOf = (entry: Uint32Array): number => (get.firstStageMode(entry, 0) === is.firstStageMode.level5 ? 57 : 48);
