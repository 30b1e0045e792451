/** Small worlds: memory, a unit, and either tables written by hand (`bare`) or the driver on top (`machine`). */
import { Clock, LocalApic } from '@siov/cpu';
import { DmaAccess, NO_PASID } from '@siov/layout/pcie';
import { PageEntry } from '@siov/layout/x86';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { type DriverPorts, type Extent, IommuDriver, IommuUnit, type Task, type UnitOptions } from '../src/index.js';
import { ContextEntry, FaultRecordRegister, PasidDirectoryEntry, PasidEntry, RootEntry, SecondStageEntry } from '../src/spec/index.js';

export const RID = 0x0310;
export const PASID = 5;
export const { read: READ, write: WRITE, privileged: PRIVILEGED, execute: EXECUTE, ats: ATS } = DmaAccess;
export { NO_PASID };
export const REG = { gcmd: 0x18, gsts: 0x1c, rtaddr: 0x20, fsts: 0x34, fectl: 0x38, fedata: 0x3c, feaddr: 0x40, iqh: 0x80, iqt: 0x88, iqa: 0x90 };

export const extent = (): Extent => ({ view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 });

/** Memory of `frames` frames from frame 0x100 on, and what lies on it. */
export function world(frames = 4096) {
  const memory = new PhysicalMemory();
  const region = memory.addRam(0x100, frames);
  const allocator = new FrameAllocator(region);
  const word = (frame: number, index = 0): number => (frame - 0x100) * 1024 + index;
  return { memory, region, words: region.words, allocator, word };
}

/** A unit over tables made by hand: one function RID with PASIDs, a first and a second stage, and setters for each entry. */
export function bare(options: Partial<UnitOptions> = {}, frames = 4096) {
  const w = world(frames);
  const { memory, words, allocator, word } = w;
  const delivered: [number, number][] = [];
  const unit = new IommuUnit({ memory, sink: { deliver: (vector, destination) => void delivered.push([vector, destination]) }, ...options });
  const root = allocator.alloc();
  const contexts = allocator.alloc();
  const directory = allocator.alloc();
  const table = allocator.alloc();
  const at = {
    root: word(root, (RID >>> 8) * 4 + ((RID >>> 7) & 1) * 2),
    context: word(contexts, (RID & 0x7f) * 8),
    directory: word(directory, 0),
    pasid: (pasid: number) => word(table, pasid * 16),
  };
  RootEntry.set.contextTable(words, at.root, contexts * 4096);
  RootEntry.set.present(words, at.root, 1);
  ContextEntry.set.directory(words, at.context, directory * 4096);
  ContextEntry.set.pasidEnable(words, at.context, 1);
  ContextEntry.set.deviceTlbEnable(words, at.context, 1);
  ContextEntry.set.pageRequestEnable(words, at.context, 1);
  ContextEntry.set.present(words, at.context, 1);
  PasidDirectoryEntry.set.table(words, at.directory, table * 4096);
  PasidDirectoryEntry.set.present(words, at.directory, 1);
  const first = allocator.alloc();
  const second = allocator.alloc();

  /** Index of the entry of a level for an address, tables made on the way (through `make`). */
  const entry = (
    top: number,
    levels: number,
    level: number,
    address: number,
    make: (at: number, frame: number) => void,
    next: (at: number) => number,
  ) => {
    let frame = top;
    for (let l = levels; ; l--) {
      const slot = word(frame, (Math.floor(address / 2 ** (12 + 9 * (l - 1))) % 512) * 2);
      if (l === level) return slot;
      if (!(words[slot]! & 3)) make(slot, allocator.alloc());
      frame = next(slot);
    }
  };
  const firstNext = (slot: number) => PageEntry.get.address(words, slot) / 4096;
  const secondNext = (slot: number) => SecondStageEntry.get.address(words, slot) / 4096;
  const setFirst = (slot: number, frame: number) => {
    PageEntry.set.address(words, slot, frame * 4096);
    for (const bit of ['present', 'write', 'user'] as const) PageEntry.set[bit](words, slot, 1);
  };
  const setSecond = (slot: number, frame: number) => {
    words[slot] = 0;
    words[slot + 1] = 0;
    SecondStageEntry.set.address(words, slot, frame * 4096);
    SecondStageEntry.set.read(words, slot, 1);
    SecondStageEntry.set.write(words, slot, 1);
  };
  const mapSecond = (address: number, frame: number, level = 1, top = second, levels = 4): number => {
    const slot = entry(top, levels, level, address, setSecond, secondNext);
    setSecond(slot, frame);
    if (level > 1) SecondStageEntry.set.pageSize(words, slot, 1);
    return slot;
  };
  /** First-stage tables hold the frames of the tables themselves; `nested` also maps those one to one in the second stage. */
  const mapFirst = (address: number, frame: number, level = 1, nested = false, top = first, levels = 4): number => {
    const slot = entry(
      top,
      levels,
      level,
      address,
      (s, f) => {
        setFirst(s, f);
        if (nested) mapSecond(f * 4096, f);
      },
      firstNext,
    );
    if (nested) mapSecond(top * 4096, top);
    setFirst(slot, frame);
    if (level > 1) PageEntry.set.pageSize(words, slot, 1);
    return slot;
  };
  const { type, addressWidth } = PasidEntry.is;
  const setPasid = (pasid: number, fields: Partial<Record<keyof typeof PasidEntry.set, number>>): number => {
    const slot = at.pasid(pasid);
    words.fill(0, slot, slot + 16);
    for (const [name, value] of Object.entries(fields)) PasidEntry.set[name as keyof typeof PasidEntry.set](words, slot, value);
    PasidEntry.set.present(words, slot, fields.present ?? 1);
    return slot;
  };
  const firstStage = (pasid: number, domainId = 1, top = first) => setPasid(pasid, { type: type.firstStage, firstStage: top * 4096, domainId });
  const secondStage = (pasid: number, domainId = 2, top = second) =>
    setPasid(pasid, { type: type.secondStage, secondStage: top * 4096, addressWidth: addressWidth.bits48, domainId });
  const nested = (pasid: number, domainId = 3) =>
    setPasid(pasid, { type: type.nested, firstStage: first * 4096, secondStage: second * 4096, addressWidth: addressWidth.bits48, domainId });
  const passThrough = (pasid: number) => setPasid(pasid, { type: type.passThrough, addressWidth: addressWidth.bits48, domainId: 1 });

  const write64 = (offset: number, value: number) => {
    unit.write(offset + 4, 4, Math.floor(value / 2 ** 32));
    unit.write(offset, 4, value % 2 ** 32);
  };
  const command = (bit: number, on = true) => {
    const status = (unit.read(REG.gsts, 4) & ~0x4100_0000) >>> 0;
    unit.write(REG.gcmd, 4, on ? (status | (1 << bit)) >>> 0 : (status & ~(1 << bit)) >>> 0);
  };
  const enable = () => {
    write64(REG.rtaddr, root * 4096 + (1 << 10));
    command(30);
    command(31);
  };

  // The invalidation queue.
  const queueFrame = allocator.alloc();
  let tail = 0;
  const startQueue = () => {
    write64(REG.iqa, queueFrame * 4096 + 0x800);
    command(26);
  };
  /** Writes a descriptor (eight words) at the tail and rings. */
  const submit = (...descriptor: number[]) => {
    const slot = word(queueFrame, (tail / 4) % 1024);
    words.fill(0, slot, slot + 8);
    words.set(
      descriptor.map((d) => d >>> 0),
      slot,
    );
    tail = (tail + 32) % 4096;
    unit.write(REG.iqt, 4, tail);
  };
  const upstream = unit.requester(RID);
  const out = extent();
  /** One request; the answer and where it leads: physical address, or -1. */
  const request = (access: number, pasid: number, address: number | bigint, max = 64) => {
    const value = BigInt(address);
    const status = upstream.acquire(access, pasid, Number(BigInt.asIntN(32, value >> 32n)), Number(BigInt.asIntN(32, value)), max, out);
    return { status, at: status === 0 ? out.offset + 0x100 * 4096 : -1, length: status === 0 ? out.length : 0 };
  };
  /** The pending fault records, which are then acknowledged. */
  const faults = () => {
    const found: Record<string, number | string>[] = [];
    const status = unit.read(REG.fsts, 4);
    for (let i = 0, index = (status >>> 8) & 0xff; i < 8; i++, index = (index + 1) % 8) {
      const record = Uint32Array.from({ length: 4 }, (_, k) => unit.read(0x400 + index * 16 + k * 4, 4));
      if (!FaultRecordRegister.get.fault(record, 0)) continue;
      found.push(FaultRecordRegister.json(record, 0));
      unit.write(0x400 + index * 16 + 12, 4, 0x8000_0000);
    }
    unit.write(REG.fsts, 4, 1);
    return found;
  };
  return {
    ...w,
    unit,
    delivered,
    root,
    contexts,
    directory,
    table,
    first,
    second,
    at,
    mapFirst,
    mapSecond,
    setPasid,
    firstStage,
    secondStage,
    nested,
    passThrough,
    write64,
    command,
    enable,
    startQueue,
    submit,
    queueFrame,
    request,
    faults,
    upstream,
  };
}
export type Bare = ReturnType<typeof bare>;

