import { Event } from '@siov/layout/events';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DataPath } from '../src/data-path.js';
import { type DeviceCosts, noCosts, type Profile, type ScheduleOptions, sprDsa } from '../src/index.js';
import { Command, Flag, GroupCfg, Opcode } from '../src/spec/index.js';
import { machine, type WqOptions } from './machine.js';

const KEEP = Flag.recordAddressValid | Flag.requestRecord;
const costs: Partial<DeviceCosts> = {
  dispatch: 90,
  occupancy: 43,
  occupancyPerByte: 0.016,
  read: 260,
  write: 80,
  recordWrite: 80,
  streamMove: 0.03,
  streamFill: 0.03,
};

interface Options {
  readonly engines?: number;
  readonly schedule?: ScheduleOptions;
  readonly costs?: Partial<DeviceCosts>;
  readonly profile?: Profile;
  readonly wqs?: readonly WqOptions[];
}
/** A group of some engines, with queues of 64 entries, and the order in which descriptors end: their record addresses' index. */
function group(options: Options = {}) {
  const dispatched: number[] = [];
  const m = machine({
    costs: options.costs ?? costs,
    ...(options.schedule ? { schedule: options.schedule } : {}),
    ...(options.profile ? { profile: options.profile } : {}),
    trace: { emit: (event, wq) => void (event === Event.dispatch && dispatched.push(wq)) },
  });
  const wqs = options.wqs ?? [{ size: 64 }];
  m.configureGroup(0, 2 ** wqs.length - 1, 2 ** (options.engines ?? 4) - 1);
  for (const [i, wq] of wqs.entries()) m.configureWq(i, wq);
  for (const [code, operand] of [[Command.enableDevice, 0], ...wqs.map((_, i) => [Command.enableWq, i])] as [number, number][])
    expect(m.command(code, operand)).toBe(0);
  const RECORDS = 0x1000;
  const record = (i: number): number => RECORDS + 32 * i;
  /** Runs until nothing is left; returns the descriptors in the order of their records, and when each came. */
  const finish = (n: number): { order: number[]; at: number[] } => {
    const order: number[] = [];
    const at: number[] = [];
    const done = new Set<number>();
    m.clock.wait(() => {
      for (let i = 0; i < n; i++)
        if (!done.has(i) && m.record(record(i)).status !== 'none') {
          done.add(i);
          order.push(i);
          at[i] = m.clock.now;
        }
      return false;
    });
    return { order, at };
  };
  return { ...m, dispatched, recordAt: record, finish };
}
const seeds = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
/** Fills of overlapping pieces of one page, each with a byte of its own. */
const racing = fc.array(fc.record({ from: fc.integer({ min: 0, max: 40 }), bytes: fc.integer({ min: 1, max: 60 }) }), { minLength: 2, maxLength: 5 });
type Race = readonly { readonly from: number; readonly bytes: number }[];
const TARGET = 0x2_0000;
function race(fills: Race, options: Options) {
  const g = group(options);
  for (const [i, f] of fills.entries()) {
    const byte = (i + 1) * 0x0101_0101;
    g.submit(
      g.descriptor(Opcode.fill, { sourceLow: byte, sourceHigh: byte, destinationLow: TARGET + f.from, size: f.bytes, recordLow: g.recordAt(i) }),
    );
  }
  const { order, at } = g.finish(fills.length);
  return { order, at, memory: [...g.bytes.subarray(TARGET, TARGET + 128)] };
}
const permutations = <T>(all: readonly T[]): T[][] =>
  all.length === 0 ? [[]] : all.flatMap((x, i) => permutations([...all.slice(0, i), ...all.slice(i + 1)]).map((rest) => [x, ...rest]));

