import { Register } from '@siov/idxd-device/spec';
import { describe, expect, test } from 'vitest';
import { machine } from './machine.js';

/** Accesses of the driver, from probe on; tables by name, since where they are is the device's to say. */
function transcript(config?: Parameters<typeof machine>[0]) {
  const log: string[] = [];
  const m = machine({ config: undefined, ...config, access: (access) => void log.push(access) });
  return { ...m, log, take: () => log.splice(0) };
}
const at = (log: readonly string[], access: string | RegExp): number =>
  log.findIndex((line) => (typeof access === 'string' ? line === access : access.test(line)));
/** The accesses that are there, each after the one before; what is missing or early shows as -1. */
const inOrder = (log: readonly string[], ...accesses: (string | RegExp)[]): number[] => {
  let from = 0;
  return accesses.map((access) => {
    const found = at(log.slice(from), access);
    if (found >= 0) from += found + 1;
    return found >= 0 ? 0 : -1;
  });
};

describe('probe', () => {
  test('goes the way of Linux: version, state, reset by polling, capabilities, offsets, vector 0, error interrupts', () => {
    const { log, probed } = transcript();
    const steps = [
      'command memory busMaster',
      'r4 0x0',
      'r4 0x90',
      'w4 0xa0=0x500000',
      'r4 0xa8',
      'r4 0x10',
      'r4 0x14',
      'r4 0x30',
      'r4 0x38',
      'r4 0x20',
      'r4 0x40',
      'r4 0x58',
      'r4 0x60',
      'r4 0x68',
      /^config w2 0x[0-9a-f]+=0x8...$/,
      'r4 0x88',
      'w4 0x88=0x3',
    ];
    expect(probed).toBe(0);
    expect(inOrder(log, ...steps), log.join('\n')).toEqual(steps.map(() => 0));
  });
  test('the reset command has no interrupt bit and its status is read until it is not active; nothing else is touched before', () => {
    const { log } = transcript();
    const registers = log.filter((line) => /^[rw]4/.test(line));
    expect(registers.slice(0, 4)).toEqual(['r4 0x0', 'r4 0x90', 'w4 0xa0=0x500000', 'r4 0xa8']);
    const polls = registers.slice(3);
    expect(polls.findIndex((line) => line !== 'r4 0xa8')).toBeGreaterThan(0);
    expect(polls[polls.findIndex((line) => line !== 'r4 0xa8')]).toBe('r4 0x10');
  });
  test('CMDCAP is read only when GENCAP says that it is there', () => {
    expect(transcript().log).not.toContain(`r4 0x${Register.cmdCap.toString(16)}`);
  });
  test('what it found is what the device has', () => {
    const { capabilities, wqs, enabled } = transcript().driver;
    expect(capabilities).toMatchObject({ wqs: 8, totalWqSize: 128, groups: 4, engines: 4, imsEntries: 2048, configurable: true, version: 0x100 });
    expect([wqs, enabled, capabilities.commands]).toEqual([[], false, 0x1ffe]);
  });
});

describe('enabling', () => {
  const one = { wqs: [{ mode: 'dedicated', size: 16, group: 0 } as const] };
  test('tables are written, then the command with its interrupt bit; INTCAUSE is read and written back before CMDSTS is read', () => {
    const { driver, take } = transcript();
    take();
    expect(driver.configure(one)).toEqual({ error: 0, why: '' });
    const log = take();
    const command = log.indexOf('w4 0xa0=0x80100000');
    const after = log.slice(command + 1);
    expect(after, log.join('\n')).toEqual(['r4 0x98', 'w4 0x98=0x2', 'r4 0xa8']);
    expect(log.slice(0, command).every((line) => /^w4 0x[0-9a-f]{3,}=/.test(line))).toBe(true);
  });
  test('a queue: WQCFG, then command 6 with the index of the queue and the interrupt bit', () => {
    const { driver, take } = transcript({ config: { wqs: [one.wqs[0]!, { ...one.wqs[0]!, mode: 'shared' }] } });
    take();
    expect(driver.enableWq(driver.wqs[1]!)).toBe(0);
    expect(take().filter((line) => /^w4 0xa0|0x98|0xa8/.test(line))).toEqual(['w4 0xa0=0x80600001', 'r4 0x98', 'w4 0x98=0x2', 'r4 0xa8']);
  });
  test('a queue off: drain (8), then reset (10), by its bit', () => {
    const { driver, take } = transcript({ config: one });
    driver.enableWq(driver.wqs[0]!);
    take();
    expect(driver.disableWq(driver.wqs[0]!)).toBe(0);
    expect(take().filter((line) => line.startsWith('w4 0xa0'))).toEqual(['w4 0xa0=0x80800001', 'w4 0xa0=0x80a00001']);
  });
});
