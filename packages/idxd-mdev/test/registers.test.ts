/** What can be written, and when. The series' vidxd_mmio_write. */
import * as spec from '@siov/idxd-device/spec';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bound, opened, WQCFG } from './machine.js';

const { Register } = spec;
const GUEST_BITS = 0x3fff_ff00;

describe('WQCFG', () => {
  test("the third dword's PASID bits are writable while the queue is off, all others fixed", () => {
    const m = opened();
    const before = m.words(WQCFG, 32);
    for (const value of [0xffff_ffff, 0]) {
      for (let at = 0; at < 32; at += 4) m.write(WQCFG + at, value);
      const expected = before.slice();
      expected[2] = ((before[2]! & ~GUEST_BITS) | (value & GUEST_BITS)) >>> 0;
      expect(m.words(WQCFG, 32)).toEqual(expected);
    }
  });
  test('nothing of it is writable while the queue is on', () => {
    const m = bound();
    m.queueOn();
    const before = m.words(WQCFG, 32);
    for (let at = 0; at < 32; at += 4) m.write(WQCFG + at, ~before[at / 4]!);
    expect(m.words(WQCFG, 32)).toEqual(before);
  });
  test('says the size and limits of the queue behind it, dedicated', () => {
    const m = opened();
    expect(spec.WqCfg.json(m.words(WQCFG, 32), 0)).toMatchObject({ size: 16, mode: 'dedicated', pasidEnable: 0, state: 'disabled' });
    expect(spec.WqCap.json(m.words(Register.wqCap, 8), 0)).toMatchObject({ totalSize: 16, count: 1, dedicatedMode: 1, sharedMode: 0 });
    expect(spec.GroupCfg.get.wqs(m.words(0x400, 64), 0)).toBe(1);
    expect(spec.GenCap.json(m.words(Register.genCap, 8), 0)).toMatchObject({ configurationSupport: 0, imsUnits: 0, eventLogSize: 0 });
  });
});

test('GENCFG is writable while the device is disabled only', () => {
  const m = opened();
  m.write(Register.genCfg, 0x1005);
  expect(m.read(Register.genCfg)).toBe(0x1005);
  m.enable();
  m.write(Register.genCfg, 0);
  expect(m.read(Register.genCfg)).toBe(0x1005);
});

test('INTCAUSE and the first two bits of SWERROR clear by writing ones', () => {
  const m = bound();
  m.queueOn();
  m.write(Register.genCtrl, 3);
  m.busMaster(false);
  expect([m.read(Register.intCause), m.swError().valid]).toEqual([0x11, 1]);
  m.write(Register.intCause, 0);
  m.write(Register.swError, 0xffff_fffc);
  expect([m.read(Register.intCause), m.swError().valid]).toEqual([0x11, 1]);
  m.write(Register.intCause, 0x10);
  m.write(Register.swError, 3);
  expect([m.read(Register.intCause), m.swError().valid, m.swError().error]).toEqual([1, 0, 0x51]);
});

test('capabilities, groups, status and CMDSTS are fixed', () => {
  const m = opened();
  const offsets = [0x00, 0x10, 0x14, 0x20, 0x24, 0x30, 0x38, 0x40, 0x5c, 0x60, 0x68, 0x90, 0xa8, 0xb0, 0x400, 0x420, 0x428];
  const before = offsets.map((at) => m.read(at));
  for (const at of offsets) m.write(at, ~m.read(at));
  expect(offsets.map((at) => m.read(at))).toEqual(before);
});

test('any reads and writes on any region, mapped or not: answers, never an exception, and the parent stays as it is', () => {
  const access = fc.record({
    region: fc.integer({ min: 0, max: 9 }),
    offset: fc.oneof(fc.integer({ min: 0, max: 0x2100 }), fc.constantFrom(4, 0x40, 0x42, 0x58, 0x80, 0x88, 0x98, 0xa0, 0xc0, 0x308, 0x508, 0x600)),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 80 }),
    write: fc.boolean(),
  });
  const m = bound();
  const used = m.frames.used;
  const started = m.words(0, 0x300);
  fc.assert(
    fc.property(fc.array(access, { maxLength: 40 }), fc.boolean(), (accesses, on) => {
      if (on) m.queueOn();
      for (const { region, offset, bytes, write } of accesses) {
        const at = region * 2 ** 40 + offset;
        const result = write ? m.client.pwrite(m.fd, bytes, at) : m.client.pread(m.fd, bytes.length, at).result;
        expect(result).toBeLessThanOrEqual(bytes.length);
      }
      m.run();
      expect(m.task.ioctl(m.fd, 0x3b6f, 0)).toBe(0);
      expect(m.words(0, 0x300)).toEqual(started);
      expect([m.driver.halted, m.driver.enabled, m.vdev.hostPasids.size]).toEqual([false, true, 1]);
    }),
    { numRuns: 150 },
  );
  expect(m.frames.used).toBe(used);
});
