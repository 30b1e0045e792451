/** What the VMM needs from below: the kernel's side (kvm) and the program's side (user). Types only; whoever has the methods fits. */

/** A range of device registers. Offsets in bytes from its start; widths 1, 2 and 4; answers unsigned. */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
  /** A posted 64-byte store: sixteen words from `words[at]`. */
  movdir64b?(offset: number, words: Uint32Array, at: number): void;
  /** A deferrable memory write of 64 bytes: 0 accepted, 1 retry. */
  enqcmd?(offset: number, words: Uint32Array, at: number): number;
}
/** A range of page frames of one kind; 0 frames once it is gone. */
export interface Region {
  readonly kind: 'ram' | 'mmio';
  readonly firstFrame: number;
  readonly frames: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly device: Mmio | undefined;
}
export interface PhysicalMap {
  regionOf(frame: number): Region | undefined;
}
export interface Frames {
  /** First frame of 2^order naturally aligned zeroed frames, or -1. */
  alloc(order?: number): number;
  free(frame: number, order?: number): void;
}
export interface Clock {
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
  spend(ns: number): void;
}
export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}
/** Where interrupts of a guest go: its local APIC. */
export interface InterruptSink {
  deliver(vector: number, destination: number): void;
}

// kvm

/** The processor that runs guests. */
export interface Processor {
  /** Forgets all translations through one EPT. */
  flushEpt(eptRoot: number): void;
  /** The 64 bytes of the store that exits. */
  readonly packet: Uint32Array;
}
/** The mm of the process that made the VM. */
export interface Mm {
  /** 0 or -errno. `access`: DmaAccess bits. */
  handleFault(hi: number, lo: number, access: number): number;
  /** The frame that shows at an address now, or -1. */
  frameOf(address: number): number;
  subscribe(notifier: { invalidate(start: number, end: number): void; release(): void }): () => void;
}
/** The process that calls. */
export interface Task {
  readonly mm: Mm;
  copyIn(address: number, out: Uint8Array): number;
  copyOut(address: number, bytes: Uint8Array): number;
  install(file: OpenFile): number;
  file(fd: number): OpenFile | undefined;
}
export interface OpenFile {
  ioctl?(task: Task, number: number, argument: number): number;
  close?(): void;
  readonly ioctlNames?: Readonly<Record<number, string>>;
}
/** An eventfd, as an irqfd takes part in it. */
export interface EventSource {
  /** Called after every signal. */
  onSignal?: () => void;
  /** Takes the count. */
  consume(): number;
}

// user

/** The process in which the VMM runs: its system calls and its own memory. Answers are values or -errno. */
export interface Process {
  open(path: string, flags: number): number;
  close(fd: number): number;
  ioctl(fd: number, number: number, argument: number): number;
  mmap(address: number, length: number, prot: number, flags: number, fd?: number, offset?: number): number;
  munmap(address: number, length: number): number;
  read(fd: number, address: number, length: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  write(fd: number, address: number, length: number): number;
  eventfd(initial?: number, flags?: number): number;
  /** Anonymous memory. */
  alloc(bytes: number): number;
  writeStruct(address: number, data: Uint8Array | Uint32Array): void;
  readStruct<T extends Uint8Array | Uint32Array>(address: number, out: T): T;
}
/** What a virtual IOMMU tells the VMM; see the register front of the IOMMU package. */
export interface IommuHooks {
  translationEnabled(enabled: boolean): void;
  rootChanged(): void;
  interruptTableChanged(): void;
  contextChanged(granularity: number, domainId: number, sourceId: number, functionMask: number): void;
  /** Granularity 1: one PASID; else all. */
  pasidChanged(granularity: number, domainId: number, pasid: number): void;
  /** `pasid` -1: not selective; `pages` -1: all addresses, else 4 KiB pages from (hi, lo). */
  iotlbInvalidated(domainId: number, pasid: number, hi: number, lo: number, pages: number, leafOnly: boolean): void;
  interruptEntriesChanged(index: number, count: number): void;
  /** The guest answers a group of page requests. `pasid` -1: without PASID. */
  pageResponse(requesterId: number, pasid: number, group: number, code: number): void;
}
/** The register and queue front of a remapping unit, in caching mode. */
export interface IommuFront extends Mmio {
  /** Reads the PASID entry of (requester, pasid) from guest memory into 16 words; `pasid` -1: the one of requests without PASID. */
  pasidEntry(requesterId: number, pasid: number, words: Uint32Array): boolean;
  /** A page request for the guest: 0 queued, 1 there is no queue, 2 dropped by overflow. `pasid` -1: without PASID. `access`: DmaAccess bits. Absent: none. */
  queuePageRequest?(requesterId: number, pasid: number, hi: number, lo: number, access: number, group: number, last: boolean): number;
  /** A device's message after the guest's interrupt remapping table, in compatibility format; undefined: blocked. Absent: no remapping. */
  remap?(requesterId: number, address: number, data: number): { readonly address: number; readonly data: number } | undefined;
}
/** Makes the front over guest memory; `sink` takes the unit's own interrupts. */
export type NewIommuFront = (hooks: IommuHooks, memory: PhysicalMap, sink: InterruptSink) => IommuFront;
