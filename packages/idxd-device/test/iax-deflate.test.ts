import { deflateRawSync, inflateRawSync, constants as zlib } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Deflate, Pause } from '../src/iax/deflate.js';
import { buildCodes, type Codes, codeLengths, dynamicHeader, fixedCodes, fixedHeader, lengthOf } from '../src/iax/huffman.js';
import { Halt, Inflate } from '../src/iax/inflate.js';
import { AnalyticsError } from '../src/spec/iax.js';
import { brokenStreams, separately } from './iax-streams.js';

/** Bytes with repetitions, as text and tables have them. */
const data = fc
  .array(
    fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 6 }), fc.integer({ min: 2, max: 400 })).map(([piece, times]) => {
        const out = new Uint8Array(piece.length * times);
        for (let i = 0; i < times; i++) out.set(piece, i * piece.length);
        return out;
      }),
    ),
    { maxLength: 12 },
  )
  .map((pieces) => {
    const repeated = [...pieces, ...pieces.slice(0, 3)];
    return Uint8Array.from(repeated.flatMap((piece) => [...piece]));
  });

const coder = new Deflate({ history: 4096 });
function pass(bytes: Uint8Array, pieces: readonly number[], out: number[]): void {
  for (let at = 0, k = 0; ; k++) {
    const n = Math.min(coder.limit - coder.end, bytes.length - at, pieces[k % pieces.length]!);
    coder.input.set(bytes.subarray(at, at + n), coder.end);
    coder.end += n;
    at += n;
    const pause = coder.run(at === bytes.length);
    out.push(...coder.output.subarray(0, coder.outputEnd));
    coder.outputEnd = 0;
    if (pause === Pause.done) return;
    expect(pause).not.toBe(Pause.noCode);
  }
}
/** One final block. */
function compress(bytes: Uint8Array, { dynamic = false, pieces = [1 << 20], block = 0, literalsOnly = false } = {}): Uint8Array {
  const out: number[] = [];
  coder.begin();
  coder.block = block;
  coder.literalsOnly = literalsOnly;
  if (dynamic) {
    coder.counting = true;
    pass(bytes, pieces, out);
    const codes: Codes = { literals: new Uint32Array(286), distances: new Uint32Array(30) };
    buildCodes(coder.literalCounts, coder.distanceCounts, codes);
    coder.rewind();
    dynamicHeader(codes, coder, true);
    coder.setCodes(codes.literals, codes.distances);
  } else {
    fixedHeader(coder, true);
    coder.setCodes(fixedCodes.literals, fixedCodes.distances);
  }
  pass(bytes, pieces, out);
  expect(coder.putEndOfBlock()).toBe(true);
  coder.align();
  return Uint8Array.from([...out, ...coder.output.subarray(0, coder.outputEnd)]);
}

