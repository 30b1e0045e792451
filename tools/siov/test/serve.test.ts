import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VfioUserClient } from '@siov/vfio-user';
import { afterEach, describe, expect, test } from 'vitest';

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const command = ['--conditions=@siov/source', '--import', 'tsx', main];
const folder = mkdtempSync(join(tmpdir(), 'siov-serve-'));
let sockets = 0;
const socketPath = (): string => join(folder, `${sockets++}.sock`);
const siov = (...args: string[]) => spawnSync(process.execPath, [...command, ...args], { encoding: 'utf8', timeout: 30_000 });

interface Event {
  readonly event: string;
  readonly [name: string]: unknown;
}
const running: { kill(signal: NodeJS.Signals): unknown }[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});
/** A server that tells its events. */
function serve(...args: string[]) {
  const child = spawn(process.execPath, [...command, 'serve', '--json', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  running.push(child);
  const events: Event[] = [];
  let errors = '';
  let rest = '';
  child.stderr.on('data', (text) => {
    errors += text;
  });
  child.stdout.on('data', (text) => {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop()!;
    events.push(...lines.map((line) => JSON.parse(line) as Event));
  });
  const ended = new Promise<number | null>((resolve) => child.on('exit', (code) => resolve(code)));
  const event = async (name: string): Promise<Event> => {
    for (let i = 0; i < 1500; i++) {
      const found = events.find((each) => each.event === name);
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`no event '${name}' among ${JSON.stringify(events)}; ${errors}`);
  };
  return { child, events, event, ended, type: (line: string) => child.stdin.write(`${line}\n`) };
}
const CMD = 0xa0;
const GENSTS = 0x90;
const SWERR = 0xc0;
const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);
const read = (client: VfioUserClient, offset: number): number => new DataView(client.regionRead(0, offset, 4).slice().buffer).getUint32(0, true);
const until = async (what: () => boolean): Promise<void> => {
  for (let i = 0; i < 300 && !what(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(what()).toBe(true);
};

describe('a mistake in the call is one line, and exit code 2', () => {
  const taken = join(folder, 'taken');
  writeFileSync(taken, '');
  test.each([
    [['serve'], /--socket PATH says where to listen/],
    [['serve', '--socket', taken], /taken: something is there already; remove it, or choose another path/],
    [['serve', '--socket', '/no/such/folder/s'], /there is no such folder/],
    [['serve', '--socket', `/tmp/${'x'.repeat(110)}`], /longer than 107 bytes/],
    [['serve', '--socket', `${taken}/s`], /part of the path is not a folder/],
    [['serve', '--socket', '/proc/s'], /socket \/proc\/s: /],
    [['serve', '--socket', '/x', '--device', 'gpu'], /'gpu' is not one of dsa-spr, dsa-gnrd, iax, iax-spr, iax-2.0, vdev/],
    [['serve', '--socket', '/x', '--peer', 'crosvm'], /'crosvm' is not one of strict, libvfio-user, qemu, cloud-hypervisor/],
    [['serve', '--socket', '/x', '--inject', 'gremlins'], /'gremlins' is not a fault; faults are 'halt/],
    [['serve', '--socket', '/x', '--inject', 'swerror 200'], /'200' is not an error code from 1 to 0x7f/],
    [['serve', '--socket', '/x', '--wire', '/no/such/file'], /cannot be written \(ENOENT\)/],
    [['serve', '--socket', '/x', '--wire', '/dev/null', '--plain'], /not together with --plain/],
    [['wire'], /one file: 'siov wire FILE'/],
    [['wire', '/no/such/file'], /there is no file '\/no\/such\/file'/],
    [['wire', main], /it is no recording of a connection/],
  ])('siov %j', (args, message) => {
    const { status, stdout, stderr } = siov(...args);
    expect([status, stdout, stderr.trim().split('\n').length], stderr).toEqual([2, '', 1]);
    expect(stderr).toMatch(message);
  });
});

test('it says what to give QEMU, serves, and ends cleanly by a signal', async () => {
  const socket = socketPath();
  const server = serve('--socket', socket);
  expect(await server.event('listening')).toMatchObject({ device: 'dsa-spr', sockets: [socket] });
  const [qemu] = (await server.event('listening')).qemu as string[];
  expect(JSON.parse(qemu!)).toEqual({ driver: 'vfio-user-pci', socket: { type: 'unix', path: socket } });
  const client = VfioUserClient.connect(socket);
  expect(client.regionRead(7, 0, 4)).toEqual(u32(0x0b25_8086));
  await server.event('client');
  client.close();
  await server.event('gone');
  server.child.kill('SIGTERM');
  expect(await server.ended).toBe(0);
  expect(await server.event('end')).toMatchObject({ devices: [{ descriptors: 0, interrupts: 0 }] });
  expect(existsSync(socket)).toBe(false);
});

test.each(['--plain', '--peer=strict'])('faults are made by lines that a person types (%s)', async (option) => {
  const socket = socketPath();
  const server = serve('--socket', socket, '--device', 'dsa-gnrd', option);
  await server.event('listening');
  const client = VfioUserClient.connect(socket, { capabilities: { twin_socket: { supported: false } } });
  expect(client.regionRead(7, 0, 4)).toEqual(u32(0x11fb_8086));
  server.type('swerror 0x52');
  await until(() => (read(client, SWERR) & 1) === 1);
  expect((read(client, SWERR) >>> 8) & 0x7f).toBe(0x52);
  server.type('halt flr');
  await until(() => (read(client, GENSTS) & 3) === 3);
  expect((read(client, GENSTS) >>> 2) & 3).toBe(1);
  // The way out that it asked for.
  client.reset();
  expect(read(client, GENSTS) & 3).toBe(0);
  server.type('flood');
  expect((await server.event('problem')).why).toMatch(/'flood' is not a fault/);
  client.close();
  server.child.kill('SIGINT');
  expect(await server.ended).toBe(0);
});

test('a connection is recorded, and printed by field names', async () => {
  const socket = socketPath();
  const file = join(folder, 'recording');
  const server = serve('--socket', socket, '--wire', file);
  await server.event('listening');
  const client = VfioUserClient.connect(socket);
  client.regionWrite(0, CMD, u32(0x0050_0000));
  expect(() => client.regionRead(9, 0, 4)).toThrow(/EINVAL/);
  client.close();
  await server.event('gone');
  server.child.kill('SIGTERM');
  await server.ended;
  const text = siov('wire', file).stdout;
  expect(text).toMatch(/> VERSION 1 major=0 minor=2 \{"capabilities"/);
  expect(text).toMatch(/< VERSION 1 reply .* \+1 fd/);
  expect(text).toMatch(/> REGION_WRITE 2 offset=0xa0 region=0 count=4 data=00005000\n/);
  expect(text).toMatch(/< REGION_READ 3 reply EINVAL\n/);
  const json = siov('wire', file, '--json', '--command', 'REGION_WRITE')
    .stdout.trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(json).toMatchObject([
    { from: 'client', command: 'REGION_WRITE', reply: false, fields: { offset: 0xa0, region: 0, count: 4 }, data: '00005000' },
    { from: 'device', command: 'REGION_WRITE', reply: true },
  ]);
  expect(siov('wire', file, '--summary').stdout).toMatch(/REGION_READ +1 +1 /);
});

test("the mdev model's virtual device is served too", async () => {
  const socket = socketPath();
  const server = serve('--socket', socket, '--device', 'vdev');
  await server.event('listening');
  const client = VfioUserClient.connect(socket);
  expect([client.regionInfo(2).size, client.irqInfo(2).count]).toEqual([0x2000, 2]);
  client.close();
  server.child.kill('SIGTERM');
  expect(await server.ended).toBe(0);
});

test('two devices of one server, and a fault of the second', async () => {
  const paths = [socketPath(), socketPath()];
  const server = serve('--socket', paths.join(','));
  await server.event('listening');
  const clients = paths.map((path) => VfioUserClient.connect(path));
  server.type('halt cold 1');
  await until(() => (read(clients[1]!, GENSTS) & 3) === 3);
  expect(read(clients[0]!, GENSTS) & 3).toBe(0);
  for (const client of clients) client.close();
  server.child.kill('SIGTERM');
  expect(await server.ended).toBe(0);
  expect(paths.map((path) => existsSync(path))).toEqual([false, false]);
});
