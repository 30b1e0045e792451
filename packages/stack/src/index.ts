/**
 * Recipes that put the parts together. A recipe has an entry point of its own, so that a program bundles what it uses:
 * `@siov/stack/uacce` (host and native processes), `@siov/stack/mdev` (host, VMM and guest).
 */
export { type CostName, type CostRow, type CostTable, defaultCosts, freeCosts, type PartCosts, partCosts, replaceCosts } from './costs.js';
export { callsByName, difference, type Figures, figureNames, hostFigures, sum } from './figures.js';
export { Host, HostMap, type HostOptions } from './host.js';
export { KernelInstance, type KernelInstanceOptions } from './kernel.js';
export type { Clock, Trace } from './ports.js';
export {
  bytesSource,
  type Injection,
  type OpenQueue,
  plainCrc32c,
  type Source,
  Workload,
  type WorkloadOp,
  type WorkloadOptions,
  type WorkloadResult,
  workloadOperations,
  workloadOps,
} from './workload.js';
export type { WorkloadOperation } from './workload-ops.js';
