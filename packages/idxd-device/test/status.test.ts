/** Every completion status that the model can raise, provoked from the outside. DSA specification, "Completion Status Codes". */
import { describe, expect, test } from 'vitest';
import { gnrD } from '../src/index.js';
import { DIF_BYTES, Flag, Opcode, Status } from '../src/spec/index.js';
import { machine, type WqOptions } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
const SRC = 0x1_0000;
const DST = 0x2_0000;
type Machine = ReturnType<typeof machine>;
const move = { sourceLow: SRC, destinationLow: DST, size: 8192 };
const words = (d: Uint32Array, values: Record<number, number>): Uint32Array => {
  for (const [word, value] of Object.entries(values)) d[Number(word)] = value;
  return d;
};
const dualcast = (m: Machine, second: number) => words(m.descriptor(Opcode.dualcast, { ...move, size: 64 }), { 10: second });
const delta = (m: Machine, ...offsets: number[]): Uint32Array => {
  for (const [i, offset] of offsets.entries()) m.bytes.set([offset & 0xff, offset >> 8], SRC + i * 10);
  return words(m.descriptor(Opcode.applyDelta, { ...move, size: 64 }), { 10: offsets.length * 10 });
};
const list = (m: Machine, ...members: Uint32Array[]): Uint32Array => {
  for (const [i, d] of members.entries()) m.words.set(d, SRC / 4 + i * 16);
  return m.descriptor(Opcode.batch, { sourceLow: SRC, size: members.length });
};

interface Row {
  readonly status: keyof typeof Status;
  readonly rule: string;
  readonly wq?: WqOptions;
  make(m: Machine): Uint32Array;
  /** Answers page requests with this code. */
  readonly response?: number;
  /** It cannot be in the record: SWERROR has it. */
  readonly softwareError?: true;
}
const rows: readonly Row[] = [
  { status: 'success', rule: 'the operation was done', make: (m) => m.descriptor(Opcode.memmove, move) },
  {
    status: 'successFalsePredicate',
    rule: 'the result is not the expected one, and Check Result is set',
    make: (m) => words(m.descriptor(Opcode.compare, { ...move, size: 64, flags: record | Flag.checkResult }), { 10: 1 }),
  },
  {
    status: 'pageFault',
    rule: 'a page is not there, and block-on-fault is clear',
    make: (m) => (m.absent.add(DST / 4096 + 1), m.descriptor(Opcode.memmove, move)),
  },
  {
    status: 'pageRequestInvalid',
    rule: 'a page request is answered invalid',
    wq: { blockOnFault: true },
    response: 1,
    make: (m) => (m.absent.add(DST / 4096 + 1), m.descriptor(Opcode.memmove, { ...move, flags: record | Flag.blockOnFault })),
  },
  {
    status: 'batchFail',
    rule: 'a member of the batch did not succeed',
    make: (m) => list(m, m.descriptor(Opcode.nop, { recordLow: 0x200 }), m.descriptor(0x7f, { recordLow: 0x220 })),
  },
  {
    status: 'batchFault',
    rule: 'a page of the descriptor list is not there',
    make: (m) => (m.absent.add(SRC / 4096), m.descriptor(Opcode.batch, { sourceLow: SRC, size: 2 })),
  },
  { status: 'deltaOffsetOrder', rule: 'offsets of a delta record do not increase', make: (m) => delta(m, 3, 3) },
  { status: 'deltaOffsetRange', rule: 'an offset of a delta record is beyond the transfer size', make: (m) => delta(m, 8) },
  {
    status: 'difError',
    rule: 'a block and its field do not agree',
    make: (m) => ((m.bytes[SRC] = 1), m.descriptor(Opcode.difCheck, { sourceLow: SRC, size: 512 + DIF_BYTES })),
  },
  { status: 'unsupportedOperation', rule: 'OPCAP does not have the operation', make: (m) => m.descriptor(0x0b) },
  {
    status: 'invalidFlags',
    rule: 'the operation does not have the flag',
    make: (m) => m.descriptor(Opcode.nop, { flags: record | Flag.checkResult }),
  },
  { status: 'nonZeroReserved', rule: 'a reserved field is not zero', make: (m) => words(m.descriptor(Opcode.memmove, move), { 15: 1 }) },
  { status: 'transferSize', rule: 'the transfer size is 0', make: (m) => m.descriptor(Opcode.memmove, { ...move, size: 0 }) },
  { status: 'descriptorCount', rule: 'a batch has fewer than two members', make: (m) => m.descriptor(Opcode.batch, { sourceLow: SRC, size: 1 }) },
  {
    status: 'deltaRecordSize',
    rule: 'a delta record does not have whole entries',
    make: (m) => words(m.descriptor(Opcode.applyDelta, { ...move, size: 64 }), { 10: 11 }),
  },
  { status: 'overlap', rule: 'destination and source overlap', make: (m) => m.descriptor(Opcode.copyCrc, { ...move, destinationLow: SRC + 8191 }) },
  { status: 'dualcastAlignment', rule: 'bits 11:0 of dualcast destinations differ', make: (m) => dualcast(m, DST + 0x4008) },
  {
    status: 'listAlignment',
    rule: 'a descriptor list is not 64-byte aligned',
    make: (m) => m.descriptor(Opcode.batch, { sourceLow: SRC + 8, size: 2 }),
  },
  {
    status: 'interruptHandle',
    rule: 'the interrupt handle is not in the table',
    make: (m) => m.descriptor(Opcode.nop, { flags: record | Flag.requestInterrupt, interruptHandle: 0xffff }),
  },
  {
    status: 'recordFault',
    rule: 'the page of the completion record is not there',
    softwareError: true,
    make: (m) => (m.absent.add(9), m.descriptor(Opcode.nop, { recordLow: 0x9000 })),
  },
  {
    status: 'recordAlignment',
    rule: 'the completion record is not 32-byte aligned',
    softwareError: true,
    make: (m) => m.descriptor(Opcode.nop, { recordLow: m.RECORD + 16 }),
  },
  { status: 'alignment', rule: 'an operand that must be aligned is not', make: (m) => words(delta(m, 1), { 6: DST + 4 }) },
  {
    status: 'privilege',
    rule: 'a privileged descriptor, and privileged mode is off in configuration space',
    wq: { privileged: true },
    make: (m) => (m.fn.configWrite(m.fn.at.pasid + 6, 2, 1), m.descriptor(Opcode.nop)),
  },
  {
    status: 'trafficClass',
    rule: 'the selected traffic class is not mapped',
    make: (m) => m.descriptor(Opcode.memmove, { ...move, flags: record | Flag.trafficClass2 }),
  },
  {
    status: 'readbackFault',
    rule: 'a readback address cannot be read',
    make: (m) => (m.writeOnly.add(DST / 4096), m.descriptor(Opcode.memmove, { ...move, flags: record | Flag.destinationReadback })),
  },
  {
    status: 'translationError',
    rule: 'a request is refused without ATS',
    make: (m) => (
      m.fn.configWrite(m.fn.at.pri + 4, 2, 0), m.fn.configWrite(m.fn.at.ats + 6, 2, 0), m.absent.add(SRC / 4096), m.descriptor(Opcode.memmove, move)
    ),
  },
];

