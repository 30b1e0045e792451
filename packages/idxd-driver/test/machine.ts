import { Clock, Cpu, LocalApic } from '@siov/cpu';
import { IdxdDevice, type Profile } from '@siov/idxd-device';
import { ImsDomain, MsixDomain } from '@siov/ims-irq';
import { IommuDriver, IommuUnit } from '@siov/iommu';
import { Open, Prot } from '@siov/layout/uapi';
import { AddressSpace, FrameAllocator, PhysicalMemory } from '@siov/memory';
import { ECAM_BUS_BYTES, enumerate, type Mmio, PciRoot } from '@siov/pci-core';
import { Kernel, type Program, type UserTask } from '@siov/vfs';
import { type CdevOptions, type DeviceConfig, IdxdDriver, type PciDevice, userQueue, type Wq } from '../src/index.js';

const ECAM = 0xe000_0000;
const WINDOW = { base: 0xe100_0000, bytes: 0x1000_0000 };
const IOMMU = 0xfed9_0000;

export interface MachineOptions {
  readonly profile?: Profile;
  /** Absent: one dedicated queue of 16 entries. `undefined`: probed and not configured. */
  readonly config?: DeviceConfig | undefined;
  /** Hears of every access of the driver to registers and configuration space. */
  readonly access?: (access: string) => void;
  /** Between the driver and BAR 0. */
  readonly registers?: (mmio: Mmio) => Mmio;
}

/** Memory, a processor, a remapping unit and one DSA device, with a kernel and the driver on top: all through their public doors. */
export function machine(options: MachineOptions = {}) {
  const clock = new Clock();
  const memory = new PhysicalMemory();
  const ram = memory.addRam(0, 8192);
  const frames = new FrameAllocator(ram, 16, 8192);
  const cpu = new Cpu({ memory, clock });
  const apic = new LocalApic({ clock });
  const unit = new IommuUnit({ memory, sink: apic, clock });
  memory.addMmio(IOMMU / 4096, 4, unit);
  const root = new PciRoot({ map: memory, window: WINDOW });
  memory.addMmio(ECAM / 4096, ECAM_BUS_BYTES / 4096, root);
  const device = new IdxdDevice({ clock, ...(options.profile ? { profile: options.profile } : {}) });
  root.add(device.function, 1);
  device.connect(unit.requester(device.function.requesterId, device));

  const ioremap = (address: number): Mmio => ({
    read: (o, width) => memory.regionOf((address + o) >>> 12)?.device?.read(mmioOffset(memory, address + o), width) ?? 0xffff_ffff,
    write: (o, width, value) => memory.regionOf((address + o) >>> 12)?.device?.write(mmioOffset(memory, address + o), width, value),
  });
  const kernel = new Kernel({
    clock,
    cpu,
    newMm: () => new AddressSpace({ memory, frames, clock, flush: (r, p, n) => cpu.flush(r, p, n) }),
  });
  const iommu = new IommuDriver({ registers: ioremap(IOMMU), memory, frames, clock, vectors: apic });
  iommu.enable();
  const irqs = iommu.irqDomain();
  const bus = enumerate({ ecam: ioremap(ECAM), window: WINDOW, ioremap })[0]!;
  const bar0 = bus.bars.get(0)!;
  if (options.registers) bus.bars.set(0, { ...bar0, mmio: options.registers(bar0.mmio) });
  const pci = options.access ? recorded(bus, options.access) : bus;
  /** The kernel's own instructions on a portal, for write(). */
  const kernelSubmit: NonNullable<CdevOptions['submit']> = {
    movdir64b: (frame, offset, words) =>
      memory.regionOf(frame)!.device!.movdir64b!((frame - memory.regionOf(frame)!.firstFrame) * 4096 + offset, words, 0),
    enqcmds: (frame, offset, words) =>
      memory.regionOf(frame)!.device!.enqcmd!((frame - memory.regionOf(frame)!.firstFrame) * 4096 + offset, words, 0),
  };
  const driver = new IdxdDriver({
    submit: kernelSubmit,
    device: pci,
    clock,
    iommu,
    kernel,
    interrupts: {
      msix: (d, capability, bar) => new MsixDomain(irqs, d, capability, bar),
      ims: (slots, rid, size) => new ImsDomain(irqs, slots, rid, size),
    },
  });
  const probed = driver.probe();
  const config = 'config' in options ? options.config : { wqs: [{ mode: 'dedicated', size: 16, group: 0 } as const] };
  if (config) {
    const { why } = driver.configure(config);
    if (why) throw new RangeError(why);
  }

  const run = (): void => void clock.wait(() => false);
  const task = (program: Program = { step: () => 'wait' }): UserTask => kernel.spawn(program);
  const node = (wq: Wq = driver.wqs[0]!, cdev: CdevOptions = { submit: kernelSubmit }) => userQueue(driver, wq, cdev);
  return { clock, memory, frames, cpu, apic, unit, device, kernel, iommu, pci, driver, probed, run, task, node, kernelSubmit };
}

