/** What the device has: DEVICE_GET_INFO, GET_REGION_INFO with its capabilities, GET_REGION_IO_FDS, GET_IRQ_INFO. */
import { Errno } from '@siov/layout/uapi';
import { IrqInfoLayout, RegionCap, RegionFlag, RegionInfoLayout, SparseArea, SparseMmap } from '@siov/vfio-mdev/uapi';
import type { RegionInfo, SubRegion } from './ports.js';
import type { CommandRow, Message, Session } from './session.js';
import { Command, DeviceInfo, IoFd, RegionIoFds, ShadowIoFd } from './spec/protocol.js';

const TWO32 = 2 ** 32;
/** The only capabilities of a device: RESET and PCI. The chain of linux/vfio.h is not part of the protocol's structure. */
const DEVICE_FLAGS = 3;
/** Most of a reply. */
const REPLY_BYTES = 65_536;

/** A structure or more, with accessors' words, on its way into the payload. */
const reply = new Uint32Array(REPLY_BYTES / 4);
const replyBytes = new Uint8Array(reply.buffer);

function getInfo(s: Session, m: Message): number {
  const { get, set, bytes } = DeviceInfo;
  if (get.argsz(m.words, 0) < bytes) return -Errno.EINVAL;
  set.argsz(reply, 0, bytes);
  set.flags(reply, 0, s.device.flags & DEVICE_FLAGS);
  set.regions(reply, 0, s.device.regions);
  set.irqs(reply, 0, s.device.irqs);
  return put(s, bytes);
}

function getRegionInfo(s: Session, m: Message): number {
  const { get, set, bytes } = RegionInfoLayout;
  const index = get.index(m.words, 0);
  const argsz = get.argsz(m.words, 0);
  if (argsz < bytes) return -Errno.EINVAL;
  const info = s.regions[index] ?? (s.peer.infoErrors ? undefined : { size: 0, flags: 0 });
  if (!info) return -Errno.EINVAL;
  const file = info.flags & RegionFlag.MMAP && info.size > 0 ? s.device.regionFile?.(index) : undefined;
  const end = file ? sparse(info) : bytes;
  const whole = argsz >= end;
  let flags = info.flags & (RegionFlag.READ | RegionFlag.WRITE);
  if (file && (whole || s.peer.mmapWithoutFile)) flags |= RegionFlag.MMAP;
  if (whole && end > bytes) flags |= RegionFlag.CAPS;
  set.argsz(reply, 0, end);
  set.flags(reply, 0, flags);
  set.index(reply, 0, index);
  set.capOffset(reply, 0, whole && end > bytes ? bytes : 0);
  set.sizeLow(reply, 0, info.size);
  set.sizeHigh(reply, 0, info.size / TWO32);
  set.offsetLow(reply, 0, file?.offset ?? 0);
  set.offsetHigh(reply, 0, (file?.offset ?? 0) / TWO32);
  if (whole && file) s.replyFds.push(file.fd);
  return put(s, whole ? end : bytes);
}

/** Writes the capability of what can be mapped behind the structure; where that ends. */
function sparse({ sparse: areas }: RegionInfo): number {
  if (!areas) return RegionInfoLayout.bytes;
  const at = RegionInfoLayout.bytes / 4;
  SparseMmap.set.id(reply, at, RegionCap.SPARSE_MMAP);
  SparseMmap.set.version(reply, at, 1);
  SparseMmap.set.next(reply, at, 0);
  SparseMmap.set.count(reply, at, areas.length);
  SparseMmap.set.reserved(reply, at, 0);
  for (const [i, { offset, size }] of areas.entries()) {
    const area = at + (SparseMmap.bytes + i * SparseArea.bytes) / 4;
    SparseArea.set.offsetLow(reply, area, offset);
    SparseArea.set.offsetHigh(reply, area, offset / TWO32);
    SparseArea.set.sizeLow(reply, area, size);
    SparseArea.set.sizeHigh(reply, area, size / TWO32);
  }
  return RegionInfoLayout.bytes + SparseMmap.bytes + areas.length * SparseArea.bytes;
}

