import { existsSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { BareDevice } from '@siov/stack/bare';
import { afterEach, expect, test } from 'vitest';
import { ConnectionLostError, NetClient, NetServer } from '../src/index.js';
import { socketPath } from './machine.js';
import { message, pack } from './raw.js';
import { SampleDevice } from './sample.js';

let server: NetServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

/** Sends bytes and gathers what comes back until `bytes` bytes are there, or the end. */
const exchange = (path: string, out: Uint8Array, bytes: number): Promise<Uint8Array> =>
  new Promise((resolve) => {
    const socket = connect(path, () => socket.write(out));
    let got: Uint8Array = new Uint8Array(0);
    const done = (): void => {
      socket.destroy();
      resolve(got);
    };
    socket.on('data', (chunk) => {
      got = pack(got, new Uint8Array(chunk));
      if (got.length >= bytes) done();
    });
    socket.on('close', done);
    socket.on('error', done);
  });
const hello = message(1, pack(0, '{"capabilities":{"max_msg_fds":1,"twin_socket":{"supported":true}}}\0'));

test('without descriptors: registers are served, in any pieces', async () => {
  const path = socketPath();
  server = await NetServer.listen({ devices: [{ path, device: new SampleDevice() }] });
  const asked = pack(hello, message(10, pack(8n, 0, 4, 0x1234)), message(9, pack(8n, 0, 4)));
  const whole = await exchange(path, asked, 16 + 4 + '{"capabilities":{"max_msg_fds":16}}'.length + 1 + 32 + 36);
  expect(new DataView(whole.buffer).getUint32(whole.length - 4, true)).toBe(0x1234);
  // The second socket would be a descriptor: it is not offered.
  expect(new TextDecoder().decode(whole.subarray(20, 56))).toBe('{"capabilities":{"max_msg_fds":16}}\0');
});

test('DMA goes by messages', async () => {
  const path = socketPath();
  const device = new BareDevice();
  server = await NetServer.listen({ devices: [{ path, device }] });
  const dma = server.dma();
  const got = new Promise<Uint8Array | undefined>((resolve) => {
    const socket = connect(path, () => socket.write(pack(hello, message(2, pack(32, 3, 0n, 0x1000n, 0x1000n)))));
    socket.on('data', (chunk) => {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
      for (let at = 0; at < chunk.length; at += view.getUint32(at + 4, true)) {
        if (view.getUint16(at + 2, true) === 2) dma.link!.read(0x1800, 4, (data) => resolve(data?.slice()));
        if (view.getUint16(at + 2, true) === 11) socket.write(message(11, pack(0x1800n, 4n, 0xabcd), { id: view.getUint16(at, true), flags: 1 }));
      }
    });
    socket.on('error', () => {});
  });
  expect(await got).toEqual(pack(0xabcd));
});

test('a second client is closed, the next one after the first is served', async () => {
  const path = socketPath();
  server = await NetServer.listen({ devices: [{ path, device: new SampleDevice() }] });
  const first = connect(path);
  await new Promise((resolve) => first.once('connect', resolve));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await exchange(path, hello, 1000)).length).toBe(0);
  first.destroy();
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await exchange(path, hello, 16)).length).toBeGreaterThan(16);
});

