import { GroupCfg, Opcode, TableOffsets, WqCfg } from '@siov/idxd-device/spec';
import { Errno, Open } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import { commandText, SoftStatus } from '../src/index.js';
import { integer } from '../src/parse.js';
import { machine, openPortal, sysfsOf } from './machine.js';

const fresh = () => {
  const m = machine({ config: undefined });
  return { ...m, ...sysfsOf(m) };
};
type World = ReturnType<typeof fresh>;
/** Writes as accel-config does for one queue; each must be taken. */
function prepare(w: World, mode: 'dedicated' | 'shared' = 'dedicated', index = 0): void {
  const wq = `wq0.${index}`;
  const steps: [string, string | number][] = [
    [`${wq}/mode`, mode],
    [`${wq}/size`, 16],
    [`${wq}/group_id`, 0],
    [`${wq}/priority`, 10],
    [`${wq}/block_on_fault`, 1],
    [`${wq}/type`, 'user'],
    [`${wq}/driver_name`, 'user'],
    [`${wq}/name`, 'app0'],
    ...(mode === 'shared' ? ([[`${wq}/threshold`, 8]] as [string, number][]) : []),
    ['engine0.0/group_id', 0],
  ];
  expect(steps.map(([name, value]) => [name, w.set(name, value)])).toEqual(steps.map(([name]) => [name, 0]));
}
function running(mode: 'dedicated' | 'shared' = 'dedicated') {
  const w = fresh();
  prepare(w, mode);
  expect([w.bind('idxd', 'dsa0'), w.bind('user', 'wq0.0')]).toEqual([0, 0]);
  return w;
}
const wqWords = (w: World, index = 0): Uint32Array => {
  const { mmio } = w.pci.bars.get(0)!;
  const offsets = Uint32Array.from({ length: 4 }, (_, i) => mmio.read(0x60 + i * 4, 4));
  return Uint32Array.from({ length: 8 }, (_, i) => mmio.read(TableOffsets.get.wqConfig(offsets, 0) * 0x100 + index * 32 + i * 4, 4));
};

