/** `siov exec`: unmodified DSA programs on a machine that has none. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { buildMachine, compileShim, deviceProfiles, ExecServer, MachineError, NativeMissingError, native, runProgram, ShimError } from '@siov/exec';
import { helpText, type Option, parseOptions, UsageError } from './options.js';

const options: readonly Option[] = [
  { name: 'device', value: 'NAMES', help: `accelerators, with commas between: ${Object.keys(deviceProfiles).join(', ')}`, default: 'dsa-spr' },
  {
    name: 'config',
    value: 'FILE',
    help: 'a configuration of accel-config; default: a shared and a dedicated queue for user programs on each device',
  },
  { name: 'no-summary', help: 'nothing of our own is printed' },
  { name: 'help', help: 'this text' },
];
const about = `Runs a program that was built for the real device: it finds /sys/bus/dsa and /dev/dsa, maps a portal, and the simulated device answers in the
program's own memory. Without a program: a shell. It says nothing of the speed of real hardware.

Not seen by it: static binaries, raw system calls, setuid programs. Needs Linux on x86-64, koffi, and once a C compiler.
Not there yet: IAX, mapped memory other than portals, --trace, --cost, --inject.`;

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
    const machine = buildMachine(native(), {
      ...(values.device ? { devices: (values.device as string).split(',') } : {}),
      ...(values.config ? { config: configuration(values.config as string) } : {}),
    });
    const server = new ExecServer(native(), machine);
    // A terminal's interrupt is the program's to answer.
    process.on('SIGINT', () => {});
    try {
      const { code, signal } = await runProgram(server, shim, program, rest);
      const { processes, movdir64b, enqcmd, retries, traps, trapMs } = server.counts;
      if (!values['no-summary'] && processes > 0)
        process.stderr.write(
          `siov exec: ${processes} processes, ${movdir64b} MOVDIR64B, ${enqcmd} ENQCMD (${retries} retries), ${traps} traps (${trapMs.toFixed(1)} ms), ` +
            `${machine.foreign.counts.absent} accesses without a page\n`,
        );
      return signal ? 128 + constants.signals[signal] : code;
    } finally {
      server.close();
    }
  } catch (error) {
    if (error instanceof MachineError || error instanceof NativeMissingError || error instanceof ShimError) throw new UsageError(error.message);
    throw error;
  }
}

function configuration(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--config: cannot read '${path}': ${(error as NodeJS.ErrnoException).code}`);
  }
}