test('a socket that cannot be made is said', async () => {
  await expect(NetServer.listen({ devices: [{ path: '/no/such/folder/s', device: new SampleDevice() }] })).rejects.toThrow(/cannot be made \(E/);
  const path = socketPath();
  server = await NetServer.listen({ devices: [{ path, device: new SampleDevice() }] });
  await expect(NetServer.listen({ devices: [{ path, device: new SampleDevice() }] })).rejects.toThrow(/EADDRINUSE/);
  await server.close();
  server = undefined;
  expect(existsSync(path)).toBe(false);
});

test('a client with promises: many commands under way, each with its own answer; refusals by their errno', async () => {
  const path = socketPath();
  server = await NetServer.listen({ devices: [{ path, device: new SampleDevice() }] });
  const client = await NetClient.connect(path);
  expect(client.capabilities).toMatchObject({ max_msg_fds: 16 });
  await Promise.all(Array.from({ length: 64 }, (_, i) => client.regionWrite(0, i * 4, Uint8Array.of(i, 1, 2, 3))));
  const read = await Promise.all(Array.from({ length: 64 }, (_, i) => client.regionRead(0, i * 4, 4)));
  expect(read.map((bytes) => [...bytes])).toEqual(Array.from({ length: 64 }, (_, i) => [i, 1, 2, 3]));
  client.regionPost(0, 0, Uint8Array.of(9));
  expect(await client.regionWriteMulti([{ region: 0, offset: 4, data: Uint8Array.of(7) }])).toBe(1);
  expect([...(await client.regionRead(0, 0, 5))]).toEqual([9, 1, 2, 3, 7]);
  const info = await client.deviceInfo();
  for (let i = 0; i < info.regions; i++) expect((await client.regionInfo(i).catch(() => ({ fd: -1 }))).fd).toBe(-1);
  expect((await client.irqInfo(0)).count).toBeGreaterThan(0);
  await expect(client.regionRead(0, 2 ** 40, 4)).rejects.toThrow('REGION_READ: EINVAL');
  await expect(client.feature(99, 1 << 18)).rejects.toThrow(/DEVICE_FEATURE: ENOTTY/);
  await client.reset();
  const late = client.regionRead(0, 0, 4);
  client.close();
  await expect(late).rejects.toThrow(ConnectionLostError);
  await expect(client.regionRead(0, 0, 4)).rejects.toThrow(/closed/);
});

test('its memory is reached by messages', async () => {
  const path = socketPath();
  server = await NetServer.listen({ devices: [{ path, device: new BareDevice() }] });
  const ram = Uint8Array.from({ length: 0x1000 }, (_, i) => i * 7);
  const client = await NetClient.connect(path, {
    memory: {
      read: (address, into) => (address + into.length > ram.length ? 14 : (into.set(ram.subarray(address, address + into.length)), 0)),
      write: (address, from) => (ram.set(from, address), 0),
    },
  });
  await client.dmaMap(0, ram.length);
  const link = server.dma().link!;
  const read = (at: number, bytes: number) =>
    new Promise<Uint8Array | undefined>((resolve) => link.read(at, bytes, (data) => resolve(data?.slice())));
  expect(await read(0x800, 0x100)).toEqual(ram.slice(0x800, 0x900));
  expect(await read(0xfff, 2)).toBeUndefined();
  expect(await new Promise((resolve) => link.write(0x10, Uint8Array.of(1, 2, 3), resolve))).toBe(true);
  expect([...ram.subarray(0x10, 0x13)]).toEqual([1, 2, 3]);
  await client.dmaUnmap(0, ram.length);
  client.close();
});

test('a server that answers nonsense, or nothing, is said', async () => {
  const path = socketPath();
  const answers = [
    message(1, pack(0, '{oops\0'), { id: 1, flags: 1 }),
    Uint8Array.of(1, 2, 3, 4, 5, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9),
    new Uint8Array(0),
  ];
  const fake = createServer((socket) => socket.on('error', () => {}).once('data', () => socket.write(answers.shift()!))).listen(path);
  await new Promise((resolve) => fake.once('listening', resolve));
  await expect(NetClient.connect(path)).rejects.toThrow(/VERSION: what it answers is no JSON: \{oops/);
  await expect(NetClient.connect(path)).rejects.toThrow(/VERSION: the server sent a message of 5 bytes/);
  await expect(NetClient.connect(path, { timeoutMs: 50 })).rejects.toThrow(/VERSION: no reply within 50 ms/);
  fake.close();
  await expect(NetClient.connect('/no/such/socket')).rejects.toThrow(/ENOENT/);
});
