// A stack of one's own from three packages: a DSA behind an IOMMU, its work queue given to a process by uacce. No other part of siov.
import { IdxdDevice } from '@siov/idxd-device';
import { Command, Descriptor, GroupCfg, Opcode, Portal, Record, Register, WqCfg } from '@siov/idxd-device/spec';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { registerUacce } from '@siov/uacce';
import { UacceIoctl } from '@siov/uacce/uapi';
// 4 MiB of memory, virtual time that takes none, and a kernel's user-space door.
const bytes = new Uint8Array(4 << 20), words = new Uint32Array(bytes.buffer), handlers = [], due = [], nodes = new Map();
const ram = { kind: 'ram', firstFrame: 0, frames: 1024, bytes, words }, memory = { regionOf: (frame) => (frame < 1024 ? ram : undefined) };
const run = () => { while (due.length) due.shift()(); };
const clock = { now: 0, handler: (h) => handlers.push(h) - 1, after: (_ns, h, a) => due.push(() => handlers[h](a)), wait: (until) => (run(), until()) };
const kernel = { register: (path, node) => nodes.set(path, node), unregister() {}, sysfs: { add() {}, remove() {} } };
let next = 16, vector = 0x20;
const frames = { alloc: (order = 0) => (next = Math.ceil(next / 2 ** order) * 2 ** order + 2 ** order) - 2 ** order, free() {} };
// The hardware, and the software on the IOMMU: PASID 7 of function 00:01.0 sees eight frames from 512 on at IOVA 0x10000.
const unit = new IommuUnit({ memory, sink: { deliver() {} } }), device = new IdxdDevice({ clock }), fn = device.function;
device.connect(unit.requester(fn.requesterId = 8, device));
const iommu = new IommuDriver({ registers: unit, memory, frames, clock, vectors: { install() {}, allocVector: () => vector++ } });
iommu.enable(), iommu.addDevice(8, { pasid: true }), fn.configWrite(4, 2, 6), fn.configWrite(fn.at.pasid + 6, 2, 1);
const domain = iommu.pagingDomain(), bar0 = fn.barMmio(0), offsets = bar0.read(Register.offsets, 4);
domain.map(0x10000, 512, 8, 3), iommu.attachPasid(8, 7, domain);
// The driver: one queue with that PASID; uacce starts it. The user: a descriptor to the portal.
const fill = (layout, fields, w = new Uint32Array(16)) => (Object.entries(fields).forEach(([f, v]) => layout.set[f](w, 0, v)), w);
const put = (at, w, n) => w.subarray(0, n).forEach((word, i) => bar0.write(at + i * 4, 4, word));
put((offsets & 0xffff) * 256, fill(GroupCfg, { wqs: 1, engines: 1 }), 16);
put((offsets >>> 16) * 256, fill(WqCfg, { size: 16, mode: 1, priority: 1, pasid: 7, pasidEnable: 1, maxTransferShift: 12 }), 8);
const startQueue = () => ([Command.enableDevice, Command.enableWq].forEach((code) => (bar0.write(Register.cmd, 4, code << 20), run())), 0);
const ops = { getQueue: () => 0, putQueue() {}, startQueue, stopQueue() {}, isQueueUpdated: () => true }, sva = { bind: () => ({ pasid: 7, unbind() {} }) };
registerUacce({ name: 'dsa', id: 0, api: 'mine', regionPages: [1, 0], kernel, sva, ops });
nodes.get('/dev/dsa-0').open({ mm: {} }, 2).ioctl({}, UacceIoctl.START_Q, 0);
bytes.set(new TextEncoder().encode('moved through (0x0008, PASID 7) by the IOMMU'), 512 * 4096);
const move = { opcode: Opcode.memmove, flags: 12, recordLow: 0x12000, sourceLow: 0x10000, destinationLow: 0x11000, size: 44 };
fn.barMmio(2).movdir64b(Portal.limitedMsix, fill(Descriptor, move), 0), run();
console.log(`${new TextDecoder().decode(bytes.subarray(513 * 4096, 513 * 4096 + 44))}\nDSA says ${Record.json(words, (514 * 4096) / 4).status}`);
