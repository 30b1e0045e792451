import { readSync, writeSync } from 'node:fs';
import { gnrD } from '@siov/idxd-device';
import { Flag, Opcode } from '@siov/idxd-device/spec';
import { IrqSetFlag } from '@siov/vfio-mdev/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../src/native.js';
import { TinyDriver } from './dsa.js';
import { bare, memory } from './machine.js';

const RAM = 0x10_0000;
const BYTES = 1 << 20;
const RECORD = RAM + 0x1000;
const { DATA_EVENTFD, ACTION_TRIGGER } = IrqSetFlag;
const ways = ['mapped', 'file', 'messages', 'messages of at most 1000 bytes', 'messages of at most 20 bytes', 'messages on a second socket'] as const;

/** DSA with a client whose memory is reached one way or another. */
function machine(how: string, profile = {}) {
  const world = bare(profile, { twinSocket: how === 'messages on a second socket' });
  const ram = memory(BYTES, how !== 'file');
  const messages: string[] = [];
  const client = world.connect({
    ...(how.startsWith('messages of') ? { capabilities: { max_data_xfer_size: Number(/\d+/.exec(how)![0]) } } : {}),
    memory: {
      read: (address, into) => (messages.push(`read ${into.length}`), into.set(ram.bytes.subarray(address - RAM, address - RAM + into.length)), 0),
      write: (address, from) => (messages.push(`write ${from.length}`), ram.bytes.set(from, address - RAM), 0),
    },
  });
  client.dmaMap(RAM, BYTES, how.startsWith('messages') ? {} : { fd: ram.fd });
  const driver = new TinyDriver(client);
  driver.start();
  return {
    ...world,
    ram: ram.bytes,
    client,
    driver,
    messages,
    run: () => {
      for (let i = 0; i < (how.startsWith('messages of') ? 8 : 1); i++) world.settle(client);
    },
    status: (record = RECORD) => ram.bytes[record - RAM]!,
    end() {
      client.close();
      world.settle();
      world.server.close();
      ram.close();
    },
  };
}

