import { Command, Flag, Opcode } from '@siov/idxd-device/spec';
import { BareVdev } from '@siov/stack/vdev';
import { IrqSetFlag } from '@siov/vfio-mdev/uapi';
import { expect, test } from 'vitest';
import { native } from '../src/native.js';
import { TinyDriver } from './dsa.js';
import { memory, serve } from './machine.js';

const RAM = 0x10_0000;
const { DATA_EVENTFD, ACTION_TRIGGER } = IrqSetFlag;

function machine() {
  const world = serve(new BareVdev());
  const ram = memory(1 << 20);
  const client = world.connect();
  const driver = new TinyDriver(client);
  // As the device shows itself: one queue that is configured already.
  client.regionWrite(7, 4, Uint8Array.of(6, 0));
  expect([driver.command(Command.enableDevice), driver.command(Command.enableWq)]).toEqual([0, 0]);
  return { ...world, ram, client, driver };
}
const copy = (m: ReturnType<typeof machine>, record: number, more: { flags?: number; handle?: number } = {}): void => {
  m.driver.submit(
    m.driver.descriptor(Opcode.memmove, { source: RAM + 0x1_0001, destination: RAM + 0x2_0003, size: 5000, record: RAM + record, ...more }),
  );
  m.settle(m.client);
};
const done = (m: ReturnType<typeof machine>): void => {
  m.client.close();
  m.settle();
  m.server.close();
  m.ram.close();
};

test("the mdev model's virtual device on a socket: its DMA goes through the host's IOMMU to the client's memory, its interrupts to eventfds", () => {
  const m = machine();
  m.client.dmaMap(RAM, 1 << 20, { fd: m.ram.fd });
  const event = native().eventfd();
  m.client.setIrqs(DATA_EVENTFD | ACTION_TRIGGER, 2, 1, 1, [event]);
  expect(m.driver.command(Command.requestInterruptHandle, 1)).toBe(0);
  const handle = (m.driver.read(0xa8) >>> 8) & 0xffff;
  for (let i = 0; i < 5000; i++) m.ram.bytes[0x1_0001 + i] = i * 3;
  copy(m, 0x4000, { flags: Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt, handle });
  expect(m.ram.bytes[0x4000]).toBe(1);
  expect([...m.ram.bytes.subarray(0x2_0003, 0x2_0003 + 5000)]).toEqual([...m.ram.bytes.subarray(0x1_0001, 0x1_0001 + 5000)]);
  expect([native().drain(event), m.device.counters.interrupts]).toEqual([1, 1]);
  native().close(event);
  done(m);
});

test('what the client takes back is not reached any more, and what it gives again is', () => {
  const m = machine();
  m.client.dmaMap(RAM, 1 << 20, { fd: m.ram.fd });
  copy(m, 0x4000);
  expect(m.ram.bytes[0x4000]).toBe(1);
  m.client.dmaUnmap(RAM, 1 << 20);
  copy(m, 0x5000);
  expect(m.ram.bytes[0x5000]).toBe(0);
  m.client.dmaMap(RAM, 1 << 20, { fd: m.ram.fd });
  copy(m, 0x6000);
  expect(m.ram.bytes[0x6000]).toBe(1);
  done(m);
});

test('memory that is reached by messages only is none of its', () => {
  const m = machine();
  m.client.dmaMap(RAM, 1 << 20);
  expect(m.device.unreachable).toBe(1);
  copy(m, 0x4000);
  expect(m.device.counters).toMatchObject({ descriptors: 1, failed: 1 });
  done(m);
});
