import { type Extent, IdxdDevice } from '@siov/idxd-device';
import { Command, Descriptor, Flag, Opcode, Portal, Record, Register, WqCfg } from '@siov/idxd-device/spec';

// The two ports: virtual time (all at once here) and memory (an IOVA is an offset).
const due: (() => void)[] = [];
const handlers: ((argument: number) => void)[] = [];
const clock = {
  now: 0,
  handler: (run: (argument: number) => void) => handlers.push(run) - 1,
  after: (_ns: number, h: number, a: number) => void due.push(() => handlers[h]!(a)),
};
const run = () => {
  while (due.length > 0) due.shift()!();
};
const view = new Uint8Array(65536);
const words = new Uint32Array(view.buffer);
const acquire = (_access: number, _pasid: number, _high: number, low: number, max: number, out: Extent) => {
  Object.assign(out, { view, words, offset: low, length: Math.min(max, view.length - low) });
  return 0;
};
const device = new IdxdDevice({ clock });
device.connect({ acquire, commit() {}, message() {}, pageRequest: () => 1 });

// What a driver does: bus mastering, one group with one queue and one engine, enable.
device.function.configWrite(0x04, 2, 0b110);
const registers = device.function.barMmio(0)!;
const queue = new Uint32Array(8);
WqCfg.set.size(queue, 0, 16);
WqCfg.set.mode(queue, 0, WqCfg.is.mode.dedicated);
WqCfg.set.priority(queue, 0, 1);
WqCfg.set.maxTransferShift(queue, 0, 16);
for (const [i, word] of queue.entries()) registers.write((registers.read(Register.offsets, 4) >>> 16) * 0x100 + i * 4, 4, word);
const group = (registers.read(Register.offsets, 4) & 0xffff) * 0x100;
registers.write(group, 4, 1);
registers.write(group + 32, 4, 1);
for (const code of [Command.enableDevice, Command.enableWq]) {
  registers.write(Register.cmd, 4, code << 20);
  run();
}

// What a user does: a descriptor to the portal, and a look at the record.
view.set(new TextEncoder().encode('moved by a model of DSA'), 0x1000);
const d = new Uint32Array(16);
Descriptor.set.opcode(d, 0, Opcode.memmove);
Descriptor.set.flags(d, 0, Flag.recordAddressValid | Flag.requestRecord);
Descriptor.set.recordLow(d, 0, 0x100);
Descriptor.set.sourceLow(d, 0, 0x1000);
Descriptor.set.destinationLow(d, 0, 0x2000);
Descriptor.set.size(d, 0, 23);
device.function.barMmio(2)!.movdir64b!(Portal.limitedMsix, d, 0);
run();
console.log(new TextDecoder().decode(view.subarray(0x2000, 0x2017)));
console.log(Record.show(words, 0x100 / 4));
