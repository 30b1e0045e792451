/**
 * The server: devices on UNIX sockets, one client at a time on each, all served by one thread that waits in epoll. A client that goes leaves its
 * device as it is for the next one.
 */
import { chmodSync, lstatSync, readlinkSync, unlinkSync } from 'node:fs';
import { Errno, errnoName } from '@siov/layout/uapi';
import { backingOf, type Mapping } from './backing.js';
import { DmaSpace } from './dma.js';
import { Framer } from './framer.js';
import { MAX_MESSAGE } from './limits.js';
import { EAGAIN, Epoll, type Native, type NativeBytes, native, Signals, SOCKET_PATH_BYTES } from './native.js';
import type { PeerName } from './peers.js';
import type { Channel, Descriptors, UserDevice } from './ports.js';
import { Session } from './session.js';
import { Command } from './spec/protocol.js';

/** Bytes read from one client before the others have their turn. */
const TURN = 1 << 18;
/** How many messages of the only client are taken before all sockets are looked at. */
const LONE_TURNS = 256;
/** How long a socket rests that cannot take a client, since this process has too many descriptors open. */
const REST_MS = 100;
/** How long the only client is waited for before all sockets are. A wake-up may take as long. */
const PATIENCE_MS = 20;
/** How long one device works before sockets are looked at again. */
const TURN_MS = 0.5;
/** Bytes of replies that a client leaves unread before nothing more is read from it. */
const UNREAD = 1 << 20;

/** The socket cannot be made: said in one line, with what to do. */
export class SocketError extends Error {
  readonly code: string;
  constructor(path: string, code: string, why: string) {
    super(`socket ${path}: ${why}`);
    this.name = 'SocketError';
    this.code = code;
  }
}

export interface ServedDevice {
  /** Where the socket is made. */
  readonly path: string;
  readonly device: UserDevice;
}
/** What went over a connection: for recorders. `direction` 0: from the client. `twin`: over the socket of our own commands. */
export type Observer = (device: number, direction: 0 | 1, twin: boolean, bytes: Uint8Array, fds: number) => void;
export interface ServerOptions {
  readonly devices: readonly ServedDevice[];
  /** Whose rules hold where clients differ (default 'strict'). */
  readonly peer?: PeerName;
  /** Offer a second socket for DMA messages (default true). */
  readonly twinSocket?: boolean;
  /** Which files of the client are mapped (default 'sealed'). */
  readonly mapping?: Mapping;
  readonly observer?: Observer;
  /** A client came or went. */
  readonly onClient?: (device: number, connected: boolean) => void;
}

interface Target {
  ready(bits: number): void;
}

export class VfioUserServer {
  // fixed
  readonly #native: Native;
  readonly #epoll: number;
  readonly #wake: number;
  readonly #signals: Signals;
  readonly #slots: Slot[] = [];
  // state
  readonly #targets = new Map<number, Target>();
  #nextToken = 1;
  /** Devices that have work: the first `#busyCount`. Cutting an array's length costs more than a message's decoding. */
  readonly #busy: Slot[] = [];
  #busyCount = 0;
  #stopping = false;
  #closed = false;

