/** Intel ISA-L as an oracle for the two CRCs: a small C program reads seeds and bytes and prints what the library makes of them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { gnrD } from '../src/index.js';
import { DIF_BLOCKS, DifFlag, DifUpdateDescriptor, Flag, Opcode } from '../src/spec/index.js';
import { machine } from './machine.js';

const why =
  spawnSync('gcc', ['--version']).status !== 0
    ? 'no gcc on this machine (Debian package gcc)'
    : existsSync('/usr/include/isa-l.h')
      ? ''
      : 'no isa-l.h (Debian package libisal-dev)';
if (why) console.log(`left out: CRC-32C and CRC-16 T10-DIF against ISA-L (${why})`);

const program = `#include <isa-l.h>
#include <stdint.h>
#include <stdio.h>
static uint8_t bytes[1 << 20];
int main(void) {
  uint32_t head[2]; /* seed, length */
  while (fread(head, sizeof head, 1, stdin) == 1) {
    if (fread(bytes, 1, head[1], stdin) != head[1]) return 1;
    /* The library's CRC-32C is the bare register: inverted before and after here. */
    printf("%u %u\\n", ~crc32_iscsi(bytes, (int)head[1], ~head[0]), (unsigned)crc16_t10dif((uint16_t)head[0], bytes, head[1]));
  }
  return 0;
}
`;
interface Case {
  readonly seed: number;
  readonly bytes: Uint8Array;
}
function isal(cases: readonly Case[]): { crc32c: number; crc16: number }[] {
  const folder = mkdtempSync(join(tmpdir(), 'siov-isal-'));
  writeFileSync(join(folder, 'crc.c'), program);
  execFileSync('gcc', ['-O1', '-o', join(folder, 'crc'), join(folder, 'crc.c'), '-lisal'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const input = Buffer.concat(cases.flatMap(({ seed, bytes }) => [new Uint8Array(Uint32Array.of(seed, bytes.length).buffer), bytes]));
  return execFileSync(join(folder, 'crc'), { input, encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => line.split(' ').map(Number))
    .map(([crc32c, crc16]) => ({ crc32c: crc32c!, crc16: crc16! }));
}
const random = (() => {
  let s = 99;
  return () => (s = (Math.imul(s, 1664525) + 1013904223) | 0) >>> 8;
})();
const bytesOf = (n: number): Uint8Array => Uint8Array.from({ length: n }, () => random() & 0xff);
const SRC = 0x1_0000;
const DST = 0x3_0000;

test.skipIf(why !== '')('CRC generation and copy with CRC are ISA-L’s CRC-32C', () => {
  const m = machine();
  m.start({});
  const cases: Case[] = Array.from({ length: 300 }, (_, i) => ({
    seed: i % 3 ? random() * 256 : 0,
    bytes: bytesOf(1 + (random() % (i < 100 ? 40 : 9000))),
  }));
  for (const [i, { crc32c }] of isal(cases).entries()) {
    const { seed, bytes } = cases[i]!;
    const at = SRC + (i % 61);
    m.bytes.set(bytes, at);
    for (const opcode of [Opcode.crc, Opcode.copyCrc]) {
      const d = m.descriptor(opcode, { sourceLow: at, size: bytes.length, ...(opcode === Opcode.copyCrc ? { destinationLow: DST } : {}) });
      d[10] = seed;
      expect(m.execute(d), `case ${i}`).toMatchObject({ status: 'success', value: crc32c });
    }
  }
});

test.skipIf(why !== '')('the guards of DIF insert and DIX generate are ISA-L’s CRC-16 T10-DIF, and DIF check takes them', () => {
  const m = machine({ profile: gnrD });
  m.start({});
  const cases: Case[] = Array.from({ length: 160 }, (_, i) => ({ seed: i & 4 ? 0xffff : 0, bytes: bytesOf(DIF_BLOCKS[i & 3]!) }));
  for (const [i, { crc16 }] of isal(cases).entries()) {
    const { bytes } = cases[i]!;
    const difFlags = (i & 3) | (i & 4 ? DifFlag.seedOnes : 0) | (i & 8 ? DifFlag.invert : 0);
    const guard = i & 8 ? crc16 ^ 0xffff : crc16;
    m.bytes.set(bytes, SRC + (i % 61));
    for (const opcode of [Opcode.difInsert, Opcode.dixGenerate]) {
      const d = m.descriptor(opcode, { sourceLow: SRC + (i % 61), destinationLow: DST, size: bytes.length });
      DifUpdateDescriptor.set.difFlags(d, 0, difFlags);
      expect(m.execute(d)).toMatchObject({ status: 'success' });
      const at = DST + (opcode === Opcode.difInsert ? bytes.length : 0);
      expect((m.bytes[at]! << 8) | m.bytes[at + 1]!, `case ${i}`).toBe(guard);
      if (opcode === Opcode.dixGenerate) continue;
      const check = m.descriptor(Opcode.difCheck, { sourceLow: DST, size: bytes.length + 8 });
      DifUpdateDescriptor.set.difFlags(check, 0, difFlags);
      expect(m.execute(check).status).toBe('success');
    }
  }
});

test.skipIf(why !== '')('a CRC that bypasses inversion is the bare register, its bits reversed', () => {
  const m = machine();
  m.start({});
  const bytes = bytesOf(777);
  const reversed = (n: number): number => Number.parseInt([...n.toString(2).padStart(32, '0')].reverse().join(''), 2);
  const seed = 0x1234_5678;
  // The library, inverted before and after, started so that its register is the reversed seed.
  const { crc32c } = isal([{ seed: ~reversed(seed) >>> 0, bytes }])[0]!;
  m.bytes.set(bytes, SRC);
  const d = m.descriptor(Opcode.crc, {
    sourceLow: SRC,
    size: bytes.length,
    flags: Flag.recordAddressValid | Flag.requestRecord | Flag.crcBypassInversion,
  });
  d[10] = seed;
  expect(m.execute(d).value).toBe(reversed(~crc32c >>> 0));
});
