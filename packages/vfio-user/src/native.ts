/**
 * The edge: system calls that Node does not have (descriptors passed over a socket, mappings, eventfds, epoll), made through koffi. Everything
 * else of the package is plain TypeScript. Linux only; structures as on 64-bit machines. man 2 recvmsg, mmap, eventfd, epoll_wait.
 */
import { createRequire } from 'node:module';

/** koffi is not there, or this is not Linux. */
export class NativeMissingError extends Error {
  constructor(why: string) {
    super(
      `${why}. Passing descriptors needs koffi on Linux: install it with 'npm install koffi@3.3.4' (it is an optional dependency of @siov/vfio-user, with binaries for ` +
        'common platforms and no build), or use NetServer, which serves without it: no interrupts, DMA by messages',
    );
    this.name = 'NativeMissingError';
  }
}
/** A system call failed in a way that the caller did not expect. */
export class SystemCallError extends Error {
  readonly errno: number;
  constructor(call: string, errno: number) {
    super(`${call}: errno ${errno}`);
    this.name = 'SystemCallError';
    this.errno = errno;
  }
}

type Call = (...values: (number | bigint | null)[]) => number;
interface Koffi {
  load(path: string | null): { func(prototype: string): Call };
  errno(): number;
  view(address: bigint, bytes: number): ArrayBuffer;
}

/** asm-generic and linux headers. */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_RCVTIMEO = 20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const MSG_CTRUNC = 8;
const MAP = { SHARED: 1, PRIVATE: 2, FIXED: 0x10, ANONYMOUS: 0x20, NORESERVE: 0x4000 };
const PROT_RW = 3;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
const EPOLL_CTL = { ADD: 1, DEL: 2, MOD: 3 };
const POLLOUT = 4;
/** Asynchronous operations, which libc has no functions for: their numbers, asm/unistd_64.h and asm-generic/unistd.h. */
const aioNumbers: Readonly<Record<string, { setup: number; destroy: number; getevents: number; submit: number }>> = {
  x64: { setup: 206, destroy: 207, getevents: 208, submit: 209 },
  arm64: { setup: 0, destroy: 1, getevents: 4, submit: 2 },
};
const AIO_EVENTS = 64;
/** linux/aio_abi.h: struct iocb (opcode 0 is IOCB_CMD_PREAD). */
const Iocb = { bytes: 64, fildes: 20, flags: 56, resfd: 60 } as const;
const IOCB_FLAG_RESFD = 1;
/** linux/net/scm.h, SCM_MAX_FD: no message carries more. */
const MAX_FDS = 253;
export const Epoll = { IN: 1, OUT: 4, ERR: 8, HUP: 0x10, RDHUP: 0x2000 } as const;
export const EAGAIN = 11;
const EINTR = 4;
/** sizeof(sun_path): a path and its NUL. */
export const SOCKET_PATH_BYTES = 108;

/** Offsets in the arena: one page for arguments of system calls. */
const At = {
  receive: 0,
  receiveIovec: 64,
  send: 128,
  sendIovec: 192,
  address: 256,
  eight: 400,
  event: 432,
  pollfd: 448,
  pair: 464,
  events: 512,
  control: 2048,
} as const;
const CONTROL_BYTES = 16 + Math.ceil((MAX_FDS * 4) / 8) * 8;
const EVENTS = 64;

/** Memory outside of V8's heap, at a fixed address for ever. */
export interface NativeBytes {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** System calls, with the room for their arguments. One for each thread: `native()` gives it. */
export class Native {
  // fixed
  readonly #koffi: Koffi;
  readonly #arena: NativeBytes;
  readonly #data: DataView;
  readonly #words: Uint32Array;
  readonly #calls;
  /** The two of every message, out of the table. */
  readonly #recvmsg: Call;
  readonly #send: Call;
  readonly #receiveHeader: number;
  /** What the message header for receiving says. */
  #receiveAddress = 0;
  #receiveLength = 0;
  /** Descriptors that the last `receive` brought, with close-on-exec set. The caller owns them. */
  readonly fds: number[] = [];
  /** Events that the last `wait` brought: what was given to `watch`, and the Epoll bits. */
  readonly ready = new Int32Array(EVENTS);
  readonly readyBits = new Int32Array(EVENTS);
  /** It brought more descriptors than this process may have: some are lost. */
  fdsLost = false;

