/**
 * The stale-cache detector: every answer that a cache gave is looked up anew in the tables, and where these say something else the use is
 * reported, with what was cached, by whom, and the invalidation that software left out. VT-d, "Guidance to Software for Invalidations".
 * It reads memory only: no accessed bit is set, no cache changes.
 */
import { DmaAccess, NO_PASID } from '@siov/layout/pcie';
import { frameOf, MemoryWords } from '../memory.js';
import type { PhysicalMap } from '../ports.js';
import { Fault } from '../spec/faults.js';
import { ContextEntry, PasidEntry } from '../spec/structures.js';
import { type AddressSpaces, Context, ContextFlag, Space, SpaceFlag } from './address-spaces.js';
import { type Iotlb, Slot } from './iotlb.js';
import { StructureReader } from './lookup.js';
import type { Resolved } from './options.js';

/** What a cache led to, or the tables do: a host page, or why the request would be refused. */
export interface Translation {
  /** Host physical address of the 4 KiB page; undefined: refused. */
  readonly hpa?: bigint;
  readonly refused?: string;
}
/** The invalidation that would have prevented it, by descriptor. */
export interface MissingInvalidation {
  readonly descriptor: 'context' | 'pasidCache' | 'pasidIotlb' | 'iotlb' | 'interruptEntry';
  readonly requesterId?: number;
  readonly domainId?: number;
  readonly pasid?: number;
  /** Of the page, in the input addresses of the stage that changed; undefined: of everything. */
  readonly address?: bigint;
  /** Invalidation hint: 0 is needed, since a table pointer changed. */
  readonly leafOnly?: false;
  readonly index?: number;
  /** The function keeps translations too: its device TLB goes after that. */
  readonly deviceTlb?: boolean;
}
/** One use of an entry that software should have had invalidated. */
export interface StaleUse {
  readonly cache: 'context' | 'pasid' | 'iotlb' | 'pagingStructure' | 'interrupt';
  readonly requesterId: number;
  /** NO_PASID: the request had none. */
  readonly pasid: number;
  /** Page of the request; the index of an interrupt. */
  readonly address: bigint;
  /** DmaAccess bits. */
  readonly access: number;
  readonly used: Translation;
  readonly now: Translation;
  /** The request that brought the entry into the cache: who made it, which one it was of all, and when (ns; 0 without a clock). */
  readonly cachedBy: { readonly requesterId: number; readonly pasid: number; readonly request: number; readonly ns: number };
  readonly missing: MissingInvalidation;
}

/** A use in words, as a person would say it. */
export function describeStale(use: StaleUse): string {
  const hex = (n: number | bigint): string => `0x${n.toString(16)}`;
  const who = (rid: number, pasid: number): string => `${hex(rid)}${pasid === NO_PASID ? '' : ` PASID ${pasid}`}`;
  const to = ({ hpa, refused }: Translation): string => (hpa === undefined ? `refused (${refused})` : hex(hpa));
  const { missing: m, cachedBy: by } = use;
  const of = [
    m.requesterId === undefined ? '' : ` of function ${hex(m.requesterId)}`,
    m.domainId === undefined ? '' : ` of domain ${m.domainId}`,
    m.pasid === undefined ? '' : `, PASID ${m.pasid}`,
    m.address === undefined ? '' : `, page ${hex(m.address)}`,
    m.index === undefined ? '' : ` of index ${m.index}`,
    m.leafOnly === false ? ', IH = 0' : '',
  ].join('');
  return `${who(use.requesterId, use.pasid)} ${use.access & DmaAccess.write ? 'write' : 'read'} ${hex(use.address)}: the ${use.cache} entry of request ${by.request} (${who(by.requesterId, by.pasid)}, ${by.ns} ns) leads to ${to(use.used)}, the tables to ${to(use.now)}; missing: ${m.descriptor} invalidation${of}${m.deviceTlb ? ', then the device TLB' : ''}`;
}

const context = ContextEntry.get;
const entry = PasidEntry.get;
const { type } = PasidEntry.is;
const PRESENT = 1;
const WRITE = 2;
const USER = 4;
const PAGE_SIZE = 0x80;
const MAX_REMEMBERED = 1 << 16;

interface Origin {
  readonly requesterId: number;
  readonly pasid: number;
  readonly request: number;
  readonly ns: number;
  /** Of nested results: the guest page that the first stage led to. */
  readonly guest: number;
}
/** Tables as an address space has them. */
interface SpaceView {
  readonly kind: number;
  readonly firstHi: number;
  readonly firstLo: number;
  readonly levels: number;
  readonly secondFrame: number;
  readonly secondLevels: number;
  readonly writeProtect: boolean;
}
interface Peek {
  readonly frame: number;
  readonly guest: number;
  readonly why: string;
}

