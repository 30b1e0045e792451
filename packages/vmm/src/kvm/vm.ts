/**
 * A virtual machine as the kernel holds it: memory slots behind an EPT that is filled on violation and follows the process's mm, PASID
 * translation, exits, interrupts. Intel SDM 3C, "VMX Support for Address Translation", "VM Exits"; Documentation/virt/kvm/api.rst.
 */
import { hi, lo } from '@siov/layout';
import { Event } from '@siov/layout/events';
import { DmaAccess } from '@siov/layout/pcie';
import type { Clock, Frames, InterruptSink, Mm, Mmio, PhysicalMap, Processor, Trace } from '../ports.js';
import { Counter, type VmCosts } from './counters.js';
import { Ept } from './ept.js';
import { GuestMemory } from './guest-memory.js';
import { Interrupts } from './interrupts.js';
import { type Memslot, Memslots } from './memslots.js';
import { PasidTranslation } from './pasids.js';

export interface VmPorts {
  readonly memory: PhysicalMap;
  /** Tables come from here. */
  readonly frames: Frames;
  readonly cpu: Processor;
  readonly clock: Clock;
  readonly costs?: VmCosts | undefined;
  readonly trace?: Trace | undefined;
}
/**
 * An access that no memory slot answers, as KVM_RUN returns it with KVM_EXIT_MMIO: guest physical address in bytes, width 1, 2, 4, or 64
 * for MOVDIR64B (`value` 0) and ENQCMD (`value` 1) with the data in `packet`. Answers the value read, or ENQCMD's zero flag.
 */
export type MmioExit = (address: number, width: number, write: boolean, value: number, packet: Uint32Array) => number;
export interface Vcpu {
  readonly id: number;
  onMmio?: MmioExit;
}
/** What makes a kernel instance and its contexts this VM's guest. */
export interface GuestHooks {
  readonly eptRoot: number;
  readonly pasidTranslation: number;
  readonly pasidTranslationHigh: number;
  readonly exit: (reason: number, guestFrame: number, offset: number, width: number, write: boolean, value: number) => number;
}

/** Intel SDM 3D, "VMX Basic Exit Reasons". */
const EPT_VIOLATION = 48;
const ENQCMD_PASID = 72;
const ENQCMDS_PASID = 73;
const RETRY = -1;
/** Width of an access by the page walk itself. */
const TABLE = 8;
const PACKET = 64;
const LARGE = 512;
const PASID_MASK = 0xf_ffff;

export class Vm {
  // fixed
  readonly counters = new Float64Array(Object.keys(Counter).length);
  readonly guest: GuestHooks;
  readonly mm: Mm;
  // ports
  /** The guest's local APIC; absent, messages are dropped. */
  apic: InterruptSink | undefined;
  /** The host PASID behind a guest's, asked when an ENQCMD exits for want of it; -1: none, the instruction faults. */
  resolvePasid: (guestPasid: number) => number = () => -1;
  private readonly p: VmPorts;
  private readonly costs: Required<VmCosts>;
  // state
  readonly vcpus = new Map<number, Vcpu>();
  readonly pasids: PasidTranslation;
  readonly interrupts: Interrupts;
  readonly memslots: Memslots;
  readonly ept: Ept;
  private readonly view: GuestMemory;
  private readonly packet = new Uint32Array(16);
  private readonly stop: () => void;
  private users = 1;

  constructor(mm: Mm, ports: VmPorts) {
    this.mm = mm;
    this.p = ports;
    const { eptViolation = 0, trap = 0, irqfd = 0, mmioRead = 0, mmioWrite = 0 } = ports.costs ?? {};
    this.costs = { eptViolation, trap, irqfd, mmioRead, mmioWrite };
    this.ept = new Ept(ports.memory, ports.frames);
    this.pasids = new PasidTranslation(ports.memory, ports.frames);
    this.memslots = new Memslots((slot) => this.gone(slot.firstFrame, slot.frames));
    this.interrupts = new Interrupts({ clock: ports.clock, counters: this.counters, delay: irqfd, sink: () => this.apic });
    this.view = new GuestMemory(
      {
        slots: () => this.memslots.all,
        slotOf: (frame) => this.memslots.find(frame),
        hostFrame: (slot, frame) => this.hostFrame(slot, frame),
      },
      ports.memory,
    );
    this.guest = {
      eptRoot: this.ept.root,
      pasidTranslation: this.pasids.low,
      pasidTranslationHigh: this.pasids.high,
      exit: (reason, frame, offset, width, write, value) => this.exit(reason, frame, offset, width, write, value),
    };
    this.stop = mm.subscribe({ invalidate: (start, end) => this.invalidate(start, end), release: () => this.memslots.clear() });
  }