  constructor(koffi: Koffi) {
    this.#koffi = koffi;
    const libc = koffi.load(null);
    const call = (prototype: string) => libc.func(prototype);
    this.#calls = {
      mmap: libc.func('intptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
      socket: call('int socket(int, int, int)'),
      socketpair: call('int socketpair(int, int, int, uintptr_t)'),
      bind: call('int bind(int, uintptr_t, uint)'),
      listen: call('int listen(int, int)'),
      connect: call('int connect(int, uintptr_t, uint)'),
      setsockopt: call('int setsockopt(int, int, int, uintptr_t, uint)'),
      accept4: call('int accept4(int, uintptr_t, uintptr_t, int)'),
      close: call('int close(int)'),
      // Of these two no call moves 2 GiB: the result fits an int, which is made into a Number sooner.
      recvmsg: call('int recvmsg(int, uintptr_t, int)'),
      sendmsg: call('intptr_t sendmsg(int, uintptr_t, int)'),
      send: call('int send(int, uintptr_t, size_t, int)'),
      write: call('intptr_t write(int, uintptr_t, size_t)'),
      read: call('intptr_t read(int, uintptr_t, size_t)'),
      eventfd: call('int eventfd(uint, int)'),
      memfd_create: call('int memfd_create(uintptr_t, uint)'),
      // Variadic in C; with integers the calling conventions of Linux pass the third as of any function.
      fcntl: call('int fcntl(int, int, intptr_t)'),
      poll: call('int poll(uintptr_t, ulong, int)'),
      syscall: call('long syscall(long, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t)'),
      epoll_create1: call('int epoll_create1(int)'),
      epoll_ctl: call('int epoll_ctl(int, int, int, uintptr_t)'),
      epoll_wait: call('int epoll_wait(int, uintptr_t, int, int)'),
    };
    this.#recvmsg = this.#calls.recvmsg;
    this.#send = this.#calls.send;
    this.#arena = this.allocate(4096);
    const { bytes, address } = this.#arena;
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (const [header, iovec] of [
      [At.receive, At.receiveIovec],
      [At.send, At.sendIovec],
    ] as const) {
      this.#pointer(header + 16, address + iovec);
      this.#pointer(header + 24, 1);
      this.#pointer(header + 32, address + At.control);
    }
    this.#receiveHeader = address + At.receive;
  }

