/**
 * From a requester and a PASID to a PASID entry: root table, context table, PASID directory, PASID table, each read from memory and
 * checked in the specification's order: access, fault processing disable, present, reserved bits, meaning. VT-d, "Scalable Mode Address
 * Translation". The answers are copies; caching them is the unit's business.
 */

import { frameOf, type MemoryWords } from '../memory.js';
import { Capability, ExtendedCapability } from '../spec/capabilities.js';
import { Fault } from '../spec/faults.js';
import { RootTable } from '../spec/registers.js';
import { ContextEntry, LegacyContextEntry, LegacyRootEntry, PasidDirectoryEntry, PasidEntry, RootEntry } from '../spec/structures.js';
import type { Resolved } from './options.js';

const context = ContextEntry.get;
const entry = PasidEntry.get;
const { type } = PasidEntry.is;

/** Reserved bits under the unit's capabilities: what the layout leaves over, fields of absent capabilities, address bits beyond the host's width. */
function reservedMasks({ extended, hostAddressWidth }: Resolved) {
  const has = ExtendedCapability.get;
  const beyond = ~(2 ** (hostAddressWidth - 32) - 1) >>> 0;
  const masks = (layout: { bytes: number; masks: { reserved: Uint32Array } }, addressWord: number): Uint32Array => {
    const mask = layout.masks.reserved.slice();
    mask[addressWord]! |= beyond;
    return mask;
  };
  const root = masks(RootEntry, 1);
  const directory = masks(PasidDirectoryEntry, 1);
  const contextMask = masks(ContextEntry, 1);
  type Setters<F extends string> = {
    readonly bytes: number;
    readonly set: { readonly [K in F]: (words: Uint32Array, at: number, value: number) => void };
  };
  const without = <F extends string>(layout: Setters<F>, mask: Uint32Array, name: F, present: number): void => {
    if (present) return;
    const bits = new Uint32Array(layout.bytes / 4);
    layout.set[name](bits, 0, 0xffff_ffff);
    bits.forEach((b, i) => {
      mask[i]! |= b;
    });
  };
  without(ContextEntry, contextMask, 'deviceTlbEnable', has.deviceTlb(extended, 0));
  without(ContextEntry, contextMask, 'pageRequestEnable', has.pageRequests(extended, 0));
  without(ContextEntry, contextMask, 'ridPasid', has.ridPasid(extended, 0));
  without(ContextEntry, contextMask, 'ridPrivilege', has.ridPrivilege(extended, 0));
  const pasid = masks(PasidEntry, 1);
  without(PasidEntry, pasid, 'secondStageAccessedDirty', has.secondStageAccessedDirty(extended, 0));
  without(PasidEntry, pasid, 'pageWalkSnoop', has.coherentWalk(extended, 0));
  without(PasidEntry, pasid, 'pageSnoop', has.snoopControl(extended, 0));
  for (const name of ['cacheDisable', 'memoryTypeEnable', 'pageAttributes'] as const) without(PasidEntry, pasid, name, has.memoryTypes(extended, 0));
  without(PasidEntry, pasid, 'supervisorRequests', has.supervisorRequests(extended, 0));
  without(PasidEntry, pasid, 'extendedAccessed', has.extendedAccessed(extended, 0));
  return {
    root,
    directory,
    context: contextMask,
    pasid,
    legacyRoot: masks(LegacyRootEntry, 1),
    legacyContext: masks(LegacyContextEntry, 1),
    beyond,
  };
}

export class StructureReader {
  // fixed
  private readonly masks: ReturnType<typeof reservedMasks>;
  private readonly resolved: Resolved;
  // ports
  private readonly memory: MemoryWords;
  // state
  /** Latched by GCMD.SRTP. */
  rootFrame = -1;
  mode: number = RootTable.is.mode.legacy;
  /** Reads of memory since the start. */
  reads = 0;
  /** Fault processing disable met on the way of the last look-up. */
  faultDisable = 0;
  /** What the last look-up found. */
  readonly context = new Uint32Array(8);
  readonly pasid = new Uint32Array(16);
  private readonly pair = new Uint32Array(2);
  private readonly quad = new Uint32Array(4);

