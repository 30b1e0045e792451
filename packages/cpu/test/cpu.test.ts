import { hi, lo } from '@siov/layout';
import { Errno } from '@siov/layout/uapi';
import { PageEntry } from '@siov/layout/x86';
import { AddressSpace } from '@siov/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Counter, type Mmio, Signal } from '../src/index.js';
import { ANONYMOUS, contextOf, FIXED, machine, POPULATE, RW, WRITE } from './machine.js';

const signalOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof Signal) return `${error.signal} ${error.address.toString(16)}`;
    throw error;
  }
  return 'none';
};

test('loads and stores of every width and place in a page agree with the bytes of memory', () => {
  const { mm, ram, load, store } = machine();
  const at = mm.mmap(0, 8192, RW, ANONYMOUS);
  const model = new Uint8Array(8192);
  const access = fc.record({ offset: fc.nat(8191), width: fc.constantFrom(1, 2, 4), value: fc.integer({ min: 0, max: 0xffff_ffff }) });
  fc.assert(
    fc.property(access, ({ offset, width, value }) => {
      if ((offset % 4096) + width > 4096) return;
      store(at + offset, value, width);
      for (let i = 0; i < width; i++) model[offset + i] = Math.floor(value / 2 ** (8 * i));
      expect(load(at + offset, width)).toBe(width === 4 ? value : value % 2 ** (8 * width));
      const frame = mm.frameOf(at + offset);
      const page = ram.bytes.subarray((frame - ram.firstFrame) * 4096, (frame - ram.firstFrame + 1) * 4096);
      expect(page).toEqual(model.subarray(offset - (offset % 4096), offset - (offset % 4096) + 4096));
    }),
  );
});

test('the TLB never answers what the tables no longer say', () => {
  const action = fc.record({
    kind: fc.constantFrom('map', 'unmap', 'protect', 'read', 'read', 'write', 'write'),
    page: fc.nat(5),
    space: fc.nat(1),
    prot: fc.constantFrom(0, 1, 3),
    value: fc.integer({ min: 1, max: 0x7fff_ffff }),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      const { mm, newMm, load, store } = machine(256);
      const spaces: AddressSpace[] = [mm, newMm()];
      const contexts = spaces.map((space) => contextOf(space));
      const model = spaces.map(() => new Map<number, { prot: number; value: number }>());
      // Pages 4 MiB apart share a slot of the TLB with each other.
      const place = (page: number) => 0x10_0000_0000 + page * 0x40_0000;
      for (const { kind, page, space, prot, value } of actions) {
        const at = place(page);
        const known = model[space]!.get(page);
        if (kind === 'map') {
          spaces[space]!.mmap(at, 4096, prot, ANONYMOUS | FIXED);
          model[space]!.set(page, { prot, value: 0 });
        } else if (kind === 'unmap') {
          spaces[space]!.munmap(at, 4096);
          model[space]!.delete(page);
        } else if (kind === 'protect') {
          spaces[space]!.mprotect(at, 4096, prot);
          if (known) known.prot = prot;
        } else if (kind === 'read') {
          let seen = -1;
          const signal = signalOf(() => (seen = load(at, 4, contexts[space])));
          expect([signal, seen]).toEqual(known?.prot ? ['none', known.value] : [`SIGSEGV ${at.toString(16)}`, -1]);
        } else {
          const allowed = known !== undefined && (known.prot & 2) !== 0;
          expect(signalOf(() => store(at, value, 4, contexts[space]))).toBe(allowed ? 'none' : `SIGSEGV ${at.toString(16)}`);
          if (allowed) known.value = value;
        }
      }
    }),
    { numRuns: 150 },
  );
});

test('forget the flush, and the stale translation is used, as hardware does', () => {
  const { mm, memory, frames, cpu } = machine();
  const { AddressSpace } = { AddressSpace: mm.constructor as new (ports: object) => AddressSpace };
  const careless = new AddressSpace({ memory, frames });
  const context = contextOf(careless);
  const at = careless.mmap(0, 4096, RW, ANONYMOUS);
  cpu.store(context, hi(at), lo(at), 4, 77);
  careless.munmap(at, 4096);
  expect(cpu.load(context, hi(at), lo(at), 4)).toBe(77);
  cpu.flush(careless.rootFrame, at / 4096, 1);
  expect(signalOf(() => cpu.load(context, hi(at), lo(at), 4))).toMatch(/^SIGSEGV/);
});

