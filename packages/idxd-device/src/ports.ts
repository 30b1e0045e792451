/** What idxd-device needs from below. */

/** One contiguous piece of memory, filled by `acquire` and reused. Offset and length in bytes; `ns`: what the translation cost in the model. */
export interface Extent {
  view: Uint8Array;
  words: Uint32Array;
  offset: number;
  length: number;
  ns: number;
}
/**
 * Upstream requests of this function. Addresses are two int32 words; `access` and the answers are those of `@siov/layout/pcie`
 * (`DmaAccess`, `TlpStatus`); `pasid` -1: none.
 */
export interface Upstream {
  acquire(access: number, pasid: number, addressHigh: number, addressLow: number, max: number, out: Extent): number;
  commit(out: Extent): void;
  /** An interrupt message: a posted write of `data` to 0xFEEx_xxxx. */
  message(address: number, data: number): void;
  /** 0: queued, an answer will come to `pageResponse`; anything else: refused. */
  pageRequest(pasid: number, addressHigh: number, addressLow: number, access: number, group: number): number;
}
/** Virtual time in nanoseconds. Delays are integers. Handlers are registered once. */
export interface Clock {
  readonly now: number;
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
}
/** Typed events of `@siov/layout/events`. */
export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}
