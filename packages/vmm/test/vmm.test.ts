/** The VMM: a device assigned through VFIO as the guest sees it, its interrupts, and the guest's page tables nested on the host. */

import { type Domain, IommuDriver, type SvaHandle } from '@siov/iommu';
import { iommufd } from '@siov/iommu/spec';
import { hi, lo } from '@siov/layout';
import { MapFlag } from '@siov/layout/uapi';
import { enumerate } from '@siov/pci-core';
import { expect, test } from 'vitest';
import { Counter, GuestMap, VmmError } from '../src/index.js';
import { assigned, RW, VECTORS } from './machine.js';

const at = (address: number): [number, number] => [hi(address), lo(address)];

test("the guest's own enumeration finds the device, sizes its BARs and places them in the window", () => {
  const { vmm, device } = assigned();
  const [found, ...more] = enumerate({ ecam: vmm.ioremap(GuestMap.ecam), window: GuestMap.window, ioremap: (address) => vmm.ioremap(address) });
  expect(more).toEqual([]);
  expect([found!.vendorId, found!.deviceId, found!.name]).toEqual([0x8086, 0x0b25, '0000:00:01.0']);
  expect([...found!.bars].map(([bar, { bytes }]) => [bar, bytes])).toEqual([
    [0, 0x2000],
    [2, 0x2000],
  ]);
  // Registers trap and reach the device by pread and pwrite.
  device.registers.set([0x78, 0x56, 0x34, 0x12], 0x40);
  expect(found!.bars.get(0)!.mmio.read(0x40, 4)).toBe(0x1234_5678);
  found!.bars.get(0)!.mmio.write(0x44, 2, 0xbeef);
  expect([...device.registers.subarray(0x44, 0x48)]).toEqual([0xef, 0xbe, 0, 0]);
  expect(device.accesses).toEqual(['read 0 0x40 4', 'write 0 0x44 2']);
});

test('mappable areas are shown while memory decoding is on, and move with their BAR', () => {
  const { vmm, device, config, bars, enable, guest } = assigned();
  const slots = () => vmm.vm.memslots.all.map((slot) => slot.firstFrame * 4096).filter((address) => address > 0);
  expect(slots()).toEqual([]);
  enable();
  expect(slots()).toEqual([bars[2]]);
  const page = guest.mapPage(bars[2] / 4096 + 1);
  const source = guest.task.alloc(4096);
  guest.task.store32(...at(source), 42);
  const before = vmm.vm.counters[Counter.mmioPackets]!;
  guest.task.movdir64b(...at(page), ...at(source));
  expect(device.stores).toEqual([[1, 42, 'movdir64b']]);
  // Elsewhere: the old place is nowhere.
  config.write(0x18, bars[2] + 0x1_0000);
  expect(slots()).toEqual([bars[2] + 0x1_0000]);
  guest.task.movdir64b(...at(page), ...at(source));
  expect(device.stores.length).toBe(1);
  expect(vmm.vm.counters[Counter.mmioPackets]! - before).toBe(1);
  config.write(4, 4, 2);
  expect(slots()).toEqual([]);
});

test('a portal that the device does not let map traps, 64 bytes at a time', () => {
  const { device, bars, enable, guest } = assigned();
  enable();
  const page = guest.mapPage(bars[0] / 4096 + 1);
  const source = guest.task.alloc(4096);
  guest.task.store32(...at(source), 0x11);
  guest.task.movdir64b(...at(page + 64), ...at(source));
  expect(device.accesses).toEqual(['write 0 0x1040 64']);
  expect(device.registers[0x1040]).toBe(0x11);
});

function interrupts(options: Parameters<typeof assigned>[0] = {}) {
  const m = assigned(options);
  m.enable();
  const seen: number[] = [];
  const table = m.vmm.ioremap(m.bars[0]);
  for (let v = 0; v < VECTORS; v++) m.guest.apic.install(0x60 + v, (vector) => seen.push(vector));
  const set = (vector: number, message: number, masked = 0) => {
    const entry = 0x600 + vector * 16;
    table.write(entry, 4, 0xfee0_0000);
    table.write(entry + 4, 4, 0);
    table.write(entry + 8, 4, message);
    table.write(entry + 12, 4, masked);
  };
  const control = (bits: number) => m.config.write(0x40 + 2, bits, 2);
  const settle = () => {
    while (m.clock.idle());
  };
  const pending = () => table.read(0x700, 4);
  return { ...m, table, seen, set, control, settle, pending };
}
const ENABLE = 0x8000;
const FUNCTION_MASK = 0x4000;

