import { Event } from '@siov/layout/events';
import { describe, expect, test } from 'vitest';
import { Counter, gnrD } from '../src/index.js';
import { Command, CommandStatus, descriptors, Flag, MsixPermission, Opcode, Portal, Register, Status } from '../src/spec/index.js';
import { machine } from './machine.js';

describe('portals', () => {
  test('a dedicated queue takes work on every page until it is full, then drops it', () => {
    const m = machine();
    m.start({ size: 4 });
    for (const page of [Portal.unlimitedMsix, Portal.limitedMsix, Portal.unlimitedIms, Portal.limitedIms, Portal.limitedMsix])
      m.submit(m.descriptor(Opcode.nop), 0, page);
    expect([m.device.counters[Counter.accepted], m.device.counters[Counter.dropped]]).toEqual([4, 1]);
  });
  test('a shared queue takes to its threshold through the limited portal, to its size through the unlimited one, and then answers retry', () => {
    const m = machine();
    m.start({ shared: true, size: 4, threshold: 2 });
    const limited = [1, 2, 3].map(() => m.enqueue(m.descriptor(Opcode.nop, { pasid: 9 })));
    const unlimited = [1, 2, 3].map(() => m.enqueue(m.descriptor(Opcode.nop, { pasid: 9 }), 0, Portal.unlimitedMsix));
    expect([limited, unlimited]).toEqual([
      [0, 0, 1],
      [0, 0, 1],
    ]);
  });
  test('a store never runs the device', () => {
    const m = machine();
    m.start({});
    m.submit(m.descriptor(Opcode.nop));
    expect(m.record().status).toBe('none');
    m.run();
    expect(m.record().status).toBe('success');
  });
  test('the wrong kind of store: ENQCMD to a dedicated queue retries, MOVDIR64B to a shared one is dropped, small stores do nothing', () => {
    const m = machine();
    m.start({}, { shared: true });
    expect(m.enqueue(m.descriptor(Opcode.nop), 0)).toBe(1);
    m.submit(m.descriptor(Opcode.nop), 1);
    m.bar2.write(Portal.limitedMsix, 4, 0x1234);
    m.run();
    expect([m.record().status, m.bar2.read(0, 4)]).toEqual(['none', 0xffff_ffff]);
  });
  test('any 64-byte slot of a page is the same portal, and a queue beyond the last is no portal', () => {
    const m = machine();
    m.start({});
    m.bar2.movdir64b!(Portal.limitedMsix + 0xfc0, m.descriptor(Opcode.nop), 0);
    m.bar2.movdir64b!(8 * Portal.bytesPerWq, m.descriptor(Opcode.nop), 0);
    m.run();
    expect([m.record().status, m.device.counters[Counter.accepted]]).toEqual(['success', 1]);
  });
  test("a shared queue uses the descriptor's PASID, a dedicated one its own", () => {
    const m = machine();
    m.start({ pasid: 7 }, { shared: true });
    m.submit(m.descriptor(Opcode.nop, { pasid: 3 }));
    m.run();
    m.enqueue(m.descriptor(Opcode.nop, { pasid: 3 }), 1);
    m.run();
    expect(m.seen.map((s) => s.pasid)).toEqual([7, 3]);
  });
});

