/** The ioctls of /dev/iommu: each a row of number, structure and action; refusals in the kernel's order. linux/iommufd.h. */
import { join } from '@siov/layout';
import { Errno, Prot } from '@siov/layout/uapi';
import type { Task } from '../ports.js';
import { ExtendedCapability } from '../spec/capabilities.js';
import {
  Destroy,
  HwInfo,
  HwInfoCapability,
  HwInfoType,
  HwInfoVtd,
  HwptAlloc,
  HwptAllocFlag,
  HwptDataType,
  HwptInvalidate,
  HwptInvalidateDataType,
  HwptVtdS1,
  IoasAlloc,
  IoasCopy,
  IoasMap,
  IoasMapFlag,
  IoasUnmap,
  IommufdIoctl,
  IovaRange,
  IovaRanges,
  VTD_S1_INVALIDATE_LEAF,
  VtdS1Flag,
  VtdS1Invalidate,
} from '../spec/iommufd.js';
import { Ioas } from './ioas.js';
import type { HwptObject, IommufdFile } from './iommufd.js';

interface Ioctl {
  /** Bytes of the structure, and how many the caller must give at least. */
  readonly size: number;
  readonly least: number;
  /** The structure goes back to the caller on failure too. */
  readonly alwaysAnswers?: true;
  /** Works on the structure's words, in place; they go back to the caller. */
  run(file: IommufdFile, task: Task, words: Uint32Array): number;
}
/** Words of the longest structure. */
export const MAX_WORDS = 16;
/** From here on a 64-bit value is not exact as a Number; nothing legal is that large. */
const HUGE = 2 ** 53;
const U32 = 0xffff_ffff;

/** Reads a structure from the caller's memory; undefined: EFAULT. */
function fetch(task: Task, address: number, bytes: number): Uint32Array | undefined {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  return task.copyIn(address, new Uint8Array(words.buffer, 0, bytes)) ? undefined : words;
}
const store = (task: Task, address: number, words: Uint32Array, bytes: number): number =>
  task.copyOut(address, new Uint8Array(words.buffer, words.byteOffset, bytes)) ? -Errno.EFAULT : 0;

const destroy: Ioctl = { size: 8, least: 8, run: (file, _task, words) => file.destroy(Destroy.get.id(words, 0)) };

const ioasAlloc: Ioctl = {
  size: 12,
  least: 12,
  run(file, _task, words) {
    if (IoasAlloc.get.flags(words, 0)) return -Errno.EOPNOTSUPP;
    IoasAlloc.set.ioasId(words, 0, file.add({ kind: 'ioas', ioas: new Ioas(), automatic: undefined, hwpts: 0 }));
    return 0;
  },
};

const iovaRanges: Ioctl = {
  size: 32,
  least: 32,
  alwaysAnswers: true,
  run(file, task, words) {
    const { get, set } = IovaRanges;
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const { ranges } = object.ioas;
    const room = get.count(words, 0);
    const to = join(get.allowedHigh(words, 0), get.allowedLow(words, 0));
    const row = new Uint32Array(4);
    for (const [i, [start, end]] of ranges.entries()) {
      if (i >= room) break;
      const all = end === 2 ** 64;
      IovaRange.set.startLow(row, 0, start % 2 ** 32);
      IovaRange.set.startHigh(row, 0, Math.floor(start / 2 ** 32));
      IovaRange.set.lastLow(row, 0, all ? U32 : (end - 1) % 2 ** 32);
      IovaRange.set.lastHigh(row, 0, all ? U32 : Math.floor((end - 1) / 2 ** 32));
      const error = store(task, to + i * IovaRange.bytes, row, IovaRange.bytes);
      if (error) return error;
    }
    set.count(words, 0, ranges.length);
    set.alignmentLow(words, 0, 4096);
    set.alignmentHigh(words, 0, 0);
    return room < ranges.length ? -Errno.EMSGSIZE : 0;
  },
};

const protOf = (flags: number): number => (flags & IoasMapFlag.READABLE ? Prot.READ : 0) | (flags & IoasMapFlag.WRITEABLE ? Prot.WRITE : 0);
const MAP_FLAGS = IoasMapFlag.FIXED_IOVA | IoasMapFlag.WRITEABLE | IoasMapFlag.READABLE;

