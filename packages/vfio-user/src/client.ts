/**
 * The protocol from the other end: drives any vfio-user server. Calls wait for their reply and answer the server's DMA messages meanwhile. What the
 * server refuses is a VfioUserError with its errno.
 */
import { ConnectionLostError, VfioUserError } from './errors.js';
import type { ClientMemory, ClientRegion, SmallWrite } from './exchanges.js';
import * as exchanges from './exchanges.js';
import { Framer } from './framer.js';
import { LARGEST_REPLY, MAX_MESSAGE } from './limits.js';
import { EAGAIN, Epoll, type Native, type NativeBytes, native, SystemCallError } from './native.js';
import { commandNames, HEADER_BYTES, HeaderFlag } from './spec/protocol.js';

export interface ClientOptions {
  /** For DMA_READ and DMA_WRITE (default: EFAULT to all). */
  readonly memory?: ClientMemory;
  /** What VERSION proposes, as in the protocol's JSON. */
  readonly capabilities?: Readonly<Record<string, unknown>>;
  /** How long a reply may take (default 5000). */
  readonly timeoutMs?: number;
  /** Called instead of waiting: whoever runs the server in the same thread lets it work. */
  readonly idle?: () => void;
}
export interface Reply {
  readonly payload: Uint8Array;
  /** The caller's to close. */
  readonly fds: readonly number[];
}
/** What an exchange's answer is. */
type Answer<F extends (...words: never[]) => exchanges.Exchange<unknown>> = ReturnType<ReturnType<F>['answer']>;

interface ClientReply extends Reply {
  readonly header: DataView;
}

export class VfioUserClient {
  readonly #native: Native;
  readonly #fd: number;
  readonly #o: ClientOptions;
  readonly #in: NativeBytes;
  readonly #out: NativeBytes;
  readonly #inView: DataView;
  readonly #framer: Framer;
  readonly #epoll: number;
  #twin = -1;
  readonly #twinFramer: Framer;
  #nextId = 1;
  #reply: ClientReply | undefined;
  #waitingFor = -1;
  #lost = '';
  /** What the server's VERSION said. */
  capabilities: Readonly<Record<string, unknown>> = {};
  minor = 0;

