/**
 * Garbage per descriptor, as the engine's own trace tells it: this file runs itself with --trace-gc, submits a few million descriptors of
 * each kind, and adds up what every collection freed. `node --import tsx src/garbage.ts [model]`
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Opcode } from '@siov/idxd-device/spec';
import { Driver, mdev, type StackFactory, uacce } from './factory.js';

const WARM = 200_000;
const COUNT = 3_000_000;

/** 64 descriptors of each kind. */
const kinds: Readonly<Record<string, (driver: Driver) => void>> = {
  nop: (driver) => driver.nops(),
  batch: (driver) => driver.batchOfNops(),
  memmove: (driver) => driver.run(Opcode.memmove, 4096),
  fill: (driver) => driver.fill(4096),
  compare: (driver) => driver.run(Opcode.compare, 4096),
  'copy-crc': (driver) => driver.run(Opcode.copyCrc, 4096),
};

function work(factory: StackFactory, kind: string): void {
  const driver = new Driver(factory(), { depth: 64, bytes: 4096 });
  const step = () => kinds[kind]!(driver);
  for (let i = 0; i < WARM; i += 64) step();
  globalThis.gc?.();
  console.log('START');
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < COUNT; i += 64) step();
  console.log(`END ${process.memoryUsage().heapUsed - before}`);
}

function garbagePerDescriptor(name: string, kind: string): number {
  const self = fileURLToPath(import.meta.url);
  const { stdout } = spawnSync(process.execPath, [...process.execArgv, '--expose-gc', '--trace-gc', self, name, kind], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const run = stdout.slice(stdout.indexOf('START'));
  const grown = Number(/END (-?\d+)/.exec(run)?.[1]);
  // "... Scavenge 12.3 (..) -> 4.5 (..) MB": the difference is what was garbage.
  let freed = 0;
  for (const [, before, after] of run.matchAll(/(\d+\.\d+) \([\d.]+\) -> (\d+\.\d+) \([\d.]+\) MB/g))
    freed += (Number(before) - Number(after)) * 2 ** 20;
  return (freed + grown) / COUNT;
}

const factories: Readonly<Record<string, StackFactory>> = {
  'uacce-dedicated': uacce('dedicated'),
  'uacce-shared': uacce('shared'),
  'mdev-dedicated': mdev,
};
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , name = 'uacce-dedicated', kind] = process.argv;
  if (kind) work(factories[name]!, kind);
  else
    for (const model of process.argv[2] ? [name] : Object.keys(factories))
      for (const k of Object.keys(kinds))
        console.log(
          `${model}, ${k}: ${garbagePerDescriptor(model, k).toFixed(2)} bytes of garbage per descriptor over ${COUNT.toLocaleString('en-US')}`,
        );
}