test("an eventfd of the device becomes the guest's vector, without user space", () => {
  const { device, set, control, settle, seen, kernel } = interrupts();
  set(0, 0x60);
  set(1, 0x61);
  expect(device.sinks).toEqual([undefined, undefined]);
  control(ENABLE);
  const calls = [...kernel.ioctls.values()].reduce((sum, { count }) => sum + count, 0);
  device.sinks[1]!.signal();
  device.sinks[0]!.signal();
  settle();
  expect(seen).toEqual([0x61, 0x60]);
  expect([...kernel.ioctls.values()].reduce((sum, { count }) => sum + count, 0)).toBe(calls);
});

test.each([
  ['its own mask bit', (m: ReturnType<typeof interrupts>, on: boolean) => m.table.write(0x60c, 4, on ? 1 : 0)],
  ['the function mask', (m: ReturnType<typeof interrupts>, on: boolean) => m.control(ENABLE | (on ? FUNCTION_MASK : 0))],
])('a vector masked by %s stays pending and is sent once it is unmasked', (_how, mask) => {
  const m = interrupts();
  m.set(0, 0x60);
  m.control(ENABLE);
  for (const look of [false, true]) {
    m.seen.length = 0;
    mask(m, true);
    m.device.sinks[0]!.signal();
    m.device.sinks[0]!.signal();
    m.settle();
    expect(m.seen).toEqual([]);
    if (look) expect(m.pending()).toBe(1);
    mask(m, false);
    m.settle();
    expect(m.seen).toEqual([0x60]);
    expect(m.pending()).toBe(0);
  }
});

test('a message that the guest changes while unmasked holds from then on; MSI-X off means nobody is signalled', () => {
  const { device, set, control, settle, seen, task, vmm } = interrupts();
  set(0, 0x60);
  control(ENABLE);
  set(0, 0x61);
  device.sinks[0]!.signal();
  settle();
  expect(seen).toEqual([0x61]);
  const open = () => Array.from({ length: 64 }, (_, fd) => task.file(fd)).filter(Boolean).length;
  const before = open();
  control(0);
  expect(device.sinks).toEqual([undefined, undefined]);
  expect(open()).toBe(before - VECTORS);
  control(ENABLE);
  device.sinks[0]!.signal();
  settle();
  expect(seen).toEqual([0x61, 0x61]);
  expect(vmm.refusals).toEqual([]);
});

test('a function level reset turns decoding and MSI-X off, and masks and empties the table', () => {
  const { device, set, control, config, vmm, bars, enable, table } = interrupts();
  set(0, 0x60);
  control(ENABLE);
  const pcie = device.function.at.pcie;
  config.write(pcie + 9, 0x80, 1);
  expect(device.sinks).toEqual([undefined, undefined]);
  expect(vmm.vm.memslots.all.length).toBe(1);
  expect(config.read(0x42, 2) & ENABLE).toBe(0);
  enable();
  expect([table.read(0x608, 4), table.read(0x60c, 4)]).toEqual([0, 1]);
  expect(vmm.vm.memslots.all.map((slot) => slot.firstFrame * 4096)).toEqual([0, bars[2]]);
});

function nested(options: Parameters<typeof assigned>[0] = {}) {
  const m = assigned({ iommu: true, frames: 24_576, ...options });
  const driver = new IommuDriver({
    registers: m.vmm.ioremap(GuestMap.iommu),
    memory: m.guest.memory,
    frames: m.guest.frames,
    clock: m.clock,
    vectors: m.guest.apic,
  });
  return { ...m, guestDriver: driver, rid: m.assignedDevice.requesterId };
}

test('before the guest translates, its device reaches guest memory; afterwards only what the guest attaches', () => {
  const { device, guestDriver, rid } = nested();
  expect([...device.domains.keys()]).toEqual([-1]);
  const all = device.domains.get(-1);
  guestDriver.enable();
  expect([...device.domains.keys()]).toEqual([]);
  guestDriver.addDevice(rid, { pasid: true });
  expect(guestDriver.attach(rid, guestDriver.identityDomain())).toBe(0);
  expect(device.domains.get(-1)).toBe(all);
  expect(guestDriver.attach(rid, undefined)).toBe(0);
  expect([...device.domains.keys()]).toEqual([]);
});

