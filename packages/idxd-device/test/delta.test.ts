import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ApplyDeltaDescriptor, CreateDeltaDescriptor, Flag, Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
const ONE = 0x1_0000;
const TWO = 0x2_0000;
const DELTA = 0x3_0000;
const COPY = 0x5_0000;
type Machine = ReturnType<typeof machine>;
type Fields<L extends { readonly set: object }> = Partial<{ [K in keyof L['set']]: number }>;

const creation = (m: Machine, fields: Fields<typeof CreateDeltaDescriptor>): Uint32Array => {
  const d = m.descriptor(Opcode.createDelta, { sourceLow: ONE, destinationLow: TWO, size: 4096 });
  const all = { deltaLow: DELTA, maxDeltaSize: 0x1_0000 - 6, expectedMask: 7, ...fields };
  for (const [name, value] of Object.entries(all)) CreateDeltaDescriptor.set[name as keyof typeof CreateDeltaDescriptor.set](d, 0, value);
  return d;
};
const application = (m: Machine, fields: Fields<typeof ApplyDeltaDescriptor>): Uint32Array => {
  const d = m.descriptor(Opcode.applyDelta, { sourceLow: DELTA, destinationLow: COPY, size: 4096 });
  const all = { deltaSize: 10, ...fields };
  for (const [name, value] of Object.entries(all)) ApplyDeltaDescriptor.set[name as keyof typeof ApplyDeltaDescriptor.set](d, 0, value);
  return d;
};
/** The record by its definition: which eight-byte units differ, and what source 2 has there. */
const delta = (one: Uint8Array, two: Uint8Array): number[] => {
  const out: number[] = [];
  for (let i = 0; i < one.length; i += 8)
    if (one.subarray(i, i + 8).some((byte, k) => byte !== two[i + k])) out.push((i >> 3) & 0xff, i >> 11, ...two.subarray(i, i + 8));
  return out;
};
/** Two operands of `units` eight-byte units that differ at some bytes. */
const operands = (m: Machine, units: number, changes: readonly number[], one = ONE, two = TWO): void => {
  for (let i = 0; i < units * 8; i++) m.bytes[one + i] = m.bytes[two + i] = (i * 37 + (i >> 9)) & 0xff;
  for (const at of changes) if (at < units * 8) m.bytes[two + at]! ^= 0x11;
};
const units = fc.integer({ min: 1, max: 2000 });
const changes = fc.uniqueArray(fc.nat(15_999), { maxLength: 700 });

