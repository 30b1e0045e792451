import { Errno } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { applyConfig, type ConfigError, type LoadedConfig, loadConfig, saveConfig } from '../src/index.js';
import { machine, sysfsOf } from './machine.js';

const fresh = () => {
  const m = machine({ config: undefined });
  return { ...m, ...sysfsOf(m) };
};
const loaded = (text: string): LoadedConfig => {
  const answer = loadConfig(text);
  if ('why' in answer) throw new Error(`${answer.attribute}: ${answer.why}`);
  return answer;
};
/** The shape of the configurations that accel-config's own tests load: a shared and a dedicated queue in two groups. */
const twoQueues = [
  {
    dev: 'dsa0',
    read_buffer_limit: 0,
    groups: [
      {
        dev: 'group0.0',
        read_buffers_reserved: 0,
        use_read_buffer_limit: 0,
        read_buffers_allowed: 8,
        grouped_workqueues: [
          {
            dev: 'wq0.0',
            mode: 'shared',
            size: 16,
            group_id: 0,
            priority: 10,
            block_on_fault: 1,
            type: 'user',
            driver_name: 'user',
            name: 'app1',
            threshold: 15,
          },
        ],
        grouped_engines: [{ dev: 'engine0.0', group_id: 0 }],
      },
      {
        dev: 'group0.1',
        read_buffers_reserved: 0,
        use_read_buffer_limit: 0,
        read_buffers_allowed: 8,
        grouped_workqueues: [
          {
            dev: 'wq0.1',
            mode: 'dedicated',
            size: 16,
            group_id: 1,
            priority: 10,
            block_on_fault: 1,
            type: 'user',
            driver_name: 'user',
            name: 'app2',
            threshold: 15,
          },
        ],
        grouped_engines: [{ dev: 'engine0.1', group_id: 1 }],
      },
    ],
  },
];

describe('a file is loaded', () => {
  test('into writes in its own order, and enabled by binding the device, then its queues', () => {
    const { writes, enable } = loaded(JSON.stringify(twoQueues));
    expect(writes.map(({ path, value }) => `${path.slice('/sys/bus/dsa/devices/'.length)}=${value}`)).toEqual([
      'dsa0/read_buffer_limit=0',
      'group0.0/read_buffers_reserved=0',
      'group0.0/read_buffers_allowed=8',
      ...[
        'mode=shared',
        'size=16',
        'group_id=0',
        'priority=10',
        'block_on_fault=1',
        'type=user',
        'driver_name=user',
        'name=app1',
        'threshold=15',
      ].map((w) => `wq0.0/${w}`),
      'engine0.0/group_id=0',
      'group0.1/read_buffers_reserved=0',
      'group0.1/read_buffers_allowed=8',
      ...['mode=dedicated', 'size=16', 'group_id=1', 'priority=10', 'block_on_fault=1', 'type=user', 'driver_name=user', 'name=app2'].map(
        (w) => `wq0.1/${w}`,
      ),
      'engine0.1/group_id=1',
    ]);
    const w = fresh();
    expect(applyConfig(w.sysfs, [...writes, ...enable])).toEqual({ error: 0, attribute: '' });
    expect(['dsa0/state', 'wq0.0/state', 'wq0.1/state', 'wq0.0/threshold'].map(w.get)).toEqual(['enabled', 'enabled', 'enabled', '15']);
  });
  test('names of before 5.17 are those of today; members that no attribute has are skipped; fixed traffic classes too', () => {
    const text = JSON.stringify([
      { dev: 'dsa0', token_limit: 4, note: 'x', groups: [{ dev: 'group0.0', tokens_reserved: 2, traffic_class_a: 1, use_token_limit: 1 }] },
    ]);
    const values = (answer: LoadedConfig | ConfigError): string[] =>
      'why' in answer ? [] : answer.writes.map(({ path, value }) => `${path.split('/').slice(-2).join('/')}=${value}`);
    expect(values(loadConfig(text))).toEqual(['dsa0/read_buffer_limit=4', 'group0.0/read_buffers_reserved=2', 'group0.0/use_read_buffer_limit=1']);
    expect(values(loadConfig(text, 0x300))).toContain('group0.0/traffic_class_a=1');
  });
  const wq = (more: object): unknown => [{ dev: 'dsa0', groups: [{ dev: 'group0.0', grouped_workqueues: [{ dev: 'wq0.0', ...more }] }] }];
  test.each([
    ['no JSON', '{', '', /JSON/],
    ['no array', {}, '', /array/],
    ['a device that is none', [7], '[0]', /object/],
    ['a device without a name', [{}], '[0].dev', /name of a dsa/],
    ['groups that are no array', [{ dev: 'dsa0', groups: 1 }], '[0].groups', /array/],
    ['a group of another device', [{ dev: 'dsa0', groups: [{ dev: 'group1.0' }] }], '[0].groups[0].dev', /not of dsa0/],
    [
      'an engine where a queue is due',
      [{ dev: 'dsa0', groups: [{ dev: 'group0.0', grouped_workqueues: [{ dev: 'engine0.0' }] }] }],
      '[0].groups[0].grouped_workqueues[0].dev',
      /name of a wq/,
    ],
    ['a size that is a text', wq({ size: 'big' }), 'wq0.0/size', /whole number/],
    ['a size with a fraction', wq({ size: 1.5 }), 'wq0.0/size', /whole number/],
    ['a mode that is a number', wq({ mode: 1 }), 'wq0.0/mode', /text/],
  ])('%s is an error that names the place', (_rule, file, attribute, why) => {
    const answer = loadConfig(typeof file === 'string' ? file : JSON.stringify(file));
    expect(answer).toMatchObject({ attribute, why: expect.stringMatching(why) });
  });
  test.each([
    ['a queue that is too large', { size: 500 }, 'wq0.0/size', Errno.EINVAL],
    ['a queue that is not there', { dev: 'wq0.9', size: 5 }, 'wq0.9/size', Errno.ENOENT],
  ])('what the kernel refuses is named when it is applied: %s', (_rule, more, attribute, errno) => {
    expect(applyConfig(fresh().sysfs, loaded(JSON.stringify(wq(more))).writes)).toEqual({ error: -errno, attribute });
  });
  test('whatever JSON there is, the answer is writes or an error', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json({ maxDepth: 4 }), fc.string()), (text) => {
        const answer = loadConfig(text);
        return 'why' in answer || answer.writes.every(({ path }) => path.startsWith('/sys/bus/dsa/devices/'));
      }),
    );
  });
});

