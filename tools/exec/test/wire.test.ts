/** The wire format stands in shim/wire.h and in src/wire.ts: a compiler says whether they agree. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as wire from '../src/wire.js';

test('numbers, sizes and offsets are those of the header', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'siov-wire-'));
  const { Op, Kind, Slot, Ring, Region, Request, Reply, SlotStatus, Answer } = wire;
  const want: Record<string, number> = {
    SIOV_VERSION: wire.VERSION,
    SIOV_SLOTS: wire.SLOTS,
    SIOV_REGIONS: wire.REGIONS,
    SIOV_PAYLOAD: wire.PAYLOAD,
    SIOV_HELLO: Op.hello,
    SIOV_OPEN: Op.open,
    SIOV_SYNC: Op.sync,
    SIOV_IOCTL: Op.ioctl,
    SIOV_MMAP: Op.mmap,
    SIOV_MUNMAP: Op.munmap,
    SIOV_READ: Op.read,
    SIOV_WRITE: Op.write,
    SIOV_WAKE: Op.wake,
    SIOV_TRAP: Op.trap,
    SIOV_PIECE: Op.piece,
    SIOV_POLL: Op.poll,
    SIOV_WAIT: wire.WAIT,
    SIOV_REVOKED: wire.REVOKED,
    SIOV_MOVDIR64B: Kind.movdir64b,
    SIOV_ENQCMD: Kind.enqcmd,
    SIOV_EMPTY: SlotStatus.empty,
    SIOV_WAITS: SlotStatus.waits,
    SIOV_ANSWERED: SlotStatus.answered,
    SIOV_DONE: Answer.done,
    SIOV_RETRY: Answer.retry,
    SIOV_BUS_ERROR: Answer.busError,
    SIOV_PROTECTION: Answer.protection,
    SIOV_NOT_OURS: Answer.notOurs,
  };
  for (const [type, fields] of Object.entries({ request: Request, reply: Reply, slot: Slot, region: Region, ring: Ring }))
    for (const [field, at] of Object.entries(fields))
      want[field === 'size' ? `sizeof(struct siov_${type})` : `offsetof(struct siov_${type}, ${field})`] = at;
  const lines = Object.keys(want).map((name) => `printf("%zu\\n", (size_t)(${name}));`);
  writeFileSync(join(folder, 'a.c'), `#include <stddef.h>\n#include <stdio.h>\n#include "wire.h"\nint main(void) { ${lines.join('\n')} }\n`);
  const include = fileURLToPath(new URL('../shim', import.meta.url));
  const built = spawnSync('cc', ['-I', include, '-o', join(folder, 'a'), join(folder, 'a.c')], { encoding: 'utf8' });
  if (built.error) {
    console.log('left out: the comparison of the wire format needs a C compiler');
    context.skip();
  }
  expect(built.stderr).toBe('');
  const got = spawnSync(join(folder, 'a'), { encoding: 'utf8' }).stdout.trim().split('\n');
  rmSync(folder, { recursive: true });
  expect(Object.fromEntries(Object.keys(want).map((name, i) => [name, Number(got[i])]))).toEqual(want);
});