/** A host: unit, driver, clock, interrupts; address spaces on demand. */
export function machine(options: Partial<UnitOptions> = {}, frames = 16384, ports: (clock: Clock) => Partial<DriverPorts> = () => ({})) {
  const w = world(frames);
  const clock = new Clock();
  const apic = new LocalApic({ clock });
  const unit = new IommuUnit({ memory: w.memory, sink: apic, clock, ...options });
  const driver = new IommuDriver({ registers: unit, memory: w.memory, frames: w.allocator, clock, vectors: apic, ...ports(clock) });
  driver.enable();
  const newMm = () => new AddressSpace({ memory: w.memory, frames: w.allocator });
  const task = (mm: AddressSpace): Task => ({ mm, copyIn: (a, o) => mm.read(a, o), copyOut: (a, b) => mm.write(a, b) });
  const settle = () => {
    while (clock.pump() || clock.idle());
  };
  const out = extent();
  /** A whole access of a function, page requests answered: reads or writes bytes at an address of a PASID. The TLP status. */
  const access = (rid: number, pasid: number, address: number, bytes: Uint8Array, write: boolean): number => {
    const up = unit.requester(rid);
    for (let done = 0; done < bytes.length; ) {
      const a = address + done;
      const status = up.acquire(write ? WRITE : READ, pasid, (a / 2 ** 32) | 0, a | 0, bytes.length - done, out);
      if (status) return status;
      const memory = out.view.subarray(out.offset, out.offset + out.length);
      if (write) memory.set(bytes.subarray(done, done + out.length));
      else bytes.set(memory, done);
      up.commit(out);
      done += out.length;
    }
    return 0;
  };
  return { ...w, clock, apic, unit, driver, newMm, task, settle, access };
}
