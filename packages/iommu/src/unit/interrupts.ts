/**
 * Interrupt remapping and posting: a message's handle picks an IRTE, which says vector and destination, or a posted-interrupt descriptor.
 * VT-d, "Interrupt Remapping", "Interrupt Posting". Works on a register front, so a VMM can use it for a virtual unit too.
 */
import { frameOf, MemoryWords } from '../memory.js';
import type { InterruptSink, PhysicalMap } from '../ports.js';
import { Capability } from '../spec/capabilities.js';
import { Fault } from '../spec/faults.js';
import { InterruptEntry, PostedDescriptor, PostedInterruptEntry } from '../spec/structures.js';
import { TagCache } from './cache.js';
import type { RegisterFront } from './front.js';
import type { StaleDetector } from './stale.js';

const irte = InterruptEntry.get;
const { sourceValidation } = InterruptEntry.is;
const posted = PostedDescriptor.get;
/** Requester id bits that each SQ looks at. */
const QUALIFIER = [0xffff, 0xfffb, 0xfff9, 0xfff8];
const remappedReserved = InterruptEntry.masks.reserved;
const postedReserved = PostedInterruptEntry.masks.reserved;
const descriptorReserved = PostedDescriptor.masks.reserved;

export class InterruptRemapper {
  private readonly front: RegisterFront;
  private readonly sink: InterruptSink;
  private readonly memory: MemoryWords;
  private readonly detector: StaleDetector | undefined;
  private readonly cache: TagCache;
  private readonly words = new Uint32Array(4);
  messages = 0;
  hits = 0;
  misses = 0;

  constructor(front: RegisterFront, memory: PhysicalMap, sink: InterruptSink, entries = 64, detector?: StaleDetector) {
    this.detector = detector;
    this.front = front;
    this.sink = sink;
    this.memory = new MemoryWords(memory);
    this.cache = new TagCache(entries, 3, 'interrupt');
  }

  /** A posted dword write to 0xFEEx_xxxx by a requester. Delivers, posts, or records a fault. */
  message(requesterId: number, address: number, data: number): void {
    const { front } = this;
    this.messages++;
    const remappable = (address & 0x10) !== 0;
    if (!front.interruptRemapping || (!remappable && front.compatibilityFormat && !front.extendedInterruptMode)) {
      this.deliver(data & 0xff, (address >>> 12) & 0xff);
      return;
    }
    if (!remappable) {
      front.faults.recordInterrupt(Fault.compatibilityBlocked, requesterId, 0);
      return;
    }
    const shared = (address & 8) !== 0;
    const handle = ((address >>> 5) & 0x7fff) | ((address & 4) << 13);
    const index = shared ? handle + (data & 0xffff) : handle;
    if (shared && data >>> 16) {
      front.faults.recordInterrupt(Fault.interruptRequestReserved, requesterId, index & 0xffff);
      return;
    }
    const fault = index >= front.interruptTableEntries ? Fault.interruptIndex : this.load(index, requesterId);
    if (fault !== Fault.none) {
      this.refuse(fault, requesterId, index);
      return;
    }
    if (irte.posted(this.words, 0)) {
      this.post(requesterId, index);
      return;
    }
    const destination = irte.destination(this.words, 0);
    this.deliver(irte.vector(this.words, 0), front.extendedInterruptMode ? destination : (destination >>> 8) & 0xff);
  }

  /** Interrupt entry cache invalidation, as FrontHooks.interruptEntriesChanged says. */
  invalidate(index: number, count: number): void {
    if (count < 0 || count > 64) {
      this.cache.clear();
      return;
    }
    for (let i = index; i < index + count; i++) {
      const at = this.cache.find(i + 1, 0, 0, 0, i);
      if (at >= 0) this.cache.drop(at);
    }
  }

  private deliver(vector: number, destination: number): void {
    this.sink.deliver(vector, destination);
  }

  private refuse(fault: number, requesterId: number, index: number): void {
    const unread = fault === Fault.interruptIndex || fault === Fault.interruptTableAccess;
    if (!unread && irte.faultDisable(this.words, 0)) return;
    this.front.faults.recordInterrupt(fault, requesterId, index & 0xffff);
  }

