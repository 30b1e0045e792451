/** `siov exec` as a command: a program's exit code and output are its own, the rest goes to standard error. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const root = fileURLToPath(new URL('..', import.meta.url));
const siov = (args: readonly string[], input = '') =>
  spawnSync(process.execPath, ['--conditions=@siov/source', '--import', 'tsx', main, 'exec', ...args], { encoding: 'utf8', input, cwd: root });
const here = process.platform === 'linux' && process.arch === 'x64' && spawnSync('cc', ['--version']).error === undefined;
if (!here) console.log('left out: siov exec needs Linux on x86-64 and a C compiler');
const dsaTest = '/usr/libexec/accel-config/test/dsa_test';
if (!existsSync(dsaTest)) console.log('left out: programs of accel-config-test are not installed (apt-get install accel-config accel-config-test)');

test.runIf(here)("a program's exit code and output are its own; one that never looks at the device hears nothing of us", () => {
  expect(siov(['--', '/bin/sh', '-c', 'echo out; echo err >&2; exit 7'])).toMatchObject({ status: 7, stdout: 'out\n', stderr: 'err\n' });
  expect(siov(['/bin/sh', '-c', 'kill -TERM $$']).status).toBe(128 + 15);
  expect(siov(['--', '/nonexistent']).status).toBe(127);
});

test.runIf(here)('wrong options are one line and exit code 2', () => {
  expect(siov(['--device', 'dsa-x', '--', 'true'])).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/no device 'dsa-x'; there are dsa-spr/),
  });
  expect(siov(['--inject', 'status@3', '--', 'true'])).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/--inject: 'status@3': status needs one/),
  });
  expect(siov(['--config', '/nonexistent', '--', 'true'])).toMatchObject({ status: 2, stderr: expect.stringMatching(/ENOENT/) });
});

test.runIf(here)('without a program: a shell, whose commands find the device', () => {
  const { status, stdout, stderr } = siov(['--device', 'dsa-spr,iax-spr'], 'ls /dev/dsa /dev/iax; cat /sys/bus/dsa/devices/iax1/state; exit 3\n');
  expect({ status, stdout }).toEqual({ status: 3, stdout: '/dev/dsa:\nwq0.0\nwq0.1\n\n/dev/iax:\nwq1.0\nwq1.1\nenabled\n' });
  expect(stderr).toMatch(/with dsa0 and iax1/);
});

test.runIf(here && existsSync(dsaTest))('the summary, the modelled cost, and a trace that Perfetto reads', () => {
  const folder = mkdtempSync(join(tmpdir(), 'siov-exec-'));
  const trace = join(folder, 'trace.json');
  const { status, stderr } = siov(['--cost', '--trace', trace, '--', dsaTest, '-w', '1', '-l', '4096', '-o', '1', '-b', '3', '-c', '16', '-f', '1']);
  expect(status).toBe(0);
  expect(stderr).toMatch(/1 process, \d+ calls, 0 MOVDIR64B, 1 ENQCMD \(0 retries\)/);
  expect(stderr).toMatch(/1 trap \(/);
  expect(stderr).toMatch(/batch +1 +[\d.]+ [nu]s +[\d.]+ [num]s +-/);
  expect(stderr).toMatch(/memmove +16 /);
  const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: { name: string }[] };
  expect(traceEvents.filter(({ name }) => name === 'complete' || name === 'descriptor')).toHaveLength(17);
  rmSync(folder, { recursive: true });
});
