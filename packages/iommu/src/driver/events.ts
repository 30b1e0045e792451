/**
 * The driver's interrupt handlers: fault records are read and acknowledged, page requests are taken from their queue, given to whoever
 * handles them, and answered by group. VT-d, "Fault Reporting", "Page Requests"; the order of steps as in Linux's handlers.
 */
import { NO_PASID, PageResponse } from '@siov/layout/pcie';
import type { Vectors } from '../ports.js';
import { Capability } from '../spec/capabilities.js';
import { PageRequest } from '../spec/queue.js';
import { FaultRecordRegister, FaultStatus, PageRequestStatus } from '../spec/registers.js';
import type { Hardware } from './hardware.js';
import type { DriverQueue } from './queue.js';
import type { FaultRecord, PageRequestEvent } from './types.js';

/** First byte of the interrupt range: a compatibility format message to processor 0. */
const MESSAGE_ADDRESS = 0xfee0_0000;
const RING = 256;
const ENTRY_BYTES = 32;
/** The page request queue has 2^this pages; 16 as in Linux, fewer where memory is short. */
const QUEUE_ORDER = 4;

/** Points an event's registers at a vector and unmasks it. False: no vector left. */
function route(hardware: Hardware, vectors: Vectors, event: 'fault' | 'pageRequest', handler: () => void): boolean {
  const vector = vectors.allocVector();
  if (vector < 0) return false;
  vectors.install(vector, handler);
  hardware.write(`${event}Data`, vector);
  hardware.write(`${event}Address`, MESSAGE_ADDRESS);
  hardware.write(`${event}UpperAddress`, 0);
  hardware.write(`${event}Control`, 0);
  return true;
}

export class FaultHandler {
  /** The last 256, oldest first. */
  readonly faults: FaultRecord[] = [];
  onFault: ((fault: FaultRecord) => void) | undefined;
  readonly listeners = new Set<(fault: FaultRecord) => void>();
  private readonly hardware: Hardware;
  private readonly offset: number;
  private readonly count: number;

  constructor(hardware: Hardware) {
    this.hardware = hardware;
    const { capability } = hardware;
    this.offset = 16 * (Capability.get.faultRecordOffset(capability, 0) + 256 * Capability.get.faultRecordOffsetHigh(capability, 0));
    this.count = Capability.get.faultRecords(capability, 0) + 1;
  }
  enable(vectors: Vectors): boolean {
    return route(this.hardware, vectors, 'fault', () => this.handle());
  }

  /** Reads every pending record, in order from FRI on, then clears the overflow. */
  handle(): void {
    const { hardware } = this;
    const status = Uint32Array.of(hardware.read('faultStatus'));
    const words = new Uint32Array(4);
    for (let i = 0, index = FaultStatus.get.record(status, 0); i < this.count && FaultStatus.get.pending(status, 0); i++) {
      const offset = this.offset + index * 16;
      for (let word = 0; word < 4; word++) words[word] = hardware.readAt(offset + 4 * word);
      if (!FaultRecordRegister.get.fault(words, 0)) break;
      hardware.writeAt(offset + 12, 0x8000_0000);
      this.note(words);
      index = (index + 1) % this.count;
    }
    const clear = new Uint32Array(1);
    FaultStatus.set.overflow(clear, 0, 1);
    FaultStatus.set.timeOut(clear, 0, 1);
    FaultStatus.set.completionError(clear, 0, 1);
    hardware.write('faultStatus', clear[0]!);
  }

  private note(words: Uint32Array): void {
    const { get } = FaultRecordRegister;
    const fault: FaultRecord = {
      reason: get.reason(words, 0),
      requesterId: get.sourceId(words, 0),
      pasid: get.pasidPresent(words, 0) ? get.pasid(words, 0) : NO_PASID,
      hi: get.addressHigh(words, 0) | 0,
      lo: (get.addressLow(words, 0) << 12) | 0,
      read: get.type1(words, 0) === 1,
    };
    this.faults.push(fault);
    if (this.faults.length > RING) this.faults.shift();
    this.onFault?.(fault);
    for (const listener of this.listeners) listener(fault);
  }
}

/** Who answers the page requests of a group: a response code at once, or undefined when the answer comes later through `pageResponse`. */
export type PageRequestHandler = (group: readonly PageRequestEvent[]) => number | undefined;
/** A group whose last request is still to come. `bad`: one of them cannot be asked for at all. */
interface Partial {
  readonly requests: PageRequestEvent[];
  bad: boolean;
}

