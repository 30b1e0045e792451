/** DMA, PASIDs, portals, completion interrupts and errors: what passes between a guest's queue and the parent. The series' mdev-idxd.rst. */
import * as spec from '@siov/idxd-device/spec';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { PciRegion, regionOffset } from '@siov/vfio-mdev/uapi';
import { describe, expect, test } from 'vitest';
import { bound, hostWords, machine } from './machine.js';

const { Command, Opcode, Register, Status } = spec;
const hostPasid = (m: ReturnType<typeof bound>) => spec.WqCfg.get.pasid(hostWords(m, 'wqConfig', 0), 0);

describe('work', () => {
  test('a descriptor in the portal copies memory of the program, by the default address space', () => {
    const m = bound();
    m.queueOn();
    m.task.writeStruct(m.arena + 0x2000, Uint8Array.of(1, 2, 3, 4));
    const work = { opcode: Opcode.memmove, source: m.arena + 0x2000, destination: m.arena + 0x3000, size: 4 };
    for (const page of [0, 1]) {
      m.task.writeStruct(m.arena + 0x3000, new Uint8Array(4));
      expect(m.submit(work, page)).toBe(Status.success);
      expect([...m.task.readStruct(m.arena + 0x3000, new Uint8Array(4))]).toEqual([1, 2, 3, 4]);
    }
  });
  test('a queue that is off, or was switched off, takes nothing', () => {
    const m = bound();
    expect(m.submit({})).toBe(0);
    m.queueOn();
    expect(m.submit({})).toBe(Status.success);
    m.command(Command.disableWq, 1);
    expect(m.submit({})).toBe(0);
    expect(m.queueOn()).toBe(0);
    expect(m.submit({})).toBe(Status.success);
  });
  test("the portal pages are the parent queue's IMS portals: page 0 unlimited, page 1 limited", () => {
    const m = bound();
    const wq = m.driver.wqs[0]!;
    const frames = [0, 1].map((page) => m.task.mm.frameOf(m.portal + page * 4096));
    expect(frames).toEqual([spec.Portal.unlimitedIms, spec.Portal.limitedIms].map((offset) => wq.portalFrame + offset / 4096));
    // One page at a time, as the series asks for, is the same.
    const page1 = m.task.mmap(0, 4096, Prot.WRITE, MapFlag.SHARED, m.fd, regionOffset(PciRegion.BAR2) + 4096);
    expect(m.task.mm.frameOf(page1)).toBe(frames[1]);
  });
});

