/** What VFIO needs from below, and what a device gives it. Types only. */

/** A process's mm. Addresses in bytes; answers are values or -errno. */
export interface Mm {
  pin(address: number, pages: number, write: boolean, out: Int32Array, at?: number): number;
  unpin(frames: Int32Array, count: number): void;
  /** Counts pages as locked: 0, or -ENOMEM beyond RLIMIT_MEMLOCK. A negative number takes them back. Absent: nobody counts. */
  lockPages?(pages: number): number;
  /** The frame that shows at an address now, or -1. */
  frameOf(address: number): number;
  handleFault(hi: number, lo: number, access: number): number;
}
export interface VmArea {
  readonly length: number;
  /** Byte offset in the device file. */
  readonly offset: number;
  readonly prot: number;
  readonly flags: number;
  insert(pageIndex: number, frame: number): void;
  /** Takes the frames away: later accesses fault. */
  zap(): void;
  dontCopy: boolean;
  /** Asked for a page that is not there: 0 after `insert`, else the access is SIGBUS. */
  onFault?: (pageIndex: number) => number;
  onClose?: () => void;
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
  read?(task: Task, address: number, length: number, offset: number): number;
  write?(task: Task, address: number, length: number, offset: number): number;
  mmap?(task: Task, area: VmArea): number;
  close?(): void;
  readonly ioctlNames?: Readonly<Record<number, string>>;
}
/** Attributes by path. */
export interface Sysfs {
  add(path: string, attribute: { show?(): string | number; store?(text: string): number }): void;
  link(path: string, target: string): void;
  remove(path: string): void;
}
/** The user-space door of the kernel. */
export interface UserSpace {
  register(path: string, device: { open(task: Task, flags: number): OpenFile | number }): void;
  unregister(path: string): void;
  readonly sysfs: Sysfs;
}
/** An address space of the IOMMU driver that DMA is mapped into. */
export interface PagingDomain {
  /** `frames` contiguous frames at `iova` (bytes). 0 or -errno. */
  map(iova: number, frame: number, frames: number, prot: number): number;
  unmap(iova: number, length: number): number;
  free(): number;
}
/** An open file of /dev/iommu. */
export interface IommufdContext {
  /** A device object for the function; its id, or -errno. */
  bindDevice(requesterId: number): number;
  unbind(deviceId: number): void;
  /**
   * The domain behind an HWPT, or an IOAS's own, for this device under the PASID that user space names (-1: the device itself), so that the
   * page requests of the attachment reach user space under that name; -errno.
   */
  domainOf(ptId: number, deviceId: number, pasid: number): object | number;
  /** The IOAS that the ioctls of a VFIO container work on, made if there is none; -errno. For a file that stands for a container. */
  compatIoas(): number;
}
/** An eventfd. */
export interface Sink {
  signal(n?: number): void;
}

// What a device is

export interface RegionInfo {
  /** Bytes; 0: not there. */
  readonly size: number;
  /** RegionFlag READ, WRITE, MMAP. */
  readonly flags: number;
  /** Parts that can be mapped; absent with MMAP: all. */
  readonly sparse?: readonly { readonly offset: number; readonly size: number }[];
  /** The part with the MSI-X table can be mapped as well. */
  readonly msixMappable?: boolean;
}
export interface IrqInfo {
  readonly count: number;
  /** IrqInfoFlag. */
  readonly flags: number;
}
/** One SET_IRQS; start and count lie within the index, there is one kind of data, and its descriptors are eventfds. */
export interface IrqRequest {
  /** IrqSetFlag: data and action. */
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** DATA_EVENTFD: `count` of them; undefined stands for -1. */
  readonly sinks?: readonly (Sink | undefined)[];
  /** DATA_BOOL. */
  readonly bools?: Uint8Array;
}
/** A device behind VFIO, whatever makes it: a PCI function, an mdev. Answers are values or -errno. */
export interface VfioDevice {
  /** Bus address or UUID. */
  readonly name: string;
  /** The function whose requests the IOMMU sees: its own, or its parent's. */
  readonly requesterId: number;
  /** DeviceFlag RESET, PCI. */
  readonly flags: number;
  readonly regions: number;
  readonly irqs: number;
  /** False: ATTACH with a PASID is EOPNOTSUPP; else `attach` decides. */
  readonly pasids?: boolean;
  /** The first user comes, the last one went. */
  open(): number;
  close(): void;
  regionInfo(index: number): RegionInfo | number;
  irqInfo(index: number): IrqInfo | number;
  /** Bytes done or -errno. The core has checked that the region is there, allows it, and that offset + length lie within. */
  read(region: number, offset: number, out: Uint8Array): number;
  write(region: number, offset: number, bytes: Uint8Array): number;
  /** The core has checked MAP_SHARED, RegionFlag MMAP and the range. */
  mmap(area: VmArea, region: number, offset: number): number;
  setIrqs(request: IrqRequest): number;
  reset(): number;
  /**
   * DMA of the whole device (`pasid` -1) or of one PASID of its own goes to `domain`, a domain of the IOMMU driver; replaces what was
   * attached. In a container it comes before `open`.
   */
  attach(domain: object, pasid: number): number;
  detach(pasid: number): void;
  /** The kernel wants the device back: tell the user (REQ interrupt). */
  request?(): void;
}
