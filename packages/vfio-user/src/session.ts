/**
 * One connection, from VERSION to its end: which messages are allowed, what answers them, and the server's own commands. It knows nothing of
 * sockets. vfio-user.rst, "Protocol Specification".
 */
import { Errno } from '@siov/layout/uapi';
import type { DmaSpace } from './dma.js';
import { featureCommands } from './features.js';
import { infoCommands } from './info.js';
import { Irqs, irqCommands } from './irqs.js';
import { PAGE_BYTES } from './limits.js';
import { memoryCommands } from './memory.js';
import { MigrationMachine } from './migration.js';
import { type Peer, type PeerName, peers } from './peers.js';
import type { Channel, Descriptors, RegionInfo, UserDevice } from './ports.js';
import { regionCommands } from './regions.js';
import { Command, DmaAccess, HEADER_BYTES, HeaderFlag, RegionAccess, VERSION_MAJOR, VERSION_MINOR } from './spec/protocol.js';
import { type Capabilities, chosen, offeredCapabilities, readCapabilities } from './version.js';

/** Commands of ours without an answer. */
const UNDER_WAY = 4096;

/** A command that came in. Descriptors that no handler takes out are closed. */
export interface Message {
  bytes: Uint8Array;
  view: DataView;
  /** Where the payload begins, and its length. */
  at: number;
  length: number;
  readonly fds: number[];
  /** The first 32 bytes of the payload, zeros after its end. */
  readonly words: Uint32Array;
}
/** What answers a command: bytes of payload in `s.payload`, or -errno. */
type Handler = (s: Session, m: Message) => number;
export interface CommandRow {
  /** Smallest payload. A shorter one is EINVAL. */
  readonly bytes: number;
  /** Allowed while the device is stopped for migration, whoever the peer is. */
  readonly stopped?: true;
  readonly run: Handler;
}

export interface SessionOptions {
  readonly device: UserDevice;
  readonly dma: DmaSpace;
  readonly channel: Channel;
  readonly descriptors?: Descriptors | undefined;
  readonly peer?: PeerName | undefined;
  /** Offer a socket of its own for our commands to clients that know it (default true). */
  readonly twinSocket?: boolean | undefined;
  /** The connection must end: what follows could not be understood. */
  readonly end: () => void;
}

const commands: readonly (CommandRow | undefined)[] = ((): (CommandRow | undefined)[] => {
  const rows: (CommandRow | undefined)[] = [];
  for (const [code, row] of Object.entries({ ...infoCommands, ...irqCommands, ...regionCommands, ...memoryCommands, ...featureCommands }))
    rows[Number(code)] = row;
  rows[Command.DEVICE_RESET] = { bytes: 0, run: (s) => s.reset() };
  return rows;
})();

export class Session {
  // fixed
  readonly device: UserDevice;
  readonly dma: DmaSpace;
  readonly peer: Peer;
  readonly descriptors: Descriptors | undefined;
  /** Where a reply's payload goes. */
  readonly payload: Uint8Array;
  readonly payloadView: DataView;
  /** Where the data of a REGION_READ of n bytes go, for n up to 8. */
  readonly smallReads: readonly Uint8Array[];
  readonly irqs: Irqs;
  readonly migration: MigrationMachine;
  /** What GET_REGION_INFO says, asked once. */
  readonly regions: readonly (RegionInfo | undefined)[];
  readonly #channel: Channel;
  readonly #twinSocket: boolean;
  readonly #header: DataView;
  readonly #end: () => void;
  readonly #message: Message;
  // state
  /** Descriptors that go with the reply; they stay whose they are. */
  readonly replyFds: number[] = [];
  client: Capabilities | undefined;
  /** Where our own commands go. */
  #commands: Channel;
  readonly #waiting = new Map<number, (view: DataView | undefined, bytes: Uint8Array, at: number, length: number) => void>();
  #nextId = 0;
  #ended = false;
  /** Messages, errors and our own commands since the start. */
  readonly counters = { messages: 0, errors: 0, commands: 0 };

  constructor(options: SessionOptions) {
    const { device, dma, channel } = options;
    this.device = device;
    this.dma = dma;
    this.peer = peers[options.peer ?? 'strict'];
    this.descriptors = options.descriptors;
    this.#channel = this.#commands = channel;
    this.#twinSocket = options.twinSocket ?? true;
    this.#end = options.end;
    this.#header = new DataView(channel.out.buffer, channel.out.byteOffset, channel.out.byteLength);
    this.payload = channel.out.subarray(HEADER_BYTES);
    this.payloadView = new DataView(this.payload.buffer, this.payload.byteOffset, this.payload.byteLength);
    this.smallReads = Array.from({ length: 9 }, (_, n) => this.payload.subarray(RegionAccess.bytes, RegionAccess.bytes + n));
    this.irqs = new Irqs(device);
    this.migration = new MigrationMachine(device.migration);
    this.regions = Array.from({ length: device.regions }, (_, index) => {
      const info = device.regionInfo(index);
      return typeof info === 'number' ? undefined : info;
    });
    this.#message = { bytes: this.payload, view: this.payloadView, at: 0, length: 0, fds: [], words: new Uint32Array(8) };
  }

