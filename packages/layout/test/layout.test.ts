import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  address,
  hex64,
  hi,
  join,
  join64,
  type Layout,
  layout,
  lo,
  oneOf,
  registerFile,
  ro,
  rw1c,
  variants,
  wordsFrom,
  wordsTo,
} from '../src/index.js';

/** Random non-overlapping fields of at most 32 bits that stay inside a word, as a layout of four words, with what each row says. */
const anyLayout = fc
  .array(fc.record({ word: fc.nat(3), base: fc.nat(31), width: fc.integer({ min: 1, max: 32 }), access: fc.constantFrom('rw', 'ro', 'rw1c') }), {
    minLength: 1,
    maxLength: 12,
  })
  .map((rows) => {
    const taken = new Set<number>();
    const fields: { name: string; word: number; base: number; width: number; access: 'rw' | 'ro' | 'rw1c' }[] = [];
    for (const { word, base, width, access } of rows) {
      const bits = Array.from({ length: Math.min(width, 32 - base) }, (_, i) => word * 32 + base + i);
      if (bits.some((b) => taken.has(b))) continue;
      for (const b of bits) taken.add(b);
      fields.push({ name: `f${fields.length}`, word, base, width: bits.length, access: access as 'rw' });
    }
    const table: Record<number, Record<string, { bits: `${number}:${number}`; access: 'rw' | 'ro' | 'rw1c' }>> = {};
    for (const f of fields) (table[f.word * 4] ??= {})[f.name] = { bits: `${f.base + f.width - 1}:${f.base}`, access: f.access };
    return { fields, made: layout('random', 16, table) as unknown as Layout<Record<number, Record<string, '0'>>> };
  });
const words4 = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((b) => new Uint32Array(b.slice().buffer));

describe('fields', () => {
  test('reading and writing a field equals the definition by bits, and touches nothing else', () => {
    fc.assert(
      fc.property(anyLayout, words4, fc.nat(0xffff_ffff), ({ fields, made }, words, value) => {
        const whole = (w: Uint32Array): bigint => w.reduce((all, word, i) => all | (BigInt(word) << BigInt(32 * i)), 0n);
        for (const f of fields) {
          const low = BigInt(f.word * 32 + f.base);
          const mask = (1n << BigInt(f.width)) - 1n;
          const before = whole(words);
          expect(BigInt((made.get as Record<string, (w: Uint32Array, at: number) => number>)[f.name]!(words, 0))).toBe((before >> low) & mask);
          (made.set as Record<string, (w: Uint32Array, at: number, v: number) => void>)[f.name]!(words, 0, value);
          expect(whole(words)).toBe((before & ~(mask << low)) | ((BigInt(value) & mask) << low));
        }
      }),
    );
  });

  test('every bit is writable, read-only, write-1-to-clear or reserved, and only one of them', () => {
    fc.assert(
      fc.property(anyLayout, ({ made }) => {
        for (let word = 0; word < 4; word++) {
          const { rw, ro: only, rw1c: clear, reserved } = made.masks;
          const kinds = [rw, only, clear, reserved].map((m) => BigInt(m[word]!));
          expect(kinds.reduce((a, b) => a + b)).toBe(0xffff_ffffn);
          expect(kinds.reduce((a, b) => a | b)).toBe(0xffff_ffffn);
        }
      }),
    );
  });

  test('an address field keeps its place and reads as bytes, across words', () => {
    const entry = layout('entry', 8, { 0: { present: '0', frame: address('51:12'), top: '63' } });
    fc.assert(
      fc.property(fc.nat(2 ** 40 - 1), fc.boolean(), (frame, top) => {
        const w = Uint32Array.of(1, top ? 0x8000_0000 : 0);
        entry.set.frame(w, 0, frame * 4096);
        expect([entry.get.frame(w, 0), entry.get.present(w, 0), entry.get.top(w, 0)]).toEqual([frame * 4096, 1, top ? 1 : 0]);
      }),
    );
  });

  test.each([
    ['two fields share a bit', () => layout('x', 4, { 0: { a: '3:0', b: '3' } }), /x\.b: bit 3/],
    ['a field outside the structure', () => layout('x', 4, { 0: { a: '32' } }), /outside 4 bytes/],
    ['a field twice', () => layout('x', 8, { 0: { a: '0' }, 4: { a: '0' } }), /x\.a/],
    ['a full 64-bit number', () => layout('x', 8, { 0: { a: '63:0' } }), /at most 53 bits/],
  ])('a table with %s is refused, by name', (_rule, make, message) => expect(make).toThrow(message));

  test('prints field names and named values, as text and as JSON', () => {
    const cfg = layout('CFG', 4, { 0: { mode: oneOf('0', { shared: 0, dedicated: 1 }), size: '15:4' } });
    const w = Uint32Array.of(0x1231);
    expect([cfg.show(w, 0), cfg.json(w, 0)]).toEqual(['CFG mode=dedicated size=0x123', { mode: 'dedicated', size: 0x123 }]);
  });

  test('variants choose the layout by a code', () => {
    const common = layout('any', 4, { 0: { code: '3:0' } });
    const two = layout('two', 4, { 0: { code: '3:0', extra: '31:16' } });
    const all = variants(common, common.get.code, { 2: two });
    expect([all.show(Uint32Array.of(1), 0), all.show(Uint32Array.of(0x70002), 0)]).toEqual(['any code=1', 'two code=2 extra=7']);
  });
});

