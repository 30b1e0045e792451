/**
 * The edge: system calls that Node does not have, made through koffi. Sockets that keep message boundaries and whose peers are known, shared
 * memory, futexes, and another process's memory. Linux on x86-64 only. man 2 recv, epoll_wait, pidfd_open, futex, process_vm_readv.
 */
import { createRequire } from 'node:module';
import { REVOKED } from './wire.js';

/** koffi is not there, or this machine is not the one that the shim is for. */
export class NativeMissingError extends Error {
  constructor(why: string) {
    super(`${why}. siov exec needs Linux on x86-64 and koffi: 'npm install koffi@3.3.4' (an optional dependency, with binaries and no build)`);
    this.name = 'NativeMissingError';
  }
}
/** A system call failed in a way that nobody expected. */
class SystemCallError extends Error {
  constructor(call: string, errno: number) {
    super(`${call}: errno ${errno}`);
    this.name = 'SystemCallError';
  }
}

type Call = (...values: (number | bigint | Uint8Array | null)[]) => number;
interface Koffi {
  load(path: string | null): { func(prototype: string): Call };
  errno(): number;
  view(address: bigint, bytes: number): ArrayBuffer;
}

const AF_UNIX = 1;
const SOCK = { stream: 1, seqpacket: 5, nonblock: 0o4000, cloexec: 0o2000000 };
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** asm-generic/socket.h, since Linux 6.5. */
const SO_PEERPIDFD = 77;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const PROT_RW = 3;
const MAP = { shared: 1, private: 2, fixed: 0x10, anonymous: 0x20, noreserve: 0x4000 };
const MFD = { cloexec: 1, sealing: 2 };
const F_ADD_SEALS = 1033;
const SEAL = { seal: 1, shrink: 2, grow: 4, futureWrite: 0x10 };
const EPOLLIN = 1;
const EINTR = 4;
const ENOPROTOOPT = 92;
const Sys = { futex: 202, pidfdSendSignal: 424, pidfdOpen: 434, pidfdGetfd: 438 };
const FUTEX_WAKE = 1;
const SIGBUS = 7;
const SI_QUEUE = -1;
/** linux/fs.h: _IOWR('f', 17, struct procmap_query), since Linux 6.11. */
const PROCMAP_QUERY = 0xc068_6611;
const SUN_PATH = 108;
const EVENTS = 64;
const At = {
  address: 0,
  length: 128,
  credentials: 144,
  event: 160,
  local: 192,
  remote: 208,
  query: 256,
  signal: 384,
  events: 512,
  size: 4096,
} as const;

/** Memory that a program may map by a descriptor of ours. */
export interface SharedMemory extends NativeBytes {
  readonly fd: number;
}
/** Memory outside of V8's heap, at an address that stays. */
export interface NativeBytes {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export class Native {
  readonly #koffi: Koffi;
  readonly #calls;
  readonly #arena: NativeBytes;
  readonly #data: DataView;
  /** A page for whoever needs one between two calls. */
  readonly room: NativeBytes;
  /** What `watch` was given, of those that the last `wait` found. */
  readonly ready = new Int32Array(EVENTS);
  /** What the last `vma` found, in bytes, and its rights: 1 read, 2 write. */
  vmaStart = 0;
  vmaEnd = 0;
  vmaRights = 0;

