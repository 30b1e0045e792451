/**
 * A virtual IOMMU: the guest's kernel runs the same driver on a register front in caching mode, over guest memory; hooks nest what it says
 * on the host. Nothing but the front's hooks and `pasidEntry` connects the two.
 */
import { Clock, LocalApic } from '@siov/cpu';
import { PageResponse, TlpStatus } from '@siov/layout/pcie';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { expect, test } from 'vitest';
import { InterruptRemapper, IommuDriver, type Mmio, type NestedDomain, RegisterFront, type SvaHandle } from '../src/index.js';
import { PasidEntry } from '../src/spec/index.js';
import { machine, RID, WRITE } from './machine.js';

const GUEST_FRAMES = 2048;
const GUEST_RID = 0x08;
const BASE = 0x7f00_0000_0000;

function guestOn() {
  const host = machine();
  host.driver.addDevice(RID, { ats: true, pri: true, pasid: true });
  const first = host.allocator.alloc(11);
  const parent = host.driver.pagingDomain();
  expect(parent.map(0, first, GUEST_FRAMES, Prot.READ | Prot.WRITE)).toBe(0);
  const memory = new PhysicalMemory();
  const region = memory.addRam(0, GUEST_FRAMES, host.region.bytes.subarray((first - 0x100) * 4096, (first - 0x100 + GUEST_FRAMES) * 4096));
  const frames = new FrameAllocator(region);
  const clock = new Clock();
  const apic = new LocalApic({ clock });
  const entry = new Uint32Array(16);
  const shadows = new Map<number, { domain: NestedDomain; hostPasid: number }>();
  const responses: number[][] = [];
  const front = new RegisterFront({
    memory,
    sink: apic,
    profile: { capability: { cachingMode: 1 } },
    hooks: {
      pasidChanged: (granularity, _domainId, pasid) => {
        if (granularity !== 1) return;
        const old = shadows.get(pasid);
        if (old) {
          host.driver.detachPasid(RID, old.hostPasid);
          old.domain.free();
          host.driver.freePasid(old.hostPasid);
          shadows.delete(pasid);
        }
        if (!front.pasidEntry(GUEST_RID, pasid, entry) || PasidEntry.get.type(entry, 0) !== PasidEntry.is.type.firstStage) return;
        const domain = host.driver.nestedDomain(parent, PasidEntry.get.firstStage(entry, 0) / 4096);
        const hostPasid = host.driver.allocPasid();
        expect(host.driver.attachPasid(RID, hostPasid, domain)).toBe(0);
        domain.events = {
          pageRequests: (requests) => {
            for (const { hi, lo, access, group } of requests) front.queuePageRequest(GUEST_RID, pasid, hi, lo, access, group, true);
          },
          detached: () => {},
        };
        shadows.set(pasid, { domain, hostPasid });
      },
      iotlbInvalidated: (_domainId, pasid, hi, lo, pages, leafOnly) => shadows.get(pasid)?.domain.invalidate(hi, lo, pages, leafOnly),
      pageResponse: (rid, pasid, group, code) => {
        responses.push([rid, pasid, group, code]);
        host.driver.pageResponse(RID, shadows.get(pasid)!.hostPasid, group, code);
      },
    },
  });
  const driver = new IommuDriver({ registers: front satisfies Mmio, memory, frames, clock, vectors: apic });
  driver.enable();
  expect(driver.addDevice(GUEST_RID, { pasid: true, pri: true, ats: true })).toBe(0);
  const settle = () => {
    for (let again = true; again; ) {
      host.settle();
      again = clock.pump() || clock.idle();
    }
  };
  const newMm = () => new AddressSpace({ memory, frames });
  return { host, parent, memory, driver, front, shadows, responses, settle, newMm, apic };
}

test("a guest process bound in the guest is nested on the host: the device reaches its memory by the host's PASID", () => {
  const g = guestOn();
  const mm = g.newMm();
  mm.mmap(BASE, 8 * 4096, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
  mm.write(BASE, new TextEncoder().encode('guest process'));
  const sva = g.driver.svaBind(GUEST_RID, mm) as SvaHandle;
  const { hostPasid } = g.shadows.get(sva.pasid)!;
  const bytes = new Uint8Array(13);
  expect(g.host.access(RID, hostPasid, BASE, bytes, false)).toBe(0);
  expect(new TextDecoder().decode(bytes)).toBe('guest process');

  // munmap in the guest reaches the host's IOTLB through the virtual queue.
  mm.munmap(BASE, 4096);
  expect(g.host.access(RID, hostPasid, BASE, bytes, false)).toBe(TlpStatus.unsupportedRequest);

  // A page request goes to the guest's driver and mm, its answer back to the device.
  const answers: number[][] = [];
  const up = g.host.unit.requester(RID, { pageResponse: (...answer) => void answers.push(answer) });
  const address = BASE + 4096;
  expect(g.host.access(RID, hostPasid, address, Uint8Array.of(1), true)).toBe(TlpStatus.unsupportedRequest);
  expect(up.pageRequest(hostPasid, (address / 2 ** 32) | 0, address | 0, WRITE, 9)).toBe(0);
  g.settle();
  expect(g.responses).toEqual([[GUEST_RID, sva.pasid, 9, PageResponse.success]]);
  expect(answers).toEqual([[hostPasid, 9, PageResponse.success]]);
  expect(g.host.access(RID, hostPasid, address, Uint8Array.of(7), true)).toBe(0);
  const back = new Uint8Array(1);
  mm.read(address, back);
  expect(back[0]).toBe(7);

  // The process ends in the guest: the host's PASID is gone with it.
  mm.exit();
  expect(g.shadows.size).toBe(0);
  expect(g.host.access(RID, hostPasid, address, Uint8Array.of(7), true)).toBe(TlpStatus.unsupportedRequest);
});

test("the guest's interrupts are remapped by its own table, through the same remapper on its front", () => {
  const g = guestOn();
  const got: number[] = [];
  const handle = g.driver.irqDomain().alloc(GUEST_RID, (vector) => got.push(vector))!;
  const remapper = new InterruptRemapper(g.front, g.memory, g.apic);
  remapper.message(GUEST_RID, handle.address, handle.data);
  remapper.message(GUEST_RID + 1, handle.address, handle.data);
  g.settle();
  expect(got.length).toBe(1);
  expect(g.driver.faults).toMatchObject([{ reason: 0x26, requesterId: GUEST_RID + 1 }]);
});
