/** /dev/iommu over the mock driver, and a program that uses it: one line for an ioctl, as in the kernel's own selftest of iommufd. */
import { MapFlag, Prot } from '@siov/layout/uapi';
import { AddressSpace, MemoryFile, pinCount } from '@siov/memory';
import { Mock, MockIommu, TestOp } from '@siov/testkit';
import { expect } from 'vitest';
import { IommufdDevice, type MappableFile, type OpenFile, type Task } from '../src/index.js';
import { iommufd as uapi } from '../src/spec/index.js';
import { world } from './machine.js';

const { IommufdIoctl, IoasMapFlag } = uapi;
export const PAGE = 4096;
/** User memory of the program, and where its structures lie. */
export const BUFFER = 0x7f00_0000_0000;
export const BUFFER_BYTES = 64 * PAGE;
const ARGUMENT = BUFFER - 0x10_0000;
export const DATA = ARGUMENT + 0x1000;
export const APERTURE = Mock.APERTURE_START;
export const RW = IoasMapFlag.READABLE | IoasMapFlag.WRITEABLE;
export const ALL = 2n ** 64n - 1n;

type Value = number | bigint;
/** Two words of a 64-bit value. */
export const two = (value: Value): [number, number] => [Number(BigInt(value) & 0xffff_ffffn), Number((BigInt(value) >> 32n) & 0xffff_ffffn)];
const u64 = (words: Uint32Array, at: number): bigint => (BigInt(words[at + 1]!) << 32n) | BigInt(words[at]!);

