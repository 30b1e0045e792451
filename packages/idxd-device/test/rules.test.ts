/**
 * Random descriptors, valid or with one field broken: the record is the one that the table of rules says. The table is written from the
 * specification ("Descriptors", "Completion Status Codes"), not from the device's own.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gnrD, type Profile, sprDsa } from '../src/index.js';
import { Flag, Opcode, Record, type Status } from '../src/spec/index.js';
import { machine } from './machine.js';

const MIB = 1 << 20;
/** Where operands are drawn from: parts of their own, so that nothing overlaps unless the rule is about that. */
const A = 0x1_0000;
const B = 0x4_0000;
const C = 0x7_0000;
const ROOM = 0x2_0000;
const MAX_SHIFT = 14;
const HANDLE = 3;

type Words = Uint32Array;
type Kind = 'fence' | 'bof' | 'cc' | 'so' | 'readback' | 'dst' | 'cr' | 't1' | 't2' | 't3';
const bits: Readonly<Record<Kind, number>> = {
  fence: Flag.fence,
  bof: Flag.blockOnFault,
  cc: Flag.cacheControl,
  so: Flag.strictOrdering,
  readback: Flag.destinationReadback,
  dst: Flag.destinationSteeringTag,
  cr: Flag.checkResult,
  t1: Flag.trafficClass1,
  t2: Flag.trafficClass2,
  t3: Flag.trafficClass3,
};
const everywhere = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt | Flag.recordSteeringTag | Flag.recordTrafficClass;
const writes: readonly Kind[] = ['fence', 'bof', 'cc', 't2', 'so', 'readback', 'dst'];
const moves: readonly Kind[] = [...writes, 't1'];

interface Rule {
  readonly opcode: number;
  readonly flags: readonly Kind[];
  /** Bits of word 1 above 15 that are the operation's own. */
  readonly own?: number;
  /** Words that may be anything else than 0, beside PASID, flags, record address and handle. */
  readonly used: readonly number[];
  readonly sized: boolean;
  /** Fills in legal operands. */
  make(d: Words, n: number, at: number): void;
  /** How else it can be broken, and what that is. */
  readonly broken?: readonly (readonly [status: keyof typeof Status, spoil: (d: Words) => void])[];
  readonly since?: Profile;
}
const size = (d: Words, n: number): void => void (d[8] = n);
const source = (d: Words, at: number): void => void (d[4] = A + at);
const target = (d: Words, at: number): void => void (d[6] = B + at);
const blocks = (d: Words, unit: number): void => void (d[8] = Math.max(unit, Math.floor(d[8]! / unit) * unit));
const overlap: readonly [keyof typeof Status, (d: Words) => void] = ['overlap', (d) => void (d[6] = d[4]! + d[8]! - 1)];
/** Units of eight bytes for delta records. */
const eight = (d: Words, n: number, at: number): void => {
  d[8] = Math.max(8, n & ~7);
  d[4] = A + (at & ~7);
  d[6] = B + (at & ~7);
};

