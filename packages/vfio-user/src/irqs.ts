/** SET_IRQS: who hears the device's interrupts. linux/vfio.h, VFIO_DEVICE_SET_IRQS; vfio-user.rst, "VFIO_USER_DEVICE_SET_IRQS". */
import { Errno } from '@siov/layout/uapi';
import { IRQ_SET_ACTION, IRQ_SET_DATA, IrqSet, IrqSetFlag, PciIrq } from '@siov/vfio-mdev/uapi';
import type { IrqInfo, Sink, UserDevice } from './ports.js';
import type { CommandRow, Message, Session } from './session.js';
import { Command } from './spec/protocol.js';

type OwnedSink = Sink & { close(): void };

/** Eventfds that the client passed, by index and vector: closed when they are replaced, taken away, or the client is gone. */
export class Irqs {
  readonly #device: UserDevice;
  readonly #sinks = new Map<number, OwnedSink>();

  constructor(device: UserDevice) {
    this.#device = device;
  }

  info(index: number): IrqInfo | undefined {
    const info = index < this.#device.irqs ? this.#device.irqInfo(index) : -Errno.EINVAL;
    return typeof info === 'number' ? undefined : info;
  }

  /** Eventfds for a block; undefined takes a vector's away. What the device refuses is closed. */
  assign(flags: number, index: number, start: number, sinks: readonly (OwnedSink | undefined)[]): number {
    const result = this.#device.setIrqs({ flags, index, start, count: sinks.length, sinks });
    // An unmask eventfd is no vector's sink: it lives as long as the device keeps it.
    const kind = flags & IrqSetFlag.ACTION_UNMASK ? UNMASK : 0;
    for (const [i, sink] of sinks.entries()) {
      const key = keyOf(index, start + i) + kind;
      if (result < 0) {
        sink?.close();
        continue;
      }
      this.#sinks.get(key)?.close();
      if (sink) this.#sinks.set(key, sink);
      else this.#sinks.delete(key);
    }
    return result;
  }
  /** Turns an index off. One that is off already stays so. */
  disable(index: number): number {
    const { DATA_NONE, ACTION_TRIGGER } = IrqSetFlag;
    this.#device.setIrqs({ flags: DATA_NONE | ACTION_TRIGGER, index, start: 0, count: 0 });
    for (const [key, sink] of this.#sinks) {
      if (Math.floor((key % UNMASK) / PER_INDEX) !== index) continue;
      sink.close();
      this.#sinks.delete(key);
    }
    return 0;
  }
  clear(): void {
    const indexes = new Set([...this.#sinks.keys()].map((key) => Math.floor((key % UNMASK) / PER_INDEX)));
    for (const index of indexes) this.disable(index);
  }
}
const PER_INDEX = 2 ** 32;
const UNMASK = 2 ** 48;
const keyOf = (index: number, vector: number): number => index * PER_INDEX + vector;

interface Call {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** Interrupts of the index. */
  readonly interrupts: number;
  /** Bytes of data that came, and descriptors. */
  readonly data: number;
  readonly fds: number;
}
const oneBit = (n: number): boolean => n !== 0 && (n & (n - 1)) === 0;
const single = (index: number): boolean => index === PciIrq.ERR || index === PciIrq.REQ;

/** In order; each is EINVAL, and the descriptors that came are closed. */
const irqRefusals: readonly (readonly [rule: string, broken: (c: Call) => boolean])[] = [
  ['no unknown flag', (c) => (c.flags & ~(IRQ_SET_DATA | IRQ_SET_ACTION)) !== 0],
  ['exactly one kind of data', (c) => !oneBit(c.flags & IRQ_SET_DATA)],
  ['exactly one action', (c) => !oneBit(c.flags & IRQ_SET_ACTION)],
  ['start lies within the index', (c) => c.start >= c.interrupts],
  ['start + count lie within the index', (c) => c.start + c.count > c.interrupts],
  ['error and request cannot be masked', (c) => single(c.index) && (c.flags & IrqSetFlag.ACTION_TRIGGER) === 0],
  ['error and request are one each', (c) => single(c.index) && c.count > 1],
  ['no interrupts at all: from the first', (c) => c.count === 0 && c.start !== 0],
  [
    'no interrupts at all: trigger without data turns the index off',
    (c) => c.count === 0 && (c.flags & (IrqSetFlag.DATA_NONE | IrqSetFlag.ACTION_TRIGGER)) !== (IrqSetFlag.DATA_NONE | IrqSetFlag.ACTION_TRIGGER),
  ],
  ['booleans: one byte for each', (c) => (c.flags & IrqSetFlag.DATA_BOOL) !== 0 && c.data !== c.count],
  ['descriptors only where they are the data', (c) => c.fds > 0 && (c.flags & IrqSetFlag.DATA_EVENTFD) === 0],
  ['one descriptor for each, or none to take them away', (c) => c.fds > 0 && c.fds !== c.count],
];

const { get } = IrqSet;

function setIrqs(s: Session, m: Message): number {
  const [argsz, index] = [get.argsz(m.words, 0), get.index(m.words, 0)];
  const info = s.irqs.info(index);
  if (argsz < IrqSet.bytes || !info) return -Errno.EINVAL;
  const call: Call = {
    flags: get.flags(m.words, 0),
    index,
    start: get.start(m.words, 0),
    count: get.count(m.words, 0),
    interrupts: info.count,
    data: m.length - IrqSet.bytes,
    fds: m.fds.length,
  };
  for (const [, broken] of irqRefusals) if (broken(call)) return -Errno.EINVAL;
  const { flags, start, count } = call;
  if (count === 0) return s.irqs.disable(index);
  if (flags & IrqSetFlag.DATA_EVENTFD) {
    const sinks: (OwnedSink | undefined)[] = new Array(count).fill(undefined);
    for (let i = 0; i < call.fds; i++) {
      const sink = s.descriptors!.sink(m.fds[0]!);
      if (typeof sink === 'number') {
        for (const each of sinks) each?.close();
        return sink;
      }
      m.fds.shift();
      sinks[i] = sink;
    }
    return nothing(s.irqs.assign(flags, index, start, sinks));
  }
  if (flags & IrqSetFlag.DATA_NONE) return nothing(s.device.setIrqs({ flags, index, start, count }));
  const bools = m.bytes.slice(m.at + IrqSet.bytes, m.at + IrqSet.bytes + count);
  return nothing(s.device.setIrqs({ flags, index, start, count, bools }));
}
/** There is no payload in the reply. */
const nothing = (result: number): number => Math.min(result, 0);

export const irqCommands = { [Command.DEVICE_SET_IRQS]: { bytes: IrqSet.bytes, run: setIrqs } } satisfies Record<number, CommandRow>;
