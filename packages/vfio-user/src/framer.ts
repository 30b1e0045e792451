/** A byte stream with descriptors, cut into messages. */
import { Command, HEADER_BYTES } from './spec/protocol.js';

/** Descriptors that one message may gather before the stream counts as broken. */
const FDS_OF_A_MESSAGE = 256;

export interface FramerOptions {
  /** Largest message, header included. */
  readonly largest: number;
  /** A whole message; `view` shows `bytes`. False: not now, go on at `resume`. */
  message(bytes: Uint8Array, view: DataView, at: number, size: number, fds: readonly number[]): boolean;
  /** What cannot be a message: the stream ends here. Descriptors that were not handed out are in `fds`. */
  broken(why: string, fds: readonly number[]): void;
}
const NONE: readonly number[] = [];

export class Framer {
  readonly #o: FramerOptions;
  /** From the last message's end on: what has not been handed out. */
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #have = 0;
  /** Descriptors by the place of the message that they came with, in order. */
  #fds: { at: number; fds: number[] }[] = [];
  #dead = false;

  constructor(options: FramerOptions) {
    this.#o = options;
  }

  /** Bytes that wait for the rest of their message, or for `resume`. */
  get held(): number {
    return this.#have;
  }

  /** The first `length` bytes of `bytes`, and what came along. Nothing of `bytes` is kept. */
  push(bytes: Uint8Array, view: DataView, length: number, fds: readonly number[]): void {
    if (this.#dead) {
      if (fds.length > 0) this.#o.broken('after its end', fds);
      return;
    }
    if (this.#have === 0) {
      if (fds.length > 0) this.#assign(view, 0, length, fds);
      const done = this.#hand(bytes, view, length);
      if (done < length && !this.#dead) this.#keep(bytes, done, length);
      return;
    }
    const before = this.#have;
    this.#keep(bytes, 0, length);
    if (fds.length > 0) this.#assign(this.#view, before, this.#have, fds);
    this.resume();
  }

  /** Goes on with what is held. */
  resume(): void {
    const done = this.#hand(this.#bytes, this.#view, this.#have);
    if (this.#dead || done === 0) return;
    this.#bytes.copyWithin(0, done, this.#have);
    this.#have -= done;
    // A large message's room is given back.
    if (this.#have === 0 && this.#bytes.length > 1 << 16) {
      this.#bytes = new Uint8Array(0);
      this.#view = new DataView(this.#bytes.buffer);
    }
  }

  /** The stream is over: descriptors that belong to an unfinished message. */
  end(): readonly number[] {
    this.#dead = true;
    const left = this.#fds.flatMap((each) => each.fds);
    this.#fds = [];
    return left;
  }

  /** Hands out whole messages; how many bytes they were. */
  #hand(bytes: Uint8Array, view: DataView, length: number): number {
    let at = 0;
    while (at + HEADER_BYTES <= length) {
      const size = view.getUint32(at + 4, true);
      if (size < HEADER_BYTES || size > this.#o.largest) {
        this.#dead = true;
        this.#o.broken(`a message of ${size} bytes`, this.end());
        break;
      }
      if (at + size > length) break;
      const [first] = this.#fds;
      const fds = first && first.at === at ? (this.#fds.shift(), first.fds) : NONE;
      const goOn = this.#o.message(bytes, view, at, size, fds);
      at += size;
      if (!goOn || this.#dead) break;
    }
    if (at > 0) for (const each of this.#fds) each.at -= at;
    return at;
  }

  /**
   * Whose descriptors they are. They came with the last piece that was sent, and a sender attaches them to a message's first byte: so they belong to
   * the last message that begins in what was read and can have any; if none begins there, to the one that is unfinished.
   */
  #assign(view: DataView, chunk: number, length: number, fds: readonly number[]): void {
    let owner = 0;
    let taker = -1;
    for (let at = 0; at < length; ) {
      owner = at;
      const whole = at + HEADER_BYTES <= length;
      if (at >= chunk && (!whole || takes(view.getUint16(at + 2, true)))) taker = at;
      const size = whole ? view.getUint32(at + 4, true) : 0;
      if (size < HEADER_BYTES) break;
      at += size;
    }
    if (taker >= 0) owner = taker;
    const given = this.#fds.find((each) => each.at === owner);
    if (given) given.fds.push(...fds);
    else this.#fds.push({ at: owner, fds: [...fds] });
    this.#fds.sort((a, b) => a.at - b.at);
    if ((given?.fds.length ?? 0) > FDS_OF_A_MESSAGE) {
      this.#dead = true;
      this.#o.broken('too many descriptors', this.end());
    }
  }

  #keep(bytes: Uint8Array, from: number, to: number): void {
    const need = this.#have + to - from;
    if (need > this.#bytes.length) {
      const more = new Uint8Array(Math.max(need, Math.min(this.#bytes.length * 2, this.#o.largest), 256));
      more.set(this.#bytes.subarray(0, this.#have));
      this.#bytes = more;
      this.#view = new DataView(more.buffer);
    }
    this.#bytes.set(bytes.subarray(from, to), this.#have);
    this.#have = need;
  }
}
const takes = (command: number): boolean => command === Command.DMA_MAP || command === Command.DEVICE_SET_IRQS;
