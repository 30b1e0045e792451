/** IOMMU_TEST_CMD: the operations of the mock driver. drivers/iommu/iommufd/iommufd_test.h; what each refuses: selftest.c. */
import type { MockIommu, MockNested, MockTable } from './mock-iommu.js';
import { Errno, Mock, MockDeviceFlag, NO_PASID } from './mock-numbers.js';
import type { Access, IommufdFile, MemoryFile, MockObject, OpenFile, Task } from './mock-ports.js';

const PAGE = 4096;
const PAGE_N = 4096n;
const LAST = 2n ** 64n - 1n;
/** An access pins or copies at most this much at once. */
const MOST = 16 << 20;

/** The union of struct iommu_test_cmd begins at word 4. */
export const TestOp = {
  ADD_RESERVED: 1,
  MOCK_DOMAIN: 2,
  MD_CHECK_MAP: 3,
  MD_CHECK_REFS: 4,
  CREATE_ACCESS: 5,
  DESTROY_ACCESS_PAGES: 6,
  ACCESS_PAGES: 7,
  ACCESS_RW: 8,
  SET_TEMP_MEMORY_LIMIT: 9,
  MOCK_DOMAIN_REPLACE: 10,
  ACCESS_REPLACE_IOAS: 11,
  MOCK_DOMAIN_FLAGS: 12,
  DIRTY: 13,
  MD_CHECK_IOTLB: 14,
  TRIGGER_IOPF: 15,
  DEV_CHECK_CACHE: 16,
  TRIGGER_VEVENT: 17,
  PASID_ATTACH: 18,
  PASID_REPLACE: 19,
  PASID_DETACH: 20,
  PASID_CHECK_HWPT: 21,
  // unconfirmed: the members of the last two.
  DMABUF_GET: 22,
  DMABUF_REVOKE: 23,
} as const;

interface Call {
  readonly mock: MockIommu;
  readonly file: IommufdFile;
  readonly task: Task;
  readonly words: Uint32Array;
  /** `id` of the structure. */
  readonly id: number;
}
const number = (words: Uint32Array, at: number): number => words[at + 1]! * 2 ** 32 + words[at]!;
const big = (words: Uint32Array, at: number): bigint => (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!);
const pasidOf = (pasid: number): number => (pasid === 0 ? NO_PASID : pasid);

/** A device and its object, which the program destroys. */
interface SelfTestDevice extends MockObject {
  readonly deviceId: number;
}
const deviceOf = ({ file, id }: Call): SelfTestDevice | undefined => file.find(id, 'other') as SelfTestDevice | undefined;

function mockDomain(call: Call, flags: number): number {
  const { mock, file, words, id } = call;
  if (flags & ~(MockDeviceFlag.NO_DIRTY | MockDeviceFlag.HUGE_IOVA | MockDeviceFlag.PASID)) return -Errno.EINVAL;
  if (mock.fails('mock device')) return -Errno.ENOMEM;
  const device = mock.addDevice(flags);
  const deviceId = file.bindDevice(device.requesterId);
  if (deviceId < 0) {
    mock.devices.delete(device.requesterId);
    return deviceId;
  }
  const undo = (): void => {
    file.unbind(deviceId);
    mock.devices.delete(device.requesterId);
  };
  const error = file.attach(deviceId, id, NO_PASID, 'attach');
  if (error) {
    undo();
    return error;
  }
  const object = Object.assign(file.add({ kind: 'other', destroy: undo }), { deviceId });
  words[4] = object.id;
  words[5] = file.hwptOf(deviceId, NO_PASID)!.id;
  words[6] = deviceId;
  return 0;
}

/** The frame under a user address, or -errno. */
function frameAt({ task }: Call, address: number): number {
  const out = new Int32Array(1);
  const got = task.mm.pin(address, 1, false, out);
  if (got < 0) return got;
  task.mm.unpin(out, 1);
  return out[0]!;
}

