/** Memory slots: which guest addresses are which addresses of the VMM's process. Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION. */
import { Errno } from '@siov/layout/uapi';
import { MAX_MEMSLOTS, MemoryFlag, MemoryRegion } from './uapi.js';

export interface Memslot {
  readonly id: number;
  readonly firstFrame: number;
  readonly frames: number;
  /** Address in the VMM's process, in bytes. */
  readonly user: number;
  readonly readOnly: boolean;
}
/** User addresses end here. */
const USER_END = 2 ** 47;
const GUEST_END = 2 ** 43;
const NOWHERE: Memslot = { id: -1, firstFrame: 0, frames: 0, user: 0, readOnly: false };

export class Memslots {
  private list: Memslot[] = [];
  private last = NOWHERE;
  private readonly removed: (slot: Memslot) => void;

  /** `removed` is told of every slot that is taken away or changed, when it is out of the list. */
  constructor(removed: (slot: Memslot) => void) {
    this.removed = removed;
  }

  /** By guest address. */
  get all(): readonly Memslot[] {
    return this.list;
  }

  find(guestFrame: number): Memslot | undefined {
    const { last, list } = this;
    if ((guestFrame - last.firstFrame) >>> 0 < last.frames) return last;
    for (const slot of list) if ((guestFrame - slot.firstFrame) >>> 0 < slot.frames) return (this.last = slot);
    return undefined;
  }

  /** 0 or -errno, in the kernel's order. */
  set(words: Uint32Array): number {
    const { get } = MemoryRegion;
    const id = get.slot(words, 0);
    const flags = get.flags(words, 0);
    const size = exact(get.sizeHigh(words, 0), get.sizeLow(words, 0));
    const guest = exact(get.guestHigh(words, 0), get.guestLow(words, 0));
    const user = exact(get.userHigh(words, 0), get.userLow(words, 0));
    // Dirty logging is not here.
    if (flags & ~MemoryFlag.READONLY) return -Errno.EINVAL;
    if (size % 4096 || guest % 4096 || user % 4096 || user + size > USER_END) return -Errno.EINVAL;
    // The upper half of `slot` is an address space; there is one.
    if (id >= MAX_MEMSLOTS) return -Errno.EINVAL;
    if (guest + size > GUEST_END) return -Errno.EINVAL;
    const old = this.list.find((slot) => slot.id === id);
    if (size === 0) {
      if (!old) return -Errno.EINVAL;
      this.take(old);
      return 0;
    }
    const slot: Memslot = { id, firstFrame: guest / 4096, frames: size / 4096, user, readOnly: (flags & MemoryFlag.READONLY) !== 0 };
    if (old) {
      if (old.user !== user || old.frames !== slot.frames || old.readOnly !== slot.readOnly) return -Errno.EINVAL;
      if (old.firstFrame === slot.firstFrame) return 0;
    }
    for (const other of this.list)
      if (other !== old && slot.firstFrame < other.firstFrame + other.frames && other.firstFrame < slot.firstFrame + slot.frames)
        return -Errno.EEXIST;
    if (old) this.take(old);
    this.list.push(slot);
    this.list.sort((a, b) => a.firstFrame - b.firstFrame);
    return 0;
  }

  clear(): void {
    for (const slot of [...this.list]) this.take(slot);
  }

  private take(slot: Memslot): void {
    this.list.splice(this.list.indexOf(slot), 1);
    this.last = NOWHERE;
    this.removed(slot);
  }
}

/** Infinity where a Number is not exact: refused by every limit. */
const exact = (high: number, low: number): number => (high < 2 ** 21 ? high * 2 ** 32 + low : Infinity);
