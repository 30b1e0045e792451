/**
 * The client without koffi: over `node:net`, on any system, with promises and as many commands under way as one likes. No descriptors pass, so there are
 * no interrupts, no mapped memory (the server reads and writes `memory` by messages), no I/O descriptors.
 */
import { connect, type Socket } from 'node:net';
import type { ClientOptions } from './client.js';
import { ConnectionLostError, VfioUserError } from './errors.js';
import type { Agreed, ClientRegion, Exchange, SmallWrite } from './exchanges.js';
import * as exchanges from './exchanges.js';
import { Framer } from './framer.js';
import { LARGEST_REPLY, MAX_MESSAGE } from './limits.js';
import { HEADER_BYTES, HeaderFlag } from './spec/protocol.js';

interface Waiting {
  readonly command: number;
  done(payload: Uint8Array): void;
  failed(error: Error): void;
}
type NetClientOptions = Omit<ClientOptions, 'idle'>;
/** Of 65536 numbers; a server answers far fewer at a time. */
const UNDER_WAY = 4096;

export class NetClient {
  readonly #socket: Socket;
  readonly #o: NetClientOptions;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #lost = '';
  #agreed: Agreed = { minor: 0, capabilities: {} };

  /** Connects and negotiates. Rejects with the socket's error, ConnectionLostError, VfioUserError. */
  static async connect(path: string, options: NetClientOptions = {}): Promise<NetClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const client = new NetClient(socket, options);
    try {
      client.#agreed = await client.#ask(exchanges.version(options.capabilities ?? {}));
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  private constructor(socket: Socket, options: NetClientOptions) {
    this.#socket = socket;
    this.#o = options;
    const framer = new Framer({
      largest: LARGEST_REPLY,
      message: (bytes, view, at, size) => {
        this.#message(bytes.slice(at, at + size), view, at);
        return true;
      },
      broken: (why) => this.#end(`the server sent ${why}`),
    });
    socket.on('data', ({ buffer, byteOffset, length }) =>
      framer.push(new Uint8Array(buffer, byteOffset, length), new DataView(buffer, byteOffset, length), length, []),
    );
    socket.on('close', () => this.#end('the server closed the connection'));
    socket.on('error', (error) => this.#end(`the server is gone (${error.message})`));
  }

  /** What the server's VERSION said. */
  get capabilities(): Readonly<Record<string, unknown>> {
    return this.#agreed.capabilities;
  }
  get minor(): number {
    return this.#agreed.minor;
  }
  /** Commands under way end with a ConnectionLostError. */
  close(): void {
    this.#end('closed');
  }
  #end(why: string): void {
    this.#lost ||= why;
    this.#socket.destroy();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const each of waiting) each.failed(new ConnectionLostError(`${exchanges.nameOf(each.command)}: ${this.#lost}`));
  }

  /** One command; the payload of its reply. */
  request(command: number, payload: Uint8Array): Promise<Uint8Array> {
    const { timeoutMs = 5000 } = this.#o;
    return new Promise((resolve, reject) => {
      if (this.#waiting.size >= UNDER_WAY) throw new RangeError(`command: ${UNDER_WAY} are under way, and no more can be`);
      while (this.#waiting.has(this.#nextId)) this.#nextId = (this.#nextId + 1) & 0xffff;
      const id = this.#nextId;
      this.#nextId = (id + 1) & 0xffff;
      this.#send(id, command, 0, 0, payload);
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new ConnectionLostError(`${exchanges.nameOf(command)}: no reply within ${timeoutMs} ms`));
      }, timeoutMs);
      const end = (): void => clearTimeout(timer);
      this.#waiting.set(id, { command, done: (reply) => (end(), resolve(reply)), failed: (error) => (end(), reject(error)) });
    });
  }
  async #ask<T>({ command, payload, answer }: Exchange<T>): Promise<T> {
    return answer(await this.request(command, payload), []);
  }
  /** A command that nobody answers. */
  post(command: number, payload: Uint8Array): void {
    this.#send(this.#nextId++ & 0xffff, command, HeaderFlag.NO_REPLY, 0, payload);
  }

