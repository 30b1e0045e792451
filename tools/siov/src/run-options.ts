/** Options of the commands that run a workload. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { Flag } from '@siov/idxd-device/spec';
import {
  type CostTable,
  defaultCosts,
  type Injection,
  replaceCosts,
  type WorkloadOp,
  type WorkloadOperation,
  type WorkloadOptions,
  workloadOperations,
  workloadOps,
} from '@siov/stack';
import type { Mode } from './model.js';
import { bytesOf, integerOf, type Option, oneOfWords, type Parsed, sizeText, UsageError } from './options.js';
import { fileSource } from './source.js';

/** Devices by the names of the command line. */
export const devices: Readonly<Record<string, Profile>> = { [sprDsa.name]: sprDsa, [gnrD.name]: gnrD };
export const deviceOption: Option = {
  name: 'device',
  value: 'NAME',
  help: `accelerator: ${Object.keys(devices).join(', ')}`,
  default: sprDsa.name,
  parse: oneOfWords(...Object.keys(devices)),
};
const injections = ['reserved-field', 'opcode', 'foreign-address', 'kill', 'unbind'] as const;

export const runOptions: readonly Option[] = [
  { name: 'op', value: 'OP', help: `operation: ${workloadOps.join(', ')}`, default: 'memmove', parse: oneOfWords(...workloadOps) },
  deviceOption,
  { name: 'size', value: 'BYTES', help: 'bytes per descriptor, up to 4M', default: '4K', parse: bytesOf(1, 4 << 20) },
  { name: 'depth', value: 'N', help: 'descriptors (or batches) in flight', default: '32', parse: integerOf(1, 128) },
  { name: 'batch', value: 'N', help: 'descriptors in a batch; 1: none', default: '1', parse: integerOf(1, 1024) },
  { name: 'wq', value: 'MODE', help: 'dedicated or shared work queue', default: 'dedicated', parse: oneOfWords('dedicated', 'shared') },
  { name: 'wq-size', value: 'N', help: 'entries of the work queue', default: '128', parse: integerOf(1, 128) },
  { name: 'block-on-fault', help: 'the device asks for absent pages instead of completing in part' },
  { name: 'no-touch', help: 'do not touch the destination first: the device meets absent pages' },
  { name: 'huge', help: 'buffers on 2 MiB pages' },
  { name: 'scatter', value: 'SEED', help: 'scatter 4 KiB pages over physical memory', parse: integerOf(0, 2 ** 31 - 1) },
  { name: 'ram', value: 'BYTES', help: 'memory of the simulated host', default: '256M', parse: bytesOf(2 ** 26, 2 ** 31) },
  { name: 'inject', value: 'KIND[:N]', help: `something goes wrong, at every N-th descriptor: ${injections.join(', ')}`, parse: parseInjection },
  { name: 'costs', value: 'FILE', help: "JSON with rows that replace the cost table's (see 'siov costs')" },
  { name: 'trace', value: 'FILE', help: 'write a Chrome trace that Perfetto opens' },
  { name: 'json', help: 'print JSON for machines' },
  { name: 'help', help: 'this text' },
];

function parseInjection(text: string, bad: (why: string) => never): { kind: (typeof injections)[number]; every: number } {
  const [kind, every = '100'] = text.split(':');
  return {
    kind: oneOfWords(...injections)(kind!, (why) => bad(why)),
    every: integerOf(1, 1e9)(every, (why) => bad(why)),
  };
}

export interface RunChoice {
  readonly file: string;
  readonly mode: Mode;
  readonly device: Profile;
  readonly wqSize: number;
  readonly ramBytes: number;
  readonly scatter?: number;
  readonly blockOnFault: boolean;
  readonly costs: CostTable;
  readonly tracePath?: string;
  readonly json: boolean;
  readonly happening?: 'kill' | 'unbind';
  readonly workload: Omit<WorkloadOptions, 'source'>;
  open(): ReturnType<typeof fileSource>;
}

