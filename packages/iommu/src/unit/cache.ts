/**
 * The one kind of cache in this package: bounded, four ways, over one Int32Array. An entry is 2^shift words of which the first four are
 * its tag; a free entry has 0 in the first word, which no tag has. Round-robin replacement.
 */
const WAYS = 4;

export class TagCache {
  /** Entries side by side; whoever looks up reads the words behind the tag. */
  readonly data: Int32Array;
  readonly setMask: number;
  private readonly shift: number;
  private readonly turn: Uint8Array;

  /** `entries`: a power of two, at least 4. `shift`: words of an entry as a power of two, at least 2. */
  constructor(entries: number, shift: number, name: string) {
    if (!(entries >= WAYS) || entries & (entries - 1)) throw new RangeError(`sizes.${name}: a power of two from 4 on, not ${entries}`);
    this.data = new Int32Array(entries << shift);
    this.setMask = entries / WAYS - 1;
    this.shift = shift;
    this.turn = new Uint8Array(entries / WAYS);
  }

  /** The word index of the entry with this tag, or -1. */
  find(a: number, b: number, c: number, d: number, hash: number): number {
    const { data } = this;
    const step = 1 << this.shift;
    let at = (hash & this.setMask) << (this.shift + 2);
    for (let way = 0; way < WAYS; way++, at += step) if (data[at] === a && data[at + 1] === b && data[at + 2] === c && data[at + 3] === d) return at;
    return -1;
  }

  /** The entry with this tag, or one that makes room for it; its tag is written, the words behind it are whatever they were. */
  place(a: number, b: number, c: number, d: number, hash: number): number {
    const at = this.find(a, b, c, d, hash);
    return at >= 0 ? at : this.add(a, b, c, d, hash);
  }

  /** As `place`, when the tag is known not to be there. */
  add(a: number, b: number, c: number, d: number, hash: number): number {
    const { data } = this;
    let at = -1;
    const set = hash & this.setMask;
    const first = set << (this.shift + 2);
    for (let way = 0; way < WAYS && at < 0; way++) if (data[first + (way << this.shift)] === 0) at = first + (way << this.shift);
    if (at < 0) {
      const way = this.turn[set]!;
      this.turn[set] = (way + 1) & (WAYS - 1);
      at = first + (way << this.shift);
    }
    data[at] = a;
    data[at + 1] = b;
    data[at + 2] = c;
    data[at + 3] = d;
    return at;
  }

  /** Forgets an entry. */
  drop(at: number): void {
    this.data[at] = 0;
  }
  clear(): void {
    this.data.fill(0);
  }
  /** Words of an entry. */
  get step(): number {
    return 1 << this.shift;
  }
}
