import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Counter } from '../src/index.js';
import { Flag, Opcode, Portal } from '../src/spec/index.js';
import { machine } from './machine.js';

type Machine = ReturnType<typeof machine>;
type Store = readonly [offset: number, width: number, value: number];
const SLOTS = 4096 / 64;
const move = (m: Machine, recordLow = 0x100): Uint32Array =>
  m.descriptor(Opcode.memmove, { sourceLow: 0x1_0000, destinationLow: 0x2_0000, size: 64, recordLow });
/** Eight stores of 8 bytes as a processor makes them of a descriptor: each is two dwords at the door. */
const stores = (d: Uint32Array, at: number): Store[] => [...d].map((value, i) => [at + i * 4, 4, value]);
const send = (m: Machine, list: readonly Store[]): void => {
  for (const [offset, width, value] of list) m.bar2.write(offset, width, value);
  m.run();
};
const accepted = (m: Machine): number => m.device.counters[Counter.accepted]!;
const dropped = (m: Machine): number => m.device.counters[Counter.dropped]!;

describe('stores of 8 bytes to a portal', () => {
  test('do nothing by default', () => {
    const m = machine();
    m.start({});
    send(m, stores(move(m), Portal.limitedMsix));
    expect([accepted(m), dropped(m), m.words[0x100 / 4]]).toEqual([0, 0, 0]);
  });

  test('with assembleStores are one descriptor when they ascend from a slot, in any slot, page and queue', () => {
    const m = machine({ assembleStores: true });
    m.start({ size: 8 }, { size: 8 });
    fc.assert(
      fc.property(fc.nat(1), fc.nat(3), fc.nat(SLOTS - 1), fc.uint8Array({ minLength: 64, maxLength: 64 }), (wq, page, slot, data) => {
        m.bytes.set(data, 0x1_0000);
        m.bytes.fill(0, 0x2_0000, 0x2_0040);
        m.words[0x100 / 4] = 0;
        send(m, stores(move(m), wq * Portal.bytesPerWq + page * 4096 + slot * 64));
        expect(m.record()).toMatchObject({ status: 'success', completed: 64 });
        expect([...m.bytes.subarray(0x2_0000, 0x2_0040)]).toEqual([...data]);
      }),
    );
    expect(dropped(m)).toBe(0);
  });

  test('the half of the page decides about the interrupt table, as for a store of 64 bytes', () => {
    const m = machine({ assembleStores: true });
    m.start({});
    const slot = m.ims + 3 * 16;
    m.write(slot, 0xfee0_0000);
    m.write(slot + 8, 0x77);
    m.write(slot + 12, 4);
    const flags = Flag.recordAddressValid | Flag.requestRecord | Flag.requestInterrupt;
    send(m, stores(m.descriptor(Opcode.nop, { flags, interruptHandle: 3 }), Portal.limitedIms));
    expect(m.messages).toEqual([{ address: 0xfee0_0000, data: 0x77 }]);
  });

  test('a sequence that is torn, out of order or mixed with another store to the queue is dropped, and the next whole one is taken', () => {
    const spoil = fc.oneof(
      fc.record({ how: fc.constant('missing' as const), at: fc.integer({ min: 0, max: 15 }) }),
      fc.record({ how: fc.constant('twice' as const), at: fc.integer({ min: 1, max: 14 }) }),
      fc.record({ how: fc.constant('swapped' as const), at: fc.integer({ min: 0, max: 14 }) }),
      fc.record({
        how: fc.constant('foreign' as const),
        at: fc.integer({ min: 1, max: 15 }),
        slot: fc.integer({ min: 1, max: SLOTS - 1 }),
        word: fc.nat(15),
      }),
      fc.record({ how: fc.constant('narrow' as const), at: fc.integer({ min: 0, max: 15 }), width: fc.constantFrom(1, 2) }),
      fc.record({ how: fc.constant('shifted' as const), at: fc.integer({ min: 1, max: 15 }) }),
    );
    fc.assert(
      fc.property(fc.nat(3), spoil, (page, broken) => {
        const m = machine({ assembleStores: true, bytes: 1 << 18 });
        m.start({});
        const at = page * 4096;
        const list = stores(move(m), at);
        const { how, at: i } = broken;
        if (how === 'missing') list.splice(i, 1);
        else if (how === 'twice') list.splice(i, 0, list[i]!);
        else if (how === 'swapped') list.splice(i, 2, list[i + 1]!, list[i]!);
        else if (how === 'foreign') list.splice(i, 0, [at + broken.slot * 64 + broken.word * 4, 4, 0]);
        else if (how === 'narrow') list[i] = [list[i]![0], broken.width, list[i]![2]];
        else for (const [k, [offset, width, value]] of list.entries()) list[k] = [offset + i * 4, width, value];
        send(m, list);
        expect(accepted(m)).toBe(0);
        send(m, stores(move(m), at));
        expect([accepted(m), m.record().status]).toEqual([1, 'success']);
      }),
    );
  });

  test('what was torn counts as dropped once; beginning anew is a tear', () => {
    const m = machine({ assembleStores: true });
    m.start({});
    const whole = stores(move(m), 0);
    send(m, [...whole.slice(0, 5), ...whole]);
    expect([accepted(m), dropped(m)]).toEqual([1, 1]);
    send(m, [whole[0]!, whole[2]!, whole[3]!]);
    expect([accepted(m), dropped(m)]).toEqual([1, 2]);
  });

  test('queues do not disturb each other', () => {
    const m = machine({ assembleStores: true });
    m.start({ size: 8 }, { size: 8 });
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 32, maxLength: 32 }), (turns) => {
        const lists = [stores(move(m, 0x200), 64), stores(move(m, 0x240), Portal.bytesPerWq)];
        const mixed: Store[] = [];
        for (const turn of turns) mixed.push(...lists[turn ? 1 : 0]!.splice(0, 1));
        m.words[0x200 / 4] = m.words[0x240 / 4] = 0;
        send(m, [...mixed, ...lists[0]!, ...lists[1]!]);
        expect([m.record(0x200).status, m.record(0x240).status]).toEqual(['success', 'success']);
      }),
    );
  });

  test('a shared queue is no target of posted writes, and a disabled one none of any', () => {
    const m = machine({ assembleStores: true });
    m.start({ shared: true, pasid: 3 });
    send(m, [...stores(move(m), 0), ...stores(move(m), Portal.bytesPerWq)]);
    expect([accepted(m), dropped(m)]).toEqual([0, 2]);
  });

  test('a function level reset forgets what had begun', () => {
    const m = machine({ assembleStores: true });
    m.start({});
    const whole = stores(move(m), 0);
    send(m, whole.slice(0, 8));
    m.device.function.functionLevelReset();
    m.fn.configWrite(4, 2, 6);
    m.start({});
    send(m, whole.slice(8));
    expect(accepted(m)).toBe(0);
  });
});
