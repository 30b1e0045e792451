/**
 * The kernel's own tests of VFIO, tools/testing/selftests/vfio of 6.18 and later, as they are: they drive the accelerator by registers and descriptors, and
 * judge themselves. SIOV_KSELFTEST_VFIO names the folder with the programs that `make` there built.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { buildMachine, compileShim, ExecServer, native, runProgram } from '../src/index.js';
import { compiled, held, missing } from './rig.js';

const folder = process.env.SIOV_KSELFTEST_VFIO;
const found = folder !== undefined && existsSync(folder) ? readdirSync(folder).filter((name) => /^vfio_.*_test$/.test(name)) : [];
if (found.length === 0)
  console.log(`left out: the kernel's tests of VFIO: ${folder ? `${folder} has none` : 'SIOV_KSELFTEST_VFIO does not name a folder of them'}`);

/** Exit status of a program that found nothing to run on. tools/testing/selftests/kselftest.h. */
const SKIPPED = 4;

test.skipIf(missing || found.length === 0)(
  "the kernel's tests of VFIO pass on the whole accelerator, and leave nothing",
  { timeout: 300_000 },
  async () => {
    // What is opened once for interrupts of any program.
    const first = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-spr:vfio-pci'] }));
    expect((await runProgram(first, compileShim(), compiled('vfio'), ['cdev'], { stdio: 'pipe' })).code).toBe(0);
    first.close();
    // They ask for the largest transfers that the device says it can do, hundreds at a time.
    const server = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-small:vfio-pci'] }));
    const run = (name: string) => runProgram(server, compileShim(), join(folder!, name), ['0000:00:01.0'], { stdio: 'pipe' });
    try {
      const before = held(server);
      for (const name of found) {
        const { code, output } = await run(name);
        const totals = /^# Totals: (.*)$/m.exec(output)?.[1] ?? 'no totals';
        console.log(`${name}: ${totals}`);
        for (const [, line] of output.matchAll(/^ok \d+ (.* # SKIP .*)$/gm)) console.log(`left out: ${line}`);
        if (code === SKIPPED) console.log(`left out: ${name}: ${output.trim().split('\n').at(-1)}`);
        else expect({ code, failed: /fail:(\d+)/.exec(totals)?.[1] }, output).toEqual({ code: 0, failed: '0' });
        expect({ ...held(server), pinned: server.machine.foreign.pins.pages }).toEqual({ ...before, pinned: 0 });
      }
    } finally {
      server.close();
    }
  },
);
