/**
 * Frames that stand for pinned pages of processes of this machine: a window of the physical address space where no host has memory. A frame
 * leads to an address of a process, for as long as the page is pinned. Linux, mm/gup.c, pin_user_pages with FOLL_LONGTERM.
 */
import { Errno } from '@siov/layout/uapi';

/** The window: page frames from 5 TiB up to 7 TiB. Below it are the root frames of processes. */
export const PIN_WINDOW = { first: 0x5000_0000, frames: 0x2000_0000 } as const;
/**
 * A piece of the window stands for one gigabyte of one address space: neighbours stay neighbours, and what is aligned for a large page stays so.
 */
const PIECE_ORDER = 18;
const PIECE = 2 ** PIECE_ORDER;
const PIECES = PIN_WINDOW.frames / PIECE;

interface Piece<Space> {
  readonly space: Space;
  /** The first page of the process that it stands for. */
  readonly firstPage: number;
  readonly pins: Int32Array;
  /** Pages that are pinned. */
  pages: number;
}

export class PinWindow<Space> {
  /** Pages that are pinned, each counted once. */
  pages = 0;
  readonly #pieces: (Piece<Space> | undefined)[] = [];
  readonly #bySpace = new Map<Space, Map<number, number>>();
  /** Where the search for a free piece begins: one that was given back is not used again soon. */
  #next = 0;

  /** One pin more of a page, counted from address 0. Its frame, or -ENOMEM. */
  pin(space: Space, page: number): number {
    const key = Math.floor(page / PIECE);
    const known = this.#bySpace.get(space) ?? new Map<number, number>();
    let index = known.get(key) ?? -1;
    if (index < 0) {
      index = this.#free();
      if (index < 0) return -Errno.ENOMEM;
      this.#pieces[index] = { space, firstPage: key * PIECE, pins: new Int32Array(PIECE), pages: 0 };
      this.#bySpace.set(space, known.set(key, index));
    }
    const piece = this.#pieces[index]!;
    const within = page % PIECE;
    if (piece.pins[within]!++ === 0) {
      piece.pages++;
      this.pages++;
    }
    return PIN_WINDOW.first + index * PIECE + within;
  }

  /** One pin less. A frame that is not pinned is a mistake of the caller's: RangeError. */
  unpin(frame: number): void {
    const piece = this.#pieces[this.#index(frame)];
    const within = (frame - PIN_WINDOW.first) % PIECE;
    if (!piece || piece.pins[within] === 0) throw new RangeError(`PinWindow.unpin: frame ${frame} is not pinned`);
    if (--piece.pins[within]! > 0) return;
    this.pages--;
    if (--piece.pages > 0) return;
    const known = this.#bySpace.get(piece.space)!;
    known.delete(piece.firstPage / PIECE);
    if (known.size === 0) this.#bySpace.delete(piece.space);
    this.#pieces[this.#index(frame)] = undefined;
  }

  owns(frame: number): boolean {
    return (frame - PIN_WINDOW.first) >>> 0 < PIN_WINDOW.frames;
  }
  /** Whose page a frame stands for; undefined: it is not pinned. */
  spaceOf(frame: number): Space | undefined {
    const piece = this.#pieces[this.#index(frame)];
    return piece && piece.pins[(frame - PIN_WINDOW.first) % PIECE]! > 0 ? piece.space : undefined;
  }
  /** The page behind a pinned frame, counted from address 0. */
  pageOf(frame: number): number {
    return this.#pieces[this.#index(frame)]!.firstPage + ((frame - PIN_WINDOW.first) % PIECE);
  }
  /** How many of at most `most` frames from a pinned one on are pages of the same process one behind the other. */
  run(frame: number, most: number): number {
    const { pins } = this.#pieces[this.#index(frame)]!;
    const within = (frame - PIN_WINDOW.first) % PIECE;
    const end = Math.min(PIECE, within + most);
    let at = within;
    while (at < end && pins[at]! > 0) at++;
    return at - within;
  }

  #index(frame: number): number {
    return this.owns(frame) ? (frame - PIN_WINDOW.first) >>> PIECE_ORDER : -1;
  }
  #free(): number {
    for (let i = 0; i < PIECES; i++) {
      const index = (this.#next + i) % PIECES;
      if (this.#pieces[index]) continue;
      this.#next = (index + 1) % PIECES;
      return index;
    }
    return -1;
  }
}
