/**
 * How four independent drivers bring the device up, as transcripts of their accesses with the numbers of their own headers instead of this
 * package's layouts: Linux drivers/dma/idxd, the DSA driver of the kernel's VFIO selftests, DPDK drivers/dma/idxd (idxd_pci.c) and SPDK
 * lib/idxd (idxd_user.c). Each begins after a function level reset and ends with a memmove by the portal that the driver writes.
 */
import { describe, expect, test } from 'vitest';
import { gnrD, sprDsa } from '../src/index.js';
import { machine } from './machine.js';

type Machine = ReturnType<typeof machine>;
/** What a driver ends with: the portal's offset in BAR 2 and what its descriptors carry beside the operation. */
interface Queue {
  readonly portal: number;
  readonly word0: number;
  readonly flags: number;
  readonly handle: number;
  /** Data of the message that tells of completion, where the driver waits for one. */
  readonly message?: number;
}

/** The function as a driver sees it. 64-bit registers are two dwords, the lower first. */
function accesses(m: Machine) {
  const r4 = (offset: number): number => m.bar0.read(offset, 4);
  const w4 = (offset: number, value: number): void => m.bar0.write(offset, 4, value);
  const r8 = (offset: number): bigint => BigInt(r4(offset)) | (BigInt(r4(offset + 4)) << 32n);
  const w8 = (offset: number, value: bigint): void => {
    w4(offset, Number(value & 0xffff_ffffn));
    w4(offset + 4, Number(value >> 32n));
  };
  const bits = (value: bigint, high: number, low: number): number => Number((value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
  /** Writes CMD and polls CMDSTS until it is not active. */
  const polled = (command: number): number => {
    w4(0xa0, command);
    for (let i = 0; i < 1000; i++) {
      const status = r4(0xa8);
      if (status >>> 31 === 0) return status;
      m.run();
    }
    throw new Error(`command 0x${command.toString(16)} stays active`);
  };
  const vector = (n: number, data: number): void => {
    w4(0x2000 + n * 16, 0xfee0_0000);
    w4(0x2004 + n * 16, 0);
    w4(0x2008 + n * 16, data);
    w4(0x200c + n * 16, 0);
  };
  const command = (set: number, clear = 0): void => m.fn.configWrite(4, 2, (m.fn.configRead(4, 2) | set) & ~clear);
  return { r4, w4, r8, w8, bits, polled, vector, command };
}

/** Probe, configuration from user space with a kernel queue, enable. `pasid` -1: without shared virtual addressing. */
function linux(m: Machine, pasid: number): Queue {
  const { r4, w4, r8, bits, polled, vector, command } = accesses(m);
  command(2);
  command(4);
  expect([0x100, 0x200, 0x300]).toContain(r4(0x00));
  expect(r4(0x90) & 3).not.toBe(3);
  expect(polled(0x0050_0000) & 0xff).toBe(0);
  if (pasid >= 0) {
    // The IOMMU driver: PASID before ATS, privileged mode where it is supported.
    const supported = m.fn.configRead(m.fn.at.pasid + 4, 2);
    m.fn.configWrite(m.fn.at.pasid + 6, 2, (supported & 6) | 1);
    m.fn.configWrite(m.fn.at.pri + 12, 4, 32);
    m.fn.configWrite(m.fn.at.pri + 4, 2, 1);
    m.fn.configWrite(m.fn.at.ats + 6, 2, 0x8000);
  }
  const genCap = r8(0x10);
  const commands = bits(genCap, 4, 4) ? r4(0xb0) : 0x1ffe;
  const groupCap = r8(0x30);
  const engines = bits(r8(0x38), 7, 0);
  const wqCap = r8(0x20);
  const operations = [0x40, 0x48, 0x50, 0x58].map(r8);
  expect(operations[0]! & 8n).toBe(8n);
  const offsets = [r8(0x60), r8(0x68)];
  const groupTable = bits(offsets[0]!, 15, 0) * 0x100;
  const wqTable = bits(offsets[0]!, 31, 16) * 0x100;
  const permissions = bits(offsets[0]!, 47, 32) * 0x100;
  expect(bits(genCap, 31, 31)).toBe(1);
  expect(bits(offsets[1]!, 15, 0)).toBe(0); // no performance monitor
  // All vectors of the MSI-X table; 0 tells of commands and errors.
  const vectors = (m.fn.configRead(m.fn.at.msix + 2, 2) & 0x7ff) + 1;
  expect(vectors).toBeGreaterThan(bits(wqCap, 23, 16));
  for (let i = 0; i < vectors; i++) vector(i, 0x30 + i);
  m.fn.configWrite(m.fn.at.msix + 2, 2, 0x8000);
  w4(0x88, r4(0x88) | 3);

  const stride = 32 << bits(wqCap, 27, 24);
  const wq = 1;
  // Each dword of the queue: what it says, with the configuration ORed in.
  const shadow = Array.from({ length: stride / 4 }, (_, i) => r4(wqTable + wq * stride + i * 4));
  shadow[0]! |= 16;
  shadow[2]! |= 1 | (10 << 4) | (pasid >= 0 ? (pasid << 8) | (1 << 28) | (1 << 29) : 0);
  shadow[3]! |= bits(genCap, 20, 16) | (bits(genCap, 24, 21) << 5);
  for (const [i, value] of shadow.entries()) w4(wqTable + wq * stride + i * 4, value >>> 0);
  for (let group = 0; group < bits(groupCap, 7, 0); group++) {
    for (let q = 0; q < 4; q++) {
      w4(groupTable + group * 64 + q * 8, group === 0 && q === 0 ? 1 << wq : 0);
      w4(groupTable + group * 64 + q * 8 + 4, 0);
    }
    w4(groupTable + group * 64 + 32, group === 0 ? 2 ** engines - 1 : 0);
    w4(groupTable + group * 64 + 36, 0);
    w4(groupTable + group * 64 + 40, group === 0 ? (1 << 3) | (bits(groupCap, 15, 8) << 20) : 0);
    w4(groupTable + group * 64 + 44, 0);
  }
  if (bits(genCap, 14, 13)) {
    w4(0xe0, 0x8_0000);
    w4(0xe4, 0);
    w4(0xe8, 64);
    w4(0xec, 0);
    w4(0x88, r4(0x88) | 4);
    w4(0x80, r4(0x80) | (1 << 13));
  }
  /** A command that vector 0 tells the end of. */
  const interrupted = (value: number): number => {
    const before = m.messages.length;
    w4(0xa0, (value | 0x8000_0000) >>> 0);
    m.run();
    expect(m.messages.slice(before)).toEqual([{ address: 0xfee0_0000, data: 0x30 }]);
    const cause = r4(0x98);
    w4(0x98, cause);
    expect([cause, r4(0x98)]).toEqual([2, 0]);
    return r4(0xa8);
  };
  expect(interrupted(0x0010_0000) & 0xff).toBe(0);
  expect(interrupted(0x0060_0000 | wq) & 0xff).toBe(0);
  expect(r4(wqTable + wq * stride + 24) >>> 30).toBe(1);
  const mine = wq + 1;
  if (pasid >= 0) w4(permissions + mine * 8, ((pasid << 12) | 8) >>> 0);
  let handle = mine;
  if ((commands >>> 13) & 1) {
    const status = interrupted(0x00d0_0000 | mine);
    expect(status & 0xff).toBe(0);
    handle = (status >>> 8) & 0xffff;
  }
  // Record valid, record requested, interrupt; privileged only where the queue has a PASID. The limited page.
  const word0 = pasid >= 0 ? 0x8000_0000 : 0;
  return { portal: wq * 0x4000 + 0x1000, word0, flags: 0x1c, handle, message: 0x30 + mine };
}

/** The smallest bring-up: no interrupt for commands, one queue with everything. Refuses devices whose interrupt handles must be requested. */
function selftest(m: Machine): Queue | undefined {
  const { r4, w4, r8, bits, polled, vector, command } = accesses(m);
  command(6, 0x400);
  const genCap = r8(0x10);
  if (bits(genCap, 4, 4) && (r4(0xb0) >>> 13) & 1) return undefined;
  command(6, 0x400);
  expect(polled(0x0050_0000) & 0xff).toBe(0);
  const wqCap = r8(0x20);
  const offsets = r8(0x60);
  const wqTable = bits(offsets, 31, 16) * 0x100;
  const groupTable = bits(offsets, 15, 0) * 0x100;
  const size = 32 << bits(wqCap, 27, 24);
  const words = new Uint32Array(16);
  words[0] = bits(wqCap, 15, 0);
  words[2] = 1 | (1 << 4);
  words[3] = bits(genCap, 20, 16) | (bits(genCap, 24, 21) << 5);
  words[8] = (1 << 3) | (1 << 1);
  for (let i = 0; i < size / 4; i++) w4(wqTable + i * 4, words[i]!);
  const group = new Uint32Array(16);
  group[0] = 1;
  group[8] = 1;
  for (let i = 0; i < 12; i++) w4(groupTable + i * 4, group[i]!);
  expect(polled(0x0010_0000) & 0xff).toBe(0);
  expect(polled(0x0060_0000) & 0xff).toBe(0);
  vector(1, 0x51);
  m.fn.configWrite(m.fn.at.msix + 2, 2, 0x8000);
  expect(r8(0xc0) & 1n).toBe(0n);
  return { portal: 0, word0: 0x8000_0000, flags: 0x1c, handle: 1, message: 0x51 };
}

/** All queues dedicated, the entries divided evenly, an engine in each group. */
function dpdk(m: Machine): Queue {
  const { r4, w4, r8, w8, bits, polled, command } = accesses(m);
  command(2);
  command(4);
  const offsets = r8(0x60);
  const groupTable = bits(offsets, 15, 0) * 0x100;
  const wqTable = bits(offsets, 31, 16) * 0x100;
  const wqCap = r8(0x20);
  const stride = 32 << bits(wqCap, 27, 24);
  expect(r4(0x90) & 3).toBe(0);
  expect(r4(0xa8) >>> 31).toBe(0);
  const wqs = bits(wqCap, 23, 16);
  const groups = Math.min(bits(r8(0x30), 7, 0), bits(r8(0x38), 7, 0));
  for (let i = 0; i < groups; i++) {
    w8(groupTable + i * 64 + 32, 0n);
    w8(groupTable + i * 64, 0n);
  }
  for (let i = 0; i < wqs; i++) w4(wqTable + i * stride, 0);
  for (let i = 0; i < groups; i++) w8(groupTable + i * 64 + 32, r8(groupTable + i * 64 + 32) | (1n << BigInt(i)));
  const genCap = r8(0x10);
  for (let i = 0; i < wqs; i++) {
    const group = groupTable + (i % groups) * 64;
    w8(group, r8(group) | (1n << BigInt(i)));
    w4(wqTable + i * stride, Math.floor(bits(wqCap, 15, 0) / wqs));
    w4(wqTable + i * stride + 8, (1 << 4) | 1);
    w4(wqTable + i * stride + 12, bits(genCap, 20, 16) | (bits(genCap, 24, 21) << 5));
  }
  // Every command but those with a bitmap has a queue number as its operand.
  expect(polled(0x0010_0000 | 0) & 0xff).toBe(0);
  expect(r4(0x90) & 3).toBe(1);
  for (let i = 0; i < wqs; i++) {
    expect(r4(wqTable + i * stride + 24) >>> 30).toBe(0);
    expect(polled(0x0060_0000 | i) & 0xff).toBe(0);
    expect(r4(wqTable + i * stride + 24) >>> 30).toBe(1);
  }
  // One queue stops and starts again, as a stopped and started DMA device does.
  expect(polled(0x0070_0000 | (1 << (wqs - 1))) & 0xff).toBe(0);
  expect(r4(wqTable + (wqs - 1) * stride + 24) >>> 30).toBe(0);
  expect(polled(0x0060_0000 | (wqs - 1)) & 0xff).toBe(0);
  return { portal: (wqs - 1) * 0x4000, word0: 0, flags: 0x0c, handle: 0 };
}

/** One group with all engines and all read buffers, one queue with all entries; writes the queue's read-only words too. */
function spdk(m: Machine): Queue {
  const { r4, w4, r8, w8, bits, polled } = accesses(m);
  m.fn.configWrite(4, 4, (m.fn.configRead(4, 4) | 6) >>> 0);
  expect(polled(0x0050_0000) & 0xff).toBe(0);
  expect([0x100, 0x200]).toContain(r4(0x00));
  const [offsets, engineCap, groupCap, wqCap] = [r8(0x60), r8(0x38), r8(0x30), r8(0x20)];
  const groupTable = bits(offsets, 15, 0) * 0x100;
  const wqTable = bits(offsets, 31, 16) * 0x100;
  for (let i = 0; i < bits(groupCap, 7, 0); i++) {
    for (let q = 0; q < 4; q++) w8(groupTable + i * 64 + q * 8, i === 0 && q === 0 ? 1n : 0n);
    w8(groupTable + i * 64 + 32, i === 0 ? (1n << BigInt(bits(engineCap, 7, 0))) - 1n : 0n);
    w4(groupTable + i * 64 + 40, i === 0 ? bits(groupCap, 15, 8) << 20 : 0);
  }
  const words = [bits(wqCap, 15, 0), 0, (1 << 4) | 1, 30 | (8 << 5), 0, 0, (1 << 30) >>> 0, 0];
  for (const [i, word] of words.entries()) w4(wqTable + i * 4, word);
  expect(r4(wqTable + 24) >>> 30).toBe(0);
  expect(r4(0x90) & 3).toBe(0);
  expect(polled(0x0010_0000) & 0xff).toBe(0);
  expect(polled(0x0060_0000) & 0xff).toBe(0);
  return { portal: 0, word0: 0, flags: 0x0c, handle: 0 };
}

const drivers = [
  ['Linux idxd', (m: Machine) => linux(m, -1), [sprDsa, gnrD]],
  ['Linux idxd with a system PASID', (m: Machine) => linux(m, 1), [sprDsa, gnrD]],
  ['the VFIO selftest', selftest, [sprDsa]],
  ['DPDK', dpdk, [sprDsa, gnrD]],
  ['SPDK', spdk, [sprDsa, gnrD]],
] as const;

describe.each(drivers)('%s', (_name, bringUp, works) => {
  test.each(works.map((profile) => [profile.name, profile] as const))(
    'reaches a working queue on %s, and again after a function level reset',
    (_p, profile) => {
      const m = machine({ profile });
      for (const round of [1, 2]) {
        m.fn.configWrite(m.fn.at.pcie + 8, 2, 0x8000);
        const queue = bringUp(m)!;
        const d = new Uint32Array(16);
        d[0] = queue.word0;
        d[1] = (3 << 24) | queue.flags;
        d[2] = 0x1000;
        d[4] = 0x1_0000;
        d[6] = 0x2_0000;
        d[8] = 5000;
        d[9] = queue.handle;
        m.bytes.fill(0x40 + round, 0x1_0000, 0x1_0000 + 5000);
        m.bytes.fill(0, 0x1000, 0x1020);
        // Software strides over the page in units of a descriptor.
        for (let slot = 0; slot < 3; slot++) {
          m.bytes[0x1000] = 0;
          m.messages.length = 0;
          m.bar2.movdir64b!(queue.portal + slot * 64, d, 0);
          m.run();
          expect([m.bytes[0x1000], m.words[0x1004 / 4]]).toEqual([1, 5000]);
          expect(m.messages.map(({ data }) => data)).toEqual(queue.message === undefined ? [] : [queue.message]);
        }
        expect(Buffer.compare(m.bytes.subarray(0x2_0000, 0x2_0000 + 5000), m.bytes.subarray(0x1_0000, 0x1_0000 + 5000))).toBe(0);
        expect(m.read(0xc0) & 1).toBe(0);
      }
    },
  );
});

test('the VFIO selftest refuses a device whose interrupt handles are requested', () => {
  expect(selftest(machine({ profile: gnrD }))).toBeUndefined();
  expect(selftest(machine({ profile: { ...gnrD, commandCapabilities: false } }))).toBeDefined();
});
