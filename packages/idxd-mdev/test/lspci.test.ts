import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lspciDump } from '@siov/pci-core';
import { expect, test } from 'vitest';
import { opened } from './machine.js';

const lspci = spawnSync('lspci', ['--version']).status === 0;
if (!lspci) console.log('left out: the lspci oracle (no lspci on this machine; Debian package pciutils)');

test.skipIf(!lspci)("lspci reads the virtual device's configuration space by way of VFIO and complains of nothing", () => {
  const m = opened();
  const config = m.client.pread(m.fd, 4096, m.config).bytes;
  const file = join(mkdtempSync(join(tmpdir(), 'lspci-')), 'dump');
  writeFileSync(file, lspciDump([{ requesterId: 0x10, configRead: (offset) => config[offset]! }]));
  const { stdout, stderr, status } = spawnSync('lspci', ['-F', file, '-vvv', '-n'], { encoding: 'utf8' });
  // libkmod speaks of this machine's modules, not of the dump.
  expect([status, stderr.replace(/^lspci: .*libkmod.*\n/gm, '')]).toEqual([0, '']);
  for (const line of [
    '0880: 8086:0b25',
    'Subsystem: 8086:2010',
    'MSI-X: Enable- Count=2',
    'Vector table: BAR=0 offset=00000600',
    'PBA: BAR=0 offset=00000700',
    'Root Complex Integrated Endpoint',
    'Address Translation Service',
    'Page Request Interface',
    'Process Address Space ID',
    'Designated Vendor-Specific: Vendor=8086 ID=0005',
  ])
    expect(stdout).toContain(line);
  expect(stdout).not.toMatch(/<.*(chain|access denied|unreadable|\?\?).*>/i);
});
