import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { native, Signals } from '../src/native.js';
import { memory } from './machine.js';

test('without koffi: one error that says what to install and what works without it', () => {
  const source = fileURLToPath(new URL('../src/native.ts', import.meta.url));
  const code = `
    const { Module } = await import('node:module');
    const resolve = Module._resolveFilename;
    Module._resolveFilename = (name, ...rest) => { if (name === 'koffi') throw new Error("Cannot find module 'koffi'"); return resolve(name, ...rest); };
    const { native } = await import(${JSON.stringify(source)});
    try { native(); } catch (error) { console.log(error.name + '|' + error.message); }`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], { encoding: 'utf8' });
  expect(stdout, stderr).toMatch(
    /^NativeMissingError\|koffi does not load \(Cannot find module 'koffi'\).*npm install koffi@3\.3\.4.*NetServer.*no interrupts/,
  );
});

test('memory that is taken back becomes zeros at the same place: a view that somebody still holds reaches nothing', () => {
  const sys = native();
  const ram = memory(0x1_0000);
  ram.bytes.fill(0x11);
  const { address, bytes } = sys.allocate(0x1_0000);
  expect(sys.cover(address, 0x1_0000, ram.fd, 0, true)).toBe(0);
  expect(bytes[5]).toBe(0x11);
  sys.uncover(address, 0x1_0000);
  expect(bytes[5]).toBe(0);
  bytes[5] = 0x22;
  expect(ram.bytes[5]).toBe(0x11);
  ram.close();
});

test('descriptors pass with the first byte, close on exec, and an eventfd adds up', () => {
  const sys = native();
  const [a, b] = sys.pair();
  const event = sys.eventfd();
  const room = sys.room('test', 64);
  expect(sys.send(a, room.address, 8, [event, event])).toBe(8);
  expect(sys.receive(b, room.address, 64)).toBe(8);
  const [first, second] = sys.fds.slice();
  sys.add(first!, 2);
  sys.add(second!, 3);
  expect(sys.drain(event)).toBe(5);
  expect(sys.drain(event)).toBe(0);
  for (const fd of [a, b, event, first!, second!]) sys.close(fd);
});

/** UINT64_MAX - 1, which is the most that a write leaves in it. man 2 eventfd. */
const FULL = 0xffff_ffff_ffff_fffen;

test('an eventfd that blocks is signalled without waiting, full or not, and as often as you like', () => {
  const sys = native();
  const event = sys.eventfd(false);
  const signals = new Signals(sys);
  for (let i = 0; i < 1000; i++) expect(signals.signal(event, 1)).toBe(true);
  signals.signal(event, 5);
  expect(sys.drain(event)).toBe(1005);
  // As much as it holds: a write would wait for a reader now.
  expect(sys.add(event, FULL)).toBe(true);
  const start = performance.now();
  for (let i = 0; i < 100; i++) signals.signal(event, 1);
  expect(performance.now() - start).toBeLessThan(1000);
  expect(sys.drain(event)).toBe(2 ** 64);
  signals.close();
  sys.close(event);
});
