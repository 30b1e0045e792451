/** A whole accelerator in a program, through VFIO: container and group, or device node and /dev/iommu. Rules: linux/vfio.h, linux/iommufd.h. */
import { expect, test } from 'vitest';
import { buildMachine, compileShim, ExecServer, MachineError, native, runProgram, start } from '../src/index.js';
import { compiled, held, missing } from './rig.js';

/** What a program may leave in the machine: pinned pages, domains, memory of page tables. */
function left(server: ExecServer) {
  const { host, foreign } = server.machine;
  const { next, freed } = Reflect.get(host.kernel.iommu, 'context') as { readonly next: number; readonly freed: readonly number[] };
  return { ...held(server), pinned: foreign.pins.pages, domains: next - freed.length, frames: host.frames.used };
}
const ways = ['group', 'cdev'];

test.skipIf(missing).each(ways)('%s: set up by registers, copies by MOVDIR64B and I/O virtual addresses, MSI-X, mappings that go', async (way) => {
  const server = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-spr:vfio-pci'] }));
  try {
    const run = () => runProgram(server, compileShim(), compiled('vfio'), [way], { stdio: 'pipe' });
    expect(await run()).toEqual({ code: 0, signal: null, output: '' });
    const before = left(server);
    expect(before).toMatchObject({ pinned: 0, files: 0 });
    expect(await run()).toEqual({ code: 0, signal: null, output: '' });
    expect(left(server)).toEqual(before);
  } finally {
    server.close();
  }
});

test.skipIf(missing).each(ways)('%s: kill -9 while the device works: nothing is left, and the next program has it', async (way) => {
  const server = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-spr:vfio-pci'] }));
  try {
    const program = compiled('vfio');
    await runProgram(server, compileShim(), program, [way], { stdio: 'pipe' });
    const before = left(server);
    for (let i = 0; i < 5; i++) {
      const { child, ended } = start(server, compileShim(), program, [way, 'hold'], { stdio: 'pipe' });
      let output = '';
      let signal: string | null | undefined;
      let pinned = 0;
      void ended.then((how) => {
        signal = how.signal;
      });
      child.stderr!.on('data', (text: Buffer) => (output += text.toString()));
      child.stdout!.on('data', () => {
        pinned = server.machine.foreign.pins.pages;
        setTimeout(() => child.kill('SIGKILL'), 3 * i);
      });
      await server.run(() => signal !== undefined);
      expect({ signal, output, pinned }).toEqual({ signal: 'SIGKILL', output: '', pinned: 1025 });
      expect(left(server)).toEqual(before);
    }
    console.log(`vfio ${way}: 5 killed; left: ${JSON.stringify(left(server))}`);
    expect(await runProgram(server, compileShim(), program, [way], { stdio: 'pipe' })).toEqual({ code: 0, signal: null, output: '' });
  } finally {
    server.close();
  }
});

test.skipIf(missing).each(ways)('%s: no more pages are pinned than the limit', async (way) => {
  const server = new ExecServer(native(), buildMachine(native(), { devices: ['dsa-spr:vfio-pci'], lockedPages: 1024 }));
  try {
    const { code, output } = await runProgram(server, compileShim(), compiled('vfio'), [way], { stdio: 'pipe' });
    expect({ code, output: /not so: map.*errno 12/.test(output), pinned: server.machine.foreign.pins.pages }, output).toEqual({
      code: 1,
      output: true,
      pinned: 0,
    });
  } finally {
    server.close();
  }
});

test('a driver or device that there is not is named, with those that there are', () => {
  const build = (device: string) => () => buildMachine(native(), { devices: [device] });
  expect(build('dsa-spr:vfio')).toThrow(MachineError);
  expect(build('dsa-spr:vfio')).toThrow(/no driver 'vfio' for dsa-spr; after the colon stands one of idxd, uacce, vfio-pci/);
  expect(build('dsa-spr:vfio-pci:1')).toThrow(/no driver 'vfio-pci:1'/);
  expect(build('dsb:vfio-pci')).toThrow(/no device 'dsb'/);
});
