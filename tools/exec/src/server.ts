/**
 * The server: the simulated kernel, its devices, and the processes of this machine that use them. Calls come as packets over a socket, stores
 * to portals through a ring of each process, and handles (stream sockets, one an open file) say by their end when a file was closed. One
 * thread does everything: while there is work it looks at the rings, otherwise it sleeps in epoll.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Errno, PENDING } from '@siov/layout/uapi';
import type { Program } from '@siov/vfs';
import { Accesses, type ServerCounts } from './accesses.js';
import { Events } from './events.js';
import { Files } from './files.js';
import { type Injections, Injector } from './inject.js';
import type { Machine } from './machine.js';
import { Mappings } from './mappings.js';
import type { Native, NativeBytes } from './native.js';
import { nodesOf } from './nodes.js';
import { type ServedFile, Session } from './session.js';
import { sweep, Tree } from './tree.js';
import { Op, PAYLOAD, POSITION, Reply, Request, Ring, VERSION } from './wire.js';

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
const idle: Program = { step: () => 'wait' };
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
  readonly #events: Events;
  readonly #files: Files;
  readonly #accesses: Accesses;
  readonly #mappings: Mappings;
  readonly #processes: number;
  readonly #handles: number;
  readonly #sessions: Session[] = [];
  readonly #pending: { readonly session: Session; retry(): number }[] = [];
  readonly #in: NativeBytes;
  readonly #inData: DataView;
  readonly #out: NativeBytes;
  readonly #outData: DataView;
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
    this.#in = native.allocate(Request.size + PAYLOAD);
    this.#inData = new DataView(this.#in.bytes.buffer, this.#in.bytes.byteOffset, this.#in.bytes.length);
    this.#out = native.allocate(4096);
    this.#outData = new DataView(this.#out.bytes.buffer, this.#out.bytes.byteOffset, Reply.size);
    this.#events = new Events(native);
    this.#files = new Files(native, machine, this.#events, this.#token);
    this.#accesses = new Accesses(machine, this.counts);
    this.#mappings = new Mappings(native, machine);
    this.#accesses.loaded = (session, address) => this.#mappings.loaded(session, address);
    this.#processes = native.listen(join(this.root, 'socket'), true);
    this.#handles = native.listen(join(this.root, 'files'), false);
    for (const name of ['socket', 'files']) chmodSync(join(this.root, name), 0o600);
    this.#events.watch(this.#processes, () => this.#acceptProcesses());
    this.#events.watch(this.#handles, () => this.#acceptHandles());
    this.#tree.begin(nodesOf(machine));
  }

  /** Processes that are connected, files that are open, and address spaces that the device may reach. */
  get alive(): { readonly processes: number; readonly files: number; readonly memories: number } {
    return { processes: this.#sessions.length, files: this.#files.size, memories: this.machine.foreign.size };
  }

  /** Something happened to the machine from outside of programs: a device went. They see it when this returns. */
  look(): void {
    this.#dirty = true;
    this.#drain();
    this.#sync();
  }
  /** Serving looks up as soon as this process ends. */
  wakeFor(pid: number): void {
    const fd = this.#native.pidfd(pid);
    if (fd < 0) return;
    this.#events.watch(fd, () => {
      this.#events.forget(fd);
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
      if (this.#accesses.take(this.#sessions)) {
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
        if (round % 16 === 15 && this.#events.wait(0)) last = performance.now();
        continue;
      }
      if (this.#busy()) {
        this.#settle();
        continue;
      }
      this.#tree.some(8);
      this.#sleep(true);
      const woken = this.#anyFilled() || this.#events.wait(NAP_MS);
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
    for (let n = 0; n < AT_ONCE && this.#events.wait(0); n++) this.#drain();
    this.#drain();
  }

  /** All processes lose the device. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const session of [...this.#sessions]) this.#end(session);
    for (const file of this.#files) this.#close(file);
    this.#events.close();
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
    this.#mappings.settle();
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
    this.#files.wake();
    const errors = this.machine.drivers.reduce((sum, driver) => sum + driver.softwareErrors.length, 0);
    if (errors === this.#errors) return;
    this.#errors = errors;
    this.#dirty = true;
    for (const file of this.#files) this.#files.signal(file);
  }
  #retry(): void {
    for (const waiting of this.#pending.splice(0)) {
      const result = waiting.retry();
      if (result === PENDING) this.#pending.push(waiting);
      else this.#finish(waiting.session, result);
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

  #acceptProcesses(): void {
    for (let next = this.#native.accept(this.#processes); next; next = this.#native.accept(this.#processes)) {
      const { fd } = next;
      this.#events.watch(fd, () => this.#stranger(fd));
    }
  }
  #acceptHandles(): void {
    for (let next = this.#native.accept(this.#handles); next; next = this.#native.accept(this.#handles)) {
      const file = this.#files.named(next.name);
      if (!file || file.socket !== undefined || this.#native.peer(next.fd).uid !== process.geteuid!()) {
        this.#native.close(next.fd);
        continue;
      }
      file.socket = next.fd;
      this.#events.watch(next.fd, () => this.#stream(file));
      this.#files.signal(file);
    }
  }
  /** The first packet of a process must be its introduction. */
  #stranger(fd: number): void {
    const native = this.#native;
    const n = native.receive(fd, this.#in);
    if (n === -Errno.EAGAIN) return;
    const reject = (): void => this.#events.forget(fd);
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
    const mm =
      pidfd < 0 ? undefined : this.machine.foreign.attach(pid, { show: (region, live) => session && this.#mappings.changed(session, region, live) });
    // Its files were opened by number: they are its own if it has lived until now.
    if (!mm || !native.lives(pidfd)) {
      mm?.exit();
      if (pidfd >= 0) native.close(pidfd);
      reject();
      return;
    }
    const memory = native.share(Ring.size);
    const installed: number[] = [];
    const task = this.machine.host.kernel.user.spawn(idle, 'program', {
      mm,
      pid,
      file: (number) => this.#files.behind(pid, pidfd, number),
      newNumber: (taken) => this.#files.freeNumber(pid, taken),
      installed: (number) => void installed.push(number),
    });
    const { inject } = this.#options;
    const injector = inject && new Injector(inject.rules, inject.seed, this.counts.processes);
    const made = new Session(native, memory, { pid, connection: fd, pidfd, mm, task, installed, injector });
    session = made;
    this.#sessions.push(made);
    this.#events.rewatch(fd, () => this.#packets(made));
    this.#events.watch(pidfd, () => this.#end(made));
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
    for (let i = 0; i < 4; i++) data.setBigUint64(Reply.args + i * 8, BigInt(args[i] ?? 0), true);
    this.#native.send(session.connection, this.#out, Reply.size);
  }

  /** Everything that was closed or written before has happened. */
  #barrier(): void {
    this.#acceptHandles();
    for (const session of this.#sessions) this.#accesses.posted(session);
    this.#drain();
    for (const file of this.#files) if (file.socket !== undefined) this.#stream(file);
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
      const result = this.#mappings.unmap(session, number(0), number(1));
      this.#dirty = true;
      this.#drain();
      this.#sync();
      this.#reply(session, result);
      return;
    }
    if (op === Op.trap) {
      // What it stored before goes first.
      this.#accesses.posted(session);
      const result = this.#accesses.trap(session, number(0), number(1));
      const offer = this.#mappings.takeOffer();
      this.#drain();
      this.#reply(session, result, offer?.start ?? 0, offer?.index ?? 0, offer ? 1 : 0);
      return;
    }
    if (op === Op.piece) {
      const found = this.#mappings.piece(session, number(0), number(1));
      if (found) this.#reply(session, found.piece.fd, found.address, found.piece.length, found.prot, found.piece.at);
      else this.#reply(session, -Errno.EINVAL);
      return;
    }
    const file = this.#files.get(id);
    const fd = file ? this.#files.descriptor(session, file) : -Errno.EBADF;
    if (!file || fd < 0) {
      this.#reply(session, fd);
      return;
    }
    if (op === Op.mmap) {
      const mapped = this.#files.during(file, () => this.#mappings.map(session, fd, [number(0), number(1), number(2), number(3), number(4)]));
      this.#drain();
      this.#sync();
      if (typeof mapped === 'number') this.#reply(session, mapped);
      else this.#reply(session, 0, mapped.dontCopy ? 1 : 0, mapped.pieces);
      return;
    }
    if (op === Op.poll) {
      this.#reply(session, this.#files.polled(file));
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
          return this.#accesses.writing(session, () =>
            position ? task.write(fd, first, second) : task.pwrite(fd, first, second, Number(BigInt.asIntN(64, third))),
          );
        default:
          return -Errno.ENOSYS;
      }
    };
    const call = (): number => this.#files.during(file, run);
    const result = call();
    this.#drain();
    if (op === Op.write || op === Op.ioctl) this.#dirty = true;
    this.#sync();
    // Who reads has read the byte too.
    if (op === Op.read) this.#files.polled(file);
    if (result === PENDING) this.#pending.push({ session, retry: call });
    else this.#finish(session, result);
  }

  /** Answers a call of a driver. A file that it gave the process gets its handle under the number that the driver knows. */
  #finish(session: Session, result: number): void {
    const given = session.installed.splice(0);
    // No ioctl gives two.
    const file = given.length === 1 && result >= 0 ? this.#files.keep(session, given[0]!, 'f', '') : undefined;
    if (typeof file === 'object') {
      this.#reply(session, result, file.id, given[0]!);
      return;
    }
    for (const fd of given) session.task.close(fd);
    this.#reply(session, given.length > 0 && result >= 0 ? -Errno.EMFILE : result);
  }

  #open(session: Session, path: string, flags: number): void {
    const file = this.#files.open(session, path, flags);
    if (typeof file === 'number') {
      this.#reply(session, file);
      return;
    }
    if (file.kind === 'c') this.#dirty = true;
    this.#drain();
    this.#sync();
    this.#reply(session, file.id, file.kind.charCodeAt(0), file.rdev);
  }

  #close(file: ServedFile): void {
    if (file.kind === 'c') this.#dirty = true;
    this.#files.close(file);
  }

  /** The address space is gone: of a process that ended, or began another program. */
  #end(session: Session): void {
    const at = this.#sessions.indexOf(session);
    if (at < 0) return;
    // What it had posted is on its way to the device.
    this.#accesses.posted(session);
    this.#drain();
    this.#sessions.splice(at, 1);
    for (const fd of [session.connection, session.pidfd]) this.#events.forget(fd);
    const { count, ms } = session.traps;
    this.counts.traps += count;
    this.counts.trapMs += ms;
    for (let i = this.#pending.length - 1; i >= 0; i--) if (this.#pending[i]!.session === session) this.#pending.splice(i, 1);
    if (session.mm.areas.length > 0) this.#dirty = true;
    session.task.end(0, undefined);
    this.#mappings.end(session);
    for (const file of this.#files) {
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