describe('commands', () => {
  const status = CommandStatus;
  test.each([
    ['a second enable', [Command.enableDevice, 0], status.deviceEnabled],
    ['a code that is not there', [13, 0], status.invalidCommand],
    ['a queue that is not there', [Command.enableWq, 8], status.invalidWq],
    ['an enabled queue again', [Command.enableWq, 0], status.wqEnabled],
    ['disabling a queue that is off', [Command.disableWq, 2], status.wqNotEnabled],
    ['a queue of size 0', [Command.enableWq, 1], status.wqSize],
  ] as const)('%s', (_rule, [code, operand], error) => {
    const m = machine();
    m.start({});
    expect(m.command(code, operand)).toBe(error);
  });
  test.each([
    ['bus mastering off', (m: ReturnType<typeof machine>) => m.fn.configWrite(4, 2, 2), status.busMaster],
    ['sizes above the total', (m: ReturnType<typeof machine>) => m.configureWq(1, { size: 128 }), status.wqSizes],
    ['a queue in two groups', (m: ReturnType<typeof machine>) => m.configureGroup(1, 1, 2), status.groupConfig1],
    ['an engine in two groups', (m: ReturnType<typeof machine>) => m.configureGroup(1, 2, 1), status.groupConfig2],
    ['queues without an engine', (m: ReturnType<typeof machine>) => m.configureGroup(0, 1, 0), status.groupConfig3],
    ['nothing configured', (m: ReturnType<typeof machine>) => m.configureGroup(0, 0, 0), status.configuration],
  ] as const)('enable device: %s', (_rule, spoil, error) => {
    const m = machine();
    m.configureGroup(0, 1, 1);
    m.configureWq(0);
    spoil(m);
    expect(m.command(Command.enableDevice)).toBe(error);
  });
  test.each([
    ['priority 0', { priority: 0 }, status.wqPriority],
    ['a batch above the capability', { maxBatchShift: 11 }, status.wqMaxBatch],
  ] as const)('enable queue: %s', (_rule, wq, error) => {
    const m = machine();
    m.configureGroup(0, 1, 1);
    m.configureWq(0, wq);
    m.command(Command.enableDevice);
    expect(m.command(Command.enableWq)).toBe(error);
  });
  test('shared needs PASID on in configuration space', () => {
    const m = machine();
    m.fn.configWrite(m.fn.at.pasid + 6, 2, 0);
    m.configureGroup(0, 1, 1);
    m.configureWq(0, { shared: true });
    m.command(Command.enableDevice);
    expect(m.command(Command.enableWq)).toBe(status.wqMode);
  });

  test('configuration is locked while the queue is enabled, and writable again after', () => {
    const m = machine();
    m.start({ size: 8 });
    m.write(m.queues, 16);
    expect(m.read(m.queues)).toBe(8);
    m.command(Command.disableWq, 1);
    m.write(m.queues, 16);
    expect(m.read(m.queues)).toBe(16);
  });
  test('a command while one is active is lost and logged as 0x52', () => {
    const m = machine({ costs: { command: 100 } });
    m.write(Register.cmd, Command.drainAll << 20);
    m.write(Register.cmd, Command.resetDevice << 20);
    expect(m.device.describe().swError).toMatchObject({ valid: 1, error: 0x52 });
  });
  test('drain waits for the descriptors before it; disable then takes no more', () => {
    const m = machine({ costs: { dispatch: 90, recordWrite: 80 } });
    m.start({});
    m.submit(m.descriptor(Opcode.nop));
    m.write(Register.cmd, (Command.disableWq << 20) | 1);
    expect(m.read(Register.cmdSts) >>> 31).toBe(1);
    m.run();
    expect([m.record().status, m.read(Register.cmdSts)]).toEqual(['success', 0]);
    expect(m.execute(m.descriptor(Opcode.nop)).status).toBe('none');
  });
  test('abort throws away what waits, without records', () => {
    const m = machine({ costs: { portalArrival: 1000, command: 1 } });
    m.start({});
    m.submit(m.descriptor(Opcode.nop));
    expect(m.command(Command.abortWq, 1)).toBe(0);
    expect(m.record().status).toBe('none');
    expect(m.execute(m.descriptor(Opcode.nop)).status).toBe('success');
  });
  test('drain by PASID ends when no descriptor of it is left', () => {
    const m = machine();
    m.start({ shared: true });
    m.absent.add(0x20);
    m.enqueue(m.descriptor(Opcode.nop, { pasid: 3 }));
    expect(m.command(Command.drainPasid, 3)).toBe(0);
    expect(m.record().status).toBe('success');
  });
  test('the interrupt bit sets INTCAUSE and raises vector 0', () => {
    const m = machine();
    m.bar0.write(0x2000, 4, 0xfee0_0000);
    m.bar0.write(0x2008, 4, 0x55);
    m.bar0.write(0x200c, 4, 0);
    m.write(Register.cmd, (Command.resetDevice << 20) | 0x8000_0000);
    m.run();
    expect([m.messages, m.read(Register.intCause)]).toEqual([[{ address: 0xfee0_0000, data: 0x55 }], 2]);
    m.write(Register.intCause, 2);
    expect(m.read(Register.intCause)).toBe(0);
  });
  test('losing bus mastering halts the device until a function level reset', () => {
    const m = machine();
    m.start({});
    m.fn.configWrite(4, 2, 2);
    expect(m.device.describe()).toMatchObject({ genSts: { state: 'halt', reset: 'functionLevel' }, swError: { error: 0x51 } });
    m.fn.configWrite(4, 2, 6);
    expect(m.command(Command.enableDevice)).toBe(status.hardwareError);
    m.fn.configWrite(m.fn.at.pcie + 8, 2, 0x8000);
    expect(m.device.describe()).toMatchObject({ genSts: { state: 'disabled' }, swError: { valid: 0 } });
  });
});

