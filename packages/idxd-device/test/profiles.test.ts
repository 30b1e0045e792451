import { describe, expect, test } from 'vitest';
import { type Check, defaultCheckOrder, gnrD, type Profile, sprDsa, vdev } from '../src/index.js';
import { Command, Flag, GenCap, Opcode, Portal, Register, WqCap, WqCfg } from '../src/spec/index.js';
import { machine } from './machine.js';

const record = Flag.recordAddressValid | Flag.requestRecord;
type Machine = ReturnType<typeof machine>;
const pair = (m: Machine, at: number): Uint32Array => Uint32Array.of(m.read(at), m.read(at + 4));

describe('what a profile offers is what software reads and what descriptors may ask for', () => {
  test.each([
    ['Sapphire Rapids: DSA 1.0', sprDsa, 0x0b25, 0x100, [0x003f_03ff, 1]],
    ['Granite Rapids-D: DSA 2.0', gnrD, 0x11fb, 0x200, [0x00bf_07ff, 1]],
  ] as const)('%s', (_name, profile, deviceId, version, [low, high]) => {
    const m = machine({ profile });
    expect([m.fn.configRead(0, 4) >>> 0, m.read(Register.version)]).toEqual([((deviceId << 16) | 0x8086) >>> 0, version]);
    expect([...pair(m, Register.opCap)]).toEqual([low, high]);
    expect(GenCap.get.eventLogSize(pair(m, Register.genCap), 0)).toBe(profile === gnrD ? 1 : 0);
    m.start({});
    for (let code = 0; code < 256; code++) {
      const offered = (((code < 32 ? low : code === 32 ? high : 0) >>> (code & 31)) & 1) === 1;
      expect([code, m.execute(m.descriptor(code)).status === 'unsupportedOperation']).toEqual([code, !offered]);
    }
  });

  const off: Profile = { ...sprDsa, cacheControlMemory: false, cacheControlFlush: false, destinationReadback: false };
  test.each([
    ['cacheControlMemory', off, sprDsa, Opcode.memmove, Flag.cacheControl],
    ['cacheControlFlush', off, sprDsa, Opcode.cacheFlush, Flag.cacheControl],
    ['destinationReadback', off, sprDsa, Opcode.fill, Flag.destinationReadback],
    ['drainReadback', sprDsa, gnrD, Opcode.drain, Flag.drainReadback1],
    ['drainReadback', sprDsa, gnrD, Opcode.drain, Flag.drainReadback2],
    ['drainReadback', sprDsa, gnrD, Opcode.drain, Flag.drainSuppressA | Flag.drainSuppressB],
  ] as const)('GENCAP %s: without it the flag is illegal, and the record says which', (capability, without, having, opcode, flag) => {
    for (const [profile, has] of [
      [without, 0],
      [having, 1],
    ] as const) {
      const m = machine({ profile });
      m.start({});
      expect(GenCap.get[capability](pair(m, Register.genCap), 0)).toBe(has);
      const fields = opcode === Opcode.drain ? {} : { size: 8, destinationLow: 0x2_0000 };
      const d = m.descriptor(opcode, { ...fields, flags: record | flag });
      if (opcode === Opcode.memmove) d[4] = 0x1_0000;
      expect(m.execute(d)).toMatchObject(has ? { status: 'success' } : { status: 'invalidFlags', value: flag });
    }
  });
});

describe('operation configuration of a queue', () => {
  test('WQCFG has 64 bytes where WQCAP says so', () => {
    for (const [profile, bytes] of [
      [sprDsa, 32],
      [gnrD, 64],
    ] as const) {
      const m = machine({ profile });
      const cap = pair(m, Register.wqCap);
      expect([32 << WqCap.get.configSize(cap, 0), WqCap.get.operationConfig(cap, 0)]).toEqual([bytes, bytes / 32 - 1]);
      m.start({}, { size: 9 });
      expect(m.read(m.queues + bytes)).toBe(9);
    }
  });
  test('an operation that the queue does not take is unsupported, alone and in a batch; another queue may take it', () => {
    const m = machine({ profile: gnrD });
    m.start({ operations: [Opcode.batch, Opcode.nop] }, { operations: [Opcode.memmove] });
    const move = { sourceLow: 0x1_0000, destinationLow: 0x2_0000, size: 8 };
    expect(m.execute(m.descriptor(Opcode.memmove, move)).status).toBe('unsupportedOperation');
    m.words.set(m.descriptor(Opcode.nop, { recordLow: 0x200 }), 0x1000 / 4);
    m.words.set(m.descriptor(Opcode.memmove, { ...move, recordLow: 0x220 }), 0x1040 / 4);
    expect(m.execute(m.descriptor(Opcode.batch, { sourceLow: 0x1000, size: 2 })).status).toBe('batchFail');
    expect([m.record(0x200).status, m.record(0x220).status]).toEqual(['success', 'unsupportedOperation']);
    m.submit(m.descriptor(Opcode.memmove, { ...move, recordLow: 0x240 }), 1);
    m.submit(m.descriptor(Opcode.nop, { recordLow: 0x260 }), 1);
    m.run();
    expect([m.record(0x240).status, m.record(0x260).status]).toEqual(['success', 'unsupportedOperation']);
  });
  test('takes what OPCAP offers after a reset and nothing more ever; is locked while the queue is enabled', () => {
    const m = machine({ profile: gnrD });
    const at = m.queues + 32;
    expect([m.read(at), m.read(at + 4), m.read(at + 8)]).toEqual([0x00bf_07ff, 1, 0]);
    for (const offset of [0, 4, 8]) m.write(at + offset, 0xffff_ffff);
    expect([m.read(at), m.read(at + 4), m.read(at + 8)]).toEqual([0x00bf_07ff, 1, 0]);
    m.start({ operations: [Opcode.nop] });
    m.write(at, 0xffff_ffff);
    expect(m.read(at)).toBe(1);
    expect(m.command(Command.resetWq, 1)).toBe(0);
    expect([m.read(at), m.read(m.queues)]).toEqual([0x00bf_07ff, 0]);
  });
});

