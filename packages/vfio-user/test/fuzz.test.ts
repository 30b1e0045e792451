/**
 * Hostile clients: random commands, descriptors of all kinds, pieces, replies that nobody asked for, files that shrink while they are mapped, and
 * connections that end anywhere. The server lives, keeps no descriptor, and serves the next client. SIOV_FUZZ_SEED and SIOV_FUZZ_RUNS choose others.
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { Flag, Opcode } from '@siov/idxd-device/spec';
import { BareDevice } from '@siov/stack/bare';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type UserDevice, VfioUserClient, VfioUserServer } from '../src/index.js';
import { native } from '../src/native.js';
import { peers } from '../src/peers.js';
import { TinyDriver } from './dsa.js';
import { memory, openFds, serve, socketPath } from './machine.js';
import { message, pack, RawClient } from './raw.js';
import { SampleDevice } from './sample.js';

const seed = Number(process.env.SIOV_FUZZ_SEED ?? 20_261_123);
const numRuns = Number(process.env.SIOV_FUZZ_RUNS ?? 400);
console.log(`fuzz: seed ${seed}, ${numRuns} runs (SIOV_FUZZ_SEED, SIOV_FUZZ_RUNS)`);

const kinds = ['sealed', 'unsealed', 'eventfd', 'full eventfd', 'socket', 'null', 'folder'] as const;
type Kind = (typeof kinds)[number];

/** As much as a write leaves in an eventfd. man 2 eventfd. */
const FULL = 0xffff_ffff_ffff_fffen;

/** Descriptors of a hostile client, and what it can do to them later. */
class Files {
  readonly #fds: number[] = [];
  readonly #shrinkable: number[] = [];
  make(kind: Kind): number {
    const sys = native();
    let fd: number;
    if (kind === 'sealed' || kind === 'unsealed') {
      fd = sys.memfd();
      ftruncateSync(fd, 0x1_0000);
      if (kind === 'sealed') sys.sealShrink(fd);
      else this.#shrinkable.push(fd);
    } else if (kind === 'eventfd' || kind === 'full eventfd') {
      // A write of another signal would wait for room.
      fd = sys.eventfd(kind === 'eventfd');
      if (kind === 'full eventfd') sys.add(fd, FULL);
    } else if (kind === 'socket') {
      const [a, b] = sys.pair();
      this.#fds.push(b);
      fd = a;
    } else fd = openSync(kind === 'null' ? '/dev/null' : '/tmp', 'r');
    this.#fds.push(fd);
    return fd;
  }
  get count(): number {
    return this.#fds.length;
  }
  shrink(): void {
    for (const fd of this.#shrinkable) ftruncateSync(fd, 0);
  }
  close(): void {
    for (const fd of this.#fds) closeSync(fd);
  }
}

const u32 = fc.oneof(
  { weight: 6, arbitrary: fc.nat(40) },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      0x1000,
      0x2000,
      0x4000,
      0x8000,
      0x1_0000,
      0x10_0000,
      0x8000_0000,
      0xffff_ffff,
      0x7fff_ffff,
      0x2_0000,
      0x4_0000,
      0x24,
      0x21,
    ),
  },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
);
const fields = fc.array(u32, { maxLength: 20 }).map((list) => pack(...list));
const page = fc.nat(16).map((n) => BigInt(n) * 0x1000n);
/** Payloads that are often right: so that the state behind them is reached. */
const likely = fc.oneof(
  fc.tuple(
    fc.constant(2),
    fc.tuple(fc.nat(15), page, page, page).map(([flags, offset, at, size]) => pack(32, flags, offset, at, size)),
  ),
  fc.tuple(
    fc.constant(3),
    fc.tuple(fc.nat(3), page, page).map(([flags, at, size]) => pack(4096, flags, at, size, 4096n, 64n)),
  ),
  fc.tuple(
    fc.constant(8),
    fc
      .tuple(fc.constantFrom(0x24, 0x21, 0x22, 0x11, 0x14), fc.nat(5), fc.nat(3), fc.nat(3))
      .map(([flags, index, start, count]) => pack(20, flags, index, start, count)),
  ),
  fc.tuple(
    fc.constantFrom(9, 10),
    fc.tuple(fc.nat(0x1100), fc.nat(9), fc.nat(16), fc.uint8Array({ maxLength: 16 })).map(([at, r, n, data]) => pack(BigInt(at), r, n, data)),
  ),
  fc.tuple(
    fc.constant(16),
    fc.tuple(fc.nat(7), fc.nat(9), fields).map(([method, index, data]) => pack(4096, (method << 16) | index, data)),
  ),
  fc.tuple(
    fc.constantFrom(17, 18),
    fc.nat(64).map((n) => pack(8 + n, n, new Uint8Array(n))),
  ),
);
const command = fc.oneof({ weight: 3, arbitrary: likely }, { weight: 1, arbitrary: fc.tuple(fc.nat(20), fields) });
const descriptors = fc.array(fc.constantFrom(...kinds), { maxLength: 3 });
const action = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({ what: fc.constant('command' as const), command, fds: descriptors, flags: fc.constantFrom(0, 0, 0, 0x10, 2) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      what: fc.constant('pieces' as const),
      command,
      fds: descriptors,
      cuts: fc.array(fc.nat(60), { maxLength: 4 }),
      late: fc.nat(4),
    }),
  },
  // What is right: memory that the work then finds, and files that shrink under it.
  {
    weight: 4,
    arbitrary: fc.record({
      what: fc.constant('map' as const),
      kind: fc.constantFrom('sealed' as const, 'unsealed' as const),
      at: fc.nat(8),
      pages: fc.integer({ min: 1, max: 8 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      what: fc.constant('reply' as const),
      id: fc.nat(6),
      command: fc.constantFrom(11, 12),
      data: fields,
      flags: fc.constantFrom(1, 0x21),
    }),
  },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('size' as const), size: u32 }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('bytes' as const), bytes: fc.uint8Array({ maxLength: 100 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      what: fc.constant('work' as const),
      source: fc.nat(0x1_0000),
      destination: fc.nat(0x1_0000),
      size: fc.integer({ min: 1, max: 0x9000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('shrink' as const) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('silence' as const) }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('go' as const) }) },
);
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;

