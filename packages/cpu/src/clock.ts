/**
 * Virtual time and the events that wait for it: a binary heap over typed arrays. Events see their own due time as `now`; afterwards `now`
 * is the CPU's time again. Nothing is allocated per event.
 */
const ROOM = 64;

/** `pump`, `idle` or `wait` was called while an event runs. Event handlers never wait. */
export class ReentryError extends Error {
  constructor(call: string) {
    super(`clock.${call}: called from an event handler; an event may only schedule others`);
    this.name = 'ReentryError';
  }
}

export class Clock {
  private readonly time = new Float64Array(1);
  private readonly handlers: ((argument: number) => void)[] = [];
  private size = 0;
  private serial = 0;
  private pumping = false;
  /** Heap of slots; slots hold the events. Slots beyond `size` in the heap are the free ones. */
  private heap = new Int32Array(ROOM).map((_, i) => i);
  private due = new Float64Array(ROOM);
  private order = new Float64Array(ROOM);
  private handlerOf = new Int32Array(ROOM);
  private argumentOf = new Float64Array(ROOM);
  private readonly works: (() => void)[] = [];
  /** Events run since the start. */
  events = 0;

  /** Nanoseconds. */
  get now(): number {
    return this.time[0]!;
  }

  /** How many events and pieces of work wait. */
  get pending(): number {
    return this.size + this.works.length;
  }

  /** Registers a handler once; its number goes to `after`. */
  handler(run: (argument: number) => void): number {
    if (typeof run !== 'function') throw new TypeError('run: a handler is a function');
    return this.handlers.push(run) - 1;
  }

  /** Runs a handler `ns` from now, after the others that are due at the same time. */
  after(ns: number, handler: number, argument: number): void {
    if (!(ns >= 0 && ns < 2 ** 53)) throw new RangeError(`ns: ${ns} is not a delay`);
    if (this.handlers[handler] === undefined) throw new RangeError(`handler: ${handler} was not registered`);
    if (this.size === this.heap.length) this.grow();
    const slot = this.heap[this.size]!;
    this.due[slot] = this.time[0]! + ns;
    this.order[slot] = this.serial++;
    this.handlerOf[slot] = handler;
    this.argumentOf[slot] = argument;
    this.rise(this.size++, slot);
  }

  /** The running CPU did work. Runs nothing. */
  spend(ns: number): void {
    this.time[0] = this.time[0]! + ns;
  }

  /** Leaves work to a worker thread: it runs once no event does, in the order given, and may wait. What an event cannot do itself. */
  defer(work: () => void): void {
    if (typeof work !== 'function') throw new TypeError('work: a function');
    this.works.push(work);
  }

  /** Runs all events due by now, also those that they schedule, and the work that they leave; returns whether any ran. */
  pump(): boolean {
    const ran = this.runEvents();
    return this.works.length > 0 ? this.runWorks() : ran;
  }
  private runWorks(): true {
    for (let work = this.works.shift(); work; work = this.works.shift()) work();
    return true;
  }
  private runEvents(): boolean {
    if (this.pumping) throw new ReentryError('pump');
    const limit = this.time[0]!;
    if (this.size === 0 || this.due[this.heap[0]!]! > limit) return false;
    let end = limit;
    this.pumping = true;
    try {
      while (this.size > 0 && this.due[this.heap[0]!]! <= limit) {
        const slot = this.heap[0]!;
        this.time[0] = this.due[slot]!;
        this.drop();
        this.events++;
        this.handlers[this.handlerOf[slot]!]!(this.argumentOf[slot]!);
        if (this.time[0]! > end) end = this.time[0]!;
      }
    } finally {
      this.pumping = false;
      this.time[0] = end;
    }
    return true;
  }

  /** Nobody has anything to do now: goes to the next event and runs what is due there; false when there is none. */
  idle(): boolean {
    if (this.pumping) throw new ReentryError('idle');
    if (this.works.length > 0) return this.runWorks();
    if (this.size === 0) return false;
    const next = this.due[this.heap[0]!]!;
    if (next > this.time[0]!) this.time[0] = next;
    return this.pump();
  }

  /** Runs events until the condition holds; false when none are left and it does not. For driver code, never for events. */
  wait(until: () => boolean): boolean {
    if (this.pumping) throw new ReentryError('wait');
    while (!until()) if (!this.next()) return until();
    return true;
  }
  /** What `pump` does, or else `idle`, in one look at the heap. */
  private next(): boolean {
    if (this.works.length > 0) return this.pump();
    if (this.size === 0) return false;
    const due = this.due[this.heap[0]!]!;
    if (due > this.time[0]!) this.time[0] = due;
    return this.runEvents();
  }

  private before(a: number, b: number): boolean {
    const difference = this.due[a]! - this.due[b]!;
    return difference < 0 || (difference === 0 && this.order[a]! < this.order[b]!);
  }

  private rise(at: number, slot: number): void {
    const heap = this.heap;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.before(slot, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = slot;
  }

  /** Takes the first event out; its slot becomes free. */
  private drop(): void {
    const heap = this.heap;
    const first = heap[0]!;
    const size = --this.size;
    const slot = heap[size]!;
    heap[size] = first;
    if (size === 0) return;
    let at = 0;
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.before(heap[child + 1]!, heap[child]!)) child++;
      if (!this.before(heap[child]!, slot)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = slot;
  }

  private grow(): void {
    const size = this.heap.length;
    const copy = <T extends Int32Array | Float64Array>(from: T, to: T): T => {
      to.set(from as never);
      return to;
    };
    this.heap = copy(
      this.heap,
      new Int32Array(size * 2).map((_, i) => i),
    );
    this.due = copy(this.due, new Float64Array(size * 2));
    this.order = copy(this.order, new Float64Array(size * 2));
    this.handlerOf = copy(this.handlerOf, new Int32Array(size * 2));
    this.argumentOf = copy(this.argumentOf, new Float64Array(size * 2));
  }
}