  /** Guest physical RAM for the guest's kernel, by guest frames. */
  guestMemory(): GuestMemory {
    return this.view;
  }

  /**
   * Device registers at a guest physical address, as the guest's kernel maps them: straight through where the EPT has them, else an exit.
   */
  ioremap(address: number): Mmio {
    if (!(Number.isInteger(address / 4096) && address >= 0 && address < 2 ** 43)) throw new RangeError(`address: a page below 2^43, not ${address}`);
    const first = address / 4096;
    const { memory, clock } = this.p;
    const { mmioRead, mmioWrite } = this.costs;
    return {
      read: (offset, width) => {
        const frame = first + (offset >>> 12);
        const host = this.reach(frame, offset & 0xfff, width, false, 0);
        if (host < 0) return this.answer;
        const region = memory.regionOf(host);
        clock.spend(mmioRead);
        if (region?.device) return region.device.read((host - region.firstFrame) * 4096 + (offset & 0xfff), width);
        return region ? bytesRead(region.bytes, (host - region.firstFrame) * 4096 + (offset & 0xfff), width) : ones(width);
      },
      write: (offset, width, value) => {
        const frame = first + (offset >>> 12);
        const host = this.reach(frame, offset & 0xfff, width, true, value);
        if (host < 0) return;
        const region = memory.regionOf(host);
        clock.spend(mmioWrite);
        const at = region ? (host - region.firstFrame) * 4096 + (offset & 0xfff) : 0;
        if (region?.device) region.device.write(at, width, value);
        else if (region) for (let i = 0; i < width; i++) region.bytes[at + i] = value >>> (8 * i);
      },
      movdir64b: (offset, words, at) => {
        for (let i = 0; i < 16; i++) this.packet[i] = words[at + i]!;
        const host = this.reach(first + (offset >>> 12), offset & 0xfff, PACKET, true, 0);
        if (host < 0) return;
        const region = memory.regionOf(host);
        clock.spend(mmioWrite);
        if (region?.device) region.device.movdir64b?.((host - region.firstFrame) * 4096 + (offset & 0xfff), this.packet, 0);
        else region?.words.set(this.packet, (host - region.firstFrame) * 1024 + ((offset & 0xfff) >>> 2));
      },
      enqcmd: (offset, words, at) => {
        for (let i = 0; i < 16; i++) this.packet[i] = words[at + i]!;
        const pasid = this.hostPasid(this.packet[0]! & PASID_MASK);
        if (pasid < 0) return 1;
        this.packet[0] = (this.packet[0]! & ~PASID_MASK) | pasid;
        const host = this.reach(first + (offset >>> 12), offset & 0xfff, PACKET, true, 1);
        if (host < 0) return this.answer;
        const region = memory.regionOf(host);
        clock.spend(mmioWrite);
        return region?.device?.enqcmd?.((host - region.firstFrame) * 4096 + (offset & 0xfff), this.packet, 0) ?? 1;
      },
    };
  }

  /** A file of the VM or of a vCPU holds it. */
  hold(): void {
    this.users++;
  }
  /** The last file is closed: the guest has nothing any more. */
  put(): void {
    if (--this.users > 0) return;
    this.stop();
    this.memslots.clear();
    this.interrupts.clear();
    this.pasids.clearAll();
    this.ept.clear();
    this.vcpus.clear();
    this.p.cpu.flushEpt(this.ept.root);
  }

  // --- exits

  private exit(reason: number, frame: number, offset: number, width: number, write: boolean, value: number): number {
    if (reason === ENQCMD_PASID || reason === ENQCMDS_PASID) {
      this.pasidExit(value);
      return 0;
    }
    return reason === EPT_VIOLATION ? this.violation(frame, offset, width, write, value, this.p.cpu.packet) : 0;
  }

  /** -1: the page is there now, try again; else the access was done, and the answer is what it reads. */
  private violation(frame: number, offset: number, width: number, write: boolean, value: number, packet: Uint32Array): number {
    const { counters } = this;
    counters[Counter.eptViolations]!++;
    const slot = this.memslots.find(frame);
    if (slot && !(write && slot.readOnly)) {
      if (this.fill(slot, frame, write)) {
        this.p.clock.spend(this.costs.eptViolation);
        return RETRY;
      }
      counters[Counter.failed]!++;
      return nobody(width, write, value);
    }
    if (width === TABLE) return 0;
    counters[width === PACKET ? Counter.mmioPackets : write ? Counter.mmioWrites : Counter.mmioReads]!++;
    this.p.clock.spend(this.costs.trap);
    const [vcpu] = this.vcpus.values();
    if (!vcpu?.onMmio) return nobody(width, write, value);
    const answer = vcpu.onMmio(frame * 4096 + offset, width, write, value, packet);
    return width === PACKET ? answer & 1 : write ? 0 : width === 4 ? answer >>> 0 : answer & ones(width);
  }

