import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BareDevice } from '@siov/stack/bare';
import { VfioUserClient, VfioUserServer } from '@siov/vfio-user';

// A DSA device on a socket. For QEMU this is all: then server.run(), or `siov serve`, which puts it into a thread.
const path = join(mkdtempSync(join(tmpdir(), 'siov-')), 'dsa.sock');
const server = new VfioUserServer({ devices: [{ path, device: new BareDevice() }], peer: 'qemu' });

// The other end, here in the same thread: while it waits, the server works.
const client = VfioUserClient.connect(path, { idle: () => server.step(1) });
const { regions, irqs } = client.deviceInfo();
console.log(regions, 'regions,', irqs, 'kinds of interrupts');
const ids = new DataView(client.regionRead(7, 0, 4).slice().buffer);
console.log('vendor and device', ids.getUint32(0, true).toString(16).padStart(8, '0'));
console.log('BAR 2 has', client.regionInfo(2).size, 'bytes of portals; MSI-X has', client.irqInfo(2).count, 'vectors');

// Reset the device (command 5) by its register, and read its status until the command is done.
client.regionWrite(0, 0xa0, Uint8Array.of(0, 0, 0x50, 0));
while (client.regionRead(0, 0xa8, 4)[3]! & 0x80);
console.log('reset');

try {
  client.regionRead(0, 0x1_0000, 4);
} catch (error) {
  console.log((error as Error).message);
}
client.close();
server.close();
