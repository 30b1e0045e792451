/** The device's own node and iommufd. linux/vfio.h, VFIO_DEVICE_BIND_IOMMUFD, _ATTACH_IOMMUFD_PT, _DETACH_IOMMUFD_PT. */
import { Errno, MapFlag } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { Ioctl, PciRegion, regionOffset } from '../src/uapi.js';
import { FakeIommufd, machine } from './machine.js';

const NOWHERE = 0x10;
const cdev = () => {
  const m = machine();
  const fd = m.open(m.nodes.cdev);
  const iommufd = m.open('/dev/iommu');
  const file = m.task.file(iommufd);
  if (!(file instanceof FakeIommufd)) throw new Error('/dev/iommu is the stand-in');
  const bind = (words: readonly number[] = [16, 0, iommufd, 0], on = fd) => m.client.call(on, Ioctl.DEVICE_BIND_IOMMUFD, words);
  const attach = (...words: number[]) => m.client.call(fd, Ioctl.DEVICE_ATTACH_IOMMUFD_PT, words).result;
  const detach = (...words: number[]) => m.client.call(fd, Ioctl.DEVICE_DETACH_IOMMUFD_PT, words).result;
  return { ...m, fd, iommufd, file, bind, attach, detach };
};

describe('BIND_IOMMUFD', () => {
  test('before it everything else is EINVAL', () => {
    const { task, client, fd } = cdev();
    for (let n = 0x3b64; n < 0x3b64 + 25; n++) if (n !== Ioctl.DEVICE_BIND_IOMMUFD) expect(task.ioctl(fd, n, client.at)).toBe(-Errno.EINVAL);
    expect(task.ioctl(fd, 0x1234, client.at)).toBe(-Errno.EINVAL);
    expect(client.pread(fd, 4, regionOffset(PciRegion.CONFIG)).result).toBe(-Errno.EINVAL);
    expect(client.pwrite(fd, new Uint8Array(4), regionOffset(PciRegion.CONFIG))).toBe(-Errno.EINVAL);
    expect(task.mmap(0, 4096, 3, MapFlag.SHARED, fd, 0)).toBe(-Errno.EINVAL);
  });
  test('it answers a device id, opens the device for one file, and the device works', () => {
    const { client, bind, fd, file, nodes } = cdev();
    const { result, words } = bind();
    expect(result).toBe(0);
    expect(file.bound.get(words[3]!)).toBe(1 << 3);
    expect(nodes.inUse).toBe(true);
    expect(client.info(fd).result).toBe(0);
  });
  test.each<[rule: string, words: (iommufd: number, eventfd: number) => number[], errno: number]>([
    ['argsz below 16', (f) => [15, 0, f, 0], Errno.EINVAL],
    ['an unknown flag', (f) => [16, 2, f, 0], Errno.EINVAL],
    ['a token, which no device here knows', (f) => [24, 1, f, 0, 0, 0], Errno.EINVAL],
    ['a negative descriptor', () => [16, 0, -2, 0], Errno.EINVAL],
    ['a descriptor that is not open', () => [16, 0, 99, 0], Errno.EBADF],
    ['a descriptor of something else', (_f, e) => [16, 0, e, 0], Errno.EBADFD],
    ['unknown trailing bytes that are not 0', (f) => [28, 0, f, 0, 0, 0, 1], Errno.E2BIG],
    ['an argsz beyond all sense', (f) => [0xffff_ffff, 0, f, 0], Errno.E2BIG],
  ])('%s is refused, and the device can be bound afterwards', (_rule, words, errno) => {
    const { client, bind, iommufd, nodes } = cdev();
    expect(bind(words(iommufd, client.eventfd())).result).toBe(-errno);
    expect(nodes.inUse).toBe(false);
    expect(bind([28, 0, iommufd, 0, 0, 0, 0]).result).toBe(0);
  });
  test('a bad pointer is EFAULT; a second bind EINVAL, by the same file or another', () => {
    const { task, fd, bind, open, nodes, iommufd } = cdev();
    expect(task.ioctl(fd, Ioctl.DEVICE_BIND_IOMMUFD, NOWHERE)).toBe(-Errno.EFAULT);
    expect(bind().result).toBe(0);
    expect(bind().result).toBe(-Errno.EINVAL);
    expect(bind([16, 0, iommufd, 0], open(nodes.cdev)).result).toBe(-Errno.EINVAL);
  });
  test('group and device file exclude each other with EBUSY', () => {
    const { task, bind, fd, open, nodes } = cdev();
    const group = open(nodes.group);
    expect(bind().result).toBe(-Errno.EBUSY);
    task.close(group);
    expect(bind().result).toBe(0);
    expect(open(nodes.group)).toBe(-Errno.EBUSY);
    task.close(fd);
    expect(open(nodes.group)).toBeGreaterThanOrEqual(0);
  });
  test('a device file from a group cannot be bound', () => {
    const { client, nodes, name, iommufd } = cdev();
    const { device } = client.openInContainer(nodes.group, name);
    expect(client.call(device, Ioctl.DEVICE_BIND_IOMMUFD, [16, 0, iommufd, 0]).result).toBe(-Errno.EINVAL);
  });
});