describe('the tree after probe', () => {
  test('has device, groups, engines and queues on the bus, each a link to below the PCI function', () => {
    const { sysfs } = fresh();
    const numbered = (name: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${name}0.${i}`);
    expect(sysfs.list('/sys/bus/dsa/devices')).toEqual(['dsa0', ...numbered('engine', 4), ...numbered('group', 4), ...numbered('wq', 8)]);
    expect(sysfs.readLink('/sys/bus/dsa/devices/wq0.3')).toBe('../../../devices/pci0000:00/0000:00:01.0/dsa0/wq0.3');
    expect(sysfs.list('/sys/bus/dsa/drivers')).toEqual(['dmaengine', 'dsa', 'idxd', 'mdev', 'user']);
    expect(sysfs.list('/sys/bus/dsa/devices/dsa0/wq0.3/subsystem')).toEqual(['devices', 'drivers']);
  });
  test.each([
    ['dsa0/version', '0x100'],
    ['dsa0/max_groups', '4'],
    ['dsa0/max_work_queues', '8'],
    ['dsa0/max_work_queues_size', '128'],
    ['dsa0/max_engines', '4'],
    ['dsa0/max_batch_size', '1024'],
    ['dsa0/max_transfer_size', '2147483648'],
    ['dsa0/max_read_buffers', '96'],
    ['dsa0/max_tokens', '96'],
    ['dsa0/configurable', '1'],
    ['dsa0/pasid_enabled', '1'],
    ['dsa0/state', 'disabled'],
    ['dsa0/clients', '0'],
    ['dsa0/cmd_status', '0x0'],
    ['dsa0/errors', Array(8).fill('00000000').join(',')],
    ['dsa0/event_log_size', -Errno.ENOENT],
    ['wq0.0/state', 'disabled'],
    ['wq0.0/group_id', '-1'],
    ['wq0.0/size', '0'],
    ['wq0.0/mode', 'shared'],
    ['wq0.0/type', 'none'],
    ['wq0.0/name', ''],
    ['wq0.0/max_transfer_size', '2097152'],
    ['wq0.0/max_batch_size', '32'],
    ['wq0.0/enqcmds_retries', '32'],
    ['wq0.0/occupancy', '0'],
    ['wq0.0/cdev_minor', -Errno.ENXIO],
    ['wq0.0/prs_disable', -Errno.ENOENT],
    ['wq0.0/ats_disable', '0'],
    ['group0.0/work_queues', ''],
    ['group0.0/traffic_class_a', '1'],
    ['group0.0/desc_progress_limit', -Errno.ENOENT],
    ['engine0.3/group_id', '-1'],
  ])('%s is %s', (name, value) => expect(fresh().get(name)).toBe(value));
  test('op_cap and gen_cap are the registers', () => {
    const w = fresh();
    const { mmio } = w.pci.bars.get(0)!;
    const word = (at: number): string => (mmio.read(at, 4) >>> 0).toString(16).padStart(8, '0');
    expect(w.get('dsa0/op_cap')).toBe([7, 6, 5, 4, 3, 2, 1, 0].map((i) => word(0x40 + i * 4)).join(','));
    expect(BigInt(w.get('dsa0/gen_cap'))).toBe(BigInt(`0x${word(0x14)}${word(0x10)}`));
  });
  test('remove takes the tree away, and probe puts it back', () => {
    const w = fresh();
    w.driver.remove();
    expect([w.sysfs.list('/sys/bus/dsa/devices'), w.bind('idxd', 'dsa0')]).toEqual([[], -Errno.ENODEV]);
    expect([w.driver.probe(), w.get('dsa0/state')]).toEqual([0, 'disabled']);
  });
  test('what configure set shows in it', () => {
    const m = machine({
      config: {
        wqs: [{ mode: 'shared', size: 20, group: 2, threshold: 9, name: 'x' }],
        groups: [{ engines: [] }, { engines: [] }, { engines: [1, 3] }],
      },
    });
    const { get } = sysfsOf(m);
    expect(['wq0.0/mode', 'wq0.0/size', 'wq0.0/threshold', 'wq0.0/name', 'group0.2/work_queues', 'group0.2/engines', 'dsa0/state'].map(get)).toEqual([
      'shared',
      '20',
      '9',
      'x',
      'wq0.0',
      'engine0.1 engine0.3',
      'enabled',
    ]);
  });
});

describe('a written attribute', () => {
  const E = Errno;
  const rows: [name: string, text: string | number, answer: number, before?: (w: World) => void][] = [
    // Bad values.
    ['wq0.0/group_id', 4, -E.EINVAL],
    ['wq0.0/group_id', -2, -E.EINVAL],
    ['wq0.0/group_id', 'x', -E.EINVAL],
    ['wq0.0/group_id', -1, 0],
    ['wq0.0/mode', 'exclusive', -E.EINVAL],
    ['wq0.0/size', 129, -E.EINVAL],
    ['wq0.0/size', 113, -E.EINVAL, (w) => w.set('wq0.1/size', 16)],
    ['wq0.0/size', 112, 0, (w) => w.set('wq0.1/size', 16)],
    ['wq0.0/size', -1, -E.EINVAL],
    ['wq0.0/priority', 16, -E.EINVAL],
    ['wq0.0/priority', 15, 0],
    ['wq0.0/block_on_fault', 'maybe', -E.EINVAL],
    ['wq0.0/block_on_fault', 'Yes', 0],
    ['wq0.0/threshold', 1, -E.EINVAL],
    ['wq0.0/threshold', 0, -E.EINVAL, (w) => w.set('wq0.0/size', 16)],
    ['wq0.0/threshold', 17, -E.EINVAL, (w) => w.set('wq0.0/size', 16)],
    ['wq0.0/threshold', '0x10', 0, (w) => w.set('wq0.0/size', 16)],
    [
      'wq0.0/threshold',
      8,
      -E.EINVAL,
      (w) => {
        w.set('wq0.0/size', 16);
        w.set('wq0.0/mode', 'dedicated');
      },
    ],
    ['wq0.0/type', 'iax', -E.EINVAL],
    ['wq0.0/name', 'n'.repeat(1024), -E.EINVAL], // the newline counts
    ['wq0.0/name', 'n'.repeat(1023), 0],
    ['wq0.0/max_transfer_size', 0, -E.EINVAL],
    ['wq0.0/max_transfer_size', 2 ** 31 + 1, -E.EINVAL],
    ['wq0.0/max_batch_size', 1025, -E.EINVAL],
    ['wq0.0/enqcmds_retries', 'x', -E.EINVAL],
    ['wq0.0/enqcmds_retries', 1, -E.EOPNOTSUPP, (w) => w.set('wq0.0/mode', 'dedicated')],
    ['engine0.0/group_id', 4, -E.EINVAL],
    ['group0.0/read_buffers_reserved', 97, -E.EINVAL],
    ['group0.0/read_buffers_reserved', 50, -E.EINVAL, (w) => w.set('group0.1/read_buffers_reserved', 50)],
    ['group0.0/read_buffers_allowed', 3, -E.EINVAL, (w) => w.set('engine0.0/group_id', 0)],
    ['group0.0/read_buffers_allowed', 97, -E.EINVAL],
    ['group0.0/use_read_buffer_limit', 1, -E.EPERM],
    ['group0.0/use_read_buffer_limit', 1, 0, (w) => w.set('dsa0/read_buffer_limit', 8)],
    ['group0.0/traffic_class_a', 2, -E.EPERM],
    ['dsa0/read_buffer_limit', 97, -E.EINVAL],
    // Read only, and not there.
    ['dsa0/version', 1, -E.EACCES],
    ['wq0.0/clients', 1, -E.EACCES],
    ['wq0.0/op_config', 1, -E.ENOENT],
    // A running queue and device keep what they have.
    ...(['group_id', 'mode', 'priority', 'type', 'name', 'driver_name', 'max_transfer_size', 'max_batch_size', 'ats_disable'] as const).map(
      (name): (typeof rows)[number] => [`wq0.0/${name}`, 1, -E.EPERM, run],
    ),
    ['wq0.0/block_on_fault', 0, -E.ENXIO, run],
    ['wq0.0/threshold', 8, -E.ENXIO, run],
    ['wq0.0/size', 8, -E.EPERM, run],
    ['wq0.1/size', 8, -E.EPERM, run],
    ['wq0.1/priority', 8, 0, run],
    ['dsa0/read_buffer_limit', 8, -E.EPERM, run],
    ['group0.1/read_buffers_reserved', 8, -E.EPERM, run],
    ['group0.1/read_buffers_allowed', 8, -E.EPERM, run],
  ];
  function run(w: World): void {
    prepare(w);
    w.bind('idxd', 'dsa0');
    w.bind('user', 'wq0.0');
  }
  test.each(rows)('%s = %s answers %i', (name, text, answer, before) => {
    const w = fresh();
    before?.(w);
    const was = w.get(name);
    expect(w.set(name, text)).toBe(answer);
    if (answer < 0) expect(w.get(name)).toBe(was);
  });
  test('block_on_fault of a device without it is EOPNOTSUPP', () => {
    const { profile } = machine({ config: undefined }).device;
    const m = machine({ config: undefined, profile: { ...profile, blockOnFault: false } });
    expect(sysfsOf(m).set('wq0.0/block_on_fault', 1)).toBe(-Errno.EOPNOTSUPP);
  });
  test('sizes are rounded up to a power of two, retries down to 64', () => {
    const w = fresh();
    w.set('wq0.0/max_transfer_size', 3000);
    w.set('wq0.0/max_batch_size', 5);
    w.set('wq0.0/enqcmds_retries', 1000);
    expect(['max_transfer_size', 'max_batch_size', 'enqcmds_retries'].map((a) => w.get(`wq0.0/${a}`))).toEqual(['4096', '8', '64']);
  });
  test('another type clears the name, dedicated mode the threshold', () => {
    const w = fresh();
    prepare(w, 'shared');
    w.set('wq0.0/type', 'user');
    expect(w.get('wq0.0/name')).toBe('app0');
    w.set('wq0.0/type', 'kernel');
    w.set('wq0.0/mode', 'dedicated');
    expect([w.get('wq0.0/name'), w.get('wq0.0/threshold')]).toEqual(['', '0']);
  });
  test('reaches the device’s tables at enable', () => {
    const w = fresh();
    prepare(w, 'shared');
    for (const [name, value] of [
      ['wq0.0/max_transfer_size', 65536],
      ['wq0.0/max_batch_size', 16],
      ['wq0.0/ats_disable', 1],
      ['engine0.2/group_id', 0],
      ['group0.0/read_buffers_reserved', 5],
      ['group0.0/read_buffers_allowed', 40],
      ['dsa0/read_buffer_limit', 12],
      ['group0.0/use_read_buffer_limit', 1],
    ] as const)
      expect(w.set(name, value)).toBe(0);
    expect([w.bind('idxd', 'dsa0'), w.bind('user', 'wq0.0')]).toEqual([0, 0]);
    expect(WqCfg.json(wqWords(w), 0)).toMatchObject({
      size: 16,
      threshold: 8,
      priority: 10,
      blockOnFault: 1,
      atsDisable: 1,
      maxTransferShift: 16,
      maxBatchShift: 4,
    });
    const { mmio } = w.pci.bars.get(0)!;
    const at =
      TableOffsets.get.groupConfig(
        Uint32Array.from({ length: 4 }, (_, i) => mmio.read(0x60 + i * 4, 4)),
        0,
      ) * 0x100;
    const group = Uint32Array.from({ length: 16 }, (_, i) => mmio.read(at + i * 4, 4));
    expect(GroupCfg.json(group, 0)).toMatchObject({
      wqs: 1,
      engines: 5,
      readBuffersReserved: 5,
      readBuffersAllowed: 40,
      useReadBufferLimit: 1,
      trafficClassA: 1,
    });
    expect(mmio.read(0x80, 4) & 0xff).toBe(12);
  });
});

describe('bind and unbind', () => {
  test('of a device without a queue in a group: ENXIO, cmd_status says so, any write clears it', () => {
    const w = fresh();
    expect([w.bind('idxd', 'dsa0'), commandText(w.driver.commandStatus), w.get('dsa0/cmd_status')]).toEqual([
      -Errno.ENXIO,
      'wqNoneConfigured',
      '0x800d0000',
    ]);
    expect([w.set('dsa0/cmd_status', 1), w.get('dsa0/cmd_status')]).toEqual([0, '0x0']);
  });
  test('of a device that refuses the configuration: its own status', () => {
    const w = fresh();
    prepare(w);
    w.set('engine0.0/group_id', 1);
    expect([w.bind('idxd', 'dsa0'), commandText(w.driver.commandStatus), w.get('dsa0/state')]).toEqual([-Errno.ENXIO, 'groupConfig3', 'disabled']);
  });
  test('makes device and queue run, and says so in links, states and nodes', () => {
    const w = running();
    expect(['dsa0/state', 'wq0.0/state', 'wq0.0/cdev_minor', 'dsa0/cmd_status'].map(w.get)).toEqual(['enabled', 'enabled', '0', '0x0']);
    expect(w.sysfs.readLink('/sys/bus/dsa/devices/wq0.0/driver')).toBe('../../../../../bus/dsa/drivers/user');
    expect(w.sysfs.kind('/sys/bus/dsa/devices/wq0.0/driver/unbind')).toBe('attribute');
    expect(w.sysfs.read('/sys/bus/dsa/drivers/idxd/dsa0/state')).toBe('enabled\n');
    const t = w.task();
    const { portal, fd } = openPortal(t, '/dev/dsa/wq0.0');
    expect(['wq0.0/clients', 'dsa0/clients', 'wq0.0/state'].map(w.get)).toEqual(['1', '1', 'enabled']);
    const client = new Client(t, { address: portal, mode: 'dedicated' }, { depth: 1 });
    client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(0);
    w.run();
    expect(client.poll(0)).toBe(1);
    t.munmap(portal, 4096);
    t.close(fd);
    expect(['wq0.0/clients', 'wq0.0/state'].map(w.get)).toEqual(['0', 'enabled']);
    expect(WqCfg.get.pasidEnable(wqWords(w), 0)).toBe(0);
  });
  test('a wrong name, a device that is not the driver’s, or not bound to it: ENODEV; one that is bound: EBUSY', () => {
    const w = running();
    expect([w.bind('idxd', 'dsa1'), w.bind('idxd', 'wq0.1'), w.bind('user', 'dsa0'), w.bind('user', 'engine0.0'), w.bind('user', '')]).toEqual(
      Array(5).fill(-Errno.ENODEV),
    );
    expect([w.unbind('user', 'wq0.1'), w.unbind('dmaengine', 'wq0.0'), w.unbind('user', 'dsa0')]).toEqual(Array(3).fill(-Errno.ENODEV));
    expect([w.bind('idxd', 'dsa0'), w.bind('user', 'wq0.0'), w.bind('dmaengine', 'wq0.0')]).toEqual(Array(3).fill(-Errno.EBUSY));
  });
  const refusals: [rule: string, before: (w: World) => void, errno: number, status: keyof typeof SoftStatus][] = [
    ['another driver’s name', (w) => w.set('wq0.0/driver_name', 'dmaengine'), Errno.ENODEV, 'wqNoDriverName'],
    ['a queue in no group', (w) => w.set('wq0.0/group_id', -1), Errno.ENXIO, 'wqNoGroup'],
    [
      'a queue without a name',
      (w) => {
        w.set('wq0.0/type', 'none');
        w.set('wq0.0/type', 'user');
      },
      Errno.ENXIO,
      'wqNoName',
    ],
    ['a shared queue without a threshold', (w) => w.set('wq0.0/mode', 'shared'), Errno.ENXIO, 'wqNoThreshold'],
    ['a queue whose node another made', (w) => void w.node(), Errno.EEXIST, 'characterDevice'],
  ];
  test.each(refusals)('user/bind refuses %s', (_rule, before, errno, status) => {
    const w = fresh();
    prepare(w);
    w.bind('idxd', 'dsa0');
    before(w);
    expect([w.bind('user', 'wq0.0'), w.driver.commandStatus, w.get('wq0.0/type'), w.get('wq0.0/state')]).toEqual([
      -errno,
      SoftStatus[status],
      status === 'wqNoDriverName' ? 'user' : 'none',
      'disabled',
    ]);
  });
  test('a queue of a disabled device is ENXIO', () => {
    const w = fresh();
    prepare(w);
    expect(w.bind('user', 'wq0.0')).toBe(-Errno.ENXIO);
  });
  test('the device’s refusal of a queue is ENXIO with its status: priority 0', () => {
    const w = fresh();
    prepare(w);
    w.bind('idxd', 'dsa0');
    w.set('wq0.0/priority', 0);
    expect([w.bind('user', 'wq0.0'), commandText(w.driver.commandStatus)]).toEqual([-Errno.ENXIO, 'wqPriority']);
  });
  test('unbind of a queue: its attributes are cleared but for size and group, its node is gone, its mapping too', () => {
    const w = running('shared');
    const t = w.task();
    const { portal, fd } = openPortal(t, '/dev/dsa/wq0.0');
    expect(w.unbind('user', 'wq0.0')).toBe(0);
    expect(['state', 'type', 'name', 'threshold', 'priority', 'size', 'group_id', 'clients', 'cdev_minor'].map((a) => w.get(`wq0.0/${a}`))).toEqual([
      'disabled',
      'none',
      '',
      '0',
      '0',
      '16',
      '0',
      '0',
      -Errno.ENXIO,
    ]);
    expect([w.task().open('/dev/dsa/wq0.0', Open.RDWR), t.write(fd, portal, 64)]).toEqual([-Errno.ENOENT, -Errno.ENODEV]);
    expect(() => t.store(portal, 4, 1)).toThrow(/SIG(SEGV|BUS)/);
    t.close(fd);
    prepare2(w);
    expect([w.bind('user', 'wq0.0'), w.get('wq0.0/state'), w.get('wq0.0/clients')]).toEqual([0, 'enabled', '0']);
  });
  function prepare2(w: World): void {
    for (const [name, value] of [
      ['mode', 'dedicated'],
      ['priority', 10],
      ['type', 'user'],
      ['name', 'again'],
    ] as const)
      expect(w.set(`wq0.0/${name}`, value)).toBe(0);
  }
  test('closing a file of before an unbind does not touch the next owner', () => {
    const w = running();
    const old = w.task();
    const fd = old.open('/dev/dsa/wq0.0', Open.RDWR);
    w.unbind('user', 'wq0.0');
    prepare2(w);
    w.bind('user', 'wq0.0');
    const next = w.task();
    const { portal } = openPortal(next, '/dev/dsa/wq0.0');
    old.close(fd);
    const client = new Client(next, { address: portal, mode: 'dedicated' }, { depth: 1 });
    client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(0);
    w.run();
    expect([client.poll(0), w.get('wq0.0/clients'), w.get('wq0.0/state')]).toEqual([1, '1', 'enabled']);
  });
  test('unbind of the device takes its queues with it, and all that was configured', () => {
    const w = running();
    expect(w.unbind('idxd', 'dsa0')).toBe(0);
    expect(['dsa0/state', 'wq0.0/state', 'wq0.0/size', 'wq0.0/group_id', 'engine0.0/group_id', 'group0.0/work_queues'].map(w.get)).toEqual([
      'disabled',
      'disabled',
      '0',
      '-1',
      '-1',
      '',
    ]);
    expect(w.sysfs.kind('/sys/bus/dsa/devices/wq0.0/driver')).toBeUndefined();
    expect([w.unbind('idxd', 'dsa0'), w.task().open('/dev/dsa/wq0.0', Open.RDWR)]).toEqual([-Errno.ENODEV, -Errno.ENOENT]);
    prepare(w);
    expect([w.bind('idxd', 'dsa0'), w.bind('user', 'wq0.0')]).toEqual([0, 0]);
  });
  test('the file of the first driver chooses by type; a queue without one is EINVAL', () => {
    const w = fresh();
    prepare(w);
    expect([w.bind('dsa', 'dsa0'), w.bind('dsa', 'wq0.0'), w.sysfs.list('/sys/bus/dsa/drivers/user')]).toEqual([0, 0, ['bind', 'unbind', 'wq0.0']]);
    expect([w.unbind('dsa', 'wq0.0'), w.bind('dsa', 'wq0.0')]).toEqual([0, -Errno.EINVAL]);
  });
  test('dmaengine enables a kernel queue without a node; mdev keeps it off for its virtual device', () => {
    const w = fresh();
    prepare(w);
    prepare(w, 'dedicated', 1);
    w.set('wq0.0/driver_name', 'dmaengine');
    w.set('wq0.1/driver_name', 'mdev');
    w.bind('idxd', 'dsa0');
    expect([w.bind('dmaengine', 'wq0.0'), w.bind('mdev', 'wq0.1')]).toEqual([0, 0]);
    expect(['wq0.0/type', 'wq0.0/state', 'wq0.0/cdev_minor', 'wq0.1/type', 'wq0.1/state'].map(w.get)).toEqual([
      'kernel',
      'enabled',
      -Errno.ENXIO,
      'mdev',
      'disabled',
    ]);
    expect(w.driver.wqs[1]!.config).toMatchObject({ type: 'mdev', mode: 'dedicated', size: 16 });
  });
});

describe('whatever is written, in whatever order', () => {
  const names = (() => {
    const { sysfs } = fresh();
    const parts = ['dsa0', 'wq0.0', 'wq0.1', 'group0.0', 'engine0.0', 'engine0.1'];
    const files = parts.flatMap((part) => sysfs.list(`/sys/bus/dsa/devices/${part}`).map((file) => `/sys/bus/dsa/devices/${part}/${file}`));
    const drivers = sysfs.list('/sys/bus/dsa/drivers').flatMap((d) => [`/sys/bus/dsa/drivers/${d}/bind`, `/sys/bus/dsa/drivers/${d}/unbind`]);
    return { files: files.filter((file) => sysfs.kind(file) === 'attribute'), drivers };
  })();
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(
      '0',
      '1',
      '-1',
      '8',
      '16',
      '200',
      '4294967296',
      '1e3',
      '0x10',
      '010',
      'dedicated',
      'shared',
      'user',
      'kernel',
      'none',
      'mdev',
      'y\n',
      '',
      '\n',
      '\0',
      ' 1',
      'f,3',
    ),
    fc.integer({ min: -2, max: 140 }).map(String),
  );
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.tuple(fc.constantFrom(...names.files), text) },
    { weight: 2, arbitrary: fc.tuple(fc.constantFrom(...names.drivers), fc.constantFrom('dsa0', 'wq0.0', 'wq0.1', 'engine0.0', 'x', '')) },
    { weight: 1, arbitrary: fc.tuple(fc.constantFrom('open', 'close', 'prepare'), fc.constant('')) },
  );
  const known = new Set<number>(Object.values(Errno));
  test('the answer is success or an errno, and what the files say agrees with the device and with itself', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const w = fresh();
        const t = w.task();
        const fds: number[] = [];
        for (const [path, value] of steps) {
          if (path === 'open') fds.push(t.open('/dev/dsa/wq0.0', Open.RDWR));
          else if (path === 'close') t.close(fds.pop() ?? -1);
          else if (path === 'prepare')
            for (const [name, v] of [
              ['wq0.0/mode', 'dedicated'],
              ['wq0.0/size', 16],
              ['wq0.0/group_id', 0],
              ['wq0.0/priority', 3],
              ['wq0.0/type', 'user'],
              ['wq0.0/driver_name', 'user'],
              ['wq0.0/name', 'a'],
              ['engine0.0/group_id', 0],
            ] as const)
              w.set(name, v);
          else {
            const answer = w.sysfs.write(path, value);
            expect(answer === value.length || known.has(-answer), `${path} ${JSON.stringify(value)}: ${answer}`).toBe(true);
          }
        }
        for (const file of names.files) {
          const shown = w.sysfs.read(file);
          expect(typeof shown === 'string' ? shown === '' || shown.endsWith('\n') : known.has(-shown), `${file}: ${shown}`).toBe(true);
        }
        const state = w.pci.bars.get(0)!.mmio.read(0x90, 4) & 3;
        expect(w.get('dsa0/state')).toBe(['disabled', 'enabled'][state]);
        for (let i = 0; i < 8; i++) {
          const on = w.get(`wq0.${i}/state`) === 'enabled';
          expect(WqCfg.get.state(wqWords(w, i), 0)).toBe(on ? 1 : 0);
          const group = Number(w.get(`wq0.${i}/group_id`));
          expect(
            group === -1 ||
              String(w.get(`group0.${group}/work_queues`))
                .split(' ')
                .includes(`wq0.${i}`),
          ).toBe(true);
        }
        expect(Array.from({ length: 8 }, (_, i) => Number(w.get(`wq0.${i}/size`))).reduce((a, b) => a + b)).toBeLessThanOrEqual(128);
        // And it can still be made to work.
        w.unbind('idxd', 'dsa0');
        for (const fd of fds) t.close(fd);
        if (state === 0)
          for (const part of ['wq0.0', 'wq0.1'])
            for (const [name, v] of [
              ['group_id', -1],
              ['size', 0],
            ] as const)
              w.set(`${part}/${name}`, v);
        for (const e of [0, 1]) w.set(`engine0.${e}/group_id`, -1);
        // The driver takes an allowance below what is reserved, as Linux does; the device does not.
        for (const g of [0, 1, 2, 3])
          for (const [name, v] of [
            ['tokens_reserved', 0],
            ['tokens_allowed', 96],
          ] as const)
            w.set(`group0.${g}/${name}`, v);
        prepare(w);
        expect([w.bind('idxd', 'dsa0'), w.bind('user', 'wq0.0'), commandText(w.driver.commandStatus)]).toEqual([0, 0, 'success']);
      }),
      { numRuns: 150 },
    );
  }, 60_000);
  test('numbers are read as kstrtol reads them', () => {
    expect(['1', '+1', '-1', '1\n', '0x1f', '010', '1\n\n', ' 1', '', '-', '1x', `${2 ** 70}`].map((s) => integer(s, 0, true))).toEqual([
      1,
      1,
      -1,
      1,
      31,
      8,
      ...Array(6).fill(Number.NaN),
    ]);
    fc.assert(fc.property(fc.integer(), (n) => integer(`${n}\n`, 10, true) === n));
  });
});
