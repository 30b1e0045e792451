/** Typed events as a Chrome trace (Trace Event Format), which Perfetto opens: one track a party, virtual time in microseconds. */
import { createWriteStream, type WriteStream } from 'node:fs';
import { Event, events, Party } from '@siov/layout/events';
import type { Clock, Trace } from '@siov/stack';

const names: Readonly<Record<keyof typeof Party, string>> = {
  process: 'process',
  guest: 'guest',
  kernel: 'kernel driver',
  iommu: 'IOMMU',
  device: 'device',
  interrupt: 'interrupts',
  vmm: 'VMM',
};
/** Events kept; the rest are counted. A long run would make a file that no viewer opens. */
const LIMIT = 1_000_000;

export class ChromeTrace {
  readonly #out: WriteStream;
  #first = true;
  #written = 0;
  dropped = 0;
  constructor(path: string) {
    this.#out = createWriteStream(path);
    this.#out.write('{"displayTimeUnit":"ns","traceEvents":[\n');
  }
  get written(): number {
    return this.#written;
  }
  /** A sink for one machine, shown as a process of this name. The clock comes with the machine. */
  machine(pid: number, name: string): Trace & { clock: Pick<Clock, 'now'> | undefined } {
    this.#put({ name: 'process_name', ph: 'M', pid, args: { name } });
    for (const [party, tid] of Object.entries(Party))
      this.#put({ name: 'thread_name', ph: 'M', pid, tid, args: { name: names[party as keyof typeof Party] } });
    const started = new Map<number, number[]>();
    const trace: Trace & { clock: Pick<Clock, 'now'> | undefined } = {
      clock: undefined,
      emit: (event, a, b, c, d) => {
        if (this.#written >= LIMIT) {
          this.dropped++;
          return;
        }
        const row = events[event]!;
        const values = [a, b, c, d];
        const args: Record<string, string> = {};
        row.args.forEach((arg, i) => {
          args[arg] = `0x${(values[i]! >>> 0).toString(16)}`;
        });
        this.#written++;
        const ts = (trace.clock?.now ?? 0) / 1000;
        // A descriptor is a slice of the device's track, from dispatch to completion; queues complete in order, members of a batch have none.
        if (event === Event.dispatch) {
          const queue = started.get(a) ?? [];
          started.set(a, queue);
          queue.push(ts);
        } else if (event === Event.complete) {
          const from = started.get(a)?.shift();
          if (from !== undefined) {
            this.#put({ name: 'descriptor', ph: 'X', ts: from, dur: ts - from, pid, tid: row.party, args });
            return;
          }
        }
        this.#put({ name: row.name, ph: 'i', s: 't', ts, pid, tid: row.party, args });
      },
    };
    return trace;
  }
  async close(): Promise<void> {
    await new Promise<void>((done) => this.#out.end('\n]}\n', () => done()));
  }
  #put(event: object): void {
    this.#out.write(`${this.#first ? '' : ',\n'}${JSON.stringify(event)}`);
    this.#first = false;
  }
}
