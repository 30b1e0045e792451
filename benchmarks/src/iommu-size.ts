/** How the IOMMU driver grows: many PASIDs of a function, and a gibibyte mapped and unmapped. Wall time; no mitata, since each step changes the next. */
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { FrameAllocator, PhysicalMemory } from '@siov/memory';

const RID = 8;
const MANY = 100_000;
const FEW = 10;
const GIB_FRAMES = 262_144;
const ROUNDS = 7;

function machine(frames: number) {
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0, frames);
  const allocator = new FrameAllocator(ram);
  let vector = 0x20;
  const unit = new IommuUnit({ memory, sink: { deliver() {} } });
  const driver = new IommuDriver({
    registers: unit,
    memory,
    frames: allocator,
    clock: { wait: (until) => until() },
    vectors: { install() {}, allocVector: () => vector++ },
  });
  driver.enable();
  driver.addDevice(RID, { pasid: true });
  return { driver, allocator };
}
const heap = (): number => {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
};
const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;
/** Nanoseconds for one of `count` runs of `step`. */
const each = (count: number, step: (i: number) => void): number => {
  const from = performance.now();
  for (let i = 0; i < count; i++) step(i);
  return ((performance.now() - from) * 1e6) / count;
};

/** Attaching one more PASID, and taking it off again, where `there` are attached already. */
function marginal(driver: IommuDriver, domain: ReturnType<IommuDriver['pagingDomain']>, there: number): number {
  const more = 2000;
  return median(
    Array.from(
      { length: ROUNDS },
      () => each(more, (i) => void driver.attachPasid(RID, there + 1 + i, domain)) + each(more, (i) => driver.detachPasid(RID, there + 1 + i)),
    ),
  );
}

/** Lines for people. */
export function iommuSize(): string[] {
  const { driver, allocator } = machine(32_768);
  const domain = driver.pagingDomain();
  domain.map(0, 0x4000, 1, 3);
  for (let pasid = 1; pasid <= FEW; pasid++) driver.attachPasid(RID, pasid, domain);
  marginal(driver, domain, FEW); // compiled
  const few = marginal(driver, domain, FEW);
  const before = { heap: heap(), used: allocator.used };
  for (let pasid = FEW + 1; pasid <= MANY; pasid++)
    if (driver.attachPasid(RID, pasid, domain) !== 0) throw new RangeError(`attachPasid: PASID ${pasid} is refused`);
  const bytes = (heap() - before.heap) / (MANY - FEW);
  const tables = ((allocator.used - before.used) * 4096) / (MANY - FEW);
  const many = marginal(driver, domain, MANY);
  const lines = [
    `attach and detach of a PASID: ${few.toFixed(0)} ns with ${FEW} there, ${many.toFixed(0)} ns with ${MANY.toLocaleString('en-US')}: ${(many / few).toFixed(2)} times (goal 1.3)`,
    `a PASID takes ${tables.toFixed(0)} bytes of tables and ${bytes.toFixed(0)} bytes beside them (goal 200)`,
  ];
  for (let pasid = 1; pasid <= MANY; pasid++) driver.detachPasid(RID, pasid);

  const big = machine(8192);
  const pages = big.driver.pagingDomain();
  big.driver.attachPasid(RID, 1, pages);
  const run = (label: string, map: () => void): void => {
    const times = Array.from({ length: ROUNDS }, () => {
      const mapped = each(1, map);
      const unmapped = each(1, () => void pages.unmap(0x4000_0000, 2 ** 30));
      return [mapped, unmapped] as const;
    });
    const [mapped, unmapped] = [median(times.map(([m]) => m)), median(times.map(([, u]) => u))];
    lines.push(`1 GiB in ${label}: mapped in ${(mapped / 1e6).toFixed(2)} ms, unmapped and invalidated in ${(unmapped / 1e6).toFixed(2)} ms`);
  };
  // Frames in an order in which no two neighbours make a large page.
  run('4 KiB pages', () => {
    for (let page = 0; page < GIB_FRAMES; page += 2) {
      pages.map(0x4000_0000 + page * 4096, 0x10_0001 + page, 1, 3);
      pages.map(0x4000_0000 + (page + 1) * 4096, 0x10_0000 + page, 1, 3);
    }
  });
  run('2 MiB pages', () => {
    for (let large = 0; large < 512; large++) pages.map(0x4000_0000 + large * 2 ** 21, 0x10_0000 + large * 512, 512, 3);
  });
  return lines;
}
if (process.argv[1]?.endsWith('iommu-size.ts')) console.log(iommuSize().join('\n'));
