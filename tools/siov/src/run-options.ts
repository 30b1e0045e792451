/** Options of the commands that run a workload. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { type IaxProfile, iax2, sprIax } from '@siov/idxd-device/iax';
import { Flag, IaaCap } from '@siov/idxd-device/spec';
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
import { type AnalyticsOp, type AnalyticsOperation, analyticsOperations, analyticsOps, isAnalyticsOp, type Version } from './analytics-ops.js';
import type { Mode } from './model.js';
import { bytesOf, integerOf, type Option, oneOfWords, type Parsed, sizeText, UsageError } from './options.js';
import { fileSource } from './source.js';

/** Devices by the names of the command line. */
export const devices: Readonly<Record<string, Profile>> = Object.fromEntries([sprDsa, gnrD, sprIax, iax2].map((profile) => [profile.name, profile]));
export const isAnalytics = (profile: Profile): profile is IaxProfile => 'history' in profile;
export const deviceOption: Option = {
  name: 'device',
  value: 'NAME',
  help: `accelerator: ${Object.keys(devices).join(', ')}`,
  default: sprDsa.name,
  parse: oneOfWords(...Object.keys(devices)),
};
const injections = ['reserved-field', 'opcode', 'foreign-address', 'kill', 'unbind'] as const;

export const runOptions: readonly Option[] = [
  {
    name: 'op',
    value: 'OP',
    help: `operation: ${workloadOps.join(', ')}; of an analytics accelerator (run alone) ${analyticsOps.join(', ')}`,
    default: 'memmove',
    parse: oneOfWords(...workloadOps, ...analyticsOps),
  },
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
  { name: 'output', value: 'FILE', help: 'of an analytics accelerator: where what it makes of the file is written' },
  { name: 'history', value: 'BYTES', help: 'of an analytics accelerator: how far back a match may begin, 256 to 32K', parse: historyOf },
  { name: 'costs', value: 'FILE', help: "JSON with rows that replace the cost table's (see 'siov costs')" },
  { name: 'trace', value: 'FILE', help: 'write a Chrome trace that Perfetto opens' },
  { name: 'json', help: 'print JSON for machines' },
  { name: 'help', help: 'this text' },
];

function historyOf(text: string, bad: (why: string) => never): number {
  const bytes = bytesOf(256, 32768)(text, bad);
  return Number.isInteger(Math.log2(bytes)) ? bytes : bad(`'${text}' is not a power of two`);
}
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
  /** An operation of an analytics accelerator, instead of the workload's. */
  readonly analytics?: { readonly op: AnalyticsOp; readonly output?: string };
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
  const op = (values.op as WorkloadOp | AnalyticsOp) ?? 'memmove';
  const size = (values.size as number) ?? 4096;
  const batch = (values.batch as number) ?? 1;
  const wqSize = (values['wq-size'] as number) ?? 128;
  const depth = (values.depth as number) ?? Math.min(32, wqSize);
  if (depth > wqSize) throw new UsageError(`--depth ${depth} is more than the queue's ${wqSize} entries: lower it, or raise --wq-size (up to 128)`);
  if (depth * batch > 4096) throw new UsageError(`--depth times --batch is at most 4096, not ${depth * batch}`);
  const analytics = isAnalyticsOp(op);
  const {
    opcode,
    granule = 1,
    most,
    empty,
  }: Pick<WorkloadOperation, 'opcode' | 'granule' | 'most' | 'empty'> = analytics ? analyticsOperations[op] : workloadOperations[op];
  const chosen = (values.device as string) ?? (analytics ? [sprIax, iax2].find((profile) => profile.operations.includes(opcode))!.name : sprDsa.name);
  const device = withHistory(devices[chosen]!, values.history as number | undefined);
  if (!device.operations.includes(opcode)) {
    const other = Object.values(devices).find((profile) => profile.operations.includes(opcode))!;
    throw new UsageError(`${device.name} does not offer ${op}: take --device ${other.name}`);
  }
  if (size % granule !== 0) throw new UsageError(`--size for ${op} is a multiple of ${granule} bytes, not ${size}`);
  if (most !== undefined && size > most) throw new UsageError(`--size for ${op} is at most ${sizeText(most)}`);
  if (op === 'drain' && batch > 1) throw new UsageError('a drain cannot be in a batch: leave --batch out');
  const ramBytes = (values.ram as number) ?? 256 << 20;
  if (analytics) analyticsOnly(op, command, { size, depth, batch, ramBytes, version: versionOf(device) }, values);
  else if (isAnalytics(device) && command !== 'run')
    throw new UsageError(`${device.name} cannot be shared with a guest: 'siov run --device ${device.name}'`);
  else if (values.output) throw new UsageError(`--output is for operations of an analytics accelerator: ${analyticsOps.join(', ')}`);
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
    ramBytes,
    ...(values.scatter === undefined ? {} : { scatter: values.scatter as number }),
    blockOnFault,
    costs,
    ...(values.trace ? { tracePath: values.trace as string } : {}),
    json: values.json === true,
    ...(happening ? { happening } : {}),
    ...(analytics ? { analytics: { op, ...(values.output ? { output: values.output as string } : {}) } } : {}),
    open: () => fileSource(file),
    workload: {
      // Of no consequence where another program runs.
      op: analytics ? 'nop' : op,
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

/** What an analytics accelerator of this profile does by itself. */
export const versionOf = (profile: Profile): Version => ({
  makesHeaders: IaaCap.get.headerGeneration(Uint32Array.of(profile.iaaCapabilities ?? 0, 0), 0) === 1,
  history: isAnalytics(profile) ? profile.history : 0,
});
/** A profile with another history, where it has one. */
function withHistory(profile: Profile, history: number | undefined): Profile {
  if (history === undefined) return profile;
  if (!('history' in profile))
    throw new UsageError(`--history: ${profile.name} has none; analytics accelerators are ${sprIax.name} and ${iax2.name}`);
  const other: IaxProfile = { ...profile, history };
  return other;
}
/** Refuses what an analytics accelerator's operation cannot be combined with. */
function analyticsOnly(
  op: AnalyticsOp,
  command: string,
  {
    size,
    depth,
    batch,
    ramBytes,
    version,
  }: { readonly size: number; readonly depth: number; readonly batch: number; readonly ramBytes: number; readonly version: Version },
  values: Parsed['values'],
): void {
  if (command !== 'run') throw new UsageError(`${op} is an operation of an analytics accelerator: 'siov run --op ${op}'`);
  if (batch > 1) throw new UsageError('an analytics accelerator has no batches: leave --batch out');
  if (values.inject) throw new UsageError(`--inject is not for ${op}`);
  if (values.output && op === 'crc64') throw new UsageError('--output: crc64 writes nothing; its result is in the record');
  const { room, firstRoom, secondRoom, stream }: AnalyticsOperation = analyticsOperations[op];
  const bytes = ((firstRoom?.(size) ?? size) + room(size) + (secondRoom?.(size, version) ?? 0)) * (stream ? 1 : depth);
  if (bytes > ramBytes / 2)
    throw new UsageError(
      `the buffers of ${depth} descriptors have ${sizeText(Math.ceil(bytes / 2 ** 20) * 2 ** 20)}: lower --size or --depth, or raise --ram`,
    );
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
  `${sizeText(bytes)} in descriptors of ${sizeText(c.workload.size)}, ${c.analytics?.op ?? c.workload.op}, depth ${c.workload.depth}${(c.workload.batch ?? 1) > 1 ? `, batches of ${c.workload.batch}` : ''}, ${c.mode} work queue of ${c.wqSize}`;