const rules: Readonly<Record<string, Rule>> = {
  nop: { opcode: Opcode.nop, flags: ['fence'], used: [], sized: false, make() {} },
  drain: { opcode: Opcode.drain, flags: ['t1', 't2'], used: [4, 5, 6, 7], sized: false, make() {} },
  memmove: {
    opcode: Opcode.memmove,
    flags: moves,
    used: [4, 5, 6, 7, 8],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      size(d, n);
    },
  },
  fill: {
    opcode: Opcode.fill,
    flags: writes,
    used: [4, 5, 6, 7, 8],
    sized: true,
    make(d, n, at) {
      d[4] = n * 0x0101_0101;
      d[5] = ~d[4]!;
      target(d, at);
      size(d, n);
    },
  },
  compare: {
    opcode: Opcode.compare,
    flags: ['fence', 'bof', 'cr', 't1', 't2'],
    used: [4, 5, 6, 7, 8],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      size(d, n);
    },
  },
  'compare pattern': {
    opcode: Opcode.comparePattern,
    flags: ['fence', 'bof', 'cr', 't1'],
    used: [4, 5, 6, 7, 8],
    sized: true,
    make(d, n, at) {
      source(d, at);
      size(d, n);
    },
  },
  'create delta': {
    opcode: Opcode.createDelta,
    flags: [...moves, 'cr', 't3'],
    used: [4, 5, 6, 7, 8, 10, 11, 12],
    sized: true,
    make(d, n, at) {
      eight(d, n, at);
      d[10] = C;
      d[12] = 30_000;
      d[14] = 7;
    },
    broken: [
      ['alignment', (d) => void (d[4] = d[4]! + 4)],
      ['alignment', (d) => void (d[10] = d[10]! + 4)],
      ['transferSize', (d) => void (d[8] = d[8]! - 4)],
      ['deltaRecordSize', (d) => void (d[12] = 70)],
      ['deltaRecordSize', (d) => void (d[12] = 79)],
      ['overlap', (d) => void (d[10] = d[4]!)],
    ],
  },
  'apply delta': {
    opcode: Opcode.applyDelta,
    flags: moves,
    used: [4, 5, 6, 7, 8, 10],
    sized: true,
    make(d, n, at) {
      eight(d, n, at);
      d[10] = 10;
    },
    broken: [
      ['alignment', (d) => void (d[6] = d[6]! + 4)],
      ['deltaRecordSize', (d) => void (d[10] = 15)],
      ['transferSize', (d) => void (d[8] = d[8]! + 4)],
      ['overlap', (d) => void (d[4] = d[6]!)],
    ],
  },
  dualcast: {
    opcode: Opcode.dualcast,
    flags: [...moves, 't3'],
    own: 1 << 16,
    used: [4, 5, 6, 7, 8, 10, 11],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      d[10] = C + at;
      size(d, n);
    },
    broken: [
      ['dualcastAlignment', (d) => void (d[10] = d[10]! ^ 0x800)],
      ['overlap', (d) => void (d[6] = d[4]!)],
    ],
  },
  crc: {
    opcode: Opcode.crc,
    flags: ['fence', 'bof', 't1', 't3'],
    own: (1 << 16) | (1 << 17) | (1 << 18),
    used: [4, 5, 6, 7, 8, 10, 12, 13],
    sized: true,
    make(d, n, at) {
      source(d, at);
      size(d, n);
      d[12] = C;
    },
  },
  'copy with CRC': {
    opcode: Opcode.copyCrc,
    flags: [...moves, 't3'],
    own: (1 << 16) | (1 << 17) | (1 << 18),
    used: [4, 5, 6, 7, 8, 10, 12, 13],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      size(d, n);
      d[12] = C;
    },
    broken: [overlap],
  },
  'DIF insert': {
    opcode: Opcode.difInsert,
    flags: moves,
    used: [4, 5, 6, 7, 8, 14, 15],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      size(d, n);
      blocks(d, 512);
    },
    broken: [['transferSize', (d) => void (d[8] = d[8]! + 8)], overlap],
  },
  'DIF strip': {
    opcode: Opcode.difStrip,
    flags: moves,
    used: [4, 5, 6, 7, 8, 12, 13],
    sized: true,
    make(d, n, at) {
      source(d, at);
      target(d, at);
      size(d, n);
      blocks(d, 520);
      // Nothing is checked: any bytes will do.
      d[10] = 0x60;
      d[13] = 0xffff;
    },
    broken: [['transferSize', (d) => void (d[8] = d[8]! + 8)], overlap],
  },
  'cache flush': {
    opcode: Opcode.cacheFlush,
    flags: writes,
    used: [6, 7, 8],
    sized: true,
    make(d, n, at) {
      target(d, at);
      size(d, n);
    },
  },
  batch: {
    opcode: Opcode.batch,
    flags: ['t1'],
    used: [4, 5, 8],
    sized: false,
    make(d, n) {
      d[4] = A;
      d[8] = 2 + (n % 30);
    },
    broken: [
      ['descriptorCount', (d) => void (d[8] = 1)],
      ['descriptorCount', (d) => void (d[8] = 33)],
      ['listAlignment', (d) => void (d[4] = d[4]! + 32)],
    ],
  },
  'translation fetch': {
    opcode: Opcode.translationFetch,
    flags: ['fence', 'bof', 't1'],
    used: [4, 5, 8, 12],
    sized: true,
    since: gnrD,
    make(d, n, at) {
      source(d, at);
      size(d, n);
    },
  },
};

