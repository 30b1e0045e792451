/** Virtual commands: a guest's driver asks the hypervisor for PASIDs. VT-d, "Virtual Command Register". */
import { Clock, LocalApic } from '@siov/cpu';
import { Errno, MapFlag, Prot } from '@siov/layout/uapi';
import { AddressSpace } from '@siov/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IommuDriver, IommuUnit, RegisterFront, type SvaHandle } from '../src/index.js';
import { VirtualCommand, virtualCommandLayouts } from '../src/spec/index.js';
import { RID, world } from './machine.js';

const BASE = 0x7f00_0000_0000;
type Layout = keyof typeof virtualCommandLayouts;
/** A guest's front whose hypervisor gives out `offered` PASIDs, and the guest's driver on it. */
function guest(layout: Layout, offered: number[]) {
  const w = world();
  const clock = new Clock();
  const apic = new LocalApic({ clock });
  const out = new Set<number>();
  const front = new RegisterFront({
    memory: w.memory,
    sink: apic,
    profile: { capability: { cachingMode: 1 }, extendedCapability: { virtualCommands: 1 }, virtualCommandLayout: layout },
    hooks: {
      allocPasid() {
        const pasid = offered.find((p) => !out.has(p)) ?? -1;
        if (pasid >= 0) out.add(pasid);
        return pasid;
      },
      freePasid: (pasid) => out.delete(pasid),
    },
  });
  const driver = new IommuDriver({ registers: front, memory: w.memory, frames: w.allocator, clock, vectors: apic, virtualCommandLayout: layout });
  driver.enable();
  return { ...w, front, driver, out };
}

describe.each(['current', 'rfc'] as const)('the layout %s', (layout) => {
  test('processes get the PASIDs that the hypervisor gives, give them back, and ENOSPC when there are none', () => {
    const g = guest(layout, [0x123, 0xf_fffe]);
    g.driver.addDevice(RID, { pasid: true });
    const bind = (): SvaHandle | number => {
      const mm = new AddressSpace({ memory: g.memory, frames: g.allocator });
      mm.mmap(BASE, 4096, Prot.READ, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
      return g.driver.svaBind(RID, mm);
    };
    expect([(bind() as SvaHandle).pasid, (bind() as SvaHandle).pasid, bind()]).toEqual([0x123, 0xf_fffe, -Errno.ENOSPC]);
    expect([...g.out]).toEqual([0x123, 0xf_fffe]);
    g.driver.freePasid(0x123);
    expect([g.out.has(0x123), g.driver.allocPasid()]).toEqual([false, 0x123]);
  });
  test('an unknown command, and a PASID that was not given out, are errors', () => {
    const g = guest(layout, [7]);
    const at = virtualCommandLayouts[layout];
    const run = (code: number, operand = 0): [error: boolean, result: number] => {
      const value = code + operand * 2 ** at.operand;
      g.front.write(at.command + 4, 4, Math.floor(value / 2 ** 32));
      g.front.write(at.command, 4, value % 2 ** 32);
      const answer = g.front.read(at.response + 4, 4) * 2 ** 32 + g.front.read(at.response, 4);
      return [Math.floor(answer / 2) % 2 ** at.statusBits !== 0, Math.floor(answer / 2 ** at.result) % 2 ** 20];
    };
    expect([run(VirtualCommand.allocPasid), run(VirtualCommand.freePasid, 8)[0], run(9)[0], run(VirtualCommand.freePasid, 7)[0]]).toEqual([
      [false, 7],
      true,
      true,
      false,
    ]);
    expect([...g.out]).toEqual([]);
  });
});

test('a unit without them has nothing there; one without a hypervisor says that it has no PASIDs, and the driver uses its own', () => {
  const w = world();
  const clock = new Clock();
  const apic = new LocalApic({ clock });
  const plain = new IommuUnit({ memory: w.memory, sink: apic, clock });
  for (let offset = 0xe00; offset < 0xe40; offset += 4) {
    plain.write(offset, 4, 0xffff_ffff);
    expect(plain.read(offset, 4)).toBe(0);
  }
  const unit = new IommuUnit({ memory: w.memory, sink: apic, clock, profile: { extendedCapability: { virtualCommands: 1 } } });
  expect(unit.read(virtualCommandLayouts.current.capability, 4)).toBe(0);
  const driver = new IommuDriver({ registers: unit, memory: w.memory, frames: w.allocator, clock, vectors: apic });
  expect([driver.allocPasid(), driver.allocPasid()]).toEqual([1, 2]);
});

test('any accesses to these registers: no exception, and no PASID is out that was not asked for', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('current', 'rfc'),
      fc.array(fc.tuple(fc.integer({ min: 0xdf0, max: 0xe50 }), fc.constantFrom(1, 2, 4), fc.nat(0xffff_ffff)), { maxLength: 60 }),
      (layout, accesses) => {
        const g = guest(layout as Layout, [1, 2, 3]);
        const at = virtualCommandLayouts[layout as Layout];
        let asked = 0;
        for (const [offset, width, value] of accesses) {
          if (offset === at.command && width === 4 && (value & 0xff) === VirtualCommand.allocPasid) asked++;
          g.front.write(offset, width, value);
          expect(g.front.read(offset, width)).toBeGreaterThanOrEqual(0);
        }
        expect(g.out.size).toBeLessThanOrEqual(asked);
      },
    ),
  );
});
