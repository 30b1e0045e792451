/**
 * The driver's side of the invalidation queue: descriptors are added, then flushed, which ends them with a wait descriptor, moves the tail
 * and waits for the status. VT-d, "Queued Invalidation Interface", "Invalidation Wait Descriptor".
 */
import { NO_PASID } from '@siov/layout/pcie';
import { Capability } from '../spec/capabilities.js';
import {
  ContextDescriptor,
  DESCRIPTOR_BYTES,
  DescriptorType,
  DeviceTlbDescriptor,
  InterruptEntryDescriptor,
  IotlbDescriptor,
  PageGroupResponse,
  PasidCacheDescriptor,
  PasidDeviceTlbDescriptor,
  PasidIotlbDescriptor,
  WaitDescriptor,
} from '../spec/queue.js';
import { FaultStatus, QueueAddress } from '../spec/registers.js';
import type { Hardware } from './hardware.js';

const ENTRIES = 4096 / DESCRIPTOR_BYTES;
const WORDS = DESCRIPTOR_BYTES / 4;
const DONE = 2;
const PENDING = 1;
/** An order from here on means all addresses. */
const ALL = 52;

/** The smallest aligned power of two of pages that holds `pages` pages from `first` on: its order. */
export function coveringOrder(first: number, pages: number): number {
  const last = first + pages - 1;
  let order = 0;
  for (let size = 1; Math.floor(first / size) !== Math.floor(last / size); size *= 2) order++;
  return order;
}

export class DriverQueue {
  private readonly hardware: Hardware;
  private readonly frame: number;
  private readonly statusFrame: number;
  private readonly words: Uint32Array;
  private readonly first: number;
  private readonly statusWords: Uint32Array;
  private readonly status: number;
  private readonly costNs: number;
  private tail = 0;
  private pending = 0;
  /** Flushes since the start. */
  flushes = 0;
  /** The queue's owner waits for the unit; an interrupt's handler that has something to add leaves it in `later`. */
  waiting = false;
  later: (() => void) | undefined;

  constructor(hardware: Hardware, costNs: number) {
    this.hardware = hardware;
    this.costNs = costNs;
    this.frame = hardware.alloc();
    this.statusFrame = hardware.alloc();
    if (this.frame < 0 || this.statusFrame < 0) throw new RangeError('frames: no memory for the invalidation queue');
    this.first = hardware.at(this.frame);
    this.words = hardware.words;
    this.status = hardware.at(this.statusFrame);
    this.statusWords = hardware.words;
  }

  /** Hands the queue to the unit. False when it does not take it. */
  enable(): boolean {
    const { hardware } = this;
    const flags = new Uint32Array(2);
    QueueAddress.set.width(flags, 0, QueueAddress.is.width.bits256);
    hardware.write('queueTail', 0);
    hardware.writeAddress('queueAddress', this.frame, flags[0]!);
    return hardware.command('queuedInvalidation');
  }

  /** Context cache: everything, or one device. */
  context(requesterId?: number): void {
    const at = this.add(DescriptorType.context);
    const { set, is } = ContextDescriptor;
    set.granularity(this.words, at, requesterId === undefined ? is.granularity.global : is.granularity.device);
    set.sourceId(this.words, at, requesterId ?? 0);
  }
  /** PASID cache: everything, or one PASID of a domain. */
  pasidCache(domainId?: number, pasid = 0): void {
    const at = this.add(DescriptorType.pasidCache);
    const { set, is } = PasidCacheDescriptor;
    set.granularity(this.words, at, domainId === undefined ? is.granularity.global : is.granularity.pasid);
    set.domainId(this.words, at, domainId ?? 0);
    set.pasid(this.words, at, pasid);
  }
  /** IOTLB: everything. */
  iotlbAll(): void {
    IotlbDescriptor.set.granularity(this.words, this.add(DescriptorType.iotlb), IotlbDescriptor.is.granularity.global);
  }
  /** IOTLB of a domain: all, or 2^order pages at a page; an order beyond the unit's largest is all. */
  iotlb(domainId: number, page = 0, order: number = ALL, leafOnly = false): void {
    const { capability } = this.hardware;
    const at = this.add(DescriptorType.iotlb);
    const { set, is } = IotlbDescriptor;
    const selective = Capability.get.pageSelective(capability, 0) === 1 && order <= Capability.get.maximumAddressMask(capability, 0);
    set.granularity(this.words, at, selective ? is.granularity.pages : is.granularity.domain);
    set.domainId(this.words, at, domainId);
    if (selective) this.address(at, set, page, order, leafOnly);
  }
  /** IOTLB of a PASID: all, or 2^order pages at a page. */
  pasidIotlb(domainId: number, pasid: number, page = 0, order: number = ALL, leafOnly = false): void {
    const at = this.add(DescriptorType.pasidIotlb);
    const { set, is } = PasidIotlbDescriptor;
    set.granularity(this.words, at, order >= ALL ? is.granularity.pasid : is.granularity.pages);
    set.domainId(this.words, at, domainId);
    set.pasid(this.words, at, pasid);
    if (order < ALL) this.address(at, set, page, order, leafOnly);
  }
  /** Device TLB of a function, for requests with a PASID or without (NO_PASID): all, or 2^order pages at a page. */
  deviceTlb(requesterId: number, pasid: number, page = 0, order: number = ALL): void {
    const { words } = this;
    let at: number;
    if (pasid === NO_PASID) {
      at = this.add(DescriptorType.deviceTlb);
      DeviceTlbDescriptor.set.sourceId(words, at, requesterId);
      DeviceTlbDescriptor.set.size(words, at, order ? 1 : 0);
    } else {
      at = this.add(DescriptorType.pasidDeviceTlb);
      PasidDeviceTlbDescriptor.set.sourceId(words, at, requesterId);
      PasidDeviceTlbDescriptor.set.pasid(words, at, pasid);
      PasidDeviceTlbDescriptor.set.size(words, at, order ? 1 : 0);
    }
    // The size is told by ones below the lowest zero: order - 1 of them.
    const ones = order >= ALL ? 2 ** 52 : 2 ** Math.max(order - 1, 0);
    const base = order >= ALL ? 0 : Math.floor(page / 2 ** order) * 2 ** order;
    const low = order >= ALL ? 0xf_ffff : (base + ones - 1) % 0x10_0000;
    words[at + 2]! |= low << 12;
    words[at + 3] = order >= ALL ? 0xffff_ffff : Math.floor((base + ones - 1) / 0x10_0000);
  }
  /** Interrupt entry cache: all, or one entry. */
  interruptEntry(index?: number): void {
    const at = this.add(DescriptorType.interruptEntry);
    const { set, is } = InterruptEntryDescriptor;
    set.granularity(this.words, at, index === undefined ? is.granularity.global : is.granularity.index);
    set.index(this.words, at, index ?? 0);
  }
  /** The answer to a page request group. */
  pageResponse(requesterId: number, pasid: number, group: number, code: number): void {
    const at = this.add(DescriptorType.pageGroupResponse);
    const { set } = PageGroupResponse;
    set.pasidPresent(this.words, at, pasid === NO_PASID ? 0 : 1);
    set.pasid(this.words, at, pasid === NO_PASID ? 0 : pasid);
    set.requesterId(this.words, at, requesterId);
    set.code(this.words, at, code);
    set.group(this.words, at, group);
  }

