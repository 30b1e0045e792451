import { TlpStatus } from '@siov/layout/pcie';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Flag, Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
/** Two operand areas of four pages each. */
const SRC = 0x1_0000;
const DST = 0x2_0000;
const region = { offset: fc.nat(200), size: fc.integer({ min: 1, max: 12_000 }), seed: fc.nat(255) };

describe('operations against plain byte arrays', () => {
  const one = machine();
  one.start({});
  const random = (at: number, n: number, seed: number): Uint8Array => {
    for (let i = 0; i < n; i++) one.bytes[at + i] = (i * 31 + seed * 7 + (i >> 8)) & 0xff;
    return one.bytes.slice(at, at + n);
  };

  test('memmove writes the source to the destination and nothing else', () => {
    fc.assert(
      fc.property(fc.nat(200), fc.nat(200), region.size, region.seed, (s, d, size, seed) => {
        random(SRC, 0x4000, seed);
        one.bytes.fill(0xee, DST, DST + 0x4000);
        const expected = one.bytes.slice(DST, DST + 0x4000);
        expected.set(one.bytes.subarray(SRC + s, SRC + s + size), d);
        expect(one.execute(one.descriptor(Opcode.memmove, { sourceLow: SRC + s, destinationLow: DST + d, size }))).toMatchObject({
          status: 'success',
          completed: size,
        });
        expect(Buffer.compare(one.bytes.subarray(DST, DST + 0x4000), expected)).toBe(0);
      }),
    );
  });

  test('an overlapping memmove is as if the source was read first, in either direction', () => {
    fc.assert(
      fc.property(fc.integer({ min: -6000, max: 6000 }), region.size, region.seed, (gap, size, seed) => {
        const source = random(SRC, 0x8000, seed).slice(0x2000, 0x2000 + size);
        one.execute(one.descriptor(Opcode.memmove, { sourceLow: SRC + 0x2000, destinationLow: SRC + 0x2000 + gap, size }));
        expect(Buffer.compare(one.bytes.subarray(SRC + 0x2000 + gap, SRC + 0x2000 + gap + size), source)).toBe(0);
      }),
    );
  });

  test('fill repeats the pattern from the first byte and cuts it at the end', () => {
    fc.assert(
      fc.property(region.offset, region.size, fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.boolean(), (d, size, pattern, uniform) => {
        if (uniform) pattern.fill(pattern[0]!);
        one.bytes.fill(0xee, DST, DST + 0x4000);
        const words = new Uint32Array(pattern.slice().buffer);
        one.execute(one.descriptor(Opcode.fill, { sourceLow: words[0]!, sourceHigh: words[1]!, destinationLow: DST + d, size }));
        const expected = new Uint8Array(0x4000).fill(0xee);
        for (let i = 0; i < size; i++) expected[d + i] = pattern[i % 8]!;
        expect(Buffer.compare(one.bytes.subarray(DST, DST + 0x4000), expected)).toBe(0);
      }),
    );
  });

  test('compare finds the first difference; Check Result turns it into a false predicate', () => {
    fc.assert(
      fc.property(
        fc.nat(64),
        fc.nat(64),
        region.size,
        fc.option(fc.nat(11_999)),
        fc.boolean(),
        fc.nat(1),
        (s, d, size, differ, check, expectedResult) => {
          random(SRC, 0x4000, 3);
          one.bytes.copyWithin(DST + d, SRC + s, SRC + s + size);
          const at = differ === null || differ >= size ? -1 : differ;
          if (at >= 0) one.bytes[DST + d + at]! ^= 0x40;
          const descriptor = one.descriptor(Opcode.compare, {
            sourceLow: SRC + s,
            destinationLow: DST + d,
            size,
            flags: record | (check ? Flag.checkResult : 0),
          });
          descriptor[10] = expectedResult;
          const result = at >= 0 ? 1 : 0;
          expect(one.execute(descriptor)).toMatchObject({
            status: check && result !== expectedResult ? 'successFalsePredicate' : 'success',
            result,
            completed: at >= 0 ? at : size,
          });
        },
      ),
    );
  });

  test('compare with a pattern', () => {
    fc.assert(
      fc.property(fc.nat(64), region.size, fc.option(fc.nat(11_999)), (s, size, differ) => {
        const pattern = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
        for (let i = 0; i < size; i++) one.bytes[SRC + s + i] = pattern[i % 8]!;
        const at = differ === null || differ >= size ? -1 : differ;
        if (at >= 0) one.bytes[SRC + s + at]! ^= 0x80;
        expect(
          one.execute(one.descriptor(Opcode.comparePattern, { sourceLow: SRC + s, destinationLow: 0x0403_0201, destinationHigh: 0x0807_0605, size })),
        ).toMatchObject({
          result: at >= 0 ? 1 : 0,
          completed: at >= 0 ? at : size,
        });
      }),
    );
  });

  /** CRC-32C bit by bit, from the polynomial; shares nothing with the table-driven one. */
  const bitwise = (bytes: Uint8Array, seed: number): number => {
    let crc = ~seed;
    for (const byte of bytes) {
      crc ^= byte;
      for (let k = 0; k < 8; k++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    }
    return ~crc >>> 0;
  };

  test.each([
    ['"123456789"', [...'123456789'].map((c) => c.charCodeAt(0)), 0xe306_9283],
    // RFC 3720, appendix B.4.
    ['32 bytes of zeroes', Array(32).fill(0), 0x8a91_36aa],
    ['32 bytes of ones', Array(32).fill(0xff), 0x62a8_ab43],
    ['32 incrementing bytes', Array.from({ length: 32 }, (_, i) => i), 0x46dd_794e],
  ])('CRC-32C of %s', (_name, bytes, crc) => {
    one.bytes.set(bytes, SRC);
    expect(one.execute(one.descriptor(Opcode.crc, { sourceLow: SRC, size: bytes.length }))).toMatchObject({ status: 'success', value: crc });
  });

  test('CRC and copy with CRC equal the definition, from any seed, and chain', () => {
    fc.assert(
      fc.property(fc.nat(64), region.size, fc.nat(0xffff_ffff), fc.nat(99), (s, size, seed, cut) => {
        const source = random(SRC + s, size, seed & 0xff);
        const crc = (from: number, n: number, start: number): number => {
          const d = one.descriptor(Opcode.crc, { sourceLow: from, size: n });
          d[10] = start;
          return one.execute(d).value as number;
        };
        const whole = crc(SRC + s, size, seed);
        expect(whole).toBe(bitwise(source, seed));
        const first = Math.max(1, Math.floor((size * cut) / 100));
        if (first < size) expect(crc(SRC + s + first, size - first, crc(SRC + s, first, seed))).toBe(whole);
        const copy = one.descriptor(Opcode.copyCrc, { sourceLow: SRC + s, destinationLow: DST, size });
        copy[10] = seed;
        expect(one.execute(copy).value).toBe(whole);
        expect(Buffer.compare(one.bytes.subarray(DST, DST + size), source)).toBe(0);
      }),
    );
  });

  test('dualcast writes both destinations', () => {
    const source = random(SRC, 5000, 9);
    const d = one.descriptor(Opcode.dualcast, { sourceLow: SRC, destinationLow: DST + 12, size: 5000 });
    d[10] = DST + 0x8000 + 12;
    expect(one.execute(d)).toMatchObject({ status: 'success' });
    for (const at of [DST + 12, DST + 0x8000 + 12]) expect(Buffer.compare(one.bytes.subarray(at, at + 5000), source)).toBe(0);
  });
});

describe('rules of a descriptor', () => {
  const rows: [rule: string, status: string, make: (m: ReturnType<typeof machine>) => Uint32Array][] = [
    ['an operation that OPCAP does not offer', 'unsupportedOperation', (m) => m.descriptor(0x7f)],
    ['a flag that the operation does not have', 'invalidFlags', (m) => m.descriptor(Opcode.nop, { flags: record | Flag.cacheControl })],
    [
      'block-on-fault where the queue does not allow it',
      'invalidFlags',
      (m) => m.descriptor(Opcode.memmove, { flags: record | Flag.blockOnFault, size: 8, sourceLow: SRC, destinationLow: DST }),
    ],
    [
      'a reserved field that is not zero',
      'nonZeroReserved',
      (m) => {
        const d = m.descriptor(Opcode.memmove, { size: 8, sourceLow: SRC, destinationLow: DST });
        d[15] = 1;
        return d;
      },
    ],
    ['a transfer size of 0', 'transferSize', (m) => m.descriptor(Opcode.memmove, { sourceLow: SRC, destinationLow: DST })],
    ["a transfer size above the queue's maximum", 'transferSize', (m) => m.descriptor(Opcode.fill, { destinationLow: DST, size: 2 ** 21 + 1 })],
    ['a batch of one', 'descriptorCount', (m) => m.descriptor(Opcode.batch, { sourceLow: SRC, size: 1 })],
    ["a batch above the queue's maximum", 'descriptorCount', (m) => m.descriptor(Opcode.batch, { sourceLow: SRC, size: 33 })],
    ['a batch list that is not 64-byte aligned', 'listAlignment', (m) => m.descriptor(Opcode.batch, { sourceLow: SRC + 32, size: 2 })],
    ['copy with CRC onto itself', 'overlap', (m) => m.descriptor(Opcode.copyCrc, { sourceLow: SRC, destinationLow: SRC + 4, size: 8 })],
    [
      'dualcast destinations with different page offsets',
      'dualcastAlignment',
      (m) => {
        const d = m.descriptor(Opcode.dualcast, { sourceLow: SRC, destinationLow: DST, size: 8 });
        d[10] = DST + 0x1004;
        return d;
      },
    ],
    [
      'an interrupt handle that the table does not have',
      'interruptHandle',
      (m) => m.descriptor(Opcode.nop, { flags: record | Flag.requestInterrupt, interruptHandle: 99 }),
    ],
  ];
  test.each(rows)('%s ends with %s', (_rule, status, make) => {
    const m = machine();
    m.start({});
    expect(m.execute(make(m))).toMatchObject({ status });
  });

  test('an error without a completion address, or with a misaligned one, goes to SWERROR; the first one sticks', () => {
    const m = machine();
    m.start({});
    m.submit(m.descriptor(0x7f, { flags: 0 }));
    m.submit(m.descriptor(Opcode.nop, { recordLow: m.RECORD + 8 }));
    m.run();
    expect(m.device.describe().swError).toMatchObject({ valid: 1, overflow: 1, error: 0x10, wq: 0, operation: 0x7f });
    m.write(0xc0, 3);
    expect(m.device.describe().swError).toMatchObject({ valid: 0, overflow: 0 });
  });
});

describe('page faults', () => {
  test('without block-on-fault: a partial record, and software resumes where it says', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(5), { minLength: 1 }), fc.boolean(), (pages, write) => {
        const m = machine();
        m.start({ pasid: 5 });
        const size = 6 * 4096 - 100;
        for (let i = 0; i < size; i++) m.bytes[SRC + 50 + i] = (i * 7) & 0xff;
        for (const p of pages) m.absent.add((write ? DST : SRC) / 4096 + p);
        let done = 0;
        let faults = 0;
        while (done < size) {
          const r = m.execute(m.descriptor(Opcode.memmove, { sourceLow: SRC + 50 + done, destinationLow: DST + 20 + done, size: size - done }));
          done += r.completed as number;
          if (r.status === 'success') break;
          expect(r).toMatchObject({ status: 'pageFault', faultWrite: write ? 1 : 0 });
          expect(m.absent.delete((r.faultLow as number) >>> 12)).toBe(true);
          faults++;
        }
        expect(Buffer.compare(m.bytes.subarray(SRC + 50, SRC + 50 + size), m.bytes.subarray(DST + 20, DST + 20 + size))).toBe(0);
        expect(faults).toBe(pages.length);
      }),
      { numRuns: 30 },
    );
  });

  test('with block-on-fault: a page request, and the response resumes; an invalid one ends with 0x04', () => {
    for (const code of [0, 1]) {
      const m = machine();
      m.start({ pasid: 5, blockOnFault: true });
      m.bytes.fill(7, SRC, SRC + 8192);
      m.absent.add(DST / 4096 + 1);
      const d = m.descriptor(Opcode.memmove, { sourceLow: SRC, destinationLow: DST, size: 8192, flags: record | Flag.blockOnFault });
      expect(m.execute(d)).toMatchObject({ status: 'none' });
      expect(m.pageRequests).toMatchObject([{ pasid: 5, page: DST / 4096 + 1, write: true }]);
      m.absent.clear();
      m.device.pageResponse(5, m.pageRequests[0]!.group, code);
      m.run();
      expect(m.record()).toMatchObject(code === 0 ? { status: 'success' } : { status: 'pageRequestInvalid', faultWrite: 1, completed: 4096 });
    }
  });

  test('a completion record that cannot be written is a software error with its address', () => {
    const m = machine();
    m.start({ pasid: 5 });
    m.absent.add(0x9);
    m.submit(m.descriptor(Opcode.nop, { recordLow: 0x9040 }));
    m.run();
    expect(m.device.describe().swError).toMatchObject({ valid: 1, error: 0x1a, pasid: 5, addressLow: 0x9040 });
  });

  test('without ATS a refused request is a translation error', () => {
    const m = machine();
    m.fn.configWrite(m.fn.at.pri + 4, 2, 0);
    m.fn.configWrite(m.fn.at.ats + 6, 2, 0);
    m.start({ pasid: 5 });
    m.absent.add(SRC / 4096);
    expect(m.execute(m.descriptor(Opcode.memmove, { sourceLow: SRC, destinationLow: DST, size: 8 }))).toMatchObject({ status: 'translationError' });
    expect(TlpStatus.unsupportedRequest).toBe(1);
  });
});

