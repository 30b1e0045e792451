/** The client's memory: DMA_MAP and DMA_UNMAP. vfio-user.rst, "VFIO_USER_DMA_MAP", "VFIO_USER_DMA_UNMAP". */
import { Errno } from '@siov/layout/uapi';
import { bitmapBytes, DirtyLog } from './dirty.js';
import { MAX_DATA, MAX_DMA_BYTES, MAX_DMA_MAPS, PAGE_BYTES } from './limits.js';
import type { Backing } from './ports.js';
import type { CommandRow, Message, Session } from './session.js';
import { Command, DmaMap, DmaMapFlag, DmaUnmap, DmaUnmapFlag, UnmapBitmap } from './spec/protocol.js';

/** Numbers are exact below this; no address above it is used. */
const TOO_HIGH = 2 ** 53;
const join = (low: number, high: number): number => low + high * 2 ** 32;

function map(s: Session, m: Message): number {
  const { get } = DmaMap;
  const { words } = m;
  const flags = get.flags(words, 0);
  const { READ, WRITE, MMAP, FILE_IO } = DmaMapFlag;
  const offset = join(get.offsetLow(words, 0), get.offsetHigh(words, 0));
  const address = join(get.addressLow(words, 0), get.addressHigh(words, 0));
  const size = join(get.sizeLow(words, 0), get.sizeHigh(words, 0));
  const how = flags & (MMAP | FILE_IO);
  if (get.argsz(words, 0) < DmaMap.bytes || flags & ~(READ | WRITE | MMAP | FILE_IO)) return -Errno.EINVAL;
  if (how === (MMAP | FILE_IO) || (how !== 0 && m.fds.length === 0) || m.fds.length > 1 || size === 0) return -Errno.EINVAL;
  if (size > MAX_DMA_BYTES) return -Errno.ENOSPC;
  if (address % PAGE_BYTES || size % PAGE_BYTES || address + size > TOO_HIGH || offset + size > TOO_HIGH) return -Errno.EINVAL;
  const over = s.dma.overlap(address, size);
  if (over && !(s.peer.mapAgain && over.address === address && over.size === size)) return -s.peer.overlap;
  if (!over && s.dma.mappings.length >= MAX_DMA_MAPS) return -s.peer.tooManyMaps;
  let backing: Backing | undefined;
  const fd = m.fds.shift();
  if (fd !== undefined) {
    const made = s.descriptors!.backing(fd, offset, size, (flags & WRITE) !== 0, how === MMAP ? 'map' : how === FILE_IO ? 'file' : 'any');
    if (typeof made === 'number') return made;
    backing = made;
  }
  const rights = flags & (READ | WRITE);
  if (over) {
    const same = over.flags === rights && over.backing?.key === backing?.key;
    backing?.release();
    return same ? 0 : -s.peer.overlap;
  }
  s.dma.add({ address, size, flags: rights, backing });
  return 0;
}

function unmap(s: Session, m: Message): number {
  const { get, bytes } = DmaUnmap;
  const { words } = m;
  const argsz = get.argsz(words, 0);
  const flags = get.flags(words, 0);
  const address = join(get.addressLow(words, 0), get.addressHigh(words, 0));
  const size = join(get.sizeLow(words, 0), get.sizeHigh(words, 0));
  if (argsz < bytes || argsz > MAX_DATA || ![0, DmaUnmapFlag.GET_DIRTY_BITMAP, DmaUnmapFlag.ALL].includes(flags)) return -Errno.EINVAL;
  let end = bytes;
  if (flags & DmaUnmapFlag.ALL) {
    if (address !== 0 || size !== 0) return -Errno.EINVAL;
    s.dma.removeAll();
  } else {
    const mapping = s.dma.exact(address, size);
    if (flags & DmaUnmapFlag.GET_DIRTY_BITMAP) {
      end = mapping ? bitmapOf(s, m, address, size, argsz) : -Errno.ENOENT;
      if (end < 0) return end;
    }
    if (!mapping && s.peer.unmapUnknown !== 0) return -s.peer.unmapUnknown;
    if (mapping) s.dma.remove(mapping);
  }
  // The reply is the request's entry, and the bitmap.
  for (let i = 0; i < Math.min(end, bytes + UnmapBitmap.bytes); i += 4) s.payloadView.setUint32(i, m.view.getUint32(m.at + i, true), true);
  return end;
}

/** Puts the bitmap into the reply; where that ends, or -EINVAL. */
function bitmapOf(s: Session, m: Message, address: number, size: number, argsz: number): number {
  const from = DmaUnmap.bytes + UnmapBitmap.bytes;
  if (!(s.dma.log instanceof DirtyLog) || m.length < from) return -Errno.EINVAL;
  const view = (at: number): number => m.view.getUint32(m.at + DmaUnmap.bytes + at, true);
  const pageSize = join(view(0), view(4));
  const given = join(view(8), view(12));
  if (!isPowerOfTwo(pageSize)) return -Errno.EINVAL;
  const need = bitmapBytes(size, pageSize);
  if (given < need || from + given > argsz) return -Errno.EINVAL;
  s.payload.fill(0, from, from + given);
  s.dma.log.report(address, size, pageSize, s.payload.subarray(from, from + need));
  return from + given;
}
/** Below 2^53: above it a Number is rounded. */
export const isPowerOfTwo = (n: number): boolean => n >= 1 && n < TOO_HIGH && Number.isInteger(Math.log2(n));

export const memoryCommands = {
  [Command.DMA_MAP]: { bytes: DmaMap.bytes, run: map },
  [Command.DMA_UNMAP]: { bytes: DmaUnmap.bytes, run: unmap },
} satisfies Record<number, CommandRow>;
