/**
 * The client's memory as the device sees it: ranges that DMA_MAP announced, each reached through a file that came with it, or by DMA_READ and
 * DMA_WRITE messages. `acquire` never waits: where the data are not here yet it says so, and the device asks again when `resume` calls it.
 */
import { DmaAccess, TlpStatus } from '@siov/layout/pcie';
import { DirtyLog, type LogRange } from './dirty.js';
import type { Backing, Extent } from './ports.js';
import { DmaMapFlag } from './spec/protocol.js';

const TWO32 = 0x1_0000_0000;
/** Most that one request gets: also what one message carries, if the client takes as much. */
const CHUNK = 1 << 20;
/** Bytes that requests get between two looks at the socket: a long copy does not keep register reads waiting. */
const SLICE = 4 << 20;
/** Requests up to this size are records, events and descriptors: they are not put off. */
const SMALL = 64;
/** Messages that are asked for before an operation needs them. */
const AHEAD = 4;
/** Bytes under way in DMA_WRITE messages before large writes are put off. */
const WRITES_UNDER_WAY = 8 << 20;

/** Sends messages to the client. The session has it; none while nobody is connected, or to a client that answers none. */
export interface DmaLink {
  /** Most that one request is for, in bytes: a page at least. */
  readonly limit: number;
  read(address: number, bytes: number, done: (data: Uint8Array | undefined) => void): void;
  write(address: number, data: Uint8Array, done: (ok: boolean) => void): void;
}
export interface Mapping {
  readonly address: number;
  readonly size: number;
  /** DmaMapFlag READ, WRITE. */
  readonly flags: number;
  /** Absent: messages. */
  readonly backing: Backing | undefined;
}
/** Data that a waiting operation asked for. */
interface Block {
  readonly address: number;
  readonly length: number;
  state: 'underway' | 'here' | 'failed';
  view: Uint8Array;
  words: Uint32Array;
  /** Where the data begin in `view`: the address's place within 64 bytes. */
  readonly offset: number;
  used: boolean;
  /** Asked for before it was needed, and not needed yet. */
  ahead: boolean;
}
/** Memory of one extent for what is not mapped. */
interface Scratch {
  view: Uint8Array;
  words: Uint32Array;
  offset: number;
  address: number;
  mapping: Mapping;
}

export class DmaSpace {
  // fixed
  readonly kind = 'vfio-user DMA';
  // ports
  /** Hears of mappings when they are there, and before they go. */
  listener: { added(mapping: Mapping): void; removed(mapping: Mapping): void } | undefined;
  // state
  link: DmaLink | undefined;
  log: DirtyLog | undefined;
  /** Requests refused, and bytes given by kind, since the start. */
  readonly counters = { faults: 0, mappedBytes: 0, fileBytes: 0, messageBytes: 0, messages: 0 };
  readonly #mappings: Mapping[] = [];
  #last: Mapping | undefined;
  readonly #scratch = new Map<Extent, Scratch>();
  /** Scratch memory that a write stands in, by its view. */
  readonly #writes = new Map<Uint8Array, Scratch>();
  // Waiting
  #waiter = -1;
  #missed = false;
  #unknown = false;
  #putOff = false;
  #granted = 0;
  readonly #blocks = new Map<number, Block[]>();
  readonly #arrived = new Set<number>();
  /** DMA_WRITE messages without an answer, by serial number, and what waits for them. */
  readonly #unanswered = new Map<number, number>();
  #serial = 0;
  #writing = 0;
  #afterwards: { readonly serial: number; readonly run: () => void }[] = [];

  get mappings(): readonly Mapping[] {
    return this.#mappings;
  }

  // --- what the client announces