  /** Connects and negotiates. Throws ConnectionLostError, VfioUserError, SystemCallError. */
  static connect(path: string, options: ClientOptions = {}): VfioUserClient {
    const fd = native().connect(path);
    if (fd < 0) throw new SystemCallError(`connect ${path}`, -fd);
    const client = new VfioUserClient(fd, options);
    try {
      client.#negotiate();
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  private constructor(fd: number, options: ClientOptions) {
    this.#native = native();
    this.#fd = fd;
    this.#o = options;
    this.#in = this.#native.room('client in', 1 << 18);
    this.#out = this.#native.room('client out', MAX_MESSAGE + 4096);
    this.#inView = new DataView(this.#in.bytes.buffer);
    this.#epoll = this.#native.epoll();
    this.#native.watch(this.#epoll, fd, Epoll.IN, 0);
    this.#framer = this.#newFramer();
    this.#twinFramer = this.#newFramer();
  }
  #newFramer(): Framer {
    return new Framer({
      largest: LARGEST_REPLY,
      message: (bytes, view, at, size, fds) => {
        this.#message(bytes.subarray(at, at + size), view, at, fds);
        return true;
      },
      broken: (why) => {
        this.#lost = `the server sent ${why}`;
      },
    });
  }

  close(): void {
    this.#native.close(this.#fd);
    this.#native.close(this.#epoll);
    if (this.#twin >= 0) this.#native.close(this.#twin);
    this.#lost ||= 'closed';
  }

  /** Answers what the server asks, without waiting. Call it when nothing else is called for a while. */
  poll(): void {
    this.#read(this.#fd, this.#framer);
    if (this.#twin >= 0) this.#read(this.#twin, this.#twinFramer);
  }

  /** One command and its reply. Descriptors stay the caller's. */
  request(command: number, payload: Uint8Array, fds: readonly number[] = []): Reply {
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    this.#waitingFor = id;
    this.#reply = undefined;
    this.#send(this.#fd, id, command, 0, 0, payload, fds);
    const end = Date.now() + (this.#o.timeoutMs ?? 5000);
    for (;;) {
      this.poll();
      if (this.#answered) break;
      if (this.#lost) throw new ConnectionLostError(`${commandNames[command] ?? command}: ${this.#lost}`);
      const left = end - Date.now();
      if (left <= 0) throw new ConnectionLostError(`${commandNames[command] ?? command}: no reply within ${this.#o.timeoutMs ?? 5000} ms`);
      if (this.#o.idle) this.#o.idle();
      else this.#native.wait(this.#epoll, left);
    }
    this.#waitingFor = -1;
    const { header, payload: answer, fds: came } = this.#answered!;
    if (header.getUint32(8, true) & HeaderFlag.ERROR) {
      for (const fd of came) this.#native.close(fd);
      throw new VfioUserError(command, header.getUint32(12, true));
    }
    return { payload: answer, fds: came };
  }
  get #answered(): ClientReply | undefined {
    return this.#reply;
  }
  /** A command that nobody answers. */
  post(command: number, payload: Uint8Array): void {
    this.#send(this.#fd, this.#nextId++ & 0xffff, command, HeaderFlag.NO_REPLY, 0, payload, []);
  }

  #negotiate(): void {
    const { command, payload, answer } = exchanges.version({ twin_socket: { supported: true }, ...this.#o.capabilities });
    const { payload: reply, fds } = this.request(command, payload);
    ({ minor: this.minor, capabilities: this.capabilities } = answer(reply, fds));
    const twin = this.capabilities.twin_socket as { supported?: boolean; fd_index?: number } | undefined;
    if (twin?.supported) {
      const fd = fds[twin.fd_index ?? -1];
      if (fd === undefined) throw new ConnectionLostError('VERSION: a second socket is announced, and is not there');
      this.#twin = fd;
      this.#native.watch(this.#epoll, fd, Epoll.IN, 1);
    }
    for (const fd of fds) if (fd !== this.#twin) this.#native.close(fd);
  }

  // --- typed commands

  #ask<T>({ command, payload, fds = [], answer }: exchanges.Exchange<T>): T {
    const reply = this.request(command, payload, fds);
    return answer(reply.payload, reply.fds);
  }
  deviceInfo(): Answer<typeof exchanges.deviceInfo> {
    return this.#ask(exchanges.deviceInfo());
  }
  regionInfo(index: number): ClientRegion {
    for (let argsz: number | undefined; ; ) {
      const { command, payload, answer } = exchanges.regionInfo(index, argsz);
      const reply = this.request(command, payload);
      const info = answer(reply.payload, reply.fds);
      if (typeof info !== 'number') return info;
      for (const fd of reply.fds) this.#native.close(fd);
      argsz = info;
    }
  }
  irqInfo(index: number): Answer<typeof exchanges.irqInfo> {
    return this.#ask(exchanges.irqInfo(index));
  }
  /** `flags`: IrqSetFlag. With eventfds, `fds` are one for each of `count`, or none to take them away. */
  setIrqs(flags: number, index: number, start: number, count: number, fds: readonly number[] = [], bools: readonly number[] = []): void {
    this.#ask(exchanges.setIrqs(flags, index, start, count, fds, bools));
  }
  regionRead(region: number, offset: number, count: number): Uint8Array {
    return this.#ask(exchanges.regionRead(region, offset, count));
  }
  regionWrite(region: number, offset: number, data: Uint8Array): void {
    this.#ask(exchanges.regionWrite(region, offset, data));
  }
  /** A posted write, as QEMU sends it. */
  regionPost(region: number, offset: number, data: Uint8Array): void {
    const { command, payload } = exchanges.regionWrite(region, offset, data);
    this.post(command, payload);
  }
  /** Writes of at most 8 bytes each; how many were done. */
  regionWriteMulti(writes: readonly SmallWrite[]): number {
    return this.#ask(exchanges.regionWriteMulti(writes));
  }
  /** Bytes. With a descriptor the server may map it; it stays the caller's. */
  dmaMap(address: number, size: number, from: { readonly fd?: number; readonly offset?: number; readonly flags?: number } = {}): void {
    this.#ask(exchanges.dmaMap(address, size, from));
  }
  /** `flags`: DmaUnmapFlag. */
  dmaUnmap(address: number, size: number, flags = 0): void {
    this.#ask(exchanges.dmaUnmap(address, size, flags));
  }
  reset(): void {
    this.#ask(exchanges.reset());
  }
  /** `method`: FeatureFlag GET, SET, PROBE. Data of the reply. `room`: bytes that the reply's data may have. */
  feature(index: number, method: number, data: Uint8Array = new Uint8Array(0), room = 1 << 16): Uint8Array {
    return this.#ask(exchanges.feature(index, method, data, room));
  }
  /** The next bytes of the device's state; fewer than asked for: there are no more. */
  migrationRead(size: number): Uint8Array {
    return this.#ask(exchanges.migrationRead(size));
  }
  migrationWrite(data: Uint8Array): void {
    this.#ask(exchanges.migrationWrite(data));
  }
  /** Parts of a region whose writes can go to a descriptor. Descriptors are the caller's to close. */
  regionIoFds(index: number): Answer<typeof exchanges.regionIoFds> {
    return this.#ask(exchanges.regionIoFds(index));
  }

  // --- the wire

  #send(fd: number, id: number, command: number, flags: number, errno: number, payload: Uint8Array, fds: readonly number[]): void {
    const length = exchanges.message(id, command, flags, errno, payload, this.#out.bytes);
    for (let sent = 0; sent < length; ) {
      const n = this.#native.send(fd, this.#out.address + sent, length - sent, sent === 0 ? fds : []);
      if (n >= 0) sent += n;
      else if (n !== -EAGAIN) throw new ConnectionLostError(`${commandNames[command] ?? command}: the server is gone`);
      else if (this.#o.idle) this.#o.idle();
      else this.#native.wait(this.#epoll, 10);
    }
  }
  #read(fd: number, framer: Framer): void {
    for (;;) {
      const n = this.#native.receive(fd, this.#in.address, this.#in.bytes.length);
      if (n === -EAGAIN) return;
      if (n <= 0) {
        this.#lost ||= 'the server closed the connection';
        return;
      }
      framer.push(this.#in.bytes, this.#inView, n, this.#native.fds.slice());
    }
  }
  #message(bytes: Uint8Array, view: DataView, at: number, fds: readonly number[]): void {
    const id = view.getUint16(at, true);
    if ((view.getUint32(at + 8, true) & HeaderFlag.TYPE) === HeaderFlag.REPLY) {
      if (id === this.#waitingFor && !this.#reply) {
        const copy = bytes.slice();
        this.#reply = { header: new DataView(copy.buffer), payload: copy.subarray(HEADER_BYTES), fds };
      } else for (const fd of fds) this.#native.close(fd);
      return;
    }
    for (const fd of fds) this.#native.close(fd);
    this.#serve(id, view.getUint16(at + 2, true), bytes.slice(HEADER_BYTES));
  }
  /** A command of the server's. */
  #serve(id: number, command: number, payload: Uint8Array): void {
    const to = this.#twin >= 0 ? this.#twin : this.#fd;
    const { errno, payload: answer } = exchanges.serve(this.#o.memory, command, payload);
    this.#send(to, id, command, exchanges.replyFlags(errno), errno, answer, []);
  }
}