describe('completion status', () => {
  test.each(rows.map((row) => [`0x${Status[row.status].toString(16).padStart(2, '0')} ${row.status}: ${row.rule}`, row] as const))(
    '%s',
    (_name, row) => {
      const m = machine({ profile: { ...gnrD, trafficClasses: 0b1 }, trafficClassB: 1 });
      m.start({ pasid: 5, ...row.wq });
      m.execute(row.make(m));
      for (const r of m.pageRequests.splice(0)) m.device.pageResponse(r.pasid, r.group, row.response ?? 0);
      m.run();
      if (row.softwareError) {
        expect(m.device.describe().swError).toMatchObject({ valid: 1, error: Status[row.status], wq: 0, pasid: 5 });
        expect(m.record().status).toBe('none');
      } else expect(m.record().status).toBe(row.status);
    },
  );
  test('these are all there are: the model has no hardware errors', () => {
    const raised = new Set<string>(rows.map((row) => row.status));
    expect(Object.keys(Status).filter((name) => !raised.has(name))).toEqual(['none', 'hardwareError1', 'hardwareError2']);
  });
});

test('a device whose way to memory is not connected gets Unsupported Request: the error is in SWERROR, nothing is thrown', () => {
  const m = machine({ unconnected: true });
  m.start({});
  m.submit(m.descriptor(Opcode.memmove, { ...move, size: 64 }));
  m.run();
  expect(m.device.describe().swError).toMatchObject({ valid: 1, error: Status.recordFault, wq: 0 });
});
