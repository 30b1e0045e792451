/** What a VM counts, and what its events cost. */

export const Counter = {
  /** Exits by reason. Intel SDM 3D, "VMX Basic Exit Reasons". */
  eptViolations: 0,
  pasidExits: 1,
  /** Of the violations: those that ended in user space. */
  mmioReads: 2,
  mmioWrites: 3,
  /** Stores of 64 bytes. */
  mmioPackets: 4,
  /** EPT leaves written, and taken away. */
  mapped4K: 5,
  mapped2M: 6,
  unmapped: 7,
  /** Violations in a memslot whose page could not be had. */
  failed: 8,
  /** Signals of irqfds, and interrupts delivered to the guest. */
  irqfds: 9,
  interrupts: 10,
  /** Messages that no APIC takes: no fixed delivery, or not to 0xFEEx_xxxx. */
  droppedMessages: 11,
} as const;

/** Integer nanoseconds; all default to 0. */
export interface VmCosts {
  /** A violation that KVM resolves by itself. */
  readonly eptViolation?: number;
  /** An exit to user space and back. */
  readonly trap?: number;
  /** From the signal of an eventfd to the guest's APIC. */
  readonly irqfd?: number;
  /** The guest kernel's access to device registers that are mapped: what crossing the fabric costs. */
  readonly mmioRead?: number;
  readonly mmioWrite?: number;
}
