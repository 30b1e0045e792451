import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { workloadOps } from '@siov/stack';
import { describe, expect, test } from 'vitest';
import { analyticsOps } from '../src/analytics-ops.js';

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'siov-cli-'));
const file = join(folder, 'data');
writeFileSync(
  file,
  Uint8Array.from({ length: 50_000 }, (_, i) => (i * 7 + (i >> 9)) & 0xff),
);
const siov = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=@siov/source', '--import', 'tsx', main, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  return { status, stdout, stderr };
};

describe('a mistake in the call is one line that says what and how to mend it, and exit code 2', () => {
  const bad = join(folder, 'bad.json');
  writeFileSync(bad, '{"dsa.dispatchh": {"ns": 1}}');
  const empty = join(folder, 'empty');
  writeFileSync(empty, '');
  test.each([
    [['frob'], /there is no command 'frob'; commands are compare/],
    [['run', '/no/such/file'], /there is no file '\/no\/such\/file'/],
    [['run', folder], /is not a file/],
    [['run', empty], /is empty/],
    [['run', '--sise', '4K'], /unknown option --sise \(did you mean --size\?\)/],
    [['compare', '--size', '9G'], /--size: '9G' is not a size from 1 B to 4 MiB/],
    [['compare', '--size'], /--size: needs a value/],
    [['run', '--json=yes'], /--json: takes no value/],
    [['run', '--op', 'copy'], /'copy' is not one of nop, drain, memmove/],
    [['run', '--depth', '64', '--wq-size', '8'], /more than the queue's 8 entries/],
    [['run', '--inject', 'gremlins'], /'gremlins' is not one of/],
    [['run', '--costs', bad], /no event 'dsa.dispatchh'/],
    [['run', '--ram', '1M'], /--ram: '1M' is not a size from 64 MiB to 2 GiB/],
    [['run', file, file], /one file at a time/],
    [['run', '--op', 'dix-generate'], /dsa-spr does not offer dix-generate: take --device dsa-gnrd/],
    [['run', '--op', 'dif-check', '--size', '1000'], /--size for dif-check is a multiple of 512 bytes, not 1000/],
    [['run', '--op', 'create-delta', '--size', '1M'], /--size for create-delta is at most 512 KiB/],
    [['run', '--op', 'drain', '--batch', '4'], /a drain cannot be in a batch/],
    [['compare', '--op', 'compress'], /compress is an operation of an analytics accelerator: 'siov run --op compress'/],
    [['compare', '--device', 'iax-spr'], /iax-spr cannot be shared with a guest/],
    [['run', '--op', 'scan', '--device', 'dsa-spr'], /dsa-spr does not offer scan: take --device iax-spr/],
    [['run', '--op', 'zero-compress-8', '--device', 'iax-spr'], /iax-spr does not offer zero-compress-8: take --device iax-2.0/],
    [['run', '--op', 'fill', '--device', 'iax-2.0'], /iax-2.0 does not offer fill: take --device dsa-spr/],
    [['run', '--op', 'zero-compress-16', '--size', '100'], /--size for zero-compress-16 is a multiple of 128 bytes, not 100/],
    [['run', '--op', 'compress', '--batch', '2'], /an analytics accelerator has no batches/],
    [['run', '--op', 'compress', '--inject', 'kill'], /--inject is not for compress/],
    [['run', '--op', 'rle-burst', '--size', '4M'], /the buffers of 32 descriptors have 4241 MiB: lower --size or --depth, or raise --ram/],
    [['run', '--op', 'crc64', '--output', '/x'], /crc64 writes nothing/],
    [['run', '--op', 'memmove', '--output', '/x'], /--output is for operations of an analytics accelerator/],
    [['run', '--op', 'compress', '--output', '/no/such/file'], /--output: '\/no\/such\/file' cannot be written \(ENOENT\)/],
    [['run', '--op', 'compress', '--history', '3K'], /--history: '3K' is not a power of two/],
    [['run', '--history', '4K'], /--history: dsa-spr has none/],
    [['inspect', 'iommu', '--address', 'there'], /--address: 'there' is not an address/],
    [['inspect', 'gpu'], /'gpu' is not one of pf, vdev, iommu/],
  ])('siov %j', (args, message) => {
    const { status, stdout, stderr } = siov(...args);
    expect([status, stdout, stderr.trim().split('\n').length]).toEqual([2, '', 1]);
    expect(stderr).toMatch(message);
  });
});

test.each(['--help', 'compare --help', 'run --help', 'inspect --help', 'costs --help'])('siov %s teaches, on standard output', (args) => {
  const { status, stdout, stderr } = siov(...args.split(' '));
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(/usage:|commands:/);
});

test('compare runs a file through both models and says that every result is right', () => {
  const { status, stdout } = siov('compare', file);
  expect(status).toBe(0);
  for (const part of [
    'uacce (dedicated)',
    'mdev (dedicated)',
    'ioctl UACCE_CMD_START_Q',
    'ioctl VFIO_DEVICE_SET_IRQS',
    'portal writes',
    'walk reads',
    'VM exits by reason',
    'modelled latency, mean',
    'serial cost, by event',
    'every result equals a plain computation',
  ])
    expect(stdout).toContain(part);
});

test('compare --json: a version, both reports, the same work, no trap per descriptor', () => {
  const { status, stdout } = siov('compare', file, '--json', '--size', '256', '--op', 'crc');
  const { version, reports } = JSON.parse(stdout) as {
    version: number;
    reports: { model: string; figures: Record<string, number>; result: { descriptors: number; wrong: number } }[];
  };
  expect([status, version, reports.map((r) => r.model)]).toEqual([0, 1, ['uacce', 'mdev']]);
  for (const { result, figures } of reports) {
    expect([result.descriptors, result.wrong, figures.portalWrites]).toEqual([196, 0, 196]);
    expect(figures.traps).toBeLessThan(50);
  }
  // A nested miss reads more entries than a first-stage one.
  expect(reports[1]!.figures.walkReads).toBeGreaterThan(reports[0]!.figures.walkReads!);
});

test('compare --block-on-fault onto pages that nobody touched: the device asks in the guest as it does natively, and nothing is resumed', () => {
  const { status, stdout } = siov('compare', file, '--json', '--no-touch', '--block-on-fault');
  const { reports } = JSON.parse(stdout) as {
    reports: { figures: Record<string, number>; result: { wrong: number; resumes: number; finished: boolean } }[];
  };
  expect([status, reports.map(({ result: { wrong, resumes, finished } }) => [wrong, resumes, finished])]).toEqual([
    0,
    [
      [0, 0, true],
      [0, 0, true],
    ],
  ]);
  const [native, guest] = reports.map(({ figures }) => figures.pageRequests!) as [number, number];
  expect([guest, native > 5]).toEqual([native, true]);
});

test('a file larger than the simulated memory goes through both models', () => {
  const large = join(folder, 'large');
  writeFileSync(large, Buffer.alloc(80 << 20, 'siov'));
  const { status, stdout } = siov('compare', large, '--ram', '64M', '--size', '1M', '--json');
  const { reports } = JSON.parse(stdout) as { reports: { result: { bytes: number; wrong: number; finished: boolean } }[] };
  expect([status, reports.map(({ result: { bytes, wrong, finished } }) => [bytes, wrong, finished])]).toEqual([
    0,
    [
      [80 << 20, 0, true],
      [80 << 20, 0, true],
    ],
  ]);
});

test('--wq shared compares only equal kinds, and says so', () => {
  const { status, stdout } = siov('compare', file, '--wq', 'shared');
  expect(status).toBe(0);
  expect(stdout).toContain('uacce (shared)');
  expect(stdout).not.toContain('mdev (');
  expect(stdout).toContain('nothing of its kind to compare');
});

test.each(workloadOps)('run --op %s prints the descriptor that finished first and its record by field names', (op) => {
  const { status, stdout } = siov('run', file, '--op', op, '--device', 'dsa-gnrd');
  expect(status).toBe(0);
  expect(stdout).toMatch(new RegExp(`descriptor pasid=.* opcode=${op.replace(/-(.)/, (_, c: string) => c.toUpperCase())} `));
  expect(stdout).toMatch(/completion record status=success /);
  expect(stdout).toContain('every result equals a plain computation');
});
describe('an analytics accelerator', () => {
  const bytes = readFileSync(file);
  const made = join(folder, 'made');
  const noise = Buffer.from(Uint8Array.from({ length: 6000 }, (_, i) => Math.imul(i + 7, Math.imul(i, 2654435761)) >>> 24));
  test.each(analyticsOps.filter((op) => op !== 'decompress'))(
    'run --op %s prints descriptor and record by field names; each result is right',
    (op) => {
      const { status, stdout } = siov('run', file, '--op', op);
      expect([status, stdout.split('\n').filter((line) => / opcode=/.test(line)).length]).toEqual([0, 1]);
      expect(stdout).toMatch(new RegExp(` opcode=${op.replace(/-(.)/g, (_, c: string) => c.toUpperCase())} `));
      expect(stdout).toMatch(/IAX (CRC-64 )?completion record status=success /);
      expect(stdout).toMatch(/every result equals a plain computation/);
    },
  );
  test.each(['nop', 'drain', 'memmove', 'translation-fetch'])('run --op %s on one', (op) => {
    const { status, stdout } = siov('run', file, '--op', op, '--device', 'iax-2.0');
    expect(status).toBe(0);
    expect(stdout).toMatch(/IAX .*descriptor .*\n *IAX completion record status=success /);
  });
  test.each([
    ['whose codes come along', []],
    ['that makes codes and headers itself', ['--device', 'iax-2.0']],
    ['through a shared queue, onto pages that nobody touched', ['--wq', 'shared', '--no-touch', '--size', '10000']],
    ['that asks for absent pages', ['--no-touch', '--block-on-fault', '--depth', '3']],
  ])('run --op compress on a device %s makes a raw stream that zlib inflates', (_how, options) => {
    const { status, stdout } = siov('run', file, '--op', 'compress', '--output', made, ...options);
    expect([status, stdout]).toEqual([0, expect.stringContaining('zlib inflates it to the file')]);
    expect(inflateRawSync(readFileSync(made)).equals(bytes)).toBe(true);
  });
  test.each([
    ['with a history of 4 KiB', { windowBits: 12 }, []],
    ["with zlib's own history, on a device that has it", { level: 9 }, ['--history', '32K', '--size', '777']],
    ['in stored blocks, a few bytes at a time', { level: 0 }, ['--size', '100', '--no-touch']],
  ])('run --op decompress inflates what zlib deflated %s', (_how, options, more) => {
    const stream = join(folder, 'stream');
    // What lies behind the end of the stream is none of it.
    writeFileSync(stream, Buffer.concat([deflateRawSync(bytes, options), Buffer.from('behind')]));
    const { status, stdout } = siov('run', stream, '--op', 'decompress', '--output', made, ...more);
    expect([status, stdout]).toEqual([0, expect.stringContaining('as zlib inflates it; 6 bytes behind its end are none of it')]);
    expect(readFileSync(made).equals(bytes)).toBe(true);
  });
  test.each([
    [
      'a history that is too long',
      deflateRawSync(Buffer.concat([noise, noise])),
      /not all of the file: distanceRange \(a match begins further back than the history/,
    ],
    ['no stream', Buffer.alloc(100, 0xff), /not all of the file: blockType/],
    [
      'a stream that was cut off',
      deflateRawSync(noise, { windowBits: 12 }).subarray(0, 999),
      /not all of the file: the file ends before the last block does/,
    ],
  ])('run --op decompress of %s says so, and ends with 1', (_what, stream, says) => {
    const broken = join(folder, 'broken');
    writeFileSync(broken, stream);
    const { status, stdout } = siov('run', broken, '--op', 'decompress');
    expect(status).toBe(1);
    expect(stdout).toMatch(says);
    expect(stdout).not.toContain('every result equals');
  });
});

test('run --batch prints the batch as well', () => {
  const { status, stdout } = siov('run', file, '--batch', '4');
  expect(status).toBe(0);
  expect(stdout).toMatch(/batch descriptor pasid=.* count=4 .*\n *completion record status=success .* completed=4 /);
  expect(stdout).toMatch(/ opcode=memmove /);
});

test.each([
  ['of a process', [], 4, /PASID entry .* type=firstStage/],
  ['of a process in a guest, nested', ['--guest'], 19, /PASID entry .* type=nested/],
])('inspect iommu --address walks an address %s, each entry by field names', (_whose, more, reads, entry) => {
  const plain = siov('inspect', 'iommu', ...more);
  const address = /a page of the process: (0x[0-9a-f]+)/.exec(plain.stdout)![1]!;
  const { status, stdout } = siov('inspect', 'iommu', ...more, '--address', address);
  expect(status).toBe(0);
  expect(stdout).toMatch(entry);
  for (const level of [4, 3, 2, 1])
    expect(stdout).toMatch(new RegExp(`first stage, level ${level}, entry +\\d+ at 0x[0-9a-f]+: present=1 write=1 user=1`));
  expect(stdout).toMatch(new RegExp(`-> host physical 0x[0-9a-f]+, ${reads} entries read for ${address}`));
  expect(/second stage/.test(stdout)).toBe(more.length > 0);
  const json = JSON.parse(siov('inspect', 'iommu', ...more, '--address', address, '--json').stdout) as { walk: { hpa: number; reads: number } };
  expect(stdout).toContain(`host physical 0x${json.walk.hpa.toString(16)}, ${json.walk.reads} entries`);
});

test('descriptors with a bad field: the summary says how many and why, the rest is right', () => {
  const { status, stdout } = siov('run', file, '--size', '1K', '--inject', 'reserved-field:10');
  expect(status).toBe(0);
  expect(stdout).toMatch(/status: non zero reserved\s+5\n/);
  expect(stdout).toContain('5 descriptors ended with an error');
});

test('a neighbour that dies, and an unbound driver, are in the summary', () => {
  const killed = siov('run', file, '--inject', 'kill');
  expect([killed.status, killed.stdout.includes('a neighbour was killed'), killed.stdout.includes('every result equals')]).toEqual([0, true, true]);
  const unbound = siov('run', file, '--size', '512', '--inject', 'unbind');
  expect([unbound.status, unbound.stdout.includes('died of SIGBUS, and alone')]).toEqual([1, true]);
});

test('costs: the table as JSON is what --costs takes, and a replaced row changes the modelled time only', () => {
  const table = JSON.parse(siov('costs', '--json').stdout) as Record<string, { ns: number }>;
  const mine = join(folder, 'mine.json');
  writeFileSync(mine, JSON.stringify({ 'dsa.dispatch': { ...table['dsa.dispatch'], ns: 50_000 } }));
  const run = (...more: string[]) =>
    (
      JSON.parse(siov('run', file, '--json', '--depth', '1', ...more).stdout) as {
        reports: { result: { latency: { mean: number }; wrong: number; bytes: number } }[];
      }
    ).reports[0]!.result;
  const [plain, slow] = [run(), run('--costs', mine)];
  expect(slow.latency.mean).toBeGreaterThan(plain.latency.mean + 45_000);
  expect([slow.bytes, slow.wrong]).toEqual([plain.bytes, plain.wrong]);
});

test('--trace writes a Chrome trace with one named track a party', () => {
  const path = join(folder, 'trace.json');
  siov('compare', file, '--trace', path);
  const { traceEvents } = JSON.parse(readFileSync(path, 'utf8')) as {
    traceEvents: { ph: string; name: string; pid: number; tid: number; ts?: number; args: Record<string, string> }[];
  };
  const tracks = traceEvents.filter((e) => e.name === 'thread_name' && e.pid === 2).map((e) => e.args.name);
  expect(tracks).toEqual(['process', 'guest', 'kernel driver', 'IOMMU', 'device', 'interrupts', 'VMM']);
  for (const name of ['portalWrite', 'dispatch', 'descriptor', 'translate', 'syscall', 'deliver'])
    expect(traceEvents.some((e) => e.name === name && e.ts !== undefined)).toBe(true);
  const slices = traceEvents.filter((e) => e.ph === 'X');
  expect(slices).toHaveLength(2 * 13);
  for (const slice of slices) expect((slice as { dur?: number }).dur).toBeGreaterThan(0.1);
});

describe('curves', () => {
  interface Run {
    curves: {
      id: string;
      what: string;
      calibrates: boolean;
      because?: string;
      points: { x: number; measured: number; model: number; tolerance?: number; inside: boolean }[];
    }[];
    C11: { what: string; measured: number; model: number; inside: boolean; because?: string; calibrates?: boolean }[];
    C13: { what: string; requests: number; hits: number; wantRequests: number; wantHits?: number }[];
    claims: { number: number; holds: boolean; parts: { what: string; found: string; holds: boolean }[] }[];
  }
  const whole = siov('curves', '--json', '--svg', join(folder, 'svg'));
  const all = JSON.parse(whole.stdout) as Run;
  const curve = (id: string) => all.curves.find((c) => c.id === id)!;
  const at = (id: string, x: number) => curve(id).points.find((p) => p.x === x)!.model;

  test('all thirteen are there; C13 is exact', () => {
    expect(whole.status).toBe(0);
    const ids = [...new Set([...all.curves.map((c) => c.id), ...(all.C11.length ? ['C11'] : []), ...(all.C13.length ? ['C13'] : [])])];
    expect(ids.sort()).toEqual(Array.from({ length: 13 }, (_, i) => `C${i + 1}`).sort());
    for (const c of all.C13) expect([c.requests, c.hits], c.what).toEqual([c.wantRequests, c.wantHits ?? c.hits]);
  });
  test('what the table was not set by lies within its tolerance, or the output says why not', () => {
    for (const c of all.curves)
      if (c.points.some((p) => p.tolerance !== undefined && !p.inside)) expect(c.because, `${c.id}: ${c.what}`).toMatch(/\w{3}/);
    for (const s of all.C11) if (!s.inside) expect(s.because, s.what).toMatch(/\w{3}/);
    for (const [id, least] of [
      ['C1', 15],
      ['C2', 15],
      ['C3', 15],
      ['C7', 12],
      ['C9', 5],
    ] as const)
      expect(curve(id).points.filter((p) => p.inside).length, id).toBeGreaterThanOrEqual(least);
    // Large operations and the small batches that overtake them.
    expect(curve('C10').points.every((p) => p.tolerance === undefined || p.inside)).toBe(true);
  });
  test('throughput: the floor of submission, the ceiling of the device, and more engines for small batches', () => {
    // One thread submits some five million descriptors a second, whatever their size.
    expect((at('C5', 64) * 2 ** 30) / 64 / 1e6).toBeGreaterThan(4.5);
    expect((at('C5', 64) * 2 ** 30) / 64 / 1e6).toBeLessThan(6);
    for (const id of ['C5', 'C6', 'C7']) expect(at(id, 1 << 20)).toBeCloseTo(29.2, 0);
    expect(at('C7', 1024)).toBeGreaterThan(1.3 * at('C6', 1024));
  });
  test('twelve statements, each true exactly when its parts are', () => {
    expect(all.claims.map((c) => c.number)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
    for (const claim of all.claims) expect([claim.holds, claim.parts.length > 0]).toEqual([claim.parts.every((p) => p.holds), true]);
    // The model was made for these; the others may go either way with the table.
    expect(all.claims.filter((c) => c.holds).map((c) => c.number)).toEqual(expect.arrayContaining([1, 2, 3, 4, 5, 6, 8, 10, 11, 12]));
  });
  test('--svg draws, one curve alone can be asked for, and an unknown one is refused', () => {
    for (const name of ['C2', 'C9', 'C10-memmove', 'C10-fill'])
      expect(readFileSync(join(folder, 'svg', `${name}.svg`), 'utf8')).toContain('<polyline');
    const some = siov('curves', 'C9').stdout;
    expect([some.includes('C9: '), some.includes('C10: '), some.includes('Statements')]).toEqual([true, false, false]);
    expect(siov('curves', 'C99').stderr).toMatch(/there is no curve 'C99'/);
  });
});

describe('inspect', () => {
  test('shows the function, the virtual device and the IOMMU by field names', () => {
    const { status, stdout } = siov('inspect');
    expect(status).toBe(0);
    for (const part of [
      'deviceId=0xb25',
      'genSts: state=enabled',
      'guest PASID to host PASID',
      'rootTable: mode=scalable',
      'PASID entry at',
      'type=nested',
    ])
      expect(stdout).toContain(part);
    expect(Object.keys(JSON.parse(siov('inspect', '--json').stdout))).toEqual(['version', 'pf', 'vdev', 'iommu']);
  });
  const lspci = spawnSync('lspci', ['--version']).status === 0;
  if (!lspci) console.log('left out: the lspci oracle of siov inspect (no lspci on this machine; Debian package pciutils)');
  test.skipIf(!lspci)('--lspci is a dump that lspci reads without a complaint: the function and the virtual device', () => {
    const dump = join(folder, 'dump');
    writeFileSync(dump, siov('inspect', '--lspci').stdout);
    const { stdout, stderr, status } = spawnSync('lspci', ['-F', dump, '-vvv', '-n'], { encoding: 'utf8' });
    expect([status, stderr.replace(/^lspci: .*libkmod.*\n/gm, '')]).toEqual([0, '']);
    expect(stdout.match(/0880: 8086:0b25/g)).toHaveLength(2);
    expect(stdout.match(/MSI-X: Enable\+ Count=(\d+)/g)).toEqual(['MSI-X: Enable+ Count=9', 'MSI-X: Enable+ Count=2']);
    for (const capability of ['Address Translation Service', 'Page Request Interface', 'Process Address Space ID'])
      expect(stdout.split(capability)).toHaveLength(3);
  });
});
