import { expect, test } from 'vitest';
import { type Machine, qemuArguments } from '../src/qemu.js';

const machine: Machine = {
  ...{ kernel: '/k', initrd: '/i', log: '/l', tree: '/tree', sockets: ['/a, b.sock', '/c"d.sock'] },
  ...{ cpus: 2, dma: 'mapped', iommu: false, reboots: false },
};
/** What follows each time that an option is there. */
const values = (args: readonly string[], option: string): string[] => args.flatMap((arg, i) => (arg === option ? [args[i + 1]!] : []));

test("devices keep their sockets' paths whatever is in them, and have slots of their own", () => {
  const devices = values(qemuArguments(machine), '-device').map((text) => JSON.parse(text) as { addr: string; socket: { path: string } });
  expect(devices.map(({ socket }) => socket.path)).toEqual(machine.sockets);
  expect(devices.map(({ addr }) => addr)).toEqual(['10', '11']);
});

test('guest memory is a shared file for mapped DMA, and private for messages', () => {
  expect(values(qemuArguments(machine), '-object')).toEqual([expect.stringMatching(/^memory-backend-memfd,.*share=on/)]);
  expect(values(qemuArguments({ ...machine, dma: 'messages' }), '-object')).toEqual([expect.stringMatching(/^memory-backend-ram,(?!.*share)/)]);
});

test('the virtual IOMMU comes before the devices, in caching mode and without interrupt remapping, and the kernel uses it', () => {
  const args = qemuArguments({ ...machine, iommu: true });
  expect(values(args, '-device')[0]).toBe('intel-iommu,intremap=off,caching-mode=on');
  expect(values(args, '-append')[0]).toContain('intel_iommu=on');
  expect(values(qemuArguments(machine), '-append')[0]).not.toContain('intel_iommu');
});

test('only a guest that may reboot does; the kernel takes MOVDIR64B for given; processors are as many as asked for', () => {
  expect(qemuArguments(machine)).toContain('-no-reboot');
  expect(qemuArguments({ ...machine, reboots: true })).not.toContain('-no-reboot');
  expect(values(qemuArguments(machine), '-append')[0]).toContain('setcpuid=movdir64b');
  expect(values(qemuArguments(machine), '-smp')).toEqual(['2']);
});
