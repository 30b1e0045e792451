import { Errno as E } from '@siov/layout/uapi';
import { expect, test } from 'vitest';
import { Sysfs } from '../src/index.js';
import { machine, RDONLY, RDWR, WRONLY } from './machine.js';

function tree() {
  const sysfs = new Sysfs();
  let size = 16;
  sysfs.add('/sys/bus/dsa/devices/wq0.0/size', {
    show: () => `${size}\n`,
    store: (text) => (Number.isInteger(Number(text)) ? ((size = Number(text)), 0) : -E.EINVAL),
  });
  sysfs.add('bus/dsa/devices/wq0.0/state', { show: () => 'disabled\n' });
  sysfs.add('/sys/bus/dsa/drivers/user/bind', { store: () => 0 });
  sysfs.link('/sys/class/wq0.0', '../bus/dsa/devices/wq0.0');
  sysfs.link('/sys/devices/first', '/sys/class/wq0.0');
  return sysfs;
}

test('attributes are shown and stored; the rest is ENOENT, EISDIR, EACCES, or what the store answers', () => {
  const sysfs = tree();
  expect([sysfs.read('/sys/bus/dsa/devices/wq0.0/size'), sysfs.write('bus/dsa/devices/wq0.0/size', '32\n')]).toEqual(['16\n', 3]);
  expect(sysfs.read('/bus/dsa/devices/wq0.0/size')).toBe('32\n');
  expect([
    sysfs.write('/sys/bus/dsa/devices/wq0.0/size', 'many'),
    sysfs.read('/sys/bus/none'),
    sysfs.read('/sys/bus/dsa'),
    sysfs.write('/sys/bus/dsa', ''),
    sysfs.write('/sys/bus/dsa/devices/wq0.0/state', 'enabled'),
    sysfs.read('/sys/bus/dsa/drivers/user/bind'),
    sysfs.read('/sys/bus/dsa/devices/wq0.0/size/deeper'),
  ]).toEqual([-E.EINVAL, -E.ENOENT, -E.EISDIR, -E.EISDIR, -E.EACCES, -E.EACCES, -E.ENOENT]);
});

test('directories list their names; links lead on, also through each other; loops end', () => {
  const sysfs = tree();
  expect([sysfs.list('/sys'), sysfs.list('/sys/devices/first'), sysfs.list('/sys/none')]).toEqual([
    ['bus', 'class', 'devices'],
    ['size', 'state'],
    [],
  ]);
  expect([sysfs.read('/sys/devices/first/state'), sysfs.readLink('/sys/class/wq0.0')]).toEqual(['disabled\n', '../bus/dsa/devices/wq0.0']);
  sysfs.link('/sys/a', '/sys/b');
  sysfs.link('/sys/b', '/sys/a');
  expect([sysfs.read('/sys/a'), sysfs.kind('/sys/class'), sysfs.kind('/sys/a')]).toEqual([-E.ENOENT, 'directory', undefined]);
});

test('remove takes one attribute or all below; a name is placed once', () => {
  const sysfs = tree();
  expect(() => sysfs.add('/sys/bus/dsa/devices/wq0.0/size', {})).toThrow(/exists/);
  expect(() => sysfs.add('/sys/bus/dsa/devices/wq0.0/size/x', {})).toThrow(/directory/);
  sysfs.remove('/sys/bus/dsa/devices/wq0.0/size');
  expect(sysfs.list('/sys/bus/dsa/devices/wq0.0')).toEqual(['state']);
  sysfs.remove('/sys/bus/dsa');
  sysfs.remove('/sys/never/was');
  expect([sysfs.list('/sys/bus'), sysfs.read('/sys/class/wq0.0/state')]).toEqual([[], -E.ENOENT]);
});

test('processes open attributes as files', () => {
  const { kernel, idleTask } = machine();
  const stored: string[] = [];
  kernel.sysfs.add('/sys/x/name', { show: () => 'abcdef\n', store: (text) => (stored.push(text), 0) });
  kernel.sysfs.add('/sys/x/only', { show: () => -E.EIO });
  const task = idleTask();
  const page = task.alloc(4096);
  const fd = task.open('/sys/x/name', RDWR);
  expect([task.read(fd, page, 4), task.read(fd, page + 4, 100), task.read(fd, page, 1)]).toEqual([4, 3, 0]);
  expect(String.fromCharCode(...task.readStruct(page, new Uint8Array(7)))).toBe('abcdef\n');
  expect([task.pwrite(fd, page, 3, 0), stored, task.read(fd, 0, 4)]).toEqual([3, ['abc'], 0]);
  expect([task.pread(fd, 0, 4, 0), task.write(fd, 0, 4)]).toEqual([-E.EFAULT, -E.EFAULT]);
  expect([task.open('/sys/x', RDONLY), task.open('/sys/y', RDONLY), task.open('/sys/x/only', WRONLY)]).toEqual([-E.EISDIR, -E.ENOENT, -E.EACCES]);
  expect(task.read(task.open('/sys/x/only', RDONLY), page, 9)).toBe(-E.EIO);
});

test('an attribute says what may be done with it', () => {
  const { kernel } = machine();
  kernel.sysfs.add('/sys/x/a', { show: () => '' });
  kernel.sysfs.add('/sys/x/b', { store: () => 0 });
  kernel.sysfs.add('/sys/x/c', { show: () => '', store: () => 0 });
  expect(['a', 'b', 'c', 'd', '.'].map((name) => kernel.sysfs.mode(`/sys/x/${name}`))).toEqual([0o444, 0o200, 0o644, 0, 0]);
});

test('a walk finds everything once, directories first, and follows no link', () => {
  const sysfs = new Sysfs();
  sysfs.add('/sys/b/x/one', { show: () => '1' });
  sysfs.add('/sys/b/two', { store: () => 0 });
  sysfs.link('/sys/a/up', '../b');
  sysfs.directory('/sys/empty');
  const seen: string[] = [];
  sysfs.walk({
    directory: (path) => void seen.push(`${path}/`),
    link: (path, target) => void seen.push(`${path} -> ${target}`),
    attribute: (path, { show }) => void seen.push(`${path} ${show?.() ?? '-'}`),
  });
  expect(seen).toEqual(['/sys/', '/sys/b/', '/sys/b/x/', '/sys/b/x/one 1', '/sys/b/two -', '/sys/a/', '/sys/a/up -> ../b', '/sys/empty/']);
});