  deviceInfo(): Promise<{ readonly flags: number; readonly regions: number; readonly irqs: number }> {
    return this.#ask(exchanges.deviceInfo());
  }
  async regionInfo(index: number): Promise<ClientRegion> {
    let info = await this.#ask(exchanges.regionInfo(index));
    while (typeof info === 'number') info = await this.#ask(exchanges.regionInfo(index, info));
    return info;
  }
  irqInfo(index: number): Promise<{ readonly flags: number; readonly count: number }> {
    return this.#ask(exchanges.irqInfo(index));
  }
  /** `flags`: IrqSetFlag, with no data or `bools`: eventfds cannot pass. */
  setIrqs(flags: number, index: number, start: number, count: number, bools: readonly number[] = []): Promise<void> {
    return this.#ask(exchanges.setIrqs(flags, index, start, count, [], bools));
  }
  regionRead(region: number, offset: number, count: number): Promise<Uint8Array> {
    return this.#ask(exchanges.regionRead(region, offset, count));
  }
  regionWrite(region: number, offset: number, data: Uint8Array): Promise<void> {
    return this.#ask(exchanges.regionWrite(region, offset, data));
  }
  /** A posted write, as QEMU sends it. */
  regionPost(region: number, offset: number, data: Uint8Array): void {
    const { command, payload } = exchanges.regionWrite(region, offset, data);
    this.post(command, payload);
  }
  /** Writes of at most 8 bytes each; how many were done. */
  regionWriteMulti(writes: readonly SmallWrite[]): Promise<number> {
    return this.#ask(exchanges.regionWriteMulti(writes));
  }
  /** Bytes of `memory`, which the server reaches by messages. `flags`: DmaMapFlag. */
  dmaMap(address: number, size: number, flags?: number): Promise<void> {
    return this.#ask(exchanges.dmaMap(address, size, flags === undefined ? {} : { flags }));
  }
  /** `flags`: DmaUnmapFlag. */
  dmaUnmap(address: number, size: number, flags = 0): Promise<void> {
    return this.#ask(exchanges.dmaUnmap(address, size, flags));
  }
  reset(): Promise<void> {
    return this.#ask(exchanges.reset());
  }
  /** `method`: FeatureFlag GET, SET, PROBE. Data of the reply. `room`: bytes that the reply's data may have. */
  feature(index: number, method: number, data: Uint8Array = new Uint8Array(0), room = 1 << 16): Promise<Uint8Array> {
    return this.#ask(exchanges.feature(index, method, data, room));
  }
  /** The next bytes of the device's state; fewer than asked for: there are no more. */
  migrationRead(size: number): Promise<Uint8Array> {
    return this.#ask(exchanges.migrationRead(size));
  }
  migrationWrite(data: Uint8Array): Promise<void> {
    return this.#ask(exchanges.migrationWrite(data));
  }

  #send(id: number, command: number, flags: number, errno: number, payload: Uint8Array): void {
    if (this.#lost) throw new ConnectionLostError(`${exchanges.nameOf(command)}: ${this.#lost}`);
    const bytes = new Uint8Array(Math.min(HEADER_BYTES + payload.length, MAX_MESSAGE + 4096));
    exchanges.message(id, command, flags, errno, payload, bytes);
    this.#socket.write(bytes);
  }
  #message(bytes: Uint8Array, view: DataView, at: number): void {
    const id = view.getUint16(at, true);
    const flags = view.getUint32(at + 8, true);
    if ((flags & HeaderFlag.TYPE) !== HeaderFlag.REPLY) {
      const command = view.getUint16(at + 2, true);
      const { errno, payload } = exchanges.serve(this.#o.memory, command, bytes.subarray(HEADER_BYTES));
      if (!this.#lost && !(flags & HeaderFlag.NO_REPLY)) this.#send(id, command, exchanges.replyFlags(errno), errno, payload);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (flags & HeaderFlag.ERROR) waiting?.failed(new VfioUserError(waiting.command, view.getUint32(at + 12, true)));
    else waiting?.done(bytes.subarray(HEADER_BYTES));
  }
}