export class StaleDetector {
  // fixed
  readonly #report: (use: StaleUse) => void;
  readonly #now: () => number;
  readonly #memory: MemoryWords;
  readonly #live: StructureReader;
  readonly #fresh: StructureReader;
  // state: who filled entries, by their place in each cache; and which uses were told already
  readonly #contexts = new Map<number, Origin>();
  readonly #spaces = new Map<number, Origin>();
  readonly #pages = new Map<number, Origin>();
  readonly #interrupts = new Map<number, Origin>();
  readonly #told = new Set<string>();
  #requests = 0;

  /** `live`: the unit's own reader, whose root it looks through. */
  constructor(report: (use: StaleUse) => void, map: PhysicalMap, resolved: Resolved, live: StructureReader, now: () => number) {
    this.#report = report;
    this.#now = now;
    this.#memory = new MemoryWords(map);
    this.#fresh = new StructureReader(new MemoryWords(map), resolved);
    this.#live = live;
  }

  /** Another request of a function begins. */
  request(): void {
    this.#requests++;
  }
  contextLoaded(at: number, requesterId: number, pasid: number): void {
    this.#contexts.set(at, this.#origin(requesterId, pasid));
  }
  spaceLoaded(at: number, requesterId: number, pasid: number): void {
    this.#spaces.set(at, this.#origin(requesterId, pasid));
  }
  interruptLoaded(index: number, requesterId: number): void {
    this.#interrupts.set(index, this.#origin(requesterId, NO_PASID));
  }
  /** A walk's result went into the IOTLB. */
  pageLoaded(at: number, spaces: AddressSpaces, spaceAt: number, requesterId: number, pasid: number, hi: number, lo: number): void {
    const { guest } = this.#peek(cachedView(spaces, spaceAt), hi, lo, 0);
    this.#pages.set(at, { ...this.#origin(requesterId, pasid), guest });
  }

