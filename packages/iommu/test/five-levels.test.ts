/** A process of five levels of page tables, bound to a device: VT-d, "First-Stage Translation"; Linux, cap_fl5lp_support. */

import { hi, lo } from '@siov/layout';
import { DmaAccess, PageResponse } from '@siov/layout/pcie';
import { Errno } from '@siov/layout/uapi';
import { AddressSpace } from '@siov/memory';
import { expect, test } from 'vitest';
import { machine, RID } from './machine.js';

const PAGE = 4096;
const ANONYMOUS = 0x22;
const ADDRESSES = [0x1000_0000, 2 ** 47, 5 * 2 ** 48 + 7 * PAGE, 2 ** 52];

function world(firstStage5Level: number) {
  const m = machine({ profile: { capability: { firstStage5Level } } });
  m.driver.addDevice(RID, { pasid: true, ats: true, pri: true });
  const mm = new AddressSpace({ memory: m.memory, frames: m.allocator, levels: 5 });
  return { ...m, mm };
}

test('the device reads, writes and faults in pages at addresses above 2^48, and hears of what goes', () => {
  const { driver, mm, access, allocator, unit, settle } = world(1);
  const up = unit.requester(RID, { pageResponse: (_pasid, _group, code) => void responses.push(code) });
  const responses: number[] = [];
  const handle = driver.svaBind(RID, mm);
  if (typeof handle === 'number') throw new Error(`svaBind: ${handle}`);
  const used = allocator.used;
  for (const [i, at] of ADDRESSES.entries()) {
    expect(mm.mmap(at, 2 * PAGE, 3, ANONYMOUS)).toBe(at);
    expect(up.pageRequest(handle.pasid, hi(at), lo(at), DmaAccess.write, i)).toBe(0);
    settle();
    expect(responses.splice(0)).toEqual([PageResponse.success]);
    expect(access(RID, handle.pasid, at + 5, Uint8Array.of(i + 1), true)).toBe(0);
    const byte = new Uint8Array(1);
    expect([mm.read(at + 5, byte), byte[0]]).toEqual([0, i + 1]);
    mm.write(at + PAGE, Uint8Array.of(i + 50));
    expect([access(RID, handle.pasid, at + PAGE, byte, false), byte[0]]).toEqual([0, i + 50]);
  }
  for (const at of ADDRESSES) mm.munmap(at, 2 * PAGE);
  for (const at of ADDRESSES) expect(access(RID, handle.pasid, at + 5, Uint8Array.of(1), false)).not.toBe(0);
  expect(allocator.used).toBe(used);
});

test('a unit that walks four levels binds no process of five', () => {
  const { driver, mm, newMm } = world(0);
  expect(driver.svaBind(RID, mm)).toBe(-Errno.EOPNOTSUPP);
  expect(driver.svaBind(RID, newMm())).toHaveProperty('pasid');
});
