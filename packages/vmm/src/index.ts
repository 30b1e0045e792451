/**
 * A small virtual machine monitor. `Kvm` is the kernel's part: VMs with an EPT over the memory of the process that made them, exits, PASID
 * translation, irqfds. `Vmm` is the program's part: guest memory, a guest PCI bus with devices assigned through VFIO, a virtual IOMMU.
 * Intel SDM 3C; linux/kvm.h, linux/vfio.h, linux/iommufd.h.
 */
export { GuestFrames } from './guest-frames.js';
export { Counter, type VmCosts } from './kvm/counters.js';
export type { GuestMemory } from './kvm/guest-memory.js';
export { Kvm, type KvmOptions } from './kvm/kvm.js';
export * as kvm from './kvm/uapi.js';
export type { GuestHooks, MmioExit, Vcpu, Vm, VmPorts } from './kvm/vm.js';
export type * from './ports.js';
export { AssignedDevice } from './user/assigned.js';
export { VmmError } from './user/calls.js';
export { GuestMap, type Refusal, Vmm, type VmmOptions } from './user/vmm.js';
