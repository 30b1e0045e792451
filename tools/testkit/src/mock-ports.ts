/** What the mock IOMMU driver needs of iommufd, of a process and of memory. Types only; whoever has the methods fits. */
interface Mm {
  pin(address: number, pages: number, write: boolean, out: Int32Array, at?: number): number;
  unpin(frames: Int32Array, count: number): void;
}
export interface MemoryFile {
  readonly bytes: number;
  readonly writable: boolean;
  pin(first: number, pages: number, out: Int32Array, at: number): number;
  unpin(frames: Int32Array, count: number): void;
  hold(): () => void;
  onRevoke?(listener: () => void): () => void;
}
export interface OpenFile {
  ioctl?(task: Task, number: number, argument: number): number;
  close?(): void;
  readonly memory?: MemoryFile;
}
export interface Task {
  readonly mm: Mm;
  copyIn(address: number, out: Uint8Array): number;
  copyOut(address: number, bytes: Uint8Array): number;
  install?(file: OpenFile): number;
  file?(fd: number): OpenFile | undefined;
}
/** Page frames for what the mock driver itself has, and how often a frame is pinned. */
export interface MockMemory {
  bytesOf(frame: number): Uint8Array | undefined;
  allocFrame(): number;
  freeFrame(frame: number): void;
  pinsOf(frame: number): number;
}
export interface Span {
  readonly start: bigint;
  readonly last: bigint;
}
export interface Handle {
  readonly deviceId: number;
  readonly pasid: number;
}
interface PageRequest {
  readonly requesterId: number;
  readonly pasid: number;
  readonly hi: number;
  readonly lo: number;
  readonly access: number;
  readonly reads?: boolean;
  readonly group: number;
}
export interface DomainEvents {
  pageRequests(group: readonly PageRequest[], handle: Handle | undefined): void;
  detached(requesterId: number, pasid: number): void;
}
export interface DeviceFacts {
  readonly pasidBits: number;
  readonly capabilities: number;
  readonly pageRequests: boolean;
  readonly dirtyTracking: boolean;
}
export interface UserData {
  readonly type: number;
  readonly bytes: number;
  read(size: number, least?: number): Uint32Array | number;
  write(words: Uint32Array): number;
}
export interface UserArray {
  readonly type: number;
  readonly count: number;
  read(index: number, size: number): Uint32Array | number;
  done: number;
}
export interface Table {
  readonly kind: 'paging' | 'nested';
}
export interface ViommuContext {
  offer(frame: number): number;
  report(type: number, event: Uint32Array): number;
}
interface AccessOwner {
  readonly pins: boolean;
  unmap?(iova: bigint, length: bigint): void;
}
export interface Access {
  readonly access: {
    pin(iova: bigint, length: bigint, write: boolean): Int32Array | number;
    unpin(iova: bigint, length: bigint): void;
    copy(iova: bigint, bytes: Uint8Array, write: boolean): number;
  };
}
interface Counted {
  readonly id: number;
  users: number;
}
interface HwptObject extends Counted {
  readonly table: Table;
}
/** An object of the mock driver's own. */
export interface MockObject extends Counted {
  readonly kind: 'other';
  destroy(): void;
}
type AttachMode = 'attach' | 'replace' | 'either';
/** An open file of /dev/iommu. */
export interface IommufdFile {
  bindDevice(requesterId: number): number;
  unbind(deviceId: number): void;
  attach(deviceId: number, ptId: number, pasid: number, mode?: AttachMode): number;
  detach(deviceId: number, pasid: number): void;
  hwptOf(deviceId: number, pasid: number): HwptObject | undefined;
  find(id: number, kind: 'other'): MockObject | undefined;
  find(id: number, kind: 'ioas'): { readonly ioas: { reserve(start: bigint, last: bigint, owner: object | undefined): number } } | undefined;
  find(id: number, kind: 'device'): { readonly requesterId: number } | undefined;
  find(id: number, kind: 'paging' | 'nested'): HwptObject | undefined;
  add(object: { readonly kind: 'other'; destroy(): void }): MockObject;
  createAccess(owner: AccessOwner, ioasId: number): Access | number;
  replaceAccess(access: never, ioasId: number): number;
  destroyAccess(access: never): void;
}
