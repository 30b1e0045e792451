/** Queues of the kernel as DMA channels. Linux drivers/dma/idxd/dma.c, irq.c. */
import { gnrD } from '@siov/idxd-device';
import { Command, Status } from '@siov/idxd-device/spec';
import { Errno } from '@siov/layout/uapi';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CoherentMemory, commandText, type DmaChannel, type DmaResult, SoftStatus } from '../src/index.js';
import { type MachineOptions, machine, sysfsOf } from './machine.js';

type Done = readonly [result: DmaResult, status: number, residue: number];
/** A kernel queue, set up by the steps that an administrator takes, and memory for it. */
function kernel(options: MachineOptions & { mode?: 'dedicated' | 'shared' } = {}) {
  const m = machine({ ...options, config: undefined });
  const { set, get, bind, unbind } = sysfsOf(m);
  const mode = options.mode ?? 'dedicated';
  const setUp = (): number[] => [
    set('engine0.0/group_id', 0),
    set('wq0.0/group_id', 0),
    set('wq0.0/mode', mode),
    set('wq0.0/size', 16),
    ...(mode === 'shared' ? [set('wq0.0/threshold', 16)] : []),
    set('wq0.0/priority', 10),
    set('wq0.0/type', 'kernel'),
    set('wq0.0/name', 'copy'),
    set('wq0.0/driver_name', 'dmaengine'),
    bind('idxd', 'dsa0'),
    bind('dmaengine', 'wq0.0'),
  ];
  const steps = setUp();
  const channel = (): DmaChannel => m.driver.wqs[0]!.channel!;
  const memory = (bytes: number): CoherentMemory => m.driver.dma!.alloc(bytes)!;
  const done: Done[] = [];
  const note = (...one: Done): void => void done.push(one);
  return { ...m, set, get, bind, unbind, setUp, steps, channel, memory, done, note };
}
const bytesOf = (memory: CoherentMemory): Uint8Array => new Uint8Array(memory.words.buffer, memory.words.byteOffset, memory.words.byteLength);

describe.each(['dedicated', 'shared'] as const)('a %s queue bound to dmaengine', (mode) => {
  test('copies between any addresses of its space, calls back by interrupt, out of order or not, as often as asked', () => {
    const m = kernel({ mode });
    expect(m.steps.every((error) => error === 0)).toBe(true);
    const from = m.memory(65536);
    const to = m.memory(65536);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4000), fc.integer({ min: 1, max: 4000 })), { minLength: 1, maxLength: 16 }), (copies) => {
        const [source, target] = [bytesOf(from), bytesOf(to)];
        for (let i = 0; i < source.length; i++) source[i] = (Math.imul(i + copies.length, 0x9e37_79b1) >>> 24) & 0xff;
        target.fill(0);
        m.done.length = 0;
        for (const [i, [at, n]] of copies.entries()) expect(m.channel().memcpy(to.iova + i * 4096, from.iova + at, n, m.note)).toBe(0);
        expect(m.channel().pending).toBe(copies.length);
        m.run();
        expect(m.done).toEqual(copies.map(() => ['success', Status.success, 0]));
        for (const [i, [at, n]] of copies.entries())
          expect(Buffer.compare(target.subarray(i * 4096, i * 4096 + n), source.subarray(at, at + n))).toBe(0);
      }),
      { numRuns: 20 },
    );
    expect(m.channel().interrupt(m.note)).toBe(0);
    expect([m.channel().synchronize(), m.channel().pending]).toEqual([true, 0]);
  });
  test('takes as many as it has entries, and then says EAGAIN; a length that the queue does not take is EINVAL', () => {
    const m = kernel({ mode });
    const memory = m.memory(8192);
    const copy = (n = 64): number => m.channel().memcpy(memory.iova + 4096, memory.iova, n, m.note);
    expect([copy(0), copy(2 ** 22)]).toEqual([-Errno.EINVAL, -Errno.EINVAL]);
    for (let i = 0; i < 16; i++) expect(copy()).toBe(0);
    expect(copy()).toBe(-Errno.EAGAIN);
    m.run();
    expect([copy(), m.done.length]).toEqual([0, 16]);
  });
  test('a copy that faults ends with the status and what is left of it', () => {
    const m = kernel({ mode });
    const above = m.memory(4096);
    const memory = m.memory(4096);
    expect(above.iova).toBe(memory.iova + 4096);
    above.free();
    m.channel().memcpy(memory.iova, memory.iova + 4000, 200, m.note);
    m.run();
    expect(m.done).toEqual([['error', Status.pageFault, 104]]);
  });
  test('unbinding drains: what was submitted is done; then the queue is off and can be bound again', () => {
    const m = kernel({ mode });
    const memory = m.memory(8192);
    const channel = m.channel();
    bytesOf(memory)[0] = 9;
    channel.memcpy(memory.iova + 4096, memory.iova, 64, m.note);
    expect(m.unbind('dmaengine', 'wq0.0')).toBe(0);
    expect([m.done, bytesOf(memory)[4096], channel.memcpy(memory.iova, memory.iova, 64)]).toEqual([[['success', 1, 0]], 9, -Errno.ENXIO]);
    m.unbind('idxd', 'dsa0');
    expect(m.setUp().every((error) => error === 0)).toBe(true);
    expect(m.channel().interrupt(m.note)).toBe(0);
    m.run();
    expect(m.done.length).toBe(2);
  });
});