describe.each(ways)('memory of the client that is %s', (how) => {
  test('random copies are what a plain copy makes', () => {
    const m = machine(how);
    const expected = new Uint8Array(BYTES);
    fc.assert(
      fc.property(
        fc.array(fc.record({ source: fc.nat(0x3_0000), destination: fc.nat(0x3_0000), size: fc.integer({ min: 1, max: 0x8000 }) }), {
          minLength: 1,
          maxLength: 8,
        }),
        fc.nat(255),
        (copies, seed) => {
          for (let i = 0x1_0000; i < 0x5_0000; i++) m.ram[i] = (i * 31 + seed + (i >> 8)) & 0xff;
          expected.set(m.ram);
          for (const [i, { source, destination, size }] of copies.entries()) {
            m.ram.fill(0, 0x1000 + i * 32, 0x1020 + i * 32);
            expected.copyWithin(0x1_0000 + destination, 0x1_0000 + source, 0x1_0000 + source + size);
            m.driver.submit(
              m.driver.descriptor(Opcode.memmove, {
                source: RAM + 0x1_0000 + source,
                destination: RAM + 0x1_0000 + destination,
                size,
                record: RECORD + i * 32,
              }),
            );
            // One after the other: what runs at a time may overlap, and then either order is right.
            m.run();
          }
          for (const i of copies.keys()) expect(m.status(RECORD + i * 32)).toBe(1);
          expect(Buffer.compare(m.ram.subarray(0x1_0000, 0x5_0000), expected.subarray(0x1_0000, 0x5_0000))).toBe(0);
        },
      ),
      { numRuns: 15 },
    );
    m.end();
  });

  test('a batch reads its list and runs its members', () => {
    const m = machine(how);
    const words = new Uint32Array(m.ram.buffer, m.ram.byteOffset, BYTES / 4);
    m.ram.fill(0x5a, 0x1_0000, 0x1_0100);
    for (let i = 0; i < 4; i++) {
      const member = m.driver.descriptor(Opcode.memmove, {
        source: RAM + 0x1_0000,
        destination: RAM + 0x2_0000 + i * 0x1000,
        size: 256,
        record: RECORD + 64 + i * 32,
      });
      words.set(member, 0x8000 / 4 + i * 16);
    }
    m.driver.submit(m.driver.descriptor(Opcode.batch, { source: RAM + 0x8000, size: 4, record: RECORD }));
    m.run();
    expect([0, 1, 2, 3, 4].map((i) => m.status(i === 0 ? RECORD : RECORD + 32 + i * 32))).toEqual([1, 1, 1, 1, 1]);
    for (let i = 0; i < 4; i++) expect(m.ram[0x2_0000 + i * 0x1000 + 255]).toBe(0x5a);
    m.end();
  });

  test('a delta record changes only the words that it names', () => {
    const m = machine(how);
    for (let i = 0; i < 0x1000; i++) m.ram[0x1_0000 + i] = m.ram[0x2_0000 + i] = i;
    m.ram[0x2_0000 + 80] = 0xee;
    m.ram[0x2_0000 + 4088] = 0xdd;
    const create = m.driver.descriptor(Opcode.createDelta, { source: RAM + 0x1_0000, destination: RAM + 0x2_0000, size: 0x1000, record: RECORD });
    create[10] = RAM + 0x3_0000;
    create[12] = 800;
    m.driver.submit(create);
    m.run();
    expect(m.status()).toBe(1);
    const delta = new DataView(m.ram.buffer, m.ram.byteOffset + 0x1000).getUint32(16, true);
    expect(delta).toBe(20);
    // The client writes beside the named words while the device works: its bytes stay.
    const apply = m.driver.descriptor(Opcode.applyDelta, { source: RAM + 0x3_0000, destination: RAM + 0x1_0000, size: 0x1000, record: RECORD + 32 });
    apply[10] = delta;
    m.messages.length = 0;
    m.driver.submit(apply);
    m.run();
    expect(m.status(RECORD + 32)).toBe(1);
    expect([m.ram[0x1_0000 + 80], m.ram[0x1_0000 + 4088], m.ram[0x1_0000 + 81]]).toEqual([0xee, 0xdd, 81]);
    if (how.startsWith('messages') && !how.includes(' 20 '))
      expect(m.messages.filter((each) => each.startsWith('write'))).toEqual(['write 8', 'write 8', 'write 32']);
    m.end();
  });

  test('an address that nobody mapped ends the descriptor, and its neighbours are untouched', () => {
    const m = machine(how);
    m.driver.submit(m.driver.descriptor(Opcode.memmove, { source: RAM - 64, destination: RAM + 0x2_0000, size: 64, record: RECORD }));
    m.run();
    expect(m.status() & 0x7f).toBeGreaterThan(1);
    expect(m.server.dma().counters.faults).toBe(1);
    m.end();
  });

  test('an unmapped range is not written again, whatever is still under way', () => {
    const m = machine(how);
    m.ram.fill(1, 0x1_0000, 0x8_0000);
    for (let i = 0; i < 8; i++)
      m.driver.submit(
        m.driver.descriptor(Opcode.memmove, { source: RAM + 0x1_0000, destination: RAM + 0x8_0000, size: 0x7_0000, record: RECORD + i * 32 }),
      );
    m.client.dmaUnmap(RAM, BYTES);
    m.run();
    const before = m.ram.slice();
    m.run();
    expect(Buffer.compare(before, m.ram)).toBe(0);
    expect(m.device.counters.descriptors).toBe(8);
    m.end();
  });

  test('DSA 2.0 reads back what it wrote', () => {
    const m = machine(how, { profile: gnrD });
    m.ram.fill(7, 0x1_0000, 0x1_1000);
    const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.destinationReadback;
    m.driver.submit(m.driver.descriptor(Opcode.memmove, { source: RAM + 0x1_0000, destination: RAM + 0x2_0000, size: 4096, record: RECORD, flags }));
    m.run();
    expect([m.status(), m.ram[0x2_0fff]]).toEqual([1, 7]);
    m.end();
  });
});

test('a long operand is asked for ahead: a few requests are under way at a time, each once', () => {
  const m = machine('messages of at most 4096 bytes');
  for (let i = 0; i < 0x1_0000; i++) m.ram[0x1_0000 + i] = (i * 13) >> 3;
  m.messages.length = 0;
  m.driver.submit(m.driver.descriptor(Opcode.memmove, { source: RAM + 0x1_0000, destination: RAM + 0x4_0000, size: 40_000, record: RECORD }));
  m.server.step(0);
  m.server.step(0);
  // Nothing has been answered yet.
  expect(m.server.counters.commands).toBe(5);
  for (let i = 0; i < 100 && m.status() === 0; i++) m.run();
  expect(m.status()).toBe(1);
  expect(Buffer.compare(m.ram.subarray(0x4_0000, 0x4_0000 + 40_000), m.ram.subarray(0x1_0000, 0x1_0000 + 40_000))).toBe(0);
  expect(m.messages.filter((each) => each.startsWith('read'))).toEqual([...Array(9).fill('read 4096'), 'read 3136']);
  m.end();
});