  /** Listens at once. Throws SocketError, NativeMissingError. */
  constructor(options: ServerOptions) {
    this.#native = native();
    const room = this.#native.room('server in', TURN);
    this.#epoll = this.#native.epoll();
    this.#wake = this.#native.eventfd();
    this.#signals = new Signals(this.#native);
    const parts: Parts = {
      native: this.#native,
      signals: this.#signals,
      options,
      in: room,
      inView: new DataView(room.bytes.buffer, 0, TURN),
      out: this.#native.room('server out', MAX_MESSAGE + 4096),
      watch: (fd, bits, target) => this.#watch(fd, bits, target),
      rewatch: (fd, bits, token) => this.#native.rewatch(this.#epoll, fd, bits, token),
      unwatch: (fd, token) => {
        this.#targets.delete(token);
        this.#native.unwatch(this.#epoll, fd);
      },
      busy: (slot) => this.#hasWork(slot),
      later: (run) => void this.#later.push({ at: performance.now() + REST_MS, run }),
    };
    this.#watch(this.#wake, Epoll.IN, { ready: () => void this.#native.drain(this.#wake) });
    try {
      for (const { path, device } of options.devices) this.#slots.push(new Slot(this.#slots.length, path, device, parts));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** An eventfd: 8 bytes written to it end a wait. Any thread may. */
  get wakeFd(): number {
    return this.#wake;
  }
  /** The client's memory as a device sees it, and what was counted. */
  dma(device = 0): DmaSpace {
    return this.#slots[device]!.dma;
  }
  get clients(): number {
    return this.#slots.filter((slot) => slot.connected).length;
  }
  /** Messages and errors of all clients so far. */
  get counters(): { readonly messages: number; readonly errors: number; readonly commands: number } {
    const sum = { messages: 0, errors: 0, commands: 0 };
    for (const slot of this.#slots) {
      const of = slot.counters;
      sum.messages += of.messages;
      sum.errors += of.errors;
      sum.commands += of.commands;
    }
    return sum;
  }

  /** Says that a device has work though nothing came from its client. */
  poke(device = 0): void {
    this.#hasWork(this.#slots[device]!);
  }

  #hasWork(slot: Slot): void {
    if (slot.busy) return;
    slot.busy = true;
    this.#busy[this.#busyCount++] = slot;
  }

  /** Waits at most `timeoutMs` (-1: for ever) for clients and serves what they sent, then lets devices work for a moment. */
  step(timeoutMs = 0): void {
    // Only one client, who was here a moment ago: the next message is waited for where it comes. That saves a system call for each.
    const turn = this.#loneTurns++ < LONE_TURNS;
    if (turn && timeoutMs !== 0 && this.#busyCount === 0 && this.#lone?.()) {
      this.#work();
      return;
    }
    // A client without a pause does not keep others from coming.
    const fresh = turn || this.#lone === undefined;
    this.#loneTurns = 0;
    this.#lone = fresh ? undefined : this.#onlyClient();
    const n = this.#native.wait(this.#epoll, this.#busyCount > 0 || !fresh ? 0 : this.#due(timeoutMs));
    for (let i = 0; i < n; i++) {
      const token = this.#native.ready[i]!;
      const bits = this.#native.readyBits[i]!;
      this.#order[i * 2] = token;
      this.#order[i * 2 + 1] = bits;
    }
    // Serving one may end another's target: tokens are looked up when their turn comes.
    for (let i = 0; i < n; i++) this.#targets.get(this.#order[i * 2]!)?.ready(this.#order[i * 2 + 1]!);
    if (n > 0) this.#lone = this.#onlyClient();
    if (this.#later.length > 0) this.#runLater();
    this.#work();
  }
  #loneTurns = 0;
  /** What is tried again after a while. */
  readonly #later: { readonly at: number; readonly run: () => void }[] = [];
  /** How long to wait at most. */
  #due(timeoutMs: number): number {
    if (this.#later.length === 0) return timeoutMs;
    const left = Math.max(Math.ceil(this.#later[0]!.at - performance.now()), 0);
    return timeoutMs < 0 ? left : Math.min(timeoutMs, left);
  }
  #runLater(): void {
    while (this.#later.length > 0 && this.#later[0]!.at <= performance.now()) this.#later.shift()!.run();
  }
  /** Reads from the only client; false: nothing came, or it is not the only one any more. */
  #lone: (() => boolean) | undefined;
  #onlyClient(): (() => boolean) | undefined {
    let found: (() => boolean) | undefined;
    for (const slot of this.#slots) {
      if (!slot.connected) continue;
      if (found) return undefined;
      found = slot.await;
    }
    return found;
  }
  #work(): void {
    if (this.#busyCount === 0) return;
    let kept = 0;
    for (let i = 0; i < this.#busyCount; i++) {
      const slot = this.#busy[i]!;
      this.#turnEnd = 0;
      slot.busy = slot.run(this.#over);
      if (slot.busy) this.#busy[kept++] = slot;
    }
    this.#busyCount = kept;
  }
  #turnEnd = 0;
  /** The turn begins when a device that has something to do asks for the first time. */
  readonly #over = (): boolean => {
    const now = performance.now();
    if (this.#turnEnd === 0) this.#turnEnd = now + TURN_MS;
    return now >= this.#turnEnd;
  };
  readonly #order = new Int32Array(256);

  /** Serves until `stop`. `between` is called after every wait. */
  run(between?: () => void): void {
    while (!this.#stopping) {
      this.step(-1);
      between?.();
    }
  }
  stop(): void {
    this.#stopping = true;
  }

  /** Ends all connections and takes the sockets away. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const slot of this.#slots) slot.close();
    this.#signals.close();
    this.#native.close(this.#wake);
    this.#native.close(this.#epoll);
  }

  #watch(fd: number, bits: number, target: Target): number {
    const token = this.#nextToken++;
    this.#targets.set(token, target);
    this.#native.watch(this.#epoll, fd, bits, token);
    return token;
  }
}

interface Parts {
  readonly native: Native;
  readonly signals: Signals;
  readonly options: ServerOptions;
  readonly in: NativeBytes;
  readonly inView: DataView;
  readonly out: NativeBytes;
  watch(fd: number, bits: number, target: Target): number;
  rewatch(fd: number, bits: number, token: number): void;
  unwatch(fd: number, token: number): void;
  busy(slot: Slot): void;
  later(run: () => void): void;
}

/** A device and its socket. */
class Slot {
  /** It is in the server's list of devices that have work. */
  busy = false;
  readonly dma = new DmaSpace();
  readonly #index: number;
  readonly #path: string;
  readonly #device: UserDevice;
  readonly #p: Parts;
  readonly #listener: number;
  /** The inode of our socket: another's at the same path is not ours to remove. */
  readonly #inode: number;
  #token = -1;
  #closed = false;
  #connection: Connection | undefined;
  #before = { messages: 0, errors: 0, commands: 0 };

  constructor(index: number, path: string, device: UserDevice, parts: Parts) {
    this.#index = index;
    this.#path = path;
    this.#device = device;
    this.#p = parts;
    this.#listener = listen(parts.native, path);
    this.#inode = lstatSync(path).ino;
    const attached = device.attach(this.dma, -1);
    const opened = attached < 0 ? attached : device.open();
    if (opened < 0) {
      this.close();
      throw new RangeError(`device ${device.name} does not open: ${errnoName(opened)}`);
    }
    this.#listen();
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }
  get counters() {
    const now = this.#connection?.session.counters;
    const { messages, errors, commands } = this.#before;
    return { messages: messages + (now?.messages ?? 0), errors: errors + (now?.errors ?? 0), commands: commands + (now?.commands ?? 0) };
  }

  /** Waits a moment for the client's next message; false when that is not all that there is to wait for, or none came. */
  readonly await = (): boolean => this.#connection?.await() ?? false;

  run(over: () => boolean): boolean {
    const idle = this.#connection?.session.migration.idle ?? false;
    return !idle && (this.#device.run?.(over) ?? false);
  }

  close(): void {
    this.#closed = true;
    this.#connection?.end();
    if (this.#token >= 0) this.#p.unwatch(this.#listener, this.#token);
    this.#token = -1;
    this.#p.native.close(this.#listener);
    try {
      if (lstatSync(this.#path).ino === this.#inode) unlinkSync(this.#path);
    } catch {
      // Somebody took it away already.
    }
    this.#device.close();
  }

  /** The next client may come. */
  #listen(): void {
    this.#token = this.#p.watch(this.#listener, Epoll.IN, { ready: () => this.#accept() });
  }
  #accept(): void {
    const fd = this.#p.native.accept(this.#listener);
    if (fd === -EAGAIN) return;
    this.#p.unwatch(this.#listener, this.#token);
    this.#token = -1;
    if (fd < 0) {
      this.#p.later(() => {
        if (!this.#closed) this.#listen();
      });
      return;
    }
    this.#connection = new Connection(this.#p, fd, this.#index, {
      device: this.#device,
      dma: this.dma,
      busy: () => this.#p.busy(this),
      gone: () => {
        this.#before = this.counters;
        this.#connection = undefined;
        this.#p.options.onClient?.(this.#index, false);
        this.#p.busy(this);
        this.#listen();
      },
    });
    this.#p.options.onClient?.(this.#index, true);
  }
}

/** What is to be sent over one socket, in order, whenever its reader makes room. */
class Outbox implements Channel {
  readonly out: Uint8Array;
  readonly #p: Parts;
  readonly #fd: number;
  readonly #seen: ((bytes: Uint8Array, fds: number) => void) | undefined;
  readonly #stuck: () => void;
  readonly #dead: () => void;
  readonly #queue: { bytes: Uint8Array; fds: readonly number[]; readonly own: boolean }[] = [];
  /** Bytes that wait, and those of replies among them. */
  unread = 0;
  replies = 0;

  constructor(p: Parts, fd: number, on: { seen: ((bytes: Uint8Array, fds: number) => void) | undefined; stuck(): void; dead(): void }) {
    this.#p = p;
    this.#fd = fd;
    this.out = p.out.bytes;
    this.#seen = on.seen;
    this.#stuck = on.stuck;
    this.#dead = on.dead;
  }
  send(length: number, fds?: readonly number[], own = false): void {
    if (this.#seen) this.#seen(this.out.subarray(0, length), fds?.length ?? 0);
    let sent = 0;
    if (this.#queue.length === 0) {
      sent = this.#p.native.send(this.#fd, this.#p.out.address, length, fds);
      if (sent === length) return;
      if (sent < 0 && sent !== -EAGAIN) {
        this.#dead();
        return;
      }
    }
    const rest = this.out.slice(Math.max(sent, 0), length);
    this.#queue.push({ bytes: rest, fds: sent > 0 ? [] : [...(fds ?? [])], own });
    this.unread += rest.length;
    if (!own) this.replies += rest.length;
    this.#stuck();
  }
  /** The reader made room. */
  flush(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!;
      const piece = Math.min(first.bytes.length, this.out.length);
      this.out.set(first.bytes.subarray(0, piece));
      const sent = this.#p.native.send(this.#fd, this.#p.out.address, piece, first.fds);
      if (sent < 0) {
        if (sent !== -EAGAIN) this.#dead();
        return;
      }
      this.unread -= sent;
      if (!first.own) this.replies -= sent;
      if (sent < first.bytes.length) {
        first.bytes = first.bytes.subarray(sent);
        first.fds = [];
      } else this.#queue.shift();
    }
  }
}

class Connection {
  readonly session: Session;
  readonly #main: Line;
  #twin: Line | undefined;
  #ended = false;
  readonly #gone: () => void;

  constructor(p: Parts, fd: number, index: number, on: { device: UserDevice; dma: DmaSpace; busy(): void; gone(): void }) {
    this.#gone = on.gone;
    const { observer } = p.options;
    const passive = on.device.passiveReads === true;
    const line = (lineFd: number, twin: boolean): Line =>
      new Line(p, lineFd, {
        message: (bytes, view, at, size, fds) => {
          if (observer) observer(index, 0, twin, bytes.subarray(at, at + size), fds.length);
          if (!passive || view.getUint16(at + 2, true) !== Command.REGION_READ) on.busy();
          // Only replies come over the second socket.
          if (!twin || (view.getUint32(at + 8, true) & 0xf) === 1) this.session.receive(bytes, view, at, size, fds);
          else for (const each of fds) p.native.close(each);
          return !this.session.ended;
        },
        seen: observer && ((bytes, fds) => observer(index, 1, twin, bytes, fds)),
        end: () => this.end(),
      });
    this.#main = line(fd, false);
    const { peer, twinSocket } = p.options;
    this.session = new Session({
      device: on.device,
      dma: on.dma,
      channel: this.#main.outbox,
      descriptors: descriptors(p.native, p.signals, p.options.mapping ?? 'sealed', () => {
        const [ours, theirs] = p.native.pair();
        this.#twin = line(ours, true);
        return { channel: this.#twin.outbox, theirs };
      }),
      peer,
      twinSocket,
      end: () => this.end(),
    });
  }

  /** See Slot. Answers to our own commands on the second socket would not be seen. */
  await(): boolean {
    return !this.#ended && (!this.#twin || this.session.underWay === 0) && this.#main.await();
  }
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.session.end();
    this.#main.close();
    this.#twin?.close();
    this.#gone();
  }
}

/** One socket of a connection: read when there is something and its answers are being read too. */
class Line {
  readonly outbox: Outbox;
  readonly #p: Parts;
  readonly #fd: number;
  readonly #framer: Framer;
  readonly #end: () => void;
  readonly #token: number;
  #waitsFor: number = Epoll.IN;
  #closed = false;
  #paused = false;

  constructor(
    p: Parts,
    fd: number,
    on: {
      message(bytes: Uint8Array, view: DataView, at: number, size: number, fds: readonly number[]): boolean;
      seen: ((bytes: Uint8Array, fds: number) => void) | undefined;
      end(): void;
    },
  ) {
    this.#p = p;
    this.#fd = fd;
    this.#end = on.end;
    this.outbox = new Outbox(p, fd, { seen: on.seen, stuck: () => this.#arrange(), dead: () => this.#die() });
    this.#framer = new Framer({
      largest: MAX_MESSAGE,
      message: (bytes, view, at, size, fds) => {
        if (!on.message(bytes, view, at, size, fds) || this.#closed) return false;
        this.#paused = this.outbox.replies > UNREAD;
        return !this.#paused;
      },
      broken: (_why, fds) => {
        for (const each of fds) p.native.close(each);
        this.#broken = true;
      },
    });
    p.native.patience(fd, PATIENCE_MS);
    this.#token = p.watch(fd, Epoll.IN, { ready: (bits) => this.#ready(bits) });
  }
  #broken = false;
  #dying = false;

  #ready(bits: number): void {
    if (bits & Epoll.OUT) {
      this.outbox.flush();
      if (this.#paused && this.outbox.replies <= UNREAD / 2) {
        this.#paused = false;
        this.#framer.resume();
      }
      this.#arrange();
    }
    if (bits & (Epoll.IN | Epoll.HUP | Epoll.ERR) && !this.#paused && !this.#closed) this.#read();
    if (this.#broken || this.#dying) this.#end();
  }
  /** Waits for more, PATIENCE_MS at most; false: nothing came. */
  await(): boolean {
    if (this.#closed || this.#paused || this.outbox.unread > 0 || !this.#read(true)) return false;
    if (this.#broken || this.#dying) this.#end();
    return true;
  }
  #read(wait = false): boolean {
    const { native, in: room, inView } = this.#p;
    const n = native.receive(this.#fd, room.address, TURN, wait);
    if (n === -EAGAIN) return false;
    if (n <= 0 || native.fdsLost) {
      for (const fd of native.fds) native.close(fd);
      this.#end();
      return true;
    }
    this.#framer.push(room.bytes, inView, n, native.fds.length > 0 ? native.fds.slice() : native.fds);
    if (this.#paused) this.#arrange();
    return true;
  }
  /** Sending failed: the peer is gone. The end comes when what is being done is done. */
  #die(): void {
    this.#dying = true;
    this.#arrange();
  }
  /** What to wait for: room to write when something is queued; something to read unless too much is queued. */
  #arrange(): void {
    if (this.#closed) return;
    const bits = (this.#paused ? 0 : Epoll.IN) | (this.outbox.unread > 0 || this.#dying ? Epoll.OUT : 0);
    if (bits === this.#waitsFor) return;
    this.#waitsFor = bits;
    this.#p.rewatch(this.#fd, bits, this.#token);
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const fd of this.#framer.end()) this.#p.native.close(fd);
    this.#p.unwatch(this.#fd, this.#token);
    this.#p.native.close(this.#fd);
  }
}

const descriptors = (native: Native, signals: Signals, mapping: Mapping, twin: NonNullable<Descriptors['twin']>): Descriptors => ({
  close: (fd) => native.close(fd),
  backing: backingOf(native, mapping),
  twin,
  sink(fd) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) !== 'anon_inode:[eventfd]') return -Errno.EINVAL;
    } catch {
      return -Errno.EBADF;
    }
    let open = true;
    return {
      signal: (n = 1) => void (open && signals.signal(fd, n)),
      close: () => {
        if (open) native.close(fd);
        open = false;
      },
    };
  },
});

/** A listening socket that only its owner can connect to, or a SocketError that says why there is none. */
function listen(native: Native, path: string): number {
  if (new TextEncoder().encode(path).length >= SOCKET_PATH_BYTES)
    throw new SocketError(path, 'ENAMETOOLONG', `the path is longer than ${SOCKET_PATH_BYTES - 1} bytes; choose a shorter one, such as one in /tmp`);
  const fd = native.listen(path, 1);
  if (fd >= 0) {
    chmodSync(path, 0o600);
    return fd;
  }
  const code = errnoName(fd);
  const why: Readonly<Record<string, string>> = {
    EADDRINUSE: 'something is there already; remove it, or choose another path',
    EACCES: 'not permitted in that folder',
    EPERM: 'not permitted in that folder',
    ENOENT: 'there is no such folder',
    ENOTDIR: 'part of the path is not a folder',
  };
  throw new SocketError(path, code, why[code] ?? `it cannot be made (${code})`);
}
