/** The driver on the unit, through registers and memory: domains, SVA, page requests, isolation, tear-down, interrupts. */
import { NO_PASID, PageResponse, TlpStatus } from '@siov/layout/pcie';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { PageEntry } from '@siov/layout/x86';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Endpoint, IommuDriver, type PagingDomain, type SvaHandle, UnitCounter } from '../src/index.js';
import { Fault } from '../src/spec/index.js';
import { machine, READ, RID, WRITE } from './machine.js';

const RW = Prot.READ | Prot.WRITE;
const ANONYMOUS = MapFlag.PRIVATE | MapFlag.ANONYMOUS;
const ALL = { ats: true, pri: true, pasid: true };
const BASE = 0x7f00_0000_0000;

/** A function that asks for pages and notes what it is told. */
function endpoint() {
  const responses: [number, number, number][] = [];
  const invalidations: [number, number, number][] = [];
  const it: Endpoint = {
    pageResponse: (pasid, group, code) => void responses.push([pasid, group, code]),
    invalidate: (pasid, hi, lo, bytes) => void invalidations.push([pasid, (hi >>> 0) * 2 ** 32 + (lo >>> 0), bytes]),
  };
  return { it, responses, invalidations };
}
function host() {
  const m = machine();
  const device = endpoint();
  const up = m.unit.requester(RID, device.it);
  expect(m.driver.addDevice(RID, ALL)).toBe(0);
  const process = (text: string) => {
    const mm = m.newMm();
    expect(mm.mmap(BASE, 16 * 4096, RW, ANONYMOUS | MapFlag.FIXED)).toBe(BASE);
    mm.write(BASE, new TextEncoder().encode(text));
    const sva = m.driver.svaBind(RID, mm) as SvaHandle;
    expect(sva.pasid).toBeGreaterThan(0);
    return { mm, sva };
  };
  const read = (pasid: number, address: number, length: number) => {
    const bytes = new Uint8Array(length);
    const status = m.access(RID, pasid, address, bytes, false);
    return status ? status : new TextDecoder().decode(bytes);
  };
  const request = (pasid: number, address: number, access: number, group = 1) =>
    up.pageRequest(pasid, (address / 2 ** 32) | 0, address | 0, access, group);
  return { ...m, device, up, process, read, request };
}

