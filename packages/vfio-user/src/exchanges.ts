/**
 * The client's commands as values: what is asked and how its answer reads. Those who send them differ: `VfioUserClient` waits, `NetClient` promises.
 */
import {
  CapHeader,
  DeviceFeature,
  FeatureFlag,
  IrqInfoLayout,
  IrqSet,
  RegionCap,
  RegionInfoLayout,
  SparseArea,
  SparseMmap,
} from '@siov/vfio-mdev/uapi';
import { ConnectionLostError } from './errors.js';
import {
  Command,
  commandNames,
  DeviceInfo,
  DmaAccess,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  HEADER_BYTES,
  HeaderFlag,
  IoFd,
  MigrationData,
  MultiWrite,
  RegionAccess,
  RegionIoFds,
  VERSION_MAJOR,
  VERSION_MINOR,
  WriteMulti,
} from './spec/protocol.js';

/** The client's memory, for what the server reaches by messages. Answers are errno or 0. */
export interface ClientMemory {
  read(address: number, into: Uint8Array): number;
  write(address: number, from: Uint8Array): number;
}
export interface ClientRegion {
  readonly flags: number;
  readonly size: number;
  readonly offset: number;
  /** What can be mapped, of `fd`. */
  readonly sparse: readonly { readonly offset: number; readonly size: number }[];
  /** -1 without; the caller's to close. */
  readonly fd: number;
}
export interface SmallWrite {
  readonly region: number;
  readonly offset: number;
  /** At most 8 bytes. */
  readonly data: Uint8Array;
}
/** What VERSION's reply says. */
export interface Agreed {
  readonly minor: number;
  readonly capabilities: Readonly<Record<string, unknown>>;
}

/** A command, and how to read the payload and the descriptors of its reply. */
export interface Exchange<T> {
  readonly command: number;
  readonly payload: Uint8Array;
  readonly fds?: readonly number[];
  answer(payload: Uint8Array, fds: readonly number[]): T;
}

const TWO32 = 2 ** 32;
const words = (payload: Uint8Array): Uint32Array => new Uint32Array(payload.slice(0, payload.length & ~3).buffer);
const bytesOf = (w: Uint32Array): Uint8Array => new Uint8Array(w.buffer);
const nothing = (): void => {};

