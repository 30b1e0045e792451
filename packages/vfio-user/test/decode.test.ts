import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decode, describe as describeMessage, readWire, WireFormatError, WireWriter } from '../src/index.js';
import { message, pack } from './raw.js';

const file = join(mkdtempSync(join(tmpdir(), 'siov-wire-')), 'recording');

describe('messages by field names', () => {
  test.each([
    [message(2, pack(32, 3, 0n, 0x1_0000_0000n, 0x1000n)), 'DMA_MAP 7 argsz=0x20 flags=3 offset=0 address=0x100000000 size=0x1000'],
    [message(8, pack(20, 0x24, 2, 1, 1)), 'DEVICE_SET_IRQS 7 argsz=0x14 flags=DATA_EVENTFD|ACTION_TRIGGER index=2 start=1 count=1'],
    [message(10, pack(0xa0n, 0, 4, 0x0050_0000), { flags: 0x10 }), 'REGION_WRITE 7 posted offset=0xa0 region=0 count=4 data=00005000'],
    [message(9, pack(), { flags: 0x21 }), 'REGION_READ 7 reply errno 0'],
    [message(11, pack(2n ** 63n, 64n)), 'DMA_READ 7 address=0x8000000000000000 count=0x40'],
    [
      message(16, pack(16, (1 << 17) | 2, 3, 0xffff_ffff)),
      'DEVICE_FEATURE 7 argsz=0x10 flags=SET state=STOP_COPY dataFd=0xffffffff feature=MIG_DEVICE_STATE',
    ],
    [
      message(16, pack(40, (1 << 16) | 8, 0n, 0x1000n, 4096n, 1n)),
      'DEVICE_FEATURE 7 argsz=0x28 flags=GET iova=0 length=0x1000 pageSize=0x1000 feature=DMA_LOGGING_REPORT data=0100000000000000',
    ],
    [message(1, pack(2 << 16, '{}\0')), 'VERSION 7 major=0 minor=2 {}'],
    [message(13, pack()), 'DEVICE_RESET 7'],
    [message(99, pack(1)), 'command 99 7 data=01000000'],
  ])('%#', (bytes, text) => {
    expect(describeMessage(bytes)).toBe(text);
  });

  test('anything is decoded', () => {
    fc.assert(
      fc.property(fc.nat(20), fc.uint8Array({ maxLength: 80 }), fc.nat(200), (command, payload, cut) => {
        const bytes = message(command, payload).slice(0, cut);
        expect(typeof describeMessage(bytes)).toBe('string');
        expect(decode(bytes).data.length).toBeLessThanOrEqual(bytes.length);
      }),
    );
  });
});

describe('recordings', () => {
  test('what was recorded is read back', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            device: fc.nat(65_535),
            direction: fc.constantFrom(0 as const, 1 as const),
            twin: fc.boolean(),
            bytes: fc.uint8Array({ maxLength: 200 }),
            fds: fc.nat(16),
          }),
        ),
        (entries) => {
          const writer = new WireWriter(file);
          for (const { device, direction, twin, bytes, fds } of entries) writer.observer(device, direction, twin, bytes, fds);
          writer.close();
          const read = [...readWire(readFileSync(file))].map(({ device, fromServer, second, fds, message: of }) => ({
            ...{ device, direction: fromServer ? 1 : 0, twin: second, bytes: new Uint8Array(of), fds },
          }));
          expect(read).toEqual(entries);
        },
      ),
      { numRuns: 50 },
    );
  });
  test('larger than the buffer, and cut off anywhere: what is whole is read', () => {
    const writer = new WireWriter(file);
    for (let i = 0; i < 5; i++) writer.observer(0, 0, false, new Uint8Array(100_000).fill(i), 0);
    writer.close();
    const whole = readFileSync(file);
    expect([...readWire(whole)].map(({ message: of }) => of[99_999])).toEqual([0, 1, 2, 3, 4]);
    for (const cut of [16, 17, 40, 100_035, 100_036, 150_000, whole.length - 1])
      expect([...readWire(whole.subarray(0, cut))].length).toBe(Math.min(Math.floor((cut - 16) / 100_020), 4));
  });
  test('other files are refused', () => {
    writeFileSync(file, 'SIOVWIRE\x09       ');
    expect(() => [...readWire(readFileSync(file))]).toThrow(WireFormatError);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(() => [...readWire(bytes)]).toThrow(/no recording/);
      }),
    );
  });
});
