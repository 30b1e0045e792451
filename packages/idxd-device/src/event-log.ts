/** The event log: a ring in memory that takes the errors of descriptors instead of SWERROR. DSA specification, "Event Log". */
import { DmaAccess } from '@siov/layout/pcie';
import type { Interrupts } from './interrupts.js';
import { extent, type Op } from './op.js';
import type { Upstream } from './ports.js';
import type { Profile } from './profiles.js';
import type { Registers } from './registers.js';
import * as spec from './spec/index.js';
import { unconnected } from './unconnected.js';

const cfg = spec.EventLogCfg.get;
const status = spec.EventLogSts;
const put = spec.EventLogEntry.set;
const info = spec.EventInformation.set;

export class EventLog {
  // fixed
  readonly #registers: Registers;
  readonly #interrupts: Interrupts;
  readonly #entryBytes: number;
  readonly #extent = extent();
  // ports
  upstream: Upstream = unconnected;

  constructor(registers: Registers, interrupts: Interrupts, profile: Profile) {
    this.#registers = registers;
    this.#interrupts = interrupts;
    this.#entryBytes = profile.eventLogSize ? 32 << profile.eventLogSize : 0;
  }

  get enabled(): boolean {
    return this.#entryBytes > 0 && spec.GenCfg.get.eventLog(this.#registers.words, this.#registers.at('genCfg')) === 1;
  }
  /** unconfirmed: which status tells of a log that is too small. */
  get valid(): boolean {
    return !this.enabled || cfg.size(this.#registers.words, this.#registers.at('eventLogCfg')) >= spec.EVENT_LOG_MIN;
  }
  /** The device is being enabled. unconfirmed: that the log is empty then. */
  begin(): void {
    if (!this.enabled) return;
    const at = this.#registers.at('eventLogSts');
    this.#registers.words.fill(0, at, at + status.bytes / 4);
  }

  /** Logs one error of a descriptor; false when there is no log, no room, or no such memory: then it is SWERROR's. */
  take(error: number, op: Op): boolean {
    if (!this.enabled) return false;
    const { words } = this.#registers;
    const at = this.#registers.at('eventLogCfg');
    const sts = this.#registers.at('eventLogSts');
    const size = cfg.size(words, at);
    const tail = status.get.tail(words, sts);
    const next = tail + 1 >= size ? 0 : tail + 1;
    if (next === status.get.head(words, sts)) return false;
    const pasid = cfg.pasidEnable(words, at) ? cfg.pasidLow(words, at) | (cfg.pasidHigh(words, at) << 16) : -1;
    const access = DmaAccess.write | (cfg.privileged(words, at) ? DmaAccess.privileged : 0);
    // The base is a multiple of 4096 and the ring has less than 2^22 bytes: entries lie in one page each.
    const low = cfg.baseLow(words, at) * 4096 + tail * this.#entryBytes;
    const high = cfg.baseHigh(words, at) + (low > 0xffff_ffff ? 1 : 0);
    if (this.upstream.acquire(access, pasid, high | 0, low | 0, this.#entryBytes, this.#extent) !== 0) return false;
    this.#fill(error, op);
    this.upstream.commit(this.#extent);
    status.set.tail(words, sts, next);
    // unconfirmed: one interrupt until software clears the pending bit.
    if (spec.GenCtrl.get.eventLogInterrupt(words, this.#registers.at('genCtrl')) && !status.get.interruptPending(words, sts)) {
      status.set.interruptPending(words, sts, 1);
      this.#interrupts.misc('eventLog');
    }
    return true;
  }

  #fill(error: number, op: Op): void {
    const { words, offset } = this.#extent;
    const e = offset >>> 2;
    words.fill(0, e, e + this.#entryBytes / 4);
    describeError(put, words, e, error, op);
    put.batchId(words, e, op.inBatch || op.opcode === spec.Opcode.batch ? op.batchId : 0);
    const kept = error === spec.Status.recordFault || error === spec.EventError.drain || error === spec.EventError.batch;
    if (error === spec.Status.invalidFlags) put.information(words, e, op.value);
    else if (kept || error === spec.Status.interruptHandle) {
      const at = e + spec.EVENT_INFORMATION_WORD;
      info.interruptHandle(words, at, op.descriptor[9]! & 0xffff);
      info.interruptRequested(words, at, op.flags & spec.Flag.requestInterrupt ? 1 : 0);
      info.ims(words, at, op.ims);
      info.firstErrorInBatch(words, at, op.inBatch & op.firstKept);
      info.recordRequested(words, at, op.flags & spec.Flag.requestRecord ? 1 : 0);
    }
    // unconfirmed: faults on operands have no further information here.
    put.errorInfoValid(words, e, kept || error === spec.Status.invalidFlags || error === spec.Status.interruptHandle ? 1 : 0);
    // The record that has no other place: the second half.
    if (kept) op.putRecord(words, e + this.#entryBytes / 8);
  }
}

type Fields = Pick<
  typeof spec.SwError.set,
  | 'descriptorValid'
  | 'wqValid'
  | 'batch'
  | 'write'
  | 'privileged'
  | 'error'
  | 'wq'
  | 'operation'
  | 'pasid'
  | 'batchIndex'
  | 'addressLow'
  | 'addressHigh'
> & { readonly invalidFlags?: (typeof spec.SwError.set)['invalidFlags'] };
/** What SWERROR and an event have in common. */
export function describeError(to: Fields, words: Uint32Array, at: number, error: number, op: Op): void {
  const ofRecord = error === spec.Status.recordFault || error === spec.EventError.drain || error === spec.EventError.batch;
  to.error(words, at, error & 0x7f);
  to.descriptorValid(words, at, 1);
  to.wqValid(words, at, 1);
  to.wq(words, at, op.wq);
  to.operation(words, at, op.opcode);
  if (op.pasid >= 0) to.pasid(words, at, op.pasid);
  to.privileged(words, at, op.access & DmaAccess.privileged ? 1 : 0);
  to.batch(words, at, op.inBatch);
  to.batchIndex(words, at, op.batchIndex);
  to.write(words, at, error & 0x80 || ofRecord ? 1 : 0);
  if (error === spec.Status.invalidFlags) to.invalidFlags?.(words, at, op.value);
  to.addressLow(words, at, ofRecord ? op.descriptor[2]! : op.faultLow);
  to.addressHigh(words, at, ofRecord ? op.descriptor[3]! : op.faultHigh);
}
