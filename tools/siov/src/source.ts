/** Files as sources of a workload: read piece by piece, so that a file may be larger than the simulated memory. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Source } from '@siov/stack';
import { UsageError } from './options.js';

export function fileSource(path: string): Source & { close(): void } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(
      code === 'ENOENT' ? `there is no file '${path}'; give the path of a file with some bytes in it` : `cannot read '${path}': ${code}`,
    );
  }
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw new UsageError(`'${path}' is not a file`);
  if (stat.size === 0) throw new UsageError(`'${path}' is empty; give a file with some bytes in it`);
  return {
    bytes: stat.size,
    read(offset, into) {
      let done = 0;
      while (done < into.length) {
        const n = readSync(fd, into, done, into.length - done, offset + done);
        if (n === 0) break;
        done += n;
      }
      return done;
    },
    close: () => closeSync(fd),
  };
}