test("a guest process's page table is nested on the host for its PASID, and goes with the binding", () => {
  const { device, guestDriver, rid, guest, vmm, assignedDevice, kernel, driver } = nested();
  guestDriver.enable();
  guestDriver.addDevice(rid, { pasid: true });
  const mm = guest.newMm();
  const page = mm.mmap(0, 4096, RW, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.POPULATE);
  mm.write(page, new TextEncoder().encode('guest'));
  const sva = guestDriver.svaBind(rid, mm) as SvaHandle;
  expect(vmm.pasidsOf(assignedDevice)).toEqual([sva.pasid]);
  // The domain that VFIO handed to the device translates the guest's virtual addresses.
  const domain = device.domains.get(sva.pasid) as Domain;
  expect(domain.kind).toBe('nested');
  const hostPasid = driver.allocPasid();
  expect(driver.attachPasid(device.requesterId, hostPasid, domain)).toBe(0);
  expect(driver.attachedTo(device.requesterId, hostPasid)).toBe(domain);
  const invalidations = () => kernel.ioctls.get(iommufd.IommufdIoctl.HWPT_INVALIDATE)?.count ?? 0;
  const before = invalidations();
  mm.munmap(page, 4096);
  expect(invalidations()).toBeGreaterThan(before);
  driver.detachPasid(device.requesterId, hostPasid);
  vmm.vm.pasids.set(sva.pasid, 77);
  sva.unbind();
  expect([...device.domains.keys()]).toEqual([]);
  expect(vmm.pasidsOf(assignedDevice)).toEqual([]);
  expect(vmm.vm.pasids.get(sva.pasid)).toBe(-1);
  expect(vmm.refusals).toEqual([]);
});

test("interrupt remapping of the guest stands between its device's message and its APIC", () => {
  const m = interrupts({ iommu: true, remapping: true, frames: 24_576 });
  const driver = new IommuDriver({
    registers: m.vmm.ioremap(GuestMap.iommu),
    memory: m.guest.memory,
    frames: m.guest.frames,
    clock: m.clock,
    vectors: m.guest.apic,
  });
  driver.enable();
  const got: number[] = [];
  const handle = driver.irqDomain().alloc(m.assignedDevice.requesterId, (vector) => got.push(vector))!;
  m.table.write(0x600, 4, handle.address >>> 0);
  m.table.write(0x608, 4, handle.data);
  m.table.write(0x60c, 4, 0);
  m.control(ENABLE);
  m.device.sinks[0]!.signal();
  m.settle();
  expect(got.length).toBe(1);
  handle.free();
  m.device.sinks[0]!.signal();
  m.settle();
  expect(got.length).toBe(1);
});

test('a VMM that closes leaves the host as it was: no pinned frames, no descriptors, the device free again', () => {
  const { vmm, task, device, frames, kernel } = assigned();
  const again = kernel.nodes();
  vmm.close();
  expect(Array.from({ length: 64 }, (_, fd) => task.file(fd)).filter(Boolean)).toEqual([]);
  expect([...device.domains.keys()]).toEqual([]);
  expect(kernel.nodes()).toEqual(again);
  const inUse = frames.used;
  expect(task.open('/dev/vfio/devices/vfio0', 2)).toBeGreaterThanOrEqual(0);
  task.exit(0);
  expect(frames.used).toBeLessThan(inUse);
  // Roots of EPT and PASID directories, and the tables of the host's own remapping unit.
  expect(frames.used).toBeLessThan(64);
});

test('unassign takes the device from the guest, and only it', () => {
  const { vmm, assignedDevice, config, device, enable } = assigned({ iommu: true, frames: 24_576 });
  enable();
  vmm.unassign(assignedDevice);
  expect(config.read(0)).toBe(0xffff_ffff);
  expect(vmm.vm.memslots.all.length).toBe(1);
  expect([...device.domains.keys()]).toEqual([]);
  expect(() => vmm.unassign(assignedDevice)).toThrow(RangeError);
  expect(vmm.assign('/dev/vfio/devices/vfio0').requesterId).toBe(0x08);
});

test('what the kernel refuses is an error that names the call', () => {
  const { vmm } = assigned();
  expect(() => vmm.assign('/dev/vfio/devices/vfio9')).toThrow(VmmError);
  expect(() => vmm.assign('/dev/vfio/devices/vfio9')).toThrow('open /dev/vfio/devices/vfio9: ENOENT');
  expect(() => vmm.assign('/dev/vfio/devices/vfio0')).toThrow(/BIND_IOMMUFD/);
});

test('whatever the guest does with configuration space and registers, the VMM and the host go on', () => {
  const { vmm, config, enable, device, bars } = assigned({ iommu: true, frames: 24_576 });
  let seed = 12345;
  const random = (n: number) => ((seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8) % n;
  enable();
  const places = [GuestMap.ecam, GuestMap.ecam + 0x8000, GuestMap.iommu, GuestMap.window.base, bars[2], 0xf000_0000, 0x1000].map((a) =>
    vmm.ioremap(a),
  );
  for (let i = 0; i < 20_000; i++) {
    const width = [1, 2, 4][random(3)]!;
    const offset = Math.floor(random(0x1000) / width) * width;
    const mmio = places[random(places.length)]!;
    if (random(2)) mmio.write(offset, width, random(4) ? random(2 ** 24) : 0xffff_ffff);
    else expect(mmio.read(offset, width)).toBeLessThan(2 ** (8 * width));
    if (random(50) === 0) config.write(4, random(8), 2);
  }
  expect(device.registers.length).toBe(0x2000);
  expect(vmm.vm.memslots.all.length).toBeLessThanOrEqual(2);
});