describe('a schedule by a seed', () => {
  test('the same seed gives the same order, times and bytes', () => {
    fc.assert(
      fc.property(racing, seeds, (fills, seed) => {
        expect(race(fills, { schedule: { seed } })).toEqual(race(fills, { schedule: { seed } }));
      }),
      { numRuns: 60 },
    );
  });
  test('other seeds give other orders, also in what a race leaves behind', () => {
    const fills: Race = [0, 0, 0, 0].map(() => ({ from: 0, bytes: 64 }));
    const runs = Array.from({ length: 40 }, (_, seed) => race(fills, { schedule: { seed } }));
    expect(new Set(runs.map((r) => r.memory[0])).size).toBe(4);
    expect(new Set(runs.map((r) => String(r.order))).size).toBeGreaterThan(10);
  });
  test('what a race leaves behind is that of some order of whole operations', () => {
    fc.assert(
      fc.property(racing, seeds, (fills, seed) => {
        const { memory } = race(fills, { schedule: { seed } });
        const possible = permutations(fills.map((_, i) => i)).map((order) => {
          const bytes = new Array<number>(128).fill(0);
          for (const i of order) bytes.fill(i + 1, fills[i]!.from, fills[i]!.from + fills[i]!.bytes);
          return String(bytes);
        });
        expect(possible).toContain(String(memory));
      }),
      { numRuns: 60 },
    );
  });
  test('operations that share nothing leave the same bytes under every schedule and every cost', () => {
    const moves = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 });
    const run = (sizes: readonly number[], options: Options): number[] => {
      const g = group(options);
      for (let i = 0; i < 0x2_0000; i++) g.bytes[0x2_0000 + i] = (i * 7 + (i >>> 8)) & 0xff;
      for (const [i, size] of sizes.entries())
        g.submit(
          g.descriptor(Opcode.memmove, { sourceLow: 0x2_0000 + i * 0x1000, destinationLow: 0x5_0000 + i * 0x2000, size, recordLow: g.recordAt(i) }),
        );
      g.finish(sizes.length);
      return [...g.bytes.subarray(0x5_0000, 0x8_0000)];
    };
    fc.assert(
      fc.property(moves, seeds, (sizes, seed) => {
        const plain = run(sizes, { costs: noCosts });
        expect(run(sizes, {})).toEqual(plain);
        expect(run(sizes, { schedule: { seed } })).toEqual(plain);
        expect(run(sizes, { costs: noCosts, schedule: { seed, spread: 5000 } })).toEqual(plain);
      }),
      { numRuns: 15 },
    );
  });
  test('a drain ends after everything before it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 30 }), seeds, (n, seed) => {
        const g = group({ schedule: { seed, spread: 3000 } });
        for (let i = 0; i < n; i++)
          g.submit(g.descriptor(Opcode.memmove, { sourceLow: 0x2_0000, destinationLow: 0x3_0000, size: 1 + 97 * i, recordLow: g.recordAt(i) }));
        g.submit(g.descriptor(Opcode.drain, { recordLow: g.recordAt(n) }));
        expect(g.finish(n + 1).order.at(-1)).toBe(n);
      }),
      { numRuns: 40 },
    );
  });
  const batch = (g: ReturnType<typeof group>, members: readonly Uint32Array[]): void => {
    for (const [i, d] of members.entries()) g.words.set(d, (0x8000 + 64 * i) / 4);
    g.submit(g.descriptor(Opcode.batch, { sourceLow: 0x8000, size: members.length, recordLow: g.recordAt(100) }));
    g.finish(0);
  };
  test("a batch's members keep to its fences, and between them to nothing", () => {
    const lasts = new Set<number>();
    for (let seed = 0; seed < 60; seed++) {
      const g = group({ schedule: { seed } });
      const fill = (value: number, to: number, flags: number = KEEP) =>
        g.descriptor(Opcode.fill, { sourceLow: value * 0x0101_0101, sourceHigh: value * 0x0101_0101, destinationLow: to, size: 64, flags });
      const move = (from: number, to: number, flags: number) =>
        g.descriptor(Opcode.memmove, { sourceLow: from, destinationLow: to, size: 64, flags });
      const A = 0x2_0000;
      batch(g, [fill(1, A), fill(2, A), fill(3, A), move(A, A + 64, KEEP | Flag.fence), fill(9, A, KEEP | Flag.fence), move(A + 64, A + 128, KEEP)]);
      expect(g.record(g.recordAt(100))).toMatchObject({ status: 'success', completed: 6 });
      // The fenced move saw one of the first three, whole; the fill behind the next fence did not touch what it had read.
      lasts.add(g.bytes[A + 64]!);
      expect([1, 2, 3]).toContain(g.bytes[A + 64]);
      expect([...g.bytes.subarray(A + 128, A + 192)]).toEqual(new Array(64).fill(g.bytes[A + 64]));
      expect(g.bytes[A]).toBe(9);
    }
    expect(lasts.size).toBe(3);
  });
  test('a failure before a fence skips the fenced member and the rest, whatever the order', () => {
    for (let seed = 0; seed < 20; seed++) {
      const g = group({ schedule: { seed } });
      const nop = (flags: number = KEEP, size = 0) => g.descriptor(Opcode.nop, { flags, size });
      batch(g, [nop(), nop(KEEP, 1), nop(), nop(KEEP | Flag.fence), nop()]);
      expect(g.record(g.recordAt(100))).toMatchObject({ status: 'batchFail', completed: 3 });
    }
  });
  test.each([
    [{ seed: 0.5 }, /schedule\.seed/],
    [{ seed: 1, spread: -1 }, /schedule\.spread/],
  ])('%o is refused', (schedule, message) => {
    expect(() => machine({ schedule })).toThrow(message);
  });
});

