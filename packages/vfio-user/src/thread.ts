/**
 * The server in a thread of its own: it waits for its clients, and this one stays free. A thread that waits in a system call cannot be ended from
 * outside, so it waits for a wake-up too, and ends itself.
 */
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { MessageChannel, type MessagePort, Worker, type WorkerOptions } from 'node:worker_threads';
import type { Mapping } from './backing.js';
import type { PeerName } from './peers.js';
import { type Observer, type ServedDevice, SocketError } from './server.js';

/** What a module for `ServerThread` exports as `default`: called once, in the thread. */
export type ServerModule = (data: unknown) => ServerParts | Promise<ServerParts>;
export interface ServerParts {
  readonly devices: readonly ServedDevice[];
  /** Fills the numbers that the starting thread sees in `counters`. */
  counters?(out: Float64Array): void;
  /** A `send` of the starting thread. Answers go back by `tell`. */
  message?(message: unknown, tell: (answer: unknown) => void): void;
  readonly observer?: Observer;
  /** The server has ended; `counters` is called once more. */
  close?(): void;
}
export interface ThreadOptions {
  /** The module. */
  readonly module: URL;
  /** Copied to it. */
  readonly data?: unknown;
  readonly peer?: PeerName;
  readonly twinSocket?: boolean;
  readonly mapping?: Mapping;
  /** How many counters there are (default 0). */
  readonly counters?: number;
  readonly onClient?: (device: number, connected: boolean) => void;
  /** What the module tells. */
  readonly onTell?: (answer: unknown) => void;
  /** The thread ended by itself: something in it threw. */
  readonly onError?: (error: Error) => void;
}

export interface ThreadStart {
  readonly module: string;
  readonly data: unknown;
  readonly options: Pick<ThreadOptions, 'peer' | 'twinSocket' | 'mapping'>;
  /** First: 1 says stop. Second: how many messages were sent. */
  readonly stop: Int32Array;
  readonly counters: Float64Array;
  readonly port: MessagePort;
}
export type ThreadReport =
  | { readonly kind: 'ready'; readonly wakeFd: number }
  | { readonly kind: 'refused'; readonly name: string; readonly message: string; readonly code?: string }
  | { readonly kind: 'client'; readonly device: number; readonly connected: boolean }
  | { readonly kind: 'tell'; readonly answer: unknown };

/** The thread's entry, which lies beside this file: built, or in this project's own workspace as source that tsx loads. */
function newWorker(options: WorkerOptions): Worker {
  if (!import.meta.url.endsWith('.ts')) return new Worker(new URL('./thread-main.js', import.meta.url), options);
  const entry = new URL('./thread-main.ts', import.meta.url).href;
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx/esm/api')).href.replace(/cjs$/, 'mjs');
  const code = `import('${tsx}').then(({ register }) => { register(); return import('${entry}'); })`;
  return new Worker(code, { ...options, eval: true, execArgv: ['--conditions=@siov/source'] });
}

const EIGHT = new Uint8Array(8);
EIGHT[0] = 1;

export class ServerThread {
  /** Written by the thread about 20 times a second. */
  readonly counters: Float64Array;
  readonly #worker: Worker;
  readonly #stop: Int32Array;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #ended: Promise<void>;
  #running = true;
  readonly #atExit = (): void => this.#wake();

  /** Listens when this is done. Throws SocketError, NativeMissingError, and what the module throws. */
  static start(options: ThreadOptions): Promise<ServerThread> {
    const counters = new Float64Array(new SharedArrayBuffer(Math.max(8, (options.counters ?? 0) * 8)));
    const stop = new Int32Array(new SharedArrayBuffer(8));
    const { port1, port2 } = new MessageChannel();
    const { peer, twinSocket, mapping } = options;
    const start: ThreadStart = {
      module: options.module.href,
      data: options.data,
      options: { ...(peer ? { peer } : {}), ...(twinSocket === undefined ? {} : { twinSocket }), ...(mapping ? { mapping } : {}) },
      stop,
      counters,
      port: port2,
    };
    const worker = newWorker({ workerData: start, transferList: [port2] });
    return new Promise((resolve, reject) => {
      let thread: ServerThread | undefined;
      worker.on('message', (report: ThreadReport) => {
        if (report.kind === 'ready') resolve((thread = new ServerThread(worker, stop, counters, port1, report.wakeFd)));
        else if (report.kind === 'refused') {
          const error = report.code ? new SocketError('', report.code, '') : new Error(report.message);
          error.message = report.message;
          error.name = report.name;
          port1.close();
          reject(error);
        } else if (report.kind === 'client') options.onClient?.(report.device, report.connected);
        else options.onTell?.(report.answer);
      });
      worker.on('error', (error) => {
        if (!thread) reject(error);
        else options.onError?.(error);
      });
    });
  }

  private constructor(worker: Worker, stop: Int32Array, counters: Float64Array, port: MessagePort, wakeFd: number) {
    this.#worker = worker;
    this.#stop = stop;
    this.counters = counters;
    this.#port = port;
    port.unref();
    this.#wakeFd = wakeFd;
    process.on('exit', this.#atExit);
    this.#ended = new Promise((resolve) => {
      worker.once('exit', () => {
        this.#running = false;
        process.off('exit', this.#atExit);
        port.close();
        resolve();
      });
    });
  }

  /** To the module's `message`. */
  send(message: unknown): void {
    if (!this.#running) return;
    this.#port.postMessage(message);
    Atomics.add(this.#stop, 1, 1);
    writeSync(this.#wakeFd, EIGHT);
  }
  /** Ends connections, takes the sockets away, and the thread is gone. */
  async stop(): Promise<void> {
    this.#wake();
    await this.#ended;
    await this.#worker.terminate();
  }
  #wake(): void {
    if (!this.#running) return;
    Atomics.store(this.#stop, 0, 1);
    writeSync(this.#wakeFd, EIGHT);
  }
}