describe('SVA', () => {
  test('a bound process is read and written through its own page table', () => {
    const m = host();
    const { mm, sva } = m.process('hello');
    expect(m.read(sva.pasid, BASE, 5)).toBe('hello');
    expect(m.access(RID, sva.pasid, BASE + 2, new TextEncoder().encode('y!'), true)).toBe(0);
    const back = new Uint8Array(5);
    mm.read(BASE, back);
    expect(new TextDecoder().decode(back)).toBe('hey!o');
  });

  test('a page that is not there: ATS says so without a fault; a page request brings it in; the retry works', () => {
    const m = host();
    const { mm, sva } = m.process('x');
    const address = BASE + 3 * 4096;
    const hi = (address / 2 ** 32) | 0;
    const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
    expect(m.up.acquire(WRITE | 8, sva.pasid, hi, address | 0, 8, out)).toBe(TlpStatus.notPresent);
    expect(m.request(sva.pasid, address, WRITE, 17)).toBe(0);
    m.settle();
    expect(m.device.responses).toEqual([[sva.pasid, 17, PageResponse.success]]);
    expect(m.up.acquire(WRITE | 8, sva.pasid, hi, address | 0, 8, out)).toBe(TlpStatus.success);
    out.view[out.offset] = 42;
    const back = new Uint8Array(1);
    mm.read(address, back);
    expect(back[0]).toBe(42);
    expect(m.driver.faults).toEqual([]);
  });

  test.each([
    ['outside every area', BASE + 100 * 4096, READ],
    ['not canonical', 2 ** 60, READ],
  ])('a page request %s is answered Invalid Request', (_rule, address, access) => {
    const m = host();
    const { sva } = m.process('x');
    m.request(sva.pasid, address, access, 3);
    m.settle();
    expect(m.device.responses).toEqual([[sva.pasid, 3, PageResponse.invalidRequest]]);
  });
  test('a page request of a PASID that nobody bound, and a write to read-only memory, are invalid', () => {
    const m = host();
    const { mm, sva } = m.process('x');
    mm.mprotect(BASE, 4096, Prot.READ);
    m.request(sva.pasid, BASE, WRITE, 1);
    m.request(sva.pasid + 9, BASE, READ, 2);
    m.settle();
    expect(m.device.responses).toEqual([
      [sva.pasid, 1, PageResponse.invalidRequest],
      [sva.pasid + 9, 2, PageResponse.invalidRequest],
    ]);
  });

  test('munmap invalidates: the next access faults, is not a stale read, and the device TLB is told the range', () => {
    const m = host();
    const { mm, sva } = m.process('secret');
    expect(m.read(sva.pasid, BASE, 6)).toBe('secret');
    mm.munmap(BASE, 4096);
    expect(m.read(sva.pasid, BASE, 6)).toBe(TlpStatus.unsupportedRequest);
    m.settle();
    expect(m.driver.faults).toMatchObject([{ reason: Fault.firstStageNotPresent, pasid: sva.pasid, requesterId: RID, read: true }]);
    expect(m.device.invalidations).toContainEqual([sva.pasid, BASE, 4096]);
  });

  test('no PASID reaches what another one has: same address, own bytes; addresses of one are faults in the other', () => {
    const m = host();
    const a = m.process('alpha');
    const b = m.process('bravo');
    expect(a.sva.pasid).not.toBe(b.sva.pasid);
    expect([m.read(a.sva.pasid, BASE, 5), m.read(b.sva.pasid, BASE, 5), m.read(a.sva.pasid, BASE, 5)]).toEqual(['alpha', 'bravo', 'alpha']);
    const only = BASE + 2 ** 30;
    a.mm.mmap(only, 4096, RW, ANONYMOUS | MapFlag.FIXED);
    a.mm.write(only, new TextEncoder().encode('mine'));
    expect(m.read(a.sva.pasid, only, 4)).toBe('mine');
    expect(m.read(b.sva.pasid, only, 4)).toBe(TlpStatus.unsupportedRequest);
    expect(m.read(NO_PASID, BASE, 4)).toBe(TlpStatus.unsupportedRequest);
  });

  test('one PASID per mm, references per bind, and the PASID stays with the mm until it ends (Linux, mm_pasid_drop)', () => {
    const m = host();
    const { mm, sva } = m.process('x');
    m.driver.addDevice(RID + 1, ALL);
    const again = m.driver.svaBind(RID, mm) as SvaHandle;
    const other = m.driver.svaBind(RID + 1, mm) as SvaHandle;
    expect([again.pasid, other.pasid]).toEqual([sva.pasid, sva.pasid]);
    sva.unbind();
    sva.unbind();
    expect(m.read(sva.pasid, BASE, 1)).toBe('x');
    again.unbind();
    expect(m.read(sva.pasid, BASE, 1)).toBe(TlpStatus.unsupportedRequest);
    expect(m.access(RID + 1, other.pasid, BASE, new Uint8Array(1), false)).toBe(0);
    other.unbind();
    // A thread's IA32_PASID may still hold it: no other process may get it.
    expect((m.driver.svaBind(RID, m.newMm()) as SvaHandle).pasid).not.toBe(sva.pasid);
    expect((m.driver.svaBind(RID, mm) as SvaHandle).pasid).toBe(sva.pasid);
  });

  test('the end of a process clears its PASID entry; nothing of another process changes; unbind afterwards is harmless', () => {
    const m = host();
    const a = m.process('alpha');
    const b = m.process('bravo');
    m.read(a.sva.pasid, BASE, 5);
    a.mm.exit();
    expect(m.read(a.sva.pasid, BASE, 5)).toBe(TlpStatus.unsupportedRequest);
    m.settle();
    expect(m.driver.faults.at(-1)).toMatchObject({ reason: Fault.pasidNotPresent, pasid: a.sva.pasid });
    m.request(a.sva.pasid, BASE, READ, 5);
    m.settle();
    expect(m.device.responses.at(-1)).toEqual([a.sva.pasid, 5, PageResponse.invalidRequest]);
    expect(m.read(b.sva.pasid, BASE, 5)).toBe('bravo');
    a.sva.unbind();
    expect(m.read(b.sva.pasid, BASE, 5)).toBe('bravo');
  });

  test('refusals: a device unknown, and one without PASIDs', () => {
    const m = machine();
    m.driver.addDevice(RID, { pasid: false });
    expect(m.driver.svaBind(RID + 1, m.newMm())).toBe(-Errno.ENODEV);
    expect(m.driver.svaBind(RID, m.newMm())).toBe(-Errno.EOPNOTSUPP);
    expect(m.driver.allocPasid()).toBe(1);
  });
});

