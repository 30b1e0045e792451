/** The counters of a machine as one flat list of named figures, so that a run is the difference of two of them. */
import { ApicCounter, Counter as CpuCounter } from '@siov/cpu';
import { Counter as DeviceCounter } from '@siov/idxd-device';
import { UnitCounter } from '@siov/iommu';
import type { Host } from './host.js';
import type { KernelInstance } from './kernel.js';

/** Figures by name; all are counts since the machine was built. */
export type Figures = Record<string, number>;

/** The names, in the order in which they are printed. */
export const figureNames = [
  'systemCalls',
  'traps',
  'portalWrites',
  'enqcmdRetries',
  'deviceTlbHits',
  'translations',
  'walkReads',
  'structureReads',
  'pagingStructureHits',
  'iotlbHits',
  'iotlbMisses',
  'pasidCacheHits',
  'pasidCacheMisses',
  'contextCacheHits',
  'contextCacheMisses',
  'pageRequests',
  'partialCompletions',
  'cpuPageFaults',
  'invalidations',
  'translationFaults',
  'softwareErrors',
  'interruptsMsix',
  'interruptsIms',
  'interruptsTaken',
  'descriptors',
  'batches',
  'dropped',
  'bytesRead',
  'bytesWritten',
] as const;

/** System calls and ioctls of a kernel instance by name. */
export function callsByName(kernel: KernelInstance, syscalls: Readonly<Record<string, number>>): Record<string, number> {
  const calls: Record<string, number> = {};
  for (const [name, index] of Object.entries(syscalls)) {
    const count = kernel.user.counters[index]!;
    if (name !== 'ioctl' && count > 0) calls[name] = count;
  }
  for (const { name, count } of kernel.user.ioctls.values()) calls[`ioctl ${name}`] = count;
  return calls;
}

export function hostFigures(host: Host, traps = 0): Figures {
  const cpu = (name: keyof typeof CpuCounter): number => host.cpu.counters[CpuCounter[name]]!;
  const unit = (name: keyof typeof UnitCounter): number => host.unit.counters[UnitCounter[name]]!;
  const device = (name: keyof typeof DeviceCounter): number => host.devices.reduce((sum, d) => sum + d.counters[DeviceCounter[name]]!, 0);
  const traffic = (name: keyof Host['devices'][number]['traffic']): number => host.devices.reduce((sum, d) => sum + d.traffic[name], 0);
  let systemCalls = 0;
  for (let call = 0; call < 16; call++) systemCalls += host.kernel.user.counters[call]!;
  return {
    systemCalls,
    traps,
    portalWrites: cpu('movdir64b') + cpu('enqcmd'),
    enqcmdRetries: cpu('enqcmdRetries'),
    deviceTlbHits: traffic('deviceTlbHits'),
    translations: unit('translations'),
    walkReads: unit('walkReads'),
    structureReads: unit('lookupReads'),
    pagingStructureHits: unit('pagingStructureHits'),
    iotlbHits: unit('iotlbHits'),
    iotlbMisses: unit('iotlbMisses'),
    pasidCacheHits: unit('pasidHits'),
    pasidCacheMisses: unit('pasidMisses'),
    contextCacheHits: unit('contextHits'),
    contextCacheMisses: unit('contextMisses'),
    pageRequests: unit('pageRequests'),
    partialCompletions: device('pageFaults'),
    cpuPageFaults: cpu('pageFaults'),
    invalidations:
      unit('contextInvalidations') +
      unit('pasidInvalidations') +
      unit('iotlbInvalidations') +
      unit('deviceTlbInvalidations') +
      unit('interruptInvalidations'),
    translationFaults: unit('faults'),
    softwareErrors: device('softwareErrors'),
    interruptsMsix: traffic('msix'),
    interruptsIms: traffic('ims'),
    interruptsTaken: host.apic.counters[ApicCounter.handled]!,
    descriptors: device('dispatched'),
    batches: device('batches'),
    dropped: device('dropped'),
    bytesRead: traffic('bytesRead'),
    bytesWritten: traffic('bytesWritten'),
  };
}

/** What happened between two snapshots. */
export const difference = (after: Figures, before: Figures): Figures =>
  Object.fromEntries(Object.keys(after).map((name) => [name, after[name]! - (before[name] ?? 0)]));
export const sum = (a: Figures, b: Figures): Figures =>
  Object.fromEntries([...new Set([...Object.keys(a), ...Object.keys(b)])].map((name) => [name, (a[name] ?? 0) + (b[name] ?? 0)]));
