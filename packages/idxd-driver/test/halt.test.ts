import { GenSts, Opcode, Register } from '@siov/idxd-device/spec';
import { Errno, Open } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import { commandText, type Mmio } from '../src/index.js';
import { machine, openPortal, sysfsOf } from './machine.js';

type Reset = keyof typeof GenSts.is.reset;
/** Two queues that are open, on a device that halts when its bus mastering goes; it then asks for `reset`. */
function world(reset: Reset = 'functionLevel', extra: { readonly flr?: boolean } = {}) {
  const commands: number[] = [];
  const registers = (mmio: Mmio): Mmio => ({
    read(offset, width) {
      const word = Uint32Array.of(mmio.read(offset, width));
      if (offset === Register.genSts && GenSts.get.state(word, 0) === GenSts.is.state.halt) GenSts.set.reset(word, 0, GenSts.is.reset[reset]);
      return word[0]!;
    },
    write(offset, width, value) {
      if (offset === Register.cmd) commands.push((value >>> 20) & 31);
      mmio.write(offset, width, value);
    },
  });
  const m = machine({
    config: {
      wqs: [
        { mode: 'dedicated', size: 16, group: 0, name: 'd' },
        { mode: 'shared', size: 16, group: 0, name: 's' },
      ],
    },
    registers,
    ...(extra.flr === false ? { access: () => {} } : {}),
  });
  if (extra.flr === false) Object.assign(m.pci, { functionLevelReset: undefined });
  const queues = (['dedicated', 'shared'] as const).map((mode, i) => {
    const { path } = m.node(m.driver.wqs[i]);
    const t = m.task();
    const { fd, portal } = openPortal(t, path);
    const client = new Client(t, { address: portal, mode }, { depth: 1 });
    const nop = (): number => {
      client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(0);
      m.run();
      return client.poll(0);
    };
    const unmapAndClose = (): void => {
      t.munmap(portal, 4096);
      t.close(fd);
    };
    return { path, t, fd, nop, unmapAndClose };
  });
  const halt = (): void => m.pci.command({ busMaster: false });
  const works = (): number[] => queues.map((queue) => queue.nop());
  return { ...m, ...sysfsOf(m), queues, halt, works, commands };
}

describe('a device whose bus mastering is taken', () => {
  test('halts, and cannot say so: the driver sees it when a command is refused, or when it looks', () => {
    const w = world();
    expect(w.works()).toEqual([1, 1]);
    w.halt();
    expect([w.driver.halted, w.get('dsa0/state')]).toEqual([false, 'enabled']);
    expect([w.driver.drainWq(w.driver.wqs[1]!), w.driver.halted, commandText(w.driver.commandStatus)]).toEqual([-Errno.ENXIO, true, 'hardwareError']);
    expect([w.get('dsa0/state'), w.get('wq0.0/state'), w.get('wq0.1/state')]).toEqual(['halted', 'disabled', 'disabled']);
    const other = world();
    other.halt();
    expect([other.driver.checkHalt(), other.driver.checkHalt(), other.driver.halted]).toEqual([true, true, true]);
  });
  test('leaves why in SWERROR, which is read with the state', () => {
    const w = world();
    w.halt();
    w.driver.checkHalt();
    expect(w.driver.softwareErrors.map((record) => record.error)).toEqual([0x51]);
    expect(w.get('dsa0/errors')).toMatch(/5101$/);
  });
  test('refuses everything until it is reset: open, enable, bind, configure', () => {
    const w = world();
    w.halt();
    w.driver.checkHalt();
    expect([
      w.task().open(w.queues[1]!.path, Open.RDWR),
      w.driver.enable(),
      w.driver.enableWq(w.driver.wqs[0]!),
      w.driver.configure({ wqs: [] }).error,
      w.bind('user', 'wq0.0'),
      w.bind('idxd', 'dsa0'),
    ]).toEqual([-Errno.ENXIO, -Errno.ENXIO, -Errno.ENXIO, -Errno.ENXIO, -Errno.ENXIO, -Errno.EBUSY]);
  });
});

