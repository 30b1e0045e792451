/**
 * What a program does with an open device, whichever way it was opened: information, interrupts, reset, and its regions by offset.
 * linux/vfio.h, "DEVICE" ioctls; regions lie at index << 40.
 */
import { Errno, MapFlag } from '@siov/layout/uapi';
import { CapabilityChain } from './capabilities.js';
import type { OpenFile, RegionInfo, Sink, Task, VfioDevice, VmArea } from './ports.js';
import { setIrqs } from './set-irqs.js';
import { highOf, lowOf, Structure } from './structure.js';
import {
  DeviceFeature,
  DeviceFlag,
  DeviceInfo,
  FeatureFlag,
  Ioctl,
  IrqInfoLayout,
  IrqSet,
  PciRegion,
  REGION_SPAN,
  RegionCap,
  RegionFlag,
  RegionInfoLayout,
  SparseArea,
  SparseMmap,
} from './uapi.js';

/** One piece of a transfer, so that a length of gigabytes takes no memory. */
const CHUNK = 4096;

export class DeviceAccess {
  readonly device: VfioDevice;
  private readonly isEventFd: (file: OpenFile) => Sink | undefined;
  private readonly room = new Structure(DeviceInfo, RegionInfoLayout, IrqInfoLayout, IrqSet, DeviceFeature);
  private readonly chunk = new Uint8Array(CHUNK);

  constructor(device: VfioDevice, isEventFd: (file: OpenFile) => Sink | undefined) {
    this.device = device;
    this.isEventFd = isEventFd;
  }

  ioctl(task: Task, number: number, address: number): number {
    switch (number) {
      case Ioctl.DEVICE_GET_INFO:
        return this.info(task, address);
      case Ioctl.DEVICE_GET_REGION_INFO:
        return this.regionInfo(task, address);
      case Ioctl.DEVICE_GET_IRQ_INFO:
        return this.irqInfo(task, address);
      case Ioctl.DEVICE_SET_IRQS:
        return setIrqs(this.device, this.room, this.isEventFd, task, address);
      case Ioctl.DEVICE_RESET:
        return this.device.flags & DeviceFlag.RESET ? this.device.reset() : -Errno.EINVAL;
      case Ioctl.DEVICE_FEATURE:
        return this.feature(task, address);
      default:
        return -Errno.ENOTTY;
    }
  }

  read(task: Task, address: number, length: number, at: number): number {
    return this.transfer(task, address, length, at, false);
  }

  write(task: Task, address: number, length: number, at: number): number {
    return this.transfer(task, address, length, at, true);
  }

  mmap(area: VmArea): number {
    if (!(area.flags & MapFlag.SHARED)) return -Errno.EINVAL;
    const index = Math.floor(area.offset / REGION_SPAN);
    const offset = area.offset % REGION_SPAN;
    const info = this.region(index);
    if (typeof info === 'number') return info;
    const end = offset + area.length;
    if (!(info.flags & RegionFlag.MMAP) || end > Math.ceil(info.size / 4096) * 4096) return -Errno.EINVAL;
    if (info.sparse && !info.sparse.some((each) => offset >= each.offset && end <= each.offset + each.size)) return -Errno.EINVAL;
    return this.device.mmap(area, index, offset);
  }

  private region(index: number): RegionInfo | number {
    return index < this.device.regions ? this.device.regionInfo(index) : -Errno.EINVAL;
  }

  private info(task: Task, address: number): number {
    const { words } = this.room;
    const smallest = 16;
    const refused = this.room.copyIn(task, address, smallest);
    if (refused) return refused;
    const { get, set } = DeviceInfo;
    set.flags(words, 0, this.device.flags);
    set.regions(words, 0, this.device.regions);
    set.irqs(words, 0, this.device.irqs);
    return this.room.copyOut(task, address, Math.min(get.argsz(words, 0), DeviceInfo.bytes));
  }

