/**
 * What every VFIO PCI device must do, whatever stands behind it, seen through system calls only. linux/vfio.h; Linux,
 * tools/testing/selftests/vfio for what user drivers rely on. Give it to vitest in a test file: `vfioDeviceSuite(setup)`.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { VfioClient, type VfioTask } from './vfio-client.js';
import {
  DeviceFlag,
  Errno,
  Ioctl,
  IrqInfoFlag,
  IrqSetFlag,
  MapFlag,
  PCI_IRQS,
  PCI_REGIONS,
  PciIrq,
  PciRegion,
  Prot,
  RegionFlag,
  regionOffset,
} from './vfio-numbers.js';

/** A fresh world with one device that nobody has open. */
export interface VfioSetup {
  readonly task: VfioTask;
  /** '/dev/vfio/0' and the device's name in it. */
  readonly group: string;
  readonly name: string;
  /** What stands for the container; default '/dev/vfio/vfio'. */
  readonly container?: string;
  /** MSI-X vectors of the device, at least 2. */
  readonly vectors: number;
}
const { DATA_NONE, DATA_BOOL, DATA_EVENTFD, ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER } = IrqSetFlag;
const TRIGGER_FDS = DATA_EVENTFD | ACTION_TRIGGER;
const TRIGGER_NOW = DATA_NONE | ACTION_TRIGGER;
const NOWHERE = 0x10;

