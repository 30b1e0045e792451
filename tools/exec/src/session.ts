/** One process (one address space of one) as the server knows it. */
import type { UserTask } from '@siov/vfs';
import type { EventFds } from './eventfds.js';
import type { ForeignMm } from './foreign.js';
import type { Injector } from './inject.js';
import type { Native, SharedMemory } from './native.js';
import { Region, Ring, SLOTS, Slot, SlotStatus } from './wire.js';

/** One open file of the simulated kernel. It lives while a handle of it lives anywhere, or a mapping. */
export interface ServedFile {
  readonly id: number;
  /** 'c': a device; 'a': an attribute; 'f': one that an ioctl gave, which has no path. */
  readonly kind: 'c' | 'a' | 'f';
  readonly path: string;
  /** Its number as a device, or 0. */
  readonly rdev: number;
  /** Descriptor in the holder's table. */
  readonly held: number;
  /** The server's end of the handle; undefined: the program has not connected it yet. */
  socket: number | undefined;
  readonly opener: Session;
  /** Descriptors in tables of processes that used it. */
  readonly used: Map<Session, number>;
  /** Eventfds that it was given. */
  readonly eventfds: EventFds;
  /** Who a driver wakes when the file may be ready. */
  readonly waiter: UserTask;
  /** What poll(2) finds, once a byte in the handle has said so; 0: no byte is there. */
  ready: number;
}

const SLOT_WORDS = Slot.size / 4;
const FIRST = Ring.slots / 4;

export class Session {
  readonly pid: number;
  readonly connection: number;
  readonly pidfd: number;
  readonly mm: ForeignMm;
  readonly task: UserTask;
  /** Numbers of files that the call which runs now gave the process. */
  readonly installed: number[];
  /** Faults on demand, as they stand for this one. */
  readonly injector: Injector | undefined;
  /** The ring as words. The program writes it at any time: nothing in it is believed. */
  readonly words: Uint32Array;
  readonly #ints: Int32Array;
  readonly #native: Native;
  readonly #memory: SharedMemory;
  #closed = false;
  /** Position of the next slot to take. */
  #head = 0;

  constructor(native: Native, memory: SharedMemory, who: Pick<Session, 'pid' | 'connection' | 'pidfd' | 'mm' | 'task' | 'installed' | 'injector'>) {
    this.#native = native;
    this.#memory = memory;
    this.pid = who.pid;
    this.connection = who.connection;
    this.pidfd = who.pidfd;
    this.mm = who.mm;
    this.task = who.task;
    this.installed = who.installed;
    this.injector = who.injector;
    const { bytes } = memory;
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#ints = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < SLOTS; i++) this.words[FIRST + i * SLOT_WORDS] = i;
  }

  /** The word index of the next filled slot, or -1. */
  next(): number {
    const at = FIRST + (this.#head % SLOTS) * SLOT_WORDS;
    return Atomics.load(this.#ints, at) === ((this.#head + 1) | 0) ? at : -1;
  }
  /** The slot that `next` gave is done with: posted. */
  take(at: number): void {
    Atomics.store(this.#ints, at, (this.#head + SLOTS) | 0);
    this.#head = (this.#head + 1) >>> 0;
  }
  /** The slot that `next` gave has an answer; the program frees it. */
  answer(at: number, answer: number): void {
    this.words[at + Slot.answer / 4] = answer;
    this.#head = (this.#head + 1) >>> 0;
    const status = at + Slot.status / 4;
    if (Atomics.exchange(this.#ints, status, SlotStatus.answered) === SlotStatus.waits) this.#native.wake(this.#memory.address + status * 4);
  }
  /** Whether the program must wake the server. */
  set sleeping(on: boolean) {
    Atomics.store(this.#ints, Ring.sleeping / 4, on ? 1 : 0);
  }
  /** What the program sees of a mapping, by the place in its ring. An address space may end after its ring has gone. */
  show(slot: number, start: number, length: number, live: number): void {
    if (this.#closed) return;
    const at = (Ring.regions + slot * Region.size) / 4;
    const { words } = this;
    // While it changes there is none.
    words[at + Region.length / 4 + 1] = 0;
    Atomics.store(this.#ints, at + Region.length / 4, 0);
    Atomics.store(this.#ints, at + Region.live / 4, live);
    words[at] = start;
    words[at + 1] = start / 2 ** 32;
    words[at + Region.length / 4 + 1] = length / 2 ** 32;
    Atomics.store(this.#ints, at + Region.length / 4, length | 0);
  }
  /** Instructions carried out, and the milliseconds that they took in the program. */
  get traps(): { readonly count: number; readonly ms: number } {
    const { words } = this;
    const of = (at: number): number => words[at / 4]! + words[at / 4 + 1]! * 2 ** 32;
    return { count: of(Ring.traps), ms: of(Ring.ns) / 1e6 };
  }
  /** The ring's memory goes: nothing of it may be asked for any more. */
  close(): void {
    this.#closed = true;
    this.#native.unshare(this.#memory);
  }
}