test('more page requests than the queue holds: the unit answers the rest itself, the device asks again, all pages come', () => {
  const m = host();
  const { mm, sva } = m.process('x');
  mm.mmap(BASE + 2 ** 30, 4096 * 4096, RW, ANONYMOUS | MapFlag.FIXED);
  for (let i = 0; i < 3000; i++) expect(m.request(sva.pasid, BASE + 2 ** 30 + i * 4096, WRITE, i % 512)).toBe(0);
  m.settle();
  expect(m.device.responses.length).toBe(3000);
  expect(m.device.responses.every(([, , code]) => code === PageResponse.success)).toBe(true);
  const missing = (i: number) => m.access(RID, sva.pasid, BASE + 2 ** 30 + i * 4096, new Uint8Array(1), true) !== 0;
  expect(missing(2999)).toBe(true);
  m.request(sva.pasid, BASE + 2 ** 30 + 2999 * 4096, WRITE, 1);
  m.settle();
  expect(missing(2999)).toBe(false);
});

describe('paging domains', () => {
  test('map and unmap any ranges: lookups through the unit agree with a plain map', () => {
    const action = fc.record({
      map: fc.boolean(),
      page: fc.integer({ min: 0, max: 2600 }),
      pages: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(512), fc.constant(1024)),
    });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 25 }), (actions) => {
        const m = machine({}, 8192);
        m.driver.addDevice(RID, ALL);
        const domain = m.driver.pagingDomain();
        expect(m.driver.attach(RID, domain)).toBe(0);
        const model = new Map<number, number>();
        const frameOf = (page: number) => 0x200 + page;
        const up = m.unit.requester(RID);
        const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
        const check = (page: number) => {
          const status = up.acquire(READ, NO_PASID, 0x10, (page << 12) | 0, 1, out);
          expect(status ? undefined : out.offset / 4096 + 0x100, `page ${page}`).toBe(model.get(page));
        };
        for (const { map, page, pages } of actions) {
          const range = Array.from({ length: pages }, (_, i) => page + i);
          const iova = 0x10_0000_0000 + page * 4096;
          if (map) {
            const taken = range.some((p) => model.has(p));
            expect(domain.map(iova, frameOf(page), pages, RW)).toBe(taken ? -Errno.EEXIST : 0);
            if (!taken) for (const p of range) model.set(p, frameOf(p));
          } else {
            const there = range.filter((p) => model.delete(p)).length;
            expect(domain.unmap(iova, pages * 4096)).toBe(there * 4096);
          }
          for (const p of [page - 1, page, page + (pages >> 1), page + pages - 1, page + pages]) if (p >= 0) check(p);
        }
        const used = m.allocator.used;
        m.driver.attach(RID, undefined);
        expect(domain.free()).toBe(0);
        expect(m.allocator.used).toBeLessThan(used);
      }),
      { numRuns: 40 },
    );
  });

  test('the largest pages that fit are used: 1 GiB in 2 MiB pages needs no last-level table', () => {
    const m = machine({}, 4096);
    const domain = m.driver.pagingDomain();
    const before = m.allocator.used;
    expect(domain.map(2 ** 40, 512 * 512, 512 * 511, RW)).toBe(0);
    expect(m.allocator.used - before).toBe(2);
    expect(domain.map(2 ** 41, 512 * 512, 512 * 512, RW)).toBe(0);
    expect(m.allocator.used - before).toBe(3);
    expect(domain.unmap(2 ** 40, 2 ** 32)).toBe(2 ** 30 - 2 ** 21);
  });

  test('read-only stays read-only; out of memory leaves nothing behind; a domain in use is not freed', () => {
    const m = machine();
    m.driver.addDevice(RID, ALL);
    const domain = m.driver.pagingDomain();
    m.driver.attach(RID, domain);
    domain.map(0x10_0000, 0x300, 1, Prot.READ);
    expect(m.access(RID, NO_PASID, 0x10_0000, new Uint8Array(4), false)).toBe(0);
    expect(m.access(RID, NO_PASID, 0x10_0000, new Uint8Array(4), true)).toBe(TlpStatus.unsupportedRequest);
    expect(domain.free()).toBe(-Errno.EBUSY);
    expect(domain.map(2 ** 48 - 4096, 0x300, 2, RW)).toBe(-Errno.EOVERFLOW);
    while (m.allocator.alloc() >= 0);
    expect(domain.map(2 ** 39, 0x300, 1, RW)).toBe(-Errno.ENOMEM);
    expect(domain.unmap(2 ** 39, 4096)).toBe(0);
  });

  test('identity, another domain in its place, nothing: each at once, with the old one gone', () => {
    const m = machine();
    m.driver.addDevice(RID, ALL);
    const domain = m.driver.pagingDomain();
    domain.map(0x10_0000, 0x300, 1, RW);
    const at = (address: number) => {
      const out = { view: new Uint8Array(0), words: new Uint32Array(0), offset: 0, length: 0, ns: 0 };
      return m.unit.requester(RID).acquire(READ, NO_PASID, 0, address, 4, out) ? -1 : out.offset / 4096 + 0x100;
    };
    expect(at(0x20_0000)).toBe(-1);
    m.driver.attach(RID, m.driver.identityDomain());
    expect(at(0x20_0000)).toBe(0x200);
    m.driver.attach(RID, domain);
    expect([at(0x20_0000), at(0x10_0000)]).toEqual([-1, 0x300]);
    m.driver.attach(RID, undefined);
    expect([at(0x20_0000), at(0x10_0000)]).toEqual([-1, -1]);
  });

  test('a PASID is attached once; a bad one is refused', () => {
    const m = machine();
    m.driver.addDevice(RID, ALL);
    const domain = m.driver.pagingDomain();
    expect(m.driver.attachPasid(RID, 7, domain)).toBe(0);
    expect(m.driver.attachPasid(RID, 7, m.driver.identityDomain())).toBe(-Errno.EBUSY);
    expect(m.driver.attachPasid(RID, 0, domain)).toBe(-Errno.EINVAL);
    expect(m.driver.attachPasid(RID, 2 ** 20, domain)).toBe(-Errno.EINVAL);
    expect(m.driver.attachPasid(RID, 2 ** 20 - 1, domain)).toBe(0);
    m.driver.detachPasid(RID, 7);
    expect(m.driver.attachPasid(RID, 7, domain)).toBe(0);
  });
});

