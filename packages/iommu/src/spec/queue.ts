/** What goes through the queues. VT-d, "Invalidation Request Descriptors", "Page Request Queue", "Page Group Response Descriptor". */
import { address, layout, oneOf, variants } from '@siov/layout';

/** Bits 3:0 of an invalidation descriptor (bits 11:9 extend it; all types known have 0 there). */
export const DescriptorType = {
  context: 1,
  iotlb: 2,
  deviceTlb: 3,
  interruptEntry: 4,
  wait: 5,
  pasidIotlb: 6,
  pasidCache: 7,
  pasidDeviceTlb: 8,
  pageGroupResponse: 9,
} as const;

/** Bytes of a descriptor in scalable mode (IQA.DW = 1), and of a page request. */
export const DESCRIPTOR_BYTES = 32;

export const AnyDescriptor = /* @__PURE__ */ layout('descriptor', 32, {
  0: { type: '3:0', typeHigh: '11:9' },
});
export const ContextDescriptor = /* @__PURE__ */ layout('context-cache invalidate', 32, {
  0: {
    type: '3:0',
    granularity: oneOf('5:4', { global: 1, domain: 2, device: 3 }),
    typeHigh: '11:9',
    domainId: '31:16',
    sourceId: '47:32',
    /** Function bits to ignore, from the highest of the three. */
    functionMask: '49:48',
  },
});
export const IotlbDescriptor = /* @__PURE__ */ layout('IOTLB invalidate', 32, {
  0: {
    type: '3:0',
    granularity: oneOf('5:4', { global: 1, domain: 2, pages: 3 }),
    drainWrites: '6',
    drainReads: '7',
    typeHigh: '11:9',
    domainId: '31:16',
  },
  /** 2^addressMask pages from `address`. */
  8: { addressMask: '5:0', leafOnly: '6', address: address('63:12') },
});
export const DeviceTlbDescriptor = /* @__PURE__ */ layout('device-TLB invalidate', 32, {
  0: { type: '3:0', typeHigh: '11:9', physicalSourceLow: '15:12', queueDepth: '20:16', sourceId: '47:32', physicalSourceHigh: '63:52' },
  8: { size: '0', addressLow: '31:12', addressHigh: '63:32' },
});
export const InterruptEntryDescriptor = /* @__PURE__ */ layout('interrupt entry cache invalidate', 32, {
  0: { type: '3:0', granularity: oneOf('4', { global: 0, index: 1 }), typeHigh: '11:9', indexMask: '31:27', index: '47:32' },
});
export const WaitDescriptor = /* @__PURE__ */ layout('invalidation wait', 32, {
  0: { type: '3:0', interrupt: '4', statusWrite: '5', fence: '6', pageRequestDrain: '7', typeHigh: '11:9', status: '63:32' },
  8: { statusAddressLow: '31:2', statusAddressHigh: '63:32' },
});
export const PasidIotlbDescriptor = /* @__PURE__ */ layout('PASID-based IOTLB invalidate', 32, {
  0: { type: '3:0', granularity: oneOf('5:4', { pasid: 2, pages: 3 }), typeHigh: '11:9', domainId: '31:16', pasid: '51:32' },
  8: { addressMask: '5:0', leafOnly: '6', address: address('63:12') },
});
export const PasidCacheDescriptor = /* @__PURE__ */ layout('PASID-cache invalidate', 32, {
  0: { type: '3:0', granularity: oneOf('5:4', { domain: 0, pasid: 1, global: 3 }), typeHigh: '11:9', domainId: '31:16', pasid: '51:32' },
});
export const PasidDeviceTlbDescriptor = /* @__PURE__ */ layout('PASID-based device-TLB invalidate', 32, {
  0: {
    type: '3:0',
    queueDepth: '8:4',
    typeHigh: '11:9',
    physicalSourceLow: '15:12',
    sourceId: '31:16',
    pasid: '51:32',
    physicalSourceHigh: '63:52',
  },
  8: { global: '0', size: '11', addressLow: '31:12', addressHigh: '63:32' },
});
export const PageGroupResponse = /* @__PURE__ */ layout('page group response', 32, {
  0: {
    type: '3:0',
    pasidPresent: '4',
    typeHigh: '11:9',
    code: oneOf('15:12', { success: 0, invalidRequest: 1, failure: 15 }),
    requesterId: '31:16',
    pasid: '51:32',
  },
  8: { lastInGroup: '2', group: '11:3' },
});
/** Descriptors by type. */
export const Descriptor = /* @__PURE__ */ variants(AnyDescriptor, AnyDescriptor.get.type, {
  1: ContextDescriptor,
  2: IotlbDescriptor,
  3: DeviceTlbDescriptor,
  4: InterruptEntryDescriptor,
  5: WaitDescriptor,
  6: PasidIotlbDescriptor,
  7: PasidCacheDescriptor,
  8: PasidDeviceTlbDescriptor,
  9: PageGroupResponse,
});

/** IQER.IQEI, the reason of an invalidation queue error. unconfirmed: the numbers. */
export const QueueError = {
  none: 0,
  descriptorWidth: 1,
  tail: 2,
  fetch: 3,
  type: 4,
  reserved: 5,
  granularity: 6,
  statusWrite: 7,
} as const;

/** A page request as the unit writes it into the page request queue. unconfirmed: the value of `type`. */
export const PageRequest = /* @__PURE__ */ layout('page request', 32, {
  0: {
    type: '7:0',
    pasidPresent: '8',
    requesterId: '31:16',
    pasid: '51:32',
    execute: '52',
    privileged: '53',
  },
  8: { read: '0', write: '1', lastInGroup: '2', group: '11:3', addressLow: '31:12', addressHigh: '63:32' },
});
export const PAGE_REQUEST_TYPE = 1;
