/** Numbers of the kernel that the mock driver needs: the kit depends on no package. asm-generic/errno.h, linux/iommufd.h. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  ENOMEM: 12,
  EFAULT: 14,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EBADE: 52,
  EBADFD: 77,
  EOPNOTSUPP: 95,
} as const;
export const HwptFlag = { NEST_PARENT: 1, DIRTY_TRACKING: 2, FAULT_ID_VALID: 4, PASID: 8 } as const;
/** Requests without PASID; the kernel's structures say 0. */
export const NO_PASID = -1;
/** Bytes of struct iommu_test_cmd, to the end of `last`, and of struct iommu_viommu_selftest. */
export const size = { testCmd: 72, testCmdLeast: 68, viommuData: 24 } as const;
/** drivers/iommu/iommufd/iommufd_test.h; IO_PAGE and HUGE_PAGE: selftest.c. */
export const Mock = {
  CMD: 0x3ba0,
  APERTURE_START: 2 ** 24,
  APERTURE_LAST: 2 ** 31 - 1,
  IO_PAGE: 2048,
  HUGE_PAGE: 512 * 2048,
  PASID_WIDTH: 20,
  HW_INFO_TYPE: 0xfeedbeef,
  HW_INFO_VALUE: 0xdeadbeef,
  HWPT_DATA: 0xdead,
  IOTLB_DEFAULT: 0xbadbeef,
  IOTLB_SLOTS: 4,
  CACHE_DEFAULT: 0xbaddad,
  CACHE_SLOTS: 4,
  INVALIDATE: 0xdeadbeef,
  INVALIDATE_ALL: 1,
  VIOMMU: 0xdeadbeef,
  VEVENTQ: 0xbeefbeef,
  HW_QUEUE: 0xdeadbeef,
  HW_QUEUES: 2,
  /** Attaching it a second time fails, once. */
  PASID_RESERVED: 1024,
} as const;
export const MockDeviceFlag = { NO_DIRTY: 1, HUGE_IOVA: 2, PASID: 4 } as const;