describe('tables in other places', () => {
  const tables = { groupConfig: 0x6000, wqConfig: 0x1000, msixPermission: 0x700, ims: 0x1_0000, msix: 0x4000, pba: 0x5000 };
  test('are where OFFSETS and the MSI-X capability say, and BAR 0 is as large as it must be', () => {
    const m = machine({ profile: { ...sprDsa, tables } });
    expect([m.groups, m.queues, m.msixPermission, m.ims]).toEqual([tables.groupConfig, tables.wqConfig, tables.msixPermission, tables.ims]);
    expect([m.fn.configRead(m.fn.at.msix + 4, 4), m.fn.configRead(m.fn.at.msix + 8, 4)]).toEqual([tables.msix, tables.pba]);
    m.fn.configWrite(0x10, 4, 0xffff_ffff);
    expect(~(m.fn.configRead(0x10, 4) & ~15) + 1).toBe(0x2_0000);
    m.start({ pasid: 5 });
    expect(m.execute(m.descriptor(Opcode.nop)).status).toBe('success');
  });
  test.each([
    ['overlap', { groupConfig: 0x800, wqConfig: 0x800 }],
    ['are not at a multiple of 0x100', { wqConfig: 0x810 }],
    ['lie over the registers', { msixPermission: 0 }],
  ])('that %s are refused', (_rule, wrong) => {
    expect(() => machine({ profile: { ...sprDsa, tables: wrong } })).toThrow(RangeError);
  });
});

describe('a device whose configuration is fixed', () => {
  test('shows it in its tables, and takes the PASID of a queue alone', () => {
    const m = machine({ profile: vdev });
    const at = { groups: 0x400, queues: 0x500 };
    expect([m.groups, m.queues, m.read(Register.genCap) >>> 31]).toEqual([at.groups, at.queues, 0]);
    m.configureGroup(0, 0, 0);
    m.configureWq(0, { size: 1, priority: 3, pasid: 9, privileged: true });
    const wq = Uint32Array.from({ length: 8 }, (_, i) => m.read(m.queues + i * 4));
    expect([m.read(m.groups), m.read(m.groups + 32)]).toEqual([1, 1]);
    expect(WqCfg.json(wq, 0)).toMatchObject({ size: 16, mode: 'dedicated', pasid: 9, pasidEnable: 1, privileged: 1, priority: 10 });
    expect([m.command(Command.enableDevice), m.command(Command.enableWq, 0)]).toEqual([0, 0]);
    expect(m.execute(m.descriptor(Opcode.nop)).status).toBe('success');
    expect(m.command(Command.resetWq, 1)).toBe(0);
    expect(
      WqCfg.json(
        Uint32Array.from({ length: 8 }, (_, i) => m.read(m.queues + i * 4)),
        0,
      ),
    ).toMatchObject({ size: 16, mode: 'dedicated', pasid: 0, pasidEnable: 0 });
    m.command(Command.resetDevice);
    expect([m.read(m.groups), m.read(m.queues)]).toEqual([1, 16]);
  });
});

describe('what sources are silent about is an option', () => {
  const two = { flags: 0x80_0004 | 8, size: 7 };
  test('checkOrder: which of several errors a record tells', () => {
    const told = (checkOrder?: readonly Check[]) => {
      const m = machine({ profile: { ...sprDsa, ...(checkOrder ? { checkOrder } : {}) } });
      m.start({});
      return m.execute(m.descriptor(Opcode.nop, two)).status;
    };
    const reservedFirst: readonly Check[] = ['reserved', ...defaultCheckOrder.filter((c) => c !== 'reserved')];
    expect([told(), told(defaultCheckOrder), told(reservedFirst)]).toEqual(['invalidFlags', 'invalidFlags', 'nonZeroReserved']);
    expect(() => machine({ profile: { ...sprDsa, checkOrder: ['flags'] } })).toThrow(/checkOrder: each of/);
  });
  test('fenceOutsideBatch: ignored, or an invalid flag', () => {
    const fenced = (fenceOutsideBatch: 'ignored' | 'refused') => {
      const m = machine({ profile: { ...sprDsa, fenceOutsideBatch } });
      m.start({});
      return m.execute(m.descriptor(Opcode.nop, { flags: 0xc | Flag.fence }));
    };
    expect(fenced('ignored')).toMatchObject({ status: 'success' });
    expect(fenced('refused')).toMatchObject({ status: 'invalidFlags', value: Flag.fence });
  });
  test('droppedError and smallStoreError: in SWERROR, or without a word', () => {
    const error = (options: Partial<Profile>, what: 'full' | 'small') => {
      const m = machine({ profile: { ...sprDsa, ...options }, costs: { portalArrival: 10 } });
      m.start({ size: 1 });
      if (what === 'small') m.bar2.write(Portal.limitedMsix, 8, 1);
      else for (let i = 0; i < 2; i++) m.submit(m.descriptor(Opcode.nop));
      return m.device.describe().swError;
    };
    expect(error({}, 'full')).toMatchObject({ valid: 0 });
    expect(error({ droppedError: 0x53 }, 'full')).toMatchObject({ valid: 1, error: 0x53 });
    expect(error({}, 'small')).toMatchObject({ valid: 0 });
    expect(error({ smallStoreError: 0x54 }, 'small')).toMatchObject({ valid: 1, error: 0x54 });
  });
});
