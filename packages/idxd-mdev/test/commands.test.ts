/** Administrative commands through BAR 0, by pread and pwrite. Linux drivers/dma/idxd/registers.h; the series' vidxd_do_command. */
import * as spec from '@siov/idxd-device/spec';
import { describe, expect, test } from 'vitest';
import { bound, hostWords, machine, opened } from './machine.js';

const { Command, CommandStatus: Status, Register } = spec;
const cause = (m: { read(offset: number): number }) => spec.IntCause.json(Uint32Array.of(m.read(Register.intCause)), 0);
const wqState = (m: { read(offset: number): number }) => spec.WqCfg.get.state(Uint32Array.of(0, 0, 0, 0, 0, 0, m.read(0x518), 0), 0);

describe('what each command answers', () => {
  type Row = [rule: string, before: (m: ReturnType<typeof bound>) => void, code: number, operand: number, status: number];
  const off = () => {};
  const on = (m: ReturnType<typeof bound>) => void m.enable();
  const wq = (m: ReturnType<typeof bound>) => void m.queueOn();
  const bare = (m: ReturnType<typeof bound>) => {
    m.detach();
    m.enable();
  };
  test.each<Row>([
    ['codes that are no commands', off, 0, 0, Status.invalidCommand],
    ['codes that are no commands', on, 15, 0, Status.invalidCommand],
    ['codes that are no commands', on, 31, 0, Status.invalidCommand],
    ['enable device needs bus mastering', off, Command.enableDevice, 0, Status.busMaster],
    ['enable device once', on, Command.enableDevice, 0, Status.deviceEnabled],
    ['disable device', on, Command.disableDevice, 0, Status.success],
    ['disable device needs an enabled one', off, Command.disableDevice, 0, Status.deviceNotEnabledForDisable],
    ['drain all', wq, Command.drainAll, 0, Status.success],
    ['drain all needs an enabled device', off, Command.drainAll, 0, Status.deviceNotEnabledForDisable],
    ['abort all', wq, Command.abortAll, 0, Status.success],
    ['abort all needs an enabled device', off, Command.abortAll, 0, Status.deviceNotEnabledForDisable],
    ['reset device always', off, Command.resetDevice, 0, Status.success],
    ['enable WQ needs an enabled device', off, Command.enableWq, 0, Status.deviceNotEnabled],
    ['enable WQ knows queue 0 only', on, Command.enableWq, 1, Status.invalidWq],
    ['enable WQ', on, Command.enableWq, 0, Status.success],
    ['enable WQ once', wq, Command.enableWq, 0, Status.wqEnabled],
    ['enable WQ without anything attached', bare, Command.enableWq, 0, Status.wqPasidEnable],
    ['disable WQ', wq, Command.disableWq, 1, Status.success],
    ['disable WQ needs an enabled one', on, Command.disableWq, 1, Status.wqNotEnabled],
    ['disable WQ names queue 0 only', wq, Command.disableWq, 2, Status.invalidWq],
    ['disable WQ names queue 0 only', wq, Command.disableWq, 0x1_0001, Status.invalidWq],
    ['drain WQ', wq, Command.drainWq, 1, Status.success],
    ['drain WQ needs an enabled one', on, Command.drainWq, 1, Status.wqNotEnabled],
    ['drain WQ names queue 0 only', wq, Command.drainWq, 3, Status.invalidWq],
    ['abort WQ', wq, Command.abortWq, 1, Status.success],
    ['abort WQ needs an enabled one', on, Command.abortWq, 1, Status.wqNotEnabled],
    ['reset WQ', wq, Command.resetWq, 1, Status.success],
    ['reset WQ needs an enabled one', on, Command.resetWq, 1, Status.wqNotEnabled],
    ['drain PASID needs an enabled device', off, Command.drainPasid, 5, Status.deviceNotEnabledForDisable],
    ['drain PASID knows attached ones', on, Command.drainPasid, 5, Status.pasidInvalid],
    ['abort PASID knows attached ones', on, Command.abortPasid, 5, Status.pasidInvalid],
    ['vector 0 has no handle', on, Command.requestInterruptHandle, 0, Status.interruptTableIndex],
    ['there are two vectors', on, Command.requestInterruptHandle, 2, Status.interruptTableIndex],
    ['the device has no IMS of its own', on, Command.requestInterruptHandle, 0x1_0001, Status.noInterruptHandle],
    ['a vector of nobody', bare, Command.requestInterruptHandle, 1, Status.noInterruptHandle],
    ['a handle that was not given', on, Command.releaseInterruptHandle, 0, Status.interruptHandleNotAllocated],
  ])('%s', (_rule, before, code, operand, status) => {
    const m = bound();
    before(m);
    expect(m.command(code, operand).error).toBe(status);
  });
});

test('CMDCAP announces commands 1 to 14, and GENCAP that it does', () => {
  const m = opened();
  expect([m.read(Register.cmdCap), spec.GenCap.get.commandCapabilities(m.words(Register.genCap, 8), 0)]).toEqual([0x7ffe, 1]);
});

test('enable WQ switches the queue of the parent on, with the host PASID of what is attached; disable switches it off', () => {
  const m = bound();
  expect(m.queueOn()).toBe(0);
  const host = hostWords(m, 'wqConfig', 0);
  const { get, is } = spec.WqCfg;
  expect([get.state(host, 0), get.pasidEnable(host, 0), get.pasid(host, 0)]).toEqual([is.state.enabled, 1, m.vdev.hostPasids.get(-1)]);
  expect(wqState(m)).toBe(is.state.enabled);
  // The guest's own WQCFG does not show the host's number.
  expect(get.pasid(Uint32Array.of(0, 0, m.read(0x508), 0, 0, 0, 0, 0), 0)).toBe(0);
  m.command(Command.disableDevice);
  expect([get.state(hostWords(m, 'wqConfig', 0), 0), wqState(m), m.driver.wqs[0]!.enabled]).toEqual([0, 0, false]);
});

