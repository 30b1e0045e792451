/** A device that has one of everything: registers, a region that can be mapped in two parts, all interrupts, descriptors for writes, migration. */
import { ftruncateSync } from 'node:fs';
import { IrqInfoFlag, IrqSetFlag, PCI_IRQS } from '@siov/vfio-mdev/uapi';
import type { DmaSpace, IrqInfo, IrqRequest, MigrationOps, RegionFile, RegionInfo, Sink, SubRegion, UserDevice } from '../src/index.js';
import { native } from '../src/native.js';

const READ = 1;
const WRITE = 2;
const MMAP = 4;
export const SIZES = [0x1000, 0x3000, 0, 0, 0, 0, 0, 0x1000, 0] as const;
export const COUNTS = [1, 1, 2048, 1, 1] as const;

export class SampleDevice implements UserDevice {
  readonly name = 'sample';
  readonly flags: number;
  readonly regions = 9;
  readonly irqs = PCI_IRQS;
  readonly memory = SIZES.map((size) => new Uint8Array(size));
  readonly calls: string[] = [];
  readonly sinks = new Map<string, Sink>();
  readonly file = native().memfd('bar1');
  subs: SubRegion[] = [];
  dma!: DmaSpace;
  /** What register accesses answer instead of the number of bytes. */
  answer: number | undefined;
  readonly migration: MigrationOps | undefined;
  state = new Uint8Array(0);
  at = 0;
  refuse = 0;

  constructor(options: { readonly flags?: number; readonly migration?: boolean; readonly preCopy?: boolean } = {}) {
    this.flags = options.flags ?? 3;
    ftruncateSync(this.file, 0x3000);
    if (options.migration === false) return;
    this.migration = {
      flags: options.preCopy === false ? 1 : 5,
      step: (from, to) => {
        this.calls.push(`step ${from} ${to}`);
        if (this.refuse) return -this.refuse;
        if (to === 3 || to === 6) this.at = 0;
        if (to === 4) this.state = new Uint8Array(0);
        return 0;
      },
      read: (out) => {
        if (this.refuse) return -this.refuse;
        const n = Math.min(out.length, this.state.length - this.at);
        out.set(this.state.subarray(this.at, this.at + n));
        this.at += n;
        return n;
      },
      write: (bytes) => {
        if (this.refuse) return -this.refuse;
        this.state = new Uint8Array([...this.state, ...bytes]);
        return bytes.length;
      },
    };
  }
  open(): number {
    return 0;
  }
  close(): void {
    native().close(this.file);
    for (const fd of new Set(this.subs.flatMap((sub) => [sub.fd, ...(sub.shadow ? [sub.shadow.fd] : [])]))) native().close(fd);
  }
  regionInfo(index: number): RegionInfo {
    const size = SIZES[index] ?? 0;
    if (size === 0) return { size: 0, flags: 0 };
    const sparse = [
      { offset: 0, size: 0x1000 },
      { offset: 0x2000, size: 0x1000 },
    ];
    return index === 1 ? { size, flags: READ | WRITE | MMAP, sparse } : { size, flags: READ | WRITE };
  }
  regionFile(index: number): RegionFile | undefined {
    return index === 1 ? { fd: this.file, offset: 0 } : undefined;
  }
  subRegions(): readonly SubRegion[] {
    return this.subs;
  }
  irqInfo(index: number): IrqInfo {
    return { count: COUNTS[index] ?? 0, flags: IrqInfoFlag.EVENTFD };
  }
  read(region: number, offset: number, out: Uint8Array): number {
    out.set(this.memory[region]!.subarray(offset, offset + out.length));
    return this.answer ?? out.length;
  }
  write(region: number, offset: number, bytes: Uint8Array): number {
    this.memory[region]!.set(bytes, offset);
    return this.answer ?? bytes.length;
  }
  setIrqs({ flags, index, start, count, sinks, bools }: IrqRequest): number {
    const { ACTION_TRIGGER, ACTION_UNMASK, DATA_NONE } = IrqSetFlag;
    if (flags & ACTION_UNMASK) this.calls.push(`unmask ${index} ${start} ${count}`);
    if (!(flags & ACTION_TRIGGER)) return 0;
    if (count === 0 && flags & DATA_NONE) {
      for (const key of this.sinks.keys()) if (key.startsWith(`${index}.`)) this.sinks.delete(key);
      return 0;
    }
    for (let i = 0; i < count; i++) {
      const key = `${index}.${start + i}`;
      if (!sinks) {
        if (bools?.[i] !== 0) this.sinks.get(key)?.signal();
      } else if (sinks[i]) this.sinks.set(key, sinks[i]!);
      else this.sinks.delete(key);
    }
    return 0;
  }
  reset(): number {
    this.calls.push('reset');
    return 0;
  }
  attach(domain: object): number {
    this.dma = domain as DmaSpace;
    return 0;
  }
}
