import { Clock } from '@siov/cpu';
import { DmaAccess, TlpStatus } from '@siov/layout/pcie';
import {
  type DeviceCosts,
  type Extent,
  IdxdDevice,
  type Native,
  type Profile,
  type ScheduleOptions,
  sprDsa,
  type Trace,
  type Upstream,
} from '../src/index.js';
import {
  CmdSts,
  Command,
  Descriptor,
  Flag,
  GroupCfg,
  Portal,
  Record,
  Register,
  TableOffsets,
  WQ_OPERATIONS_OFFSET,
  WqCap,
  WqCfg,
} from '../src/spec/index.js';

export interface WqOptions {
  readonly size?: number;
  readonly shared?: boolean;
  readonly threshold?: number;
  readonly pasid?: number;
  readonly priority?: number;
  readonly blockOnFault?: boolean;
  readonly maxTransferShift?: number;
  readonly maxBatchShift?: number;
  readonly privileged?: boolean;
  /** Of the 64-byte WQCFG: the operation codes that the queue takes. */
  readonly operations?: readonly number[];
}

/**
 * A device over one flat memory: an IOVA is an offset into it. Pages in `absent` answer "not present", `readOnly` ones refuse writes, `writeOnly` ones reads;
 * PASIDs in `strangers` reach nothing. Driven through MMIO and portals only.
 */
