/**
 * The invalidation queue: fetches 256-bit descriptors from memory, checks them and tells the front's hooks. A descriptor in error sets
 * FSTS.IQE and leaves the head on it. VT-d, "Queued Invalidation Interface", "Invalidation Request Descriptors".
 */
import { Event } from '@siov/layout/events';
import { NO_PASID } from '@siov/layout/pcie';
import { frameOf } from '../memory.js';
import type { Trace } from '../ports.js';
import { Capability, ExtendedCapability } from '../spec/capabilities.js';
import {
  ContextDescriptor,
  DESCRIPTOR_BYTES,
  Descriptor,
  DescriptorType,
  DeviceTlbDescriptor,
  InterruptEntryDescriptor,
  IotlbDescriptor,
  PageGroupResponse,
  PasidCacheDescriptor,
  PasidDeviceTlbDescriptor,
  PasidIotlbDescriptor,
  QueueError,
  WaitDescriptor,
} from '../spec/queue.js';
import { CompletionStatus, FaultStatus, QueueAddress, QueueErrorRecord, QueueHead, QueueTail } from '../spec/registers.js';
import type { EventRegisters } from './events.js';
import type { RegisterFront } from './front.js';

const QUEUE_ERROR = 1 << 4;
/** Address masks from here on mean every address. */
const ALL_ADDRESSES = 40;
const context = ContextDescriptor.get;
const iotlb = IotlbDescriptor.get;
const deviceTlb = DeviceTlbDescriptor.get;
const interruptEntry = InterruptEntryDescriptor.get;
const wait = WaitDescriptor.get;
const pasidIotlb = PasidIotlbDescriptor.get;
const pasidCache = PasidCacheDescriptor.get;
const pasidDeviceTlb = PasidDeviceTlbDescriptor.get;
const response = PageGroupResponse.get;

export class InvalidationQueue {
  private readonly front: RegisterFront;
  private readonly event: EventRegisters;
  private readonly trace: Trace | undefined;
  private readonly descriptor = new Uint32Array(8);
  private enabled = false;
  private running = false;
  /** Descriptors executed since the start. */
  executed = 0;

  constructor(front: RegisterFront, event: EventRegisters, trace: Trace | undefined) {
    this.front = front;
    this.event = event;
    this.trace = trace;
  }

  /** GCMD.QIE changed. */
  enable(on: boolean): void {
    const { registers } = this.front;
    this.enabled = on;
    QueueHead.set.offset(registers.words, registers.at('queueHead'), 0);
    if (on) this.run();
  }

  /** Executes descriptors up to the tail, or to the first in error. A hook may move the tail meanwhile. */
  run(): void {
    if (this.running) return;
    this.running = true;
    try {
      while (this.enabled && this.next());
    } finally {
      this.running = false;
    }
  }

  /** Executes the descriptor at the head. False when there is none, or an error stops the queue. */
  private next(): boolean {
    const { registers } = this.front;
    const { words } = registers;
    const head = registers.at('queueHead');
    const address = registers.at('queueAddress');
    const at = QueueHead.get.offset(words, head) * 16;
    const end = QueueTail.get.offset(words, registers.at('queueTail')) * 16;
    if (FaultStatus.get.queueError(words, registers.at('faultStatus')) || at === end) return false;
    const bytes = 4096 << QueueAddress.get.size(words, address);
    let error: number = QueueError.none;
    if (!QueueAddress.get.width(words, address)) error = QueueError.descriptorWidth;
    else if (end % DESCRIPTOR_BYTES || end >= bytes) error = QueueError.tail;
    else if (!this.fetch(address, at)) error = QueueError.fetch;
    else error = this.execute(this.descriptor);
    if (error) {
      QueueErrorRecord.set.reason(words, registers.at('queueErrorRecord'), error);
      this.front.faults.raise(QUEUE_ERROR);
      return false;
    }
    this.executed++;
    QueueHead.set.offset(words, head, ((at + DESCRIPTOR_BYTES) % bytes) / 16);
    return true;
  }

