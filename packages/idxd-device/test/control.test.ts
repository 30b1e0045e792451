import { DmaAccess } from '@siov/layout/pcie';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gnrD } from '../src/index.js';
import { Flag, Opcode, TranslationFetchDescriptor } from '../src/spec/index.js';
import { machine } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
const SRC = 0x1_0000;
const DST = 0x2_0000;

describe('readback', () => {
  const flags = record | Flag.destinationReadback;
  const page = DST / 4096;
  test.each([
    ['memmove', Opcode.memmove, { sourceLow: SRC, destinationLow: DST, size: 64 }, {}],
    ['fill', Opcode.fill, { destinationLow: DST, size: 64 }, {}],
    ['copy with CRC', Opcode.copyCrc, { sourceLow: SRC, destinationLow: DST, size: 64 }, {}],
    ['dualcast, the second destination', Opcode.dualcast, { sourceLow: SRC, destinationLow: 0x3_0000, size: 64 }, { 10: DST }],
    ['DIF insert', Opcode.difInsert, { sourceLow: SRC, destinationLow: DST, size: 512 }, {}],
    ['create delta, the record', Opcode.createDelta, { sourceLow: SRC, destinationLow: 0x3_0000, size: 64 }, { 10: DST, 12: 100 }],
  ] as const)('%s: the bytes are written, then a destination that cannot be read is status 0x1f with its address', (_name, opcode, fields, more) => {
    for (const unreadable of [false, true]) {
      const m = machine();
      m.start({ pasid: 5 });
      m.bytes.fill(0x77, SRC, SRC + 0x1000);
      if (unreadable) m.writeOnly.add(page);
      const d = m.descriptor(opcode, { ...fields, flags });
      for (const [word, value] of Object.entries(more)) d[Number(word)] = value;
      expect(m.execute(d)).toMatchObject(
        unreadable ? { status: 'readbackFault', faultLow: DST, completed: fields.size, faultWrite: 0 } : { status: 'success' },
      );
      if (opcode === Opcode.memmove) expect(m.bytes[DST + 63]).toBe(0x77);
    }
  });
  test('reads the destination after the write; without the flag nothing is read', () => {
    for (const flag of [0, Flag.destinationReadback]) {
      const m = machine();
      m.start({});
      m.execute(m.descriptor(Opcode.fill, { destinationLow: DST, size: 64, flags: record | flag }));
      expect(m.seen.map((s) => s.access & DmaAccess.write)).toEqual(flag ? [1, 0, 1] : [1, 1]);
    }
  });
  test('a record that was not written is not read back', () => {
    const m = machine();
    m.start({ pasid: 5 });
    m.writeOnly.add(page);
    const d = m.descriptor(Opcode.createDelta, { sourceLow: SRC, destinationLow: 0x3_0000, size: 64, flags });
    d[10] = DST;
    d[12] = 100;
    expect(m.execute(d)).toMatchObject({ status: 'success', result: 0 });
  });

  test('a drain reads back the addresses whose flags are set, after what was before it', () => {
    const m = machine({ profile: gnrD });
    m.start({ pasid: 5 });
    const drain = (one: number, two: number, some: number) =>
      m.execute(m.descriptor(Opcode.drain, { sourceLow: one, destinationLow: two, flags: record | some }));
    expect(drain(SRC, DST, Flag.drainReadback1 | Flag.drainReadback2)).toMatchObject({ status: 'success' });
    m.absent.add(DST / 4096);
    expect(drain(DST, SRC, Flag.drainReadback1)).toMatchObject({ status: 'readbackFault', faultLow: DST });
    expect(drain(SRC, DST + 8, Flag.drainReadback1 | Flag.drainReadback2)).toMatchObject({ status: 'readbackFault', faultLow: DST + 8 });
    expect(drain(SRC, DST, Flag.drainReadback1)).toMatchObject({ status: 'success' });
    expect(drain(DST, DST, Flag.drainSuppressA | Flag.drainSuppressB)).toMatchObject({ status: 'success' });
  });
});

