/**
 * The server: the simulated kernel, its devices, and the processes of this machine that use them. Calls come as packets over a socket, stores
 * to portals through a ring of each process, and handles (stream sockets, one an open file) say by their end when a file was closed. One
 * thread does everything: while there is work it looks at the rings, otherwise it sleeps in epoll.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Errno } from '@siov/layout/uapi';
import type { Program } from '@siov/vfs';
import { Accesses, type ServerCounts } from './accesses.js';
import { Calls } from './calls.js';
import { Events } from './events.js';
import { Files } from './files.js';
import { type Injections, Injector } from './inject.js';
import type { Machine } from './machine.js';
import { Mappings } from './mappings.js';
import type { Native } from './native.js';
import { nodesOf } from './nodes.js';
import { type ServedFile, Session } from './session.js';
import { sweep, Tree } from './tree.js';
import { Op, Request, Ring, VERSION } from './wire.js';

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
  readonly #calls: Calls;
  readonly #processes: number;
  readonly #handles: number;
  readonly #sessions: Session[] = [];
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
    this.#events = new Events(native);
    this.#files = new Files(native, machine, this.#events, this.#token);
    this.#accesses = new Accesses(machine, this.counts);
    this.#mappings = new Mappings(native, machine);
    this.#accesses.loaded = (session, address) => this.#mappings.loaded(session, address);
    const world = {
      barrier: () => this.#barrier(),
      happened: (changed: boolean) => this.#happened(changed),
      close: (file: ServedFile) => this.#close(file),
    };
    this.#calls = new Calls(native, world, this.#files, this.#accesses, this.#mappings, this.counts);
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
    this.#happened(true);
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
    this.#calls.retry();
  }
  /** Until nothing is left that could happen. */
  #drain(): void {
    do this.#settle();
    while (this.#busy());
  }
  /** Files that poll(2) would now find readable get a byte. */
  #notify(): void {
    this.#files.wake();
    let errors = 0;
    for (const driver of this.machine.drivers) errors += driver.softwareErrors.length;
    if (errors === this.#errors) return;
    this.#errors = errors;
    this.#dirty = true;
    for (const file of this.#files) this.#files.signal(file);
  }
  /** Something that attributes or nodes show may have changed. */
  #dirty = true;
  #happened(changed: boolean): void {
    if (changed) this.#dirty = true;
    this.#drain();
    this.#sync();
  }
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
    const n = native.receive(fd, this.#calls.packet);
    if (n === -Errno.EAGAIN) return;
    const reject = (): void => this.#events.forget(fd);
    const { pid, uid } = native.peer(fd);
    if (n !== Request.size || this.#calls.op !== Op.hello || this.#calls.argument(0) !== VERSION) {
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
    this.#calls.reply(made, process.pid, memory.fd);
  }

  #packets(session: Session): void {
    for (let n = 0; n < AT_ONCE; n++) {
      const length = this.#native.receive(session.connection, this.#calls.packet);
      if (length === -Errno.EAGAIN) return;
      if (length < Request.size) {
        this.#end(session);
        return;
      }
      if (this.#calls.op !== Op.wake) this.#calls.call(session, length);
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
        this.#happened(false);
        return;
      }
      if (file.kind !== 'a') continue;
      const text = String.fromCharCode(...this.#native.room.bytes.subarray(0, n));
      // Several writes may have come together: a line each.
      for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) this.machine.host.kernel.user.sysfs.write(file.path, line);
      this.#happened(true);
    }
  }

  /** Everything that was closed or written before has happened. */
  #barrier(): void {
    this.#acceptHandles();
    for (const session of this.#sessions) this.#accesses.posted(session);
    this.#drain();
    for (const file of this.#files) if (file.socket !== undefined) this.#stream(file);
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
    this.#calls.forget(session);
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
    this.#happened(false);
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