describe('completion interrupts', () => {
  const permission = (m: ReturnType<typeof machine>, vector: number, pasid: number): void => {
    const w = new Uint32Array(2);
    MsixPermission.set.pasidEnable(w, 0, 1);
    MsixPermission.set.pasid(w, 0, pasid);
    m.write(m.msixPermission + vector * 8, w[0]!);
  };
  const vector = (m: ReturnType<typeof machine>, v: number, data: number): void => {
    m.bar0.write(0x2000 + v * 16, 4, 0xfee0_0000);
    m.bar0.write(0x2008 + v * 16, 4, data);
    m.bar0.write(0x200c + v * 16, 4, 0);
  };
  const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt;

  test('MSI-X by the MSI-X half of the portal, if the permission entry has the PASID of the descriptor', () => {
    const m = machine();
    m.start({ pasid: 7 });
    vector(m, 1, 0x41);
    permission(m, 1, 7);
    permission(m, 2, 8);
    expect(m.execute(m.descriptor(Opcode.nop, { flags, interruptHandle: 1 })).status).toBe('success');
    expect(m.execute(m.descriptor(Opcode.nop, { flags, interruptHandle: 2 })).status).toBe('interruptHandle');
    expect(m.messages).toEqual([{ address: 0xfee0_0000, data: 0x41 }]);
  });
  test('IMS by the IMS half; a masked slot keeps it pending until unmasked', () => {
    const m = machine();
    m.start({ pasid: 7 });
    const slot = m.ims + 3 * 16;
    m.write(slot, 0xfee0_1000);
    m.write(slot + 8, 0x99);
    m.write(slot + 12, (7 << 12) | 8 | 1);
    m.submit(m.descriptor(Opcode.nop, { flags, interruptHandle: 3 }), 0, Portal.limitedIms);
    m.run();
    expect([m.record().status, m.messages.length, m.read(slot + 12) & 2]).toEqual(['success', 0, 2]);
    m.write(slot + 12, (7 << 12) | 8);
    expect([m.messages, m.read(slot + 12) & 2]).toEqual([[{ address: 0xfee0_1000, data: 0x99 }], 0]);
  });
});

