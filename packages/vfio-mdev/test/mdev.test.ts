/** Mediated devices through sysfs. Linux, drivers/vfio/mdev; Documentation/driver-api/vfio-mediated-device.rst. */
import { Errno } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { MdevBus, type MdevType, type VfioDevice } from '../src/index.js';
import { machine } from './machine.js';

const PARENT = '/sys/class/mdev_bus/0000:00:01.0';
const TYPES = `${PARENT}/mdev_supported_types`;
const A = '00000000-aaaa-4000-8000-000000000001';
const B = '00000000-aaaa-4000-8000-000000000002';

const bus = (type: Partial<MdevType> = {}, maxInstances = 2) => {
  const m = machine();
  const { sysfs } = m.kernel;
  const events: string[] = [];
  const mdevs = new MdevBus({ core: m.core, kernel: m.kernel, uevent: (_path, variable) => void events.push(variable) });
  const removed: string[] = [];
  const state = { probe: 0, attached: new Map<number, object>() };
  const parent = mdevs.registerParent({
    name: '0000:00:01.0',
    driverName: 'idxd',
    types: [{ sysfsName: '1dwq-v1', prettyName: 'one dedicated queue', ...type }, { sysfsName: '1swq-v1' }],
    maxInstances,
    create: (_type, uuid): VfioDevice | number => state.probe || Object.assign(Object.create(m.device) as typeof m.device, { name: uuid }),
    remove: (device) => void removed.push(device.name),
  });
  const create = (uuid: string): number => sysfs.write(`${TYPES}/idxd-1dwq-v1/create`, uuid);
  const remove = (uuid: string, text = '1\n'): number => sysfs.write(`/sys/bus/mdev/devices/${uuid}/remove`, text);
  const available = (): string | number => sysfs.read(`${TYPES}/idxd-1dwq-v1/available_instances`);
  return { ...m, sysfs, mdevs, parent, create, remove, available, removed, events, state };
};

describe('types', () => {
  test('a directory a type: name, device API, instances; a description only where there is one', () => {
    const { sysfs } = bus({ description: () => 'for tests' });
    expect(sysfs.list(TYPES)).toEqual(['idxd-1dwq-v1', 'idxd-1swq-v1']);
    const read = (name: string) => sysfs.read(`${TYPES}/idxd-1dwq-v1/${name}`);
    expect([read('name'), read('device_api'), read('available_instances'), read('description')]).toEqual([
      'one dedicated queue\n',
      'vfio-pci\n',
      '2\n',
      'for tests\n',
    ]);
    expect(sysfs.read(`${TYPES}/idxd-1swq-v1/name`)).toBe('1swq-v1\n');
    expect(sysfs.read(`${TYPES}/idxd-1swq-v1/description`)).toBe(-Errno.ENOENT);
    expect(sysfs.read(`${TYPES}/idxd-1dwq-v1/create`)).toBe(-Errno.EACCES);
  });
});

describe('create', () => {
  test.each([
    ['too short', A.slice(1)],
    ['too long', `${A}\n\n`],
    ['37 characters without a newline', `${A}0`],
    ['dashes elsewhere', A.replace('-', '0')],
    ['no hex', A.replace('a', 'g')],
    ['empty', ''],
  ])('a UUID that is %s is EINVAL', (_what, text) => {
    expect(bus().create(text)).toBe(-Errno.EINVAL);
  });
  test('a device on the bus, below its parent, linked to its type, with a group and a node', () => {
    const { sysfs, create, client, mdevs } = bus();
    expect(create(`${A.toUpperCase()}\n`)).toBe(37);
    expect(sysfs.list('/sys/bus/mdev/devices')).toEqual([A]);
    expect(sysfs.readLink(`/sys/bus/mdev/devices/${A}`)).toBe(`/sys/devices/pci0000:00/0000:00:01.0/${A}`);
    expect(sysfs.readLink(`/sys/bus/mdev/devices/${A}/mdev_type`)).toMatch(/idxd-1dwq-v1$/);
    expect(sysfs.list(`${TYPES}/idxd-1dwq-v1/devices`)).toEqual([A]);
    expect(sysfs.list(`/sys/bus/mdev/devices/${A}/vfio-dev`)).toHaveLength(1);
    const { device } = client.openInContainer(mdevs.find(A)!.nodes.group, A);
    expect(client.info(device).result).toBe(0);
  });
  test("errors in the kernel's order: EEXIST anywhere in the system, then EUSERS, then what the driver says", () => {
    const { sysfs, create, available, state } = bus();
    state.probe = -Errno.ENODEV;
    expect([create(A), available()]).toEqual([-Errno.ENODEV, '2\n']);
    state.probe = 0;
    expect([create(A), create(A)]).toEqual([36, -Errno.EEXIST]);
    expect(sysfs.write(`${TYPES}/idxd-1swq-v1/create`, A)).toBe(-Errno.EEXIST);
    expect([create(B), available()]).toEqual([36, '0\n']);
    expect([create(A), create(A.replace('1', '3'))]).toEqual([-Errno.EEXIST, -Errno.EUSERS]);
  });
  test('a type that counts for itself is asked, and its driver decides', () => {
    const { create, available } = bus({ available: () => 7 }, 0);
    expect([available(), create(A)]).toEqual(['7\n', 36]);
  });
});

describe('remove', () => {
  test('a number that is not 0 removes; 0 does nothing; text is EINVAL', () => {
    const { create, remove, sysfs, removed, available } = bus();
    create(A);
    expect([remove(A, '0'), remove(A, 'x'), remove(A, ''), remove(A, '-1'), sysfs.list('/sys/bus/mdev/devices')]).toEqual([
      1,
      -Errno.EINVAL,
      -Errno.EINVAL,
      -Errno.EINVAL,
      [A],
    ]);
    expect(remove(A)).toBe(2);
    expect([sysfs.list('/sys/bus/mdev/devices'), removed, available()]).toEqual([[], [A], '2\n']);
    expect(remove(A)).toBe(-Errno.ENOENT);
    expect(sysfs.list('/sys/devices/pci0000:00/0000:00:01.0')).toEqual(['mdev_supported_types']);
    expect(create(A)).toBe(36);
  });
  test('the instance and the UUID come back when the last user has gone, not before', () => {
    const { create, remove, removed, available, task, client, mdevs } = bus();
    create(A);
    const { group, device } = client.openInContainer(mdevs.find(A)!.nodes.group, A);
    expect(remove(A)).toBe(2);
    expect([removed, available(), create(A)]).toEqual([[], '1\n', -Errno.EEXIST]);
    task.close(device);
    expect(removed).toEqual([]);
    task.close(group);
    expect([removed, available(), create(A)]).toEqual([[A], '2\n', 36]);
  });
});

test('a parent comes and goes with its events, and takes its devices along', () => {
  const { sysfs, create, parent, removed, events } = bus();
  create(A);
  create(B);
  parent.unregister();
  parent.unregister();
  expect(events).toEqual(['MDEV_STATE=registered', 'MDEV_STATE=unregistered']);
  expect(removed).toEqual([A, B]);
  expect([sysfs.list('/sys/bus/mdev/devices'), sysfs.list('/sys/class/mdev_bus')]).toEqual([[], []]);
});
