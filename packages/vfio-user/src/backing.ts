/**
 * Files that the client's memory is in. A file that cannot shrink is mapped; any other is read and written, since a page that has left a file kills
 * the process that touches it. Mappings are made in windows over address ranges that stay reserved for ever: what the client takes back becomes
 * private zeros at the same place, so a view that somebody still holds reaches no memory that is gone, and never faults.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { Errno } from '@siov/layout/uapi';
import type { Native, NativeBytes } from './native.js';
import type { Backing, BackingOf, Extent } from './ports.js';

/** V8 has no ArrayBuffer above 4 GiB. Bytes. */
const WINDOW = 2 ** 30;
const SMALLEST = 2 ** 16;

interface Window extends NativeBytes {
  readonly words: Uint32Array;
}
/** Ranges that nobody uses, by size. One for each thread: views belong to it. */
const free = new Map<number, Window[]>();

function reserve(native: Native, bytes: number): Window {
  const size = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(bytes)));
  const window = free.get(size)?.pop();
  if (window) return window;
  const made = native.allocate(size);
  return { ...made, words: new Uint32Array(made.bytes.buffer) };
}

class MappedFile implements Backing {
  readonly key: string;
  readonly #native: Native;
  /** -1 when all of it is mapped. */
  #fd: number;
  readonly #offset: number;
  readonly #bytes: number;
  readonly #writable: boolean;
  readonly #windows: (Window | undefined)[];

  constructor(native: Native, fd: number, offset: number, bytes: number, writable: boolean, key: string) {
    this.#native = native;
    this.#fd = fd;
    this.#offset = offset;
    this.#bytes = bytes;
    this.#writable = writable;
    this.key = key;
    this.#windows = new Array(Math.ceil(bytes / WINDOW)).fill(undefined);
  }
  /** Maps the first window, and all of a file that is not larger. 0 or -errno. */
  begin(): number {
    const result = this.#map(0);
    if (typeof result === 'number') return result;
    if (this.#windows.length === 1) {
      this.#native.close(this.#fd);
      this.#fd = -1;
    }
    return 0;
  }
  acquire(offset: number, max: number, _write: boolean, out: Extent): boolean {
    const index = Math.floor(offset / WINDOW);
    const window = this.#windows[index] ?? this.#map(index);
    if (typeof window === 'number') return false;
    const within = offset - index * WINDOW;
    out.view = window.bytes;
    out.words = window.words;
    out.offset = within;
    out.length = Math.min(max, WINDOW - within, this.#bytes - offset);
    return true;
  }
  read(): number {
    return -1;
  }
  write(): number {
    return -1;
  }
  release(): void {
    for (const [index, window] of this.#windows.entries()) {
      if (!window) continue;
      this.#native.uncover(window.address, pages(this.#extent(index)));
      let list = free.get(window.bytes.length);
      if (!list) {
        list = [];
        free.set(window.bytes.length, list);
      }
      list.push(window);
    }
    this.#windows.fill(undefined);
    if (this.#fd >= 0) this.#native.close(this.#fd);
    this.#fd = -1;
  }
  #extent(index: number): number {
    return Math.min(WINDOW, this.#bytes - index * WINDOW);
  }
  #map(index: number): Window | number {
    const bytes = this.#extent(index);
    const window = reserve(this.#native, bytes);
    const result = this.#native.cover(window.address, bytes, this.#fd, this.#offset + index * WINDOW, this.#writable);
    if (result < 0) {
      free.set(window.bytes.length, [...(free.get(window.bytes.length) ?? []), window]);
      return result;
    }
    this.#windows[index] = window;
    return window;
  }
}
const pages = (bytes: number): number => Math.ceil(bytes / 4096) * 4096;

class ReadFile implements Backing {
  readonly key: string;
  readonly #native: Native;
  #fd: number;
  readonly #offset: number;

  constructor(native: Native, fd: number, offset: number, key: string) {
    this.#native = native;
    this.#fd = fd;
    this.#offset = offset;
    this.key = key;
  }
  read(offset: number, into: Uint8Array): number {
    return this.#try(() => readSync(this.#fd, into, 0, into.length, this.#offset + offset));
  }
  write(offset: number, from: Uint8Array): number {
    return this.#try(() => writeSync(this.#fd, from, 0, from.length, this.#offset + offset));
  }
  release(): void {
    if (this.#fd >= 0) this.#native.close(this.#fd);
    this.#fd = -1;
  }
  #try(call: () => number): number {
    try {
      return this.#fd < 0 ? -1 : call();
    } catch {
      return -1;
    }
  }
}

/**
 * Which files are mapped: those that cannot shrink (the default), all of them (a client that shrinks one ends the process), or none.
 */
export type Mapping = 'sealed' | 'always' | 'never';

export const backingOf =
  (native: Native, mapping: Mapping): BackingOf =>
  (fd, offset, bytes, writable, how) => {
    const refuse = (errno: number): number => {
      native.close(fd);
      return -errno;
    };
    let key: string;
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return refuse(Errno.ENODEV);
      if (stat.size < offset + bytes) return refuse(Errno.EINVAL);
      key = `${stat.dev}:${stat.ino}:${offset}`;
    } catch {
      return refuse(Errno.EBADF);
    }
    if (offset % 4096) return refuse(Errno.EINVAL);
    if (how === 'file' || mapping === 'never' || (mapping === 'sealed' && !native.cannotShrink(fd))) return new ReadFile(native, fd, offset, key);
    const file = new MappedFile(native, fd, offset, bytes, writable, key);
    const result = file.begin();
    if (result < 0) {
      file.release();
      return result;
    }
    return file;
  };
