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
/**
 * Work on bytes that native code does several times as fast as JavaScript, where there is some; results must be the same. `words` is the memory of
 * `view`; offsets and lengths are in bytes. `crc32c` continues a register (reflected, neither inverted before nor after), as this package's own does.
 */
export interface Native {
  crc32c?(crc: number, view: Uint8Array, words: Uint32Array, offset: number, length: number): number;
  equal?(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number, length: number): boolean;
}