  private regionInfo(task: Task, address: number): number {
    const { words } = this.room;
    const { get, set, bytes } = RegionInfoLayout;
    const refused = this.room.copyIn(task, address, bytes);
    if (refused) return refused;
    const index = get.index(words, 0);
    const info = this.region(index);
    if (typeof info === 'number') return info;
    const chain = regionCapabilities(info);
    const fits = get.argsz(words, 0) >= chain.need;
    set.flags(words, 0, info.flags | (chain.empty ? 0 : RegionFlag.CAPS));
    set.capOffset(words, 0, chain.empty || !fits ? 0 : bytes);
    if (!fits) set.argsz(words, 0, chain.need);
    set.sizeLow(words, 0, lowOf(info.size));
    set.sizeHigh(words, 0, highOf(info.size));
    set.offsetLow(words, 0, 0);
    set.offsetHigh(words, 0, index * highOf(REGION_SPAN));
    return (fits && chain.copyOut(task, address)) || this.room.copyOut(task, address, bytes);
  }

  private irqInfo(task: Task, address: number): number {
    const { words } = this.room;
    const { get, set, bytes } = IrqInfoLayout;
    const refused = this.room.copyIn(task, address, bytes);
    if (refused) return refused;
    const index = get.index(words, 0);
    const info = index < this.device.irqs ? this.device.irqInfo(index) : -Errno.EINVAL;
    if (typeof info === 'number') return info;
    set.flags(words, 0, info.flags);
    set.count(words, 0, info.count);
    return this.room.copyOut(task, address, bytes);
  }

  /** No feature is offered: what remains is the order of the refusals. */
  private feature(task: Task, address: number): number {
    const { words } = this.room;
    const refused = this.room.copyIn(task, address, DeviceFeature.bytes);
    if (refused) return refused;
    const flags = DeviceFeature.get.flags(words, 0);
    const { MASK, GET, SET, PROBE } = FeatureFlag;
    if (flags & ~(MASK | GET | SET | PROBE) || !(flags & (GET | SET | PROBE))) return -Errno.EINVAL;
    if ((flags & (GET | SET)) === (GET | SET) && !(flags & PROBE)) return -Errno.EINVAL;
    return -Errno.ENOTTY;
  }

  /** pread and pwrite: as far as the region goes; an error counts only when nothing was done before it. */
  private transfer(task: Task, address: number, length: number, at: number, writing: boolean): number {
    const index = Math.floor(at / REGION_SPAN);
    const offset = at % REGION_SPAN;
    const info = this.region(index);
    if (typeof info === 'number') return info;
    if (!(info.flags & (writing ? RegionFlag.WRITE : RegionFlag.READ))) return -Errno.EINVAL;
    if (offset >= info.size) return index === PciRegion.CONFIG ? -Errno.EFAULT : -Errno.EINVAL;
    const end = Math.min(offset + length, info.size);
    let done = 0;
    for (let from = offset; from < end; ) {
      const piece = this.chunk.subarray(0, Math.min(CHUNK - (from % CHUNK), end - from));
      if (writing && task.copyIn(address + done, piece) < 0) return done || -Errno.EFAULT;
      const result = writing ? this.device.write(index, from, piece) : this.device.read(index, from, piece);
      if (result < 0) return done || result;
      if (!writing && task.copyOut(address + done, piece.subarray(0, result)) < 0) return done || -Errno.EFAULT;
      done += result;
      if (result < piece.length) break;
      from += result;
    }
    return done;
  }
}

function regionCapabilities({ sparse, msixMappable }: RegionInfo): CapabilityChain {
  const chain = new CapabilityChain(RegionInfoLayout.bytes);
  if (msixMappable) chain.add(RegionCap.MSIX_MAPPABLE, 1, 8);
  if (sparse) {
    const words = chain.add(RegionCap.SPARSE_MMAP, 1, SparseMmap.bytes + sparse.length * SparseArea.bytes);
    SparseMmap.set.count(words, 0, sparse.length);
    sparse.forEach(({ offset, size }, i) => {
      const at = (SparseMmap.bytes + i * SparseArea.bytes) / 4;
      SparseArea.set.offsetLow(words, at, lowOf(offset));
      SparseArea.set.offsetHigh(words, at, highOf(offset));
      SparseArea.set.sizeLow(words, at, lowOf(size));
      SparseArea.set.sizeHigh(words, at, highOf(size));
    });
  }
  return chain;
}
