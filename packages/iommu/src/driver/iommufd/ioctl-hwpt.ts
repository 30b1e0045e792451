/** Ioctls on page tables, their dirty bits, and fault queues. linux/iommufd.h; Linux, drivers/iommu/iommufd/hw_pagetable.c, eventq.c. */
import { join } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';
import type { Task } from '../../ports.js';
import {
  DirtyTrackingFlag,
  FaultAlloc,
  GetDirtyBitmap,
  GetDirtyBitmapFlag,
  HwInfo,
  HwInfoFlag,
  HwptAlloc,
  HwptAllocFlag,
  HwptDataType,
  HwptInvalidate,
  SetDirtyTracking,
} from '../../spec/iommufd.js';
import { FaultQueue } from './event-queues.js';
import type { IommufdFile } from './file.js';
import { LAST_IOVA } from './ioas.js';
import type { DeviceObject, FaultObject, HwptObject, IommufdObject, NestedObject, PagingObject, ViommuObject } from './objects.js';
import type { UserData } from './ops.js';
import { big, type Ioctl, userArray, userData } from './structures.js';

const { NEST_PARENT, DIRTY_TRACKING, FAULT_ID_VALID, PASID } = HwptAllocFlag;

export const hwptAlloc: Ioctl = {
  size: 48,
  least: 24,
  run(file, task, words) {
    const { get, set } = HwptAlloc;
    const flags = get.flags(words, 0);
    const type = get.dataType(words, 0);
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    if ((type === HwptDataType.NONE) !== (get.dataLength(words, 0) === 0)) return -Errno.EINVAL;
    const device = file.find(get.deviceId(words, 0), 'device');
    if (!device) return -Errno.ENOENT;
    const data = userData(task, type, get.dataLength(words, 0), get.dataHigh(words, 0), get.dataLow(words, 0));
    const hwpt = tableOn(file, file.objects.get(get.parentId(words, 0)), device, flags, data);
    if (typeof hwpt === 'number') return hwpt;
    if (flags & FAULT_ID_VALID) {
      const fault = file.find(get.faultId(words, 0), 'fault');
      if (!fault) {
        file.destroy(hwpt.id);
        return -Errno.ENOENT;
      }
      hwpt.fault = fault;
      file.listen(hwpt);
    }
    set.hwptId(words, 0, hwpt.id);
    return 0;
  },
};

function tableOn(file: IommufdFile, base: IommufdObject | undefined, device: DeviceObject, flags: number, data: UserData): HwptObject | number {
  switch (base?.kind) {
    case 'ioas':
      if (flags & FAULT_ID_VALID && flags & NEST_PARENT) return -Errno.EOPNOTSUPP;
      if (flags & ~(NEST_PARENT | DIRTY_TRACKING | FAULT_ID_VALID | PASID)) return -Errno.EOPNOTSUPP;
      if (flags & DIRTY_TRACKING && !file.ops.device(device.requesterId)?.dirtyTracking) return -Errno.EOPNOTSUPP;
      return file.createPaging(base, device.requesterId, flags & ~FAULT_ID_VALID, data.bytes ? data : undefined, false, flags);
    case 'paging':
      if (flags & ~(FAULT_ID_VALID | PASID) || !data.bytes || !file.ops.nestedTable) return -Errno.EOPNOTSUPP;
      if (base.automatic || !(base.flags & NEST_PARENT)) return -Errno.EINVAL;
      return nested(file, base, undefined, flags, () => file.ops.nestedTable!(device.requesterId, base.table, flags & ~FAULT_ID_VALID, data));
    case 'viommu':
      if (flags & ~(FAULT_ID_VALID | PASID) || !data.bytes || !base.viommu.nestedTable) return -Errno.EOPNOTSUPP;
      return nested(file, base.parent, base, flags, () => base.viommu.nestedTable!(flags & ~FAULT_ID_VALID, data));
    default:
      return -Errno.EINVAL;
  }
}
function nested(
  file: IommufdFile,
  parent: PagingObject,
  viommu: ViommuObject | undefined,
  flags: number,
  make: () => NestedObject['table'] | number,
): NestedObject | number {
  if (file.fails('nested page table')) return -Errno.ENOMEM;
  const table = make();
  if (typeof table === 'number') return table;
  (viommu ?? parent).users++;
  return file.add<NestedObject>({ kind: 'nested', table, parent, viommu, flags, fault: undefined });
}