/** The workload when no file is named: the checkout's lock file, or outside a checkout this program itself. */
function ownFile(): string {
  const lock = fileURLToPath(new URL('../../../pnpm-lock.yaml', import.meta.url));
  return existsSync(lock) ? lock : fileURLToPath(import.meta.url);
}

export function runChoice({ words, values }: Parsed, command: string): RunChoice {
  if (words.length > 1) throw new UsageError(`one file at a time: 'siov ${command} ${words[0]}'`);
  const file = words[0] ?? ownFile();
  const op = (values.op as WorkloadOp) ?? 'memmove';
  const size = (values.size as number) ?? 4096;
  const batch = (values.batch as number) ?? 1;
  const wqSize = (values['wq-size'] as number) ?? 128;
  const depth = (values.depth as number) ?? Math.min(32, wqSize);
  if (depth > wqSize) throw new UsageError(`--depth ${depth} is more than the queue's ${wqSize} entries: lower it, or raise --wq-size (up to 128)`);
  if (depth * batch > 4096) throw new UsageError(`--depth times --batch is at most 4096, not ${depth * batch}`);
  const device = devices[(values.device as string) ?? sprDsa.name]!;
  const { opcode, granule = 1, most, empty }: WorkloadOperation = workloadOperations[op];
  if (!device.operations.includes(opcode)) {
    const other = Object.values(devices).find((profile) => profile.operations.includes(opcode))!;
    throw new UsageError(`${device.name} does not offer ${op}: take --device ${other.name}`);
  }
  if (size % granule !== 0) throw new UsageError(`--size for ${op} is a multiple of ${granule} bytes, not ${size}`);
  if (most !== undefined && size > most) throw new UsageError(`--size for ${op} is at most ${sizeText(most)}`);
  if (op === 'drain' && batch > 1) throw new UsageError('a drain cannot be in a batch: leave --batch out');
  const costs = values.costs ? readCosts(values.costs as string) : defaultCosts;
  const inject = values.inject as { kind: (typeof injections)[number]; every: number } | undefined;
  const blockOnFault = values['block-on-fault'] === true;
  const happening = inject?.kind === 'kill' || inject?.kind === 'unbind' ? inject.kind : undefined;
  const descriptorInjection = inject && !happening ? (inject as Injection) : undefined;
  fileSource(file).close(); // complain before anything is built
  return {
    file,
    mode: (values.wq as Mode) ?? 'dedicated',
    device,
    wqSize,
    ramBytes: (values.ram as number) ?? 256 << 20,
    ...(values.scatter === undefined ? {} : { scatter: values.scatter as number }),
    blockOnFault,
    costs,
    ...(values.trace ? { tracePath: values.trace as string } : {}),
    json: values.json === true,
    ...(happening ? { happening } : {}),
    open: () => fileSource(file),
    workload: {
      op,
      size,
      depth,
      batch,
      ...(blockOnFault && !empty ? { flags: Flag.blockOnFault } : {}),
      hugePages: values.huge === true,
      touch: values['no-touch'] !== true,
      ...(descriptorInjection ? { inject: descriptorInjection } : {}),
      costs: { prepare: costs['cpu.descriptorPrepare'].ns, harvest: costs['cpu.completionHarvest'].ns, notice: costs['cpu.pollNotice'].ns },
      wallClock: () => performance.now(),
    },
  };
}

function readCosts(path: string): CostTable {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--costs: cannot read '${path}': ${(error as NodeJS.ErrnoException).code}`);
  }
  let rows: unknown;
  try {
    rows = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--costs: '${path}' is not JSON: ${(error as Error).message}`);
  }
  const table = replaceCosts(rows);
  if (typeof table === 'string') throw new UsageError(`--costs: ${table}; 'siov costs --json' prints the whole table`);
  return table;
}

export const describeChoice = (c: RunChoice, bytes: number): string =>
  `${sizeText(bytes)} in descriptors of ${sizeText(c.workload.size)}, ${c.workload.op}, depth ${c.workload.depth}${(c.workload.batch ?? 1) > 1 ? `, batches of ${c.workload.batch}` : ''}, ${c.mode} work queue of ${c.wqSize}`;
