import { describe, expect, test } from 'vitest';
import { parseDmatest, parseLspci, parseSaid, troubleIn, withoutTime } from '../src/report.js';

describe('lines of the second serial line', () => {
  test.each([
    ['dmesg\t[    1.0] a\tb', { name: 'dmesg', text: '[    1.0] a\tb' }],
    ['?\thalt flr\r', { name: '?', text: 'halt flr' }],
    ['end', { name: 'end', text: '' }],
    ['list\t', { name: 'list', text: '' }],
  ])('%j', (line, said) => {
    expect(parseSaid(line)).toEqual(said);
  });
});

test("dmatest's summaries, as Linux 7.3 printed them; other lines of it are none", () => {
  const lines = [
    '[    2.944285] dmatest: Added 2 threads using dma0chan0',
    "[   27.461211] dmatest: dma0chan0-copy0: result #100: 'prep error' with src_off=0x1678 dst_off=0x116b len=0x2565 (0)",
    '[    3.076182] dmatest: dma0chan0-copy1: summary 100 tests, 0 failures 1202.03 iops 10012 KB/s (0)',
    '[   27.462344] dmatest: dma1chan3-copy0: summary 100 tests, 100 failures 9.62 iops 83 KB/s (-110)',
  ];
  expect(parseDmatest(lines)).toEqual([
    { channel: 'dma0chan0', tests: 100, failures: 0, iops: 1202.03, status: 0 },
    { channel: 'dma1chan3', tests: 100, failures: 100, iops: 9.62, status: -110 },
  ]);
});

test("a kernel's complaints are found, and only they", () => {
  const bad = [
    '[   27.824312] WARNING: fs/proc/generic.c:748 at remove_proc_entry+0x193/0x1d0, CPU#0: kworker/0:0/9',
    '[    7.445642] BUG: kernel NULL pointer dereference, address: 0000000000000484',
    '[    7.446445] Oops: Oops: 0000 [#1] SMP NOPTI',
    '[    7.449171] Call Trace:',
    '[    7.454569] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009',
    '[    3.000000] DMAR: [DMA Write NO_PASID] Request device [00:10.0] fault addr 0x1000 [fault reason 0x05] PTE Write access is not set',
    '[  242.000000] INFO: task kworker/0:1:9 blocked for more than 120 seconds.',
  ];
  const good = [
    '[    1.135073] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug',
    '[    0.500000] Freeing unused kernel image (initmem) memory: 4664K',
    '[    2.573410] x86/mm: Checked W+X mappings: passed, no W+X pages found.',
    '[    3.029246] idxd 0000:00:10.0: err[0]: 0x0000000000001a01',
    '[    5.535375] idxd 0000:00:10.0: Device is HALTED!',
  ];
  expect(troubleIn([...good, ...bad, ...good])).toEqual(bad);
});

test('a time stamp goes, whatever its width', () => {
  expect(withoutTime('[12345.654321] idxd: x')).toBe('idxd: x');
  expect(withoutTime('[    1.135073] [x] y')).toBe('[x] y');
  expect(withoutTime('no stamp')).toBe('no stamp');
});

test("lspci's devices with their lines", () => {
  const text = `0000:00:00.0 0600: 8086:29c0
\tSubsystem: 1af4:1100

0000:00:10.0 0880: 8086:0b25
\tRegion 0: Memory at fe000000 (64-bit, prefetchable) [size=64K]
\tCapabilities: [40] MSI-X: Enable- Count=9 Masked-
\t\tVector table: BAR=0 offset=00002000`;
  expect([...parseLspci(text.split('\n'))]).toEqual([
    ['0000:00:00.0', ['0600: 8086:29c0', 'Subsystem: 1af4:1100']],
    [
      '0000:00:10.0',
      [
        '0880: 8086:0b25',
        'Region 0: Memory at fe000000 (64-bit, prefetchable) [size=64K]',
        'Capabilities: [40] MSI-X: Enable- Count=9 Masked-',
        'Vector table: BAR=0 offset=00002000',
      ],
    ],
  ]);
});
