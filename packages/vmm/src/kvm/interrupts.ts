/** Interrupt routing, irqfds and messages of one VM. Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SIGNAL_MSI. */
import { Errno } from '@siov/layout/uapi';
import { MSI_BASE, MsiAddress, MsiData } from '@siov/layout/x86';
import type { Clock, EventSource, InterruptSink } from '../ports.js';
import { Counter } from './counters.js';
import { IrqfdFlag, MAX_ROUTES, MSI_VALID_DEVID, RoutingEntry, RoutingType } from './uapi.js';

export interface InterruptOptions {
  readonly clock: Clock;
  readonly counters: Float64Array;
  /** Nanoseconds from signal to delivery. */
  readonly delay: number;
  sink(): InterruptSink | undefined;
}
const LOWEST_PRIORITY = 1;

export class Interrupts {
  private readonly o: InterruptOptions;
  private readonly delivery: number;
  /** Word pairs (address, data) by gsi. */
  private routes = new Map<number, readonly [address: number, data: number]>();
  private readonly sources = new Map<EventSource, number>();
  private readonly message = new Uint32Array(2);

  constructor(options: InterruptOptions) {
    this.o = options;
    this.delivery = options.clock.handler((gsi) => this.inject(gsi));
  }

  /** Replaces all routes by `count` entries in `words`. 0 or -errno, with nothing changed. */
  setRouting(words: Uint32Array, count: number): number {
    const { get, bytes } = RoutingEntry;
    const routes = new Map<number, readonly [number, number]>();
    for (let i = 0, at = 0; i < count; i++, at += bytes / 4) {
      const gsi = get.gsi(words, at);
      const msi = get.type(words, at) === RoutingType.MSI;
      // Pins of an interrupt chip are not here; one gsi has one message.
      if (!msi || get.flags(words, at) & ~MSI_VALID_DEVID || gsi >= MAX_ROUTES || routes.has(gsi)) return -Errno.EINVAL;
      routes.set(gsi, [get.addressLow(words, at), get.data(words, at)]);
    }
    this.routes = routes;
    return 0;
  }

  /** Binds an eventfd to a gsi, or lets it go. */
  irqfd(source: EventSource, gsi: number, flags: number): number {
    if (flags & IrqfdFlag.DEASSIGN) {
      if (this.sources.get(source) === gsi) this.release(source);
      return 0;
    }
    if (source.onSignal) return -Errno.EBUSY;
    this.sources.set(source, gsi);
    source.onSignal = () => this.signalled(source, gsi);
    // An event that came before counts.
    if (source.consume() > 0) this.raise(gsi);
    return 0;
  }

  /** Delivers a message now: 1, or 0 when no APIC takes it. */
  send(address: number, data: number): number {
    const { message, o } = this;
    message[0] = address;
    message[1] = data;
    const mode = MsiData.get.deliveryMode(message, 1);
    const sink = o.sink();
    if (MsiAddress.get.base(message, 0) !== MSI_BASE || mode > LOWEST_PRIORITY || !sink) {
      o.counters[Counter.droppedMessages]!++;
      return 0;
    }
    o.counters[Counter.interrupts]!++;
    sink.deliver(MsiData.get.vector(message, 1), MsiAddress.get.destination(message, 0));
    return 1;
  }

  /** The VM goes. */
  clear(): void {
    for (const source of [...this.sources.keys()]) this.release(source);
    this.routes.clear();
  }

  private release(source: EventSource): void {
    this.sources.delete(source);
    delete source.onSignal;
  }
  private signalled(source: EventSource, gsi: number): void {
    source.consume();
    this.raise(gsi);
  }
  private raise(gsi: number): void {
    this.o.counters[Counter.irqfds]!++;
    this.o.clock.after(this.o.delay, this.delivery, gsi);
  }
  /** A gsi without a route has no effect. */
  private inject(gsi: number): void {
    const route = this.routes.get(gsi);
    if (route) this.send(route[0], route[1]);
  }
}
