/**
 * PCI Express functions and the root complex above them, and the software that enumerates them.
 * Sources: PCI Express Base Specification, PCI Local Bus 3.0 (MSI-X), linux/pci_regs.h.
 */
export { type Bar, type BusOptions, enumerate, lspciDump, PciDevice } from './bus.js';
export { type BarOptions, type FunctionListener, type FunctionOptions, PciFunction } from './function.js';
export { MsixTable, type SendMessage } from './msix.js';
export type { AddressMap, BarNumber, Mmio, RootFunction } from './ports.js';
export { ECAM_BUS_BYTES, PciRoot } from './root.js';
export * as config from './spec/config.js';
