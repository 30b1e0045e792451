/**
 * Orders that the specification leaves open, chosen by a seed: which queue a group serves next, which engine is asked first, when a dispatched
 * operation takes effect, and in which order a batch's members between two fences do. The same seed and the same stimuli give the same order,
 * so a race that was seen once can be seen again.
 */
export interface ScheduleOptions {
  /** Any 32-bit integer. */
  readonly seed: number;
  /** An operation takes effect up to so many virtual nanoseconds after its dispatch (default 1000). */
  readonly spread?: number;
}

export class Schedule {
  readonly spread: number;
  #state: number;

  constructor({ seed, spread = 1000 }: ScheduleOptions) {
    if (!Number.isInteger(seed)) throw new RangeError(`schedule.seed: an integer, not ${seed}`);
    if (!(Number.isInteger(spread) && spread >= 0 && spread <= 2 ** 30))
      throw new RangeError(`schedule.spread: 0 to 2^30 nanoseconds, not ${spread}`);
    this.#state = seed | 0;
    this.spread = spread;
  }

  /** An integer from 0 to `bound` - 1; `bound` up to 2^30. A counter whose bits are mixed (MurmurHash3's finalizer). */
  below(bound: number): number {
    this.#state = (this.#state + 0x9e37_79b9) | 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 16), 0x85eb_ca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
    return ((x ^ (x >>> 16)) >>> 2) % bound;
  }
}
