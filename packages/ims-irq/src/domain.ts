/**
 * Hierarchical interrupt domains, as in the kernel's (Linux kernel/irq/msi.c, "MSI parent domain"): a parent composes the message of an
 * interrupt, the device's own domain stores it where the device will find it. The parent is the bare vector domain below, or the
 * interrupt-remapping domain of an IOMMU driver.
 */
import { MSI_BASE, MsiAddress, MsiData } from '@siov/layout/x86';
import type { Vectors } from './ports.js';

/** The message that a device is to write: the low 32 bits of the address (the upper are 0) and the data, both unsigned. */
export interface Message {
  readonly address: number;
  readonly data: number;
}
export interface IrqParentHandle extends Message {
  free(): void;
}
export interface IrqParent {
  /** Takes a vector and composes its message for `requesterId`; undefined when none is left. */
  alloc(requesterId: number, handler: (vector: number) => void): IrqParentHandle | undefined;
}
/** An interrupt as its driver holds it. */
export interface Irq {
  /** Index in the device's store: MSI-X vector or IMS slot. */
  readonly index: number;
  readonly message: Message;
  /** How often it was taken. */
  readonly count: number;
  mask(): void;
  unmask(): void;
  free(): void;
}

/** Messages in compatibility format straight to a local APIC. SDM 3A, "Message Signalled Interrupts". */
export class VectorDomain implements IrqParent {
  readonly #vectors: Vectors;
  readonly #destination: number;
  constructor(ports: { readonly vectors: Vectors }, destination = 0) {
    this.#vectors = ports.vectors;
    this.#destination = destination;
  }
  alloc(_requesterId: number, handler: (vector: number) => void): IrqParentHandle | undefined {
    const vector = this.#vectors.allocVector();
    if (vector < 0) return undefined;
    this.#vectors.install(vector, handler);
    const words = new Uint32Array(2);
    MsiAddress.set.base(words, 0, MSI_BASE);
    MsiAddress.set.destination(words, 0, this.#destination);
    MsiData.set.vector(words, 1, vector);
    return {
      address: words[0]!,
      data: words[1]!,
      free: () => {
        this.#vectors.remove(vector);
        this.#vectors.freeVector(vector);
      },
    };
  }
}
