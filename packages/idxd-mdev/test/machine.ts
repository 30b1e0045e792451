/** A host with one DSA device whose queues are of type mdev, VFIO, and a program that uses virtual devices by system calls. */
import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice } from '@siov/idxd-device';
import * as spec from '@siov/idxd-device/spec';
import { type DeviceConfig, IdxdDriver, type WqConfig } from '@siov/idxd-driver';
import { ImsDomain, MsixDomain } from '@siov/ims-irq';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { iommufd as iommufdUapi } from '@siov/iommu/spec';
import { hi, lo } from '@siov/layout';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { ECAM_BUS_BYTES, enumerate, type Mmio, PciRoot } from '@siov/pci-core';
import { VfioClient } from '@siov/testkit';
import { MdevBus, VfioCore } from '@siov/vfio-mdev';
import { Ioctl, IrqSetFlag, PciIrq, PciRegion, regionOffset } from '@siov/vfio-mdev/uapi';
import { EventFd, Kernel, type UserTask } from '@siov/vfs';
import { idxdMdevParent, TYPE_1DWQ } from '../src/index.js';

const ECAM = 0xe000_0000;
const WINDOW = { base: 0xe100_0000, bytes: 0x1000_0000 };
const IOMMU = 0xfed9_0000;
export const uuid = (n: number): string => `6f1d9a5e-0c4b-4f6d-9a56-8d6c3f1f4b${n.toString(16).padStart(2, '0')}`;
export const TYPE = `/sys/class/mdev_bus/0000:00:01.0/mdev_supported_types/idxd-${TYPE_1DWQ}`;
/** Tables of the virtual device's BAR 0. Linux' series, mdev.h. */
export const WQCFG = 0x500;
const MSIXPERM = 0x300;
const pair = (value: number): [number, number] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];
const mdev: WqConfig = { mode: 'dedicated', size: 16, group: 0, type: 'mdev' };

export function machine(options: { queues?: number; config?: DeviceConfig; wq?: Partial<WqConfig> } = {}) {
  const clock = new Clock();
  const memory = new PhysicalMemory();
  const frames = new FrameAllocator(memory.addRam(0, 8192), 16, 8192);
  const cpu = new Cpu({ memory, clock });
  const apic = new LocalApic({ clock });
  const unit = new IommuUnit({ memory, sink: apic, clock });
  memory.addMmio(IOMMU / 4096, 4, unit);
  const root = new PciRoot({ map: memory, window: WINDOW });
  memory.addMmio(ECAM / 4096, ECAM_BUS_BYTES / 4096, root);
  const hardware = new IdxdDevice({ clock });
  root.add(hardware.function, 1);
  hardware.connect(unit.requester(hardware.function.requesterId, hardware));

  const ioremap = (address: number): Mmio => {
    const at = (o: number) => memory.regionOf((address + o) >>> 12)!;
    const offset = (o: number): number => address + o - at(o).firstFrame * 4096;
    return { read: (o, w) => at(o).device!.read(offset(o), w), write: (o, w, v) => at(o).device!.write(offset(o), w, v) };
  };
  const newMm = () => new AddressSpace({ memory, frames, clock, flush: (r, p, n) => cpu.flush(r, p, n) });
  const kernel = new Kernel({ clock, cpu, newMm });
  const iommu = new IommuDriver({ registers: ioremap(IOMMU), memory, frames, clock, vectors: apic });
  iommu.enable();
  kernel.register('/dev/iommu', iommu.iommufd);
  const irqs = iommu.irqDomain();
  const driver = new IdxdDriver({
    device: enumerate({ ecam: ioremap(ECAM), window: WINDOW, ioremap })[0]!,
    clock,
    iommu,
    kernel,
    interrupts: {
      msix: (d, capability, bar) => new MsixDomain(irqs, d, capability, bar),
      ims: (slots, rid, size) => new ImsDomain(irqs, slots, rid, size),
    },
  });
  driver.probe();
  const wqs = Array.from({ length: options.queues ?? 1 }, () => ({ ...mdev, ...options.wq }));
  const { why } = driver.configure(options.config ?? { wqs });
  if (why) throw new RangeError(why);
  // The device's PASID table keeps the leaf table that it needed once; so a count of frames after this can come back to what it was.
  const domain = iommu.pagingDomain();
  iommu.attachPasid(hardware.function.requesterId, 1, domain);
  iommu.detachPasid(hardware.function.requesterId, 1);
  domain.free();

  const core = new VfioCore({
    kernel,
    iommufd: { contextOf: (file) => iommu.iommufd.contextOf(file as never) },
    iommu: { pagingDomain: () => iommu.pagingDomain() },
    isEventFd: (file) => (file instanceof EventFd ? file : undefined),
  });
  const bus = new MdevBus({ core, kernel });
  const parent = idxdMdevParent({ driver, iommu });
  const registered = bus.registerParent(parent);
  const task = (): UserTask => kernel.spawn({ step: () => 'wait' });
  const create = (n = 0): number => kernel.sysfs.write(`${TYPE}/create`, uuid(n));
  const nodes = (n = 0) => bus.find(uuid(n))!.nodes;
  return { clock, memory, frames, cpu, unit, hardware, kernel, iommu, driver, bus, parent, registered, task, create, nodes };
}
export type Machine = ReturnType<typeof machine>;

