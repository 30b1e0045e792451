/** The n-th allocation fails, for every n: an error, no half state, nothing lost. As the kernel's selftest iommufd_fail_nth does. */
import { Clock, LocalApic } from '@siov/cpu';
import { NO_PASID } from '@siov/layout/pcie';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { AddressSpace } from '@siov/memory';
import { describe, expect, test } from 'vitest';
import { IommuDriver, IommuUnit, type OpenFile } from '../src/index.js';
import { iommufd as uapi } from '../src/spec/index.js';
import { extent, READ, RID, WRITE, world } from './machine.js';

const ALL = { ats: true, pri: true, pasid: true };
const BASE = 0x7f00_0000_0000;

/** A host whose frames run out at the `n`-th allocation after `arm`. */
function host() {
  const w = world(8192);
  let left = Number.POSITIVE_INFINITY;
  let live = 0;
  const frames = {
    alloc(order = 0): number {
      if (left-- <= 0) return -1;
      const frame = w.allocator.alloc(order);
      if (frame >= 0) live += 2 ** order;
      return frame;
    },
    free(frame: number, order = 0): void {
      live -= 2 ** order;
      w.allocator.free(frame, order);
    },
  };
  const clock = new Clock();
  const apic = new LocalApic({ clock });
  const uses: unknown[] = [];
  const unit = new IommuUnit({ memory: w.memory, sink: apic, clock, onStale: (use) => void uses.push(use) });
  const driver = new IommuDriver({ registers: unit, memory: w.memory, frames, clock, vectors: apic });
  driver.enable();
  const newMm = () => new AddressSpace({ memory: w.memory, frames });
  const out = extent();
  const reach = (pasid: number, address: number, access: number = READ): number =>
    unit.requester(RID).acquire(access, pasid, (address / 2 ** 32) | 0, address | 0, 8, out);
  return {
    driver,
    newMm,
    reach,
    uses,
    live: () => live,
    arm: (n: number) => {
      left = n;
    },
    disarm: () => {
      left = Number.POSITIVE_INFINITY;
    },
  };
}
type Host = ReturnType<typeof host>;

