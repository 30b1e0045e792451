/**
 * Programs in C, one for each way in which programs use the machine beyond plain calls: each says itself what does not hold. Rules:
 * Linux drivers/dma/idxd/cdev.c, Intel SDM 2 (MOVDIR64B, ENQCMD, UMWAIT), signal(7), the DSA specification's completion records.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runProgram } from '../src/index.js';
import { compiled, missing, nothing, programs, scratch, serving } from './rig.js';

test.skipIf(missing).each(programs.map((name) => ({ name })))('program: $name', async ({ name }) => {
  const program = compiled(name);
  await serving(async (server, shim) => {
    const args = name === 'paths' ? [mkdtempSync(join(scratch(), 'paths-'))] : [];
    const { code, signal, output } = await runProgram(server, shim, program, args, { stdio: 'pipe' });
    expect({ code, signal, output }, output).toMatchObject({ code: 0, signal: null });
    expect(server.alive).toEqual(nothing);
  });
});
