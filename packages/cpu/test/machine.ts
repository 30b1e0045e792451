/** A processor over RAM with one process; in a guest, its memory is chosen frame by frame through an EPT. */
import { hi, lo } from '@siov/layout';
import { EptEntry } from '@siov/layout/x86';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { type Context, Cpu, type CpuOptions } from '../src/index.js';

export const RW = 3;
export const ANONYMOUS = 0x22;
export const POPULATE = 0x8000;
export const FIXED = 0x10;
export const WRITE = 1;

export function contextOf(mm: AddressSpace, more: Partial<Context> = {}): Context {
  return {
    get rootFrame() {
      return mm.rootFrame;
    },
    eptRoot: -1,
    pasidMsr: 0,
    pasidTranslation: -1,
    handleFault: (high, low, access) => mm.handleFault(high, low, access),
    ...more,
  };
}

export function machine(frameCount = 2048, options: Partial<CpuOptions> = {}) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0x100, frameCount);
  const frames = new FrameAllocator(ram);
  const cpu = new Cpu({ memory, ...options });
  const newMm = () => new AddressSpace({ memory, frames, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const mm = newMm();
  const context = contextOf(mm);
  /** Maps `count` frames from `frame` shared at a new address. */
  const mapFrames = (frame: number, count = 1, prot = RW): number =>
    mm.mmap(0, count * 4096, prot, 1, {
      map(area) {
        for (let i = 0; i < count; i++) area.insert(i, frame + i);
        return 0;
      },
    });
  const load = (address: number, width = 4, by = context) => cpu.load(by, hi(address), lo(address), width);
  const store = (address: number, value: number, width = 4, by = context) => cpu.store(by, hi(address), lo(address), width, value);
  return { memory, ram, frames, cpu, newMm, mm, context, mapFrames, load, store };
}

/**
 * A guest with `size` frames of memory. `hostOf` says where each guest frame lies; `map` writes its EPT entry (level 1: 4 KiB, 2: 2 MiB).
 * All that the guest's kernel writes goes to the host frames directly, as one buffer in guest order cannot show scattered frames.
 */
export function guestMachine(size = 512, options: Partial<CpuOptions> = {}) {
  const host = machine(8192, options);
  const block = host.frames.alloc(9);
  if (size > 512) throw new RangeError('size: at most 512');
  const eptRoot = host.frames.alloc();
  const wordsOf = (frame: number): [Uint32Array, number] => [host.ram.words, (frame - host.ram.firstFrame) * 1024];
  const entryAt = (guestFrame: number, level: number): number => {
    let table = eptRoot;
    for (let at = 4; ; at--) {
      const [words, base] = wordsOf(table);
      const index = base + ((guestFrame >>> (9 * (at - 1))) & 511) * 2;
      if (at === level) return index;
      if (!words[index]) {
        const next = host.frames.alloc();
        EptEntry.set.read(words, index, 1);
        EptEntry.set.write(words, index, 1);
        EptEntry.set.execute(words, index, 1);
        EptEntry.set.address(words, index, next * 4096);
      }
      table = EptEntry.get.address(words, index) / 4096;
    }
  };
  const map = (guestFrame: number, hostFrame: number, rights = 7, level = 1): number => {
    const { words } = host.ram;
    const at = entryAt(guestFrame, level);
    words[at] = words[at + 1] = 0;
    EptEntry.set.read(words, at, rights & 1);
    EptEntry.set.write(words, at, (rights >> 1) & 1);
    EptEntry.set.execute(words, at, (rights >> 2) & 1);
    EptEntry.set.memoryType(words, at, EptEntry.is.memoryType.writeBack);
    EptEntry.set.address(words, at, hostFrame * 4096);
    if (level > 1) EptEntry.set.pageSize(words, at, 1);
    return at;
  };
  // The guest's own map of its memory: guest frame 0x10 + i is host frame block + i.
  const FIRST = 0x10;
  const guestMemory = new PhysicalMemory();
  const bytes = host.ram.bytes.subarray((block - host.ram.firstFrame) * 4096, (block - host.ram.firstFrame + size) * 4096);
  const guestRam = guestMemory.addRam(FIRST, size, bytes);
  const guestFrames = new FrameAllocator(guestRam);
  const guestMm = new AddressSpace({ memory: guestMemory, frames: guestFrames, flush: (root, page, pages) => host.cpu.flush(root, page, pages) });
  const mapAll = () => {
    for (let i = 0; i < size; i++) map(FIRST + i, block + i);
  };
  return { ...host, host, block, eptRoot, entryAt, map, mapAll, guestMm, guestRam, FIRST, size };
}
