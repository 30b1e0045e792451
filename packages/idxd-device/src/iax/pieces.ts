/** What operations on streams read from and write to: bytes in a buffer of which some are theirs. */

/** Bytes `at` to `end` are there to be read; `last`: none will follow. */
export interface Source {
  readonly bytes: Uint8Array;
  at: number;
  end: number;
  last: boolean;
}
/** Bytes up to `end` were written; there is room up to `limit`. */
export interface Sink {
  readonly bytes: Uint8Array;
  end: number;
  limit: number;
}
/** Why an operation came back. Larger values are error codes of the device, `Wait.error` more. */
export const Wait = { done: 0, source: 1, second: 2, room: 3, error: 0x100 } as const;
