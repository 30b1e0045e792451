/** What the mdev parent needs beside the idxd driver. Types only. */

/** PASIDs of the parent function, from the IOMMU driver of the same kernel. */
export interface PasidDomains {
  /** A free PASID, or negative. */
  allocPasid(): number;
  freePasid(pasid: number): void;
  /** 0 or -errno. */
  attachPasid(requesterId: number, pasid: number, domain: never): number;
  detachPasid(requesterId: number, pasid: number): void;
}
