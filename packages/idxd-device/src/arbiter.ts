/** Which queue an engine serves next. DSA specification, "Work Queue Priority"; with a schedule, what that draws. */
import { type WorkQueue, WqState } from './queue.js';
import type { Schedule } from './schedule.js';

export class Arbiter {
  // fixed
  readonly #strict: boolean;
  readonly #schedule: Schedule | undefined;
  // state
  /** Queues by engine, highest priority first; rebuilt when a queue or the device changes. */
  #queuesOf: WorkQueue[][] = [];
  /** Whether an engine's queues have one priority, and which is next then. */
  readonly #equal: Uint8Array;
  readonly #turn: Int32Array;

  /** `strict`: no queue is served while one of higher priority has work. */
  constructor(engines: number, strict: boolean, schedule: Schedule | undefined) {
    this.#strict = strict;
    this.#schedule = schedule;
    this.#equal = new Uint8Array(engines);
    this.#turn = new Int32Array(engines);
  }

  /** How many engines there are to serve; 0 before `configure`. */
  get engines(): number {
    return this.#queuesOf.length;
  }
  /** `groups`: engines of each, one bit an engine. */
  configure(queues: readonly WorkQueue[], groups: readonly { readonly engines: number }[]): void {
    this.#queuesOf = Array.from({ length: this.#turn.length }, (_, engine) =>
      queues
        .filter((wq) => wq.state === WqState.enabled && wq.group >= 0 && (groups[wq.group]!.engines >>> engine) & 1)
        .sort((a, b) => b.priority - a.priority),
    );
    for (const [engine, own] of this.#queuesOf.entries()) {
      this.#equal[engine] = own.every((wq) => wq.priority === own[0]!.priority) ? 1 : 0;
      this.#turn[engine] = 0;
    }
  }
  reset(): void {
    this.#queuesOf = [];
  }

  /** Whether a queue of an engine has work. */
  waiting(engine: number): boolean {
    const queues = this.#queuesOf[engine]!;
    for (let i = 0; i < queues.length; i++) if (queues[i]!.occupancy > 0) return true;
    return false;
  }

  /** The queue that is served next. One has work. */
  pick(engine: number): WorkQueue {
    const queues = this.#queuesOf[engine]!;
    if (queues.length === 1) return queues[0]!;
    if (this.#schedule) return this.#draw(queues, this.#schedule);
    if (this.#equal[engine]) {
      // They take turns: the next one after the last that was served.
      for (let at = this.#turn[engine]!; ; ) {
        const wq = queues[at]!;
        at = at + 1 === queues.length ? 0 : at + 1;
        if (wq.occupancy === 0) continue;
        this.#turn[engine] = at;
        return wq;
      }
    }
    // Every queue with work earns its priority; the one that is owed most is served, and pays for all. Among equals they take turns.
    let best: WorkQueue | undefined;
    let total = 0;
    for (let i = 0; i < queues.length; i++) {
      const wq = queues[i]!;
      if (wq.occupancy === 0 || (this.#strict && best && wq.priority < best.priority)) continue;
      wq.credit += wq.priority;
      total += wq.priority;
      if (!best || wq.credit > best.credit) best = wq;
    }
    best!.credit -= total;
    return best!;
  }

  #draw(queues: readonly WorkQueue[], schedule: Schedule): WorkQueue {
    let total = 0;
    let highest = 0;
    for (const wq of queues)
      if (wq.occupancy > 0 && !(this.#strict && wq.priority < highest)) {
        total += wq.priority;
        highest = Math.max(highest, wq.priority);
      }
    let draw = schedule.below(total);
    let last = queues[0]!;
    for (const wq of queues)
      if (wq.occupancy > 0 && !(this.#strict && wq.priority < highest)) {
        last = wq;
        draw -= wq.priority;
        if (draw < 0) break;
      }
    return last;
  }
}