function getIrqInfo(s: Session, m: Message): number {
  const { get, set, bytes } = IrqInfoLayout;
  const index = get.index(m.words, 0);
  if (get.argsz(m.words, 0) < bytes) return -Errno.EINVAL;
  const info = s.irqs.info(index) ?? (s.peer.infoErrors ? undefined : { count: 0, flags: 0 });
  if (!info) return -Errno.EINVAL;
  set.argsz(reply, 0, bytes);
  set.flags(reply, 0, info.flags);
  set.index(reply, 0, index);
  set.count(reply, 0, info.count);
  return put(s, bytes);
}

/** Sub-regions whose writes come by descriptor. A descriptor that several share is sent once. */
function getIoFds(s: Session, m: Message): number {
  const { get, set, bytes } = RegionIoFds;
  const [argsz, index] = [get.argsz(m.words, 0), get.index(m.words, 0)];
  const info = s.regions[index];
  if (argsz < bytes || get.flags(m.words, 0) !== 0 || get.count(m.words, 0) !== 0 || !info || info.size === 0) return -Errno.EINVAL;
  const subs = s.device.subRegions?.(index) ?? [];
  if (subs.some((sub) => sub.offset + sub.size > info.size)) return -Errno.EINVAL;
  const shadows = subs.some((sub) => sub.shadow);
  const each = shadows ? ShadowIoFd.bytes : IoFd.bytes;
  const fds: number[] = [];
  const indexOf = (fd: number): number => (fds.includes(fd) ? fds.indexOf(fd) : fds.push(fd) - 1);
  for (const [i, sub] of subs.entries()) subRegion(sub, (bytes + i * each) / 4, shadows, indexOf);
  const need = bytes + subs.length * each;
  const whole = argsz >= need && fds.length <= (s.client?.maxMsgFds ?? 0);
  set.argsz(reply, 0, need);
  set.flags(reply, 0, 0);
  set.index(reply, 0, index);
  set.count(reply, 0, subs.length);
  if (whole) s.replyFds.push(...fds);
  return put(s, whole ? need : bytes);
}

function subRegion(sub: SubRegion, at: number, shadows: boolean, indexOf: (fd: number) => number): void {
  const { set, is } = IoFd;
  set.offsetLow(reply, at, sub.offset);
  set.offsetHigh(reply, at, sub.offset / TWO32);
  set.sizeLow(reply, at, sub.size);
  set.sizeHigh(reply, at, sub.size / TWO32);
  set.fdIndex(reply, at, indexOf(sub.fd));
  set.type(reply, at, is.type[sub.type]);
  set.flags(reply, at, sub.flags);
  set.padding(reply, at, 0);
  if (shadows) {
    const shadow = ShadowIoFd.set;
    shadow.shadowFdIndex(reply, at, sub.shadow ? indexOf(sub.shadow.fd) : 0);
    shadow.shadowOffset(reply, at, sub.shadow?.offset ?? 0);
    shadow.padding(reply, at, 0);
  }
  const { dataLow, dataHigh } = shadows ? ShadowIoFd.set : set;
  dataLow(reply, at, sub.data);
  dataHigh(reply, at, sub.data / TWO32);
}

function put(s: Session, bytes: number): number {
  for (let i = 0; i < bytes; i++) s.payload[i] = replyBytes[i]!;
  return bytes;
}

export const infoCommands = {
  [Command.DEVICE_GET_INFO]: { bytes: DeviceInfo.bytes, run: getInfo },
  [Command.DEVICE_GET_REGION_INFO]: { bytes: RegionInfoLayout.bytes, run: getRegionInfo },
  [Command.DEVICE_GET_REGION_IO_FDS]: { bytes: RegionIoFds.bytes, run: getIoFds },
  [Command.DEVICE_GET_IRQ_INFO]: { bytes: IrqInfoLayout.bytes, run: getIrqInfo },
} satisfies Record<number, CommandRow>;
