/** The driver and the client on an analytics accelerator: names, attributes, nodes, configurations, and each operation by its own words. */
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';
import { iax2, sprIax } from '@siov/idxd-device/iax';
import { Crc64Flag, DECOMPRESS_AECS_BYTES, DecompressFlag, IaxOpcode } from '@siov/idxd-device/spec';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { Client } from '../src/client.js';
import { filterAecs, fixedAecs, IaxClient } from '../src/client-iax.js';
import { applyConfig, loadConfig, saveConfig } from '../src/index.js';
import { machine, openPortal, sysfsOf } from './machine.js';

describe('in sysfs', () => {
  test('it is iaxN on the bus dsa, and hides what it has not', () => {
    const m = machine({ profile: sprIax, config: undefined });
    expect(m.probed).toBe(0);
    const { sysfs, get } = sysfsOf(m);
    expect(sysfs.list('/sys/bus/dsa/devices')).toContain('iax0');
    expect(get('iax0/op_cap')).toBe('00000000,00000000,00000000,00000000,00000000,007f331c,00000000,0000000d');
    expect(get('iax0/gen_cap')).toBe('0x71f10901f0105');
    expect(get('iax0/max_engines')).toBe('8');
    const hidden = ['max_batch_size', 'max_read_buffers', 'max_tokens', 'read_buffer_limit', 'token_limit', 'iaa_cap', 'event_log_size'];
    expect(sysfs.list('/sys/bus/dsa/devices/iax0').filter((name) => hidden.includes(name))).toEqual([]);
    expect(sysfs.list('/sys/bus/dsa/devices/wq0.0')).not.toContain('max_batch_size');
    expect(sysfs.list('/sys/bus/dsa/devices/group0.0').filter((name) => /buffer|token/.test(name))).toEqual([]);
  });
  test('2.0 has iaa_cap and an event log of its own size', () => {
    const m = machine({ profile: iax2, config: undefined });
    expect(sysfsOf(m).get('iax0/iaa_cap')).toBe('0x108');
    expect(m.driver.capabilities).toMatchObject({ type: 'iax', recordBytes: 64, eventBytes: 128 });
    const dsa = machine({ config: undefined });
    expect(dsa.driver.capabilities).toMatchObject({ type: 'dsa', recordBytes: 32, iaaCap: undefined });
  });
  test('accel-config files of it load, save and load again', () => {
    const m = machine({ profile: sprIax, config: undefined });
    const { sysfs, get } = sysfsOf(m);
    // accel-config, test/configs/2g2q_user_2.conf, of one device.
    const file = JSON.stringify([
      {
        dev: 'iax0',
        groups: [
          {
            dev: 'group0.0',
            grouped_workqueues: [
              {
                dev: 'wq0.1',
                mode: 'dedicated',
                size: 16,
                group_id: 0,
                priority: 10,
                block_on_fault: 1,
                type: 'user',
                driver_name: 'user',
                name: 'app1',
              },
            ],
            grouped_engines: [{ dev: 'engine0.0', group_id: 0 }],
          },
        ],
      },
    ]);
    const loaded = loadConfig(file);
    if ('why' in loaded) throw new Error(loaded.why);
    expect(applyConfig(sysfs, [...loaded.writes, ...loaded.enable])).toEqual({ error: 0, attribute: '' });
    expect([get('iax0/state'), get('wq0.1/state')]).toEqual(['enabled', 'enabled']);
    expect(m.task().open('/dev/iax/wq0.1', 2)).toBeGreaterThanOrEqual(0);
    const saved = saveConfig(sysfs);
    expect(saved).toContain('"iax0"');
    expect(saved).not.toMatch(/batch|buffer/);
    const again = loadConfig(saved);
    expect('writes' in again && again.enable.map(({ value }) => value)).toEqual(['iax0', 'wq0.1']);
    expect(loadConfig(file.replace('group0.0', 'group1.0'))).toMatchObject({ attribute: '[0].groups[0].dev', why: 'group1.0 is not of iax0' });
  });
});

