import { existsSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ServerThread, type ThreadOptions, VfioUserClient } from '../src/index.js';
import { openFds, socketPath } from './machine.js';

const module = new URL('./thread-device.ts', import.meta.url);
const until = async (what: () => boolean): Promise<void> => {
  for (let i = 0; i < 400 && !what(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(what()).toBe(true);
};
const start = (paths: readonly string[], more: Partial<ThreadOptions> = {}): Promise<ServerThread> =>
  ServerThread.start({ module, data: { paths }, counters: 1, ...more });

test('a server in a thread serves while this one blocks in its own calls, is told things, and ends whenever it is asked to', async () => {
  const before = openFds();
  const path = socketPath();
  const clients: string[] = [];
  const told: unknown[] = [];
  const thread = await start([path], {
    onClient: (device, connected) => clients.push(`${device} ${connected}`),
    onTell: (answer) => told.push(answer),
  });
  const client = VfioUserClient.connect(path);
  client.regionWrite(0, 0, Uint8Array.of(0x42));
  expect([...client.regionRead(0, 0, 4)]).toEqual([0x42, 0, 0, 0]);
  thread.send('hello');
  await until(() => told.length === 1 && thread.counters[0] === 1);
  expect(told).toEqual([{ echo: 'hello', register: 0x42 }]);
  // In the middle of traffic, and while it waits.
  for (let i = 0; i < 100; i++) client.regionRead(0, 0, 4);
  await thread.stop();
  expect(existsSync(path)).toBe(false);
  expect(() => client.regionRead(0, 0, 4)).toThrow(/closed the connection|is gone/);
  client.close();
  await until(() => clients.length === 2);
  expect(clients).toEqual(['0 true', '0 false']);
  // A thread that has nobody to serve ends as well.
  const idle = await start([socketPath()]);
  await idle.stop();
  await until(() => openFds() <= before + 1);
});

test('a server goes on when its client ends in the middle of a message, and serves two at a time', async () => {
  const paths = [socketPath(), socketPath()];
  const thread = await start(paths);
  const [a, b] = paths.map((path) => VfioUserClient.connect(path));
  a!.regionWrite(0, 0, Uint8Array.of(1));
  b!.regionWrite(0, 0, Uint8Array.of(2));
  expect([a!.regionRead(0, 0, 1)[0], b!.regionRead(0, 0, 1)[0]]).toEqual([1, 2]);
  a!.close();
  expect(b!.regionRead(0, 0, 1)[0]).toBe(2);
  const again = VfioUserClient.connect(paths[0]!);
  expect(again.regionRead(0, 0, 1)[0]).toBe(1);
  again.close();
  b!.close();
  await thread.stop();
});

test('what goes wrong at the start is one error that says why', async () => {
  const taken = socketPath();
  writeFileSync(taken, '');
  await expect(start([taken])).rejects.toThrow(/something is there already; remove it, or choose another path/);
  await expect(start(['/no/such/folder/socket'])).rejects.toThrow(/there is no such folder/);
  await expect(start([`/tmp/${'x'.repeat(120)}`])).rejects.toThrow(/longer than 107 bytes/);
  await expect(start([socketPath()], { data: { paths: [], fail: 'no device today' } })).rejects.toThrow(/no device today/);
  expect(existsSync(taken)).toBe(true);
});
