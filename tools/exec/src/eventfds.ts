/**
 * Eventfds of programs, which simulated drivers signal. A program may hand over one that is full, or that blocks: no signal waits, whatever it
 * holds and however it is set. man 2 eventfd, pidfd_getfd; proc(5), fdinfo.
 */
import { readFileSync } from 'node:fs';
import { Signals, native as sharedCalls } from '@siov/vfio-user';
import { EventFd } from '@siov/vfs';
import type { Native } from './native.js';

/** Distinct eventfds of one file of the simulated kernel at once: more than any device has interrupts. */
const MOST = 2304;

/** A descriptor of ours for a program's eventfd. */
interface Lease {
  fd: number;
  readonly key: string;
}
class ProgramEventFd extends EventFd {
  readonly #lease: Lease;
  readonly #signals: Signals;
  constructor(lease: Lease, signals: Signals) {
    super();
    this.#lease = lease;
    this.#signals = signals;
  }
  override signal(n = 1): void {
    if (this.#lease.fd >= 0) this.#signals.signal(this.#lease.fd, n);
  }
}

let signals: Signals | undefined;

/** Those that one file of the simulated kernel was given: they go with it, or as soon as nobody has them any more. */
export class EventFds {
  readonly #native: Native;
  readonly #known = new Map<string, { readonly lease: Lease; readonly file: WeakRef<EventFd> }>();
  readonly #dropped = new FinalizationRegistry((lease: Lease) => this.#end(lease));

  constructor(native: Native) {
    this.#native = native;
  }

  /** Takes over a descriptor of an eventfd; undefined: there are too many. */
  of(fd: number): EventFd | undefined {
    const key = identity(fd);
    const known = this.#known.get(key)?.file.deref();
    if (known || this.#known.size >= MOST) {
      this.#native.close(fd);
      return known;
    }
    signals ??= new Signals(sharedCalls());
    const lease = { fd, key };
    const file = new ProgramEventFd(lease, signals);
    this.#dropped.register(file, lease);
    this.#known.set(key, { lease, file: new WeakRef(file) });
    return file;
  }
  close(): void {
    for (const { lease } of [...this.#known.values()]) this.#end(lease);
  }
  #end(lease: Lease): void {
    if (lease.fd < 0) return;
    this.#native.close(lease.fd);
    lease.fd = -1;
    if (this.#known.get(lease.key)?.lease === lease) this.#known.delete(lease.key);
  }
}

/** Which eventfd it is, whatever descriptor it has; kernels before 5.2 do not say, and then each is one of its own. */
function identity(fd: number): string {
  return /^eventfd-id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? `fd ${fd}`;
}
