/**
 * Page requests of assigned devices on their way to the guest and back: read from a fault queue of /dev/iommu, put into the page request
 * queue of the virtual IOMMU, answered by the cookie that the record had. linux/iommufd.h, IOMMU_FAULT_QUEUE_ALLOC.
 */
import { iommufd } from '@siov/iommu/spec';
import { DmaAccess, NO_PASID, PageResponse } from '@siov/layout/pcie';
import type { IommuFront } from '../ports.js';
import type { AssignedDevice } from './assigned.js';
import type { Calls } from './calls.js';

export interface PageFaultsOptions {
  readonly calls: Calls;
  readonly iommufd: number;
  readonly devices: ReadonlySet<AssignedDevice>;
  /** Calls `run` whenever the descriptor can be read, from the VMM's own thread for it. */
  watch(fd: number, run: () => void): void;
  refused(call: string, errno: number): void;
}
const { FaultAlloc, IommufdIoctl, PageAnswer, PageAnswerCode, PageFault, PageFaultFlag, PageFaultPermission } = iommufd;
/** Records read at a time. */
const RECORDS = 64;
const WORDS = PageFault.bytes / 4;

export class PageFaults {
  /** Of the fault queue; -1: the kernel gave none. */
  readonly id: number;
  private readonly fd: number;
  private readonly o: PageFaultsOptions;
  private readonly front: () => IommuFront;
  private readonly records = new Uint32Array(RECORDS * WORDS);
  /** Cookies by what the guest answers with: requester, PASID, group. */
  private readonly cookies = new Map<string, number>();

  constructor(options: PageFaultsOptions, front: () => IommuFront) {
    this.o = options;
    this.front = front;
    const words = new Uint32Array(FaultAlloc.bytes / 4);
    FaultAlloc.set.size(words, 0, FaultAlloc.bytes);
    const result = options.calls.ioctl(options.iommufd, IommufdIoctl.FAULT_QUEUE_ALLOC, words);
    if (result < 0) options.refused('IOMMU_FAULT_QUEUE_ALLOC', result);
    this.id = result < 0 ? -1 : FaultAlloc.get.faultId(words, 0);
    this.fd = result < 0 ? -1 : FaultAlloc.get.fd(words, 0);
    if (this.fd >= 0) options.watch(this.fd, () => this.take());
  }

  /** Reads what there is. */
  private take(): void {
    const { calls } = this.o;
    for (;;) {
      const bytes = calls.task.read(this.fd, calls.data, this.records.byteLength);
      if (bytes <= 0) {
        if (bytes < 0) this.o.refused('read of page faults', bytes);
        return;
      }
      calls.task.readStruct(calls.data, this.records.subarray(0, bytes / 4));
      const records = this.records.slice(0, bytes / 4);
      for (let at = 0; at < records.length; at += WORDS) this.ask(records, at);
    }
  }

  private ask(words: Uint32Array, at: number): void {
    const { get } = PageFault;
    const cookie = get.cookie(words, at);
    const pasid = get.flags(words, at) & PageFaultFlag.PASID_VALID ? get.pasid(words, at) : NO_PASID;
    const last = (get.flags(words, at) & PageFaultFlag.LAST_PAGE) !== 0;
    const group = get.group(words, at);
    const permissions = get.permissions(words, at);
    const { WRITE, EXEC, PRIV } = PageFaultPermission;
    const access =
      (permissions & WRITE ? DmaAccess.write : 0) | (permissions & EXEC ? DmaAccess.execute : 0) | (permissions & PRIV ? DmaAccess.privileged : 0);
    const device = [...this.o.devices].find(({ deviceId }) => deviceId === get.deviceId(words, at));
    if (device && last) this.cookies.set(keyOf(device.requesterId, pasid, group), cookie);
    const queued = device
      ? (this.front().queuePageRequest?.(
          device.requesterId,
          pasid,
          get.addressHigh(words, at) | 0,
          get.addressLow(words, at) | 0,
          access,
          group,
          last,
        ) ?? 1)
      : 1;
    if (queued === 0 || !last) return;
    if (device) this.cookies.delete(keyOf(device.requesterId, pasid, group));
    // What found no room is asked again by the device; what has no queue never will.
    this.write(cookie, queued === 2 ? PageAnswerCode.SUCCESS : PageAnswerCode.INVALID);
  }

  /** The guest's answer. One to what nobody asked is dropped. */
  answer(requesterId: number, pasid: number, group: number, code: number): void {
    const key = keyOf(requesterId, pasid, group);
    const cookie = this.cookies.get(key);
    if (cookie === undefined) return;
    this.cookies.delete(key);
    this.write(cookie, code === PageResponse.success ? PageAnswerCode.SUCCESS : PageAnswerCode.INVALID);
  }

  /** The page table of a PASID went: the kernel answered what was left. */
  forget(requesterId: number, pasid: number): void {
    for (const key of [...this.cookies.keys()]) if (key.startsWith(`${requesterId} ${pasid} `)) this.cookies.delete(key);
  }

  private write(cookie: number, code: number): void {
    const { calls } = this.o;
    calls.task.writeStruct(calls.data, Uint32Array.of(cookie, code));
    const written = calls.task.write(this.fd, calls.data, PageAnswer.bytes);
    if (written < 0) this.o.refused('write of a page response', written);
  }
  close(): void {
    if (this.fd >= 0) this.o.calls.task.close(this.fd);
  }
}
const keyOf = (requesterId: number, pasid: number, group: number): string => `${requesterId} ${pasid} ${group}`;
