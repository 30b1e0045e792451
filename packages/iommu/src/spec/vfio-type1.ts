/** The ioctls of a VFIO container that a file of /dev/iommu has too. linux/vfio.h. */
import { layout } from '@siov/layout';
import { io } from '@siov/layout/uapi';

const number = (n: number): number => io(';', 100 + n);
export const VfioIoctl = {
  GET_API_VERSION: number(0),
  CHECK_EXTENSION: number(1),
  SET_IOMMU: number(2),
  GET_INFO: number(12),
  MAP_DMA: number(13),
  UNMAP_DMA: number(14),
} as const;
export const VfioExtension = { TYPE1: 1, TYPE1V2: 3, DMA_CC: 4, UNMAP_ALL: 9 } as const;
/** struct vfio_iommu_type1_info; the smallest argsz is 16. */
export const VfioInfo = /* @__PURE__ */ layout('vfio_iommu_type1_info', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { pageSizesLow: '31:0', pageSizesHigh: '63:32' },
  16: { capOffset: '31:0', pad: '63:32' },
});
export const VfioInfoFlag = { PGSIZES: 1, CAPS: 2 } as const;
export const VfioCap = { IOVA_RANGE: 1, DMA_AVAIL: 3 } as const;
/** struct vfio_iommu_type1_dma_map. */
export const VfioDmaMap = /* @__PURE__ */ layout('vfio_iommu_type1_dma_map', 32, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { userLow: '31:0', userHigh: '63:32' },
  16: { iovaLow: '31:0', iovaHigh: '63:32' },
  24: { lengthLow: '31:0', lengthHigh: '63:32' },
});
/** struct vfio_iommu_type1_dma_unmap. */
export const VfioDmaUnmap = /* @__PURE__ */ layout('vfio_iommu_type1_dma_unmap', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { iovaLow: '31:0', iovaHigh: '63:32' },
  16: { lengthLow: '31:0', lengthHigh: '63:32' },
});
/** UNMAP_ALL belongs to the second structure. */
export const VfioDmaFlag = { READ: 1, WRITE: 2, UNMAP_ALL: 2 } as const;
