import { DmaAccess } from '@siov/layout/pcie';
import { describe, expect, test } from 'vitest';
import { gnrD, sprDsa } from '../src/index.js';
import {
  Command,
  CommandStatus,
  EVENT_INFORMATION_WORD,
  EventError,
  EventInformation,
  EventLogEntry,
  Flag,
  Opcode,
  Register,
  Status,
  SwError,
} from '../src/spec/index.js';
import { machine } from './machine.js';

type Machine = ReturnType<typeof machine>;
const LOG = 0x8_0000;
const ABSENT = 0x5_0000;
const SIZE = 64;
/** A log of 64 entries, and a device that uses it; `pasid` -1: its writes carry none. */
const logged = (options: { profile?: typeof gnrD; pasid?: number; base?: number; interrupt?: boolean } = {}): Machine => {
  const m = machine({ profile: options.profile ?? gnrD });
  const pasid = options.pasid ?? -1;
  m.write(Register.eventLogCfg, (options.base ?? LOG) | (pasid >= 0 ? 3 : 0));
  m.write(Register.eventLogCfg + 8, SIZE | ((Math.max(pasid, 0) & 0xffff) << 16));
  m.write(Register.eventLogCfg + 12, Math.max(pasid, 0) >>> 16);
  m.write(Register.genCfg, 1 << 13);
  m.write(Register.genCtrl, options.interrupt === false ? 1 : 5);
  m.write(0x2000, 0xfee0_0000);
  m.write(0x200c, 0);
  m.start({ pasid: 5 });
  m.absent.add(ABSENT >>> 12);
  return m;
};
/** An error without a record. */
const bad = (m: Machine): void => {
  m.submit(m.descriptor(0xee, { flags: 0 }));
  m.run();
};
const entry = (m: Machine, n = 0) => EventLogEntry.json(m.words, LOG / 4 + n * 16);
const information = (m: Machine, n = 0) => EventInformation.json(m.words, LOG / 4 + n * 16 + EVENT_INFORMATION_WORD);
const tail = (m: Machine): number => m.read(Register.eventLogSts + 4) & 0xffff;
const swError = (m: Machine) =>
  SwError.json(
    Uint32Array.from({ length: 8 }, (_, i) => m.read(Register.swError + i * 4)),
    0,
  );

describe('an error of a descriptor', () => {
  test('is in the log instead of SWERROR', () => {
    const m = logged();
    bad(m);
    expect(entry(m)).toMatchObject({
      error: Status.unsupportedOperation,
      descriptorValid: 1,
      wqValid: 1,
      wq: 0,
      operation: 0xee,
      pasid: 5,
      batch: 0,
    });
    expect([tail(m), swError(m).valid]).toEqual([1, 0]);
  });
  test('that has more to say: the invalid flags, the handle', () => {
    const m = logged();
    m.submit(m.descriptor(Opcode.nop, { flags: Flag.cacheControl }));
    m.submit(m.descriptor(Opcode.nop, { flags: Flag.requestInterrupt, interruptHandle: 7 }));
    m.run();
    expect(entry(m, 0)).toMatchObject({ error: Status.invalidFlags, information: Flag.cacheControl, errorInfoValid: 1 });
    expect(entry(m, 1)).toMatchObject({ error: Status.interruptHandle, errorInfoValid: 1 });
    expect(information(m, 1)).toMatchObject({ interruptHandle: 7, interruptRequested: 1, ims: 0, recordRequested: 0 });
  });
  test('whose record has no page: error 0x1a, the address of the record, and the record itself for software to deliver', () => {
    const m = logged();
    m.submit(m.descriptor(Opcode.crc, { sourceLow: 0x1_0000, size: 5000, recordLow: ABSENT + 0x40 }));
    m.absent.add(0x11);
    m.run();
    expect(entry(m)).toMatchObject({
      error: Status.recordFault,
      write: 1,
      operation: Opcode.crc,
      addressLow: ABSENT + 0x40,
      addressHigh: 0,
      errorInfoValid: 1,
    });
    expect(information(m)).toMatchObject({ interruptRequested: 0, recordRequested: 1 });
    const record = m.record(LOG + 32);
    expect(record).toMatchObject({ status: 'pageFault', completed: 4096, faultLow: 0x1_1000 });
    // The same as where there is a page.
    m.submit(m.descriptor(Opcode.crc, { sourceLow: 0x1_0000, size: 5000, recordLow: 0x200 }));
    m.run();
    expect(m.record(0x200)).toEqual(record);
  });
  test('in a batch has its place there', () => {
    const m = logged();
    m.words.set(m.descriptor(Opcode.nop), 0x1000 / 4);
    m.words.set(m.descriptor(Opcode.nop, { recordLow: ABSENT }), 0x1040 / 4);
    m.submit(m.descriptor(Opcode.batch, { sourceLow: 0x1000, size: 2, recordLow: 0x200 }));
    m.run();
    expect(entry(m)).toMatchObject({ error: Status.recordFault, batch: 1, batchIndex: 1 });
  });
});

