/**
 * MSI-X of an assigned device as the guest sees it. The VMM keeps table and pending bits; each vector has an eventfd that the device
 * signals. While a vector is unmasked, the eventfd is an irqfd with the guest's message as its route; while it is masked, its count waits.
 * PCI Local Bus 3.0, "MSI-X Capability and Table Structure"; linux/vfio.h, VFIO_DEVICE_SET_IRQS.
 */
import { MsixTable } from '@siov/pci-core';
import { Ioctl, IrqSet, IrqSetFlag, PciIrq } from '@siov/vfio-mdev/uapi';
import { Irqfd, IrqfdFlag, KvmIoctl } from '../kvm/uapi.js';
import type { Machine } from './machine.js';

export interface MsixOptions {
  readonly machine: Machine;
  /** The VFIO device. */
  readonly fd: number;
  readonly vectors: number;
  /** The guest's message after interrupt remapping; undefined: blocked. */
  remap(address: number, data: number): { readonly address: number; readonly data: number } | undefined;
  refused(call: string, errno: number): void;
}
interface Vector {
  readonly eventFd: number;
  readonly gsi: number;
  wired: boolean;
}
/** EFD_NONBLOCK. */
const NONBLOCK = 0o4000;
const ENTRY_WORDS = 4;
const MASKED = 1;

export class GuestMsix {
  readonly table: MsixTable;
  private readonly o: MsixOptions;
  /** None while MSI-X is off. */
  private vectors: Vector[] = [];
  private functionMask = false;

  constructor(options: MsixOptions) {
    this.o = options;
    this.table = new MsixTable(options.vectors);
    this.table.send = (address, data) => {
      const message = options.remap(address, data);
      if (message) options.machine.signal(message.address, message.data);
    };
  }

  /** The capability's control bits, after a write to them. */
  control(enabled: boolean, functionMask: boolean): void {
    if (!enabled) this.disable();
    else if (this.vectors.length === 0) this.enable();
    this.functionMask = functionMask;
    this.table.control(enabled && this.vectors.length > 0, functionMask);
    this.refresh();
  }

  /** A guest's access to the table. */
  write(offset: number, width: number, value: number): void {
    this.table.table.write(offset, width, value);
    this.refresh();
  }

  /** A guest's access to the pending bits: what the device signalled while masked is collected first. */
  readPending(offset: number, width: number): number {
    const { task, data } = this.o.machine.calls;
    this.vectors.forEach(({ eventFd, wired }, i) => {
      if (!wired && task.read(eventFd, data, 8) === 8) this.table.fire(i);
    });
    return this.table.pba.read(offset, width);
  }

  /** Messages, masks or the remapping table changed: routes and irqfds follow. */
  refresh(): void {
    const { machine, remap, refused } = this.o;
    const { words } = this.table;
    const wanted = this.vectors.map((_, i) => {
      const at = i * ENTRY_WORDS;
      return this.functionMask || words[at + 3]! & MASKED ? undefined : remap(words[at]! | 0, words[at + 2]! | 0);
    });
    this.vectors.forEach((vector, i) => {
      if (vector.wired && !wanted[i]) this.wire(vector, false);
    });
    let changed = false;
    this.vectors.forEach(({ gsi }, i) => {
      if (machine.route(gsi, wanted[i])) changed = true;
    });
    const result = changed ? machine.commitRoutes() : 0;
    if (result < 0) refused('KVM_SET_GSI_ROUTING', result);
    this.vectors.forEach((vector, i) => {
      if (!vector.wired && wanted[i]) this.wire(vector, true);
    });
  }

  /** A reset of the function: off, all entries masked and empty. */
  reset(): void {
    this.disable();
    this.functionMask = false;
    this.table.reset();
  }

  /** The device signals nobody any more. */
  disable(): void {
    if (this.vectors.length === 0) return;
    this.setIrqs(0, []);
    for (const vector of this.vectors) {
      if (vector.wired) this.wire(vector, false);
      this.o.machine.freeGsi(vector.gsi);
      this.o.machine.calls.task.close(vector.eventFd);
    }
    this.vectors = [];
    this.o.machine.commitRoutes();
  }

  private enable(): void {
    const { machine, vectors, refused } = this.o;
    for (let i = 0; i < vectors; i++) {
      const eventFd = machine.calls.task.eventfd(0, NONBLOCK);
      if (eventFd >= 0) this.vectors.push({ eventFd, gsi: machine.allocGsi(), wired: false });
      else refused('eventfd', eventFd);
    }
    const result = this.setIrqs(
      vectors,
      this.vectors.map(({ eventFd }) => eventFd),
    );
    if (result >= 0 && this.vectors.length === vectors) return;
    if (result < 0) refused('VFIO_DEVICE_SET_IRQS', result);
    this.disable();
  }

  /** `count` 0 turns the index off. */
  private setIrqs(count: number, eventFds: readonly number[]): number {
    const words = new Uint32Array(IrqSet.bytes / 4 + eventFds.length);
    const { set } = IrqSet;
    set.argsz(words, 0, words.byteLength);
    set.flags(words, 0, IrqSetFlag.ACTION_TRIGGER | (count ? IrqSetFlag.DATA_EVENTFD : IrqSetFlag.DATA_NONE));
    set.index(words, 0, PciIrq.MSIX);
    set.count(words, 0, count);
    words.set(eventFds, IrqSet.bytes / 4);
    return this.o.machine.calls.ioctlLarge(this.o.fd, Ioctl.DEVICE_SET_IRQS, words);
  }

  private wire(vector: Vector, on: boolean): void {
    const { machine, refused } = this.o;
    const words = new Uint32Array(Irqfd.bytes / 4);
    Irqfd.set.fd(words, 0, vector.eventFd);
    Irqfd.set.gsi(words, 0, vector.gsi);
    Irqfd.set.flags(words, 0, on ? 0 : IrqfdFlag.DEASSIGN);
    const result = machine.calls.ioctl(machine.vmFd, KvmIoctl.IRQFD, words);
    if (result < 0) refused('KVM_IRQFD', result);
    else vector.wired = on;
  }
}