describe.each(['software', 'functionLevel'] as const)('recovery by a reset of type %s', (reset) => {
  test('brings configuration, queues and their PASIDs back: programs go on with the portals that they have', () => {
    const w = world(reset);
    w.halt();
    w.driver.checkHalt();
    w.commands.length = 0;
    if (reset === 'software') w.pci.command({ busMaster: true });
    expect(w.driver.recover()).toBe(0);
    expect(w.commands).toEqual([...(reset === 'software' ? [5] : []), 1, 6, 6]);
    expect([w.get('dsa0/state'), w.get('wq0.0/state'), w.get('wq0.1/state'), w.get('wq0.0/size')]).toEqual(['enabled', 'enabled', 'enabled', '16']);
    expect(w.works()).toEqual([1, 1]);
    for (const { t, fd } of w.queues) expect(t.close(fd)).toBe(0);
  });
  test('commands and errors interrupt again, and so do completions', () => {
    const w = world(reset);
    let count = 0;
    const { t, path } = w.queues[0]!;
    const irq = w.driver.completionInterrupt(w.driver.wqs[0]!, t.mm.pasid, () => count++)!;
    const ims = w.driver.completionInterrupt(w.driver.wqs[0]!, t.mm.pasid, () => (count += 10), 'ims')!;
    w.halt();
    w.driver.checkHalt();
    if (reset === 'software') w.pci.command({ busMaster: true });
    expect(w.driver.recover()).toBe(0);
    const portal = (inIms: boolean): number =>
      t.mm.mmap(0, 4096, 3, 1, { map: (a) => (a.insert(0, w.driver.portalFrame(w.driver.wqs[0]!, inIms)), 0) });
    for (const { handle, ims: inIms } of [irq, ims]) {
      const client = new Client(t, { address: portal(inIms), mode: 'dedicated' }, { depth: 1, interruptHandle: handle });
      client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(0);
      w.run();
      expect(client.poll(0)).toBe(1);
    }
    expect([count, w.pci.bars.get(0)!.mmio.read(Register.genCtrl, 4), path]).toEqual([11, 3, '/dev/dsa/wq0.0']);
    expect([w.driver.drainWq(w.driver.wqs[0]!), w.driver.commandStatus]).toEqual([0, 0]);
  });
  const down = (): ReturnType<typeof world> => {
    const w = world(reset);
    w.halt();
    w.driver.checkHalt();
    if (reset === 'software') w.pci.command({ busMaster: true });
    return w;
  };
  test('a queue that was closed meanwhile stays off, and free for the next', () => {
    const w = down();
    w.queues[0]!.unmapAndClose();
    expect([w.driver.recover(), w.get('wq0.0/state'), w.get('wq0.1/state'), w.get('wq0.0/clients')]).toEqual([0, 'disabled', 'enabled', '0']);
    expect(w.task().open(w.queues[0]!.path, Open.RDWR)).toBeGreaterThanOrEqual(0);
  });
  test('a device that was unbound meanwhile is reset and stays disabled', () => {
    const w = down();
    expect(w.unbind('idxd', 'dsa0')).toBe(0);
    expect([w.driver.recover(), w.get('dsa0/state'), w.driver.halted]).toEqual([0, 'disabled', false]);
    expect(w.driver.configure({ wqs: [{ mode: 'dedicated', size: 128, group: 0 }] }).why).toBe('');
  });
});

describe('a device that cannot be brought back', () => {
  test.each(['warm', 'cold'] as const)('because it needs a %s reset of the system: ENXIO', (reset) => {
    const w = world(reset);
    w.halt();
    expect([w.driver.recover(), w.driver.halted, w.commands.includes(5, 5)]).toEqual([-Errno.ENXIO, true, false]);
  });
  test('because the bus has no function level reset: EOPNOTSUPP', () => {
    const w = world('functionLevel', { flr: false });
    w.halt();
    expect([w.driver.recover(), w.driver.halted]).toEqual([-Errno.EOPNOTSUPP, true]);
  });
  test('because bus mastering is still off after a software reset: ENXIO, disabled, and nothing configured is left', () => {
    const w = world('software');
    w.halt();
    expect([w.driver.recover(), w.driver.halted, w.get('dsa0/state'), w.get('wq0.0/size')]).toEqual([-Errno.ENXIO, false, 'disabled', '0']);
  });
});

test('recovery of a device that did not halt does nothing', () => {
  const w = world();
  w.commands.length = 0;
  expect([w.driver.recover(), w.commands, w.works()]).toEqual([0, [], [1, 1]]);
});
