import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gnrD, sprDsa } from '../src/index.js';
import { CmdSts, Command, CommandStatus, Flag, GenCap, handleOperand, IntCause, Opcode, Portal, Register } from '../src/spec/index.js';
import { machine } from './machine.js';

type Machine = ReturnType<typeof machine>;
type TableName = 'msix' | 'ims';
const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt;
const { success, invalidCommand, interruptTableIndex, noInterruptHandle, interruptHandleNotAllocated } = CommandStatus;
const request = (m: Machine, entry: number, table: TableName = 'msix') => m.command(Command.requestInterruptHandle, handleOperand(entry, table));
const release = (m: Machine, handle: number, table: TableName = 'msix') => m.command(Command.releaseInterruptHandle, handleOperand(handle, table));
const result = (m: Machine): number => CmdSts.get.result(Uint32Array.of(m.read(Register.cmdSts)), 0);
/** A NOP that interrupts with a handle by the table's half of the portal: its status. */
const nop = (m: Machine, interruptHandle: number, table: TableName = 'msix') => {
  m.words[m.RECORD / 4] = 0;
  m.submit(m.descriptor(Opcode.nop, { flags, interruptHandle }), 0, table === 'ims' ? Portal.limitedIms : Portal.limitedMsix);
  m.run();
  return m.record().status;
};
const vector = (m: Machine, n: number, data: number): void => {
  m.write(0x2000 + n * 16, 0xfee0_0000);
  m.write(0x2008 + n * 16, data);
  m.write(0x200c + n * 16, 0);
};
/** Entries that let every descriptor interrupt. */
const open = (m: Machine): void => {
  for (let i = 0; i < m.profile.msixVectors; i++) {
    m.write(m.msixPermission + i * 8, 4);
    vector(m, i, 0x40 + i);
  }
  for (let i = 0; i < 8; i++) {
    m.write(m.ims + i * 16, 0xfee0_0000);
    m.write(m.ims + i * 16 + 8, 0x80 + i);
    m.write(m.ims + i * 16 + 12, 4);
  }
};
const started = (profile = gnrD): Machine => {
  const m = machine({ profile });
  m.start({});
  open(m);
  return m;
};

describe('CMDCAP', () => {
  test('has a bit for each command where GENCAP says that it is there', () => {
    for (const [profile, capability, bits] of [
      [sprDsa, 0, 0],
      [gnrD, 1, 0x7ffe],
    ] as const) {
      const m = machine({ profile });
      expect([GenCap.get.commandCapabilities(Uint32Array.of(m.read(Register.genCap), 0), 0), m.read(Register.cmdCap)]).toEqual([capability, bits]);
      m.write(Register.cmdCap, 0xffff_ffff);
      expect(m.read(Register.cmdCap)).toBe(bits);
      m.command(Command.resetDevice);
      expect(m.read(Register.cmdCap)).toBe(bits);
    }
  });
  test('without it the handle commands are invalid and the handle is the index of the entry', () => {
    const m = started(sprDsa);
    expect([request(m, 1), release(m, 1)]).toEqual([invalidCommand, invalidCommand]);
    expect([nop(m, 1), m.messages.at(-1)?.data]).toEqual(['success', 0x41]);
    expect(() => m.device.revokeHandles()).toThrow(TypeError);
  });
});