describe('ATTACH and DETACH', () => {
  const bound = () => {
    const m = cdev();
    m.bind();
    return m;
  };
  test('the device and any PASID go to page tables of their own; a second attach replaces', () => {
    const { attach, attached, file } = bound();
    expect([attach(12, 0, 1), attach(16, 1, 2, 5), attach(16, 1, 1, 6)]).toEqual([0, 0, 0]);
    const [one, two] = [file.tables.get(1), file.tables.get(2)];
    expect([attached.get(-1), attached.get(5), attached.get(6)]).toEqual([one, two, one]);
    expect(attach(12, 0, 2)).toBe(0);
    expect(attached.get(-1)).toBe(two);
  });
  test.each<[rule: string, words: number[], errno: number]>([
    ['argsz below 12', [11, 0, 1], Errno.EINVAL],
    ['argsz without room for the PASID', [12, 1, 1, 0], Errno.EINVAL],
    ['an unknown flag', [16, 2, 1, 0], Errno.EINVAL],
    ['a PASID of more than 20 bits', [16, 1, 1, 0x10_0000], Errno.EINVAL],
    ['an unknown page table', [12, 0, 0xffff_ffff], Errno.ENOENT],
  ])('ATTACH: %s is refused', (_rule, words, errno) => {
    const { attach, attached } = bound();
    expect(attach(...words)).toBe(-errno);
    expect(attached.size).toBe(0);
  });
  test("the device's own refusal is the answer", () => {
    const { attach, iommu } = bound();
    iommu.refuse = -Errno.EBUSY;
    expect(attach(12, 0, 1)).toBe(-Errno.EBUSY);
  });
  test('DETACH: what is attached goes, an unknown PASID is fine, refusals as for ATTACH', () => {
    const { attach, detach, attached } = bound();
    attach(12, 0, 1);
    attach(16, 1, 1, 5);
    expect([detach(12, 1, 77), detach(12, 1, 0xffff_ffff), attached.size]).toEqual([0, 0, 2]);
    expect([detach(7, 0), detach(8, 2), detach(8, 1, 5)]).toEqual([-Errno.EINVAL, -Errno.EINVAL, -Errno.EINVAL]);
    expect([detach(12, 1, 5), [...attached.keys()]]).toEqual([0, [-1]]);
    expect([detach(8, 0), attached.size]).toEqual([0, 0]);
  });
  test('bad pointers are EFAULT', () => {
    const { task, fd } = bound();
    expect(task.ioctl(fd, Ioctl.DEVICE_ATTACH_IOMMUFD_PT, NOWHERE)).toBe(-Errno.EFAULT);
    expect(task.ioctl(fd, Ioctl.DEVICE_DETACH_IOMMUFD_PT, NOWHERE)).toBe(-Errno.EFAULT);
  });
  test('close detaches all and lets go of the iommufd', () => {
    const { task, fd, attach, attached, file } = bound();
    attach(12, 0, 1);
    attach(16, 1, 2, 5);
    task.close(fd);
    expect([attached.size, file.bound.size]).toEqual([0, 0]);
  });
});

describe('removal', () => {
  test('nodes and sysfs entries go at once, open files stay, and the end is told when the last one closes', () => {
    const { task, client, fd, bind, open, nodes, kernel, name } = cdev();
    bind();
    expect(kernel.sysfs.read(`/sys/bus/pci/devices/${name}/vfio-dev/vfio0/dev`)).toBe('511:0\n');
    expect(kernel.sysfs.list(`/sys/bus/pci/devices/${name}/iommu_group/devices`)).toEqual([name]);
    const req = client.eventfd();
    client.setIrqs(fd, 0x24, 4, 0, 1, Int32Array.of(req));
    let released = false;
    nodes.remove(() => {
      released = true;
    });
    expect(client.count(req)).toBe(1);
    expect([open(nodes.cdev), open(nodes.group)]).toEqual([-Errno.ENOENT, -Errno.ENOENT]);
    expect(kernel.sysfs.list(`/sys/bus/pci/devices/${name}`)).toEqual([]);
    expect([client.info(fd).result, released]).toEqual([0, false]);
    task.close(fd);
    expect(released).toBe(true);
  });
  test('an open group answers ENODEV', () => {
    const { client, open, nodes, name } = machine();
    const group = open(nodes.group);
    nodes.remove();
    expect(client.call(group, Ioctl.GROUP_GET_STATUS, [8, 0]).result).toBe(-Errno.ENODEV);
    expect(client.call(group, Ioctl.GROUP_SET_CONTAINER, [open('/dev/vfio/vfio')]).result).toBe(-Errno.ENODEV);
    expect(client.deviceFd(group, name)).toBe(-Errno.ENODEV);
  });
});
