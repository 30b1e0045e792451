/** The adapter as a VFIO device, and what only it does. Linux, vfio_pci_core.c, vfio_pci_config.c, vfio_pci_rdwr.c. */
import { Signal } from '@siov/cpu';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { vfioDeviceSuite } from '@siov/testkit';
import { describe, expect, test } from 'vitest';
import { IrqSetFlag, PciIrq, PciRegion, RegionFlag, regionOffset } from '../src/uapi.js';
import { machine, VECTORS } from './machine.js';

vfioDeviceSuite(() => {
  const { task, nodes, name } = machine();
  return { task, group: nodes.group, name, vectors: VECTORS };
}, 'a PCI function behind the vfio-pci adapter');

const opened = () => {
  const m = machine();
  const { device: fd } = m.client.openInContainer(m.nodes.group, m.name);
  return { ...m, fd, config: regionOffset(PciRegion.CONFIG) };
};
const FDS = IrqSetFlag.DATA_EVENTFD | IrqSetFlag.ACTION_TRIGGER;

describe('BAR regions', () => {
  test('reads and writes reach the registers in aligned pieces of 4, 2 and 1 bytes', () => {
    const { client, fd, registers } = opened();
    expect(client.pwrite(fd, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8), 0x101)).toBe(8);
    expect([...registers.subarray(0x100, 0x10a)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    expect([...client.pread(fd, 8, 0x101).bytes]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });
  test('the MSI-X table reads as all ones and takes no writes; its neighbours do', () => {
    const { client, fd, fn } = opened();
    const before = [...fn.msix!.words];
    expect([...client.pread(fd, 4, 0x1000).bytes]).toEqual([255, 255, 255, 255]);
    client.pwrite(fd, new Uint8Array(16), 0x1000);
    expect([...fn.msix!.words]).toEqual(before);
    expect([...client.pread(fd, 4, 0x1000 + VECTORS * 16).bytes]).toEqual([0, 0, 0, 0]);
  });
  test('memory decoding off: EIO by pread, SIGBUS by the mapping, both back with the bit', () => {
    const { client, fd, task, config, registers } = opened();
    registers.set([0x78, 0x56, 0x34, 0x12], 8);
    const at = task.mmap(0, 0x4000, Prot.READ | Prot.WRITE, MapFlag.SHARED, fd, 0);
    expect(task.load(at + 8, 4)).toBe(0x12345678);
    const command = client.pread(fd, 1, config + 4).bytes[0]!;
    client.pwrite(fd, Uint8Array.of(command & ~2), config + 4);
    expect(client.pread(fd, 4, 8).result).toBe(-Errno.EIO);
    expect(() => task.load(at + 8, 4)).toThrow(Signal);
    client.pwrite(fd, Uint8Array.of(command), config + 4);
    expect(client.pread(fd, 4, 8).result).toBe(4);
    expect(task.load(at + 8, 4)).toBe(0x12345678);
  });
  test('a mapping keeps the device open after its descriptor is closed', () => {
    const { fd, task, nodes } = opened();
    const at = task.mmap(0, 0x2000, Prot.READ, MapFlag.SHARED, fd, regionOffset(PciRegion.BAR2));
    task.close(fd);
    expect(nodes.inUse).toBe(true);
    task.munmap(at, 0x2000);
    expect(nodes.inUse).toBe(false);
  });
  test('the BAR with the MSI-X table says it may be mapped whole', () => {
    const { client, fd, task } = opened();
    expect(client.region(fd, 0).flags & (RegionFlag.MMAP | RegionFlag.CAPS)).toBe(RegionFlag.MMAP | RegionFlag.CAPS);
    client.region(fd, 0, 40);
    expect(task.readStruct(client.at + 32, new Uint32Array(2))).toEqual(Uint32Array.of(3 | (1 << 16), 0));
    expect(client.region(fd, 2).flags & RegionFlag.CAPS).toBe(0);
  });
});

describe('configuration space', () => {
  test("BAR registers are the user's own: the function keeps decoding where it did", () => {
    const { client, fd, fn, config } = opened();
    client.pwrite(fd, new Uint8Array(8).fill(0xaa), config + 0x10);
    expect(fn.barAddress(0)).toBe(0xe000_0000);
    expect(client.pread(fd, 4, config + 0x14).bytes).toEqual(Uint8Array.of(0xaa, 0xaa, 0xaa, 0xaa));
  });
  test("MSI-X control is the kernel's: the user cannot enable it", () => {
    const { client, fd, fn, config } = opened();
    client.pwrite(fd, Uint8Array.of(0, 0x80), config + fn.at.msix + 2);
    expect(fn.configRead(fn.at.msix + 2, 2) & 0x8000).toBe(0);
  });
  test('the chain of extended capabilities shows neither ATS, PRI nor PASID, but the one behind them', () => {
    const { client, fd, config } = opened();
    const ids: number[] = [];
    for (let at = 0x100; at !== 0; ) {
      const header = new DataView(client.pread(fd, 4, config + at).bytes.buffer).getUint32(0, true);
      ids.push(header & 0xffff);
      at = header >>> 20;
    }
    expect(ids).toEqual([0, 0x23]);
  });
  test('a function level reset asked for through device control resets the device and keeps what the kernel set up', () => {
    const { client, fd, fn, config } = opened();
    let resets = 0;
    fn.listener = { functionLevelReset: () => void resets++ };
    client.pwrite(fd, Uint8Array.of(0x80), config + fn.at.pcie + 9);
    expect(resets).toBe(1);
    expect(fn.barAddress(0)).toBe(0xe000_0000);
  });
});

describe('interrupts', () => {
  test("the function's messages reach the eventfds, also after a reset", () => {
    const { client, fd, fn, task } = opened();
    const sinks = [client.eventfd(), client.eventfd()];
    expect(client.setIrqs(fd, FDS, PciIrq.MSIX, 0, 2, Int32Array.from(sinks))).toBe(0);
    fn.msix!.fire(1);
    expect(sinks.map((each) => client.count(each))).toEqual([0, 1]);
    expect(task.ioctl(fd, 0x3b6f, 0)).toBe(0);
    fn.msix!.fire(0);
    expect(sinks.map((each) => client.count(each))).toEqual([1, 0]);
  });
  test('when a vector of the block cannot be had, the whole block is cleared', () => {
    const { client, fd, handlers, interrupts } = opened();
    interrupts.limit = 1;
    const block = Int32Array.of(client.eventfd(), client.eventfd());
    expect(client.setIrqs(fd, FDS, PciIrq.MSIX, 0, 2, block)).toBe(-Errno.ENOSPC);
    expect(handlers.size).toBe(0);
  });
  test('close gives all vectors back', () => {
    const { client, fd, task, handlers } = opened();
    client.setIrqs(fd, FDS, PciIrq.MSIX, 0, 1, Int32Array.of(client.eventfd()));
    expect(handlers.size).toBe(1);
    task.close(fd);
    expect(handlers.size).toBe(0);
  });
});
