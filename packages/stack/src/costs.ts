/**
 * The cost table: nanoseconds per event of the modelled machine, each with its range, its source and how far to trust it. A user can replace
 * any row (a JSON file of the same form). Counts times costs is serial cost; modelled latency is elapsed virtual time.
 *
 * Confidence: A measured on Sapphire Rapids class hardware; B measured elsewhere or on an unnamed CPU; C from general knowledge; D estimate.
 */
export interface CostRow {
  readonly ns: number;
  /** Added per byte. */
  readonly nsPerByte?: number;
  readonly low: number;
  readonly high: number;
  readonly source: string;
  readonly confidence: 'A' | 'B' | 'C' | 'D';
}

const lightDsa = 'LightDSA (EuroSys 2026 artifact), measured tables of one DSA on Linux 6.6';
const derived = 'derived from the LightDSA tables';
const linux = 'Linux commit messages with measurements';
const estimate = 'estimate';
const row = (ns: number, low: number, high: number, source: string, confidence: CostRow['confidence'], nsPerByte?: number): CostRow => ({
  ns,
  ...(nsPerByte === undefined ? {} : { nsPerByte }),
  low,
  high,
  source,
  confidence,
});

/** Defaults at a reference clock of 2.6 GHz. */
export const defaultCosts = {
  'cpu.descriptorPrepare': row(20, 10, 40, estimate, 'D'),
  'cpu.completionHarvest': row(10, 5, 20, estimate, 'D'),
  'cpu.enqcmd': row(160, 120, 200, derived, 'A'),
  'cpu.enqcmdRetry': row(160, 120, 200, derived, 'A'),
  'cpu.movdir64b': row(40, 20, 100, estimate, 'D'),
  'cpu.pollNotice': row(60, 40, 120, estimate, 'D'),
  'cpu.memcpy': row(30, 20, 60, lightDsa, 'A', 0.098),
  'fabric.portalArrival': row(80, 50, 150, estimate, 'D'),
  'fabric.mmioRead': row(400, 250, 700, 'general knowledge', 'C'),
  'fabric.mmioWrite': row(20, 10, 50, 'general knowledge', 'C'),
  'dsa.dispatch': row(90, 50, 150, derived, 'A'),
  'dsa.occupancy': row(43, 40, 60, lightDsa, 'A', 0.016),
  // What the engine needs in all for 64 bytes at such a destination (370 and 730 ns), less its occupancy: the submitting thread runs beside it.
  'dsa.partialHalf': row(327, 180, 330, lightDsa, 'A'),
  'dsa.partialLine': row(687, 540, 690, lightDsa, 'A'),
  'dsa.partialLatency': row(400, 300, 450, lightDsa, 'A'),
  'dsa.batchFetch': row(260, 200, 450, derived, 'A'),
  'dsa.batchNext': row(2, 1, 5, derived, 'A'),
  'dsa.read': row(260, 200, 450, derived, 'A'),
  'dsa.secondRead': row(50, 20, 100, derived, 'A'),
  'dsa.pageStall': row(100, 50, 150, derived, 'A'),
  'dsa.pageStallGrowth': row(40, 20, 60, derived, 'A'),
  'dsa.write': row(80, 50, 150, derived, 'A'),
  'dsa.recordWrite': row(80, 50, 150, estimate, 'D'),
  'dsa.streamMove': row(0, 0, 0, lightDsa, 'A', 0.0318),
  'dsa.streamFill': row(0, 0, 0, lightDsa, 'A', 0.0313),
  'dsa.streamPattern': row(0, 0, 0, lightDsa, 'A', 0.0315),
  'dsa.streamCrc': row(0, 0, 0, estimate, 'D', 0.0318),
  'dsa.streamCompare': row(0, 0, 0, lightDsa, 'A', 0.063),
  // Per byte of source 1.
  'iax.streamCompress': row(0, 0, 0, estimate, 'D', 0.1),
  'iax.streamDecompress': row(0, 0, 0, estimate, 'D', 0.1),
  'iax.streamFilter': row(0, 0, 0, estimate, 'D', 0.04),
  'dsa.command': row(2000, 1000, 10_000, estimate, 'D'),
  'iommu.lookup': row(5, 2, 10, estimate, 'D'),
  'iommu.walkRead': row(60, 30, 120, estimate, 'D'),
  // The 130 ns that were seen of a translation request on a page that was not used before, less the lookup and the one read of its walk.
  'iommu.atsRequest': row(65, 15, 185, derived, 'A'),
  'iommu.pageRequest': row(13_800, 10_000, 55_000, lightDsa, 'A'),
  'iommu.queueWait': row(700, 300, 1500, 'rIOMMU (ASPLOS 2015), from memory', 'C'),
  'iommu.pasidSet': row(300, 100, 1000, estimate, 'D'),
  'iommu.pasidClear': row(2500, 1000, 10_000, estimate, 'D'),
  'iommu.svaBind': row(10_000, 5000, 50_000, estimate, 'D'),
  'os.syscall': row(100, 60, 300, 'general knowledge', 'C'),
  'os.ioctl': row(200, 150, 500, estimate, 'D'),
  'os.mmap': row(3000, 2000, 6000, estimate, 'D'),
  'os.eventfdWrite': row(200, 100, 400, estimate, 'D'),
  'os.contextSwitch': row(1500, 1000, 3000, 'general knowledge', 'C'),
  'os.pageFault': row(1210, 570, 1500, lightDsa, 'A'),
  'os.hugePageFault': row(193_000, 150_000, 250_000, lightDsa, 'A'),
  'os.pin': row(64, 50, 100, linux, 'B'),
  'os.unpin': row(73, 50, 100, linux, 'B'),
  'vm.exit': row(600, 400, 1000, linux, 'B'),
  'vm.eptViolation': row(1500, 1000, 3000, estimate, 'D'),
  'vm.trap': row(4000, 3000, 8000, estimate, 'D'),
  // Other places where an access could be served than the VMM's process: for comparison, no part uses them.
  'vm.trapIoeventfd': row(700, 500, 1500, linux, 'B'),
  'vm.trapKernel': row(1500, 1000, 2500, estimate, 'D'),
  'vm.trapVfioUser': row(20_000, 6000, 40_000, estimate, 'D'),
  'irq.message': row(1000, 600, 2500, estimate, 'D'),
  'irq.irqfd': row(600, 300, 4000, estimate, 'D'),
} as const satisfies Record<string, CostRow>;

