/**
 * What a server of vfio-user must answer, case by case, in the order of libvfio-user's own test suite (test/py of nutanix/libvfio-user: 224 functions
 * in 23 files, set-up included) and in our words, by a tester that sends bytes. `cases` counts them by group and prints the table.
 */
import { ftruncateSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { path } from '../src/migration.js';
import { native } from '../src/native.js';
import { memory, openFds, serve } from './machine.js';
import { message, pack, RawClient } from './raw.js';
import { COUNTS, SampleDevice, SIZES } from './sample.js';

const C = {
  VERSION: 1,
  MAP: 2,
  UNMAP: 3,
  INFO: 4,
  REGION: 5,
  IO_FDS: 6,
  IRQ: 7,
  SET_IRQS: 8,
  READ: 9,
  WRITE: 10,
  RESET: 13,
  MULTI: 15,
  FEATURE: 16,
  MIG_READ: 17,
  MIG_WRITE: 18,
};
const E = { ok: 0, ENOENT: 2, EIO: 5, EINVAL: 22, ENODEV: 19, EEXIST: 17, ENOSPC: 28, ENOTTY: 25, EOPNOTSUPP: 95 };
const NONE = 1;
const BOOL = 2;
const EVENTFD = 4;
const MASK = 8;
const UNMASK = 16;
const TRIGGER = 32;
const GET = 1 << 16;
const SET = 1 << 17;
const PROBE = 1 << 18;

function world(options: ConstructorParameters<typeof SampleDevice>[0] = {}, json?: string) {
  const before = openFds();
  const device = new SampleDevice(options);
  const { server, path: socket } = serve(device, { peer: 'libvfio-user' });
  const client = RawClient.ready(socket, server, json);
  const files: number[] = [];
  const own = <T extends number>(fd: T): T => (files.push(fd), fd);
  return {
    device,
    server,
    socket,
    client,
    call: client.call.bind(client),
    errno: (command: number, payload: Uint8Array, fds: readonly number[] = []) => client.call(command, payload, fds).errno,
    eventfd: () => own(native().eventfd()),
    memfd(bytes: number) {
      const fd = own(native().memfd());
      ftruncateSync(fd, bytes);
      native().sealShrink(fd);
      return fd;
    },
    irqs: (flags: number, index: number, start: number, count: number, fds: readonly number[] = [], bools = new Uint8Array(0)) =>
      client.call(C.SET_IRQS, pack(20 + bools.length, flags, index, start, count, bools), fds).errno,
    map: (address: bigint, size: bigint, fds: readonly number[] = [], flags = 3, offset = 0n) =>
      client.call(C.MAP, pack(32, flags, offset, address, size), fds).errno,
    unmap: (address: bigint, size: bigint, flags = 0, argsz = 24) => client.call(C.UNMAP, pack(argsz, flags, address, size)),
    state: (to: number) => client.call(C.FEATURE, pack(16, SET | 2, to, 0)).errno,
    feature: (flags: number, argsz: number, ...data: (number | bigint)[]) => client.call(C.FEATURE, pack(argsz, flags, ...data)),
    /** The device writes: what the log sees. */
    touch(iova: number, length: number) {
      const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
      for (let at = iova; at < iova + length; at += out.length) {
        expect(device.dma.acquire(1, -1, Math.floor(at / 2 ** 32), at | 0, iova + length - at, out)).toBe(0);
        device.dma.commit(out);
      }
    },
    end() {
      client.close();
      server.close();
      for (const fd of files) native().close(fd);
      // Nothing that was passed, in a good message or a bad one, is left.
      expect(openFds()).toBe(before);
    },
  };
}
type World = ReturnType<typeof world>;

const counted = new Map<string, number>();
function group(name: string, cases: (add: (words: string, body: (w: World) => void, options?: Parameters<typeof world>[0]) => void) => void): void {
  describe(name, () => {
    cases((words, body, options) => {
      counted.set(name, (counted.get(name) ?? 0) + 1);
      test(words, () => {
        const w = world(options);
        body(w);
        w.end();
      });
    });
  });
}
afterAll(() => {
  const total = [...counted.values()].reduce((a, b) => a + b, 0);
  console.log(`cases by group: ${[...counted].map(([name, n]) => `${name} ${n}`).join(', ')}; ${total} in all`);
});

// --- negotiation: a connection of its own for each, since a refusal ends it

const negotiation: readonly (readonly [words: string, bytes: Uint8Array, errno: number])[] = [
  ['no payload', message(1, pack()), E.EINVAL],
  ['a first command that is not VERSION', message(9, pack(0n, 0, 4)), E.EINVAL],
  ['major 999', message(1, pack(999, '{}\0')), E.EINVAL],
  ['JSON without a NUL', message(1, pack(0, '{}')), E.EINVAL],
  ['JSON that is only {', message(1, pack(0, '{\0')), E.EINVAL],
  ['JSON that is only "', message(1, pack(0, '"\0')), E.EINVAL],
  ['capabilities that are a text', message(1, pack(0, '{"capabilities":"x"}\0')), E.EINVAL],
  ['max_msg_fds that is a text', message(1, pack(0, '{"capabilities":{"max_msg_fds":"x"}}\0')), E.EINVAL],
  ['max_msg_fds -1', message(1, pack(0, '{"capabilities":{"max_msg_fds":-1}}\0')), E.EINVAL],
  ['max_msg_fds 1025', message(1, pack(0, '{"capabilities":{"max_msg_fds":1025}}\0')), E.EINVAL],
  ['max_data_xfer_size that is a text', message(1, pack(0, '{"capabilities":{"max_data_xfer_size":"x"}}\0')), E.EINVAL],
  ['migration that is a text', message(1, pack(0, '{"capabilities":{"migration":"x"}}\0')), E.EINVAL],
  ['migration.pgsize that is a text', message(1, pack(0, '{"capabilities":{"migration":{"pgsize":"x"}}}\0')), E.EINVAL],
  ['migration.pgsize 4095', message(1, pack(0, '{"capabilities":{"migration":{"pgsize":4095}}}\0')), E.EINVAL],
  ['twin_socket that is a text', message(1, pack(0, '{"capabilities":{"twin_socket":"x"}}\0')), E.EINVAL],
  ['twin_socket.supported that is a number', message(1, pack(0, '{"capabilities":{"twin_socket":{"supported":1}}}\0')), E.EINVAL],
  ['no JSON at all is fine', message(1, pack(0)), E.ok],
  ['{} is fine', message(1, pack(0, '{}\0')), E.ok],
  [
    'every capability is fine',
    message(1, pack(2 << 16, '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":4096,"migration":{"pgsize":4096},"x":[]}}\0')),
    E.ok,
  ],
];
describe('negotiation', () => {
  counted.set('negotiation', negotiation.length + 3);
  const connect = () => {
    const before = openFds();
    const { server, path: socket } = serve(new SampleDevice());
    const client = new RawClient(socket, server);
    return {
      client,
      end: () => {
        client.close();
        server.close();
        expect(openFds()).toBe(before);
      },
    };
  };
  test.each(negotiation)('%s', (_words, bytes, errno) => {
    const { client, end } = connect();
    client.send(bytes);
    expect(client.next()).toMatchObject({ id: 7, command: bytes[2], errno, flags: errno ? 0x21 : 1 });
    expect(client.next()).toBeUndefined();
    // After a refusal the connection is over.
    expect(client.gone).toBe(errno !== 0);
    end();
  });
  test('the reply names what the client named, ends with a NUL, and is shorter than the request', () => {
    const { client, end } = connect();
    // As QEMU 11 sends it; it reads the reply into the same buffer.
    const asked =
      '{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, "migration": ' +
      '{"pgsize": 4096, "max_bitmap_size": 268435456}, "write_multiple": true}}\0';
    const { payload } = client.call(1, pack(1 << 16, asked));
    expect([payload[0], payload[2], payload.at(-1)]).toEqual([0, 1, 0]);
    const json = JSON.parse(new TextDecoder().decode(payload.subarray(4, -1)));
    expect(json).toEqual({
      capabilities: {
        max_msg_fds: 16,
        max_data_xfer_size: 1_048_576,
        max_dma_maps: 65_535,
        pgsizes: 4096,
        write_multiple: true,
        migration: { pgsize: 4096 },
      },
    });
    expect(payload.length).toBeLessThanOrEqual(4 + asked.length);
    end();
  });
  test('the minor version of the reply is at most the one proposed, and at most ours', () => {
    for (const [proposed, answered] of [
      [0, 0],
      [1, 1],
      [77, 2],
    ] as const) {
      const { client, end } = connect();
      expect(client.call(1, pack(proposed << 16)).payload[2]).toBe(answered);
      end();
    }
  });
  test('a second VERSION is refused, and the connection goes on', () => {
    const { client, end } = connect();
    expect(client.call(1, pack(0)).errno).toBe(0);
    expect(client.call(1, pack(0)).errno).toBe(E.EINVAL);
    expect(client.call(C.INFO, pack(16, 0, 0, 0)).errno).toBe(0);
    end();
  });
});

group('requests', (add) => {
  const info = pack(16, 0, 0, 0);
  add('a size of 15 ends the connection', (w) => expect(w.call(C.INFO, info, [], { size: 15 }).errno).toBe(-1));
  add('a size above the largest message ends the connection', (w) => expect(w.call(C.INFO, info, [], { size: (1 << 20) + 33 }).errno).toBe(-1));
  add('a reply that nobody waits for is ignored', (w) => {
    w.client.send(message(C.INFO, info, { flags: 1 }));
    expect(w.client.next()).toBeUndefined();
    expect(w.errno(C.INFO, info)).toBe(0);
  });
  add('a type that is neither command nor reply is EINVAL', (w) => expect(w.call(C.INFO, info, [], { flags: 2 }).errno).toBe(E.EINVAL));
  for (const command of [0, 11, 12, 14, 19, 0xffff])
    add(`command ${command} is EINVAL`, (w) => expect(w.errno(command, pack(0n, 0n, 0n, 0n))).toBe(E.EINVAL));
  for (const [name, command] of Object.entries(C))
    if (command !== C.RESET) add(`${name} without payload is EINVAL`, (w) => expect(w.errno(command, pack())).toBe(E.EINVAL));
  add('descriptors with a bad request are closed', (w) => expect(w.errno(C.MAP, pack(0), [w.eventfd(), w.eventfd()])).toBe(E.EINVAL));
  add('descriptors with a request that has none are closed', (w) => expect(w.errno(C.INFO, info, [w.eventfd(), w.eventfd()])).toBe(0));
  add('the reply has the id and the command of the request', (w) => {
    w.client.send(message(C.INFO, info, { id: 0xabcd }));
    expect(w.client.next()).toMatchObject({ id: 0xabcd, command: C.INFO, flags: 1, errno: 0 });
  });
  add('No_reply is kept: nothing comes, not even an error', (w) => {
    w.client.send(message(C.WRITE, pack(0n, 0, 4, 0x1234), { flags: 0x10 }));
    w.client.send(message(C.WRITE, pack(0n, 77, 4, 0x1234), { flags: 0x10 }));
    expect(w.client.next()).toBeUndefined();
    expect(w.call(C.READ, pack(0n, 0, 4)).u32[4]).toBe(0x1234);
  });
  add('many requests at once are answered in order', (w) => {
    for (let id = 0; id < 100; id++) w.client.send(message(C.INFO, info, { id }));
    for (let id = 0; id < 100; id++) expect(w.client.next()?.id).toBe(id);
  });
  add('a client that goes leaves the device as it is, without its memory and interrupts, and the next one is served', (w) => {
    expect(w.errno(C.WRITE, pack(0n, 0, 4, 0xcafe))).toBe(0);
    expect(w.map(0x1000n, 0x1000n, [w.memfd(0x1000)])).toBe(0);
    expect(w.irqs(EVENTFD | TRIGGER, 2, 0, 1, [w.eventfd()])).toBe(0);
    w.client.close();
    expect([w.device.dma.mappings.length, w.device.sinks.size]).toEqual([0, 0]);
    const next = RawClient.ready(w.socket, w.server);
    expect(next.call(C.READ, pack(0n, 0, 4)).u32[4]).toBe(0xcafe);
    expect(w.device.calls).not.toContain('reset');
    next.close();
  });
  add('a connection that ends in the middle of a message leaks nothing', (w) => {
    w.client.send(message(C.MAP, pack(32, 3, 0n, 0n, 0x1000n)).slice(0, 20), [w.eventfd()]);
  });
  add('reset reaches the device', (w) => {
    expect(w.call(C.RESET, pack())).toMatchObject({ errno: 0, payload: new Uint8Array(0) });
    expect(w.device.calls).toEqual(['reset']);
  });
  add('a device without the RESET flag refuses it', (w) => expect(w.errno(C.RESET, pack())).toBe(E.EINVAL), { flags: 2 });
});

group('device information', (add) => {
  add('a short payload', (w) => expect(w.errno(C.INFO, pack(16, 0, 0))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.errno(C.INFO, pack(8, 0, 0, 0))).toBe(E.EINVAL));
  add('argsz 32 is answered with 16', (w) => expect(w.call(C.INFO, pack(32, 0, 0, 0)).u32).toEqual([16, 3, 9, 5]));
});

group('region information', (add) => {
  const ask = (argsz: number, index: number): Uint8Array => pack(argsz, 0, index, 0, 0n, 0n);
  add('a short payload', (w) => expect(w.errno(C.REGION, pack(32, 0, 0))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.errno(C.REGION, ask(8, 0))).toBe(E.EINVAL));
  add('index 9', (w) => expect(w.errno(C.REGION, ask(32, 9))).toBe(E.EINVAL));
  add('more argsz than there is', (w) => expect(w.call(C.REGION, ask(40, 0)).u32).toEqual([32, 3, 0, 0, 0x1000, 0, 0, 0]));
  add('two areas, argsz 32: how much it would be, and no descriptor', (w) => {
    const { u32, fds } = w.call(C.REGION, ask(32, 1));
    expect(u32).toEqual([80, 7, 1, 0, 0x3000, 0, 0, 0]);
    expect(fds).toEqual([]);
  });
  add('two areas, argsz 80: the capability and one descriptor', (w) => {
    const { u32, fds } = w.call(C.REGION, ask(80, 1));
    expect(u32).toEqual([80, 15, 1, 32, 0x3000, 0, 0, 0, 0x1_0001, 0, 2, 0, 0, 0, 0x1000, 0, 0x2000, 0, 0x1000, 0]);
    expect(fds.length).toBe(1);
    native().close(fds[0]!);
  });
  add('configuration space is a region', (w) => expect(w.call(C.REGION, ask(32, 7)).u32).toEqual([32, 3, 7, 0, 0x1000, 0, 0, 0]));
  add('a region that is not there is all zeros', (w) => expect(w.call(C.REGION, ask(32, 3)).u32).toEqual([32, 0, 3, 0, 0, 0, 0, 0]));
  for (const index of [0, 2, 4, 5, 6, 8])
    add(`region ${index} has its size`, (w) => expect(w.call(C.REGION, ask(32, index)).u32[4]).toBe(SIZES[index]));
});

group('interrupt information', (add) => {
  add('a short payload', (w) => expect(w.errno(C.IRQ, pack(16, 0, 0))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.errno(C.IRQ, pack(8, 0, 0, 0))).toBe(E.EINVAL));
  add('index 5', (w) => expect(w.errno(C.IRQ, pack(16, 0, 5, 0))).toBe(E.EINVAL));
  for (const [index, count] of COUNTS.entries())
    add(`index ${index} has ${count}`, (w) => expect(w.call(C.IRQ, pack(16, 0, index, 0)).u32).toEqual([16, 1, index, count]));
});

group('set interrupts', (add) => {
  add('a short payload', (w) => expect(w.errno(C.SET_IRQS, pack(20, 0, 0))).toBe(E.EINVAL));
  add('argsz 3', (w) => expect(w.errno(C.SET_IRQS, pack(3, NONE | TRIGGER, 2, 0, 0))).toBe(E.EINVAL));
  const bad: readonly (readonly [words: string, flags: number, index: number, start: number, count: number, fds?: number, bools?: number])[] = [
    ['index 5', NONE | TRIGGER, 5, 0, 0],
    ['mask and unmask', NONE | MASK | UNMASK, 2, 0, 0],
    ['no action', NONE, 2, 0, 1],
    ['no data', TRIGGER, 2, 0, 1],
    ['none and booleans', NONE | BOOL | TRIGGER, 2, 0, 1],
    ['an unknown flag', NONE | TRIGGER | 64, 2, 0, 1],
    ['start 2047 count 2', EVENTFD | TRIGGER, 2, 2047, 2],
    ['start 2049 count 1', EVENTFD | TRIGGER, 2, 2049, 1],
    ['start 284 count 2^32 - 1', EVENTFD | TRIGGER, 2, 284, 0xffff_ffff],
    ['mask of ERR', NONE | MASK, 3, 0, 1],
    ['mask of REQ', NONE | MASK, 4, 0, 1],
    ['unmask of ERR', NONE | UNMASK, 3, 0, 1],
    ['two of ERR', EVENTFD | TRIGGER, 3, 0, 2],
    ['two of REQ', EVENTFD | TRIGGER, 4, 0, 2],
    ['none from start 1', NONE | TRIGGER, 2, 1, 0],
    ['none with mask', NONE | MASK, 2, 0, 0],
    ['none with eventfds', EVENTFD | TRIGGER, 2, 0, 0],
    ['a descriptor with booleans', BOOL | TRIGGER, 2, 0, 1, 1, 1],
    ['a descriptor with none', NONE | TRIGGER, 2, 0, 1, 1],
    ['one descriptor for two', EVENTFD | TRIGGER, 2, 0, 2, 1],
    ['two descriptors for one', EVENTFD | TRIGGER, 2, 0, 1, 2],
    ['four booleans for three', BOOL | TRIGGER, 2, 0, 3, 0, 4],
    ['three booleans for four', BOOL | TRIGGER, 2, 0, 4, 0, 3],
  ];
  for (const [words, flags, index, start, count, fds = 0, bools = 0] of bad)
    add(`${words} is EINVAL, and its descriptors are closed`, (w) =>
      expect(w.irqs(flags, index, start, count, Array.from({ length: fds }, w.eventfd), new Uint8Array(bools).fill(1))).toBe(E.EINVAL),
    );
  add('what is no eventfd is EINVAL', (w) => expect(w.irqs(EVENTFD | TRIGGER, 2, 0, 2, [w.eventfd(), w.memfd(8)])).toBe(E.EINVAL));
  add('disable all', (w) => {
    const event = w.eventfd();
    w.irqs(EVENTFD | TRIGGER, 2, 4, 1, [event]);
    expect(w.irqs(NONE | TRIGGER, 2, 0, 0)).toBe(0);
    expect(w.device.sinks.size).toBe(0);
  });
  add('disable what was never enabled', (w) => expect(w.irqs(NONE | TRIGGER, 2, 0, 0)).toBe(0));
  add('enable, and disable a block by no descriptors: others stay', (w) => {
    const events = Array.from({ length: 4 }, w.eventfd);
    expect(w.irqs(EVENTFD | TRIGGER, 2, 10, 4, events)).toBe(0);
    expect(w.irqs(EVENTFD | TRIGGER, 2, 11, 2)).toBe(0);
    expect([...w.device.sinks.keys()]).toEqual(['2.10', '2.13']);
    for (const sink of w.device.sinks.values()) sink.signal();
    expect(events.map((fd) => native().drain(fd))).toEqual([1, 0, 0, 1]);
  });
  add('indexes are apart: MSI-X does not touch INTx', (w) => {
    const [a, b] = [w.eventfd(), w.eventfd()];
    w.irqs(EVENTFD | TRIGGER, 0, 0, 1, [a]);
    w.irqs(EVENTFD | TRIGGER, 2, 0, 1, [b]);
    w.irqs(NONE | TRIGGER, 2, 0, 0);
    w.device.sinks.get('0.0')!.signal();
    expect([native().drain(a), native().drain(b)]).toEqual([1, 0]);
  });
  add('a descriptor is replaced, and the old one closed', (w) => {
    const [a, b] = [w.eventfd(), w.eventfd()];
    const open = openFds();
    for (const event of [a, b]) expect(w.irqs(EVENTFD | TRIGGER, 2, 7, 1, [event])).toBe(0);
    expect(openFds()).toBe(open + 1);
    w.device.sinks.get('2.7')!.signal();
    expect([native().drain(a), native().drain(b)]).toEqual([0, 1]);
  });
  add('a trigger without data signals, and skips those without a descriptor', (w) => {
    const event = w.eventfd();
    w.irqs(EVENTFD | TRIGGER, 2, 5, 1, [event]);
    expect(w.irqs(NONE | TRIGGER, 2, 4, 3)).toBe(0);
    expect(native().drain(event)).toBe(1);
  });
  add('a trigger by booleans signals where they are true', (w) => {
    const events = Array.from({ length: 3 }, w.eventfd);
    w.irqs(EVENTFD | TRIGGER, 2, 0, 3, events);
    expect(w.irqs(BOOL | TRIGGER, 2, 0, 3, [], Uint8Array.of(1, 0, 1))).toBe(0);
    expect(events.map((fd) => native().drain(fd))).toEqual([1, 0, 1]);
  });
  add('an unmask reaches the device once', (w) => {
    expect(w.irqs(NONE | UNMASK, 0, 0, 1)).toBe(0);
    expect(w.device.calls).toEqual(['unmask 0 0 1']);
  });
  add('an eventfd of value 4 that is signalled once reads 5', (w) => {
    const event = w.eventfd();
    native().add(event, 4);
    w.irqs(EVENTFD | TRIGGER, 2, 0, 1, [event]);
    w.device.sinks.get('2.0')!.signal();
    expect(native().drain(event)).toBe(5);
  });
  add('a signal after the descriptor was taken away does nothing', (w) => {
    const event = w.eventfd();
    w.irqs(EVENTFD | TRIGGER, 2, 0, 1, [event]);
    const sink = w.device.sinks.get('2.0')!;
    w.irqs(NONE | TRIGGER, 2, 0, 0);
    sink.signal();
    expect(native().drain(event)).toBe(0);
  });
});

group('region access', (add) => {
  add('a short payload', (w) => expect(w.errno(C.READ, pack(0n, 0))).toBe(E.EINVAL));
  add('a region that does not exist', (w) => expect(w.errno(C.READ, pack(0n, 0xdead_beef, 4))).toBe(E.EINVAL));
  add('a region without registers', (w) => expect(w.errno(C.READ, pack(0n, 2, 4))).toBe(E.EINVAL));
  add('one byte beyond the end', (w) => expect(w.errno(C.READ, pack(0xfffn, 0, 2))).toBe(E.EINVAL));
  add('an offset of 2^64 - 1', (w) => expect(w.errno(C.READ, pack(2n ** 64n - 1n, 0, 4))).toBe(E.EINVAL));
  add('a count of 0 is an empty success', (w) => expect(w.call(C.READ, pack(0n, 0, 0))).toMatchObject({ errno: 0, payload: new Uint8Array(0) }));
  add('a count above 1 MiB', (w) => expect(w.errno(C.READ, pack(0n, 0, (1 << 20) + 8))).toBe(E.EINVAL));
  add('a write of fewer bytes than its count', (w) => expect(w.errno(C.WRITE, pack(0n, 0, 8, 1))).toBe(E.EINVAL));
  add('a write of more bytes than its count', (w) => expect(w.errno(C.WRITE, pack(0n, 0, 4, 1n))).toBe(E.EINVAL));
  for (const width of [1, 2, 3, 4, 8, 64])
    add(`${width} bytes are written and read back`, (w) => {
      const data = Uint8Array.from({ length: width }, (_, i) => 0x80 + i);
      const { payload } = w.call(C.WRITE, pack(8n, 0, width, data));
      expect(payload).toEqual(pack(8n, 0, width));
      expect(w.call(C.READ, pack(8n, 0, width)).payload).toEqual(pack(8n, 0, width, data));
    });
  add('the errno of the device comes back', (w) => {
    w.device.answer = -E.EIO;
    expect([w.errno(C.READ, pack(0n, 0, 4)), w.errno(C.WRITE, pack(0n, 0, 4, 0))]).toEqual([E.EIO, E.EIO]);
  });
  add('a device that does less than it should is an error', (w) => {
    w.device.answer = 2;
    expect(w.errno(C.READ, pack(0n, 0, 4))).toBe(E.EIO);
  });
  add('a read of a whole region', (w) => expect(w.call(C.READ, pack(0n, 7, 0x1000)).payload.length).toBe(0x1010));
  const write = (offset: bigint, region: number, count: number, data: bigint): Uint8Array => pack(offset, region, count, data);
  add('several writes in one message', (w) => {
    expect(w.call(C.MULTI, pack(2n, write(0n, 0, 4, 0x1111n), write(4n, 0, 8, 0x2222n))).u32).toEqual([2, 0]);
    expect(w.call(C.READ, pack(0n, 0, 8)).u32.slice(4)).toEqual([0x1111, 0x2222]);
  });
  add('several writes up to the first that is refused', (w) =>
    expect(w.call(C.MULTI, pack(3n, write(0n, 0, 4, 1n), write(0n, 2, 4, 1n), write(0n, 0, 4, 1n))).u32).toEqual([1, 0]),
  );
  add('several writes of which the first is refused', (w) => expect(w.errno(C.MULTI, pack(1n, write(0n, 0, 9, 1n)))).toBe(E.EINVAL));
  add('fewer writes than announced', (w) => expect(w.errno(C.MULTI, pack(2n, write(0n, 0, 4, 1n)))).toBe(E.EINVAL));
  add('2^63 writes announced', (w) => expect(w.errno(C.MULTI, pack(2n ** 63n, write(0n, 0, 4, 1n)))).toBe(E.EINVAL));
});

group('I/O descriptors', (add) => {
  const ask = (argsz: number, index = 0, flags = 0, count = 0): Uint8Array => pack(argsz, flags, index, count);
  const sub = (fd: number, offset: number, more = {}) => ({ offset, size: 8, fd, type: 'ioeventfd' as const, flags: 0, data: 0, ...more });
  add('flags that are not 0', (w) => expect(w.errno(C.IO_FDS, ask(4096, 0, 1))).toBe(E.EINVAL));
  add('a count that is not 0', (w) => expect(w.errno(C.IO_FDS, ask(4096, 0, 0, 1))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.errno(C.IO_FDS, ask(8))).toBe(E.EINVAL));
  add('index 9', (w) => expect(w.errno(C.IO_FDS, ask(4096, 9))).toBe(E.EINVAL));
  add('a region that is not there', (w) => expect(w.errno(C.IO_FDS, ask(4096, 3))).toBe(E.EINVAL));
  add('none', (w) => expect(w.call(C.IO_FDS, ask(4096)).u32).toEqual([16, 0, 0, 0]));
  const fill = (w: World, n: number, shared = false): void => {
    const one = native().eventfd();
    w.device.subs = Array.from({ length: n }, (_, i) => sub(i === 0 || shared ? one : native().eventfd(), i * 8));
  };
  add('eight', (w) => {
    fill(w, 8);
    const { u32, fds } = w.call(C.IO_FDS, ask(16 + 8 * 40));
    expect([u32[0], u32[3], fds.length]).toEqual([16 + 8 * 40, 8, 8]);
    for (let i = 0; i < 8; i++) expect([u32[4 + i * 10], u32[4 + i * 10 + 2], u32[4 + i * 10 + 4], u32[4 + i * 10 + 5]]).toEqual([i * 8, 8, i, 0]);
    native().add(w.device.subs[3]!.fd, 3);
    expect(native().drain(fds[3]!)).toBe(3);
    for (const fd of fds) native().close(fd);
  });
  add('argsz for fewer than there are: how many, and how much it would be', (w) => {
    fill(w, 8);
    const { u32, fds } = w.call(C.IO_FDS, ask(16 + 7 * 40));
    expect([u32, fds.length]).toEqual([[16 + 8 * 40, 0, 0, 8], 0]);
  });
  add('a descriptor of several parts is sent once', (w) => {
    fill(w, 3, true);
    const { u32, fds } = w.call(C.IO_FDS, ask(4096));
    expect([fds.length, u32[8], u32[18], u32[28]]).toEqual([1, 0, 0, 0]);
    native().close(fds[0]!);
  });
  add('a part beyond the region', (w) => {
    w.device.subs = [sub(native().eventfd(), 0xffc)];
    expect(w.errno(C.IO_FDS, ask(4096))).toBe(E.EINVAL);
  });
  add('a shadow has a file of its own, and its parts 48 bytes', (w) => {
    const [event, file] = [native().eventfd(), native().memfd()];
    w.device.subs = [sub(event, 16, { type: 'shadow', shadow: { fd: file, offset: 0x40 }, data: 9 })];
    const { u32, fds } = w.call(C.IO_FDS, ask(4096));
    expect(u32).toEqual([64, 0, 0, 1, 16, 0, 8, 0, 0, 2, 0, 1, 0x40, 0, 9, 0]);
    expect(fds.length).toBe(2);
    for (const fd of fds) native().close(fd);
  });
  add('more descriptors than the client takes in a message: none', (w) => {
    fill(w, 17);
    const { u32, fds } = w.call(C.IO_FDS, ask(4096));
    expect([u32.length, u32[3], fds.length]).toEqual([4, 17, 0]);
  });
});

group('DMA map', (add) => {
  const PAGE = 0x1000n;
  add('a short payload', (w) => expect(w.errno(C.MAP, pack(32, 3, 0n, 0n))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.errno(C.MAP, pack(8, 3, 0n, 0n, PAGE))).toBe(E.EINVAL));
  add('an unknown flag', (w) => expect(w.map(0n, PAGE, [], 0x10)).toBe(E.EINVAL));
  add('to be mapped, without a descriptor', (w) => expect(w.map(0n, PAGE, [], 7)).toBe(E.EINVAL));
  add('to be read as a file, without a descriptor', (w) => expect(w.map(0n, PAGE, [], 11)).toBe(E.EINVAL));
  add('two descriptors', (w) => expect(w.map(0n, PAGE, [w.memfd(4096), w.memfd(4096)])).toBe(E.EINVAL));
  add('no bytes', (w) => expect(w.map(0n, 0n)).toBe(E.EINVAL));
  add('more than 8 TiB', (w) => expect(w.map(0n, 2n ** 43n + PAGE)).toBe(E.ENOSPC));
  add('beyond the end of all addresses', (w) => expect(w.map(2n ** 64n - PAGE, 2n * PAGE)).toBe(E.EINVAL));
  add('an address between two pages', (w) => expect(w.map(0x800n, PAGE)).toBe(E.EINVAL));
  add('overlap', (w) => {
    expect(w.map(0x4000n, 4n * PAGE)).toBe(0);
    for (const [at, size] of [
      [0x3000n, 2n],
      [0x5000n, 1n],
      [0x7000n, 9n],
      [0x0n, 100n],
    ] as const)
      expect(w.map(at, size * PAGE)).toBe(E.EINVAL);
    expect([w.map(0x3000n, PAGE), w.map(0x8000n, PAGE)]).toEqual([0, 0]);
  });
  add('the same once more', (w) => {
    const fd = w.memfd(0x2000);
    expect([w.map(0n, PAGE, [fd]), w.map(0n, PAGE, [fd])]).toEqual([0, 0]);
    expect([w.map(0n, PAGE, [fd], 1), w.map(0n, PAGE, [fd], 3, PAGE), w.map(0n, PAGE)]).toEqual([E.EINVAL, E.EINVAL, E.EINVAL]);
  });
  add('a file that is too small', (w) => expect(w.map(0n, 2n * PAGE, [w.memfd(4096)])).toBe(E.EINVAL));
  add('an offset between two pages', (w) => expect(w.map(0n, PAGE, [w.memfd(8192)], 3, 0x800n)).toBe(E.EINVAL));
  add('an offset of 2^63', (w) => expect(w.map(0n, PAGE, [w.memfd(8192)], 3, 2n ** 63n)).toBe(E.EINVAL));
  add('what cannot be mapped', (w) => expect(w.map(0n, PAGE, [w.eventfd()])).toBe(E.ENODEV));
  add('one more than there may be', (w) => {
    for (let i = 0; i < 65_535; i++) w.device.dma.add({ address: i * 4096, size: 4096, flags: 3, backing: undefined });
    expect(w.map(2n ** 40n, PAGE)).toBe(E.EINVAL);
  });
  add('rights are kept: what may only be read is not written', (w) => {
    expect(w.map(0n, PAGE, [w.memfd(4096)], 1)).toBe(0);
    const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
    expect([w.device.dma.acquire(0, -1, 0, 0, 8, out), w.device.dma.acquire(1, -1, 0, 0, 8, out), w.device.dma.acquire(0, 5, 0, 0, 8, out)]).toEqual([
      0, 1, 1,
    ]);
  });
});

group('DMA unmap', (add) => {
  const PAGE = 0x1000n;
  add('a short payload', (w) => expect(w.errno(C.UNMAP, pack(24, 0, 0n))).toBe(E.EINVAL));
  add('argsz 8', (w) => expect(w.unmap(0n, PAGE, 0, 8).errno).toBe(E.EINVAL));
  add('argsz above the largest message', (w) => expect(w.unmap(0n, PAGE, 0, 0x7fff_ffff).errno).toBe(E.EINVAL));
  add('flag 4', (w) => expect(w.unmap(0n, PAGE, 4).errno).toBe(E.EINVAL));
  add('with a bitmap, and nothing logged', (w) => {
    w.map(0n, PAGE);
    expect(w.call(C.UNMAP, pack(1024, 1, 0n, PAGE, 4096n, 8n)).errno).toBe(E.EINVAL);
  });
  add('with a bitmap of nearly 2^64 bytes', (w) => {
    w.map(0n, PAGE);
    w.feature(SET | 6, 24, 4096n, 0, 0);
    expect(w.call(C.UNMAP, pack(1024, 1, 0n, PAGE, 4096n, 2n ** 64n - 1n)).errno).toBe(E.EINVAL);
  });
  add('with a bitmap', (w) => {
    w.map(0n, 4n * PAGE, [w.memfd(0x4000)]);
    w.feature(SET | 6, 24, 4096n, 0, 0);
    w.touch(0x1000, 1);
    w.touch(0x3000, 1);
    expect(w.call(C.UNMAP, pack(48, 1, 0n, 4n * PAGE, 4096n, 8n)).payload).toEqual(pack(48, 1, 0n, 4n * PAGE, 4096n, 8n, 0b1010n));
    expect(w.device.dma.mappings.length).toBe(0);
  });
  add('a mapping: the entry comes back, and its descriptor is closed', (w) => {
    const fd = w.memfd(4096);
    const open = openFds();
    w.map(0x1000n, PAGE, [fd]);
    expect(w.unmap(0x1000n, PAGE).payload).toEqual(pack(24, 0, 0x1000n, PAGE));
    expect(openFds()).toBe(open);
  });
  add('an address that nobody mapped', (w) => expect(w.unmap(0x1000n, PAGE).errno).toBe(E.ENOENT));
  add('a part of a mapping', (w) => {
    w.map(0n, 2n * PAGE);
    expect([w.unmap(0n, PAGE).errno, w.unmap(PAGE, PAGE).errno, w.unmap(0n, 3n * PAGE).errno]).toEqual([E.ENOENT, E.ENOENT, E.ENOENT]);
  });
  add('all', (w) => {
    for (let i = 0n; i < 100n; i++) w.map(i * 2n * PAGE, PAGE);
    expect(w.unmap(0n, 0n, 2).errno).toBe(0);
    expect(w.device.dma.mappings.length).toBe(0);
  });
  add('all, with an address', (w) => expect(w.unmap(PAGE, 0n, 2).errno).toBe(E.EINVAL));
  add('all, with a size', (w) => expect(w.unmap(0n, PAGE, 2).errno).toBe(E.EINVAL));
  add('all, with a bitmap', (w) => expect(w.unmap(0n, 0n, 3).errno).toBe(E.EINVAL));
});

group('dirty pages', (add) => {
  const PAGE = 0x1000n;
  const start = (w: World, page = 4096n): number => w.feature(SET | 6, 24, page, 0, 0).errno;
  const report = (w: World, iova: bigint, length: bigint, page = 4096n, argsz = 4096) => w.feature(GET | 8, argsz, iova, length, page);
  const bitmap = (w: World, iova: bigint, length: bigint, page = 4096n): bigint =>
    new BigUint64Array(report(w, iova, length, page).payload.slice(32).buffer)[0]!;
  const mapped = (w: World, pages = 16n): void => void expect(w.map(0x10_0000n, pages * PAGE, [w.memfd(Number(pages) * 4096)])).toBe(0);
  add('a page size of 0', (w) => expect(start(w, 0n)).toBe(E.EINVAL));
  add('a page size that is no power of two', (w) => expect(start(w, 4097n)).toBe(E.EINVAL));
  add('start twice', (w) => expect([start(w), start(w)]).toEqual([0, 0]));
  add('start with another page size', (w) => expect([start(w), start(w, 8192n)]).toEqual([0, E.EINVAL]));
  add('the reply of start is the request', (w) => expect(w.feature(SET | 6, 24, 4096n, 0, 0).payload).toEqual(pack(24, SET | 6, 4096n, 0, 0)));
  add('a report before a start', (w) => {
    mapped(w);
    expect(report(w, 0x10_0000n, 16n * PAGE).errno).toBe(E.EINVAL);
  });
  add('nothing was written', (w) => {
    mapped(w);
    start(w);
    expect(report(w, 0x10_0000n, 16n * PAGE).payload).toEqual(pack(40, GET | 8, 0x10_0000n, 16n * PAGE, 4096n, 0n));
  });
  const patterns: readonly (readonly [words: string, writes: readonly (readonly [at: number, length: number])[], page: bigint, bits: bigint])[] = [
    ['one page', [[0, 1]], 4096n, 0b1n],
    ['pages across a byte of bits', [[7 * 4096, 2 * 4096]], 4096n, 0b1_1000_0000n],
    ['bytes across two pages', [[4095, 2]], 4096n, 0b11n],
    ['the last page', [[16 * 4096 - 1, 1]], 4096n, 0x8000n],
    ['all', [[0, 16 * 4096]], 4096n, 0xffffn],
    ['pages of half the size', [[4096, 1]], 2048n, 0b1100n],
    [
      'pages of twice the size',
      [
        [4096, 1],
        [6 * 4096, 1],
      ],
      8192n,
      0b1001n,
    ],
    ['pages of 16 times the size', [[15 * 4096, 1]], 65_536n, 0b1n],
  ];
  for (const [words, writes, page, bits] of patterns)
    add(`${words}, and a report forgets`, (w) => {
      mapped(w);
      start(w);
      for (const [at, length] of writes) w.touch(0x10_0000 + at, length);
      expect(bitmap(w, 0x10_0000n, 16n * PAGE, page)).toBe(bits);
      expect(bitmap(w, 0x10_0000n, 16n * PAGE)).toBe(0n);
    });
  add('an address that nobody mapped', (w) => {
    mapped(w);
    start(w);
    expect(report(w, 0n, PAGE).errno).toBe(E.ENOENT);
  });
  add('not exactly a mapping', (w) => {
    mapped(w);
    start(w);
    expect(report(w, 0x10_0000n, PAGE).errno).toBe(E.EOPNOTSUPP);
  });
  add('a page size of 2^64 - 1', (w) => {
    mapped(w);
    start(w);
    expect(report(w, 0x10_0000n, 16n * PAGE, 2n ** 64n - 1n).errno).toBe(E.EINVAL);
  });
  add('memory that is reached by messages', (w) => {
    w.map(0x10_0000n, PAGE);
    start(w);
    expect(report(w, 0x10_0000n, PAGE).errno).toBe(E.EINVAL);
  });
  add('argsz without room for the bitmap', (w) => {
    mapped(w);
    start(w);
    expect(report(w, 0x10_0000n, 16n * PAGE, 4096n, 39).errno).toBe(E.EINVAL);
  });
  add('stop, also with a structure that says nothing', (w) => {
    mapped(w);
    start(w);
    expect([w.feature(SET | 7, 8).errno, w.feature(SET | 7, 24, 4096n, 0, 0).errno]).toEqual([0, 0]);
    expect(report(w, 0x10_0000n, 16n * PAGE).errno).toBe(E.EINVAL);
  });
  add('ranges: what lies outside is not logged', (w) => {
    mapped(w);
    expect(w.feature(SET | 6, 56, 4096n, 1, 0, 0x10_2000n, 0x2000n).errno).toBe(0);
    w.touch(0x10_0000, 16 * 4096);
    expect(bitmap(w, 0x10_0000n, 16n * PAGE)).toBe(0b1100n);
  });
  add('ranges that overlap, or are announced and not there', (w) => {
    expect(w.feature(SET | 6, 56, 4096n, 2, 0, 0x1000n, 0x2000n, 0x2000n, 0x1000n).errno).toBe(E.EINVAL);
    expect(w.feature(SET | 6, 56, 4096n, 2, 0, 0x1000n, 0x2000n).errno).toBe(E.EINVAL);
  });
  add('a client that goes while pages are logged', (w) => void start(w));
});

group('features and migration', (add) => {
  add('argsz 4', (w) => expect(w.feature(GET | 1, 4).errno).toBe(E.EINVAL));
  add('neither get, set nor probe', (w) => expect(w.feature(1, 16).errno).toBe(E.EINVAL));
  add('get and set', (w) => expect(w.feature(GET | SET | 2, 16, 0, 0).errno).toBe(E.EINVAL));
  add('an unknown flag', (w) => expect(w.feature(GET | (1 << 19) | 1, 16).errno).toBe(E.EINVAL));
  add('an unknown feature', (w) => expect(w.feature(GET | 0, 16).errno).toBe(E.EINVAL));
  add('a device that cannot migrate', (w) => expect([w.feature(GET | 1, 16).errno, w.state(1)]).toEqual([E.EINVAL, E.EINVAL]), { migration: false });
  add('what migration can do', (w) => expect(w.feature(GET | 1, 16).payload).toEqual(pack(16, GET | 1, 5n)));
  add('argsz without room for it', (w) => expect(w.feature(GET | 1, 8).errno).toBe(E.EINVAL));
  add('it cannot be set', (w) => expect(w.feature(SET | 1, 16, 5n).errno).toBe(E.EINVAL));
  add('a probe answers with the request', (w) => expect(w.feature(PROBE | GET | SET | 2, 16).payload).toEqual(pack(16, PROBE | GET | SET | 2)));
  add('a probe of a method that is not there', (w) => expect(w.feature(PROBE | SET | 1, 16).errno).toBe(E.EINVAL));
  add('the state: running', (w) => expect(w.feature(GET | 2, 16).payload).toEqual(pack(16, GET | 2, 2, 0xffff_ffff)));
  add('a state that does not exist', (w) => expect(w.state(0xabcd)).toBe(E.EINVAL));
  add('state ERROR cannot be asked for', (w) => expect(w.state(0)).toBe(E.EINVAL));
  add('states of peer-to-peer devices are not used', (w) => expect([w.state(5), w.state(7)]).toEqual([E.EINVAL, E.EINVAL]));
  add('the reply of a change is the request', (w) => expect(w.feature(SET | 2, 16, 1, 0).payload).toEqual(pack(16, SET | 2, 1, 0)));
  add('a change without the new state', (w) => expect(w.feature(SET | 2, 16).errno).toBe(E.EINVAL));
  add('a change that the device refuses: its errno, and the state stays', (w) => {
    w.device.refuse = E.EIO;
    expect(w.state(1)).toBe(E.EIO);
    w.device.refuse = 0;
    expect(w.feature(GET | 2, 16).u32[2]).toBe(2);
  });
  add('STOP_COPY to PRE_COPY', (w) => expect([w.state(3), w.state(6)]).toEqual([0, E.EINVAL]));
  const states = [1, 2, 3, 4, 6] as const;
  for (const from of states)
    add(`from state ${from} to every other on the shortest way`, (w) => {
      for (const to of states) {
        expect(w.state(1)).toBe(0);
        expect(w.state(from)).toBe(0);
        w.device.calls.length = 0;
        const way = shortest(from, to);
        expect(w.state(to)).toBe(way ? 0 : E.EINVAL);
        expect(w.device.calls).toEqual((way ?? []).slice(1).map((state, i) => `step ${way![i]} ${state}`));
        expect(path(from, to, 5)).toEqual(way?.slice(1));
      }
    });
  add('without PRE_COPY its arcs are not there', (w) => expect([w.state(6), w.state(3), w.state(2)]).toEqual([E.EINVAL, 0, 0]), { preCopy: false });
  add('data move from one device to another', (w) => {
    w.device.state = Uint8Array.from({ length: 100 }, (_, i) => i);
    expect(w.state(6)).toBe(0);
    const read = (size: number) => w.call(C.MIG_READ, pack(8 + size, size));
    expect(read(60).payload).toEqual(pack(68, 60, w.device.state.slice(0, 60)));
    expect(w.state(3)).toBe(0);
    w.device.at = 60;
    expect(read(60).payload).toEqual(pack(48, 40, w.device.state.slice(60)));
    expect([w.state(1), w.state(4)]).toEqual([0, 0]);
    expect(w.errno(C.MIG_WRITE, pack(8 + 3, 3, Uint8Array.of(7, 8, 9)))).toBe(0);
    expect([...w.device.state]).toEqual([7, 8, 9]);
    expect(w.state(2)).toBe(0);
  });
  for (const [state, name] of [
    [1, 'STOP'],
    [2, 'RUNNING'],
    [4, 'RESUMING'],
  ] as const)
    add(`no data are read in ${name}`, (w) => expect([w.state(state), w.errno(C.MIG_READ, pack(16, 8))]).toEqual([0, E.EINVAL]));
  for (const [state, name] of [
    [2, 'RUNNING'],
    [3, 'STOP_COPY'],
    [6, 'PRE_COPY'],
  ] as const)
    add(`no data are written in ${name}`, (w) => expect([w.state(state), w.errno(C.MIG_WRITE, pack(12, 4, 0))]).toEqual([0, E.EINVAL]));
  add('more data than a message may have', (w) => expect([w.state(3), w.errno(C.MIG_READ, pack(0xffff_ffff, (1 << 20) + 1))]).toEqual([0, E.EINVAL]));
  add('argsz without room for the data', (w) => expect([w.state(3), w.errno(C.MIG_READ, pack(12, 8))]).toEqual([0, E.EINVAL]));
  add('fewer data than announced', (w) => expect([w.state(4), w.errno(C.MIG_WRITE, pack(16, 8, 0))]).toEqual([0, E.EINVAL]));
  add('data that the device refuses: its errno', (w) => {
    w.state(4);
    w.device.refuse = E.EIO;
    expect(w.errno(C.MIG_WRITE, pack(12, 4, 0))).toBe(E.EIO);
    w.device.refuse = 0;
  });
  add('while it is stopped: registers, features and data; nothing else', (w) => {
    w.state(1);
    expect([
      w.errno(C.READ, pack(0n, 0, 4)),
      w.feature(GET | 2, 16).errno,
      w.map(0n, 0x1000n),
      w.errno(C.INFO, pack(16, 0, 0, 0)),
      w.errno(C.RESET, pack()),
    ]).toEqual([0, 0, E.EINVAL, E.EINVAL, E.EINVAL]);
  });
  add('in STOP_COPY registers are refused', (w) => expect([w.state(3), w.errno(C.READ, pack(0n, 0, 4))]).toEqual([0, E.EINVAL]));
  add('a reset leads back to running', (w) => {
    w.state(4);
    expect(w.errno(C.RESET, pack())).toBe(0);
    expect(w.feature(GET | 2, 16).u32[2]).toBe(2);
  });
  add('a client that goes in the middle leaves a running device', (w) => {
    w.state(4);
    w.client.close();
    expect(w.device.calls.slice(-2)).toEqual(['step 4 1', 'step 1 2']);
  });
});

/** The specification's rules, by trying all ways: shortest, and no state of the saving group inside. Undefined where there is none. */
function shortest(from: number, to: number): number[] | undefined {
  const arcs = new Set(['2-1', '3-1', '4-1', '6-2', '1-2', '2-6', '1-3', '6-3', '1-4']);
  if (from === 3 && to === 6) return undefined;
  for (let length = 1; length <= 5; length++) {
    const ways = (way: number[]): number[][] =>
      way.length === length
        ? [way]
        : [1, 2, 3, 4, 6]
            .filter((next) => arcs.has(`${way.at(-1)}-${next}`) && (way.length === 1 || ![3, 6].includes(way.at(-1)!)))
            .flatMap((next) => ways([...way, next]));
    const right = ways([from]).filter((way) => way.at(-1) === to);
    if (right[0]) return right[0];
  }
  return undefined;
}

group('messages to the client', (add) => {
  const reply = (w: World, id: number, command: number, payload: Uint8Array, flags = 1): void =>
    w.client.send(message(command, payload, { id, flags }));
  const fetch = (w: World) => {
    const got: (Uint8Array | undefined)[] = [];
    if (w.device.dma.mappings.length === 0) w.map(0n, 0x10_0000n);
    w.device.dma.link!.read(0x2000, 64, (data) => got.push(data?.slice()));
    return got;
  };
  add('a read asks for address and count, and takes data of that length', (w) => {
    const got = fetch(w);
    const asked = w.client.next()!;
    expect(asked).toMatchObject({ command: 11, flags: 0, payload: pack(0x2000n, 64n) });
    reply(w, asked.id, 11, pack(0x2000n, 64n, new Uint8Array(64).fill(9)));
    w.client.next();
    expect(got).toEqual([new Uint8Array(64).fill(9)]);
  });
  add('an error, a short reply and a reply of another place are no data', (w) => {
    const got = [...Array(3)].map(() => fetch(w));
    const asked = got.map(() => w.client.next()!);
    reply(w, asked[0]!.id, 11, pack(), 0x21);
    reply(w, asked[1]!.id, 11, pack(0x2000n, 64n, new Uint8Array(63)));
    reply(w, asked[2]!.id, 11, pack(0x3000n, 64n, new Uint8Array(64)));
    w.client.next();
    expect(got).toEqual([[undefined], [undefined], [undefined]]);
  });
  for (const [words, payload] of [
    ['nothing (QEMU)', pack()],
    ['12 bytes (the specification)', pack(0n, 4)],
    ['16 bytes (libvfio-user)', pack(0n, 4n)],
  ] as const)
    add(`a write is answered with ${words}`, (w) => {
      const got: boolean[] = [];
      w.map(0n, 0x1000n);
      w.device.dma.link!.write(0, pack(0x1234), (ok) => got.push(ok));
      const asked = w.client.next()!;
      expect(asked).toMatchObject({ command: 12, payload: pack(0n, 4n, 0x1234) });
      reply(w, asked.id, 12, payload);
      w.client.next();
      expect(got).toEqual([true]);
    });
  add('the ids of the two directions are apart', (w) => {
    const got = fetch(w);
    const asked = w.client.next()!;
    w.client.send(message(C.INFO, pack(16, 0, 0, 0), { id: asked.id }));
    expect(w.client.next()).toMatchObject({ id: asked.id, command: C.INFO, flags: 1 });
    reply(w, asked.id, 11, pack(0x2000n, 64n, new Uint8Array(64)));
    w.client.next();
    expect(got.length).toBe(1);
  });
  add('a client that goes with reads under way ends them', (w) => {
    const got = fetch(w);
    w.client.close();
    expect(got).toEqual([undefined]);
  });
  add('no transfer is longer than what the client takes', (w) => {
    w.client.close();
    const small = RawClient.ready(w.socket, w.server, '{"capabilities":{"max_data_xfer_size":100}}\0');
    small.call(2, pack(32, 3, 0n, 0n, 0x1000n));
    const got: (Uint8Array | undefined)[] = [];
    w.device.dma.link!.read(0x10, 250, (data) => got.push(data));
    w.device.dma.link!.write(0x20, new Uint8Array(101), () => {});
    const asked = Array.from({ length: 5 }, () => small.next()!);
    expect(asked.map(({ command, payload }) => [command, ...new Uint32Array(payload.slice(0, 16).buffer)])).toEqual([
      [11, 0x10, 0, 100, 0],
      [11, 0x74, 0, 100, 0],
      [11, 0xd8, 0, 50, 0],
      [12, 0x20, 0, 100, 0],
      [12, 0x84, 0, 1, 0],
    ]);
    for (const [i, count] of [100, 100, 50].entries())
      small.send(message(11, pack(asked[i]!.payload.slice(0, 16), new Uint8Array(count).fill(i)), { id: asked[i]!.id, flags: 1 }));
    small.next();
    expect(got.map((data) => data && [data.length, data[99], data[100], data[249]])).toEqual([[250, 0, 1, 2]]);
    small.close();
  });
});

describe('decided otherwise', () => {
  const strict = () => {
    const device = new SampleDevice();
    const { server, path: socket } = serve(device);
    const client = RawClient.ready(socket, server);
    const errno = (command: number, payload: Uint8Array, fds: readonly number[] = []): number => client.call(command, payload, fds).errno;
    const end = (): void => {
      client.close();
      server.close();
    };
    return { device, client, errno, end };
  };
  test('by default the rules are the specification’s: EEXIST for an overlap, also of the same mapping; ENOTTY for an unknown feature', () => {
    const { errno, end } = strict();
    const map = pack(32, 3, 0n, 0n, 0x1000n);
    expect([errno(C.MAP, map), errno(C.MAP, map), errno(C.FEATURE, pack(16, GET))]).toEqual([0, E.EEXIST, E.ENOTTY]);
    end();
  });
  test('MMAP is set only in a reply that brings the descriptor; an empty access repeats its place', () => {
    const { client, end } = strict();
    expect(client.call(C.REGION, pack(32, 0, 1, 0, 0n, 0n)).u32[1]).toBe(3);
    expect(client.call(C.READ, pack(4n, 0, 0)).payload).toEqual(pack(4n, 0, 0));
    end();
  });
  test('a dirty report is for any range', () => {
    const { device, client, errno, end } = strict();
    const ram = memory(0x1_0000);
    expect([errno(C.MAP, pack(32, 3, 0n, 0x1000n, 0x1_0000n), [ram.fd]), errno(C.FEATURE, pack(24, SET | 6, 4096n, 0, 0))]).toEqual([0, 0]);
    const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
    device.dma.acquire(1, -1, 0, 0x5000, 1, out);
    expect(client.call(C.FEATURE, pack(64, GET | 8, 0x4000n, 0x8000n, 4096n)).payload.slice(32)).toEqual(pack(0b10n));
    end();
    ram.close();
  });
  test('a stopped device has its information, mappings and reset, and registers in STOP_COPY', () => {
    const { errno, end } = strict();
    expect(errno(C.FEATURE, pack(16, SET | 2, 3, 0))).toBe(0);
    expect([
      errno(C.INFO, pack(16, 0, 0, 0)),
      errno(C.MAP, pack(32, 3, 0n, 0n, 0x1000n)),
      errno(C.READ, pack(0n, 0, 4)),
      errno(C.RESET, pack()),
    ]).toEqual([0, 0, 0, 0]);
    end();
  });
  test('QEMU unmaps what was never mapped, and is told that it is gone', () => {
    const { server, path: socket } = serve(new SampleDevice(), { peer: 'qemu' });
    const client = RawClient.ready(socket, server);
    expect(client.call(C.UNMAP, pack(24, 0, 0x1000n, 0x1000n)).payload).toEqual(pack(24, 0, 0x1000n, 0x1000n));
    client.close();
    server.close();
  });
  test('QEMU is asked for at most 64 KiB in a message', () => {
    const device = new SampleDevice();
    const { server, path: socket } = serve(device, { peer: 'qemu' });
    const client = RawClient.ready(socket, server, '{"capabilities":{"max_data_xfer_size":1048576}}\0');
    expect(device.dma.link!.limit).toBe(65_536);
    // And in all messages under way: the next goes out when one was answered.
    const got: (number | undefined)[] = [];
    for (let i = 0; i < 3; i++) device.dma.link!.read(i * 0x1_0000, 0x1_0000, (data) => got.push(data?.length));
    const first = client.next()!;
    expect(client.next()).toBeUndefined();
    client.send(message(11, pack(0n, 0x1_0000n, new Uint8Array(0x1_0000)), { id: first.id, flags: 1 }));
    expect(client.next()).toMatchObject({ command: 11, payload: pack(0x1_0000n, 0x1_0000n) });
    expect(got).toEqual([0x1_0000]);
    client.close();
    server.close();
  });
  test('Cloud Hypervisor gets no error where it reads none: all ones, and no interrupts', () => {
    const device = new SampleDevice();
    const { server, path: socket } = serve(device, { peer: 'cloud-hypervisor' });
    const client = RawClient.ready(socket, server);
    expect(client.call(C.READ, pack(0xffen, 0, 4)).payload).toEqual(pack(0xffen, 0, 4, 0xffff_ffff));
    expect(client.call(C.WRITE, pack(0xffen, 0, 4, 0)).errno).toBe(0);
    expect(client.call(C.IRQ, pack(32, 0, 9, 0)).u32).toEqual([16, 0, 9, 0]);
    expect(client.call(C.REGION, pack(32, 0, 9, 0, 0n, 0n)).u32).toEqual([32, 0, 9, 0, 0, 0, 0, 0]);
    expect(device.dma.link).toBeUndefined();
    client.close();
    server.close();
  });
});
