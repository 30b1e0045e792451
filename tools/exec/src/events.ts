/** Descriptors of ours that something may come from, and what to do then. */
import type { Native } from './native.js';

export class Events {
  readonly #native: Native;
  readonly #epoll: number;
  /** What to do when a descriptor is ready, by a number of its own: those of descriptors come again. */
  readonly #watched = new Map<number, () => void>();
  readonly #tokens = new Map<number, number>();
  #nextToken = 1;

  constructor(native: Native) {
    this.#native = native;
    this.#epoll = native.epoll();
  }

  /** Waits so long at most; whether anything came. */
  wait(timeoutMs: number): boolean {
    const native = this.#native;
    const n = native.wait(this.#epoll, timeoutMs);
    if (n === 0) return false;
    const tokens = native.ready.slice(0, n);
    // One may take away what another stands for.
    for (const token of tokens) this.#watched.get(token)?.();
    return true;
  }
  watch(fd: number, ready: () => void): void {
    const token = this.#nextToken++;
    this.#tokens.set(fd, token);
    this.#watched.set(token, ready);
    this.#native.watch(this.#epoll, fd, token);
  }
  /** Another thing to do when it is ready. */
  rewatch(fd: number, ready: () => void): void {
    this.#watched.set(this.#tokens.get(fd)!, ready);
  }
  /** Closes a descriptor that was watched. */
  forget(fd: number): void {
    this.#watched.delete(this.#tokens.get(fd) ?? -1);
    this.#tokens.delete(fd);
    this.#native.close(fd);
  }
  close(): void {
    for (const fd of [...this.#tokens.keys()]) this.forget(fd);
    this.#native.close(this.#epoll);
  }
}
