/**
 * The protocol from the other end: drives any vfio-user server. Calls wait for their reply and answer the server's DMA messages meanwhile. What the
 * server refuses is a VfioUserError with its errno.
 */
import { errnoName } from '@siov/layout/uapi';
import {
  CapHeader,
  DeviceFeature,
  FeatureFlag,
  IrqInfoLayout,
  IrqSet,
  RegionCap,
  RegionInfoLayout,
  SparseArea,
  SparseMmap,
} from '@siov/vfio-mdev/uapi';
import { Framer } from './framer.js';
import { MAX_MESSAGE } from './limits.js';
import { EAGAIN, Epoll, type Native, type NativeBytes, native, SystemCallError } from './native.js';
import {
  Command,
  commandNames,
  DeviceInfo,
  DmaAccess,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  HEADER_BYTES,
  HeaderFlag,
  IoFd,
  MigrationData,
  MultiWrite,
  RegionAccess,
  RegionIoFds,
  VERSION_MAJOR,
  VERSION_MINOR,
  WriteMulti,
} from './spec/protocol.js';

/** The server refused: errno as in linux/errno.h, 0 when it gave none. */
export class VfioUserError extends Error {
  readonly command: number;
  readonly errno: number;
  constructor(command: number, errno: number) {
    super(`${commandNames[command] ?? `command ${command}`}: ${errno === 0 ? 'refused' : errnoName(errno)}`);
    this.name = 'VfioUserError';
    this.command = command;
    this.errno = errno;
  }
}
/** The server closed the connection, or did not answer in time. */
export class ConnectionLostError extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'ConnectionLostError';
  }
}

/** The client's memory, for what the server reaches by messages. Answers are errno or 0. */
export interface ClientMemory {
  read(address: number, into: Uint8Array): number;
  write(address: number, from: Uint8Array): number;
}
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
export interface ClientRegion {
  readonly flags: number;
  readonly size: number;
  readonly offset: number;
  /** What can be mapped, of `fd`. */
  readonly sparse: readonly { readonly offset: number; readonly size: number }[];
  /** -1 without; the caller's to close. */
  readonly fd: number;
}

