/**
 * The kernel's mock IOMMU driver: pages of 2 KiB, nested tables that are four numbers, virtual IOMMUs, and an ioctl on /dev/iommu whose 23
 * operations set it up and look into it. With it the kernel's own selftest of iommufd, or cases like its, can be run on our iommufd. Numbers:
 * drivers/iommu/iommufd/iommufd_test.h. What it needs of iommufd is in `mock-ports.ts`; `new IommufdDevice({ ops: mock, extra: mock.extra })`.
 */
import { Errno, HwptFlag, Mock, MockDeviceFlag, size } from './mock-numbers.js';
import type {
  DeviceFacts,
  DomainEvents,
  Handle,
  IommufdFile,
  MockMemory,
  Span,
  Table,
  Task,
  UserArray,
  UserData,
  ViommuContext,
} from './mock-ports.js';
import { testIoctl } from './mock-test-cmd.js';

interface Page {
  readonly address: number;
  readonly huge: boolean;
  dirty: boolean;
}
export class MockDevice {
  readonly requesterId: number;
  readonly flags: number;
  readonly cache = new Array<number>(Mock.CACHE_SLOTS).fill(Mock.CACHE_DEFAULT);
  readonly attached = new Map<number, { readonly table: MockTable | MockNested; readonly handle: Handle }>();
  /** The virtual IOMMU that it has a virtual id on. */
  viommu: MockViommu | undefined;
  virtualId = 0n;
  constructor(requesterId: number, flags: number) {
    this.requesterId = requesterId;
    this.flags = flags;
  }
}

export class MockTable {
  readonly kind = 'paging';
  readonly domain = undefined;
  readonly busy = false;
  readonly pageSizes: number;
  readonly reserved: readonly Span[] = [
    { start: 0n, last: BigInt(Mock.APERTURE_START) - 1n },
    { start: BigInt(Mock.APERTURE_LAST) + 1n, last: 2n ** 64n - 1n },
  ];
  events: DomainEvents | undefined;
  /** By IOVA / 2048. */
  readonly pages = new Map<number, Page>();
  tracking = false;
  readonly dirty:
    | { set(on: boolean): number; read(iova: bigint, bytes: bigint, clear: boolean, record?: (iova: bigint, bytes: bigint) => void): number }
    | undefined;
  private readonly mock: MockIommu;

  constructor(mock: MockIommu, huge: boolean, tracks: boolean) {
    this.mock = mock;
    this.pageSizes = Mock.IO_PAGE | (huge ? Mock.HUGE_PAGE : 0);
    this.dirty = tracks ? { set: (on) => this.track(on), read: (iova, bytes, clear, record) => this.read(iova, bytes, clear, record) } : undefined;
  }

  map(iova: bigint, address: number, bytes: number, _prot: number, large: boolean): number {
    if (this.mock.fails('map')) return -Errno.ENOENT;
    const { IO_PAGE, HUGE_PAGE } = Mock;
    const at = Number(iova);
    for (let done = 0; done < bytes; ) {
      const huge =
        large &&
        (this.pageSizes & HUGE_PAGE) !== 0 &&
        (at + done) % HUGE_PAGE === 0 &&
        (address + done) % HUGE_PAGE === 0 &&
        bytes - done >= HUGE_PAGE;
      for (const end = done + (huge ? HUGE_PAGE : IO_PAGE); done < end; done += IO_PAGE) {
        const page = (at + done) / IO_PAGE;
        if (!Number.isInteger(page) || this.pages.has(page)) throw new RangeError(`map: IOVA ${at + done} is mapped, or no page's`);
        this.pages.set(page, { address: address + done, huge, dirty: false });
      }
    }
    return 0;
  }
  unmap(iova: bigint, bytes: number): void {
    const first = Number(iova) / Mock.IO_PAGE;
    for (let page = first; page < first + bytes / Mock.IO_PAGE; page++) this.pages.delete(page);
  }
  free(): void {
    if (this.pages.size) throw new RangeError(`free: ${this.pages.size} pages are mapped`);
    this.mock.tables--;
  }
  private track(on: boolean): number {
    this.tracking = on;
    return 0;
  }
  private read(iova: bigint, bytes: bigint, clear: boolean, record?: (iova: bigint, bytes: bigint) => void): number {
    if (!this.tracking && record) return -Errno.EINVAL;
    const { IO_PAGE, HUGE_PAGE } = Mock;
    for (let at = Number(iova), end = at + Number(bytes); at < end; ) {
      const bytesOf = this.pages.get(Math.floor(at / IO_PAGE))?.huge ? HUGE_PAGE : IO_PAGE;
      const head = at - (at % bytesOf);
      let any = false;
      for (let page = head / IO_PAGE; page < (head + bytesOf) / IO_PAGE; page++) {
        const entry = this.pages.get(page);
        if (!entry?.dirty) continue;
        any = true;
        if (clear) entry.dirty = false;
      }
      if (any) record?.(BigInt(at), BigInt(bytesOf));
      at += bytesOf;
    }
    return 0;
  }
}

