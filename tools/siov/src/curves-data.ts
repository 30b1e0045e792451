/**
 * Published measurements of one DSA, as printed: LightDSA (EuroSys 2026 artifact; Linux 6.6, one thread, shared queue, memory of node 0) and the
 * sample run of intel/DTO. Sizes in bytes, latencies in microseconds, rates in GiB/s.
 */
const K = 1024;
const upTo = (first: number, last: number): number[] => Array.from({ length: Math.log2(last / first) + 1 }, (_, i) => first * 2 ** i);
const sync = upTo(64, K * K);
const batch = [64, 128, 256, 512, K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, K * K];
const asynchronous = [64, 512, K, 2 * K, 4 * K, 8 * K, 16 * K, 32 * K, 64 * K, K * K];

export type CurveOp = 'memmove' | 'fill' | 'compare' | 'pattern';
export interface Curve {
  readonly id: string;
  readonly what: string;
  readonly kind: 'sync' | 'async' | 'batch';
  readonly op: CurveOp;
  readonly engines: number;
  readonly sizes: readonly number[];
  readonly measured: readonly number[];
  /** Advised tolerance at a size, as a fraction. */
  tolerance(bytes: number): number;
}
export const curves: readonly Curve[] = [
  {
    id: 'C1',
    what: 'memmove, one at a time, us',
    kind: 'sync',
    op: 'memmove',
    engines: 1,
    sizes: sync,
    tolerance: (n) => (n >= 4 * K ? 0.05 : 0.15),
    measured: [0.75, 0.8, 0.84, 0.91, 0.97, 1.07, 1.15, 1.41, 1.85, 2.4, 3.52, 5.72, 9.91, 18.32, 35.06],
  },
  {
    id: 'C2',
    what: 'fill, one at a time, us',
    kind: 'sync',
    op: 'fill',
    engines: 1,
    sizes: sync,
    tolerance: () => 0.1,
    measured: [0.49, 0.51, 0.52, 0.56, 0.6, 0.68, 0.75, 0.89, 1.16, 1.71, 2.77, 4.84, 8.95, 17.11, 33.58],
  },
  {
    id: 'C3',
    what: 'compare, one at a time, us',
    kind: 'sync',
    op: 'compare',
    engines: 1,
    sizes: sync,
    tolerance: () => 0.1,
    measured: [0.72, 0.75, 0.78, 0.84, 0.91, 1.05, 1.15, 1.43, 1.98, 3.08, 5.17, 9.31, 17.52, 34.05, 67.13],
  },
  {
    id: 'C4',
    what: 'compare pattern, one at a time, us',
    kind: 'sync',
    op: 'pattern',
    engines: 1,
    sizes: sync,
    tolerance: () => 0.1,
    measured: [0.67, 0.7, 0.74, 0.79, 0.84, 0.94, 1.01, 1.19, 1.48, 2.06, 3.1, 5.16, 9.26, 17.54, 34.08],
  },
  {
    id: 'C5',
    what: 'memmove, 128 in flight, GiB/s',
    kind: 'async',
    op: 'memmove',
    engines: 1,
    sizes: asynchronous,
    tolerance: () => 0.05,
    measured: [0.31, 2.52, 4.99, 9.59, 17.75, 28.05, 28.85, 29.15, 29.2, 29.24],
  },
  {
    id: 'C6',
    what: 'memmove, batches of 32, one engine, GiB/s',
    kind: 'batch',
    op: 'memmove',
    engines: 1,
    sizes: batch,
    tolerance: () => 0.1,
    measured: [1.46, 2.79, 4.68, 8.71, 15.66, 23.38, 25.63, 27.77, 28.72, 29.08, 29.16, 29.24],
  },
  {
    id: 'C7',
    what: 'memmove, batches of 32, four engines, GiB/s',
    kind: 'batch',
    op: 'memmove',
    engines: 4,
    sizes: batch,
    tolerance: (n) => (n === 512 ? 0.4 : 0.1),
    measured: [1.34, 2.81, 6.01, 16.88, 23.59, 26.29, 27.88, 28.74, 29.1, 29.15, 29.18, 29.21],
  },
  {
    id: 'C8',
    what: 'compare, batches of 32, four engines, GiB/s',
    kind: 'batch',
    op: 'compare',
    engines: 4,
    sizes: batch,
    tolerance: () => 0.05,
    measured: [1.31, 2.68, 5.92, 13.71, 14.28, 14.53, 14.65, 14.71, 14.74, 14.76, 14.76, 14.77],
  },
  {
    id: 'C12',
    what: 'memcpy inside CacheBench, us (mixed load)',
    kind: 'sync',
    op: 'memmove',
    engines: 4,
    tolerance: () => 0.3,
    sizes: [10 * K, 14 * K, 18 * K, 34 * K, 55 * K, 100 * K, 121 * K, 145 * K, 215 * K, 469 * K, 530 * K, K * K],
    measured: [1.19, 1.26, 1.37, 1.87, 2.45, 3.76, 5.18, 5.11, 8.15, 15.9, 18.7, 28.4],
  },
];
/** What the model does not have, and so does not draw. */
export const missing: readonly { readonly id: string; readonly why: string }[] = [
  { id: 'C9', why: 'alignment of destinations: partial lines cost nothing in the model yet' },
  { id: 'C10', why: 'overtaking: engines take turns on the data path instead of sharing it byte by byte' },
];
/** C11: page states, GiB/s, 4 engines; tolerance 15 %, the order exact. */
export const pageStates = [
  { what: 'absent pages, block on fault', measured: 0.277 },
  // The measured program touched 128 KiB for each failure; ours touches the page that is missing, one after the other.
  { what: 'absent pages, completed in part and resumed (by page; measured: by 128 KiB)', measured: 0.93 },
  { what: 'pages there', measured: 29.1 },
] as const;