describe('records that follow others into the log', () => {
  /** A batch of three in queue 0; the records of `absent` members have no page. */
  const batch = (m: Machine, absent: readonly number[], fence = 0): void => {
    for (let i = 0; i < 3; i++) {
      const recordLow = absent.includes(i) ? ABSENT + i * 32 : 0x300 + i * 32;
      const flags = Flag.recordAddressValid | Flag.requestRecord | (i === 2 ? fence : 0);
      m.words.set(m.descriptor(Opcode.nop, { recordLow, flags }), (0x1000 + i * 64) / 4);
    }
    m.submit(m.descriptor(Opcode.batch, { sourceLow: 0x1000, size: 3, recordLow: 0x200 }));
    m.run();
  };
  test('a batch’s is behind those of its members, under one identifier, and is written nowhere else', () => {
    const m = logged();
    batch(m, [0, 1]);
    expect([tail(m), m.record(0x200).status]).toEqual([3, 'none']);
    expect([0, 1, 2].map((n) => [entry(m, n).error, entry(m, n).batch, entry(m, n).batchIndex])).toEqual([
      [Status.recordFault, 1, 0],
      [Status.recordFault, 1, 1],
      [EventError.batch, 0, 0],
    ]);
    expect(new Set([0, 1, 2].map((n) => entry(m, n).batchId)).size).toBe(1);
    expect([0, 1, 2].map((n) => information(m, n).firstErrorInBatch)).toEqual([1, 0, 0]);
    expect(entry(m, 2)).toMatchObject({ addressLow: 0x200, write: 1, errorInfoValid: 1 });
    expect(m.record(LOG + 2 * 64 + 32)).toMatchObject({ status: 'success', completed: 3 });
    batch(m, [0]);
    expect(entry(m, 3).batchId).not.toBe(entry(m, 2).batchId);
  });
  test('a batch of which all records were written has its own written', () => {
    const m = logged();
    batch(m, []);
    expect([tail(m), m.record(0x200).status]).toEqual([0, 'success']);
  });
  test.each([
    [true, 'success', 3, 0],
    [false, 'batchFail', 2, 1],
  ])('a fence behind such a member, on a device that continues batches: %s', (batchContinuation, status, completed, result) => {
    const m = logged({ profile: { ...gnrD, batchContinuation } });
    batch(m, [0], Flag.fence);
    expect(m.record(LOG + 64 + 32)).toMatchObject({ status, completed, result });
  });
  test.each([true, false])('without a fence such a member is no failure, on a device that continues batches: %s', (batchContinuation) => {
    const m = logged({ profile: { ...gnrD, batchContinuation } });
    batch(m, [0, 1]);
    expect(m.record(LOG + 2 * 64 + 32)).toMatchObject({ status: 'success', completed: 3, result: 0 });
  });
  test('a drain’s is behind those of its PASID and queue; the next drain’s is written', () => {
    const m = logged();
    m.submit(m.descriptor(Opcode.nop, { recordLow: ABSENT }));
    m.submit(m.descriptor(Opcode.drain, { recordLow: 0x200 }));
    m.submit(m.descriptor(Opcode.drain, { recordLow: 0x220 }));
    m.run();
    expect([entry(m, 0).error, entry(m, 1).error, tail(m)]).toEqual([Status.recordFault, EventError.drain, 2]);
    expect([m.record(0x200).status, m.record(LOG + 64 + 32).status, m.record(0x220).status]).toEqual(['none', 'success', 'success']);
  });
  test('without a log a member whose record is lost fails its batch', () => {
    const m = machine();
    m.start({ pasid: 5 });
    m.absent.add(ABSENT >>> 12);
    batch(m, [1]);
    expect(m.record(0x200)).toMatchObject({ status: 'batchFail', completed: 3 });
    expect(swError(m)).toMatchObject({ valid: 1, error: Status.recordFault, batch: 1, batchIndex: 1 });
  });
});

