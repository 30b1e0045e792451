/**
 * The ioctls of a VFIO container with a type 1 IOMMU, on a file of /dev/iommu: they work on the compatibility IOAS. linux/vfio.h; Linux,
 * drivers/iommu/iommufd/vfio_compat.c.
 */
import { Errno, Prot } from '@siov/layout/uapi';
import type { Task } from '../../ports.js';
import { VfioCap, VfioDmaFlag, VfioDmaMap, VfioDmaUnmap, VfioExtension, VfioInfo, VfioInfoFlag, VfioIoctl } from '../../spec/vfio-type1.js';
import type { IommufdFile } from './file.js';
import { type Ioas, LAST_IOVA } from './ioas.js';
import { mapUser } from './ioctl-ioas.js';
import { big, fetch, highOf, lowOf, store } from './structures.js';

export function vfioIoctl(file: IommufdFile, task: Task, number: number, argument: number): number {
  switch (number) {
    case VfioIoctl.GET_API_VERSION:
      return 0;
    case VfioIoctl.CHECK_EXTENSION:
      return extension(file, argument);
    case VfioIoctl.SET_IOMMU:
      if (argument !== VfioExtension.TYPE1 && argument !== VfioExtension.TYPE1V2) return -Errno.EINVAL;
      if (!file.vfioIoas) return -Errno.ENODEV;
      // The old interface may unmap in the middle of a mapping: no page may be larger than that.
      return argument === VfioExtension.TYPE1 ? file.vfioIoas.ioas.setLargePages(false) : 0;
    case VfioIoctl.GET_INFO:
      return info(file, task, argument);
    case VfioIoctl.MAP_DMA:
      return mapDma(file, task, argument);
    case VfioIoctl.UNMAP_DMA:
      return unmapDma(file, task, argument);
    default:
      return -Errno.ENOTTY;
  }
}

function extension(file: IommufdFile, argument: number): number {
  switch (argument) {
    case VfioExtension.TYPE1:
    case VfioExtension.TYPE1V2:
    case VfioExtension.UNMAP_ALL:
      return 1;
    case VfioExtension.DMA_CC:
      // Every page table of this model snoops.
      return file.vfioIoas ? 1 : -Errno.ENODEV;
    default:
      return 0;
  }
}

function mapDma(file: IommufdFile, task: Task, argument: number): number {
  const words = fetch(task, argument, VfioDmaMap.bytes);
  if (!words) return -Errno.EFAULT;
  const { get } = VfioDmaMap;
  const flags = get.flags(words, 0);
  if (get.argsz(words, 0) < VfioDmaMap.bytes || flags & ~(VfioDmaFlag.READ | VfioDmaFlag.WRITE)) return -Errno.EINVAL;
  if (!file.vfioIoas) return -Errno.ENODEV;
  const prot = (flags & VfioDmaFlag.READ ? Prot.READ : 0) | (flags & VfioDmaFlag.WRITE ? Prot.WRITE : 0);
  const user = big(get.userHigh(words, 0), get.userLow(words, 0));
  const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
  const at = mapUser(file, task, file.vfioIoas.ioas, user, length, big(get.iovaHigh(words, 0), get.iovaLow(words, 0)), prot);
  return at < 0n ? Number(at) : 0;
}

function unmapDma(file: IommufdFile, task: Task, argument: number): number {
  const words = fetch(task, argument, VfioDmaUnmap.bytes);
  if (!words) return -Errno.EFAULT;
  const { get, set } = VfioDmaUnmap;
  const flags = get.flags(words, 0);
  if (get.argsz(words, 0) < VfioDmaUnmap.bytes || flags & ~VfioDmaFlag.UNMAP_ALL) return -Errno.EINVAL;
  if (!file.vfioIoas) return -Errno.ENODEV;
  const { ioas } = file.vfioIoas;
  const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
  const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
  let last = LAST_IOVA;
  if (flags & VfioDmaFlag.UNMAP_ALL) {
    if (iova || length) return -Errno.EINVAL;
  } else {
    last = iova + length - 1n;
    if (!ioas.largePages)
      for (const end of iova ? [last, iova - 1n] : [last]) {
        const refused = ioas.cut(end & LAST_IOVA);
        if (refused) return refused;
      }
    if (length === 0n) return -Errno.EINVAL;
    if (last > LAST_IOVA) return -Errno.EOVERFLOW;
  }
  const { bytes, error } = ioas.unmap(iova, last);
  set.lengthLow(words, 0, lowOf(bytes));
  set.lengthHigh(words, 0, highOf(bytes));
  return store(task, argument, words, VfioDmaUnmap.bytes) || error;
}

/** Two capabilities behind the structure: how many mappings may still be made, and where. What does not fit is left out, and the size is told. */
function info(file: IommufdFile, task: Task, argument: number): number {
  const { get, set, bytes } = VfioInfo;
  const least = 16;
  const words = new Uint32Array(bytes / 4);
  if (task.copyIn(argument, new Uint8Array(words.buffer, 0, least))) return -Errno.EFAULT;
  const room = get.argsz(words, 0);
  if (room < least) return -Errno.EINVAL;
  if (!file.vfioIoas) return -Errno.ENODEV;
  const { ioas } = file.vfioIoas;
  const sizes = pageSizes(ioas);
  set.pageSizesLow(words, 0, lowOf(sizes));
  set.pageSizesHigh(words, 0, highOf(sizes));
  const caps = [Uint32Array.of(VfioCap.DMA_AVAIL | (1 << 16), 0, 0xffff_ffff, 0), rangesCap(ioas)];
  // As many bytes of each as the kernel's structure has: the first one's 12 are rounded up.
  const lengths = [12, caps[1]!.byteLength];
  let total = bytes;
  for (const [i, cap] of caps.entries()) {
    const next = total + Math.ceil(lengths[i]! / 8) * 8;
    if (i < caps.length - 1 && room >= next) cap[1] = next;
    const fits = Math.min(lengths[i]!, Math.max(0, room - total));
    if (fits === lengths[i] && task.copyOut(argument + total, new Uint8Array(cap.buffer, 0, fits))) return -Errno.EFAULT;
    total = next;
  }
  set.flags(words, 0, VfioInfoFlag.PGSIZES | VfioInfoFlag.CAPS);
  set.capOffset(words, 0, room >= total ? bytes : 0);
  set.argsz(words, 0, total);
  return store(task, argument, words, Math.min(room, bytes));
}
const PAGE_MASK = ~0xfffn & LAST_IOVA;
function pageSizes({ pageSizes: common, alignment }: Ioas): bigint {
  let sizes = common === undefined ? LAST_IOVA : BigInt(common >>> 0);
  if (sizes & ~PAGE_MASK) sizes = (sizes & PAGE_MASK) | 0x1000n;
  return sizes > alignment ? sizes : alignment;
}
function rangesCap({ ranges }: Ioas): Uint32Array {
  const cap = new Uint32Array(4 + ranges.length * 4);
  cap[0] = VfioCap.IOVA_RANGE | (1 << 16);
  cap[2] = ranges.length;
  for (const [i, { start, last }] of ranges.entries()) cap.set([lowOf(start), highOf(start), lowOf(last), highOf(last)], 4 + i * 4);
  return cap;
}