test('large flushes reach every page of the range and no other', () => {
  const { mm, cpu, context, store, load } = machine();
  const at = mm.mmap(0, 600 * 4096, RW, ANONYMOUS | POPULATE);
  for (let i = 0; i < 600; i++) store(at + i * 4096, i);
  const misses = () => cpu.counters[Counter.tlbMisses]!;
  cpu.flush(context.rootFrame, at / 4096 + 10, 2 ** 30);
  const before = misses();
  for (let i = 0; i < 10; i++) load(at + i * 4096);
  expect(misses()).toBe(before);
  for (let i = 10; i < 600; i++) load(at + i * 4096);
  expect(misses()).toBe(before + 590);
  cpu.flush(context.rootFrame + 1, 0, 2 ** 35);
  for (let i = 0; i < 600; i++) load(at + i * 4096);
  expect(misses()).toBe(before + 590);
  cpu.flushAll();
  load(at);
  expect(misses()).toBe(before + 591);
});

test('SDM accessed and dirty flags: set by the walk, dirty only by a write', () => {
  const { mm, ram, load, store } = machine();
  const at = mm.mmap(0, 4096, RW, ANONYMOUS | POPULATE);
  const leaf = (): Record<string, unknown> => {
    let frame = mm.rootFrame;
    for (const size of [2 ** 39, 2 ** 30, 2 ** 21]) {
      const index = (frame - ram.firstFrame) * 1024 + (Math.floor(at / size) % 512) * 2;
      frame = PageEntry.get.address(ram.words, index) / 4096;
    }
    return PageEntry.json(ram.words, (frame - ram.firstFrame) * 1024 + ((at / 4096) % 512) * 2);
  };
  expect(leaf()).toMatchObject({ accessed: 0, dirty: 0 });
  load(at);
  expect(leaf()).toMatchObject({ accessed: 1, dirty: 0 });
  store(at, 1);
  expect(leaf()).toMatchObject({ accessed: 1, dirty: 1 });
});

test('what cannot be accessed is a signal: SIGSEGV, SIGBUS by the cause', () => {
  const { mm, context, load, store, mapFrames, cpu, newMm } = machine();
  const readOnly = mm.mmap(0, 4096, 1, ANONYMOUS);
  expect(signalOf(() => store(readOnly, 1))).toBe(`SIGSEGV ${readOnly.toString(16)}`);
  expect(signalOf(() => load(0))).toBe('SIGSEGV 0');
  expect(signalOf(() => cpu.load(context, 0xffff_8000 | 0, 0, 4))).toMatch(/^SIGSEGV/);
  const revoked = mm.mmap(0, 4096, RW, 1, { map: (area) => (area.zap(), 0) });
  expect(signalOf(() => load(revoked))).toBe(`SIGBUS ${revoked.toString(16)}`);
  const gone = newMm();
  const left = contextOf(gone);
  gone.exit();
  expect(signalOf(() => cpu.load(left, 0, 4096, 4))).toBe('SIGSEGV 1000');
  const stubborn = contextOf(mm, { handleFault: () => 0 });
  expect(signalOf(() => cpu.load(stubborn, 0, 0, 4))).toBe('SIGBUS 0');
  const exhausted = contextOf(mm, { handleFault: () => -Errno.ENOMEM });
  expect(signalOf(() => cpu.load(exhausted, 0, 0, 4))).toBe('SIGBUS 0');
  expect(() => cpu.load(context, 0, 4095, 4)).toThrow(/cross/);
  // No memory and no device: ones.
  expect(load(mapFrames(0x70_0000), 2)).toBe(0xffff);
});

