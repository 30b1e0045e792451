/** `siov serve`: devices on UNIX sockets, for QEMU and other vfio-user clients. */
import { closeSync, openSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { NativeMissingError, NetServer, type PeerName, peers, ServerThread, SocketError } from '@siov/vfio-user';
import { helpText, type Option, oneOfWords, parseOptions, UsageError } from './options.js';
import devices, { counterNames, deviceTable, type Injection, type ServeData } from './serve-devices.js';

/** How a halt asks to be ended, by what a person types. GENSTS, "Reset Type". */
const resets = { software: 'software', flr: 'functionLevel', warm: 'warm', cold: 'cold' } as const;

const options: readonly Option[] = [
  { name: 'socket', value: 'PATH[,PATH...]', help: 'where to listen: one device for each path' },
  {
    name: 'device',
    value: 'NAME',
    help: `what to serve: ${Object.entries(deviceTable)
      .map(([name, { about }]) => `${name} (${about})`)
      .join(', ')}`,
    default: 'dsa-spr',
    parse: oneOfWords(...Object.keys(deviceTable)),
  },
  {
    name: 'peer',
    value: 'NAME',
    help: `whose rules hold where clients differ: ${Object.keys(peers).join(', ')}`,
    default: 'qemu',
    parse: oneOfWords(...Object.keys(peers)),
  },
  { name: 'inject', value: 'FAULT', help: "a fault as soon as the first descriptor is done: 'halt [software|flr|warm|cold]' or 'swerror CODE'" },
  { name: 'wire', value: 'FILE', help: "record what goes over the sockets; 'siov wire FILE' prints it" },
  { name: 'plain', help: 'pass no descriptors (then koffi is not needed): no interrupts, guest memory by messages' },
  { name: 'json', help: 'one line of JSON for each event, for machines' },
  { name: 'help', help: 'this text' },
];
const about = `Serves a device over vfio-user until SIGINT or SIGTERM. A client that goes leaves the device as it is for the next one.

Faults can be made while it runs: type 'halt' (and how software may end it: software, flr, warm, cold) or 'swerror CODE' and Enter; with several
devices, the device's number comes last.

PASIDs, nested translation and shared virtual memory cannot pass this protocol: a guest has dedicated kernel queues, and no user queues.`;

/** What a line asks for; a text says what is wrong with it. */
function parseInjection(line: string, devices: number): Injection | string {
  const words = line.trim().split(/\s+/);
  const [what, second, third] = words;
  const number = (text: string | undefined): number => (text === undefined ? 0 : Number(text));
  const ofDevice = (text: string | undefined): number | string => {
    const device = number(text);
    return Number.isInteger(device) && device >= 0 && device < devices ? device : `there is no device ${text}: they are 0 to ${devices - 1}`;
  };
  if (what === 'halt' && words.length <= 3) {
    const named = second !== undefined && second in resets;
    const device = ofDevice(named ? third : second);
    if (typeof device === 'string') return named || devices > 1 ? device : `'${second}' is not one of ${Object.keys(resets).join(', ')}`;
    return { what, reset: resets[(named ? second : 'software') as keyof typeof resets], device };
  }
  if (what === 'swerror' && words.length >= 2 && words.length <= 3) {
    const error = Number(second);
    if (!(Number.isInteger(error) && error > 0 && error < 0x80)) return `'${second}' is not an error code from 1 to 0x7f`;
    const device = ofDevice(third);
    return typeof device === 'string' ? device : { what, error, device };
  }
  return `'${line.trim()}' is not a fault; faults are 'halt [${Object.keys(resets).join('|')}]' and 'swerror CODE'`;
}

export async function serve(argv: readonly string[]): Promise<number> {
  const { words, values } = parseOptions(argv, options, 'serve');
  if (values.help) {
    process.stdout.write(helpText('siov serve --socket PATH [options]', about, options));
    return 0;
  }
  if (words.length > 0) throw new UsageError(`'${words[0]}' is not an option; a socket is given with --socket PATH`);
  if (values.socket === undefined) throw new UsageError('--socket PATH says where to listen');
  const paths = (values.socket as string).split(',').filter((path) => path !== '');
  if (paths.length === 0) throw new UsageError('--socket: needs a path');
  const device = (values.device as string | undefined) ?? 'dsa-spr';
  const injection = values.inject === undefined ? undefined : parseInjection(values.inject as string, paths.length);
  if (typeof injection === 'string') throw new UsageError(`--inject: ${injection}`);

  const recording = values.wire as string | undefined;
  if (recording !== undefined && values.plain) throw new UsageError('--wire: not together with --plain');
  if (recording !== undefined) writable(recording);
  const output = values.json ? jsonOutput() : textOutput(paths);
  let injected = injection === undefined;
  let failed: Error | undefined;
  let wake = (): void => {};
  let thread: Running;
  try {
    const data: ServeData = { paths, device, ...(recording === undefined ? {} : { wire: recording }) };
    const peer = (values.peer as PeerName | undefined) ?? 'qemu';
    const onClient = (index: number, connected: boolean): void => output.client(index, connected);
    const onError = (error: Error): void => {
      failed = error;
      wake();
    };
    thread = await (values.plain ? plain(data, peer, onClient) : inThread(data, peer, onClient, onError));
  } catch (error) {
    if (error instanceof SocketError || error instanceof NativeMissingError) throw new UsageError(error.message);
    throw error;
  }
  output.listening(device, paths);
  const inject = (what: Injection): void => {
    thread.send(what);
    output.injected(what);
  };
  const lines = createInterface({ input: process.stdin, terminal: false });
  lines.on('line', (line) => {
    if (line.trim() === '') return;
    const what = parseInjection(line, paths.length);
    if (typeof what === 'string') output.problem(what);
    else inject(what);
  });
  const timer = setInterval(() => {
    if (!injected && injection && typeof injection === 'object' && thread.counters[injection.device * counterNames.length]! > 0) {
      injected = true;
      inject(injection);
    }
    output.counters(thread.counters);
  }, 200);
  await new Promise<void>((resolve) => {
    wake = resolve;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  clearInterval(timer);
  lines.close();
  process.stdin.unref?.();
  await thread.stop();
  output.end(thread.counters);
  if (failed) throw failed;
  return 0;
}

/** A file that cannot be made is said before anything is served. */
function writable(path: string): void {
  try {
    closeSync(openSync(path, 'w'));
  } catch (error) {
    throw new UsageError(`--wire: '${path}' cannot be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

/** A server, wherever it runs. */
interface Running {
  readonly counters: Float64Array;
  send(what: Injection): void;
  stop(): Promise<void>;
}
type OnClient = (device: number, connected: boolean) => void;

const inThread = (data: ServeData, peer: PeerName, onClient: OnClient, onError: (error: Error) => void): Promise<Running> =>
  ServerThread.start({
    module: new URL(import.meta.url.endsWith('.ts') ? './serve-devices.ts' : './serve-devices.js', import.meta.url),
    ...{ data, peer, onClient, onError },
    counters: counterNames.length * data.paths.length,
  });

/** In this thread, on node:net. */
async function plain(data: ServeData, peer: PeerName, onClient: OnClient): Promise<Running> {
  const parts = devices(data);
  const server = await NetServer.listen({ devices: parts.devices, peer, onClient });
  const counters = new Float64Array(counterNames.length * data.paths.length);
  return {
    get counters() {
      parts.counters?.(counters);
      return counters;
    },
    send(what) {
      parts.message?.(what, () => {});
      server.poke(what.device);
    },
    async stop() {
      await server.close();
      parts.close?.();
      parts.counters?.(counters);
    },
  };
}

interface Output {
  listening(device: string, paths: readonly string[]): void;
  client(device: number, connected: boolean): void;
  counters(all: Float64Array): void;
  injected(what: Injection): void;
  problem(why: string): void;
  end(all: Float64Array): void;
}

const countersOf = (all: Float64Array, device: number): Record<string, number> =>
  Object.fromEntries(counterNames.map((name, i) => [name, Math.round(all[device * counterNames.length + i]! * 10) / 10]));

function jsonOutput(): Output {
  let last = '';
  const say = (event: object): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
  const devices = (all: Float64Array): object[] => Array.from({ length: Math.floor(all.length / counterNames.length) }, (_, i) => countersOf(all, i));
  return {
    listening: (device, sockets) => say({ event: 'listening', version: 1, device, sockets, qemu: sockets.map(qemuDevice) }),
    client: (device, connected) => say({ event: connected ? 'client' : 'gone', device }),
    counters(all) {
      const now = JSON.stringify({ event: 'counters', devices: devices(all) });
      if (now !== last) process.stdout.write(`${now}\n`);
      last = now;
    },
    injected: (what) => say({ event: 'injected', ...what }),
    problem: (why) => say({ event: 'problem', why }),
    end: (all) => say({ event: 'end', devices: devices(all) }),
  };
}

/** The argument of QEMU's -device. */
const qemuDevice = (path: string): string => JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path } });

function textOutput(paths: readonly string[]): Output {
  const live = process.stdout.isTTY === true;
  let shown = '';
  const line = (text: string): void => {
    process.stdout.write(live && shown ? `\r\x1b[K${text}\n${shown}` : `${text}\n`);
  };
  const name = (device: number): string => (paths.length > 1 ? `device ${device}: ` : '');
  const text = (all: Float64Array): string =>
    paths
      .map((_, i) => {
        const { descriptors, failed, bytes, faults, interrupts, p50, p99 } = countersOf(all, i);
        const took = p50! > 0 ? `; a descriptor takes ${p50!.toFixed(0)} us (p99 ${p99!.toFixed(0)})` : '';
        return `${name(i)}${descriptors} descriptors (${failed} failed), ${bytes} bytes, ${faults} faults, ${interrupts} interrupts${took}`;
      })
      .join('; ');
  return {
    listening(device, sockets) {
      line(`${device} at ${sockets.join(', ')}; ends with Ctrl-C

For QEMU 10.1 or later, started after this (guest memory must be shared, so that the device can reach it):

  -machine q35,memory-backend=mem -object memory-backend-memfd,id=mem,share=on,size=2G -m 2G \\
${sockets.map((path) => `  -device '${qemuDevice(path)}'`).join(' \\\n')}

In a Linux guest with an emulated processor, add setcpuid=movdir64b to the kernel's command line and load a module that carries out MOVDIR64B.
`);
    },
    client: (device, connected) => line(`${name(device)}a client ${connected ? 'came' : 'went; the device keeps its state'}`),
    counters(all) {
      const now = text(all);
      if (!live || now === shown) return;
      shown = now;
      process.stdout.write(`\r\x1b[K${now}`);
    },
    injected: (what) =>
      line(
        `${name(what.device)}injected: ${what.what === 'halt' ? `halt, to be ended by reset '${what.reset}'` : `software error 0x${what.error.toString(16)}`}`,
      ),
    problem: (why) => line(why),
    end(all) {
      shown = '';
      process.stdout.write(`${live ? '\r\x1b[K' : ''}${text(all)}\n`);
    },
  };
}
