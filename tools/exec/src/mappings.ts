/**
 * Mappings of devices' files in programs, in three kinds by what the driver put there. Frames of RAM are shared: the program has the very memory.
 * Registers that may be read as memory are shown to whoever keeps reading them, and stores to them trap. All other pages trap.
 */
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import type { MappedRegion } from './foreign.js';
import { Lender, Mirrors, type Piece } from './lending.js';
import type { Machine } from './machine.js';
import type { Native } from './native.js';
import type { Session } from './session.js';
import { REGIONS } from './wire.js';

const PAGE = 4096;
/** Loads that trap before the page is shown. */
const PATIENCE = 4;
/** Pages that a driver is asked for at once, where it waits for them to be touched. */
const AT_ONCE = 4096;

/** A part of a mapping that the program has not unmapped; `slot`: in its ring. */
interface View {
  readonly slot: number;
  readonly start: number;
  readonly length: number;
}
interface Mapping {
  readonly start: number;
  readonly length: number;
  readonly prot: number;
  views: View[];
  /** What is mapped in the program beyond pages that trap. */
  readonly pieces: Piece[];
  /** Frames of RAM that it has, and of registers. */
  lent: readonly number[];
  readonly mirrored: Map<number, number>;
  /** How often each page was read. */
  readonly loads: Map<number, number>;
  live: boolean;
  /** The program still has pieces of what is not there any more. */
  lost: boolean;
}
/** A piece that the program must map. */
export interface Offer {
  readonly start: number;
  readonly index: number;
}

export class Mappings {
  readonly #machine: Machine;
  readonly #native: Native;
  readonly #lender: Lender;
  readonly #mirrors: Mirrors;
  /** By the number that the address space gave it. */
  readonly #of = new Map<Session, Map<number, Mapping>>();
  readonly #lost = new Set<Session>();
  #offer: Offer | undefined;

  constructor(native: Native, machine: Machine) {
    this.#native = native;
    this.#machine = machine;
    this.#lender = new Lender(native, machine.ram);
    this.#mirrors = new Mirrors(native);
  }

  /** What a driver maps for a program at a place that it has reserved; or -errno. */
  map(session: Session, fd: number, args: readonly [address: number, length: number, prot: number, flags: number, offset: number]) {
    const { task, mm } = session;
    const [address, , prot, flags, offset] = args;
    const length = Math.ceil(args[1] / PAGE) * PAGE;
    const slot = this.#slot(session);
    if (slot < 0) return -Errno.ENOMEM;
    const result = task.mmap(address, args[1], prot, flags | MapFlag.FIXED, fd, offset);
    if (result < 0) return result;
    const area = mm.areaAt(address)!;
    const pages = Math.min(length / PAGE, AT_ONCE);
    for (let page = 0; area.onFault && page < pages; page++) if (!area.frames.has(page) && area.onFault(page) < 0) break;
    const { memory } = this.#machine.host;
    const ram = new Map([...area.frames].filter(([page, frame]) => page < length / PAGE && memory.regionOf(frame)?.kind === 'ram'));
    const pieces = this.#lender.lend(ram);
    if (typeof pieces === 'number') {
      task.munmap(address, length);
      return pieces;
    }
    const mapping: Mapping = {
      start: address,
      length,
      prot,
      views: [{ slot, start: address, length }],
      pieces,
      lent: [...ram.values()],
      mirrored: new Map(),
      loads: new Map(),
      live: area.frames.size > 0,
      lost: false,
    };
    const known = this.#of.get(session) ?? new Map<number, Mapping>();
    this.#of.set(session, known.set(area.region, mapping));
    this.#show(session, mapping);
    return { dontCopy: area.dontCopy, pieces: pieces.length };
  }

