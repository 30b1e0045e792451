/** What the driver needs from below. Types only; whoever has the methods fits. */

/** Device registers; widths 1, 2, 4. */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
}
/** The PCI function, as the kernel's bus hands it to a driver. */
export interface PciDevice {
  readonly name: string;
  readonly requesterId: number;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly bars: ReadonlyMap<number, { readonly address: number; readonly bytes: number; readonly mmio: Mmio }>;
  configRead(offset: number, width: number): number;
  configWrite(offset: number, width: number, value: number): void;
  capability(id: number): number;
  command(bits: { memory?: boolean; busMaster?: boolean }): void;
  enableSva(): { pasid: boolean; ats: boolean; pri: boolean };
  /** Absent: a halted device that needs it stays halted. */
  functionLevelReset?(): void;
}
export interface Irq {
  /** Index in the store: MSI-X vector or IMS slot. */
  readonly index: number;
  free(): void;
}
/** The interrupt domains of the kernel, over this function's two stores. */
export interface Interrupts {
  msix(device: PciDevice, capability: number, bar: Mmio): { alloc(handler: () => void, index?: number): Irq | undefined };
  ims?(slots: Mmio, requesterId: number, size: number): { allocFor(handler: () => void, pasid?: number): Irq | undefined };
}
/** An address space that a device may share. `pasid` is what the process's ENQCMD carries once it is bound. */
export interface Mm {
  readonly rootFrame: number;
  pasid: number;
  handleFault(addressHigh: number, addressLow: number, access: number): number;
  /** The kernel writes user memory by the user's rights: 0 or -EFAULT. */
  write(address: number, bytes: Uint8Array): number;
  subscribe(notifier: { invalidate(start: number, end: number): void; release(): void }): () => void;
}
export interface SvaHandle {
  readonly pasid: number;
  unbind(): void;
}
/** Memory that kernel and device share, zeroed. */
export interface CoherentMemory {
  /** Where the device finds it, in bytes; page-aligned. */
  readonly iova: number;
  /** The bytes as words, from index 0 on. */
  readonly words: Uint32Array;
  free(): void;
}
/** The kernel's own DMA of a function. */
export interface KernelDma {
  alloc(bytes: number): CoherentMemory | undefined;
  /** A PASID that reaches the same memory, for descriptors of shared queues; -errno. */
  enablePasid(): number;
}
/** The IOMMU driver of the same kernel. */
export interface Iommu {
  /** Undefined: the function's RID cannot be given an address space. Absent: no event log, no kernel queues. */
  dma?(requesterId: number): KernelDma | undefined;
  addDevice(requesterId: number, capabilities: { ats?: boolean; pri?: boolean; pasid?: boolean }): void;
  /** Shares `mm` with the function; a handle, or -errno. */
  svaBind(requesterId: number, mm: Mm): SvaHandle | number;
}
/** Waits for hardware: false when nothing is left that could make it true. */
export interface Waiter {
  wait(until: () => boolean): boolean;
  /** Work that an interrupt leaves to a worker thread, where it may wait. */
  defer(work: () => void): void;
}

/** The user-space door of the kernel. */
export interface VmArea {
  readonly length: number;
  readonly offset: number;
  insert(pageIndex: number, frame: number): void;
  zap(): void;
  dontCopy: boolean;
}
export interface Task {
  readonly pid: number;
  readonly mm: Mm;
  copyIn(address: number, out: Uint8Array): number;
}
export interface OpenFile {
  mmap?(task: Task, area: VmArea): number;
  write?(task: Task, address: number, length: number, offset: number): number;
  poll?(task: Task): number;
  close?(): void;
}
/** One file of sysfs: its text, or -errno; and what a write answers, negative for -errno. */
export interface Attribute {
  show?(): string | number;
  store?(text: string): number;
}
/** Where the driver's attributes go, by path. */
export interface SysfsTree {
  add(path: string, attribute: Attribute): void;
  link(path: string, target: string): void;
  remove(path: string): void;
}
export interface UserSpace {
  register(path: string, device: { open(task: Task, flags: number): OpenFile | number }): void;
  unregister(path: string): void;
  /** Absent: the driver is configured by `configure` alone. */
  readonly sysfs?: SysfsTree;
}