  /** Translation gave page `found` of the IOTLB (-1: pass-through, input is output) for this request, from these cached entries. */
  translated(
    spaces: AddressSpaces,
    contextAt: number,
    spaceAt: number,
    iotlb: Iotlb,
    found: number,
    requesterId: number,
    pasid: number,
    access: number,
    hi: number,
    lo: number,
  ): void {
    const address = (BigInt(hi >>> 0) << 32n) | BigInt((lo & ~0xfff) >>> 0);
    const cached = spaces.contexts.data;
    const space = spaces.spaces.data;
    const domainId = space[spaceAt + Space.domainId]!;
    const number = space[spaceAt + 1]!;
    const deviceTlb = (cached[contextAt + Context.flags]! & ContextFlag.deviceTlb) !== 0;
    const used: Translation = { hpa: hpaOf(found < 0 ? frameOf(hi, lo) : pageFrame(iotlb, found, lo)) };
    const tell = (cache: StaleUse['cache'], at: number, from: Map<number, Origin>, now: Translation, missing: MissingInvalidation): void => {
      const origin = from.get(at) ?? { requesterId, pasid, request: 0, ns: 0, guest: -1 };
      const key = `${cache} ${at} ${origin.request}`;
      if (this.#told.has(key)) return;
      if (this.#told.size >= MAX_REMEMBERED) this.#told.clear();
      this.#told.add(key);
      const { guest: _guest, ...cachedBy } = origin;
      this.#report({ cache, requesterId, pasid, address, access, used, now, cachedBy, missing: deviceTlb ? { ...missing, deviceTlb } : missing });
    };

    const fresh = this.#fresh;
    fresh.rootFrame = this.#live.rootFrame;
    fresh.mode = this.#live.mode;
    let fault = fresh.readContext(requesterId);
    const contextMissing: MissingInvalidation = { descriptor: 'context', requesterId };
    if (fault !== Fault.none || !sameContext(fresh.context, cached, contextAt)) {
      const now =
        fault !== Fault.none ? { refused: `context entry, reason 0x${fault.toString(16)}` } : this.#through(fresh.context, number, hi, lo, access);
      tell('context', contextAt, this.#contexts, now, contextMissing);
      return;
    }
    // In legacy mode the context entry has told all.
    if (!fresh.legacy) fault = fresh.readPasid(number, frameOf(fresh.context[1]!, fresh.context[0]!), context.directorySize(fresh.context, 0), 0);
    const view = fault === Fault.none ? viewOf(fresh.pasid) : undefined;
    if (!view || !sameSpace(fresh.pasid, space, spaceAt)) {
      const now = view ? this.#translation(view, hi, lo, access) : { refused: `PASID entry, reason 0x${fault.toString(16)}` };
      tell('pasid', spaceAt, this.#spaces, now, fresh.legacy ? contextMissing : { descriptor: 'pasidCache', domainId, pasid: number });
      return;
    }
    if (found < 0) return;
    const peek = this.#peek(view, hi, lo, access);
    if (peek.frame === pageFrame(iotlb, found, lo)) return;
    const now: Translation = peek.frame < 0 ? { refused: peek.why } : { hpa: hpaOf(peek.frame) };
    const origin = this.#pages.get(found);
    // An entry that this very request made came from a paging-structure cache: a walk of all levels would have seen the tables as they are.
    if (origin?.request === this.#requests) {
      tell('pagingStructure', found, this.#pages, now, { descriptor: 'pasidIotlb', domainId, pasid: number, address, leafOnly: false });
      return;
    }
    const secondChanged = view.kind === type.secondStage || (view.kind === type.nested && origin !== undefined && origin.guest === peek.guest);
    const guest = view.kind === type.nested ? BigInt(Math.max(peek.guest, 0)) * 4096n : address;
    tell(
      'iotlb',
      found,
      this.#pages,
      now,
      secondChanged ? { descriptor: 'iotlb', domainId, address: guest } : { descriptor: 'pasidIotlb', domainId, pasid: number, address },
    );
  }

  /** An interrupt used a cached entry. `cached` and `now`: its four words. */
  interrupt(index: number, requesterId: number, cached: Uint32Array, now: Uint32Array | undefined): void {
    if (now && cached.every((word, i) => word === now[i])) return;
    const origin = this.#interrupts.get(index) ?? this.#origin(requesterId, NO_PASID);
    const key = `interrupt ${index} ${origin.request}`;
    if (this.#told.has(key)) return;
    this.#told.add(key);
    const say = (words: Uint32Array | undefined): Translation => ({
      refused: words
        ? [...words]
            .map((w) => w.toString(16).padStart(8, '0'))
            .reverse()
            .join('_')
        : 'no table',
    });
    const { guest: _guest, ...cachedBy } = origin;
    this.#report({
      cache: 'interrupt',
      requesterId,
      pasid: NO_PASID,
      address: BigInt(index),
      access: DmaAccess.write,
      used: say(cached),
      now: say(now),
      cachedBy,
      missing: { descriptor: 'interruptEntry', index },
    });
  }

  #origin(requesterId: number, pasid: number): Origin {
    return { requesterId, pasid, request: this.#requests, ns: this.#now(), guest: -1 };
  }
  /** What another context entry would lead to. */
  #through(words: Uint32Array, pasid: number, hi: number, lo: number, access: number): Translation {
    const fault = this.#fresh.legacy ? Fault.none : this.#fresh.readPasid(pasid, frameOf(words[1]!, words[0]!), context.directorySize(words, 0), 0);
    return fault === Fault.none
      ? this.#translation(viewOf(this.#fresh.pasid), hi, lo, access)
      : { refused: `PASID entry, reason 0x${fault.toString(16)}` };
  }
  #translation(view: SpaceView, hi: number, lo: number, access: number): Translation {
    const { frame, why } = this.#peek(view, hi, lo, access);
    return frame < 0 ? { refused: why } : { hpa: hpaOf(frame) };
  }

  /** A walk that changes nothing: the host frame of the page, and on the way the guest's. */
  #peek(view: SpaceView, hi: number, lo: number, access: number): Peek {
    if (view.kind === type.passThrough) return { frame: frameOf(hi, lo), guest: -1, why: '' };
    const write = (access & DmaAccess.write) !== 0;
    const page = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
    if (view.kind === type.secondStage) return { ...this.#second(view, page, write), guest: -1 };
    const nested = view.kind === type.nested;
    const supervisor = (access & DmaAccess.privileged) !== 0;
    let table = (view.firstHi >>> 0) * 0x10_0000 + (view.firstLo >>> 12);
    let rights = WRITE | USER;
    for (let level = view.levels; level >= 1; level--) {
      if (nested) {
        const host = this.#second(view, table, false);
        if (host.frame < 0) return { frame: -1, guest: -1, why: `second stage of a first-stage table: ${host.why}` };
        table = host.frame;
      }
      const base = this.#memory.at(table);
      if (base < 0) return { frame: -1, guest: -1, why: 'a first-stage table is not memory' };
      const at = base + indexOf(page, level) * 2;
      const low = this.#memory.words[at]!;
      const high = this.#memory.words[at + 1]!;
      if (!(low & PRESENT)) return { frame: -1, guest: -1, why: `first stage, level ${level}: not present` };
      rights &= low;
      table = (high & 0xf_ffff) * 0x10_0000 + (low >>> 12);
      if (level > 1 && !(low & PAGE_SIZE)) continue;
      if (!supervisor && !(rights & USER)) return { frame: -1, guest: -1, why: 'first stage: no right for users' };
      if (write && !(rights & WRITE) && (!supervisor || view.writeProtect)) return { frame: -1, guest: -1, why: 'first stage: not writable' };
      const span = 512 ** (level - 1);
      const guest = table - (table % span) + (page % span);
      return nested ? { ...this.#second(view, guest, write), guest } : { frame: guest, guest: -1, why: '' };
    }
    return { frame: -1, guest: -1, why: 'first stage: no leaf' };
  }
  #second(view: SpaceView, page: number, write: boolean): { readonly frame: number; readonly why: string } {
    let table = view.secondFrame;
    let rights = PRESENT | WRITE;
    for (let level = view.secondLevels; level >= 1; level--) {
      const base = this.#memory.at(table);
      if (base < 0) return { frame: -1, why: 'a second-stage table is not memory' };
      const at = base + indexOf(page, level) * 2;
      const low = this.#memory.words[at]!;
      const high = this.#memory.words[at + 1]!;
      rights &= low;
      if (rights === 0) return { frame: -1, why: `second stage, level ${level}: no right` };
      table = (high & 0xf_ffff) * 0x10_0000 + (low >>> 12);
      if (level > 1 && !(low & PAGE_SIZE)) continue;
      if (!(rights & (write ? WRITE : PRESENT))) return { frame: -1, why: `second stage: not ${write ? 'writable' : 'readable'}` };
      const span = 512 ** (level - 1);
      return { frame: table - (table % span) + (page % span), why: '' };
    }
    return { frame: -1, why: 'second stage: no leaf' };
  }
}

const indexOf = (page: number, level: number): number => Math.floor(page / 512 ** (level - 1)) % 512;
const hpaOf = (frame: number): bigint => BigInt(frame) * 4096n;
/** 4 KiB pages of an IOTLB entry less one, by the size class in its tag. */
const WITHIN = [0, 0, 0x1ff, 0x3_ffff];
const pageFrame = (iotlb: Iotlb, at: number, lo: number): number => iotlb.data[at + Slot.frame]! + ((lo >>> 12) & WITHIN[iotlb.data[at]! & 3]!);

const viewOf = (pasid: Uint32Array): SpaceView => ({
  kind: entry.type(pasid, 0),
  firstHi: pasid[5]!,
  firstLo: pasid[4]! & ~0xfff,
  levels: entry.firstStageMode(pasid, 0) === 1 ? 5 : 4,
  secondFrame: frameOf(pasid[1]!, pasid[0]!),
  secondLevels: entry.addressWidth(pasid, 0) + 2,
  writeProtect: entry.writeProtect(pasid, 0) === 1,
});
function cachedView({ spaces: { data } }: AddressSpaces, at: number): SpaceView {
  const flags = data[at + Space.flags]!;
  return {
    kind: data[at + Space.type]!,
    firstHi: data[at + Space.firstHi]!,
    firstLo: data[at + Space.firstLo]!,
    levels: flags & SpaceFlag.level5 ? 5 : 4,
    secondFrame: data[at + Space.secondFrame]!,
    secondLevels: data[at + Space.secondLevels]!,
    writeProtect: (flags & SpaceFlag.writeProtect) !== 0,
  };
}
/** What of a context entry translation depends on. */
function sameContext(words: Uint32Array, cached: Int32Array, at: number): boolean {
  const enables = ContextFlag.deviceTlb | ContextFlag.pasid | ContextFlag.pageRequests;
  const flags = context.deviceTlbEnable(words, 0) | (context.pasidEnable(words, 0) << 1) | (context.pageRequestEnable(words, 0) << 2);
  return (
    (cached[at + Context.flags]! & enables) === flags &&
    cached[at + Context.ridPasid] === context.ridPasid(words, 0) &&
    cached[at + Context.directoryFrame] === frameOf(words[1]!, words[0]!) &&
    cached[at + Context.directorySize] === context.directorySize(words, 0)
  );
}
function sameSpace(words: Uint32Array, cached: Int32Array, at: number): boolean {
  const view = viewOf(words);
  const kind = cached[at + Space.type]!;
  const first = kind === type.firstStage || kind === type.nested;
  const second = kind === type.secondStage || kind === type.nested;
  return (
    view.kind === kind &&
    entry.domainId(words, 0) === cached[at + Space.domainId] &&
    (!first || ((view.firstHi | 0) === cached[at + Space.firstHi] && (view.firstLo | 0) === cached[at + Space.firstLo])) &&
    (!second || (view.secondFrame === cached[at + Space.secondFrame] && view.secondLevels === cached[at + Space.secondLevels]))
  );
}
