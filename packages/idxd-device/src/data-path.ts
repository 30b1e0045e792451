/**
 * The data path that all engines of a device share, as a fluid: at each moment the engines that have bytes to move share its rate equally, and
 * a group no more than its read buffers carry. Published measurements of one large operation beside small batches on other engines show this
 * sharing. Work is counted in nanoseconds of the whole rate. An engine's work goes in order, so each piece is a mark in the sum of what the
 * engine asked for, and is through when the sum of what was served has reached it. While one engine is alone, its pieces' ends are known when
 * they come; as soon as others join, they are watched for. Nothing is allocated, and the state is brought up to date when someone looks.
 */

/** What rounding of sums may leave over, in nanoseconds. */
const ROUNDING = 1e-3;

export class DataPath {
  // fixed
  readonly #engines: number;
  readonly #limit: number;
  /** Told of a piece whose end was known that it is watched from now on, and of each watched piece when it is through. */
  readonly #joined: (id: number) => void;
  readonly #through: (id: number) => void;
  // state
  readonly #wanted: Float64Array;
  readonly #served: Float64Array;
  readonly #rate: Float64Array;
  /** By engine: its group, and what of the whole rate the group can take (1: all). */
  readonly #group: Int32Array;
  readonly #most: Float64Array;
  /** By engine, a ring of pieces under way: their marks, whose they are, and whether someone waits to hear of them. */
  readonly #marks: Float64Array;
  readonly #ids: Int32Array;
  readonly #watched: Uint8Array;
  readonly #head: Int32Array;
  readonly #count: Int32Array;
  /** Engines with work, one bit each, and when the sums were right. */
  #busy = 0;
  #limited = false;
  /** Among which engines the rates share. */
  #shared = 0;
  readonly #at = new Float64Array(1);
  /** How many pieces are watched. */
  watching = 0;

  /** At most `limit` pieces of each engine are under way. */
  constructor(engines: number, limit: number, joined: (id: number) => void, through: (id: number) => void) {
    const sums = (): Float64Array => new Float64Array(engines);
    this.#engines = engines;
    this.#limit = limit;
    this.#joined = joined;
    this.#through = through;
    this.#wanted = sums();
    this.#served = sums();
    this.#rate = sums();
    this.#most = sums().fill(1);
    this.#group = new Int32Array(engines);
    this.#marks = new Float64Array(engines * limit);
    this.#ids = new Int32Array(engines * limit);
    this.#watched = new Uint8Array(engines * limit);
    this.#head = new Int32Array(engines);
    this.#count = new Int32Array(engines);
  }

  /** The group of an engine, and which part of the rate the group's read buffers carry (1: all of it, or more). */
  configure(engine: number, group: number, most: number): void {
    this.#group[engine] = group;
    this.#most[engine] = Math.min(1, most);
    this.#limited = this.#most.some((m) => m < 1);
    this.#shared = 0;
  }