  constructor(koffi: Koffi) {
    this.#koffi = koffi;
    const libc = koffi.load(null);
    this.#calls = {
      mmap: libc.func('intptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
      munmap: libc.func('int munmap(uintptr_t, size_t)'),
      memfd_create: libc.func('int memfd_create(const uint8_t *, uint)'),
      ftruncate: libc.func('int ftruncate(int, int64_t)'),
      fcntl: libc.func('int fcntl(int, int, long)'),
      socket: libc.func('int socket(int, int, int)'),
      bind: libc.func('int bind(int, uintptr_t, uint)'),
      listen: libc.func('int listen(int, int)'),
      accept4: libc.func('int accept4(int, uintptr_t, uintptr_t, int)'),
      getsockname: libc.func('int getsockname(int, uintptr_t, uintptr_t)'),
      getsockopt: libc.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)'),
      close: libc.func('int close(int)'),
      recv: libc.func('intptr_t recv(int, uintptr_t, size_t, int)'),
      send: libc.func('intptr_t send(int, uintptr_t, size_t, int)'),
      epoll_create1: libc.func('int epoll_create1(int)'),
      epoll_ctl: libc.func('int epoll_ctl(int, int, int, uintptr_t)'),
      epoll_wait: libc.func('int epoll_wait(int, uintptr_t, int, int)'),
      pread: libc.func('intptr_t pread(int, uintptr_t, size_t, int64_t)'),
      pwrite: libc.func('intptr_t pwrite(int, uintptr_t, size_t, int64_t)'),
      process_vm_readv: libc.func('intptr_t process_vm_readv(int, uintptr_t, ulong, uintptr_t, ulong, ulong)'),
      // Variadic in C; with integers the calling conventions of x86-64 pass them as of any function.
      ioctl: libc.func('int ioctl(int, ulong, uintptr_t)'),
      syscall: libc.func('long syscall(long, uintptr_t, long, long, long, long, long)'),
    };
    this.#arena = this.allocate(At.size);
    this.room = this.allocate(4096);
    const { bytes } = this.#arena;
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  #must(call: string, result: number): number {
    if (result < 0) throw new SystemCallError(call, this.#koffi.errno());
    return result;
  }
  #answer(result: number): number {
    return result < 0 ? -this.#koffi.errno() : result;
  }
  #pointer(at: number, value: number): void {
    this.#data.setUint32(at, value, true);
    this.#data.setUint32(at + 4, value / 2 ** 32, true);
  }

  // --- memory

  #view(address: number, bytes: number): NativeBytes {
    if (address === -1) throw new SystemCallError('mmap', this.#koffi.errno());
    return { address, bytes: new Uint8Array(this.#koffi.view(BigInt(address), bytes)) };
  }
  /** Zeroed private memory that stays. */
  allocate(bytes: number): NativeBytes {
    return this.#view(Number(this.#calls.mmap(0, bytes, PROT_RW, MAP.private | MAP.anonymous | MAP.noreserve, -1, 0)), bytes);
  }
  /** A file in memory whose length stays, or -errno. */
  #file(bytes: number): number {
    const fd = this.#answer(this.#calls.memfd_create(Buffer.from('siov-exec\0'), MFD.cloexec | MFD.sealing));
    if (fd >= 0) this.#must('ftruncate', this.#calls.ftruncate(fd, bytes));
    return fd;
  }
  /** Zeroed memory that whoever opens its descriptor shares, and that nobody can take bytes from; `readOnly`: that nobody else can write. */
  share(bytes: number, readOnly = false): SharedMemory {
    const fd = this.#must('memfd_create', this.#file(bytes));
    const memory = this.#view(Number(this.#calls.mmap(0, bytes, PROT_RW, MAP.shared, fd, 0)), bytes);
    this.#must('fcntl', this.#calls.fcntl(fd, F_ADD_SEALS, SEAL.seal | SEAL.shrink | SEAL.grow | (readOnly ? SEAL.futureWrite : 0)));
    return { ...memory, fd };
  }
  /** A file in memory that nobody can take bytes from, or -errno. */
  sealedFile(bytes: number): number {
    const fd = this.#file(bytes);
    if (fd >= 0) this.#must('fcntl', this.#calls.fcntl(fd, F_ADD_SEALS, SEAL.seal | SEAL.shrink | SEAL.grow));
    return fd;
  }
  /** Memory of `allocate` is from now on that of a file; without one (-1) zeros. */
  cover(address: number, bytes: number, fd: number, offset: number): void {
    const flags = MAP.fixed | (fd < 0 ? MAP.private | MAP.anonymous | MAP.noreserve : MAP.shared);
    if (Number(this.#calls.mmap(address, bytes, PROT_RW, flags, fd, offset)) === -1) throw new SystemCallError('mmap', this.#koffi.errno());
  }
  /** Nobody may look at its bytes any more. */
  unshare(memory: SharedMemory): void {
    this.#calls.munmap(memory.address, memory.bytes.length);
    this.#calls.close(memory.fd);
  }
  /** Wakes all who wait for a word in shared memory. */
  wake(address: number): void {
    this.#calls.syscall(Sys.futex, address, FUTEX_WAKE, 0x7fff_ffff, 0, 0, 0);
  }

  // --- sockets

  /** A listening socket at a path. */
  listen(path: string, packets: boolean): number {
    const text = new TextEncoder().encode(path);
    if (text.length >= SUN_PATH) throw new RangeError(`path: ${text.length} bytes, and a socket's has at most ${SUN_PATH - 1}`);
    const { bytes, address } = this.#arena;
    bytes.fill(0, At.address, At.address + 2 + SUN_PATH);
    this.#data.setUint16(At.address, AF_UNIX, true);
    bytes.set(text, At.address + 2);
    const fd = this.#must('socket', this.#calls.socket(AF_UNIX, (packets ? SOCK.seqpacket : SOCK.stream) | SOCK.cloexec | SOCK.nonblock, 0));
    this.#must('bind', this.#calls.bind(fd, address + At.address, 2 + text.length + 1));
    this.#must('listen', this.#calls.listen(fd, 4096));
    return fd;
  }
  /** A connection and the name of its peer ('' without one; an abstract one without its first byte); undefined: there is none. */
  accept(fd: number): { readonly fd: number; readonly name: string } | undefined {
    const { address } = this.#arena;
    this.#data.setUint32(At.length, 110, true);
    const connection = this.#calls.accept4(fd, address + At.address, address + At.length, SOCK.cloexec | SOCK.nonblock);
    if (connection < 0) return undefined;
    return { fd: connection, name: this.#name() };
  }
  /** The name that a socket has: '' for none, one without its first byte for an abstract one. */
  nameOf(fd: number): string {
    const { address } = this.#arena;
    this.#data.setUint32(At.length, 110, true);
    return this.#calls.getsockname(fd, address + At.address, address + At.length) < 0 ? '' : this.#name();
  }
  #name(): string {
    if (this.#data.getUint16(At.address, true) !== AF_UNIX) return '';
    const end = At.address + Math.max(3, this.#data.getUint32(At.length, true));
    return String.fromCharCode(...this.#arena.bytes.subarray(At.address + 3, end));
  }
  /** Who connected. man 7 unix, SO_PEERCRED. */
  peer(fd: number): { readonly pid: number; readonly uid: number } {
    const { address } = this.#arena;
    this.#data.setUint32(At.length, 12, true);
    this.#must('getsockopt', this.#calls.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, address + At.credentials, address + At.length));
    return { pid: this.#data.getInt32(At.credentials, true), uid: this.#data.getUint32(At.credentials + 4, true) };
  }
  close(fd: number): void {
    this.#calls.close(fd);
  }
  /** Bytes, 0 at the end, or -errno. Never waits. */
  receive(fd: number, to: NativeBytes): number {
    return this.#answer(this.#calls.recv(fd, to.address, to.bytes.length, MSG_DONTWAIT));
  }
  /** Never waits. */
  send(fd: number, from: NativeBytes, length: number): number {
    return this.#answer(this.#calls.send(fd, from.address, length, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  /** A descriptor that becomes readable when the process ends; -errno. */
  pidfd(pid: number): number {
    return this.#answer(this.#calls.syscall(Sys.pidfdOpen, pid, 0, 0, 0, 0, 0));
  }
  /** The same of the process that connected. Kernels before 6.5 know it by its number alone, which may be another's by now. */
  peerPidfd(fd: number, pid: number): number {
    const { address } = this.#arena;
    this.#data.setUint32(At.length, 4, true);
    const result = this.#answer(this.#calls.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, address + At.credentials, address + At.length));
    if (result < 0) return result === -ENOPROTOOPT ? this.pidfd(pid) : result;
    return this.#data.getInt32(At.credentials, true);
  }
  /** A descriptor of ours for an open file of another process, or -errno. man 2 pidfd_getfd. */
  descriptorOf(pidfd: number, fd: number): number {
    return this.#answer(this.#calls.syscall(Sys.pidfdGetfd, pidfd, fd, 0, 0, 0, 0));
  }
  /** Tells a process that memory which it was lent is gone: what it does then stands in the shim. man 2 pidfd_send_signal, rt_sigqueueinfo. */
  revoke(pidfd: number): void {
    const data = this.#data;
    this.#arena.bytes.fill(0, At.signal, At.signal + 128);
    data.setInt32(At.signal, SIGBUS, true);
    data.setInt32(At.signal + 8, SI_QUEUE, true);
    data.setInt32(At.signal + 16, process.pid, true);
    data.setUint32(At.signal + 20, process.geteuid!(), true);
    data.setUint32(At.signal + 24, REVOKED, true);
    this.#calls.syscall(Sys.pidfdSendSignal, pidfd, SIGBUS, this.#arena.address + At.signal, 0, 0, 0);
  }
  /** Whether the process still has its number. man 2 pidfd_send_signal. */
  lives(pidfd: number): boolean {
    return this.#calls.syscall(Sys.pidfdSendSignal, pidfd, 0, 0, 0, 0, 0) === 0;
  }

  // --- waiting

  epoll(): number {
    return this.#must('epoll_create1', this.#calls.epoll_create1(SOCK.cloexec));
  }
  watch(epoll: number, fd: number, token: number): void {
    this.#data.setUint32(At.event, EPOLLIN, true);
    this.#data.setInt32(At.event + 4, token, true);
    this.#must('epoll_ctl', this.#calls.epoll_ctl(epoll, 1, fd, this.#arena.address + At.event));
  }
  /** How many are ready, within so many milliseconds; a signal counts as none. */
  wait(epoll: number, timeoutMs: number): number {
    const n = this.#calls.epoll_wait(epoll, this.#arena.address + At.events, EVENTS, timeoutMs);
    if (n < 0) {
      if (this.#koffi.errno() === EINTR) return 0;
      throw new SystemCallError('epoll_wait', this.#koffi.errno());
    }
    for (let i = 0; i < n; i++) this.ready[i] = this.#data.getInt32(At.events + i * 12 + 4, true);
    return n;
  }

  // --- another process

  read(fd: number, to: number, length: number, at: number): number {
    return this.#answer(this.#calls.pread(fd, to, length, at));
  }
  write(fd: number, from: number, length: number, at: number): number {
    return this.#answer(this.#calls.pwrite(fd, from, length, at));
  }
  /** By the rights of its pages; how many bytes, or -errno. */
  readOf(pid: number, to: number, length: number, at: number): number {
    this.#pointer(At.local, to);
    this.#pointer(At.local + 8, length);
    this.#pointer(At.remote, at);
    this.#pointer(At.remote + 8, length);
    const { address } = this.#arena;
    return this.#answer(this.#calls.process_vm_readv(pid, address + At.local, 1, address + At.remote, 1, 0));
  }
  /** The mapping that covers an address, by its process's maps file: 0, or -errno (-ENOENT: none; -ENOTTY: this kernel cannot say). */
  vma(maps: number, at: number): number {
    const query = At.query;
    this.#pointer(query, 104);
    this.#pointer(query + 8, 0);
    this.#pointer(query + 16, at);
    for (let i = 24; i < 104; i += 8) this.#pointer(query + i, 0);
    const result = this.#answer(this.#calls.ioctl(maps, PROCMAP_QUERY, this.#arena.address + query));
    if (result < 0) return result;
    const word = (offset: number): number => this.#data.getUint32(query + offset, true) + this.#data.getUint32(query + offset + 4, true) * 2 ** 32;
    this.vmaStart = word(24);
    this.vmaEnd = word(32);
    this.vmaRights = this.#data.getUint32(query + 40, true) & 3;
    return 0;
  }
}

let made: Native | undefined;
/** The system calls. Throws NativeMissingError. */
export function native(): Native {
  if (made) return made;
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new NativeMissingError(`this is ${process.platform} on ${process.arch}`);
  let koffi: Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    throw new NativeMissingError(`koffi does not load (${(error as Error).message.split('\n')[0]})`);
  }
  made = new Native(koffi);
  return made;
}
