/**
 * The page request queue: the unit writes descriptors at the tail, software takes them from the head. Full: PRO, and nothing more is
 * queued until software clears it. VT-d, "Page Request Queue", "Page Request Event Interrupt".
 */
import { Event } from '@siov/layout/events';
import { DmaAccess, NO_PASID } from '@siov/layout/pcie';
import { frameOf, type MemoryWords } from '../memory.js';
import type { Trace } from '../ports.js';
import { PAGE_REQUEST_TYPE, PageRequest } from '../spec/queue.js';
import { PageQueueAddress, PageRequestStatus } from '../spec/registers.js';
import type { EventRegisters } from './events.js';
import type { Resolved } from './options.js';
import type { FrontRegisters } from './register-file.js';

/** Answers of `add`. */
export const Queued = { done: 0, absent: 1, overflow: 2 } as const;
const ENTRY_BYTES = 32;
const set = PageRequest.set;

export class PageRequestQueue {
  private readonly registers: FrontRegisters;
  private readonly memory: MemoryWords;
  private readonly resolved: Resolved;
  private readonly event: EventRegisters;
  private readonly trace: Trace | undefined;

  constructor(file: FrontRegisters, memory: MemoryWords, resolved: Resolved, event: EventRegisters, trace: Trace | undefined) {
    this.registers = file;
    this.memory = memory;
    this.resolved = resolved;
    this.event = event;
    this.trace = trace;
  }

  add(requesterId: number, pasid: number, hi: number, lo: number, access: number, group: number, last: boolean): number {
    const { registers, memory } = this;
    const { words } = registers;
    const status = registers.at('pageRequestStatus');
    const address = registers.at('pageQueueAddress');
    const tailAt = registers.at('pageQueueTail');
    const bytes = 4096 << PageQueueAddress.get.size(words, address);
    const tail = words[tailAt]! & (bytes - ENTRY_BYTES);
    const next = (tail + ENTRY_BYTES) & (bytes - 1);
    if (PageRequestStatus.get.overflow(words, status)) return Queued.overflow;
    if (next === (words[registers.at('pageQueueHead')]! & (bytes - ENTRY_BYTES))) {
      const before = words[status]!;
      PageRequestStatus.set.overflow(words, status, 1);
      if (!before) this.event.raise();
      return Queued.overflow;
    }
    const high = words[address + 1]!;
    const base = high >= 2 ** (this.resolved.hostAddressWidth - 32) ? -1 : memory.at(frameOf(high, words[address]!) + (tail >>> 12));
    if (base < 0) return Queued.absent;
    if (this.trace) this.trace.emit(Event.pageRequest, requesterId, pasid, hi, lo);
    const out = memory.words;
    const at = base + ((tail & 0xfff) >>> 2);
    for (let i = 0; i < ENTRY_BYTES / 4; i++) out[at + i] = 0;
    set.type(out, at, PAGE_REQUEST_TYPE);
    set.requesterId(out, at, requesterId);
    if (pasid !== NO_PASID) {
      set.pasidPresent(out, at, 1);
      set.pasid(out, at, pasid);
    }
    set.execute(out, at, access & DmaAccess.execute ? 1 : 0);
    set.privileged(out, at, access & DmaAccess.privileged ? 1 : 0);
    set.read(out, at, access & DmaAccess.write ? 0 : 1);
    set.write(out, at, access & DmaAccess.write ? 1 : 0);
    set.lastInGroup(out, at, last ? 1 : 0);
    set.group(out, at, group);
    set.addressLow(out, at, lo >>> 12);
    set.addressHigh(out, at, hi);
    words[tailAt] = next;
    const before = words[status]!;
    PageRequestStatus.set.pending(words, status, 1);
    if (!before) this.event.raise();
    return Queued.done;
  }
}
