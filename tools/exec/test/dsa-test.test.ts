/**
 * Debian's dsa_test and iaa_test (accel-config-test), as they are: every operation on a dedicated and a shared queue, block on fault on and off,
 * single and in batches of 16, by size. Each run judges itself; here they are counted, by operation. iaa_test's large sizes and the runner script of
 * the analytics accelerator take a minute together: SIOV_MATRIX=all runs them too.
 */
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type ExecServer, runProgram } from '../src/index.js';
import { missing, scratch, serving } from './rig.js';

const folder = '/usr/libexec/accel-config/test';
const there = !missing && existsSync(`${folder}/dsa_test`) && existsSync('/usr/bin/accel-config');
if (!there) console.log('left out: programs of accel-config-test are not installed (apt-get install accel-config accel-config-test)');
const all = process.env.SIOV_MATRIX === 'all';

interface Row {
  readonly name: string;
  readonly runs: readonly (readonly string[])[];
}
/** A program of another release, by that release's own loader and libraries. */
interface Foreign {
  readonly loader: string;
  readonly libraries: string;
}
/** Prints how many runs of each row passed; what failed, with its output. */
async function judged(server: ExecServer, shim: string, program: string, rows: readonly Row[], foreign?: Foreign): Promise<readonly string[]> {
  // The loader itself is of this release, and has no use for the shim.
  const run = (args: readonly string[]) =>
    foreign
      ? runProgram(server, '', foreign.loader, ['--library-path', foreign.libraries, '--preload', shim, program, ...args], { stdio: 'pipe' })
      : runProgram(server, shim, program, args, { stdio: 'pipe' });
  const failed: string[] = [];
  let count = 0;
  const began = performance.now();
  for (const { runs } of rows)
    for (const args of runs) {
      const { code, output } = await run(args);
      count++;
      if (code !== 0 || output.includes('[error]')) failed.push(`${args.join(' ')}: ${code}\n${output}`);
    }
  const lost = new Set(failed.map((text) => text.split(':')[0]));
  const text = rows.map(({ name, runs }) => `${name} ${runs.filter((args) => !lost.has(args.join(' '))).length}/${runs.length}`);
  console.log(`${program.split('/').pop()}: ${text.join(', ')}; ${count - failed.length} of ${count} in ${Math.round(performance.now() - began)} ms`);
  return failed;
}

const hex = (op: number): string => `0x${op.toString(16)}`;
const both = ['0', '1'];
const flags = ['0x1', '0x0'];
const times = <A, B>(a: readonly A[], b: readonly B[]): [A, B][] => a.flatMap((x) => b.map((y): [A, B] => [x, y]));

/** An operation alone and in a batch. */
function dsaRow(name: string, op: number, sizes: readonly number[], batched = true): Row {
  const what = batched
    ? [
        ['-o', hex(op)],
        ['-o', '0x1', '-b', hex(op), '-c', '16'],
      ]
    : [['-o', hex(op)]];
  const runs = times(times(both, flags), times(sizes, what)).map(([[wq, flag], [size, op]]) => ['-w', wq, '-l', String(size), '-f', flag, ...op]);
  return { name, runs };
}
const sizes = [1, 4096, 65536, 2 ** 20, 2 ** 21, 3, 777, 99_991];
const blocks = [512, 1024, 2048, 4096];
const dsaRows: readonly Row[] = [
  dsaRow('noop', 0x0, sizes),
  dsaRow('drain', 0x2, sizes, false),
  dsaRow('memmove', 0x3, sizes),
  dsaRow('fill', 0x4, sizes),
  dsaRow('compare', 0x5, sizes),
  dsaRow('compare pattern', 0x6, sizes),
  dsaRow('create delta', 0x7, blocks),
  dsaRow('apply delta', 0x8, blocks),
  dsaRow('dualcast', 0x9, sizes),
  dsaRow('CRC', 0x10, sizes),
  dsaRow('copy with CRC', 0x11, sizes),
  dsaRow('DIF check', 0x12, blocks),
  dsaRow('DIF insert', 0x13, blocks),
  dsaRow('DIF strip', 0x14, blocks),
  dsaRow('DIF update', 0x15, blocks),
  dsaRow('cache flush', 0x20, sizes),
];

test.runIf(there)('dsa_test: every operation passes', { timeout: 300_000 }, async () => {
  await serving(async (server, shim) => {
    expect(await judged(server, shim, `${folder}/dsa_test`, dsaRows)).toEqual([]);
    expect(server.counts.movdir64b).toBeGreaterThan(0);
    expect(server.counts.enqcmd).toBeGreaterThan(0);
  });
});

