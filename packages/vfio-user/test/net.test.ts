import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { BareDevice } from '@siov/stack/bare';
import { afterEach, expect, test } from 'vitest';
import { NetServer } from '../src/index.js';
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