/** An open /dev/iommu of a process with a buffer. `hugeFrames`: its buffer is in one piece of memory. */
export function mocked(frames = 4096, options: { readonly lockedPages?: number; readonly userPages?: number } = {}) {
  const w = world(frames);
  let live = 0;
  let left = Number.POSITIVE_INFINITY;
  const source = {
    alloc(order = 0): number {
      const frame = w.allocator.alloc(order);
      if (frame >= 0) live += 2 ** order;
      return frame;
    },
    free(frame: number, order = 0): void {
      live -= 2 ** order;
      w.allocator.free(frame, order);
    },
  };
  const bytesOf = (frame: number) => w.region.bytes.subarray((frame - 0x100) * PAGE, (frame - 0xff) * PAGE);
  const mock = new MockIommu({
    bytesOf,
    allocFrame: () => source.alloc(),
    freeFrame: (frame) => source.free(frame),
    pinsOf: (frame) => pinCount(source, frame),
  });
  mock.failing = () => left-- <= 0;
  const device = new IommufdDevice({ ops: mock, bytesOf, lockedPages: options.lockedPages, extra: mock.extra as never });

  /** A process with files of its own. */
  const process = (mm = newMm()) => {
    const files: ((OpenFile & MappableFile) | undefined)[] = [];
    let woken = 0;
    const task: Task = {
      mm,
      copyIn: (a, o) => mm.read(a, o),
      copyOut: (a, b) => mm.write(a, b),
      install: (file) => files.push(file) + 2,
      file: (fd) => files[fd - 3],
      wakeUp: () => void woken++,
    };
    const close = (fd: number): void => {
      files[fd - 3]?.close?.();
      files[fd - 3] = undefined;
    };
    return { mm, task, files, close, woken: () => woken };
  };
  function newMm(): AddressSpace {
    const mm = new AddressSpace({ memory: w.memory, frames: source, lockedPages: options.userPages });
    const flags = MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED;
    mm.mmap(ARGUMENT, 0x10_0000, Prot.READ | Prot.WRITE, flags);
    mm.mmap(BUFFER, BUFFER_BYTES, Prot.READ | Prot.WRITE, flags);
    return mm;
  }
  let me = process();
  let file = device.open();
  const opened = [file];

  const ioctl = (number: number, words: readonly number[], at = ARGUMENT) => {
    const out = Uint32Array.from(words.map((word) => word >>> 0));
    me.mm.write(at, new Uint8Array(out.buffer));
    const result = file.ioctl!(me.task, number, at);
    me.mm.read(at, new Uint8Array(out.buffer));
    return { result, words: out };
  };
  /** Puts words into the program's memory; where they are. */
  const put = (words: readonly number[], at = DATA): number => {
    me.mm.write(at, new Uint8Array(Uint32Array.from(words.map((word) => word >>> 0)).buffer));
    return at;
  };
  const get = (count: number, at = DATA): number[] => {
    const words = new Uint32Array(count);
    me.mm.read(at, new Uint8Array(words.buffer));
    return [...words];
  };
  /** IOMMU_TEST_CMD: the words from the union on. */
  const command = (op: keyof typeof TestOp, id: number, union: readonly number[] = []) => {
    const words = new Array<number>(18).fill(0);
    words.splice(0, 3, 72, TestOp[op], id);
    words.splice(4, union.length, ...union);
    const answer = ioctl(Mock.CMD, words);
    return { result: answer.result, words: [...answer.words.subarray(4)] };
  };

  const ioas = () => ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0]).words[2]!;
  const destroy = (id: number) => ioctl(IommufdIoctl.DESTROY, [8, id]).result;
  const mapAs = (number: number, head: readonly number[], address: Value, length: Value, iova: Value | undefined) => {
    const { result, words } = ioctl(number, [...head, ...two(address), ...two(length), ...two(iova ?? 0)]);
    return result ? BigInt(result) : u64(words, 8);
  };
  /** The IOVA or -errno. */
  const map = (id: number, address: Value, length: Value, iova?: Value, flags = RW) =>
    mapAs(IommufdIoctl.IOAS_MAP, [40, flags | (iova === undefined ? 0 : 1), id, 0], address, length, iova);
  const mapFile = (id: number, fd: number, start: Value, length: Value, iova?: Value, flags = RW) =>
    mapAs(IommufdIoctl.IOAS_MAP_FILE, [40, flags | (iova === undefined ? 0 : 1), id, fd], start, length, iova);
  const copy = (to: number, from: number, source: Value, length: Value, iova?: Value, flags = RW) => {
    const head = [40, flags | (iova === undefined ? 0 : 1), to, from];
    const { result, words } = ioctl(IommufdIoctl.IOAS_COPY, [...head, ...two(length), ...two(iova ?? 0), ...two(source)]);
    return result ? BigInt(result) : u64(words, 6);
  };
  /** Bytes, or -errno. */
  const unmap = (id: number, iova: Value, length: Value) => {
    const { result, words } = ioctl(IommufdIoctl.IOAS_UNMAP, [24, id, ...two(iova), ...two(length)]);
    return result ? BigInt(result) : u64(words, 4);
  };
  const allow = (id: number, ...spans: readonly (readonly [start: Value, last: Value])[]) =>
    ioctl(IommufdIoctl.IOAS_ALLOW_IOVAS, [24, id, spans.length, 0, ...two(put(spans.flatMap(([start, last]) => [...two(start), ...two(last)])))])
      .result;
  const ranges = (id: number, room: number) => {
    const { result, words } = ioctl(IommufdIoctl.IOAS_IOVA_RANGES, [32, id, room, 0, ...two(put(new Array(room * 4 + 4).fill(0))), 0, 0]);
    const rows = Uint32Array.from(get(room * 4));
    const list = Array.from({ length: Math.min(room, words[2]!) }, (_, i) => [u64(rows, i * 4), u64(rows, i * 4 + 2)]);
    return { result, count: words[2]!, list, alignment: u64(words, 6) };
  };
  const option = (id: number, object: number, op: number, value: Value = 0) => {
    const { result, words } = ioctl(IommufdIoctl.OPTION, [24, id, op, object, ...two(value)]);
    return { result, value: u64(words, 4) };
  };

  /** A mock device attached to an IOAS or HWPT: ids, or -errno. */
  const domain = (ptId: number, flags?: number) => {
    const { result, words } = command(flags === undefined ? 'MOCK_DOMAIN' : 'MOCK_DOMAIN_FLAGS', ptId, [0, 0, 0, flags ?? 0]);
    return { result, stdev: words[0]!, hwpt: words[1]!, device: words[2]! };
  };
  const replace = (stdev: number, ptId: number) => {
    const { result, words } = command('MOCK_DOMAIN_REPLACE', stdev, [ptId]);
    return result || words[0]!;
  };
  const hwpt = (
    deviceId: number,
    ptId: number,
    flags = 0,
    data?: { readonly type: number; readonly words?: readonly number[]; readonly bytes?: number },
    fault = 0,
  ) => {
    const at = data?.words ? put(data.words) : 0;
    const bytes = data?.bytes ?? (data?.words?.length ?? 0) * 4;
    const { result, words } = ioctl(IommufdIoctl.HWPT_ALLOC, [48, flags, deviceId, ptId, 0, 0, data?.type ?? 0, bytes, ...two(at), fault, 0]);
    return result || words[4]!;
  };
  /** Attaches, replaces, detaches a PASID of a mock device; looks what is there (0: nothing). */
  const pasid = {
    attach: (stdev: number, number: number, ptId: number) => command('PASID_ATTACH', stdev, [number, ptId]).result,
    replace: (stdev: number, number: number, ptId: number) => command('PASID_REPLACE', stdev, [number, ptId]).result,
    detach: (stdev: number, number: number) => command('PASID_DETACH', stdev, [number]).result,
    check: (stdev: number, number: number, hwptId: number) => command('PASID_CHECK_HWPT', stdev, [number, hwptId]).result,
  };
  const checkMap = (hwptId: number, iova: Value, address: Value, length: Value) =>
    command('MD_CHECK_MAP', hwptId, [...two(iova), ...two(length), ...two(address)]).result;
  const checkRefs = (address: Value, length: Value, pins: number) => command('MD_CHECK_REFS', 0, [...two(length), ...two(address), pins]).result;
  const checkIotlb = (hwptId: number, slot: number, value: number) => command('MD_CHECK_IOTLB', hwptId, [slot, value]).result;
  const checkCache = (deviceId: number, slot: number, value: number) => command('DEV_CHECK_CACHE', deviceId, [slot, value]).result;
  const reserve = (id: number, start: Value, length: Value) => command('ADD_RESERVED', id, [...two(start), ...two(length)]).result;
  const fault = (deviceId: number, group: number, permissions: number, address: Value, number = 0) =>
    command('TRIGGER_IOPF', 0, [deviceId, number, group, permissions, ...two(address)]).result;
  /** The descriptor of an access, or -errno. `pins`: it pins pages, so that addresses are whole pages. */
  const access = (id: number, pins = true) => {
    const { result, words } = command('CREATE_ACCESS', id, [0, pins ? 1 : 0]);
    return result || words[0]!;
  };
  /** The number of what was pinned, or -errno. */
  const pin = (fd: number, iova: Value, length: Value, address: Value = 0, write = false) => {
    const { result, words } = command('ACCESS_PAGES', fd, [write ? 1 : 0, 0, ...two(iova), ...two(length), ...two(address)]);
    return result || words[1]!;
  };
  const unpin = (fd: number, item: number) => command('DESTROY_ACCESS_PAGES', fd, [item]).result;
  const transfer = (fd: number, iova: Value, length: Value, address: Value, write: boolean, slow = false) =>
    command('ACCESS_RW', fd, [...two(iova), ...two(length), ...two(address), (write ? 1 : 0) | (slow ? 4 : 0)]).result;
  const invalidate = (id: number, type: number, entryBytes: number, count: number, words: readonly number[]) => {
    const at = words.length ? put(words) : 0;
    const answer = ioctl(IommufdIoctl.HWPT_INVALIDATE, [32, id, ...two(at), type, entryBytes, count, 0]);
    return { result: answer.result, done: answer.words[6]! };
  };
  /** A fault queue: id and descriptor. */
  const faultQueue = () => {
    const { result, words } = ioctl(IommufdIoctl.FAULT_QUEUE_ALLOC, [16, 0, 0, 0]);
    expect(result).toBe(0);
    return { id: words[2]!, fd: words[3]! };
  };
  const read = (fd: number, bytes: number, at = DATA) => me.files[fd - 3]!.read!(me.task, at, bytes, 0);
  const write = (fd: number, words: readonly number[], bytes = words.length * 4) => me.files[fd - 3]!.write!(me.task, put(words), bytes, 0);
  const poll = (fd: number) => me.files[fd - 3]!.poll!(me.task);
  const memoryFile = (bytes: number) => {
    const memory = new MemoryFile({ memory: w.memory, frames: source });
    memory.resize(bytes);
    return { memory, fd: me.files.push({ memory, close: () => memory.close() }) + 2 };
  };

  /** The program ends: everything must be gone with it. */
  const end = () => {
    left = Number.POSITIVE_INFINITY;
    for (const each of opened) each.close?.();
    for (let fd = 3; fd < me.files.length + 3; fd++) me.close(fd);
    me.mm.exit();
    return { frames: live, tables: mock.tables, devices: mock.devices.size, locked: device.lockedPages };
  };
  return {
    ...{ mock, device, w, source, process, ioctl, put, get, command, ioas, destroy, map, mapFile, copy, unmap, allow, ranges, option },
    ...{ domain, replace, hwpt, pasid, checkMap, checkRefs, checkIotlb, checkCache, reserve, fault, access, pin, unpin, transfer },
    ...{ invalidate, faultQueue, read, write, poll, memoryFile, end, newMm },
    get me() {
      return me;
    },
    set me(other) {
      me = other;
    },
    get file() {
      return file;
    },
    /** Another open file of the same device. */
    reopen() {
      file = device.open();
      opened.push(file);
    },
    /** The n-th allocation from here on fails, and all after it. */
    failAt(n: number) {
      left = n;
    },
    disarm() {
      left = Number.POSITIVE_INFINITY;
    },
    fill(address: number, bytes: number, seed = 1) {
      me.mm.write(
        address,
        Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + seed) & 0xff),
      );
    },
    bytes(address: number, bytes: number) {
      const out = new Uint8Array(bytes);
      me.mm.read(address, out);
      return out;
    },
  };
}
export type Mocked = ReturnType<typeof mocked>;
/** What is left after `end` when nothing leaked. */
export const NOTHING = { frames: 0, tables: 0, devices: 0, locked: 0 };
