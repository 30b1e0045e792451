/** Files that ioctls give, and descriptors in their arguments, by a device that does nothing else. open(2), pidfd_getfd(2), eventfd(2). */
import { Errno, Poll } from '@siov/layout/uapi';
import { EventFd, type OpenFile, type Task, WaitQueue } from '@siov/vfs';
import { expect, test } from 'vitest';
import { buildMachine, compileShim, ExecServer, native, runProgram } from '../src/index.js';
import { compiled, held, missing, scratch } from './rig.js';

const Kind = { none: 0, ours: 1, eventfd: 2, other: 3 } as const;

test.skipIf(missing)('real descriptors for files that drivers give; drivers see what real numbers stand for; no signal waits', async () => {
  const machine = buildMachine(native());
  let open = 0;
  const taken: EventFd[] = [];
  const files = new Set<OpenFile>();
  const own: OpenFile = {};
  const data: number[] = [];
  const queue = new WaitQueue();
  const ioctl = (task: Task, number: number, argument: number): number => {
    const give = (): number => {
      const file: OpenFile = {
        ioctl,
        close: () => {
          open--;
          files.delete(file);
        },
      };
      const fd = task.install(file);
      if (fd >= 0) {
        open++;
        files.add(file);
      }
      return fd;
    };
    const file = task.file(argument);
    const word = new Int32Array(1);
    switch (number) {
      case 1:
        return give();
      case 2:
        word[0] = give();
        return task.copyOut(argument, new Uint8Array(word.buffer));
      case 3:
        return give() < 0 || give() < 0 ? -Errno.EIO : 0;
      case 4:
        return file === undefined ? Kind.none : file === own || files.has(file) ? Kind.ours : file instanceof EventFd ? Kind.eventfd : Kind.other;
      case 5:
        if (!(file instanceof EventFd)) return -Errno.EINVAL;
        taken.push(file);
        return 0;
      case 6:
        for (const each of taken) each.signal();
        return taken.length;
      case 7:
        return open;
      case 9:
        data.push(argument);
        queue.wake();
        return 0;
      default:
        taken.length = 0;
        return 0;
    }
  };
  own.ioctl = ioctl;
  own.read = (task, address) => {
    const byte = data.shift();
    return byte === undefined ? queue.park(task) : task.copyOut(address, Uint8Array.of(byte)) || 1;
  };
  own.poll = (task) => {
    queue.park(task);
    return data.length > 0 ? Poll.IN : 0;
  };
  machine.host.kernel.user.register('/dev/siov-test', { open: () => own });
  const server = new ExecServer(native(), machine);
  try {
    const shim = compileShim();
    await runProgram(server, shim, compiled('given'), [scratch()], { stdio: 'pipe' });
    const before = held(server);
    expect(await runProgram(server, shim, compiled('given'), [scratch()], { stdio: 'pipe' })).toEqual({ code: 0, signal: null, output: '' });
    expect(held(server)).toEqual(before);
    expect({ open, files: files.size }).toEqual({ open: 0, files: 0 });
  } finally {
    server.close();
  }
});
