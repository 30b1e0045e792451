/**
 * Interrupts of a PCI device under SET_IRQS: MSI-X vectors, error and device request. linux/vfio.h, VFIO_DEVICE_SET_IRQS; the cases are
 * vfio-pci's (vfio_pci_intrs.c).
 */
import { Errno } from '@siov/layout/uapi';
import type { IrqInfo, IrqRequest, Sink } from './ports.js';
import { IRQ_SET_ACTION, IrqInfoFlag, IrqSetFlag, PciIrq } from './uapi.js';

export interface InterruptPort {
  /** The function's vector from now on calls `handler`; undefined when no interrupt can be had. */
  alloc(vector: number, handler: () => void): { free(): void } | undefined;
}
interface Vector {
  readonly sink: Sink;
  readonly irq: { free(): void };
}

/** INTx and MSI: none here. ERR and REQ: one each. */
export class PciIrqs {
  private readonly interrupts: InterruptPort;
  private readonly msix: number;
  private readonly vectors = new Map<number, Vector>();
  private readonly single = new Map<number, Sink>();
  private enabled = false;

  /** `msix`: vectors of the function, 0 without MSI-X. */
  constructor(interrupts: InterruptPort, msix: number) {
    this.interrupts = interrupts;
    this.msix = msix;
  }

  info(index: number): IrqInfo | number {
    const { EVENTFD, MASKABLE, AUTOMASKED, NORESIZE } = IrqInfoFlag;
    if (index === PciIrq.INTX) return { count: 0, flags: EVENTFD | MASKABLE | AUTOMASKED };
    if (index === PciIrq.MSI) return { count: 0, flags: EVENTFD | NORESIZE };
    if (index === PciIrq.MSIX) return { count: this.msix, flags: EVENTFD };
    return index === PciIrq.ERR || index === PciIrq.REQ ? { count: 1, flags: EVENTFD | NORESIZE } : -Errno.EINVAL;
  }

  set(request: IrqRequest): number {
    if ((request.flags & IRQ_SET_ACTION) !== IrqSetFlag.ACTION_TRIGGER) return -Errno.ENOTTY;
    if (request.index === PciIrq.MSIX) return this.setMsix(request);
    return request.index === PciIrq.ERR || request.index === PciIrq.REQ ? this.setSingle(request) : -Errno.ENOTTY;
  }

  /** The kernel's own events: PciIrq ERR or REQ. False without a sink. */
  signal(index: number): boolean {
    const sink = this.single.get(index);
    sink?.signal(1);
    return sink !== undefined;
  }

  /** A reset took the messages out of the function: they are written once more. */
  again(): void {
    for (const [vector, { sink }] of [...this.vectors]) this.place(vector, sink);
  }

  /** All gone: the device is closed. */
  clear(): void {
    this.disable();
    this.single.clear();
  }

  private disable(): void {
    for (const { irq } of this.vectors.values()) irq.free();
    this.vectors.clear();
    this.enabled = false;
  }

  private setMsix(request: IrqRequest): number {
    const { flags, start, count, sinks } = request;
    if (this.enabled && count === 0 && flags & IrqSetFlag.DATA_NONE) {
      this.disable();
      return 0;
    }
    if (sinks) {
      if (!this.enabled && count === 0) return -Errno.EINVAL;
      for (let i = 0; i < count; i++) {
        const result = this.place(start + i, sinks[i]);
        if (result === 0) continue;
        for (let j = 0; j < count; j++) this.place(start + j, undefined);
        return result;
      }
      this.enabled = true;
      return 0;
    }
    if (!this.enabled) return -Errno.EINVAL;
    for (let i = 0; i < count; i++) if (asked(request, i)) this.vectors.get(start + i)?.sink.signal(1);
    return 0;
  }

  private place(vector: number, sink: Sink | undefined): number {
    this.vectors.get(vector)?.irq.free();
    this.vectors.delete(vector);
    if (!sink) return 0;
    const irq = this.interrupts.alloc(vector, () => sink.signal(1));
    if (!irq) return -Errno.ENOSPC;
    this.vectors.set(vector, { sink, irq });
    return 0;
  }

  private setSingle(request: IrqRequest): number {
    const { flags, index, start, count, sinks } = request;
    if (start !== 0 || count > 1) return -Errno.EINVAL;
    const sink = this.single.get(index);
    if (sinks) {
      if (count === 0) return -Errno.EINVAL;
      if (sinks[0]) this.single.set(index, sinks[0]);
      else this.single.delete(index);
      return 0;
    }
    if (!sink) return -Errno.EINVAL;
    if (count === 0) {
      if (!(flags & IrqSetFlag.DATA_NONE)) return -Errno.EINVAL;
      this.single.delete(index);
    } else if (asked(request, 0)) sink.signal(1);
    return 0;
  }
}

const asked = ({ bools }: IrqRequest, i: number): boolean => bools?.[i] !== 0;
