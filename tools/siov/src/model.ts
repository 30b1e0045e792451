/** One workload through one model, measured: set-up apart from the run, counts as differences of counters. */
import {
  type CostName,
  type CostTable,
  callsByName,
  difference,
  type Figures,
  type Host,
  hostFigures,
  type KernelInstance,
  type OpenQueue,
  sum,
  type Trace,
  Workload,
  type WorkloadOptions,
  type WorkloadResult,
} from '@siov/stack';
import { type Program, Syscall } from '@siov/vfs';

type Model = 'uacce' | 'mdev';
export type Mode = 'dedicated' | 'shared';

/** A stack that is ready for a workload. */
export interface Ready {
  readonly model: Model;
  readonly host: Host;
  /** Where the program runs: the host's kernel, or the guest's. */
  readonly kernel: KernelInstance;
  /** All kernel instances, host first. */
  readonly kernels: readonly KernelInstance[];
  readonly open: OpenQueue;
  /** A queue for a second process of the same kernel. */
  readonly neighbour: OpenQueue;
  /** Runs programs until nothing can run. */
  run(): void;
  traps(): number;
  /** VM exits by reason so far. */
  exits?(): Record<string, number>;
  /** The driver takes the device back. */
  unbind(): void;
}

export interface Report {
  readonly model: Model;
  readonly mode: Mode;
  readonly setup: { readonly calls: Readonly<Record<string, number>>; readonly virtualNs: number; readonly figures: Figures };
  readonly result: WorkloadResult;
  /** Counts while the workload ran. */
  readonly figures: Figures;
  readonly exits: Readonly<Record<string, number>>;
  /** Counts times costs, by event, in nanoseconds. */
  readonly serialCost: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
  readonly events: readonly string[];
}

/** Something that is made to happen when the work is half done. */
export interface Happening {
  readonly what: string;
  run(): string;
}

export function measure(
  build: (trace: Trace | undefined) => Ready,
  mode: Mode,
  workload: WorkloadOptions,
  costs: CostTable,
  happening: (ready: Ready) => Happening | undefined = () => undefined,
  make: (options: WorkloadOptions, open: OpenQueue) => Program & { readonly result: WorkloadResult } = (options, open) => new Workload(options, open),
  streaming: CostName | undefined = streams[workload.op],
): Report {
  const ready = build(undefined);
  const { host, kernels } = ready;
  const snapshot = (): Figures =>
    sum(hostFigures(host, ready.traps()), kernels.length > 1 ? { systemCalls: kernels.slice(1).reduce((n, k) => n + calls(k), 0) } : {});
  let before: Figures | undefined;
  let setupNs = 0;
  let setupCalls: Record<string, number> = {};
  let exitsBefore: Record<string, number> = {};
  const events: string[] = [];
  const middle = happening(ready);
  const program = make(
    {
      ...workload,
      ready: () => {
        before = snapshot();
        setupNs = host.clock.now;
        setupCalls = Object.assign({}, ...kernels.map((k, i) => prefixed(callsByName(k, Syscall), i)));
        exitsBefore = ready.exits?.() ?? {};
      },
      halfway: () => {
        if (middle) events.push(`${middle.what}: ${middle.run()}`);
      },
    },
    ready.open,
  );
  const task = ready.kernel.user.spawn(program, 'workload');
  ready.run();
  const { result } = program;
  if (!before) throw new Error(`the workload did not start: ${task.signal ?? 'no reason given'}`);
  if (task.signal) events.push(`the workload's process died of ${task.signal}, and alone`);
  const figures = difference(snapshot(), before);
  const faults = kernels.flatMap((k) =>
    k.iommu.faults.map((f) => `${k.name}: fault 0x${f.reason.toString(16)} of requester 0x${f.requesterId.toString(16)}, PASID ${f.pasid}`),
  );
  for (const k of kernels) for (const d of k.drivers) for (const e of d.softwareErrors) events.push(`${k.name}: software error ${JSON.stringify(e)}`);
  const exitsAfter = ready.exits?.() ?? {};
  const exits = Object.fromEntries(Object.entries(exitsAfter).map(([name, n]) => [name, n - (exitsBefore[name] ?? 0)]));
  return {
    model: ready.model,
    mode,
    setup: { calls: setupCalls, virtualNs: setupNs, figures: before },
    result,
    figures,
    exits,
    serialCost: serialCost(figures, result, streaming, mode, costs),
    faults: [...new Set(faults)],
    events,
  };
}

const calls = (kernel: KernelInstance): number => {
  let n = 0;
  for (let call = 0; call < 16; call++) n += kernel.user.counters[call]!;
  return n;
};
const prefixed = (byName: Record<string, number>, instance: number): Record<string, number> =>
  instance === 0 ? byName : Object.fromEntries(Object.entries(byName).map(([name, n]) => [`guest: ${name}`, n]));

/** What each byte of an operation costs. */
const streams: Partial<Record<WorkloadOptions['op'], CostName>> = {
  memmove: 'dsa.streamMove',
  fill: 'dsa.streamFill',
  compare: 'dsa.streamCompare',
  crc: 'dsa.streamCrc',
  'copy-crc': 'dsa.streamCrc',
  dualcast: 'dsa.streamMove',
};

/** What the events would cost one after the other; overlap is in the modelled latency, not here. */
function serialCost(f: Figures, result: WorkloadResult, rate: CostName | undefined, mode: Mode, costs: CostTable): Record<string, number> {
  const ns = (name: CostName): number => costs[name].ns;
  const rows: [string, number][] = [
    [
      `portal writes (${mode === 'shared' ? 'ENQCMD' : 'MOVDIR64B'})`,
      (f.portalWrites! - f.enqcmdRetries!) * ns(mode === 'shared' ? 'cpu.enqcmd' : 'cpu.movdir64b'),
    ],
    ['ENQCMD retries', f.enqcmdRetries! * ns('cpu.enqcmdRetry')],
    ['descriptor processing', f.descriptors! * (ns('dsa.dispatch') + ns('dsa.recordWrite'))],
    ['data streaming', rate ? result.bytes * (costs[rate].nsPerByte ?? 0) : 0],
    ['IOTLB look-ups', f.translations! * ns('iommu.lookup')],
    ['page-walk reads', (f.walkReads! + f.structureReads!) * ns('iommu.walkRead')],
    ['page requests', f.pageRequests! * ns('iommu.pageRequest')],
    ['CPU page faults', f.cpuPageFaults! * ns('os.pageFault')],
    ['traps', f.traps! * ns('vm.exit')],
    ['interrupts', f.interruptsTaken! * ns('irq.message')],
    ['system calls', f.systemCalls! * ns('os.syscall')],
  ];
  return Object.fromEntries(rows.filter(([, n]) => n > 0));
}