describe.each(['msix', 'ims'] as const)('a handle of the %s table', (table) => {
  const entries = table === 'msix' ? gnrD.msixVectors : gnrD.imsEntries;
  const other = table === 'msix' ? 'ims' : 'msix';
  test('is the result of the request, raises the entry until it is released, and is good for its own table only', () => {
    const m = started();
    expect(nop(m, 3, table)).toBe('interruptHandle');
    expect([request(m, 3, table), result(m)]).toEqual([success, 3]);
    expect([nop(m, 3, table), m.messages.at(-1)?.data]).toEqual(['success', (table === 'msix' ? 0x40 : 0x80) + 3]);
    expect([nop(m, 3, other), nop(m, 2, table)]).toEqual(['interruptHandle', 'interruptHandle']);
    expect([release(m, 3, table), result(m)]).toEqual([success, 0]);
    expect(nop(m, 3, table)).toBe('interruptHandle');
  });
  test('0x41: there is no such entry; 0x43: nobody has such a handle', () => {
    const m = started();
    expect([request(m, entries - 1, table), result(m)]).toEqual([success, entries - 1]);
    expect([request(m, entries, table), result(m)]).toEqual([interruptTableIndex, 0]);
    expect(request(m, 0xffff, table)).toBe(interruptTableIndex);
    expect([release(m, 1, table), release(m, entries - 1, other), release(m, 0xffff, table)]).toEqual(Array(3).fill(interruptHandleNotAllocated));
    expect([release(m, entries - 1, table), release(m, entries - 1, table)]).toEqual([success, interruptHandleNotAllocated]);
  });
  test('the permission of the entry is asked beside', () => {
    const m = machine({ profile: gnrD });
    m.start({ pasid: 7 });
    open(m);
    const control = table === 'msix' ? m.msixPermission + 2 * 8 : m.ims + 2 * 16 + 12;
    request(m, 2, table);
    m.write(control, (8 << 12) | 8);
    expect(nop(m, 2, table)).toBe('interruptHandle');
    m.write(control, (7 << 12) | 8);
    expect(nop(m, 2, table)).toBe('success');
  });
  test('goes with a reset of the device and of the function', () => {
    const m = started();
    for (const reset of [() => m.command(Command.resetDevice), () => m.fn.functionLevelReset()]) {
      expect(request(m, 1, table)).toBe(success);
      reset();
      expect(release(m, 1, table)).toBe(interruptHandleNotAllocated);
    }
  });
});

test('0x42: as many handles as there are, of both tables together; an entry that has one is given it again', () => {
  const profile = { ...gnrD, interruptHandles: 3 };
  const operation = fc.record({ what: fc.constantFrom(request, release), entry: fc.nat(4), table: fc.constantFrom<TableName>('msix', 'ims') });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 30 }), (operations) => {
      const m = machine({ profile, bytes: 4096 });
      const held = new Set<string>();
      for (const { what, entry, table } of operations) {
        const key = `${table} ${entry}`;
        const status = what(m, entry, table);
        if (what === request) {
          expect(status).toBe(held.has(key) || held.size < 3 ? success : noInterruptHandle);
          if (status === success) held.add(key);
        } else expect(status).toBe(held.delete(key) ? success : interruptHandleNotAllocated);
      }
    }),
  );
});

describe('handles that the device revokes', () => {
  test('end with 0x19 until they are requested again; INTCAUSE bit 31 and vector 0 tell', () => {
    const m = started();
    expect([request(m, 1), request(m, 2, 'ims')]).toEqual([success, success]);
    expect([nop(m, 1), nop(m, 2, 'ims')]).toEqual(['success', 'success']);
    m.messages.length = 0;
    m.device.revokeHandles();
    expect([m.read(Register.intCause), m.messages.map(({ data }) => data)]).toEqual([0x8000_0000, [0x40]]);
    expect(IntCause.get.handlesRevoked(Uint32Array.of(m.read(Register.intCause)), 0)).toBe(1);
    expect([nop(m, 1), nop(m, 2, 'ims')]).toEqual(['interruptHandle', 'interruptHandle']);
    expect(m.messages.length).toBe(1);
    expect(release(m, 1)).toBe(interruptHandleNotAllocated);
    expect(request(m, 1)).toBe(success);
    expect([nop(m, 1), nop(m, 2, 'ims')]).toEqual(['success', 'interruptHandle']);
    m.write(Register.intCause, 0x8000_0000);
    expect(m.read(Register.intCause)).toBe(0);
  });
  test('what waits in a queue ends with 0x19 when it is fetched', () => {
    const m = started();
    request(m, 1);
    m.submit(m.descriptor(Opcode.nop, { flags, interruptHandle: 1 }));
    m.device.revokeHandles();
    m.run();
    expect(m.record().status).toBe('interruptHandle');
  });
});
