import { CmdSts, Command, CommandStatus, GenCap, GroupCfg, Opcode, Register, SwError, TableOffsets, WqCap, WqCfg } from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import { type Capabilities, checkConfig, commandText, type DeviceConfig, IdxdDriver, type Mmio } from '../src/index.js';
import { machine, openPortal } from './machine.js';

const can: Capabilities = machine({ config: undefined }).driver.capabilities;
const wq = { mode: 'dedicated', size: 16, group: 0 } as const;
const shared = { mode: 'shared', size: 16, group: 0 } as const;

describe('a configuration is refused as sysfs would', () => {
  const rows: [rule: string, config: DeviceConfig, error: number, why: RegExp, can?: Partial<Capabilities>][] = [
    ['more queues than the device has', { wqs: new Array(9).fill({ ...wq, size: 1 }) }, Errno.EINVAL, /8 work queues, not 9/],
    ['a group that is not there', { wqs: [], groups: new Array(5).fill({ engines: [] }) }, Errno.EINVAL, /4 groups/],
    ['an engine that is not there', { wqs: [], groups: [{ engines: [4] }] }, Errno.EINVAL, /engine4: group_id/],
    ['an engine in two groups', { wqs: [], groups: [{ engines: [0] }, { engines: [0] }] }, Errno.EINVAL, /engine0: group_id/],
    ['a queue without entries', { wqs: [{ ...wq, size: 0 }] }, Errno.EINVAL, /wq0: size/],
    [
      'more entries than the device has in all',
      {
        wqs: [
          { ...wq, size: 100 },
          { ...wq, size: 29 },
        ],
      },
      Errno.EINVAL,
      /wq1: size: 1 or more, 128/,
    ],
    ['a queue in a group that is not there', { wqs: [{ ...wq, group: 4 }] }, Errno.EINVAL, /wq0: group_id: 0 to 3/],
    ['priority 0', { wqs: [{ ...wq, priority: 0 }] }, Errno.EINVAL, /priority: 1 to 15/],
    ['priority 16', { wqs: [{ ...wq, priority: 16 }] }, Errno.EINVAL, /priority: 1 to 15/],
    ['a threshold of a dedicated queue', { wqs: [{ ...wq, threshold: 1 }] }, Errno.EINVAL, /threshold: of a shared queue/],
    ['a threshold above the size', { wqs: [{ ...shared, threshold: 17 }] }, Errno.EINVAL, /threshold/],
    [
      'block on fault where the device has none',
      { wqs: [{ ...wq, blockOnFault: true }] },
      Errno.EOPNOTSUPP,
      /block_on_fault/,
      { blockOnFault: false },
    ],
    ['a transfer size that is no power of two', { wqs: [{ ...wq, maxTransferSize: 3000 }] }, Errno.EINVAL, /max_transfer_size/],
    ['a transfer size above the device’s', { wqs: [{ ...wq, maxTransferSize: 2 ** 32 }] }, Errno.EINVAL, /max_transfer_size/],
    ['a batch size above the device’s', { wqs: [{ ...wq, maxBatchSize: 2 ** 11 }] }, Errno.EINVAL, /max_batch_size: a power of two up to 1024/],
  ];
  test.each(rows)('%s', (_rule, config, error, why, less = {}) => {
    const answer = checkConfig(config, { ...can, ...less });
    expect(answer.error).toBe(-error);
    expect(answer.why).toMatch(why);
  });
  test('all that the device has is taken', () => {
    const wqs = Array.from({ length: 8 }, (_, i) => ({ ...(i % 2 ? shared : wq), priority: i + 1, group: i % 4 }));
    expect(checkConfig({ wqs, groups: [0, 1, 2, 3].map((e) => ({ engines: [e] })) }, can)).toEqual({ error: 0, why: '' });
  });
  test('what checkConfig takes the device takes too, but for a group with queues and no engine, which it names', () => {
    const m = machine({ config: undefined });
    expect(m.driver.configure({ wqs: [{ ...wq, group: 1 }] })).toEqual({ error: -Errno.ENXIO, why: 'enable device: groupConfig3' });
    expect(m.driver.enabled).toBe(false);
  });
});