  /** A part of the address space is unmapped. The driver hears of it when nothing of its mapping is left. 0 or -errno. */
  unmap(session: Session, address: number, length: number): number {
    const end = address + Math.ceil(length / PAGE) * PAGE;
    for (const mapping of [...(this.#of.get(session)?.values() ?? [])]) {
      const left: View[] = [];
      const middle = mapping.views.some((view) => address > view.start && end < view.start + view.length);
      const spare = middle ? this.#slot(session) : 0;
      if (spare < 0) return -Errno.ENOMEM;
      for (const view of mapping.views) {
        const to = view.start + view.length;
        if (end <= view.start || address >= to) {
          left.push(view);
          continue;
        }
        session.show(view.slot, 0, 0, 0);
        if (address > view.start) left.push(this.#part(session, view.slot, view.start, address, mapping));
        if (end < to) left.push(this.#part(session, middle ? spare : view.slot, end, to, mapping));
      }
      mapping.views = left;
      if (left.length === 0) session.task.munmap(mapping.start, mapping.length);
    }
    return 0;
  }

  /** A driver put frames into a mapping, took them, or it is gone (length 0). */
  changed(session: Session, { region, length }: MappedRegion, live: boolean): void {
    const mapping = this.#of.get(session)?.get(region);
    if (!mapping) return;
    if (live === mapping.live && length > 0) return;
    mapping.live = live;
    if (!live) {
      this.#lender.giveBack(mapping.lent);
      mapping.lost = mapping.pieces.length > 0;
      mapping.lent = [];
      mapping.pieces.length = 0;
      for (const frame of mapping.mirrored.values()) this.#mirrors.drop(frame);
      mapping.mirrored.clear();
      if (mapping.lost) this.#lost.add(session);
    }
    this.#show(session, mapping);
    if (length > 0) return;
    for (const { slot } of mapping.views) session.show(slot, 0, 0, 0);
    this.#of.get(session)!.delete(region);
  }
  /** Programs hear of what they lost, and copies of registers are what they are now. */
  settle(): void {
    if (this.#mirrors.any) this.#mirrors.refresh();
    if (this.#lost.size === 0) return;
    for (const session of this.#lost) {
      const gone = [...(this.#of.get(session)?.values() ?? [])].filter(({ lost }) => lost);
      for (const mapping of gone) mapping.lost = false;
      if (gone.length > 0) this.#native.revoke(session.pidfd);
    }
    this.#lost.clear();
  }
  end(session: Session): void {
    this.#of.delete(session);
    this.#lost.delete(session);
  }

  /** A load trapped. A page that is read again and again, and that may be, is shown. */
  loaded(session: Session, address: number): void {
    const mapping = this.#at(session, address);
    const frame = session.mm.frameOf(address);
    const region = frame < 0 ? undefined : this.#machine.host.memory.regionOf(frame);
    const { device } = region ?? {};
    if (!mapping || !device?.passiveReads || !(mapping.prot & Prot.READ)) return;
    const page = Math.floor((address - mapping.start) / PAGE);
    const loads = (mapping.loads.get(page) ?? 0) + 1;
    mapping.loads.set(page, loads);
    if (loads < PATIENCE || mapping.mirrored.has(page)) return;
    mapping.mirrored.set(page, frame);
    const fd = this.#mirrors.take(frame, device, (frame - region!.firstFrame) * PAGE);
    this.#offer = { start: mapping.start, index: mapping.pieces.push({ offset: page * PAGE, length: PAGE, fd, at: 0 }) - 1 };
  }
  /** A piece for the program that is answered now. */
  takeOffer(): Offer | undefined {
    const offer = this.#offer;
    this.#offer = undefined;
    return offer;
  }
  /** Part of a mapping, as the program maps it; undefined: there is none of that number. */
  piece(session: Session, address: number, index: number): { readonly piece: Piece; readonly address: number; readonly prot: number } | undefined {
    const mapping = this.#at(session, address);
    const piece = mapping?.pieces[index];
    if (!mapping || !piece) return undefined;
    // Of registers nothing can be written but by a trap.
    const readOnly = mapping.mirrored.has(piece.offset / PAGE);
    return { piece, address: mapping.start + piece.offset, prot: readOnly ? Prot.READ : mapping.prot };
  }

  #at(session: Session, address: number): Mapping | undefined {
    for (const mapping of this.#of.get(session)?.values() ?? [])
      if (mapping.views.some(({ start, length }) => address >= start && address < start + length)) return mapping;
    return undefined;
  }
  #slot(session: Session): number {
    const used = new Set([...(this.#of.get(session)?.values() ?? [])].flatMap(({ views }) => views.map(({ slot }) => slot)));
    for (let slot = 0; slot < REGIONS; slot++) if (!used.has(slot)) return slot;
    return -1;
  }
  #part(session: Session, slot: number, start: number, end: number, { live, prot }: Mapping): View {
    const view = { slot, start, length: end - start };
    session.show(slot, start, view.length, state(live, prot));
    return view;
  }
  #show(session: Session, { views, live, prot }: Mapping): void {
    for (const { slot, start, length } of views) session.show(slot, start, length, state(live, prot));
  }
}
/** What the ring says: that there is something behind it, and that it may be stored to. */
const state = (live: boolean, prot: number): number => (live ? 1 : 0) | (prot & Prot.WRITE ? 2 : 0);
