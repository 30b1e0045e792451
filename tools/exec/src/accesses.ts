/**
 * What instructions of programs do to mapped pages of devices: submissions, which come through the rings, and loads and stores, whose registers
 * are read from the program and written back.
 */
import { Descriptor, Flag, Status } from '@siov/idxd-device/spec';
import { emulate } from './emulate.js';
import type { ForeignMm } from './foreign.js';
import type { Machine } from './machine.js';
import type { Session } from './session.js';
import { Answer, Kind, SLOTS, Slot } from './wire.js';

/** Submissions of one process before others are looked at. */
const AT_ONCE = 64;
/** A device as the physical address map has it. */
type Device = NonNullable<ReturnType<Machine['host']['memory']['regionOf']>>['device'];
/** sys/ucontext.h, ucontext_t on x86-64: `gregs`, of which the first 18 are rip, flags and before; the pointer to the floating-point state. */
const Context = { gregs: 40, words: 18, fpregs: 224 } as const;
/** struct _libc_fpstate: the low halves of vector registers. */
const XMM = 160;
/** The longest instruction. */
const CODE = 15;

export interface ServerCounts {
  processes: number;
  calls: number;
  movdir64b: number;
  enqcmd: number;
  retries: number;
  stores: number;
  loads: number;
  /** Instructions carried out in programs, and the milliseconds that took there, of processes that ended. */
  traps: number;
  trapMs: number;
  /** Faults on demand. */
  injected: number;
}

export class Accesses {
  readonly #machine: Machine;
  readonly #counts: ServerCounts;
  readonly #packet = new Uint32Array(16);

  constructor(machine: Machine, counts: ServerCounts) {
    this.#machine = machine;
    this.#counts = counts;
  }

  /** Takes what the rings hold, a few of each process at a time; whether there was anything. */
  take(sessions: readonly Session[]): boolean {
    let any = false;
    for (const session of sessions) {
      for (let n = 0; n < AT_ONCE; n++) {
        const at = session.next();
        if (at < 0) break;
        any = true;
        this.#access(session, at);
      }
    }
    return any;
  }

