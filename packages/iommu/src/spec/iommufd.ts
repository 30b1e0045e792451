/** The iommufd user API: ioctl numbers, structures and flags. linux/iommufd.h. */
import { layout } from '@siov/layout';
import { io } from '@siov/layout/uapi';

const number = (n: number): number => io(';', n);
export const IommufdIoctl = {
  DESTROY: number(0x80),
  IOAS_ALLOC: number(0x81),
  IOAS_ALLOW_IOVAS: number(0x82),
  IOAS_COPY: number(0x83),
  IOAS_IOVA_RANGES: number(0x84),
  IOAS_MAP: number(0x85),
  IOAS_UNMAP: number(0x86),
  OPTION: number(0x87),
  VFIO_IOAS: number(0x88),
  HWPT_ALLOC: number(0x89),
  GET_HW_INFO: number(0x8a),
  HWPT_SET_DIRTY_TRACKING: number(0x8b),
  HWPT_GET_DIRTY_BITMAP: number(0x8c),
  HWPT_INVALIDATE: number(0x8d),
  FAULT_QUEUE_ALLOC: number(0x8e),
  IOAS_MAP_FILE: number(0x8f),
  VIOMMU_ALLOC: number(0x90),
  VDEVICE_ALLOC: number(0x91),
  IOAS_CHANGE_PROCESS: number(0x92),
  VEVENTQ_ALLOC: number(0x93),
  HW_QUEUE_ALLOC: number(0x94),
} as const;