test('reset device: registers as at the start, the queue of the parent off, the handle and its slot free; vector permissions stay', () => {
  const m = bound();
  m.write(Register.genCfg, 0x1000);
  m.queueOn();
  m.write(Register.genCtrl, 3);
  m.write(Register.genCfg, 0);
  expect(m.handle().error).toBe(0);
  m.write(0x300, 0x5008);
  m.command(Command.resetDevice);
  expect([m.state(), wqState(m), m.read(Register.genCtrl), m.read(Register.genCfg), m.read(0x300), m.driver.wqs[0]!.enabled]).toEqual([
    ...[0, 0, 0, 0],
    0x5008,
    false,
  ]);
  m.enable();
  expect(m.command(Command.releaseInterruptHandle, 0).error).toBe(Status.interruptHandleNotAllocated);
});

describe('interrupt handles', () => {
  test('a handle is the number of the slot of the parent, whose control word has the host PASID', () => {
    const m = machine({ queues: 2 });
    const [one, two] = [bound(m, 0), bound(m, 1)];
    const handles = [one, two].map((each) => (each.enable(), each.handle()));
    expect(handles.map((each) => each.error)).toEqual([0, 0]);
    expect(handles[0]!.result).not.toBe(handles[1]!.result);
    for (const [i, each] of [one, two].entries()) {
      const slot = hostWords(m, 'ims', handles[i]!.result);
      const { get } = spec.ImsEntry;
      expect([get.masked(slot, 0), get.pasidEnable(slot, 0), get.pasid(slot, 0)]).toEqual([0, 1, each.vdev.hostPasids.get(-1)]);
    }
    // What one has the other cannot release.
    expect(two.command(Command.releaseInterruptHandle, handles[0]!.result).error).toBe(Status.interruptHandleNotAllocated);
    expect(one.command(Command.releaseInterruptHandle, handles[0]!.result | 0x1_0000).error).toBe(Status.interruptHandleNotAllocated);
    expect(one.command(Command.releaseInterruptHandle, handles[0]!.result).error).toBe(0);
    expect(one.command(Command.releaseInterruptHandle, handles[0]!.result).error).toBe(Status.interruptHandleNotAllocated);
    expect(spec.ImsEntry.get.masked(hostWords(m, 'ims', handles[0]!.result), 0)).toBe(1);
  });
  test('asked again it is the same; asked for another PASID the slot has that one', () => {
    const m = bound();
    m.attach(m.arenaSpace, 7);
    m.enable();
    const first = m.handle();
    expect(m.handle()).toEqual(first);
    const second = m.handle(7);
    expect(second.error).toBe(0);
    expect(spec.ImsEntry.get.pasid(hostWords(m, 'ims', second.result), 0)).toBe(m.vdev.hostPasids.get(7));
    expect(m.handle(8).error).toBe(Status.noInterruptHandle);
  });
});

describe('command completion', () => {
  test('with the interrupt bit: cause, and vector 0; without it neither', () => {
    const m = opened();
    const [zero, one] = m.eventFds();
    m.busMaster(true);
    m.command(Command.enableDevice, 0, 0);
    expect([cause(m).commandDone, m.client.count(zero)]).toEqual([0, 0]);
    m.command(Command.enableDevice, 0, 1);
    expect([cause(m).commandDone, m.client.count(zero), m.client.count(one)]).toEqual([1, 1, 0]);
    m.write(Register.intCause, 2);
    expect(cause(m).commandDone).toBe(0);
  });
  test('CMD takes one 32-bit store; pieces do nothing', () => {
    const m = opened();
    m.busMaster(true);
    for (const [at, byte] of [0, 0, 0x10, 0x80].entries()) m.client.pwrite(m.fd, Uint8Array.of(byte), Register.cmd + at);
    m.client.pwrite(m.fd, Uint8Array.of(0x10, 0x80), Register.cmd + 2);
    expect([m.state(), cause(m).commandDone]).toEqual([0, 0]);
  });
});

describe('losing bus mastering while enabled', () => {
  test('halts: software error 0x51, cause, reset type FLR, vector 0; every command fails with 0x03 until a function level reset', () => {
    const m = bound();
    const [zero] = m.eventFds();
    m.queueOn();
    m.write(Register.genCtrl, 3);
    m.busMaster(false);
    const status = spec.GenSts.json(Uint32Array.of(m.read(Register.genSts)), 0);
    expect(status).toMatchObject({ state: 'halt', reset: 'functionLevel' });
    expect(m.swError()).toMatchObject({ valid: 1, overflow: 0, error: 0x51, wqValid: 0, pasid: 0 });
    expect([cause(m).halt, cause(m).softwareError, m.client.count(zero), m.driver.wqs[0]!.enabled]).toEqual([1, 1, 2, false]);
    m.busMaster(true);
    for (const code of [Command.enableDevice, Command.resetDevice, Command.drainAll]) expect(m.command(code).error).toBe(Status.hardwareError);
    m.configWrite(m.vdev.function.at.pcie + 8, 0x8000);
    expect(m.queueOn()).toBe(0);
  });
  test('of a disabled device is nothing', () => {
    const m = opened();
    m.busMaster(true);
    m.busMaster(false);
    expect([m.state(), m.read(Register.swError)]).toEqual([0, 0]);
  });
});
