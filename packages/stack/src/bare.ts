/**
 * A device with nothing around it: a PCI function of DSA, shown as VFIO shows any function, whose DMA goes to memory that somebody else has and
 * whose interrupts go to eventfds. No IOMMU, no kernel: for a VMM on the other side of a socket, or a test bench.
 */
import { Clock } from '@siov/cpu';
import { Counter, IdxdDevice, type Profile, type Upstream } from '@siov/idxd-device';
import { Event } from '@siov/layout/events';
import { TlpStatus } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { config } from '@siov/pci-core';
import { type IrqInfo, type IrqRequest, type PciPort, type RegionInfo, type VfioDevice, VfioPciDevice, type VmArea } from '@siov/vfio-mdev';
import { PciRegion } from '@siov/vfio-mdev/uapi';

/** Memory that answers at once or later: `DmaSpace` of `@siov/vfio-user` fits. */
export interface BareMemory extends Pick<Upstream, 'acquire' | 'commit'> {
  /** Runs when everything that was committed before has arrived. */
  after(run: () => void): void;
  /** Whether `resume` has anything to do. */
  readonly ready: boolean;
  beginSlice(): void;
  /** Requests are put off until the next slice. */
  readonly spent: boolean;
  /** Calls `step` for each operation, 0 to `operations` - 1, that may ask again. */
  resume(operations: number, step: (operation: number) => void): void;
  /** Operations were ended from outside: what they asked for is nobody's. */
  forget(): void;
}
export interface BareDeviceOptions {
  readonly profile?: Profile;
  readonly name?: string;
  /** A clock of this machine, in microseconds: with it the device measures how long descriptors take (`latency`). */
  readonly now?: () => number;
  /** Take descriptors in smaller stores (default true): emulated processors have no MOVDIR64B, and a socket carries at most 8 bytes a store. */
  readonly assembleStores?: boolean;
}

/** Where messages of the MSI-X table go: any address of the interrupt range; the data say which vector. */
const MESSAGE_ADDRESS = 0xfee0_0000;
const MESSAGE_DATA = 0x4000_0000;
/** Operations of one engine, unless the profile says otherwise. */
const OPERATIONS_PER_ENGINE = 64;

export class BareDevice implements VfioDevice {
  readonly idxd: IdxdDevice;
  readonly clock = new Clock();
  readonly name: string;
  readonly #pci: VfioPciDevice;
  readonly #operations: number;
  readonly #handlers: ((() => void) | undefined)[] = [];
  #memory: BareMemory | undefined;
  interrupts = 0;
  readonly #latencies: Latencies | undefined;

