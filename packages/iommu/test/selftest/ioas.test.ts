/** Group 3: address spaces without, with one and with two page tables. Our own words. */
import { Errno } from '@siov/layout/uapi';
import { Mock } from '@siov/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { iommufd as uapi } from '../../src/spec/index.js';
import { ALL, APERTURE, BUFFER, BUFFER_BYTES, DATA, type Mocked, mocked, NOTHING, PAGE, RW } from '../mock.js';

const { IommufdIoctl, HwptAllocFlag, OptionId, OptionOp, IoasMapFlag } = uapi;
const err = (number: number): bigint => BigInt(-number);

/** An address space; `stdev`, `hwpt`, `device` of the last mock device, 0 without. */
function setUp(domains: number) {
  const m = mocked();
  const id = m.ioas();
  let last = { stdev: 0, hwpt: 0, device: 0 };
  for (let i = 0; i < domains; i++) {
    const { result, ...made } = m.domain(id);
    expect(result).toBe(0);
    last = made;
  }
  return { ...m, m, id, ...last, base: domains ? APERTURE : 0, domains };
}

describe.each([
  ['no domain', 0],
  ['one domain', 1],
  ['two domains', 2],
] as const)('%s', (_name, domains) => {
  let s: ReturnType<typeof setUp>;
  let m: Mocked;
  beforeEach(() => {
    s = setUp(domains);
    ({ m } = s);
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });
  const at = (page: number): bigint => BigInt(s.base + page * PAGE);

  test('an address space is destroyed with what is mapped, unless a device is attached', () => {
    expect(m.map(s.id, BUFFER, PAGE)).toBeGreaterThan(0n);
    const other = m.ioas();
    expect(m.map(other, BUFFER, PAGE)).toBeGreaterThan(0n);
    expect(m.destroy(other)).toBe(0);
    expect(m.destroy(s.id)).toBe(domains ? -Errno.EBUSY : 0);
  });
  test('areas are mapped and unmapped in any order; one page of a larger one is not', () => {
    for (const i of [0, 4, 2, 8, 6]) expect(m.map(s.id, BUFFER, PAGE, at(i + 16))).toBe(at(i + 16));
    expect(m.map(s.id, BUFFER, 3 * PAGE, at(10 + 16))).toBe(at(26));
    for (const i of [0, 1, 2]) expect(m.unmap(s.id, at(26 + i), PAGE)).toBe(err(Errno.ENOENT));
    expect(m.unmap(s.id, at(26), 3 * PAGE)).toBe(3n * BigInt(PAGE));
    for (const i of [8, 0, 6, 2, 4]) expect(m.unmap(s.id, at(i + 16), PAGE)).toBe(BigInt(PAGE));
    expect(m.unmap(s.id, 0, ALL)).toBe(0n);
  });
  test('nothing is mapped twice, wherever the second one overlaps', () => {
    expect(m.map(s.id, BUFFER, 8 * PAGE, at(32))).toBe(at(32));
    for (const [first, pages] of [
      [32, 8],
      [31, 2],
      [39, 2],
      [33, 1],
      [24, 32],
    ] as const)
      expect(m.map(s.id, BUFFER, pages * PAGE, at(first)), `${first}`).toBe(err(Errno.EEXIST));
    expect(m.map(s.id, BUFFER, PAGE, at(31))).toBe(at(31));
    expect(m.map(s.id, BUFFER, PAGE, at(40))).toBe(at(40));
  });
  test('unmapping takes whole areas alone, as many as there are', () => {
    for (let i = 0; i < 4; i++) m.map(s.id, BUFFER, 8 * PAGE, at(16 + i * 16));
    expect(m.unmap(s.id, at(12), 8 * PAGE)).toBe(err(Errno.ENOENT));
    expect(m.unmap(s.id, at(16 + 3 * 16 + 4), 8 * PAGE)).toBe(err(Errno.ENOENT));
    expect(m.unmap(s.id, at(12), (3 * 16 + 8 + 4) * PAGE)).toBe(32n * BigInt(PAGE));
    expect(m.unmap(s.id, at(12), 64 * PAGE)).toBe(err(Errno.ENOENT));
  });
  test('all of it is unmapped by 0 and the last address, twice', () => {
    for (const i of [1, 3, 5]) m.map(s.id, BUFFER, PAGE, at(i));
    expect(m.unmap(s.id, 0, ALL)).toBe(3n * BigInt(PAGE));
    expect(m.unmap(s.id, 0, ALL)).toBe(0n);
  });
  test('lengths: 0, more than there are addresses, past the end', () => {
    expect(m.map(s.id, BUFFER, 0, at(16))).toBe(err(Errno.EINVAL));
    expect(m.map(s.id, BUFFER, ALL, at(16))).toBe(err(Errno.EOVERFLOW));
    expect(m.map(s.id, BUFFER, PAGE, ALL)).toBe(err(Errno.EOVERFLOW));
    expect(m.map(s.id, BUFFER, 2n ** 63n, at(16))).toBeLessThan(0n);
    expect(m.unmap(s.id, at(16), 0)).toBe(err(Errno.EINVAL));
    expect(m.unmap(s.id, 4096n, ALL - 4096n)).toBe(err(Errno.ENOENT));
    expect(m.unmap(s.id, 4096n, ALL)).toBe(err(Errno.EOVERFLOW));
    expect(m.unmap(s.id, ALL - 4095n, 2 * PAGE)).toBe(err(Errno.EOVERFLOW));
  });

  test('a chosen address is never 0 and as aligned as the memory is; it keeps the offset in the page', () => {
    const pages: [number, bigint][] = [
      [1, 1n],
      [2, 2n],
      [5, 8n],
      [16, 16n],
    ];
    for (const [count, aligned] of pages) {
      const iova = m.map(s.id, BUFFER, count * PAGE);
      expect(iova).toBeGreaterThan(0n);
      expect(iova % (aligned * BigInt(PAGE))).toBe(0n);
    }
    const odd = m.map(s.id, BUFFER + 2048, 2048);
    expect(odd % BigInt(PAGE)).toBe(2048n);
  });
  test('a chosen address avoids reserved ranges and stays in the allowed ones', () => {
    expect(m.reserve(s.id, at(4), 100 * PAGE)).toBe(0);
    const inReserved = (iova: bigint, pages: number): boolean => iova < at(104) && iova + BigInt(pages * PAGE) > at(4);
    for (let pages = 1; pages < 10; pages++) {
      const iova = m.map(s.id, BUFFER, pages * PAGE);
      expect(iova > 0n && !inReserved(iova, pages)).toBe(true);
    }
    // Allowed ranges and reserved ones do not meet, either way round.
    expect(m.allow(s.id, [at(1), at(600)])).toBe(-Errno.EADDRINUSE);
    m.unmap(s.id, 0, ALL);
    expect(m.allow(s.id, [at(200), at(600) - 1n])).toBe(0);
    for (let pages = 1; pages < 10; pages++) {
      const iova = m.map(s.id, BUFFER, pages * PAGE);
      expect(iova >= at(200) && iova + BigInt(pages * PAGE) <= at(600)).toBe(true);
    }
    expect(m.reserve(s.id, at(500), PAGE)).toBe(-Errno.EADDRINUSE);
    expect(m.reserve(s.id, at(2000), PAGE)).toBe(0);
    // A fixed address is not bound to them.
    expect(m.map(s.id, BUFFER, PAGE, at(1000))).toBe(at(1000));
    expect(m.map(s.id, BUFFER, PAGE, at(2000))).toBe(err(Errno.EINVAL));
  });
  test('allowed ranges: empty, upside down, overlapping, out of memory', () => {
    expect(m.allow(s.id)).toBe(0);
    expect(m.allow(s.id, [at(2), at(1)])).toBe(-Errno.EINVAL);
    expect(m.allow(s.id, [at(1), at(3)], [at(2), at(4)])).toBe(-Errno.EINVAL);
    expect(m.allow(99, [at(1), at(2)])).toBe(-Errno.ENOENT);
    expect(m.ioctl(IommufdIoctl.IOAS_ALLOW_IOVAS, [24, s.id, 1, 0, 0, 0]).result).toBe(-Errno.EFAULT);
    expect(m.ioctl(IommufdIoctl.IOAS_ALLOW_IOVAS, [24, s.id, 0, 1, 0, 0]).result).toBe(-Errno.EOPNOTSUPP);
  });
  test('when all addresses are reserved, none can be chosen', () => {
    const start = domains ? APERTURE : 6;
    expect(m.reserve(s.id, start, domains ? Mock.APERTURE_LAST - APERTURE + 1 : ALL - 10n)).toBe(0);
    expect(m.map(s.id, BUFFER, domains ? PAGE : 5)).toBe(err(Errno.ENOSPC));
  });

  test('a copy is made of pages that are there, within an address space and into another', () => {
    expect(m.copy(s.id, s.id, at(2), PAGE)).toBe(err(Errno.ENOENT));
    expect(m.map(s.id, BUFFER, 8 * PAGE, at(16))).toBe(at(16));
    expect(m.copy(s.id, s.id, at(16), 8 * PAGE, at(64))).toBe(at(64));
    expect(m.copy(s.id, s.id, at(16), 0)).toBe(err(Errno.EINVAL));
    expect(m.copy(s.id, s.id, ALL - 1n, 8 * PAGE)).toBe(err(Errno.EOVERFLOW));
    expect(m.copy(s.id, 99, at(16), PAGE)).toBe(err(Errno.ENOENT));
    expect(m.copy(s.id, s.id, at(16), PAGE, at(128), 0)).toBe(err(Errno.EINVAL));
    const other = m.ioas();
    const iova = m.copy(other, s.id, at(18), 3 * PAGE);
    expect(iova).toBeGreaterThan(0n);
    // The source may go.
    m.unmap(s.id, 0, ALL);
    const fd = m.access(other);
    m.fill(BUFFER, 8 * PAGE);
    expect(m.transfer(fd, iova, 16, DATA + 0x800, false)).toBe(0);
    expect([...m.bytes(DATA + 0x800, 16)]).toEqual([...m.bytes(BUFFER + 2 * PAGE, 16)]);
  });
  test('at every odd offset and length: what lies within is copied, what reaches outside is ENOENT', () => {
    const other = m.ioas();
    m.map(s.id, BUFFER, 4 * PAGE, at(16));
    const step = domains ? 2048 : 511;
    for (let from = 0; from < 5 * PAGE; from += step)
      for (let length = step; length < 5 * PAGE; length += step) {
        const inside = from + length <= 4 * PAGE;
        const answer = m.copy(other, s.id, at(16) + BigInt(from), length);
        expect(answer > 0n, `${from} ${length}`).toBe(inside);
        if (!inside) expect(answer).toBe(err(Errno.ENOENT));
      }
  });
  test('a write is not copied onto pages that were mapped to be read', () => {
    m.map(s.id, BUFFER, PAGE, at(16), IoasMapFlag.READABLE);
    expect(m.copy(s.id, s.id, at(16), PAGE, at(32), RW)).toBe(err(Errno.EPERM));
    expect(m.copy(s.id, s.id, at(16), PAGE, at(32), IoasMapFlag.READABLE)).toBe(at(32));
  });

  test('the ranges of addresses: all but what is reserved; the room says how many are told', () => {
    const all = domains ? [[BigInt(APERTURE), BigInt(Mock.APERTURE_LAST)]] : [[0n, ALL]];
    expect(m.ranges(s.id, 4)).toEqual({ result: 0, count: 1, list: all, alignment: domains ? 2048n : 1n });
    m.reserve(s.id, at(16), PAGE);
    m.reserve(s.id, at(32), PAGE);
    const [[low, high]] = all as [[bigint, bigint]];
    const list = [
      [low, at(16) - 1n],
      [at(17), at(32) - 1n],
      [at(33), high],
    ];
    expect(m.ranges(s.id, 8)).toMatchObject({ result: 0, count: 3, list });
    expect(m.ranges(s.id, 2)).toMatchObject({ result: -Errno.EMSGSIZE, count: 3, list: list.slice(0, 2) });
    expect(m.ranges(s.id, 0)).toMatchObject({ result: -Errno.EMSGSIZE, count: 3 });
    expect(m.ranges(99, 1).result).toBe(-Errno.ENOENT);
  });

  test('an access pins pages: once, twice, with a domain that comes later; they are those of the user', () => {
    const fd = m.access(s.id);
    m.map(s.id, BUFFER, 8 * PAGE, at(16));
    const held = (pins: number) => expect(m.checkRefs(BUFFER, 8 * PAGE, pins)).toBe(0);
    held(domains ? 1 : 0);
    const first = m.pin(fd, at(16), 8 * PAGE, BUFFER);
    const second = m.pin(fd, at(16), 8 * PAGE, BUFFER);
    expect([first, second]).toEqual([0, 1]);
    held(1);
    const { result, hwpt, stdev } = m.domain(s.id);
    expect(result).toBe(domains ? 0 : -Errno.EADDRINUSE);
    if (domains) {
      expect(m.checkMap(hwpt, at(16), BUFFER, 8 * PAGE)).toBe(0);
      expect(m.destroy(stdev)).toBe(0);
    }
    expect([m.unpin(fd, first), m.unpin(fd, second), m.unpin(fd, second)]).toEqual([0, 0, -Errno.ENOENT]);
    held(domains ? 1 : 0);
  });
  test('before an area goes, whoever pinned it lets go of it', () => {
    const fd = m.access(s.id);
    m.map(s.id, BUFFER, 4 * PAGE, at(16));
    const item = m.pin(fd, at(16), PAGE, BUFFER);
    const other = m.pin(fd, at(18), 2 * PAGE, BUFFER + 2 * PAGE);
    expect(m.unmap(s.id, at(16), 4 * PAGE)).toBe(4n * BigInt(PAGE));
    expect([m.unpin(fd, item), m.unpin(fd, other)]).toEqual([-Errno.ENOENT, -Errno.ENOENT]);
    expect(m.checkRefs(BUFFER, 4 * PAGE, 0)).toBe(0);
    expect(m.pin(fd, at(16), PAGE)).toBe(-Errno.ENOENT);
  });
  test('what an access cannot pin', () => {
    const fd = m.access(s.id);
    const loose = m.access(s.id, false);
    m.map(s.id, BUFFER, 4 * PAGE, at(16), IoasMapFlag.READABLE);
    expect(m.pin(fd, at(16), 0)).toBe(-Errno.EINVAL);
    expect(m.pin(fd, at(16), 5 * PAGE)).toBe(-Errno.ENOENT);
    expect(m.pin(fd, ALL - 1n, PAGE)).toBe(-Errno.EOVERFLOW);
    expect(m.pin(fd, at(16), PAGE, 0, true)).toBe(-Errno.EPERM);
    expect(m.pin(loose, at(16), PAGE)).toBe(-Errno.EOPNOTSUPP);
    expect(m.pin(99, at(16), PAGE)).toBe(-Errno.EBADFD);
    expect(m.command('CREATE_ACCESS', s.id, [0, 2]).result).toBe(-Errno.EOPNOTSUPP);
    expect(m.access(99)).toBe(-Errno.ENOENT);
    expect(m.checkRefs(BUFFER, 4 * PAGE, domains ? 1 : 0)).toBe(0);
  });
  test.each([
    ['through the process', false],
    ['by pinning', true],
  ])('an access copies any bytes across the edge of a page, %s', (_how, slow) => {
    const fd = m.access(s.id, false);
    m.map(s.id, BUFFER, 4 * PAGE, at(16));
    for (let i = 0; i < 24; i++)
      for (const length of [1, 7, 12, 24]) {
        const offset = PAGE - 12 + i;
        m.fill(BUFFER, 4 * PAGE, i + length);
        expect(m.transfer(fd, at(16) + BigInt(offset), length, DATA + 0x800, false, slow)).toBe(0);
        expect([...m.bytes(DATA + 0x800, length)]).toEqual([...m.bytes(BUFFER + offset, length)]);
        m.fill(DATA + 0x800, length, 77 + i);
        expect(m.transfer(fd, at(16) + BigInt(offset), length, DATA + 0x800, true, slow)).toBe(0);
        expect([...m.bytes(BUFFER + offset, length)]).toEqual([...m.bytes(DATA + 0x800, length)]);
      }
    // Over several pages, past the end, and without any of it.
    m.fill(BUFFER, 4 * PAGE, 5);
    expect(m.transfer(fd, at(16) + 100n, 3 * PAGE, BUFFER + 32 * PAGE, false, slow)).toBe(0);
    expect(m.bytes(BUFFER + 32 * PAGE, 3 * PAGE)).toEqual(m.bytes(BUFFER + 100, 3 * PAGE));
    expect(m.transfer(fd, at(19), 2 * PAGE, DATA, false, slow)).toBe(-Errno.ENOENT);
    expect(m.transfer(fd, at(16), 0, DATA, false, slow)).toBe(-Errno.EINVAL);
    expect(m.transfer(fd, ALL, 2, DATA, false, slow)).toBe(-Errno.EOVERFLOW);
    expect(m.checkRefs(BUFFER, 4 * PAGE, domains ? 1 : 0)).toBe(0);
  });
  test('an access that may only read does not write', () => {
    const fd = m.access(s.id, false);
    m.map(s.id, BUFFER, PAGE, at(16), IoasMapFlag.READABLE);
    expect(m.transfer(fd, at(16), 4, DATA, true)).toBe(-Errno.EPERM);
    expect(m.transfer(fd, at(16), 4, DATA, false)).toBe(0);
  });
  test('an access keeps its address space, and goes to another with all pins let go', () => {
    const other = m.ioas();
    const fd = m.access(s.id);
    m.map(s.id, BUFFER, PAGE, at(16));
    m.map(other, BUFFER + PAGE, PAGE, at(16));
    const item = m.pin(fd, at(16), PAGE, BUFFER);
    expect(m.destroy(s.id)).toBe(-Errno.EBUSY);
    expect(m.command('ACCESS_REPLACE_IOAS', fd, [other]).result).toBe(0);
    expect(m.unpin(fd, item)).toBe(-Errno.ENOENT);
    expect(m.pin(fd, at(16), PAGE, BUFFER + PAGE)).toBeGreaterThanOrEqual(0);
    expect(m.destroy(other)).toBe(-Errno.EBUSY);
    expect(m.command('ACCESS_REPLACE_IOAS', fd, [99]).result).toBe(-Errno.ENOENT);
    expect(m.destroy(s.id)).toBe(domains ? -Errno.EBUSY : 0);
  });
  test('memory at any byte: without a page table and without pins alone', () => {
    const odd = m.map(s.id, BUFFER + 1, 7, s.base + 16 * PAGE + 3);
    expect(odd).toBe(domains ? err(Errno.EINVAL) : at(16) + 3n);
    if (domains) return;
    const fd = m.access(s.id, false);
    m.fill(BUFFER, PAGE);
    expect(m.transfer(fd, odd, 7, DATA, false)).toBe(0);
    expect([...m.bytes(DATA, 7)]).toEqual([...m.bytes(BUFFER + 1, 7)]);
    // Whoever wants whole pages comes too late.
    expect(m.access(s.id, true)).toBe(-Errno.EADDRINUSE);
    expect(m.domain(s.id).result).toBe(-Errno.EADDRINUSE);
    expect(m.option(OptionId.HUGE_PAGES, s.id, OptionOp.SET, 0).result).toBe(-Errno.EADDRINUSE);
    m.unmap(s.id, 0, ALL);
    expect(m.access(s.id, true)).toBeGreaterThan(0);
    expect(m.map(s.id, BUFFER + 1, 7, at(16))).toBe(err(Errno.EINVAL));
  });
  test('every length: a page table takes multiples of its page', () => {
    for (const length of [1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 8192, 65_537]) {
      const answer = m.map(s.id, BUFFER, length, at(16));
      expect(answer >= 0n, `${length}`).toBe(domains === 0 || length % 2048 === 0);
      if (answer >= 0n) expect(m.unmap(s.id, at(16), length)).toBe(BigInt(length));
    }
  });
  test('the memory of a process that lives, and of one that is gone', () => {
    const child = m.process();
    const parent = m.me;
    m.me = child;
    m.fill(BUFFER, 2 * PAGE, 9);
    expect(m.map(s.id, BUFFER, 2 * PAGE, at(16))).toBe(at(16));
    m.me = parent;
    const fd = m.access(s.id, false);
    expect(m.transfer(fd, at(16), 64, DATA, false)).toBe(0);
    expect([...m.bytes(DATA, 3)]).toEqual([9, 40, 71]);
    child.mm.exit();
    // What a page table pinned outlives it; the rest does not.
    expect(m.transfer(fd, at(16), 64, DATA, false)).toBe(domains ? 0 : -Errno.EFAULT);
  });
  test('large pages: an option of 0 and 1, not while a page table has something', () => {
    const set = (value: number) => m.option(OptionId.HUGE_PAGES, s.id, OptionOp.SET, value).result;
    expect(m.option(OptionId.HUGE_PAGES, s.id, OptionOp.GET)).toEqual({ result: 0, value: 1n });
    expect([set(0), set(1), set(2)]).toEqual([0, 0, -Errno.EINVAL]);
    m.map(s.id, BUFFER, PAGE, at(16));
    expect(set(0)).toBe(domains ? -Errno.EINVAL : 0);
    expect(m.option(OptionId.HUGE_PAGES, s.id, 2).result).toBe(-Errno.EOPNOTSUPP);
  });
  test('a device’s buffer: mapped within its bounds, gone when its owner takes it back, mapped anew later', () => {
    const { result: fd } = m.command('DMABUF_GET', 0, [8 * PAGE, 2]);
    expect(fd).toBeGreaterThan(2);
    expect(m.mapFile(s.id, fd, 0, 9 * PAGE, at(16))).toBe(err(Errno.EINVAL));
    expect(m.mapFile(s.id, fd, 7 * PAGE, 2 * PAGE, at(16))).toBe(err(Errno.EINVAL));
    expect(m.mapFile(s.id, fd, PAGE, 2 * PAGE, at(16))).toBe(at(16));
    const table = () =>
      [...m.mock.devices.values()].flatMap((d) => [...d.attached.values()]).map(({ table: t }) => (t as { pages?: Map<number, object> }).pages?.size);
    expect(table()).toEqual(new Array(domains).fill(4));
    expect(m.command('DMABUF_REVOKE', 0, [fd, 1]).result).toBe(0);
    expect(table()).toEqual(new Array(domains).fill(0));
    if (domains) expect(m.mapFile(s.id, fd, 0, PAGE, at(32))).toBe(err(Errno.ENODEV));
    expect(m.unmap(s.id, at(16), 2 * PAGE)).toBe(2n * BigInt(PAGE));
    expect(m.command('DMABUF_REVOKE', 0, [fd, 0]).result).toBe(0);
    expect(m.mapFile(s.id, fd, 0, PAGE, at(48))).toBe(at(48));
    expect(m.mapFile(s.id, 99, 0, PAGE)).toBe(err(Errno.EBADF));
  });
});

