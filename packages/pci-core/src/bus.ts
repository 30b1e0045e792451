/**
 * What an operating system does with a bus: finds the functions through configuration space, sizes their BARs, gives them addresses, and
 * hands drivers a device. It knows nothing of the functions but what the bytes say, so it runs on a host and in a guest alike.
 */
import type { Mmio } from './ports.js';
import * as spec from './spec/config.js';

export interface BusOptions {
  /** Enhanced configuration access region, from bus 0 on. */
  readonly ecam: Mmio;
  /** Where memory BARs may be placed: physical addresses, in bytes. */
  readonly window: { readonly base: number; readonly bytes: number };
  /** Maps device registers at a physical address for the kernel's use. */
  ioremap(address: number, bytes: number): Mmio;
}

export interface Bar {
  readonly address: number;
  readonly bytes: number;
  /** The kernel's own mapping of the registers. */
  readonly mmio: Mmio;
}

/** One function as a driver sees it. */
export class PciDevice {
  readonly requesterId: number;
  readonly bars = new Map<number, Bar>();
  readonly #ecam: Mmio;
  readonly #base: number;

  constructor(ecam: Mmio, requesterId: number) {
    this.#ecam = ecam;
    this.requesterId = requesterId;
    this.#base = requesterId * 4096;
  }
  configRead(offset: number, width: number): number {
    return this.#ecam.read(this.#base + offset, width);
  }
  configWrite(offset: number, width: number, value: number): void {
    this.#ecam.write(this.#base + offset, width, value);
  }
  get vendorId(): number {
    return this.configRead(0, 2);
  }
  get deviceId(): number {
    return this.configRead(2, 2);
  }
  /** '0000:00:01.0', as the kernel names it. */
  get name(): string {
    const part = (n: number, digits: number): string => n.toString(16).padStart(digits, '0');
    return `0000:${part(this.requesterId >>> 8, 2)}:${part((this.requesterId >>> 3) & 31, 2)}.${this.requesterId & 7}`;
  }
  /** Byte offset of a capability, or 0. A list that loops ends. */
  capability(id: number): number {
    let at = this.configRead(0x34, 1) & 0xfc;
    for (let n = 0; at >= 0x40 && n < 48; n++) {
      if (this.configRead(at, 1) === id) return at;
      at = this.configRead(at + 1, 1) & 0xfc;
    }
    return 0;
  }
  extendedCapability(id: number): number {
    let at = 0x100;
    for (let n = 0; at >= 0x100 && n < 480; n++) {
      const header = this.configRead(at, 4);
      if (header === 0 || header === 0xffff_ffff) return 0;
      if ((header & 0xffff) === id) return at;
      at = (header >>> 20) & 0xffc;
    }
    return 0;
  }
  /** Sets or clears bits of the command register. */
  command(bits: { memory?: boolean; busMaster?: boolean }): void {
    let value = this.configRead(4, 2);
    if (bits.memory !== undefined) value = bits.memory ? value | 2 : value & ~2;
    if (bits.busMaster !== undefined) value = bits.busMaster ? value | 4 : value & ~4;
    this.configWrite(4, 2, value);
  }
  /** Enables PASID, ATS and PRI where the function has them; says which it has. The order is that of the kernel's IOMMU probe. */
  enableSva(): { pasid: boolean; ats: boolean; pri: boolean } {
    const pasid = this.extendedCapability(spec.ExtendedCapability.pasid);
    const ats = this.extendedCapability(spec.ExtendedCapability.ats);
    const pri = this.extendedCapability(spec.ExtendedCapability.pri);
    if (pasid) this.configWrite(pasid + 6, 2, 1 | (this.configRead(pasid + 4, 2) & 0b110));
    if (pri) {
      this.configWrite(pri + 12, 4, this.configRead(pri + 8, 4));
      this.configWrite(pri + 4, 2, 1);
    }
    if (ats) this.configWrite(ats + 6, 2, 0x8000);
    return { pasid: pasid !== 0, ats: ats !== 0, pri: pri !== 0 };
  }
  functionLevelReset(): void {
    const pcie = this.capability(spec.Capability.pcie);
    if (pcie) this.configWrite(pcie + 8, 2, this.configRead(pcie + 8, 2) | 0x8000);
  }
}

/** Finds every function of bus 0, sizes and places its BARs, and enables memory decoding. Functions that do not fit stay without. */
export function enumerate({ ecam, window, ioremap }: BusOptions): PciDevice[] {
  if (window.base % 4096 || window.bytes <= 0)
    throw new RangeError(`enumerate: window is page aligned and not empty, not 0x${window.base.toString(16)} + ${window.bytes}`);
  const devices: PciDevice[] = [];
  let free = window.base;
  for (let slot = 0; slot < 32; slot++)
    for (let fn = 0; fn < 8; fn++) {
      const device = new PciDevice(ecam, (slot << 3) | fn);
      if (device.vendorId === 0xffff) {
        if (fn === 0) break;
        continue;
      }
      device.command({ memory: false });
      for (let bar = 0; bar < spec.BARS; bar++) {
        const at = spec.BAR0 + bar * 4;
        const low = device.configRead(at, 4);
        if (low & 1) continue; // I/O space
        const wide = (low & 0b110) === 0b100;
        device.configWrite(at, 4, 0xffff_ffff);
        if (wide) device.configWrite(at + 4, 4, 0xffff_ffff);
        const mask = device.configRead(at, 4) & ~0xf;
        const bytes = mask === 0 ? (wide ? 2 ** 32 * (~device.configRead(at + 4, 4) + 1) : 0) : (~mask + 1) >>> 0;
        if (bytes > 0) {
          const address = Math.ceil(free / bytes) * bytes;
          if (address + bytes <= window.base + window.bytes) {
            free = address + bytes;
            device.configWrite(at, 4, address % 2 ** 32);
            if (wide) device.configWrite(at + 4, 4, Math.floor(address / 2 ** 32));
            device.bars.set(bar, { address, bytes, mmio: ioremap(address, bytes) });
          }
        }
        if (wide) bar++;
      }
      device.command({ memory: true });
      devices.push(device);
      if (fn === 0 && !(device.configRead(0x0e, 1) & 0x80)) break;
    }
  return devices;
}

/** The dump that `lspci -F FILE` reads: the form of `lspci -xxxx`. */
export function lspciDump(functions: Iterable<{ readonly requesterId: number; configRead(offset: number, width: number): number }>): string {
  const hex = (n: number, digits: number): string => n.toString(16).padStart(digits, '0');
  let text = '';
  for (const fn of functions) {
    const rid = fn.requesterId;
    text += `${hex(rid >>> 8, 2)}:${hex((rid >>> 3) & 31, 2)}.${rid & 7} System peripheral\n`;
    for (let row = 0; row < 4096; row += 16) {
      text += `${hex(row, row < 256 ? 2 : 3)}:`;
      for (let i = 0; i < 16; i++) text += ` ${hex(fn.configRead(row + i, 1), 2)}`;
      text += '\n';
    }
    text += '\n';
  }
  return text;
}
