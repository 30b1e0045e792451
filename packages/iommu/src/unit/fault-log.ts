/**
 * Primary fault logging: fault records, FSTS and the fault event. A record is taken when the next one is free, else PFO says that faults
 * were lost; the event is raised when no cause was pending. VT-d, "Fault Logging", "Fault Reporting".
 */
import { Event } from '@siov/layout/events';
import { DmaAccess, NO_PASID } from '@siov/layout/pcie';
import type { Trace } from '../ports.js';
import { FaultRecordRegister, FaultStatus } from '../spec/registers.js';
import type { EventRegisters } from './events.js';

const RECORD_WORDS = 4;
const record = FaultRecordRegister.set;
const { fault } = FaultRecordRegister.get;
const status = FaultStatus.get;
const setStatus = FaultStatus.set;
/** FSTS bits that keep the event from being raised again: all but the record index. */
const CAUSES = 0x7f;

export class FaultLog {
  private readonly words: Uint32Array;
  private readonly status: number;
  private readonly records: number;
  private readonly count: number;
  private readonly event: EventRegisters;
  private readonly trace: Trace | undefined;
  private next = 0;
  /** Faults since the start, and those of them that found no free record. */
  total = 0;
  lost = 0;

  constructor(words: Uint32Array, statusAt: number, recordsAt: number, count: number, event: EventRegisters, trace: Trace | undefined) {
    this.words = words;
    this.status = statusAt;
    this.records = recordsAt;
    this.count = count;
    this.event = event;
    this.trace = trace;
  }

  reset(): void {
    this.next = 0;
  }

  /** Records a DMA fault at the page of (hi, lo). */
  record(reason: number, requesterId: number, pasid: number, hi: number, lo: number, access: number): void {
    if (this.trace) this.trace.emit(Event.fault, reason, pasid, hi, lo);
    this.write(reason, requesterId, pasid, hi, lo & ~0xfff, access);
  }

  /** Records an interrupt remapping fault: FI holds the index in bits 63:48. */
  recordInterrupt(reason: number, requesterId: number, index: number): void {
    if (this.trace) this.trace.emit(Event.fault, reason, NO_PASID, 0, index);
    this.write(reason, requesterId, NO_PASID, index << 16, 0, DmaAccess.write);
  }

  private write(reason: number, requesterId: number, pasid: number, hi: number, lo: number, access: number): void {
    const { words } = this;
    const at = this.records + this.next * RECORD_WORDS;
    this.total++;
    if (status.overflow(words, this.status) || fault(words, at)) {
      this.lost++;
      this.raise(1);
      return;
    }
    words[at] = lo;
    words[at + 1] = hi;
    words[at + 2] = 0;
    words[at + 3] = 0;
    record.sourceId(words, at, requesterId);
    record.reason(words, at, reason);
    record.type1(words, at, access & DmaAccess.write ? 0 : 1);
    record.privileged(words, at, access & DmaAccess.privileged ? 1 : 0);
    record.execute(words, at, access & DmaAccess.execute ? 1 : 0);
    record.addressType(words, at, access & DmaAccess.ats ? 1 : 0);
    if (pasid !== NO_PASID) {
      record.pasidPresent(words, at, 1);
      record.pasid(words, at, pasid);
    }
    record.fault(words, at, 1);
    this.next = (this.next + 1) % this.count;
    const before = words[this.status]! & CAUSES;
    this.refresh();
    if (!before) this.event.raise();
  }

  /** Sets a cause in FSTS (a bit of its low byte). */
  raise(bit: number): void {
    const before = this.words[this.status]! & CAUSES;
    this.words[this.status]! |= bit;
    if (!before) this.event.raise();
  }

  /** PPF and FRI follow the records' F bits. */
  refresh(): void {
    const { words } = this;
    let first = -1;
    for (let i = 0; i < this.count; i++) {
      // The oldest pending record is the first one from `next` on.
      const index = (this.next + i) % this.count;
      if (fault(words, this.records + index * RECORD_WORDS)) {
        first = index;
        break;
      }
    }
    setStatus.pending(words, this.status, first < 0 ? 0 : 1);
    setStatus.record(words, this.status, Math.max(first, 0));
    if (!(words[this.status]! & CAUSES)) this.event.clear();
  }

  /** FSTS was written. True when no queue error is left. */
  acknowledged(): boolean {
    this.refresh();
    return status.queueError(this.words, this.status) === 0;
  }
}
