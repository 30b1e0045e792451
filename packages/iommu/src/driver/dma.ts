/**
 * The kernel's own DMA: memory that a function reaches without a PASID, through a second stage of its own that is made at the first use. Linux
 * dma_alloc_coherent, dma_map_page over drivers/iommu/dma-iommu.c.
 */
import { Errno, Prot } from '@siov/layout/uapi';
import type { Timer } from '../ports.js';
import type { SecondStageDomain } from './domains.js';
import type { Hardware } from './hardware.js';

/** Memory of the kernel that a device sees. */
export interface CoherentMemory {
  /** Where the device finds it, in bytes; page-aligned. */
  readonly iova: number;
  /** First page frame; the frames behind it are contiguous. */
  readonly frame: number;
  /** The bytes as words, from index 0 on. */
  readonly words: Uint32Array;
  free(): void;
}

/**
 * Mappings that go are invalidated together, later: cheaper, and until then a device can reach what it has cached of them. Linux,
 * iommu.strict=0 and IOMMU_DOMAIN_DMA_FQ.
 */
export interface FlushQueueOptions {
  readonly clock: Timer;
  /** Unmaps after which all are flushed (default 256). */
  readonly entries?: number;
  /** Nanoseconds after which they are at the latest (default 10 ms). */
  readonly timeoutNs?: number;
}

const PAGE = 4096;
/** Addresses are given out downwards from below the interrupt range (0xFEE0_0000); what comes back is kept by size. */
const TOP = 0xfee0_0000 / PAGE;

export class DmaSpace {
  // fixed
  readonly #hardware: Hardware;
  readonly #domain: SecondStageDomain;
  readonly #attachPasid: () => number;
  readonly #freePasid: (pasid: number) => void;
  readonly #queue: { readonly entries: number; arm(): void } | undefined;
  // state
  /** Unmapped, not flushed: pages and orders of addresses that nobody may get yet. */
  readonly #later: [page: number, order: number][] = [];
  #pasid = -1;
  #next = TOP;
  readonly #freed = new Map<number, number[]>();

  constructor(
    hardware: Hardware,
    domain: SecondStageDomain,
    attachPasid: () => number,
    freePasid: (pasid: number) => void,
    flushQueue?: FlushQueueOptions,
  ) {
    this.#hardware = hardware;
    this.#domain = domain;
    this.#attachPasid = attachPasid;
    this.#freePasid = freePasid;
    if (!flushQueue) return;
    const { clock, entries = 256, timeoutNs = 10e6 } = flushQueue;
    const handler = clock.handler(() => this.flush());
    this.#queue = { entries, arm: () => clock.after(timeoutNs, handler, 0) };
  }

  /** Maps `frames` contiguous page frames. Its IOVA in bytes, or -errno. `prot`: Prot.READ | Prot.WRITE, as the device may. */
  map(frame: number, frames: number, prot: number = Prot.READ | Prot.WRITE): number {
    const order = orderOf(frames);
    const page = this.#freed.get(order)?.pop() ?? this.#take(order);
    if (page < 0) return page;
    const error = this.#domain.map(page * PAGE, frame, frames, prot);
    if (error === 0) return page * PAGE;
    this.#release(page, order);
    return error;
  }
  /** Takes a mapping away, invalidated when it returns; with a flush queue later, and until then its addresses stay taken. */
  unmap(iova: number, frames: number): void {
    if (!this.#queue) {
      this.#domain.unmap(iova, frames * PAGE);
      this.#release(iova / PAGE, orderOf(frames));
      return;
    }
    const now = this.#domain.unmapLater(iova, frames * PAGE);
    if (this.#later.push([iova / PAGE, orderOf(frames)]) === 1 && !now) this.#queue.arm();
    if (now || this.#later.length >= this.#queue.entries) this.flush();
  }
  /** Flushes what was unmapped until now. */
  flush(): void {
    if (this.#later.length === 0) return;
    this.#domain.flush();
    for (const [page, order] of this.#later.splice(0)) this.#release(page, order);
  }
  /** Mappings that wait to be flushed. */
  get unflushed(): number {
    return this.#later.length;
  }
  /** A PASID of the function that reaches the same memory, allocated and attached at the first call; -errno. Linux idxd_enable_system_pasid. */
  enablePasid(): number {
    if (this.#pasid < 0) this.#pasid = this.#attachPasid();
    return this.#pasid;
  }
  /** The function goes, and was detached: its PASID is free. */
  release(): void {
    this.flush();
    if (this.#pasid >= 0) this.#freePasid(this.#pasid);
    this.#pasid = -1;
  }
  /** Zeroed memory that kernel and device share; undefined when there is none. */
  alloc(bytes: number): CoherentMemory | undefined {
    const order = orderOf(Math.ceil(bytes / PAGE));
    const frames = 2 ** order;
    const frame = this.#hardware.alloc(order);
    if (frame < 0) return undefined;
    const iova = this.map(frame, frames);
    if (iova < 0) {
      this.#hardware.free(frame, order);
      return undefined;
    }
    const at = this.#hardware.at(frame);
    const words = this.#hardware.words.subarray(at, at + frames * (PAGE / 4));
    return {
      iova,
      frame,
      words,
      free: () => {
        this.unmap(iova, frames);
        this.#hardware.free(frame, order);
      },
    };
  }

  /** Naturally aligned, so that large pages fit. */
  #take(order: number): number {
    const size = 2 ** order;
    const page = Math.floor((this.#next - size) / size) * size;
    if (page <= 0) return -Errno.ENOSPC;
    this.#next = page;
    return page;
  }
  #release(page: number, order: number): void {
    const list = this.#freed.get(order);
    if (list) list.push(page);
    else this.#freed.set(order, [page]);
  }
}

const orderOf = (frames: number): number => Math.ceil(Math.log2(Math.max(frames, 1)));
