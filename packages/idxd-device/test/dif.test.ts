import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { sprDsa } from '../src/index.js';
import { DIF_BLOCKS, DifDestination, DifFlag, DifRecord, DifSource, DifStatus, DifUpdateDescriptor, Flag, Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
const SRC = 0x1_0000;
const DST = 0x3_0000;
const ROOM = 0x1_0000;
type Machine = ReturnType<typeof machine>;
/** Every DIF operation's fields are among update's. */
type Fields = Partial<{ [K in keyof typeof DifUpdateDescriptor.set]: number }>;
const withDix = { ...sprDsa, operations: [...sprDsa.operations, Opcode.dixGenerate] };
const dif = (m: Machine, opcode: number, { flags, ...fields }: Fields): Uint32Array => {
  const d = m.descriptor(opcode, { sourceLow: SRC, flags: flags ?? record });
  if (opcode !== Opcode.difCheck) fields = { destinationLow: DST, ...fields };
  for (const [name, value] of Object.entries(fields)) if (name !== 'destinationFlags') DifUpdateDescriptor.set[name as keyof Fields](d, 0, value!);
  d[10]! |= (fields.destinationFlags ?? 0) << 8;
  return d;
};
const tags = (m: Machine) => DifRecord.json(m.words, m.RECORD / 4);

/** The guard bit by bit, from the polynomial; shares nothing with the table-driven one. */
const guardOf = (bytes: Uint8Array, difFlags: number): number => {
  let crc = difFlags & DifFlag.seedOnes ? 0xffff : 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let k = 0; k < 8; k++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x8bb7) & 0xffff : crc << 1;
  }
  return difFlags & DifFlag.invert ? crc ^ 0xffff : crc;
};
interface Tags {
  readonly difFlags: number;
  readonly app: number;
  readonly mask: number;
  readonly ref: number;
  readonly appStep: number;
  readonly refStep: number;
}
const field = (block: Uint8Array, t: Tags, index: number): Uint8Array => {
  const out = new DataView(new ArrayBuffer(8));
  out.setUint16(0, guardOf(block, t.difFlags));
  out.setUint16(2, (t.app + t.appStep * index) & 0xffff & ~t.mask);
  out.setUint32(4, (t.ref + t.refStep * index) % 2 ** 32);
  return new Uint8Array(out.buffer);
};
const protect = (data: Uint8Array, t: Tags): Uint8Array => {
  const size = DIF_BLOCKS[t.difFlags & 3]!;
  const blocks = Array.from({ length: data.length / size }, (_, i) => data.subarray(i * size, i * size + size));
  return Uint8Array.from(blocks.flatMap((b, i) => [...b, ...field(b, t, i)]));
};
const tagged = fc.record({
  difFlags: fc.nat(15),
  app: fc.nat(0xffff),
  mask: fc.oneof(fc.constant(0), fc.nat(0xffff)),
  ref: fc.oneof(fc.nat(0xffff_ffff), fc.constant(0xffff_ffff)),
  appStep: fc.nat(1),
  refStep: fc.nat(1),
});
const count = fc.integer({ min: 1, max: 5 });
const asSource = (t: Tags) => ({
  sourceFlags: (t.appStep ? DifSource.appTagIncrements : 0) | (t.refStep ? 0 : DifSource.refTagFixed),
  difFlags: t.difFlags,
  sourceRefTag: t.ref,
  sourceAppMask: t.mask,
  sourceAppTag: t.app,
});
const asDestination = (t: Tags) => ({
  destinationFlags: (t.appStep ? DifDestination.appTagIncrements : 0) | (t.refStep ? 0 : DifDestination.refTagFixed),
  difFlags: t.difFlags,
  destinationRefTag: t.ref,
  destinationAppMask: t.mask,
  destinationAppTag: t.app,
});
const next = (t: Tags, n: number, side: 'source' | 'destination') => ({
  [`${side}RefTag`]: (t.ref + t.refStep * n) % 2 ** 32,
  [`${side}AppMask`]: t.mask,
  [`${side}AppTag`]: (t.app + t.appStep * n) & 0xffff,
});
const random = (n: number, seed: number): Uint8Array => {
  let s = seed;
  return Uint8Array.from({ length: n }, () => (s = (Math.imul(s, 1664525) + 1013904223) | 0) >>> 24);
};
const equal = (m: Machine, at: number, bytes: Uint8Array): void =>
  expect(Buffer.compare(m.bytes.subarray(at, at + bytes.length), bytes), 'bytes in memory').toBe(0);

