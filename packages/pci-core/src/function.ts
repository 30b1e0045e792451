/**
 * A PCI Express function: 4 KiB of configuration space built from one options object, with each bit's access class taken from the layout
 * tables, base address registers, MSI-X, and function level reset.
 */
import type { AnyLayout } from '@siov/layout';
import { MsixTable } from './msix.js';
import type { BarNumber, Mmio, RootFunction } from './ports.js';
import * as spec from './spec/config.js';

export interface BarOptions {
  /** A power of two, at least 4096. */
  readonly bytes: number;
  readonly prefetchable?: boolean;
  readonly mmio: Mmio;
}
export interface FunctionOptions {
  readonly vendorId: number;
  readonly deviceId: number;
  /** 24 bits: base class, subclass, programming interface. */
  readonly classCode: number;
  readonly revisionId?: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** 64-bit memory BARs by register number: 0, 2 or 4. */
  readonly bars: Readonly<Partial<Record<BarNumber, BarOptions>>>;
  readonly msix?: { readonly vectors: number; readonly bar: BarNumber; readonly tableOffset: number; readonly pbaOffset: number };
  readonly portType?: keyof typeof spec.Pcie.is.portType;
  readonly ats?: { readonly queueDepth?: number };
  readonly pri?: { readonly capacity: number };
  readonly pasid?: { readonly width: number; readonly privileged?: boolean; readonly execute?: boolean };
  /** Scalable IOV designated vendor-specific capability. */
  readonly siov?: { readonly ims: boolean };
}
/** What the device behind the function wants to hear. */
export interface FunctionListener {
  /** After a configuration write that changed anything (bus master, PASID, ATS, PRI ...). */
  configChanged?(): void;
  /** A function level reset: configuration space has its reset values already. */
  functionLevelReset?(): void;
}

const CAPABILITIES = 0x40;
const EXTENDED = 0x100;
const PCIE_AT = 0x50;

export class PciFunction implements RootFunction {
  // fixed
  readonly options: FunctionOptions;
  readonly msix: MsixTable | undefined;
  /** Byte offsets of the capabilities that the options asked for. */
  readonly at: Readonly<Record<'msix' | 'pcie' | 'powerManagement' | 'ats' | 'pri' | 'pasid' | 'siov', number>>;
  readonly #writable = new Uint8Array(4096);
  readonly #w1c = new Uint8Array(4096);
  readonly #reset: Uint8Array;
  // ports
  listener: FunctionListener = {};
  /** Called when a BAR may decode at another address; the root sets it. */
  decodeChanged: () => void = () => {};
  /** Bus, device and function number; the root sets it. */
  requesterId = 0;
  // state
  readonly config = new Uint8Array(4096);
  readonly words = new Uint32Array(this.config.buffer);
  #ats = false;

  constructor(options: FunctionOptions) {
    this.options = options;
    this.msix = options.msix && new MsixTable(options.msix.vectors);
    this.at = this.#build();
    this.#reset = this.config.slice();
  }

  get memoryEnabled(): boolean {
    return spec.Header.get.memoryEnable(this.words, 0) === 1;
  }
  get busMaster(): boolean {
    return spec.Header.get.busMaster(this.words, 0) === 1;
  }
  get pasidEnabled(): boolean {
    return this.at.pasid !== 0 && spec.Pasid.get.enable(this.words, this.at.pasid / 4) === 1;
  }
  get privilegedEnabled(): boolean {
    return this.pasidEnabled && spec.Pasid.get.privilegedEnable(this.words, this.at.pasid / 4) === 1;
  }
  /** Looked at for every descriptor: kept beside the register. */
  get atsEnabled(): boolean {
    return this.#ats;
  }
  get priEnabled(): boolean {
    return this.at.pri !== 0 && spec.Pri.get.enable(this.words, this.at.pri / 4) === 1;
  }
  /** The address that a BAR decodes, in bytes, or -1 while memory decoding is off or the BAR is all ones (being sized). */
  barAddress(bar: BarNumber): number {
    const word = spec.BAR0 / 4 + bar;
    const bytes = this.options.bars[bar]?.bytes;
    if (bytes === undefined || !this.memoryEnabled) return -1;
    const address = ((this.words[word]! & ~0xf) >>> 0) + this.words[word + 1]! * 2 ** 32;
    return address > 0 && address + bytes <= 2 ** 43 ? address : -1;
  }
  barBytes(bar: BarNumber): number {
    return this.options.bars[bar]?.bytes ?? 0;
  }
  /** What lies behind a BAR: the device's own registers, with the MSI-X table and pending bits laid over them. */
  barMmio(bar: BarNumber): Mmio | undefined {
    const behind = this.options.bars[bar]?.mmio;
    const msix = this.options.msix;
    if (!behind || !msix || !this.msix || msix.bar !== bar) return behind;
    const { table, pba, vectors } = this.msix;
    const { tableOffset, pbaOffset } = msix;
    const tableEnd = tableOffset + vectors * spec.MsixEntry.bytes;
    const pbaEnd = pbaOffset + this.msix.pending.length * 4;
    return {
      read: (o, w) =>
        o >= tableOffset && o < tableEnd
          ? table.read(o - tableOffset, w)
          : o >= pbaOffset && o < pbaEnd
            ? pba.read(o - pbaOffset, w)
            : behind.read(o, w),
      write: (o, w, v) => {
        if (o >= tableOffset && o < tableEnd) table.write(o - tableOffset, w, v);
        else if (o < pbaOffset || o >= pbaEnd) behind.write(o, w, v);
      },
      passiveReads: behind.passiveReads ?? false,
    };
  }

