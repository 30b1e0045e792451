/**
 * The virtual command registers, by which a guest asks the hypervisor for PASIDs. VT-d, "Virtual Command Register"; two layouts have been in
 * use: the one of the specification since 2021 (Linux commit "iommu/vt-d: Fix the virtual command interface"), and that of the first
 * implementations.
 */
/** Where the registers are, and the fields of the response: status from bit 1 on, and where the PASID begins. */
export const virtualCommandLayouts = {
  current: { capability: 0xe30, command: 0xe00, response: 0xe10, statusBits: 7, result: 16, operand: 16 },
  rfc: { capability: 0xe00, command: 0xe10, response: 0xe20, statusBits: 2, result: 8, operand: 8 },
} as const;
export type VirtualCommandLayout = keyof typeof virtualCommandLayouts;
export const VirtualCommand = { allocPasid: 1, freePasid: 2 } as const;
/** VCRSP status. unconfirmed: of the first layout, which has two bits, 2 for both errors. */
export const VirtualCommandStatus = { success: 0, current: { noPasid: 16, invalidPasid: 16 }, rfc: { noPasid: 2, invalidPasid: 2 } } as const;