describe('PASIDs', () => {
  test('each guest PASID has a host PASID of its own, also of two devices with the same numbers', () => {
    const m = machine({ queues: 2 });
    const [one, two] = [bound(m, 0), bound(m, 1)];
    for (const each of [one, two]) for (const pasid of [1, 2, 0xf_ffff]) expect(each.attach(each.arenaSpace, pasid)).toBe(0);
    const hosts = [one, two].map(({ vdev }) => [...vdev.hostPasids.values()]);
    expect([...one.vdev.hostPasids.keys()]).toEqual([-1, 1, 2, 0xf_ffff]);
    expect(new Set(hosts.flat()).size).toBe(8);
    expect(hosts.flat().every((pasid) => pasid > 0)).toBe(true);
  });
  test('what is detached is free, and is given again', () => {
    const m = bound();
    m.attach(m.arenaSpace, 5);
    const host = m.vdev.hostPasids.get(5)!;
    expect(m.detach(5)).toBe(0);
    expect([m.vdev.hostPasids.has(5), m.iommu.attachedTo(m.vdev.requesterId, host)]).toEqual([false, undefined]);
    expect(m.iommu.allocPasid()).toBe(host);
  });
  test('attaching again replaces: the PASID stays, the memory changes', () => {
    const m = bound();
    const [a, b] = [m.task.alloc(4096), m.task.alloc(4096)];
    const at = 0x10_0000;
    const spaces = [a, b].map((address) => m.space(address, 4096, at));
    const arenaOf = (address: number) => m.task.readStruct(address, new Uint8Array(1))[0];
    m.attach(spaces[0]!, 5);
    const host = m.vdev.hostPasids.get(5);
    expect(m.queueOn(5)).toBe(0);
    m.submit({ record: at });
    m.attach(spaces[1]!, 5);
    expect([m.vdev.hostPasids.get(5), arenaOf(a), arenaOf(b)]).toEqual([host, Status.success, 0]);
    m.task.writeStruct(a, new Uint8Array(1));
    m.submit({ record: at });
    expect([arenaOf(a), arenaOf(b)]).toEqual([0, Status.success]);
  });
  test('the queue carries the host PASID of the guest PASID in its WQCFG', () => {
    const m = bound();
    m.attach(m.arenaSpace, 9);
    for (const pasid of [9, -1]) {
      expect(m.queueOn(pasid)).toBe(0);
      expect(hostPasid(m)).toBe(m.vdev.hostPasids.get(pasid));
      expect(m.submit({})).toBe(Status.success);
      m.command(Command.disableWq, 1);
    }
    expect(m.queueOn(10)).toBe(spec.CommandStatus.wqPasidEnable);
  });
  test('a PASID that goes while the queue carries it leads to nothing, and nobody else gets its host PASID until the queue is off', () => {
    const m = machine({ queues: 2 });
    const [one, two] = [bound(m, 0), bound(m, 1)];
    one.attach(one.arenaSpace, 5);
    expect(one.queueOn(5)).toBe(0);
    const host = one.vdev.hostPasids.get(5)!;
    one.detach(5);
    for (let pasid = 1; pasid < 20; pasid++) expect(two.attach(two.arenaSpace, pasid)).toBe(0);
    expect([...two.vdev.hostPasids.values()]).not.toContain(host);
    expect(one.submit({})).toBe(0);
    expect(one.submit({ record: two.arena })).toBe(0);
    one.command(Command.disableWq, 1);
    two.attach(two.arenaSpace, 20);
    expect(two.vdev.hostPasids.get(20)).toBe(host);
  });
  test('attached again while the queue still carries it, the guest PASID has the same host PASID', () => {
    const m = bound();
    m.attach(m.arenaSpace, 5);
    m.queueOn(5);
    const host = m.vdev.hostPasids.get(5);
    m.detach(5);
    m.attach(m.arenaSpace, 5);
    expect(m.vdev.hostPasids.get(5)).toBe(host);
    expect(m.submit({})).toBe(Status.success);
  });
  test('the slot of a handle holds its PASID in the same way', () => {
    const m = bound();
    m.attach(m.arenaSpace, 5);
    m.enable();
    const host = m.vdev.hostPasids.get(5);
    const { result } = m.handle(5);
    m.detach(5);
    m.attach(m.arenaSpace, 6);
    expect(m.vdev.hostPasids.get(6)).not.toBe(host);
    expect(m.command(Command.releaseInterruptHandle, result).error).toBe(0);
    m.attach(m.arenaSpace, 7);
    expect(m.vdev.hostPasids.get(7)).toBe(host);
  });
  test('drain and abort PASID take guest numbers', () => {
    const m = bound();
    m.attach(m.arenaSpace, 5);
    m.queueOn(5);
    for (const code of [Command.drainPasid, Command.abortPasid])
      expect([m.command(code, 5).error, m.command(code, m.vdev.hostPasids.get(5)!).error]).toEqual([0, spec.CommandStatus.pasidInvalid]);
  });
  test("one device's descriptors do not reach memory of the other", () => {
    const m = machine({ queues: 2 });
    const [one, two] = [bound(m, 0), bound(m, 1)];
    const secret = two.task.mmap(0x1234_5000, 4096, Prot.READ | Prot.WRITE, 0x32 | 0x8000);
    two.attach(two.space(secret), 5);
    two.queueOn(5);
    one.queueOn();
    two.task.writeStruct(secret, new Uint8Array(16).fill(0xaa));
    for (const [opcode, status] of [
      [Opcode.memmove, 0x83],
      [Opcode.crc, 0x03],
    ] as const) {
      const source = opcode === Opcode.crc ? secret : one.arena;
      expect(one.submit({ opcode, source, destination: secret, size: 16 })).toBe(status);
    }
    expect(two.task.readStruct(secret, new Uint8Array(16))).toEqual(new Uint8Array(16).fill(0xaa));
    // Nor does enabling with the other's guest PASID.
    one.command(Command.disableWq, 1);
    expect(one.queueOn(5)).toBe(spec.CommandStatus.wqPasidEnable);
  });
});

describe('completion interrupts', () => {
  test('a descriptor with the handle signals the eventfd of vector 1; one of another PASID ends with status 0x19', () => {
    const m = bound();
    const [zero, one] = m.eventFds();
    m.attach(m.arenaSpace, 5);
    m.queueOn(5);
    const handle = m.handle(5).result;
    expect(m.submit({ handle })).toBe(Status.success);
    expect([m.client.count(zero), m.client.count(one)]).toEqual([0, 1]);
    expect(m.submit({})).toBe(Status.success);
    expect(m.client.count(one)).toBe(0);
    m.command(Command.disableWq, 1);
    m.queueOn();
    expect(m.submit({ handle })).toBe(Status.interruptHandle);
    expect(m.client.count(one)).toBe(0);
  });
  test("the other device's handle is refused, and signals nobody", () => {
    const m = machine({ queues: 2 });
    const [one, two] = [bound(m, 0), bound(m, 1)];
    const sinks = [one, two].flatMap((each) => each.eventFds().map((fd) => () => each.client.count(fd)));
    one.queueOn();
    two.queueOn();
    const handles = [one.handle().result, two.handle().result];
    expect([one.submit({ handle: handles[1]! }), one.submit({ handle: 2000 })]).toEqual([Status.interruptHandle, Status.interruptHandle]);
    expect(one.submit({ handle: handles[0]! })).toBe(Status.success);
    expect(sinks.map((count) => count())).toEqual([0, 1, 0, 0]);
  });
  test('without an eventfd the interrupt is lost and nothing else happens', () => {
    const m = bound();
    m.queueOn();
    expect(m.submit({ handle: m.handle().result })).toBe(Status.success);
  });
});

