/**
 * Open files of the simulated kernel and the handles (stream sockets, one an open file) that stand for them in processes. A handle's name says
 * which file it is, so a number of a process leads to the file: the process's own numbers and those of the simulated table are never confused.
 */
import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { Errno, Open, Poll } from '@siov/layout/uapi';
import type { OpenFile, Program, UserTask } from '@siov/vfs';
import { EventFds } from './eventfds.js';
import type { Events } from './events.js';
import type { Machine } from './machine.js';
import type { Native, NativeBytes } from './native.js';
import { nodesOf } from './nodes.js';
import type { ServedFile, Session } from './session.js';

/** Descriptors that ioctls give begin here: beyond what programs have, below what select(2) and the usual RLIMIT_NOFILE allow. */
const FIRST_GIVEN = 512;
const LAST_GIVEN = 895;
/** An open file that is nothing to a driver here. */
const other: OpenFile = {};
const idle: Program = { step: () => 'wait' };

export class Files {
  readonly #native: Native;
  readonly #machine: Machine;
  readonly #events: Events;
  /** What names of handles begin with. */
  readonly #token: string;
  /** Keeps files open that handles stand for. */
  readonly #holder: UserTask;
  readonly #files = new Map<number, ServedFile>();
  readonly #byte: NativeBytes;
  /** The file that is called now: what it is given is its own. */
  #called: ServedFile | undefined;
  #next = 1;
  /** Files that a driver says to look at again. */
  readonly #woken = new Set<ServedFile>();

  constructor(native: Native, machine: Machine, events: Events, token: string) {
    this.#native = native;
    this.#machine = machine;
    this.#events = events;
    this.#token = token;
    this.#holder = machine.host.kernel.user.spawn(idle, 'holder');
    this.#byte = native.allocate(4096);
  }

  get size(): number {
    return this.#files.size;
  }
  [Symbol.iterator](): IterableIterator<ServedFile> {
    return [...this.#files.values()].values();
  }
  get(id: number): ServedFile | undefined {
    return this.#files.get(id);
  }
  /** The file that a handle's name says. */
  named(name: string): ServedFile | undefined {
    const [, id] = /^([0-9a-f]+)\//.exec(name.startsWith(`${this.#token}/`) ? name.slice(this.#token.length + 1) : '') ?? [];
    return id === undefined ? undefined : this.#files.get(Number.parseInt(id, 16));
  }

  /** Opens for a process; -errno. */
  open(session: Session, path: string, flags: number): ServedFile | number {
    const fd = session.task.open(path, flags & (3 | Open.NONBLOCK));
    return fd < 0 ? fd : this.keep(session, fd, path.startsWith('/dev/') ? 'c' : 'a', path);
  }
  /** What stands in a process's table gets a handle; -errno, and then it stands there no more. */
  keep(session: Session, fd: number, kind: ServedFile['kind'], path: string): ServedFile | number {
    const held = session.task.passFile(fd, this.#holder);
    if (held < 0) {
      session.task.close(fd);
      return -Errno.ENFILE;
    }
    const id = this.#next++;
    const rdev = kind === 'c' ? (nodesOf(this.#machine).get(path) ?? 0) : 0;
    const used = new Map([[session, fd]]);
    const eventfds = new EventFds(this.#native);
    const waiter: UserTask = Object.assign(Object.create(session.task) as UserTask, { wakeUp: () => void this.#woken.add(file) });
    const file: ServedFile = { id, kind, path, rdev, held, socket: undefined, opener: session, used, eventfds, waiter, ready: 0 };
    this.#files.set(id, file);
    return file;
  }
  close(file: ServedFile): void {
    if (!this.#files.delete(file.id)) return;
    if (file.socket !== undefined) this.#events.forget(file.socket);
    file.socket = undefined;
    for (const [session, fd] of file.used) if (!session.task.exited) session.task.close(fd);
    this.#holder.close(file.held);
    file.eventfds.close();
    this.#woken.delete(file);
  }

  /** A process's own descriptor of a file: it may have got the handle by fork or over a socket. */
  descriptor(session: Session, file: ServedFile): number {
    const known = file.used.get(session);
    if (known !== undefined) return known;
    const fd = this.#holder.passFile(file.held, session.task);
    if (fd >= 0) file.used.set(session, fd);
    return fd;
  }
  /** Calls a driver; eventfds that it asks for are the file's. */
  during<T>(file: ServedFile, call: () => T): T {
    this.#called = file;
    try {
      return call();
    } finally {
      this.#called = undefined;
    }
  }

  /** The file behind a number of a process: ours, an eventfd, or one that is nothing to drivers; undefined: it has none of that number. */
  behind(pid: number, pidfd: number, number: number): OpenFile | undefined {
    const native = this.#native;
    const what = link(`/proc/${pid}/fd/${number}`);
    if (what === undefined) return undefined;
    const isSocket = what.startsWith('socket:');
    // Nothing else is touched: to let go of some files can take as long as their owner likes.
    if (!isSocket && what !== EVENTFD) return other;
    const fd = native.descriptorOf(pidfd, number);
    if (fd < 0) return undefined;
    // Meanwhile the number may have become another file's.
    if (!isSocket && link(`/proc/self/fd/${fd}`) === EVENTFD && this.#called) return this.#called.eventfds.of(fd);
    const file = this.named(native.nameOf(fd));
    native.close(fd);
    return file ? this.#holder.file(file.held) : other;
  }
  /** A number that a process does not use, for a file that an ioctl gives; -EMFILE. */
  freeNumber(pid: number, taken: (fd: number) => boolean): number {
    let limit = LAST_GIVEN + 1;
    try {
      limit = Number(/^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[1] ?? limit);
    } catch {}
    for (let fd = Math.min(FIRST_GIVEN, Math.floor(limit / 2)); fd < Math.min(limit, LAST_GIVEN + 1); fd++) {
      if (taken(fd)) continue;
      try {
        lstatSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        return fd;
      }
    }
    return -Errno.EMFILE;
  }

  /** A byte in the handle makes poll(2) see that the file is ready. */
  signal(file: ServedFile): void {
    if (file.ready !== 0 || file.socket === undefined || file.kind === 'a') return;
    const ready = (this.#holder.file(file.held)?.poll?.(file.waiter) ?? 0) & (Poll.IN | Poll.ERR | Poll.HUP);
    if (ready === 0) return;
    file.ready = ready;
    this.#native.send(file.socket, this.#byte, 1);
  }
  /** Whether the file says when it is ready. */
  polls(file: ServedFile): boolean {
    return this.#holder.file(file.held)?.poll !== undefined;
  }
  /** Looks again at those that drivers spoke of. */
  wake(): void {
    if (this.#woken.size === 0) return;
    const woken = [...this.#woken];
    this.#woken.clear();
    for (const file of woken) this.signal(file);
  }
  /** What poll(2) found. The program has read the byte; if the file is still ready there is another. */
  polled(file: ServedFile): number {
    const { ready } = file;
    file.ready = 0;
    this.signal(file);
    return ready;
  }
}

const EVENTFD = 'anon_inode:[eventfd]';
/** What procfs says of an open file. */
function link(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