describe('the occupancy interrupt of a queue', () => {
  const LIMIT = 2;
  const limited = (options: { table?: 'msix' | 'ims'; limit?: number } = {}) => {
    const m = machine({ costs: { portalArrival: 10 } });
    for (const vector of [0, 3]) {
      m.write(0x2000 + vector * 16, 0xfee0_0000 + (vector << 12));
      m.write(0x200c + vector * 16, 0);
    }
    m.write(m.ims + 16, 0xfee0_f000);
    m.write(m.ims + 28, 4);
    m.write(m.msixPermission + 3 * 8, 4);
    m.configureGroup(0, 1, 1);
    m.configureWq(0, { size: 8 });
    const ims = options.table === 'ims';
    m.write(m.queues + 16, ims ? 0x1_0001 : 3);
    for (const command of [Command.enableDevice, Command.enableWq]) expect(m.command(command)).toBe(0);
    const arm = (on = 1): void => m.write(m.queues + 20, (options.limit ?? LIMIT) | (on << 16));
    const fill = (n: number): void => {
      for (let i = 0; i < n; i++) m.submit(m.descriptor(Opcode.nop));
      m.run();
    };
    return { m, arm, fill, ims };
  };
  test.each(['msix', 'ims'] as const)(
    'comes by the handle of its %s table each time that the occupancy falls to the limit, with cause 2',
    (table) => {
      const { m, arm, fill } = limited({ table });
      fill(5);
      expect(m.messages).toEqual([]);
      arm();
      fill(LIMIT);
      expect(m.messages).toEqual([]);
      fill(5);
      expect([m.messages, m.read(Register.intCause)]).toEqual([[{ address: table === 'ims' ? 0xfee0_f000 : 0xfee0_3000, data: 0 }], 1 << 2]);
      fill(5);
      expect(m.messages.length).toBe(2);
      arm(0);
      fill(5);
      expect(m.messages.length).toBe(2);
    },
  );
  test('stays away with a handle that the queue may not raise', () => {
    const { m, arm, fill } = limited();
    m.write(m.msixPermission + 3 * 8, (7 << 12) | 8);
    arm();
    fill(5);
    expect([m.messages, m.read(Register.intCause)]).toEqual([[], 1 << 2]);
  });
});

describe('scheduling', () => {
  test('a drain completes after every earlier descriptor of its queue', () => {
    const m = machine({ costs: { streamMove: 1, dispatch: 10 } });
    m.start({});
    m.submit(m.descriptor(Opcode.memmove, { sourceLow: 0x1_0000, destinationLow: 0x2_0000, size: 4096, recordLow: 0x200 }));
    m.submit(m.descriptor(Opcode.drain, { recordLow: 0x220 }));
    const order: string[] = [];
    m.clock.wait(() => {
      for (const [name, at] of [
        ['move', 0x200],
        ['drain', 0x220],
      ] as const)
        if (!order.includes(name) && m.record(at).status === 'success') order.push(name);
      return order.length === 2;
    });
    expect(order).toEqual(['move', 'drain']);
  });
  test('the modelled latency of a small memmove is the sum of its parts', () => {
    const m = machine({ costs: { portalArrival: 80, dispatch: 90, read: 260, write: 80, recordWrite: 80, streamMove: 0.03 } });
    m.start({});
    const from = m.clock.now;
    m.submit(m.descriptor(Opcode.memmove, { sourceLow: 0x1_0000, destinationLow: 0x2_0000, size: 1000 }));
    m.clock.wait(() => m.record().status === 'success');
    expect(m.clock.now - from).toBe(80 + 90 + 260 + 30 + 80 + 80);
  });
  test('a higher priority queue of the group goes first', () => {
    const m = machine({ costs: { portalArrival: 10, occupancy: 50, dispatch: 1 } });
    m.start({ priority: 1 }, { priority: 15 });
    m.submit(m.descriptor(Opcode.nop, { recordLow: 0x200 }), 0);
    m.submit(m.descriptor(Opcode.nop, { recordLow: 0x220 }), 1);
    m.clock.wait(() => m.record(0x220).status === 'success');
    expect(m.record(0x200).status).toBe('none');
  });
});