/** One way to break any descriptor; undefined: this one cannot be broken so. `pick` chooses among several. */
type Break = (rule: Rule, d: Words, pick: number) => readonly [status: keyof typeof Status, value?: number] | undefined;
const breaks: Readonly<Record<string, Break>> = {
  'an operation that there is not': (_rule, d, pick) => {
    const absent = Array.from({ length: 256 }, (_, code) => code).filter((code) => !gnrD.operations.includes(code));
    d[1] = (d[1]! & 0xff_ffff) | (absent[pick % absent.length]! << 24);
    return ['unsupportedOperation'];
  },
  'a flag that is not of the operation': (rule, d, pick) => {
    const legal = rule.flags.reduce((all, kind) => all | bits[kind], everywhere | (rule.own ?? 0));
    const illegal = Array.from({ length: 24 }, (_, i) => 1 << i).filter((bit) => !(legal & bit));
    const bit = illegal[pick % illegal.length]!;
    d[1] = d[1]! | bit;
    return ['invalidFlags', bit];
  },
  'a reserved field': (rule, d, pick) => {
    const unused = [4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15].filter((word) => !rule.used.includes(word));
    // Halves of words that structures use in part are tried by the layouts' own tests.
    const free = unused.filter(
      (word) => d[word] === 0 && !(word === 10 && /compare|DIF/.test(nameOf(rule))) && !(word === 14 && rule.opcode === Opcode.createDelta),
    );
    if (free.length === 0) return undefined;
    d[free[pick % free.length]!] = 0x8000_0000;
    return ['nonZeroReserved'];
  },
  'an interrupt handle that is not in the table': (_rule, d, pick) => {
    d[1] = d[1]! | Flag.requestInterrupt;
    d[9] = sprDsa.msixVectors + (pick % 1000);
    return ['interruptHandle'];
  },
  'no bytes': (rule, d) => {
    if (!rule.sized) return undefined;
    d[8] = 0;
    return ['transferSize'];
  },
  'more bytes than the queue takes': (rule, d) => {
    if (!rule.sized) return undefined;
    d[8] = 2 ** MAX_SHIFT + 520 * 8;
    return ['transferSize'];
  },
  'its own rule': (rule, d, pick) => {
    if (!rule.broken) return undefined;
    const [status, spoil] = rule.broken[pick % rule.broken.length]!;
    spoil(d);
    return [status];
  },
};
const nameOf = (rule: Rule): string => Object.keys(rules).find((name) => rules[name] === rule)!;

