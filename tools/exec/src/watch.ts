/** What happened to descriptors, by operation: counted from the events that the device tells, with the model's time and this machine's. */
import { IaxOpcode, Opcode } from '@siov/idxd-device/spec';
import { Event } from '@siov/layout/events';

export interface OperationCount {
  readonly name: string;
  /** That completed, members of batches with them. */
  readonly count: number;
  /** How often each completion status other than success. */
  readonly statuses: ReadonlyMap<number, number>;
  /** Nanoseconds from the queue to the record, of those that came through a portal: by the model of real hardware, and here. */
  readonly modelledNs: number;
  readonly hereNs: number;
  readonly timed: number;
}
interface Row {
  count: number;
  statuses: Map<number, number>;
  modelledNs: number;
  hereNs: number;
  timed: number;
}
interface Sink {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}

const SUCCESS = 1;
/** More than a queue and its engines hold. */
const OPEN = 512;
const names = new Map<number, string>(
  [...Object.entries(IaxOpcode), ...Object.entries(Opcode)].map(([name, code]) => [
    code,
    name.replace(/[A-Z]|\d+/g, (part) => ` ${part.toLowerCase()}`),
  ]),
);

export class Watch implements Sink {
  /** The model's clock; it comes with the machine. */
  clock: { readonly now: number } | undefined;
  /** Who is told as well. */
  next: Sink | undefined;
  readonly #rows = new Map<number, Row>();
  /** Of each queue: what was accepted and not completed, oldest first, as operation and both times. */
  readonly #open = new Map<number, { readonly opcode: number; readonly modelled: number; readonly here: number }[]>();

  emit(event: number, a: number, b: number, c: number, d: number): void {
    this.next?.emit(event, a, b, c, d);
    if (event === Event.accept) {
      let open = this.#open.get(a);
      if (!open) this.#open.set(a, (open = []));
      // What was aborted never completes.
      if (open.length >= OPEN) open.shift();
      open.push({ opcode: b, modelled: this.clock?.now ?? 0, here: performance.now() });
    } else if (event === Event.complete) this.#complete(a, b, c);
  }

  #complete(queue: number, opcode: number, status: number): void {
    let row = this.#rows.get(opcode);
    if (!row) this.#rows.set(opcode, (row = { count: 0, statuses: new Map(), modelledNs: 0, hereNs: 0, timed: 0 }));
    row.count++;
    if (status !== SUCCESS) row.statuses.set(status, (row.statuses.get(status) ?? 0) + 1);
    // Members of a batch were not accepted by a portal.
    const open = this.#open.get(queue);
    const at = open?.findIndex((one) => one.opcode === opcode) ?? -1;
    if (at < 0) return;
    const { modelled, here } = open!.splice(at, 1)[0]!;
    row.timed++;
    row.modelledNs += (this.clock?.now ?? 0) - modelled;
    row.hereNs += (performance.now() - here) * 1e6;
  }

  get operations(): readonly OperationCount[] {
    return [...this.#rows].sort(([a], [b]) => a - b).map(([opcode, row]) => ({ name: names.get(opcode) ?? `0x${opcode.toString(16)}`, ...row }));
  }
}