describe('DIF against its definition', () => {
  const m = machine({ profile: withDix });
  m.start({});

  test('insert, check, strip and DIX generate, in all block sizes and at any offset', () => {
    fc.assert(
      fc.property(tagged, count, fc.nat(5000), fc.nat(5000), fc.nat(), (t, n, s, d, seed) => {
        const block = DIF_BLOCKS[t.difFlags & 3]!;
        const data = random(n * block, seed);
        const whole = protect(data, t);
        m.bytes.set(data, SRC + s);
        m.bytes.fill(0xee, DST, DST + ROOM);
        const at = { sourceLow: SRC + s, destinationLow: DST + d };
        m.execute(dif(m, Opcode.difInsert, { ...at, size: data.length, ...asDestination(t) }));
        expect(tags(m)).toMatchObject({ status: 'success', difStatus: 0, completed: data.length, ...next(t, n, 'destination') });
        equal(m, DST + d, whole);
        equal(m, DST + d + whole.length, new Uint8Array(64).fill(0xee));

        m.bytes.fill(0xee, DST, DST + ROOM);
        m.execute(dif(m, Opcode.dixGenerate, { ...at, size: data.length, ...asDestination(t) }));
        expect(tags(m)).toMatchObject({ status: 'success', completed: data.length, ...next(t, n, 'destination') });
        const fields = Array.from({ length: n }, (_, i) => [...whole.subarray((i + 1) * (block + 8) - 8, (i + 1) * (block + 8))]).flat();
        equal(m, DST + d, Uint8Array.from([...fields, 0xee]));

        m.bytes.set(whole, SRC + s);
        m.execute(dif(m, Opcode.difCheck, { sourceLow: SRC + s, size: whole.length, ...asSource(t) }));
        expect(tags(m)).toMatchObject({ status: 'success', difStatus: 0, completed: whole.length, ...next(t, n, 'source') });

        m.bytes.fill(0xee, DST, DST + ROOM);
        m.execute(dif(m, Opcode.difStrip, { ...at, size: whole.length, ...asSource(t) }));
        expect(tags(m)).toMatchObject({ status: 'success', completed: whole.length, ...next(t, n, 'source') });
        equal(m, DST + d, Uint8Array.from([...data, 0xee]));
      }),
    );
  });

  test('update writes new tags, or passes the old ones through', () => {
    fc.assert(
      fc.property(tagged, tagged, fc.nat(7), count, fc.nat(5000), fc.nat(), (from, into, pass, n, s, seed) => {
        const to = { ...into, difFlags: from.difFlags };
        const block = DIF_BLOCKS[from.difFlags & 3]!;
        const data = random(n * block, seed);
        const old = protect(data, from);
        const expected = protect(data, to);
        for (let i = 0; i < n; i++) {
          const at = i * (block + 8) + block;
          if (pass & 1) expected.set(old.subarray(at, at + 2), at);
          if (pass & 2) expected.set(old.subarray(at + 2, at + 4), at + 2);
          if (pass & 4) expected.set(old.subarray(at + 4, at + 8), at + 4);
        }
        m.bytes.set(old, SRC + s);
        const destination = asDestination(to);
        const passes =
          (pass & 1 ? DifDestination.guardPass : 0) | (pass & 2 ? DifDestination.appTagPass : 0) | (pass & 4 ? DifDestination.refTagPass : 0);
        m.execute(
          dif(m, Opcode.difUpdate, {
            sourceLow: SRC + s,
            size: old.length,
            ...asSource(from),
            ...destination,
            destinationFlags: destination.destinationFlags | passes,
          }),
        );
        expect(tags(m)).toMatchObject({ status: 'success', completed: old.length, ...next(from, n, 'source'), ...next(to, n, 'destination') });
        equal(m, DST, expected);
      }),
    );
  });

  const plain: Tags = { difFlags: 0, app: 0x1234, mask: 0, ref: 77, appStep: 0, refStep: 1 };
  test('an error is reported with its kind, the block where it is, and the tags that the block should have had', () => {
    fc.assert(
      fc.property(
        tagged,
        fc.nat(3),
        fc.nat(519),
        fc.constantFrom(Opcode.difCheck, Opcode.difStrip, Opcode.difUpdate),
        fc.nat(),
        (t, bad, at, opcode, seed) => {
          const block = DIF_BLOCKS[t.difFlags & 3]!;
          const whole = protect(random(4 * block, seed), t);
          const place = at < 512 ? at : block + at - 512;
          whole[bad * (block + 8) + place]! ^= 0x5a;
          const wrongBits =
            at < 514 ? DifStatus.guard : at < 516 ? (0x5a & ~(at === 514 ? t.mask >> 8 : t.mask) ? DifStatus.appTag : 0) : DifStatus.refTag;
          m.bytes.set(whole, SRC);
          m.bytes.fill(0xee, DST, DST + ROOM);
          m.execute(dif(m, opcode, { size: whole.length, ...asSource(t) }));
          expect(tags(m)).toMatchObject(
            wrongBits
              ? { status: 'difError', difStatus: wrongBits, completed: bad * (block + 8), ...next(t, bad, 'source') }
              : { status: 'success', difStatus: 0 },
          );
          // The block with the error is not written.
          if (wrongBits)
            equal(m, DST + bad * (opcode === Opcode.difUpdate ? block + 8 : opcode === Opcode.difStrip ? block : 0), new Uint8Array(8).fill(0xee));
        },
      ),
    );
  });

  const all = { guard: 0xffff, app: 0xffff, ref: 0xffff_ffff };
  const S = DifSource;
  test.each([
    ['nothing detected: all three are wrong', 0, all, DifStatus.guard | DifStatus.appTag | DifStatus.refTag],
    ['application tag of ones: not checked', S.appTagDetect, { ...all, guard: 1, ref: 1 }, 0],
    ['application tag not all ones: checked', S.appTagDetect, { ...all, app: 0xfffe }, 7],
    ['application and reference tag of ones: not checked', S.appAndRefTagDetect, { ...all, guard: 1 }, 0],
    ['application tag alone of ones: checked', S.appAndRefTagDetect, { ...all, ref: 1 }, 7],
    ['all ones: not checked', S.allOnesDetect, all, 0],
    ['guard not all ones: checked', S.allOnesDetect, { ...all, guard: 1 }, 7],
    ['all ones is an error where it is asked to be', S.allOnesError | S.allOnesDetect, all, DifStatus.allOnes],
    ['guard off', S.guardDisable, { guard: 1, app: 0x1234, ref: 77 }, 0],
    ['reference tag off', S.refTagDisable | S.guardDisable, { guard: 1, app: 0x1234, ref: 1 }, 0],
    ['application tag is checked though', S.refTagDisable | S.guardDisable, { guard: 1, app: 0x1235, ref: 1 }, DifStatus.appTag],
  ] as const)('source flags: %s', (_rule, flags, { guard, app, ref }, status) => {
    const block = new DataView(new ArrayBuffer(520));
    block.setUint16(512, guard);
    block.setUint16(514, app);
    block.setUint32(516, ref);
    m.bytes.set(new Uint8Array(block.buffer), SRC);
    const d = dif(m, Opcode.difCheck, { size: 520, ...asSource(plain), sourceFlags: flags });
    m.execute(d);
    expect(tags(m)).toMatchObject({ status: status ? 'difError' : 'success', difStatus: status });
  });
});