/** A program that has virtual device `n` open in a container, the way that needs the fewest calls; registers by name. */
export function opened(m: Machine = machine(), n = 0) {
  if (!m.parent.devices.has(uuid(n))) m.create(n);
  const vdev = m.parent.devices.get(uuid(n))!;
  const task = m.task();
  const client = new VfioClient(task);
  const files = client.openInContainer(m.nodes(n).group, uuid(n));
  return { ...m, vdev, ...files, ...user(m, task, client, files.device) };
}

/** What a program does with an open virtual device. */
function user(m: Pick<Machine, 'clock'>, task: UserTask, client: VfioClient, fd: number) {
  const bar0 = regionOffset(PciRegion.BAR0);
  const config = regionOffset(PciRegion.CONFIG);
  const read = (offset: number, at = bar0): number => {
    const { result, bytes } = client.pread(fd, 4, at + offset);
    if (result !== 4) throw new RangeError(`pread at 0x${offset.toString(16)}: ${result}`);
    return new Uint32Array(bytes.buffer)[0]!;
  };
  const write = (offset: number, value: number, at = bar0): number => client.pwrite(fd, new Uint8Array(Uint32Array.of(value).buffer), at + offset);
  const words = (offset: number, bytes: number): Uint32Array => Uint32Array.from({ length: bytes / 4 }, (_, i) => read(offset + i * 4));
  const configWrite = (offset: number, value: number): number => client.pwrite(fd, Uint8Array.of(value & 0xff, value >>> 8), config + offset);
  /** Status and result of an administrative command. */
  const command = (code: number, operand = 0, interrupt = 0): { error: number; result: number } => {
    const word = new Uint32Array(1);
    spec.Cmd.set.code(word, 0, code);
    spec.Cmd.set.operand(word, 0, operand);
    spec.Cmd.set.interrupt(word, 0, interrupt);
    write(spec.Register.cmd, word[0]!);
    const status = Uint32Array.of(read(spec.Register.cmdSts));
    if (spec.CmdSts.get.active(status, 0)) throw new Error('the command is still active');
    return { error: spec.CmdSts.get.error(status, 0), result: spec.CmdSts.get.result(status, 0) };
  };
  const busMaster = (on: boolean): number => configWrite(4, on ? 6 : 2);
  const enable = (): number => {
    busMaster(true);
    return command(spec.Command.enableDevice).error;
  };
  /** Two eventfds, for vectors 0 and 1. */
  const eventFds = (): [number, number] => {
    const fds: [number, number] = [client.eventfd(), client.eventfd()];
    const flags = IrqSetFlag.DATA_EVENTFD | IrqSetFlag.ACTION_TRIGGER;
    if (client.setIrqs(fd, flags, PciIrq.MSIX, 0, 2, Int32Array.from(fds)) !== 0) throw new Error('SET_IRQS');
    return fds;
  };
  const state = (): number => spec.GenSts.get.state(Uint32Array.of(read(spec.Register.genSts)), 0);
  const run = (): void => void m.clock.wait(() => false);
  return { task, client, fd, bar0, config, read, write, words, configWrite, command, busMaster, enable, eventFds, state, run };
}

/** The parent's own WQCFG of a queue, and an IMS slot, as its registers have them. */
export function hostWords(m: Pick<Machine, 'hardware'>, table: 'wqConfig' | 'ims', index: number): Uint32Array {
  const bar0 = m.hardware.function.barMmio(0)!;
  const words = (at: number, bytes: number): Uint32Array => Uint32Array.from({ length: bytes / 4 }, (_, i) => bar0.read(at + i * 4, 4));
  const base = spec.TableOffsets.get[table](words(spec.Register.offsets, 16), 0) * spec.TABLE_UNIT;
  const stride = table === 'ims' ? 16 : 32 << spec.WqCap.get.configSize(words(spec.Register.wqCap, 8), 0);
  return words(base + index * stride, stride);
}

interface Work {
  readonly opcode?: number;
  readonly flags?: number;
  readonly handle?: number;
  readonly source?: number;
  readonly destination?: number;
  readonly size?: number;
  readonly record?: number;
}
const { recordAddressValid, requestRecord, requestInterrupt } = spec.Flag;

/**
 * A program that has virtual device `n` bound to an iommufd, as a VMM does: an address space with its arena at the arena's own address is
 * attached to the device, and others can be to PASIDs.
 */
