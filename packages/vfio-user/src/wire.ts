/**
 * Recordings of connections: a file that says who sent which bytes when. After 'SIOVWIRE' and a version, one entry for each message: its length,
 * device, direction, how many descriptors came along, and microseconds since the start; then the message as it was.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { layout } from '@siov/layout';
import type { Observer } from './server.js';

const MAGIC = 'SIOVWIRE';
const VERSION = 1;
const HEAD_BYTES = 16;
const Entry = /* @__PURE__ */ layout('entry', 20, {
  0: { length: '31:0' },
  4: { device: '15:0', fromServer: '16', second: '17' },
  8: { fds: '31:0' },
  12: { microsecondsLow: '31:0' },
  16: { microsecondsHigh: '31:0' },
});
/** Bytes gathered before they are written. */
const ROOM = 1 << 16;

export class WireWriter {
  readonly #fd: number;
  readonly #start = performance.now();
  readonly #entry = new Uint32Array(Entry.bytes / 4);
  readonly #entryBytes = new Uint8Array(this.#entry.buffer);
  readonly #room = new Uint8Array(ROOM);
  #used = 0;

  /** Makes the file anew. Throws what the file system says. */
  constructor(path: string) {
    this.#fd = openSync(path, 'w');
    const head = new Uint8Array(HEAD_BYTES);
    head.set(new TextEncoder().encode(MAGIC));
    head[8] = VERSION;
    this.#put(head);
  }
  /** For a server's `observer`. */
  readonly observer: Observer = (device, direction, twin, bytes, fds) => {
    const { set } = Entry;
    const now = Math.round((performance.now() - this.#start) * 1000);
    set.length(this.#entry, 0, bytes.length);
    set.device(this.#entry, 0, device);
    set.fromServer(this.#entry, 0, direction);
    set.second(this.#entry, 0, twin ? 1 : 0);
    set.fds(this.#entry, 0, fds);
    set.microsecondsLow(this.#entry, 0, now);
    set.microsecondsHigh(this.#entry, 0, now / 2 ** 32);
    this.#put(this.#entryBytes);
    this.#put(bytes);
  };
  flush(): void {
    for (let at = 0; at < this.#used; ) at += writeSync(this.#fd, this.#room, at, this.#used - at);
    this.#used = 0;
  }
  close(): void {
    this.flush();
    closeSync(this.#fd);
  }
  #put(bytes: Uint8Array): void {
    if (this.#used + bytes.length > ROOM) this.flush();
    if (bytes.length > ROOM) {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at, bytes.length - at);
      return;
    }
    this.#room.set(bytes, this.#used);
    this.#used += bytes.length;
  }
}

export interface WireEntry {
  readonly device: number;
  readonly fromServer: boolean;
  /** Over the second socket. */
  readonly second: boolean;
  readonly fds: number;
  readonly microseconds: number;
  readonly message: Uint8Array;
}
/** The file is no recording, or of another version. */
export class WireFormatError extends Error {
  constructor(why: string) {
    super(why);
    this.name = 'WireFormatError';
  }
}
/** The entries of a recording; one that is cut off at the end is left out. Throws WireFormatError. */
export function* readWire(file: Uint8Array): Generator<WireEntry> {
  if (file.length < HEAD_BYTES || new TextDecoder().decode(file.subarray(0, MAGIC.length)) !== MAGIC)
    throw new WireFormatError('it is no recording of a connection');
  if (file[8] !== VERSION) throw new WireFormatError(`it is a recording of version ${file[8]}, and this reads version ${VERSION}`);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const words = new Uint32Array(Entry.bytes / 4);
  const { get } = Entry;
  for (let at = HEAD_BYTES; at + Entry.bytes <= file.length; ) {
    for (let i = 0; i < words.length; i++) words[i] = view.getUint32(at + i * 4, true);
    at += Entry.bytes;
    const end = at + get.length(words, 0);
    if (end > file.length) return;
    yield {
      device: get.device(words, 0),
      fromServer: get.fromServer(words, 0) === 1,
      second: get.second(words, 0) === 1,
      fds: get.fds(words, 0),
      microseconds: get.microsecondsLow(words, 0) + get.microsecondsHigh(words, 0) * 2 ** 32,
      message: file.subarray(at, end),
    };
    at = end;
  }
}
