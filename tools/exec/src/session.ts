/** One process (one address space of one) as the server knows it. */
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import type { UserTask } from '@siov/vfs';
import type { ForeignMm } from './foreign.js';
import type { Native, NativeBytes } from './native.js';
import { Ring, SLOTS, Slot, SlotStatus } from './wire.js';

/** One open file of the simulated kernel. It lives while a handle of it lives anywhere, or a mapping. */
export interface ServedFile {
  readonly id: number;
  /** 'c': a device; 'a': an attribute. */
  readonly kind: 'c' | 'a';
  readonly path: string;
  /** Descriptor in the holder's table. */
  readonly held: number;
  /** The server's end of the handle; undefined: the program has not connected it yet. */
  socket: number | undefined;
  readonly opener: Session;
  /** Descriptors in tables of processes that used it. */
  readonly used: Map<Session, number>;
  /** A byte lies in the handle, so that poll(2) sees it. */
  signalled: boolean;
}

const SLOT_WORDS = Slot.size / 4;
const FIRST = Ring.slots / 4;

export class Session {
  readonly pid: number;
  readonly connection: number;
  readonly pidfd: number;
  readonly mm: ForeignMm;
  readonly task: UserTask;
  readonly number: number;
  /** Ticks of the time stamp counter a millisecond, as the program measured them. */
  readonly ticksPerMs: number;
  /** The ring as words. The program writes it at any time: nothing in it is believed. */
  readonly words: Uint32Array;
  readonly #ints: Int32Array;
  readonly #native: Native;
  readonly #memory: NativeBytes;
  readonly #path: string;
  /** Position of the next slot to take. */
  #head = 0;

  constructor(
    native: Native,
    ring: { readonly memory: NativeBytes; readonly path: string; readonly number: number },
    who: Pick<Session, 'pid' | 'connection' | 'pidfd' | 'mm' | 'task' | 'ticksPerMs'>,
  ) {
    this.#native = native;
    this.#memory = ring.memory;
    this.#path = ring.path;
    this.number = ring.number;
    this.pid = who.pid;
    this.connection = who.connection;
    this.pidfd = who.pidfd;
    this.mm = who.mm;
    this.task = who.task;
    this.ticksPerMs = who.ticksPerMs;
    const { bytes } = ring.memory;
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    this.#ints = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
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
  answer(at: number, answer: number, value = 0n): void {
    const { words } = this;
    words[at + Slot.value / 4] = Number(value & 0xffff_ffffn);
    words[at + Slot.value / 4 + 1] = Number(value >> 32n);
    words[at + Slot.answer / 4] = answer;
    this.#head = (this.#head + 1) >>> 0;
    const status = at + Slot.status / 4;
    if (Atomics.exchange(this.#ints, status, SlotStatus.answered) === SlotStatus.waits) this.#native.wake(this.#memory.address + status * 4);
  }
  /** Whether the program must wake the server. */
  set sleeping(on: boolean) {
    Atomics.store(this.#ints, Ring.sleeping / 4, on ? 1 : 0);
  }
  set live(region: { readonly number: number; readonly on: boolean }) {
    if (region.number >= 0) Atomics.store(this.#ints, Ring.live / 4 + region.number, region.on ? 1 : 0);
  }
  /** Instructions carried out, and the milliseconds that they took in the program. */
  get traps(): { readonly count: number; readonly ms: number } {
    const { words } = this;
    const of = (at: number): number => words[at / 4]! + words[at / 4 + 1]! * 2 ** 32;
    return { count: of(Ring.traps), ms: this.ticksPerMs > 0 ? of(Ring.ticks) / this.ticksPerMs : 0 };
  }
  /** The ring's memory goes. */
  close(): void {
    this.#native.unshare(this.#memory);
    rmSync(this.#path, { force: true });
  }
}

/** A new ring's file, mapped. */
export function newRing(native: Native, path: string): NativeBytes {
  const fd = openSync(path, 'wx+', 0o600);
  try {
    ftruncateSync(fd, Ring.size);
    const memory = native.share(fd, Ring.size);
    const words = new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length / 4);
    for (let i = 0; i < SLOTS; i++) words[FIRST + i * SLOT_WORDS] = i;
    return memory;
  } finally {
    closeSync(fd);
  }
}