/** Sizes, and how many elements of which width: filter flags of the package's own runner script. */
function iaxRow(name: string, op: number, sizes: readonly number[], more: (size: number) => readonly string[] = () => []): Row {
  const runs = times(times(both, flags), sizes).map(([[wq, flag], size]) => [
    '-w',
    wq,
    '-l',
    String(size),
    '-f',
    flag,
    '-o',
    hex(op),
    ...more(size),
    '-t',
    '5000',
  ]);
  return { name, runs };
}
const streams = all ? [4096, 65536, 2 ** 20, 2 ** 21] : [4096, 65536];
const elements = all ? [512, 1024, 4096, 65536, 2 ** 20, 2 ** 21] : [512, 4096, 65536];
const filter = (flag: string, bytes: number) => (size: number) => ['-2', flag, '-3', String(size / bytes)];
const iaxRows: readonly Row[] = [
  iaxRow('noop', 0x0, [1, 4096]),
  iaxRow('CRC-64, bits reversed', 0x44, [1, ...streams], () => ['-1', '0x8000']),
  iaxRow('CRC-64, inverted', 0x44, [1, ...streams], () => ['-1', '0x4000']),
  iaxRow('zero decompress 32', 0x48, streams),
  iaxRow('zero decompress 16', 0x49, streams),
  iaxRow('zero compress 32', 0x4c, streams),
  iaxRow('zero compress 16', 0x4d, streams),
  iaxRow('compress', 0x43, streams),
  iaxRow('decompress', 0x42, streams),
  iaxRow('scan', 0x50, elements, filter('0x7c', 4)),
  iaxRow('set membership', 0x51, elements, filter('0x38', 2)),
  iaxRow('extract', 0x52, elements, filter('0x7c', 4)),
  iaxRow('select', 0x53, elements, filter('0x7c', 4)),
  iaxRow('RLE burst 8', 0x54, all ? [512, 1024, 4096, 32768, 65536, 131072] : [512, 4096], filter('0x1c', 1)),
  iaxRow('RLE burst 16', 0x54, [32, 64, 128, 256, 512, 1024], filter('0x3c', 2)),
  iaxRow('RLE burst 32', 0x54, [64, 128, 256, 512, 1024, 2048], filter('0x7c', 4)),
  iaxRow('find unique', 0x55, elements, filter('0x38', 2)),
  iaxRow('expand', 0x56, elements, filter('0x7c', 4)),
];

test.runIf(there)('iaa_test: every operation that the device has passes', { timeout: 300_000 }, async () => {
  await serving(
    async (server, shim) => {
      expect(await judged(server, shim, `${folder}/iaa_test`, iaxRows)).toEqual([]);
    },
    { devices: ['iax-spr'] },
  );
});

/** The scripts load and remove the driver's module: there is none to load. */
function withoutModules(): NodeJS.ProcessEnv {
  const folder = join(scratch(), 'bin');
  mkdirSync(folder, { recursive: true });
  for (const name of ['lsmod', 'modprobe', 'rmmod']) {
    writeFileSync(join(folder, name), '#!/bin/sh\nexit 0\n');
    chmodSync(join(folder, name), 0o755);
  }
  return { ...process.env, PATH: `${folder}:${process.env.PATH}` };
}

test.runIf(there).for([
  { script: 'dsa_user_test_runner.sh', program: 'dsa_test', calls: 476, long: false },
  { script: 'iaa_user_test_runner.sh', program: 'iaa_test', calls: 352, long: true },
])(
  "$script, whole: the devices are configured, enabled, used and disabled by the package's own hand",
  { timeout: 300_000 },
  async ({ script, program, calls, long }, context) => {
    if (long && !all) {
      console.log(`left out: ${script}, 50 s (SIOV_MATRIX=all)`);
      context.skip();
    }
    await serving(
      async (server, shim) => {
        const log = join(scratch(), `${script}.log`);
        const options = { stdio: 'pipe', cwd: folder, env: withoutModules() } as const;
        const { code } = await runProgram(server, shim, '/bin/bash', ['-c', `./${script} > ${log} 2>&1`], options);
        const output = readFileSync(log, 'utf8');
        const made = output.split('\n').filter((line) => new RegExp(`^\\+ \\S*/${program} -`).test(line)).length;
        console.log(`${script}: ${made} calls of ${program}, exit ${code}`);
        expect(code, output.slice(-2000)).toBe(0);
        expect(made).toBe(calls);
        expect(output).not.toMatch(/\[error\]/);
      },
      { devices: ['dsa-spr', 'iax-spr'], config: '' },
    );
  },
);

// Debian 13's dsa_test (4.1.8), where a tree of that release is there: that of the guest lab, and the package accel-config-test unpacked anywhere.
const libraries = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'siov/guest-lab/tree/usr/lib/x86_64-linux-gnu');
const newer = process.env.SIOV_ACCEL_CONFIG_TEST_4 ?? join(libraries, '../../libexec/accel-config/test');
const foreign: Foreign = { loader: join(libraries, 'ld-linux-x86-64.so.2'), libraries };
const newerThere = !missing && existsSync(foreign.loader) && existsSync(join(newer, 'dsa_test'));
if (!newerThere) console.log("left out: programs of accel-config 4.1.8 (no guest-lab tree: 'siov guest --set-up' makes one)");

