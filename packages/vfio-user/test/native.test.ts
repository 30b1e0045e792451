import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { native } from '../src/native.js';
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
  sys.signal(first!, 2, true);
  sys.signal(second!, 3, true);
  expect(sys.drain(event)).toBe(5);
  expect(sys.drain(event)).toBe(0);
  // One that blocks and is full is not waited for.
  expect(sys.signal(event, 2 ** 53, true)).toBe(true);
  for (const fd of [a, b, event, first!, second!]) sys.close(fd);
});
