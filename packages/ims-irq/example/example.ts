import { ImsDomain, VectorDomain } from '@siov/ims-irq';

const handlers = new Map<number, (vector: number) => void>();
let next = 0x30;
const vectors = { allocVector: () => next++, freeVector() {}, install: handlers.set.bind(handlers), remove: handlers.delete.bind(handlers) };
const words = new Uint32Array(64); // the device's registers: 16 IMS slots
const slots = {
  read: (offset: number) => words[offset / 4]!,
  write: (offset: number, _width: number, value: number) => void (words[offset / 4] = value),
};

const ims = new ImsDomain(new VectorDomain({ vectors }), slots, 0x0008, 16);
const irq = ims.allocFor(() => console.log('taken'), 5)!; // only descriptors of PASID 5 may raise it

handlers.get(words[2]! & 0xff)!(words[2]! & 0xff); // what the device does: writes data to address
console.log('slot', irq.index, 'message', irq.message.address.toString(16), irq.message.data.toString(16), 'taken', irq.count, 'time');
