/**
 * Recipe: whole functions for user space through VFIO, as vfio-pci binds them: a device node, a group, and what sysfs says of both. Pulls in no
 * uacce and no VMM. Linux, drivers/vfio/pci/vfio_pci.c; Documentation/driver-api/vfio.rst.
 */
import { MsixDomain } from '@siov/ims-irq';
import { NO_PASID } from '@siov/layout/pcie';
import type { PciDevice } from '@siov/pci-core';
import { type Type1Options, VfioCore, type VfioNodes, VfioPciDevice } from '@siov/vfio-mdev';
import { EventFd } from '@siov/vfs';
import type { Host } from './host.js';

/** Capability id of MSI-X. PCI Local Bus 3.0, 6.8.2. */
const MSIX = 0x11;
/** Of a function's directory in sysfs. */
const PCI_DEVICES = '/sys/bus/pci/devices';
const PCI_DRIVERS = '/sys/bus/pci/drivers';

/** VFIO of a host's kernel: /dev/vfio/vfio, and what is bound later. Registers that other drivers mapped can be mapped for DMA too. */
export function vfioOf({ kernel, memory }: Host, type1: Type1Options = {}): VfioCore {
  return new VfioCore({
    kernel: kernel.user,
    iommufd: { contextOf: (file) => kernel.iommu.iommufd.contextOf(file as never) },
    iommu: { pagingDomain: () => kernel.iommu.pagingDomain() },
    isEventFd: (file) => (file instanceof EventFd ? file : undefined),
    type1: { isDevice: (frame) => memory.regionOf(frame)?.kind === 'mmio', ...type1 },
  });
}

export interface BoundVfioPci extends VfioNodes {
  /** '0000:00:01.0' */
  readonly name: string;
  /** The function's directory below /sys/devices. */
  readonly sysfsPath: string;
  readonly device: VfioPciDevice;
}

/** Binds vfio-pci to a function that nothing is bound to. */
export function bindVfioPci({ kernel }: Host, core: VfioCore, fn: PciDevice): BoundVfioPci {
  const { iommu } = kernel;
  const { requesterId, name } = fn;
  fn.command({ memory: true });
  iommu.addDevice(requesterId, fn.enableSva());
  const capability = fn.capability(MSIX);
  const table = capability ? fn.bars.get(fn.configRead(capability + 4, 4) & 7) : undefined;
  const msix = table && new MsixDomain(kernel.interrupts, fn, capability, table.mmio);
  const device = new VfioPciDevice({
    name,
    fn: {
      requesterId,
      configRead: (offset, width) => fn.configRead(offset, width),
      configWrite: (offset, width, value) => fn.configWrite(offset, width, value),
      barBytes: (bar) => fn.bars.get(bar)?.bytes ?? 0,
      barMmio: (bar) => fn.bars.get(bar)?.mmio,
      barAddress: (bar) => fn.bars.get(bar)?.address ?? -1,
      functionLevelReset: () => fn.functionLevelReset(),
    },
    interrupts: { alloc: (vector, handler) => msix?.alloc(handler, vector) },
    iommu: {
      attach(domain, pasid) {
        if (pasid === NO_PASID) return iommu.attach(requesterId, domain as never);
        iommu.detachPasid(requesterId, pasid);
        return iommu.attachPasid(requesterId, pasid, domain as never);
      },
      detach(pasid) {
        if (pasid === NO_PASID) iommu.attach(requesterId, undefined);
        else iommu.detachPasid(requesterId, pasid);
      },
    },
  });
  const sysfsPath = showPciFunction(kernel.user.sysfs, fn, 'vfio-pci');
  const nodes = core.add(device, sysfsPath);
  const group = `/sys/kernel/iommu_groups/${nodes.group.slice('/dev/vfio/'.length)}`;
  kernel.user.sysfs.add(`${group}/type`, { show: () => 'DMA\n' });
  kernel.user.sysfs.add(`${group}/reserved_regions`, { show: () => '0x00000000fee00000 0x00000000feefffff msi\n' });
  return Object.assign(nodes, { name, sysfsPath, device });
}

/** A function as the PCI bus shows it in sysfs; its directory. Documentation/ABI/testing/sysfs-bus-pci. */
export function showPciFunction(sysfs: Host['kernel']['user']['sysfs'], fn: PciDevice, driver: string): string {
  const path = `/sys/devices/pci0000:00/${fn.name}`;
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  const at = (offset: number, width: number): string => `0x${hex(fn.configRead(offset, width), width * 2)}\n`;
  const id = (offset: number): string => hex(fn.configRead(offset, 2), 8).toUpperCase();
  const byte = (offset: number): string => hex(fn.configRead(offset, 1), 2).toUpperCase();
  const alias = (): string => `pci:v${id(0)}d${id(2)}sv${id(0x2c)}sd${id(0x2e)}bc${byte(0x0b)}sc${byte(0x0a)}i${byte(0x09)}\n`;
  /** Of memory, 64 bits wide, as include/linux/ioport.h has it. */
  const resource = (bar: number): string => {
    const { address = 0, bytes = 0 } = fn.bars.get(bar) ?? {};
    const flags = bytes > 0 ? 0x140204 : 0;
    return [address, bytes > 0 ? address + bytes - 1 : 0, flags].map((value) => `0x${hex(value, 16)}`).join(' ');
  };
  const attributes: Readonly<Record<string, () => string>> = {
    vendor: () => at(0, 2),
    device: () => at(2, 2),
    revision: () => at(8, 1),
    class: () => `0x${hex(fn.configRead(8, 4) >>> 8, 6)}\n`,
    subsystem_vendor: () => at(0x2c, 2),
    subsystem_device: () => at(0x2e, 2),
    irq: () => '0\n',
    numa_node: () => '-1\n',
    enable: () => '1\n',
    modalias: alias,
    resource: () => `${Array.from({ length: 6 }, (_, bar) => resource(bar)).join('\n')}\n`,
    uevent: () => `DRIVER=${driver}\nPCI_SLOT_NAME=${fn.name}\nMODALIAS=${alias()}`,
  };
  for (const [attribute, show] of Object.entries(attributes)) sysfs.add(`${path}/${attribute}`, { show });
  sysfs.link(`${path}/driver`, `${PCI_DRIVERS}/${driver}`);
  sysfs.link(`${PCI_DRIVERS}/${driver}/${fn.name}`, path);
  sysfs.link(`${PCI_DEVICES}/${fn.name}`, path);
  return path;
}
