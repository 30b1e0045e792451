import { CrcDescriptor, Flag, Opcode, Record, Status } from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';
import { MapFlag, Prot } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import { machine, openPortal } from './machine.js';

const PAGE = 4096;
/** CRC-32C (RFC 3720), bit by bit. */
function crc(bytes: Uint8Array, seed = 0): number {
  let c = ~seed;
  for (const byte of bytes) {
    c ^= byte;
    for (let i = 0; i < 8; i++) c = (c >>> 1) ^ (c & 1 ? 0x82f6_3b78 : 0);
  }
  return ~c >>> 0;
}

const m = machine({
  config: {
    wqs: [
      { mode: 'dedicated', size: 16, group: 0 },
      { mode: 'shared', size: 16, group: 0 },
    ],
  },
});
const paths = m.driver.wqs.map((wq) => m.node(wq).path);

/** A process with a queue, through a binding of the real unit, and with memory whose pages come only when they are touched. */
function process(mode: 'dedicated' | 'shared') {
  const t = m.task();
  const { portal } = openPortal(t, paths[mode === 'dedicated' ? 0 : 1]!);
  const client = new Client(t, { address: portal, mode }, { depth: 2 });
  const untouched = (pages: number): number => t.mmap(0, pages * PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
  const read = (at: number, n: number): Uint8Array => {
    const out = new Uint8Array(n);
    expect(t.copyIn(at, out)).toBe(0);
    return out;
  };
  /** Submits slot 0 until it ends with something else than a page fault; the status, and how often it was resumed. */
  const finish = (): { status: number; resumes: number } => {
    const before = client.resumes;
    do {
      expect(client.submit(0)).toBe(0);
      m.run();
    } while (client.resume(0));
    return { status: client.poll(0), resumes: client.resumes - before };
  };
  const prepare = (opcode: number, first: number, second: number, size: number, extra = 0): void =>
    client.prepare(0, opcode, hi(first), lo(first), hi(second), lo(second), size, extra);
  return { t, client, untouched, read, finish, prepare, end: () => void m.kernel.kill(t.pid) };
}

/** Where an operand begins in its pages, how long it is, and what it holds. */
const sizes = fc.integer({ min: 1, max: 5 * PAGE });
const within = fc.integer({ min: 0, max: PAGE - 1 });
const filler = (seed: number, n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (Math.imul(i + seed, 0x9e37_79b1) >>> 24) & 0xff);
/** Index of the first byte that differs, -1: none. (Deep equality of long arrays takes seconds.) */
const difference = (a: Uint8Array, b: Uint8Array): number => (a.length === b.length ? a.findIndex((byte, i) => byte !== b[i]) : a.length);
const modes = fc.constantFrom('dedicated' as const, 'shared' as const);
const runs = { numRuns: 60 };

describe('an operation over pages that are not there resumes to the result of one that faulted never', () => {
  test('memmove to untouched pages', () => {
    fc.assert(
      fc.property(modes, sizes, within, within, (mode, size, from, to) => {
        const p = process(mode);
        const source = p.untouched(6) + from;
        const data = filler(size, size);
        p.t.writeStruct(source, data);
        const destination = p.untouched(7) + to;
        p.prepare(Opcode.memmove, source, destination, size);
        const { status, resumes } = p.finish();
        expect([status, resumes]).toEqual([Status.success, Math.floor((to + size - 1) / PAGE) + 1]);
        expect(difference(p.read(destination, size), data)).toBe(-1);
        p.end();
      }),
      runs,
    );
  });
  test('memmove within itself, in both directions, some of its pages untouched', () => {
    fc.assert(
      fc.property(
        modes,
        sizes,
        within,
        fc.integer({ min: -2 * PAGE, max: 2 * PAGE }),
        fc.integer({ min: 0, max: 511 }),
        (mode, size, from, distance, touched) => {
          const p = process(mode);
          const arena = p.untouched(12);
          const expected = new Uint8Array(12 * PAGE);
          for (let page = 0; page < 12; page++)
            if ((touched >>> page) & 1) {
              const data = filler(page, PAGE);
              p.t.writeStruct(arena + page * PAGE, data);
              expected.set(data, page * PAGE);
            }
          const source = 2 * PAGE + from;
          expected.copyWithin(source + distance, source, source + size);
          p.prepare(Opcode.memmove, arena + source, arena + source + distance, size);
          expect(p.finish().status).toBe(Status.success);
          expect(difference(p.read(arena, 12 * PAGE), expected)).toBe(-1);
          p.end();
        },
      ),
      { numRuns: 120 },
    );
  });
  test('fill: the pattern goes on where it was', () => {
    fc.assert(
      fc.property(modes, sizes, within, fc.uint8Array({ minLength: 8, maxLength: 8 }), (mode, size, to, pattern) => {
        const p = process(mode);
        const destination = p.untouched(7) + to;
        const [low, high] = new Uint32Array(pattern.slice().buffer);
        p.client.prepare(0, Opcode.fill, high! | 0, low! | 0, hi(destination), lo(destination), size);
        const { status, resumes } = p.finish();
        expect([status, resumes]).toEqual([Status.success, Math.floor((to + size - 1) / PAGE) + 1]);
        expect(
          difference(
            p.read(destination, size),
            Uint8Array.from({ length: size }, (_, i) => pattern[i & 7]!),
          ),
        ).toBe(-1);
        p.end();
      }),
      runs,
    );
  });
  test('compare, with a difference somewhere or nowhere', () => {
    fc.assert(
      fc.property(modes, sizes, within, within, fc.option(within), (mode, size, one, two, at) => {
        const p = process(mode);
        // Untouched pages read as zero, so that the operands are equal but for one byte.
        const [a, b] = [p.untouched(7) + one, p.untouched(7) + two];
        if (at !== null && at < size) p.t.store(b + at, 1, 7);
        p.prepare(Opcode.compare, a, b, size);
        expect(p.finish().status).toBe(Status.success);
        expect((p.client.record(0, 0) >>> 8) & 0xff).toBe(at !== null && at < size ? 1 : 0);
        p.end();
      }),
      runs,
    );
  });
  test('compare with a pattern', () => {
    fc.assert(
      fc.property(modes, sizes, within, fc.boolean(), (mode, size, from, equal) => {
        const p = process(mode);
        const source = p.untouched(7) + from;
        p.client.prepare(0, Opcode.comparePattern, hi(source), lo(source), 0, 0, size);
        if (!equal) p.t.store(source + size - 1, 1, 1);
        expect(p.finish().status).toBe(Status.success);
        expect((p.client.record(0, 0) >>> 8) & 0xff).toBe(equal ? 0 : 1);
        p.end();
      }),
      runs,
    );
  });
  test('compare with a pattern that turns: pages that went in between faults are compared at the right place', () => {
    const p = process('dedicated');
    const source = p.untouched(3) + 5;
    const pattern = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const size = 2 * PAGE;
    p.t.writeStruct(
      source,
      Uint8Array.from({ length: size }, (_, i) => pattern[i & 7]!),
    );
    const [low, high] = new Uint32Array(pattern.buffer);
    // Read rights go from the second page: the first pass ends inside the pattern.
    const second = source - 5 + PAGE;
    p.t.mprotect(second, PAGE, Prot.NONE);
    p.client.prepare(0, Opcode.comparePattern, hi(source), lo(source), high! | 0, low! | 0, size);
    p.client.submit(0);
    m.run();
    expect(p.client.poll(0)).toBe(Status.pageFault);
    expect(p.client.record(0, 1)).toBe(PAGE - 5);
    p.t.mprotect(second, PAGE, Prot.READ | Prot.WRITE);
    expect([p.client.resume(0), p.finish().status, (p.client.record(0, 0) >>> 8) & 0xff]).toEqual([true, Status.success, 0]);
    p.end();
  });
  test('CRC, its seed in the descriptor or in memory; and CRC with a copy', () => {
    fc.assert(
      fc.property(
        modes,
        sizes,
        within,
        fc.constantFrom('crc', 'copy'),
        fc.boolean(),
        fc.integer(),
        fc.integer({ min: 0, max: 127 }),
        (mode, size, from, kind, inMemory, seed, touched) => {
          const p = process(mode);
          const base = p.untouched(7);
          const expected = new Uint8Array(7 * PAGE);
          for (let page = 0; page < 7; page++)
            if ((touched >>> page) & 1) {
              expected.set(filler(page, PAGE), page * PAGE);
              p.t.writeStruct(base + page * PAGE, filler(page, PAGE));
            }
          const destination = p.untouched(7) + 64;
          p.prepare(kind === 'crc' ? Opcode.crc : Opcode.copyCrc, base + from, kind === 'crc' ? 0 : destination, size, inMemory ? 0 : seed);
          if (inMemory) {
            const at = p.untouched(1);
            p.t.store(at, 4, seed);
            p.client.patch(
              0,
              1,
              ((kind === 'crc' ? Opcode.crc : Opcode.copyCrc) << 24) | Flag.recordAddressValid | Flag.requestRecord | Flag.crcSeedInMemory,
            );
            const words = new Uint32Array(16);
            CrcDescriptor.set.seedLow(words, 0, at % 2 ** 32);
            CrcDescriptor.set.seedHigh(words, 0, Math.floor(at / 2 ** 32));
            for (let word = 0; word < 16; word++) if (words[word]) p.client.patch(0, word, words[word]!);
          }
          expect(p.finish().status).toBe(Status.success);
          const data = expected.subarray(from, from + size);
          expect(p.client.record(0, 4)).toBe(crc(data, seed));
          if (kind === 'copy') expect(difference(p.read(destination, size), data)).toBe(-1);
          p.end();
        },
      ),
      runs,
    );
  });
  test('dualcast: both destinations go on', () => {
    fc.assert(
      fc.property(modes, sizes, within, within, (mode, size, from, to) => {
        const p = process(mode);
        const source = p.untouched(7) + from;
        const data = filler(size, size);
        p.t.writeStruct(source, data);
        const [one, two] = [p.untouched(7) + to, p.untouched(7) + to];
        p.prepare(Opcode.dualcast, source, one, size, two | 0);
        p.client.patch(0, 11, hi(two));
        expect(p.finish().status).toBe(Status.success);
        expect([difference(p.read(one, size), data), difference(p.read(two, size), data)]).toEqual([-1, -1]);
        p.end();
      }),
      runs,
    );
  });
  test('cache flush', () => {
    const p = process('dedicated');
    const at = p.untouched(3);
    p.prepare(Opcode.cacheFlush, 0, at, 3 * PAGE);
    expect(p.finish()).toEqual({ status: Status.success, resumes: 3 });
    p.end();
  });
});

describe('a client', () => {
  test('resume does nothing for a descriptor under way, one that succeeded, and one that failed otherwise', () => {
    const p = process('dedicated');
    p.prepare(Opcode.nop, 0, 0, 0);
    p.client.submit(0);
    expect([p.client.poll(0), p.client.resume(0)]).toEqual([0, false]);
    m.run();
    expect([p.client.poll(0), p.client.resume(0)]).toEqual([Status.success, false]);
    p.prepare(0x7f, 0, 0, 0);
    p.client.submit(0);
    m.run();
    expect([p.client.poll(0), p.client.resume(0), p.client.resumes]).toEqual([Status.unsupportedOperation, false, 0]);
    p.end();
  });
  test('a page that the process may not have ends it, as its own access would', () => {
    const p = process('dedicated');
    p.prepare(Opcode.memmove, p.t.alloc(PAGE), 0x1000, 64);
    p.client.submit(0);
    m.run();
    expect(p.client.poll(0)).toBe(Status.pageFault | 0x80);
    expect(() => p.client.resume(0)).toThrow(/SIGSEGV/);
    p.end();
  });
  test('the record names the page, the access and how far it went', () => {
    const p = process('shared');
    const [source, destination] = [p.t.alloc(2 * PAGE), p.untouched(2)];
    p.t.store(destination, 4, 1);
    p.prepare(Opcode.memmove, source, destination, 2 * PAGE);
    p.client.submit(0);
    m.run();
    const words = Uint32Array.from({ length: 8 }, (_, i) => p.client.record(0, i));
    expect(Record.json(words, 0)).toMatchObject({ status: 'pageFault', faultWrite: 1, completed: PAGE });
    expect(Record.get.faultLow(words, 0) + Record.get.faultHigh(words, 0) * 2 ** 32).toBe(destination + PAGE);
    p.end();
  });
  test('consecutive descriptors spread over the portal page; a full shared queue is counted as retries', () => {
    const p = process('shared');
    for (let i = 0; i < 16; i++) {
      p.client.prepare(i & 1, Opcode.nop, 0, 0, 0, 0, 0);
      expect(p.client.submit(i & 1)).toBe(0);
    }
    p.client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    expect([p.client.submit(0), p.client.submissions, p.client.retries]).toEqual([1, 17, 1]);
    m.run();
    expect(p.client.submit(0)).toBe(0);
    m.run();
    p.end();
  });
  test.each([0, 1.5, 4097])('a depth of %d is refused', (depth) => {
    const p = process('dedicated');
    expect(() => new Client(p.t, { address: 0, mode: 'dedicated' }, { depth })).toThrow(RangeError);
    p.end();
  });
});
