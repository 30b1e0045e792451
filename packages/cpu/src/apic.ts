/**
 * The local APIC that interrupt messages reach: a vector becomes pending, its handler runs as an event. A vector that is pending already
 * is not queued twice. Intel SDM 3A, "Advanced Programmable Interrupt Controller (APIC)", interrupt acceptance for fixed interrupts.
 */
import { Event } from '@siov/layout/events';
import type { Trace } from './ports.js';

/** Vectors below are exceptions. */
const FIRST_VECTOR = 0x20;
const VECTORS = 256;

export const ApicCounter = { delivered: 0, handled: 1, merged: 2, spurious: 3 } as const;

export interface ApicClock {
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
}
export interface ApicOptions {
  readonly clock: ApicClock;
  /** `deliver`: integer nanoseconds from message to handler. */
  readonly costs?: { readonly deliver?: number } | undefined;
  readonly trace?: Trace | undefined;
}

export class LocalApic {
  readonly counters = new Float64Array(Object.keys(ApicCounter).length);
  private readonly clock: ApicClock;
  private readonly delay: number;
  private readonly trace: Trace | undefined;
  private readonly run: number;
  private readonly handlers: (((vector: number) => void) | undefined)[] = new Array(VECTORS).fill(undefined);
  private readonly pending = new Uint8Array(VECTORS);
  private readonly taken = new Uint8Array(VECTORS);

  constructor(options: ApicOptions) {
    this.clock = options.clock;
    this.delay = options.costs?.deliver ?? 0;
    this.trace = options.trace;
    this.run = options.clock.handler((vector) => this.handle(vector));
  }

  /** A vector that nobody has, 0x20 to 0xff, or -1. */
  allocVector(): number {
    for (let vector = FIRST_VECTOR; vector < VECTORS; vector++) {
      if (this.taken[vector]) continue;
      this.taken[vector] = 1;
      return vector;
    }
    return -1;
  }

  freeVector(vector: number): void {
    if (!this.taken[vector]) throw new RangeError(`vector: ${vector} was not allocated`);
    this.taken[vector] = 0;
    this.handlers[vector] = undefined;
  }

  install(vector: number, handler: (vector: number) => void): void {
    if (!(vector >= FIRST_VECTOR && vector < VECTORS)) throw new RangeError(`vector: ${vector} is not 0x20 to 0xff`);
    this.taken[vector] = 1;
    this.handlers[vector] = handler;
  }

  /** No handler any more; a pending interrupt of the vector is then spurious. */
  remove(vector: number): void {
    this.handlers[vector] = undefined;
  }

  /** An interrupt message arrived. Runs nothing: the handler is an event. */
  deliver(vector: number, destination: number): void {
    vector &= 0xff;
    this.counters[ApicCounter.delivered]!++;
    if (this.trace) this.trace.emit(Event.deliver, vector, destination, 0, 0);
    if (this.pending[vector]) {
      this.counters[ApicCounter.merged]!++;
      return;
    }
    this.pending[vector] = 1;
    this.clock.after(this.delay, this.run, vector);
  }

  private handle(vector: number): void {
    this.pending[vector] = 0;
    const handler = this.handlers[vector];
    if (!handler) {
      this.counters[ApicCounter.spurious]!++;
      return;
    }
    this.counters[ApicCounter.handled]!++;
    if (this.trace) this.trace.emit(Event.interruptHandled, vector, 0, 0, 0);
    handler(vector);
  }
}