/** Any configuration that the kernel takes, as writes. */
const configuration = fc
  .record({
    engines: fc.array(fc.integer({ min: -1, max: 3 }), { minLength: 4, maxLength: 4 }),
    limit: fc.integer({ min: 0, max: 96 }),
    groups: fc.array(fc.record({ reserved: fc.integer({ min: 0, max: 24 }), use: fc.boolean() }), {
      minLength: 4,
      maxLength: 4,
    }),
    wqs: fc.array(
      fc.record({
        mode: fc.constantFrom('dedicated', 'shared'),
        size: fc.integer({ min: 1, max: 16 }),
        group_id: fc.integer({ min: -1, max: 3 }),
        priority: fc.integer({ min: 1, max: 15 }),
        block_on_fault: fc.constantFrom(0, 1),
        max_batch_size: fc.integer({ min: 0, max: 10 }).map((n) => 2 ** n),
        max_transfer_size: fc.integer({ min: 0, max: 31 }).map((n) => 2 ** n),
        type: fc.constantFrom('user', 'kernel', 'none'),
        name: fc.string({ minLength: 1, maxLength: 12, unit: fc.constantFrom(...'abz09_-') }),
        ats_disable: fc.constantFrom(0, 1),
      }),
      { minLength: 8, maxLength: 8 },
    ),
  })
  .map(({ engines, limit, groups, wqs }) => [
    ['dsa0/read_buffer_limit', limit],
    ...groups.flatMap((g, i) => [
      [`group0.${i}/read_buffers_reserved`, g.reserved],
      [`group0.${i}/read_buffers_allowed`, g.reserved || 16],
      ...(limit > 0 ? [[`group0.${i}/use_read_buffer_limit`, g.use ? 1 : 0]] : []),
    ]),
    ...wqs.flatMap((wq, i) => [
      ...Object.entries(wq).map(([key, value]) => [`wq0.${i}/${key}`, value]),
      [`wq0.${i}/driver_name`, wq.type === 'kernel' ? 'dmaengine' : 'user'],
      ...(wq.mode === 'shared' ? [[`wq0.${i}/threshold`, Math.ceil(wq.size / 2)]] : []),
    ]),
    ...engines.map((group, e) => [`engine0.${e}/group_id`, group]),
  ]) as fc.Arbitrary<[string, string | number][]>;

test('what is saved and loaded again on another machine is what was there, and is saved the same', () => {
  fc.assert(
    fc.property(configuration, (writes) => {
      const one = fresh();
      for (const [name, value] of writes) one.set(name, value);
      const text = saveConfig(one.sysfs);
      const other = fresh();
      expect(applyConfig(other.sysfs, loaded(text).writes)).toEqual({ error: 0, attribute: '' });
      expect(saveConfig(other.sysfs)).toBe(text);
      for (let i = 0; i < 8; i++)
        if (one.get(`wq0.${i}/group_id`) !== '-1')
          for (const a of ['mode', 'size', 'threshold', 'type', 'name', 'driver_name', 'priority', 'block_on_fault', 'max_transfer_size'])
            expect(other.get(`wq0.${i}/${a}`), a).toBe(one.get(`wq0.${i}/${a}`));
      for (let g = 0; g < 4; g++)
        for (const a of [
          'engines',
          'work_queues',
          ...(text === '[]\n' ? [] : ['read_buffers_reserved', 'read_buffers_allowed', 'use_read_buffer_limit']),
        ])
          expect(other.get(`group0.${g}/${a}`), a).toBe(one.get(`group0.${g}/${a}`));
    }),
    { numRuns: 50 },
  );
}, 60_000);

test('a device without configuration is not saved', () => expect(saveConfig(fresh().sysfs)).toBe('[]\n'));