describe('create delta record', () => {
  test('lists the units that differ, in order, with what source 2 has; applied to a copy of source 1 it makes source 2', () => {
    const m = machine();
    m.start({});
    fc.assert(
      fc.property(units, changes, fc.nat(3), fc.nat(511), (n, at, page, shift) => {
        const size = n * 8;
        const deltaLow = DELTA + page * 0x1000 + shift * 8;
        operands(m, n, at);
        const expected = delta(m.bytes.slice(ONE, ONE + size), m.bytes.slice(TWO, TWO + size));
        const guard = m.bytes[deltaLow + expected.length];
        expect(m.execute(creation(m, { size, deltaLow }))).toMatchObject({
          status: 'success',
          result: expected.length > 0 ? 1 : 0,
          completed: size,
          value: expected.length,
        });
        expect([...m.bytes.subarray(deltaLow, deltaLow + expected.length)]).toEqual(expected);
        expect(m.bytes[deltaLow + expected.length]).toBe(guard);
        if (expected.length === 0) return;
        m.bytes.copyWithin(COPY, ONE, ONE + size);
        expect(m.execute(application(m, { size, deltaLow, deltaSize: expected.length }))).toMatchObject({
          status: 'success',
          completed: expected.length,
        });
        expect(Buffer.compare(m.bytes.subarray(COPY, COPY + size), m.bytes.subarray(TWO, TWO + size))).toBe(0);
      }),
    );
  });

  test('result 2: what fits is written, the size says how much, and completed where it stopped', () => {
    const m = machine();
    m.start({});
    operands(
      m,
      64,
      Array.from({ length: 20 }, (_, i) => i * 16),
    );
    m.bytes[DELTA + 80] = 0xaa;
    expect(m.execute(creation(m, { size: 512, maxDeltaSize: 80 }))).toMatchObject({ status: 'success', result: 2, value: 80, completed: 128 });
    expect(m.bytes[DELTA + 80]).toBe(0xaa);
  });

  test('Check Result: a result whose bit the expected mask lacks is a false predicate', () => {
    const m = machine();
    m.start({});
    for (let mask = 0; mask < 8; mask++)
      for (const [result, many] of [0, 1, 20].entries()) {
        operands(
          m,
          64,
          Array.from({ length: many }, (_, i) => i * 16),
        );
        const d = creation(m, { size: 512, maxDeltaSize: 80, expectedMask: mask, flags: record | Flag.checkResult });
        expect(m.execute(d)).toMatchObject({ result, status: (mask >> result) & 1 ? 'success' : 'successFalsePredicate' });
      }
  });

  test('page faults: each part is a record of its own, applied to its own part of the destination', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(17), { minLength: 1, maxLength: 8 }), changes, (pages, at) => {
        const m = machine();
        m.start({ pasid: 5 });
        const size = 4 * 4096;
        operands(m, size / 8, at);
        // Four pages of either source, the rest of the record.
        for (const p of pages) m.absent.add((p < 4 ? ONE : p < 8 ? TWO - 4 * 4096 : DELTA - 8 * 4096) / 4096 + p);
        const parts: { from: number; deltaLow: number; deltaSize: number }[] = [];
        let from = 0;
        let deltaLow = DELTA;
        for (let tries = 0; from < size && tries < 40; tries++) {
          const r = m.execute(creation(m, { sourceLow: ONE + from, source2Low: TWO + from, size: size - from, deltaLow }));
          expect(r.status).toBe(from + (r.completed as number) === size ? 'success' : 'pageFault');
          const deltaSize = r.value as number;
          if (deltaSize > 0) parts.push({ from, deltaLow, deltaSize });
          from += r.completed as number;
          deltaLow += (deltaSize + 7) & ~7;
          if (r.status === 'pageFault') expect(m.absent.delete((r.faultLow as number) >>> 12)).toBe(true);
        }
        m.absent.clear();
        m.bytes.copyWithin(COPY, ONE, ONE + size);
        for (const p of parts)
          expect(
            m.execute(application(m, { size: size - p.from, destinationLow: COPY + p.from, deltaLow: p.deltaLow, deltaSize: p.deltaSize })).status,
          ).toBe('success');
        expect(Buffer.compare(m.bytes.subarray(COPY, COPY + size), m.bytes.subarray(TWO, TWO + size))).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test('with block-on-fault the device goes on by itself, and the record is whole', () => {
    const m = machine();
    m.start({ pasid: 5, blockOnFault: true });
    operands(
      m,
      1024,
      Array.from({ length: 900 }, (_, i) => i * 9),
    );
    const expected = delta(m.bytes.slice(ONE, ONE + 8192), m.bytes.slice(TWO, TWO + 8192));
    for (const p of [ONE, TWO + 4096, DELTA, DELTA + 4096]) m.absent.add(p >> 12);
    m.submit(creation(m, { size: 8192, flags: record | Flag.blockOnFault }));
    m.run();
    for (let i = 0; i < 10 && m.pageRequests.length > 0; i++)
      for (const r of m.pageRequests.splice(0)) {
        m.absent.delete(r.page);
        m.device.pageResponse(5, r.group, 0);
        m.run();
      }
    expect(m.record()).toMatchObject({ status: 'success', value: expected.length, completed: 8192 });
    expect([...m.bytes.subarray(DELTA, DELTA + expected.length)]).toEqual(expected);
  });

  test.each([80, 81, 85, 89, 90])('a largest record of %i bytes holds whole entries; what does not fit is an overflow', (maxDeltaSize) => {
    const m = machine();
    m.start({ pasid: 5 });
    operands(
      m,
      512,
      Array.from({ length: 9 }, (_, i) => i * 8),
    );
    const fits = maxDeltaSize >= 90;
    expect(m.execute(creation(m, { maxDeltaSize }))).toMatchObject({ status: 'success', result: fits ? 1 : 2, value: fits ? 90 : 80 });
  });

  test.each([
    ['a size that is not a multiple of 8', { size: 4 }, 'transferSize'],
    ['a size above 512 KiB', { size: 0x8_0008 }, 'transferSize'],
    ['a record smaller than 80 bytes', { maxDeltaSize: 70 }, 'deltaRecordSize'],
    ['a record of 79 bytes', { maxDeltaSize: 79 }, 'deltaRecordSize'],
    ['a source that is not aligned', { sourceLow: ONE + 4 }, 'alignment'],
    ['a second source that is not aligned', { source2Low: TWO + 1 }, 'alignment'],
    ['a record that is not aligned', { deltaLow: DELTA + 2 }, 'alignment'],
    ['a record over a source', { deltaLow: ONE + 4088 }, 'overlap'],
    ['a record over the second source', { deltaLow: TWO - 8 }, 'overlap'],
    ['a reserved bit of the expected mask', { reserved: 1 }, 'nonZeroReserved'],
  ] as const)('%s ends with %s', (_rule, { reserved, ...fields }: Fields<typeof CreateDeltaDescriptor> & { reserved?: number }, status) => {
    const m = machine();
    m.start({});
    const d = creation(m, fields);
    if (reserved) d[14]! |= 8;
    expect(m.execute(d).status).toBe(status);
  });
});

describe('apply delta record', () => {
  const entries = (m: Machine, offsets: readonly number[], at = DELTA): number => {
    for (const [i, offset] of offsets.entries()) m.bytes.set([offset & 0xff, offset >> 8, 1, 2, 3, 4, 5, 6, 7, i + 1], at + i * 10);
    return offsets.length * 10;
  };
  test.each([
    ['an offset that repeats', [1, 5, 5], 'deltaOffsetOrder', 20],
    ['an offset that goes back', [7, 3], 'deltaOffsetOrder', 10],
    ['an offset at the transfer size', [0, 512], 'deltaOffsetRange', 10],
    ['an offset far beyond', [0xffff], 'deltaOffsetRange', 0],
  ] as const)('%s ends with its status; what stands before it is applied', (_rule, offsets, status, completed) => {
    const m = machine();
    m.start({});
    m.bytes.fill(0xee, COPY, COPY + 0x9000);
    const expected = m.bytes.slice(COPY, COPY + 0x9000);
    for (let i = 0; i < completed / 10; i++) expected.set([1, 2, 3, 4, 5, 6, 7, i + 1], offsets[i]! * 8);
    expect(m.execute(application(m, { deltaSize: entries(m, offsets) }))).toMatchObject({ status, completed });
    expect(Buffer.compare(m.bytes.subarray(COPY, COPY + 0x9000), expected)).toBe(0);
  });
  test.each([
    ['a record size that is not a multiple of 10', { deltaSize: 15 }, 'deltaRecordSize'],
    ['an empty record', { deltaSize: 0 }, 'success'],
    ['a size that is not a multiple of 8', { size: 12 }, 'transferSize'],
    ['a record that is not aligned', { deltaLow: DELTA + 4 }, 'alignment'],
    ['a destination that is not aligned', { destinationLow: COPY + 4 }, 'alignment'],
    ['a record inside the destination', { deltaLow: COPY + 64 }, 'overlap'],
    ['a record whose end is in the destination', { deltaLow: COPY - 8 }, 'overlap'],
  ] as const)('%s ends with %s', (_rule, fields, status) => {
    const m = machine();
    m.start({});
    entries(m, [0]);
    expect(m.execute(application(m, fields)).status).toBe(status);
  });
  test('page faults: software continues at the record plus the bytes completed, which is aligned', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(7), { minLength: 1 }), fc.uniqueArray(fc.nat(2047), { minLength: 1, maxLength: 1600 }), (pages, some) => {
        const m = machine();
        m.start({ pasid: 5 });
        const offsets = some.sort((a, b) => a - b);
        const bytes = entries(m, offsets);
        for (const p of pages) m.absent.add((p < 4 ? DELTA : COPY - 4 * 4096) / 4096 + p);
        let from = 0;
        for (let tries = 0; tries < 20; tries++) {
          const r = m.execute(application(m, { size: 16_384, deltaLow: DELTA + from, deltaSize: bytes - from }));
          from += r.completed as number;
          if (r.status === 'success') break;
          expect(r.status).toBe('pageFault');
          expect(m.absent.delete((r.faultLow as number) >>> 12)).toBe(true);
        }
        expect(from).toBe(bytes);
        const expected = new Uint8Array(16_384);
        for (const [i, offset] of offsets.entries()) expected.set([1, 2, 3, 4, 5, 6, 7, i + 1], offset * 8);
        expect(Buffer.compare(m.bytes.subarray(COPY, COPY + 16_384), expected)).toBe(0);
      }),
      { numRuns: 50 },
    );
  });
});
