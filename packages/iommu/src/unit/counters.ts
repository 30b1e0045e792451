/** Indices into `IommuUnit.counters`. */
export const UnitCounter = {
  /** Pages translated (identity and pass-through: requests). */
  translations: 0,
  contextHits: 1,
  contextMisses: 2,
  pasidHits: 3,
  pasidMisses: 4,
  iotlbHits: 5,
  iotlbMisses: 6,
  /** Paging entries read by walks. */
  walkReads: 7,
  /** Root, context, PASID directory and PASID entries read. */
  lookupReads: 8,
  atsRequests: 9,
  /** Requests refused, recorded or not. */
  faults: 10,
  pageRequests: 11,
  pageResponses: 12,
  /** Interrupt messages of requesters, and look-ups of their entries. */
  messages: 13,
  interruptHits: 14,
  interruptMisses: 15,
  /** Invalidations by cache. */
  contextInvalidations: 16,
  pasidInvalidations: 17,
  iotlbInvalidations: 18,
  deviceTlbInvalidations: 19,
  interruptInvalidations: 20,
  /** Walks that began at the last level. */
  pagingStructureHits: 21,
} as const;