  private fetch(address: number, offset: number): boolean {
    const { registers, memory, resolved } = this.front;
    const high = registers.words[address + 1]!;
    if (high >= 2 ** (resolved.hostAddressWidth - 32)) return false;
    const at = memory.at(frameOf(high, registers.words[address]!) + (offset >>> 12));
    if (at < 0) return false;
    const from = at + ((offset & 0xfff) >>> 2);
    for (let i = 0; i < 8; i++) this.descriptor[i] = memory.words[from + i]!;
    return true;
  }

  /** Checks and executes one descriptor. Returns a QueueError. */
  private execute(d: Uint32Array): number {
    const kind = (d[0]! & 0xf) | ((d[0]! >>> 5) & 0x70);
    const has = ExtendedCapability.get;
    const { extended, capability } = this.front.resolved;
    if (kind < DescriptorType.context || kind > DescriptorType.pageGroupResponse) return QueueError.type;
    if ((kind === DescriptorType.deviceTlb || kind === DescriptorType.pasidDeviceTlb) && !has.deviceTlb(extended, 0)) return QueueError.type;
    if (kind === DescriptorType.pageGroupResponse && !has.pageRequests(extended, 0)) return QueueError.type;
    const { reserved } = Descriptor.of(d, 0).masks;
    for (let i = 0; i < 8; i++) if (d[i]! & reserved[i]!) return QueueError.reserved;
    const { hooks } = this.front;
    switch (kind) {
      case DescriptorType.context: {
        const granularity = context.granularity(d, 0);
        if (granularity === 0) return QueueError.granularity;
        this.note(kind, context.domainId(d, 0), NO_PASID, granularity);
        hooks.contextChanged?.(granularity, context.domainId(d, 0), context.sourceId(d, 0), context.functionMask(d, 0));
        return QueueError.none;
      }
      case DescriptorType.iotlb: {
        const granularity = iotlb.granularity(d, 0);
        const { global, pages } = IotlbDescriptor.is.granularity;
        if (granularity === 0) return QueueError.granularity;
        const mask = iotlb.addressMask(d, 0);
        if (granularity === pages && (!Capability.get.pageSelective(capability, 0) || mask > Capability.get.maximumAddressMask(capability, 0)))
          return QueueError.granularity;
        const domainId = granularity === global ? -1 : iotlb.domainId(d, 0);
        this.note(kind, domainId, NO_PASID, granularity);
        this.pages(domainId, NO_PASID, granularity === pages ? mask : -1, iotlb.leafOnly(d, 0) === 1);
        return QueueError.none;
      }
      case DescriptorType.deviceTlb:
        this.note(kind, -1, NO_PASID, deviceTlb.size(d, 0));
        this.deviceTlb(deviceTlb.sourceId(d, 0), NO_PASID, deviceTlb.size(d, 0) === 1);
        return QueueError.none;
      case DescriptorType.interruptEntry: {
        const indexed = interruptEntry.granularity(d, 0) === 1;
        const mask = interruptEntry.indexMask(d, 0);
        if (indexed && mask > has.maximumHandleMask(extended, 0)) return QueueError.granularity;
        this.note(kind, -1, NO_PASID, indexed ? 1 : 0);
        const index = interruptEntry.index(d, 0);
        if (indexed) hooks.interruptEntriesChanged?.(index - (index % 2 ** mask), 2 ** mask);
        else hooks.interruptEntriesChanged?.(0, -1);
        return QueueError.none;
      }
      case DescriptorType.wait:
        return this.wait(d);
      case DescriptorType.pasidIotlb: {
        const granularity = pasidIotlb.granularity(d, 0);
        const { pasid, pages } = PasidIotlbDescriptor.is.granularity;
        if (granularity !== pasid && granularity !== pages) return QueueError.granularity;
        this.note(kind, pasidIotlb.domainId(d, 0), pasidIotlb.pasid(d, 0), granularity);
        const mask = granularity === pages ? pasidIotlb.addressMask(d, 0) : -1;
        this.pages(pasidIotlb.domainId(d, 0), pasidIotlb.pasid(d, 0), mask, pasidIotlb.leafOnly(d, 0) === 1);
        return QueueError.none;
      }
      case DescriptorType.pasidCache: {
        const granularity = pasidCache.granularity(d, 0);
        if (granularity === 2) return QueueError.granularity;
        this.note(kind, pasidCache.domainId(d, 0), pasidCache.pasid(d, 0), granularity);
        hooks.pasidChanged?.(granularity, pasidCache.domainId(d, 0), pasidCache.pasid(d, 0));
        return QueueError.none;
      }
      case DescriptorType.pasidDeviceTlb:
        this.note(kind, -1, pasidDeviceTlb.pasid(d, 0), pasidDeviceTlb.size(d, 0));
        this.deviceTlb(pasidDeviceTlb.sourceId(d, 0), pasidDeviceTlb.pasid(d, 0), pasidDeviceTlb.size(d, 0) === 1);
        return QueueError.none;
      default: {
        const pasid = response.pasidPresent(d, 0) ? response.pasid(d, 0) : NO_PASID;
        if (this.trace) this.trace.emit(Event.pageResponse, response.requesterId(d, 0), pasid, response.group(d, 0), response.code(d, 0));
        hooks.pageResponse?.(response.requesterId(d, 0), pasid, response.group(d, 0), response.code(d, 0));
        return QueueError.none;
      }
    }
  }

