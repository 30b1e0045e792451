/** SET_IRQS as the core sees it: what it refuses before the device is asked. linux/vfio.h, VFIO_DEVICE_SET_IRQS. */
import { Errno } from '@siov/layout/uapi';
import type { IrqRequest, OpenFile, Sink, Task, VfioDevice } from './ports.js';
import type { Structure } from './structure.js';
import { IRQ_SET_ACTION, IRQ_SET_DATA, IrqSet, IrqSetFlag } from './uapi.js';

/** The structure's fields, and the count of the index it names. */
export interface IrqSetCall {
  readonly argsz: number;
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** Indexes of the device. */
  readonly indexes: number;
  /** Interrupts of `index`. */
  readonly interrupts: number;
}
const U32_MAX = 0xffff_ffff;
/** Bytes of data for each interrupt, -1 when the flags name no single kind. */
const unit = ({ flags }: IrqSetCall): number => [-1, 0, 1, -1, 4, -1, -1, -1][flags & IRQ_SET_DATA]!;

/** In the kernel's order; each is EINVAL. */
export const refusals: readonly (readonly [rule: string, broken: (call: IrqSetCall) => boolean])[] = [
  ['argsz covers the structure', (c) => c.argsz < IrqSet.bytes],
  ['the index exists', (c) => c.index >= c.indexes],
  ['start + count stays below 2^32 - 1', (c) => c.count >= U32_MAX - c.start],
  ['no unknown flag', (c) => (c.flags & ~(IRQ_SET_DATA | IRQ_SET_ACTION)) !== 0],
  ['start lies within the index (so an index without interrupts refuses all)', (c) => c.start >= c.interrupts],
  ['start + count lie within the index', (c) => c.start + c.count > c.interrupts],
  ['exactly one kind of data', (c) => unit(c) < 0],
  ['argsz covers the data', (c) => unit(c) > 0 && c.argsz - IrqSet.bytes < c.count * unit(c)],
];

const { get } = IrqSet;

/** 0, the device's answer, or -errno. Descriptors that are no eventfds are refused before the device hears of the call. */
export function setIrqs(device: VfioDevice, room: Structure, isEventFd: (file: OpenFile) => Sink | undefined, task: Task, address: number): number {
  const { words } = room;
  // The table has the rule for argsz; here only the pointer counts.
  if (room.copyIn(task, address, IrqSet.bytes) === -Errno.EFAULT) return -Errno.EFAULT;
  const index = get.index(words, 0);
  const info = index < device.irqs ? device.irqInfo(index) : 0;
  const call: IrqSetCall = {
    argsz: get.argsz(words, 0),
    flags: get.flags(words, 0),
    index,
    start: get.start(words, 0),
    count: get.count(words, 0),
    indexes: device.irqs,
    interrupts: typeof info === 'number' ? 0 : info.count,
  };
  for (const [, broken] of refusals) if (broken(call)) return -Errno.EINVAL;
  const data = new Uint8Array(call.count * unit(call));
  if (task.copyIn(address + IrqSet.bytes, data) < 0) return -Errno.EFAULT;
  const { flags, start, count } = call;
  let request: IrqRequest = { flags, index, start, count };
  if (flags & IrqSetFlag.DATA_BOOL) request = { ...request, bools: data };
  if (flags & IrqSetFlag.DATA_EVENTFD) {
    const sinks: (Sink | undefined)[] = [];
    for (const fd of new Int32Array(data.buffer)) {
      const file = fd < 0 ? undefined : task.file(fd);
      if (fd >= 0 && !file) return -Errno.EBADF;
      const sink = file && isEventFd(file);
      if (file && !sink) return -Errno.EINVAL;
      sinks.push(sink);
    }
    request = { ...request, sinks };
  }
  return device.setIrqs(request);
}
