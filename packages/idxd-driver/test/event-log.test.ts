/** The event log's service: what becomes of errors and of completion records that had no page. Linux drivers/dma/idxd/irq.c, process_evl_entries. */
import { gnrD } from '@siov/idxd-device';
import { EventLogCfg, Flag, GenCfg, GenCtrl, Opcode, Record, Register, Status } from '@siov/idxd-device/spec';
import { hi, lo } from '@siov/layout';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { machine, openPortal, sysfsOf } from './machine.js';

const ANONYMOUS = MapFlag.PRIVATE | MapFlag.ANONYMOUS;
const both = {
  wqs: [
    { mode: 'dedicated', size: 16, group: 0, name: 'd' },
    { mode: 'shared', size: 16, group: 0, name: 's' },
  ],
} as const;
/** A process with a queue of a device that has an event log; its records lie in memory that nobody touched. */
function world(mode: 'dedicated' | 'shared', profile = gnrD) {
  const m = machine({ profile, config: both });
  const { path } = m.node(m.driver.wqs[mode === 'dedicated' ? 0 : 1]);
  const t = m.task();
  const { fd, portal } = openPortal(t, path);
  const arena = t.alloc(4096);
  const records = t.mmap(0, 16 * 4096, Prot.READ | Prot.WRITE, ANONYMOUS);
  let slot = 0;
  const submit = (opcode: number, fields: { record?: number; flags?: number; source?: number; size?: number }): void => {
    const at = arena + (slot++ % 64) * 64;
    const { record = 0, source = 0 } = fields;
    const flags = fields.flags ?? Flag.recordAddressValid | Flag.requestRecord;
    t.writeStruct(
      at,
      Uint32Array.of(0, (opcode << 24) | flags, lo(record), hi(record), lo(source), hi(source), 0, 0, fields.size ?? 0, 0, 0, 0, 0, 0, 0, 0),
    );
    if (mode === 'dedicated') t.movdir64b(hi(portal), lo(portal), hi(at), lo(at));
    else expect(t.enqcmd(hi(portal), lo(portal), hi(at), lo(at))).toBe(0);
  };
  const record = (at: number) => {
    const bytes = new Uint8Array(32);
    expect(t.copyIn(at, bytes)).toBe(0);
    return Record.json(new Uint32Array(bytes.buffer), 0);
  };
  const s = sysfsOf(m);
  const file = (name: string) => s.get(`wq0.${mode === 'dedicated' ? 0 : 1}/file0/${name}`);
  return { ...m, ...s, t, fd, portal, records, submit, record, file };
}