function attack(client: RawClient, files: Files, each: Action, work: (each: { source: number; destination: number; size: number }) => void): void {
  switch (each.what) {
    case 'command':
      client.send(
        message(each.command[0], each.command[1], { flags: each.flags }),
        each.fds.map((kind) => files.make(kind)),
      );
      client.next();
      return;
    case 'pieces': {
      const bytes = message(each.command[0], each.command[1]);
      const ends = [...each.cuts.filter((cut) => cut > 0 && cut < bytes.length).sort((a, b) => a - b), bytes.length];
      let from = 0;
      for (const [i, to] of ends.entries()) {
        if (to === from) continue;
        // Descriptors belong to the first byte; here they come with any piece.
        client.send(bytes.slice(from, to), i === Math.min(each.late, ends.length - 1) ? each.fds.map((kind) => files.make(kind)) : []);
        client.next();
        from = to;
      }
      return;
    }
    case 'map':
      client.call(2, pack(32, 3, 0n, BigInt(each.at) * 0x1000n, BigInt(each.pages) * 0x1000n), [files.make(each.kind)]);
      return;
    case 'reply':
      client.send(message(each.command, each.data, { id: each.id, flags: each.flags }));
      return;
    case 'size':
      client.send(message(9, pack(0n, 0, 4), { size: each.size }));
      return;
    case 'bytes':
      client.send(each.bytes);
      return;
    case 'work':
      work(each);
      return;
    case 'shrink':
      files.shrink();
      return;
    default: // silence: the client looks at nothing for a while
  }
}

/** A client that behaves is served: information, registers, and for DSA a copy with its interrupt. */
function behave(server: VfioUserServer, path: string, dsa: boolean): void {
  const ram = memory(0x1_0000);
  const client = VfioUserClient.connect(path, { idle: () => server.step(0) });
  expect(client.deviceInfo().regions).toBe(9);
  client.dmaMap(0, 0x1_0000, { fd: ram.fd });
  if (dsa) {
    client.reset();
    const driver = new TinyDriver(client);
    driver.start();
    ram.bytes.fill(0x77, 0x4000, 0x4100);
    driver.submit(driver.descriptor(Opcode.memmove, { source: 0x4000, destination: 0x8000, size: 256, record: 0x1000 }));
    for (let i = 0; i < 200 && ram.bytes[0x1000] === 0; i++) {
      server.step(0);
      client.poll();
    }
    expect([ram.bytes[0x1000], ram.bytes[0x80ff]]).toEqual([1, 0x77]);
  }
  client.close();
  for (let i = 0; i < 4; i++) server.step(0);
  ram.close();
}

