/**
 * The configuration space that a user sees of a PCI function: header and capabilities read through, with base address registers, command
 * bits and interrupt line of its own, no ATS, PRI or PASID, and MSI-X under the kernel's control. Linux, vfio_pci_config.c.
 */
import { BARS, Capability, CONFIG_BYTES, Command, HIDDEN, INITIATE_RESET, Msix, Offset, PCIE_DEVICE_CONTROL } from './spec/config.js';

export interface ConfigFunction {
  configRead(offset: number, width: number): number;
  configWrite(offset: number, width: number, value: number): void;
}
/** What the user may change of the command register; memory and bus master bits go to the function. */
const WRITABLE = Command.memory | Command.busMaster | Command.parity | Command.serr | Command.intxDisable;

export class VirtualConfig {
  /** Byte offsets, 0 without. */
  readonly msix: number;
  readonly pcie: number;
  private readonly fn: ConfigFunction;
  private readonly barBytes: (bar: number) => number;
  private readonly reset: () => void;
  private readonly own = new Uint8Array(CONFIG_BYTES);
  /** 1: the user reads `own`, not the function. */
  private readonly virtual = new Uint8Array(CONFIG_BYTES);

  /** `reset`: the user asked for a function level reset. */
  constructor(fn: ConfigFunction, barBytes: (bar: number) => number, reset: () => void) {
    this.fn = fn;
    this.barBytes = barBytes;
    this.reset = reset;
    const found = this.capabilities();
    this.msix = found.get(Capability.msix) ?? 0;
    this.pcie = found.get(Capability.pcie) ?? 0;
    this.shadow(Offset.bar0, BARS * 4);
    this.shadow(Offset.rom, 4);
    this.shadow(Offset.command, 2);
    this.shadow(Offset.cacheLine, 1);
    this.shadow(Offset.interruptLine, 1);
    this.hide();
  }

  /** Table and pending bits: BAR and byte offset there. Undefined without MSI-X. */
  msixPlace(): { readonly vectors: number; readonly bar: number; readonly offset: number } | undefined {
    if (!this.msix) return undefined;
    const table = this.fn.configRead(this.msix + Msix.table, 4);
    const vectors = (this.fn.configRead(this.msix + Msix.control, 2) & 0x7ff) + 1;
    return { vectors, bar: table & 7, offset: (table & ~7) >>> 0 };
  }

  get memoryEnabled(): boolean {
    return (this.command & Command.memory) !== 0;
  }

  /** Memory decoding on, bus master off: as a user finds the function. */
  enable(): void {
    this.fn.configWrite(Offset.command, 2, (this.fn.configRead(Offset.command, 2) | Command.memory) & ~Command.busMaster);
    this.copyHeader();
  }

  /** Bus master off. */
  disable(): void {
    this.fn.configWrite(Offset.command, 2, this.fn.configRead(Offset.command, 2) & ~Command.busMaster);
  }

  read(offset: number, out: Uint8Array): void {
    for (let i = 0; i < out.length; i++) out[i] = this.virtual[offset + i] ? this.own[offset + i]! : this.fn.configRead(offset + i, 1);
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) this.writeByte(offset + i, bytes[i]!);
  }

  private get command(): number {
    return this.own[Offset.command]! | (this.own[Offset.command + 1]! << 8);
  }

  private writeByte(at: number, value: number): void {
    if (at === Offset.cacheLine || at === Offset.interruptLine) this.own[at] = value;
    else if (at >= Offset.bar0 && at < Offset.bar0 + BARS * 4) this.writeBar(at, value);
    else if (at === Offset.command || at === Offset.command + 1) {
      const writable = (WRITABLE >>> ((at - Offset.command) * 8)) & 0xff;
      this.own[at] = (this.own[at]! & ~writable) | (value & writable);
      // The function decodes its BARs while a user has it: only bus mastering follows.
      const bits = Command.busMaster;
      this.fn.configWrite(Offset.command, 2, (this.fn.configRead(Offset.command, 2) & ~bits) | (this.command & bits));
    } else if (this.pcie && at === this.pcie + PCIE_DEVICE_CONTROL + 1 && value & (INITIATE_RESET >>> 8)) this.reset();
  }

  /** Bits below the size, and the type bits of a register's low byte, do not change. */
  private writeBar(at: number, value: number): void {
    const register = (at - Offset.bar0) >>> 2;
    const upper = register > 0 && this.barBytes(register - 1) > 0 && is64(this.fn, register - 1);
    const bytes = upper ? this.barBytes(register - 1) : this.barBytes(register);
    if (bytes === 0) return;
    const shift = ((at & 3) + (upper ? 4 : 0)) * 8;
    const span = 2 ** shift;
    const writable = bytes <= span ? 0xff : bytes >= span * 256 ? 0 : 0x100 - bytes / span;
    this.own[at] = (this.own[at]! & ~writable) | (value & writable);
  }

  private copyHeader(): void {
    for (let at = 0; at < 0x40; at++) if (this.virtual[at]) this.own[at] = this.fn.configRead(at, 1);
    for (let at = Offset.rom; at < Offset.rom + 4; at++) this.own[at] = 0;
  }

  private shadow(offset: number, bytes: number): void {
    this.virtual.fill(1, offset, offset + bytes);
  }

  private capabilities(): Map<number, number> {
    const found = new Map<number, number>();
    let at = this.fn.configRead(Offset.capabilities, 1) & 0xfc;
    for (let steps = 0; at >= 0x40 && steps < 48; steps++) {
      found.set(this.fn.configRead(at, 1), at);
      at = this.fn.configRead(at + 1, 1) & 0xfc;
    }
    return found;
  }

  /** Takes hidden capabilities out of the chain; a hidden first one keeps its `next` and loses its id. */
  private hide(): void {
    let shown = 0;
    let at: number = Offset.extended;
    for (let steps = 0; at >= Offset.extended && at < CONFIG_BYTES && steps < 480; steps++) {
      const header = this.fn.configRead(at, 4);
      if (header === 0 || header === 0xffff_ffff) return;
      const next = header >>> 20;
      const hidden = HIDDEN.includes(header & 0xffff);
      if (!hidden || shown === 0) this.header(at, hidden ? (next << 20) >>> 0 : header);
      if (!hidden || shown === 0) shown = at;
      else {
        this.shadow(at, 8);
        this.header(shown, ((this.headerAt(shown) & 0xf_ffff) | (next << 20)) >>> 0);
      }
      if (hidden) this.shadow(at + 4, bodyOf(header & 0xffff));
      at = next;
    }
  }

  private headerAt(at: number): number {
    return new DataView(this.own.buffer).getUint32(at, true);
  }

  private header(at: number, value: number): void {
    this.shadow(at, 4);
    new DataView(this.own.buffer).setUint32(at, value, true);
  }
}

/** Bytes after the header of a hidden capability: PRI has 12, ATS and PASID 4. */
const bodyOf = (id: number): number => (id === 0x13 ? 12 : 4);
const is64 = (fn: ConfigFunction, register: number): boolean => (fn.configRead(Offset.bar0 + register * 4, 1) & 0b110) === 0b100;
