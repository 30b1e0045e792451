/** Administrative commands: every status that the device can answer, provoked from the outside, and random commands in every state against a model. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { gnrD, type Profile, sprDsa } from '../src/index.js';
import { Command, CommandStatus, GroupCfg, handleOperand, Opcode, Register, WqCfg } from '../src/spec/index.js';
import { machine } from './machine.js';

type Machine = ReturnType<typeof machine>;
const ready = (m: Machine): void => {
  m.configureGroup(0, 1, 1);
  m.configureWq(0);
};
const group = (m: Machine, index: number, fields: Partial<Record<keyof typeof GroupCfg.set, number>>): void => {
  const g = Uint32Array.from({ length: 16 }, (_, i) => m.read(m.groups + index * 64 + i * 4));
  for (const [name, value] of Object.entries(fields)) GroupCfg.set[name as keyof typeof GroupCfg.set](g, 0, value);
  for (let i = 0; i < 16; i++) m.write(m.groups + index * 64 + i * 4, g[i]!);
};
interface Row {
  readonly status: keyof typeof CommandStatus;
  readonly rule: string;
  readonly profile?: Profile;
  /** The command that is refused so. */
  run(m: Machine): number;
}
const enable = (spoil: (m: Machine) => void) => (m: Machine) => {
  ready(m);
  spoil(m);
  return m.command(Command.enableDevice);
};
const enableWq = (spoil: (m: Machine) => void) => (m: Machine) => {
  ready(m);
  spoil(m);
  expect(m.command(Command.enableDevice)).toBe(0);
  return m.command(Command.enableWq, 0);
};
const rows: readonly Row[] = [
  { status: 'success', rule: 'the command was carried out', run: enable(() => {}) },
  { status: 'invalidCommand', rule: 'the code is none', run: (m) => m.command(31) },
  { status: 'invalidWq', rule: 'the queue is not there', run: (m) => (m.start({}), m.command(Command.enableWq, 8)) },
  { status: 'hardwareError', rule: 'the device halted', run: (m) => (m.start({}), m.device.injectHalt('software'), m.command(Command.drainAll)) },
  { status: 'deviceEnabled', rule: 'the device is enabled already', run: (m) => (m.start({}), m.command(Command.enableDevice)) },
  { status: 'configuration', rule: 'no queue is in a group', run: enable((m) => m.configureGroup(0, 0, 0)) },
  { status: 'busMaster', rule: 'bus mastering is off', run: enable((m) => m.fn.configWrite(4, 2, 2)) },
  { status: 'pasidInvalid', rule: 'page requests are on without translation requests', run: enable((m) => m.fn.configWrite(m.fn.at.ats + 6, 2, 0)) },
  { status: 'wqSizes', rule: 'the queues are larger than the device in sum', run: enable((m) => m.configureWq(1, { size: 128 })) },
  { status: 'groupConfig1', rule: 'a queue is in two groups', run: enable((m) => m.configureGroup(1, 1, 2)) },
  { status: 'groupConfig2', rule: 'an engine is in two groups', run: enable((m) => m.configureGroup(1, 2, 1)) },
  { status: 'groupConfig3', rule: 'a group has queues and no engine', run: enable((m) => m.configureGroup(0, 1, 0)) },
  {
    status: 'groupConfig4',
    rule: 'groups reserve more read buffers than there are',
    run: enable((m) => (group(m, 0, { readBuffersReserved: 60 }), group(m, 1, { readBuffersReserved: 60 }))),
  },
  {
    status: 'groupConfig4',
    rule: 'a group is allowed fewer read buffers than it reserves',
    run: enable((m) => group(m, 0, { readBuffersReserved: 8, readBuffersAllowed: 4 })),
  },
  {
    status: 'groupConfig4',
    rule: 'a group is allowed more read buffers than there are',
    run: enable((m) => group(m, 0, { readBuffersAllowed: 97 })),
  },
  { status: 'deviceNotEnabled', rule: 'a queue is enabled before the device', run: (m) => (ready(m), m.command(Command.enableWq, 0)) },
  { status: 'wqEnabled', rule: 'the queue is enabled already', run: (m) => (m.start({}), m.command(Command.enableWq, 0)) },
  { status: 'wqSize', rule: 'the queue has no entries', run: enableWq((m) => m.configureWq(0, { size: 0 })) },
  { status: 'wqPriority', rule: 'the queue has priority 0', run: enableWq((m) => m.configureWq(0, { priority: 0 })) },
  {
    status: 'wqMode',
    rule: 'a shared queue, and PASIDs are off in configuration space',
    run: enableWq((m) => (m.fn.configWrite(m.fn.at.pasid + 6, 2, 0), m.configureWq(0, { shared: true }))),
  },
  {
    status: 'wqMode',
    rule: 'a shared queue on a device that has none',
    profile: { ...sprDsa, queues: { sharedMode: false } },
    run: enableWq((m) => m.configureWq(0, { shared: true })),
  },
  {
    status: 'wqMode',
    rule: 'a dedicated queue on a device that has none',
    profile: { ...sprDsa, queues: { dedicatedMode: false } },
    run: enableWq(() => {}),
  },
  {
    status: 'wqBlockOnFault',
    rule: 'block on fault on a device without it',
    profile: { ...sprDsa, blockOnFault: false },
    run: enableWq((m) => m.configureWq(0, { blockOnFault: true })),
  },
  {
    status: 'wqPasidEnable',
    rule: 'a PASID, and PASIDs are off in configuration space',
    run: enableWq((m) => (m.fn.configWrite(m.fn.at.pasid + 6, 2, 0), m.configureWq(0, { pasid: 5 }))),
  },
  { status: 'wqMaxBatch', rule: 'batches above the capability', run: enableWq((m) => m.configureWq(0, { maxBatchShift: 11 })) },
  {
    status: 'wqMaxTransfer',
    rule: 'transfers above the capability',
    profile: { ...sprDsa, maxTransferShift: 20 },
    run: enableWq((m) => m.configureWq(0, { maxTransferShift: 21 })),
  },
  { status: 'deviceNotEnabledForDisable', rule: 'disabling a device that is not enabled', run: (m) => m.command(Command.disableDevice) },
  { status: 'wqNotEnabled', rule: 'draining a queue that is not enabled', run: (m) => (m.start({}), m.command(Command.drainWq, 2)) },
  { status: 'interruptTableIndex', rule: 'the table has no such entry', profile: gnrD, run: (m) => m.command(Command.requestInterruptHandle, 9) },
  {
    status: 'noInterruptHandle',
    rule: 'all handles are given out',
    profile: { ...gnrD, interruptHandles: 0 },
    run: (m) => m.command(Command.requestInterruptHandle, handleOperand(1, 'ims')),
  },
  { status: 'interruptHandleNotAllocated', rule: 'nobody holds the handle', profile: gnrD, run: (m) => m.command(Command.releaseInterruptHandle, 1) },
];

