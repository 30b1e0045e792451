/**
 * The unit's own interrupts: fault event, invalidation completion event, page request event. One rule for the three: a new cause sets
 * IP; with IM = 0 the message goes out and IP clears; clearing IM sends a pending one; clearing all causes clears IP. VT-d, "Fault Event
 * Control Register" and its twins. These messages are not remapped.
 */

import type { InterruptSink } from '../ports.js';
import { EventControl } from '../spec/registers.js';

const { pending, mask } = EventControl.get;
const setPending = EventControl.set.pending;

/** One event's registers, by the word index of its control register: control, data, address, upper address. */
export class EventRegisters {
  private readonly words: Uint32Array;
  private readonly at: number;
  private readonly sink: InterruptSink;
  constructor(words: Uint32Array, at: number, sink: InterruptSink) {
    this.words = words;
    this.at = at;
    this.sink = sink;
  }
  /** A cause appeared while none was there. */
  raise(): void {
    setPending(this.words, this.at, 1);
    this.update();
  }
  /** All causes are gone. */
  clear(): void {
    setPending(this.words, this.at, 0);
  }
  /** The control register was written. */
  update(): void {
    if (!pending(this.words, this.at) || mask(this.words, this.at)) return;
    setPending(this.words, this.at, 0);
    const address = this.words[this.at + 2]!;
    const upper = this.words[this.at + 3]!;
    this.sink.deliver(this.words[this.at + 1]! & 0xff, ((address >>> 12) & 0xff) | (upper & 0xffff_ff00));
  }
}
