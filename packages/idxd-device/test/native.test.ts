import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32c, type Native } from '../src/index.js';
import { Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

/** Native code in place of the package's own, and how often it was asked. */
function counted() {
  const calls = { crc32c: 0, equal: 0 };
  const native: Native = {
    crc32c(crc, view, words, offset, length) {
      calls.crc32c++;
      return crc32c(crc, view, words, offset, length);
    },
    equal(a, from, b, to, length) {
      calls.equal++;
      return Buffer.compare(a.subarray(from, from + length), b.subarray(to, to + length)) === 0;
    },
  };
  return { calls, native };
}

describe('native code, where it is given', () => {
  test('does CRCs and comparisons, with the records that the own code gives', () => {
    const sizes = fc.integer({ min: 1, max: 20_000 });
    const offsets = fc.integer({ min: 0, max: 64 });
    fc.assert(
      fc.property(sizes, offsets, offsets, fc.option(fc.nat(20_000)), (size, from, to, broken) => {
        const { calls, native } = counted();
        const records = [machine(), machine({ native })].map((m) => {
          m.start({});
          for (let i = 0; i < size; i++) m.bytes[0x1_0000 + from + i] = m.bytes[0x2_0000 + to + i] = (i * 11 + (i >>> 7)) & 0xff;
          if (broken !== null) m.bytes[0x2_0000 + to + (broken % size)]! ^= 1;
          return [Opcode.crc, Opcode.compare].map((opcode) =>
            m.execute(
              m.descriptor(opcode, { sourceLow: 0x1_0000 + from, ...(opcode === Opcode.compare ? { destinationLow: 0x2_0000 + to } : {}), size }),
            ),
          );
        });
        expect(records[1]).toEqual(records[0]);
        expect(records[0]![1]).toMatchObject({ result: broken === null ? 0 : 1 });
        expect(calls.crc32c).toBeGreaterThan(0);
        if (size >= 8192 && broken === null) expect(calls.equal).toBeGreaterThan(0);
      }),
      { numRuns: 60 },
    );
  });
  test('a pattern is found to differ at its first byte that does, wherever the operand begins', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 0, max: 16 }), fc.option(fc.nat(9000)), (size, from, broken) => {
        const m = machine();
        m.start({});
        for (let i = 0; i < size; i++) m.bytes[0x1_0000 + from + i] = 0x10 + (i & 7);
        if (broken !== null) m.bytes[0x1_0000 + from + (broken % size)]! ^= 0x80;
        const d = m.descriptor(Opcode.comparePattern, { sourceLow: 0x1_0000 + from, size });
        d[6] = 0x1312_1110;
        d[7] = 0x1716_1514;
        expect(m.execute(d)).toMatchObject(broken === null ? { result: 0, completed: size } : { result: 1, completed: broken % size });
      }),
      { numRuns: 100 },
    );
  });
});
