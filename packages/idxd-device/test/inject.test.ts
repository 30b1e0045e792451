/** Faults on demand: what software sees is what a device's own fault shows. DSA specification, "Error Handling and Reporting". */
import { describe, expect, test } from 'vitest';
import { Command, CommandStatus, Opcode, Register } from '../src/spec/index.js';
import { machine } from './machine.js';

describe('an injected halt', () => {
  test.each(['software', 'functionLevel', 'warm', 'cold'] as const)(
    'asks for a %s reset, stops the queues, and tells by cause 4 and vector 0',
    (reset) => {
      const m = machine();
      m.write(Register.genCtrl, 3);
      m.write(0x2000, 0xfee0_0000);
      m.write(0x200c, 0);
      m.start({ pasid: 5 });
      m.messages.length = 0;
      m.device.injectHalt(reset);
      expect(m.device.describe()).toMatchObject({ genSts: { state: 'halt', reset }, swError: { valid: 0 } });
      expect([m.read(Register.intCause), m.messages.length]).toEqual([1 << 4, 1]);
      expect(m.execute(m.descriptor(Opcode.nop)).status).toBe('none');
      expect(m.command(Command.enableWq, 0)).toBe(CommandStatus.hardwareError);
      expect(m.command(Command.resetDevice)).toBe(CommandStatus.success);
      expect(m.device.describe()).toMatchObject({ genSts: { state: 'disabled' } });
    },
  );
  test('is silent where software did not ask for the interrupt; a reset that is none is refused', () => {
    const m = machine();
    m.start({});
    m.device.injectHalt('software');
    expect([m.read(Register.intCause), m.messages.length]).toEqual([0, 0]);
    expect(() => m.device.injectHalt('luke' as 'warm')).toThrow(TypeError);
  });
});

test('an injected software error is in SWERROR, and the next one sets overflow', () => {
  const m = machine();
  m.write(Register.genCtrl, 1);
  m.start({});
  m.device.injectSoftwareError(0x40);
  expect(m.device.describe().swError).toMatchObject({ valid: 1, overflow: 0, error: 0x40, wqValid: 0, descriptorValid: 0 });
  m.device.injectSoftwareError(0x41);
  expect(m.device.describe().swError).toMatchObject({ overflow: 1 });
  expect(m.read(Register.intCause) & 1).toBe(1);
  expect(() => m.device.injectSoftwareError(0x80)).toThrow(RangeError);
});
