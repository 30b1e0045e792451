/** The two stores of interrupt messages: the MSI-X table of a function, and Interrupt Message Storage (IMS) in a device's registers. */
import { layout } from '@siov/layout';
import type { Irq, IrqParent } from './domain.js';
import type { ConfigSpace, Mmio } from './ports.js';

/** One IMS slot as an array in device memory. The kernel's irq-ims-msi series (2020); DSA: control is the fourth dword. */
export const ImsSlot = /* @__PURE__ */ layout('IMS slot', 16, {
  0: { addressLow: '31:0' },
  4: { addressHigh: '31:0' },
  8: { data: '31:0' },
  /** Bits 2:0 belong to the interrupt core, the rest is the device's own: a descriptor's PASID must match when `pasidEnable` is set. */
  12: { masked: '0', pending: '1', pasidEnable: '3', pasid: '31:12' },
});
/** Byte offset of `control` in an IMS slot and of vector control in an MSI-X entry. */
const CONTROL = 12;
const ENTRY = 16;

/** What both stores do the same way: write a message, mask and unmask with a read-back that flushes the posted write. */
abstract class MessageStore {
  readonly #parent: IrqParent;
  readonly #taken = new Map<number, Irq>();
  protected readonly slots: Mmio;
  protected readonly requesterId: number;
  readonly size: number;

  protected constructor(parent: IrqParent, slots: Mmio, requesterId: number, size: number) {
    this.#parent = parent;
    this.slots = slots;
    this.requesterId = requesterId;
    this.size = size;
  }
  /** How many slots are taken. */
  get used(): number {
    return this.#taken.size;
  }
  /**
   * Takes slot `index` (or the lowest free one), writes its message and unmasks it. `control` are the device's own bits of the slot.
   * Undefined: the slot is taken, none is free, or the parent has no vector left.
   */
  alloc(handler: () => void, index = this.#lowest(), control = 0): Irq | undefined {
    if (index < 0 || index >= this.size || this.#taken.has(index)) return undefined;
    let count = 0;
    const parent = this.#parent.alloc(this.requesterId, () => {
      count++;
      handler();
    });
    if (!parent) return undefined;
    const at = index * ENTRY;
    this.slots.write(at + CONTROL, 4, 1);
    this.slots.write(at, 4, parent.address);
    this.slots.write(at + 4, 4, 0);
    this.slots.write(at + 8, 4, parent.data);
    const setMask = (masked: 0 | 1): void => {
      this.slots.write(at + CONTROL, 4, (control | masked) >>> 0);
      this.slots.read(at + CONTROL, 4);
    };
    const irq: Irq = {
      index,
      message: parent,
      get count() {
        return count;
      },
      mask: () => setMask(1),
      unmask: () => setMask(0),
      free: () => {
        if (this.#taken.get(index) !== irq) return;
        this.#taken.delete(index);
        for (const [word, value] of [
          [CONTROL, 1],
          [0, 0],
          [8, 0],
        ] as const)
          this.slots.write(at + word, 4, value);
        parent.free();
      },
    };
    this.#taken.set(index, irq);
    irq.unmask();
    return irq;
  }
  #lowest(): number {
    for (let i = 0; i < this.size; i++) if (!this.#taken.has(i)) return i;
    return -1;
  }
}

/** PCI Local Bus 3.0, "MSI-X Message Control". */
const MSIX_ENABLE = 0x8000;

/** The MSI-X table of a function: finds it through the capability, enables MSI-X when the first vector is taken. */
export class MsixDomain extends MessageStore {
  readonly #config: ConfigSpace;
  readonly #capability: number;
  /** `capability`: byte offset of the MSI-X capability; `bar`: the registers of the BAR that it names. */
  constructor(parent: IrqParent, config: ConfigSpace, capability: number, bar: Mmio) {
    if (capability < 0x40) throw new RangeError(`MsixDomain: capability is the byte offset of the MSI-X capability, not ${capability}`);
    const table = config.configRead(capability + 4, 4) & ~7;
    super(
      parent,
      { read: (o, w) => bar.read(table + o, w), write: (o, w, v) => bar.write(table + o, w, v) },
      config.requesterId,
      (config.configRead(capability + 2, 2) & 0x7ff) + 1,
    );
    this.#config = config;
    this.#capability = capability;
  }
  override alloc(handler: () => void, index?: number): Irq | undefined {
    const irq = super.alloc(handler, index);
    if (irq && this.used === 1) this.#config.configWrite(this.#capability + 2, 2, this.#config.configRead(this.#capability + 2, 2) | MSIX_ENABLE);
    return irq;
  }
}

/** IMS: an array of slots in the device's registers. The message carries the function's requester id, as MSI-X's does. */
export class ImsDomain extends MessageStore {
  /** `slots`: the array in device registers, offset 0 = slot 0. */
  constructor(parent: IrqParent, slots: Mmio, requesterId: number, size: number) {
    super(parent, slots, requesterId, size);
  }
  /** Takes the lowest free slot. With a PASID, the device lets only descriptors of that PASID raise it. */
  allocFor(handler: () => void, pasid?: number): Irq | undefined {
    const words = new Uint32Array(4);
    if (pasid !== undefined) {
      ImsSlot.set.pasidEnable(words, 0, 1);
      ImsSlot.set.pasid(words, 0, pasid);
    }
    return super.alloc(handler, undefined, words[3]!);
  }
}
