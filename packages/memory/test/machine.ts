/** A small world: RAM, frames and one address space. */
import { hi, lo } from '@siov/layout';
import { AddressSpace, type AddressSpaceOptions, FrameAllocator, PhysicalMemory } from '../src/index.js';

export const RW = 3;
export const ANONYMOUS = 0x22;
export const FIXED = 0x10;
export const POPULATE = 0x8000;
export const HUGETLB = 0x40000;
export const SHARED_ANONYMOUS = 0x21;

export function machine(frameCount = 256, more: Partial<AddressSpaceOptions> & { scatter?: number } = {}) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0x100, frameCount);
  const frames = new FrameAllocator(ram, undefined, undefined, more.scatter === undefined ? {} : { scatter: more.scatter });
  const mm = new AddressSpace({ memory, frames, ...more });
  const fault = (address: number, access = 0) => mm.handleFault(hi(address), lo(address), access);
  const byteAt = (address: number): number => {
    const frame = mm.frameOf(address);
    return frame < 0 ? -1 : ram.bytes[(frame - ram.firstFrame) * 4096 + (address % 4096)]!;
  };
  return { memory, ram, frames, mm, fault, byteAt };
}
