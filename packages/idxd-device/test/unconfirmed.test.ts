/** What no source says is an option: each choice does what its name says, and the default is the one that is explained. */
import { describe, expect, test } from 'vitest';
import { sprDsa } from '../src/index.js';
import { Command, CommandStatus, Flag, Opcode, Status } from '../src/spec/index.js';
import { machine } from './machine.js';

const SRC = 0x1_0000;
const DST = 0x4_0000;
const AT = { sourceLow: SRC, destinationLow: DST, size: 64 };

describe('records of descriptors that an abort throws away', () => {
  const aborted = (profile: object, command: (m: ReturnType<typeof machine>) => number) => {
    const m = machine({ profile: { ...sprDsa, ...profile }, costs: { portalArrival: 1000, command: 1 } });
    m.start({ pasid: 7 }, { pasid: 8 });
    const records = [0x100, 0x140];
    for (const [wq, recordLow] of records.entries()) m.submit(m.descriptor(Opcode.nop, { recordLow }), wq);
    expect(command(m)).toBe(0);
    m.run();
    return records.map((at) => m.words[at / 4]! & 0xff);
  };
  const abortWq = (m: ReturnType<typeof machine>) => m.command(Command.abortWq, 3);
  test('none by default', () => {
    expect(aborted({}, abortWq)).toEqual([0, 0]);
  });
  test('the status of the profile, in the record of each', () => {
    expect(aborted({ abortedStatus: 0x1d }, abortWq)).toEqual([0x1d, 0x1d]);
  });
  test('by PASID: of those alone, and the others run', () => {
    expect(aborted({ abortedStatus: 0x1d }, (m) => m.command(Command.abortPasid, 7))).toEqual([0x1d, Status.success]);
  });
});

describe('which operand a fault is about: byte 2 of the record', () => {
  const operand = { ...sprDsa, faultInformation: 'operand' as const };
  const information = (m: ReturnType<typeof machine>) => (m.words[m.RECORD / 4]! >>> 16) & 0xff;
  const rows: readonly [string, number, object, number, number][] = [
    ['memmove, source', Opcode.memmove, AT, SRC, 1],
    ['memmove, destination', Opcode.memmove, AT, DST, 2],
    ['compare, second source', Opcode.compare, AT, DST, 2],
    ['copy with CRC, seed', Opcode.copyCrc, { ...AT, flags: Flag.recordAddressValid | Flag.requestRecord | Flag.crcSeedInMemory }, 0x7_0000, 3],
    ['create delta, record', Opcode.createDelta, { ...AT, size: 64 }, 0x7_0000, 3],
  ];
  test.each(rows)('%s', (_what, opcode, fields, missing, which) => {
    for (const [profile, expected] of [
      [operand, which << 1],
      [sprDsa, 0],
    ] as const) {
      const m = machine({ profile });
      m.start({ pasid: 5 });
      m.absent.add(missing / 4096);
      m.bytes[SRC] = 1;
      const d = m.descriptor(opcode, fields);
      // The third address: of a seed at byte 48, of a delta record at byte 40 with its size after it.
      if (opcode === Opcode.copyCrc) d[12] = 0x7_0000;
      if (opcode === Opcode.createDelta) {
        d[10] = 0x7_0000;
        d[12] = 80;
      }
      expect(m.execute(d).status).toBe('pageFault');
      expect(information(m)).toBe(expected);
    }
  });
  test('a fault that was resolved leaves nothing in the record', () => {
    const m = machine({ profile: operand });
    m.start({ pasid: 5, blockOnFault: true });
    m.absent.add(DST / 4096);
    m.submit(m.descriptor(Opcode.memmove, { ...AT, flags: Flag.recordAddressValid | Flag.requestRecord | Flag.blockOnFault }));
    m.run();
    m.absent.clear();
    m.device.pageResponse(5, m.pageRequests[0]!.group, 0);
    m.run();
    expect([m.record().status, information(m), m.record().faultLow]).toEqual(['success', 0, 0]);
  });
});

test('which of the four errors of a group is which, and which is told first', () => {
  const enable = (groupChecks?: readonly ('queues' | 'engines' | 'noEngine' | 'readBuffers')[]) => {
    const m = machine({ profile: { ...sprDsa, ...(groupChecks ? { groupChecks } : {}) } });
    m.configureWq(0);
    m.configureGroup(0, 1, 1);
    // A queue and an engine of group 0.
    m.configureGroup(1, 1, 1);
    return m.command(Command.enableDevice);
  };
  expect(enable()).toBe(CommandStatus.groupConfig1);
  expect(enable(['noEngine', 'engines', 'queues', 'readBuffers'])).toBe(CommandStatus.groupConfig2);
});
