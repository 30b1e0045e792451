/**
 * The server: the simulated kernel, its devices, and the processes of this machine that use them. Calls come as packets over a socket, stores
 * to portals through a ring of each process, and handles (stream sockets, one an open file) say by their end when a file was closed. One
 * thread does everything: while there is work it looks at the rings, otherwise it sleeps in epoll.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Descriptor, Flag, Status } from '@siov/idxd-device/spec';
import { Errno, MapFlag, Open, PENDING, Poll } from '@siov/layout/uapi';
import type { Program, UserTask } from '@siov/vfs';
import { emulate } from './emulate.js';
import type { ForeignMm } from './foreign.js';
import { type Injections, Injector } from './inject.js';
import { type Machine, nodesOf } from './machine.js';
import type { Native, NativeBytes } from './native.js';
import { type ServedFile, Session } from './session.js';
import { sweep, Tree } from './tree.js';
import { Answer, Kind, OPAQUE, Op, PAYLOAD, POSITION, Reply, Request, Ring, SLOTS, Slot, VERSION } from './wire.js';

/** How long the server looks at rings after the last work, before it sleeps, in milliseconds. */
const SPIN_MS = 0.3;
/**
 * When it is woken as soon as it sleeps, the program had waited for this very processor: then it sleeps sooner, for as long as that goes on.
 */
const SHORT_SPIN_MS = 0.02;
const SOON_MS = 0.1;
const CROWDED_MS = 100;
/** How long it sleeps at most: timers of Node run in between. */
const NAP_MS = 20;
/** How long the device works before other processes are looked at. */
const SLICE_MS = 4;
const HASTE_MS = 20;
/** Calls of one process before others are looked at. */
const AT_ONCE = 64;
const PREFIX = 'siov-exec-';
/** A device as the physical address map has it. */
type Device = NonNullable<ReturnType<Machine['host']['memory']['regionOf']>>['device'];
const idle: Program = { step: () => 'wait' };
/** sys/ucontext.h, ucontext_t on x86-64: `gregs`, of which the first 18 are rip, flags and before; the pointer to the floating-point state. */
const Context = { gregs: 40, words: 18, fpregs: 224 } as const;
/** struct _libc_fpstate: the low halves of vector registers. */
const XMM = 160;
/** The longest instruction. */
const CODE = 15;

export interface ServerCounts {
  processes: number;
  calls: number;
  movdir64b: number;
  enqcmd: number;
  retries: number;
  stores: number;
  loads: number;
  /** Instructions carried out in programs, and the milliseconds that took there, of processes that ended. */
  traps: number;
  trapMs: number;
  /** Faults on demand. */
  injected: number;
}
export interface ServerOptions {
  /** Where the overlay's folder goes; default: shared memory, or else the folder for temporary files. */
  readonly folder?: string;
  /** Faults on demand. */
  readonly inject?: Injections;
}

export class ExecServer {
  readonly machine: Machine;
  /** The overlay's folder: SIOV_EXEC of programs. */
  readonly root: string;
  readonly counts: ServerCounts = {
    processes: 0,
    calls: 0,
    movdir64b: 0,
    enqcmd: 0,
    retries: 0,
    stores: 0,
    loads: 0,
    traps: 0,
    trapMs: 0,
    injected: 0,
  };
  readonly #native: Native;
  readonly #options: ServerOptions;
  readonly #tree: Tree;
  /** What names of handles begin with: the folder's own name, which nobody guesses. */
  readonly #token: string;
  readonly #epoll: number;
  readonly #processes: number;
  readonly #handles: number;
  /** Keeps files open that handles stand for. */
  readonly #holder: UserTask;
  readonly #sessions: Session[] = [];
  /** What to do when a descriptor is ready, by a number of its own: those of descriptors come again. */
  readonly #watched = new Map<number, () => void>();
  readonly #tokens = new Map<number, number>();
  #nextToken = 1;
  readonly #files = new Map<number, ServedFile>();
  readonly #pending: { readonly session: Session; retry(): number }[] = [];
  readonly #in: NativeBytes;
  readonly #inData: DataView;
  readonly #out: NativeBytes;
  readonly #outData: DataView;
  readonly #packet = new Uint32Array(16);
  #nextFile = 1;
  #errors = 0;
  #closed = false;
  /** Until when Node's own events are looked at all the time: it is about to hear of an end. */
  #hasty = 0;

