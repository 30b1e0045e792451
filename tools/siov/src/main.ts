/** The command line of siov. Exit codes: 0 done, 1 a result was wrong, 2 a mistake in the call. */
import { compare } from './compare.js';
import { costs } from './costs.js';
import { curves } from './curves.js';
import { exec } from './exec.js';
import { guest } from './guest.js';
import { inspect } from './inspect.js';
import { UsageError } from './options.js';
import { run } from './run.js';
import { serve } from './serve.js';
import { wire } from './wire.js';

const commands: Readonly<Record<string, (argv: readonly string[]) => Promise<number> | number>> = {
  compare,
  run,
  inspect,
  serve,
  wire,
  guest,
  exec,
  costs,
  curves,
};

const help = `siov: a functional model of Intel Scalable I/O Virtualization

A process, or a process in a guest, hands work to a shared accelerator (Intel DSA). siov builds the whole path in software:
page tables and PASIDs, the IOMMU, work queues and portals, the device, the kernel's drivers, a guest. Two models share the same parts:

  uacce   a process opens a character device; its address space becomes the device's (SVA); it maps a portal and submits
  mdev    the driver cuts a work queue out as a virtual device; a guest's own driver finds it on its PCI bus and drives it

commands:
  siov compare [FILE]   run a file's bytes through both models, check every result, print counts and times side by side
  siov run [FILE]       the same through uacce alone
  siov inspect [PART]   configuration space, registers and tables by field names
  siov serve            put a device on a socket: QEMU shows it to a real Linux guest
  siov exec PROGRAM     run an unmodified DSA program on this machine
  siov guest            boot that guest here, and let its own driver and tools judge the device
  siov wire FILE        what went over such a socket, by field names
  siov costs            the cost table: nanoseconds per event, range, source
  siov curves           published measurements of DSA beside the model, point by point

start with:
  siov compare
  siov compare --size 64K --op crc
  siov run --no-touch            what page faults look like
  siov run --wq shared --depth 64
  siov inspect --lspci | lspci -F /dev/stdin -vv

'siov COMMAND --help' says more.
`;

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    process.stdout.write(help);
    return 0;
  }
  const command = commands[name];
  if (!command) throw new UsageError(`there is no command '${name}'; commands are ${Object.keys(commands).join(', ')} ('siov --help' says more)`);
  return command(rest);
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`siov: ${error.message}\n`);
  process.exitCode = 2;
}