export class PageRequestHandlerQueue {
  private readonly hardware: Hardware;
  private readonly queue: DriverQueue;
  private readonly handler: PageRequestHandler;
  private frame = -1;
  private order = QUEUE_ORDER;
  private handling = false;
  private readonly partial = new Map<number, Partial>();
  private readonly words = new Uint32Array(ENTRY_BYTES / 4);

  constructor(hardware: Hardware, queue: DriverQueue, handler: PageRequestHandler) {
    this.hardware = hardware;
    this.queue = queue;
    this.handler = handler;
  }

  /** Hands the queue to the unit. False: no memory or no vector. */
  enable(vectors: Vectors): boolean {
    const { hardware } = this;
    for (; this.order >= 0; this.order--) if ((this.frame = hardware.alloc(this.order)) >= 0) break;
    if (this.frame < 0) return false;
    hardware.write('pageQueueHead', 0);
    hardware.write('pageQueueTail', 0);
    hardware.writeAddress('pageQueueAddress', this.frame, this.order);
    return route(hardware, vectors, 'pageRequest', () => this.handle());
  }
  get enabled(): boolean {
    return this.frame >= 0;
  }

  /** Takes all requests that are in the queue. Clears PPR first, so that a request that comes meanwhile raises the event again. */
  handle(): void {
    if (this.handling || !this.enabled) return;
    if (this.queue.waiting) {
      this.queue.later = () => this.handle();
      return;
    }
    this.handling = true;
    try {
      this.takeAll();
    } finally {
      this.handling = false;
    }
  }

  private takeAll(): void {
    const { hardware } = this;
    const status = new Uint32Array(1);
    PageRequestStatus.set.pending(status, 0, 1);
    hardware.write('pageRequestStatus', status[0]!);
    const bytes = 4096 << this.order;
    const tail = hardware.read('pageQueueTail') & (bytes - ENTRY_BYTES);
    let head = hardware.read('pageQueueHead') & (bytes - ENTRY_BYTES);
    for (; head !== tail; head = (head + ENTRY_BYTES) & (bytes - 1)) {
      const at = hardware.at(this.frame + (head >>> 12)) + ((head & 0xfff) >>> 2);
      for (let i = 0; i < this.words.length; i++) this.words[i] = hardware.words[at + i]!;
      this.take(this.words);
    }
    hardware.write('pageQueueHead', tail);
    status[0] = hardware.read('pageRequestStatus');
    if (PageRequestStatus.get.overflow(status, 0)) {
      this.partial.clear();
      status[0] = 0;
      PageRequestStatus.set.overflow(status, 0, 1);
      hardware.write('pageRequestStatus', status[0]);
    }
    this.queue.flush();
  }

  private take(words: Uint32Array): void {
    const { get } = PageRequest;
    const requesterId = get.requesterId(words, 0);
    const pasid = get.pasidPresent(words, 0) ? get.pasid(words, 0) : NO_PASID;
    const group = get.group(words, 0);
    const last = get.lastInGroup(words, 0) === 1;
    const key = (requesterId * 2 ** 20 + Math.max(pasid, 0)) * 512 + group;
    const reads = get.read(words, 0);
    const writes = get.write(words, 0);
    // A stop marker is not answered.
    if (last && !reads && !writes && !get.execute(words, 0)) {
      this.partial.delete(key);
      return;
    }
    const partial = this.partial.get(key) ?? { requests: [], bad: false };
    const access = writes | (get.privileged(words, 0) << 1) | (get.execute(words, 0) << 2);
    const hi = get.addressHigh(words, 0) | 0;
    const lo = (get.addressLow(words, 0) << 12) | 0;
    const canonical = hi >> 24 === 0 || hi >> 24 === -1;
    if (canonical && !get.privileged(words, 0)) partial.requests.push({ requesterId, pasid, hi, lo, access, reads: reads === 1, group });
    else partial.bad = true;
    if (!last) {
      this.partial.set(key, partial);
      return;
    }
    this.partial.delete(key);
    const code = partial.bad ? PageResponse.invalidRequest : this.handler(partial.requests);
    if (code !== undefined) this.queue.pageResponse(requesterId, pasid, group, code);
  }
}