describe('life of a configuration', () => {
  test('an enabled device refuses another one', () => {
    expect(machine().driver.configure({ wqs: [wq] })).toEqual({ error: -Errno.EPERM, why: 'the device is enabled' });
  });
  test('disable, and a smaller or greater configuration is taken: nothing of the first is left', () => {
    const m = machine({ config: { wqs: new Array(8).fill(wq) } });
    expect(m.driver.disable()).toBe(0);
    expect(m.driver.configure({ wqs: [{ ...wq, size: 128 }] })).toEqual({ error: 0, why: '' });
    expect(m.driver.enableWq(m.driver.wqs[0]!)).toBe(0);
  });
  test('after disable errors still interrupt', () => {
    const m = machine();
    m.driver.disable();
    expect(m.pci.bars.get(0)!.mmio.read(Register.genCtrl, 4)).toBe(3);
  });
  test('disable of a disabled device and a queue of a disabled device are ENXIO', () => {
    const m = machine();
    expect([m.driver.disable(), m.driver.disable(), m.driver.enableWq(m.driver.wqs[0]!)]).toEqual([0, -Errno.ENXIO, -Errno.ENXIO]);
  });
  test('enabling a queue twice is one command; disabling twice too', () => {
    const m = machine();
    const [w] = m.driver.wqs;
    expect([m.driver.enableWq(w!), m.driver.enableWq(w!), w!.enabled, m.driver.disableWq(w!), m.driver.disableWq(w!), w!.enabled]).toEqual([
      0,
      0,
      true,
      0,
      0,
      false,
    ]);
  });
  test('drain waits for what is in flight, abort does not need to; both want an enabled queue', () => {
    const m = machine();
    const { driver } = m;
    const [w] = driver.wqs;
    expect([driver.drainWq(w!), driver.abortWq(w!)]).toEqual([-Errno.ENXIO, -Errno.ENXIO]);
    expect(driver.commandStatus).toBe(CommandStatus.wqNotEnabled);
    const path = m.node().path;
    const t = m.task();
    const client = new Client(t, { address: openPortal(t, path).portal, mode: 'dedicated' }, { depth: 4 });
    for (let i = 0; i < 4; i++) {
      client.prepare(i, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(i);
    }
    expect([0, 1, 2, 3].map((i) => client.poll(i))).toEqual([0, 0, 0, 0]);
    expect([driver.drainWq(w!), [0, 1, 2, 3].map((i) => client.poll(i))]).toEqual([0, [1, 1, 1, 1]]);
    expect([driver.abortWq(w!), driver.drainPasid(1), driver.abortPasid(1)]).toEqual([0, 0, 0]);
  });
  test('a command’s status is kept, and has a name', () => {
    const { driver } = machine();
    expect([driver.command(Command.enableDevice), driver.commandStatus, commandText(driver.commandStatus)]).toEqual([0x10, 0x10, 'deviceEnabled']);
    expect([driver.command(31), commandText(driver.commandStatus), commandText(0x7e)]).toEqual([1, 'invalidCommand', '0x7e']);
  });
});

/** Registers of a device of one queue whose configuration is fixed; commands succeed at once, without interrupt. */
function registerFile(mode: 'dedicated' | 'shared', pasid = -1) {
  const words = new Uint32Array(0x3000 / 4);
  GenCap.set.maxTransferShift(words, Register.genCap / 4, 20);
  GenCap.set.maxBatchShift(words, Register.genCap / 4, 5);
  WqCap.set.count(words, Register.wqCap / 4, 1);
  WqCap.set.totalSize(words, Register.wqCap / 4, 32);
  words[Register.groupCap / 4] = 1;
  words[Register.engineCap / 4] = 1;
  TableOffsets.set.groupConfig(words, Register.offsets / 4, 4);
  TableOffsets.set.wqConfig(words, Register.offsets / 4, 5);
  TableOffsets.set.msixPermission(words, Register.offsets / 4, 6);
  GroupCfg.set.wqs(words, 0x400 / 4, 1);
  GroupCfg.set.engines(words, 0x400 / 4, 1);
  WqCfg.set.size(words, 0x500 / 4, 32);
  WqCfg.set.mode(words, 0x500 / 4, WqCfg.is.mode[mode]);
  WqCfg.set.priority(words, 0x500 / 4, 7);
  WqCfg.set.maxTransferShift(words, 0x500 / 4, 16);
  if (pasid >= 0) {
    WqCfg.set.pasidEnable(words, 0x500 / 4, 1);
    WqCfg.set.pasid(words, 0x500 / 4, pasid);
  }
  const writes: string[] = [];
  let misc: () => void = () => {};
  const mmio: Mmio = {
    read: (o) => words[o >>> 2]!,
    write(o, _w, value) {
      writes.push(`${o.toString(16)}=${(value >>> 0).toString(16)}`);
      if (o === Register.intCause) words[o / 4]! &= ~value;
      else if (o !== Register.cmd) words[o >>> 2] = value;
      else if (value & (1 << 31)) {
        words[Register.intCause / 4]! |= 2;
        misc();
      }
    },
  };
  const driver = new IdxdDriver({
    device: {
      name: 'fixed',
      requesterId: 8,
      vendorId: 0x8086,
      deviceId: 0x0b25,
      bars: new Map([
        [0, { address: 0x1000_0000, bytes: 0x10000, mmio }],
        [2, { address: 0x2000_0000, bytes: 0x4000, mmio }],
      ]),
      configRead: () => 0,
      configWrite: () => {},
      capability: () => 0x40,
      command: () => {},
      enableSva: () => ({ pasid: true, ats: false, pri: false }),
    },
    interrupts: {
      msix: () => ({
        alloc(handler, index = 0) {
          if (index === 0) misc = handler;
          return { index, free: () => {} };
        },
      }),
    },
    iommu: { addDevice: () => {}, svaBind: () => -Errno.ENODEV },
    clock: { wait: (until) => until(), defer: (work) => work() },
    kernel: { register: () => {}, unregister: () => {} },
  });
  return { words, writes, driver };
}

describe('a device whose configuration is fixed (GENCAP.31 = 0)', () => {
  test('the queues are as the tables say, whatever configure is asked for', () => {
    const { driver } = registerFile('dedicated');
    expect([driver.probe(), driver.capabilities.configurable]).toEqual([0, false]);
    expect(driver.wqs.map((w) => w.config)).toMatchObject([{ mode: 'dedicated', size: 32, priority: 7, group: 0, maxTransferSize: 65536 }]);
    expect([driver.configure({ wqs: new Array(99).fill(wq) }), driver.wqs.length]).toEqual([{ error: 0, why: '' }, 1]);
  });
  test.each([
    ['a shared queue', 'shared', -1],
    ['a queue that has a PASID already', 'dedicated', 5],
  ] as const)('%s is EOPNOTSUPP', (_rule, mode, pasid) => {
    expect(registerFile(mode, pasid).driver.probe()).toBe(-Errno.EOPNOTSUPP);
  });
  test('of WQCFG only the dword with the PASID is written, and what else it has stays', () => {
    const { driver, writes, words } = registerFile('dedicated');
    driver.probe();
    driver.configure({ wqs: [] });
    writes.length = 0;
    expect(driver.enableWq(driver.wqs[0]!, 0x1234)).toBe(0);
    expect(writes.filter((w) => w.startsWith('5'))).toEqual([expect.stringMatching(/^508=/)]);
    expect([WqCfg.get.pasid(words, 0x140), WqCfg.get.pasidEnable(words, 0x140), WqCfg.get.priority(words, 0x140)]).toEqual([0x1234, 1, 7]);
  });
  test('a device with handle commands says the handle, and takes it back by polling; one that refuses leaves nothing taken', () => {
    const { driver, words, writes } = registerFile('dedicated');
    GenCap.set.commandCapabilities(words, Register.genCap / 4, 1);
    words[Register.cmdCap / 4] = 0x7ffe;
    driver.probe();
    driver.configure({ wqs: [] });
    const [w] = driver.wqs;
    const answer = (error: number, result: number): void => {
      CmdSts.set.error(words, Register.cmdSts / 4, error);
      CmdSts.set.result(words, Register.cmdSts / 4, result);
      writes.length = 0;
    };
    answer(CommandStatus.noInterruptHandle, 0);
    expect([driver.completionInterrupt(w!, 5, () => {}), writes.at(-1)]).toEqual([undefined, '60c=0']);
    answer(0, 9);
    const irq = driver.completionInterrupt(w!, 5, () => {})!;
    expect([irq.handle, irq.ims, writes.filter((x) => x.startsWith('a0='))]).toEqual([9, false, ['a0=80d00001']]);
    writes.length = 0;
    irq.free();
    expect(writes.filter((x) => x.startsWith('a0='))).toEqual(['a0=e00009']);
  });
  test('disable does not reset it', () => {
    const { driver, writes } = registerFile('dedicated');
    driver.probe();
    driver.configure({ wqs: [] });
    writes.length = 0;
    expect([driver.disable(), writes.filter((w) => w.startsWith('a0='))]).toEqual([0, ['a0=80200000']]);
  });
});

describe('software errors', () => {
  function broken() {
    const m = machine();
    const { path } = m.node();
    const t = m.task();
    const { portal } = openPortal(t, path);
    const at = t.alloc(4096);
    const high = Math.floor(portal / 2 ** 32);
    const go = (): void => {
      t.writeStruct(at, Uint32Array.of(0, 0x7f << 24, ...new Array(14).fill(0)));
      t.movdir64b(high, portal | 0, Math.floor(at / 2 ** 32), at | 0);
      m.run();
    };
    return { m, go };
  }
  test('an error without a record is logged by the interrupt, and cleared so that the next one is seen', () => {
    const { m, go } = broken();
    const heard: number[] = [];
    const stop = m.driver.onSoftwareError((record) => void heard.push(record.error as number));
    go();
    go();
    stop();
    go();
    expect(m.driver.softwareErrors).toHaveLength(3);
    expect(m.driver.softwareErrors[0]).toMatchObject({ valid: 1, overflow: 0, error: 0x10, wq: 0, operation: 0x7f });
    expect(heard).toEqual([0x10, 0x10]);
    const { mmio } = m.pci.bars.get(0)!;
    expect(SwError.get.valid(Uint32Array.of(mmio.read(Register.swError, 4)), 0)).toBe(0);
    expect(mmio.read(Register.intCause, 4)).toBe(0);
  });
  test('at most 256 are kept, the newest', () => {
    const { m, go } = broken();
    for (let i = 0; i < 260; i++) go();
    expect(m.driver.softwareErrors).toHaveLength(256);
  });
});

describe('completion interrupts', () => {
  function queue() {
    const m = machine({ config: { wqs: [{ ...wq, size: 64 }] } });
    const { path } = m.node();
    const t = m.task();
    const { portal } = openPortal(t, path);
    const pasid = t.mm.pasid;
    const nop = (handle: number, depth = 1, address = portal): number => {
      const client = new Client(t, { address, mode: 'dedicated' }, { depth, interruptHandle: handle });
      client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(0);
      m.run();
      return client.poll(0);
    };
    return { m, t, portal, pasid, nop, w: m.driver.wqs[0]! };
  }
  test('the first is an MSI-X vector of the queue, for its PASID; the next are IMS slots', () => {
    const { m, w, pasid } = queue();
    const all = [0, 1, 2].map(() => m.driver.completionInterrupt(w, pasid, () => {})!);
    expect(all.map(({ handle, ims }) => [handle, ims])).toEqual([
      [1, false],
      [0, true],
      [1, true],
    ]);
    expect(m.driver.completionInterrupt(w, pasid, () => {}, 'msix')).toBeUndefined();
    for (const one of all) one.free();
    expect(m.driver.completionInterrupt(w, pasid, () => {}, 'msix')!.handle).toBe(1);
  });
  test('it comes once per descriptor that asks for it, and not after it was freed', () => {
    const { m, w, pasid, nop } = queue();
    let count = 0;
    const irq = m.driver.completionInterrupt(w, pasid, () => count++)!;
    expect([nop(irq.handle), count, nop(irq.handle), count]).toEqual([1, 1, 1, 2]);
    irq.free();
    irq.free();
    expect([nop(irq.handle), count]).toEqual([0x19, 2]);
  });
  test('a handle for another PASID is refused by the device: invalid interrupt handle', () => {
    const { m, w, pasid, nop } = queue();
    let count = 0;
    const irq = m.driver.completionInterrupt(w, pasid + 1, () => count++)!;
    expect([nop(irq.handle), count]).toEqual([0x19, 0]);
  });
  test('an IMS slot is used through the IMS half of the portal', () => {
    const { m, t, w, pasid, nop } = queue();
    let count = 0;
    const irq = m.driver.completionInterrupt(w, pasid, () => count++, 'ims')!;
    const area = t.mm.mmap(0, 4096, 3, 1, { map: (a) => (a.insert(0, m.driver.portalFrame(w, irq.ims)), 0) });
    expect([irq.ims, nop(irq.handle, 1, area), count]).toEqual([true, 1, 1]);
    irq.free();
    expect([nop(irq.handle, 1, area), count]).toEqual([0x19, 1]);
  });
});