/** A machine with the profile that has the operation: no handle commands, so that an index is a handle. */
function world(rule: Rule) {
  const profile = rule.since ? { ...rule.since, commandCapabilities: false, eventLogSize: 0 as const } : sprDsa;
  const m = machine({ profile, bytes: MIB });
  m.write(m.msixPermission + HANDLE * 8, (5 << 12) | 8);
  m.start({ pasid: 5, blockOnFault: true, maxTransferShift: MAX_SHIFT });
  return m;
}
const drawn = fc.record({
  n: fc.integer({ min: 1, max: 2 ** MAX_SHIFT }),
  at: fc.nat(4095),
  flags: fc.nat(),
  own: fc.nat(7),
  recordAt: fc.nat(60),
  seed: fc.nat(0xffff),
});
type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never;
function prepare(m: ReturnType<typeof world>, rule: Rule, one: Drawn): { d: Words; record: number } {
  m.bytes.fill(one.seed & 0xff, A, A + ROOM);
  m.bytes.fill((one.seed >>> 8) & 0xff, B, B + ROOM);
  m.bytes.fill(0, C, C + ROOM);
  // What is compared is equal.
  if (rule.opcode === Opcode.compare) m.bytes.copyWithin(B, A, A + ROOM);
  // A batch finds no-operations; a delta record begins with one entry of offset 0.
  if (rule.opcode === Opcode.batch || rule.opcode === Opcode.applyDelta) m.bytes.fill(0, A, A + ROOM);
  m.words.fill(0, 0, 0x1000 / 4);
  const d = new Uint32Array(16);
  const record = 0x100 + one.recordAt * 32;
  const flags = rule.flags.reduce((some, kind, i) => ((one.flags >>> i) & 1 ? some | bits[kind] : some), 0);
  const own = (one.own << 16) & (rule.own ?? 0);
  d[0] = one.seed;
  d[1] = (rule.opcode << 24) | Flag.recordAddressValid | Flag.requestRecord | (flags & ~Flag.checkResult) | own;
  d[2] = record;
  if (one.flags & 0x10_0000) {
    d[1] = d[1]! | Flag.requestInterrupt;
    d[9] = HANDLE;
  }
  rule.make(d, one.n, one.at);
  if (rule.opcode === Opcode.comparePattern) d[6] = d[7] = (one.seed & 0xff) * 0x0101_0101;
  return { d, record };
}
const outcome = (m: ReturnType<typeof world>, d: Words, record: number) => {
  m.submit(d);
  m.run();
  return Record.json(m.words, record / 4);
};

describe.each(Object.entries(rules))('%s', (_name, rule) => {
  test('with legal fields and flags is done', () => {
    const m = world(rule);
    fc.assert(
      fc.property(drawn, (one) => {
        const { d, record } = prepare(m, rule, one);
        expect(outcome(m, d, record)).toMatchObject({ status: 'success' });
      }),
      { numRuns: 60 },
    );
  });
  test.each(Object.entries(breaks))('with %s is refused with the status of that rule, and touches nothing', (_name, spoil) => {
    const m = world(rule);
    fc.assert(
      fc.property(drawn, fc.nat(), (one, pick) => {
        const { d, record } = prepare(m, rule, one);
        const expected = spoil(rule, d, pick);
        if (!expected) return;
        const before = m.bytes.slice(A);
        const [status, value] = expected;
        expect(outcome(m, d, record)).toMatchObject({ status, completed: 0, ...(value === undefined ? {} : { value }) });
        expect(Buffer.compare(m.bytes.subarray(A), before)).toBe(0);
      }),
      { numRuns: 25 },
    );
  });
  if (rule.sized && rule.opcode !== Opcode.applyDelta)
    test('with a page that is not there ends there: the address, the access, and no more bytes than lie before it', () => {
      const m = world(rule);
      fc.assert(
        fc.property(drawn, fc.nat(4), (one, page) => {
          const { d, record } = prepare(m, rule, one);
          d[1] = d[1]! & ~Flag.blockOnFault;
          const operand = rule.used.includes(4) && rule.opcode !== Opcode.fill ? d[4]! : d[6]!;
          const missing = (operand >>> 12) + page;
          const touched = missing * 4096 < operand + d[8]!;
          m.absent.add(missing);
          m.device.invalidate();
          const r = outcome(m, d, record);
          m.absent.delete(missing);
          if (!touched) expect(r.status).toBe('success');
          else {
            expect(r).toMatchObject({ status: 'pageFault', faultWrite: rule.opcode === Opcode.fill || rule.opcode === Opcode.cacheFlush ? 1 : 0 });
            expect((r.faultLow as number) >>> 12).toBe(missing);
            expect(r.completed).toBeLessThanOrEqual(Math.max(0, missing * 4096 - operand));
          }
        }),
        { numRuns: 40 },
      );
    });
});