describe('command status', () => {
  test.each(rows.map((row) => [`0x${CommandStatus[row.status].toString(16).padStart(2, '0')} ${row.status}: ${row.rule}`, row] as const))(
    '%s',
    (_name, row) => {
      const m = machine(row.profile ? { profile: row.profile } : {});
      expect(row.run(m)).toBe(CommandStatus[row.status]);
    },
  );
  test('these are all there are', () => {
    const raised = new Set<string>(rows.map((row) => row.status));
    expect(Object.keys(CommandStatus).filter((name) => !raised.has(name))).toEqual([]);
  });
});

/** The state that commands see, and what each answers and does in it. Written from the specification's descriptions, apart from the device. */
class Model {
  enabled = false;
  halted = false;
  readonly wqs = [false, false, false];
  /** Configured: queue 2 has no entries. A reset clears all of it. */
  configured = true;
  readonly lost = [false, false, false];
  command(code: number, operand: number): number {
    const s = CommandStatus;
    if (code < 1 || code > 12) return s.invalidCommand;
    if (code === Command.resetDevice) {
      this.enabled = this.halted = this.configured = false;
      this.wqs.fill(false);
      return s.success;
    }
    if (this.halted) return s.hardwareError;
    switch (code) {
      case Command.enableDevice:
        if (this.enabled) return s.deviceEnabled;
        if (!this.configured) return s.configuration;
        this.enabled = true;
        return s.success;
      case Command.disableDevice:
        if (!this.enabled) return s.deviceNotEnabledForDisable;
        this.enabled = false;
        this.wqs.fill(false);
        return s.success;
      case Command.drainAll:
      case Command.abortAll:
      case Command.drainPasid:
      case Command.abortPasid:
        return this.enabled ? s.success : s.deviceNotEnabledForDisable;
      case Command.enableWq:
        if (operand >= sprDsa.wqs) return s.invalidWq;
        if (!this.enabled) return s.deviceNotEnabled;
        if (this.wqs[operand]) return s.wqEnabled;
        if (operand >= 2 || this.lost[operand]) return s.wqSize;
        this.wqs[operand] = true;
        return s.success;
      default: {
        const named = operand >>> 16 ? 0 : operand & 0xff;
        if (named === 0) return s.invalidWq;
        for (let wq = 0; wq < 8; wq++) if ((named >>> wq) & 1 && !this.wqs[wq]) return s.wqNotEnabled;
        for (let wq = 0; wq < 3; wq++)
          if ((named >>> wq) & 1 && (code === Command.disableWq || code === Command.resetWq)) {
            this.wqs[wq] = false;
            if (code === Command.resetWq) this.lost[wq] = true;
          }
        return s.success;
      }
    }
  }
  /** Software writes the tables anew, where it may. */
  configure(): void {
    if (this.halted) return;
    if (!this.enabled) this.configured = true;
    for (const wq of [0, 1, 2]) if (!this.wqs[wq]) this.lost[wq] = false;
  }
}
test('random commands, descriptors, halts and configurations: each answer is the one that the state calls for, and the state follows', () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('command' as const),
        code: fc.integer({ min: 0, max: 31 }),
        operand: fc.constantFrom(0, 1, 2, 3, 4, 7, 8, 9, 0x100, 0x1_0001, 0xf_ffff),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('command' as const), code: fc.constantFrom(1, 2, 6, 7, 8, 10), operand: fc.constantFrom(0, 1, 2, 3) }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('submit' as const), code: fc.nat(1), operand: fc.constant(0) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('configure' as const), code: fc.constant(0), operand: fc.constant(0) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('halt' as const), code: fc.constant(0), operand: fc.constant(0) }) },
  );
  const configure = (m: Machine): void => {
    m.configureGroup(0, 7, 1);
    m.configureWq(0, { size: 16 });
    m.configureWq(1, { size: 16 });
    m.configureWq(2, { size: 0 });
  };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const m = machine();
      const model = new Model();
      configure(m);
      for (const { kind, code, operand } of steps) {
        if (kind === 'command') expect([code, operand, m.command(code, operand)]).toEqual([code, operand, model.command(code, operand)]);
        else if (kind === 'halt') {
          m.device.injectHalt('software');
          model.halted = true;
          model.enabled = false;
          model.wqs.fill(false);
        } else if (kind === 'configure') {
          configure(m);
          model.configure();
        } else {
          m.words.fill(0, m.RECORD / 4, m.RECORD / 4 + 8);
          m.submit(m.descriptor(Opcode.nop), code);
          m.run();
          expect(m.record().status).toBe(model.wqs[code] ? 'success' : 'none');
        }
        const state = m.read(Register.genSts) & 3;
        expect(state).toBe(model.halted ? 3 : model.enabled ? 1 : 0);
        for (const wq of [0, 1, 2])
          expect(WqCfg.get.state(Uint32Array.of(0, 0, 0, 0, 0, 0, m.read(m.queues + wq * 32 + 24), 0), 0)).toBe(model.wqs[wq] ? 1 : 0);
      }
    }),
    { numRuns: 300 },
  );
});