describe.each(['dedicated', 'shared'] as const)('a %s queue', (mode) => {
  test('a completion record whose page is not there arrives all the same, through the process’s page tables', () => {
    const m = world(mode);
    for (let i = 0; i < 16; i++) m.submit(Opcode.nop, { record: m.records + i * 4096 + 64 });
    m.run();
    for (let i = 0; i < 16; i++) expect(m.record(m.records + i * 4096 + 64)).toMatchObject({ status: 'success' });
    expect([m.file('cr_faults'), m.file('cr_fault_failures'), m.file('pid'), m.driver.softwareErrors.length]).toEqual(['16', '0', `${m.t.pid}`, 0]);
  });
  test('more of them than the log has room for at a time: none is lost while the driver keeps up', () => {
    const m = world(mode);
    for (let i = 0; i < 200; i++) {
      m.submit(Opcode.nop, { record: m.records + (i % 16) * 4096 });
      m.run();
      expect(m.record(m.records + (i % 16) * 4096).status).toBe('success');
      m.t.munmap(m.records + (i % 16) * 4096, 4096);
      m.t.mmap(m.records + (i % 16) * 4096, 4096, Prot.READ | Prot.WRITE, ANONYMOUS | MapFlag.FIXED);
    }
    expect(m.file('cr_faults')).toBe('200');
  });
  test('a batch’s and a drain’s arrive behind those of the members', () => {
    const m = world(mode);
    const list = m.t.alloc(4096);
    for (let i = 0; i < 4; i++) {
      const at = m.records + (i + 1) * 4096;
      m.t.writeStruct(
        list + i * 64,
        Uint32Array.of(0, Flag.recordAddressValid | Flag.requestRecord, lo(at), hi(at), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
      );
    }
    m.submit(Opcode.batch, { record: m.records, source: list, size: 4 });
    m.submit(Opcode.drain, { record: m.records + 5 * 4096 });
    m.run();
    for (let i = 0; i < 6; i++) expect([i, m.record(m.records + i * 4096).status]).toEqual([i, 'success']);
    expect(m.record(m.records).completed).toBe(4);
  });
  test('a batch of which a member’s record cannot be delivered says so: failed, with a result of 1', () => {
    const m = world(mode);
    const list = m.t.alloc(4096);
    for (let i = 0; i < 2; i++) {
      const at = i === 0 ? 0x7000_0000_0000 : m.records + 4096;
      m.t.writeStruct(
        list + i * 64,
        Uint32Array.of(0, Flag.recordAddressValid | Flag.requestRecord, lo(at), hi(at), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
      );
    }
    m.submit(Opcode.batch, { record: m.records, source: list, size: 2 });
    m.run();
    expect(m.record(m.records)).toMatchObject({ status: 'batchFail', result: 1, completed: 2 });
    expect(m.record(m.records + 4096).status).toBe('success');
  });
  test('one that the process may not write to is counted, and writes nothing', () => {
    const m = world(mode);
    m.t.mprotect(m.records, 4096, Prot.READ);
    m.submit(Opcode.nop, { record: m.records });
    m.submit(Opcode.nop, { record: 0x7000_0000_0000 });
    m.run();
    expect([m.record(m.records).status, m.file('cr_faults'), m.file('cr_fault_failures')]).toEqual(['none', '2', '2']);
  });
  test('close delivers what is still in the log, then the file and its counters are gone', () => {
    const m = world(mode);
    m.submit(Opcode.nop, { record: m.records });
    m.t.munmap(m.portal, 4096);
    m.t.close(m.fd);
    expect([m.record(m.records).status, m.file('cr_faults')]).toEqual(['success', -Errno.ENOENT]);
  });
  test('an error without a record is reported with its PASID, like SWERROR', () => {
    const m = world(mode);
    m.submit(0x7f, { flags: 0 });
    m.submit(Opcode.nop, { flags: Flag.cacheControl });
    m.run();
    expect(m.driver.softwareErrors).toMatchObject([
      { valid: 1, error: Status.unsupportedOperation, operation: 0x7f, pasid: m.t.mm.pasid, wq: mode === 'dedicated' ? 0 : 1 },
      { valid: 1, error: Status.invalidFlags, invalidFlags: Flag.cacheControl },
    ]);
  });
});

describe('the log', () => {
  const registers = (m: ReturnType<typeof machine>) => {
    const { mmio } = m.pci.bars.get(0)!;
    const word = (offset: number) => Uint32Array.of(mmio.read(offset, 4));
    return {
      size: EventLogCfg.get.size(Uint32Array.of(0, 0, mmio.read(Register.eventLogCfg + 8, 4)), 0),
      enabled: GenCfg.get.eventLog(word(Register.genCfg), 0),
      interrupt: GenCtrl.get.eventLogInterrupt(word(Register.genCtrl), 0),
    };
  };
  test('is as large as event_log_size says while the device is enabled, and taken out when it is disabled', () => {
    const m = machine({ profile: gnrD, config: undefined });
    const s = sysfsOf(m);
    expect([s.set('dsa0/event_log_size', 63), s.set('dsa0/event_log_size', 100)]).toEqual([-Errno.EINVAL, 0]);
    m.driver.configure(both);
    expect(registers(m)).toEqual({ size: 100, enabled: 1, interrupt: 1 });
    m.driver.disable();
    expect(registers(m)).toEqual({ size: 0, enabled: 0, interrupt: 0 });
  });
  test('is set up anew when a halted device is brought back', () => {
    const m = world('dedicated');
    m.device.injectHalt('functionLevel');
    m.run();
    expect(registers(m)).toEqual({ size: 64, enabled: 1, interrupt: 1 });
    m.submit(Opcode.nop, { record: m.records });
    m.run();
    expect(m.record(m.records).status).toBe('success');
  });
  test('stays out where the kernel has no DMA for it: the error is in SWERROR', () => {
    const m = machine({ profile: gnrD, config: undefined });
    Object.assign(m.iommu, { dma: () => undefined });
    m.driver.configure(both);
    expect(registers(m)).toEqual({ size: 0, enabled: 0, interrupt: 0 });
  });
});
