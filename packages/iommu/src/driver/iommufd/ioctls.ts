/** The ioctls of /dev/iommu by number. linux/iommufd.h. */
import { Destroy, IommufdIoctl } from '../../spec/iommufd.js';
import { faultAlloc, getDirtyBitmap, getHwInfo, hwptAlloc, hwptInvalidate, setDirtyTracking } from './ioctl-hwpt.js';
import { allowIovas, changeProcess, ioasAlloc, ioasCopy, ioasMap, ioasMapFile, ioasUnmap, iovaRanges, option, vfioIoas } from './ioctl-ioas.js';
import { hwQueueAlloc, vdeviceAlloc, veventqAlloc, viommuAlloc } from './ioctl-viommu.js';
import type { Ioctl } from './structures.js';

/** Words of the longest structure, a driver's own included. */
export const MAX_WORDS = 32;

const destroy: Ioctl = { size: 8, least: 8, run: (file, _task, words) => file.destroy(Destroy.get.id(words, 0)) };

export const ioctls: ReadonlyMap<number, Ioctl> = new Map([
  [IommufdIoctl.DESTROY, destroy],
  [IommufdIoctl.IOAS_ALLOC, ioasAlloc],
  [IommufdIoctl.IOAS_ALLOW_IOVAS, allowIovas],
  [IommufdIoctl.IOAS_COPY, ioasCopy],
  [IommufdIoctl.IOAS_IOVA_RANGES, iovaRanges],
  [IommufdIoctl.IOAS_MAP, ioasMap],
  [IommufdIoctl.IOAS_UNMAP, ioasUnmap],
  [IommufdIoctl.OPTION, option],
  [IommufdIoctl.VFIO_IOAS, vfioIoas],
  [IommufdIoctl.HWPT_ALLOC, hwptAlloc],
  [IommufdIoctl.GET_HW_INFO, getHwInfo],
  [IommufdIoctl.HWPT_SET_DIRTY_TRACKING, setDirtyTracking],
  [IommufdIoctl.HWPT_GET_DIRTY_BITMAP, getDirtyBitmap],
  [IommufdIoctl.HWPT_INVALIDATE, hwptInvalidate],
  [IommufdIoctl.FAULT_QUEUE_ALLOC, faultAlloc],
  [IommufdIoctl.IOAS_MAP_FILE, ioasMapFile],
  [IommufdIoctl.VIOMMU_ALLOC, viommuAlloc],
  [IommufdIoctl.VDEVICE_ALLOC, vdeviceAlloc],
  [IommufdIoctl.IOAS_CHANGE_PROCESS, changeProcess],
  [IommufdIoctl.VEVENTQ_ALLOC, veventqAlloc],
  [IommufdIoctl.HW_QUEUE_ALLOC, hwQueueAlloc],
]);