export const getHwInfo: Ioctl = {
  size: 40,
  least: 32,
  run(file, task, words) {
    const { get, set } = HwInfo;
    const flags = get.flags(words, 0);
    if (flags & ~HwInfoFlag.INPUT_TYPE || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    // Without the flag the field is for the answer alone.
    if (!(flags & HwInfoFlag.INPUT_TYPE) && get.dataType(words, 0)) return -Errno.EOPNOTSUPP;
    const device = file.find(get.deviceId(words, 0), 'device');
    const facts = device && file.ops.device(device.requesterId);
    if (!facts) return -Errno.ENOENT;
    const info = file.ops.hwInfo(device.requesterId, get.dataType(words, 0));
    if (typeof info === 'number') return info;
    const room = get.dataLength(words, 0);
    const to = join(get.dataHigh(words, 0), get.dataLow(words, 0));
    if (room && to) {
      // What the caller has room for, and zeroes behind it.
      const bytes = new Uint8Array(info.words.buffer, info.words.byteOffset, info.words.byteLength);
      if (task.copyOut(to, bytes.subarray(0, room))) return -Errno.EFAULT;
      const zeroes = new Uint8Array(4096);
      for (let at = bytes.length; at < room; at += zeroes.length)
        if (task.copyOut(to + at, zeroes.subarray(0, Math.min(zeroes.length, room - at)))) return -Errno.EFAULT;
    }
    set.dataLength(words, 0, info.words.byteLength);
    set.dataType(words, 0, info.type);
    set.maxPasidLog2(words, 0, facts.pasidBits);
    set.capabilitiesLow(words, 0, facts.capabilities);
    set.capabilitiesHigh(words, 0, 0);
    return 0;
  },
};

export const hwptInvalidate: Ioctl = {
  size: 32,
  least: 32,
  alwaysAnswers: true,
  run(file, task, words) {
    const { get, set } = HwptInvalidate;
    const count = get.entryCount(words, 0);
    const length = get.entryLength(words, 0);
    const array = userArray(task, get.dataType(words, 0), count, length, get.dataHigh(words, 0), get.dataLow(words, 0));
    set.entryCount(words, 0, 0);
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    if (count && (!length || !(get.dataLow(words, 0) || get.dataHigh(words, 0)))) return -Errno.EINVAL;
    if (length > 4096 || count > 2 ** 19) return -Errno.EINVAL;
    const object = file.objects.get(get.hwptId(words, 0));
    if (!object || object.kind === 'tombstone') return -Errno.ENOENT;
    let result: number = -Errno.EINVAL;
    if (object.kind === 'nested') result = object.table.invalidate(array);
    else if (object.kind === 'viommu') result = object.viommu.invalidate ? object.viommu.invalidate(array) : -Errno.EOPNOTSUPP;
    set.entryCount(words, 0, array.done);
    return result;
  },
};

export const setDirtyTracking: Ioctl = {
  size: 16,
  least: 16,
  run(file, _task, words) {
    const { get } = SetDirtyTracking;
    const flags = get.flags(words, 0);
    if (flags & ~DirtyTrackingFlag.ENABLE || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const object = file.find(get.hwptId(words, 0), 'paging');
    if (!object) return -Errno.ENOENT;
    const { dirty } = object.table;
    if (!dirty) return -Errno.EOPNOTSUPP;
    // A clean start: what was written before does not count.
    if (flags) for (const { iova, bytes } of object.ioas.ioas.areas) dirty.read(iova, BigInt(bytes), true, undefined);
    return dirty.set(flags !== 0);
  },
};

export const getDirtyBitmap: Ioctl = {
  size: 48,
  least: 48,
  run(file, task, words) {
    const { get } = GetDirtyBitmap;
    const flags = get.flags(words, 0);
    if (flags & ~GetDirtyBitmapFlag.NO_CLEAR || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const object = file.find(get.hwptId(words, 0), 'paging');
    if (!object) return -Errno.ENOENT;
    const { ioas } = object.ioas;
    const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const pageSize = big(get.pageSizeHigh(words, 0), get.pageSizeLow(words, 0));
    const last = iova + length - 1n;
    if (last > LAST_IOVA || length === 0n) return -Errno.EOVERFLOW;
    const unaligned = (size: bigint): boolean => ((iova | (last + 1n)) & (size - 1n)) !== 0n;
    if (unaligned(ioas.alignment) || pageSize === 0n || pageSize & (pageSize - 1n) || unaligned(pageSize)) return -Errno.EINVAL;
    const { dirty } = object.table;
    if (!dirty) return -Errno.EOPNOTSUPP;
    const bitmap = new UserBitmap(task, join(get.dataHigh(words, 0), get.dataLow(words, 0)), iova, last, pageSize);
    const slices = ioas.slicesUntilGap(iova, last);
    for (const slice of slices) {
      const refused = dirty.read(slice.iova, slice.last - slice.iova + 1n, !(flags & GetDirtyBitmapFlag.NO_CLEAR), (at, bytes) =>
        bitmap.set(at, bytes),
      );
      if (refused) return refused;
    }
    if (slices.at(-1)?.last !== last) return -Errno.EINVAL;
    return bitmap.failed ? -Errno.EFAULT : 0;
  },
};

/** Bits in user memory, a bit for `pageSize` bytes from `start` on. Bits are set, none is cleared. */
class UserBitmap {
  failed = false;
  private readonly task: Task;
  private readonly address: number;
  private readonly start: bigint;
  private readonly last: bigint;
  private readonly pageSize: bigint;
  constructor(task: Task, address: number, start: bigint, last: bigint, pageSize: bigint) {
    this.task = task;
    this.address = address;
    this.start = start;
    this.last = last;
    this.pageSize = pageSize;
  }
  set(iova: bigint, bytes: bigint): void {
    const from = iova > this.start ? iova : this.start;
    const end = iova + bytes - 1n < this.last ? iova + bytes - 1n : this.last;
    const first = Number((from - this.start) / this.pageSize);
    const final = Number((end - this.start) / this.pageSize);
    const count = (final >>> 3) - (first >>> 3) + 1;
    const map = new Uint8Array(count);
    if (this.task.copyIn(this.address + (first >>> 3), map)) this.failed = true;
    for (let bit = first; bit <= final; bit++) map[(bit >>> 3) - (first >>> 3)]! |= 1 << (bit & 7);
    if (!this.failed && this.task.copyOut(this.address + (first >>> 3), map)) this.failed = true;
  }
}

export const faultAlloc: Ioctl = {
  size: 16,
  least: 16,
  installs: true,
  run(file, task, words) {
    const { get, set } = FaultAlloc;
    if (get.flags(words, 0)) return -Errno.EOPNOTSUPP;
    if (file.fails('fault queue')) return -Errno.ENOMEM;
    const closed = (): void => {
      object.users--;
      file.put();
    };
    const queue = new FaultQueue(({ requesterId, pasid, group }, code) => file.ops.pageResponse(requesterId, pasid, group, code), closed);
    const object = file.add<FaultObject>({ kind: 'fault', queue });
    const fd = task.install?.(queue) ?? -Errno.EMFILE;
    if (fd < 0) {
      file.remove(object.id);
      return fd;
    }
    object.users++;
    file.hold();
    set.faultId(words, 0, object.id);
    set.fd(words, 0, fd);
    return 0;
  },
};
