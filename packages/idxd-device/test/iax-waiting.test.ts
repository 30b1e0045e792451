/** Memory that answers later, as behind a socket: every read is put off, and each operation goes on where it was. */
import { deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { iax2 } from '../src/iax/index.js';
import {
  COMPRESS_AECS_BYTES,
  CompressFlag,
  DECOMPRESS_AECS_BYTES,
  DecompressFlag,
  EndProcessing,
  FilterAecs,
  HeaderGeneration,
  IaxFlag,
  IaxOpcode,
} from '../src/spec/index.js';
import { AECS, DST, iaxMachine, SRC } from './iax-machine.js';

type M = ReturnType<typeof iaxMachine>;
type Fields = Parameters<M['build']>[1];
const stop = DecompressFlag.enable | DecompressFlag.flushOutput | DecompressFlag.stopOnEndOfBlock | DecompressFlag.selectFinal;
const end = CompressFlag.flushOutput | (EndProcessing.endOfBlock << CompressFlag.endShift);
const own = end | ((HeaderGeneration.enable | HeaderGeneration.final) << CompressFlag.headerShift);
const deflated = (plain: Uint8Array): Uint8Array => deflateRawSync(plain, { windowBits: 12 });
const state = { source2Low: AECS, source2Size: DECOMPRESS_AECS_BYTES };
const codes = { flags: IaxFlag.readAecs | IaxFlag.writeAecs, source2Low: AECS, source2Size: COMPRESS_AECS_BYTES };
const bytes = { filterFlags: 7 << 2 };
const two = (n: number): Fields => ({ flags: IaxFlag.readSource2, source2Low: AECS, source2Size: Math.ceil(n / 8), elements: n, ...bytes });
const one = (n: number): Fields => ({ flags: IaxFlag.readAecs, source2Low: AECS, source2Size: 32, elements: n, ...bytes });

/** What stands in source 1, and what the descriptor has besides. */
type Case = readonly [name: string, opcode: number, source: (plain: Uint8Array) => Uint8Array, fields: (n: number) => Fields];
const same = (plain: Uint8Array): Uint8Array => plain;
const cases: readonly Case[] = [
  ['memmove', IaxOpcode.memmove, same, () => ({ maxDestinationSize: 0 })],
  ['compress', IaxOpcode.compress, same, () => ({ ...codes, decompressFlags: end })],
  ['compress that leaves bits in AECS', IaxOpcode.compress, same, () => ({ ...codes, decompressFlags: 0 })],
  ['compress with codes of its own', IaxOpcode.compress, same, () => ({ decompressFlags: own })],
  ['decompress', IaxOpcode.decompress, deflated, () => ({ decompressFlags: stop })],
  [
    'decompress that does not fit',
    IaxOpcode.decompress,
    deflated,
    (n) => ({ ...state, flags: IaxFlag.writeAecs, decompressFlags: stop, maxDestinationSize: Math.ceil(n / 2) }),
  ],
  ['CRC-64', IaxOpcode.crc64, same, () => ({ filterFlags: 0xa9ea_3693, elements: 0x42f0_e1eb, destinationLow: 0, maxDestinationSize: 0 })],
  ['zero compression', IaxOpcode.zeroCompress8, same, () => ({})],
  ['scan', IaxOpcode.scan, same, one],
  ['scan of a compressed source', IaxOpcode.scan, deflated, (n) => ({ elements: n, ...bytes, decompressFlags: stop })],
  ['select', IaxOpcode.select, same, two],
  ['expand', IaxOpcode.expand, same, two],
  ['RLE burst', IaxOpcode.rleBurst, same, two],
  ['set membership', IaxOpcode.setMembership, same, (n) => ({ ...two(n), source2Size: 32 })],
  ['find unique', IaxOpcode.findUnique, same, (n) => ({ elements: n, ...bytes })],
];
const data = fc.uint8Array({ minLength: 1, maxLength: 9000 }).map((noise) => noise.map((x, i) => (i & 64 ? x & 7 : 97 + (i % 11))));

test.each(cases)('%s', (_name, opcode, source, fields) => {
  const run = (puttingOff: boolean, plain: Uint8Array) => {
    const m = iaxMachine({ profile: iax2, puttingOff });
    m.compressAecs(AECS, 0b011, 3);
    if (opcode >= IaxOpcode.scan) {
      m.bytes.fill(0x6d, AECS, AECS + 8192);
      FilterAecs.set.low(m.words, AECS / 4, 3);
      FilterAecs.set.high(m.words, AECS / 4, 100);
    }
    const from = source(plain);
    m.put(SRC, from);
    const common = { source1Low: SRC, source1Size: from.length, destinationLow: DST, maxDestinationSize: 1 << 16 };
    const record = m.execute(m.build(opcode, { ...common, ...fields(plain.length) }));
    return { record, memory: m.bytes, requests: m.seen.length };
  };
  const statuses = new Set<unknown>();
  fc.assert(
    fc.property(data, (plain) => {
      const [now, later] = [run(false, plain), run(true, plain)];
      expect(later.record).toEqual(now.record);
      expect(Buffer.compare(later.memory, now.memory)).toBe(0);
      expect(later.requests).toBeGreaterThan(now.requests);
      statuses.add(now.record.status);
    }),
    { numRuns: 12 },
  );
  expect([...statuses]).toContain(_name.includes('not fit') ? 'outputOverflow' : 'success');
});