describe('the ring', () => {
  test('wraps; when the head is next the error goes to SWERROR, and the one after it sets overflow', () => {
    const m = logged();
    for (let i = 0; i < SIZE - 1; i++) bad(m);
    expect([tail(m), swError(m).valid]).toEqual([SIZE - 1, 0]);
    bad(m);
    expect([tail(m), swError(m)]).toMatchObject([SIZE - 1, { valid: 1, overflow: 0, error: Status.unsupportedOperation }]);
    bad(m);
    expect(swError(m).overflow).toBe(1);
    m.write(Register.eventLogSts, 10);
    bad(m);
    bad(m);
    expect([tail(m), m.read(Register.eventLogSts) & 0xffff]).toEqual([1, 10]);
    expect(m.bytes.subarray(LOG + SIZE * 64, LOG + SIZE * 64 + 4096).every((b) => b === 0)).toBe(true);
  });
  test.each([
    ['the PASID and privilege of EVLCFG', 0x9_1234, DmaAccess.write | DmaAccess.privileged],
    ['no PASID', -1, DmaAccess.write],
  ])('is written with %s', (_rule, pasid, access) => {
    const m = logged({ pasid });
    m.seen.length = 0;
    bad(m);
    expect(m.seen).toEqual([{ pasid, access }]);
  });
  test('that is not in memory leaves the error to SWERROR', () => {
    const m = logged({ base: 0x4000_0000 });
    bad(m);
    expect([tail(m), swError(m).error]).toEqual([0, Status.unsupportedOperation]);
  });
  test('is configured while the device is disabled, with at least 64 entries', () => {
    const m = logged();
    m.write(Register.eventLogCfg + 8, 0xffff);
    expect(m.read(Register.eventLogCfg + 8)).toBe(SIZE);
    expect(m.command(Command.disableDevice)).toBe(0);
    m.write(Register.eventLogCfg + 8, SIZE - 1);
    expect(m.command(Command.enableDevice)).toBe(CommandStatus.configuration);
    m.write(Register.eventLogCfg + 8, SIZE);
    expect(m.command(Command.enableDevice)).toBe(CommandStatus.success);
  });
});

describe('the interrupt', () => {
  test('is cause 5 on vector 0, once until software clears the pending bit', () => {
    const m = logged();
    m.messages.length = 0;
    bad(m);
    bad(m);
    expect([m.read(Register.intCause), m.messages.length, m.read(Register.eventLogSts + 4)]).toEqual([1 << 5, 1, 0x4000_0002]);
    m.write(Register.eventLogSts + 4, 0x4000_0000);
    expect(m.read(Register.eventLogSts + 4)).toBe(2);
    bad(m);
    expect(m.messages.length).toBe(2);
  });
  test('stays away without GENCTRL bit 2', () => {
    const m = logged({ interrupt: false });
    m.messages.length = 0;
    bad(m);
    expect([m.read(Register.intCause), m.messages.length, tail(m)]).toEqual([0, 0, 1]);
  });
});

test('a device without an event log ignores that software asks for one', () => {
  const m = logged({ profile: sprDsa });
  bad(m);
  expect([tail(m), swError(m).error, m.words[LOG / 4]]).toEqual([0, Status.unsupportedOperation, 0]);
});