export function bound(m: Machine = machine(), n = 0, task: UserTask = m.task()) {
  if (!m.parent.devices.has(uuid(n))) m.create(n);
  const vdev = m.parent.devices.get(uuid(n))!;
  const client = new VfioClient(task);
  const iommufd = task.open('/dev/iommu', 2);
  const fd = task.open(m.nodes(n).cdev, 2);
  const must = (number: number, words: readonly number[], at = fd): Uint32Array => {
    const { result, words: answer } = client.call(at, number, words);
    if (result < 0) throw new RangeError(`ioctl 0x${number.toString(16)}: ${result}`);
    return answer;
  };
  must(Ioctl.DEVICE_BIND_IOMMUFD, [16, 0, iommufd, 0]);
  /** A new address space in which `bytes` of this program's memory lie at `iova` (default: at their own address). Its id. */
  const space = (address?: number, bytes = 4096, iova = address ?? 0): number => {
    const id = must(iommufdUapi.IommufdIoctl.IOAS_ALLOC, [12, 0, 0], iommufd)[2]!;
    if (address !== undefined) must(iommufdUapi.IommufdIoctl.IOAS_MAP, [40, 7, id, 0, ...pair(address), ...pair(bytes), ...pair(iova)], iommufd);
    return id;
  };
  /** 0 or -errno. `pasid` -1: the device itself. */
  const attach = (id: number, pasid = -1): number =>
    client.call(fd, Ioctl.DEVICE_ATTACH_IOMMUFD_PT, pasid < 0 ? [12, 0, id] : [16, 1, id, pasid]).result;
  const detach = (pasid = -1): number => client.call(fd, Ioctl.DEVICE_DETACH_IOMMUFD_PT, pasid < 0 ? [8, 0] : [12, 1, pasid]).result;
  const arena = task.alloc(0x4000);
  const arenaSpace = space(arena, 0x4000);
  attach(arenaSpace);
  const portal = task.mmap(0, 0x2000, Prot.READ | Prot.WRITE, MapFlag.SHARED, fd, regionOffset(PciRegion.BAR2));
  const u = user(m, task, client, fd);

  /** Writes a descriptor to a portal page and lets the device work. The record's status, 0 when there is none. */
  const submit = (work: Work, page = 0): number => {
    const words = new Uint32Array(16);
    const { set } = spec.Descriptor;
    const record = work.record ?? arena;
    set.opcode(words, 0, work.opcode ?? spec.Opcode.nop);
    set.flags(words, 0, work.flags ?? recordAddressValid | requestRecord | (work.handle === undefined ? 0 : requestInterrupt));
    set.interruptHandle(words, 0, work.handle ?? 0);
    for (const [low, high, value] of [
      ['recordLow', 'recordHigh', record],
      ['sourceLow', 'sourceHigh', work.source ?? 0],
      ['destinationLow', 'destinationHigh', work.destination ?? 0],
    ] as const) {
      set[low](words, 0, value % 2 ** 32);
      set[high](words, 0, Math.floor(value / 2 ** 32));
    }
    set.size(words, 0, work.size ?? 0);
    task.writeStruct(arena, new Uint32Array(8));
    task.writeStruct(arena + 0x1000, words);
    const [to, from] = [portal + page * 4096, arena + 0x1000];
    task.movdir64b(hi(to), lo(to), hi(from), lo(from));
    u.run();
    return task.readStruct(arena, new Uint8Array(1))[0]!;
  };
  /** Device on, and the queue: with a guest PASID, or the device's default. The command's status. */
  const queueOn = (pasid = -1): number => {
    if (u.state() !== spec.GenSts.is.state.enabled) u.enable();
    const word = Uint32Array.of(0, 0, u.read(WQCFG + 8));
    spec.WqCfg.set.pasid(word, 0, Math.max(pasid, 0));
    spec.WqCfg.set.pasidEnable(word, 0, pasid < 0 ? 0 : 1);
    u.write(WQCFG + 8, word[2]!);
    return u.command(spec.Command.enableWq).error;
  };
  /** A handle of vector 1 for a guest PASID, or the default. */
  const handle = (pasid = -1): { error: number; result: number } => {
    const word = new Uint32Array(2);
    spec.MsixPermission.set.pasid(word, 0, Math.max(pasid, 0));
    spec.MsixPermission.set.pasidEnable(word, 0, pasid < 0 ? 0 : 1);
    u.write(MSIXPERM + 8, word[0]!);
    return u.command(spec.Command.requestInterruptHandle, 1);
  };
  const swError = () => spec.SwError.json(u.words(spec.Register.swError, 32), 0);
  return { ...m, vdev, ...u, iommufd, space, attach, detach, arena, arenaSpace, portal, submit, queueOn, handle, swError };
}