function checkMap(call: Call): number {
  const { file, words, id } = call;
  const [iova, length, user] = [number(words, 4), number(words, 6), number(words, 8)];
  if (iova % Mock.IO_PAGE || length % Mock.IO_PAGE || user % Mock.IO_PAGE) return -Errno.EINVAL;
  const table = file.find(id, 'paging')?.table as MockTable | undefined;
  if (!table) return -Errno.ENOENT;
  for (let done = 0; done < length; done += Mock.IO_PAGE) {
    const address = user + done;
    const frame = frameAt(call, address - (address % PAGE));
    if (frame < 0) return frame;
    if (table.pages.get((iova + done) / Mock.IO_PAGE)?.address !== frame * PAGE + (address % PAGE)) return -Errno.EINVAL;
  }
  return 0;
}
function checkRefs(call: Call): number {
  const [length, user, refs] = [number(call.words, 4), number(call.words, 6), call.words[8]!];
  if (length % PAGE || user % PAGE) return -Errno.EINVAL;
  for (let done = 0; done < length; done += PAGE) {
    const frame = frameAt(call, user + done);
    if (frame < 0) return frame;
    if (call.mock.memory.pinsOf(frame) !== refs) return -Errno.EIO;
  }
  return 0;
}

interface Item {
  readonly id: number;
  readonly iova: bigint;
  readonly length: bigint;
}
/** The file of an access: what it pinned, by number. */
class AccessFile implements OpenFile {
  access: Access | undefined;
  readonly pins: boolean;
  readonly items: Item[] = [];
  nextId = 0;
  private readonly iommufd: IommufdFile;
  constructor(iommufd: IommufdFile, pins: boolean) {
    this.iommufd = iommufd;
    this.pins = pins;
  }
  /** What is in the range is let go. */
  unmap(iova: bigint, length: bigint): void {
    for (const item of [...this.items]) {
      if (item.iova >= iova + length || item.iova + item.length <= iova) continue;
      this.letGo(item);
    }
  }
  letGo(item: Item): void {
    this.items.splice(this.items.indexOf(item), 1);
    this.access?.access.unpin(item.iova, item.length);
  }
  close(): void {
    if (!this.access) return;
    this.unmap(0n, LAST);
    this.iommufd.destroyAccess(this.access as never);
    this.access = undefined;
  }
}
const accessOf = ({ task }: Call, fd: number): AccessFile | undefined => {
  const file = task.file?.(fd);
  return file instanceof AccessFile ? file : undefined;
};

function createAccess({ mock, file, task, words, id }: Call): number {
  const flags = words[5]!;
  if (flags & ~1) return -Errno.EOPNOTSUPP;
  if (mock.fails('access file')) return -Errno.ENOMEM;
  const made = new AccessFile(file, (flags & 1) !== 0);
  const access = file.createAccess({ pins: made.pins, unmap: (iova, length) => made.unmap(iova, length) }, id);
  if (typeof access === 'number') return access;
  made.access = access;
  const fd = task.install?.(made) ?? -Errno.ENOMEM;
  if (fd < 0) {
    made.close();
    return -Errno.ENOMEM;
  }
  words[4] = fd;
  return 0;
}
function accessPages(call: Call): number {
  const { mock, words, id } = call;
  const [flags, iova, length, user] = [words[4]!, big(words, 6), big(words, 8), number(words, 10)];
  if (length > BigInt(MOST)) return -Errno.ENOMEM;
  if (flags & ~1) return -Errno.EOPNOTSUPP;
  const file = accessOf(call, id);
  if (!file?.access) return -Errno.EBADFD;
  if (!file.pins) return -Errno.EOPNOTSUPP;
  if (mock.fails('pages of an access')) return -Errno.ENOMEM;
  const frames = file.access.access.pin(iova, length, (flags & 1) !== 0);
  if (typeof frames === 'number') return frames;
  let error = 0;
  for (let i = 0; user && i < frames.length && !error; i++) {
    const frame = frameAt(call, user - Number(iova % PAGE_N) + i * PAGE);
    error = frame < 0 ? frame : frame === frames[i] ? 0 : -Errno.EBADE;
  }
  if (!error && mock.fails('item of an access')) error = -Errno.ENOMEM;
  if (error) {
    file.access.access.unpin(iova, length);
    return error;
  }
  const item = { id: file.nextId++, iova, length };
  file.items.push(item);
  words[5] = item.id;
  return 0;
}
function accessRw(call: Call): number {
  const { mock, task, words, id } = call;
  const [iova, length, user, flags] = [big(words, 4), number(words, 6), number(words, 8), words[10]!];
  if (length > MOST) return -Errno.ENOMEM;
  if (flags & ~(1 | 4)) return -Errno.EOPNOTSUPP;
  const file = accessOf(call, id);
  if (!file?.access) return -Errno.EBADFD;
  if (mock.fails('copy of an access')) return -Errno.ENOMEM;
  const bytes = new Uint8Array(length);
  const write = (flags & 1) !== 0;
  if (write && task.copyIn(user, bytes)) return -Errno.EFAULT;
  const error = file.access.access.copy(iova, bytes, write);
  if (error) return error;
  return !write && task.copyOut(user, bytes) ? -Errno.EFAULT : 0;
}

