/** The unit alone: a hit of its IOTLB and walks, beside the same dependent reads as bare loops over one Uint32Array. */
import { type Extent, IommuDriver, IommuUnit } from '@siov/iommu';
import { DmaAccess } from '@siov/layout/pcie';
import { FrameAllocator, PhysicalMemory } from '@siov/memory';
import { bench, do_not_optimize, summary } from 'mitata';

const RID = 8;
const PAGES = 4096;
const WINDOW = 0x4000_0000;

/** A function whose PASID 1 has a first stage of 4 KiB pages, nested over a second stage for PASID 2. */
function machine(iotlb: number, pagingStructure = 0) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0, 65_536);
  const frames = new FrameAllocator(ram);
  const { words } = ram;
  let vector = 0x20;
  const unit = new IommuUnit({ memory, sink: { deliver() {} }, sizes: { iotlb, pagingStructure } });
  const driver = new IommuDriver({
    registers: unit,
    memory,
    frames,
    clock: { wait: (until) => until() },
    vectors: { install() {}, allocVector: () => vector++ },
  });
  driver.enable();
  driver.addDevice(RID, { pasid: true, ats: true, pri: true });
  // First-stage tables by hand: present, writable, user, accessed, dirty.
  const table = (): number => frames.alloc();
  const root = table();
  const entry = (frame: number, index: number, to: number): void => {
    words[frame * 1024 + index * 2] = (to << 12) | 0x67;
    words[frame * 1024 + index * 2 + 1] = to >>> 20;
  };
  const next = (frame: number, index: number): number => {
    const at = frame * 1024 + index * 2;
    if (!words[at]) entry(frame, index, table());
    return words[at]! >>> 12;
  };
  const data = frames.alloc(12);
  for (let page = 0; page < PAGES; page++) {
    const vpn = WINDOW / 4096 + page;
    const l1 = next(next(next(root, (vpn >>> 27) & 511), (vpn >>> 18) & 511), (vpn >>> 9) & 511);
    entry(l1, vpn & 511, data + page);
  }
  // Second stage: memory at its own addresses, in 4 KiB pages (frames one by one, so that no large page covers them).
  const parent = driver.pagingDomain();
  for (let frame = 1; frame < 24_576; frame++) parent.map(frame * 4096, frame, 1, 3);
  const nested = driver.nestedDomain(parent, root, 48);
  driver.attachPasid(RID, 2, nested);
  // The same first stage alone, as a process's own.
  const handle = driver.svaBind(RID, { rootFrame: root, handleFault: () => -14, subscribe: () => () => {} });
  if (typeof handle === 'number') throw new Error(`svaBind: ${handle}`);
  const upstream = unit.requester(RID);
  const out: Extent = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
  return { upstream, out, words, root, second: parent.rootFrame, pasid: handle.pasid };
}

export function registerIommu(): void {
  summary(() => {
    const { upstream, out, words, root } = machine(8192);
    // The bare loop: four dependent reads over one array, no rights, no caches.
    let at = 0;
    const bare = (): number => {
      const vpn = WINDOW / 4096 + (at = (at + 1) & (PAGES - 1));
      let frame = root;
      for (let shift = 27; shift >= 0; shift -= 9) frame = words[frame * 1024 + ((vpn >>> shift) & 511) * 2]! >>> 12;
      return frame;
    };
    bench('a bare walk of four reads', () => do_not_optimize(bare())).baseline(true);
    let page = 0;
    const hit = (): number => {
      page = (page + 1) & (PAGES - 1);
      return upstream.acquire(DmaAccess.read, 2, 0, (WINDOW + page * 4096) | 0, 64, out);
    };
    // Every page once, so that none of the measured ones is a miss: a first call that is slow makes mitata time each call by itself, clock and all.
    for (let i = 0; i < 4 * PAGES; i++) hit();
    bench('IOTLB hit', () => do_not_optimize(hit()));
  });
  // An IOTLB of 64 entries under 4,096 pages in a stride that defeats it: every request walks.
  const STRIDE = 977;
  summary(() => {
    const { upstream, out, pasid } = machine(64, 64);
    let page = 0;
    bench('first-stage miss, upper levels in the paging-structure cache', () => {
      page = (page + STRIDE) & (PAGES - 1);
      return do_not_optimize(upstream.acquire(DmaAccess.read, pasid, 0, (WINDOW + page * 4096) | 0, 64, out));
    });
    const whole = machine(64);
    bench('first-stage miss, 4 levels', () => {
      page = (page + STRIDE) & (PAGES - 1);
      return do_not_optimize(whole.upstream.acquire(DmaAccess.read, whole.pasid, 0, (WINDOW + page * 4096) | 0, 64, whole.out));
    });
  });
  summary(() => {
    const { upstream, out, words, root, second } = machine(64);
    /** Four dependent reads: where the second stage puts a frame. */
    const host = (gpaFrame: number): number => {
      let frame = second;
      for (let shift = 27; shift >= 0; shift -= 9) frame = words[frame * 1024 + ((gpaFrame >>> shift) & 511) * 2]! >>> 12;
      return frame;
    };
    // 24 dependent reads: the second stage's four before each of the first stage's four, and four for the result.
    const bare24 = (): number => {
      const vpn = WINDOW / 4096 + (at = (at + STRIDE) & (PAGES - 1));
      let frame = root;
      for (let shift = 27; shift >= 0; shift -= 9) frame = words[host(frame) * 1024 + ((vpn >>> shift) & 511) * 2]! >>> 12;
      return host(frame);
    };
    let at = 0;
    upstream.acquire(DmaAccess.read, 2, 0, (WINDOW + STRIDE * 4096) | 0, 64, out);
    const led = bare24();
    if (out.offset !== led * 4096) throw new Error(`the bare walk leads to frame ${led}, the unit's to ${out.offset / 4096}`);
    bench('a bare walk of 24 dependent reads', () => do_not_optimize(bare24())).baseline(true);
    let page = 0;
    bench('nested miss, 4 levels on 4 levels', () => {
      page = (page + STRIDE) & (PAGES - 1);
      return do_not_optimize(upstream.acquire(DmaAccess.read, 2, 0, (WINDOW + page * 4096) | 0, 64, out));
    });
  });
}
