import { IommuDriver, IommuUnit, UnitCounter } from '@siov/iommu';

// Memory is whatever answers `regionOf`: here one plain ArrayBuffer of 4 MiB at physical address 0.
const bytes = new Uint8Array(1024 * 4096);
const ram = { kind: 'ram', firstFrame: 0, frames: 1024, bytes, words: new Uint32Array(bytes.buffer) } as const;
const memory = { regionOf: (frame: number) => (frame < 1024 ? ram : undefined) };
let next = 1;
const frames = { alloc: (order = 0) => (next = Math.ceil(next / 2 ** order) * 2 ** order + 2 ** order) - 2 ** order, free: () => {} };
const vectors = { allocVector: () => 0x30, install: () => {} };

const unit = new IommuUnit({ memory, sink: { deliver: (vector) => console.log('interrupt', vector) } });
const driver = new IommuDriver({ registers: unit, memory, frames, vectors, clock: { wait: (until) => until() } });
driver.enable();
driver.addDevice(0x0310, { pasid: true });
const domain = driver.pagingDomain();
domain.map(0x7000_0000, 900, 2, 3); // two frames, read and write
driver.attachPasid(0x0310, 5, domain);

const device = unit.requester(0x0310);
const piece = { view: bytes, words: ram.words, offset: 0, length: 0, ns: 0 };
console.log('status', device.acquire(0, 5, 0, 0x7000_0010, 8000, piece), 'at', piece.offset - 900 * 4096, 'length', piece.length);
console.log('reads of the walks', unit.counters[UnitCounter.walkReads]);
console.log('another PASID', device.acquire(0, 6, 0, 0x7000_0010, 64, piece));
