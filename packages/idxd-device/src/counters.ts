/** Counters of the data path, always on. */
export const Counter = {
  accepted: 0,
  retried: 1,
  dropped: 2,
  dispatched: 3,
  succeeded: 4,
  failed: 5,
  pageFaults: 6,
  softwareErrors: 7,
  batches: 8,
} as const;
