/** Ioctls on I/O address spaces; refusals in the kernel's order. linux/iommufd.h; Linux, drivers/iommu/iommufd/ioas.c. */
import { join } from '@siov/layout';
import { Errno, Prot } from '@siov/layout/uapi';
import type { Task } from '../../ports.js';
import {
  AllowIovas,
  ChangeProcess,
  IoasAlloc,
  IoasCopy,
  IoasMap,
  IoasMapFile,
  IoasMapFlag,
  IoasUnmap,
  IovaRange,
  IovaRanges,
  Option,
  OptionId,
  OptionOp,
  VfioIoas,
  VfioIoasOp,
} from '../../spec/iommufd.js';
import type { IommufdFile } from './file.js';
import { type Ioas, LAST_IOVA } from './ioas.js';
import type { IoasObject } from './objects.js';
import type { IovaSpan } from './ops.js';
import { Pages, userSource } from './pages.js';
import { big, fetch, HUGE, highOf, type Ioctl, lowOf, store } from './structures.js';

const PAGE = 4096;
const PAGE_N = 4096n;
const MAP_FLAGS = IoasMapFlag.FIXED_IOVA | IoasMapFlag.WRITEABLE | IoasMapFlag.READABLE;
const protOf = (flags: number): number => (flags & IoasMapFlag.READABLE ? Prot.READ : 0) | (flags & IoasMapFlag.WRITEABLE ? Prot.WRITE : 0);
/** What the copies of a spec's 64-bit field are never allowed to be. */
const isLast = (value: bigint): boolean => value === LAST_IOVA;

export const ioasAlloc: Ioctl = {
  size: 12,
  least: 12,
  run(file, _task, words) {
    if (IoasAlloc.get.flags(words, 0)) return -Errno.EOPNOTSUPP;
    const made = file.createIoas();
    if (typeof made === 'number') return made;
    IoasAlloc.set.ioasId(words, 0, made.id);
    return 0;
  },
};

export const iovaRanges: Ioctl = {
  size: 32,
  least: 32,
  alwaysAnswers: true,
  run(file, task, words) {
    const { get, set } = IovaRanges;
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const { ranges, alignment } = object.ioas;
    const room = get.count(words, 0);
    const to = join(get.allowedHigh(words, 0), get.allowedLow(words, 0));
    const row = new Uint32Array(4);
    for (const [i, { start, last }] of ranges.entries()) {
      if (i >= room) break;
      IovaRange.set.startLow(row, 0, lowOf(start));
      IovaRange.set.startHigh(row, 0, highOf(start));
      IovaRange.set.lastLow(row, 0, lowOf(last));
      IovaRange.set.lastHigh(row, 0, highOf(last));
      const error = store(task, to + i * IovaRange.bytes, row, IovaRange.bytes);
      if (error) return error;
    }
    set.count(words, 0, ranges.length);
    set.alignmentLow(words, 0, lowOf(alignment));
    set.alignmentHigh(words, 0, highOf(alignment));
    return room < ranges.length ? -Errno.EMSGSIZE : 0;
  },
};

/** Ranges to choose from that a caller may name at once. */
const MAX_RANGES = 2 ** 16;

export const allowIovas: Ioctl = {
  size: 24,
  least: 24,
  run(file, task, words) {
    const { get } = AllowIovas;
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const from = join(get.allowedHigh(words, 0), get.allowedLow(words, 0));
    const count = get.count(words, 0);
    if (count > MAX_RANGES) return -Errno.ENOMEM;
    const spans: IovaSpan[] = [];
    for (let i = 0; i < count; i++) {
      const row = fetch(task, from + i * IovaRange.bytes, IovaRange.bytes);
      if (!row) return -Errno.EFAULT;
      const start = big(IovaRange.get.startHigh(row, 0), IovaRange.get.startLow(row, 0));
      const last = big(IovaRange.get.lastHigh(row, 0), IovaRange.get.lastLow(row, 0));
      if (start >= last || spans.some((span) => span.start <= last && span.last >= start)) return -Errno.EINVAL;
      if (file.fails('range')) return -Errno.ENOMEM;
      spans.push({ start, last });
    }
    return object.ioas.allow(spans);
  },
};

/** User memory as pages; -EINVAL, -EOVERFLOW, -ENOMEM. */
function userPages(file: IommufdFile, task: Task, user: bigint, length: bigint, writable: boolean): Pages | number {
  if (length === 0n || length > LAST_IOVA - PAGE_N) return -Errno.EINVAL;
  if (user + length > LAST_IOVA) return -Errno.EOVERFLOW;
  if (file.fails('pages')) return -Errno.ENOMEM;
  const start = user - (user % PAGE_N);
  return new Pages({
    kind: 'user',
    start,
    count: Number((user + length + PAGE_N - 1n) / PAGE_N - user / PAGE_N),
    writable,
    source: userSource(task.mm, Number(start), writable),
    account: file.accountOf(task),
    mm: task.mm,
  });
}

