/** The virtual device as a VFIO device, whichever way it is opened. linux/vfio.h. */
import { NO_PASID } from '@siov/layout/pcie';
import { VfioClient, vfioDeviceSuite } from '@siov/testkit';
import { PciIrq, PciRegion, RegionFlag, regionOffset } from '@siov/vfio-mdev/uapi';
import { describe, expect, test } from 'vitest';
import { machine, opened, uuid } from './machine.js';

vfioDeviceSuite(() => {
  const m = machine();
  m.create();
  return { task: m.task(), group: m.nodes().group, name: uuid(0), vectors: 2 };
}, 'a virtual device of type 1dwq-v1');
vfioDeviceSuite(() => {
  const m = machine();
  m.create();
  return { task: m.task(), group: m.nodes().group, name: uuid(0), vectors: 2, container: '/dev/iommu' };
}, 'a virtual device in a group whose container is a file of /dev/iommu');

test('such a file maps for the device as a container does, and goes with the last of its files', () => {
  const m = machine();
  m.create();
  const task = m.task();
  const client = new VfioClient(task);
  const used = m.frames.used;
  const files = client.openInContainer(m.nodes().group, uuid(0), undefined, '/dev/iommu');
  const vdev = m.parent.devices.get(uuid(0))!;
  const host = vdev.hostPasids.get(NO_PASID)!;
  const memory = task.alloc(8192);
  task.writeStruct(memory, Uint8Array.of(42));
  expect(client.mapDma(files.container, memory, 0x10_0000, 8192)).toBe(0);
  expect(m.iommu.attachedTo(vdev.requesterId, host)?.kind).toBe('paging');
  expect(client.unmapDma(files.container, 0x10_0000, 8192)).toBe(8192);
  task.munmap(memory, 8192);
  for (const fd of [files.device, files.group, files.container]) task.close(fd);
  expect(vdev.hostPasids.size).toBe(0);
  task.exit(0);
  expect(m.frames.used).toBeLessThanOrEqual(used);
});

describe('its shape', () => {
  test('two BARs of 8 KiB and 4 KiB of configuration space; only the portals can be mapped', () => {
    const { client, fd } = opened();
    const shape = Array.from({ length: 9 }, (_, i) => client.region(fd, i)).map(({ size, flags }) => [size, flags & RegionFlag.MMAP]);
    expect(shape).toEqual([
      [0x2000, 0],
      [0, 0],
      [0x2000, RegionFlag.MMAP],
      [0, 0],
      [0, 0],
      [0, 0],
      [0, 0],
      [0x1000, 0],
      [0, 0],
    ]);
  });
  test('two MSI-X vectors, a device request, and no INTx, MSI or error interrupt', () => {
    const { client, fd } = opened();
    expect([PciIrq.INTX, PciIrq.MSI, PciIrq.MSIX, PciIrq.ERR, PciIrq.REQ].map((index) => client.irq(fd, index).count)).toEqual([0, 0, 2, 0, 1]);
  });
  test('identity and class are the parent device family', () => {
    const { read, config } = opened();
    expect([read(0, config), read(8, config) >>> 8, read(0x2c, config)]).toEqual([0x0b25_8086, 0x08_8000, 0x2010_8086]);
  });
  test('an unmapped portal reads as all ones, and stores of less than 64 bytes do nothing', () => {
    const { read, write, driver } = opened();
    const portals = regionOffset(PciRegion.BAR2);
    expect([write(0, 0x1234, portals), read(0, portals), driver.softwareErrors]).toEqual([4, 0xffff_ffff, []]);
  });
});

test('a reset brings back what was there when the device was made, configuration space too', () => {
  const m = opened();
  const before = [m.words(0, 0x300), m.client.pread(m.fd, 4096, m.config).bytes];
  m.enable();
  m.write(0x88, 7);
  m.write(0x508, 1 << 28);
  m.configWrite(0x3c, 0x11);
  expect(m.task.ioctl(m.fd, 0x3b6f, 0)).toBe(0);
  expect([m.words(0, 0x300), m.client.pread(m.fd, 4096, m.config).bytes]).toEqual(before);
});

test('a function level reset is the same', () => {
  const m = opened();
  m.enable();
  const pcie = m.vdev.function.at.pcie;
  m.configWrite(pcie + 8, 0x8000);
  expect([m.state(), m.read(4, m.config) & 6]).toEqual([0, 0]);
});
