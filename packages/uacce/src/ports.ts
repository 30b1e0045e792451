/** What uacce needs from below, and what a driver gives it. Types only. */

export interface Mm {
  pasid: number;
}
export interface VmArea {
  readonly length: number;
  readonly offset: number;
  insert(pageIndex: number, frame: number): void;
  /** Takes the frames away: later accesses are SIGBUS. */
  zap(): void;
  dontCopy: boolean;
  onClose?: () => void;
}
export interface Task<M extends Mm = Mm> {
  readonly pid: number;
  readonly mm: M;
  copyIn(address: number, out: Uint8Array): number;
  copyOut(address: number, bytes: Uint8Array): number;
  wakeUp(): void;
}
export interface OpenFile<M extends Mm = Mm> {
  ioctl?(task: Task<M>, number: number, argument: number): number;
  mmap?(task: Task<M>, area: VmArea): number;
  poll?(task: Task<M>): number;
  close?(): void;
  readonly ioctlNames?: Readonly<Record<number, string>>;
}
/** The user-space door of the kernel. */
export interface UserSpace<M extends Mm = Mm> {
  register(path: string, device: { open(task: Task<M>, flags: number): OpenFile<M> | number }): void;
  unregister(path: string): void;
  readonly sysfs: {
    add(path: string, attribute: { show?(): string; store?(text: string): number }): void;
    remove(path: string): void;
  };
}
/** Binds address spaces to PASIDs of the accelerator. */
export interface Sva<M extends Mm = Mm> {
  /** A handle, or -errno. */
  bind(mm: M): { readonly pasid: number; unbind(): void } | number;
}