describe('with a domain', () => {
  let s: ReturnType<typeof setUp>;
  let m: Mocked;
  beforeEach(() => {
    s = setUp(1);
    ({ m } = s);
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });
  test('an area outlives the domain and the access that used it, also one that a large page could hold', () => {
    const fd = m.access(s.id);
    const bytes = BUFFER_BYTES;
    expect(m.map(s.id, BUFFER, bytes, APERTURE)).toBe(BigInt(APERTURE));
    const item = m.pin(fd, APERTURE, 16 * PAGE, BUFFER);
    expect(m.destroy(s.stdev)).toBe(0);
    expect([m.checkRefs(BUFFER, 16 * PAGE, 1), m.checkRefs(BUFFER + 16 * PAGE, bytes - 16 * PAGE, 0)]).toEqual([0, 0]);
    expect(m.unpin(fd, item)).toBe(0);
    expect(m.checkRefs(BUFFER, bytes, 0)).toBe(0);
  });
  test('a device goes straight to a page table; both stay while it is there', () => {
    const table = m.hwpt(s.device, s.id);
    expect(table).toBeGreaterThan(0);
    const direct = m.domain(table);
    expect([direct.result, direct.hwpt]).toEqual([0, table]);
    expect([m.destroy(table), m.destroy(s.id), m.destroy(direct.device)]).toEqual([-Errno.EBUSY, -Errno.EBUSY, -Errno.EBUSY]);
    expect(m.destroy(direct.stdev)).toBe(0);
    expect(m.destroy(table)).toBe(0);
    // The automatic one went with its device.
    expect(m.destroy(s.stdev)).toBe(0);
    expect(m.destroy(s.hwpt)).toBe(-Errno.ENOENT);
    expect(m.destroy(s.id)).toBe(0);
  });
  test('hardware information: nothing asked, as much as there is, more with zeroes behind, less', () => {
    const info = (bytes: number, flags = 0, type = 0) => {
      m.put(new Array(8).fill(0xeeee_eeee));
      const at = bytes ? [DATA % 2 ** 32, Math.floor(DATA / 2 ** 32)] : [0, 0];
      const { result, words } = m.ioctl(IommufdIoctl.GET_HW_INFO, [40, flags, s.device, bytes, ...at, type, 0, 0, 0]);
      return { result, bytes: words[3]!, type: words[6]!, pasids: words[7]! & 0xff, capabilities: words[8]!, data: m.get(4) };
    };
    const { HW_INFO_TYPE, HW_INFO_VALUE } = Mock;
    const untouched = 0xeeee_eeee;
    expect(info(0)).toEqual({ result: 0, bytes: 8, type: HW_INFO_TYPE, pasids: 0, capabilities: 1, data: new Array(4).fill(untouched) });
    expect(info(8).data).toEqual([0, HW_INFO_VALUE, untouched, untouched]);
    expect(info(16).data).toEqual([0, HW_INFO_VALUE, 0, 0]);
    expect(info(4).data).toEqual([0, untouched, untouched, untouched]);
    expect(info(8, 1, HW_INFO_TYPE)).toMatchObject({ result: 0, type: HW_INFO_TYPE });
    expect(info(8, 1, 1).result).toBe(-Errno.EOPNOTSUPP);
    expect(info(8, 2).result).toBe(-Errno.EOPNOTSUPP);
    expect(m.ioctl(IommufdIoctl.GET_HW_INFO, [40, 0, s.id, 0, 0, 0, 0, 0, 0, 0]).result).toBe(-Errno.ENOENT);
    const wide = m.domain(s.id, 4);
    const { words } = m.ioctl(IommufdIoctl.GET_HW_INFO, [40, 0, wide.device, 0, 0, 0, 0, 0, 0, 0]);
    expect(words[7]! & 0xff).toBe(Mock.PASID_WIDTH);
  });
  test('no page table comes to areas that do not fit it', () => {
    const other = m.ioas();
    m.map(other, BUFFER, PAGE, 0);
    expect(m.domain(other).result).toBe(-Errno.EADDRINUSE);
    m.unmap(other, 0, ALL);
    m.map(other, BUFFER, PAGE, Mock.APERTURE_LAST - PAGE + 2);
    expect(m.domain(other).result).toBe(-Errno.EADDRINUSE);
    m.unmap(other, 0, ALL);
    m.map(other, BUFFER + 1, 6, APERTURE);
    expect(m.domain(other).result).toBe(-Errno.EADDRINUSE);
    m.unmap(other, 0, ALL);
    m.map(other, BUFFER, PAGE, APERTURE);
    expect(m.domain(other).result).toBe(0);
  });
});