/** struct iommu_destroy. */
export const Destroy = /* @__PURE__ */ layout('iommu_destroy', 8, { 0: { size: '31:0' }, 4: { id: '31:0' } });
/** struct iommu_ioas_alloc. */
export const IoasAlloc = /* @__PURE__ */ layout('iommu_ioas_alloc', 12, { 0: { size: '31:0' }, 4: { flags: '31:0' }, 8: { ioasId: '31:0' } });
/** struct iommu_ioas_iova_ranges, and struct iommu_iova_range. */
export const IovaRanges = /* @__PURE__ */ layout('iommu_ioas_iova_ranges', 32, {
  0: { size: '31:0' },
  4: { ioasId: '31:0' },
  8: { count: '31:0' },
  12: { reserved: '31:0' },
  16: { allowedLow: '31:0', allowedHigh: '63:32' },
  24: { alignmentLow: '31:0', alignmentHigh: '63:32' },
});
export const IovaRange = /* @__PURE__ */ layout('iommu_iova_range', 16, {
  0: { startLow: '31:0', startHigh: '63:32' },
  8: { lastLow: '31:0', lastHigh: '63:32' },
});
/** struct iommu_ioas_map. */
export const IoasMap = /* @__PURE__ */ layout('iommu_ioas_map', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { ioasId: '31:0' },
  12: { reserved: '31:0' },
  16: { userLow: '31:0', userHigh: '63:32' },
  24: { lengthLow: '31:0', lengthHigh: '63:32' },
  32: { iovaLow: '31:0', iovaHigh: '63:32' },
});
export const IoasMapFlag = { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 } as const;
/** struct iommu_ioas_copy. */
export const IoasCopy = /* @__PURE__ */ layout('iommu_ioas_copy', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { destinationIoasId: '31:0' },
  12: { sourceIoasId: '31:0' },
  16: { lengthLow: '31:0', lengthHigh: '63:32' },
  24: { destinationLow: '31:0', destinationHigh: '63:32' },
  32: { sourceLow: '31:0', sourceHigh: '63:32' },
});
/** struct iommu_ioas_unmap. */
export const IoasUnmap = /* @__PURE__ */ layout('iommu_ioas_unmap', 24, {
  0: { size: '31:0' },
  4: { ioasId: '31:0' },
  8: { iovaLow: '31:0', iovaHigh: '63:32' },
  16: { lengthLow: '31:0', lengthHigh: '63:32' },
});
/** struct iommu_hwpt_alloc. */
export const HwptAlloc = /* @__PURE__ */ layout('iommu_hwpt_alloc', 48, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { deviceId: '31:0' },
  12: { parentId: '31:0' },
  16: { hwptId: '31:0' },
  20: { reserved: '31:0' },
  24: { dataType: '31:0' },
  28: { dataLength: '31:0' },
  32: { dataLow: '31:0', dataHigh: '63:32' },
  40: { faultId: '31:0' },
  44: { reserved2: '31:0' },
});
export const HwptAllocFlag = { NEST_PARENT: 1, DIRTY_TRACKING: 2, FAULT_ID_VALID: 4, PASID: 8 } as const;
export const HwptDataType = { NONE: 0, VTD_S1: 1 } as const;
/** struct iommu_hwpt_vtd_s1. */
export const HwptVtdS1 = /* @__PURE__ */ layout('iommu_hwpt_vtd_s1', 24, {
  0: { flagsLow: '31:0', flagsHigh: '63:32' },
  8: { tableLow: '31:0', tableHigh: '63:32' },
  16: { addressWidth: '31:0' },
  20: { reserved: '31:0' },
});
export const VtdS1Flag = { SRE: 1, EAFE: 2, WPE: 4 } as const;
/** struct iommu_hwpt_invalidate, and struct iommu_hwpt_vtd_s1_invalidate. */
export const HwptInvalidate = /* @__PURE__ */ layout('iommu_hwpt_invalidate', 32, {
  0: { size: '31:0' },
  4: { hwptId: '31:0' },
  8: { dataLow: '31:0', dataHigh: '63:32' },
  16: { dataType: '31:0' },
  20: { entryLength: '31:0' },
  24: { entryCount: '31:0' },
  28: { reserved: '31:0' },
});
export const VtdS1Invalidate = /* @__PURE__ */ layout('iommu_hwpt_vtd_s1_invalidate', 24, {
  0: { addressLow: '31:0', addressHigh: '63:32' },
  8: { pagesLow: '31:0', pagesHigh: '63:32' },
  16: { flags: '31:0' },
  20: { reserved: '31:0' },
});
export const VTD_S1_INVALIDATE_LEAF = 1;
export const HwptInvalidateDataType = { VTD_S1: 0 } as const;
/** struct iommu_hw_info, and struct iommu_hw_info_vtd. */
export const HwInfo = /* @__PURE__ */ layout('iommu_hw_info', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { deviceId: '31:0' },
  12: { dataLength: '31:0' },
  16: { dataLow: '31:0', dataHigh: '63:32' },
  24: { dataType: '31:0' },
  28: { maxPasidLog2: '7:0', reserved: '31:8' },
  32: { capabilitiesLow: '31:0', capabilitiesHigh: '63:32' },
});
export const HwInfoType = { NONE: 0, INTEL_VTD: 1 } as const;
export const HwInfoFlag = { INPUT_TYPE: 1 } as const;
export const HwInfoCapability = { DIRTY_TRACKING: 1, PASID_EXEC: 2, PASID_PRIV: 4, ATS_NOT_SUPPORTED: 8 } as const;
export const HwInfoVtd = /* @__PURE__ */ layout('iommu_hw_info_vtd', 24, {
  0: { flags: '31:0' },
  4: { reserved: '31:0' },
  8: { capabilityLow: '31:0', capabilityHigh: '63:32' },
  16: { extendedLow: '31:0', extendedHigh: '63:32' },
});
/** struct iommu_ioas_allow_iovas; rows of IovaRange. */
export const AllowIovas = /* @__PURE__ */ layout('iommu_ioas_allow_iovas', 24, {
  0: { size: '31:0' },
  4: { ioasId: '31:0' },
  8: { count: '31:0' },
  12: { reserved: '31:0' },
  16: { allowedLow: '31:0', allowedHigh: '63:32' },
});
/** struct iommu_option. */
export const Option = /* @__PURE__ */ layout('iommu_option', 24, {
  0: { size: '31:0' },
  4: { option: '31:0' },
  8: { op: '15:0', reserved: '31:16' },
  12: { objectId: '31:0' },
  16: { valueLow: '31:0', valueHigh: '63:32' },
});
export const OptionId = { RLIMIT_MODE: 0, HUGE_PAGES: 1 } as const;
export const OptionOp = { SET: 0, GET: 1 } as const;
/** struct iommu_vfio_ioas. */
export const VfioIoas = /* @__PURE__ */ layout('iommu_vfio_ioas', 12, {
  0: { size: '31:0' },
  4: { ioasId: '31:0' },
  8: { op: '15:0', reserved: '31:16' },
});
export const VfioIoasOp = { GET: 0, SET: 1, CLEAR: 2 } as const;
/** struct iommu_hwpt_set_dirty_tracking. */
export const SetDirtyTracking = /* @__PURE__ */ layout('iommu_hwpt_set_dirty_tracking', 16, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { hwptId: '31:0' },
  12: { reserved: '31:0' },
});
export const DirtyTrackingFlag = { ENABLE: 1 } as const;
/** struct iommu_hwpt_get_dirty_bitmap. */
export const GetDirtyBitmap = /* @__PURE__ */ layout('iommu_hwpt_get_dirty_bitmap', 48, {
  0: { size: '31:0' },
  4: { hwptId: '31:0' },
  8: { flags: '31:0' },
  12: { reserved: '31:0' },
  16: { iovaLow: '31:0', iovaHigh: '63:32' },
  24: { lengthLow: '31:0', lengthHigh: '63:32' },
  32: { pageSizeLow: '31:0', pageSizeHigh: '63:32' },
  40: { dataLow: '31:0', dataHigh: '63:32' },
});
export const GetDirtyBitmapFlag = { NO_CLEAR: 1 } as const;
/** struct iommu_fault_alloc. */
export const FaultAlloc = /* @__PURE__ */ layout('iommu_fault_alloc', 16, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { faultId: '31:0' },
  12: { fd: '31:0' },
});
/** struct iommu_hwpt_pgfault: what a fault queue's file reads as. */
export const PageFault = /* @__PURE__ */ layout('iommu_hwpt_pgfault', 40, {
  0: { flags: '31:0' },
  4: { deviceId: '31:0' },
  8: { pasid: '31:0' },
  12: { group: '31:0' },
  16: { permissions: '31:0' },
  20: { reserved: '31:0' },
  24: { addressLow: '31:0', addressHigh: '63:32' },
  32: { length: '31:0' },
  36: { cookie: '31:0' },
});
export const PageFaultFlag = { PASID_VALID: 1, LAST_PAGE: 2 } as const;
export const PageFaultPermission = { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 } as const;
/** struct iommu_hwpt_page_response: what is written to it. */
export const PageAnswer = /* @__PURE__ */ layout('iommu_hwpt_page_response', 8, { 0: { cookie: '31:0' }, 4: { code: '31:0' } });
export const PageAnswerCode = { SUCCESS: 0, INVALID: 1 } as const;
/** struct iommu_ioas_map_file. */
export const IoasMapFile = /* @__PURE__ */ layout('iommu_ioas_map_file', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { ioasId: '31:0' },
  12: { fd: '31:0' },
  16: { startLow: '31:0', startHigh: '63:32' },
  24: { lengthLow: '31:0', lengthHigh: '63:32' },
  32: { iovaLow: '31:0', iovaHigh: '63:32' },
});
/** struct iommu_viommu_alloc. */
export const ViommuAlloc = /* @__PURE__ */ layout('iommu_viommu_alloc', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { type: '31:0' },
  12: { deviceId: '31:0' },
  16: { hwptId: '31:0' },
  20: { viommuId: '31:0' },
  24: { dataLength: '31:0' },
  28: { reserved: '31:0' },
  32: { dataLow: '31:0', dataHigh: '63:32' },
});
/** SIOV_VTD is ours ('siov'): the kernel has no type for VT-d. Its vEVENTQ and its invalidation have the same number. */
export const ViommuType = { DEFAULT: 0, SIOV_VTD: 0x73696f76 } as const;
/**
 * A cache invalidation of a vIOMMU of type SIOV_VTD; ours: a virtual device and a guest PASID in place of a HWPT's id, then the fields of
 * iommu_hwpt_vtd_s1_invalidate. PASID 0: requests without PASID.
 */
