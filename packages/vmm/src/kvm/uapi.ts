/** The KVM user API, as far as it is here: ioctl numbers, structures, flags and limits. linux/kvm.h; Documentation/virt/kvm/api.rst. */
import { layout } from '@siov/layout';
import { io, iow } from '@siov/layout/uapi';

const number = (n: number): number => io('\xae', n);
const write = (n: number, bytes: number): number => iow('\xae', n, bytes);

/** struct kvm_userspace_memory_region. */
export const MemoryRegion = /* @__PURE__ */ layout('kvm_userspace_memory_region', 32, {
  0: { slot: '31:0' },
  4: { flags: '31:0' },
  8: { guestLow: '31:0', guestHigh: '63:32' },
  16: { sizeLow: '31:0', sizeHigh: '63:32' },
  24: { userLow: '31:0', userHigh: '63:32' },
});
/** struct kvm_irq_routing, followed by `count` entries. */
export const IrqRouting = /* @__PURE__ */ layout('kvm_irq_routing', 8, { 0: { count: '31:0' }, 4: { flags: '31:0' } });
/** struct kvm_irq_routing_entry, with the message of an MSI. */
export const RoutingEntry = /* @__PURE__ */ layout('kvm_irq_routing_entry', 48, {
  0: { gsi: '31:0' },
  4: { type: '31:0' },
  8: { flags: '31:0' },
  12: { pad: '31:0' },
  16: { addressLow: '31:0', addressHigh: '63:32' },
  24: { data: '31:0', deviceId: '63:32' },
});
/** struct kvm_irqfd. */
export const Irqfd = /* @__PURE__ */ layout('kvm_irqfd', 32, {
  0: { fd: '31:0' },
  4: { gsi: '31:0' },
  8: { flags: '31:0' },
  12: { resampleFd: '31:0' },
});
/** struct kvm_msi. */
export const Msi = /* @__PURE__ */ layout('kvm_msi', 32, {
  0: { addressLow: '31:0' },
  4: { addressHigh: '31:0' },
  8: { data: '31:0' },
  12: { flags: '31:0' },
  16: { deviceId: '31:0' },
});

export const KvmIoctl = {
  GET_API_VERSION: number(0x00),
  CREATE_VM: number(0x01),
  CHECK_EXTENSION: number(0x03),
  // VM
  CREATE_VCPU: number(0x41),
  SET_USER_MEMORY_REGION: write(0x46, MemoryRegion.bytes),
  SET_GSI_ROUTING: write(0x6a, IrqRouting.bytes),
  IRQFD: write(0x76, Irqfd.bytes),
  SIGNAL_MSI: write(0xa5, Msi.bytes),
} as const;
/** By number, for counters. */
export const kvmIoctlNames: Readonly<Record<number, string>> = /* @__PURE__ */ Object.fromEntries(
  Object.entries(KvmIoctl).map(([name, value]) => [value, `KVM_${name}`]),
);

export const API_VERSION = 12;
/** Arguments of CHECK_EXTENSION. */
export const Capability = {
  USER_MEMORY: 3,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  IRQ_ROUTING: 25,
  IRQFD: 32,
  MAX_VCPUS: 66,
  SIGNAL_MSI: 77,
  READONLY_MEM: 81,
} as const;
export const MemoryFlag = { LOG_DIRTY_PAGES: 1, READONLY: 2 } as const;
export const RoutingType = { IRQCHIP: 1, MSI: 2 } as const;
export const MSI_VALID_DEVID = 1;
export const IrqfdFlag = { DEASSIGN: 1, RESAMPLE: 2 } as const;

/** KVM_USER_MEM_SLOTS on x86: 32767 and three that the kernel keeps. */
export const MAX_MEMSLOTS = 32_764;
/** KVM_MAX_IRQ_ROUTES. */
export const MAX_ROUTES = 4096;
export const MAX_VCPUS = 255;
