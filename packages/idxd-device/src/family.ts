/** What sets the kinds of accelerators apart that share registers, queues, engines and translation. */
import type { Variants } from '@siov/layout';
import type { Operations } from './operations/operation.js';
import type { Profile } from './profiles.js';

export interface Family {
  /** A completion record's size and alignment. */
  readonly recordBytes: 32 | 64;
  /** Words of a record from byte 24 on that its operations fill (`Op.extra`). */
  readonly extraWords: number;
  /** Descriptors by operation code: which of their bits are reserved. */
  readonly descriptors: Variants;
  /** The operations of one device, by code; they may have a state of their own. */
  operations(profile: Profile): Operations;
}
