/**
 * A function level reset of a live function: what the bus and the interrupt domains had put into it is taken down before and written back
 * after. PCIe, "Function Level Reset"; Linux pci_save_state, pci_restore_state.
 */
import type { Mmio, PciDevice } from './ports.js';

const BAR0 = 0x10;
const BARS = 6;
const MSIX = 0x11;

/** Resets the function and gives it back its addresses, interrupt table, and address services. */
export function functionLevelReset(device: PciDevice): void {
  const bars = Array.from({ length: BARS }, (_, n) => device.configRead(BAR0 + n * 4, 4));
  const msix = device.capability(MSIX);
  const control = msix ? device.configRead(msix + 2, 2) : 0;
  const where = msix ? device.configRead(msix + 4, 4) : 0;
  const table = device.bars.get(where & 7)?.mmio;
  const entries = msix && table ? copyWords(table, where & ~7, ((control & 0x7ff) + 1) * 16) : undefined;
  device.functionLevelReset!();
  for (const [n, value] of bars.entries()) device.configWrite(BAR0 + n * 4, 4, value);
  device.command({ memory: true, busMaster: true });
  entries?.();
  if (msix) device.configWrite(msix + 2, 2, control);
  device.enableSva();
}

/** Takes words of a table down; returns how to write them back. */
export function copyWords(mmio: Mmio, offset: number, bytes: number): () => void {
  const words = Uint32Array.from({ length: bytes / 4 }, (_, i) => mmio.read(offset + i * 4, 4));
  return () => words.forEach((word, i) => void mmio.write(offset + i * 4, 4, word));
}