test('an interrupt comes after the record that it tells of, also when the record goes by a message', () => {
  const m = machine('messages');
  const order: string[] = [];
  const event = native().eventfd();
  m.client.setIrqs(DATA_EVENTFD | ACTION_TRIGGER, 2, 1, 1, [event]);
  m.messages.push = (each: string): number => {
    order.push(`${each}, interrupts ${native().drain(event)}`);
    return 0;
  };
  const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt;
  m.driver.submit(
    m.driver.descriptor(Opcode.memmove, { source: RAM + 0x1_0000, destination: RAM + 0x2_0000, size: 64, record: RECORD, flags, handle: 1 }),
  );
  m.run();
  expect(order).toEqual(['read 64, interrupts 0', 'write 64, interrupts 0', 'write 32, interrupts 0']);
  expect(native().drain(event)).toBe(1);
  native().close(event);
  m.end();
});

test('a register read is answered at once while the device waits for a message that nobody answers', () => {
  const world = bare({}, { twinSocket: false });
  let answered = 0;
  const client = world.connect({
    memory: {
      read: () => {
        answered++;
        return 0;
      },
      write: () => 0,
    },
  });
  client.dmaMap(RAM, BYTES);
  const driver = new TinyDriver(client);
  driver.start();
  driver.submit(driver.descriptor(Opcode.memmove, { source: RAM, destination: RAM + 0x1000, size: 64, record: RECORD }));
  // The server has sent DMA_READ; this client looks at its socket only inside its own calls, and there first comes the reply it waits for.
  for (let i = 0; i < 20; i++) world.server.step(0);
  expect(answered).toBe(0);
  expect(driver.read(0)).toBe(0x100);
  client.close();
  world.settle();
  world.server.close();
});

test('a long copy is done in turns: registers are answered in between', () => {
  const world = bare();
  const bytes = 96 << 20;
  const ram = memory(2 * bytes);
  const client = world.connect();
  client.dmaMap(0, 2 * bytes, { fd: ram.fd });
  const driver = new TinyDriver(client);
  driver.start();
  ram.bytes.fill(0x5c, 0x2000, 0x3000);
  driver.submit(driver.descriptor(Opcode.memmove, { source: 0x2000, destination: bytes, size: bytes - 0x4000, record: 0x1000 }));
  let answered = 0;
  for (; ram.bytes[0x1000] === 0 && answered < 1000; answered++) expect(driver.read(0)).toBe(0x100);
  expect([ram.bytes[0x1000], ram.bytes[bytes + 0xfff]]).toEqual([1, 0x5c]);
  // At most 4 MiB, read and written, between two answers.
  expect(answered).toBeGreaterThan(40);
  // And with nobody asking for anything.
  ram.bytes[0x1000] = 0;
  driver.submit(driver.descriptor(Opcode.memmove, { source: 0x2000, destination: bytes, size: bytes - 0x4000, record: 0x1000 }));
  for (let i = 0; i < 1000 && ram.bytes[0x1000] === 0; i++) world.server.step(0);
  expect(ram.bytes[0x1000]).toBe(1);
  client.close();
  world.settle();
  world.server.close();
  ram.close();
});

test('guest memory above 4 GiB is reached: one mapping of 12 GiB', () => {
  const world = bare();
  const sys = native();
  const file = memory(12 * 2 ** 30);
  const client = world.connect();
  client.dmaMap(2 ** 32, 12 * 2 ** 30, { fd: file.fd });
  const driver = new TinyDriver(client);
  driver.start();
  const at = (gib: number): number => 2 ** 32 + gib * 2 ** 30;
  // Across the border of two windows.
  const data = Uint8Array.from({ length: 8192 }, (_, i) => i * 11);
  writeAt(file.fd, data, 9 * 2 ** 30 - 4096);
  driver.submit(driver.descriptor(Opcode.memmove, { source: at(9) - 4096, destination: at(11) - 100, size: 8192, record: at(1) }));
  world.settle(client);
  expect(readAt(file.fd, 1, 2 ** 30)[0]).toBe(1);
  expect(Buffer.compare(readAt(file.fd, 8192, 11 * 2 ** 30 - 100), data)).toBe(0);
  client.close();
  world.settle();
  world.server.close();
  sys.close(file.fd);
});

const writeAt = (fd: number, bytes: Uint8Array, at: number): void => void writeSync(fd, bytes, 0, bytes.length, at);
function readAt(fd: number, length: number, at: number): Uint8Array {
  const bytes = new Uint8Array(length);
  readSync(fd, bytes, 0, length, at);
  return bytes;
}