describe('errors of the queue', () => {
  const broken = { record: 0x7_0000_0000 };
  test("reach the guest in the guest's numbers, with cause and vector 0 when it asked for them", () => {
    const m = machine({ queues: 3 });
    const [one, two, three] = [bound(m, 0), bound(m, 1), bound(m, 2)];
    const [zero] = two.eventFds();
    two.attach(two.space(), 6);
    expect(two.queueOn(6)).toBe(0);
    two.submit(broken);
    expect([two.swError().valid, two.client.count(zero), two.read(Register.intCause)]).toEqual([1, 0, 0]);
    expect(two.swError()).toMatchObject({ wqValid: 1, wq: 0, pasid: 6, error: Status.recordFault, overflow: 0 });
    expect(m.driver.softwareErrors[0]).toMatchObject({
      wq: m.driver.wqs.findIndex((wq) => wq.owner === two.vdev),
      pasid: two.vdev.hostPasids.get(6),
    });
    expect([one.swError().valid, three.swError().valid]).toEqual([0, 0]);
    two.write(Register.swError, 3);
    two.write(Register.genCtrl, 1);
    two.submit(broken);
    expect([two.client.count(zero), two.read(Register.intCause)]).toEqual([1, 1]);
  });
  test('of the default address space carry PASID 0', () => {
    const m = bound();
    m.queueOn();
    m.submit(broken);
    expect(m.swError()).toMatchObject({ valid: 1, pasid: 0 });
  });
  test('the first stays, later ones set overflow; cleared, the next is taken whole', () => {
    const m = bound();
    m.queueOn();
    m.submit({ record: 0x7_0000_0000 });
    m.submit({ record: 0x7_0000_1000 });
    expect(m.swError()).toMatchObject({ valid: 1, overflow: 1, addressLow: 0, addressHigh: 7 });
    m.write(Register.swError, 3);
    m.submit({ record: 0x7_0000_2000 });
    expect(m.swError()).toMatchObject({ valid: 1, overflow: 0, addressLow: 0x2000 });
  });
  test('of one program are not seen by the next', () => {
    const m = machine();
    const first = bound(m);
    first.queueOn();
    first.submit(broken);
    expect(first.swError().valid).toBe(1);
    first.task.exit(0);
    expect(bound(m).swError().valid).toBe(0);
  });
});

describe('the end', () => {
  test.each<[string, (m: ReturnType<typeof bound>) => void]>([
    ['the program exits', (m) => m.task.exit(0)],
    ['the program is killed', (m) => void m.kernel.kill(m.task.pid)],
    [
      'the program closes /dev/iommu first',
      (m) => {
        m.task.munmap(m.portal, 0x2000);
        m.task.close(m.iommufd);
        m.task.close(m.fd);
        m.task.exit(0);
      },
    ],
  ])('%s: host PASIDs, IMS slots and frames are back where they were, the queue is off, and another program finds a fresh device', (_name, end) => {
    const m = machine();
    m.create();
    const used = m.frames.used;
    const round = () => {
      const b = bound(m);
      for (const pasid of [3, 4]) b.attach(b.space(b.task.alloc(4096)), pasid);
      expect(b.queueOn(4)).toBe(0);
      const handle = b.handle(4);
      expect(handle.error).toBe(0);
      const result = { hosts: [...b.vdev.hostPasids.values()].sort(), handle: handle.result };
      end(b);
      expect([b.vdev.hostPasids.size, m.driver.wqs[0]!.enabled, m.frames.used]).toEqual([0, false, used]);
      expect(spec.ImsEntry.get.masked(hostWords(m, 'ims', handle.result), 0)).toBe(1);
      return result;
    };
    expect(round()).toEqual(round());
  });
  test('a mapped portal keeps the device open; its mapping cannot be taken along by a child', () => {
    const m = bound();
    m.queueOn();
    const pid = m.task.fork({ step: () => 'wait' });
    const child = m.kernel.tasks.find((task) => task.pid === pid)!;
    expect(child.mm.frameOf(m.portal)).toBe(-1);
    m.task.close(m.fd);
    child.exit(0);
    expect(m.nodes().inUse).toBe(true);
    m.task.munmap(m.portal, 0x2000);
    expect(m.nodes().inUse).toBe(false);
  });
});
