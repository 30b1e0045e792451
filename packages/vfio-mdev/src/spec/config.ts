/** What the adapter touches in a PCI function's configuration space. PCI Express Base Specification; linux/pci_regs.h. */

export const CONFIG_BYTES = 4096;
export const Offset = { command: 0x04, cacheLine: 0x0c, bar0: 0x10, rom: 0x30, capabilities: 0x34, interruptLine: 0x3c, extended: 0x100 } as const;
export const BARS = 6;
/** Bits of the command register. */
export const Command = { memory: 1 << 1, busMaster: 1 << 2, parity: 1 << 6, serr: 1 << 8, intxDisable: 1 << 10 } as const;
export const Capability = { pcie: 0x10, msix: 0x11 } as const;
/** Device control register in the PCI Express capability, and its bit Initiate Function Level Reset. */
export const PCIE_DEVICE_CONTROL = 0x08;
export const INITIATE_RESET = 1 << 15;
/** Offsets in the MSI-X capability. */
export const Msix = { control: 2, table: 4, pba: 8, entryBytes: 16 } as const;
/** Extended capabilities that belong to the IOMMU driver; vfio-pci shows none of them. */
export const HIDDEN: readonly number[] = [0x0f /* ATS */, 0x13 /* PRI */, 0x1b /* PASID */];
