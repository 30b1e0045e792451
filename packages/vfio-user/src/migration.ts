/**
 * The migration state machine of a device. vfio-user.rst, "Direct State Transitions" and "Complex State Transitions"; linux/vfio.h, enum
 * vfio_device_mig_state. The states of peer-to-peer devices are not used in vfio-user.
 */
import { Errno } from '@siov/layout/uapi';
import type { MigrationOps } from './ports.js';
import { MigrationFlag, MigrationState } from './spec/protocol.js';

const { ERROR, STOP, RUNNING, STOP_COPY, RESUMING, PRE_COPY } = MigrationState;
/** The arcs, and those that only a device with PRE_COPY has. */
const arcs: readonly (readonly [from: number, to: number])[] = [
  [RUNNING, STOP],
  [STOP, RUNNING],
  [STOP, STOP_COPY],
  [STOP_COPY, STOP],
  [STOP, RESUMING],
  [RESUMING, STOP],
];
const preCopyArcs: typeof arcs = [
  [RUNNING, PRE_COPY],
  [PRE_COPY, RUNNING],
  [PRE_COPY, STOP_COPY],
];
const saving = (state: number): boolean => state === PRE_COPY || state === STOP_COPY;

/** The states after `from` on the shortest way to `to`, which has no saving state inside; undefined: there is none. */
export function path(from: number, to: number, flags: number): readonly number[] | undefined {
  if (from === STOP_COPY && to === PRE_COPY) return undefined;
  const known = flags & MigrationFlag.PRE_COPY ? [...arcs, ...preCopyArcs] : arcs;
  let ways: number[][] = [[from]];
  const seen = new Set([from]);
  while (ways.length > 0) {
    const there = ways.find((way) => way.at(-1) === to);
    if (there) return there.slice(1);
    ways = ways.flatMap((way) => {
      const at = way.at(-1)!;
      if (way.length > 1 && saving(at)) return [];
      return known.filter(([a, b]) => a === at && !seen.has(b)).map(([, b]) => (seen.add(b), [...way, b]));
    });
  }
  return undefined;
}

export class MigrationMachine {
  readonly #ops: MigrationOps | undefined;
  #state: number = RUNNING;

  constructor(ops: MigrationOps | undefined) {
    this.#ops = ops;
  }

  get offered(): boolean {
    return this.#ops !== undefined;
  }
  get flags(): number {
    return this.#ops?.flags ?? 0;
  }
  get state(): number {
    return this.#state;
  }
  /** The device must do nothing by itself. */
  get idle(): boolean {
    return this.#state !== RUNNING && this.#state !== PRE_COPY;
  }
  /** libvfio-user's idea of stopped: state STOP or STOP_COPY. */
  get stopped(): boolean {
    return this.#state === STOP || this.#state === STOP_COPY;
  }
  get copying(): boolean {
    return this.#state === STOP_COPY;
  }

  /** 0, or -errno; then the state is the last one that was reached. */
  go(to: number): number {
    if (!this.#ops || this.#state === ERROR) return -Errno.EINVAL;
    const way = path(this.#state, to, this.flags);
    if (!way) return -Errno.EINVAL;
    for (const next of way) {
      const result = this.#ops.step(this.#state, next);
      if (result < 0) return result;
      this.#state = next;
    }
    return 0;
  }
  /** Bytes put into `out`, or -errno. */
  read(out: Uint8Array): number {
    return this.#ops && saving(this.#state) ? this.#ops.read(out) : -Errno.EINVAL;
  }
  write(bytes: Uint8Array): number {
    return this.#ops && this.#state === RESUMING ? this.#ops.write(bytes) : -Errno.EINVAL;
  }
  /** The device was reset: the way out of ERROR. */
  reset(): void {
    this.#state = RUNNING;
  }
  /** The client is gone: what it was moving goes nowhere, and the device runs on for the next one. */
  disconnected(): void {
    if (this.#state !== RUNNING && this.go(RUNNING) < 0) this.reset();
  }
}