describe('without a schedule', () => {
  test('records of an engine appear in the order of submission, however long each takes', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 2, maxLength: 30 }), (sizes) => {
        const g = group({ engines: 1 });
        for (const [i, size] of sizes.entries())
          g.submit(
            size === 0
              ? g.descriptor(Opcode.nop, { recordLow: g.recordAt(i) })
              : g.descriptor(Opcode.memmove, { sourceLow: 0x2_0000, destinationLow: 0x4_0000, size, recordLow: g.recordAt(i) }),
          );
        expect(g.finish(sizes.length).order).toEqual(sizes.map((_, i) => i));
      }),
      { numRuns: 40 },
    );
  });
  test('an aborted operation leaves the records behind it free to appear', () => {
    const g = group({ engines: 1, wqs: [{ size: 16, pasid: 3, blockOnFault: true }, { size: 16 }] });
    g.absent.add(0x30);
    g.submit(g.descriptor(Opcode.fill, { destinationLow: 0x3_0000, size: 64, flags: KEEP | Flag.blockOnFault, recordLow: g.recordAt(0) }));
    g.submit(g.descriptor(Opcode.nop, { recordLow: g.recordAt(1) }), 1);
    g.run();
    expect([g.record(g.recordAt(0)).status, g.record(g.recordAt(1)).status]).toEqual(['none', 'none']);
    expect(g.command(Command.abortWq, 1)).toBe(0);
    g.run();
    expect([g.record(g.recordAt(0)).status, g.record(g.recordAt(1)).status]).toEqual(['none', 'success']);
  });
});

describe('arbitration between the queues of a group', () => {
  const served = (priorities: readonly number[], arbitration: 'weighted' | 'strict', schedule?: ScheduleOptions): number[] => {
    const g = group({
      engines: 1,
      profile: { ...sprDsa, arbitration },
      wqs: priorities.map((priority) => ({ size: 32, priority })),
      ...(schedule ? { schedule } : {}),
    });
    for (let i = 0; i < 32; i++) for (const wq of priorities.keys()) g.submit(g.descriptor(Opcode.nop), wq);
    g.run();
    return g.dispatched;
  };
  test('queues with work are served in proportion to their priorities: none starves', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 15 }), fc.integer({ min: 1, max: 15 }), (a, b) => {
        // Until the first of them is empty.
        const order = served([a, b], 'weighted');
        const last = Math.min(order.lastIndexOf(0), order.lastIndexOf(1));
        for (let n = 1; n <= last; n++) {
          const first = order.slice(0, n).filter((wq) => wq === 0).length;
          expect(Math.abs(first - (n * a) / (a + b))).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 30 },
    );
  });
  test('strictly: the highest that has work; equals take turns', () => {
    const order = served([3, 9, 9], 'strict');
    expect(order.slice(0, 8)).toEqual([1, 2, 1, 2, 1, 2, 1, 2]);
    expect(order.slice(64)).toEqual(new Array(32).fill(0));
  });
  test('by a seed: none starves, or with strict priorities the highest goes first', () => {
    for (let seed = 0; seed < 10; seed++) {
      expect(new Set(served([1, 15], 'weighted', { seed })).size).toBe(2);
      expect(served([3, 9], 'strict', { seed }).slice(0, 32)).toEqual(new Array(32).fill(1));
    }
  });
});

