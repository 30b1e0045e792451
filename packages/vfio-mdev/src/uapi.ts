/**
 * Facts of the VFIO user API: ioctl numbers, structures, flags, indexes, limits. No behaviour. Source: linux/vfio.h. All structures start
 * with `argsz`, the size the caller gives; a 64-bit value is two fields, low and high.
 */
import { layout } from '@siov/layout';
import { io } from '@siov/layout/uapi';

const BASE = 100;
const number = (n: number): number => io(';', BASE + n);
/** The same number means different things on a container, a group and a device. */
export const Ioctl = {
  // container
  GET_API_VERSION: number(0),
  CHECK_EXTENSION: number(1),
  SET_IOMMU: number(2),
  // group
  GROUP_GET_STATUS: number(3),
  GROUP_SET_CONTAINER: number(4),
  GROUP_UNSET_CONTAINER: number(5),
  GROUP_GET_DEVICE_FD: number(6),
  // device
  DEVICE_GET_INFO: number(7),
  DEVICE_GET_REGION_INFO: number(8),
  DEVICE_GET_IRQ_INFO: number(9),
  DEVICE_SET_IRQS: number(10),
  DEVICE_RESET: number(11),
  DEVICE_GET_PCI_HOT_RESET_INFO: number(12),
  DEVICE_PCI_HOT_RESET: number(13),
  DEVICE_IOEVENTFD: number(16),
  DEVICE_FEATURE: number(17),
  DEVICE_BIND_IOMMUFD: number(18),
  DEVICE_ATTACH_IOMMUFD_PT: number(19),
  DEVICE_DETACH_IOMMUFD_PT: number(20),
  // container with a type 1 IOMMU
  IOMMU_GET_INFO: number(12),
  IOMMU_MAP_DMA: number(13),
  IOMMU_UNMAP_DMA: number(14),
  IOMMU_DIRTY_PAGES: number(17),
} as const;
const names = (prefix: RegExp): Readonly<Record<number, string>> =>
  Object.fromEntries(
    Object.entries(Ioctl)
      .filter(([name]) => prefix.test(name))
      .map(([name, value]) => [value, `VFIO_${name}`]),
  );
/** Names by number, for counters and traces: of a container, a group and a device file. */
export const containerIoctlNames = /* @__PURE__ */ names(/^(GET_API|CHECK|SET_IOMMU|IOMMU)/);
export const groupIoctlNames = /* @__PURE__ */ names(/^GROUP/);
export const deviceIoctlNames = /* @__PURE__ */ names(/^DEVICE/);

export const API_VERSION = 0;
/** Arguments of CHECK_EXTENSION; the first two are also those of SET_IOMMU. */
export const Extension = { TYPE1: 1, TYPE1v2: 3, DMA_CC: 4, UNMAP_ALL: 9, UPDATE_VADDR: 10 } as const;

export const GroupStatus = /* @__PURE__ */ layout('vfio_group_status', 8, { 0: { argsz: '31:0' }, 4: { flags: '31:0' } });
export const GroupFlag = { VIABLE: 1, CONTAINER_SET: 2 } as const;

// Container: type 1 IOMMU

/** The kernel's structure ends with 4 bytes of padding; the smallest argsz is 16. */
export const IommuInfo = /* @__PURE__ */ layout('vfio_iommu_type1_info', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { pageSizesLow: '31:0' },
  12: { pageSizesHigh: '31:0' },
  16: { capOffset: '31:0' },
  20: { pad: '31:0' },
});
export const IommuInfoFlag = { PGSIZES: 1, CAPS: 2 } as const;
export const IommuCap = { IOVA_RANGE: 1, MIGRATION: 2, DMA_AVAIL: 3 } as const;
/** Before every capability of a chain: `next` counts from the start of the structure, 0 ends it. */
export const CapHeader = /* @__PURE__ */ layout('vfio_info_cap_header', 8, { 0: { id: '15:0', version: '31:16' }, 4: { next: '31:0' } });
/** Largest bitmap of dirty pages, in bytes. */
export const MAX_DIRTY_BITMAP = 2 ** 28;
/** Mappings a container may have. Module parameter dma_entry_limit. */
export const DMA_ENTRY_LIMIT = 65_535;

