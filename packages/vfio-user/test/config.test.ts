/**
 * Configuration space of a PCI function behind the socket, as a VMM reads and writes it. libvfio-user's own test suite builds capabilities through its
 * library (test_pci_caps, test_pci_ext_caps, test_quiesce's resets); here the device has them. PCI Express Base Specification; linux/pci_regs.h.
 */
import { afterAll, expect, test } from 'vitest';
import { native } from '../src/native.js';
import { bare } from './machine.js';

const CONFIG = 7;
let cases = 0;
afterAll(() => console.log(`cases of configuration space: ${cases}`));

function machine() {
  const world = bare();
  const client = world.connect();
  const read = (offset: number, width = 4, region = CONFIG): number =>
    [...client.regionRead(region, offset, width)].reduce((value, byte, i) => value + byte * 2 ** (8 * i), 0);
  const write = (offset: number, width: number, value: number, region = CONFIG): void =>
    client.regionWrite(
      region,
      offset,
      Uint8Array.from({ length: width }, (_, i) => (value / 2 ** (8 * i)) & 0xff),
    );
  const capability = (id: number): number => {
    for (let at = read(0x34, 1); at >= 0x40; at = read(at + 1, 1)) if (read(at, 1) === id) return at;
    return 0;
  };
  return { ...world, client, read, write, capability };
}
function it(words: string, body: (m: ReturnType<typeof machine>) => void): void {
  cases++;
  test(words, () => {
    const m = machine();
    body(m);
    m.client.close();
    m.settle();
    m.server.close();
  });
}

it('all of it in one read is what single reads give', (m) => {
  const whole = m.client.regionRead(CONFIG, 0, 4096);
  for (let at = 0; at < 4096; at += 256) expect([...m.client.regionRead(CONFIG, at, 4)]).toEqual([...whole.subarray(at, at + 4)]);
});
it('who it is: vendor, device, class', (m) => expect([m.read(0), m.read(8) >>> 8]).toEqual([0x0b25_8086, 0x08_8000]));
it('the status register says that there are capabilities, and there is no interrupt pin', (m) =>
  expect([m.read(6, 2) & 0x10, m.read(0x3d, 1)]).toEqual([0x10, 0]));
it('the chain ends, and has MSI-X, PCI Express and power management', (m) => {
  const found: number[] = [];
  for (let at = m.read(0x34, 1), steps = 0; at >= 0x40 && steps < 48; at = m.read(at + 1, 1), steps++) found.push(m.read(at, 1));
  expect(found).toEqual([0x11, 0x10, 0x01]);
});
it('MSI-X has 9 vectors in BAR 0', (m) => {
  const at = m.capability(0x11);
  expect([(m.read(at + 2, 2) & 0x7ff) + 1, m.read(at + 4) & 7, m.read(at + 8) & 7]).toEqual([9, 0, 0]);
});
it('extended capabilities that are the IOMMU driver’s (ATS, PRI, PASID) are not shown', (m) => {
  const found: number[] = [];
  for (let at = 0x100, steps = 0; at >= 0x100 && steps < 64; steps++) {
    const header = m.read(at);
    if ((header & 0xffff) !== 0) found.push(header & 0xffff);
    at = header >>> 20;
  }
  expect(found).toEqual([0x23]);
});
for (const [bar, bytes] of [
  [0, 0x1_0000],
  [2, 0x2_0000],
] as const)
  it(`BAR ${bar} is sized by all ones: 64 bits, prefetchable, ${bytes} bytes`, (m) => {
    const at = 0x10 + bar * 4;
    const before = [m.read(at), m.read(at + 4)];
    m.write(at, 4, 0xffff_ffff);
    m.write(at + 4, 4, 0xffff_ffff);
    expect([m.read(at), m.read(at + 4)]).toEqual([2 ** 32 - bytes + 0xc, 0xffff_ffff]);
    expect(m.client.regionInfo(bar).size).toBe(bytes);
    m.write(at, 4, before[0]!);
    m.write(at + 4, 4, before[1]!);
    expect([m.read(at), m.read(at + 4)]).toEqual(before);
  });
