/**
 * The numbers that the suite and its client speak, typed from linux/vfio.h, errno.h and mman.h and not taken from the packages: the suite
 * is then a second witness of them, and the kit depends on no package.
 */
export const Errno = { EBADF: 9, EFAULT: 14, EINVAL: 22, ENOTTY: 25 } as const;
export const Prot = { NONE: 0, READ: 1, WRITE: 2 } as const;
export const MapFlag = { SHARED: 1, PRIVATE: 2, FIXED: 0x10, ANONYMOUS: 0x20 } as const;
export const Ioctl = {
  SET_IOMMU: 0x3b66,
  GROUP_SET_CONTAINER: 0x3b68,
  GROUP_GET_DEVICE_FD: 0x3b6a,
  DEVICE_GET_INFO: 0x3b6b,
  DEVICE_GET_REGION_INFO: 0x3b6c,
  DEVICE_GET_IRQ_INFO: 0x3b6d,
  DEVICE_SET_IRQS: 0x3b6e,
  DEVICE_RESET: 0x3b6f,
  DEVICE_FEATURE: 0x3b75,
  IOMMU_MAP_DMA: 0x3b71,
  IOMMU_UNMAP_DMA: 0x3b72,
} as const;
export const Extension = { TYPE1: 1, TYPE1v2: 3 } as const;
export const DeviceFlag = { RESET: 1, PCI: 2 } as const;
export const RegionFlag = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;
export const IrqInfoFlag = { EVENTFD: 1 } as const;
export const IrqSetFlag = { DATA_NONE: 1, DATA_BOOL: 2, DATA_EVENTFD: 4, ACTION_MASK: 8, ACTION_UNMASK: 16, ACTION_TRIGGER: 32 } as const;
export const PciRegion = { BAR5: 5, ROM: 6, CONFIG: 7 } as const;
export const PCI_REGIONS = 9;
export const PciIrq = { MSIX: 2, ERR: 3, REQ: 4 } as const;
export const PCI_IRQS = 5;
export const regionOffset = (index: number): number => index * 2 ** 40;