export function machine(
  options: {
    profile?: Profile;
    costs?: Partial<DeviceCosts>;
    bytes?: number;
    trafficClassB?: number;
    trace?: Trace;
    assembleStores?: boolean;
    schedule?: ScheduleOptions;
    native?: Native;
    unconnected?: boolean;
    deviceTlb?: boolean | 'device' | 'engine';
    /** Memory that is reached by messages: each read is put off once. `answered` lets those that wait ask again. */
    puttingOff?: boolean;
  } = {},
) {
  const clock = new Clock();
  const bytes = new Uint8Array(options.bytes ?? 1 << 20);
  const words = new Uint32Array(bytes.buffer);
  const absent = new Set<number>();
  const readOnly = new Set<number>();
  const writeOnly = new Set<number>();
  const strangers = new Set<number>();
  const messages: { address: number; data: number }[] = [];
  const pageRequests: { pasid: number; page: number; group: number; write: boolean }[] = [];
  const seen: { pasid: number; access: number }[] = [];
  const asked = new Set<number>();
  let putOff = 0;
  const upstream: Upstream = {
    acquire(access: number, pasid: number, high: number, low: number, max: number, out: Extent): number {
      const address = (high >>> 0) * 2 ** 32 + (low >>> 0);
      seen.push({ pasid, access });
      out.ns = 0;
      const key = address;
      if (options.puttingOff && !(access & DmaAccess.write) && !asked.delete(key)) {
        asked.add(key);
        putOff++;
        return TlpStatus.waiting;
      }
      const page = address >>> 12;
      const refused = access & DmaAccess.write ? readOnly : writeOnly;
      const missing = address >= bytes.length || absent.has(page) || strangers.has(pasid) || refused.has(page);
      if (missing) return access & DmaAccess.ats ? TlpStatus.notPresent : TlpStatus.unsupportedRequest;
      out.view = bytes;
      out.words = words;
      out.offset = address;
      out.length = Math.min(max, 4096 - (address & 4095), bytes.length - address);
      return TlpStatus.success;
    },
    commit: () => {},
    message: (address, data) => void messages.push({ address: address >>> 0, data }),
    pageRequest(pasid, _high, low, access, group) {
      pageRequests.push({ pasid, page: low >>> 12, group, write: (access & 1) === 1 });
      return 0;
    },
  };
  const device = new IdxdDevice({
    clock,
    ...(options.profile ? { profile: options.profile } : {}),
    ...(options.costs ? { costs: options.costs } : {}),
    ...(options.trace ? { trace: options.trace } : {}),
    ...(options.assembleStores ? { assembleStores: true } : {}),
    ...(options.native ? { native: options.native } : {}),
    ...(options.schedule ? { schedule: options.schedule } : {}),
    ...(options.deviceTlb === undefined ? {} : { deviceTlb: options.deviceTlb }),
  });
  if (!options.unconnected) device.connect(upstream);
  const fn = device.function;
  const bar0 = fn.barMmio(0)!;
  const bar2 = fn.barMmio(2)!;
  const pasidCap = fn.at.pasid;
  fn.configWrite(4, 2, 6);
  fn.configWrite(pasidCap + 6, 2, 5);
  fn.configWrite(fn.at.pri + 4, 2, 1);
  fn.configWrite(fn.at.ats + 6, 2, 0x8000);
  fn.configWrite(fn.at.msix + 2, 2, 0x8000);

  const run = (): void => {
    clock.wait(() => false);
  };
  /** False: nothing waited. */
  const answered = (): boolean => {
    if (putOff === 0) return false;
    putOff = 0;
    const { engines, descriptorsPerEngine = 64 } = device.profile;
    for (let operation = 0; operation < engines * descriptorsPerEngine; operation++) device.pageResponse(-1, operation, 0);
    run();
    return true;
  };
  const read = (offset: number): number => bar0.read(offset, 4);
  const write = (offset: number, value: number): void => bar0.write(offset, 4, value);
  const offsets = Uint32Array.from([0, 4, 8, 12], (o) => read(Register.offsets + o));
  const groups = TableOffsets.get.groupConfig(offsets, 0) * 0x100;
  const queues = TableOffsets.get.wqConfig(offsets, 0) * 0x100;
  const msixPermission = TableOffsets.get.msixPermission(offsets, 0) * 0x100;
  const ims = TableOffsets.get.ims(offsets, 0) * 0x100;

  /** A command with the interrupt bit clear; returns the error code. */
  const command = (code: number, operand = 0): number => {
    write(Register.cmd, (code << 20) | operand);
    run();
    const status = Uint32Array.of(read(Register.cmdSts));
    if (CmdSts.get.active(status, 0)) throw new Error(`command ${code} is still active`);
    return CmdSts.get.error(status, 0);
  };
  const stride = 32 << WqCap.get.configSize(Uint32Array.of(read(Register.wqCap), read(Register.wqCap + 4)), 0);
  const configureWq = (index: number, wq: WqOptions = {}): void => {
    const w = new Uint32Array(8);
    WqCfg.set.size(w, 0, wq.size ?? 16);
    WqCfg.set.threshold(w, 0, wq.threshold ?? wq.size ?? 16);
    WqCfg.set.mode(w, 0, wq.shared ? 0 : 1);
    WqCfg.set.priority(w, 0, wq.priority ?? 10);
    WqCfg.set.blockOnFault(w, 0, wq.blockOnFault ? 1 : 0);
    if (wq.pasid !== undefined || wq.shared) {
      WqCfg.set.pasidEnable(w, 0, 1);
      WqCfg.set.pasid(w, 0, wq.pasid ?? 0);
    }
    WqCfg.set.maxTransferShift(w, 0, wq.maxTransferShift ?? 21);
    WqCfg.set.maxBatchShift(w, 0, wq.maxBatchShift ?? 5);
    WqCfg.set.privileged(w, 0, wq.privileged ? 1 : 0);
    for (let i = 0; i < 6; i++) write(queues + index * stride + i * 4, w[i]!);
    if (wq.operations) {
      const codes = new Uint32Array(8);
      for (const code of wq.operations) codes[code >>> 5]! |= 1 << (code & 31);
      for (let i = 0; i < 8; i++) write(queues + index * stride + WQ_OPERATIONS_OFFSET + i * 4, codes[i]!);
    }
  };
  const configureGroup = (index: number, wqs: number, engines: number, trafficClassB = 0): void => {
    const g = new Uint32Array(16);
    GroupCfg.set.wqs(g, 0, wqs);
    GroupCfg.set.engines(g, 0, engines);
    GroupCfg.set.trafficClassB(g, 0, trafficClassB);
    for (let i = 0; i < 16; i++) write(groups + index * 64 + i * 4, g[i]!);
  };
  /** Group 0 with one engine and the given queues, all enabled. */
  const start = (...wqs: WqOptions[]): void => {
    configureGroup(0, 2 ** wqs.length - 1, 1, options.trafficClassB);
    for (const [i, wq] of wqs.entries()) configureWq(i, wq);
    const status = [command(Command.enableDevice), ...wqs.map((_, i) => command(Command.enableWq, i))];
    if (status.some((s) => s !== 0)) throw new Error(`start: ${status}`);
  };

  const RECORD = 0x100;
  /** A descriptor as words: fields by name, the record at `RECORD` unless told. */
  const descriptor = (opcode: number, fields: Partial<{ [K in keyof typeof Descriptor.set]: number }> = {}): Uint32Array => {
    const d = new Uint32Array(16);
    Descriptor.set.opcode(d, 0, opcode);
    Descriptor.set.flags(d, 0, Flag.recordAddressValid | Flag.requestRecord);
    Descriptor.set.recordLow(d, 0, RECORD);
    for (const [name, value] of Object.entries(fields)) Descriptor.set[name as keyof typeof Descriptor.set](d, 0, value);
    return d;
  };
  const submit = (d: Uint32Array, wq = 0, page: number = Portal.limitedMsix): void => bar2.movdir64b!(wq * Portal.bytesPerWq + page, d, 0);
  const enqueue = (d: Uint32Array, wq = 0, page: number = Portal.limitedMsix): number => bar2.enqcmd!(wq * Portal.bytesPerWq + page, d, 0);
  const record = (at = RECORD) => Record.json(words, at / 4);
  /** Submits to a dedicated queue, runs, and reads the record. */
  const execute = (d: Uint32Array) => {
    words.fill(0, RECORD / 4, RECORD / 4 + 8);
    submit(d);
    run();
    return record();
  };
  return {
    clock,
    device,
    fn,
    bar0,
    bar2,
    bytes,
    words,
    absent,
    readOnly,
    writeOnly,
    strangers,
    messages,
    pageRequests,
    seen,
    run,
    answered,
    read,
    write,
    groups,
    queues,
    msixPermission,
    ims,
    command,
    configureWq,
    configureGroup,
    start,
    descriptor,
    submit,
    enqueue,
    record,
    execute,
    RECORD,
    profile: options.profile ?? sprDsa,
  };
}