  constructor(native: Native, machine: Machine, options: ServerOptions = {}) {
    this.#native = native;
    this.machine = machine;
    this.#options = options;
    const base = options.folder ?? sharedFolder();
    sweep(base, PREFIX);
    this.#token = `${PREFIX}${process.pid}-${randomBytes(8).toString('hex')}`;
    this.root = join(base, this.#token);
    mkdirSync(this.root, { mode: 0o700 });
    const { kernel } = machine.host;
    this.#tree = new Tree(this.root, kernel.user.sysfs);
    this.#holder = kernel.user.spawn(idle, 'holder');
    this.#in = native.allocate(Request.size + PAYLOAD);
    this.#inData = new DataView(this.#in.bytes.buffer, this.#in.bytes.byteOffset, this.#in.bytes.length);
    this.#out = native.allocate(4096);
    this.#outData = new DataView(this.#out.bytes.buffer, this.#out.bytes.byteOffset, Reply.size);
    this.#epoll = native.epoll();
    this.#processes = native.listen(join(this.root, 'socket'), true);
    this.#handles = native.listen(join(this.root, 'files'), false);
    for (const name of ['socket', 'files']) chmodSync(join(this.root, name), 0o600);
    this.#watch(this.#processes, () => this.#acceptProcesses());
    this.#watch(this.#handles, () => this.#acceptHandles());
    for (const path of OPAQUE) mkdirSync(join(this.root, path), { recursive: true });
    this.#sync();
  }

  /** Processes that are connected, files that are open, and address spaces that the device may reach. */
  get alive(): { readonly processes: number; readonly files: number; readonly memories: number } {
    return { processes: this.#sessions.length, files: this.#files.size, memories: this.machine.foreign.size };
  }

  /** Serving looks up as soon as this process ends. */
  wakeFor(pid: number): void {
    const fd = this.#native.pidfd(pid);
    if (fd < 0) return;
    this.#watch(fd, () => {
      this.#forget(fd);
      this.#hasty = performance.now() + HASTE_MS;
    });
  }

