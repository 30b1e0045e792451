/**
 * The root complex: an enhanced configuration access region (PCIe, "PCI Express Enhanced Configuration Access Mechanism") over its
 * functions, and their memory BARs in the physical address map.
 */
import { requesterId } from '@siov/layout/pcie';
import type { AddressMap, BarNumber, Mmio, RootFunction } from './ports.js';

/** Bytes of configuration space of one bus. */
export const ECAM_BUS_BYTES = 1 << 20;

export class PciRoot<R = unknown> implements Mmio {
  // ports
  readonly #map: AddressMap<R>;
  // fixed
  readonly #window: { readonly base: number; readonly bytes: number };
  // state
  readonly #functions = new Map<number, RootFunction>();
  readonly #decoded = new Map<RootFunction, Map<BarNumber, { address: number; bytes: number; region: R }>>();

  /** `window`: the addresses that the host bridge forwards to memory BARs, in bytes. A BAR programmed elsewhere, or over another, decodes nothing. */
  constructor(options: { readonly map: AddressMap<R>; readonly window: { readonly base: number; readonly bytes: number } }) {
    this.#map = options.map;
    this.#window = options.window;
  }

  /** Plugs a function in at bus, device and function number. A place can hold one function. */
  add(fn: RootFunction, device: number, number = 0, bus = 0): void {
    const rid = requesterId(bus, device, number);
    if (device > 31 || number > 7 || this.#functions.has(rid))
      throw new RangeError(`PciRoot.add: ${device}.${number} on bus ${bus} is taken or does not exist`);
    fn.requesterId = rid;
    this.#functions.set(rid, fn);
    this.#decoded.set(fn, new Map());
    fn.decodeChanged = () => this.#decode(fn);
    this.#decode(fn);
  }

  /** Unplugs it: its BARs leave the address map. */
  remove(fn: RootFunction): void {
    for (const { region } of this.#decoded.get(fn)?.values() ?? []) this.#map.remove(region);
    this.#decoded.delete(fn);
    this.#functions.delete(fn.requesterId);
    fn.decodeChanged = () => {};
  }

  function(rid: number): RootFunction | undefined {
    return this.#functions.get(rid);
  }
  get functions(): Iterable<RootFunction> {
    return this.#functions.values();
  }

  /** Offset: bus << 20 | device << 15 | function << 12 | register. All ones where no function is. */
  read(offset: number, width: number): number {
    return this.#functions.get(offset >>> 12)?.configRead(offset & 0xfff, width) ?? (width === 4 ? 0xffff_ffff : 2 ** (8 * width) - 1);
  }
  write(offset: number, width: number, value: number): void {
    this.#functions.get(offset >>> 12)?.configWrite(offset & 0xfff, width, value);
  }

  #decode(fn: RootFunction): void {
    const decoded = this.#decoded.get(fn)!;
    for (const bar of [0, 2, 4] as const) {
      const mmio = fn.barMmio(bar);
      const address = fn.barAddress(bar);
      const now = decoded.get(bar);
      if (!mmio || (now?.address ?? -1) === address) continue;
      if (now) this.#map.remove(now.region);
      decoded.delete(bar);
      const bytes = fn.barBytes(bar);
      if (address >= 0 && this.#free(address, bytes))
        decoded.set(bar, { address, bytes, region: this.#map.addMmio(address / 4096, bytes / 4096, mmio) });
    }
  }

  #free(address: number, bytes: number): boolean {
    if (address < this.#window.base || address + bytes > this.#window.base + this.#window.bytes) return false;
    for (const bars of this.#decoded.values())
      for (const other of bars.values()) if (address < other.address + other.bytes && other.address < address + bytes) return false;
    return true;
  }
}
