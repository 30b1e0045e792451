/**
 * Simulated physical memory by regions, the frames in it, and a process's address space: x86-64 page tables, demand paging, pins,
 * notifiers. Intel SDM 3A, "4-Level Paging"; mmap(2), munmap(2), mprotect(2); linux/mmu_notifier.h.
 */
export type { AddressSpaceOptions, MemoryCosts } from './address-space.js';
export { AddressSpace, Counter, Mremap, USER_END, USER_END_5, USER_START } from './address-space.js';
export type { Backing, VmArea } from './areas.js';
export type { FrameAllocatorOptions } from './frames.js';
export { FrameAllocator, MAX_ORDER } from './frames.js';
export { MemoryFile } from './memory-file.js';
export { PhysicalMemory } from './physical.js';
export { pinCount } from './pins.js';
export type { Clock, Frames, Mmio, MmuNotifier, PhysicalMap, Region, Trace } from './ports.js';
