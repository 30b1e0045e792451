/**
 * The server on node:net alone, for where koffi is not to be had. No descriptor passes: a client's memory is reached by messages, interrupts cannot be
 * delivered (SET_IRQS carries them as descriptors; a client that sends some is answered as if there were none), and no region can be mapped.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { DmaSpace } from './dma.js';
import { Framer } from './framer.js';
import { MAX_MESSAGE } from './limits.js';
import type { Channel } from './ports.js';
import type { ServedDevice, ServerOptions } from './server.js';
import { SocketError } from './server.js';
import { Session } from './session.js';

/** How long a device works before sockets are looked at. */
const TURN_MS = 0.5;
/** Bytes that a client leaves unread before nothing more is read from it. */
const UNREAD = 1 << 20;

export class NetServer {
  readonly #slots: readonly NetSlot[];

  private constructor(slots: readonly NetSlot[]) {
    this.#slots = slots;
  }

  /** Listens when this is done. Throws SocketError. */
  static async listen(options: Pick<ServerOptions, 'devices' | 'peer' | 'onClient'>): Promise<NetServer> {
    const slots = options.devices.map((served, index) => new NetSlot(served, index, options));
    const server = new NetServer(slots);
    try {
      for (const slot of slots) await slot.listen();
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  dma(device = 0): DmaSpace {
    return this.#slots[device]!.dma;
  }
  /** A device has work though nothing came from its client. */
  poke(device = 0): void {
    this.#slots[device]!.work();
  }
  async close(): Promise<void> {
    for (const slot of this.#slots) await slot.close();
  }
}

class NetSlot {
  readonly dma = new DmaSpace();
  readonly #served: ServedDevice;
  readonly #index: number;
  readonly #options: Pick<ServerOptions, 'peer' | 'onClient'>;
  readonly #server: Server;
  #session: Session | undefined;
  #socket: Socket | undefined;
  #scheduled: NodeJS.Immediate | undefined;
  #open = false;

  constructor(served: ServedDevice, index: number, options: Pick<ServerOptions, 'peer' | 'onClient'>) {
    this.#served = served;
    this.#index = index;
    this.#options = options;
    // One client at a time; the next one is closed at once.
    this.#server = createServer((socket) => (this.#session ? socket.destroy() : this.#accept(socket)));
  }

  async listen(): Promise<void> {
    const { path, device } = this.#served;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) =>
        reject(new SocketError(path, error.code ?? '', `it cannot be made (${error.code})`)),
      );
      this.#server.listen(path, resolve);
    });
    device.attach(this.dma, -1);
    device.open();
    this.#open = true;
  }
  async close(): Promise<void> {
    if (this.#scheduled) clearImmediate(this.#scheduled);
    this.#socket?.destroy();
    this.#session?.end();
    if (!this.#open) return;
    this.#open = false;
    this.#served.device.close();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  work(): void {
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined;
      if (this.#session?.migration.idle) return;
      const end = performance.now() + TURN_MS;
      if (this.#served.device.run?.(() => performance.now() >= end)) this.work();
    });
  }

  #accept(socket: Socket): void {
    const out = new Uint8Array(MAX_MESSAGE + 4096);
    const channel: Channel = {
      out,
      send: (length, _fds, own) => {
        if (!socket.writable) return;
        socket.write(out.slice(0, length));
        if (!own && socket.writableLength > UNREAD) socket.pause();
      },
    };
    const session = new Session({
      device: this.#served.device,
      dma: this.dma,
      channel,
      peer: this.#options.peer,
      end: () => {
        socket.end();
        if (this.#session !== session) return;
        this.#session = undefined;
        this.#options.onClient?.(this.#index, false);
        this.work();
      },
    });
    const framer = new Framer({
      largest: MAX_MESSAGE,
      message: (bytes, view, at, size) => {
        session.receive(bytes, view, at, size, []);
        return !session.ended && !socket.isPaused();
      },
      broken: () => session.end(),
    });
    this.#session = session;
    this.#socket = socket;
    socket.on('data', (chunk) => {
      const { buffer, byteOffset, length } = chunk;
      framer.push(new Uint8Array(buffer, byteOffset, length), new DataView(buffer, byteOffset, length), length, []);
      this.work();
    });
    socket.on('drain', () => {
      socket.resume();
      framer.resume();
    });
    socket.on('close', () => session.end());
    socket.on('error', () => session.end());
    this.#options.onClient?.(this.#index, true);
  }
}