describe('traffic classes', () => {
  const profile = { ...gnrD, trafficClasses: 0b1 };
  const move = { sourceLow: SRC, destinationLow: DST, size: 8 };
  test.each([
    ['no selector: class A everywhere', 0, 'success'],
    ['the source by class B', Flag.trafficClass1, 'trafficClass'],
    ['the destination by class B', Flag.trafficClass2, 'trafficClass'],
    ['the record by class B', Flag.recordTrafficClass, 'trafficClass'],
  ] as const)('class B is not mapped to a virtual channel: %s', (_rule, flag, status) => {
    const m = machine({ profile, trafficClassB: 3 });
    m.start({});
    expect(m.execute(m.descriptor(Opcode.memmove, { ...move, flags: record | flag })).status).toBe(status);
    const mapped = machine({ profile, trafficClassB: 0 });
    mapped.start({});
    expect(mapped.execute(mapped.descriptor(Opcode.memmove, { ...move, flags: record | flag })).status).toBe('success');
  });
  test('class A is not mapped: only a descriptor that selects class B everywhere runs', () => {
    const m = machine({ profile: { ...gnrD, trafficClasses: 0b1000 }, trafficClassB: 3 });
    m.start({});
    const all = Flag.trafficClass1 | Flag.trafficClass2 | Flag.recordTrafficClass;
    expect(m.execute(m.descriptor(Opcode.memmove, { ...move, flags: record | all })).status).toBe('success');
    expect(m.execute(m.descriptor(Opcode.memmove, { ...move, flags: record | (all & ~Flag.trafficClass1) })).status).toBe('trafficClass');
    expect(m.execute(m.descriptor(Opcode.nop, { flags: record | Flag.recordTrafficClass })).status).toBe('success');
  });
});

describe('fill with a pattern of 16 bytes', () => {
  const fill = (m: ReturnType<typeof machine>, pattern: Uint8Array, at: number, size: number, flag: number) => {
    const words = new Uint32Array(pattern.slice().buffer);
    const d = m.descriptor(Opcode.fill, { sourceLow: words[0]!, sourceHigh: words[1]!, destinationLow: at, size, flags: record | flag });
    d[10] = words[2]!;
    d[11] = words[3]!;
    return m.execute(d);
  };
  test('repeats from the first byte, over pages, cut at the end', () => {
    const m = machine({ profile: gnrD });
    m.start({});
    fc.assert(
      fc.property(
        fc.nat(5000),
        fc.integer({ min: 1, max: 12_000 }),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        fc.nat(2),
        (d, size, pattern, uniform) => {
          if (uniform === 1) pattern.fill(pattern[0]!);
          if (uniform === 2) pattern.fill(pattern[0]!, 0, 8);
          m.bytes.fill(0xee, DST, DST + 0x5000);
          expect(fill(m, pattern, DST + d, size, Flag.fillLongPattern).status).toBe('success');
          const expected = new Uint8Array(0x5000).fill(0xee);
          for (let i = 0; i < size; i++) expected[d + i] = pattern[i % 16]!;
          expect(Buffer.compare(m.bytes.subarray(DST, DST + 0x5000), expected)).toBe(0);
        },
      ),
    );
  });
  test('the flag is the profile’s to name; without it the upper half is reserved, and DSA 1.0 has no such flag', () => {
    const pattern = Uint8Array.from({ length: 16 }, (_, i) => i);
    const other = machine({ profile: { ...gnrD, longPatternFlag: 1 << 20 } });
    other.start({});
    expect(fill(other, pattern, DST, 16, 1 << 20).status).toBe('success');
    expect([...other.bytes.subarray(DST, DST + 16)]).toEqual([...pattern]);
    expect(fill(other, pattern, DST, 16, Flag.fillLongPattern).status).toBe('invalidFlags');
    const one = machine();
    one.start({});
    expect([fill(one, pattern, DST, 16, Flag.fillLongPattern).status, fill(one, pattern, DST, 16, 0).status]).toEqual([
      'invalidFlags',
      'nonZeroReserved',
    ]);
  });
});