test('a million random descriptors and register writes: no exception, no hang, nothing written outside what the PASID may write', () => {
  /** How often each operation ended with each status: a run in which nothing succeeds would prove nothing. */
  const ended = new Map<number, Set<number>>();
  const m = machine({
    profile: gnrD,
    trace: {
      emit(event, _wq, opcode, status) {
        if (event === Event.complete) ended.set(opcode, (ended.get(opcode) ?? new Set()).add(status & 0x7f));
      },
    },
  });
  const start = () => m.start({ pasid: 5, size: 8, blockOnFault: true }, { shared: true, size: 8 });
  start();
  m.strangers.add(6);
  const rng = (() => {
    let s = 12345;
    return () => {
      s = (Math.imul(s, 1664525) + 1013904223) | 0;
      return s >>> 8;
    };
  })();
  for (let p = 0x80; p < 0x100; p++) m.readOnly.add(p);
  m.absent.add(0x33).add(0x44).add(0x55);
  const guarded = m.bytes.subarray(0x8_0000).slice();
  const d = new Uint32Array(16);
  const opcodes = [...Object.values(Opcode), 0x30];
  /** Sizes that the operations like: units of a delta record, blocks with and without their fields, and anything. */
  const units = [8, 10, 64, 512, 520, 528, 4096, 4104, 4112];
  const unit = () => units[rng() % units.length]! * (1 + (rng() & 1));
  for (let i = 0; i < 1_000_000; i++) {
    for (let w = 0; w < 16; w++) d[w] = rng() & 15 ? (rng() % 5 === 0 ? rng() * 256 : rng() & 0xf_ffff) : 0;
    d[1] = (opcodes[rng() % opcodes.length]! << 24) | (rng() & 1 ? 0xc : rng() & 0xff_ffff);
    d[2]! &= ~31;
    d[3] = d[5] = d[7] = rng() & 7 ? 0 : rng();
    d[8] = rng() & 1 ? rng() % 3000 : unit();
    if (rng() & 3) {
      // Most have no reserved bit, legal flags, and the parameters of their operation: one thing that is wrong at a time, or none.
      d[1] = (d[1]! & 0xff00_0000) | 0xc | (rng() & 7 ? 0 : Flag.blockOnFault);
      const { reserved } = descriptors.of(d, 0).masks;
      const opcode = d[1] >>> 24;
      if (opcode === Opcode.batch) d[8] = 2 + (rng() & 7);
      if (opcode === Opcode.createDelta || opcode === Opcode.batch || opcode === Opcode.applyDelta)
        for (const w of [4, 6, 10]) d[w]! &= rng() & 15 ? ~63 : ~0;
      if (opcode === Opcode.applyDelta) d[10] = 10 * (1 + (rng() & 1));
      if (opcode === Opcode.createDelta || opcode === Opcode.dualcast) d[11] = 0;
      if (opcode === Opcode.createDelta) d[12] = 80 + 10 * (rng() & 63);
      if (opcode === Opcode.dualcast) d[10] = (d[10]! & 0xf_f000) | (d[6]! & 0xfff);
      // Tags that are not checked, now and then.
      if (opcode === Opcode.difCheck || opcode === Opcode.difStrip || opcode === Opcode.difUpdate) {
        d[10] = (d[10]! & ~0xff) | 0x60;
        d[13]! |= rng() & 1 ? 0xffff : 0;
      }
      if (rng() & 31) for (let w = 0; w < 16; w++) d[w]! &= ~reserved[w]!;
    }
    if (i & 1) m.submit(d, 0, (rng() & 3) * 0x1000);
    else {
      d[0] = rng() & 1 ? 5 : 6;
      m.enqueue(d, 1, (rng() & 3) * 0x1000);
    }
    if ((i & 7) === 0) m.run();
    for (const r of m.pageRequests.splice(0)) m.device.pageResponse(r.pasid, r.group, rng() & 1);
    if ((i & 0xfff) === 0) {
      for (let n = 0; n < 8; n++) m.write(rng() & 0xfffc, rng() * 256);
      m.run();
      // Whatever that did to it, a reset brings the device back.
      expect(m.command(Command.resetDevice)).toBe(0);
      start();
    }
    m.seen.length = m.messages.length = 0;
  }
  m.run();
  expect(Buffer.compare(m.bytes.subarray(0x8_0000), guarded)).toBe(0);
  const never = Object.values(Opcode).filter((code) => !ended.get(code)?.has(Status.success) || !ended.get(code)!.has(Status.nonZeroReserved));
  expect(never).toEqual([]);
}, 120_000);