  constructor(memory: MemoryWords, resolved: Resolved) {
    this.memory = memory;
    this.resolved = resolved;
    this.masks = reservedMasks(resolved);
  }

  /** Latches a root table register: the address and the translation table mode. */
  latch(rootTable: Uint32Array, at: number): void {
    const high = rootTable[at + 1]!;
    this.mode = RootTable.get.mode(rootTable, at);
    this.rootFrame = high & this.masks.beyond ? -1 : frameOf(high, rootTable[at]!);
  }

  /** The root table says that functions have one address space each, in their context entry. */
  get legacy(): boolean {
    return this.mode === RootTable.is.mode.legacy;
  }
  /** Every request is refused, without a look at any table. */
  get aborts(): boolean {
    return this.mode === RootTable.is.mode.abort && ExtendedCapability.get.abortMode(this.resolved.extended, 0) === 1;
  }

  /** Reads the context entry of a requester into `context`; in legacy mode also what it comes to as a PASID entry, into `pasid`. Returns a fault reason. */
  readContext(requesterId: number): number {
    this.faultDisable = 0;
    if (this.legacy && this.rootFrame >= 0) return this.readLegacy(requesterId);
    if (this.mode !== RootTable.is.mode.scalable || this.rootFrame < 0) return Fault.rootTableAddress;
    if (!this.fetch(this.rootFrame, requesterId >>> 8, 4, ((requesterId >>> 7) & 1) * 2, this.pair, 2)) return Fault.rootAccess;
    if (!RootEntry.get.present(this.pair, 0)) return Fault.rootNotPresent;
    if (reserved(this.pair, this.masks.root)) return Fault.rootReserved;
    if (!this.fetch(frameOf(this.pair[1]!, this.pair[0]!), requesterId & 0x7f, 8, 0, this.context, 8)) return Fault.contextAccess;
    this.faultDisable = context.faultDisable(this.context, 0);
    if (!context.present(this.context, 0)) return Fault.contextNotPresent;
    if (reserved(this.context, this.masks.context)) return Fault.contextReserved;
    if (context.ridPasid(this.context, 0) >>> (context.directorySize(this.context, 0) + 13)) return Fault.contextInvalid;
    return Fault.none;
  }

  /** VT-d, "Legacy Mode Address Translation". */
  private readLegacy(requesterId: number): number {
    const { quad, masks, context: out, pasid } = this;
    if (!this.fetch(this.rootFrame, requesterId >>> 8, 4, 0, quad, 4)) return Fault.legacyRootAccess;
    if (!LegacyRootEntry.get.present(quad, 0)) return Fault.legacyRootNotPresent;
    if (reserved(quad, masks.legacyRoot)) return Fault.legacyRootReserved;
    if (!this.fetch(frameOf(quad[1]!, quad[0]!), requesterId & 0xff, 4, 0, quad, 4)) return Fault.legacyContextAccess;
    const get = LegacyContextEntry.get;
    this.faultDisable = get.faultDisable(quad, 0);
    if (!get.present(quad, 0)) return Fault.legacyContextNotPresent;
    if (reserved(quad, masks.legacyContext)) return Fault.legacyContextReserved;
    const { deviceTlb, passThrough } = LegacyContextEntry.is.type;
    const { capability, extended } = this.resolved;
    const kind = get.type(quad, 0);
    const width = get.addressWidth(quad, 0);
    const has = ExtendedCapability.get;
    const legal = kind <= passThrough && (kind !== deviceTlb || has.deviceTlb(extended, 0)) && (kind !== passThrough || has.passThrough(extended, 0));
    if (!legal || width < 1 || width > 3 || !((Capability.get.adjustedWidths(capability, 0) >>> width) & 1)) return Fault.legacyContextInvalid;
    out.fill(0);
    ContextEntry.set.present(out, 0, 1);
    ContextEntry.set.deviceTlbEnable(out, 0, kind === deviceTlb ? 1 : 0);
    pasid.fill(0);
    PasidEntry.set.present(pasid, 0, 1);
    PasidEntry.set.type(pasid, 0, kind === passThrough ? type.passThrough : type.secondStage);
    PasidEntry.set.addressWidth(pasid, 0, width);
    PasidEntry.set.domainId(pasid, 0, get.domainId(quad, 0));
    pasid[0]! |= quad[0]! & ~0xfff;
    pasid[1] = quad[1]!;
    return Fault.none;
  }