describe('batch', () => {
  const members = (m: ReturnType<typeof machine>, list: Uint32Array[]): void => {
    for (const [i, d] of list.entries()) m.words.set(d, SRC / 4 + i * 16);
  };
  test('runs every member, each with its own record', () => {
    const m = machine();
    m.start({});
    m.bytes.fill(3, DST, DST + 64);
    members(m, [
      m.descriptor(Opcode.memmove, { sourceLow: DST, destinationLow: DST + 64, size: 64, recordLow: 0x200 }),
      m.descriptor(Opcode.nop, { recordLow: 0x220 }),
    ]);
    expect(m.execute(m.descriptor(Opcode.batch, { sourceLow: SRC, size: 2 }))).toMatchObject({ status: 'success', completed: 2 });
    expect([m.record(0x200).status, m.record(0x220).status, m.bytes[DST + 127]]).toEqual(['success', 'success', 3]);
  });
  test('a failed member fails the batch, the others run; a fence after it skips the rest', () => {
    for (const fence of [0, Flag.fence]) {
      const m = machine();
      m.start({});
      members(m, [
        m.descriptor(Opcode.memmove, { recordLow: 0x200 }),
        m.descriptor(Opcode.nop, { recordLow: 0x220, flags: record | fence }),
        m.descriptor(Opcode.nop, { recordLow: 0x240 }),
      ]);
      expect(m.execute(m.descriptor(Opcode.batch, { sourceLow: SRC, size: 3 }))).toMatchObject({ status: 'batchFail', completed: fence ? 1 : 3 });
      expect([0x200, 0x220, 0x240].map((at) => m.record(at).status)).toEqual(
        fence ? ['transferSize', 'none', 'none'] : ['transferSize', 'success', 'success'],
      );
    }
  });
  test('a batch in a batch, or a drain, is not supported', () => {
    const m = machine();
    m.start({});
    members(m, [m.descriptor(Opcode.batch, { recordLow: 0x200, sourceLow: SRC, size: 2 }), m.descriptor(Opcode.drain, { recordLow: 0x220 })]);
    m.execute(m.descriptor(Opcode.batch, { sourceLow: SRC, size: 2 }));
    expect([m.record(0x200).status, m.record(0x220).status]).toEqual(['unsupportedOperation', 'unsupportedOperation']);
  });
  test('a list that is not there is a batch fault', () => {
    const m = machine();
    m.start({});
    m.absent.add(SRC / 4096);
    expect(m.execute(m.descriptor(Opcode.batch, { sourceLow: SRC, size: 2 }))).toMatchObject({ status: 'batchFault', completed: 0 });
  });
});