  private pasidExit(guest: number): void {
    this.counters[Counter.pasidExits]!++;
    this.p.clock.spend(this.costs.trap);
    const host = this.resolvePasid(guest);
    if (host >= 0) this.pasids.set(guest, host);
  }

  private hostPasid(guest: number): number {
    const known = this.pasids.get(guest);
    if (known >= 0) return known;
    if (this.p.trace) this.p.trace.emit(Event.trap, ENQCMDS_PASID, 0, 0, PACKET);
    this.pasidExit(guest);
    return this.pasids.get(guest);
  }

  /** For `ioremap`: the host frame, or -1 with `answer` set after an exit. */
  private answer = 0;
  private reach(frame: number, offset: number, width: number, write: boolean, value: number): number {
    const host = this.ept.lookup(frame);
    if (host >= 0 && (!write || this.ept.writable)) return host;
    if (this.p.trace) this.p.trace.emit(Event.trap, EPT_VIOLATION, frame >>> 20, (frame << 12) | offset, width);
    this.answer = this.violation(frame, offset, width, write, value, this.packet);
    return this.answer === RETRY ? this.ept.lookup(frame) : -1;
  }

  // --- memory

  private fill(slot: Memslot, frame: number, write: boolean): boolean {
    const { mm, ept, counters } = this;
    const user = slot.user + (frame - slot.firstFrame) * 4096;
    const writable = !slot.readOnly && mm.handleFault(hi(user), lo(user), DmaAccess.write) === 0;
    if (!writable && (write || mm.handleFault(hi(user), lo(user), DmaAccess.read) < 0)) return false;
    const host = mm.frameOf(user);
    const region = host < 0 ? undefined : this.p.memory.regionOf(host);
    if (!region) return false;
    if (region.kind === 'ram' && writable && this.isLarge(slot, frame, host)) {
      const head = frame & -LARGE;
      if (!ept.map(head, host & -LARGE, true, true, false)) return false;
      counters[Counter.mapped2M]!++;
      return true;
    }
    if (!ept.map(frame, host, false, writable, region.kind === 'mmio')) return false;
    counters[Counter.mapped4K]!++;
    return true;
  }

  /** The 2 MiB block around the frame lies in the slot, and on one aligned block of the host that is there as a whole. */
  private isLarge(slot: Memslot, frame: number, host: number): boolean {
    if ((frame ^ host) & (LARGE - 1)) return false;
    const head = frame & -LARGE;
    if (head < slot.firstFrame || head + LARGE > slot.firstFrame + slot.frames) return false;
    const user = slot.user + (head - slot.firstFrame) * 4096;
    for (let i = 0; i < LARGE; i++) if (this.mm.frameOf(user + i * 4096) !== (host & -LARGE) + i) return false;
    return true;
  }

  /** Of a slot with RAM, for the guest's kernel. */
  private hostFrame(slot: Memslot, frame: number): number {
    const user = slot.user + (frame - slot.firstFrame) * 4096;
    const host = this.mm.frameOf(user);
    if (host >= 0) return host;
    return this.mm.handleFault(hi(user), lo(user), DmaAccess.write) < 0 ? -1 : this.mm.frameOf(user);
  }

  /** The process's pages [start, end) change: what shows them goes. Linux, mmu_notifier. */
  private invalidate(start: number, end: number): void {
    for (const slot of this.memslots.all) {
      const from = Math.max(start, slot.user);
      const to = Math.min(end, slot.user + slot.frames * 4096);
      if (from < to) this.gone(slot.firstFrame + Math.floor((from - slot.user) / 4096), Math.ceil((to - from) / 4096));
    }
  }
  private gone(firstFrame: number, count: number): void {
    this.view.invalidate(firstFrame, count);
    const removed = this.ept.unmap(firstFrame, count);
    this.counters[Counter.unmapped]! += removed;
    if (removed > 0) this.p.cpu.flushEpt(this.ept.root);
  }
}

const ones = (width: number): number => (width >= 4 ? 0xffff_ffff : 2 ** (8 * width) - 1);
/** Where nothing answers: reads are ones, writes are lost, ENQCMD is told to retry. */
const nobody = (width: number, write: boolean, value: number): number => (width === PACKET ? value : write || width === TABLE ? 0 : ones(width));
const bytesRead = (bytes: Uint8Array, at: number, width: number): number => {
  let value = 0;
  for (let i = width - 1; i >= 0; i--) value = (value << 8) | bytes[at + i]!;
  return value >>> 0;
};