describe('RFC 1951, compression: zlib inflates what was deflated', () => {
  test.each([
    ['fixed codes', false],
    ['codes of its own', true],
  ])('%s, input in any pieces', (_name, dynamic) => {
    fc.assert(
      fc.property(data, fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 5 }), (bytes, pieces) => {
        const out = compress(bytes, { dynamic, pieces });
        expect(Buffer.from(inflateRawSync(out)).equals(bytes)).toBe(true);
      }),
    );
  });
  test('matches reach back no further than the history, over more than its buffer', () => {
    const bytes = new Uint8Array(300_000);
    for (let i = 0; i < bytes.length; i++) bytes[i] = (i * i) >> ((i >> 14) % 7);
    for (const dynamic of [false, true])
      expect(Buffer.from(inflateRawSync(compress(bytes, { dynamic }), { windowBits: 12 })).equals(bytes)).toBe(true);
  });
  test('literals alone; blocks of their own need no byte before them', () => {
    fc.assert(
      fc.property(data, fc.constantFrom(512, 1024, 2048), (bytes, block) => {
        expect(Buffer.from(inflateRawSync(compress(bytes, { literalsOnly: true }))).equals(bytes)).toBe(true);
        expect(Buffer.from(inflateRawSync(compress(bytes, { block }))).equals(bytes)).toBe(true);
      }),
    );
    // What repeats only across the border of two blocks is not found.
    const once = Uint8Array.from({ length: 512 }, (_, i) => ((i * i * 31) >> 3) ^ (i * 97));
    const twice = Uint8Array.from([...once, ...once]);
    expect(compress(twice, { block: 512 }).length).toBeGreaterThan(1.8 * compress(once).length);
    expect(compress(twice).length).toBeLessThan(1.1 * compress(once).length);
  });
  test('a symbol without a code stops it', () => {
    coder.begin();
    coder.setCodes(new Uint32Array(286), new Uint32Array(30));
    coder.input.set([1, 2, 3]);
    coder.end = 3;
    expect(coder.run(true)).toBe(Pause.noCode);
    expect(coder.putEndOfBlock()).toBe(false);
  });
  test('codes have the least total length that their limit allows', () => {
    // Counts that double make a code as deep as there are symbols; the limit holds, and the code stays complete.
    const counts = Array.from({ length: 20 }, (_, i) => 2 ** i);
    for (const limit of [5, 7, 15, 19]) {
      const lengths = new Uint8Array(20);
      codeLengths(counts, limit, lengths);
      expect(Math.max(...lengths)).toBe(Math.min(limit, 19));
      expect([...lengths].reduce((sum, n) => sum + 2 ** -n, 0)).toBe(1);
    }
  });
  test('code lengths are optimal where the limit does not bind: as long as those of Huffman, and complete', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.nat(3), fc.nat(100_000)), { minLength: 2, maxLength: 286 }), fc.constantFrom(9, 12, 15), (counts, limit) => {
        const lengths = new Uint8Array(counts.length);
        codeLengths(counts, limit, lengths);
        const used = counts.filter((n) => n > 0);
        expect([...lengths].reduce((sum, n) => sum + (n > 0 ? 2 ** -n : 0), 0)).toBe(1);
        expect(Math.max(...lengths)).toBeLessThanOrEqual(limit);
        expect(counts.every((n, i) => n === 0 || lengths[i]! > 0)).toBe(true);
        const bits = (n: readonly number[]): number => n.reduce((sum, count, i) => sum + count * lengths[i]!, 0);
        // Huffman: each merge of the two rarest costs a bit for all that is in them.
        let [huffman, deepest] = [0, 0];
        const trees = used.map((weight) => ({ weight, depth: 0 }));
        while (trees.length > 1) {
          trees.sort((x, y) => x.weight - y.weight || x.depth - y.depth);
          const [a, b] = trees.splice(0, 2) as [(typeof trees)[0], (typeof trees)[0]];
          trees.push({ weight: a.weight + b.weight, depth: 1 + Math.max(a.depth, b.depth) });
          huffman += a.weight + b.weight;
          deepest = Math.max(deepest, 1 + Math.max(a.depth, b.depth));
        }
        if (used.length < 2) return;
        if (deepest <= limit) expect(bits(counts)).toBe(huffman);
        else expect(bits(counts)).toBeGreaterThanOrEqual(huffman);
      }),
      { numRuns: 300 },
    );
  });
  test('the fixed codes', () => {
    expect([...fixedCodes.literals].map(lengthOf)).toEqual(Array.from({ length: 286 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)));
  });
});

const decoder = new Inflate({ history: 32768 });
/** Inflates with the input given in `pieces` and the output taken in rooms. */
function inflate(stream: Uint8Array, pieces: readonly number[], rooms: readonly number[]): Uint8Array {
  const out = new Uint8Array(1 << 20);
  decoder.begin();
  let end = 0;
  let to = 0;
  for (let k = 0; ; k++) {
    end = Math.min(stream.length, end + pieces[k % pieces.length]!);
    // What lies behind the piece is none of the stream's.
    const input = new Uint8Array(end + 16).fill(0xa5);
    input.set(stream.subarray(0, end));
    const halt = decoder.run(input, end, 0, out, to, Math.min(out.length, to + rooms[k % rooms.length]!), to);
    to = decoder.out;
    if (halt === Halt.error) throw new Error(`error ${decoder.error}`);
    if (halt === Halt.endOfBlock && decoder.final) return out.slice(0, to);
    if (halt === Halt.input && end === stream.length) throw new Error('the stream ended early');
  }
}
const pieceSizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 5 });