describe('nested domains', () => {
  /** A guest whose memory is 256 frames, scattered, with a first stage in it that maps page 5 to guest frame 9. */
  function guest() {
    const m = host();
    const parent = m.driver.pagingDomain();
    const frames = Array.from({ length: 256 }, () => m.allocator.alloc());
    for (const [gfn, frame] of frames.entries()) expect(parent.map(gfn * 4096, frame, 1, RW)).toBe(0);
    const put = (gfn: number, index: number, to: number) => {
      const at = m.word(frames[gfn]!, index * 2);
      PageEntry.set.address(m.words, at, to * 4096);
      for (const bit of ['present', 'write', 'user'] as const) PageEntry.set[bit](m.words, at, 1);
    };
    put(1, 0, 2);
    put(2, 0, 3);
    put(3, 0, 4);
    put(4, 5, 9);
    const text = (gfn: number, value: string) => new TextEncoder().encodeInto(value, m.region.bytes.subarray((frames[gfn]! - 0x100) * 4096));
    text(9, 'guest');
    text(10, 'other');
    const domain = m.driver.nestedDomain(parent, 1, 48);
    const pasid = m.driver.allocPasid();
    expect(m.driver.attachPasid(RID, pasid, domain)).toBe(0);
    return { ...m, parent, frames, put, domain, pasid };
  }
  test('a guest address goes through both stages, 24 reads', () => {
    const m = guest();
    expect(m.read(m.pasid, 0x5000, 5)).toBe('guest');
    expect(m.unit.counters[UnitCounter.walkReads]).toBe(24);
  });
  test("a changed guest table is seen after the guest's invalidation, not before", () => {
    const m = guest();
    m.read(m.pasid, 0x5000, 5);
    m.put(4, 5, 10);
    expect(m.read(m.pasid, 0x5000, 5)).toBe('guest');
    m.domain.invalidate(0, 0x6000, 1, true);
    expect(m.read(m.pasid, 0x5000, 5)).toBe('guest');
    m.domain.invalidate(0, 0x5000, 1, true);
    expect(m.read(m.pasid, 0x5000, 5)).toBe('other');
  });
  test('memory taken from the guest is out of reach at once', () => {
    const m = guest();
    m.read(m.pasid, 0x5000, 5);
    expect(m.parent.unmap(9 * 4096, 4096)).toBe(4096);
    expect(m.read(m.pasid, 0x5000, 5)).toBe(TlpStatus.unsupportedRequest);
    m.settle();
    expect(m.driver.faults).toMatchObject([{ reason: Fault.secondStageNoRight, pasid: m.pasid }]);
  });
  test('a guest table that points outside guest memory reaches nothing', () => {
    const m = guest();
    m.put(4, 5, 0x300);
    expect(m.read(m.pasid, 0x5000, 5)).toBe(TlpStatus.unsupportedRequest);
  });
  test('its page requests go to its owner, who answers; without an owner they are invalid', () => {
    const m = guest();
    m.request(m.pasid, 0x8000, READ, 2);
    m.settle();
    expect(m.device.responses).toEqual([[m.pasid, 2, PageResponse.invalidRequest]]);
    m.domain.events = {
      pageRequests: (requests) => {
        for (const { lo } of requests) m.put(4, lo >>> 12, 10);
        const { group, requesterId, pasid } = requests[0]!;
        m.driver.pageResponse(requesterId, pasid, group, PageResponse.success);
      },
      detached: () => {},
    };
    m.request(m.pasid, 0x8000, READ, 3);
    m.settle();
    expect(m.device.responses[1]).toEqual([m.pasid, 3, PageResponse.success]);
    expect(m.read(m.pasid, 0x8000, 5)).toBe('other');
  });
  test('the parent stays while a nested domain stands on it', () => {
    const m = guest();
    expect((m.parent as PagingDomain).free()).toBe(-Errno.EBUSY);
    m.driver.detachPasid(RID, m.pasid);
    expect(m.domain.free()).toBe(0);
    expect(m.parent.free()).toBe(0);
  });
});

