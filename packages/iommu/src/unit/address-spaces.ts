/**
 * The context cache and the PASID cache: what the lookup path found, in the form that translation needs. An entry stays until an
 * invalidation, or until another takes its place; faulty and not-present ones are never kept. VT-d, "Context-cache", "PASID-cache".
 */

import { frameOf } from '../memory.js';
import { Fault } from '../spec/faults.js';
import { ContextEntry, PasidEntry } from '../spec/structures.js';
import { TagCache } from './cache.js';
import { ANY_PASID, saltOf } from './iotlb.js';
import type { StructureReader } from './lookup.js';
import type { Walker } from './walk.js';

/** Words of a context-cache entry: tag (requester id, made non-zero), then these. */
export const Context = { flags: 4, ridPasid: 5, directoryFrame: 6, directorySize: 7 } as const;
export const ContextFlag = { deviceTlb: 1, pasid: 2, pageRequests: 4, faultDisable: 8 } as const;
/** Words of a PASID-cache entry: tag (requester, PASID), then these. `iotlbPasid` and `salt` are for the IOTLB's tag. */
export const Space = {
  type: 4,
  domainId: 5,
  firstHi: 6,
  firstLo: 7,
  secondFrame: 8,
  secondLevels: 9,
  flags: 10,
  iotlbPasid: 11,
  salt: 12,
} as const;
export const SpaceFlag = { supervisor: 1, writeProtect: 2, extendedAccessed: 4, keepsDirty: 8, level5: 16, faultDisable: 32 } as const;

/** A requester id as a tag: never 0. */
export const tagOf = (requesterId: number): number => requesterId | 0x1_0000;
const pasidHash = (tag: number, pasid: number): number => pasid ^ Math.imul(tag, 0x9e37_79b1);
const context = ContextEntry.get;
const entry = PasidEntry.get;
const { type } = PasidEntry.is;

export class AddressSpaces {
  readonly contexts: TagCache;
  readonly spaces: TagCache;
  private readonly reader: StructureReader;
  /** Fault processing disable met by the last load that failed. */
  faultDisable = 0;

  constructor(reader: StructureReader, contextEntries: number, pasidEntries: number) {
    this.reader = reader;
    this.contexts = new TagCache(contextEntries, 3, 'context');
    this.spaces = new TagCache(pasidEntries, 4, 'pasid');
  }

  /** The cached context of a requester, or -1. */
  findContext(tag: number): number {
    return this.contexts.find(tag, 0, 0, 0, tag);
  }
  findSpace(tag: number, pasid: number): number {
    return this.spaces.find(tag, pasid, 0, 0, pasidHash(tag, pasid));
  }

  /** Reads the context entry into the cache. Returns its place, or minus a fault reason. */
  loadContext(tag: number): number {
    const { reader } = this;
    const fault = reader.readContext(tag & 0xffff);
    this.faultDisable = reader.faultDisable;
    if (fault !== Fault.none) return -fault;
    const words = reader.context;
    const at = this.contexts.place(tag, 0, 0, 0, tag);
    const { data } = this.contexts;
    data[at + Context.flags] =
      context.deviceTlbEnable(words, 0) |
      (context.pasidEnable(words, 0) << 1) |
      (context.pageRequestEnable(words, 0) << 2) |
      (reader.faultDisable << 3);
    data[at + Context.ridPasid] = context.ridPasid(words, 0);
    data[at + Context.directoryFrame] = frameOf(words[1]!, words[0]!);
    data[at + Context.directorySize] = context.directorySize(words, 0);
    return at;
  }

  /** Reads the PASID entry under a cached context into the cache. Returns its place, or minus a fault reason. */
  loadSpace(tag: number, pasid: number, contextAt: number): number {
    const { reader } = this;
    const from = this.contexts.data;
    const disabled = from[contextAt + Context.flags]! & ContextFlag.faultDisable ? 1 : 0;
    // The context entry of legacy mode is the address space.
    const fault = reader.legacy
      ? reader.readContext(tag & 0xffff)
      : reader.readPasid(pasid, from[contextAt + Context.directoryFrame]!, from[contextAt + Context.directorySize]!, disabled);
    this.faultDisable = reader.faultDisable;
    if (fault !== Fault.none) return -fault;
    const words = reader.pasid;
    const at = this.spaces.place(tag, pasid, 0, 0, pasidHash(tag, pasid));
    const { data } = this.spaces;
    const kind = entry.type(words, 0);
    const domainId = entry.domainId(words, 0);
    const iotlbPasid = kind === type.secondStage ? ANY_PASID : pasid;
    data[at + Space.type] = kind;
    data[at + Space.domainId] = domainId;
    data[at + Space.firstHi] = words[5]!;
    data[at + Space.firstLo] = words[4]! & ~0xfff;
    data[at + Space.secondFrame] = frameOf(words[1]!, words[0]!);
    data[at + Space.secondLevels] = entry.addressWidth(words, 0) + 2;
    data[at + Space.flags] =
      entry.supervisorRequests(words, 0) |
      (entry.writeProtect(words, 0) << 1) |
      (entry.extendedAccessed(words, 0) << 2) |
      (entry.secondStageAccessedDirty(words, 0) << 3) |
      (entry.firstStageMode(words, 0) << 4) |
      (reader.faultDisable << 5);
    data[at + Space.iotlbPasid] = iotlbPasid;
    data[at + Space.salt] = saltOf(domainId, iotlbPasid);
    return at;
  }

  /** Points the walker at the tables of a cached address space. */
  select(walker: Walker, at: number): void {
    const { data } = this.spaces;
    const flags = data[at + Space.flags]!;
    walker.select(
      data[at + Space.firstHi]!,
      data[at + Space.firstLo]!,
      flags & SpaceFlag.level5 ? 5 : 4,
      data[at + Space.secondFrame]!,
      data[at + Space.secondLevels]!,
      data[at + Space.type] === type.nested,
      (flags & SpaceFlag.writeProtect) !== 0,
      (flags & SpaceFlag.extendedAccessed) !== 0,
      (flags & SpaceFlag.keepsDirty) !== 0 && data[at + Space.type] !== type.firstStage,
    );
  }

  /** Context-cache invalidation, as FrontHooks.contextChanged says. By domain: scalable-mode contexts have none, so all go. In legacy mode the address spaces go with them. */
  contextChanged(granularity: number, sourceId: number, functionMask: number): void {
    const ignore = [0, 4, 6, 7][functionMask]!;
    for (const cache of this.reader.legacy ? [this.contexts, this.spaces] : [this.contexts])
      for (let at = 0; at < cache.data.length; at += cache.step)
        if (granularity !== ContextDevice || ((cache.data[at]! ^ tagOf(sourceId)) & ~ignore) === 0) cache.drop(at);
  }
  /** PASID-cache invalidation, as FrontHooks.pasidChanged says. */
  pasidChanged(granularity: number, domainId: number, pasid: number): void {
    const { data, step } = this.spaces;
    for (let at = 0; at < data.length; at += step) {
      if (granularity !== PasidGlobal && data[at + Space.domainId] !== domainId) continue;
      if (granularity === PasidOne && data[at + 1] !== pasid) continue;
      this.spaces.drop(at);
    }
  }
  clear(): void {
    this.contexts.clear();
    this.spaces.clear();
  }
}
const ContextDevice = 3;
const PasidOne = 1;
const PasidGlobal = 3;