  /** Whether an engine would share the path with nobody. */
  alone(engine: number, now: number): boolean {
    if (this.#busy === 0) return true;
    this.#advance(now);
    return (this.#busy & ~(1 << engine)) === 0;
  }

  /** What an engine still has to move. */
  backlog(engine: number, now: number): number {
    if (this.#busy === 0) return 0;
    this.#advance(now);
    return this.#wanted[engine]! - this.#served[engine]!;
  }

  /** The time that an engine needs for so much work when it is alone. */
  time(engine: number, work: number): number {
    return work / this.#most[engine]!;
  }

  /**
   * A piece of work of an engine. Returns how long it takes while the engine is alone, or -1: with others, it is watched. It may come to be watched
   * later.
   */
  add(engine: number, now: number, work: number, id: number): number {
    this.#advance(now);
    if (this.#count[engine]! > 0) this.#forget(engine);
    const busy = this.#busy | (1 << engine);
    const watched = (busy & (busy - 1)) !== 0;
    // Those that were alone until now.
    if (watched && (this.#busy & (this.#busy - 1)) === 0 && this.#busy !== 1 << engine) this.#watchAll(31 - Math.clz32(this.#busy));
    this.#busy = busy;
    const mark = this.#wanted[engine]! + work;
    this.#wanted[engine] = mark;
    let place = this.#head[engine]! + this.#count[engine]!++;
    if (place >= this.#limit) place -= this.#limit;
    place += engine * this.#limit;
    this.#marks[place] = mark;
    this.#ids[place] = id;
    this.#watched[place] = watched ? 1 : 0;
    if (!watched) return (mark - this.#served[engine]!) / this.#most[engine]!;
    this.watching++;
    return -1;
  }

  /** Whether an engine's piece that was added last has none before it. */
  first(engine: number): boolean {
    return this.#count[engine] === 1;
  }

  /** Tells of the watched pieces that are through by now. */
  settle(now: number): void {
    this.#advance(now);
    for (let engine = 0; engine < this.#engines; engine++)
      while (this.#count[engine]! > 0) {
        const place = this.#place(engine, 0);
        if (this.#served[engine]! < this.#marks[place]! - ROUNDING) break;
        this.#drop(engine);
        if (!this.#watched[place]) continue;
        this.watching--;
        this.#through(this.#ids[place]!);
      }
  }

  /** How long until the next piece is through, if no idle engine gets work. */
  next(): number {
    let least = Number.POSITIVE_INFINITY;
    this.#share(this.#busy);
    for (let engine = 0; engine < this.#engines; engine++) {
      if (this.#count[engine] === 0) continue;
      const time = (this.#marks[this.#place(engine, 0)]! - this.#served[engine]!) / this.#rate[engine]!;
      if (time < least) least = time;
    }
    return Math.max(0, least);
  }

  reset(): void {
    this.#wanted.fill(0);
    this.#served.fill(0);
    this.#head.fill(0);
    this.#count.fill(0);
    this.#busy = this.watching = 0;
  }

  #place(engine: number, i: number): number {
    const place = this.#head[engine]! + i;
    return engine * this.#limit + (place >= this.#limit ? place - this.#limit : place);
  }
  #drop(engine: number): void {
    const head = this.#head[engine]! + 1;
    this.#head[engine] = head === this.#limit ? 0 : head;
    this.#count[engine]!--;
  }
  /** Drops what is through and nobody waits to hear of. */
  #forget(engine: number): void {
    while (this.#count[engine]! > 0) {
      const place = this.#place(engine, 0);
      if (this.#watched[place] || this.#served[engine]! < this.#marks[place]! - ROUNDING) return;
      this.#drop(engine);
    }
  }
  #watchAll(engine: number): void {
    this.#forget(engine);
    for (let i = 0; i < this.#count[engine]!; i++) {
      const place = this.#place(engine, i);
      if (this.#watched[place] || this.#served[engine]! >= this.#marks[place]! - ROUNDING) continue;
      this.#watched[place] = 1;
      this.watching++;
      this.#joined(this.#ids[place]!);
    }
  }

  #advance(now: number): void {
    let left = now - this.#at[0]!;
    this.#at[0] = now;
    const busy = this.#busy;
    if (left <= 0 || busy === 0) return;
    if ((busy & (busy - 1)) === 0) {
      // One engine alone: most of the time.
      const engine = 31 - Math.clz32(busy);
      const served = this.#served[engine]! + left * this.#most[engine]!;
      const wanted = this.#wanted[engine]!;
      if (served < wanted - ROUNDING) this.#served[engine] = served;
      else {
        this.#served[engine] = wanted;
        this.#busy = 0;
      }
      return;
    }
    while (this.#busy !== 0 && left > 0) {
      this.#share(this.#busy);
      // Until the first of the busy engines has nothing left.
      let step = left;
      for (let rest = this.#busy; rest !== 0; rest &= rest - 1) {
        const engine = 31 - Math.clz32(rest & -rest);
        const time = (this.#wanted[engine]! - this.#served[engine]!) / this.#rate[engine]!;
        if (time < step) step = time;
      }
      for (let rest = this.#busy; rest !== 0; rest &= rest - 1) {
        const engine = 31 - Math.clz32(rest & -rest);
        const served = this.#served[engine]! + step * this.#rate[engine]!;
        if (served < this.#wanted[engine]! - ROUNDING) this.#served[engine] = served;
        else {
          this.#served[engine] = this.#wanted[engine]!;
          this.#busy &= ~(1 << engine);
        }
      }
      left -= step;
    }
  }

  /** Equal shares; a group that its read buffers limit leaves the rest to the others. */
  #share(busy: number): void {
    if (busy === this.#shared) return;
    this.#shared = busy;
    const rate = this.#rate;
    let open = busy;
    let left = 1;
    for (;;) {
      let n = 0;
      for (let rest = open; rest !== 0; rest &= rest - 1) n++;
      if (n === 0) return;
      const each = left / n;
      let limited = 0;
      for (let rest = open; rest !== 0; rest &= rest - 1) {
        const engine = 31 - Math.clz32(rest & -rest);
        rate[engine] = each;
        if (!this.#limited) continue;
        const most = this.#most[engine]! / this.#siblings(busy, this.#group[engine]!);
        if (most >= each) continue;
        rate[engine] = most;
        left -= most;
        limited |= 1 << engine;
      }
      if (limited === 0) return;
      open &= ~limited;
    }
  }
  #siblings(busy: number, group: number): number {
    let n = 0;
    for (let rest = busy; rest !== 0; rest &= rest - 1) if (this.#group[31 - Math.clz32(rest & -rest)] === group) n++;
    return n;
  }
}