  /** Commands of ours without an answer. */
  get underWay(): number {
    return this.#waiting.size;
  }
  get ended(): boolean {
    return this.#ended;
  }

  /** A whole message: `size` bytes from `at` of `bytes`, which `view` shows. Descriptors become the session's. */
  receive(bytes: Uint8Array, view: DataView, at: number, size: number, fds: readonly number[]): void {
    if (this.#ended) {
      for (const fd of fds) this.descriptors?.close(fd);
      return;
    }
    const flags = view.getUint32(at + 8, true);
    const left = this.#message.fds;
    for (const fd of fds) left.push(fd);
    if ((flags & HeaderFlag.TYPE) === HeaderFlag.REPLY) this.#replied(bytes, view, at, size, flags);
    else this.#command(bytes, view, at, size, flags);
    if (left.length === 0) return;
    for (const fd of left) this.descriptors?.close(fd);
    left.length = 0;
  }

  #command(bytes: Uint8Array, view: DataView, at: number, size: number, flags: number): void {
    this.counters.messages++;
    const m = this.#message;
    m.bytes = bytes;
    m.view = view;
    m.at = at + HEADER_BYTES;
    m.length = size - HEADER_BYTES;
    const whole = Math.min(m.length >>> 2, 8);
    for (let i = 0; i < whole; i++) m.words[i] = view.getUint32(m.at + i * 4, true);
    for (let i = whole; i < 8; i++) m.words[i] = 0;
    const id = view.getUint16(at, true);
    const code = view.getUint16(at + 2, true);
    if (this.replyFds.length > 0) this.replyFds.length = 0;
    const answer = flags & HeaderFlag.TYPE ? -Errno.EINVAL : this.#answer(code, m);
    if (!(flags & HeaderFlag.NO_REPLY)) this.#reply(id, code, answer);
    else if (answer < 0) this.counters.errors++;
    // Before there is a version nothing else makes sense; after a refusal the client may only go.
    if (!this.client) this.end();
  }

  #answer(code: number, m: Message): number {
    if (!this.client) return code === Command.VERSION ? this.#version(m) : -Errno.EINVAL;
    const row = commands[code];
    if (!row || m.length < row.bytes) return -Errno.EINVAL;
    if (this.migration.stopped && this.peer.fewCommandsStopped && !row.stopped) return -Errno.EINVAL;
    return row.run(this, m);
  }

  #reply(id: number, command: number, answer: number): void {
    const header = this.#header;
    const error = answer < 0;
    if (error) this.counters.errors++;
    const length = error ? HEADER_BYTES : HEADER_BYTES + answer;
    header.setUint16(0, id, true);
    header.setUint16(2, command, true);
    header.setUint32(4, length, true);
    header.setUint32(8, error ? HeaderFlag.REPLY | HeaderFlag.ERROR : HeaderFlag.REPLY, true);
    header.setUint32(12, error ? -answer : 0, true);
    this.#channel.send(length, error || this.replyFds.length === 0 ? undefined : this.replyFds);
    if (this.#sent) {
      this.#sent();
      this.#sent = undefined;
    }
  }
  #sent: (() => void) | undefined;

  // --- VERSION

  #version(m: Message): number {
    if (m.length < 4 || (m.words[0]! & 0xffff) !== VERSION_MAJOR) return -Errno.EINVAL;
    const proposed = readCapabilities(m.bytes.subarray(m.at + 4, m.at + m.length));
    if (!proposed) return -Errno.EINVAL;
    this.client = proposed;
    const twin = this.#twinSocket && proposed.twinSocket ? this.descriptors?.twin?.() : undefined;
    if (twin) {
      this.replyFds.push(twin.theirs);
      this.#commands = twin.channel;
      this.#sent = () => this.descriptors?.close(twin.theirs);
    }
    if (this.peer.dmaMessages) this.dma.link = this.#link(proposed);
    const text = chosen(proposed, offeredCapabilities(this.migration.offered), twin ? 0 : -1);
    this.payloadView.setUint16(0, VERSION_MAJOR, true);
    this.payloadView.setUint16(2, Math.min(m.words[0]! >>> 16, VERSION_MINOR), true);
    for (let i = 0; i < text.length; i++) this.payload[4 + i] = text.charCodeAt(i);
    this.payload[4 + text.length] = 0;
    return 4 + text.length + 1;
  }

  // --- our own commands

  #link(client: Capabilities) {
    const most = Math.min(Math.max(client.maxDataXferSize, 1), this.peer.dmaMessageBytes);
    // A device takes a page for one piece: a client that takes less in a message gets several for it.
    return {
      limit: Math.max(most, PAGE_BYTES),
      read: (address: number, bytes: number, done: (data: Uint8Array | undefined) => void): void => {
        if (bytes <= most) {
          this.#read(address, bytes, done);
          return;
        }
        const whole = new Uint8Array(bytes);
        const parts = new Parts(Math.ceil(bytes / most), (ok) => done(ok ? whole : undefined));
        for (let at = 0; at < bytes; at += most)
          this.#read(address + at, Math.min(most, bytes - at), (data) => {
            if (data) whole.set(data, at);
            parts.ended(data !== undefined);
          });
      },
      write: (address: number, data: Uint8Array, done: (ok: boolean) => void): void => {
        const parts = new Parts(Math.ceil(data.length / most), done);
        // The specification's reply has 12 bytes, libvfio-user's 16, QEMU's none.
        for (let at = 0; at < data.length; at += most) {
          const part = data.subarray(at, at + most);
          this.#send(Command.DMA_WRITE, address + at, part.length, part, (view) => parts.ended(view !== undefined));
        }
      },
    };
  }
  /** Bytes that DMA_READs under way ask for, and those that wait for their turn. */
  #reading = 0;
  readonly #reads: { readonly address: number; readonly bytes: number; readonly done: (data: Uint8Array | undefined) => void }[] = [];
  #mayRead(bytes: number): boolean {
    return this.#reading === 0 || this.#reading + bytes <= this.peer.dmaReadBytes;
  }
  #read(address: number, bytes: number, done: (data: Uint8Array | undefined) => void): void {
    if (!this.#mayRead(bytes)) {
      this.#reads.push({ address, bytes, done });
      return;
    }
    this.#reading += bytes;
    this.#send(Command.DMA_READ, address, bytes, undefined, (view, data, at, length) => {
      // The reply repeats address and count. What is shorter, or of another place, is no answer.
      const right = view && length === DmaAccess.bytes + bytes && isAccess(view, at, address, bytes);
      this.#reading -= bytes;
      done(right ? data.subarray(at + DmaAccess.bytes, at + length) : undefined);
      for (let next = this.#reads[0]; next && this.#mayRead(next.bytes); next = this.#reads[0]) {
        this.#reads.shift();
        this.#read(next.address, next.bytes, next.done);
      }
    });
  }

  #send(
    command: number,
    address: number,
    bytes: number,
    data: Uint8Array | undefined,
    done: (view: DataView | undefined, bytes: Uint8Array, at: number, length: number) => void,
  ): void {
    if (this.#ended || this.#waiting.size >= UNDER_WAY) {
      done(undefined, NOTHING, 0, 0);
      return;
    }
    while (this.#waiting.has(this.#nextId)) this.#nextId = (this.#nextId + 1) & 0xffff;
    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    this.#waiting.set(id, done);
    this.counters.commands++;
    const { out } = this.#commands;
    const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
    const length = HEADER_BYTES + DmaAccess.bytes + (data?.length ?? 0);
    view.setUint16(0, id, true);
    view.setUint16(2, command, true);
    view.setUint32(4, length, true);
    view.setUint32(8, 0, true);
    view.setUint32(12, 0, true);
    view.setUint32(16, address, true);
    view.setUint32(20, address / 2 ** 32, true);
    view.setUint32(24, bytes, true);
    view.setUint32(28, 0, true);
    if (data) out.set(data, HEADER_BYTES + DmaAccess.bytes);
    this.#commands.send(length, undefined, true);
  }

  /** A reply to a command of ours, on whichever socket. One that nobody waits for is ignored: its number is the client's mistake, not a crash. */
  #replied(bytes: Uint8Array, view: DataView, at: number, size: number, flags: number): void {
    const id = view.getUint16(at, true);
    const done = this.#waiting.get(id);
    if (!done) {
      this.counters.errors++;
      return;
    }
    this.#waiting.delete(id);
    if (flags & HeaderFlag.ERROR) done(undefined, NOTHING, 0, 0);
    else done(view, bytes, at + HEADER_BYTES, size - HEADER_BYTES);
  }

  // --- the device

  /** DEVICE_RESET. Interrupts and memory of the client stay. */
  reset(): number {
    if (!(this.device.flags & 1)) return -Errno.EINVAL;
    this.dma.forget();
    const result = this.device.reset();
    this.migration.reset();
    return Math.min(result, 0);
  }

  /** The client is gone, or must go: memory and interrupts are dropped, the device keeps its state. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.irqs.clear();
    this.migration.disconnected();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    const reads = this.#reads.splice(0);
    for (const done of waiting) done(undefined, NOTHING, 0, 0);
    for (const { done } of reads) done(undefined);
    this.dma.clear();
    this.#end();
  }
}

const NOTHING = new Uint8Array(0);
/** Messages that together are one request: it has ended when all have, and well if all have. */
class Parts {
  readonly #done: (ok: boolean) => void;
  #left: number;
  #ok = true;
  constructor(count: number, done: (ok: boolean) => void) {
    this.#left = count;
    this.#done = done;
  }
  ended(ok: boolean): void {
    this.#ok &&= ok;
    if (--this.#left === 0) this.#done(this.#ok);
  }
}
const isAccess = (view: DataView, at: number, address: number, bytes: number): boolean =>
  view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32 === address && view.getUint32(at + 8, true) === bytes;