it('BARs that are not there read as 0 whatever is written', (m) => {
  for (const bar of [4, 5]) m.write(0x10 + bar * 4, 4, 0xffff_ffff);
  expect([m.read(0x20), m.read(0x24), m.read(0x30)]).toEqual([0, 0, 0]);
});
it('ids and capabilities are read only', (m) => {
  const before = [...m.client.regionRead(CONFIG, 0, 256)];
  for (const at of [0, 8, 0x2c, 0x34, 0x40, 0x50, 0x90]) m.write(at, 4, 0x5a5a_5a5a);
  const after = [...m.client.regionRead(CONFIG, 0, 256)];
  for (const at of [0, 1, 2, 3, 9, 10, 11, 0x2c, 0x2d, 0x2e, 0x2f, 0x34, 0x40, 0x41, 0x50, 0x51, 0x90, 0x91]) expect(after[at]).toBe(before[at]);
});
it('memory decoding and bus mastering can be switched', (m) => {
  m.write(4, 2, 0);
  expect(m.read(4, 2) & 6).toBe(0);
  m.write(4, 2, 6);
  expect(m.read(4, 2) & 6).toBe(6);
});
it('registers are not there while memory decoding is off', (m) => {
  m.write(4, 2, 0);
  expect(() => m.client.regionRead(0, 0, 4)).toThrow('REGION_READ: EIO');
  m.write(4, 2, 2);
  expect(m.read(0, 4, 0)).toBe(0x100);
});
it('the interrupt line and the cache line size are the guest’s to write', (m) => {
  m.write(0x3c, 1, 11);
  m.write(0x0c, 1, 16);
  expect([m.read(0x3c, 1), m.read(0x0c, 1)]).toEqual([11, 16]);
});
it('the MSI-X table cannot be read or written through its BAR: interrupts are set up by SET_IRQS', (m) => {
  m.write(0x2000, 4, 0x1234_5678, 0);
  expect(m.read(0x2000, 4, 0)).toBe(0xffff_ffff);
});
it('a vector without an eventfd keeps its event pending, and sends it when it gets one', (m) => {
  m.write(4, 2, 6);
  // Reset device, with the interrupt of its end: vector 0.
  m.write(0xa0, 4, 0x8050_0000, 0);
  m.settle();
  expect(m.read(0x3000, 4, 0)).toBe(0);
  const other = native().eventfd();
  m.client.setIrqs(0x24, 2, 1, 1, [other]);
  m.write(0xa0, 4, 0x8050_0000, 0);
  m.settle();
  expect(m.read(0x3000, 4, 0)).toBe(1);
  const event = native().eventfd();
  m.client.setIrqs(0x24, 2, 0, 1, [event]);
  expect([native().drain(event), native().drain(other), m.read(0x3000, 4, 0)]).toEqual([1, 0, 0]);
  native().close(event);
  native().close(other);
});
it('a function level reset by the PCI Express capability clears the device and leaves configuration and interrupts', (m) => {
  const event = native().eventfd();
  m.write(4, 2, 6);
  m.client.setIrqs(0x24, 2, 0, 1, [event]);
  m.write(0x88, 4, 3, 0);
  expect(m.read(0x88, 4, 0)).toBe(3);
  const control = m.capability(0x10) + 8;
  m.write(control, 2, m.read(control, 2) | (1 << 15));
  expect([m.read(0x88, 4, 0), m.read(control, 2) >>> 15, m.read(4, 2) & 6]).toEqual([0, 0, 6]);
  m.write(0xa0, 4, 0x8050_0000, 0);
  m.settle();
  expect(native().drain(event)).toBe(1);
  native().close(event);
});
it('DEVICE_RESET does the same', (m) => {
  m.write(0x88, 4, 3, 0);
  m.client.reset();
  expect(m.read(0x88, 4, 0)).toBe(0);
});
