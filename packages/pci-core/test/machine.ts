import { type FunctionOptions, type Mmio, PciFunction, PciRoot } from '../src/index.js';

/** A register range that remembers what was written. */
export const ram = (bytes: number): Mmio & { bytes: Uint8Array } => {
  const data = new Uint8Array(bytes);
  return {
    bytes: data,
    read: (o, w) => {
      let v = 0;
      for (let i = w - 1; i >= 0; i--) v = v * 256 + (data[o + i] ?? 0xff);
      return v;
    },
    write: (o, w, v) => {
      for (let i = 0; i < w; i++) data[o + i] = v >>> (8 * i);
    },
  };
};

const dsaLike = (over: Partial<FunctionOptions> = {}): FunctionOptions => ({
  vendorId: 0x8086,
  deviceId: 0x0b25,
  classCode: 0x088000,
  subsystemVendorId: 0x8086,
  subsystemId: 0x2010,
  bars: { 0: { bytes: 0x1_0000, mmio: ram(0x1_0000) }, 2: { bytes: 0x2_0000, mmio: ram(0x2_0000) } },
  msix: { vectors: 9, bar: 0, tableOffset: 0x2000, pbaOffset: 0x3000 },
  ats: {},
  pri: { capacity: 64 },
  pasid: { width: 20, privileged: true },
  siov: { ims: true },
  ...over,
});

/** A root with one function in slot 1, and what is mapped where. */
export function machine(over: Partial<FunctionOptions> = {}) {
  const mapped = new Map<number, { frames: number; device: Mmio }>();
  const map = {
    addMmio(firstFrame: number, frames: number, device: Mmio): number {
      mapped.set(firstFrame, { frames, device });
      return firstFrame;
    },
    remove(frame: number): void {
      mapped.delete(frame);
    },
  };
  const window = { base: 0xe000_0000, bytes: 0x1000_0000 };
  const root = new PciRoot({ map, window });
  const fn = new PciFunction(dsaLike(over));
  root.add(fn, 1);
  const ioremap = (address: number): Mmio => ({
    read: (o, w) => mapped.get(address / 4096)!.device.read(o, w),
    write: (o, w, v) => mapped.get(address / 4096)!.device.write(o, w, v),
  });
  return { root, fn, mapped, window, ioremap };
}
