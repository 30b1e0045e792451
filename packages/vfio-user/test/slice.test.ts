import { Flag, Opcode } from '@siov/idxd-device/spec';
import { IrqSetFlag } from '@siov/vfio-mdev/uapi';
import { expect, test } from 'vitest';
import { native } from '../src/native.js';
import { TinyDriver } from './dsa.js';
import { bare, memory, openFds } from './machine.js';

const RAM = 0x10_0000;
const { DATA_EVENTFD, ACTION_TRIGGER } = IrqSetFlag;

test.each(['mapped', 'file', 'messages'] as const)('DSA copies the memory of a client on the other side of a socket: %s', (how) => {
  const before = openFds();
  const world = bare({}, { twinSocket: false });
  const ram = memory(1 << 20, how !== 'file');
  const calls: string[] = [];
  const client = world.connect({
    memory: {
      read: (address, into) => (calls.push(`read ${into.length}`), into.set(ram.bytes.subarray(address - RAM, address - RAM + into.length)), 0),
      write: (address, from) => (calls.push(`write ${from.length}`), ram.bytes.set(from, address - RAM), 0),
    },
  });
  expect(client.deviceInfo()).toEqual({ flags: 3, regions: 9, irqs: 5 });
  client.dmaMap(RAM, 1 << 20, how === 'messages' ? {} : { fd: ram.fd });
  const event = native().eventfd();
  client.setIrqs(DATA_EVENTFD | ACTION_TRIGGER, 2, 1, 1, [event]);

  const driver = new TinyDriver(client);
  driver.start();
  for (let i = 0; i < 5000; i++) ram.bytes[i] = i * 7;
  const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt;
  driver.submit(
    driver.descriptor(Opcode.memmove, { source: RAM + 3, destination: RAM + 0x8001, size: 4990, record: RAM + 0x4000, flags, handle: 1 }),
  );
  world.settle(client);
  expect(ram.bytes[0x4000]).toBe(1);
  expect([...ram.bytes.subarray(0x8001, 0x8001 + 4990)]).toEqual([...ram.bytes.subarray(3, 4993)]);
  expect(native().drain(event)).toBe(1);
  expect(world.device.counters).toMatchObject({ descriptors: 1, failed: 0, interrupts: 1 });
  expect(calls).toEqual(how === 'messages' ? ['read 4990', 'write 4990', 'write 32'] : []);

  client.close();
  world.settle();
  world.server.close();
  native().close(event);
  ram.close();
  expect(openFds()).toBe(before);
});