  #pointer(at: number, value: number): void {
    this.#data.setUint32(at, value, true);
    this.#data.setUint32(at + 4, value / 2 ** 32, true);
  }
  /** A system call by its number. */
  syscall(number: number, a: number, b = 0, c = 0, d = 0, e = 0): number {
    return this.#calls.syscall(number, a, b, c, d, e);
  }
  /** The result, or -errno. */
  #answer(result: number): number {
    return result < 0 ? -this.#koffi.errno() : result;
  }
  #must(call: string, result: number): number {
    if (result < 0) throw new SystemCallError(call, this.#koffi.errno());
    return result;
  }

  // --- memory

  /** Zeroed private memory that stays mapped as long as the process lives. */
  allocate(bytes: number): NativeBytes {
    const address = Number(this.#calls.mmap(0, bytes, PROT_RW, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE, -1, 0));
    if (address === -1) throw new SystemCallError('mmap', this.#koffi.errno());
    return { address, bytes: new Uint8Array(this.#koffi.view(BigInt(address), bytes)) };
  }
  /** A buffer of this thread that all users of one name share: a message is read, answered and gone before the next one. */
  room(name: string, bytes: number): NativeBytes {
    let room = this.#rooms.get(name);
    if (!room) {
      room = this.allocate(bytes);
      this.#rooms.set(name, room);
    }
    return room;
  }
  readonly #rooms = new Map<string, NativeBytes>();
  /** Puts a piece of a file over memory from `allocate`. 0 or -errno. */
  cover(address: number, bytes: number, fd: number, offset: number, writable: boolean): number {
    const result = Number(this.#calls.mmap(address, bytes, writable ? PROT_RW : 1, MAP.SHARED | MAP.FIXED, fd, offset));
    return result === -1 ? -this.#koffi.errno() : 0;
  }
  /** Takes it away: the memory is private zeros again. */
  uncover(address: number, bytes: number): void {
    const flags = MAP.PRIVATE | MAP.FIXED | MAP.ANONYMOUS | MAP.NORESERVE;
    if (Number(this.#calls.mmap(address, bytes, PROT_RW, flags, -1, 0)) === -1) throw new SystemCallError('mmap', this.#koffi.errno());
  }
  /** Whether nobody can make the file of a descriptor smaller (then a mapping of it never faults). man 2 fcntl, "File Sealing". */
  cannotShrink(fd: number): boolean {
    const seals = this.#calls.fcntl(fd, F_GET_SEALS, 0);
    return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
  }
  /** An anonymous file. */
  memfd(name = 'siov', sealable = true): number {
    const { bytes, address } = this.#arena;
    bytes.fill(0, At.address, At.address + 64);
    for (let i = 0; i < Math.min(name.length, 60); i++) bytes[At.address + i] = name.charCodeAt(i);
    return this.#must('memfd_create', this.#calls.memfd_create(address + At.address, sealable ? 3 : 1));
  }
  /** Forbids to make a memfd smaller, for ever. */
  sealShrink(fd: number): void {
    this.#must('fcntl', this.#calls.fcntl(fd, 1033, F_SEAL_SHRINK));
  }

  // --- sockets

  #socketAddress(path: string): number {
    const text = new TextEncoder().encode(path);
    if (text.length >= SOCKET_PATH_BYTES) throw new RangeError(`path: ${text.length} bytes, and a socket's has at most ${SOCKET_PATH_BYTES - 1}`);
    const { bytes } = this.#arena;
    bytes.fill(0, At.address, At.address + 2 + SOCKET_PATH_BYTES);
    this.#data.setUint16(At.address, AF_UNIX, true);
    bytes.set(text, At.address + 2);
    return 2 + text.length + 1;
  }
  #socket(): number {
    return this.#must('socket', this.#calls.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  }
  /** A listening socket that does not block, or -errno. */
  listen(path: string, backlog: number): number {
    const length = this.#socketAddress(path);
    const fd = this.#socket();
    let result = this.#answer(this.#calls.bind(fd, this.#arena.address + At.address, length));
    if (result === 0) result = this.#answer(this.#calls.listen(fd, backlog));
    if (result === 0) return fd;
    this.close(fd);
    return result;
  }
  connect(path: string): number {
    const length = this.#socketAddress(path);
    const fd = this.#socket();
    const result = this.#answer(this.#calls.connect(fd, this.#arena.address + At.address, length));
    if (result === 0) return fd;
    this.close(fd);
    return result;
  }
  /** A connection, or -errno. */
  accept(fd: number): number {
    return this.#answer(this.#calls.accept4(fd, 0, 0, SOCK_CLOEXEC));
  }
  /** Two ends of a connection. */
  pair(): [number, number] {
    this.#must('socketpair', this.#calls.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, this.#arena.address + At.pair));
    return [this.#data.getInt32(At.pair, true), this.#data.getInt32(At.pair + 4, true)];
  }
  close(fd: number): void {
    this.#calls.close(fd);
  }
  /** How long `receive` waits at most, when it waits. */
  patience(fd: number, ms: number): void {
    const { address } = this.#arena;
    this.#pointer(At.eight, Math.floor(ms / 1000));
    this.#pointer(At.eight + 8, (ms % 1000) * 1000);
    this.#must('setsockopt', this.#calls.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, address + At.eight, 16));
  }
  /** Up to `length` bytes: how many (0: the peer is gone) or -errno. Descriptors that came along are in `fds`. It waits only if asked to. */
  receive(fd: number, address: number, length: number, wait = false): number {
    const { fds } = this;
    if (fds.length > 0) fds.length = 0;
    const words = this.#words;
    if (address !== this.#receiveAddress || length !== this.#receiveLength) {
      this.#pointer(At.receiveIovec, address);
      this.#pointer(At.receiveIovec + 8, length);
      this.#receiveAddress = address;
      this.#receiveLength = length;
    }
    words[(At.receive + 40) / 4] = CONTROL_BYTES;
    const done = this.#recvmsg(fd, this.#receiveHeader, wait ? MSG_CMSG_CLOEXEC : MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (done < 0) return this.#answer(done);
    const control = words[(At.receive + 40) / 4]!;
    this.fdsLost = (words[(At.receive + 48) / 4]! & MSG_CTRUNC) !== 0;
    for (let at = 0; at + 16 <= control; ) {
      const bytes = this.#data.getUint32(At.control + at, true);
      if (this.#data.getInt32(At.control + at + 8, true) === SOL_SOCKET && this.#data.getInt32(At.control + at + 12, true) === SCM_RIGHTS)
        for (let i = 16; i + 4 <= bytes; i += 4) fds.push(this.#data.getInt32(At.control + at + i, true));
      at += Math.max(Math.ceil(bytes / 8) * 8, 16);
    }
    return done;
  }
  /** Sends without waiting; descriptors go with the first byte. How many bytes went, or -errno. */
  send(fd: number, address: number, length: number, fds?: readonly number[]): number {
    if (!fds?.length) {
      const done = this.#send(fd, address, length, MSG_DONTWAIT | MSG_NOSIGNAL);
      return done < 0 ? this.#answer(done) : done;
    }
    const bytes = 16 + fds.length * 4;
    this.#pointer(At.sendIovec, address);
    this.#pointer(At.sendIovec + 8, length);
    this.#pointer(At.send + 40, Math.ceil(bytes / 8) * 8);
    this.#pointer(At.control, bytes);
    this.#data.setInt32(At.control + 8, SOL_SOCKET, true);
    this.#data.setInt32(At.control + 12, SCM_RIGHTS, true);
    for (const [i, each] of fds.entries()) this.#data.setInt32(At.control + 16 + i * 4, each, true);
    return this.#answer(this.#calls.sendmsg(fd, this.#arena.address + At.send, MSG_DONTWAIT | MSG_NOSIGNAL));
  }

  // --- eventfds

  /** One of our own, at 0. */
  eventfd(nonBlocking = true): number {
    return this.#must('eventfd', this.#calls.eventfd(0, nonBlocking ? EFD_NONBLOCK | EFD_CLOEXEC : EFD_CLOEXEC));
  }
  /** Adds `n` to an eventfd of our own, by write. */
  add(fd: number, n: number | bigint): boolean {
    this.#data.setBigUint64(At.eight, BigInt(n), true);
    return this.#calls.write(fd, this.#arena.address + At.eight, 8) === 8;
  }
  /** Whether an eventfd has room for a signal. */
  hasRoom(fd: number): boolean {
    this.#data.setInt32(At.pollfd, fd, true);
    this.#data.setInt32(At.pollfd + 4, POLLOUT, true);
    return this.#calls.poll(this.#arena.address + At.pollfd, 1, 0) === 1 && (this.#data.getUint16(At.pollfd + 6, true) & POLLOUT) !== 0;
  }
  /** What an eventfd holds, and it is 0 again; 0 when there is nothing. */
  drain(fd: number): number {
    if (this.#calls.read(fd, this.#arena.address + At.eight, 8) !== 8) return 0;
    return this.#data.getUint32(At.eight, true) + this.#data.getUint32(At.eight + 4, true) * 2 ** 32;
  }

  // --- waiting

  epoll(): number {
    return this.#must('epoll_create1', this.#calls.epoll_create1(SOCK_CLOEXEC));
  }
  #event(bits: number, token: number): number {
    // struct epoll_event is packed on x86-64 only.
    const packed = process.arch === 'x64';
    this.#data.setUint32(At.event, bits, true);
    this.#data.setInt32(At.event + (packed ? 4 : 8), token, true);
    return this.#arena.address + At.event;
  }
  watch(epoll: number, fd: number, bits: number, token: number): void {
    this.#must('epoll_ctl', this.#calls.epoll_ctl(epoll, EPOLL_CTL.ADD, fd, this.#event(bits, token)));
  }
  rewatch(epoll: number, fd: number, bits: number, token: number): void {
    this.#must('epoll_ctl', this.#calls.epoll_ctl(epoll, EPOLL_CTL.MOD, fd, this.#event(bits, token)));
  }
  unwatch(epoll: number, fd: number): void {
    this.#calls.epoll_ctl(epoll, EPOLL_CTL.DEL, fd, this.#event(0, 0));
  }
  /** Waits until something is ready, at most `timeoutMs` (-1: for ever); how many are in `ready`. A signal's handler counts as nothing ready. */
  wait(epoll: number, timeoutMs: number): number {
    const n = this.#calls.epoll_wait(epoll, this.#arena.address + At.events, EVENTS, timeoutMs);
    if (n < 0) {
      if (this.#koffi.errno() === EINTR) return 0;
      throw new SystemCallError('epoll_wait', this.#koffi.errno());
    }
    const size = process.arch === 'x64' ? 12 : 16;
    for (let i = 0; i < n; i++) {
      this.readyBits[i] = this.#data.getInt32(At.events + i * size, true);
      this.ready[i] = this.#data.getInt32(At.events + i * size + size - 8, true);
    }
    return n;
  }
}

/**
 * Signals eventfds that may be others', and never waits, whatever they hold and however they are set: the end of an asynchronous operation that does
 * nothing signals one, as the kernel signals its own, where a write would wait for room. man 2 io_submit, IOCB_FLAG_RESFD.
 */
export class Signals {
  readonly #native: Native;
  readonly #room: NativeBytes;
  readonly #view: DataView;
  /** 0 where there are no asynchronous operations (a sandbox may forbid them): eventfds are asked for room first, and could be filled before the write. */
  readonly #context: number = 0;
  readonly #file: number = -1;
  readonly #calls = aioNumbers[process.arch];
  /** Ends that nobody took from the context's ring. */
  #ended = 0;

  constructor(of: Native) {
    this.#native = of;
    this.#room = of.room('signals', 4096);
    const { address, bytes } = this.#room;
    const view = (this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    view.setBigUint64(0, 0n, true);
    if (!this.#calls || of.syscall(this.#calls.setup, AIO_EVENTS, address) !== 0) return;
    this.#context = Number(view.getBigUint64(0, true));
    this.#file = of.memfd('siov-signal');
  }

  /** Adds `n`, 64 at most, to an eventfd. False: not signalled. */
  signal(fd: number, n: number): boolean {
    const { address } = this.#room;
    if (this.#context === 0) return this.#native.hasRoom(fd) && this.#native.add(fd, n);
    const count = Math.min(n, AIO_EVENTS);
    if (this.#ended + count > AIO_EVENTS) {
      this.#native.syscall(this.#calls!.getevents, this.#context, 0, AIO_EVENTS, address + SignalsAt.events);
      this.#ended = 0;
    }
    this.#ended += count;
    // Reads nothing, of an empty file. All signallers of this thread share the room.
    const view = this.#view;
    view.setInt32(SignalsAt.iocb + Iocb.fildes, this.#file, true);
    view.setUint32(SignalsAt.iocb + Iocb.flags, IOCB_FLAG_RESFD, true);
    view.setInt32(SignalsAt.iocb + Iocb.resfd, fd, true);
    for (let i = 0; i < count; i++) {
      view.setUint32(SignalsAt.list + i * 8, address + SignalsAt.iocb, true);
      view.setUint32(SignalsAt.list + i * 8 + 4, (address + SignalsAt.iocb) / 2 ** 32, true);
    }
    return this.#native.syscall(this.#calls!.submit, this.#context, count, address + SignalsAt.list) === count;
  }

  close(): void {
    if (this.#context === 0) return;
    this.#native.syscall(this.#calls!.destroy, this.#context);
    this.#native.close(this.#file);
  }
}
const SignalsAt = { iocb: 0, list: Iocb.bytes, events: 1024 } as const;

let made: Native | undefined;
/** The system calls of this thread. Throws NativeMissingError. */
export function native(): Native {
  if (made) return made;
  if (process.platform !== 'linux') throw new NativeMissingError(`this is ${process.platform}`);
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new NativeMissingError(`koffi does not load (${(error as Error).message.split('\n')[0]})`);
  }
  made = new Native(koffi);
  return made;
}