describe('engines share the data path', () => {
  const stream = { streamMove: 0.03 };
  const moves = (sizes: readonly number[], options: Options): number[] => {
    const g = group({ costs: stream, ...options });
    const from = g.clock.now;
    for (const [i, size] of sizes.entries())
      g.submit(g.descriptor(Opcode.memmove, { sourceLow: 0x4_0000, destinationLow: 0x8_0000, size, recordLow: g.recordAt(i) }));
    return g.finish(sizes.length).at.map((t) => t - from);
  };
  const K100 = 100_000;
  test('equally by bytes: what ends first leaves its share to the others', () => {
    expect(moves([K100, K100], { engines: 2 })).toEqual([6000, 6000]);
    expect(moves([K100, 2 * K100], { engines: 2 })).toEqual([6000, 9000]);
    expect(moves([2 * K100, K100], { engines: 2 })).toEqual([9000, 6000]);
  });
  test('one engine alone has all of it, one after the other', () => {
    expect(moves([K100, K100], { engines: 1 })).toEqual([3000, 6000]);
  });
  test('small operations on other engines overtake a large one', () => {
    const at = moves([2 * K100, ...new Array<number>(20).fill(4000)], { engines: 4 });
    expect(at.filter((t) => t < at[0]!).length).toBe(20);
  });
  test('a group has no more in progress than its read buffers hold, so that a share of them is a share of the rate', () => {
    const withBuffers = (allowed: number): number => {
      const m = machine({ costs: { ...stream, read: 256 } });
      m.configureGroup(0, 1, 1);
      const words = new Uint32Array(16);
      GroupCfg.set.readBuffersAllowed(words, 0, allowed);
      m.write(m.groups + 40, words[10]!);
      m.configureWq(0);
      m.command(Command.enableDevice);
      m.command(Command.enableWq);
      const from = m.clock.now;
      m.submit(m.descriptor(Opcode.memmove, { sourceLow: 0x4_0000, destinationLow: 0x8_0000, size: 128 * 1024 }));
      m.run();
      return m.clock.now - from - 256;
    };
    // 8 buffers of 128 bytes in 256 ns: 4 bytes a nanosecond.
    expect(withBuffers(8)).toBe(Math.round((128 * 1024) / 4));
    expect(withBuffers(16)).toBe(Math.round((128 * 1024) / 8));
    expect(withBuffers(96)).toBe(Math.round(128 * 1024 * 0.03));
    expect(withBuffers(0)).toBe(withBuffers(96));
  });
  test('at random arrivals, as a plain simulation has it: FIFO on each engine, equal shares among those with work', () => {
    const jobs = fc.array(
      fc.record({ engine: fc.integer({ min: 0, max: 3 }), gap: fc.integer({ min: 0, max: 400 }), work: fc.integer({ min: 1, max: 900 }) }),
      {
        minLength: 1,
        maxLength: 40,
      },
    );
    fc.assert(
      fc.property(jobs, (list) => {
        const ends: number[] = [];
        const ours: number[] = [];
        let now = 0;
        const path = new DataPath(
          4,
          64,
          (id) => {
            delete ours[id];
          },
          (id) => {
            ours[id] = now;
          },
        );
        const arrivals = list.map(
          (
            (t) => (job) =>
              (t += job.gap)
          )(0),
        );
        // The plain simulation: from event to event.
        const left = list.map((j) => j.work);
        for (let t = 0, next = 0; ends.filter((e) => e !== undefined).length < list.length; ) {
          while (next < list.length && arrivals[next]! <= t) next++;
          const heads = [0, 1, 2, 3].map((e) => list.findIndex((j, i) => i < next && j.engine === e && left[i]! > 1e-6)).filter((i) => i >= 0);
          const upTo = next < list.length ? arrivals[next]! - t : Number.POSITIVE_INFINITY;
          const step = Math.min(upTo, ...heads.map((i) => left[i]! * heads.length));
          for (const i of heads) {
            left[i]! -= step / heads.length;
            if (left[i]! <= 1e-6) ends[i] = t + step;
          }
          t += step;
        }
        // Ours, with someone who looks when it says.
        let next = 0;
        for (;;) {
          const look = path.watching > 0 ? now + Math.ceil(path.next()) : Number.POSITIVE_INFINITY;
          if (next < list.length && arrivals[next]! <= look) {
            now = arrivals[next]!;
            path.settle(now);
            const time = path.add(list[next]!.engine, now, list[next]!.work, next);
            if (time >= 0) ours[next] = now + time;
            next++;
          } else if (look < Number.POSITIVE_INFINITY) {
            now = look;
            path.settle(now);
          } else break;
        }
        for (const [i, end] of ends.entries()) expect(Math.abs(ours[i]! - end)).toBeLessThanOrEqual(1.001);
      }),
      { numRuns: 200 },
    );
  });
});

