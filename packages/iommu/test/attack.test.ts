/**
 * Two processes and two guests attack each other through a shared function, a function of their own, every kind of request and their own page
 * tables, while memory changes hands: what a request is given is always memory of whoever owns the PASID it carries, and no byte crosses.
 */
import { NO_PASID, TlpStatus } from '@siov/layout/pcie';
import { MapFlag, Prot } from '@siov/layout/uapi';
import type { AddressSpace } from '@siov/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { IommufdContext, OpenFile, StaleUse, SvaHandle } from '../src/index.js';
import { iommufd as uapi } from '../src/spec/index.js';
import { ATS, EXECUTE, extent, machine, PRIVILEGED, READ, RID, WRITE } from './machine.js';

const { IommufdIoctl, HwptAllocFlag } = uapi;
/** A function that all share by PASID, and one that a guest has for itself. */
const SHARED = RID;
const OWN = 0x0420;
const BASE = 0x7f00_0000_0000;
/** Pages of a process's data, and of a guest's memory: the first eight hold its page tables. */
const PAGES = 24;
const TABLES = 8;
const PAGE = 4096;
const two = (value: number): [number, number] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];

interface Actor {
  readonly color: number;
  mm: AddressSpace;
  /** Function and PASID that its requests carry. */
  names(): (readonly [requesterId: number, pasid: number])[];
  /** Pages that hold its color or nothing. */
  readonly firstData: number;
  change(kind: number, page: number, value: number): void;
}