export class MockNested {
  readonly kind = 'nested';
  readonly domain = undefined;
  readonly busy = false;
  readonly iotlb: number[];
  readonly viommu: MockViommu | undefined;
  events: DomainEvents | undefined;
  private readonly mock: MockIommu;
  constructor(mock: MockIommu, value: number, viommu: MockViommu | undefined) {
    this.mock = mock;
    this.viommu = viommu;
    this.iotlb = new Array<number>(Mock.IOTLB_SLOTS).fill(value);
  }
  invalidate(array: UserArray): number {
    if (array.type !== Mock.INVALIDATE) return -Errno.EINVAL;
    for (; array.done < array.count; array.done++) {
      const entry = array.read(array.done, 8);
      if (typeof entry === 'number') return entry;
      const [flags, slot] = entry as unknown as readonly [number, number];
      if (flags & ~Mock.INVALIDATE_ALL) return -Errno.EOPNOTSUPP;
      if (slot >= Mock.IOTLB_SLOTS) return -Errno.EINVAL;
      if (flags) this.iotlb.fill(0);
      else this.iotlb[slot] = 0;
    }
    return 0;
  }
  free(): void {
    this.mock.tables--;
  }
}

export class MockViommu {
  readonly needsDevice = true;
  readonly eventTypes = [Mock.VEVENTQ];
  readonly queueTypes = [Mock.HW_QUEUE];
  readonly context: ViommuContext;
  readonly frame: number;
  private readonly mock: MockIommu;
  private readonly queues: boolean[] = [];
  private readonly devices = new Map<bigint, MockDevice>();

  constructor(mock: MockIommu, context: ViommuContext, frame: number) {
    this.mock = mock;
    this.context = context;
    this.frame = frame;
  }
  nestedTable(_flags: number, data: UserData): MockNested | number {
    return this.mock.makeNested(data, this);
  }
  invalidate(array: UserArray): number {
    if (array.type !== Mock.INVALIDATE) return -Errno.EINVAL;
    // All of them are read first; one that cannot be ends it with none done.
    const entries: Uint32Array[] = [];
    for (let i = 0; i < array.count; i++) {
      const entry = array.read(i, 12);
      if (typeof entry === 'number') return entry;
      entries.push(entry);
    }
    for (; array.done < array.count; array.done++) {
      const [flags, id, slot] = entries[array.done] as unknown as readonly [number, number, number];
      if (flags & ~Mock.INVALIDATE_ALL) return -Errno.EOPNOTSUPP;
      const device = this.devices.get(BigInt(id));
      if (slot >= Mock.CACHE_SLOTS || !device) return -Errno.EINVAL;
      if (flags) device.cache.fill(0);
      else device.cache[slot] = 0;
    }
    return 0;
  }
  deviceAdded(requesterId: number, virtualId: bigint): number {
    const device = this.mock.devices.get(requesterId)!;
    this.devices.set(virtualId, device);
    device.viommu = this;
    device.virtualId = virtualId;
    return 0;
  }
  deviceRemoved(_requesterId: number, virtualId: bigint): void {
    const device = this.devices.get(virtualId);
    if (device) device.viommu = undefined;
    this.devices.delete(virtualId);
  }
  /** In ascending order; the last one goes first. */
  queueAdded(index: number, _address: number, _bytes: number): number {
    if (index >= Mock.HW_QUEUES) return -Errno.EINVAL;
    if (this.queues[index]) return -Errno.EEXIST;
    if (index > 0 && !this.queues[index - 1]) return -Errno.EIO;
    this.queues[index] = true;
    return 0;
  }
  queueRemoved(index: number): void {
    this.queues[index] = false;
  }
  free(): void {
    if (this.frame >= 0) this.mock.memory.freeFrame(this.frame);
  }
}

export class MockIommu {
  readonly devices = new Map<number, MockDevice>();
  /** Answers that page requests got, in order: [PASID or -1, group, code]. */
  readonly responses: [pasid: number, group: number, code: number][] = [];
  /** Page tables that live. */
  tables = 0;
  /** Asked before anything is allocated; a test's to set. */
  failing: ((what: string) => boolean) | undefined;
  readonly memory: MockMemory;
  readonly viommuTypes = [Mock.VIOMMU];
  readonly extra: ReadonlyMap<
    number,
    { readonly size: number; readonly least: number; run(file: IommufdFile, task: Task, words: Uint32Array): number }
  >;
  private next = 1;
  private reservedAttached = false;

  constructor(memory: MockMemory) {
    this.memory = memory;
    this.extra = new Map([
      [Mock.CMD, { size: size.testCmd, least: size.testCmdLeast, run: (file, task, words) => testIoctl(this, file, task, words) }],
    ]);
  }

  addDevice(flags: number): MockDevice {
    const device = new MockDevice(this.next++, flags);
    this.devices.set(device.requesterId, device);
    return device;
  }
  fails(what: string): boolean {
    return this.failing?.(what) === true;
  }

  // --- as iommufd's driver

