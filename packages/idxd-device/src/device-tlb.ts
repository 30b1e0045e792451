/**
 * The device's translation cache (PCIe, "Address Translation Cache"): one entry per operand slot, which holds the page that the slot used
 * last: of the device, or of each engine. One of the device is the shape that counters of the real one show. Entries come from translation requests (ATS) and go when the remapping unit
 * invalidates the device-TLB; until then they are used, as hardware uses them. Requests without ATS pass by.
 */
import { DmaAccess } from '@siov/layout/pcie';
import type { Extent, Upstream } from './ports.js';

const PAGE = 4096;
/** Writes to 0xFEEx_xxxx are interrupt messages, not memory. */
const INTERRUPT_PAGES = 0xfee;

export class DeviceTlb implements Upstream {
  // fixed
  readonly #next: Upstream;
  /** The slots are the extents that are filled: first operand, second operand, everything else (records, seeds), and batches' lists. */
  readonly #slots: readonly Extent[];
  // state
  /** The first slot of the set in use. */
  #set = 0;
  readonly #valid: Uint8Array;
  readonly #pasid: Int32Array;
  readonly #high: Int32Array;
  readonly #page: Int32Array;
  readonly #access: Int32Array;
  /** Byte offset of the page in the view. */
  readonly #offset: Float64Array;
  readonly #views: Uint8Array[];
  readonly #words: Uint32Array[];
  /** Answered here, and passed on as translation requests. */
  hits = 0;
  misses = 0;

  /** `sets`: as many times these slots. */
  constructor(next: Upstream, slots: readonly Extent[], sets = 1) {
    const n = slots.length * sets;
    this.#next = next;
    this.#slots = slots;
    this.#valid = new Uint8Array(n);
    this.#pasid = new Int32Array(n);
    this.#high = new Int32Array(n);
    this.#page = new Int32Array(n);
    this.#access = new Int32Array(n);
    this.#offset = new Float64Array(n);
    const all = Array.from({ length: n }, (_, i) => slots[i % slots.length]!);
    this.#views = all.map((s) => s.view);
    this.#words = all.map((s) => s.words);
  }

  /** Whose requests the next ones are. */
  select(set: number): void {
    this.#set = set * this.#slots.length;
  }

  acquire(access: number, pasid: number, high: number, low: number, max: number, out: Extent): number {
    if (!(access & DmaAccess.ats)) return this.#next.acquire(access, pasid, high, low, max, out);
    const slots = this.#slots;
    const slot = this.#set + (out === slots[0] ? 0 : out === slots[1] ? 1 : out === slots[2] ? 2 : 3);
    if (
      this.#valid[slot] &&
      this.#page[slot] === low >>> 12 &&
      this.#high[slot] === high &&
      this.#pasid[slot] === pasid &&
      this.#access[slot] === access
    ) {
      const within = low & (PAGE - 1);
      out.view = this.#views[slot]!;
      out.words = this.#words[slot]!;
      out.offset = this.#offset[slot]! + within;
      out.length = Math.min(max, PAGE - within);
      out.ns = 0;
      this.hits++;
      return 0;
    }
    this.misses++;
    const answer = this.#next.acquire(access, pasid, high, low, max, out);
    this.#valid[slot] = 0;
    if (answer !== 0 || (high === 0 && low >>> 20 === INTERRUPT_PAGES)) return answer;
    // The page that the piece ends in.
    const last = (low >>> 0) + out.length - 1;
    this.#valid[slot] = 1;
    this.#pasid[slot] = pasid;
    this.#high[slot] = last > 0xffff_ffff ? (high + 1) | 0 : high;
    this.#page[slot] = (last | 0) >>> 12;
    this.#access[slot] = access;
    this.#offset[slot] = out.offset + out.length - 1 - (last & (PAGE - 1));
    if (this.#views[slot] !== out.view) {
      this.#views[slot] = out.view;
      this.#words[slot] = out.words;
    }
    return answer;
  }

  /** Forgets everything: more than an invalidation asks for, never less. */
  clear(): void {
    this.#valid.fill(0);
  }

  commit(out: Extent): void {
    this.#next.commit(out);
  }
  message(address: number, data: number): void {
    this.#next.message(address, data);
  }
  pageRequest(pasid: number, high: number, low: number, access: number, group: number): number {
    return this.#next.pageRequest(pasid, high, low, access, group);
  }
}
