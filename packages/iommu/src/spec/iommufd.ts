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
export const HwInfoCapability = { DIRTY_TRACKING: 1, PASID_EXEC: 2, PASID_PRIV: 4 } as const;
export const HwInfoVtd = /* @__PURE__ */ layout('iommu_hw_info_vtd', 24, {
  0: { flags: '31:0' },
  4: { reserved: '31:0' },
  8: { capabilityLow: '31:0', capabilityHigh: '63:32' },
  16: { extendedLow: '31:0', extendedHigh: '63:32' },
});
