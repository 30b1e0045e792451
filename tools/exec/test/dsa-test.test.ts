/** Programs of Debian's accel-config and accel-config-test, as they are. */
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildMachine, compileShim, ExecServer, native, runProgram } from '../src/index.js';

const program = '/usr/libexec/accel-config/test/dsa_test';
const there = existsSync(program) && existsSync('/usr/bin/accel-config');
if (!there) console.log('left out: programs of accel-config-test are not installed (apt-get install accel-config accel-config-test)');

/** What 3.5.3's own runner script runs; delta records there have sizes that are no multiple of 10, which the device refuses with 0x15. */
const operations = [0x0, 0x3, 0x4, 0x5, 0x6, 0x9, 0x10, 0x11];

test.runIf(there)(
  'dsa_test: operations on a dedicated and a shared queue, block on fault on and off, single and in batches; nothing is left',
  async () => {
    const machine = buildMachine(native());
    const server = new ExecServer(native(), machine);
    const shim = compileShim();
    const failed: string[] = [];
    try {
      for (const op of operations)
        for (const wq of ['0', '1'])
          for (const flags of ['0x1', '0x0'])
            for (const bytes of ['1', '4096', '99991'])
              for (const what of [
                ['-o', `0x${op.toString(16)}`],
                ['-o', '0x1', '-b', `0x${op.toString(16)}`, '-c', '16'],
              ]) {
                const args = ['-w', wq, '-l', bytes, '-f', flags, ...what];
                const { code, output } = await runProgram(server, shim, program, args, { stdio: 'pipe' });
                if (code !== 0 || output.includes('[error]')) failed.push(`${args.join(' ')}: ${code} ${output}`);
              }
      expect(failed).toEqual([]);
      expect(server.alive).toEqual({ processes: 0, files: 0, memories: 0 });
      expect(server.counts.movdir64b).toBeGreaterThan(0);
      expect(server.counts.enqcmd).toBeGreaterThan(0);
    } finally {
      server.close();
    }
  },
);

test.runIf(there)('accel-config list shows the queues; a refused write has its errno; a shell redirection takes effect', async () => {
  const server = new ExecServer(native(), buildMachine(native()));
  const shim = compileShim();
  const sh = (line: string) => runProgram(server, shim, '/bin/sh', ['-c', line], { stdio: 'pipe' });
  try {
    const { output } = await runProgram(server, shim, 'accel-config', ['list'], { stdio: 'pipe' });
    expect(JSON.parse(output)[0].groups[0].grouped_workqueues.map((wq: { dev: string; state: string }) => [wq.dev, wq.state])).toEqual([
      ['wq0.0', 'enabled'],
      ['wq0.1', 'enabled'],
    ]);
    const wq = '/sys/bus/dsa/devices/wq0.0';
    expect((await sh(`echo 7 | dd of=${wq}/size`)).output).toMatch(/Operation not permitted/);
    expect((await sh(`bash -c "echo wq0.0 > /sys/bus/dsa/drivers/user/unbind"; cat ${wq}/state`)).output).toMatch(/disabled/);
  } finally {
    server.close();
  }
});
