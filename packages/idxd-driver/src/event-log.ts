/**
 * The service of the event log: a ring in the kernel's memory that the device writes errors of descriptors into. A completion record that had
 * no page is in its event, and is delivered through the user's own page tables. Linux drivers/dma/idxd/device.c, idxd_device_evl_setup; irq.c,
 * process_evl_entries, idxd_evl_fault_work.
 */
import * as spec from '@siov/idxd-device/spec';
import type { Capabilities } from './config.js';
import type { Hardware } from './hardware.js';
import type { CoherentMemory, Mm } from './ports.js';

/** Who has a PASID of this device: where its records go, and how that went. */
export interface User {
  readonly mm: Mm;
  /** Records delivered for it after a fault, and those that could not be: sysfs cr_faults, cr_fault_failures. */
  faults: number;
  failures: number;
}
/** One event as it lies in the ring. */
export type EventRecord = ReturnType<typeof spec.EventLogEntry.json>;

const get = spec.EventLogEntry.get;
const info = spec.EventInformation.get;

export class EventLogService {
  // fixed
  readonly #hardware: Hardware;
  readonly #memory: CoherentMemory;
  readonly #entryWords: number;
  /** The record is an event's second half, or as much of it as a record has. */
  readonly #recordWord: number;
  readonly #recordBytes: number;
  readonly #size: number;
  readonly #users: ReadonlyMap<number, User>;
  /** Every other error, and records that are no user's. */
  readonly #error: (event: EventRecord) => void;
  // state
  #head = 0;
  /** By batch identifier: the record of a member could not be delivered. */
  readonly #batchFailed = new Uint8Array(256);

  /** The device is disabled: the ring is put into its registers and switched on. `size` in entries. */
  constructor(
    hardware: Hardware,
    memory: CoherentMemory,
    size: number,
    { eventBytes, recordBytes }: Pick<Capabilities, 'eventBytes' | 'recordBytes'>,
    users: ReadonlyMap<number, User>,
    error: (event: EventRecord) => void,
  ) {
    this.#hardware = hardware;
    this.#memory = memory;
    this.#size = size;
    this.#entryWords = eventBytes / 4;
    this.#recordWord = eventBytes / 8;
    this.#recordBytes = recordBytes;
    this.#users = users;
    this.#error = error;
    const cfg = new Uint32Array(spec.EventLogCfg.bytes / 4);
    spec.EventLogCfg.set.baseLow(cfg, 0, Math.floor((memory.iova % 2 ** 32) / 4096));
    spec.EventLogCfg.set.baseHigh(cfg, 0, Math.floor(memory.iova / 2 ** 32));
    spec.EventLogCfg.set.size(cfg, 0, size);
    hardware.write(spec.Register.eventLogCfg, cfg);
    this.#switch(1);
  }

  /** The device is disabled again: the ring is taken out of it. */
  stop(): void {
    this.#switch(0);
    this.#hardware.write(spec.Register.eventLogCfg, new Uint32Array(spec.EventLogCfg.bytes / 4));
    this.#memory.free();
  }
  #switch(on: number): void {
    const general = this.#hardware.word(spec.Register.genCfg);
    spec.GenCfg.set.eventLog(general, 0, on);
    this.#hardware.write(spec.Register.genCfg, general);
    const control = this.#hardware.word(spec.Register.genCtrl);
    spec.GenCtrl.set.eventLogInterrupt(control, 0, on);
    this.#hardware.write(spec.Register.genCtrl, control);
  }

  /** Cause 5, or a user goes and its records come first: all events up to the tail. */
  service(): void {
    const status = new Uint32Array(2);
    spec.EventLogSts.set.interruptPending(status, 0, 1);
    this.#hardware.write(spec.Register.eventLogSts + 4, [status[1]!]);
    const tail = spec.EventLogSts.get.tail(this.#hardware.words(spec.Register.eventLogSts, 8), 0);
    while (this.#head !== tail) {
      this.#one(this.#head * this.#entryWords);
      this.#head = (this.#head + 1) % this.#size;
    }
    this.#hardware.write(spec.Register.eventLogSts, [this.#head]);
  }

  #one(at: number): void {
    const { words } = this.#memory;
    const error = get.error(words, at) & 0x7f;
    const batch = get.batch(words, at) === 1;
    const id = get.batchId(words, at);
    const asked = info.recordRequested(words, at + spec.EVENT_INFORMATION_WORD) === 1;
    if (error === spec.Status.recordFault) {
      if (batch && info.firstErrorInBatch(words, at + spec.EVENT_INFORMATION_WORD)) this.#batchFailed[id] = 0;
      if (!this.#deliver(at) && batch) this.#batchFailed[id] = 1;
    } else if (error === spec.EventError.batch) {
      // The batch has a record if it asked for one, or if a member's did not reach its place.
      const failed = this.#batchFailed[id] === 1;
      if (!asked && !failed) return;
      if (failed) {
        const record = at + this.#recordWord;
        if (spec.Record.get.status(words, record) === spec.Status.success) spec.Record.set.status(words, record, spec.Status.batchFail);
        spec.Record.set.result(words, record, 1);
        this.#batchFailed[id] = 0;
      }
      this.#deliver(at);
    } else if (error === spec.EventError.drain) {
      if (asked) this.#deliver(at);
    } else this.#error(spec.EventLogEntry.json(words, at));
  }

  /** The record goes to where the descriptor wanted it, by the user's own rights; its status byte last. */
  #deliver(at: number): boolean {
    const { words } = this.#memory;
    const user = this.#users.get(get.pasid(words, at));
    // Of a PASID that is not a process's of this kernel: whoever gave it out hears of it.
    if (!user) this.#error(spec.EventLogEntry.json(words, at));
    const to = get.addressHigh(words, at) * 2 ** 32 + get.addressLow(words, at);
    if (user) user.faults++;
    const record = new Uint8Array(words.slice(at + this.#recordWord, at + this.#recordWord + this.#recordBytes / 4).buffer);
    const done = user !== undefined && user.mm.write(to + 1, record.subarray(1)) === 0 && user.mm.write(to, record.subarray(0, 1)) === 0;
    if (user && !done) user.failures++;
    return done;
  }
}
