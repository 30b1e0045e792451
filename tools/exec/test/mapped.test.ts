/** What drivers map for programs: frames of RAM, registers that may be shown, and pages that trap; by a device that has all three. mmap(2). */
import { Errno } from '@siov/layout/uapi';
import type { OpenFile, VmArea } from '@siov/vfs';
import { expect, test } from 'vitest';
import { buildMachine, compileShim, ExecServer, native, runProgram } from '../src/index.js';
import { compiled, held, missing } from './rig.js';

const REGISTERS = 0x8_0000;

/** The device's registers: each page counts its loads by traps. */
function registers(passiveReads: boolean) {
  const words = new Uint32Array(2 * 1024);
  words[0] = passiveReads ? 0x100 : 0xabc;
  words[1025] = 0x401;
  const of = (width: number): number => 2 ** (8 * width) - 1;
  return {
    words,
    passiveReads,
    read: (offset: number, width: number) => ((words[Math.floor(offset / 4)]! >>> ((offset % 4) * 8)) & of(width)) >>> 0,
    write: (offset: number, _width: number, value: number) => void (words[offset / 4] = value),
  };
}

test.skipIf(missing)('memory is shared, registers are shown, the rest traps; what is taken away is gone', async () => {
  const machine = buildMachine(native());
  const { host, ram } = machine;
  const bytes = new Uint32Array(ram.bytes.buffer, ram.bytes.byteOffset, ram.bytes.length / 4);
  const spread = Array.from({ length: 8 }, () => host.frames.alloc());
  // Not in order.
  const frames = [spread[5]!, spread[2]!, spread[7]!];
  const [shown, trapping] = [registers(true), registers(false)];
  host.memory.addMmio(REGISTERS, 2, shown);
  host.memory.addMmio(REGISTERS + 16, 2, trapping);
  const areas = new Set<VmArea>();
  let closed = 0;
  let there = true;
  const file: OpenFile = {
    mmap(_task, area) {
      const sources: Record<number, readonly number[]> = {
        0: frames,
        65536: [REGISTERS, REGISTERS + 1],
        131072: [REGISTERS + 16, frames[0]!],
      };
      const source = sources[area.offset];
      if (!source) return -Errno.EPERM;
      if (area.length > source.length * 4096) return -Errno.EINVAL;
      area.dontCopy = true;
      const fill = (page: number): number => {
        if (!there) return -Errno.EIO;
        area.insert(page, source[page]!);
        return 0;
      };
      area.onFault = fill;
      areas.add(area);
      area.onClose = () => {
        areas.delete(area);
        closed++;
      };
      return 0;
    },
    ioctl(task, number, argument) {
      const word = new Uint32Array(1);
      switch (number) {
        case 1:
          task.copyIn(argument, new Uint8Array(word.buffer));
          word[0] = bytes[frames[word[0]!]! * 1024]!;
          return task.copyOut(argument, new Uint8Array(word.buffer));
        case 2:
          bytes[frames[argument]! * 1024] = 0x3000 + argument;
          return 0;
        case 3:
        case 5:
          there = number === 5;
          if (!there) for (const area of areas) area.zap();
          return 0;
        case 4:
          return server.counts.loads;
        case 6:
          return closed;
        default:
          shown.words[0]!++;
          return 0;
      }
    },
  };
  host.kernel.user.register('/dev/siov-map', { open: () => file });
  const server = new ExecServer(native(), machine);
  try {
    const shim = compileShim();
    const run = async () => {
      for (const [i, frame] of frames.entries()) bytes[frame * 1024] = 0x1000 + i;
      shown.words[0] = 0x100;
      server.counts.loads = 0;
      return runProgram(server, shim, compiled('mapped'), [], { stdio: 'pipe' });
    };
    await run();
    const before = held(server);
    const { code, signal, output } = await run();
    expect({ code, signal, output: output.replace(/^left out.*\n/, '') }).toEqual({ code: 0, signal: null, output: '' });
    expect(held(server)).toEqual(before);
    // What was lent is the machine's own memory again, with what was in it.
    expect({ areas: areas.size, word: bytes[frames[0]! * 1024] }).toEqual({ areas: 0, word: 0x5501 });
  } finally {
    server.close();
  }
});
