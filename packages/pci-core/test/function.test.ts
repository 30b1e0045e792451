import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { config, enumerate, MsixTable } from '../src/index.js';
import { machine, ram } from './machine.js';

describe('configuration space', () => {
  test.each([4096, 0x4000, 0x10_0000, 0x1000_0000])('a BAR of %i bytes reads its size back after all ones', (bytes) => {
    const { fn } = machine({ bars: { 0: { bytes: 0x1_0000, mmio: ram(16) }, 4: { bytes, mmio: ram(16) } } });
    fn.configWrite(0x20, 4, 0xffff_ffff);
    fn.configWrite(0x24, 4, 0xffff_ffff);
    expect((~(fn.configRead(0x20, 4) & ~0xf) + 1) >>> 0).toBe(bytes);
    expect(fn.configRead(0x24, 4)).toBe(0xffff_ffff);
  });

  test('read-only and reserved bits survive every write', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(1023), fc.nat(0xffff_ffff)), { maxLength: 50 }), (writes) => {
        const { fn } = machine();
        const before = fn.config.slice();
        for (const [word, value] of writes) if (word * 4 !== 0x58) fn.configWrite(word * 4, 4, value);
        const fixed: [number, number][] = [
          [0, 4],
          [8, 4],
          [0x2c, 4],
          [0x34, 1],
          [fn.at.pasid, 6],
          [fn.at.ats, 6],
          [fn.at.siov, 16],
        ];
        for (const [at, n] of fixed) expect([...fn.config.subarray(at, at + n)]).toEqual([...before.subarray(at, at + n)]);
      }),
    );
  });

  test('Initiate Function Level Reset reads 0 and restores every byte', () => {
    const { fn } = machine();
    const before = fn.config.slice();
    let resets = 0;
    fn.listener = { functionLevelReset: () => void resets++ };
    fn.configWrite(4, 2, 6);
    fn.configWrite(fn.at.pasid + 6, 2, 1);
    fn.configWrite(fn.at.pcie + 8, 2, 0x8000);
    expect([...fn.config]).toEqual([...before]);
    expect(resets).toBe(1);
    expect(fn.pasidEnabled).toBe(false);
  });

  test('PRI reports stopped until it is enabled', () => {
    const { fn } = machine();
    expect(fn.configRead(fn.at.pri + 6, 2)).toBe(0x8100);
    fn.configWrite(fn.at.pri + 4, 2, 1);
    expect(fn.configRead(fn.at.pri + 6, 2)).toBe(0x8000);
  });
});

describe('enumeration', () => {
  test('places every BAR aligned, apart and inside the window, and reaches the registers', () => {
    const { root, window, ioremap, mapped } = machine();
    const [device] = enumerate({ ecam: root, window, ioremap });
    expect([device!.vendorId, device!.deviceId, device!.name]).toEqual([0x8086, 0x0b25, '0000:00:01.0']);
    expect(mapped.size).toBe(2);
    for (const { address, bytes } of device!.bars.values()) expect(address % bytes).toBe(0);
    device!.bars.get(2)!.mmio.write(8, 4, 0x1234);
    expect(device!.bars.get(2)!.mmio.read(8, 4)).toBe(0x1234);
    expect(device!.capability(config.Capability.msix)).toBe(0x40);
    expect(device!.enableSva()).toEqual({ pasid: true, ats: true, pri: true });
  });

  test('a BAR programmed outside the window, or over another, decodes nothing', () => {
    const { root, fn, window, ioremap, mapped } = machine();
    const [device] = enumerate({ ecam: root, window, ioremap });
    fn.configWrite(0x10, 4, 0x1000);
    expect(mapped.size).toBe(1);
    fn.configWrite(0x10, 4, device!.bars.get(2)!.address);
    expect(mapped.size).toBe(1);
  });

  test('turning memory decoding off takes the BARs out of the address map', () => {
    const { root, window, ioremap, mapped } = machine();
    const [device] = enumerate({ ecam: root, window, ioremap });
    device!.command({ memory: false });
    expect(mapped.size).toBe(0);
  });
});

describe('MSI-X', () => {
  const setup = () => {
    const sent: [number, number][] = [];
    const msix = new MsixTable(4);
    msix.send = (address, data) => sent.push([address >>> 0, data]);
    msix.table.write(16, 4, 0xfee0_1000);
    msix.table.write(24, 4, 0x31);
    return { msix, sent };
  };
  test('an event of a masked vector is pending and is sent once when it is unmasked', () => {
    const { msix, sent } = setup();
    msix.control(true, false);
    msix.fire(1);
    expect([sent.length, msix.pba.read(0, 4)]).toEqual([0, 2]);
    msix.table.write(28, 4, 0);
    msix.table.write(28, 4, 1);
    msix.table.write(28, 4, 0);
    expect([sent, msix.pba.read(0, 4)]).toEqual([[[0xfee0_1000, 0x31]], 0]);
  });
  test('the function mask holds all vectors back', () => {
    const { msix, sent } = setup();
    msix.table.write(28, 4, 0);
    msix.control(true, true);
    msix.fire(1);
    expect(sent).toEqual([]);
    msix.control(true, false);
    expect(sent).toHaveLength(1);
  });
  test('nothing is sent or kept while MSI-X is off', () => {
    const { msix, sent } = setup();
    msix.table.write(28, 4, 0);
    msix.fire(1);
    msix.control(true, false);
    expect([sent.length, msix.pba.read(0, 4)]).toEqual([0, 0]);
  });
  test('the pending bits are read-only, entries of other widths ignored', () => {
    const { msix } = setup();
    msix.pba.write(0, 4, 0xf);
    msix.table.write(0, 2, 0xffff);
    expect([msix.pba.read(0, 4), msix.table.read(0, 4)]).toEqual([0, 0]);
  });
});