  constructor(options: BareDeviceOptions = {}) {
    const { clock } = this;
    const { profile, assembleStores = true } = options;
    this.name = options.name ?? '0000:00:01.0';
    this.#latencies = options.now && new Latencies(options.now);
    this.idxd = new IdxdDevice({
      clock,
      assembleStores,
      // Its translations are the client's business, and may change without a word.
      deviceTlb: false,
      ...(profile ? { profile } : {}),
      trace: { emit: (event) => event === Event.command && this.#memory?.forget() },
    });
    const { engines, descriptorsPerEngine = OPERATIONS_PER_ENGINE } = this.idxd.profile;
    this.#operations = engines * descriptorsPerEngine;
    const fn = this.idxd.function;
    fn.requesterId = 0x08;
    const registers = [0, 1, 2, 3, 4, 5].map((bar) => fn.barMmio(bar as 0));
    const port: PciPort = {
      requesterId: fn.requesterId,
      configRead: (offset, width) => fn.configRead(offset, width),
      configWrite: (offset, width, value) => fn.configWrite(offset, width, value),
      barBytes: (bar) => fn.barBytes(bar as 0),
      // Made once: every access asks for it.
      barMmio: (bar) => registers[bar],
      barAddress: (bar) => fn.barAddress(bar as 0),
      functionLevelReset: () => fn.functionLevelReset(),
    };
    this.#pci = new VfioPciDevice({
      name: this.name,
      fn: port,
      interrupts: { alloc: (vector, handler) => this.#alloc(vector, handler) },
      iommu: { attach: (domain, pasid) => this.#attach(domain as BareMemory, pasid), detach: () => {} },
    });
  }

  /** Counts so far. */
  get counters(): {
    readonly descriptors: number;
    readonly failed: number;
    readonly faults: number;
    readonly bytes: number;
    readonly interrupts: number;
  } {
    const of = (index: number): number => this.idxd.counters[index]!;
    const { bytesRead, bytesWritten } = this.idxd.traffic;
    return {
      descriptors: of(Counter.succeeded) + of(Counter.failed),
      failed: of(Counter.failed),
      faults: of(Counter.pageFaults) + of(Counter.softwareErrors),
      bytes: bytesRead + bytesWritten,
      interrupts: this.interrupts,
    };
  }

  /** Microseconds from the store that made a descriptor whole to its record, of the last few thousand; undefined without `now`. */
  get latency(): { readonly p50: number; readonly p99: number } | undefined {
    return this.#latencies?.percentiles();
  }
  /** A fault on demand: the device stops, and asks for `reset`. */
  injectHalt(reset: Parameters<IdxdDevice['injectHalt']>[0]): void {
    this.idxd.injectHalt(reset);
  }
  /** A fault on demand: an error of no descriptor, 1 to 0x7f, in SWERROR. */
  injectSoftwareError(error: number): void {
    this.idxd.injectSoftwareError(error);
  }

  readonly passiveReads = true;
  /** Works until `over` says so: true when there is more to do at once. Nothing else runs the device: register accesses only change its state. */
  run(over: () => boolean): boolean {
    const { clock } = this;
    const memory = this.#memory;
    if (clock.pending === 0 && !memory?.ready) return false;
    memory?.beginSlice();
    do {
      if (memory?.ready) memory.resume(this.#operations, (operation) => this.idxd.pageResponse(-1, operation, 0));
      // What was put off for this turn goes on in the next one.
      if (!clock.pump() && !clock.idle()) return memory?.ready === true;
      this.#latencies?.ended(this.idxd.counters[Counter.succeeded]! + this.idxd.counters[Counter.failed]!);
    } while (!over() && !memory?.spent);
    return clock.pending > 0 || memory?.ready === true;
  }

  #alloc(vector: number, handler: () => void): { free(): void } | undefined {
    const { function: fn } = this.idxd;
    const table = fn.msix;
    if (!table || vector >= table.vectors) return undefined;
    this.#handlers[vector] = handler;
    const at = vector * config.MsixEntry.bytes;
    const word = (field: number, value: number): void => table.table.write(at + field, 4, value);
    word(0, MESSAGE_ADDRESS);
    word(4, 0);
    word(8, MESSAGE_DATA | vector);
    fn.configWrite(fn.at.msix + 2, 2, fn.configRead(fn.at.msix + 2, 2) | (1 << 15));
    // An event that came while there was nobody to hear it is sent now.
    word(12, 0);
    return {
      free: () => {
        this.#handlers[vector] = undefined;
        word(12, 1);
      },
    };
  }
  #attach(memory: BareMemory, pasid: number): number {
    if (pasid >= 0) return -Errno.EOPNOTSUPP;
    this.#memory = memory;
    this.idxd.connect({
      acquire: (access, of, high, low, max, out) => memory.acquire(access, of, high, low, max, out),
      commit: (out) => memory.commit(out),
      message: (address, data) => {
        const vector = (data ^ MESSAGE_DATA) >>> 0;
        if (address >>> 0 !== MESSAGE_ADDRESS || !this.#handlers[vector]) return;
        // After the data that it tells of.
        memory.after(() => {
          this.interrupts++;
          this.#handlers[vector]?.();
        });
      },
      pageRequest: () => TlpStatus.unsupportedRequest,
    });
    return 0;
  }

  // --- VFIO

  get requesterId(): number {
    return this.#pci.requesterId;
  }
  get flags(): number {
    return this.#pci.flags;
  }
  get regions(): number {
    return this.#pci.regions;
  }
  get irqs(): number {
    return this.#pci.irqs;
  }
  open(): number {
    return this.#pci.open();
  }
  close(): void {
    this.#pci.close();
  }
  regionInfo(index: number): RegionInfo | number {
    return this.#pci.regionInfo(index);
  }
  irqInfo(index: number): IrqInfo | number {
    return this.#pci.irqInfo(index);
  }
  read(region: number, offset: number, out: Uint8Array): number {
    return this.#pci.read(region, offset, out);
  }
  write(region: number, offset: number, bytes: Uint8Array): number {
    const done = this.#pci.write(region, offset, bytes);
    if (region === PciRegion.BAR2) this.#latencies?.began(this.idxd.counters[Counter.accepted]!);
    return done;
  }
  mmap(area: VmArea, region: number, offset: number): number {
    return this.#pci.mmap(area, region, offset);
  }
  setIrqs(request: IrqRequest): number {
    return this.#pci.setIrqs(request);
  }
  reset(): number {
    return this.#pci.reset();
  }
  attach(domain: object, pasid: number): number {
    return this.#pci.attach(domain, pasid);
  }
  detach(pasid: number): void {
    this.#pci.detach(pasid);
  }
  request(): void {
    this.#pci.request();
  }
}

/** How long the last descriptors took. They end in about the order in which they came; a batch's members are taken for its own. */
class Latencies {
  readonly #now: () => number;
  readonly #begun: number[] = [];
  readonly #taken = new Float64Array(4096);
  #count = 0;
  #accepted = 0;
  #completed = 0;

  constructor(now: () => number) {
    this.#now = now;
  }
  began(accepted: number): void {
    if (accepted > this.#accepted) this.#begun.push(this.#now());
    this.#accepted = accepted;
  }
  ended(completed: number): void {
    if (completed === this.#completed) return;
    const now = this.#now();
    for (; this.#completed < completed; this.#completed++) {
      const began = this.#begun.shift();
      if (began !== undefined) this.#taken[this.#count++ % this.#taken.length] = now - began;
    }
  }
  percentiles(): { readonly p50: number; readonly p99: number } {
    const sorted = this.#taken.slice(0, Math.min(this.#count, this.#taken.length)).sort();
    const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? 0;
    return { p50: at(0.5), p99: at(0.99) };
  }
}
