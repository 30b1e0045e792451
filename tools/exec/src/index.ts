/**
 * Unmodified programs on the simulated device: a preload shim carries their system calls, stores and waits to a server, which is the model's
 * own kernel with the processes' memory as its address spaces. Sources: Documentation/ABI/stable/sysfs-driver-dma-idxd, Linux
 * drivers/dma/idxd/cdev.c, Intel SDM 2 (MOVDIR64B, ENQCMD, UMWAIT).
 */
export type { ServerCounts } from './accesses.js';
export { type Injections, injectionHelp, parseInjections } from './inject.js';
export { buildMachine, deviceDrivers, deviceProfiles, type Machine, MachineError, type MachineOptions } from './machine.js';
export { type Native, NativeMissingError, native } from './native.js';
export { type Ending, environment, type RunOptions, runProgram, type Started, start } from './run.js';
export { ExecServer, type ServerOptions } from './server.js';
export { compileShim, ShimError } from './shim.js';
export { type OperationCount, Watch } from './watch.js';
