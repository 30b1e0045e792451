/** Faults on demand: what each rule does to a program, and that a seed says it all. */
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type Injections, parseInjections, runProgram } from '../src/index.js';
import { compiled, missing, serving } from './rig.js';

const rules = (text: string): Injections['rules'] => {
  const parsed = parseInjections(text);
  if (typeof parsed === 'string') throw new Error(parsed);
  return parsed;
};

test.each([
  ['', /no rule/],
  ['status=0x03', /no rule/],
  ['status@3', /needs one/],
  ['status=0x100@1', /1 to 0xff/],
  ['status=0x00@1', /1 to 0xff/],
  ['status=0x03@0', /from 1/],
  ['retry=1@2', /has no value/],
  ['retry%101', /hundred/],
  ['halt=now@1', /software, functionLevel, warm, cold/],
  ['swerror=0x80@1', /1 to 0x7f/],
] as const)("'%s' is refused in words", (text, why) => {
  expect(parseInjections(text)).toMatch(why);
});

async function run(text: string, args: readonly string[], seed = 1): Promise<string> {
  const program = compiled('statuses');
  return serving(
    async (server, shim) => {
      const { output } = await runProgram(server, shim, program, args, { stdio: 'pipe' });
      return output.trim();
    },
    {},
    { inject: { rules: rules(text), seed } },
  );
}

test.skipIf(missing).each([
  ['status=0x83@3', ['5', '0'], '01 01 83 01 01 retries 0 poll 0'],
  ['status=0x03@2+2', ['6', '1'], '01 03 01 03 01 03 retries 0 poll 0'],
  ['status=0x1a@1,status=0x10@4', ['4', '0'], '1a 01 01 10 retries 0 poll 0'],
  ['retry@2+3', ['4', '1'], '01 01 01 01 retries 2 poll 0'],
  ['status=0x83@3', ['5', '2'], '01 01 83 01 01 retries 0 poll 0'],
  ['status=0x03@2+2', ['6', '3'], '01 03 01 03 01 03 retries 0 poll 0'],
  ['swerror=0x12@2', ['2', '0'], '01 01 retries 0 poll 1'],
] as const)('%s', async (text, args, output) => {
  expect(await run(text, args)).toBe(output);
});

test.skipIf(missing)(
  'a halt: what comes then gets no record; the driver resets the device, and the queue goes on. Linux idxd_device_reinit',
  async () => {
    expect(await run('halt=software@3', ['4', '0'])).toBe('01 01 00 01 retries 0 poll 0');
  },
);

test.skipIf(missing)('the same seed is the same run, another seed another', async () => {
  const args = ['40', '1'];
  const first = await run('status=0x12%30,retry%20', args, 7);
  expect(first).toMatch(/12/);
  expect(await run('status=0x12%30,retry%20', args, 7)).toBe(first);
  expect(await run('status=0x12%30,retry%20', args, 8)).not.toBe(first);
});

const dsaTest = '/usr/libexec/accel-config/test/dsa_test';
test.skipIf(missing || !existsSync(dsaTest))('dsa_test goes on after page faults that nobody had, and reports what it cannot mend', async () => {
  const said = async (text: string) =>
    serving(
      async (server, shim) => runProgram(server, shim, dsaTest, ['-w', '0', '-l', '4096', '-o', '3', '-f', '0'], { stdio: 'pipe' }),
      {},
      { inject: { rules: rules(text), seed: 1 } },
    );
  expect(await said('status=0x03@1,status=0x83@2')).toMatchObject({ code: 0 });
  expect((await said('status=0x12@1')).output).toMatch(/\[error\] memory result verify failed 18/);
});