const words = (payload: Uint8Array): Uint32Array => new Uint32Array(payload.slice(0, payload.length & ~3).buffer);
const TWO32 = 2 ** 32;

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
      largest: 1 << 26,
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
    const capabilities = {
      max_msg_fds: 16,
      max_data_xfer_size: 1 << 20,
      twin_socket: { supported: true },
      write_multiple: true,
      ...this.#o.capabilities,
    };
    const text = new TextEncoder().encode(JSON.stringify({ capabilities }));
    const payload = new Uint8Array(4 + text.length + 1);
    payload[0] = VERSION_MAJOR;
    payload[2] = VERSION_MINOR;
    payload.set(text, 4);
    const { payload: answer, fds } = this.request(Command.VERSION, payload);
    this.minor = answer[2]! | (answer[3]! << 8);
    const json = answer.length > 5 ? (JSON.parse(new TextDecoder().decode(answer.subarray(4, answer.length - 1))) as Record<string, unknown>) : {};
    this.capabilities = (json.capabilities as Record<string, unknown> | undefined) ?? {};
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

  deviceInfo(): { readonly flags: number; readonly regions: number; readonly irqs: number } {
    const { get, set, bytes } = DeviceInfo;
    const w = new Uint32Array(bytes / 4);
    set.argsz(w, 0, bytes);
    const r = words(this.request(Command.DEVICE_GET_INFO, new Uint8Array(w.buffer)).payload);
    return { flags: get.flags(r, 0), regions: get.regions(r, 0), irqs: get.irqs(r, 0) };
  }
  regionInfo(index: number): ClientRegion {
    const { get, set, bytes } = RegionInfoLayout;
    for (let argsz: number = bytes; ; ) {
      const w = new Uint32Array(bytes / 4);
      set.argsz(w, 0, argsz);
      set.index(w, 0, index);
      const { payload, fds } = this.request(Command.DEVICE_GET_REGION_INFO, new Uint8Array(w.buffer));
      const r = words(payload);
      if (get.argsz(r, 0) > argsz) {
        for (const fd of fds) this.#native.close(fd);
        argsz = get.argsz(r, 0);
        continue;
      }
      const sparse: { offset: number; size: number }[] = [];
      for (let cap = get.capOffset(r, 0) / 4; cap > 0; cap = CapHeader.get.next(r, cap) / 4) {
        if (CapHeader.get.id(r, cap) !== RegionCap.SPARSE_MMAP) continue;
        for (let i = 0; i < SparseMmap.get.count(r, cap); i++) {
          const at = cap + (SparseMmap.bytes + i * SparseArea.bytes) / 4;
          const area = SparseArea.get;
          sparse.push({
            offset: area.offsetLow(r, at) + area.offsetHigh(r, at) * TWO32,
            size: area.sizeLow(r, at) + area.sizeHigh(r, at) * TWO32,
          });
        }
      }
      return {
        flags: get.flags(r, 0),
        size: get.sizeLow(r, 0) + get.sizeHigh(r, 0) * TWO32,
        offset: get.offsetLow(r, 0) + get.offsetHigh(r, 0) * TWO32,
        sparse,
        fd: fds[0] ?? -1,
      };
    }
  }
  irqInfo(index: number): { readonly flags: number; readonly count: number } {
    const { get, set, bytes } = IrqInfoLayout;
    const w = new Uint32Array(bytes / 4);
    set.argsz(w, 0, bytes);
    set.index(w, 0, index);
    const r = words(this.request(Command.DEVICE_GET_IRQ_INFO, new Uint8Array(w.buffer)).payload);
    return { flags: get.flags(r, 0), count: get.count(r, 0) };
  }
  /** `flags`: IrqSetFlag. With eventfds, `fds` are one for each of `count`, or none to take them away. */
  setIrqs(flags: number, index: number, start: number, count: number, fds: readonly number[] = [], bools: readonly number[] = []): void {
    const { set, bytes } = IrqSet;
    const payload = new Uint8Array(bytes + bools.length);
    const w = new Uint32Array(payload.buffer, 0, bytes / 4);
    set.argsz(w, 0, bytes + bools.length);
    set.flags(w, 0, flags);
    set.index(w, 0, index);
    set.start(w, 0, start);
    set.count(w, 0, count);
    payload.set(bools, bytes);
    this.request(Command.DEVICE_SET_IRQS, payload, fds);
  }
  regionRead(region: number, offset: number, count: number): Uint8Array {
    const { payload } = this.request(Command.REGION_READ, access(region, offset, count));
    return payload.subarray(RegionAccess.bytes);
  }
  regionWrite(region: number, offset: number, data: Uint8Array): void {
    this.request(Command.REGION_WRITE, access(region, offset, data.length, data));
  }
  /** A posted write, as QEMU sends it. */
  regionPost(region: number, offset: number, data: Uint8Array): void {
    this.post(Command.REGION_WRITE, access(region, offset, data.length, data));
  }
  /** Writes of at most 8 bytes each; how many were done. */
  regionWriteMulti(writes: readonly { readonly region: number; readonly offset: number; readonly data: Uint8Array }[]): number {
    const payload = new Uint8Array(WriteMulti.bytes + writes.length * MultiWrite.bytes);
    const view = new DataView(payload.buffer);
    view.setUint32(0, writes.length, true);
    for (const [i, { region, offset, data }] of writes.entries()) {
      if (data.length > 8) throw new RangeError(`writes: ${data.length} bytes, and one has at most 8`);
      payload.set(access(region, offset, data.length, data), WriteMulti.bytes + i * MultiWrite.bytes);
    }
    return words(this.request(Command.REGION_WRITE_MULTI, payload).payload)[0]!;
  }
  /** Bytes. With a descriptor the server may map it; it stays the caller's. */
  dmaMap(address: number, size: number, from: { readonly fd?: number; readonly offset?: number; readonly flags?: number } = {}): void {
    const { set, bytes } = DmaMap;
    const w = new Uint32Array(bytes / 4);
    set.argsz(w, 0, bytes);
    set.flags(w, 0, from.flags ?? DmaMapFlag.READ | DmaMapFlag.WRITE);
    set.offsetLow(w, 0, from.offset ?? 0);
    set.offsetHigh(w, 0, (from.offset ?? 0) / TWO32);
    set.addressLow(w, 0, address);
    set.addressHigh(w, 0, address / TWO32);
    set.sizeLow(w, 0, size);
    set.sizeHigh(w, 0, size / TWO32);
    this.request(Command.DMA_MAP, new Uint8Array(w.buffer), from.fd === undefined ? [] : [from.fd]);
  }
  /** `flags`: DmaUnmapFlag. */
  dmaUnmap(address: number, size: number, flags = 0): void {
    const { set, bytes } = DmaUnmap;
    const w = new Uint32Array(bytes / 4);
    set.argsz(w, 0, bytes);
    set.flags(w, 0, flags);
    set.addressLow(w, 0, address);
    set.addressHigh(w, 0, address / TWO32);
    set.sizeLow(w, 0, size);
    set.sizeHigh(w, 0, size / TWO32);
    this.request(Command.DMA_UNMAP, new Uint8Array(w.buffer));
  }
  reset(): void {
    this.request(Command.DEVICE_RESET, new Uint8Array(0));
  }
  /** `method`: FeatureFlag GET, SET, PROBE. Data of the reply. `room`: bytes that the reply's data may have. */
  feature(index: number, method: number, data: Uint8Array = new Uint8Array(0), room = 1 << 16): Uint8Array {
    const payload = new Uint8Array(DeviceFeature.bytes + data.length);
    const w = new Uint32Array(payload.buffer, 0, 2);
    DeviceFeature.set.argsz(w, 0, method & FeatureFlag.GET ? DeviceFeature.bytes + room : payload.length);
    DeviceFeature.set.flags(w, 0, index | method);
    payload.set(data, DeviceFeature.bytes);
    return this.request(Command.DEVICE_FEATURE, payload).payload.subarray(DeviceFeature.bytes);
  }
  /** The next bytes of the device's state; fewer than asked for: there are no more. */
  migrationRead(size: number): Uint8Array {
    const w = Uint32Array.of(MigrationData.bytes + size, size);
    const { payload } = this.request(Command.MIG_DATA_READ, new Uint8Array(w.buffer));
    return payload.subarray(MigrationData.bytes, MigrationData.bytes + words(payload)[1]!);
  }
  migrationWrite(data: Uint8Array): void {
    const payload = new Uint8Array(MigrationData.bytes + data.length);
    payload.set(new Uint8Array(Uint32Array.of(payload.length, data.length).buffer));
    payload.set(data, MigrationData.bytes);
    this.request(Command.MIG_DATA_WRITE, payload);
  }
  /** Parts of a region whose writes can go to a descriptor. Descriptors are the caller's to close. */
  regionIoFds(index: number): {
    readonly subRegions: readonly { offset: number; size: number; fdIndex: number; type: number }[];
    readonly fds: readonly number[];
  } {
    const { get, set, bytes } = RegionIoFds;
    const w = new Uint32Array(bytes / 4);
    set.argsz(w, 0, 65_536);
    set.index(w, 0, index);
    const { payload, fds } = this.request(Command.DEVICE_GET_REGION_IO_FDS, new Uint8Array(w.buffer));
    const r = words(payload);
    const count = get.count(r, 0);
    const each = count === 0 ? 0 : (get.argsz(r, 0) - bytes) / count / 4;
    const subRegions = Array.from({ length: count }, (_, i) => {
      const at = bytes / 4 + i * each;
      const of = IoFd.get;
      return { offset: of.offsetLow(r, at), size: of.sizeLow(r, at), fdIndex: of.fdIndex(r, at), type: of.type(r, at) };
    });
    return { subRegions, fds };
  }

  // --- the wire

  #send(fd: number, id: number, command: number, flags: number, errno: number, payload: Uint8Array, fds: readonly number[]): void {
    const length = HEADER_BYTES + payload.length;
    if (length > this.#out.bytes.length)
      throw new RangeError(`payload: ${payload.length} bytes, and a message has at most ${this.#out.bytes.length - HEADER_BYTES}`);
    const view = new DataView(this.#out.bytes.buffer);
    view.setUint16(0, id, true);
    view.setUint16(2, command, true);
    view.setUint32(4, length, true);
    view.setUint32(8, flags, true);
    view.setUint32(12, errno, true);
    this.#out.bytes.set(payload, HEADER_BYTES);
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
    const { memory } = this.#o;
    const w = words(payload);
    const address = (w[0] ?? 0) + (w[1] ?? 0) * TWO32;
    const count = (w[2] ?? 0) + (w[3] ?? 0) * TWO32;
    const known = (command === Command.DMA_READ || command === Command.DMA_WRITE) && payload.length >= DmaAccess.bytes && count <= 1 << 20;
    const answer = new Uint8Array(DmaAccess.bytes + (command === Command.DMA_READ && known ? count : 0));
    answer.set(payload.subarray(0, DmaAccess.bytes));
    let errno = known ? (memory ? 0 : 14) : 22;
    if (errno === 0 && command === Command.DMA_READ) errno = memory!.read(address, answer.subarray(DmaAccess.bytes));
    if (errno === 0 && command === Command.DMA_WRITE) errno = memory!.write(address, payload.subarray(DmaAccess.bytes));
    const flags = HeaderFlag.REPLY | (errno ? HeaderFlag.ERROR : 0);
    this.#send(to, id, command, flags, errno, errno ? new Uint8Array(0) : answer, []);
  }
}

function access(region: number, offset: number, count: number, data?: Uint8Array): Uint8Array {
  const payload = new Uint8Array(RegionAccess.bytes + (data?.length ?? 0));
  const w = new Uint32Array(payload.buffer, 0, 4);
  RegionAccess.set.offsetLow(w, 0, offset);
  RegionAccess.set.offsetHigh(w, 0, offset / TWO32);
  RegionAccess.set.region(w, 0, region);
  RegionAccess.set.count(w, 0, count);
  if (data) payload.set(data, RegionAccess.bytes);
  return payload;
}
