/** Many descriptors in flight over many queues, natively; and a shared queue under contention, in virtual time. */
import { sprDsa } from '@siov/idxd-device';
import { Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { openUacceQueue, UacceStack } from '@siov/stack/uacce';
import { bench, summary } from 'mitata';

const IDLE = { step: () => 'wait' as const };
const IN_FLIGHT = 2048;
/** A device with room for that many; the real one has 128 entries. */
const roomy = { ...sprDsa, totalWqSize: IN_FLIGHT };

function queues(count: number) {
  const wqs = Array.from({ length: count }, () => ({ mode: 'dedicated' as const, size: IN_FLIGHT / count, group: 0 }));
  const stack = new UacceStack({ ramBytes: 256 << 20, devices: [roomy], config: { wqs } });
  const clients = wqs.map(() => {
    const task = stack.host.kernel.user.spawn(IDLE);
    return new Client(task, openUacceQueue(stack, 'dedicated')(task), { depth: IN_FLIGHT / count });
  });
  let client = clients[0]!;
  let slot = 0;
  const done = (): boolean => client.poll(slot) !== 0;
  return () => {
    for (const c of clients)
      for (let s = 0; s < c.depth; s++) {
        c.prepare(s, Opcode.nop, 0, 0, 0, 0, 0);
        c.submit(s);
      }
    for (client of clients) for (slot = 0; slot < client.depth; slot++) if (client.poll(slot) === 0) stack.host.clock.wait(done);
  };
}
export const ONE_QUEUE = `${IN_FLIGHT} NOPs in flight, 1 queue, 4 engines`;
export const EIGHT_QUEUES = `${IN_FLIGHT} NOPs in flight, 8 queues, 4 engines`;
export function registerQueues(): void {
  summary(() => {
    bench(ONE_QUEUE, queues(1)).baseline(true).gc('once');
    bench(EIGHT_QUEUES, queues(8)).gc('once');
  });
}

/**
 * Processes that each keep one move of 64 KiB on a shared queue of 16 entries. After a retry each waits for a random time, up to 200 ns and up to
 * twice as long after each further one, to 12.8 us (binary exponential back-off, by a fixed seed: deterministic). The model has one processor: the
 * submitters take turns on it, in the order in which they are due.
 */
export function sharedQueue(submitters = 64): string[] {
  const SIZE = 16;
  const BYTES = 64 << 10;
  const DURATION = 20e6;
  const stack = new UacceStack({ ramBytes: 256 << 20, config: { wqs: [{ mode: 'shared', size: SIZE, group: 0 }] } });
  const { clock } = stack.host;
  const all = Array.from({ length: submitters }, () => {
    const task = stack.host.kernel.user.spawn(IDLE);
    const client = new Client(task, openUacceQueue(stack, 'shared')(task), { depth: 1 });
    const [from, to] = [task.mmap(0, BYTES, 3, 0x8022), task.mmap(0, BYTES, 3, 0x8022)];
    client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), BYTES);
    return { client, from, to, waiting: false, retries: 0, at: 0, finished: 0, longest: 0, since: 0 };
  });
  let state = 1;
  const random = (bound: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return (state >>> 8) % bound;
  };
  const wake = clock.handler(() => {});
  const begin = clock.now;
  for (const s of all) s.at = s.since = begin;
  while (clock.now < begin + DURATION) {
    clock.pump();
    let due: (typeof all)[number] | undefined;
    for (const s of all) {
      if (s.waiting) {
        if (s.client.poll(0) === 0) continue;
        s.finished++;
        s.longest = Math.max(s.longest, clock.now - s.since);
        s.waiting = false;
        s.client.prepare(0, Opcode.memmove, hi(s.from), lo(s.from), hi(s.to), lo(s.to), BYTES);
        s.at = s.since = clock.now;
      }
      if (!due || s.at < due.at) due = s;
    }
    if (!due || due.at > clock.now) {
      if (due) clock.after(due.at - clock.now, wake, 0);
      clock.idle();
    } else if (due.client.submit(0) === 0) {
      due.waiting = true;
      due.retries = 0;
    } else due.at = clock.now + random(100 * 2 ** Math.min(7, ++due.retries));
  }
  const finished = all.map((s) => s.finished);
  const total = finished.reduce((sum, n) => sum + n, 0);
  const retries = all.reduce((sum, s) => sum + s.client.retries, 0);
  // Jain, Chiu, Hawe: the square of the sum over n times the sum of squares; 1 is equal.
  const fairness = total ** 2 / (submitters * finished.reduce((sum, n) => sum + n * n, 0));
  return [
    `${submitters} submitters on a shared queue of ${SIZE} entries, ${BYTES >> 10} KiB each, ${DURATION / 1e6} ms of virtual time, random back-off up to 12.8 us:`,
    `${total} descriptors (${((total * BYTES) / DURATION).toFixed(1)} GB/s); each submitter ${Math.min(...finished)} to ${Math.max(...finished)}, longest wait ${(Math.max(...all.map((s) => s.longest)) / 1000).toFixed(0)} us; Jain's fairness ${fairness.toFixed(3)}; ${(retries / total).toFixed(1)} retries per descriptor`,
  ];
}
