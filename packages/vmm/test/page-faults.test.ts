/** Page requests of an assigned device: to the guest's handler and back, under the names that each side knows. linux/iommufd.h, fault queue. */
import { type AttachTarget, IommuDriver, type SvaHandle } from '@siov/iommu';
import { DmaAccess, NO_PASID, PageResponse } from '@siov/layout/pcie';
import { MapFlag } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { GuestMap } from '../src/index.js';
import { assigned, RW } from './machine.js';

const GUEST_PASID = 1;

/** A guest whose process is bound to the device, and the device's requests under the host PASID that VFIO's device attached. */
function bound(options: Parameters<typeof assigned>[0] = { pageRequests: 'of the device too' }) {
  const m = assigned({ iommu: true, frames: 24_576, ...options });
  const responses: [pasid: number, group: number, code: number][] = [];
  const up = m.unit.requester(m.device.requesterId, { pageResponse: (pasid, group, code) => void responses.push([pasid, group, code]) });
  const rid = m.assignedDevice.requesterId;
  const guestDriver = new IommuDriver({
    registers: m.vmm.ioremap(GuestMap.iommu),
    memory: m.guest.memory,
    frames: m.guest.frames,
    clock: m.clock,
    vectors: m.guest.apic,
  });
  guestDriver.enable();
  guestDriver.addDevice(rid, { pasid: true, ats: true, pri: true });
  const mm = m.guest.newMm();
  const page = mm.mmap(0, 8 * 4096, RW, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
  const sva = guestDriver.svaBind(rid, mm) as SvaHandle;
  expect(sva.pasid).toBe(GUEST_PASID);
  const target = m.device.domains.get(sva.pasid) as AttachTarget;
  const host = m.driver.allocPasid();
  expect(m.driver.attachPasid(m.device.requesterId, host, target)).toBe(0);
  const settle = () => {
    while (m.clock.pump() || m.clock.idle());
  };
  const ask = (address: number, group: number, access: number = DmaAccess.write) =>
    up.pageRequest(host, (address / 2 ** 32) | 0, address | 0, access, group);
  /** The VMM's thread, then whatever that sets off. */
  const run = () => {
    settle();
    for (const thread of m.threads) thread();
    settle();
  };
  return { ...m, responses, guestDriver, mm, page, sva, target, host, ask, settle, run, rid };
}

describe('a page that is not there', () => {
  test('is asked of the guest, which makes it; the device is answered', () => {
    const m = bound();
    expect(m.target.handle).toEqual({ deviceId: m.assignedDevice.deviceId, pasid: GUEST_PASID });
    m.ask(m.page + 4096, 21);
    m.settle();
    expect([m.responses, m.mm.frameOf(m.page + 4096)]).toEqual([[], -1]);
    m.run();
    expect(m.responses).toEqual([[m.host, 21, PageResponse.success]]);
    expect(m.mm.frameOf(m.page + 4096)).toBeGreaterThan(0);
    expect(m.vmm.refusals).toEqual([]);
  });
  test('and that the process does not have is Invalid Request', () => {
    const m = bound();
    m.ask(0x1000, 3);
    m.ask(m.page, 4);
    m.run();
    expect(m.responses).toEqual([
      [m.host, 3, PageResponse.invalidRequest],
      [m.host, 4, PageResponse.success],
    ]);
  });
  test('of more requests than the guest’s queue takes: the rest are answered so that the device asks again', () => {
    const m = bound();
    const front = m.front();
    // The guest's handler does not run: its queue fills up.
    const queued: number[] = [];
    for (let group = 0; group < 512; group++) {
      m.ask(m.page, group);
      if (group % 64 === 63) m.settle();
    }
    for (let i = 0; i < 3000; i++) queued.push(front.queuePageRequest(m.rid, GUEST_PASID, 0, 0x5000, 0, 511, false));
    expect(queued).toContain(2);
    for (const thread of m.threads) thread();
    expect(m.responses.length).toBeGreaterThan(0);
    expect(m.responses.every(([, , code]) => code === PageResponse.success)).toBe(true);
    expect(m.vmm.refusals).toEqual([]);
  });
});

describe('what ends without the guest', () => {
  test('a binding that goes: the kernel answered, and a late answer of the guest is dropped', () => {
    const m = bound();
    m.ask(m.page, 7);
    m.settle();
    m.driver.detachPasid(m.device.requesterId, m.host);
    m.sva.unbind();
    m.run();
    expect(m.responses).toEqual([[m.host, 7, PageResponse.invalidRequest]]);
    m.guestDriver.pageResponse(m.rid, GUEST_PASID, 7, PageResponse.success);
    m.guestDriver.pageResponse(m.rid, NO_PASID, 500, PageResponse.success);
    expect([m.responses.length, m.vmm.refusals]).toEqual([1, []]);
  });
  test('the VMM closes', () => {
    const m = bound();
    m.ask(m.page, 7);
    m.settle();
    m.driver.detachPasid(m.device.requesterId, m.host);
    m.vmm.close();
    expect(m.responses).toEqual([[m.host, 7, PageResponse.invalidRequest]]);
    expect(Array.from({ length: 64 }, (_, fd) => m.task.file(fd)).filter(Boolean)).toEqual([]);
  });
});

test('a device that cannot ask gets the same page tables without a fault queue', () => {
  const m = bound({ pageRequests: 'watched' });
  expect([m.target.handle, m.vmm.refusals, m.vmm.pasidsOf(m.assignedDevice)]).toEqual([undefined, [], [GUEST_PASID]]);
});
