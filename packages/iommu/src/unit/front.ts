/** skeleton */
import type { InterruptSink, Mmio, PhysicalMap, Trace } from '../ports.js';
import type { Profile } from './options.js';

/** What a register front tells whoever stands behind it: the unit's own caches, or a VMM. All optional. */
export interface FrontHooks {
  /** GCMD.TE changed. */
  translationEnabled?(enabled: boolean): void;
  /** A new root table was latched (GCMD.SRTP). */
  rootChanged?(): void;
  /** Context-cache invalidation: granularity 1 global, 2 domain, 3 device (`functionMask` low function bits ignored). */
  contextChanged?(granularity: number, domainId: number, sourceId: number, functionMask: number): void;
  /** PASID-cache invalidation: granularity 0 all of the domain, 1 one PASID, 3 global. */
  pasidChanged?(granularity: number, domainId: number, pasid: number): void;
  /**
   * IOTLB invalidation. `domainId` -1: all domains. `pasid` -1: not PASID-selective (second-stage results and everything of the domain).
   * `pages` -1: all addresses; else that many 4 KiB pages from (hi, lo).
   */
  iotlbInvalidated?(domainId: number, pasid: number, hi: number, lo: number, pages: number, leafOnly: boolean): void;
  /** Device-TLB invalidation; `pasid` -1: of requests without PASID. `bytes` Infinity: all. */
  deviceTlbInvalidated?(requesterId: number, pasid: number, hi: number, lo: number, bytes: number): void;
  /** Interrupt entry cache invalidation: `count` -1: all. */
  interruptEntriesChanged?(index: number, count: number): void;
  /** Page group response. `pasid` -1: without PASID. */
  pageResponse?(requesterId: number, pasid: number, group: number, code: number): void;
}

export interface FrontOptions {
  readonly memory: PhysicalMap;
  /** Where the unit's own events (fault, invalidation completion, page request) go. */
  readonly sink: InterruptSink;
  readonly hooks?: FrontHooks;
  readonly profile?: Profile;
  readonly trace?: Trace;
}

/** Registers, queues and fault records of a remapping unit, without translation. */
export class RegisterFront implements Mmio {
  constructor(_options: FrontOptions) {}
  read(_offset: number, _width: number): number {
    return 0;
  }
  write(_offset: number, _width: number, _value: number): void {}
  get translationEnabled(): boolean {
    return false;
  }
  /** Reads the PASID entry of (requester, pasid) from memory into 16 words; pasid -1: RID_PASID. False when it is not present. */
  pasidEntry(_requesterId: number, _pasid: number, _words: Uint32Array): boolean {
    return false;
  }
  /** Writes a page request into the queue. 0: queued; 1: queue not there; 2: dropped by overflow. `last` closes the group. */
  queuePageRequest(_requesterId: number, _pasid: number, _hi: number, _lo: number, _access: number, _group: number, _last: boolean): number {
    return 1;
  }
  /** Records a DMA fault (FRCD, FSTS, event). `pasid` -1: without PASID. `access`: DmaAccess bits. */
  recordFault(_reason: number, _requesterId: number, _pasid: number, _hi: number, _lo: number, _access: number): void {}
}
