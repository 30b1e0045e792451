/** The entry of a server's thread. See thread.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { NativeMissingError } from './native.js';
import { SocketError, VfioUserServer } from './server.js';
import type { ServerModule, ServerParts, ThreadReport, ThreadStart } from './thread.js';

const start = workerData as ThreadStart;
const report = (what: ThreadReport): void => parentPort!.postMessage(what);
/** Milliseconds between two looks of the starting thread at the counters. */
const COUNT_MS = 50;

async function serve(): Promise<void> {
  let parts: ServerParts;
  let server: VfioUserServer;
  try {
    const { default: make } = (await import(start.module)) as { default: ServerModule };
    parts = await make(start.data);
    server = new VfioUserServer({
      ...start.options,
      devices: parts.devices,
      ...(parts.observer ? { observer: parts.observer } : {}),
      onClient: (device, connected) => report({ kind: 'client', device, connected }),
    });
  } catch (error) {
    const known = error instanceof SocketError || error instanceof NativeMissingError || error instanceof RangeError;
    if (!known) throw error;
    report({ kind: 'refused', name: error.name, message: error.message, ...(error instanceof SocketError ? { code: error.code } : {}) });
    return;
  }
  report({ kind: 'ready', wakeFd: server.wakeFd });
  const tell = (answer: unknown): void => report({ kind: 'tell', answer });
  try {
    let counted = 0;
    let received = 0;
    let fresh = true;
    while (Atomics.load(start.stop, 0) === 0) {
      server.step(fresh ? -1 : COUNT_MS);
      for (; received !== Atomics.load(start.stop, 1); received++) {
        const message = receiveMessageOnPort(start.port) as { message: unknown } | undefined;
        if (!message) break;
        parts.message?.(message.message, tell);
        for (const index of parts.devices.keys()) server.poke(index);
      }
      const now = performance.now();
      fresh = now - counted >= COUNT_MS;
      if (!fresh) continue;
      counted = now;
      parts.counters?.(start.counters);
    }
  } finally {
    server.close();
    parts.close?.();
    parts.counters?.(start.counters);
  }
}
await serve();
start.port.close();
