/** Facts of PCI Express that requesters, functions and the remapping unit share. PCI Express Base Specification; linux/pci_regs.h. */

/** Completion status of a request: the specification's three-bit codes, and two answers of ours for a requester that must wait. */
export const TlpStatus = {
  success: 0,
  unsupportedRequest: 1,
  completerAbort: 4,
  /** The memory is not here yet (a message or a real process must answer); ask again later. Not a TLP status. */
  waiting: 8,
  /** A translation request completed successfully with R = W = 0: not present, or the right is missing. Nothing is recorded. */
  notPresent: 9,
} as const;
export type TlpStatus = (typeof TlpStatus)[keyof typeof TlpStatus];

/** What a request asks for; bits of the `access` argument of upstream requests. `ats`: translated by a translation request of the function. */
export const DmaAccess = { read: 0, write: 1, privileged: 2, execute: 4, ats: 8 } as const;

/** A request without a PASID prefix. */
export const NO_PASID = -1;

/** Page request group response codes. PCIe, "Page Request Group Response Message". */
export const PageResponse = { success: 0, invalidRequest: 1, failure: 0xf } as const;
export type PageResponse = (typeof PageResponse)[keyof typeof PageResponse];

/** Requester id of bus, device and function. */
export const requesterId = (bus: number, device: number, fn: number): number => (bus << 8) | (device << 3) | fn;