describe('nested page tables', () => {
  const S1 = { type: Mock.HWPT_DATA, words: [Mock.IOTLB_DEFAULT] };
  let m: Mocked;
  let s: ReturnType<typeof setUp>;
  beforeEach(() => {
    s = setUp(1);
    ({ m } = s);
  });
  afterEach(() => {
    expect(m.end()).toEqual(NOTHING);
  });
  const parentOf = () => m.hwpt(s.device, s.id, HwptAllocFlag.NEST_PARENT);

  test.each<[string, number, () => number]>([
    ['a device that is none', -Errno.ENOENT, () => m.hwpt(s.id, s.id)],
    ['a base that is a device', -Errno.EINVAL, () => m.hwpt(s.device, s.device)],
    ['a base that is not there', -Errno.EINVAL, () => m.hwpt(s.device, 99)],
    ['no type with data', -Errno.EINVAL, () => m.hwpt(s.device, parentOf(), 0, { type: 0, words: [1] })],
    ['a type without data', -Errno.EINVAL, () => m.hwpt(s.device, parentOf(), 0, { type: Mock.HWPT_DATA })],
    ['neither, on a page table', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, parentOf())],
    ['an unknown type', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, parentOf(), 0, { type: 0xdeae, words: [1] })],
    ['too little data', -Errno.EINVAL, () => m.hwpt(s.device, parentOf(), 0, { ...S1, bytes: 3 })],
    ['data nowhere', -Errno.EFAULT, () => m.hwpt(s.device, parentOf(), 0, { type: Mock.HWPT_DATA, bytes: 4 })],
    ['on a page table that is no parent', -Errno.EINVAL, () => m.hwpt(s.device, m.hwpt(s.device, s.id), 0, S1)],
    ['on an automatic page table', -Errno.EINVAL, () => m.hwpt(s.device, s.hwpt, 0, S1)],
    ['on a nested page table', -Errno.EINVAL, () => m.hwpt(s.device, m.hwpt(s.device, parentOf(), 0, S1), 0, S1)],
    ['a parent on a parent', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, parentOf(), HwptAllocFlag.NEST_PARENT, S1)],
    ['an unknown flag', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, s.id, 1 << 9)],
    ['data on an address space', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, s.id, 0, S1)],
    ['a parent with a fault queue', -Errno.EOPNOTSUPP, () => m.hwpt(s.device, s.id, 5, undefined, m.faultQueue().id)],
    ['a fault queue that is none', -Errno.ENOENT, () => m.hwpt(s.device, s.id, HwptAllocFlag.FAULT_ID_VALID, undefined, s.id)],
  ])('%s', (_rule, errno, run) => {
    expect(run()).toBe(errno);
  });

  test('two on one parent: it stays until both are gone; devices go from one to the other', () => {
    const parent = parentOf();
    const [one, other] = [m.hwpt(s.device, parent, 0, S1), m.hwpt(s.device, parent, 0, S1)];
    expect(m.destroy(parent)).toBe(-Errno.EBUSY);
    for (const id of [one, other]) for (let slot = 0; slot < 4; slot++) expect(m.checkIotlb(id, slot, Mock.IOTLB_DEFAULT)).toBe(0);
    expect(m.replace(s.stdev, one)).toBe(one);
    expect(m.destroy(s.hwpt)).toBe(-Errno.ENOENT);
    expect(m.replace(s.stdev, other)).toBe(other);
    expect(m.destroy(other)).toBe(-Errno.EBUSY);
    expect(m.destroy(one)).toBe(0);
    expect(m.replace(s.stdev, parent)).toBe(parent);
    expect(m.destroy(other)).toBe(0);
    expect(m.replace(s.stdev, s.id)).toBeGreaterThan(0);
    expect(m.destroy(parent)).toBe(0);
  });
  test('invalidation: an entry at a time, until one is wrong; the number done is told', () => {
    const parent = parentOf();
    const id = m.hwpt(s.device, parent, 0, S1);
    const { INVALIDATE, INVALIDATE_ALL, IOTLB_DEFAULT } = Mock;
    const flush = (count: number, words: readonly number[], type: number = INVALIDATE, bytes = 8) => m.invalidate(id, type, bytes, count, words);
    const slots = (...values: number[]) => {
      for (const [slot, value] of values.entries()) expect(m.checkIotlb(id, slot, value), `${slot}`).toBe(0);
    };
    expect(m.invalidate(parent, INVALIDATE, 8, 1, [0, 0])).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(m.invalidate(99, INVALIDATE, 8, 1, [0, 0])).toEqual({ result: -Errno.ENOENT, done: 0 });
    // No entries: whether the type is one.
    expect(flush(0, [])).toEqual({ result: 0, done: 0 });
    expect(flush(0, [], 0xdadbeef)).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(flush(1, [0, 0], 0xdadbeef)).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(flush(1, [0, 0], INVALIDATE, 4)).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(flush(1, [0, 0], INVALIDATE, 0)).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(flush(1, [])).toEqual({ result: -Errno.EINVAL, done: 0 });
    expect(flush(1, [0, 0, 1], INVALIDATE, 12)).toEqual({ result: -Errno.E2BIG, done: 0 });
    expect(flush(1, [2, 0])).toEqual({ result: -Errno.EOPNOTSUPP, done: 0 });
    expect(flush(1, [0, 4])).toEqual({ result: -Errno.EINVAL, done: 0 });
    slots(IOTLB_DEFAULT, IOTLB_DEFAULT, IOTLB_DEFAULT, IOTLB_DEFAULT);
    expect(flush(2, [0, 0, 2, 1])).toEqual({ result: -Errno.EOPNOTSUPP, done: 1 });
    expect(flush(2, [0, 1, 0, 4])).toEqual({ result: -Errno.EINVAL, done: 1 });
    slots(0, 0, IOTLB_DEFAULT, IOTLB_DEFAULT);
    expect(flush(1, [0, 2, 0], INVALIDATE, 12)).toEqual({ result: 0, done: 1 });
    slots(0, 0, 0, IOTLB_DEFAULT);
    expect(flush(1, [INVALIDATE_ALL, 0])).toEqual({ result: 0, done: 1 });
    slots(0, 0, 0, 0);
  });
});