describe('DIF: partial completion', () => {
  test('software continues behind the bytes completed with the tags of the record, and the whole is as if nothing had happened', () => {
    const opcodes = [Opcode.difCheck, Opcode.difInsert, Opcode.difStrip, Opcode.difUpdate, Opcode.dixGenerate] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...opcodes),
        tagged,
        fc.uniqueArray(fc.nat(9), { minLength: 1 }),
        fc.nat(),
        fc.boolean(),
        (opcode, t, pages, seed, block) => {
          const m = machine({ profile: withDix });
          m.start({ pasid: 5, blockOnFault: true });
          const bytes = DIF_BLOCKS[t.difFlags & 3]!;
          const n = Math.floor(18_000 / bytes);
          const data = random(n * bytes, seed);
          const whole = protect(data, t);
          const untagged = opcode === Opcode.difInsert || opcode === Opcode.dixGenerate;
          const source = untagged ? data : whole;
          const unit = bytes + (untagged ? 0 : 8);
          const to = {
            [Opcode.difCheck]: 0,
            [Opcode.difInsert]: bytes + 8,
            [Opcode.difStrip]: bytes,
            [Opcode.difUpdate]: bytes + 8,
            [Opcode.dixGenerate]: 8,
          }[opcode];
          const destination = (done: number): Fields => (to ? { destinationLow: DST + 100 + (done / unit) * to } : {});
          m.bytes.set(source, SRC + 100);
          for (const p of pages) m.absent.add((p < 5 ? SRC : DST - 5 * 4096) / 4096 + p);
          let seeds: Fields = untagged ? asDestination(t) : opcode === Opcode.difUpdate ? { ...asSource(t), ...asDestination(t) } : asSource(t);
          if (block) {
            m.submit(dif(m, opcode, { sourceLow: SRC + 100, ...destination(0), size: source.length, ...seeds, flags: record | Flag.blockOnFault }));
            m.run();
            for (let i = 0; i < 12; i++)
              for (const r of m.pageRequests.splice(0)) {
                m.absent.delete(r.page);
                m.device.pageResponse(5, r.group, 0);
                m.run();
              }
            expect(tags(m)).toMatchObject({ status: 'success', completed: source.length });
          } else {
            let done = 0;
            for (let i = 0; i < 12; i++) {
              m.execute(dif(m, opcode, { sourceLow: SRC + 100 + done, ...destination(done), size: source.length - done, ...seeds }));
              const { status, completed, faultLow, sourceRefTag, sourceAppTag, destinationRefTag, destinationAppTag } = tags(m) as Record<
                string,
                number
              >;
              done += completed!;
              if ((status as unknown) === 'success') break;
              expect(status).toBe('pageFault');
              expect([completed! % unit, m.absent.delete(faultLow! >>> 12)]).toEqual([0, true]);
              if (!untagged) seeds = { ...seeds, sourceRefTag: sourceRefTag!, sourceAppTag: sourceAppTag! };
              if (untagged || opcode === Opcode.difUpdate)
                seeds = { ...seeds, destinationRefTag: destinationRefTag!, destinationAppTag: destinationAppTag! };
            }
            expect(done).toBe(source.length);
          }
          if (opcode === Opcode.difStrip) equal(m, DST + 100, data);
          if (opcode === Opcode.difInsert || opcode === Opcode.difUpdate) equal(m, DST + 100, whole);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('DIF: rules of a descriptor', () => {
  test.each([
    ['check: a size that is not a multiple of block and field', Opcode.difCheck, { size: 512 }, 'transferSize'],
    ['insert: a size that is not a multiple of the block', Opcode.difInsert, { size: 520 }, 'transferSize'],
    ['insert: the block of 520 bytes', Opcode.difInsert, { size: 520, difFlags: 1 }, 'success'],
    ['strip: a size of blocks without fields', Opcode.difStrip, { size: 4096, difFlags: 2 }, 'transferSize'],
    ['update: a size of blocks without fields', Opcode.difUpdate, { size: 512 }, 'transferSize'],
    ['DIX generate: a size that is not a multiple of the block', Opcode.dixGenerate, { size: 8 }, 'transferSize'],
    ['insert: the longer destination reaches the source', Opcode.difInsert, { size: 1024, destinationLow: SRC - 1039 }, 'overlap'],
    ['insert: the longer destination ends at the source', Opcode.difInsert, { size: 1024, destinationLow: SRC - 1040 }, 'success'],
    ['update in place', Opcode.difUpdate, { size: 520, destinationLow: SRC }, 'overlap'],
    ['DIX generate into the source', Opcode.dixGenerate, { size: 512, destinationLow: SRC + 504 }, 'overlap'],
    ['insert: nothing to pass through', Opcode.difInsert, { size: 512, destinationFlags: DifDestination.guardPass }, 'nonZeroReserved'],
    ['update: a reserved destination flag', Opcode.difUpdate, { size: 520, destinationFlags: 1 }, 'nonZeroReserved'],
    ['check has no destination', Opcode.difCheck, { size: 520, destinationLow: DST }, 'nonZeroReserved'],
    ['check has no cache control', Opcode.difCheck, { size: 520, flags: record | Flag.cacheControl }, 'invalidFlags'],
  ] as const)('%s', (_rule, opcode, fields, status) => {
    const m = machine({ profile: withDix });
    m.start({});
    expect(m.execute(dif(m, opcode, fields)).status).toBe(status);
  });
});