describe('translation fetch', () => {
  const fetch = (m: ReturnType<typeof machine>, size: number, stride: number, flags = record): Uint32Array => {
    const d = m.descriptor(Opcode.translationFetch, { sourceLow: SRC + 100, size, flags });
    TranslationFetchDescriptor.set.stride(d, 0, stride);
    return d;
  };
  test.each([
    ['every page', 4 * 4096, 0, 5],
    ['a stride of two pages', 8 * 4096, 8192, 4],
    ['a stride below a page asks for each page once', 4 * 4096, 64, 5],
    ['a region within a page', 8, 0, 1],
  ])('%s is asked for, no byte is read', (_rule, size, stride, requests) => {
    const m = machine({ profile: gnrD });
    m.start({});
    expect(m.execute(fetch(m, size, stride))).toMatchObject({ status: 'success', completed: size });
    // The last request is the record's.
    expect(m.seen.map((s) => s.access & DmaAccess.write)).toEqual([...Array(requests).fill(0), 1]);
    expect(m.device.traffic.bytesRead).toBe(0);
  });
  test('a page that is not there: partial, or brought in with block on fault', () => {
    const m = machine({ profile: gnrD });
    m.start({ pasid: 5, blockOnFault: true });
    m.absent.add(SRC / 4096 + 1).add(SRC / 4096 + 2);
    expect(m.execute(fetch(m, 3 * 4096, 0))).toMatchObject({ status: 'pageFault', completed: 4096 - 100, faultLow: SRC + 4096 });
    m.execute(fetch(m, 3 * 4096, 0, record | Flag.blockOnFault));
    for (let i = 0; i < 2; i++)
      for (const r of m.pageRequests.splice(0)) {
        m.absent.delete(r.page);
        m.device.pageResponse(5, r.group, 0);
        m.run();
      }
    expect([m.record().status, m.absent.size]).toEqual(['success', 0]);
  });
});

describe('cache flush', () => {
  test('reaches the whole region and changes no byte, whether the lines stay or go', () => {
    const m = machine();
    m.start({ pasid: 5 });
    m.bytes.fill(0x44, DST, DST + 0x3000);
    for (const flag of [0, Flag.cacheControl])
      expect(m.execute(m.descriptor(Opcode.cacheFlush, { destinationLow: DST + 10, size: 9000, flags: record | flag }))).toMatchObject({
        status: 'success',
        completed: 9000,
      });
    expect(m.bytes.subarray(DST, DST + 0x3000).every((b) => b === 0x44)).toBe(true);
    m.absent.add(DST / 4096 + 1);
    expect(m.execute(m.descriptor(Opcode.cacheFlush, { destinationLow: DST + 10, size: 9000 }))).toMatchObject({
      status: 'pageFault',
      completed: 4086,
    });
  });
  test('has no source', () => {
    const m = machine();
    m.start({});
    expect(m.execute(m.descriptor(Opcode.cacheFlush, { sourceLow: SRC, destinationLow: DST, size: 8 })).status).toBe('nonZeroReserved');
  });
});

test('a CRC seed that lies across two pages is read from both, and from nothing else', () => {
  const m = machine({ bytes: 0x1_0000 });
  m.start({ pasid: 5 });
  const crc = (at: number | undefined, seed: number) => {
    const d = m.descriptor(Opcode.crc, { sourceLow: 0x4000, size: 64, flags: record | (at === undefined ? 0 : Flag.crcSeedInMemory) });
    if (at === undefined) d[10] = seed;
    else d[12] = at;
    return m.execute(d);
  };
  m.bytes.set([0x12, 0x34, 0x56, 0x78], 0x6ffe);
  expect(crc(0x6ffe, 0).value).toBe(crc(undefined, 0x7856_3412).value);
  m.absent.add(7);
  expect(crc(0x6ffe, 0)).toMatchObject({ status: 'pageFault', faultLow: 0x7000, completed: 0 });
});
