/**
 * What a processor does that a device can see: loads and stores through page tables (and a guest's EPT), MOVDIR64B, ENQCMD and ENQCMDS with
 * IA32_PASID and the VMX PASID translation tables; the local APIC; and the virtual clock. Intel SDM 2, 3A and 3C.
 */
export type { ApicClock, ApicOptions } from './apic.js';
export { ApicCounter, LocalApic } from './apic.js';
export { Clock, ReentryError } from './clock.js';
export type { CpuClock, CpuOptions } from './cpu.js';
export { Cpu, PortalKind } from './cpu.js';
export type { Context, Mmio, PhysicalMap, Region, Trace } from './ports.js';
export { Signal } from './signal.js';
export type { CpuCosts } from './spec.js';
export { Counter, ExitReason } from './spec.js';
