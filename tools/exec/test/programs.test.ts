/**
 * Programs in C, one for each way in which programs use the machine beyond plain calls: each says itself what does not hold. Rules:
 * Linux drivers/dma/idxd/cdev.c, Intel SDM 2 (MOVDIR64B, ENQCMD, UMWAIT), signal(7), the DSA specification's completion records.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runProgram } from '../src/index.js';
import { compiled, missing, programs, scratch, serving } from './rig.js';

/** Those with tests of their own. */
const others = ['stress', 'garbage', 'stranger', 'statuses', 'given', 'mapped', 'uacce', 'vfio'];

test.skipIf(missing).each(programs.filter((name) => !others.includes(name)).map((name) => ({ name })))('program: $name', async ({ name }) => {
  const program = compiled(name);
  await serving(async (server, shim) => {
    const args = name === 'paths' ? [mkdtempSync(join(scratch(), 'paths-'))] : [];
    const { code, signal, output } = await runProgram(server, shim, program, args, { stdio: 'pipe' });
    if (code === 77) console.log(`left out: ${name}: a process's number can be chosen by root alone`);
    else expect({ code, signal, output }, output).toMatchObject({ code: 0, signal: null });
  });
});
