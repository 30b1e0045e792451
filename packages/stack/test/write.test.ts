/** write() on /dev/dsa/wqD.W: the kernel submits for the process. Linux drivers/dma/idxd/cdev.c. */
import { Descriptor, Flag, Opcode, Record } from '@siov/idxd-device/spec';
import { Errno, Open } from '@siov/layout/uapi';
import type { UserTask } from '@siov/vfs';
import { expect, test } from 'vitest';
import { Host } from '../src/index.js';
import { MdevStack } from '../src/mdev.js';

/** A NOP whose record lies at the start of a fresh page; written to the node, then run. */
function nop(task: UserTask, path: string, wait: (until: () => boolean) => void): { result: number; status: unknown } {
  const fd = task.open(path, Open.RDWR);
  expect(fd).toBeGreaterThanOrEqual(0);
  const page = task.alloc(4096);
  const d = new Uint32Array(16);
  Descriptor.set.opcode(d, 0, Opcode.nop);
  Descriptor.set.flags(d, 0, Flag.recordAddressValid | Flag.requestRecord);
  Descriptor.set.recordLow(d, 0, page % 2 ** 32);
  Descriptor.set.recordHigh(d, 0, Math.floor(page / 2 ** 32));
  task.writeStruct(page + 64, d);
  const result = task.write(fd, page + 64, 64 + 10);
  wait(() => task.load(page, 1) !== 0);
  const status = Record.json(task.readStruct(page, new Uint32Array(8)), 0).status;
  expect(task.write(fd, 8, 64)).toBe(-Errno.EFAULT);
  return { result, status };
}
const idle = { step: () => 'wait' as const };

test.each(['dedicated', 'shared'] as const)('a %s queue bound through sysfs', (mode) => {
  const host = new Host({ ramBytes: 64 << 20 });
  const { kernel } = host;
  kernel.bindIdxd(kernel.devices[0]!, { wqs: [{ mode, size: 16, group: 0, type: 'user', name: 'app' }] });
  const { sysfs } = kernel.user;
  expect(sysfs.write('/sys/bus/dsa/devices/wq0.0/driver_name', 'user')).toBeGreaterThan(0);
  expect(sysfs.write('/sys/bus/dsa/drivers/user/bind', 'wq0.0')).toBeGreaterThan(0);
  expect(nop(kernel.user.spawn(idle), '/dev/dsa/wq0.0', (until) => void host.clock.wait(until))).toEqual({ result: 64, status: 'success' });
});

test('the queue of a virtual device, in a guest', () => {
  const stack = new MdevStack({ ramBytes: 128 << 20, guestRamBytes: 48 << 20 });
  expect(nop(stack.guest.user.spawn(idle), stack.guestPaths[0]!, (until) => void stack.host.clock.wait(until))).toEqual({
    result: 64,
    status: 'success',
  });
});