/** VERSION: what the client can do, `more` over the defaults. An answer that cannot be read throws a ConnectionLostError. */
export function version(more: Readonly<Record<string, unknown>>): Exchange<Agreed> {
  const text = new TextEncoder().encode(
    JSON.stringify({ capabilities: { max_msg_fds: 16, max_data_xfer_size: 1 << 20, write_multiple: true, ...more } }),
  );
  const payload = new Uint8Array(4 + text.length + 1);
  payload[0] = VERSION_MAJOR;
  payload[2] = VERSION_MINOR;
  payload.set(text, 4);
  return {
    command: Command.VERSION,
    payload,
    answer: (reply) => {
      const said = new TextDecoder().decode(reply.subarray(4, Math.max(reply.length - 1, 4)));
      let json: { readonly capabilities?: unknown } | null;
      try {
        json = said === '' ? {} : JSON.parse(said);
      } catch {
        throw new ConnectionLostError(`VERSION: what it answers is no JSON: ${said.slice(0, 60)}`);
      }
      const capabilities = json?.capabilities;
      const known = typeof capabilities === 'object' && capabilities !== null;
      return { minor: (reply[2] ?? 0) | ((reply[3] ?? 0) << 8), capabilities: known ? (capabilities as Readonly<Record<string, unknown>>) : {} };
    },
  };
}
export function deviceInfo(): Exchange<{ readonly flags: number; readonly regions: number; readonly irqs: number }> {
  const { get, set, bytes } = DeviceInfo;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, bytes);
  return {
    command: Command.DEVICE_GET_INFO,
    payload: bytesOf(w),
    answer: (reply) => {
      const r = words(reply);
      return { flags: get.flags(r, 0), regions: get.regions(r, 0), irqs: get.irqs(r, 0) };
    },
  };
}
/** The answer is how large `argsz` must be when it was too small. */
export function regionInfo(index: number, argsz: number = RegionInfoLayout.bytes): Exchange<ClientRegion | number> {
  const { get, set, bytes } = RegionInfoLayout;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, argsz);
  set.index(w, 0, index);
  return {
    command: Command.DEVICE_GET_REGION_INFO,
    payload: bytesOf(w),
    answer: (reply, fds) => {
      const r = words(reply);
      if (get.argsz(r, 0) > argsz) return get.argsz(r, 0);
      const sparse: { offset: number; size: number }[] = [];
      for (let cap = get.capOffset(r, 0) / 4; cap > 0; cap = CapHeader.get.next(r, cap) / 4) {
        if (CapHeader.get.id(r, cap) !== RegionCap.SPARSE_MMAP) continue;
        for (let i = 0; i < SparseMmap.get.count(r, cap); i++) {
          const at = cap + (SparseMmap.bytes + i * SparseArea.bytes) / 4;
          const area = SparseArea.get;
          sparse.push({
            offset: area.offsetLow(r, at) + area.offsetHigh(r, at) * TWO32,
            size: area.sizeLow(r, at) + area.sizeHigh(r, at) * TWO32,
          });
        }
      }
      return {
        flags: get.flags(r, 0),
        size: get.sizeLow(r, 0) + get.sizeHigh(r, 0) * TWO32,
        offset: get.offsetLow(r, 0) + get.offsetHigh(r, 0) * TWO32,
        sparse,
        fd: fds[0] ?? -1,
      };
    },
  };
}
export function irqInfo(index: number): Exchange<{ readonly flags: number; readonly count: number }> {
  const { get, set, bytes } = IrqInfoLayout;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, bytes);
  set.index(w, 0, index);
  return {
    command: Command.DEVICE_GET_IRQ_INFO,
    payload: bytesOf(w),
    answer: (reply) => {
      const r = words(reply);
      return { flags: get.flags(r, 0), count: get.count(r, 0) };
    },
  };
}
export function setIrqs(
  flags: number,
  index: number,
  start: number,
  count: number,
  fds: readonly number[],
  bools: readonly number[],
): Exchange<void> {
  const { set, bytes } = IrqSet;
  const payload = new Uint8Array(bytes + bools.length);
  const w = new Uint32Array(payload.buffer, 0, bytes / 4);
  set.argsz(w, 0, bytes + bools.length);
  set.flags(w, 0, flags);
  set.index(w, 0, index);
  set.start(w, 0, start);
  set.count(w, 0, count);
  payload.set(bools, bytes);
  return { command: Command.DEVICE_SET_IRQS, payload, fds, answer: nothing };
}
export const regionRead = (region: number, offset: number, count: number): Exchange<Uint8Array> => ({
  command: Command.REGION_READ,
  payload: access(region, offset, count),
  answer: (reply) => reply.subarray(RegionAccess.bytes),
});
export const regionWrite = (region: number, offset: number, data: Uint8Array): Exchange<void> => ({
  command: Command.REGION_WRITE,
  payload: access(region, offset, data.length, data),
  answer: nothing,
});
/** The answer: how many were done. */
export function regionWriteMulti(writes: readonly SmallWrite[]): Exchange<number> {
  const payload = new Uint8Array(WriteMulti.bytes + writes.length * MultiWrite.bytes);
  new DataView(payload.buffer).setUint32(0, writes.length, true);
  for (const [i, { region, offset, data }] of writes.entries()) {
    if (data.length > 8) throw new RangeError(`writes: ${data.length} bytes, and one has at most 8`);
    payload.set(access(region, offset, data.length, data), WriteMulti.bytes + i * MultiWrite.bytes);
  }
  return { command: Command.REGION_WRITE_MULTI, payload, answer: (reply) => words(reply)[0]! };
}
export function dmaMap(
  address: number,
  size: number,
  from: { readonly fd?: number; readonly offset?: number; readonly flags?: number },
): Exchange<void> {
  const { set, bytes } = DmaMap;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, bytes);
  set.flags(w, 0, from.flags ?? DmaMapFlag.READ | DmaMapFlag.WRITE);
  set.offsetLow(w, 0, from.offset ?? 0);
  set.offsetHigh(w, 0, (from.offset ?? 0) / TWO32);
  set.addressLow(w, 0, address);
  set.addressHigh(w, 0, address / TWO32);
  set.sizeLow(w, 0, size);
  set.sizeHigh(w, 0, size / TWO32);
  return { command: Command.DMA_MAP, payload: bytesOf(w), fds: from.fd === undefined ? [] : [from.fd], answer: nothing };
}
export function dmaUnmap(address: number, size: number, flags: number): Exchange<void> {
  const { set, bytes } = DmaUnmap;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, bytes);
  set.flags(w, 0, flags);
  set.addressLow(w, 0, address);
  set.addressHigh(w, 0, address / TWO32);
  set.sizeLow(w, 0, size);
  set.sizeHigh(w, 0, size / TWO32);
  return { command: Command.DMA_UNMAP, payload: bytesOf(w), answer: nothing };
}
export const reset = (): Exchange<void> => ({ command: Command.DEVICE_RESET, payload: new Uint8Array(0), answer: nothing });
/** `method`: FeatureFlag GET, SET, PROBE; `room`: bytes that the reply's data may have. */
export function feature(index: number, method: number, data: Uint8Array, room: number): Exchange<Uint8Array> {
  const payload = new Uint8Array(DeviceFeature.bytes + data.length);
  const w = new Uint32Array(payload.buffer, 0, 2);
  DeviceFeature.set.argsz(w, 0, method & FeatureFlag.GET ? DeviceFeature.bytes + room : payload.length);
  DeviceFeature.set.flags(w, 0, index | method);
  payload.set(data, DeviceFeature.bytes);
  return { command: Command.DEVICE_FEATURE, payload, answer: (reply) => reply.subarray(DeviceFeature.bytes) };
}
export const migrationRead = (size: number): Exchange<Uint8Array> => ({
  command: Command.MIG_DATA_READ,
  payload: bytesOf(Uint32Array.of(MigrationData.bytes + size, size)),
  answer: (reply) => reply.subarray(MigrationData.bytes, MigrationData.bytes + words(reply)[1]!),
});
export function migrationWrite(data: Uint8Array): Exchange<void> {
  const payload = new Uint8Array(MigrationData.bytes + data.length);
  payload.set(bytesOf(Uint32Array.of(payload.length, data.length)));
  payload.set(data, MigrationData.bytes);
  return { command: Command.MIG_DATA_WRITE, payload, answer: nothing };
}
export function regionIoFds(index: number): Exchange<{
  readonly subRegions: readonly { offset: number; size: number; fdIndex: number; type: number }[];
  readonly fds: readonly number[];
}> {
  const { get, set, bytes } = RegionIoFds;
  const w = new Uint32Array(bytes / 4);
  set.argsz(w, 0, 65_536);
  set.index(w, 0, index);
  return {
    command: Command.DEVICE_GET_REGION_IO_FDS,
    payload: bytesOf(w),
    answer: (reply, fds) => {
      const r = words(reply);
      const count = get.count(r, 0);
      const each = count === 0 ? 0 : (get.argsz(r, 0) - bytes) / count / 4;
      const subRegions = Array.from({ length: count }, (_, i) => {
        const at = bytes / 4 + i * each;
        const of = IoFd.get;
        return { offset: of.offsetLow(r, at), size: of.sizeLow(r, at), fdIndex: of.fdIndex(r, at), type: of.type(r, at) };
      });
      return { subRegions, fds };
    },
  };
}