const ioasMap: Ioctl = {
  size: 40,
  least: 40,
  run(file, task, words) {
    const { get, set } = IoasMap;
    const flags = get.flags(words, 0);
    const iova = join(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = join(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const user = join(get.userHigh(words, 0), get.userLow(words, 0));
    if (flags & ~MAP_FLAGS || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    if (iova >= HUGE || length >= HUGE) return -Errno.EOVERFLOW;
    if (!protOf(flags)) return -Errno.EINVAL;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    if (user >= HUGE) return -Errno.EFAULT;
    const fixed = flags & IoasMapFlag.FIXED_IOVA ? iova : undefined;
    const at = object.ioas.mapUser(task.mm, user, length, fixed, protOf(flags), (flags & IoasMapFlag.WRITEABLE) !== 0);
    if (at < 0) return at;
    set.iovaLow(words, 0, at % 2 ** 32);
    set.iovaHigh(words, 0, Math.floor(at / 2 ** 32));
    return 0;
  },
};

const ioasCopy: Ioctl = {
  size: 40,
  least: 40,
  run(file, _task, words) {
    const { get, set } = IoasCopy;
    const flags = get.flags(words, 0);
    const iova = join(get.destinationHigh(words, 0), get.destinationLow(words, 0));
    const from = join(get.sourceHigh(words, 0), get.sourceLow(words, 0));
    const length = join(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    if (flags & ~MAP_FLAGS) return -Errno.EOPNOTSUPP;
    if (iova >= HUGE || length >= HUGE || from >= HUGE) return -Errno.EOVERFLOW;
    if (!protOf(flags)) return -Errno.EINVAL;
    const source = file.find(get.sourceIoasId(words, 0), 'ioas');
    const destination = file.find(get.destinationIoasId(words, 0), 'ioas');
    if (!source || !destination) return -Errno.ENOENT;
    const fixed = flags & IoasMapFlag.FIXED_IOVA ? iova : undefined;
    const at = destination.ioas.copy(source.ioas, from, length, fixed, protOf(flags));
    if (at < 0) return at;
    set.destinationLow(words, 0, at % 2 ** 32);
    set.destinationHigh(words, 0, Math.floor(at / 2 ** 32));
    return 0;
  },
};

const ioasUnmap: Ioctl = {
  size: 24,
  least: 24,
  run(file, _task, words) {
    const { get, set } = IoasUnmap;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const iova = join(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = join(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const everything = iova === 0 && get.lengthHigh(words, 0) === U32 && get.lengthLow(words, 0) === U32;
    if (!everything && (iova >= HUGE || length >= HUGE)) return -Errno.EOVERFLOW;
    if (length === 0) return -Errno.EINVAL;
    const bytes = everything ? object.ioas.unmapAll() : object.ioas.unmap(iova, length);
    if (bytes < 0) return bytes;
    set.lengthLow(words, 0, bytes % 2 ** 32);
    set.lengthHigh(words, 0, Math.floor(bytes / 2 ** 32));
    return 0;
  },
};

const hwptAlloc: Ioctl = {
  size: 48,
  least: 24,
  run(file, task, words) {
    const { get, set } = HwptAlloc;
    const flags = get.flags(words, 0);
    const type = get.dataType(words, 0);
    if (flags & ~(HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID) || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    if ((type === HwptDataType.NONE) !== (get.dataLength(words, 0) === 0)) return -Errno.EINVAL;
    if (!file.find(get.deviceId(words, 0), 'device')) return -Errno.ENOENT;
    const base = file.objects.get(get.parentId(words, 0));
    if (!base) return -Errno.ENOENT;
    let hwpt: HwptObject | number = -Errno.EINVAL;
    if (base.kind === 'ioas') hwpt = type === HwptDataType.NONE ? file.createPaging(base, flags) : -Errno.EOPNOTSUPP;
    else if (base.kind === 'hwpt') hwpt = nested(file, task, base, flags, words);
    if (typeof hwpt === 'number') return hwpt;
    set.hwptId(words, 0, file.add(hwpt));
    return 0;
  },
};

function nested(file: IommufdFile, task: Task, parent: HwptObject, flags: number, words: Uint32Array): HwptObject | number {
  const { get } = HwptAlloc;
  if (get.dataType(words, 0) !== HwptDataType.VTD_S1) return get.dataType(words, 0) === HwptDataType.NONE ? -Errno.EINVAL : -Errno.EOPNOTSUPP;
  if (parent.domain.kind !== 'paging' || !(parent.flags & HwptAllocFlag.NEST_PARENT) || flags & HwptAllocFlag.NEST_PARENT) return -Errno.EINVAL;
  if (get.dataLength(words, 0) < HwptVtdS1.bytes) return -Errno.EINVAL;
  const data = fetch(task, join(get.dataHigh(words, 0), get.dataLow(words, 0)), HwptVtdS1.bytes);
  if (!data) return -Errno.EFAULT;
  const one = HwptVtdS1.get;
  const known = VtdS1Flag.SRE | VtdS1Flag.EAFE | VtdS1Flag.WPE;
  if (one.flagsLow(data, 0) & ~known || one.flagsHigh(data, 0) || one.reserved(data, 0)) return -Errno.EOPNOTSUPP;
  const root = join(one.tableHigh(data, 0), one.tableLow(data, 0));
  if (root % 4096 || root >= HUGE) return -Errno.EINVAL;
  const domain = file.driver.nestedDomain(parent.domain, root / 4096, one.addressWidth(data, 0), one.flagsLow(data, 0));
  parent.users++;
  return { kind: 'hwpt', domain, ioas: undefined, parent, flags, users: 0 };
}

const getHwInfo: Ioctl = {
  size: 40,
  least: 32,
  run(file, task, words) {
    const { get, set } = HwInfo;
    if (get.flags(words, 0) || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const device = file.find(get.deviceId(words, 0), 'device');
    if (!device) return -Errno.ENOENT;
    const { capability, extended } = file.driver.hardware;
    const info = new Uint32Array(HwInfoVtd.bytes / 4);
    HwInfoVtd.set.capabilityLow(info, 0, capability[0]!);
    HwInfoVtd.set.capabilityHigh(info, 0, capability[1]!);
    HwInfoVtd.set.extendedLow(info, 0, extended[0]!);
    HwInfoVtd.set.extendedHigh(info, 0, extended[1]!);
    const room = get.dataLength(words, 0);
    const to = join(get.dataHigh(words, 0), get.dataLow(words, 0));
    if (room && to) {
      // What the caller has room for, and zeroes behind it.
      const out = new Uint8Array(Math.min(room, 4096));
      out.set(new Uint8Array(info.buffer).subarray(0, out.length));
      if (task.copyOut(to, out)) return -Errno.EFAULT;
    }
    const pasid = file.driver.capabilitiesOf(device.requesterId)?.pasid === true;
    set.dataLength(words, 0, HwInfoVtd.bytes);
    set.dataType(words, 0, HwInfoType.INTEL_VTD);
    set.maxPasidLog2(words, 0, pasid ? ExtendedCapability.get.pasidWidth(extended, 0) + 1 : 0);
    set.capabilitiesLow(words, 0, pasid ? HwInfoCapability.PASID_EXEC | HwInfoCapability.PASID_PRIV : 0);
    return 0;
  },
};

const hwptInvalidate: Ioctl = {
  size: 32,
  least: 32,
  alwaysAnswers: true,
  run(file, task, words) {
    const { get, set } = HwptInvalidate;
    const count = get.entryCount(words, 0);
    const length = get.entryLength(words, 0);
    let done = 0;
    const result = ((): number => {
      if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
      if (get.dataType(words, 0) !== HwptInvalidateDataType.VTD_S1) return -Errno.EINVAL;
      if (count && (length < VtdS1Invalidate.bytes || length > 4096 || count > 2 ** 19)) return -Errno.EINVAL;
      const hwpt = file.find(get.hwptId(words, 0), 'hwpt');
      if (!hwpt) return -Errno.ENOENT;
      if (hwpt.domain.kind !== 'nested') return -Errno.EINVAL;
      const from = join(get.dataHigh(words, 0), get.dataLow(words, 0));
      for (; done < count; done++) {
        const entry = fetch(task, from + done * length, VtdS1Invalidate.bytes);
        if (!entry) return -Errno.EFAULT;
        const one = VtdS1Invalidate.get;
        const flags = one.flags(entry, 0);
        if (flags & ~VTD_S1_INVALIDATE_LEAF || one.reserved(entry, 0)) return -Errno.EOPNOTSUPP;
        const low = one.addressLow(entry, 0);
        const high = one.addressHigh(entry, 0);
        const all = one.pagesLow(entry, 0) === U32 && one.pagesHigh(entry, 0) === U32;
        if (low & 0xfff || (all && (low || high))) return -Errno.EINVAL;
        const pages = join(one.pagesHigh(entry, 0), one.pagesLow(entry, 0));
        if (all || pages) hwpt.domain.invalidate(high | 0, low | 0, all || pages > 2 ** 40 ? -1 : pages, flags === VTD_S1_INVALIDATE_LEAF);
      }
      return 0;
    })();
    set.entryCount(words, 0, done);
    return result;
  },
};

/** By ioctl number. */
export const ioctls: ReadonlyMap<number, Ioctl> = new Map([
  [IommufdIoctl.DESTROY, destroy],
  [IommufdIoctl.IOAS_ALLOC, ioasAlloc],
  [IommufdIoctl.IOAS_IOVA_RANGES, iovaRanges],
  [IommufdIoctl.IOAS_MAP, ioasMap],
  [IommufdIoctl.IOAS_COPY, ioasCopy],
  [IommufdIoctl.IOAS_UNMAP, ioasUnmap],
  [IommufdIoctl.HWPT_ALLOC, hwptAlloc],
  [IommufdIoctl.GET_HW_INFO, getHwInfo],
  [IommufdIoctl.HWPT_INVALIDATE, hwptInvalidate],
]);