  /** Brings the IRTE into `words` and checks it for this requester. */
  private load(index: number, requesterId: number): number {
    const { words, cache } = this;
    const cached = cache.find(index + 1, 0, 0, 0, index);
    if (cached >= 0) {
      this.hits++;
      for (let i = 0; i < 4; i++) words[i] = cache.data[cached + 4 + i]!;
      this.detector?.interrupt(index, requesterId, words, this.inMemory(index));
    } else {
      this.misses++;
      const frame = this.front.interruptTableFrame;
      const at = frame < 0 ? -1 : this.memory.at(frame + (index >>> 8));
      if (at < 0) return Fault.interruptTableAccess;
      for (let i = 0; i < 4; i++) words[i] = this.memory.words[at + (index & 255) * 4 + i]!;
      if (!irte.present(words, 0)) return Fault.interruptEntryNotPresent;
      if (this.reserved()) return Fault.interruptEntryReserved;
      const place = cache.place(index + 1, 0, 0, 0, index);
      for (let i = 0; i < 4; i++) cache.data[place + 4 + i] = words[i]!;
      this.detector?.interruptLoaded(index, requesterId);
    }
    return this.source(requesterId) ? Fault.none : Fault.interruptSource;
  }

  /** The entry as the table has it. */
  private inMemory(index: number): Uint32Array | undefined {
    const frame = this.front.interruptTableFrame;
    const at = frame < 0 ? -1 : this.memory.at(frame + (index >>> 8));
    return at < 0 ? undefined : this.memory.words.slice(at + (index & 255) * 4, at + (index & 255) * 4 + 4);
  }
  private reserved(): boolean {
    const { words, front } = this;
    const isPosted = irte.posted(words, 0) === 1;
    if (isPosted && !Capability.get.postedInterrupts(front.resolved.capability, 0)) return true;
    const mask = isPosted ? postedReserved : remappedReserved;
    let bits = 0;
    for (let i = 0; i < 4; i++) bits |= words[i]! & mask[i]!;
    // Without extended mode the APIC id is in bits 15:8 of the destination, the rest is reserved.
    if (!isPosted && !front.extendedInterruptMode) bits |= words[1]! & 0xffff_00ff;
    return bits !== 0;
  }

  private source(requesterId: number): boolean {
    const { words } = this;
    const id = irte.sourceId(words, 0);
    switch (irte.sourceValidation(words, 0)) {
      case sourceValidation.none:
        return true;
      case sourceValidation.sourceId:
        return ((id ^ requesterId) & QUALIFIER[irte.sourceQualifier(words, 0)]!) === 0;
      case sourceValidation.busRange:
        // unconfirmed: first bus in the high byte, last in the low one.
        return requesterId >>> 8 >= id >>> 8 && requesterId >>> 8 <= (id & 0xff);
      default:
        return false;
    }
  }

  /** Sets the request bit in the posted-interrupt descriptor; notifies when nothing is outstanding and it is not suppressed, or urgent. */
  private post(requesterId: number, index: number): void {
    const { words, front, memory } = this;
    const high = words[3]!;
    const low = (words[1]! & ~0x3f) >>> 0;
    const base = high >= 2 ** (front.resolved.hostAddressWidth - 32) ? -1 : memory.at(frameOf(high, low));
    if (base < 0) {
      this.refuse(Fault.postedDescriptorAccess, requesterId, index);
      return;
    }
    const at = base + ((low & 0xfff) >>> 2);
    const out = memory.words;
    let bits = 0;
    for (let i = 8; i < 16; i++) bits |= out[at + i]! & descriptorReserved[i]!;
    if (bits) {
      this.refuse(Fault.postedDescriptorReserved, requesterId, index);
      return;
    }
    const vector = irte.vector(words, 0);
    const urgent = (words[0]! >>> 14) & 1;
    out[at + (vector >>> 5)]! |= 1 << (vector & 31);
    if (posted.outstanding(out, at) || (posted.suppress(out, at) && !urgent)) return;
    PostedDescriptor.set.outstanding(out, at, 1);
    const destination = posted.notificationDestination(out, at);
    this.deliver(posted.notificationVector(out, at), front.extendedInterruptMode ? destination : (destination >>> 8) & 0xff);
  }
}
