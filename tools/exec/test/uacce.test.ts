/** A device whose queues programs get through uacce. Rules: Linux drivers/misc/uacce/uacce.c, Documentation/misc-devices/uacce.rst. */
import { sprDsa } from '@siov/idxd-device';
import { Host } from '@siov/stack';
import { expect, test } from 'vitest';
import { ForeignMemory } from '../src/foreign.js';
import { buildMachine, compileShim, ExecServer, native, runProgram, start } from '../src/index.js';
import { offerUacce } from '../src/uacce.js';
import { compiled, held, missing } from './rig.js';

function machine() {
  const ram = native().allocate(64 * 2 ** 20);
  const foreign = new ForeignMemory(native());
  const host = new Host({ devices: [sprDsa], foreign, ram: ram.bytes });
  const offered = offerUacce(host, host.kernel.devices[0]!, 0);
  return { host, foreign, ram, drivers: [offered.driver], offered };
}

test.skipIf(missing)('found by its class, started, used with MOVDIR64B and ENQCMD on plain memory, stopped, told by poll', async () => {
  const server = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-spr:uacce'] }));
  try {
    const run = () => runProgram(server, compileShim(), compiled('uacce'), [], { stdio: 'pipe' });
    await run();
    const before = held(server);
    expect(await run()).toEqual({ code: 0, signal: null, output: '' });
    expect(held(server)).toEqual(before);
  } finally {
    server.close();
  }
});

test.skipIf(missing)('the device goes while programs have queues of it: mappings fault, calls answer ENXIO', async () => {
  const { offered, ...rest } = machine();
  const server = new ExecServer(native(), rest);
  try {
    const { child, ended } = start(server, compileShim(), compiled('uacce'), ['remove'], { stdio: 'pipe' });
    let output = '';
    let code: number | undefined;
    void ended.then((how) => {
      code = how.code;
    });
    child.stderr!.on('data', (text: Buffer) => (output += text.toString()));
    child.stdout!.on('data', () => {
      offered.remove();
      server.look();
      child.stdin!.write('gone\n');
    });
    await server.run(() => code !== undefined);
    expect({ code, output }).toEqual({ code: 0, output: '' });
    expect(server.alive).toEqual({ processes: 0, files: 0, memories: 0 });
  } finally {
    server.close();
  }
});