  /** Sends what was added and waits until it is done. False when the unit stopped in an error; the descriptor in error is then replaced. */
  flush(drainPageRequests = false): boolean {
    if (this.pending === 0 && !drainPageRequests) return true;
    this.pending = 0;
    this.flushes++;
    const at = this.add(DescriptorType.wait, true);
    const { set } = WaitDescriptor;
    set.statusWrite(this.words, at, 1);
    set.fence(this.words, at, 1);
    set.pageRequestDrain(this.words, at, drainPageRequests ? 1 : 0);
    set.status(this.words, at, DONE);
    this.words[at + 2]! |= (this.statusFrame << 12) >>> 0;
    this.words[at + 3] = this.statusFrame >>> 20;
    this.statusWords[this.status] = PENDING;
    this.pending = 0;
    const { hardware } = this;
    hardware.clock.spend?.(this.costNs);
    let good = true;
    const settled = (): boolean => {
      if (this.failed()) {
        good = false;
        this.recover();
      }
      return this.statusWords[this.status] === DONE;
    };
    this.waiting = true;
    // The unit may be a virtual one, whose registers take time and let interrupts in.
    hardware.write('queueTail', this.tail * DESCRIPTOR_BYTES);
    const done = settled() || hardware.clock.wait(settled);
    this.waiting = false;
    const { later } = this;
    this.later = undefined;
    later?.();
    return done && good;
  }

  /** The queue stopped on a descriptor in error. */
  private failed(): boolean {
    const status = Uint32Array.of(this.hardware.read('faultStatus'));
    return FaultStatus.get.queueError(status, 0) === 1;
  }
  /** Replaces the descriptor at the head by a harmless one and lets the unit go on. */
  private recover(): void {
    const head = (this.hardware.read('queueHead') / DESCRIPTOR_BYTES) | 0;
    const at = this.first + head * WORDS;
    const last = (this.tail + ENTRIES - 1) % ENTRIES;
    if (head !== last) {
      this.words.fill(0, at, at + WORDS);
      WaitDescriptor.set.type(this.words, at, DescriptorType.wait);
    } else this.statusWords[this.status] = DONE;
    const clear = new Uint32Array(1);
    FaultStatus.set.queueError(clear, 0, 1);
    this.hardware.write('faultStatus', clear[0]!);
  }

  private address(
    at: number,
    set: {
      address(w: Uint32Array, at: number, v: number): void;
      addressMask(w: Uint32Array, at: number, v: number): void;
      leafOnly(w: Uint32Array, at: number, v: number): void;
    },
    page: number,
    order: number,
    leafOnly: boolean,
  ): void {
    set.address(this.words, at, Math.floor(page / 2 ** order) * 2 ** order * 4096);
    set.addressMask(this.words, at, order);
    set.leafOnly(this.words, at, leafOnly ? 1 : 0);
  }

  /** A cleared slot with its type; makes room first if need be (one slot is kept for the wait descriptor, one separates tail from head). */
  private add(type: number, wait = false): number {
    if (!wait && this.pending >= ENTRIES - 2) this.flush();
    const at = this.first + this.tail * WORDS;
    this.words.fill(0, at, at + WORDS);
    WaitDescriptor.set.type(this.words, at, type);
    this.tail = (this.tail + 1) % ENTRIES;
    this.pending++;
    return at;
  }
}
