/** Exit reasons, counters and costs of the processor. Intel SDM 3D, "VMX Basic Exit Reasons". */

export const ExitReason = { eptViolation: 48, eptMisconfiguration: 49, enqcmdPasid: 72, enqcmdsPasid: 73 } as const;
export type ExitReason = (typeof ExitReason)[keyof typeof ExitReason];

export const Counter = {
  loads: 0,
  stores: 1,
  tlbHits: 2,
  tlbMisses: 3,
  walkReads: 4,
  movdir64b: 5,
  enqcmd: 6,
  enqcmdRetries: 7,
  exits: 8,
  mmioReads: 9,
  mmioWrites: 10,
  pageFaults: 11,
  flushes: 12,
} as const;

/** Integer nanoseconds that the running CPU spends; all default to 0. */
export interface CpuCosts {
  readonly load?: number;
  readonly store?: number;
  readonly movdir64b?: number;
  readonly enqcmd?: number;
  /** An ENQCMD that answers retry, where that takes longer than `enqcmd`; default: the same. */
  readonly enqcmdRetry?: number;
  readonly mmioRead?: number;
  readonly mmioWrite?: number;
  readonly vmExit?: number;
}
