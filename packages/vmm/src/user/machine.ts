/** What the parts of the VMM share: system calls, the VM, gsis and their routes, memory slots. */
import { KvmIoctl, MAX_ROUTES, MemoryRegion, Msi, RoutingEntry, RoutingType } from '../kvm/uapi.js';
import { type Calls, high, low } from './calls.js';

/** Gsis below belong to pins of interrupt chips. */
const FIRST_GSI = 24;
const HEADER = 2;

export class Machine {
  readonly calls: Calls;
  readonly vmFd: number;
  private readonly routes = new Map<number, { readonly address: number; readonly data: number }>();
  private readonly gsis = new Set<number>();
  private readonly slots = new Set<number>();

  constructor(calls: Calls, vmFd: number) {
    this.calls = calls;
    this.vmFd = vmFd;
  }

  allocGsi(): number {
    return lowestFree(this.gsis, FIRST_GSI, MAX_ROUTES);
  }
  freeGsi(gsi: number): void {
    this.gsis.delete(gsi);
    this.routes.delete(gsi);
  }
  /** Sets the message of a gsi (undefined: none); true when that is a change. It takes effect with `commitRoutes`. */
  route(gsi: number, message: { readonly address: number; readonly data: number } | undefined): boolean {
    const now = this.routes.get(gsi);
    if (now?.address === message?.address && now?.data === message?.data) return false;
    if (message) this.routes.set(gsi, message);
    else this.routes.delete(gsi);
    return true;
  }
  /** Hands KVM all routes. 0 or -errno. */
  commitRoutes(): number {
    const words = new Uint32Array(HEADER + (this.routes.size * RoutingEntry.bytes) / 4);
    const { set, bytes } = RoutingEntry;
    words[0] = this.routes.size;
    let at = HEADER;
    for (const [gsi, { address, data }] of this.routes) {
      set.gsi(words, at, gsi);
      set.type(words, at, RoutingType.MSI);
      set.addressLow(words, at, address);
      set.data(words, at, data);
      at += bytes / 4;
    }
    return this.calls.ioctlLarge(this.vmFd, KvmIoctl.SET_GSI_ROUTING, words);
  }

  /** Sends a message to the guest now. */
  signal(address: number, data: number): number {
    const words = new Uint32Array(Msi.bytes / 4);
    Msi.set.addressLow(words, 0, address);
    Msi.set.data(words, 0, data);
    return this.calls.ioctl(this.vmFd, KvmIoctl.SIGNAL_MSI, words);
  }

  /** Shows memory of this process at a guest address: the slot, or -errno. */
  addSlot(guest: number, bytes: number, user: number): number {
    const slot = lowestFree(this.slots, 0, 2 ** 15);
    const result = this.setSlot(slot, guest, bytes, user);
    if (result < 0) this.slots.delete(slot);
    return result < 0 ? result : slot;
  }
  removeSlot(slot: number): void {
    this.setSlot(slot, 0, 0, 0);
    this.slots.delete(slot);
  }

  private setSlot(slot: number, guest: number, bytes: number, user: number): number {
    const words = new Uint32Array(MemoryRegion.bytes / 4);
    const { set } = MemoryRegion;
    set.slot(words, 0, slot);
    set.guestLow(words, 0, low(guest));
    set.guestHigh(words, 0, high(guest));
    set.sizeLow(words, 0, low(bytes));
    set.sizeHigh(words, 0, high(bytes));
    set.userLow(words, 0, low(user));
    set.userHigh(words, 0, high(user));
    return this.calls.ioctl(this.vmFd, KvmIoctl.SET_USER_MEMORY_REGION, words);
  }
}

function lowestFree(taken: Set<number>, from: number, to: number): number {
  for (let n = from; n < to; n++) {
    if (taken.has(n)) continue;
    taken.add(n);
    return n;
  }
  throw new RangeError(`all numbers from ${from} to ${to - 1} are taken`);
}