describe('a destination whose first or last line is written in part', () => {
  const time = (opcode: number, destinationLow: number, size: number): number => {
    const m = machine({ costs: { partialHalf: 1, partialLine: 2, partialLatency: 400 } });
    m.start({});
    const from = m.clock.now;
    m.submit(m.descriptor(opcode, { sourceLow: 0x2_0000, destinationLow, size }));
    m.clock.wait(() => m.record().status !== 'none');
    return m.clock.now - from;
  };
  test.each([
    [Opcode.memmove, 0x3_0000, 64, 0],
    [Opcode.memmove, 0x3_0020, 64, 400],
    [Opcode.memmove, 0x3_0000, 96, 400],
    [Opcode.fill, 0x3_0008, 64, 400],
    [Opcode.fill, 0x3_0000, 128, 0],
    [Opcode.compare, 0x3_0008, 64, 0],
  ])('operation %i at %i, %i bytes: %i ns more', (opcode, destination, bytes, ns) => {
    expect(time(opcode, destination, bytes)).toBe(ns);
  });
  test('keeps its engine longer, and more so in pieces below 32 bytes', () => {
    const interval = (offset: number): number => {
      const m = machine({ costs: { partialHalf: 300, partialLine: 700, occupancy: 40 } });
      m.start({});
      const from = m.clock.now;
      for (const recordLow of [0x200, 0x220]) m.submit(m.descriptor(Opcode.fill, { destinationLow: 0x3_0000 + offset, size: 64, recordLow }));
      m.clock.wait(() => m.record(0x220).status !== 'none');
      return m.clock.now - from;
    };
    expect([0, 32, 8].map(interval)).toEqual([40, 340, 740]);
  });
});

describe('the limit of descriptors in progress, GRPCFG', () => {
  /** The most that one engine had begun and not ended, of 64 moves in a row. */
  const most = (profile: Profile, limit: number): number => {
    let now = 0;
    let most = 0;
    const m = machine({
      profile,
      costs: { ...costs, occupancy: 1, occupancyPerByte: 0 },
      trace: {
        emit: (event) => {
          if (event === Event.dispatch) most = Math.max(most, ++now);
          if (event === Event.complete) now--;
        },
      },
    });
    m.configureGroup(0, 1, 1);
    const words = new Uint32Array(GroupCfg.bytes / 4);
    GroupCfg.set.descriptorLimit(words, 0, limit);
    m.write(m.groups + 44, words[11]!);
    m.configureWq(0, { size: 64 });
    for (const code of [Command.enableDevice, Command.enableWq]) expect(m.command(code, 0)).toBe(0);
    for (let i = 0; i < 64; i++) m.submit(m.descriptor(Opcode.nop, { recordLow: 0x1000 + 32 * i }));
    m.run();
    expect(now).toBe(0);
    return most;
  };
  test.each([
    [0, 64],
    [1, 32],
    [2, 16],
    [3, 8],
  ])('%i: at most %i of 64', (limit, expected) => {
    expect(most({ ...sprDsa, progressLimit: true }, limit)).toBe(expected);
  });
  test('without the capability there is none', () => {
    expect(most(sprDsa, 3)).toBe(64);
  });
});
