/** A small world in one thread: a server, stepped by hand, and a client that lets it work while it waits. */
import { ftruncateSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BareDevice, type BareDeviceOptions } from '@siov/stack/bare';
import { type ClientOptions, type ServerOptions, type UserDevice, VfioUserClient, VfioUserServer } from '../src/index.js';
import { native } from '../src/native.js';

const folder = mkdtempSync(join(tmpdir(), 'siov-vu-'));
let sockets = 0;
export const socketPath = (): string => join(folder, `${sockets++}.sock`);

/** Serves a device; `connect` makes clients of it. */
export function serve<D extends UserDevice>(device: D, options: Partial<ServerOptions> = {}) {
  const path = socketPath();
  const server = new VfioUserServer({ devices: [{ path, device }], ...options });
  return {
    device,
    path,
    server,
    connect: (client: ClientOptions = {}) => VfioUserClient.connect(path, { idle: () => server.step(1), ...client }),
    /** Until nothing is left to do. */
    settle: (client?: VfioUserClient) => {
      for (let i = 0; i < 50; i++) {
        server.step(0);
        client?.poll();
      }
    },
  };
}
export const bare = (device: BareDeviceOptions = {}, options: Partial<ServerOptions> = {}) => serve(new BareDevice(device), options);

/** A file of the client's that is its memory: a sealed memfd with a view of it. */
export function memory(bytes: number, sealed = true) {
  const sys = native();
  const fd = sys.memfd('memory', sealed);
  ftruncateSync(fd, bytes);
  if (sealed) sys.sealShrink(fd);
  // No view has more than 4 GiB.
  const room = sys.allocate(Math.min(bytes, 2 ** 30));
  if (sys.cover(room.address, room.bytes.length, fd, 0, true) < 0) throw new Error('mmap');
  return { fd, bytes: room.bytes, close: () => sys.close(fd) };
}

/** Descriptors that this process has open now. */
export const openFds = (): number => readdirSync('/proc/self/fd').length;