  /** Takes all that a process had stored by now. */
  posted(session: Session): void {
    for (let at = session.next(), n = 0; at >= 0 && n < SLOTS; at = session.next(), n++) this.#access(session, at);
  }
  #access(session: Session, at: number): void {
    const { words, mm } = session;
    const counts = this.#counts;
    const kind = words[at + Slot.kind / 4];
    const address = words[at + Slot.address / 4]! + words[at + Slot.address / 4 + 1]! * 2 ** 32;
    const frame = mm.frameOf(address);
    const { device, offset } = this.#behind(session, address);
    const packet = this.#copy(words, at);
    if (kind !== Kind.enqcmd) {
      counts.movdir64b++;
      if (offset % 64 === 0 && !this.#injected(session, frame, packet)) device?.movdir64b?.(offset, packet, 0);
      session.take(at);
      return;
    }
    counts.enqcmd++;
    let answer: number = Answer.busError;
    if (mm.pasid < 0) answer = Answer.protection;
    else if (device?.enqcmd && offset % 64 === 0) {
      packet[0] = mm.pasid;
      const refused = session.injector?.refuses() ?? false;
      answer = refused || (!this.#injected(session, frame, packet) && device.enqcmd(offset, packet, 0) !== 0) ? Answer.retry : Answer.done;
      if (answer === Answer.retry) counts.retries++;
    }
    session.answer(at, answer);
  }
  /** A fault on demand: true when the descriptor has got its end by it, and the device does not see it. */
  #injected(session: Session, frame: number, packet: Uint32Array): boolean {
    const verdict = session.injector?.next();
    if (!verdict) return false;
    const { status, softwareError, halt } = verdict;
    const index = this.#machine.drivers.findIndex((driver) => driver.wqs.some((wq) => driver.portalFrame(wq) === frame));
    const device = this.#machine.host.devices[index];
    if (status || softwareError || halt) this.#counts.injected++;
    if (softwareError) device?.injectSoftwareError(softwareError);
    if (halt) device?.injectHalt(halt);
    if (!status) return false;
    // Without a record to write, the device would say it in SWERROR.
    const { get } = Descriptor;
    if (!(get.flags(packet, 0) & Flag.recordAddressValid)) device?.injectSoftwareError(status & 0x7f);
    else {
      const record = new Uint32Array(8);
      record[0] = status;
      const faulted = (status & 0x7f) === Status.pageFault || (status & 0x7f) === Status.pageRequestInvalid;
      // Nothing was done, and the first byte of the source (or the destination, for a write) is what was missing.
      if (faulted) record.set(packet.subarray(status & 0x80 ? 6 : 4, status & 0x80 ? 8 : 6), 2);
      const bytes = new Uint8Array(record.buffer);
      const to = get.recordLow(packet, 0) + get.recordHigh(packet, 0) * 2 ** 32;
      if (session.mm.write(to + 1, bytes.subarray(1)) === 0) session.mm.write(to, bytes.subarray(0, 1));
    }
    return true;
  }
  /** The device whose page a process has at an address, and where in it. */
  #behind({ mm }: Session, address: number): { readonly device: Device; readonly offset: number } {
    const frame = mm.frameOf(address);
    const region = frame < 0 ? undefined : this.#machine.host.memory.regionOf(frame);
    return { device: region?.device, offset: region ? (frame - region.firstFrame) * 4096 + (address % 4096) : 0 };
  }
  #copy(words: Uint32Array, at: number): Uint32Array {
    const { data } = Slot;
    const packet = this.#packet;
    for (let i = 0; i < 16; i++) packet[i] = words[at + data / 4 + i]!;
    return packet;
  }

  /** An instruction that the shim does not know: its registers are in a ucontext_t of the program. `page`: what it wanted, or 0. */
  trap(session: Session, context: number, page: number): number {
    const { mm } = session;
    const counts = this.#counts;
    const block = new Uint8Array(Context.words * 8);
    const g = new BigUint64Array(block.buffer);
    const pointer = new BigUint64Array(1);
    if (mm.read(context + Context.gregs, block) < 0 || mm.read(context + Context.fpregs, new Uint8Array(pointer.buffer)) < 0) return Answer.notOurs;
    const area = page === 0 ? undefined : mm.areaAt(page);
    if (area && area.frames.size === 0) return Answer.busError;
    const fits = (address: bigint, width: number): boolean =>
      area !== undefined && address >= area.start && address + BigInt(width) <= area.start + area.length;
    const xmm = (index: number): number => Number(pointer[0]!) + XMM + index * 16;
    const word = new BigUint64Array(2);
    const bytes = new Uint8Array(word.buffer);
    const done = emulate(this.#code(mm, Number(g[16])), g, {
      load: (address, width) => {
        if (!fits(address, width)) {
          word[0] = 0n;
          return mm.read(Number(address), bytes.subarray(0, width)) < 0 ? undefined : word[0];
        }
        counts.loads++;
        const { device, offset } = this.#behind(session, Number(address));
        let value = 0n;
        for (let at = 0; at < width; at += 4) value |= BigInt(device!.read(offset + at, Math.min(4, width)) >>> 0) << BigInt(at * 8);
        return value;
      },
      store: (address, width, value) => {
        if (!fits(address, width)) {
          word[0] = value;
          return mm.write(Number(address), bytes.subarray(0, width)) >= 0;
        }
        counts.stores++;
        const { device, offset } = this.#behind(session, Number(address));
        for (let at = 0; at < width; at += 4) device!.write(offset + at, Math.min(4, width), Number((value >> BigInt(at * 8)) & 0xffff_ffffn));
        return true;
      },
      vector: (index) => (index < 16 && mm.read(xmm(index), bytes) >= 0 ? word[0]! | (word[1]! << 64n) : 0n),
      setVector: (index, value) => {
        word[0] = value & 0xffff_ffff_ffff_ffffn;
        word[1] = value >> 64n;
        if (index < 16) mm.write(xmm(index), bytes);
      },
    });
    if (!done) return Answer.notOurs;
    return mm.write(context + Context.gregs, block) < 0 ? Answer.notOurs : Answer.done;
  }
  /** The instruction's bytes, as far as there are any: the next page may be missing. */
  #code(mm: ForeignMm, rip: number): Uint8Array {
    const code = new Uint8Array(CODE);
    const first = Math.min(CODE, 4096 - (rip % 4096));
    if (mm.read(rip, code.subarray(0, first)) < 0) return code.subarray(0, 0);
    return first === CODE || mm.read(rip + first, code.subarray(first)) >= 0 ? code : code.subarray(0, first);
  }
}
