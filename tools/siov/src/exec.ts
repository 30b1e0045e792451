/** `siov exec`: unmodified DSA programs on a machine that has none. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import {
  buildMachine,
  compileShim,
  deviceDrivers,
  deviceProfiles,
  ExecServer,
  injectionHelp,
  type Machine,
  MachineError,
  NativeMissingError,
  native,
  parseInjections,
  runProgram,
  ShimError,
  Watch,
} from '@siov/exec';
import { helpText, type Option, parseOptions, UsageError } from './options.js';
import { nsText, table } from './text.js';
import { ChromeTrace } from './trace.js';

const options: readonly Option[] = [
  {
    name: 'device',
    value: 'NAMES',
    help: `accelerators, with commas between: ${Object.keys(deviceProfiles).join(', ')}; each with a driver, as in dsa-spr:uacce: ${Object.keys(deviceDrivers).join(', ')} (default idxd)`,
    default: 'dsa-spr',
  },
  {
    name: 'config',
    value: 'FILE',
    help: 'a configuration of accel-config; default: a shared and a dedicated queue for user programs on each device',
  },
  {
    name: 'inject',
    value: 'RULES',
    help: `faults on demand, with commas between: ${injectionHelp}`,
    parse(text, bad) {
      const rules = parseInjections(text);
      return typeof rules === 'string' ? bad(rules) : rules;
    },
  },
  {
    name: 'seed',
    value: 'N',
    help: 'of faults that come by chance: the same seed, the same faults',
    default: '1',
    parse: (text, bad) => (/^\d{1,9}$/.test(text) ? Number(text) : bad(`a whole number below 10^9, not '${text}'`)),
  },
  { name: 'trace', value: 'FILE', help: 'what the kernel, the IOMMU and the device do, for Perfetto (ui.perfetto.dev), by the time of the model' },
  { name: 'cost', help: 'beside the counts: the time of each operation on real hardware, by the model (siov costs), and here' },
  { name: 'no-summary', help: 'nothing of our own is printed' },
  { name: 'help', help: 'this text' },
];
const about = `Runs a program that was built for the real device: it finds /sys/bus/dsa and /dev/dsa, maps a portal, and the simulated device answers in the
program's own memory. Without a program: a shell. It is no way to measure the speed of real hardware.

Not seen by it: static binaries, raw system calls, setuid programs. Needs Linux on x86-64, koffi, and once a C compiler.`;

export async function exec(argv: readonly string[]): Promise<number> {
  // Options end where the program begins: its own are none of ours.
  let at = 0;
  while (at < argv.length && argv[at] !== '--' && argv[at]!.startsWith('--')) {
    const option = options.find(({ name }) => name === argv[at]!.slice(2));
    at += option?.value === undefined ? 1 : 2;
  }
  const { values } = parseOptions(argv.slice(0, at), options, 'exec');
  if (values.help) {
    process.stdout.write(helpText('siov exec [options] [--] [PROGRAM ARGUMENTS]', about, options));
    return 0;
  }
  const words = argv.slice(argv[at] === '--' ? at + 1 : at);
  const [program = process.env.SHELL ?? '/bin/sh', ...rest] = words;
  try {
    const shim = compileShim();
    // Who wants to hear nothing pays for no counting.
    const watch = values['no-summary'] && !values.trace ? undefined : new Watch();
    const trace = values.trace ? new ChromeTrace(values.trace as string) : undefined;
    const machine = buildMachine(native(), {
      ...(values.device ? { devices: (values.device as string).split(',') } : {}),
      ...(values.config ? { config: configuration(values.config as string) } : {}),
      ...(watch ? { trace: watch } : {}),
    });
    // Not how the machine came to be, but what programs do with it.
    const before = interruptsOf(machine);
    if (watch) watch.clock = machine.host.clock;
    if (watch && trace) {
      const track = trace.machine(1, 'siov exec');
      track.clock = machine.host.clock;
      watch.next = track;
    }
    const rules = values.inject as Exclude<ReturnType<typeof parseInjections>, string> | undefined;
    const server = new ExecServer(native(), machine, rules ? { inject: { rules, seed: (values.seed as number | undefined) ?? 1 } } : {});
    // A terminal's interrupt is the program's to answer.
    process.on('SIGINT', () => {});
    try {
      if (words.length === 0 && !values['no-summary']) process.stderr.write(welcome(machine, program));
      const { code, signal } = await runProgram(server, shim, program, rest);
      if (watch && !values['no-summary'] && server.counts.processes > 0) process.stderr.write(summary(server, watch, before, values.cost === true));
      return signal ? 128 + constants.signals[signal] : code;
    } finally {
      server.close();
      await trace?.close();
    }
  } catch (error) {
    if (error instanceof MachineError || error instanceof NativeMissingError || error instanceof ShimError) throw new UsageError(error.message);
    throw error;
  }
}

const interruptsOf = ({ host }: Machine): number => host.devices.reduce((sum, { traffic }) => sum + traffic.msix + traffic.ims, 0);

const welcome = ({ drivers }: Machine, shell: string): string =>
  `siov exec: ${shell}, with ${drivers.map(({ name }) => name).join(' and ')}; accel-config, dsa_test and others find them. 'exit' ends it.\n`;

/** What programs did with the device, when they have ended. */
function summary({ counts, machine }: ExecServer, watch: Watch, before: number, cost: boolean): string {
  const { movdir64b, enqcmd, retries, traps, trapMs, injected } = counts;
  const interrupts = interruptsOf(machine) - before;
  const faults = machine.foreign.counts.absent;
  const said = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;
  const lines = [
    `${said(counts.processes, 'process', 'processes')}, ${said(counts.calls, 'call')}, ${movdir64b} MOVDIR64B, ${enqcmd} ENQCMD (${said(retries, 'retry', 'retries')})`,
    `${said(traps, 'trap')} (${trapMs.toFixed(1)} ms in them), ${said(faults, 'access', 'accesses')} without a page, ${said(interrupts, 'interrupt')}${injected ? `, ${said(injected, 'fault')} on demand` : ''}`,
  ];
  const { operations } = watch;
  if (operations.length > 0) {
    const rows = operations.map(({ name, count, statuses, modelledNs, hereNs, timed }) => [
      name,
      String(count),
      ...(cost ? (timed ? [nsText(modelledNs / timed), nsText(hereNs / timed)] : ['-', '-']) : []),
      [...statuses].map(([status, n]) => `0x${status.toString(16).padStart(2, '0')}: ${n}`).join(', ') || '-',
    ]);
    lines.push(
      ...table(rows, ['operation', 'descriptors', ...(cost ? ['hardware, modelled', 'here'] : []), 'status other than success']).split('\n'),
    );
  }
  return lines.map((line) => `siov exec: ${line}\n`).join('');
}

function configuration(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--config: cannot read '${path}': ${(error as NodeJS.ErrnoException).code}`);
  }
}