  /** Serves until the condition holds, which is looked at every few milliseconds. */
  async run(until: () => boolean): Promise<void> {
    let last = performance.now();
    let yielded = last;
    /** Until when the processor is not worth keeping. */
    let crowded = 0;
    for (let round = 0; ; round++) {
      if (this.#take()) {
        this.#settle();
        last = performance.now();
        round = 0;
      }
      const now = performance.now();
      if (now - yielded > NAP_MS / 2 || now < this.#hasty) {
        await new Promise((resolve) => setImmediate(resolve));
        yielded = performance.now();
        if (until()) break;
      }
      if (now - last < (now < crowded ? SHORT_SPIN_MS : SPIN_MS)) {
        if (round % 16 === 15 && this.#events(0)) last = performance.now();
        continue;
      }
      if (this.#busy()) {
        this.#settle();
        continue;
      }
      this.#tree.some(8);
      this.#sleep(true);
      const woken = this.#anyFilled() || this.#events(NAP_MS);
      this.#sleep(false);
      if (woken) {
        last = performance.now();
        if (last - now < SOON_MS) crowded = last + CROWDED_MS;
      } else {
        await new Promise((resolve) => setImmediate(resolve));
        yielded = performance.now();
        if (until()) break;
      }
    }
    // Ends that came together with the one that was waited for.
    for (let n = 0; n < AT_ONCE && this.#events(0); n++) this.#drain();
    this.#drain();
  }

  /** All processes lose the device. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const session of [...this.#sessions]) this.#end(session);
    for (const file of [...this.#files.values()]) this.#close(file);
    for (const fd of [...this.#tokens.keys()]) this.#forget(fd);
    this.#native.close(this.#epoll);
    rmSync(this.root, { recursive: true, force: true });
  }

  // --- rings

  #anyFilled(): boolean {
    for (const session of this.#sessions) if (session.next() >= 0) return true;
    return false;
  }
  #sleep(on: boolean): void {
    for (const session of this.#sessions) session.sleeping = on;
  }
  /** Takes what the rings hold, a few of each process at a time; whether there was anything. */
  #take(): boolean {
    let any = false;
    for (const session of this.#sessions) {
      for (let n = 0; n < 64; n++) {
        const at = session.next();
        if (at < 0) break;
        any = true;
        this.#access(session, at);
      }
    }
    return any;
  }

  /** Takes all that a process had stored by now. */
  #posted(session: Session): void {
    for (let at = session.next(), n = 0; at >= 0 && n < SLOTS; at = session.next(), n++) this.#access(session, at);
  }
  #access(session: Session, at: number): void {
    const { words, mm } = session;
    const { counts } = this;
    const kind = words[at + Slot.kind / 4];
    const address = words[at + Slot.address / 4]! + words[at + Slot.address / 4 + 1]! * 2 ** 32;
    const frame = mm.frameOf(address);
    const { device, offset } = this.#behind(session, address);
    const packet = this.#copy(words, at);
    if (kind !== Kind.enqcmd) {
      counts.movdir64b++;
      if (offset % 64 === 0 && !this.#injected(session, frame, packet)) device?.movdir64b?.(offset, packet, 0);
      session.take(at);
      return;
    }
    counts.enqcmd++;
    let answer: number = Answer.busError;
    if (mm.pasid < 0) answer = Answer.protection;
    else if (device?.enqcmd && offset % 64 === 0) {
      packet[0] = mm.pasid;
      const refused = session.injector?.refuses() ?? false;
      answer = refused || (!this.#injected(session, frame, packet) && device.enqcmd(offset, packet, 0) !== 0) ? Answer.retry : Answer.done;
      if (answer === Answer.retry) counts.retries++;
    }
    session.answer(at, answer);
  }
  /** A fault on demand: true when the descriptor has got its end by it, and the device does not see it. */
  #injected(session: Session, frame: number, packet: Uint32Array): boolean {
    const verdict = session.injector?.next();
    if (!verdict) return false;
    const { status, softwareError, halt } = verdict;
    const index = this.machine.drivers.findIndex((driver) => driver.wqs.some((wq) => driver.portalFrame(wq) === frame));
    const device = this.machine.host.devices[index];
    if (status || softwareError || halt) this.counts.injected++;
    if (softwareError) device?.injectSoftwareError(softwareError);
    if (halt) device?.injectHalt(halt);
    if (!status) return false;
    // Without a record to write, the device would say it in SWERROR.
    const { get } = Descriptor;
    if (!(get.flags(packet, 0) & Flag.recordAddressValid)) device?.injectSoftwareError(status & 0x7f);
    else {
      const record = new Uint32Array(8);
      record[0] = status;
      const faulted = (status & 0x7f) === Status.pageFault || (status & 0x7f) === Status.pageRequestInvalid;
      // Nothing was done, and the first byte of the source (or the destination, for a write) is what was missing.
      if (faulted) record.set(packet.subarray(status & 0x80 ? 6 : 4, status & 0x80 ? 8 : 6), 2);
      const bytes = new Uint8Array(record.buffer);
      const to = get.recordLow(packet, 0) + get.recordHigh(packet, 0) * 2 ** 32;
      if (session.mm.write(to + 1, bytes.subarray(1)) === 0) session.mm.write(to, bytes.subarray(0, 1));
    }
    return true;
  }
  /** The device whose page a process has at an address, and where in it. */
  #behind({ mm }: Session, address: number): { readonly device: Device; readonly offset: number } {
    const frame = mm.frameOf(address);
    const region = frame < 0 ? undefined : this.machine.host.memory.regionOf(frame);
    return { device: region?.device, offset: region ? (frame - region.firstFrame) * 4096 + (address % 4096) : 0 };
  }
  #copy(words: Uint32Array, at: number): Uint32Array {
    const { data } = Slot;
    const packet = this.#packet;
    for (let i = 0; i < 16; i++) packet[i] = words[at + data / 4 + i]!;
    return packet;
  }

  /** An instruction that the shim does not know: its registers are in a ucontext_t of the program. `page`: what it wanted, or 0. */
  #trap(session: Session, context: number, page: number): number {
    const { mm } = session;
    const { counts } = this;
    const block = new Uint8Array(Context.words * 8);
    const g = new BigUint64Array(block.buffer);
    const pointer = new BigUint64Array(1);
    if (mm.read(context + Context.gregs, block) < 0 || mm.read(context + Context.fpregs, new Uint8Array(pointer.buffer)) < 0) return Answer.notOurs;
    const area = page === 0 ? undefined : mm.areaAt(page);
    if (area && area.frames.size === 0) return Answer.busError;
    const fits = (address: bigint, width: number): boolean =>
      area !== undefined && address >= area.start && address + BigInt(width) <= area.start + area.length;
    const xmm = (index: number): number => Number(pointer[0]!) + XMM + index * 16;
    const word = new BigUint64Array(2);
    const bytes = new Uint8Array(word.buffer);
    const done = emulate(this.#code(mm, Number(g[16])), g, {
      load: (address, width) => {
        if (!fits(address, width)) {
          word[0] = 0n;
          return mm.read(Number(address), bytes.subarray(0, width)) < 0 ? undefined : word[0];
        }
        counts.loads++;
        const { device, offset } = this.#behind(session, Number(address));
        let value = 0n;
        for (let at = 0; at < width; at += 4) value |= BigInt(device!.read(offset + at, Math.min(4, width)) >>> 0) << BigInt(at * 8);
        return value;
      },
      store: (address, width, value) => {
        if (!fits(address, width)) {
          word[0] = value;
          return mm.write(Number(address), bytes.subarray(0, width)) >= 0;
        }
        counts.stores++;
        const { device, offset } = this.#behind(session, Number(address));
        for (let at = 0; at < width; at += 4) device!.write(offset + at, Math.min(4, width), Number((value >> BigInt(at * 8)) & 0xffff_ffffn));
        return true;
      },
      vector: (index) => (index < 16 && mm.read(xmm(index), bytes) >= 0 ? word[0]! | (word[1]! << 64n) : 0n),
      setVector: (index, value) => {
        word[0] = value & 0xffff_ffff_ffff_ffffn;
        word[1] = value >> 64n;
        if (index < 16) mm.write(xmm(index), bytes);
      },
    });
    if (!done) return Answer.notOurs;
    return mm.write(context + Context.gregs, block) < 0 ? Answer.notOurs : Answer.done;
  }
  /** The instruction's bytes, as far as there are any: the next page may be missing. */
  #code(mm: ForeignMm, rip: number): Uint8Array {
    const code = new Uint8Array(CODE);
    const first = Math.min(CODE, 4096 - (rip % 4096));
    if (mm.read(rip, code.subarray(0, first)) < 0) return code.subarray(0, 0);
    return first === CODE || mm.read(rip + first, code.subarray(first)) >= 0 ? code : code.subarray(0, first);
  }

  // --- the device

  #busy(): boolean {
    return this.machine.host.clock.pending > 0;
  }
  /** The device and the kernel work; other processes' rings are looked at in between. */
  #settle(): void {
    const { host, foreign } = this.machine;
    foreign.refresh();
    const end = performance.now() + SLICE_MS;
    for (let n = 1; host.clock.pump() || host.clock.idle(); n++) {
      if (n % 64 !== 0) continue;
      if (performance.now() > end) break;
      if (this.#anyFilled()) break;
    }
    foreign.flush();
    this.#notify();
    this.#retry();
  }
  /** Until nothing is left that could happen. */
  #drain(): void {
    do this.#settle();
    while (this.#busy());
  }
  /** Files that poll(2) would now find readable get a byte. */
  #notify(): void {
    const errors = this.machine.drivers.reduce((sum, driver) => sum + driver.softwareErrors.length, 0);
    if (errors === this.#errors) return;
    this.#errors = errors;
    this.#dirty = true;
    for (const file of this.#files.values()) this.#signal(file);
  }
  #signal(file: ServedFile): void {
    if (file.signalled || file.socket === undefined || file.kind !== 'c') return;
    const { task } = file.opener;
    const ready = this.#holder.file(file.held)?.poll?.(task) ?? 0;
    if (!(ready & (Poll.IN | Poll.ERR))) return;
    file.signalled = true;
    this.#native.send(file.socket, this.#out, 1);
  }
  #retry(): void {
    for (const waiting of this.#pending.splice(0)) {
      const result = waiting.retry();
      if (result === PENDING) this.#pending.push(waiting);
      else this.#reply(waiting.session, result);
    }
  }

  /** Something that attributes or nodes show may have changed. */
  #dirty = true;
  #sync(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#tree.sync(nodesOf(this.machine));
  }

  // --- sockets

  #events(timeoutMs: number): boolean {
    const native = this.#native;
    const n = native.wait(this.#epoll, timeoutMs);
    if (n === 0) return false;
    const tokens = native.ready.slice(0, n);
    // One may take away what another stands for.
    for (const token of tokens) this.#watched.get(token)?.();
    return true;
  }
  #watch(fd: number, ready: () => void): void {
    const token = this.#nextToken++;
    this.#tokens.set(fd, token);
    this.#watched.set(token, ready);
    this.#native.watch(this.#epoll, fd, token);
  }
  /** A descriptor that was watched goes. */
  #forget(fd: number): void {
    this.#watched.delete(this.#tokens.get(fd) ?? -1);
    this.#tokens.delete(fd);
    this.#native.close(fd);
  }

  #acceptProcesses(): void {
    for (let next = this.#native.accept(this.#processes); next; next = this.#native.accept(this.#processes)) {
      const { fd } = next;
      this.#watch(fd, () => this.#stranger(fd));
    }
  }
  #acceptHandles(): void {
    for (let next = this.#native.accept(this.#handles); next; next = this.#native.accept(this.#handles)) {
      const [, id] = /^([0-9a-f]+)\//.exec(next.name.startsWith(`${this.#token}/`) ? next.name.slice(this.#token.length + 1) : '') ?? [];
      const file = id === undefined ? undefined : this.#files.get(Number.parseInt(id, 16));
      if (!file || file.socket !== undefined || this.#native.peer(next.fd).uid !== process.geteuid!()) {
        this.#native.close(next.fd);
        continue;
      }
      file.socket = next.fd;
      this.#watch(next.fd, () => this.#stream(file));
      this.#signal(file);
    }
  }
  /** The first packet of a process must be its introduction. */
  #stranger(fd: number): void {
    const native = this.#native;
    const n = native.receive(fd, this.#in);
    if (n === -Errno.EAGAIN) return;
    const reject = (): void => this.#forget(fd);
    const { pid, uid } = native.peer(fd);
    const data = this.#inData;
    if (n !== Request.size || data.getUint32(0, true) !== Op.hello || data.getBigUint64(Request.args, true) !== BigInt(VERSION)) {
      reject();
      return;
    }
    if (uid !== process.geteuid!() || this.#closed) {
      reject();
      return;
    }
    const pidfd = native.peerPidfd(fd, pid);
    // The same number again: that process began another program, or its number is another's now.
    for (const old of this.#sessions.filter((session) => session.pid === pid)) this.#end(old);
    let session: Session | undefined;
    const mm = pidfd < 0 ? undefined : this.machine.foreign.attach(pid, { show: (region, live) => session?.show(region, live) });
    // Its files were opened by number: they are its own if it has lived until now.
    if (!mm || !native.lives(pidfd)) {
      mm?.exit();
      if (pidfd >= 0) native.close(pidfd);
      reject();
      return;
    }
    const memory = native.share(Ring.size);
    const task = this.machine.host.kernel.user.spawn(idle, 'program', { mm, pid });
    const { inject } = this.#options;
    const injector = inject && new Injector(inject.rules, inject.seed, this.counts.processes);
    const made = new Session(native, memory, { pid, connection: fd, pidfd, mm, task, injector });
    session = made;
    this.#sessions.push(made);
    this.#watched.set(this.#tokens.get(fd)!, () => this.#packets(made));
    this.#watch(pidfd, () => this.#end(made));
    this.counts.processes++;
    this.#reply(made, process.pid, memory.fd);
  }

  #packets(session: Session): void {
    for (let n = 0; n < AT_ONCE; n++) {
      const length = this.#native.receive(session.connection, this.#in);
      if (length === -Errno.EAGAIN) return;
      if (length < Request.size) {
        this.#end(session);
        return;
      }
      if (this.#inData.getUint32(Request.op, true) !== Op.wake) this.#call(session, length);
      if (session.task.exited) return;
    }
  }

  /** What a program wrote by ways that the shim does not see; its end: the file was closed everywhere. */
  #stream(file: ServedFile): void {
    while (file.socket !== undefined) {
      const n = this.#native.receive(file.socket, this.#native.room);
      if (n === -Errno.EAGAIN) return;
      if (n <= 0) {
        this.#close(file);
        this.#drain();
        this.#sync();
        return;
      }
      if (file.kind !== 'a') continue;
      const text = String.fromCharCode(...this.#native.room.bytes.subarray(0, n));
      // Several writes may have come together: a line each.
      for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) this.machine.host.kernel.user.sysfs.write(file.path, line);
      this.#dirty = true;
      this.#drain();
      this.#sync();
    }
  }

  // --- calls

  #reply(session: Session, result: number | bigint, ...args: readonly number[]): void {
    const data = this.#outData;
    data.setBigInt64(Reply.result, BigInt(result), true);
    for (let i = 0; i < 2; i++) data.setBigUint64(Reply.args + i * 8, BigInt(args[i] ?? 0), true);
    this.#native.send(session.connection, this.#out, Reply.size);
  }

  /** Everything that was closed or written before has happened. */
  #barrier(): void {
    this.#acceptHandles();
    for (const session of this.#sessions) this.#posted(session);
    this.#drain();
    for (const file of [...this.#files.values()]) if (file.socket !== undefined) this.#stream(file);
  }

  #call(session: Session, length: number): void {
    const data = this.#inData;
    const { task } = session;
    const op = data.getUint32(Request.op, true);
    const word = (i: number): bigint => data.getBigUint64(Request.args + i * 8, true);
    const number = (i: number): number => Number(word(i));
    const id = Number(data.getBigUint64(Request.file, true));
    this.counts.calls++;
    if (op === Op.open) {
      const bytes = this.#in.bytes.slice(Request.size, length);
      const flags = number(0);
      this.#barrier();
      this.#open(session, String.fromCharCode(...bytes), flags);
      return;
    }
    if (op === Op.sync) {
      const forgotten = this.#files.get(id);
      if (forgotten && forgotten.opener === session && forgotten.socket === undefined) this.#close(forgotten);
      this.#barrier();
      this.#sync();
      this.#reply(session, 0);
      return;
    }
    if (op === Op.munmap) {
      const result = task.munmap(number(0), number(1));
      this.#dirty = true;
      this.#drain();
      this.#sync();
      this.#reply(session, result);
      return;
    }
    if (op === Op.trap) {
      // What it stored before goes first.
      this.#posted(session);
      const result = this.#trap(session, number(0), number(1));
      this.#drain();
      this.#reply(session, result);
      return;
    }
    const file = this.#files.get(id);
    const fd = file ? this.#descriptor(session, file) : -Errno.EBADF;
    if (!file || fd < 0) {
      this.#reply(session, fd);
      return;
    }
    if (op === Op.mmap) {
      this.#map(session, fd, number(0), number(1), number(2), number(3), number(4));
      return;
    }
    const [first, second, third] = [number(0), number(1), word(2)];
    const position = third === POSITION;
    const run = (): number => {
      switch (op) {
        case Op.ioctl:
          return task.ioctl(fd, first, second);
        case Op.read:
          return position ? task.read(fd, first, second) : task.pread(fd, first, second, Number(BigInt.asIntN(64, third)));
        case Op.write:
          return position ? task.write(fd, first, second) : task.pwrite(fd, first, second, Number(BigInt.asIntN(64, third)));
        default:
          return -Errno.ENOSYS;
      }
    };
    const result = run();
    this.#drain();
    if (op === Op.write || op === Op.ioctl) this.#dirty = true;
    this.#sync();
    if (result === PENDING) this.#pending.push({ session, retry: run });
    else this.#reply(session, result);
  }

  #open(session: Session, path: string, flags: number): void {
    const { task } = session;
    const fd = task.open(path, flags & (3 | Open.NONBLOCK));
    if (fd < 0) {
      this.#reply(session, fd);
      return;
    }
    const held = task.passFile(fd, this.#holder);
    if (held < 0) {
      task.close(fd);
      this.#reply(session, -Errno.ENFILE);
      return;
    }
    const kind = path.startsWith('/dev/') ? 'c' : 'a';
    if (kind === 'c') this.#dirty = true;
    const id = this.#nextFile++;
    this.#files.set(id, { id, kind, path, held, socket: undefined, opener: session, used: new Map([[session, fd]]), signalled: false });
    this.#drain();
    this.#sync();
    this.#reply(session, id, kind.charCodeAt(0), nodesOf(this.machine).get(path) ?? 0);
  }

  /** Portals alone can be mapped: pages of a device. */
  #map(session: Session, fd: number, address: number, length: number, prot: number, flags: number, offset: number): void {
    const { task, mm } = session;
    const result = task.mmap(address, length, prot, flags | MapFlag.FIXED, fd, offset);
    if (result < 0) {
      this.#reply(session, result);
      return;
    }
    const area = mm.areaAt(address)!;
    const { memory } = this.machine.host;
    for (const frame of area.frames.values())
      if (memory.regionOf(frame)?.kind !== 'mmio') {
        task.munmap(address, length);
        this.#reply(session, -Errno.ENODEV);
        return;
      }
    this.#sync();
    this.#reply(session, 0, area.dontCopy ? 1 : 0);
  }

  /** A process's own descriptor of a file: it may have got the handle by fork or over a socket. */
  #descriptor(session: Session, file: ServedFile): number {
    const known = file.used.get(session);
    if (known !== undefined) return known;
    const fd = this.#holder.passFile(file.held, session.task);
    if (fd >= 0) file.used.set(session, fd);
    return fd;
  }

  #close(file: ServedFile): void {
    this.#files.delete(file.id);
    if (file.kind === 'c') this.#dirty = true;
    if (file.socket !== undefined) this.#forget(file.socket);
    file.socket = undefined;
    for (const [session, fd] of file.used) if (!session.task.exited) session.task.close(fd);
    this.#holder.close(file.held);
  }

  /** The address space is gone: of a process that ended, or began another program. */
  #end(session: Session): void {
    const at = this.#sessions.indexOf(session);
    if (at < 0) return;
    // What it had posted is on its way to the device.
    this.#posted(session);
    this.#drain();
    this.#sessions.splice(at, 1);
    for (const fd of [session.connection, session.pidfd]) this.#forget(fd);
    const { count, ms } = session.traps;
    this.counts.traps += count;
    this.counts.trapMs += ms;
    for (let i = this.#pending.length - 1; i >= 0; i--) if (this.#pending[i]!.session === session) this.#pending.splice(i, 1);
    if (session.mm.areas.length > 0) this.#dirty = true;
    session.task.end(0, undefined);
    for (const file of [...this.#files.values()]) {
      file.used.delete(session);
      if (file.opener === session && file.socket === undefined) {
        this.#acceptHandles();
        if (file.socket === undefined) this.#close(file);
      }
    }
    session.close();
    this.#drain();
    this.#sync();
  }
}

function sharedFolder(): string {
  try {
    rmSync(mkdtempSync('/dev/shm/siov-'), { recursive: true });
    return '/dev/shm';
  } catch {
    return tmpdir();
  }
}
