import { expect, test } from 'vitest';
import { PhysicalMemory } from '../src/index.js';

const device = { read: () => 7, write() {} };

test('each frame belongs to the region that covers it, or to none', () => {
  const memory = new PhysicalMemory();
  const high = memory.addRam(0x4000_0000, 4);
  const low = memory.addRam(0x10, 2);
  const mmio = memory.addMmio(0x20, 1, device);
  for (let round = 0; round < 2; round++) {
    expect([0x0f, 0x10, 0x11, 0x12, 0x20, 0x21].map((frame) => memory.regionOf(frame))).toEqual([undefined, low, low, undefined, mmio, undefined]);
    expect(memory.regionOf(0x4000_0003)).toBe(high);
    expect(memory.regionOf(-1)).toBeUndefined();
  }
  expect(memory.regions).toEqual([low, mmio, high]);
});

test('a removed region covers nothing, also for who remembers it', () => {
  const memory = new PhysicalMemory();
  const mmio = memory.addMmio(8, 4, device);
  expect(memory.regionOf(9)).toBe(mmio);
  memory.remove(mmio);
  expect([memory.regionOf(9), mmio.frames]).toEqual([undefined, 0]);
  const ram = memory.addRam(8, 4);
  expect(memory.regionOf(9)).toBe(ram);
  expect(() => memory.remove(mmio)).toThrow(/region/);
});

test.each([
  ['an overlap', (m: PhysicalMemory) => m.addRam(3, 2), /firstFrame/],
  ['no frames', (m: PhysicalMemory) => m.addRam(10, 0), /frames/],
  ['the end of the address space', (m: PhysicalMemory) => m.addMmio(2 ** 31 - 1, 2, device), /frames/],
  ['a view of another size', (m: PhysicalMemory) => m.addRam(10, 1, new Uint8Array(4095)), /bytes/],
  ['a view that words cannot alias', (m: PhysicalMemory) => m.addRam(10, 1, new Uint8Array(new ArrayBuffer(8192), 1, 4096)), /bytes/],
])('%s is refused', (_rule, add, message) => {
  const memory = new PhysicalMemory();
  memory.addRam(0, 4);
  expect(() => add(memory)).toThrow(message);
});

test('RAM aliases the bytes that were given, shared buffers too', () => {
  const buffer = new SharedArrayBuffer(3 * 4096);
  const region = new PhysicalMemory().addRam(1, 2, new Uint8Array(buffer, 4096));
  region.words[1] = 0x0403_0201;
  expect([...new Uint8Array(buffer, 4100, 4)]).toEqual([1, 2, 3, 4]);
});