function world() {
  const uses: StaleUse[] = [];
  const m = machine({ onStale: (use) => void uses.push(use), sizes: { iotlb: 64, pagingStructure: 16 } }, 4096);
  for (const rid of [SHARED, OWN]) m.driver.addDevice(rid, { ats: true, pri: true, pasid: true });
  const ups = new Map([SHARED, OWN].map((rid) => [rid, m.unit.requester(rid, { pageResponse: () => {} })]));
  const out = extent();

  const process = (color: number): Actor => {
    const mm = m.newMm();
    mm.mmap(BASE, PAGES * PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
    const { pasid } = m.driver.svaBind(SHARED, mm) as SvaHandle;
    return {
      color,
      mm,
      firstData: 0,
      names: () => [[SHARED, pasid]],
      change(kind, page, value) {
        const at = BASE + (page % PAGES) * PAGE;
        const flags = MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED;
        if (kind === 0) mm.munmap(at, PAGE);
        else if (kind === 1) mm.mmap(at, PAGE, value & 1 ? Prot.READ : Prot.READ | Prot.WRITE, flags);
        else mm.mprotect(at, PAGE, value & 3);
      },
    };
  };

  /** A guest: all its memory in an IOAS, its own first stage on top, which it writes as it likes. */
  const guest = (color: number, rid: number, passids: readonly number[]): Actor & { restart(): void } => {
    let file: OpenFile;
    let context: IommufdContext;
    let device: number;
    let hwpt: number;
    let names: (readonly [number, number])[] = [];
    const ioctl = (number: number, words: readonly number[]): Uint32Array => {
      const bytes = new Uint8Array(Uint32Array.from(words.map((word) => word >>> 0)).buffer);
      it.mm.write(BASE - PAGE, bytes);
      expect(file.ioctl!(m.task(it.mm), number, BASE - PAGE)).toBeLessThanOrEqual(0);
      it.mm.read(BASE - PAGE, bytes);
      return new Uint32Array(bytes.buffer);
    };
    const start = (): void => {
      it.mm = m.newMm();
      it.mm.mmap(BASE - 16 * PAGE, (PAGES + 16) * PAGE, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
      file = m.driver.iommufd.open() as OpenFile;
      context = m.driver.iommufd.contextOf(file)!;
      const ioas = ioctl(IommufdIoctl.IOAS_ALLOC, [12, 0, 0])[2]!;
      ioctl(IommufdIoctl.IOAS_MAP, [40, 7, ioas, 0, ...two(BASE), PAGES * PAGE, 0, 0, 0]);
      device = context.bindDevice(rid);
      const parent = ioctl(IommufdIoctl.HWPT_ALLOC, [48, HwptAllocFlag.NEST_PARENT | HwptAllocFlag.PASID, device, ioas, 0, 0, 0, 0, 0, 0, 0, 0])[4]!;
      it.mm.write(BASE - 2 * PAGE, new Uint8Array(Uint32Array.of(0, 0, 0, 0, 48, 0).buffer));
      hwpt = ioctl(IommufdIoctl.HWPT_ALLOC, [48, HwptAllocFlag.PASID, device, parent, 0, 0, 1, 24, ...two(BASE - 2 * PAGE), 0, 0])[4]!;
      names = [];
      for (const passid of passids) {
        // Where the function is shared the PASID is the host's, which no other has.
        const pasid = rid === SHARED ? m.driver.allocPasid() : passid;
        expect(context.attach(device, pasid === NO_PASID ? parent : hwpt, pasid)).toBe(0);
        names.push([rid, pasid]);
      }
    };
    const entry = (table: number, index: number, value: bigint) =>
      it.mm.write(BASE + table * PAGE + index * 8, new Uint8Array(new BigUint64Array([value]).buffer));
    const it = {
      color,
      mm: undefined as unknown as AddressSpace,
      firstData: TABLES,
      names: () => names,
      restart() {
        file.close!();
        context.unbind(device);
        for (const [, pasid] of names) if (rid === SHARED) m.driver.freePasid(pasid);
        it.mm.exit();
        start();
      },
      change(kind: number, page: number, value: number) {
        // Tables that lead to each other, to its data, beyond its memory, to host addresses.
        const target = [page % TABLES, TABLES + (page % (PAGES - TABLES)), PAGES + page, 0x100 + value][kind % 4]!;
        const bits = [7n, 7n, 0x87n, BigInt(value & 0xfff)][(value >>> 3) % 4]!;
        entry(value % TABLES, [0, page % 8, value % 512][(value >>> 5) % 3]!, (BigInt(target) << 12n) | bits);
        if (value & 1) {
          it.mm.write(BASE - 3 * PAGE, new Uint8Array(new BigUint64Array([0n, 2n ** 64n - 1n, 0n]).buffer));
          ioctl(IommufdIoctl.HWPT_INVALIDATE, [32, hwpt, ...two(BASE - 3 * PAGE), 0, 24, 1, 0]);
        } else if (value % 16 === 6) it.restart();
      },
    };
    start();
    settle(it.mm);
    return it;
  };
  // A page table that works, to begin with, in the first pages of a guest's memory.
  const settle = (mm: AddressSpace): void => {
    const set = (table: number, index: number, to: number) =>
      mm.write(BASE + table * PAGE + index * 8, new Uint8Array(new BigUint64Array([BigInt(to * PAGE + 7)]).buffer));
    for (let table = 0; table < 3; table++) set(table, 0, table + 1);
    for (let i = 0; i < PAGES; i++) set(3, i, i);
  };
  const actors: Actor[] = [process(1), process(2), guest(4, SHARED, [0]), guest(8, OWN, [NO_PASID, 1, 700])];
  for (const { mm, color, firstData } of actors) for (let i = firstData; i < PAGES; i++) mm.write(BASE + i * PAGE, new Uint8Array(PAGE).fill(color));
  /** Frames of an actor now; the pages of its VMM that are not the guest's do not count. */
  const framesOf = ({ mm }: Actor): Set<number> =>
    new Set(Array.from({ length: PAGES }, (_, i) => mm.frameOf(BASE + i * PAGE)).filter((frame) => frame >= 0));
  return { ...m, uses, ups, out, actors, framesOf };
}

const step = fc.record({
  who: fc.nat(3),
  kind: fc.constantFrom('read', 'read', 'write', 'write', 'ask', 'message', 'paint', 'paint', 'change', 'change'),
  page: fc.nat(40),
  value: fc.nat(0xffff),
  access: fc.constantFrom(0, 0, 0, 4, 4, 1, 2, 7),
  where: fc.constantFrom('own', 'own', 'own', 'low', 'low', 'host', 'anywhere'),
});

test('no byte crosses', () => {
  const given = { processes: 0, guests: 0, refused: 0 };
  fc.assert(
    fc.property(fc.array(step, { minLength: 60, maxLength: 160 }), (steps) => {
      const m = world();
      for (const { who, kind, page, value, access, where } of steps) {
        const actor = m.actors[who]!;
        if (kind === 'change') {
          actor.change(value % 5, page, value);
          continue;
        }
        if (kind === 'paint') {
          // Its own program fills a page of it.
          const at = actor.firstData + (page % (PAGES - actor.firstData));
          actor.mm.write(BASE + at * PAGE, new Uint8Array(PAGE).fill(actor.color));
          continue;
        }
        const names = actor.names();
        const [rid, pasid] = names[value % names.length]!;
        const up = m.ups.get(rid)!;
        const address = {
          own: actor.firstData === 0 ? BASE + (page % PAGES) * PAGE : (page % PAGES) * PAGE,
          low: page * PAGE + (value & 0xff8),
          host: (0x100 + ((page * 97 + value) % 4096)) * PAGE,
          anywhere: value * 2 ** 33 + page * PAGE,
        }[where];
        const [hi, lo] = [(address / 2 ** 32) | 0, address | 0];
        if (kind === 'message') {
          up.message(0xfee0_0000 + (value & 0xff0), value);
          continue;
        }
        if (kind === 'ask') {
          up.pageRequest(pasid, hi, lo, access & 5, value & 511);
          m.settle();
          continue;
        }
        const how = (kind === 'write' ? WRITE : READ) | (access & 1 ? PRIVILEGED : 0) | (access & 2 ? EXECUTE : 0) | (access & 4 ? ATS : 0);
        const status = up.acquire(how, pasid, hi, lo, 1 + (value % 9000), m.out);
        if (status !== TlpStatus.success) {
          given.refused++;
          continue;
        }
        given[actor.firstData ? 'guests' : 'processes']++;
        const first = 0x100 + (m.out.offset >>> 12);
        const last = 0x100 + ((m.out.offset + m.out.length - 1) >>> 12);
        const mine = m.framesOf(actor);
        for (let frame = first; frame <= last; frame++) expect(mine.has(frame), `actor ${who}, ${kind} of 0x${address.toString(16)}`).toBe(true);
        const bytes = m.out.view.subarray(m.out.offset, m.out.offset + m.out.length);
        if (kind === 'write') {
          bytes.fill(actor.color);
          up.commit(m.out);
        }
      }
      for (const { mm, color, firstData } of m.actors) {
        const bytes = new Uint8Array(PAGE);
        for (let i = firstData; i < PAGES; i++) {
          if (mm.frameOf(BASE + i * PAGE) < 0) continue;
          mm.read(BASE + i * PAGE, bytes);
          // Its own tables may set bits in its own data, where it points them there.
          const strange = bytes.findIndex((byte) => (byte & ~0x60) !== 0 && (byte & ~0x60) !== color);
          expect([i, strange], `actor of color ${color}`).toEqual([i, -1]);
        }
      }
      // A process's pages are its kernel's to invalidate, and it never forgets.
      const processes = new Set(m.actors.slice(0, 2).flatMap((actor) => actor.names().map(([, pasid]) => pasid)));
      expect(m.uses.filter((use) => use.requesterId === SHARED && processes.has(use.pasid))).toEqual([]);
    }),
    { numRuns: 60, seed: 20_261 },
  );
  // The attacks are such that much succeeds in one's own memory, and much is refused.
  expect(given.processes).toBeGreaterThan(100);
  expect(given.guests).toBeGreaterThan(100);
  expect(given.refused).toBeGreaterThan(500);
}, 60_000);
