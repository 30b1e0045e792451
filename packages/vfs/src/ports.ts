/** What user space needs from the processor, the clock and an address space. Types only; whoever has the methods fits. */

export interface Clock {
  readonly now: number;
  handler(run: (argument: number) => void): number;
  after(ns: number, handler: number, argument: number): void;
  spend(ns: number): void;
  pump(): boolean;
  idle(): boolean;
}

export interface Trace {
  emit(event: number, a: number, b: number, c: number, d: number): void;
}

/** Who runs on the processor. */
export interface Context {
  readonly rootFrame: number;
  readonly levels?: 4 | 5;
  readonly eptRoot: number;
  pasidMsr: number;
  readonly pasidTranslation: number;
  readonly pasidTranslationHigh: number;
  handleFault(hi: number, lo: number, access: number): number;
  fixPasid(): boolean;
  readonly exit: Exit | undefined;
}
/** A VM exit's handler. */
export type Exit = (reason: number, gpaFrame: number, offset: number, width: number, write: boolean, value: number) => number;

export interface Processor {
  readonly view: Uint32Array;
  readonly byteView: Uint8Array;
  load(context: Context, hi: number, lo: number, width: number): number;
  store(context: Context, hi: number, lo: number, width: number, value: number): void;
  words(context: Context, hi: number, lo: number, access: number): number;
  bytes(context: Context, hi: number, lo: number, access: number): number;
  copyIn(context: Context, address: number, bytes: Uint8Array): void;
  copyOut(context: Context, address: number, bytes: Uint8Array): void;
  movdir64b(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): void;
  enqcmd(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): number;
  enqcmds(context: Context, dstHi: number, dstLo: number, srcHi: number, srcLo: number): number;
}

/** What a driver's mmap sees of the area it backs. */
export interface VmArea {
  readonly start: number;
  readonly length: number;
  readonly offset: number;
  readonly prot: number;
  readonly flags: number;
  insert(pageIndex: number, frame: number): void;
  zap(): void;
  dontCopy: boolean;
  maxProt: number;
  onFault?: (pageIndex: number) => number;
  onClose?: () => void;
}
export interface Backing {
  map(area: VmArea): number;
  /** A file of memory: its pages are mapped, `map` is not asked. */
  readonly shared?: object;
}
/** A file of memory. Bytes done, or -errno. */
export interface MemoryFile extends Backing {
  readonly bytes: number;
  readonly writable: boolean;
  /** Pages pinned (frames in `out` from `at`), or -errno; for drivers. */
  pin(first: number, pages: number, out: Int32Array, at: number): number;
  unpin(frames: Int32Array, count: number): void;
  /** Keeps the pages when the file is closed; returns what ends that. */
  hold(): () => void;
  /** 0 or -errno. */
  resize(bytes: number): number;
  read(offset: number, out: Uint8Array): number;
  write(offset: number, bytes: Uint8Array): number;
  close(): void;
}
export interface MmuNotifier {
  invalidate(start: number, end: number): void;
  release(): void;
}

/** A process that lives outside of the simulation: its memory, its number, and the descriptors that it has there. */
export interface Outside<File> {
  readonly mm: Mm;
  readonly pid: number;
  /** The file behind a descriptor of the real process; undefined: it has none of that number. */
  file(fd: number): File | undefined;
  /** A number that a new descriptor of the real process can have, none of those for which `taken` holds, or -EMFILE. */
  newNumber(taken: (fd: number) => boolean): number;
  /** The simulated kernel gave the process a file: it stands under this number in the task's table, and must in the real process. */
  installed(fd: number): void;
}

/** A process's mm. Addresses in bytes; answers are values or -errno. */
export interface Mm {
  readonly rootFrame: number;
  /** Of its page tables (default 4). */
  readonly levels?: 4 | 5;
  pasid: number;
  mmap(address: number, length: number, prot: number, flags: number, backing?: Backing, offset?: number): number;
  munmap(address: number, length: number): number;
  mprotect(address: number, length: number, prot: number): number;
  mremap?(address: number, oldLength: number, newLength: number, flags?: number, newAddress?: number): number;
  mlock?(address: number, length: number): number;
  munlock?(address: number, length: number): number;
  handleFault(hi: number, lo: number, access: number): number;
  pin(address: number, pages: number, write: boolean, out: Int32Array, at?: number): number;
  unpin(frames: Int32Array, count: number): void;
  frameOf(address: number): number;
  read(address: number, out: Uint8Array): number;
  write(address: number, bytes: Uint8Array): number;
  subscribe(notifier: MmuNotifier): () => void;
  fork(): Mm | number;
  exit(): void;
}