/** A message's header, and its payload after it. */
export function message(id: number, command: number, flags: number, errno: number, payload: Uint8Array, into: Uint8Array): number {
  const length = HEADER_BYTES + payload.length;
  if (length > into.length) throw new RangeError(`payload: ${payload.length} bytes, and a message has at most ${into.length - HEADER_BYTES}`);
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  view.setUint16(0, id, true);
  view.setUint16(2, command, true);
  view.setUint32(4, length, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, errno, true);
  into.set(payload, HEADER_BYTES);
  return length;
}

const EFAULT = 14;
const EINVAL = 22;
/** What answers a command of the server's: DMA_READ or DMA_WRITE of the client's memory. `errno` 0: `payload` is the reply's. */
export function serve(
  memory: ClientMemory | undefined,
  command: number,
  payload: Uint8Array,
): { readonly errno: number; readonly payload: Uint8Array } {
  const w = words(payload);
  const address = (w[0] ?? 0) + (w[1] ?? 0) * TWO32;
  const count = (w[2] ?? 0) + (w[3] ?? 0) * TWO32;
  const reads = command === Command.DMA_READ;
  const known = (reads || command === Command.DMA_WRITE) && payload.length >= DmaAccess.bytes && count <= 1 << 20;
  if (!known || !memory) return { errno: known ? EFAULT : EINVAL, payload: NOTHING };
  const answer = new Uint8Array(DmaAccess.bytes + (reads ? count : 0));
  answer.set(payload.subarray(0, DmaAccess.bytes));
  const errno = reads ? memory.read(address, answer.subarray(DmaAccess.bytes)) : memory.write(address, payload.subarray(DmaAccess.bytes));
  return { errno, payload: errno === 0 ? answer : NOTHING };
}
export const replyFlags = (errno: number): number => HeaderFlag.REPLY | (errno ? HeaderFlag.ERROR : 0);
export const nameOf = (command: number): string => commandNames[command] ?? `command ${command}`;
const NOTHING = new Uint8Array(0);

function access(region: number, offset: number, count: number, data?: Uint8Array): Uint8Array {
  const payload = new Uint8Array(RegionAccess.bytes + (data?.length ?? 0));
  const w = new Uint32Array(payload.buffer, 0, 4);
  RegionAccess.set.offsetLow(w, 0, offset);
  RegionAccess.set.offsetHigh(w, 0, offset / TWO32);
  RegionAccess.set.region(w, 0, region);
  RegionAccess.set.count(w, 0, count);
  if (data) payload.set(data, RegionAccess.bytes);
  return payload;
}
