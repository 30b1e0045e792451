/**
 * The typed events of the one trace sink. A part emits `(event, a, b, c, d)` with small integers; who watches gives them names and time.
 * Absent, the sink costs one branch.
 */
export const Party = { process: 0, guest: 1, kernel: 2, iommu: 3, device: 4, interrupt: 5, vmm: 6 } as const;
export type Party = (typeof Party)[keyof typeof Party];

interface EventRow {
  readonly party: Party;
  /** Names of the arguments a, b, c, d. */
  readonly args: readonly string[];
}
const rows = {
  syscall: { party: Party.process, args: ['call', 'fd', 'argument', 'result'] },
  portalWrite: { party: Party.process, args: ['kind', 'answer', 'pasid', 'offset'] },
  pageFault: { party: Party.process, args: ['addressHigh', 'addressLow', 'access', 'result'] },
  trap: { party: Party.guest, args: ['reason', 'gpaHigh', 'gpaLow', 'width'] },
  command: { party: Party.kernel, args: ['code', 'operand', 'status', 'result'] },
  interruptHandled: { party: Party.kernel, args: ['vector', 'cpu'] },
  translate: { party: Party.iommu, args: ['requesterId', 'pasid', 'addressHigh', 'addressLow'] },
  walkStep: { party: Party.iommu, args: ['stage', 'level', 'frame', 'index'] },
  cacheMiss: { party: Party.iommu, args: ['cache', 'pasid', 'addressHigh', 'addressLow'] },
  fault: { party: Party.iommu, args: ['reason', 'pasid', 'addressHigh', 'addressLow'] },
  invalidate: { party: Party.iommu, args: ['type', 'domainId', 'pasid', 'granularity'] },
  pageRequest: { party: Party.iommu, args: ['requesterId', 'pasid', 'addressHigh', 'addressLow'] },
  pageResponse: { party: Party.iommu, args: ['requesterId', 'pasid', 'group', 'code'] },
  accept: { party: Party.device, args: ['wq', 'opcode', 'pasid', 'occupancy'] },
  dispatch: { party: Party.device, args: ['wq', 'opcode', 'pasid', 'engine'] },
  complete: { party: Party.device, args: ['wq', 'opcode', 'status', 'bytes'] },
  softwareError: { party: Party.device, args: ['error', 'wq', 'opcode', 'pasid'] },
  message: { party: Party.interrupt, args: ['requesterId', 'address', 'data', 'store'] },
  deliver: { party: Party.interrupt, args: ['vector', 'destination'] },
} as const satisfies Record<string, EventRow>;

export type EventName = keyof typeof rows;
/** The number of each event, for `emit`. */
export const Event = Object.fromEntries(Object.keys(rows).map((name, i) => [name, i])) as { readonly [K in EventName]: number };
/** Name, party and argument names by number. */
export const events: readonly (EventRow & { readonly name: EventName })[] = Object.entries(rows).map(([name, row]) => ({
  name: name as EventName,
  ...row,
}));

/** Which store an interrupt message came from: the `store` argument of `message`. */
export const MessageStore = { msix: 0, ims: 1, untagged: 2 } as const;