  /** 2^mask pages, aligned; -1: all. The address is in words 2 and 3 of the descriptor. */
  private pages(domainId: number, pasid: number, mask: number, leafOnly: boolean): void {
    const d = this.descriptor;
    const { hooks } = this.front;
    if (mask < 0 || mask >= ALL_ADDRESSES) {
      hooks.iotlbInvalidated?.(domainId, pasid, 0, 0, -1, leafOnly);
      return;
    }
    const keepLow = mask >= 20 ? 0 : -1 << (mask + 12);
    const keepHigh = mask > 20 ? -1 << (mask - 20) : -1;
    hooks.iotlbInvalidated?.(domainId, pasid, d[3]! & keepHigh, d[2]! & 0xffff_f000 & keepLow, 2 ** mask, leafOnly);
  }

  /** With the size bit, the lowest 0 of the address from bit 12 on says how much: 2^(k+1) pages; no 0 at all means everything. */
  private deviceTlb(requesterId: number, pasid: number, sized: boolean): void {
    const d = this.descriptor;
    const { hooks } = this.front;
    const low = d[2]! & 0xffff_f000;
    const high = d[3]! | 0;
    if (!sized) {
      hooks.deviceTlbInvalidated?.(requesterId, pasid, high, low, 4096);
      return;
    }
    for (let bit = 12; bit < 63; bit++) {
      if (((bit < 32 ? low >>> bit : high >>> (bit - 32)) & 1) !== 0) continue;
      const keepLow = bit >= 31 ? 0 : -1 << (bit + 1);
      const keepHigh = bit >= 32 ? -1 << (bit - 31) : -1;
      hooks.deviceTlbInvalidated?.(requesterId, pasid, bit === 62 ? 0 : high & keepHigh, low & keepLow, 2 ** (bit + 1));
      return;
    }
    hooks.deviceTlbInvalidated?.(requesterId, pasid, 0, 0, Infinity);
  }

  private wait(d: Uint32Array): number {
    const { memory, registers, resolved } = this.front;
    if (wait.pageRequestDrain(d, 0) && !ExtendedCapability.get.pageRequestDrain(resolved.extended, 0)) return QueueError.reserved;
    if (wait.statusWrite(d, 0)) {
      const high = wait.statusAddressHigh(d, 0);
      const at = high >= 2 ** (resolved.hostAddressWidth - 32) ? -1 : memory.at(frameOf(high, d[2]!));
      if (at < 0) return QueueError.statusWrite;
      memory.words[at + ((d[2]! & 0xfff) >>> 2)] = wait.status(d, 0);
    }
    if (wait.interrupt(d, 0)) {
      const status = registers.at('completionStatus');
      const before = CompletionStatus.get.waitCompleted(registers.words, status);
      CompletionStatus.set.waitCompleted(registers.words, status, 1);
      if (!before) this.event.raise();
    }
    return QueueError.none;
  }

  private note(kind: number, domainId: number, pasid: number, granularity: number): void {
    if (this.trace) this.trace.emit(Event.invalidate, kind, domainId, pasid, granularity);
  }
}
