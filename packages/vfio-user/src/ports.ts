/** What vfio-user needs: the device that it serves, and what it gives that device. Types only. */

export interface RegionInfo {
  /** Bytes; 0: not there. */
  readonly size: number;
  /** RegionFlag of linux/vfio.h: READ, WRITE, MMAP. */
  readonly flags: number;
  /** Parts that can be mapped; absent with MMAP: all. */
  readonly sparse?: readonly { readonly offset: number; readonly size: number }[];
  readonly msixMappable?: boolean;
}
export interface IrqInfo {
  readonly count: number;
  readonly flags: number;
}
/** An eventfd that the client passed. After the client is gone, or has replaced it, it does nothing. */
export interface Sink {
  signal(n?: number): void;
}
/** One SET_IRQS; start and count lie within the index. */
export interface IrqRequest {
  /** IrqSetFlag of linux/vfio.h: data and action. */
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** DATA_EVENTFD: `count` of them; undefined: the vector loses its eventfd. */
  readonly sinks?: readonly (Sink | undefined)[];
  /** DATA_BOOL. */
  readonly bools?: Uint8Array;
}
/** The file behind a region that the client can map. */
export interface RegionFile {
  readonly fd: number;
  /** Bytes from the start of the file to the region's. */
  readonly offset: number;
}
/** A part of a region whose writes can come by a descriptor. "VFIO_USER_DEVICE_GET_REGION_IO_FDS". */
export interface SubRegion {
  readonly offset: number;
  readonly size: number;
  readonly fd: number;
  readonly type: 'ioeventfd' | 'ioregionfd' | 'shadow';
  readonly flags: number;
  /** Data match, or user data. */
  readonly data: number;
  /** Type shadow: a file that gets the value that was written, and where in it. */
  readonly shadow?: { readonly fd: number; readonly offset: number };
}
/** Migration of a device's state. Answers are values or -errno. */
export interface MigrationOps {
  /** MigrationFlag of the protocol; STOP_COPY at least. */
  readonly flags: number;
  /** The device was told to go to this MigrationState, one step of the kernel's state machine at a time. 0 or -errno. */
  step(from: number, to: number): number;
  /** State PRE_COPY or STOP_COPY: the next bytes; fewer than `out` has: there are no more now. */
  read(out: Uint8Array): number;
  /** State RESUMING. Bytes taken, or -errno. */
  write(bytes: Uint8Array): number;
}

/**
 * A device behind VFIO: `VfioDevice` of `@siov/vfio-mdev` fits. Answers are values or -errno. The server checks that indexes and ranges are
 * right before it asks.
 */
export interface UserDevice {
  readonly name: string;
  /** DeviceFlag of linux/vfio.h. */
  readonly flags: number;
  readonly regions: number;
  readonly irqs: number;
  /** The server starts and ends; a client that comes and goes is neither. */
  open(): number;
  close(): void;
  regionInfo(index: number): RegionInfo | number;
  irqInfo(index: number): IrqInfo | number;
  /** Bytes done or -errno. */
  read(region: number, offset: number, out: Uint8Array): number;
  write(region: number, offset: number, bytes: Uint8Array): number;
  setIrqs(request: IrqRequest): number;
  reset(): number;
  /** Where DMA goes: a `DmaSpace`, before `open`; `pasid` is -1. */
  attach(domain: object, pasid: number): number;
  /** Does work that waits, until `over` says that others have their turn; true: there is more at once. Reads and writes of registers never run the device. */
  run?(over: () => boolean): boolean;
  /** Reading a register never gives the device work: `run` is not called after it. */
  readonly passiveReads?: boolean | undefined;
  /** A region that can be mapped has a file. */
  regionFile?(index: number): RegionFile | undefined;
  subRegions?(index: number): readonly SubRegion[];
  readonly migration?: MigrationOps | undefined;
}

/** One contiguous piece of memory, filled by `acquire` and reused. Offset and length in bytes; `words` aliases the same memory. */
export interface Extent {
  view: Uint8Array;
  words: Uint32Array;
  offset: number;
  length: number;
  /** Nanoseconds that a model adds: none here. */
  ns: number;
}

/** Memory of the client that a file stands for. */
export interface Backing {
  /** Which file it is, and from where: two of the same key are the same memory. */
  readonly key: string;
  /** Mapped files: makes `out` a view of up to `max` bytes from `offset` (bytes from the mapping's start). False: it cannot be mapped. */
  acquire?(offset: number, max: number, write: boolean, out: Extent): boolean;
  /** Bytes done, fewer at the file's end. */
  read(offset: number, into: Uint8Array): number;
  write(offset: number, from: Uint8Array): number;
  /** The client took the mapping away. */
  release(): void;
}
/** Makes a Backing of a descriptor, which becomes its own; or -errno, and the descriptor is closed. */
export type BackingOf = (fd: number, offset: number, bytes: number, writable: boolean, how: 'any' | 'map' | 'file') => Backing | number;

/** The way to the client. */
export interface Channel {
  /** At least 64 bytes larger than the largest message's data; the next message is built here. */
  readonly out: Uint8Array;
  /**
   * Sends the first `length` bytes of `out`. Descriptors stay the caller's. `own`: a command of ours. A client that does not read its replies is not read
   * either; one that is busy with our commands must be, since it may read them only when what it sends has gone out.
   */
  send(length: number, fds?: readonly number[], own?: boolean): void;
}
/** Descriptors as the session sees them; absent where a transport passes none. */
export interface Descriptors {
  close(fd: number): void;
  /** A sink over an eventfd, which becomes its own; or -EINVAL when it is none, and the descriptor stays the caller's. */
  sink(fd: number): (Sink & { close(): void }) | number;
  readonly backing: BackingOf;
  /** A pair of connected sockets: ours as a channel, and the peer's, which is the caller's to close after it was sent. */
  twin?(): { readonly channel: Channel; readonly theirs: number } | undefined;
}
