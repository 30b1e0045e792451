/** Facts of VT-d scalable mode and of the iommufd user API: registers, structures, queue descriptors, fault reasons. No behaviour. */
export * from './capabilities.js';
export * from './faults.js';
export * as iommufd from './iommufd.js';
export * from './queue.js';
export * from './registers.js';
export * from './structures.js';
export * from './vfio-type1.js';
export * from './virtual-commands.js';