  /** A configuration read of 1, 2 or 4 bytes, naturally aligned; all ones beyond 4 KiB. */
  configRead(offset: number, width: number): number {
    let value = 0;
    for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.config[offset + i] ?? 0xff);
    return value;
  }

  /** A configuration write of 1, 2 or 4 bytes: read-only and reserved bits keep, write-1-to-clear bits clear. */
  configWrite(offset: number, width: number, value: number): void {
    let changed = false;
    for (let i = 0; i < width && offset + i < 4096; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const old = this.config[at]!;
      const next = ((old & ~this.#writable[at]!) | (byte & this.#writable[at]!)) & ~(this.#w1c[at]! & byte);
      this.config[at] = next;
      changed ||= next !== old;
    }
    const pcie = PCIE_AT / 4;
    if (spec.Pcie.get.initiateReset(this.words, pcie)) {
      this.functionLevelReset();
      return;
    }
    if (!changed) return;
    if (this.at.pri) {
      const pri = this.at.pri / 4;
      // "Stopped": set while the interface is disabled and nothing is outstanding.
      const enable = spec.Pri.get.enable(this.words, pri);
      this.words[pri + 1] = (this.words[pri + 1]! & ~(1 << 24) & ~2) | (enable ? 0 : 1 << 24);
    }
    this.#ats = this.at.ats !== 0 && spec.Ats.get.enable(this.words, this.at.ats / 4) === 1;
    this.#msixControl();
    this.decodeChanged();
    this.listener.configChanged?.();
  }

  /** Clears all state of the function, as a write of Initiate Function Level Reset does. */
  functionLevelReset(): void {
    this.config.set(this.#reset);
    this.#ats = false;
    this.msix?.reset();
    this.decodeChanged();
    this.listener.functionLevelReset?.();
  }

  #msixControl(): void {
    if (!this.msix) return;
    const word = this.at.msix / 4;
    this.msix.control(spec.Msix.get.enable(this.words, word) === 1, spec.Msix.get.functionMask(this.words, word) === 1);
  }

  /** Lets software write what the layout says. */
  #grant(layout: AnyLayout, offset: number): void {
    layout.masks.rw.forEach((mask, word) => {
      for (let b = 0; b < 4; b++) this.#writable[offset + word * 4 + b]! |= mask >>> (8 * b);
    });
    layout.masks.rw1c.forEach((mask, word) => {
      for (let b = 0; b < 4; b++) this.#w1c[offset + word * 4 + b]! |= mask >>> (8 * b);
    });
  }

  #build(): PciFunction['at'] {
    const o = this.options;
    const at = { msix: 0, pcie: 0, powerManagement: 0, ats: 0, pri: 0, pasid: 0, siov: 0 };
    const { words } = this;
    const header = spec.Header.set;
    header.vendorId(words, 0, o.vendorId);
    header.deviceId(words, 0, o.deviceId);
    header.classCode(words, 0, o.classCode);
    header.revisionId(words, 0, o.revisionId ?? 0);
    header.subsystemVendorId(words, 0, o.subsystemVendorId ?? 0);
    header.subsystemId(words, 0, o.subsystemId ?? 0);
    header.capabilitiesList(words, 0, 1);
    header.capabilitiesPointer(words, 0, CAPABILITIES);
    this.#grant(spec.Header, 0);
    for (const bar of [0, 2, 4] as const) {
      const options = o.bars[bar];
      if (!options) continue;
      if (options.bytes < 4096 || !Number.isInteger(Math.log2(options.bytes)))
        throw new RangeError(`BAR ${bar}: bytes is a power of two from 4096, not ${options.bytes}`);
      const offset = spec.BAR0 + bar * 4;
      words[offset / 4] = 0b100 | (options.prefetchable === false ? 0 : 0b1000); // 64-bit memory
      for (let b = 0; b < 8; b++) {
        const span = 2 ** (8 * b);
        this.#writable[offset + b] = options.bytes <= span ? 0xff : options.bytes >= span * 256 ? 0 : 0x100 - options.bytes / span;
      }
    }
    // Capabilities of the first 256 bytes, at the places that Intel's virtual DSA uses: MSI-X 0x40, PCI Express 0x50, then PM.
    let previous = -1;
    const add = (id: number, offset: number, table: AnyLayout): number => {
      spec.CapabilityHeader.set.id(words, offset / 4, id);
      if (previous >= 0) spec.CapabilityHeader.set.next(words, previous / 4, offset);
      this.#grant(table, offset);
      previous = offset;
      return offset;
    };
    if (o.msix) {
      const w = (at.msix = add(spec.Capability.msix, CAPABILITIES, spec.Msix)) / 4;
      spec.Msix.set.tableSize(words, w, o.msix.vectors - 1);
      spec.Msix.set.tableBir(words, w, o.msix.bar);
      spec.Msix.set.tableOffset(words, w, o.msix.tableOffset / 8);
      spec.Msix.set.pbaBir(words, w, o.msix.bar);
      spec.Msix.set.pbaOffset(words, w, o.msix.pbaOffset / 8);
    } else header.capabilitiesPointer(words, 0, PCIE_AT);
    const p = (at.pcie = add(spec.Capability.pcie, PCIE_AT, spec.Pcie)) / 4;
    const pcie = spec.Pcie.set;
    pcie.version(words, p, 2);
    pcie.portType(words, p, spec.Pcie.is.portType[o.portType ?? 'rootComplexEndpoint']);
    pcie.roleBasedErrors(words, p, 1);
    pcie.extendedTag(words, p, 1);
    pcie.functionLevelReset(words, p, 1);
    pcie.readRequestSize(words, p, 2);
    pcie.extendedTagEnable(words, p, 1);
    pcie.relaxedOrdering(words, p, 1);
    pcie.noSnoop(words, p, 1);
    pcie.completionTimeoutDisable(words, p, 1);
    if (o.pasid) {
      pcie.endToEndPrefixes(words, p, 1);
      pcie.maxEndToEndPrefixes(words, p, 1);
    }
    at.powerManagement = add(spec.Capability.powerManagement, 0x90, spec.PowerManagement);
    spec.PowerManagement.set.version(words, 0x90 / 4, 3);
    spec.PowerManagement.set.noSoftReset(words, 0x90 / 4, 1);

    // Extended capabilities.
    let last = -1;
    const extend = (id: number, offset: number, table: AnyLayout): number => {
      spec.ExtendedHeader.set.id(words, offset / 4, id);
      spec.ExtendedHeader.set.version(words, offset / 4, 1);
      if (last >= 0) spec.ExtendedHeader.set.next(words, last / 4, offset);
      this.#grant(table, offset);
      last = offset;
      return offset / 4;
    };
    let free = EXTENDED;
    const place = (table: AnyLayout): number => (free += Math.ceil(table.bytes / 16) * 16) - Math.ceil(table.bytes / 16) * 16;
    if (o.ats) {
      at.ats = place(spec.Ats);
      const w = extend(spec.ExtendedCapability.ats, at.ats, spec.Ats);
      spec.Ats.set.queueDepth(words, w, o.ats.queueDepth ?? 1);
      spec.Ats.set.pageAligned(words, w, 1);
      spec.Ats.set.globalInvalidate(words, w, 1);
    }
    if (o.pri) {
      at.pri = place(spec.Pri);
      const w = extend(spec.ExtendedCapability.pri, at.pri, spec.Pri);
      spec.Pri.set.stopped(words, w, 1);
      spec.Pri.set.responsePasidRequired(words, w, 1);
      spec.Pri.set.capacity(words, w, o.pri.capacity);
    }
    if (o.pasid) {
      at.pasid = place(spec.Pasid);
      const w = extend(spec.ExtendedCapability.pasid, at.pasid, spec.Pasid);
      spec.Pasid.set.width(words, w, o.pasid.width);
      spec.Pasid.set.privileged(words, w, o.pasid.privileged ? 1 : 0);
      spec.Pasid.set.execute(words, w, o.pasid.execute ? 1 : 0);
    }
    if (o.siov) {
      at.siov = place(spec.SiovDvsec);
      const w = extend(spec.ExtendedCapability.dvsec, at.siov, spec.SiovDvsec);
      spec.SiovDvsec.set.vendor(words, w, spec.INTEL);
      spec.SiovDvsec.set.revision(words, w, 1);
      spec.SiovDvsec.set.length(words, w, spec.SiovDvsec.bytes);
      spec.SiovDvsec.set.dvsecId(words, w, spec.SIOV_DVSEC_ID);
      spec.SiovDvsec.set.supportedPageSizes(words, w, 1);
      spec.SiovDvsec.set.systemPageSize(words, w, 1);
      spec.SiovDvsec.set.ims(words, w, o.siov.ims ? 1 : 0);
    }
    return at;
  }
}
