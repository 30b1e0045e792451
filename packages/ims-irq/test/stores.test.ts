import { MsiAddress, MsiData } from '@siov/layout/x86';
import { expect, test } from 'vitest';
import { ImsDomain, ImsSlot, MsixDomain, VectorDomain } from '../src/index.js';

/** Four vectors, registers as plain words, and a config space with an MSI-X capability of 4 vectors at 0x40 (table at 0x2000). */
function machine() {
  const handlers = new Map<number, (vector: number) => void>();
  const free = [0x33, 0x32, 0x31, 0x30];
  const vectors = {
    allocVector: () => free.pop() ?? -1,
    freeVector: (v: number) => void free.push(v),
    install: (v: number, h: (vector: number) => void) => void handlers.set(v, h),
    remove: (v: number) => void handlers.delete(v),
  };
  const words = new Uint32Array(0x1000);
  const order: string[] = [];
  const mmio = {
    read: (o: number) => (order.push(`read ${o}`), words[o / 4]!),
    write: (o: number, _w: number, v: number) => (order.push(`write ${o}`), void (words[o / 4] = v)),
  };
  const config = new Uint32Array(64);
  config[0x40 / 4] = 0x0003_0011;
  config[0x44 / 4] = 0x2000;
  const space = {
    requesterId: 8,
    configRead: (o: number, w: number) => (config[o >> 2]! >>> (8 * (o & 3))) & (w === 4 ? ~0 : 2 ** (8 * w) - 1),
    configWrite: (o: number, _w: number, v: number) => void (config[o >> 2] = (config[o >> 2]! & 0xffff) | (v << 16)),
  };
  return { handlers, words, mmio, order, config, space, parent: new VectorDomain({ vectors }), free };
}

test('a vector domain composes compatibility-format messages', () => {
  const { parent } = machine();
  const handle = parent.alloc(8, () => {})!;
  expect(MsiAddress.json(Uint32Array.of(handle.address), 0)).toMatchObject({ base: 0xfee, destination: 0 });
  expect(MsiData.json(Uint32Array.of(handle.data), 0)).toMatchObject({ vector: 0x30, deliveryMode: 'fixed', trigger: 'edge' });
});

test('MSI-X: the message is in the table before the entry is unmasked, and MSI-X is enabled with the first vector', () => {
  const { parent, space, mmio, words, order, handlers, config } = machine();
  let taken = 0;
  const irq = new MsixDomain(parent, space, 0x40, mmio).alloc(() => taken++, 2)!;
  const entry = (0x2000 + 2 * 16) / 4;
  expect([...words.subarray(entry, entry + 4)]).toEqual([irq.message.address, 0, irq.message.data, 0]);
  expect(config[0x40 / 4]! >>> 31).toBe(1);
  expect(order.indexOf(`write ${entry * 4}`)).toBeLessThan(order.lastIndexOf(`write ${entry * 4 + 12}`));
  handlers.get(irq.message.data)!(irq.message.data);
  expect([taken, irq.count]).toEqual([1, 1]);
});

test('IMS: the PASID stands in the control word, and mask and unmask keep it and read back', () => {
  const { parent, mmio, words, order } = machine();
  const irq = new ImsDomain(parent, mmio, 8, 4).allocFor(() => {}, 0xabcde)!;
  const control = () => ImsSlot.json(words, irq.index * 4);
  expect(control()).toMatchObject({ masked: 0, pasidEnable: 1, pasid: 0xabcde });
  irq.mask();
  expect(control()).toMatchObject({ masked: 1, pasidEnable: 1, pasid: 0xabcde });
  expect(order.at(-1)).toBe(`read ${irq.index * 16 + 12}`);
});

test('a freed slot is masked and its message zero; it and its vector can be taken again', () => {
  const { parent, mmio, words, free } = machine();
  const domain = new ImsDomain(parent, mmio, 8, 2);
  const first = domain.alloc(() => {})!;
  const second = domain.alloc(() => {})!;
  expect(domain.alloc(() => {})).toBeUndefined();
  first.free();
  first.free();
  expect([...words.subarray(0, 4)]).toEqual([0, 0, 0, 1]);
  expect([free.length, domain.used]).toEqual([3, 1]);
  expect(domain.alloc(() => {})!.index).toBe(0);
  expect(second.index).toBe(1);
});

test('no vector left: no interrupt, and the slot stays free', () => {
  const { parent, mmio } = machine();
  const domain = new ImsDomain(parent, mmio, 8, 8);
  const irqs = Array.from({ length: 5 }, () => domain.alloc(() => {}));
  expect(irqs.map((irq) => irq?.index)).toEqual([0, 1, 2, 3, undefined]);
  expect(domain.used).toBe(4);
});