describe.each(['dedicated', 'shared'] as const)('operations on a %s queue', (mode) => {
  const m = machine({ profile: iax2, config: { wqs: [{ mode, size: 16, group: 0 }] } });
  const { path } = m.node();
  const t = m.task();
  const { portal } = openPortal(t, path);
  const iax = new IaxClient(new Client(t, { address: portal, mode }, { depth: 4 }));
  const PAGE = 4096;
  const place = (bytes: Uint8Array): { address: number; bytes: number } => {
    const address = t.alloc(Math.ceil(bytes.length / PAGE) * PAGE);
    t.copyOut(address, bytes);
    return { address, bytes: bytes.length };
  };
  /** Pages that nobody touched. */
  const fresh = (pages: number) => ({
    address: t.mmap(0, pages * PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS),
    bytes: pages * PAGE,
  });
  const get = (address: number, n: number): Buffer => {
    const out = Buffer.alloc(n);
    expect(t.copyIn(address, out)).toBe(0);
    return out;
  };
  const run = () => iax.run(0, m.clock)!;
  const text = Uint8Array.from({ length: 30_000 }, (_, i) => 97 + ((i * i) % 17) + ((i >> 9) & 3));

  test('the path of its node', () => expect(path).toBe('/dev/iax/wq0.0'));
  test('compress onto pages that nobody touched: it is submitted again after each fault', () => {
    const to = fresh(16);
    const before = iax.client.resumes;
    iax.compress(0, to, place(text), place(fixedAecs()));
    const r = run();
    expect(r).toMatchObject({ operation: 'compress', ok: true, completed: 30_000, crc: crc32(text) });
    expect(iax.client.resumes).toBeGreaterThan(before);
    if (r.operation !== 'compress') return;
    expect(inflateRawSync(get(to.address, r.outputSize)).equals(text)).toBe(true);
  });
  test('decompress, in two descriptors with its state between them', () => {
    const stream = deflateRawSync(text, { windowBits: 12 });
    const to = place(new Uint8Array(40_000));
    const state = place(new Uint8Array(2 * DECOMPRESS_AECS_BYTES));
    const aecs = { address: state.address, bytes: DECOMPRESS_AECS_BYTES };
    const half = stream.length >> 1;
    const going = DecompressFlag.enable | DecompressFlag.flushOutput;
    iax.decompress(0, to, place(stream.subarray(0, half)), { ...aecs, read: false, write: true }, going);
    const first = run();
    expect(first).toMatchObject({ operation: 'decompress', ok: true, completed: half });
    if (first.operation !== 'decompress') return;
    const rest = { address: to.address + first.outputSize, bytes: 40_000 - first.outputSize };
    iax.decompress(0, rest, place(stream.subarray(half)), { ...aecs, second: true });
    expect(run()).toMatchObject({ ok: true, crc: crc32(text), outputSize: 30_000 - first.outputSize });
    expect(get(to.address, 30_000).equals(text)).toBe(true);
    iax.decompress(0, to, place(Uint8Array.of(7, 7, 7)));
    expect(run()).toMatchObject({ ok: false, status: 'analyticsError', error: 'blockType' });
  });
  test('filters, with bounds in AECS and with a second input', () => {
    const source = place(text);
    const to = place(new Uint8Array(40_000));
    iax.filter(0, 'scan', to, source, { elements: 30_000, width: 8, aecs: place(filterAecs(100, 103)) });
    const hits = text.filter((x) => x >= 100 && x <= 103).length;
    expect(run()).toMatchObject({ operation: 'scan', ok: true, sum: hits, outputSize: 3750 });
    const bits = { address: to.address, bytes: 3750 };
    const selected = place(new Uint8Array(30_000));
    iax.filter(0, 'select', selected, source, { elements: 30_000, width: 8, source2: bits });
    expect(run()).toMatchObject({ operation: 'select', outputSize: hits, min: 100, max: 103 });
    expect(get(selected.address, hits).equals(text.filter((x) => x >= 100 && x <= 103))).toBe(true);
    iax.filter(0, 'findUnique', to, source, { elements: 30_000, width: 8, dropLowBits: 1, outputWidth: 16 });
    expect(run()).toMatchObject({ ok: true, sum: new Set(text.map((x) => x >> 1)).size });
  });
  test('CRC-64, zero compression, and what the device refuses', () => {
    iax.crc64(0, place(new TextEncoder().encode('123456789')), { high: 0x42f0_e1eb, low: 0xa9ea_3693 }, Crc64Flag.bigEndian | Crc64Flag.invert);
    expect(run()).toMatchObject({ operation: 'crc64', ok: true, crcHigh: 0x995d_c9bb, crcLow: 0xdf19_39fa });
    const sparse = Uint8Array.from({ length: 9000 }, (_, i) => (i % 13 ? 0 : i));
    for (const width of [8, 16, 32] as const) {
      const [packed, back] = [fresh(4), fresh(4)];
      iax.zeroCompress(0, packed, place(sparse), width);
      const r = run();
      expect(r).toMatchObject({ operation: `zeroCompress${width}`, ok: true });
      iax.zeroDecompress(0, back, { address: packed.address, bytes: 'outputSize' in r ? r.outputSize : 0 }, width);
      expect(run()).toMatchObject({ ok: true, outputSize: 9000 });
      expect(get(back.address, 9000).equals(sparse)).toBe(true);
    }
    iax.client.prepare(0, IaxOpcode.nop, 0, 0, 0, 0, 0);
    iax.client.patch(0, 1, iax.client.word(0, 1) | 1);
    expect(run()).toMatchObject({ operation: 'nop', status: 'invalidFlags', invalidFlags: 1 });
  });
});