test.runIf(newerThere)('dsa_test 4.1.8: every operation of both devices passes', { timeout: 300_000 }, async () => {
  // Without block on fault a translation of a page that is not there ends with a fault, which dsa_test takes for a mistake.
  const fetches = dsaRow('translation fetch', 0xa, sizes);
  const blocking = { ...fetches, runs: fetches.runs.filter((args) => args[args.indexOf('-f') + 1] === '0x1') };
  for (const [device, rows] of [
    ['dsa-spr', dsaRows],
    ['dsa-gnrd', [blocking, dsaRow('DIX', 0x17, blocks)]],
  ] as const)
    await serving(async (server, shim) => expect(await judged(server, shim, join(newer, 'dsa_test'), rows, foreign)).toEqual([]), {
      devices: [device],
    });
});

test.runIf(newerThere)('iaa_test 4.1.8: what version 2.0 has beyond 1.0 passes', { timeout: 300_000 }, async () => {
  const fetches = iaxRow('translation fetch', 0xa, streams);
  const blocking = { ...fetches, runs: fetches.runs.filter((args) => args[args.indexOf('-f') + 1] === '0x1') };
  const rows = [iaxRow('zero decompress 8', 0x4a, streams), iaxRow('zero compress 8', 0x4e, streams), blocking];
  await serving(async (server, shim) => expect(await judged(server, shim, join(newer, 'iaa_test'), [...iaxRows, ...rows], foreign)).toEqual([]), {
    devices: ['iax-2.0'],
  });
});

/** Batch: record faults, record not writable, list faults, where. Members: operand faults, record faults, record not writable, fence. */
const pattern = {
  none: '0,0,0,0',
  batchRecord: '1,0,0,0',
  list: '0,0,1,2',
  listAndRecord: '1,0,1,2',
  fault: '1,0,0,0',
  logged: '0,1,0,0',
  lost: '0,1,1,0',
};
const { none, fault, logged, lost } = pattern;
const fence = '0,0,0,1';
const patterns: readonly (readonly string[])[] = [
  [none, none, logged],
  [none, none, lost],
  [none, none, logged, fence],
  [none, logged, fence],
  [none, fault, logged],
  [none, fault, logged, fence],
  [none, none, '1,1,0,0', fence],
  [none, none, '1,1,1,0', fence],
  [pattern.batchRecord, none, logged],
  [pattern.batchRecord, none, lost],
  [pattern.batchRecord, none, none],
  [pattern.list, none, none, none],
  [pattern.listAndRecord, none, none, none],
  [pattern.list, none, logged, none],
  [pattern.list, none, lost, none],
  [pattern.list, fault, logged, none],
  [pattern.list, fault, lost, none],
];
test.runIf(newerThere)('dsa_test 4.1.8: event-log patterns on a device of version 2.0', async () => {
  const runs = times(both, patterns).map(([wq, parts]) => [
    '-o',
    '1',
    '-b',
    '3',
    '-w',
    wq,
    '-f',
    '0x8',
    '-c',
    `${parts.length - 1}`,
    '-e',
    parts.join(':'),
  ]);
  await serving(
    async (server, shim) => expect(await judged(server, shim, join(newer, 'dsa_test'), [{ name: 'patterns', runs }], foreign)).toEqual([]),
    {
      devices: ['dsa-gnrd'],
    },
  );
});

const accelConfig = join(libraries, '../../bin/accel-config');
test.runIf(newerThere && existsSync(accelConfig)).each([
  ['1.0', 'dsa-spr'],
  ['2.0', 'dsa-gnrd'],
])('dsa_config_test_runner.sh 4.1.8, whole, on a device of version %s', async (_version, device) => {
  const folder = join(scratch(), `config-runner-${device}`);
  cpSync(newer, join(folder, 'test'), { recursive: true });
  mkdirSync(join(folder, 'accfg'));
  for (const [name, program] of [
    ['accfg/accel-config', accelConfig],
    ['test/dsa_test', join(newer, 'dsa_test')],
  ] as const) {
    rmSync(join(folder, name), { force: true });
    writeFileSync(join(folder, name), `#!/bin/sh\nexec ${foreign.loader} --library-path ${libraries} ${program} "$@"\n`, { mode: 0o755 });
  }
  await serving(
    async (server, shim) => {
      const options = { stdio: 'pipe', cwd: join(folder, 'test'), env: withoutModules() } as const;
      // On 2.0 it also has operations refused that a queue does not take, and says so.
      expect((await runProgram(server, shim, '/bin/bash', ['-E', './dsa_config_test_runner.sh'], options)).code).toBe(0);
      expect(server.counts.processes).toBeGreaterThan(20);
    },
    { config: '', devices: [device] },
  );
});
