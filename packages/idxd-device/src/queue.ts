/** A work queue: its entries as a ring of descriptors, and the rules by which its portals take work. DSA specification, "Work Queues". */

export const WqState = { disabled: 0, enabled: 1, draining: 2 } as const;

export class WorkQueue {
  // fixed
  readonly index: number;
  // state
  state: number = WqState.disabled;
  shared = false;
  size = 0;
  threshold = 0;
  priority = 0;
  /** From WQCFG, for dedicated queues; -1: requests carry no PASID. */
  pasid = -1;
  privileged = 0;
  pasidEnable = false;
  blockOnFault = false;
  ats = true;
  maxTransfer = 0;
  maxBatch = 0;
  /** Which operation codes it takes, one bit each. */
  readonly operations = new Uint32Array(8).fill(0xffff_ffff);
  /** By operation code: flags that need no look at anything else; 0: the operation needs more. The engines' table. */
  readonly plainFlags = new Int32Array(256);
  /** Bit 0, 1: the group's traffic class A, B cannot be used. */
  trafficClassFault = 0;
  group = -1;
  /** The occupancy that interrupts when it is reached from above; -1: none. */
  occupancyLimit = -1;
  /** PASIDs with completion records in the event log that no drain has followed. */
  readonly kept = new Set<number>();
  occupancy = 0;
  /** Turns that its group owes it, in units of priority. */
  credit = 0;
  /** Descriptors that left the queue and have no record yet. */
  inFlight = 0;
  #head = 0;
  /** A descriptor each. They are exchanged with operations', not copied. */
  #ring: Uint32Array[] = [];
  /** Beside each entry: which portal half it came by. */
  #ims = new Uint8Array(0);

  constructor(index: number) {
    this.index = index;
  }

  /** Empties the queue and gives it room for `size` descriptors. */
  resize(size: number): void {
    this.size = size;
    this.occupancy = this.credit = this.#head = 0;
    this.#ring = Array.from({ length: size }, () => new Uint32Array(16));
    this.#ims = new Uint8Array(size);
  }

  /** Whether a portal would take one more: to the size through the unlimited portals of a shared queue and all of a dedicated one, else to the threshold. */
  hasRoom(limited: boolean): boolean {
    return this.occupancy < (limited && this.shared ? this.threshold : this.size);
  }

  push(words: Uint32Array, at: number, ims: number): void {
    let slot = this.#head + this.occupancy;
    if (slot >= this.size) slot -= this.size;
    const to = this.#ring[slot]!;
    for (let i = 0; i < 16; i++) to[i] = words[at + i]!;
    this.#ims[slot] = ims;
    this.occupancy++;
  }

  /** Takes the oldest, for the words that `into` has; returns which portal half it came by. */
  shift(into: { descriptor: Uint32Array }): number {
    const taken = this.#ring[this.#head]!;
    this.#ring[this.#head] = into.descriptor;
    into.descriptor = taken;
    const ims = this.#ims[this.#head]!;
    this.#head = this.#head + 1 === this.size ? 0 : this.#head + 1;
    this.occupancy--;
    return ims;
  }

  /** Throws away what waits (of one PASID, or all) and tells of each; in-flight descriptors are not touched. */
  discard(pasid = -1, gone?: (descriptor: Uint32Array, ims: number) => void): void {
    const waiting = this.occupancy;
    const one = { descriptor: new Uint32Array(16) };
    for (let i = 0; i < waiting; i++) {
      const ims = this.shift(one);
      const { descriptor } = one;
      if (pasid >= 0 && (this.shared ? descriptor[0]! & 0xf_ffff : this.pasid) !== pasid) this.push(descriptor, 0, ims);
      else gone?.(descriptor, ims);
    }
  }

  /** Whether a descriptor of this PASID waits here. */
  holds(pasid: number): boolean {
    if (!this.shared) return this.occupancy > 0 && this.pasid === pasid;
    for (let i = 0; i < this.occupancy; i++) {
      let slot = this.#head + i;
      if (slot >= this.size) slot -= this.size;
      if ((this.#ring[slot]![0]! & 0xf_ffff) === pasid) return true;
    }
    return false;
  }
}