export type CostName = keyof typeof defaultCosts;
export type CostTable = Readonly<Record<CostName, CostRow>>;

/** What is wrong with a replacement table, as one line; or the whole table with the rows replaced. */
export function replaceCosts(rows: unknown): CostTable | string {
  if (typeof rows !== 'object' || rows === null || Array.isArray(rows)) return 'a cost table is an object of rows by event name';
  const table: Record<string, CostRow> = { ...defaultCosts };
  for (const [name, given] of Object.entries(rows)) {
    const old = table[name];
    if (!old) return `there is no event '${name}' in the cost table`;
    const { ns = old.ns, nsPerByte = old.nsPerByte } = given as Partial<CostRow>;
    if (!(Number.isFinite(ns) && ns >= 0 && ns < 1e9)) return `${name}.ns is a number of nanoseconds from 0 to 1e9`;
    if (nsPerByte !== undefined && !(nsPerByte >= 0 && nsPerByte < 1000)) return `${name}.nsPerByte is a number from 0 to 1000`;
    table[name] = { ...old, ...(given as Partial<CostRow>), ns: Math.round(ns) };
  }
  return table as CostTable;
}

/** The options of each part, from the table. */
export function partCosts(table: CostTable) {
  const ns = (name: CostName): number => table[name].ns;
  const perByte = (name: CostName): number => table[name].nsPerByte ?? 0;
  return {
    cpu: {
      movdir64b: ns('cpu.movdir64b'),
      enqcmd: ns('cpu.enqcmd'),
      enqcmdRetry: ns('cpu.enqcmdRetry'),
      mmioRead: ns('fabric.mmioRead'),
      mmioWrite: ns('fabric.mmioWrite'),
      vmExit: ns('vm.exit'),
    },
    apic: { deliver: ns('irq.message') },
    memory: { pageFault: ns('os.pageFault'), hugePageFault: ns('os.hugePageFault'), pin: ns('os.pin'), unpin: ns('os.unpin') },
    kernel: {
      syscall: ns('os.syscall'),
      ioctl: ns('os.ioctl'),
      mmap: ns('os.mmap'),
      eventfdWrite: ns('os.eventfdWrite'),
      contextSwitch: ns('os.contextSwitch'),
    },
    unit: { lookup: ns('iommu.lookup'), walkRead: ns('iommu.walkRead'), atsRequest: ns('iommu.atsRequest') },
    iommuDriver: {
      queueWait: ns('iommu.queueWait'),
      svaBind: ns('iommu.svaBind'),
      pasidSet: ns('iommu.pasidSet'),
      pasidClear: ns('iommu.pasidClear'),
      // The row is the whole round trip: its interrupt, its page fault and the queued answer pass by themselves.
      pageRequest: Math.max(0, ns('iommu.pageRequest') - ns('irq.message') - ns('os.pageFault') - ns('iommu.queueWait')),
    },
    device: {
      portalArrival: ns('fabric.portalArrival'),
      dispatch: ns('dsa.dispatch'),
      read: ns('dsa.read'),
      secondRead: ns('dsa.secondRead'),
      pageStall: ns('dsa.pageStall'),
      pageStallGrowth: ns('dsa.pageStallGrowth'),
      write: ns('dsa.write'),
      recordWrite: ns('dsa.recordWrite'),
      occupancy: ns('dsa.occupancy'),
      occupancyPerByte: perByte('dsa.occupancy'),
      partialHalf: ns('dsa.partialHalf'),
      partialLine: ns('dsa.partialLine'),
      partialLatency: ns('dsa.partialLatency'),
      batchFetch: ns('dsa.batchFetch'),
      batchNext: ns('dsa.batchNext'),
      streamMove: perByte('dsa.streamMove'),
      streamFill: perByte('dsa.streamFill'),
      streamPattern: perByte('dsa.streamPattern'),
      streamCrc: perByte('dsa.streamCrc'),
      streamCompare: perByte('dsa.streamCompare'),
      streamCompress: perByte('iax.streamCompress'),
      streamDecompress: perByte('iax.streamDecompress'),
      streamFilter: perByte('iax.streamFilter'),
      command: ns('dsa.command'),
    },
    vmm: { trap: ns('vm.trap'), eptViolation: ns('vm.eptViolation'), irqfd: ns('irq.irqfd') },
  };
}
export type PartCosts = ReturnType<typeof partCosts>;

/** Everything takes no time. */
export const freeCosts: CostTable = Object.fromEntries(
  Object.entries(defaultCosts).map(([name, r]) => [name, { ...r, ns: 0, nsPerByte: 0 }]),
) as unknown as CostTable;