test('without an address space for the function, binding is refused and cmd_status says why', () => {
  const m = machine({ config: undefined });
  Object.assign(m.iommu, { dma: () => undefined });
  const { set, bind } = sysfsOf(m);
  for (const [name, value] of Object.entries({
    group_id: 0,
    mode: 'dedicated',
    size: 16,
    priority: 1,
    type: 'kernel',
    name: 'k',
    driver_name: 'dmaengine',
  }))
    set(`wq0.0/${name}`, value);
  set('engine0.0/group_id', 0);
  expect([bind('idxd', 'dsa0'), bind('dmaengine', 'wq0.0'), commandText(m.driver.commandStatus)]).toEqual([0, -Errno.EOPNOTSUPP, 'deviceDma']);
  expect(SoftStatus.deviceDma).toBe(0x8002_0000);
});

describe('interrupt handles that the device revokes', () => {
  test('are requested again, and what ended with 0x19 is submitted again with the new ones: every copy is done once', () => {
    const m = kernel({ profile: gnrD });
    const memory = m.memory(16 * 4096);
    for (let i = 0; i < 8; i++) m.channel().memcpy(memory.iova + i * 64 + 4096, memory.iova, 64, m.note);
    m.device.revokeHandles();
    m.run();
    expect(m.done).toEqual(Array.from({ length: 8 }, () => ['success', Status.success, 0]));
    expect(m.channel().resubmitted).toBeGreaterThan(0);
    m.channel().memcpy(memory.iova + 4096, memory.iova, 64, m.note);
    m.run();
    expect(m.done.length).toBe(9);
  });
  test('and cannot be had again: what ended with 0x19 is an error, and the channel takes nothing more', () => {
    const m = kernel({ profile: { ...gnrD, interruptHandles: 1 } });
    const memory = m.memory(8192);
    m.channel().memcpy(memory.iova + 4096, memory.iova, 64, m.note);
    m.device.revokeHandles();
    // Somebody else was faster.
    m.pci.bars.get(0)!.mmio.write(0xa0, 4, (Command.requestInterruptHandle << 20) | 5);
    m.run();
    expect(m.done).toEqual([['error', Status.interruptHandle, 64]]);
    expect(m.channel().memcpy(memory.iova + 4096, memory.iova, 64)).toBe(-Errno.ENXIO);
  });
  test('while a command is in progress: that ends first', () => {
    const m = kernel({ profile: gnrD });
    m.device.revokeHandles();
    expect(m.driver.drainWq(m.driver.wqs[0]!)).toBe(0);
    m.run();
    m.channel().interrupt(m.note);
    m.run();
    expect(m.done).toEqual([['success', Status.success, 0]]);
  });
});

describe('a device that halts by itself', () => {
  test.each(['software', 'functionLevel'] as const)(
    'and asks for a %s reset is brought back: what was under way is aborted, the next copy works',
    (reset) => {
      const m = kernel({ profile: gnrD });
      const memory = m.memory(8192);
      m.channel().memcpy(memory.iova + 4096, memory.iova, 64, m.note);
      m.device.injectHalt(reset);
      m.run();
      expect([m.done, m.get('dsa0/state'), m.get('wq0.0/state')]).toEqual([[['aborted', 0, 64]], 'enabled', 'enabled']);
      m.channel().memcpy(memory.iova + 4096, memory.iova, 64, m.note);
      m.run();
      expect(m.done.at(-1)).toEqual(['success', Status.success, 0]);
    },
  );
  test.each(['warm', 'cold'] as const)('and asks for a %s reset stays halted', (reset) => {
    const m = kernel();
    m.device.injectHalt(reset);
    m.run();
    expect(m.get('dsa0/state')).toBe('halted');
  });
});