export function vfioDeviceSuite(setup: () => VfioSetup, label = 'a VFIO device'): void {
  describe(label, () => {
    let client: VfioClient;
    let task: VfioTask;
    let fd: number;
    let group: number;
    let name: string;
    let vectors: number;
    beforeEach(() => {
      const given = setup();
      ({ task, vectors } = given);
      client = new VfioClient(task);
      ({ name } = given);
      ({ group, device: fd } = client.openInContainer(given.group, name, undefined, given.container));
    });
    const regions = () => Array.from({ length: PCI_REGIONS }, (_, i) => client.region(fd, i)).filter((r) => r.result === 0);
    const fds = (...list: number[]): Int32Array => Int32Array.from(list);
    const bytesOf = (words: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);

    describe('information', () => {
      test('GET_INFO tells a PCI device with nine regions and five interrupt indexes', () => {
        const info = client.info(fd);
        expect(info.result).toBe(0);
        expect(info.flags & DeviceFlag.PCI).toBe(DeviceFlag.PCI);
        expect(info.regions).toBeGreaterThanOrEqual(PCI_REGIONS);
        expect(info.irqs).toBe(PCI_IRQS);
      });
      test('the smallest argsz of each call is enough, and one byte less is EINVAL', () => {
        for (const [number, smallest] of [
          [Ioctl.DEVICE_GET_INFO, 16],
          [Ioctl.DEVICE_GET_REGION_INFO, 32],
          [Ioctl.DEVICE_GET_IRQ_INFO, 16],
        ] as const) {
          expect(client.call(fd, number, [smallest, 0, 0, 0, 0, 0, 0, 0]).result, `${smallest}`).toBe(0);
          expect(client.call(fd, number, [smallest - 1, 0, 0, 0, 0, 0, 0, 0]).result, `${smallest - 1}`).toBe(-Errno.EINVAL);
        }
      });
      test('GET_INFO with argsz 16 writes 16 bytes', () => {
        const { words } = client.call(fd, Ioctl.DEVICE_GET_INFO, [16, 0, 0, 0, 0xdead, 0xbeef]);
        expect([...words.subarray(4)]).toEqual([0xdead, 0xbeef]);
      });
      test('a pointer to nothing is EFAULT in every call', () => {
        for (const number of [
          Ioctl.DEVICE_GET_INFO,
          Ioctl.DEVICE_GET_REGION_INFO,
          Ioctl.DEVICE_GET_IRQ_INFO,
          Ioctl.DEVICE_SET_IRQS,
          Ioctl.DEVICE_FEATURE,
        ])
          expect(task.ioctl(fd, number, NOWHERE)).toBe(-Errno.EFAULT);
      });
      test('an index beyond the last is EINVAL', () => {
        const { regions: count, irqs } = client.info(fd);
        expect(client.region(fd, count).result).toBe(-Errno.EINVAL);
        expect(client.region(fd, 0xffff_ffff).result).toBe(-Errno.EINVAL);
        expect(client.irq(fd, irqs).result).toBe(-Errno.EINVAL);
      });
      test('a region lies at its index << 40, and one that is not there has size 0 and no flags', () => {
        for (const region of regions()) {
          expect(region.offset).toBe(regionOffset(region.index));
          if (region.size === 0) expect(region.flags).toBe(0);
          else expect(region.flags & (RegionFlag.READ | RegionFlag.WRITE | RegionFlag.MMAP)).not.toBe(0);
        }
      });
      test('a capability chain that does not fit is announced by CAPS and argsz; with that argsz it is there, ends with 0, and stays inside', () => {
        for (const { index, size } of regions()) {
          if (size === 0) continue;
          const short = client.region(fd, index, 32);
          if (!(short.flags & RegionFlag.CAPS)) continue;
          expect(short.capOffset).toBe(0);
          expect(short.argsz).toBeGreaterThan(32);
          const full = client.region(fd, index, short.argsz);
          expect(full.capOffset).toBe(32);
          let steps = 0;
          for (let at = full.capOffset; at !== 0; steps++) {
            expect(at % 8).toBe(0);
            expect(at + 8).toBeLessThanOrEqual(short.argsz);
            expect(steps).toBeLessThan(16);
            at = task.readStruct(client.at + at, new Uint32Array(2))[1]!;
          }
        }
      });
      test('an unknown ioctl is ENOTTY', () => {
        for (const number of [0x3b64 + 50, 0, 0xffff_ffff]) expect(task.ioctl(fd, number, client.at)).toBe(-Errno.ENOTTY);
      });
      test('DEVICE_FEATURE: no method, unknown bits, GET with SET are EINVAL, an unknown feature is ENOTTY', () => {
        const feature = (flags: number, argsz = 8): number => client.call(fd, Ioctl.DEVICE_FEATURE, [argsz, flags]).result;
        expect(feature(1 << 16, 7)).toBe(-Errno.EINVAL);
        expect(feature(0)).toBe(-Errno.EINVAL);
        expect(feature(1 << 19)).toBe(-Errno.EINVAL);
        expect(feature(3 << 16)).toBe(-Errno.EINVAL);
        expect(feature((1 << 16) | 0xfff0)).toBe(-Errno.ENOTTY);
      });
    });

    describe('regions', () => {
      test('configuration space has a vendor, memory decoding, and no bus mastering when opened', () => {
        const { result, bytes } = client.pread(fd, 6, regionOffset(PciRegion.CONFIG));
        expect(result).toBe(6);
        expect(bytes[0]! | (bytes[1]! << 8)).not.toBe(0xffff);
        expect(bytes[4]! & 4).toBe(0);
      });
      test('the bus master bit can be set and cleared', () => {
        const at = regionOffset(PciRegion.CONFIG) + 4;
        const command = client.pread(fd, 1, at).bytes[0]!;
        for (const value of [command | 4, command & ~4]) {
          expect(client.pwrite(fd, Uint8Array.of(value), at)).toBe(1);
          expect(client.pread(fd, 1, at).bytes[0]! & 4).toBe(value & 4);
        }
      });
      test('a BAR register written with all ones reads its size', () => {
        for (const { index, size } of regions()) {
          if (index > PciRegion.BAR5 || size === 0) continue;
          const at = regionOffset(PciRegion.CONFIG) + 0x10 + index * 4;
          client.pwrite(fd, bytesOf([0xffff_ffff]), at);
          const low = new DataView(client.pread(fd, 4, at).bytes.buffer).getUint32(0, true);
          expect((~(low & ~0xf) >>> 0) + 1, `BAR ${index}`).toBe(size);
        }
      });
      test('a read across the end is cut there, one beyond it is refused', () => {
        for (const { index, size, offset, flags } of regions()) {
          if (size === 0 || !(flags & RegionFlag.READ)) continue;
          expect(client.pread(fd, 64, offset + size - 4).result, `region ${index}`).toBe(4);
          expect(client.pread(fd, 4, offset + size).result, `region ${index}`).toBeLessThan(0);
          expect(client.pwrite(fd, new Uint8Array(4), offset + size), `region ${index}`).toBeLessThan(0);
        }
      });
      test('regions that are not there, or beyond the last, are EINVAL', () => {
        const { regions: count } = client.info(fd);
        const absent = regions().filter((r) => r.size === 0);
        for (const offset of [regionOffset(count), ...absent.map((r) => r.offset)]) {
          expect(client.pread(fd, 4, offset).result).toBe(-Errno.EINVAL);
          expect(client.pwrite(fd, new Uint8Array(4), offset)).toBe(-Errno.EINVAL);
        }
      });
      test('the ROM cannot be written', () => {
        expect(client.pwrite(fd, new Uint8Array(4), regionOffset(PciRegion.ROM))).toBe(-Errno.EINVAL);
      });
      test('a buffer that is not there is EFAULT', () => {
        expect(task.pread(fd, NOWHERE, 4, regionOffset(PciRegion.CONFIG))).toBe(-Errno.EFAULT);
        expect(task.pwrite(fd, NOWHERE, 4, regionOffset(PciRegion.CONFIG))).toBe(-Errno.EFAULT);
      });
      test('mmap: shared only, MMAP regions only, within the region', () => {
        const map = (offset: number, length: number, flags: number = MapFlag.SHARED): number =>
          task.mmap(0, length, Prot.READ | Prot.WRITE, flags, fd, offset);
        expect(map(regionOffset(PciRegion.CONFIG), 4096)).toBe(-Errno.EINVAL);
        expect(map(regionOffset(PciRegion.ROM), 4096)).toBe(-Errno.EINVAL);
        expect(map(regionOffset(client.info(fd).regions), 4096)).toBe(-Errno.EINVAL);
        for (const { size, offset, flags } of regions()) {
          if (!(flags & RegionFlag.MMAP)) continue;
          expect(map(offset, size + 4096)).toBe(-Errno.EINVAL);
          expect(map(offset + size, 4096)).toBe(-Errno.EINVAL);
          expect(map(offset, 4096, MapFlag.PRIVATE)).toBe(-Errno.EINVAL);
        }
      });
    });

    describe('SET_IRQS', () => {
      test('MSI-X has its vectors and takes eventfds', () => {
        const { result, count, flags } = client.irq(fd, PciIrq.MSIX);
        expect([result, count]).toEqual([0, vectors]);
        expect(flags & IrqInfoFlag.EVENTFD).toBe(IrqInfoFlag.EVENTFD);
      });
      test.each<[rule: string, flags: number, index: number, start: number, count: (vectors: number) => number, data: number, argsz?: number]>([
        ['argsz covers the structure', TRIGGER_NOW, PciIrq.MSIX, 0, () => 0, 0, 19],
        ['the index exists', TRIGGER_NOW, 5, 0, () => 0, 0],
        ['start + count does not wrap', TRIGGER_NOW, PciIrq.MSIX, 1, () => 0xffff_ffff, 0],
        ['no unknown flag', TRIGGER_NOW | 64, PciIrq.MSIX, 0, () => 1, 0],
        ['start lies within the index', TRIGGER_NOW, PciIrq.MSIX, 0xffff, () => 0, 0],
        ['start + count lie within the index', TRIGGER_NOW, PciIrq.MSIX, 1, (n) => n, 0],
        ['one kind of data: none given', ACTION_TRIGGER, PciIrq.MSIX, 0, () => 1, 0],
        ['one kind of data: two given', TRIGGER_NOW | DATA_BOOL, PciIrq.MSIX, 0, () => 1, 4],
        ['argsz covers the eventfds', TRIGGER_FDS, PciIrq.MSIX, 0, () => 2, 7],
        ['argsz covers the bytes', DATA_BOOL | ACTION_TRIGGER, PciIrq.MSIX, 0, () => 2, 1],
      ])('EINVAL unless %s', (_rule, flags, index, start, count, data, argsz) => {
        expect(client.setIrqs(fd, flags, index, start, count(vectors), new Uint8Array(data), argsz)).toBe(-Errno.EINVAL);
      });
      test('an index without interrupts refuses every call, disabling too', () => {
        for (let index = 0; index < PCI_IRQS; index++)
          if (client.irq(fd, index).count === 0) expect(client.setIrqs(fd, TRIGGER_NOW, index, 0, 0), `index ${index}`).toBe(-Errno.EINVAL);
      });
      test('a descriptor that is not open is EBADF, one that is no eventfd is EINVAL', () => {
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, 1, fds(999))).toBe(-Errno.EBADF);
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, 1, fds(fd))).toBe(-Errno.EINVAL);
      });
      test('MSI-X vectors can be neither masked nor unmasked, and two actions fall in no case: ENOTTY', () => {
        for (const action of [ACTION_MASK, ACTION_UNMASK, ACTION_MASK | ACTION_TRIGGER])
          expect(client.setIrqs(fd, DATA_NONE | action, PciIrq.MSIX, 0, 1)).toBe(-Errno.ENOTTY);
      });
      test('enabled vectors signal their eventfd when triggered by the user, and only theirs', () => {
        const sinks = Array.from({ length: vectors }, () => client.eventfd());
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, vectors, fds(...sinks))).toBe(0);
        expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.MSIX, 1, 1)).toBe(0);
        expect(sinks.map((each) => client.count(each))).toEqual(sinks.map((_, i) => (i === 1 ? 1 : 0)));
        const chosen = Uint8Array.from(sinks, (_, i) => (i === 0 ? 1 : 0));
        expect(client.setIrqs(fd, DATA_BOOL | ACTION_TRIGGER, PciIrq.MSIX, 0, vectors, chosen)).toBe(0);
        expect(sinks.map((each) => client.count(each))).toEqual(sinks.map((_, i) => (i === 0 ? 1 : 0)));
      });
      test('-1 takes a vector out; a new descriptor replaces the old one', () => {
        const [a, b, c] = [client.eventfd(), client.eventfd(), client.eventfd()];
        client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, 2, fds(a, b));
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, 2, fds(c, -1))).toBe(0);
        expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.MSIX, 0, 2)).toBe(0);
        expect([a, b, c].map((each) => client.count(each))).toEqual([0, 0, 1]);
      });
      test('TRIGGER with no data and count 0 disables the index, which can be enabled again', () => {
        const sink = client.eventfd();
        for (let round = 0; round < 2; round++) {
          expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.MSIX, 0, 1, fds(sink))).toBe(0);
          expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.MSIX, 0, 0)).toBe(0);
          expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.MSIX, 0, 1)).toBe(-Errno.EINVAL);
        }
        expect(client.count(sink)).toBe(0);
      });
      test('REQ: set, loop back, clear; without a sink EINVAL', () => {
        if (client.irq(fd, PciIrq.REQ).count === 0) throw new Error('REQ has one interrupt on every PCI device');
        const sink = client.eventfd();
        expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.REQ, 0, 1)).toBe(-Errno.EINVAL);
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.REQ, 0, 1, fds(sink))).toBe(0);
        expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.REQ, 0, 1)).toBe(0);
        expect(client.setIrqs(fd, DATA_BOOL | ACTION_TRIGGER, PciIrq.REQ, 0, 1, Uint8Array.of(0))).toBe(0);
        expect(client.count(sink)).toBe(1);
        expect(client.setIrqs(fd, TRIGGER_FDS, PciIrq.REQ, 0, 1, fds(-1))).toBe(0);
        expect(client.setIrqs(fd, TRIGGER_NOW, PciIrq.REQ, 0, 1)).toBe(-Errno.EINVAL);
      });
      test('data that is not there is EFAULT', () => {
        const edge = task.alloc(4096) + 4096 - 20;
        const beyond = task.mmap(edge + 20, 4096, Prot.NONE, MapFlag.PRIVATE | MapFlag.ANONYMOUS | MapFlag.FIXED);
        expect(beyond).toBe(edge + 20);
        task.writeStruct(edge, Uint32Array.of(24, TRIGGER_FDS, PciIrq.MSIX, 0, 1));
        expect(task.ioctl(fd, Ioctl.DEVICE_SET_IRQS, edge)).toBe(-Errno.EFAULT);
      });
    });

    describe('life', () => {
      test('RESET works exactly with the RESET flag', () => {
        expect(task.ioctl(fd, Ioctl.DEVICE_RESET, 0)).toBe(client.info(fd).flags & DeviceFlag.RESET ? 0 : -Errno.EINVAL);
      });
      test('calls with random bytes answer, never throw, and leave the device usable', () => {
        let seed = 1;
        const random = (): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0);
        for (let round = 0; round < 500; round++) {
          const words = Array.from({ length: 10 }, () => (random() & 0x100 ? random() >>> (random() >>> 27) : random() % 40));
          const number = 0x3b64 + 7 + (random() % 14);
          expect(client.call(fd, number, words).result).toBeLessThanOrEqual(1000);
          expect(Number.isInteger(client.pread(fd, random() % 100, regionOffset(random() % 10) + (random() % 0x2_0000)).result)).toBe(true);
        }
        expect(client.info(fd).result).toBe(0);
        expect(client.pread(fd, 2, regionOffset(PciRegion.CONFIG)).result).toBe(2);
      });
      test('after close nothing answers, and the device can be opened again', () => {
        expect(task.close(fd)).toBe(0);
        expect(client.info(fd).result).toBe(-Errno.EBADF);
        fd = client.deviceFd(group, name);
        expect(client.info(fd).result).toBe(0);
      });
    });
  });
}
