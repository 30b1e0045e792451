/** VT-d, "Queued Invalidation Interface": descriptors, errors, waits. Reserved bits come from the layouts. */
import type { AnyLayout } from '@siov/layout';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RegisterFront } from '../src/index.js';
import * as spec from '../src/spec/index.js';
import { bare, REG, RID, world } from './machine.js';

const { QueueError } = spec;
const IQER = 0xb0;
const queue = (profile = {}) => {
  const m = bare({ profile });
  m.startQueue();
  const error = () => (m.unit.read(REG.fsts, 4) & 0x10 ? m.unit.read(IQER, 4) & 0xf : QueueError.none);
  return { ...m, error };
};
/** A good descriptor of every type. */
const good: Record<string, readonly [layout: AnyLayout, words: readonly number[]]> = {
  context: [spec.ContextDescriptor, [0x11]],
  iotlb: [spec.IotlbDescriptor, [0x12]],
  deviceTlb: [spec.DeviceTlbDescriptor, [0x03, RID]],
  interruptEntry: [spec.InterruptEntryDescriptor, [0x04]],
  wait: [spec.WaitDescriptor, [0x05]],
  pasidIotlb: [spec.PasidIotlbDescriptor, [0x26]],
  pasidCache: [spec.PasidCacheDescriptor, [0x37]],
  pasidDeviceTlb: [spec.PasidDeviceTlbDescriptor, [0x08]],
  pageGroupResponse: [spec.PageGroupResponse, [0x09]],
};

describe.each(Object.entries(good))('%s', (_name, [layout, words]) => {
  test('is executed, and the head follows', () => {
    const m = queue();
    m.submit(...words);
    expect(m.error()).toBe(QueueError.none);
    expect(m.unit.read(REG.iqh, 4)).toBe(32);
  });
  test('any reserved bit is an error, the head stays, and the queue goes on when the descriptor is mended', () => {
    const m = queue();
    for (let word = 0; word < 8; word++)
      for (let bit = 0; bit < 32; bit++) {
        const isType = word === 0 && bit >= 9 && bit < 12;
        if (!(layout.masks.reserved[word]! & (1 << bit)) && !isType) continue;
        const head = m.unit.read(REG.iqh, 4);
        const broken = Array.from({ length: 8 }, (_, i) => (words[i] ?? 0) | (i === word ? 1 << bit : 0));
        m.submit(...broken);
        expect(m.error(), `word ${word} bit ${bit}`).toBe(isType ? QueueError.type : QueueError.reserved);
        expect(m.unit.read(REG.iqh, 4)).toBe(head);
        const at = m.word(m.queueFrame, head / 4);
        m.words.fill(0, at, at + 8);
        m.words.set(words, at);
        m.unit.write(REG.fsts, 4, 0x10);
        expect(m.unit.read(REG.iqh, 4)).toBe((head + 32) % 4096);
      }
  });
});

test.each([
  ['type 0', [0], QueueError.type],
  ['type 10', [10], QueueError.type],
  ['context granularity 0', [0x01], QueueError.granularity],
  ['IOTLB granularity 0', [0x02], QueueError.granularity],
  ['IOTLB address mask beyond MAMV', [0x32, 0, 54], QueueError.granularity],
  ['PASID IOTLB granularity 0', [0x06], QueueError.granularity],
  ['PASID IOTLB granularity 1', [0x16], QueueError.granularity],
  ['PASID cache granularity 2', [0x27], QueueError.granularity],
  ['status write to no memory', [0x25, 1, 0, 0x100], QueueError.statusWrite],
])('%s is refused', (_rule, words, error) => {
  const m = queue();
  m.submit(...words);
  expect(m.error()).toBe(error);
  expect(m.unit.read(REG.iqh, 4)).toBe(0);
});

test.each([
  ['device-TLB invalidation without DT', { deviceTlb: 0 }, [0x03]],
  ['page group response without PRS', { pageRequests: 0 }, [0x09]],
])('%s is no type', (_rule, extendedCapability, words) => {
  const m = queue({ extendedCapability });
  m.submit(...words);
  expect(m.error()).toBe(QueueError.type);
});

test('128-bit descriptors, a tail that is odd or beyond the queue, and a queue outside memory stop it', () => {
  for (const [address, tail, error] of [
    [0, 32, QueueError.descriptorWidth],
    [0x800, 16, QueueError.tail],
    [0x800, 8192, QueueError.tail],
    [0x800 + 2 ** 40, 32, QueueError.fetch],
  ] as const) {
    const m = bare();
    m.write64(REG.iqa, m.queueFrame * 4096 + address);
    m.command(26);
    m.unit.write(REG.iqt, 4, tail);
    expect(m.unit.read(IQER, 4) & 0xf).toBe(error);
  }
});

test('a wait descriptor writes its status, and with IF sets IWC and raises the completion event', () => {
  const m = queue();
  const frame = m.allocator.alloc();
  m.unit.write(0xa4, 4, 0x61);
  m.unit.write(0xa8, 4, 0xfee0_3000);
  m.unit.write(0xa0, 4, 0);
  m.submit(0x05 | 0x30, 0xcafe, frame * 4096 + 0x10);
  expect(m.words[m.word(frame, 4)]).toBe(0xcafe);
  expect(m.unit.read(0x9c, 4)).toBe(1);
  expect(m.delivered).toEqual([[0x61, 3]]);
  m.submit(0x05 | 0x10);
  expect(m.delivered.length).toBe(1);
  m.unit.write(0x9c, 4, 1);
  m.submit(0x05 | 0x10);
  expect(m.delivered.length).toBe(2);
});