export const ViommuVtdInvalidate = /* @__PURE__ */ layout('siov_viommu_vtd_invalidate', 32, {
  0: { deviceLow: '31:0', deviceHigh: '63:32' },
  8: { pasid: '31:0' },
  12: { flags: '31:0' },
  16: { addressLow: '31:0', addressHigh: '63:32' },
  24: { pagesLow: '31:0', pagesHigh: '63:32' },
});
/** An event of a vIOMMU of type SIOV_VTD; ours: a translation fault of a virtual device. */
export const VeventVtd = /* @__PURE__ */ layout('siov_vevent_vtd', 24, {
  0: { deviceLow: '31:0', deviceHigh: '63:32' },
  8: { addressLow: '31:0', addressHigh: '63:32' },
  16: { pasid: '31:0' },
  20: { reason: '7:0', pasidPresent: '8', read: '9', reserved: '31:10' },
});
/** struct iommu_vdevice_alloc. */
export const VdeviceAlloc = /* @__PURE__ */ layout('iommu_vdevice_alloc', 24, {
  0: { size: '31:0' },
  4: { viommuId: '31:0' },
  8: { deviceId: '31:0' },
  12: { vdeviceId: '31:0' },
  16: { virtualLow: '31:0', virtualHigh: '63:32' },
});
/** struct iommu_ioas_change_process. */
export const ChangeProcess = /* @__PURE__ */ layout('iommu_ioas_change_process', 8, { 0: { size: '31:0' }, 4: { reserved: '31:0' } });
/** struct iommu_veventq_alloc. */
export const VeventqAlloc = /* @__PURE__ */ layout('iommu_veventq_alloc', 32, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { viommuId: '31:0' },
  12: { type: '31:0' },
  16: { depth: '31:0' },
  20: { veventqId: '31:0' },
  24: { fd: '31:0' },
  28: { reserved: '31:0' },
});
/** struct iommufd_vevent_header. */
export const VeventHeader = /* @__PURE__ */ layout('iommufd_vevent_header', 8, { 0: { flags: '31:0' }, 4: { sequence: '31:0' } });
export const VeventFlag = { LOST_EVENTS: 1 } as const;
/** struct iommu_hw_queue_alloc. */
export const HwQueueAlloc = /* @__PURE__ */ layout('iommu_hw_queue_alloc', 40, {
  0: { size: '31:0' },
  4: { flags: '31:0' },
  8: { viommuId: '31:0' },
  12: { type: '31:0' },
  16: { index: '31:0' },
  20: { queueId: '31:0' },
  24: { iovaLow: '31:0', iovaHigh: '63:32' },
  32: { lengthLow: '31:0', lengthHigh: '63:32' },
});