  /** Reads the PASID entry under the context last read (or under a directory handed in) into `pasid`. Returns a fault reason. */
  readPasid(pasid: number, directoryFrame: number, directorySize: number, faultDisable: number): number {
    this.faultDisable = faultDisable;
    const index = pasid >>> 6;
    if (index >>> (directorySize + 7)) return Fault.pasidBeyondDirectory;
    if (!this.fetch(directoryFrame + (index >>> 9), index & 511, 2, 0, this.pair, 2)) return Fault.directoryAccess;
    this.faultDisable |= PasidDirectoryEntry.get.faultDisable(this.pair, 0);
    if (!PasidDirectoryEntry.get.present(this.pair, 0)) return Fault.directoryNotPresent;
    if (reserved(this.pair, this.masks.directory)) return Fault.directoryReserved;
    if (!this.fetch(frameOf(this.pair[1]!, this.pair[0]!), pasid & 63, 16, 0, this.pasid, 16)) return Fault.pasidAccess;
    this.faultDisable |= entry.faultDisable(this.pasid, 0);
    if (!entry.present(this.pasid, 0)) return Fault.pasidNotPresent;
    if (reserved(this.pasid, this.masks.pasid)) return Fault.pasidReserved;
    // A first-stage pointer is a host address unless it goes through the second stage.
    if (entry.type(this.pasid, 0) === type.firstStage && this.pasid[5]! & this.masks.beyond) return Fault.pasidReserved;
    return this.supported() ? Fault.none : Fault.pasidInvalid;
  }

  /** Whether type and widths of the PASID entry last read are legal, and capabilities of this unit. */
  private supported(): boolean {
    const { capability, extended } = this.resolved;
    const has = ExtendedCapability.get;
    const kind = entry.type(this.pasid, 0);
    const width = entry.addressWidth(this.pasid, 0);
    const second = (Capability.get.adjustedWidths(capability, 0) >>> width) & 1;
    const mode = entry.firstStageMode(this.pasid, 0);
    const first = mode === 0 || (mode === 1 && Capability.get.firstStage5Level(capability, 0)) ? 1 : 0;
    const legalWidth = width >= 1 && width <= 3 ? second : 0;
    if (kind === type.firstStage) return (has.firstStage(extended, 0) & first) === 1;
    if (kind === type.secondStage) return (has.secondStage(extended, 0) & legalWidth) === 1;
    if (kind === type.nested) return (has.nested(extended, 0) & first & legalWidth) === 1;
    return kind === type.passThrough && has.passThrough(extended, 0) === 1;
  }

  private fetch(frame: number, index: number, stride: number, offset: number, out: Uint32Array, count: number): boolean {
    const at = this.memory.at(frame);
    if (at < 0) return false;
    this.reads++;
    const words = this.memory.words;
    const from = at + index * stride + offset;
    for (let i = 0; i < count; i++) out[i] = words[from + i]!;
    return true;
  }
}

const reserved = (words: Uint32Array, mask: Uint32Array): boolean => {
  let bits = 0;
  for (let i = 0; i < mask.length; i++) bits |= words[i]! & mask[i]!;
  return bits !== 0;
};
