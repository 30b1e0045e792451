import { enumerate, type Mmio, PciFunction, PciRoot } from '@siov/pci-core';

const register = new Uint32Array(1);
const mmio: Mmio = { read: () => register[0]!, write: (_offset, _width, value) => void (register[0] = value) };
const mapped = new Map<number, Mmio>(); // frame -> device: a physical address map of the simplest kind
const map = {
  addMmio: (frame: number, _frames: number, device: Mmio) => (mapped.set(frame, device), frame),
  remove: (frame: number) => void mapped.delete(frame),
};
const window = { base: 0xe000_0000, bytes: 0x10_0000 };

const root = new PciRoot({ map, window });
root.add(new PciFunction({ vendorId: 0x8086, deviceId: 0x0b25, classCode: 0x088000, bars: { 0: { bytes: 0x1000, mmio } } }), 1);

const [device] = enumerate({ ecam: root, window, ioremap: (address) => mapped.get(address / 4096) ?? mmio });
device!.bars.get(0)!.mmio.write(0, 4, 42);
console.log(device!.name, 'BAR 0 at', `0x${device!.bars.get(0)!.address.toString(16)}`, 'reads', device!.bars.get(0)!.mmio.read(0, 4));
