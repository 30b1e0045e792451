/** A driver that is bound without queues: sysfs says the rest, as after boot. Linux drivers/dma/idxd/init.c, Documentation/ABI/stable/sysfs-driver-dma-idxd. */
import { expect, test } from 'vitest';
import { Host } from '../src/index.js';

test.each([undefined, {}, { wqs: [] }])('bindIdxd with %j leaves the device off, and its configuration to sysfs', (config) => {
  const { kernel } = new Host({ ramBytes: 64 << 20 });
  kernel.bindIdxd(kernel.devices[0]!, config);
  const { sysfs } = kernel.user;
  const at = '/sys/bus/dsa/devices';
  expect(sysfs.read(`${at}/dsa0/state`)).toBe('disabled\n');
  for (const [path, text] of [
    ['wq0.0/mode', 'dedicated'],
    ['wq0.0/size', '16'],
    ['wq0.0/group_id', '0'],
    ['wq0.0/priority', '10'],
    ['wq0.0/type', 'user'],
    ['wq0.0/driver_name', 'user'],
    ['wq0.0/name', 'app'],
    ['engine0.0/group_id', '0'],
  ] as const)
    expect(sysfs.write(`${at}/${path}`, text), path).toBeGreaterThan(0);
  expect(sysfs.write('/sys/bus/dsa/drivers/idxd/bind', 'dsa0')).toBeGreaterThan(0);
  expect(sysfs.write('/sys/bus/dsa/drivers/user/bind', 'wq0.0')).toBeGreaterThan(0);
  expect(sysfs.read(`${at}/dsa0/state`)).toBe('enabled\n');
  expect(kernel.user.nodes()).toContain('/dev/dsa/wq0.0');
});
