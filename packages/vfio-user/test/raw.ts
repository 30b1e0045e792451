/** A tester that sends bytes made by hand, and sees exactly what comes back. */

import type { VfioUserServer } from '../src/index.js';
import { EAGAIN, native } from '../src/native.js';

export interface Answer {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly errno: number;
  readonly payload: Uint8Array;
  readonly fds: readonly number[];
}
/** Fields in order: numbers are u32, bigints u64, text and bytes as they are. */
export function pack(...fields: readonly (number | bigint | string | Uint8Array)[]): Uint8Array {
  const parts = fields.map((field) =>
    typeof field === 'number'
      ? new Uint8Array(Uint32Array.of(field).buffer)
      : typeof field === 'bigint'
        ? new Uint8Array(BigUint64Array.of(field).buffer)
        : typeof field === 'string'
          ? new TextEncoder().encode(field)
          : field,
  );
  return new Uint8Array(Buffer.concat(parts));
}
export const message = (command: number, payload: Uint8Array, o: { id?: number; size?: number; flags?: number } = {}): Uint8Array =>
  pack(((command << 16) | (o.id ?? 7)) >>> 0, o.size ?? 16 + payload.length, o.flags ?? 0, 0, payload);
const version = (json = '{"capabilities":{"max_msg_fds":16,"migration":{"pgsize":4096}}}\0'): Uint8Array => pack(2 << 16, json);

export class RawClient {
  readonly #fd: number;
  readonly #server: VfioUserServer;
  readonly #room = native().room('raw', 1 << 21);
  #bytes: Uint8Array = new Uint8Array(0);
  #fds: number[] = [];
  #closed = false;
  gone = false;

  constructor(path: string, server: VfioUserServer) {
    this.#server = server;
    this.#fd = native().connect(path);
    if (this.#fd < 0) throw new Error(`connect: ${this.#fd}`);
  }
  /** Connected and past VERSION. */
  static ready(path: string, server: VfioUserServer, json?: string): RawClient {
    const client = new RawClient(path, server);
    const { errno } = client.call(1, version(json));
    if (errno !== 0) throw new Error(`VERSION: ${errno}`);
    return client;
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#room.bytes.set(bytes);
    for (let sent = 0; sent < bytes.length; ) {
      const n = native().send(this.#fd, this.#room.address + sent, bytes.length - sent, sent === 0 ? fds : []);
      if (n > 0) sent += n;
      else if (n === -EAGAIN) {
        this.#server.step(0);
        this.#pull();
      } else {
        this.gone = true;
        return;
      }
    }
  }
  /** Reads nothing before all of it has gone out. */
  sendOnly(bytes: Uint8Array): void {
    this.#room.bytes.set(bytes);
    for (let sent = 0, tries = 0; sent < bytes.length; tries++) {
      if (tries > 10_000) throw new Error(`the server has read ${sent} of ${bytes.length} bytes, and reads no more`);
      const n = native().send(this.#fd, this.#room.address + sent, bytes.length - sent);
      if (n > 0) sent += n;
      else this.#server.step(0);
    }
  }
  #pull(): void {
    for (;;) {
      const n = native().receive(this.#fd, this.#room.address, this.#room.bytes.length);
      if (n === 0) this.gone = true;
      if (n <= 0) {
        if (n < 0 && n !== -EAGAIN) this.gone = true;
        return;
      }
      this.#fds.push(...native().fds);
      this.#bytes = pack(this.#bytes, this.#room.bytes.slice(0, n));
    }
  }
  /** The next message from the server; undefined when none comes. */
  next(): Answer | undefined {
    for (let tries = 0; tries < 8; tries++) {
      const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
      if (this.#bytes.length >= 16 && this.#bytes.length >= view.getUint32(4, true)) {
        const size = view.getUint32(4, true);
        const answer: Answer = {
          id: view.getUint16(0, true),
          command: view.getUint16(2, true),
          flags: view.getUint32(8, true),
          errno: view.getUint32(12, true),
          payload: this.#bytes.slice(16, size),
          fds: this.#fds,
        };
        this.#fds = [];
        this.#bytes = this.#bytes.slice(size);
        return answer;
      }
      this.#server.step(0);
      this.#pull();
    }
    return undefined;
  }
  /** A command and its reply; errno 'gone' when the server closed without one, 'silent' when there is none. */
  call(
    command: number,
    payload: Uint8Array,
    fds: readonly number[] = [],
    o: { size?: number; flags?: number } = {},
  ): Answer & { readonly u32: number[] } {
    this.send(message(command, payload, o), fds);
    const answer = this.next() ?? { id: -1, command, flags: 0, errno: this.gone ? -1 : -2, payload: new Uint8Array(0), fds: [] };
    return { ...answer, u32: [...new Uint32Array(answer.payload.slice(0, answer.payload.length & ~3).buffer)] };
  }
  /** Forgets what came so far. */
  drop(): void {
    this.#pull();
    this.#bytes = new Uint8Array(0);
  }
  close(): void {
    if (!this.#closed) native().close(this.#fd);
    this.#closed = true;
    for (const fd of this.#fds) native().close(fd);
    for (let i = 0; i < 4; i++) this.#server.step(0);
  }
}