function portal() {
  const world = machine();
  const log: string[] = [];
  let room = 1;
  const device: Mmio = {
    read: (offset, width) => (log.push(`read ${offset} ${width}`), 0x8000_0001),
    write: (offset, width, value) => log.push(`write ${offset} ${width} ${value}`),
    movdir64b: (offset, words, at) => log.push(`movdir64b ${offset} ${words[at]} ${words[at + 15]}`),
    enqcmd: (offset, words, at) => {
      log.push(`enqcmd ${offset} ${words[at]!.toString(16)} ${words[at + 15]}`);
      return room-- > 0 ? 0 : 1;
    },
  };
  const region = world.memory.addMmio(0x9_0000, 4, device);
  const at = world.mapFrames(0x9_0000, 4);
  const source = world.mm.mmap(0, 8192, RW, ANONYMOUS | POPULATE);
  const fill = (address: number) => {
    for (let i = 0; i < 64; i += 4) for (let b = 0; b < 4; b++) world.store(address + i + b, i === 0 ? 0xee : b === 0 ? i / 4 + 1 : 0, 1);
  };
  const movdir = (to: number, from: number) => world.cpu.movdir64b(world.context, hi(to), lo(to), hi(from), lo(from));
  const enqcmd = (to: number, from: number, by = world.context) => world.cpu.enqcmd(by, hi(to), lo(to), hi(from), lo(from));
  return { ...world, log, region, at, source, fill, movdir, enqcmd };
}

test('five levels: every index of the top table leads elsewhere, and addresses end at 2^56', () => {
  const { memory, frames, cpu } = machine();
  const mm = new AddressSpace({ memory, frames, levels: 5, flush: (root, page, pages) => cpu.flush(root, page, pages) });
  const context = contextOf(mm, { levels: 5 });
  const at = [0x1000_0000, 2 ** 47, 2 ** 48, 31 * 2 ** 48 + 4096, 2 ** 53 - 8192];
  for (const [i, address] of at.entries()) {
    expect(mm.mmap(address, 4096, RW, ANONYMOUS | FIXED)).toBe(address);
    cpu.store(context, hi(address), lo(address) + 8, 4, i + 1);
  }
  for (const [i, address] of at.entries()) expect(cpu.load(context, hi(address), lo(address) + 8, 4)).toBe(i + 1);
  expect(() => cpu.load(context, 0x0100_0000, 0, 4)).toThrow('not a user address');
  expect(() => cpu.load(context, 0x00ff_ffff, 0, 4)).toThrow(Signal);
  mm.munmap(at[3]!, 4096);
  expect(() => cpu.load(context, hi(at[3]!), lo(at[3]!), 4)).toThrow(Signal);
});

test('device registers are read and written through a mapping, with offsets from the region', () => {
  const { log, at, load, store, region, memory } = portal();
  expect(load(at + 4096 + 8)).toBe(0x8000_0001);
  store(at + 8192 + 2, 0x1_beef, 2);
  store(at, -1, 4);
  expect(log).toEqual(['read 4104 4', 'write 8194 2 48879', 'write 0 4 4294967295']);
  memory.remove(region);
  expect(load(at + 4096 + 8)).toBe(0xffff_ffff);
});

test('MOVDIR64B: 64 bytes from any address arrive at once, at a device or in RAM', () => {
  const { log, at, source, fill, movdir, load } = portal();
  for (const offset of [0, 64, 3, 4096 - 32, 4096 - 29]) {
    fill(source + offset);
    movdir(at + 4096 + 128, source + offset);
    expect(log.pop()).toBe(`movdir64b 4224 ${0xeeee_eeee} 16`);
  }
  fill(source);
  movdir(source + 4096, source);
  expect([load(source + 4096), load(source + 4096 + 60)]).toEqual([0xeeee_eeee, 16]);
});

test('MOVDIR64B: a destination that is no multiple of 64 is #GP, one without right a fault', () => {
  const { mm, at, source, movdir } = portal();
  expect(signalOf(() => movdir(at + 32, source))).toMatch(/^SIGSEGV/);
  const readOnly = mm.mmap(0, 4096, 1, ANONYMOUS);
  expect(signalOf(() => movdir(readOnly, source))).toMatch(/^SIGSEGV/);
  expect(signalOf(() => movdir(at, 0))).toMatch(/^SIGSEGV/);
});