describe('register files', () => {
  const status = layout('STATUS', 4, { 0: { error: rw1c('0'), busy: ro('1'), level: '15:8' } });
  const slot = layout('SLOT', 8, { 0: { low: '31:0' }, 4: { masked: '0' } });
  const make = () =>
    registerFile(0x100, {
      status: { offset: 0, layout: status, reset: [3] },
      slots: { offset: 0x40, layout: slot, count: 3, stride: 16, reset: [0, 1] },
    });

  test('a software write changes writable bits, clears write-1-to-clear bits that are written 1, and keeps the rest, at every width', () => {
    fc.assert(
      fc.property(
        fc.nat(0xffff_ffff),
        fc.nat(0xffff_ffff),
        fc.constantFrom([0, 4], [0, 2], [2, 2], [0, 1], [1, 1], [3, 1]),
        (old, value, [offset, width]) => {
          const file = make();
          file.words[0] = old;
          file.write(offset!, width!, value);
          const lanes = ((2 ** (8 * width!) - 1) * 2 ** (8 * offset!)) >>> 0;
          const written = ((value * 2 ** (8 * offset!)) % 2 ** 32) >>> 0;
          const { rw, rw1c: clear } = status.masks;
          const writable = BigInt(rw[0]! & lanes) & 0xffff_ffffn;
          const cleared = BigInt((clear[0]! & lanes & written) >>> 0);
          expect(BigInt(file.words[0]!)).toBe(((BigInt(old) & ~writable) | (BigInt(written) & writable)) & ~cleared & 0xffff_ffffn);
        },
      ),
    );
  });
  test('arrays have a stride; between their elements nothing is declared', () => {
    const file = make();
    file.write(0x50, 4, 0xdead_beef);
    expect([file.at('slots', 1), file.read(0x50, 4), file.read(0x52, 2), file.write(0x48, 4, 1), file.read(0x48, 4)]).toEqual([
      0x14,
      0xdead_beef,
      0xdead,
      undefined,
      0,
    ]);
  });
  test('reset restores every register; rows that overlap are refused', () => {
    const file = make();
    file.write(0x54, 4, 0);
    file.reset();
    expect([file.read(0, 4), file.read(0x54, 4)]).toEqual([3, 1]);
    expect(() => registerFile(8, { a: { offset: 0, layout: slot }, b: { offset: 4, layout: status } })).toThrow(/register b/);
  });
  test('legalize has the last word on what a register holds', () => {
    const file = registerFile(4, { r: { offset: 0, layout: status, legalize: (_old, written) => Math.min((written >>> 8) & 0xff, 4) << 8 } });
    file.write(0, 4, 0x0900);
    expect(file.read(0, 4)).toBe(0x0400);
  });
  test('prints by name, as text and as JSON', () => {
    const file = make();
    expect(file.show()[0]).toBe('status error=1 busy=1 level=0');
    expect(file.json()['slots[2]']).toEqual({ low: 0, masked: 1 });
  });
});

describe('words', () => {
  test('hi, lo and join are inverse below 2^53, and exact as bigint above', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (n) => {
        expect([join(hi(n), lo(n)), join64(hi(n), lo(n))]).toEqual([n, BigInt(n)]);
      }),
    );
    expect([join64(-1, -1), hex64(-1, 1)]).toEqual([2n ** 64n - 1n, '0xffffffff_00000001']);
  });
  test('structures at odd offsets come and go unchanged', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.nat(7), (data, offset) => {
        const buffer = new Uint8Array(64);
        buffer.set(data, offset);
        const out = new Uint8Array(64);
        wordsTo(wordsFrom(buffer, offset, data.length), 0, out, offset, data.length);
        expect(out.subarray(offset, offset + data.length)).toEqual(data);
      }),
    );
  });
});
