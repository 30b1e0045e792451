/**
 * What instructions of programs do to mapped pages of devices: submissions, which come through the rings, and loads and stores, whose registers
 * are read from the program and written back.
 */
import { Descriptor, Flag, Status } from '@siov/idxd-device/spec';
import { Prot } from '@siov/layout/uapi';
import { emulate } from './emulate.js';
import type { ForeignMm } from './foreign.js';
import type { Device } from './lending.js';
import type { Machine } from './machine.js';
import type { Session } from './session.js';
import { Answer, Kind, SLOTS, Slot } from './wire.js';

/** Submissions of one process before others are looked at. */
const AT_ONCE = 64;
/** sys/ucontext.h, ucontext_t on x86-64: `gregs`, of which the first 18 are rip, flags and before; the pointer to the floating-point state. */
const Context = { gregs: 40, words: 18, fpregs: 224 } as const;
/** struct _libc_fpstate: the low halves of vector registers. */
const XMM = 160;
/** The longest instruction. */
const CODE = 15;

/** Filled for each access; valid until the next. */
interface Behind {
  device: Device | undefined;
  offset: number;
  /** Negative: there is no page. */
  frame: number;
  /** The mapping may be stored to. */
  stores: boolean;
}
/** A page of RAM that a program reaches by traps: it was taken away, and put back. Nothing beyond the page is reached. */
class Ram implements Device {
  readonly #page: Uint8Array;
  constructor(page: Uint8Array) {
    this.#page = page;
  }
  read(offset: number, width: number): number {
    let value = 0;
    for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.#page[(offset % 4096) + i] ?? 0xff);
    return value;
  }
  write(offset: number, width: number, value: number): void {
    for (let i = 0; i < width; i++) this.#page[(offset % 4096) + i] = value >>> (i * 8);
  }
}

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
  readonly #found: Behind = { device: undefined, offset: 0, frame: -1, stores: false };
  /** Whose write(2) runs now. */
  #writer: Session | undefined;
  /** Told of each load of a page that trapped. */
  loaded?: (session: Session, address: number) => void;

  constructor(machine: Machine, counts: ServerCounts) {
    this.#machine = machine;
    this.#counts = counts;
    for (const driver of machine.drivers) {
      const { submit } = driver.ports;
      if (!submit) continue;
      const { movdir64b, enqcmds } = submit;
      const injected = (frame: number, words: Uint32Array): boolean => this.#writer !== undefined && this.#injected(this.#writer, frame, words);
      const hooked: typeof submit = {
        movdir64b: (frame, offset, words) => {
          if (!injected(frame, words)) movdir64b(frame, offset, words);
        },
        enqcmds: (frame, offset, words) => {
          if (this.#writer?.injector?.refuses()) {
            this.#counts.retries++;
            return 1;
          }
          return injected(frame, words) ? 0 : enqcmds(frame, offset, words);
        },
      };
      Object.assign(submit, hooked);
    }
  }

  /** Calls a driver's write(2): descriptors in it come as the kernel's own stores, and are the process's all the same. */
  writing(session: Session, call: () => number): number {
    this.#writer = session;
    try {
      return call();
    } finally {
      this.#writer = undefined;
    }
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
    const { device, offset, frame, stores } = this.#behind(session, address);
    const packet = this.#copy(words, at);
    if (kind !== Kind.enqcmd) {
      counts.movdir64b++;
      if (stores && offset % 64 === 0 && !this.#injected(session, frame, packet)) device?.movdir64b?.(offset, packet, 0);
      session.take(at);
      return;
    }
    counts.enqcmd++;
    let answer: number = Answer.busError;
    if (mm.pasid < 0 || !stores) answer = Answer.protection;
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
  /** The page that a process has at an address, and where in it: of a device, or of RAM. A driver may have waited for it to be touched. */
  #behind({ mm }: Session, address: number): Behind {
    const found = this.#found;
    const area = mm.areaAt(address);
    const page = area ? Math.floor((address - area.start) / 4096) : 0;
    let frame = area?.frames.get(page) ?? -1;
    if (frame < 0 && area?.onFault && area.onFault(page) >= 0) frame = area.frames.get(page) ?? -1;
    const region = frame < 0 ? undefined : this.#machine.host.memory.regionOf(frame);
    found.frame = frame;
    found.stores = area !== undefined && (area.prot & Prot.WRITE) !== 0;
    found.offset = region ? (frame - region.firstFrame) * 4096 + (address % 4096) : 0;
    found.device = region?.kind === 'ram' ? new Ram(this.#machine.ram.bytes.subarray(frame * 4096, frame * 4096 + 4096)) : region?.device;
    return found;
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
    if (area && this.#behind(session, page).frame < 0) return Answer.busError;
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
        // As the processor has it, what may be written may be read.
        if (!(area!.prot & (Prot.READ | Prot.WRITE))) return undefined;
        counts.loads++;
        this.loaded?.(session, Number(address));
        const { device, offset } = this.#behind(session, Number(address));
        let value = 0n;
        for (let at = 0; at < width; at += 4) value |= BigInt((device?.read(offset + at, Math.min(4, width)) ?? 0xffff_ffff) >>> 0) << BigInt(at * 8);
        return BigInt.asUintN(width * 8, value);
      },
      store: (address, width, value) => {
        if (!fits(address, width)) {
          word[0] = value;
          return mm.write(Number(address), bytes.subarray(0, width)) >= 0;
        }
        if (!(area!.prot & Prot.WRITE)) return false;
        counts.stores++;
        const { device, offset } = this.#behind(session, Number(address));
        for (let at = 0; at < width; at += 4) device?.write(offset + at, Math.min(4, width), Number((value >> BigInt(at * 8)) & 0xffff_ffffn));
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