test('ENQCMD: bits 19:0 are IA32_PASID, 31:20 are 0, the zero flag is the device answer', () => {
  const { log, at, source, fill, enqcmd, context, cpu } = portal();
  fill(source);
  context.pasidMsr = 0x8000_0000 | 0xa_1234;
  expect([enqcmd(at + 64, source), enqcmd(at, source)]).toEqual([0, 1]);
  expect(log).toEqual(['enqcmd 64 a1234 16', 'enqcmd 0 a1234 16']);
  expect([cpu.counters[Counter.enqcmd], cpu.counters[Counter.enqcmdRetries]]).toEqual([2, 1]);
});

test('ENQCMD: without a valid IA32_PASID #GP, unless the kernel makes it valid', () => {
  const { at, source, enqcmd, context, mm, log } = portal();
  context.pasidMsr = 5;
  expect(signalOf(() => enqcmd(at, source))).toMatch(/^SIGSEGV/);
  const fixed = contextOf(mm, {
    fixPasid() {
      this.pasidMsr = 0x8000_0007 | 0;
      return true;
    },
  });
  expect([enqcmd(at, source, fixed), log[0]]).toEqual([0, 'enqcmd 0 7 0']);
  expect(signalOf(() => enqcmd(at + 4, source, fixed))).toMatch(/^SIGSEGV/);
});

test('ENQCMD to what takes no enqueue is retry', () => {
  const { source, enqcmd, context, memory, mapFrames, mm } = portal();
  context.pasidMsr = 0x8000_0001 | 0;
  memory.addMmio(0xa_0000, 1, { read: () => 0, write() {} });
  const ram = mm.mmap(0, 4096, RW, ANONYMOUS);
  expect([enqcmd(mapFrames(0xa_0000), source), enqcmd(mapFrames(0xb_0000), source), enqcmd(ram, source)]).toEqual([1, 1, 1]);
});

test('ENQCMDS: PASID and privilege come from the source, bits 30:20 go as 0', () => {
  const { log, at, source, store, cpu, context } = portal();
  store(source, 0xfff1_2345);
  expect(cpu.enqcmds(context, hi(at), lo(at), hi(source), lo(source))).toBe(0);
  expect(log).toEqual(['enqcmd 0 80012345 0']);
});

test('words gives direct access to the end of the page, and no device', () => {
  const { cpu, context, mm, at, load } = portal();
  const page = mm.mmap(0, 4096, RW, ANONYMOUS);
  const index = cpu.words(context, hi(page), lo(page + 64), WRITE);
  for (let i = 0; i < 16; i++) cpu.view[index + i] = i * 3;
  expect(load(page + 64 + 60)).toBe(45);
  expect(signalOf(() => cpu.words(context, hi(at), lo(at), WRITE))).toMatch(/^SIGBUS/);
  expect(() => cpu.words(context, hi(page), lo(page + 1), 0)).toThrow(/multiple of 4/);
  const bytes = Uint8Array.from({ length: 6000 }, (_, i) => i);
  const two = mm.mmap(0, 8192, RW, ANONYMOUS);
  cpu.copyOut(context, two + 11, bytes);
  const back = new Uint8Array(6000);
  cpu.copyIn(context, two + 11, back);
  expect(back).toEqual(bytes);
});

test('costs are spent by what runs', () => {
  let spent = 0;
  const { cpu, mm, context } = machine(256, { clock: { spend: (ns) => (spent += ns) }, costs: { load: 1, store: 10, movdir64b: 100, enqcmd: 1000 } });
  const at = mm.mmap(0, 4096, RW, ANONYMOUS);
  context.pasidMsr = 1 << 31;
  cpu.store(context, hi(at), lo(at), 4, 1);
  cpu.load(context, hi(at), lo(at), 4);
  cpu.movdir64b(context, hi(at), lo(at), hi(at), lo(at));
  cpu.enqcmd(context, hi(at), lo(at), hi(at), lo(at));
  expect(spent).toBe(1111);
});
