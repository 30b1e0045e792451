/** What one server does for several clients at a time. */
import { expect, test } from 'vitest';
import { VfioUserClient, VfioUserServer } from '../src/index.js';
import { native } from '../src/native.js';
import { openFds, socketPath } from './machine.js';
import { message, pack, RawClient } from './raw.js';
import { SampleDevice } from './sample.js';

function two() {
  const paths = [socketPath(), socketPath()] as const;
  const devices = paths.map((path) => ({ path, device: new SampleDevice() }));
  return { paths, devices: devices.map(({ device }) => device), server: new VfioUserServer({ devices }) };
}

test('a client that sends without a pause does not keep another from coming', () => {
  const { paths, server } = two();
  const busy = RawClient.ready(paths[0], server);
  // From here on the server waits for this client alone, and always finds something.
  const other = native().connect(paths[1]);
  let steps = 0;
  for (; server.clients < 2 && steps < 1000; steps++) {
    busy.send(message(9, pack(0n, 0, 4)));
    server.step(50);
    busy.drop();
  }
  expect(steps).toBeLessThan(300);
  native().close(other);
  busy.close();
  server.step(0);
  server.close();
});

test('many clients of many devices: each sees its own registers, and all is given back', () => {
  const before = openFds();
  const devices = Array.from({ length: 64 }, () => ({ path: socketPath(), device: new SampleDevice() }));
  const server = new VfioUserServer({ devices });
  const clients = devices.map(({ path }) => VfioUserClient.connect(path, { idle: () => server.step(0) }));
  expect(server.clients).toBe(64);
  for (const [i, client] of clients.entries()) client.regionWrite(0, 0, Uint8Array.of(i));
  for (const [i, client] of clients.entries()) expect(client.regionRead(0, 0, 1)[0]).toBe(i);
  for (const client of clients) client.close();
  for (let i = 0; i < 4; i++) server.step(0);
  expect(server.clients).toBe(0);
  expect(server.counters).toMatchObject({ messages: 64 * 3, errors: 0 });
  server.close();
  expect(openFds()).toBe(before);
});

test('a client that first sends what it has to say, and then reads our commands, is read: they wait for it, not it for them', () => {
  const { paths, devices, server } = two();
  const client = RawClient.ready(paths[0], server);
  expect(client.call(2, pack(32, 3, 0n, 0n, 0x100_0000n)).errno).toBe(0);
  const { link } = devices[0]!.dma;
  const got: (number | undefined)[] = [];
  const megabyte = new Uint8Array(1 << 20);
  link!.read(0, megabyte.length, (data) => got.push(data?.length));
  for (let i = 0; i < 8; i++) link!.write(i << 20, megabyte, () => {});
  // Our first command is number 0. Its answer goes out before anything is read.
  client.sendOnly(message(11, pack(0n, BigInt(megabyte.length), megabyte), { id: 0, flags: 1 }));
  server.step(0);
  expect(got).toEqual([megabyte.length]);
  client.close();
  server.close();
});

test('the second of two clients of one device waits until the first is gone', () => {
  const { paths, server } = two();
  const first = RawClient.ready(paths[0], server);
  const second = new RawClient(paths[0], server);
  second.send(message(1, pack(0)));
  expect(second.next()).toBeUndefined();
  first.close();
  expect(second.next()).toMatchObject({ command: 1, errno: 0 });
  second.close();
  server.close();
});

test('a server whose path somebody else has taken over leaves it alone', async () => {
  const { existsSync, unlinkSync, writeFileSync } = await import('node:fs');
  const path = socketPath();
  const server = new VfioUserServer({ devices: [{ path, device: new SampleDevice() }] });
  unlinkSync(path);
  writeFileSync(path, 'mine');
  server.close();
  expect(existsSync(path)).toBe(true);
});
