/** The server against those whom no shim restrains, and many at once. */
import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type ExecServer, runProgram, start } from '../src/index.js';
import { compiled, held, missing, serving } from './rig.js';

/** A process without the shim, while the server serves. */
async function plain(server: ExecServer, program: string, args: readonly string[], uid?: number) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...(uid === undefined ? {} : { uid, gid: uid }) });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += text.toString()));
  let code: number | null | undefined;
  child.once('close', (how) => {
    code = how;
  });
  await server.run(() => code !== undefined);
  return { code, output };
}

test.skipIf(missing)('packets, rings and handles of random bytes: the server lives, nothing is left, and programs go on', async () => {
  const garbage = compiled('garbage');
  const program = compiled('threads');
  await serving(async (server, shim) => {
    for (const seed of [1, 20261124, 777]) expect(await plain(server, garbage, [server.root, String(seed), '40'])).toEqual({ code: 0, output: '' });
    expect((await runProgram(server, shim, program, [], { stdio: 'pipe' })).output).toBe('');
  });
});

test.skipIf(missing)("another user's process: the folder lets it in nowhere, and the sockets send it away", async (context) => {
  if (process.getuid!() !== 0) {
    console.log('left out: a process of another user can be started by root alone');
    context.skip();
  }
  const stranger = join('/var/tmp', `siov-stranger-${process.pid}`);
  copyFileSync(compiled('stranger'), stranger);
  chmodSync(stranger, 0o755);
  try {
    await serving(async (server) => {
      expect(await plain(server, stranger, [server.root, 'folder'], 65534)).toEqual({ code: 0, output: '' });
      chmodSync(server.root, 0o711);
      expect(await plain(server, stranger, [server.root, 'folder'], 65534)).toEqual({ code: 0, output: '' });
      for (const name of ['socket', 'files']) chmodSync(join(server.root, name), 0o777);
      expect(await plain(server, stranger, [server.root, 'peer'], 65534)).toEqual({ code: 0, output: '' });
      expect(server.counts.processes).toBe(0);
    });
  } finally {
    rmSync(stranger);
  }
});

test.skipIf(missing)(
  '8 processes of 4 threads on one shared queue, some killed at random: the data of all others is right, nothing is left',
  async () => {
    // SIOV_STRESS_MS: how long; SIOV_STRESS_SEED: another run.
    const ms = Number(process.env.SIOV_STRESS_MS ?? 4000);
    const program = compiled('stress');
    await serving(async (server, shim) => {
      const { code, output } = await runProgram(server, shim, program, [String(ms), process.env.SIOV_STRESS_SEED ?? '1'], { stdio: 'pipe' });
      console.log(`stress: ${output.trim()}; left: ${JSON.stringify(held(server))}`);
      expect({ code, output }).toMatchObject({ code: 0 });
      expect(output).toMatch(/ 0 wrong/);
    });
  },
  120_000,
);

test.skipIf(missing)('kill -9 at any instant of a program: nothing is left', async () => {
  const program = compiled('threads');
  await serving(async (server, shim) => {
    for (let delay = 0; delay < 60; delay += 2) {
      const { child, ended } = start(server, shim, program, [], { stdio: 'pipe' });
      let over = false;
      void ended.then(() => {
        over = true;
      });
      setTimeout(() => child.kill('SIGKILL'), delay);
      await server.run(() => over);
    }
    expect(await runProgram(server, shim, program, [], { stdio: 'pipe' })).toMatchObject({ code: 0, output: '' });
  });
});