describe('RFC 1951, decompression: what zlib deflated is inflated', () => {
  test.each([
    ['codes of its own', { level: 9 }],
    ['fixed codes', { level: 6, strategy: zlib.Z_FIXED }],
    ['stored blocks', { level: 0 }],
    ['no matches', { strategy: zlib.Z_HUFFMAN_ONLY }],
    ['runs', { strategy: zlib.Z_RLE }],
    ['many blocks', { level: 1, memLevel: 1 }],
  ])('%s, stopping at any byte of the input and any limit of the output', (_name, options) => {
    fc.assert(
      fc.property(data, pieceSizes, pieceSizes, (bytes, pieces, rooms) => {
        expect(Buffer.from(inflate(deflateRawSync(bytes, options), pieces, rooms)).equals(bytes)).toBe(true);
      }),
    );
  });
  test('byte for byte, in and out', () => {
    const bytes = Uint8Array.from({ length: 3000 }, (_, i) => (i % 7) * (i % 11));
    expect(Buffer.from(inflate(deflateRawSync(bytes), [1], [1])).equals(bytes)).toBe(true);
  });
  test('any bytes: an answer as zlib gives one, and nothing beyond the limit', () => {
    const guard = new Uint8Array(4096 + 64);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        decoder.begin();
        guard.fill(0x5a);
        let halt: number = Halt.endOfBlock;
        let to = 0;
        const input = new Uint8Array(noise.length + 16);
        input.set(noise);
        while (halt === Halt.endOfBlock && !decoder.final) {
          halt = decoder.run(input, noise.length, 0, guard, to, 4096, to);
          to = decoder.out;
        }
        expect(guard.subarray(4096).every((byte) => byte === 0x5a)).toBe(true);
        let right: Buffer | undefined;
        try {
          right = inflateRawSync(noise);
        } catch {}
        if (right && right.length <= 4096) {
          expect(halt).toBe(Halt.endOfBlock);
          expect(right.equals(guard.subarray(0, to))).toBe(true);
        }
      }),
      { numRuns: 5000 },
    );
  });
  test('a stream with wrong bits: what zlib refuses is refused, but for codes that are incomplete, which are taken until one of the missing is met', () => {
    const out = new Uint8Array(1 << 17);
    let [refused, taken] = [0, 0];
    const options = fc.record({
      level: fc.integer({ min: 1, max: 9 }),
      windowBits: fc.integer({ min: 9, max: 15 }),
      memLevel: fc.integer({ min: 1, max: 9 }),
    });
    const places = fc.array(fc.tuple(fc.nat(), fc.nat(7)), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(data, options, places, (bytes, how, flips) => {
        const stream = deflateRawSync(bytes, how);
        for (const [at, bit] of flips) stream[at % stream.length]! ^= 1 << bit;
        let why = '';
        let right: Buffer | undefined;
        try {
          right = inflateRawSync(stream, { maxOutputLength: out.length });
        } catch (error) {
          why = (error as Error).message;
        }
        const input = new Uint8Array(stream.length + 16).fill(0xa5);
        input.set(stream);
        decoder.begin();
        let halt: number = Halt.endOfBlock;
        let to = 0;
        while (halt === Halt.endOfBlock && !(decoder.final && decoder.ended)) {
          halt = decoder.run(input, stream.length, 0, out, to, out.length, to);
          to = decoder.out;
        }
        const whole = halt === Halt.endOfBlock;
        if (right) expect(whole && right.equals(out.subarray(0, to))).toBe(true);
        else if (whole) expect(why).toMatch(/invalid (literal\/lengths|distances|code lengths) set/);
        if (!right && whole) taken++;
        else if (!right) refused++;
      }),
      { numRuns: 3000 },
    );
    expect(refused).toBeGreaterThan(100);
    expect(taken).toBeLessThan(refused);
  });
  test("bits at the end that are not the stream's are ignored", () => {
    const bytes = new TextEncoder().encode('ignored bits');
    coder.begin();
    fixedHeader(coder, true);
    coder.setCodes(fixedCodes.literals, fixedCodes.distances);
    pass(bytes, [99], []);
    // No end of a block: what follows the last code is padding.
    const { partialBits } = coder;
    const stream = compress(bytes, {});
    decoder.begin();
    const out = new Uint8Array(100);
    expect(decoder.run(stream, stream.length, 0, out, 0, 100, 0)).toBe(Halt.endOfBlock);
    const cut = partialBits === 0 ? stream.length - 1 : stream.length;
    decoder.begin();
    // With the seven bits of the end's code and the padding ignored, the block does not end.
    expect(decoder.run(stream, cut, 8, out, 0, 100, 0)).toBe(Halt.input);
  });
});

describe('errors of streams, each as the device names it', () => {
  test.each(brokenStreams)('%s', (_name, error, stream) => {
    decoder.begin();
    const input = new Uint8Array(stream.length + 32);
    input.set(stream);
    expect(decoder.run(input, input.length, 0, new Uint8Array(100), 0, 100, 0)).toBe(Halt.error);
    expect(decoder.error).toBe(error);
  });
  test.each(separately)('where the lengths of literals and of distances are two sequences: %s', (_name, error, stream) => {
    const input = new Uint8Array(stream.length + 32);
    input.set(stream);
    const answer = (separateLengths: boolean) => {
      const inflate = new Inflate({ history: 4096, separateLengths });
      inflate.begin();
      inflate.run(input, input.length, 0, new Uint8Array(100), 0, 100, 0);
      return inflate.error;
    };
    expect(answer(true)).toBe(error);
    // RFC 1951, 3.2.7: one run may cover both.
    expect(answer(false)).not.toBe(error);
  });
  test('a distance before the start, and one beyond the history', () => {
    const text = Uint8Array.from({ length: 10_000 }, (_, i) => (i < 5000 ? (i * 7919) >> 3 : 0));
    text.copyWithin(9000, 0, 500);
    const stream = deflateRawSync(text, { level: 9 });
    const near = new Inflate({ history: 4096 });
    const input = new Uint8Array(stream.length + 16);
    input.set(stream);
    expect(near.run(input, stream.length, 0, new Uint8Array(20_000), 0, 20_000, 0)).toBe(Halt.error);
    expect(near.error).toBe(AnalyticsError.distanceRange);
    const dictionary = Buffer.from('what came before the stream');
    const after = deflateRawSync(dictionary, { dictionary });
    decoder.begin();
    const padded = new Uint8Array(after.length + 16);
    padded.set(after);
    expect(decoder.run(padded, after.length, 0, new Uint8Array(100), 0, 100, 0)).toBe(Halt.error);
    expect(decoder.error).toBe(AnalyticsError.beforeStart);
  });
});
