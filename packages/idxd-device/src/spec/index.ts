/** Facts of DSA: registers, tables, commands, descriptors, records. No behaviour. */
export * from './commands.js';
export * from './descriptor.js';
export * from './registers.js';