  /** A mapping that overlaps `size` bytes at `address`. */
  overlap(address: number, size: number): Mapping | undefined {
    const mapping = this.#mappings[this.#after(address)];
    return mapping && mapping.address < address + size ? mapping : undefined;
  }
  add(mapping: Mapping): void {
    this.#mappings.splice(this.#after(mapping.address), 0, mapping);
    this.listener?.added(mapping);
  }
  /** Shows a mapping in place from `offset` bytes on, as much as lies in one piece; false: its file is not mapped, or there is none. */
  view(mapping: Mapping, offset: number, out: Extent): boolean {
    return mapping.backing?.acquire?.(offset, mapping.size - offset, true, out) ?? false;
  }
  exact(address: number, size: number): Mapping | undefined {
    const mapping = this.#mappings[this.#after(address)];
    return mapping?.address === address && mapping.size === size ? mapping : undefined;
  }
  /** The device has let go of it when this returns. */
  remove(mapping: Mapping): void {
    const at = this.#after(mapping.address);
    if (this.#mappings[at] === mapping) this.#mappings.splice(at, 1);
    this.#last = undefined;
    this.listener?.removed(mapping);
    for (const [extent, scratch] of this.#scratch) {
      if (scratch.mapping !== mapping) continue;
      this.#writes.delete(scratch.view);
      this.#scratch.delete(extent);
    }
    mapping.backing?.release();
  }
  /** The index of the first mapping that ends after `address`. They are in order and do not overlap. */
  #after(address: number): number {
    let low = 0;
    let high = this.#mappings.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { address: from, size } = this.#mappings[middle]!;
      if (from + size > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
  removeAll(): void {
    // From the end: nothing moves.
    for (let mapping = this.#mappings.at(-1); mapping; mapping = this.#mappings.at(-1)) this.remove(mapping);
  }
  /** The client is gone: so is its memory. Operations that wait are told at the next `resume`. */
  clear(): void {
    this.removeAll();
    this.link = undefined;
    this.log = undefined;
    for (const [waiter, blocks] of this.#blocks) {
      for (const block of blocks) if (block.state === 'underway') block.state = 'failed';
      this.#arrived.add(waiter);
    }
    this.#unanswered.clear();
    this.#writing = 0;
    this.#putOff = true;
    this.#settle();
  }
  startLog(pageSize: number, ranges: readonly LogRange[]): void {
    this.log = new DirtyLog(pageSize, ranges);
  }

  // --- what the device does

  /** An `Upstream` of a device: access bits and answers are those of `@siov/layout/pcie`; no PASID can be reached. */
  acquire(access: number, pasid: number, high: number, low: number, max: number, out: Extent): number {
    out.ns = 0;
    const address = (high >>> 0) * TWO32 + (low >>> 0);
    const write = (access & DmaAccess.write) !== 0;
    const mapping = high >>> 21 || pasid >= 0 ? undefined : this.#find(address);
    if (!mapping || !(mapping.flags & (write ? DmaMapFlag.WRITE : DmaMapFlag.READ))) return this.#refuse();
    const within = address - mapping.address;
    const bytes = Math.min(max, mapping.size - within, CHUNK);
    if (bytes > SMALL && this.#granted >= SLICE) return this.#later();
    this.#granted += bytes;
    const { backing } = mapping;
    if (backing?.acquire) {
      if (!backing.acquire(within, bytes, write, out)) return this.#refuse();
      this.counters.mappedBytes += out.length;
    } else if (write) {
      if (!backing && !this.link) return this.#refuse();
      if (!backing && bytes > SMALL && this.#writing >= WRITES_UNDER_WAY) return this.#wait();
      this.#place(out, address, Math.min(bytes, backing ? CHUNK : this.link!.limit), mapping);
      this.#writes.set(out.view, this.#scratch.get(out)!);
    } else if (backing) {
      this.#place(out, address, bytes, mapping);
      this.#writes.delete(out.view);
      const read = backing.read(within, out.view.subarray(out.offset, out.offset + bytes));
      if (read <= 0) return this.#refuse();
      out.length = read;
      this.counters.fileBytes += read;
    } else return this.#fetch(address, bytes, out);
    if (write && this.log) this.log.mark(address, out.length);
    return TlpStatus.success;
  }

  /** What was written into the extent goes to the client: its bytes from `offset` on, `length` of them. */
  commit(out: Extent): void {
    if (this.#writes.size === 0) return;
    const scratch = this.#writes.get(out.view);
    if (!scratch) return;
    const { mapping } = scratch;
    const address = scratch.address + out.offset - scratch.offset;
    const data = out.view.subarray(out.offset, out.offset + out.length);
    if (mapping.backing) {
      if (mapping.backing.write(address - mapping.address, data) < data.length) this.counters.faults++;
      this.counters.fileBytes += data.length;
      return;
    }
    if (!this.link) return;
    const serial = ++this.#serial;
    this.#unanswered.set(serial, data.length);
    this.#writing += data.length;
    this.counters.messageBytes += data.length;
    this.counters.messages++;
    this.link.write(address, data, (ok) => {
      if (!this.#unanswered.delete(serial)) return;
      this.#writing -= data.length;
      if (!ok) this.counters.faults++;
      if (this.#writing < WRITES_UNDER_WAY) this.#putOff = true;
      this.#settle();
    });
  }

  /** Runs when everything that was written before has reached the client: at once, unless messages are under way. */
  after(run: () => void): void {
    if (this.#unanswered.size === 0 && this.#afterwards.length === 0) run();
    else this.#afterwards.push({ serial: this.#serial, run });
  }

  // --- waiting

  /** Whether `resume` has anything to do. */
  get ready(): boolean {
    return this.#unknown || this.#putOff || this.#arrived.size > 0;
  }
  /** This slice is used up: what remains is for the next one. */
  get spent(): boolean {
    return this.#granted >= SLICE;
  }
  /** A new slice of work. */
  beginSlice(): void {
    this.#granted = 0;
  }
  /**
   * Calls `step(n)` for each operation, 0 to `operations` - 1, that may go on: it asks again from where it stood. Data that it asked for are
   * its own: fetched after it began, and forgotten when it needs them no more.
   */
  resume(operations: number, step: (operation: number) => void): void {
    const all = this.#unknown || this.#putOff;
    this.#unknown = this.#putOff = false;
    const who = all ? undefined : [...this.#arrived];
    this.#arrived.clear();
    if (who) for (const operation of who) this.#step(operation, step);
    else for (let operation = 0; operation < operations; operation++) this.#step(operation, step);
  }
  /** What operations fetched is theirs no more: they were ended from outside. */
  forget(): void {
    for (const [operation, blocks] of this.#blocks) {
      this.#blocks.delete(operation);
      if (blocks.length > 0) this.#arrived.add(operation);
    }
  }

  #step(operation: number, step: (operation: number) => void): void {
    const blocks = this.#blocks.get(operation);
    if (blocks) for (const block of blocks) block.used = false;
    this.#waiter = operation;
    this.#missed = false;
    step(operation);
    this.#waiter = -1;
    const now = this.#blocks.get(operation);
    if (!now) return;
    const kept = this.#missed ? now.filter((block) => block.used || block.ahead) : [];
    if (kept.length > 0) this.#blocks.set(operation, kept);
    else this.#blocks.delete(operation);
  }

  #fetch(address: number, bytes: number, out: Extent): number {
    const { link } = this;
    if (!link) return this.#refuse();
    // Who asks is known only while `resume` calls it.
    if (this.#waiter < 0) {
      this.#unknown = true;
      return TlpStatus.waiting;
    }
    let blocks = this.#blocks.get(this.#waiter);
    if (!blocks) {
      blocks = [];
      this.#blocks.set(this.#waiter, blocks);
    }
    const found = blocks.find((b) => address >= b.address && address < b.address + b.length);
    const end = address + bytes;
    if (found) {
      found.used = true;
      found.ahead = false;
      this.#askAhead(link, blocks, found.address + found.length, end);
      if (found.state === 'failed') return this.#refuse();
      if (found.state === 'underway') {
        this.#missed = true;
        return TlpStatus.waiting;
      }
      out.view = found.view;
      out.words = found.words;
      out.offset = found.offset + address - found.address;
      out.length = Math.min(bytes, found.address + found.length - address);
      return TlpStatus.success;
    }
    this.#missed = true;
    const block = this.#ask(link, blocks, address, end, false);
    this.#askAhead(link, blocks, block.address + block.length, end);
    return TlpStatus.waiting;
  }
  /** One message for what lies at `address`, at most up to `end`. */
  #ask(link: DmaLink, blocks: Block[], address: number, end: number, ahead: boolean): Block {
    const length = Math.min(end - address, link.limit);
    const block: Block = { address, length, state: 'underway', view: NO_BYTES, words: NO_WORDS, offset: address % 64, used: !ahead, ahead };
    blocks.push(block);
    const waiter = this.#waiter;
    this.counters.messages++;
    link.read(address, length, (data) => {
      if (block.state !== 'underway') return;
      block.state = data && data.length === length ? 'here' : 'failed';
      if (data && block.state === 'here') {
        [block.view, block.words] = room(length);
        block.view.set(data, block.offset);
        this.counters.messageBytes += length;
      }
      if (!block.ahead && this.#blocks.get(waiter)?.includes(block)) this.#arrived.add(waiter);
    });
    return block;
  }
  /** What the operation will ask for next is asked for while it works: of its own operand, in order, a few messages at a time. */
  #askAhead(link: DmaLink, blocks: Block[], from: number, end: number): void {
    let under = 0;
    for (const block of blocks) if (block.ahead) under++;
    for (let at = from; at < end && under < AHEAD; under++) {
      const next = blocks.find((b) => b.address === at) ?? this.#ask(link, blocks, at, end, true);
      at = next.address + next.length;
    }
  }

  #place(out: Extent, address: number, length: number, mapping: Mapping): void {
    let scratch = this.#scratch.get(out);
    if (!scratch || scratch.view.length < length + 64) {
      if (scratch) this.#writes.delete(scratch.view);
      const [view, words] = room(length);
      scratch = { view, words, offset: 0, address, mapping };
      this.#scratch.set(out, scratch);
    }
    scratch.offset = address % 64;
    scratch.address = address;
    scratch.mapping = mapping;
    out.view = scratch.view;
    out.words = scratch.words;
    out.offset = scratch.offset;
    out.length = length;
  }

  #find(address: number): Mapping | undefined {
    const last = this.#last;
    if (last && address >= last.address && address < last.address + last.size) return last;
    const mapping = this.#mappings[this.#after(address)];
    if (!mapping || mapping.address > address) return undefined;
    this.#last = mapping;
    return mapping;
  }

  #refuse(): number {
    this.counters.faults++;
    return TlpStatus.unsupportedRequest;
  }
  #later(): number {
    this.#putOff = this.#missed = true;
    return TlpStatus.waiting;
  }
  #wait(): number {
    this.#missed = true;
    return TlpStatus.waiting;
  }

  #settle(): void {
    const [oldest = Number.POSITIVE_INFINITY] = this.#unanswered.keys();
    while (this.#afterwards.length > 0 && this.#afterwards[0]!.serial < oldest) this.#afterwards.shift()!.run();
  }
}

const NO_BYTES = new Uint8Array(0);
const NO_WORDS = new Uint32Array(0);
/** Bytes and words of the same memory: `length`, and 64 more so that any address keeps its alignment. */
function room(length: number): [Uint8Array, Uint32Array] {
  const buffer = new ArrayBuffer((length + 64 + 3) & ~3);
  return [new Uint8Array(buffer), new Uint32Array(buffer)];
}
