/**
 * Memory of the machine that programs map. What a program gets is a file in memory that holds the pages of its mapping and nothing else: pages of
 * RAM are moved into it for as long as they are lent, and the machine's RAM shows the file in their place. So a program that opens the file again
 * reaches no more than it was given, nobody can make the file smaller under the server, and what was taken back is no longer the machine's.
 * man 2 memfd_create; man 2 fcntl, "File Sealing".
 */
import { Errno } from '@siov/layout/uapi';
import type { Machine } from './machine.js';
import type { Native, NativeBytes, SharedMemory } from './native.js';

const PAGE = 4096;
/** A device as the physical address map has it. */
export type Device = NonNullable<NonNullable<ReturnType<Machine['host']['memory']['regionOf']>>['device']>;

/** Part of a mapping: so many bytes from an offset in it are those of a file from another offset. `fd`: of the server. */
export interface Piece {
  readonly offset: number;
  length: number;
  readonly fd: number;
  readonly at: number;
}

interface Loan {
  readonly fd: number;
  /** Of its file, in bytes. */
  readonly at: number;
  users: number;
}

/** Pages of RAM. */
export class Lender {
  readonly #native: Native;
  readonly #ram: NativeBytes;
  readonly #loans = new Map<number, Loan>();
  /** Pages of each file that are still lent. */
  readonly #files = new Map<number, number>();

  constructor(native: Native, ram: NativeBytes) {
    this.#native = native;
    this.#ram = ram;
  }

  /** Lends frames, by their page in the mapping; or -errno. A frame that is lent already is shared: with it goes the file that it is in. */
  lend(frames: ReadonlyMap<number, number>): Piece[] | number {
    const fresh = [...new Set(frames.values())].filter((frame) => !this.#loans.has(frame));
    if (fresh.length > 0) {
      const fd = this.#native.sealedFile(fresh.length * PAGE);
      if (fd < 0) return fd === -Errno.EMFILE ? -Errno.ENFILE : fd;
      this.#files.set(fd, fresh.length);
      for (const [i, frame] of fresh.entries()) {
        const address = this.#ram.address + frame * PAGE;
        this.#native.write(fd, address, PAGE, i * PAGE);
        this.#native.cover(address, PAGE, fd, i * PAGE);
        this.#loans.set(frame, { fd, at: i * PAGE, users: 0 });
      }
    }
    const pieces: Piece[] = [];
    for (const [page, frame] of [...frames].sort(([a], [b]) => a - b)) {
      const loan = this.#loans.get(frame)!;
      loan.users++;
      const last = pieces.at(-1);
      if (last && last.fd === loan.fd && last.offset + last.length === page * PAGE && last.at + last.length === loan.at) last.length += PAGE;
      else pieces.push({ offset: page * PAGE, length: PAGE, fd: loan.fd, at: loan.at });
    }
    return pieces;
  }
  /** The frames are the machine's alone again, when nobody else has them. */
  giveBack(frames: Iterable<number>): void {
    for (const frame of frames) {
      const loan = this.#loans.get(frame);
      if (!loan || --loan.users > 0) continue;
      this.#loans.delete(frame);
      const bytes = this.#ram.bytes.subarray(frame * PAGE, (frame + 1) * PAGE);
      const copy = bytes.slice();
      this.#native.cover(this.#ram.address + frame * PAGE, PAGE, -1, 0);
      bytes.set(copy);
      const left = this.#files.get(loan.fd)! - 1;
      this.#files.set(loan.fd, left);
      if (left > 0) continue;
      this.#files.delete(loan.fd);
      this.#native.close(loan.fd);
    }
  }
}

interface Mirror {
  readonly memory: SharedMemory;
  readonly words: Uint32Array;
  readonly device: Device;
  /** Of the page in the device, in bytes. */
  readonly offset: number;
  users: number;
}

/** Pages of registers that reading does nothing to: programs read a copy, which only the server can write. */
export class Mirrors {
  readonly #native: Native;
  readonly #pages = new Map<number, Mirror>();

  constructor(native: Native) {
    this.#native = native;
  }

  /** The file of a device's page. */
  take(frame: number, device: Device, offset: number): number {
    let page = this.#pages.get(frame);
    if (!page) {
      const memory = this.#native.share(PAGE, true);
      const words = new Uint32Array(memory.bytes.buffer, memory.bytes.byteOffset, PAGE / 4);
      this.#pages.set(frame, (page = { memory, words, device, offset, users: 0 }));
      show(page);
    }
    page.users++;
    return page.memory.fd;
  }
  drop(frame: number): void {
    const page = this.#pages.get(frame);
    if (!page || --page.users > 0) return;
    this.#pages.delete(frame);
    this.#native.unshare(page.memory);
  }
  get any(): boolean {
    return this.#pages.size > 0;
  }
  /** The copies are what a read would give now. */
  refresh(): void {
    for (const page of this.#pages.values()) show(page);
  }
}
function show({ words, device, offset }: Mirror): void {
  for (let i = 0; i < words.length; i++) {
    const value = device.read(offset + i * 4, 4) >>> 0;
    if (words[i] !== value) words[i] = value;
  }
}