describe('the front tells its hooks', () => {
  const told: unknown[][] = [];
  const front = () => {
    told.length = 0;
    const w = world(64);
    const note =
      (name: string) =>
      (...args: unknown[]) =>
        void told.push([name, ...args]);
    const f = new RegisterFront({
      memory: w.memory,
      sink: { deliver: () => {} },
      profile: { capability: { cachingMode: 1 } },
      hooks: {
        translationEnabled: note('translation'),
        contextChanged: note('context'),
        pasidChanged: note('pasid'),
        iotlbInvalidated: note('iotlb'),
        deviceTlbInvalidated: note('deviceTlb'),
        interruptEntriesChanged: note('interrupts'),
        pageResponse: note('response'),
      },
    });
    const frame = w.allocator.alloc();
    f.write(REG.iqa, 4, frame * 4096 + 0x800);
    f.write(REG.gcmd, 4, 1 << 26);
    return { ...w, f, frame };
  };
  test.each([
    ['context, device with mask', [0x31, RID | (2 << 16)], ['context', 3, 0, RID, 2]],
    ['PASID cache, one', [0x17 | (9 << 16), 77], ['pasid', 1, 9, 77]],
    ['IOTLB, all', [0x12], ['iotlb', -1, -1, 0, 0, -1, false]],
    ['IOTLB, domain', [0x22 | (9 << 16)], ['iotlb', 9, -1, 0, 0, -1, false]],
    ['IOTLB, 4 pages, leaf only, aligned down', [0x32 | (9 << 16), 0, 0x1234_7042, 5], ['iotlb', 9, -1, 5, 0x1234_4000, 4, true]],
    ['PASID IOTLB, all', [0x26 | (9 << 16), 77], ['iotlb', 9, 77, 0, 0, -1, false]],
    ['PASID IOTLB, 2^21 pages', [0x36 | (9 << 16), 77, 0x1234_7015, 7], ['iotlb', 9, 77, 6, 0, 2 ** 21, false]],
    ['device TLB, one page', [0x03, RID, 0x5000, 1], ['deviceTlb', RID, -1, 1, 0x5000, 4096]],
    ['device TLB, 4 pages', [0x03, RID, 0x5001, 1], ['deviceTlb', RID, -1, 1, 0x4000, 0x4000]],
    ['device TLB, all', [0x03, RID, 0xffff_f001, 0xffff_ffff], ['deviceTlb', RID, -1, 0, 0, Infinity]],
    ['PASID device TLB, 8 pages', [0x08 | (RID << 16), 77, 0x3800, 0], ['deviceTlb', RID, 77, 0, 0, 0x8000]],
    ['interrupt entries, 4', [0x14 | (2 << 27), 0x13], ['interrupts', 0x10, 4]],
    ['page group response', [0x09 | 0x10 | (1 << 12) | (RID << 16), 77, 33 << 3], ['response', RID, 77, 33, 1]],
  ])('%s', (_name, words, expected) => {
    const { f, frame, word, words: memory } = front();
    memory.set(
      words.map((w) => w >>> 0),
      word(frame),
    );
    f.write(REG.iqt, 4, 32);
    expect(told).toEqual([expected]);
  });
  test('of translation, and shows caching mode', () => {
    const { f } = front();
    f.write(REG.gcmd, 4, ((1 << 31) | (1 << 26)) >>> 0);
    expect(told).toEqual([['translation', true]]);
    expect(f.read(0x08, 4) & 0x80).toBe(0x80);
  });
});

test('any descriptor, any register write: no exception, and memory outside the queue stays as it was but for wait statuses', () => {
  const w = fc.integer({ min: 0, max: 0xffff_ffff });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(w, w, w, w, fc.boolean()), { maxLength: 20 }),
      fc.array(fc.tuple(fc.nat(0xfff), w), { maxLength: 20 }),
      (descriptors, writes) => {
        const m = queue();
        const before = m.words.slice();
        for (const [a, b, c, d, sane] of descriptors) {
          // No status write: bit 5 of a wait.
          const first = sane ? (a & ~0xe00 & ~0x20) >>> 0 : (a & ~0x20) >>> 0;
          m.submit(first, b, c, d);
          m.unit.write(REG.fsts, 4, 0x70);
        }
        const at = m.word(m.queueFrame);
        before.set(m.words.subarray(at, at + 1024), at);
        expect(Buffer.compare(Buffer.from(before.buffer), Buffer.from(m.words.slice().buffer))).toBe(0);
        for (const [offset, value] of writes) for (const width of [1, 2, 4]) m.unit.write(offset - (offset % width), width, value);
        for (let offset = 0; offset < 0x1000; offset += 4) expect(m.unit.read(offset, 4)).toBeGreaterThanOrEqual(0);
      },
    ),
    { numRuns: 60 },
  );
});