/** Maps user memory; the IOVA, or -errno. Shared with the VFIO ioctls. */
export function mapUser(file: IommufdFile, task: Task, ioas: Ioas, user: bigint, length: bigint, iova: bigint | undefined, prot: number): bigint {
  const pages = userPages(file, task, user, length, (prot & Prot.WRITE) !== 0);
  if (typeof pages === 'number') return BigInt(pages);
  if (length > BigInt(Number.MAX_SAFE_INTEGER)) return -BigInt(Errno.EOVERFLOW);
  return ioas.map([{ pages, startByte: Number(user % PAGE_N), bytes: Number(length) }], iova, prot);
}

export const ioasMap: Ioctl = {
  size: 40,
  least: 40,
  run(file, task, words) {
    const { get, set } = IoasMap;
    const flags = get.flags(words, 0);
    const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const user = big(get.userHigh(words, 0), get.userLow(words, 0));
    if (flags & ~MAP_FLAGS || get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    if (isLast(iova) || isLast(length)) return -Errno.EOVERFLOW;
    if (!protOf(flags)) return -Errno.EINVAL;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const at = mapUser(file, task, object.ioas, user, length, flags & IoasMapFlag.FIXED_IOVA ? iova : undefined, protOf(flags));
    if (at < 0n) return Number(at);
    set.iovaLow(words, 0, lowOf(at));
    set.iovaHigh(words, 0, highOf(at));
    return 0;
  },
};

export const ioasMapFile: Ioctl = {
  size: 40,
  least: 40,
  run(file, task, words) {
    const { get, set } = IoasMapFile;
    const flags = get.flags(words, 0);
    const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const start = big(get.startHigh(words, 0), get.startLow(words, 0));
    if (flags & ~MAP_FLAGS) return -Errno.EOPNOTSUPP;
    if (isLast(iova) || isLast(length)) return -Errno.EOVERFLOW;
    if (!protOf(flags)) return -Errno.EINVAL;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const opened = task.file?.(get.fd(words, 0) | 0);
    if (!opened) return -Errno.EBADF;
    const { memory } = opened;
    if (!memory || length === 0n || start + length > BigInt(HUGE)) return -Errno.EINVAL;
    const buffer = memory.onRevoke !== undefined;
    if (buffer && start + length > BigInt(memory.bytes)) return -Errno.EINVAL;
    if (file.fails('pages')) return -Errno.ENOMEM;
    const first = Number(start / PAGE_N);
    const pages = new Pages({
      kind: buffer ? 'buffer' : 'file',
      start: start - (start % PAGE_N),
      count: Math.ceil(Number(start + length) / PAGE) - first,
      writable: memory.writable,
      source: { pin: (page, count, out, at) => memory.pin(first + page, count, out, at), unpin: (frames, count) => memory.unpin(frames, count) },
      account: file.accountOf(task),
      mm: task.mm,
    });
    const at = object.ioas.map(
      [{ pages, startByte: Number(start % PAGE_N), bytes: Number(length) }],
      flags & IoasMapFlag.FIXED_IOVA ? iova : undefined,
      protOf(flags),
    );
    if (at < 0n) return Number(at);
    const ends = [memory.hold()];
    if (memory.onRevoke)
      ends.push(
        memory.onRevoke(() => {
          for (const each of file.objects.values()) if (each.kind === 'ioas') each.ioas.revoke(pages);
          pages.revoked = true;
        }),
      );
    pages.freed = () => {
      for (const end of ends) end();
    };
    set.iovaLow(words, 0, lowOf(at));
    set.iovaHigh(words, 0, highOf(at));
    return 0;
  },
};

export const ioasCopy: Ioctl = {
  size: 40,
  least: 40,
  run(file, _task, words) {
    const { get, set } = IoasCopy;
    const flags = get.flags(words, 0);
    const iova = big(get.destinationHigh(words, 0), get.destinationLow(words, 0));
    const from = big(get.sourceHigh(words, 0), get.sourceLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    if (flags & ~MAP_FLAGS) return -Errno.EOPNOTSUPP;
    if (isLast(length) || isLast(from) || isLast(iova)) return -Errno.EOVERFLOW;
    if (!protOf(flags)) return -Errno.EINVAL;
    const source = file.find(get.sourceIoasId(words, 0), 'ioas');
    if (!source) return -Errno.ENOENT;
    const parts = source.ioas.partsAt(from, length);
    if (typeof parts === 'number') return parts;
    const target = file.find(get.destinationIoasId(words, 0), 'ioas');
    if (!target) return -Errno.ENOENT;
    const at = target.ioas.map(parts, flags & IoasMapFlag.FIXED_IOVA ? iova : undefined, protOf(flags));
    if (at < 0n) return Number(at);
    set.destinationLow(words, 0, lowOf(at));
    set.destinationHigh(words, 0, highOf(at));
    return 0;
  },
};

export const ioasUnmap: Ioctl = {
  size: 24,
  least: 24,
  run(file, _task, words) {
    const { get, set } = IoasUnmap;
    const object = file.find(get.ioasId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    const everything = iova === 0n && isLast(length);
    if (!everything && (isLast(iova) || isLast(length))) return -Errno.EOVERFLOW;
    if (length === 0n) return -Errno.EINVAL;
    const last = everything ? LAST_IOVA : iova + length - 1n;
    if (last > LAST_IOVA) return -Errno.EOVERFLOW;
    const { bytes, error } = object.ioas.unmap(iova, last);
    if (error) return error;
    if (bytes === 0n && !everything) return -Errno.ENOENT;
    set.lengthLow(words, 0, lowOf(bytes));
    set.lengthHigh(words, 0, highOf(bytes));
    return 0;
  },
};

export const option: Ioctl = {
  size: 24,
  least: 24,
  run(file, _task, words) {
    const { get, set } = Option;
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const value = big(get.valueHigh(words, 0), get.valueLow(words, 0));
    const op = get.op(words, 0);
    const answer = (now: boolean): number => {
      set.valueLow(words, 0, now ? 1 : 0);
      set.valueHigh(words, 0, 0);
      return 0;
    };
    const id = get.option(words, 0);
    if (id === OptionId.RLIMIT_MODE) {
      if (get.objectId(words, 0)) return -Errno.EOPNOTSUPP;
      if (op === OptionOp.GET) return answer(file.accountMode === 'mm');
      if (op !== OptionOp.SET) return -Errno.EOPNOTSUPP;
      if (file.objects.size) return -Errno.EBUSY;
      if (value > 1n) return -Errno.EINVAL;
      file.accountMode = value ? 'mm' : 'user';
      return 0;
    }
    if (id !== OptionId.HUGE_PAGES) return -Errno.EOPNOTSUPP;
    const object = file.find(get.objectId(words, 0), 'ioas');
    if (!object) return -Errno.ENOENT;
    if (op === OptionOp.GET) return answer(object.ioas.largePages);
    if (op !== OptionOp.SET) return -Errno.EOPNOTSUPP;
    return value > 1n ? -Errno.EINVAL : object.ioas.setLargePages(value === 1n);
  },
};

export const vfioIoas: Ioctl = {
  size: 12,
  least: 12,
  run(file, _task, words) {
    const { get, set } = VfioIoas;
    if (get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    switch (get.op(words, 0)) {
      case VfioIoasOp.GET:
        if (!file.vfioIoas) return -Errno.ENODEV;
        set.ioasId(words, 0, file.vfioIoas.id);
        return 0;
      case VfioIoasOp.SET: {
        const object = file.find(get.ioasId(words, 0), 'ioas');
        if (!object) return -Errno.ENOENT;
        file.vfioIoas = object;
        return 0;
      }
      case VfioIoasOp.CLEAR:
        file.vfioIoas = undefined;
        return 0;
      default:
        return -Errno.EOPNOTSUPP;
    }
  },
};

/** The memory of files counts for the caller from now on; user memory cannot change hands. */
export const changeProcess: Ioctl = {
  size: 8,
  least: 8,
  run(file, task, words) {
    if (ChangeProcess.get.reserved(words, 0)) return -Errno.EOPNOTSUPP;
    const spaces = [...file.objects.values()].filter((each): each is IoasObject => each.kind === 'ioas');
    const all = new Set(spaces.flatMap(({ ioas }) => ioas.areas.map(({ pages }) => pages)));
    for (const pages of all) if (pages.kind !== 'file') return -Errno.EINVAL;
    const moving = [...all].filter(({ mm }) => mm !== task.mm);
    const account = file.accountOf(task);
    const refused = account.charge(moving.reduce((sum, { pinned }) => sum + pinned, 0));
    if (refused) return refused;
    for (const pages of moving) pages.move(account, task.mm);
    return 0;
  },
};