/** What is done under failing allocations, and how it is undone. True: it went through. */
interface Scenario {
  readonly before?: (h: Host) => void;
  run(h: Host): boolean;
  /** After success: it works. */
  works(h: Host): void;
  undo(h: Host): void;
}
const devices = (h: Host): void => void h.driver.addDevice(RID, ALL);
const scenarios: Readonly<Record<string, () => Scenario>> = {
  'a device is added': () => ({
    run: (h) => h.driver.addDevice(RID, ALL) === 0,
    works: (h) => expect(h.driver.capabilitiesOf(RID)).toMatchObject({ pasid: true }),
    undo: (h) => h.driver.removeDevice(RID),
  }),
  'a paging domain is made, mapped and attached': () => {
    let domain: ReturnType<IommuDriver['pagingDomain']> | undefined;
    return {
      before: devices,
      run(h) {
        domain = h.driver.pagingDomain();
        // Far apart, so that every level has tables of its own.
        for (const at of [0x1000, 0x4000_0000, 0x80_0000_0000]) if (domain.map(at, 0x800, 3, 3) !== 0) return false;
        return h.driver.attach(RID, domain) === 0;
      },
      works: (h) => expect([h.reach(NO_PASID, 0x4000_1000), h.reach(NO_PASID, 0x80_0000_2000)]).toEqual([0, 0]),
      undo(h) {
        h.driver.attach(RID, undefined);
        domain?.unmap(0, 2 ** 40);
        expect(domain?.free()).toBe(0);
      },
    };
  },
  'one PASID after another is attached': () => {
    let domain: ReturnType<IommuDriver['pagingDomain']> | undefined;
    const attached: number[] = [];
    return {
      before: devices,
      run(h) {
        domain = h.driver.pagingDomain();
        if (domain.map(0, 0x800, 1, 3) !== 0) return false;
        for (const pasid of [1, 64, 4096, 40_000]) {
          if (h.driver.attachPasid(RID, pasid, domain) !== 0) return false;
          attached.push(pasid);
        }
        return true;
      },
      works: (h) => expect(attached.map((pasid) => h.reach(pasid, 0x10))).toEqual([0, 0, 0, 0]),
      undo(h) {
        for (const pasid of attached) h.driver.detachPasid(RID, pasid);
        domain?.unmap(0, 4096);
        expect(domain?.free()).toBe(0);
      },
    };
  },
  'a domain is replaced by another, which then is in use': () => {
    const domains: ReturnType<IommuDriver['pagingDomain']>[] = [];
    return {
      before: devices,
      run(h) {
        for (let i = 0; i < 2; i++) {
          const domain = h.driver.pagingDomain();
          domains.push(domain);
          if (domain.map(0, 0x800 + i, 1, 3) !== 0 || h.driver.attach(RID, domain) !== 0) return false;
        }
        return true;
      },
      works: (h) => expect([h.reach(NO_PASID, 0), h.driver.attachedTo(RID, NO_PASID)]).toEqual([0, domains[1]]),
      undo(h) {
        h.driver.attach(RID, undefined);
        for (const domain of domains) {
          domain.unmap(0, 4096);
          expect(domain.free()).toBe(0);
        }
      },
    };
  },
  'a process is bound, and its pages are used': () => {
    let mm: AddressSpace | undefined;
    let bound: { readonly pasid: number; unbind(): void } | undefined;
    return {
      before: devices,
      run(h) {
        // A process that has no page table is none.
        try {
          mm = h.newMm();
        } catch {
          return false;
        }
        if (mm.mmap(BASE, 8192, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED) < 0) return false;
        if (mm.write(BASE, Uint8Array.of(1)) !== 0) return false;
        const sva = h.driver.svaBind(RID, mm);
        if (typeof sva === 'number') return false;
        bound = sva;
        return true;
      },
      works: (h) => expect([h.reach(bound!.pasid, BASE, WRITE), h.reach(bound!.pasid + 1, BASE) !== 0]).toEqual([0, true]),
      undo() {
        bound?.unbind();
        mm?.exit();
      },
    };
  },
  'iommufd: memory mapped, a page table made and attached, replaced by another, a nested one for a PASID': () => {
    let mm: AddressSpace | undefined;
    let file: OpenFile | undefined;
    let device = -1;
    return {
      before: devices,
      run(h) {
        const { IommufdIoctl, HwptAllocFlag } = uapi;
        try {
          mm = h.newMm();
        } catch {
          return false;
        }
        mm.mmap(BASE, 64 * 4096, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
        const task = { mm, copyIn: (a: number, o: Uint8Array) => mm!.read(a, o), copyOut: (a: number, b: Uint8Array) => mm!.write(a, b) };
        file = h.driver.iommufd.open() as OpenFile;
        const context = h.driver.iommufd.contextOf(file)!;
        const call = (number: number, words: readonly number[], answer: number): number => {
          const bytes = new Uint8Array(Uint32Array.from(words.map((word) => word >>> 0)).buffer);
          if (mm!.write(BASE, bytes) < 0) return -1;
          const result = file!.ioctl!(task, number, BASE);
          mm!.read(BASE, bytes);
          return result < 0 ? result : new Uint32Array(bytes.buffer)[answer]!;
        };
        const two = (value: number) => [value % 2 ** 32, Math.floor(value / 2 ** 32)];
        const hwpt = (parent: number, flags: number, type = 0) =>
          call(IommufdIoctl.HWPT_ALLOC, [48, flags, device, parent, 0, 0, type, type ? 24 : 0, ...two(type ? BASE + 2048 : 0), 0, 0], 4);
        device = context.bindDevice(RID);
        const ioas = call(IommufdIoctl.IOAS_ALLOC, [12, 0, 0], 2);
        if (ioas < 0) return false;
        // Scattered user pages at far-off addresses, so that there are many tables.
        const places = [0, 0x4000_0000, 0x80_0000_0000];
        for (const iova of places)
          if (call(IommufdIoctl.IOAS_MAP, [40, 7, ioas, 0, ...two(BASE + 4096), 8 * 4096, 0, ...two(iova)], 0) < 0) return false;
        const one = hwpt(ioas, HwptAllocFlag.PASID | HwptAllocFlag.DIRTY_TRACKING);
        if (one < 0 || context.attach(device, one, NO_PASID) < 0) return false;
        const parent = hwpt(ioas, HwptAllocFlag.PASID | HwptAllocFlag.NEST_PARENT);
        if (parent < 0 || context.attach(device, parent, NO_PASID) < 0) return false;
        if (call(IommufdIoctl.IOAS_MAP, [40, 7, ioas, 0, ...two(BASE + 16 * 4096), 8 * 4096, 0, ...two(0x100_0000_0000)], 0) < 0) return false;
        if (mm.write(BASE + 2048, new Uint8Array(Uint32Array.of(0, 0, 0, 0, 48, 0).buffer)) < 0) return false;
        const nested = hwpt(parent, HwptAllocFlag.PASID, 1);
        return (
          nested >= 0 &&
          context.attach(device, parent, 70) === 0 &&
          context.attach(device, nested, 70) === 0 &&
          context.attach(device, nested, 9000) === 0
        );
      },
      works: (h) => expect([h.reach(NO_PASID, 0x4000_0010), h.reach(NO_PASID, 0x100_0000_1000, WRITE)]).toEqual([0, 0]),
      undo(h) {
        file?.close?.();
        if (file && device > 0) h.driver.iommufd.contextOf(file)?.unbind(device);
        mm?.exit();
        expect(h.driver.iommufd.lockedPages).toBe(0);
      },
    };
  },
  'the kernel’s own memory for a device': () => {
    const memory: { free(): void }[] = [];
    return {
      before: devices,
      run(h) {
        const dma = h.driver.dma(RID);
        if (!dma) return false;
        for (let i = 0; i < 3; i++) {
          const one = dma.alloc(4096 << i);
          if (!one) return false;
          memory.push(one);
        }
        return dma.enablePasid() > 0;
      },
      works: (h) => expect(h.reach(NO_PASID, 0xfedf_f000)).toBe(0),
      undo() {
        for (const one of memory) one.free();
      },
    };
  },
};

describe.each(Object.entries(scenarios))('%s', (_name, make) => {
  test('with every allocation failing in turn: an error and nothing left; then it works', () => {
    /** Does and undoes it without a failure; what the unit's own tables hold afterwards. */
    const cycle = (h: Host): number => {
      const scenario = make();
      scenario.before?.(h);
      expect(scenario.run(h)).toBe(true);
      scenario.works(h);
      scenario.undo(h);
      h.driver.removeDevice(RID);
      return h.live();
    };
    const kept = cycle(host());
    let succeeded = -1;
    for (let n = 0; n < 100 && succeeded < 0; n++) {
      const h = host();
      const scenario = make();
      scenario.before?.(h);
      h.arm(n);
      if (scenario.run(h)) succeeded = n;
      h.disarm();
      scenario.undo(h);
      h.driver.removeDevice(RID);
      expect([n, h.live() <= kept]).toEqual([n, true]);
      expect([n, cycle(h), h.uses]).toEqual([n, kept, []]);
    }
    // It takes some allocations, and not without end.
    expect(succeeded).toBeGreaterThan(0);
  });
});