export const DmaMap = /* @__PURE__ */ layout('vfio_iommu_type1_dma_map', 32, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { vaddrLow: '31:0' },
  12: { vaddrHigh: '31:0' },
  16: { iovaLow: '31:0' },
  20: { iovaHigh: '31:0' },
  24: { sizeLow: '31:0' },
  28: { sizeHigh: '31:0' },
});
/** READ: the device may read. */
export const DmaMapFlag = { READ: 1, WRITE: 2, VADDR: 4 } as const;
/** A bitmap may follow, see DirtyBitmap. */
export const DmaUnmap = /* @__PURE__ */ layout('vfio_iommu_type1_dma_unmap', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { iovaLow: '31:0' },
  12: { iovaHigh: '31:0' },
  16: { sizeLow: '31:0' },
  20: { sizeHigh: '31:0' },
});
export const DmaUnmapFlag = { GET_DIRTY_BITMAP: 1, ALL: 2, VADDR: 4 } as const;
export const DirtyBitmap = /* @__PURE__ */ layout('vfio_bitmap', 24, {
  0: { pageSizeLow: '31:0' },
  4: { pageSizeHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
  16: { dataLow: '31:0' },
  20: { dataHigh: '31:0' },
});
/** For GET_BITMAP followed by DirtyRange. */
export const DirtyPages = /* @__PURE__ */ layout('vfio_iommu_type1_dirty_bitmap', 8, { 0: { argsz: '31:0' }, 4: { flags: '31:0' } });
export const DirtyPagesFlag = { START: 1, STOP: 2, GET_BITMAP: 4 } as const;
/** Followed by a DirtyBitmap. */
export const DirtyRange = /* @__PURE__ */ layout('vfio_iommu_type1_dirty_bitmap_get', 40, {
  0: { iovaLow: '31:0' },
  4: { iovaHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
  16: { pageSizeLow: '31:0' },
  20: { pageSizeHigh: '31:0' },
  24: { bitmapSizeLow: '31:0' },
  28: { bitmapSizeHigh: '31:0' },
  32: { dataLow: '31:0' },
  36: { dataHigh: '31:0' },
});

// Device

/** Smallest argsz: 16. */
export const DeviceInfo = /* @__PURE__ */ layout('vfio_device_info', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { regions: '31:0' },
  12: { irqs: '31:0' },
  16: { capOffset: '31:0' },
  20: { pad: '31:0' },
});
export const DeviceFlag = { RESET: 1, PCI: 2, CAPS: 128 } as const;

export const RegionInfoLayout = /* @__PURE__ */ layout('vfio_region_info', 32, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { index: '31:0' },
  12: { capOffset: '31:0' },
  16: { sizeLow: '31:0' },
  20: { sizeHigh: '31:0' },
  24: { offsetLow: '31:0' },
  28: { offsetHigh: '31:0' },
});
export const RegionFlag = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;
export const RegionCap = { SPARSE_MMAP: 1, TYPE: 2, MSIX_MAPPABLE: 3 } as const;
/** Followed by `count` areas. */
export const SparseMmap = /* @__PURE__ */ layout('vfio_region_info_cap_sparse_mmap', 16, {
  0: { id: '15:0', version: '31:16' },
  4: { next: '31:0' },
  8: { count: '31:0' },
  12: { reserved: '31:0' },
});
export const SparseArea = /* @__PURE__ */ layout('vfio_region_sparse_mmap_area', 16, {
  0: { offsetLow: '31:0' },
  4: { offsetHigh: '31:0' },
  8: { sizeLow: '31:0' },
  12: { sizeHigh: '31:0' },
});

export const IrqInfoLayout = /* @__PURE__ */ layout('vfio_irq_info', 16, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { index: '31:0' },
  12: { count: '31:0' },
});
export const IrqInfoFlag = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const;
/** Followed by the data: nothing, one byte each, or one int each. */
export const IrqSet = /* @__PURE__ */ layout('vfio_irq_set', 20, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { index: '31:0' },
  12: { start: '31:0' },
  16: { count: '31:0' },
});
export const IrqSetFlag = { DATA_NONE: 1, DATA_BOOL: 2, DATA_EVENTFD: 4, ACTION_MASK: 8, ACTION_UNMASK: 16, ACTION_TRIGGER: 32 } as const;
export const IRQ_SET_DATA = 7;
export const IRQ_SET_ACTION = 0x38;

/** For DEVICE_FEATURE, followed by the feature's data. */
export const DeviceFeature = /* @__PURE__ */ layout('vfio_device_feature', 8, { 0: { argsz: '31:0' }, 4: { flags: '31:0' } });
export const FeatureFlag = { MASK: 0xffff, GET: 1 << 16, SET: 1 << 17, PROBE: 1 << 18 } as const;

/** Smallest argsz: 16. */
export const BindIommufd = /* @__PURE__ */ layout('vfio_device_bind_iommufd', 24, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { iommufd: '31:0' },
  12: { deviceId: '31:0' },
  16: { tokenLow: '31:0' },
  20: { tokenHigh: '31:0' },
});
export const BindFlag = { TOKEN: 1 } as const;
/** Smallest argsz: 12, with a PASID 16. */
export const AttachPt = /* @__PURE__ */ layout('vfio_device_attach_iommufd_pt', 16, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { ptId: '31:0' },
  12: { pasid: '31:0' },
});
/** Smallest argsz: 8, with a PASID 12. */
export const DetachPt = /* @__PURE__ */ layout('vfio_device_detach_iommufd_pt', 12, {
  0: { argsz: '31:0' },
  4: { flags: '31:0' },
  8: { pasid: '31:0' },
});
export const PtFlag = { PASID: 1 } as const;

/** Regions and interrupts of a PCI device. */
export const PciRegion = { BAR0: 0, BAR1: 1, BAR2: 2, BAR3: 3, BAR4: 4, BAR5: 5, ROM: 6, CONFIG: 7, VGA: 8 } as const;
export const PCI_REGIONS = 9;
export const PciIrq = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;
export const PCI_IRQS = 5;
/** A region's place in the device file. Not ABI (programs ask GET_REGION_INFO), but what vfio-pci and the sample drivers use. */
export const REGION_SHIFT = 40;
export const REGION_SPAN = 2 ** REGION_SHIFT;
export const regionOffset = (index: number): number => index * REGION_SPAN;