test('removing a device gives its tables back and its requests fault', () => {
  const m = machine();
  m.driver.addDevice(RID + 8, ALL);
  const before = m.allocator.used;
  m.driver.addDevice(RID, ALL);
  m.driver.attachPasid(RID, 70, m.driver.identityDomain());
  expect(m.access(RID, 70, 0x20_0000, new Uint8Array(4), false)).toBe(0);
  m.driver.removeDevice(RID);
  expect(m.access(RID, 70, 0x20_0000, new Uint8Array(4), false)).toBe(TlpStatus.unsupportedRequest);
  expect(m.allocator.used).toBe(before);
});

test('the remapping domain: a message reaches its handler, from its requester alone, until it is freed', () => {
  const m = machine();
  const irq = m.driver.irqDomain();
  const got: number[] = [];
  const a = irq.alloc(RID, () => got.push(1))!;
  const b = irq.alloc(RID + 1, () => got.push(2))!;
  expect(a.address & 0x10).toBe(0x10);
  const send = (rid: number, handle: { address: number; data: number }) => {
    m.unit.requester(rid).message(handle.address, handle.data);
    m.settle();
  };
  send(RID, a);
  send(RID + 1, b);
  send(RID, b);
  expect(got).toEqual([1, 2]);
  expect(m.driver.faults).toMatchObject([{ reason: Fault.interruptSource, requesterId: RID }]);
  a.free();
  a.free();
  send(RID, a);
  expect(got).toEqual([1, 2]);
  expect(m.driver.faults.at(-1)).toMatchObject({ reason: Fault.interruptEntryNotPresent });
});

test('set-up is refused in words where the unit cannot do it', () => {
  const m = machine();
  expect(() => m.driver.addDevice(0x1_0000, {})).toThrow('requesterId');
  expect(() => m.driver.enable()).toThrow('enable');
  expect(() => m.unit.requester(-1)).toThrow('requesterId');
  expect(() => machine({ profile: { extendedCapability: { scalableMode: 0 } } })).toThrow('scalableMode');
  expect(() => machine({ sizes: { iotlb: 100 } })).toThrow('sizes.iotlb');
});

test('in caching mode the driver also invalidates after making entries present', () => {
  const m = machine({ profile: { capability: { cachingMode: 1 } } });
  const count = () =>
    [UnitCounter.contextInvalidations, UnitCounter.pasidInvalidations, UnitCounter.iotlbInvalidations].map((i) => m.unit.counters[i]!);
  const change = (run: () => void) => {
    const before = count();
    run();
    return count().map((n, i) => n - before[i]!);
  };
  const domain = m.driver.pagingDomain();
  expect(change(() => m.driver.addDevice(RID, ALL))).toEqual([1, 0, 1]);
  expect(change(() => m.driver.attach(RID, domain))).toEqual([0, 1, 1]);
  expect(change(() => domain.map(0x10_0000, 0x300, 1, RW))).toEqual([0, 0, 1]);
  expect(change(() => m.driver.svaBind(RID, m.newMm()))).toEqual([0, 1, 1]);
  expect(m.driver).toBeInstanceOf(IommuDriver);
});
