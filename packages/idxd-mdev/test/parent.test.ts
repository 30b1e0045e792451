/** The type in sysfs: Documentation/driver-api/vfio-mediated-device.rst; the series' 1dwq type. */
import { Errno } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { TYPE_1DWQ } from '../src/index.js';
import { bound, machine, opened, TYPE, uuid } from './machine.js';

describe('type 1dwq-v1', () => {
  test('says its name, its API, and how many dedicated queues of type mdev nobody has', () => {
    const { kernel } = machine({
      config: {
        wqs: [
          { mode: 'dedicated', size: 8, group: 0, type: 'mdev' },
          { mode: 'shared', size: 8, group: 0, type: 'mdev' },
          { mode: 'dedicated', size: 8, group: 0, type: 'user' },
          { mode: 'dedicated', size: 8, group: 0, type: 'mdev' },
        ],
      },
    });
    const read = (name: string) => kernel.sysfs.read(`${TYPE}/${name}`);
    expect([read('name'), read('device_api'), read('available_instances')]).toEqual([`${TYPE_1DWQ}\n`, 'vfio-pci\n', '2\n']);
  });
  test('each uuid takes a queue; without one left EUSERS; remove gives it back', () => {
    const { kernel, create, driver, parent } = machine({ queues: 2 });
    const available = () => kernel.sysfs.read(`${TYPE}/available_instances`);
    expect([create(0), create(1), create(2), available()]).toEqual([36, 36, -Errno.EUSERS, '0\n']);
    expect(new Set(driver.wqs.map((wq) => wq.owner))).toEqual(new Set(parent.devices.values()));
    expect(kernel.sysfs.write(`/sys/bus/mdev/devices/${uuid(0)}/remove`, '1')).toBe(1);
    expect([available(), parent.devices.has(uuid(0)), create(1), create(3), available()]).toEqual(['1\n', false, -Errno.EEXIST, 36, '0\n']);
  });
  test('what is no uuid is EINVAL and takes nothing', () => {
    const { kernel } = machine();
    for (const text of ['', 'x', uuid(0).slice(1), `${uuid(0)}0`, uuid(0).replace('-', '_')])
      expect(kernel.sysfs.write(`${TYPE}/create`, text), text).toBe(-Errno.EINVAL);
    expect(kernel.sysfs.read(`${TYPE}/available_instances`)).toBe('1\n');
  });
  test('a device in use is asked back by its REQ interrupt, and its queue is free when the last user has gone', () => {
    const { kernel, client, fd, group, task, driver, create } = opened();
    const request = client.eventfd();
    expect(client.setIrqs(fd, 36, 4, 0, 1, Int32Array.of(request))).toBe(0);
    kernel.sysfs.write(`/sys/bus/mdev/devices/${uuid(0)}/remove`, '1');
    expect([client.count(request), driver.wqs[0]!.owner !== undefined, create(1)]).toEqual([1, true, -Errno.EUSERS]);
    task.close(fd);
    task.close(group);
    expect([driver.wqs[0]!.owner, create(1)]).toEqual([undefined, 36]);
  });
  test('a parent that unregisters takes its devices along', () => {
    const { create, registered, kernel, driver, parent } = machine({ queues: 2 });
    create(0);
    create(1);
    registered.unregister();
    expect([kernel.sysfs.list('/sys/bus/mdev/devices'), parent.devices.size, driver.wqs.map((wq) => wq.owner)]).toEqual([
      [],
      0,
      [undefined, undefined],
    ]);
  });
});

test('the parent that the driver takes down under an open device leaves it answering: enabling the queue is a hardware error', () => {
  const m = bound();
  m.driver.disable();
  expect(m.queueOn()).toBe(0x03);
  expect(m.task.close(m.fd)).toBe(0);
});