const devices: readonly (readonly [name: string, make: () => UserDevice])[] = [
  ['DSA', () => new BareDevice()],
  ['a device with one of everything', () => new SampleDevice()],
];
test.each(devices)('hostile clients of %s', (name, make) => {
  const outside = openFds();
  fc.assert(
    fc.property(
      fc.constantFrom(...(Object.keys(peers) as (keyof typeof peers)[])),
      fc.boolean(),
      fc.constantFrom('sealed' as const, 'unsealed' as const, 'none' as const),
      fc.array(action, { minLength: 1, maxLength: 30 }),
      (peer, twinSocket, ram, actions) => {
        const device = make();
        const { server, path } = serve(device, { peer, twinSocket });
        const before = openFds();
        const files = new Files();
        const connect = (): RawClient => {
          const made = RawClient.ready(path, server);
          if (ram !== 'none') made.call(2, pack(32, 3, 0n, 0n, 0x1_0000n), [files.make(ram)]);
          return made;
        };
        let client = connect();
        const work = ({ source, destination, size }: { source: number; destination: number; size: number }): void => {
          if (!(device instanceof BareDevice)) return;
          const d = new Uint32Array(16);
          d.set([
            0,
            (Opcode.memmove << 24) | Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt,
            0x3000,
            0,
            source,
            0,
            destination,
            0,
            size,
            1,
          ]);
          for (let i = 0; i < 8; i++) client.send(message(10, pack(BigInt(0x1000 + i * 8), 2, 8, d[i * 2]!, d[i * 2 + 1]!), { flags: 0x10 }));
          for (let i = 0; i < 4; i++) server.step(0);
        };
        if (device instanceof BareDevice) configure(client);
        for (const each of actions) {
          if (each.what === 'go' || client.gone) {
            client.close();
            client = connect();
          } else attack(client, files, each, work);
        }
        client.close();
        for (let i = 0; i < 4; i++) server.step(0);
        files.close();
        expect(openFds()).toBe(before);
        behave(server, path, name === 'DSA');
        server.close();
        expect(openFds()).toBe(outside);
      },
    ),
    { seed, numRuns },
  );
});

/** DSA as a driver leaves it: bus master, queue 0 on. */
function configure(client: RawClient): void {
  const write = (region: number, offset: number, value: number): void => {
    client.call(10, pack(BigInt(offset), region, 4, value));
    client.next();
  };
  const read = (offset: number): number => client.call(9, pack(BigInt(offset), 0, 4)).u32[4]!;
  write(7, 4, 6);
  const offsets = read(0x60);
  write(0, (offsets & 0xffff) * 0x100, 1);
  write(0, (offsets & 0xffff) * 0x100 + 0x20, 1);
  const queue = (offsets >>> 16) * 0x100;
  write(0, queue, 16);
  write(0, queue + 8, 0x11);
  write(0, queue + 12, (10 << 5) | 31);
  write(0, 0xa0, 0x0010_0000);
  write(0, 0xa0, 0x0060_0000);
}

test('a connection that ends at every byte of a session, and of every piece before it', () => {
  const { server, path } = serve(new SampleDevice());
  const before = openFds();
  const files = new Files();
  const messages: readonly (readonly [Uint8Array, readonly number[]])[] = [
    [message(1, pack(2 << 16, '{"capabilities":{"max_msg_fds":16,"twin_socket":{"supported":true}}}\0')), []],
    [message(2, pack(32, 3, 0n, 0n, 0x8000n)), [files.make('sealed')]],
    [message(2, pack(32, 3, 0n, 0x10_0000n, 0x8000n)), [files.make('unsealed')]],
    [message(8, pack(20, 0x24, 2, 0, 2)), [files.make('eventfd'), files.make('eventfd')]],
    [message(5, pack(80, 0, 1, 0, 0n, 0n)), []],
    [message(9, pack(0n, 0, 64)), []],
    [message(10, pack(0n, 0, 4, 1)), []],
    [message(16, pack(24, (1 << 17) | 6, 4096n, 0, 0)), []],
    [message(16, pack(16, (1 << 17) | 2, 3, 0)), []],
    [message(17, pack(72, 64)), []],
  ];
  const total = messages.reduce((sum, [bytes]) => sum + bytes.length, 0);
  for (let end = 0; end <= total; end++) {
    const client = new RawClient(path, server);
    let left = end;
    for (const [bytes, fds] of messages) {
      const n = Math.min(left, bytes.length);
      if (n > 0) client.send(bytes.slice(0, n), fds);
      if (end % 3 === 0) server.step(0);
      left -= n;
    }
    client.close();
    expect(openFds()).toBe(before + files.count);
  }
  files.close();
  behave(server, path, false);
  server.close();
});

test('a client that never reads is not read any more, and others are served meanwhile', () => {
  const [lazy, other] = [socketPath(), socketPath()];
  const server = new VfioUserServer({ devices: [lazy, other].map((path) => ({ path, device: new SampleDevice() })) });
  const sys = native();
  const fd = sys.connect(lazy);
  const room = sys.room('lazy', 1 << 16);
  const bytes = pack(message(1, pack(0)), ...Array.from({ length: 1000 }, () => message(9, pack(0n, 0, 0x1000))));
  room.bytes.set(bytes);
  // It asks for far more than it ever reads.
  let sent = 0;
  let refused = 0;
  for (let i = 0; i < 2000 && refused < 50; i++) {
    const from = sent % bytes.length;
    const n = sys.send(fd, room.address + from, bytes.length - from);
    if (n > 0) sent += n;
    else refused++;
    server.step(0);
  }
  expect(refused).toBe(50);
  const held = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 100; i++) server.step(0);
  expect(process.memoryUsage().arrayBuffers - held).toBeLessThan(4 << 20);
  behave(server, other, false);
  sys.close(fd);
  server.close();
});