const mmioOffset = (memory: PhysicalMemory, address: number): number => address - memory.regionOf(address >>> 12)!.firstFrame * 4096;

/** The same function, its accesses said aloud: 'r4 0x90', 'w4 0xa0=0x500000', 'config w2 0x4=6'. */
function recorded(device: PciDevice, say: (access: string) => void): PciDevice {
  const hex = (n: number): string => `0x${(n >>> 0).toString(16)}`;
  const tell = (name: string, mmio: Mmio): Mmio => ({
    read(o, width) {
      say(`${name}r${width} ${hex(o)}`);
      return mmio.read(o, width);
    },
    write(o, width, value) {
      say(`${name}w${width} ${hex(o)}=${hex(value)}`);
      mmio.write(o, width, value);
    },
  });
  const config = tell('config ', { read: (o, w) => device.configRead(o, w), write: (o, w, v) => device.configWrite(o, w, v) });
  return {
    name: device.name,
    requesterId: device.requesterId,
    vendorId: device.vendorId,
    deviceId: device.deviceId,
    bars: new Map([...device.bars].map(([index, bar]) => [index, { ...bar, mmio: tell(index === 0 ? '' : `bar${index} `, bar.mmio) }])),
    configRead: (o, w) => config.read(o, w),
    configWrite: (o, w, v) => config.write(o, w, v),
    capability: (id) => device.capability(id),
    command(bits) {
      say(`command ${Object.keys(bits).join(' ')}`);
      device.command(bits);
    },
    functionLevelReset() {
      say('function level reset');
      device.functionLevelReset?.();
    },
    enableSva() {
      say('enable PASID, ATS, PRI');
      return device.enableSva();
    },
  };
}

/** Opens a user queue's node and maps its portal: fd and address. */
export function openPortal(task: UserTask, path: string): { fd: number; portal: number } {
  const fd = task.open(path, Open.RDWR);
  if (fd < 0) throw new RangeError(`open: ${fd}`);
  const portal = task.mmap(0, 4096, Prot.WRITE, 1 /* MAP_SHARED */, fd, 0);
  if (portal < 0) throw new RangeError(`mmap: ${portal}`);
  return { fd, portal };
}

/** sysfs of a machine, below the bus's devices, and the drivers' files. */
export function sysfsOf({ kernel: { sysfs } }: { kernel: Kernel }) {
  const path = (name: string): string => (name.startsWith('/') ? name : `/sys/bus/dsa/devices/${name}`);
  return {
    sysfs,
    get: (name: string): string | number => {
      const text = sysfs.read(path(name));
      return typeof text === 'string' ? text.replace(/\n$/, '') : text;
    },
    set: (name: string, text: string | number): number => Math.min(sysfs.write(path(name), `${text}\n`), 0),
    bind: (driver: string, name: string): number => Math.min(sysfs.write(`/sys/bus/dsa/drivers/${driver}/bind`, name), 0),
    unbind: (driver: string, name: string): number => Math.min(sysfs.write(`/sys/bus/dsa/drivers/${driver}/unbind`, name), 0),
  };
}