function setDirty({ file, task, words, id }: Call): number {
  const [iova, length, pageSize, user] = [number(words, 6), number(words, 8), number(words, 10), number(words, 12)];
  if (!pageSize || !length || iova % pageSize || length % pageSize || !user) return -Errno.EINVAL;
  const table = file.find(id, 'paging')?.table as MockTable | undefined;
  if (!table) return -Errno.ENOENT;
  if (!table.tracking) return -Errno.EINVAL;
  const pages = length / pageSize;
  const bits = new Uint8Array(Math.ceil(pages / 8));
  if (task.copyIn(user, bits)) return -Errno.EFAULT;
  let count = 0;
  for (let i = 0; i < pages; i++) {
    const entry = bits[i >>> 3]! & (1 << (i & 7)) ? table.pages.get(Math.floor((iova + i * pageSize) / Mock.IO_PAGE)) : undefined;
    if (!entry) continue;
    entry.dirty = true;
    count++;
  }
  words[14] = count;
  words[15] = 0;
  return 0;
}

/** A buffer of a device. */
class Buffer implements OpenFile, MemoryFile {
  readonly memory = this;
  readonly writable = true;
  readonly bytes: number;
  private readonly mock: MockIommu;
  private readonly frames: number[];
  private readonly listeners = new Set<() => void>();
  private revoked = false;
  private holders = 1;
  constructor(mock: MockIommu, bytes: number) {
    this.mock = mock;
    this.bytes = bytes;
    this.frames = Array.from({ length: Math.ceil(bytes / PAGE) }, () => mock.memory.allocFrame());
  }
  get complete(): boolean {
    return this.frames.every((frame) => frame >= 0);
  }
  pin(first: number, pages: number, out: Int32Array, at: number): number {
    if (this.revoked) return -Errno.ENODEV;
    if (first + pages > this.frames.length) return -Errno.EINVAL;
    for (let i = 0; i < pages; i++) out[at + i] = this.frames[first + i]!;
    return pages;
  }
  unpin(): void {}
  onRevoke(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
  revoke(on: boolean): void {
    this.revoked = on;
    if (on) for (const listener of [...this.listeners]) listener();
    if (on) this.listeners.clear();
  }
  hold(): () => void {
    this.holders++;
    return () => this.close();
  }
  close(): void {
    if (--this.holders > 0) return;
    for (const frame of this.frames) if (frame >= 0) this.mock.memory.freeFrame(frame);
  }
}
function getBuffer({ mock, task, words }: Call): number {
  const buffer = new Buffer(mock, words[4]!);
  const fd = buffer.complete ? (task.install?.(buffer) ?? -Errno.ENOMEM) : -Errno.ENOMEM;
  if (fd < 0) buffer.close();
  return fd;
}

function replace(call: Call): number {
  const { file, words } = call;
  const device = deviceOf(call);
  if (!device) return -Errno.ENOENT;
  const error = file.attach(device.deviceId, words[4]!, NO_PASID, 'replace');
  if (!error) words[4] = file.hwptOf(device.deviceId, NO_PASID)!.id;
  return error;
}
function attachPasid(call: Call, mode: 'attach' | 'replace'): number {
  const { file, words } = call;
  const device = deviceOf(call);
  if (!device) return -Errno.ENOENT;
  const [pasid, ptId] = [pasidOf(words[4]!), words[5]!];
  const error = file.attach(device.deviceId, ptId, pasid, mode);
  if (!error) words[5] = file.hwptOf(device.deviceId, pasid)!.id;
  return error;
}

function run(call: Call, op: number): number {
  const { mock, file, task, words, id } = call;
  const mockDevice = (deviceId: number) => mock.devices.get(file.find(deviceId, 'device')?.requesterId ?? -1);
  switch (op) {
    case TestOp.ADD_RESERVED:
      return file.find(id, 'ioas')?.ioas.reserve(big(words, 4), big(words, 4) + big(words, 6) - 1n, undefined) ?? -Errno.ENOENT;
    case TestOp.MOCK_DOMAIN:
      return mockDomain(call, 0);
    case TestOp.MOCK_DOMAIN_FLAGS:
      return mockDomain(call, words[7]!);
    case TestOp.MOCK_DOMAIN_REPLACE:
      return replace(call);
    case TestOp.MD_CHECK_MAP:
      return checkMap(call);
    case TestOp.MD_CHECK_REFS:
      return checkRefs(call);
    case TestOp.MD_CHECK_IOTLB: {
      const table = file.find(id, 'nested')?.table as MockNested | undefined;
      if (!table) return -Errno.ENOENT;
      return table.iotlb[words[4]!] === words[5] ? 0 : -Errno.EINVAL;
    }
    case TestOp.CREATE_ACCESS:
      return createAccess(call);
    case TestOp.ACCESS_REPLACE_IOAS: {
      const access = accessOf(call, id)?.access;
      return access ? file.replaceAccess(access as never, words[4]!) : -Errno.EBADFD;
    }
    case TestOp.ACCESS_PAGES:
      return accessPages(call);
    case TestOp.DESTROY_ACCESS_PAGES: {
      const access = accessOf(call, id);
      if (!access) return -Errno.EBADFD;
      const item = access.items.find((each) => each.id === words[4]);
      if (!item) return -Errno.ENOENT;
      access.letGo(item);
      return 0;
    }
    case TestOp.ACCESS_RW:
      return accessRw(call);
    case TestOp.SET_TEMP_MEMORY_LIMIT:
      // Bounds the kernel's batches of pages; there are none here.
      return words[4]! < 12 ? -Errno.EINVAL : 0;
    case TestOp.DIRTY:
      return setDirty(call);
    case TestOp.TRIGGER_IOPF: {
      const device = mockDevice(words[4]!);
      if (!device) return -Errno.ENOENT;
      mock.pageRequest(device, pasidOf(words[5]!), words[6]!, words[7]!, big(words, 8));
      return 0;
    }
    case TestOp.DEV_CHECK_CACHE: {
      const device = mockDevice(id);
      if (!device) return -Errno.ENOENT;
      return device.cache[words[4]!] === words[5] ? 0 : -Errno.EINVAL;
    }
    case TestOp.TRIGGER_VEVENT: {
      const device = mockDevice(words[4]!);
      if (!device?.viommu) return -Errno.ENOENT;
      return device.viommu.context.report(Mock.VEVENTQ, Uint32Array.of(Number(device.virtualId & 0xffff_ffffn)));
    }
    case TestOp.PASID_ATTACH:
      return attachPasid(call, 'attach');
    case TestOp.PASID_REPLACE:
      return attachPasid(call, 'replace');
    case TestOp.PASID_DETACH: {
      const device = deviceOf(call);
      if (!device) return -Errno.ENOENT;
      file.detach(device.deviceId, pasidOf(words[4]!));
      return 0;
    }
    case TestOp.PASID_CHECK_HWPT: {
      const device = deviceOf(call);
      if (!device) return -Errno.ENOENT;
      const attached = mockDevice(device.deviceId)?.attached.get(pasidOf(words[4]!))?.table;
      if (words[5] === 0) return attached ? -Errno.EINVAL : 0;
      const hwpt = file.find(words[5]!, 'paging') ?? file.find(words[5]!, 'nested');
      if (!hwpt) return -Errno.ENOENT;
      return hwpt.table === attached ? 0 : -Errno.EINVAL;
    }
    case TestOp.DMABUF_GET:
      return getBuffer(call);
    case TestOp.DMABUF_REVOKE: {
      const buffer = task.file?.(words[4]! | 0);
      if (!(buffer instanceof Buffer)) return -Errno.EBADF;
      buffer.revoke(words[5] !== 0);
      return 0;
    }
    default:
      return -Errno.EOPNOTSUPP;
  }
}

export const testIoctl = (mock: MockIommu, file: IommufdFile, task: Task, words: Uint32Array): number =>
  run({ mock, file, task, words, id: words[2]! }, words[1]!);