  device(requesterId: number): DeviceFacts | undefined {
    const device = this.devices.get(requesterId);
    if (!device) return undefined;
    const pasids = (device.flags & MockDeviceFlag.PASID) !== 0;
    const dirtyTracking = (device.flags & MockDeviceFlag.NO_DIRTY) === 0;
    return { pasidBits: pasids ? Mock.PASID_WIDTH : 0, capabilities: dirtyTracking ? 1 : 0, pageRequests: true, dirtyTracking };
  }
  hwInfo(_requesterId: number, type: number): { type: number; words: Uint32Array } | number {
    if (type !== 0 && type !== Mock.HW_INFO_TYPE) return -Errno.EOPNOTSUPP;
    return { type: Mock.HW_INFO_TYPE, words: Uint32Array.of(0, Mock.HW_INFO_VALUE) };
  }
  pageTable(requesterId: number, flags: number, data: UserData | undefined): MockTable | number {
    if (data) return -Errno.EOPNOTSUPP;
    const device = this.devices.get(requesterId)!;
    const tracks = (flags & HwptFlag.DIRTY_TRACKING) !== 0;
    if (tracks && device.flags & MockDeviceFlag.NO_DIRTY) return -Errno.EOPNOTSUPP;
    if (this.fails('mock page table')) return -Errno.ENOMEM;
    this.tables++;
    return new MockTable(this, (device.flags & MockDeviceFlag.HUGE_IOVA) !== 0, tracks);
  }
  nestedTable(_requesterId: number, _parent: Table, _flags: number, data: UserData): MockNested | number {
    return this.makeNested(data, undefined);
  }
  makeNested(data: UserData, viommu: MockViommu | undefined): MockNested | number {
    if (data.type !== Mock.HWPT_DATA) return -Errno.EOPNOTSUPP;
    const words = data.read(4);
    if (typeof words === 'number') return words;
    if (this.fails('mock nested table')) return -Errno.ENOMEM;
    this.tables++;
    return new MockNested(this, words[0]!, viommu);
  }

  attach(requesterId: number, pasid: number, table: Table, handle: Handle): number {
    const device = this.devices.get(requesterId)!;
    const mine = table as MockTable | MockNested;
    if (mine.kind === 'paging' && mine.dirty && device.flags & MockDeviceFlag.NO_DIRTY) return -Errno.EINVAL;
    if (pasid === Mock.PASID_RESERVED) {
      this.reservedAttached = !this.reservedAttached;
      if (!this.reservedAttached) return -Errno.ENOMEM;
    }
    this.gone(device, pasid);
    device.attached.set(pasid, { table: mine, handle });
    return 0;
  }
  detach(requesterId: number, pasid: number): void {
    const device = this.devices.get(requesterId)!;
    if (pasid === Mock.PASID_RESERVED) this.reservedAttached = false;
    this.gone(device, pasid);
  }
  private gone(device: MockDevice, pasid: number): void {
    const before = device.attached.get(pasid);
    device.attached.delete(pasid);
    before?.table.events?.detached(device.requesterId, pasid);
  }
  pageResponse(_requesterId: number, pasid: number, group: number, code: number): void {
    this.responses.push([pasid, group, code]);
  }
  /** A page request of a device; one that nobody hears is answered at once. */
  pageRequest(device: MockDevice, pasid: number, group: number, permissions: number, address: bigint): void {
    const to = device.attached.get(pasid);
    const events: DomainEvents | undefined = to?.table.events;
    if (!to || !events) {
      this.pageResponse(device.requesterId, pasid, group, 1);
      return;
    }
    const access = (permissions & 2 ? 1 : 0) | (permissions & 8 ? 2 : 0) | (permissions & 4 ? 4 : 0);
    const reads = (permissions & 1) !== 0;
    const hi = Number(BigInt.asIntN(32, address >> 32n));
    const lo = Number(BigInt.asIntN(32, address));
    events.pageRequests([{ requesterId: device.requesterId, pasid, hi, lo, access, reads, group }], to.handle);
  }

  viommu(_requesterId: number, type: number, _parent: Table, data: UserData | undefined, context: ViommuContext): MockViommu | number {
    if (type !== Mock.VIOMMU) return -Errno.EOPNOTSUPP;
    if (!data) return new MockViommu(this, context, -1);
    // in_data comes back as out_data, and first in the page that can be mapped.
    const words = data.read(size.viommuData, 8);
    if (typeof words === 'number') return words;
    const frame = this.memory.allocFrame();
    if (frame < 0) return -Errno.ENOMEM;
    new Uint32Array(this.memory.bytesOf(frame)!.buffer, this.memory.bytesOf(frame)!.byteOffset, 1)[0] = words[0]!;
    words[1] = words[0]!;
    words[2] = context.offer(frame);
    words[3] = 0;
    words[4] = 4096;
    words[5] = 0;
    if (data.write(words) === 0) return new MockViommu(this, context, frame);
    this.memory.freeFrame(frame);
    return -Errno.EFAULT;
  }
}
