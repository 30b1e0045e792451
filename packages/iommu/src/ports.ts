/** What this package needs from below, and the doors that it opens upwards. Types only; whoever has the methods fits. */

/** Registers at byte offsets from the range's start; widths 1, 2, 4. A 64-bit register is two dword accesses. */
export interface Mmio {
  /** Unsigned. */
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
}

/** A piece of the physical address map. */
export interface Region {
  readonly kind: 'ram' | 'mmio';
  /** Physical address divided by 4096; int32. */
  readonly firstFrame: number;
  readonly frames: number;
  /** The region's own views: index 0 is the first byte of `firstFrame`. */
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}
export interface PhysicalMap {
  regionOf(frame: number): Region | undefined;
}
/** Where the driver takes the pages of its tables and queues from. */
export interface Frames {
  /** First frame of 2^order naturally aligned zeroed frames, or -1. */
  alloc(order?: number): number;
  free(frame: number, order?: number): void;
}

/** Virtual time, as the driver needs it: wait for hardware. False when nothing is left that could make it true. */
export interface Waiter {
  wait(until: () => boolean): boolean;
  /** The running CPU did work of so many nanoseconds. */
  spend?(ns: number): void;
}
/** Virtual time, as the unit needs it: an event later. */
export interface Timer {
  /** Nanoseconds, for reports. */
  readonly now?: number;
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
}
/** The local interrupt controller's vectors. */
export interface Vectors {
  install(vector: number, handler: (vector: number) => void): void;
  /** A free vector, or -1. */
  allocVector(): number;
  freeVector?(vector: number): void;
  remove?(vector: number): void;
}
/** Where interrupts leave the unit. */
export interface InterruptSink {
  deliver(vector: number, destination: number): void;
}
export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}

/** One contiguous piece of memory, filled by `acquire`, owned by the caller and reused. */
export interface Extent {
  view: Uint8Array;
  words: Uint32Array;
  /** Bytes into `view`. */
  offset: number;
  length: number;
  /** Modelled cost of this translation in nanoseconds. */
  ns: number;
}
/**
 * Processes of the machine that this runs on, as first stages. A PASID entry names one by a root frame that no memory has; context and PASID
 * are looked up as always, then the process says what is present. None of its answers is kept.
 */
export interface ForeignProcesses {
  /** Whether a root frame is such a process's. */
  owns(rootFrame: number): boolean;
  /** As of `Upstream`; TlpStatus success, waiting, or notPresent (no page, or no right). `out.ns` is the unit's to fill. */
  acquire(rootFrame: number, access: number, hi: number, lo: number, max: number, out: Extent): number;
  /** Whether a frame that no memory has stands for a page of such a process, which is pinned. Absent: none does. */
  ownsFrame?(frame: number): boolean;
  /** The same as `acquire` for the pages behind frames that follow each other, from byte `offset` of the first one on. */
  acquireFrame?(frame: number, offset: number, access: number, max: number, out: Extent): number;
  /** After every write of any function; extents that are not its own are not its business. */
  commit(out: Extent): void;
}
/** Requests of one function, on their way up. */
export interface Upstream {
  /**
   * Translates (hi, lo), an IOVA in bytes, for DmaAccess bits `access` and gives one contiguous piece of at most `max` bytes, merged over
   * physically contiguous pages. `pasid`: NO_PASID or 0 to 2^20-1. Returns a TlpStatus; `out` is valid on success alone.
   */
  acquire(access: number, pasid: number, hi: number, lo: number, max: number, out: Extent): number;
  /** After a write. Needed for a write to the interrupt range; nothing over memory. */
  commit(out: Extent): void;
  /** A posted dword write to 0xFEEx_xxxx without PASID. */
  message(address: number, data: number): void;
  /** A page request, alone in its group. 0: queued (or answered by the unit); else refused. */
  pageRequest(pasid: number, hi: number, lo: number, access: number, group: number): number;
}
/** What the unit says to a function. */
export interface Endpoint {
  pageResponse(pasid: number, group: number, code: number): void;
  /** Forget device-TLB entries of [address, address + bytes); pasid NO_PASID: of requests without one. `bytes` Infinity: all. */
  invalidate?(pasid: number, hi: number, lo: number, bytes: number): void;
}

/** A parent interrupt domain: composes messages. */
export interface IrqParent {
  alloc(requesterId: number, handler: (vector: number) => void): IrqParentHandle | undefined;
}
export interface IrqParentHandle {
  /** Low dword of the message address. */
  readonly address: number;
  readonly data: number;
  free(): void;
}

/** A process's address space, as SVA needs it. */
export interface Mm {
  readonly rootFrame: number;
  /** Of its page tables (default 4). */
  readonly levels?: 4 | 5;
  /** 0, or -errno. `access`: DmaAccess bits write and execute. */
  handleFault(hi: number, lo: number, access: number): number;
  subscribe(notifier: { invalidate(start: number, end: number): void; release(): void }): () => void;
}
/** Memory that can be pinned by page, counted from its start. */
export interface PageSource {
  /** Pages pinned (frames in `out` from `at`), or -errno. */
  pin(first: number, pages: number, out: Int32Array, at: number): number;
  unpin(frames: Int32Array, count: number): void;
}
/** What IOMMU_IOAS_MAP_FILE maps: a file of memory, or the buffer of a device. */
export interface MappableMemory extends PageSource {
  readonly bytes: number;
  readonly writable: boolean;
  /** Keeps the pages when the file is closed; returns what ends that. */
  hold(): () => void;
  /** A device's buffer: its owner may take it back (-ENODEV from then on), which the listener hears. Returns what ends that. */
  onRevoke?(listener: () => void): () => void;
}
/** An open file of a process. */
export interface MappableFile {
  /** What can be mapped into an I/O address space. */
  readonly memory?: MappableMemory | undefined;
}
/** A process's address space, as iommufd needs it. */
export interface PinningMm {
  /** Pages pinned (frames in `out` from `at`), or -errno. */
  pin(address: number, pages: number, write: boolean, out: Int32Array, at?: number): number;
  unpin(frames: Int32Array, count: number): void;
  /** Counts pages as locked: 0, or -ENOMEM beyond RLIMIT_MEMLOCK. A negative number takes them back. */
  lockPages?(pages: number): number;
}
/** The caller of an ioctl. */
export interface Task {
  readonly mm: PinningMm;
  /** 0 or -EFAULT. */
  copyIn(address: number, out: Uint8Array): number;
  copyOut(address: number, bytes: Uint8Array): number;
  /** A new descriptor, or -EMFILE. Absent: no ioctl that makes one. */
  install?(file: OpenFile): number;
  file?(fd: number): MappableFile | undefined;
  /** Makes a parked task try again. */
  wakeUp?(): void;
}
/** A piece of a process's address space that a file backs. */
export interface VmArea {
  /** Bytes. */
  readonly length: number;
  readonly offset: number;
  readonly flags: number;
  insert(pageIndex: number, frame: number): void;
  onClose?: () => void;
}
export interface OpenFile {
  ioctl?(task: Task, number: number, argument: number): number;
  read?(task: Task, address: number, length: number, offset: number): number;
  write?(task: Task, address: number, length: number, offset: number): number;
  /** Poll bits that hold now; the task is woken when they change. */
  poll?(task: Task): number;
  mmap?(task: Task, area: VmArea): number;
  close?(): void;
  /** No position. */
  readonly stream?: boolean;
  /** Names of ioctl numbers. */
  readonly ioctlNames?: Readonly<Record<number, string>>;
}
export interface CharDevice {
  open(task: Task, flags: number): OpenFile | number;
}
